"""Eventwright: the same graph behind events, on one worker over a real Valkey, everything written as in earnest."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

from graphs import FIVE_NODES, PAYLOAD

from eventwright.app.commands.processes import collect_seldom
from eventwright.app.composition import App, open_app
from eventwright.app.settings import Settings
from eventwright.runs.event import Event, new_id
from eventwright.runs.states import RunState


def settings(kind: str, place: str, home: Path, concurrency: int) -> Settings:
    """A process with the embedded Valkey, on a database of its own."""
    url = "" if kind == "sqlite" else place
    return Settings(home=home, database_url=url, concurrency=concurrency)


async def runs_per_second(kind: str, place: str, home: Path, *, runs: int, concurrency: int) -> float:
    """Finished runs a second of one worker that finds `runs` of them waiting: claim, checkpoints, journal, end."""
    async with open_app(settings(kind, place, home, concurrency), workflows=[FIVE_NODES]) as app:
        before = (await app.store.counts()).get(("five-nodes", str(RunState.COMPLETED)), 0)
        await _receive(app, "five-nodes", runs)
        collect_seldom()
        began = time.perf_counter()
        async with _working(app):
            await _until(app, "five-nodes", RunState.COMPLETED, before + runs)
            return runs / (time.perf_counter() - began)


async def _receive(app: App, kind: str, runs: int) -> None:
    data = {"log": [], "payload": PAYLOAD}
    for start in range(0, runs, 200):
        events = [
            Event(id=new_id("bench"), source="/bench", type=kind, data=data) for _ in range(min(200, runs - start))
        ]
        await asyncio.gather(*(app.engine.receive(event) for event in events))


async def _until(app: App, workflow: str, state: RunState, runs: int) -> None:
    while (await app.store.counts()).get((workflow, str(state)), 0) < runs:  # noqa: ASYNC110 - as others see it
        await asyncio.sleep(0.2)


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
