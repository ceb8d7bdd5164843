"""The example on the page about systems outside does what the page says."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any, TypedDict

from langgraph.graph import START, StateGraph

from eventwright.app.simulate import simulate
from eventwright.runs.states import RunState
from eventwright.sdk import On, Policy, Workflow

PAGE = (Path(__file__).parents[2] / "docs/models.md").read_text()


class State(TypedDict, total=False):
    number: str
    place: str


async def test_a_tool_of_your_own_waits_for_its_system_as_the_page_says() -> None:
    (code,) = re.findall(r"<!-- example -->\n```python\n(.*?)```", PAGE, flags=re.DOTALL)
    example: dict[str, Any] = {"__name__": "parcels"}
    exec(compile(code, "docs/models.md", "exec"), example)  # noqa: S102 - it is our own page

    class Away(example["Parcels"]):  # type: ignore[name-defined,misc]
        asked = 0

        async def place_of(self, number: str) -> str:
            type(self).asked += 1
            if type(self).asked <= 4:
                raise ConnectionRefusedError(number)
            return str(await super().place_of(number))

    async def find(state: State) -> State:
        return {"place": await example["where_is"](state["number"])}

    graph = StateGraph(State)
    graph.add_node("find", find)
    graph.add_edge(START, "find")
    policies = {"find": Policy(tools=[example["where_is"]], retries=2)}
    workflow = Workflow("parcels", version="1", graph=graph, triggers=[On("asked")], policies=policies)
    async with simulate(workflow, {"number": "7"}, resources=[Away()]) as run:
        done = await run.run()
        assert (done.state, done.attempts) == (RunState.COMPLETED, 3)
        assert (await run.values())["place"] == "on its way"
        waits = [entry.data["error"] for entry in await run.journal() if entry.data.get("to") == "waiting"]
        assert waits == ["parcels.example.com is down"] * 2
