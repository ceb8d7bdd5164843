"""Eventwright: the same graph behind events, on one worker over a real Valkey, everything written as in earnest."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

from graphs import FIVE_NODES
from processes import until

from eventwright.app.commands.processes import tune_interpreter
from eventwright.app.composition import App, open_app
from eventwright.app.settings import Settings
from eventwright.runs.event import Event, new_id
from eventwright.runs.states import RunState


def settings(kind: str, place: str, home: Path, concurrency: int) -> Settings:
    """A process with the embedded Valkey, on a database of its own."""
    url = "" if kind == "sqlite" else place
    return Settings(home=home, database_url=url, concurrency=concurrency)


async def runs_per_second(kind: str, place: str, home: Path, *, runs: int, concurrency: int, size: int = 4000) -> float:
    """Finished runs a second of one worker that finds `runs` of them waiting: claim, checkpoints, journal, end.

    Args:
        size: of the state, in bytes.
    """
    async with open_app(settings(kind, place, home, concurrency), workflows=[FIVE_NODES]) as app:
        before = (await app.store.counts()).get(("five-nodes", str(RunState.COMPLETED)), 0)
        await receive(app, "five-nodes", runs, size=size)
        tune_interpreter()
        began = time.perf_counter()
        async with _working(app):
            await until(lambda: are_completed(app, "five-nodes", before + runs), every=0.2)
            return runs / (time.perf_counter() - began)


async def receive(app: App, kind: str, runs: int, *, size: int = 4000) -> None:
    """Store so many events that start runs with so many bytes of state."""
    data = {"log": [], "payload": "x" * size}
    for start in range(0, runs, 200):
        events = [
            Event(id=new_id("bench"), source="/bench", type=kind, data=data) for _ in range(min(200, runs - start))
        ]
        await asyncio.gather(*(app.engine.receive(event) for event in events))


async def are_completed(app: App, workflow: str, runs: int) -> bool:
    """Whether at least so many runs are."""
    return (await app.store.counts()).get((workflow, str(RunState.COMPLETED)), 0) >= runs


@asynccontextmanager
async def _working(app: App) -> AsyncIterator[None]:
    """The worker, while the block is open."""
    stopping = asyncio.Event()
    worker = asyncio.create_task(app.work(stopping))
    try:
        yield
    finally:
        stopping.set()
        await worker
