"""Where the tests of the sweep are: a home, a database and a Redis, with small workflows and processes on them."""

from __future__ import annotations

import asyncio
import operator
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Annotated, Any, TypedDict

from langgraph.graph import END, START, StateGraph

from eventwright.app.composition import App, open_app
from eventwright.app.settings import Settings
from eventwright.graphs.workflow import On, Workflow
from eventwright.runs.event import Event, new_id
from eventwright.runs.records import Run
from eventwright.runs.states import FINAL, RunState


class State(TypedDict, total=False):
    steps: Annotated[list[str], operator.add]


Node = Callable[[State], Awaitable[State]]


def workflow(name: str, *nodes: Node, **more: Any) -> Workflow:
    """A workflow of these nodes, one after the other."""
    graph = StateGraph(State)
    names = [f"node{number}" for number, _ in enumerate(nodes)]
    for node_name, node in zip(names, nodes, strict=True):
        graph.add_node(node_name, node)
    for before, after in zip((START, *names), (*names, END), strict=True):
        graph.add_edge(before, after)
    trigger = On(name, input=more.pop("input", None), key=more.pop("key", None), trusted=True)
    return Workflow(name, version="1", graph=graph, triggers=[trigger], **more)


class Crowd:
    """A node that counts who is in it together."""

    def __init__(self) -> None:
        self.now = self.most = self.visits = 0

    async def node(self, state: State) -> State:
        self.now, self.visits = self.now + 1, self.visits + 1
        self.most = max(self.most, self.now)
        await asyncio.sleep(0.02)
        self.now -= 1
        return {"steps": ["in"]}


class Place:
    """A home, a database and a Redis, on which processes are opened."""

    def __init__(self, home: Path, database_url: str, redis_url: str) -> None:
        self.home, self.database_url, self.redis_url = home, database_url, redis_url

    @asynccontextmanager
    async def process(self, *workflows: Workflow, **settings: Any) -> AsyncIterator[App]:
        """One that only sends and asks."""
        urls = {"database_url": self.database_url, "redis_url": self.redis_url}
        async with open_app(Settings(home=self.home, **{**urls, **settings}), workflows=workflows) as app:
            yield app

    @asynccontextmanager
    async def worker(self, *workflows: Workflow, **settings: Any) -> AsyncIterator[App]:
        """One at work; it is drained at the end."""
        async with self.process(*workflows, **settings) as app:
            stopping = asyncio.Event()
            work = asyncio.create_task(app.work(stopping))
            try:
                yield app
            finally:
                stopping.set()
                await work


async def send(app: App, name: str, count: int = 1) -> list[str]:
    """Events that start runs: the runs' ids."""
    events = [Event(id=new_id("event"), source="/test", type=name, data={}) for _ in range(count)]
    receipts = await asyncio.gather(*(app.engine.receive(event) for event in events))
    return [receipt.runs[0].id for receipt in receipts]


async def rested(app: App, ids: Sequence[str], *states: RunState) -> list[Run]:
    """The runs, once all are in one of these states (by default a final one); pytest's timeout is the only limit."""
    wanted = states or tuple(FINAL)
    while True:
        runs = [await app.store.run(run_id) for run_id in ids]
        if all(run.state in wanted for run in runs):
            return runs
        await asyncio.sleep(0.02)
