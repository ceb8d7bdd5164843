"""Leases are renewed from a thread of its own: a node that blocks the event loop must not lose its neighbours' runs."""

from __future__ import annotations

import asyncio
import logging
import threading
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import timedelta

import sqlalchemy as sa
from sqlalchemy.ext.asyncio import AsyncEngine

from eventwright.runs import schema
from eventwright.runs.committer import database_time
from eventwright.runs.states import RunState
from eventwright.runs.store import create_engine

log = logging.getLogger(__name__)


@asynccontextmanager
async def heartbeats(url: str, worker: str, *, every: float, lease_seconds: float) -> AsyncIterator[None]:
    """While this is open, every run that `worker` is processing keeps its lease: all of them in one statement.

    Args:
        url: the database.
        worker: the name under which runs were claimed.
        every: seconds between two beats.
        lease_seconds: how long a run stays ours after the last beat.
    """
    stopping = threading.Event()

    def beat_until_stopped() -> None:
        asyncio.run(_beat_until(stopping, url, worker, every, lease_seconds))

    thread = threading.Thread(target=beat_until_stopped, name="heartbeats", daemon=True)
    thread.start()
    try:
        yield
    finally:
        stopping.set()
        await asyncio.to_thread(thread.join)


async def _beat_until(stopping: threading.Event, url: str, worker: str, every: float, lease_seconds: float) -> None:
    engine = create_engine(url, readers=1)
    try:
        while not await asyncio.to_thread(stopping.wait, every):
            try:
                await _beat(engine, worker, lease_seconds)
            except Exception as error:
                # The database is away. Leases run out and others take over, which is what leases are for.
                log.warning("heartbeat of %s failed: %s", worker, error)
    finally:
        await engine.dispose()


async def _beat(engine: AsyncEngine, worker: str, lease_seconds: float) -> None:
    async with engine.connect() as connection:
        await connection.execution_options(eventwright_writer=True)
        async with connection.begin():
            due = await database_time(connection) + timedelta(seconds=lease_seconds)
            held = sa.and_(schema.runs.c.worker == worker, schema.runs.c.state == str(RunState.PROCESSING))
            await connection.execute(sa.update(schema.runs).where(held).values(due_at=due))
