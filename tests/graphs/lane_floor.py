"""Where the tests of narrow workers are: workers of one lane each, and a run that comes from one to the next."""

from __future__ import annotations

from typing import Any

from langgraph.graph import START, StateGraph
from tests.outside import State, World

from eventwright.app.simulate import Simulation
from eventwright.graphs.runner import Runner
from eventwright.graphs.workflow import Workflow, Workflows
from eventwright.guardrails.policy import Policy
from eventwright.queue.engine import Engine
from eventwright.runs.records import JournalKind
from eventwright.runs.states import RunState

LLM, IO = Policy(lane="llm"), Policy(lane="io")


class Floor:
    """Workers of one lane each, and what was done on which of them."""

    def __init__(self, world: World) -> None:
        self.world = world
        #: (node, lane of the worker) in the order in which they were done.
        self.done: list[tuple[str, str]] = []
        #: The lanes that the run came through, segment by segment.
        self.way: list[str] = []
        self.lane = ""
        self._workers: dict[str, Engine] = {}

    def worker(self, *lanes: str, workflow: Workflow) -> Engine:
        runner = Runner(self.world.store, self.world.resources, lanes=lanes)
        return Engine(self.world.store, Workflows([workflow]), runner, worker=f"worker of {' and '.join(lanes)}")

    def node(self, name: str) -> Any:
        """A node that says where it was done."""

        async def node(state: Any) -> dict[str, Any]:
            self.done.append((name, self.lane))
            return {"log": [name]}

        return node

    async def send(self, workflow: Workflow) -> Simulation:
        self._workers = {lane: self.worker(lane, workflow=workflow) for lane in workflow.lanes}
        return await self.world.send(workflow)

    async def step(self, run: Simulation) -> RunState | None:
        """One segment, on the worker of the lane that the run is in."""
        due = dict(await self.world.store.due_runs(limit=10))
        if run.run_id not in due:
            return None
        self.lane = due[run.run_id]
        self.way.append(self.lane)
        return await self._workers[self.lane].advance(run.run_id)

    async def go_on(self, run: Simulation, *, most: int = 12) -> RunState:
        """Segments until nothing is due; a run that is passed on for ever is a failure."""
        for _ in range(most):
            if await self.step(run) is None:
                return (await run.run()).state
        raise AssertionError(f"the run came through {self.way} and does not rest")

    def where(self) -> dict[str, str]:
        """On which lane each node was done, none of them twice."""
        assert len(dict(self.done)) == len(self.done), self.done
        return dict(self.done)


def beside(**nodes: Any) -> StateGraph[Any, Any, Any, Any]:
    """A graph of these nodes, all at once, and then the end."""
    graph: StateGraph[Any, Any, Any, Any] = StateGraph(State)
    graph.add_node("end", lambda state: {"n": len(state["log"])})
    for name, node in nodes.items():
        graph.add_node(name, node)
        graph.add_edge(START, name)
    graph.add_edge(list(nodes), "end")
    return graph


def handed_over(journal: list[Any]) -> list[str]:
    """The lanes that the run was handed over to, as the journal tells it."""
    return [entry.data["lane"] for entry in journal if entry.kind is JournalKind.TRANSITION and "lane" in entry.data]
