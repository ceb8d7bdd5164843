"""Where the tests of flow control are: events with a key, and a workflow that writes down what it was given."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

from langgraph.types import interrupt
from pydantic import BaseModel
from tests.outside import World, chain, job, post

from eventwright.graphs.flow import Flow
from eventwright.graphs.workflow import On
from eventwright.guardrails.policy import Policy
from eventwright.queue.intake import Receipt
from eventwright.runs.event import Event, new_id
from eventwright.runs.records import Run

MINUTE = timedelta(minutes=1)


class Change(BaseModel):
    of: str | None
    n: int = 0


async def ends(state: Any) -> dict[str, Any]:
    return {}


async def asks(state: Any) -> dict[str, Any]:
    return {"log": [interrupt("go on?")]}


async def writes(state: Any) -> dict[str, Any]:
    return {"log": [await post(text="hello")]}


def flowing(flow: Flow, *nodes: Any, version: str = "1", **on: Any) -> Any:
    """A workflow of these nodes for events of the type `job`, and the same for those of the type `other`."""
    graph = chain(**{f"node{number}": node for number, node in enumerate(nodes or (ends,))})
    triggers = [
        On(kind, payload={"1": Change}, input=given, flow=flow, trusted=True, **on) for kind in ("job", "other")
    ]
    policies = {name: Policy(tools=[post]) for name in graph.nodes}
    return job(graph, policies, version=version, triggers=triggers)


def given(payload: Change, event: Event) -> dict[str, Any]:
    return {"log": [payload.n]}


def change(of: str | None = "a", n: int = 0, *, kind: str = "job", **more: Any) -> Event:
    return Event(**{"id": new_id("e"), "source": "/test", "type": kind, "data": {"of": of, "n": n}} | more)


async def sends(world: World, of: str | None = "a", n: int = 0, **more: Any) -> Run:
    """The run that the event goes into."""
    return only(await world.engine.receive(change(of, n, **more)))


def only(receipt: Receipt) -> Run:
    (run,) = receipt.runs
    return run


async def again(world: World, run: Run) -> Run:
    """The run as it is now."""
    return await world.store.run(run.id)


async def notes(world: World, run: Run) -> list[str]:
    return [entry.data["text"] for entry in await world.store.journal(run.id) if entry.kind == "note"]


async def values(world: World, run: Run) -> list[Any]:
    """What the run has written down."""
    return list((await world.take(run.id).values()).get("log", []))
