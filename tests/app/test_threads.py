"""Synchronous nodes and tools run in threads, and none of them waits for a thread that another one keeps."""

from __future__ import annotations

import asyncio
import threading
from pathlib import Path
from typing import Any

import pytest
from langgraph.graph import START, StateGraph
from langgraph.types import Send
from tests.outside import State, chain, job

from eventwright.app.composition import open_app
from eventwright.app.settings import Settings
from eventwright.app.simulate import simulate
from eventwright.guardrails.policy import Policy
from eventwright.runs.event import Event, new_id
from eventwright.runs.states import RunState
from eventwright.tools.contract import Call, tool

#: asyncio has by itself at most 32 threads. What waits so long for the others waits in vain.
MANY, IN_VAIN = 60, 30.0


@pytest.fixture
def together() -> threading.Barrier:
    """Nobody goes on before all have come; one that has come waits in its thread."""
    return threading.Barrier(MANY, timeout=IN_VAIN)


async def test_synchronous_nodes_of_many_runs_are_all_at_work_at_once(
    tmp_path: Path, together: threading.Barrier
) -> None:
    def meets(state: State) -> dict[str, Any]:
        together.wait()
        return {"log": ["met"]}

    settings = Settings(home=tmp_path, redis_url="none", concurrency=MANY)
    async with open_app(settings, workflows=[job(chain(meets=meets))], works=True) as app:
        events = [Event(id=new_id("e"), source="/test", type="job", data={"log": []}) for _ in range(MANY)]
        runs = [(await app.engine.receive(event)).runs[0].id for event in events]
        states = await asyncio.gather(*(app.engine.advance(run_id) for run_id in runs))
    assert set(states) == {RunState.COMPLETED}


async def test_synchronous_nodes_that_all_wait_for_synchronous_tools_do_not_keep_the_threads_from_them() -> None:
    side_by_side = 12
    together = threading.Barrier(side_by_side, timeout=IN_VAIN)

    @tool(name="slow.look", trusted=True)
    def look(n: int, *, call: Call) -> int:
        """Look, and wait until all look."""
        together.wait()
        return n

    def looks(state: Any) -> dict[str, Any]:
        together.wait()
        return {"log": [look.from_thread(state["n"])]}

    graph: StateGraph[Any, Any, Any, Any] = StateGraph(State)
    graph.add_node("looks", looks)
    graph.add_conditional_edges(START, lambda state: [Send("looks", {"n": n}) for n in range(side_by_side)], ["looks"])
    async with simulate(job(graph, {"looks": Policy(tools=[look])}), {"log": []}) as run:
        assert (await run.run()).state is RunState.COMPLETED, (await run.run()).error
        assert sorted((await run.values())["log"]) == list(range(side_by_side))
