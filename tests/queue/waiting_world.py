"""Where the tests of waiting are: runs that wait to be paid, and a bank that says so."""

from __future__ import annotations

from datetime import datetime, timedelta
from typing import Any

from langgraph.graph import START, StateGraph
from pydantic import BaseModel
from tests.outside import State, World, chain, job

from eventwright.app.simulate import SimulatedClock, Simulation
from eventwright.graphs.waiting import Continues, wait_for
from eventwright.graphs.workflow import On
from eventwright.queue.intake import Receipt
from eventwright.runs.event import Event, new_id
from eventwright.runs.states import RunState
from eventwright.runs.waits import WaitState, waits_of

DAY = timedelta(days=1)


class Paid(BaseModel):
    invoice_id: str | int
    amount: str = "10"


async def waits(state: Any) -> dict[str, Any]:
    """Three days, for invoice 7."""
    return {"log": [amount(await wait_for("paid", key="7", within=3 * DAY))]}


def amount(event: Event | None) -> str:
    return "nothing" if event is None else event.data["amount"]


def paying(*nodes: Any, graph: Any = None, version: str = "1", policies: Any = None, **more: Any) -> Any:
    """A workflow of these nodes, whose runs may wait for payments and for replies."""
    triggers = [
        On("job", trusted=True),
        Continues("paid", payload={"1": Paid}, key="invoice_id", **more),
        Continues("replied", key=lambda event: event.subject),
    ]
    graph = graph or chain(**{f"node{number}": node for number, node in enumerate(nodes or (waits,))})
    return job(graph, policies, version=version, triggers=triggers)


async def pays(world: World, amount: str = "10", *, key: Any = "7", **more: Any) -> Receipt:
    data = {"invoice_id": key, "amount": amount}
    given = {"id": new_id("e"), "source": "/bank", "type": "paid", "data": data} | more
    return await world.engine.receive(Event(**given))


async def replies(world: World, subject: str = "7") -> Receipt:
    return await world.engine.receive(
        Event(id=new_id("e"), source="/mail", type="replied", subject=subject, data={"amount": "reply"})
    )


async def states(run: Simulation) -> list[WaitState]:
    return [wait.state for wait in await waits_of(run.engine.store, run.run_id)]


async def log(run: Simulation) -> list[Any]:
    return list((await run.values()).get("log", []))


async def notes(run: Simulation) -> list[str]:
    return [entry.data["text"] for entry in await run.journal() if entry.kind == "note"]


class StillClock(SimulatedClock):
    """A clock that stands still until it is put forward."""

    def __init__(self) -> None:
        self._now = SimulatedClock()()

    def __call__(self) -> datetime:
        return self._now

    def pass_until(self, moment: datetime) -> None:
        self._now = max(moment, self._now)


async def waiting(world: World, workflow: Any = None) -> Any:
    run = await world.send(workflow or paying())
    assert await world.engine.advance(run.run_id) is RunState.WAITING
    return run


def beside(**nodes: Any) -> StateGraph[Any, Any, Any, Any]:
    """A graph of these nodes, all at once."""
    graph: StateGraph[Any, Any, Any, Any] = StateGraph(State)
    for name, node in nodes.items():
        graph.add_node(name, node)
        graph.add_edge(START, name)
    return graph
