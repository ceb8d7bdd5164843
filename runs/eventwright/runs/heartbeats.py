"""Leases are renewed from a thread of its own: a node that blocks the event loop must not lose its neighbours' runs."""

from __future__ import annotations

import asyncio
import logging
import threading
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import timedelta

import sqlalchemy as sa
from sqlalchemy.exc import SQLAlchemyError

from eventwright.runs import schema
from eventwright.runs.database import Database, open_database
from eventwright.runs.states import RunState

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
    async with open_database(url) as database:
        while not await asyncio.to_thread(stopping.wait, every):
            try:
                await _beat(database, worker, lease_seconds)
            except SQLAlchemyError as error:
                # The database is away. Leases run out and others take over, which is what leases are for.
                log.warning("heartbeat of %s failed: %s", worker, error)


async def _beat(database: Database, worker: str, lease_seconds: float) -> None:
    held = sa.and_(schema.runs.c.worker == worker, schema.runs.c.state == str(RunState.PROCESSING))

    def renew(connection: sa.Connection) -> None:
        due = database.now(connection) + timedelta(seconds=lease_seconds)
        connection.execute(sa.update(schema.runs).where(held).values(due_at=due))

    await database.write(renew)
