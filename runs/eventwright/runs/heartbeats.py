"""Leases are renewed from a thread of its own: a node that blocks the event loop must not lose its neighbours' runs."""

from __future__ import annotations

import asyncio
import logging
import threading
from collections.abc import AsyncIterator, Collection
from concurrent.futures import ThreadPoolExecutor
from contextlib import asynccontextmanager
from datetime import timedelta

import sqlalchemy as sa

from eventwright.runs import schema
from eventwright.runs.database import Database, is_away, open_database, padded
from eventwright.runs.failpoints import Failpoint, failpoint
from eventwright.runs.states import RunState

log = logging.getLogger(__name__)


@asynccontextmanager
async def heartbeats(
    url: str, worker: str, held: Collection[str], *, every: float, lease_seconds: float
) -> AsyncIterator[None]:
    """While this is open, the runs that `worker` is at work on keep their leases: all of them in one statement.

    Args:
        url: the database.
        worker: the name under which runs were claimed.
        held: the ids of the runs that are really at work here, now and later; one that was given up is not kept.
        every: seconds between two beats.
        lease_seconds: how long a run stays ours after the last beat.

    Raises:
        Exception: whatever stopped the heart, but for an absent database, which may come back; the body is cancelled.
    """
    stopping = threading.Event()

    def beat_until_stopped() -> None:
        asyncio.run(_beat_until(stopping, url, worker, held, every, lease_seconds))

    body = asyncio.current_task()
    with ThreadPoolExecutor(1, thread_name_prefix="heartbeats") as thread:
        beating = asyncio.get_running_loop().run_in_executor(thread, beat_until_stopped)
        if body is not None:
            beating.add_done_callback(lambda _: stopping.is_set() or body.cancel())
        try:
            yield
        finally:
            stopping.set()
            await beating


async def _beat_until(
    stopping: threading.Event, url: str, worker: str, held: Collection[str], every: float, lease_seconds: float
) -> None:
    async with open_database(url) as database:
        while not await asyncio.to_thread(stopping.wait, every):
            try:
                # A copy, made in one step: the event loop's thread changes the original.
                await _beat(database, worker, tuple(held), lease_seconds)
            except Exception as error:
                if not is_away(error):
                    raise
                # Leases run out and others take over, which is what leases are for.
                log.warning("heartbeat of %s failed: %s", worker, error)


async def _beat(database: Database, worker: str, held: Collection[str], lease_seconds: float) -> None:
    if not held:
        return
    runs = schema.runs.c
    ours = sa.and_(runs.worker == worker, runs.state == str(RunState.PROCESSING), runs.id.in_(padded(held)))
    # Locked in the order in which everybody locks runs, so that nobody waits in a circle.
    locked = sa.select(runs.id).where(ours).order_by(runs.id).with_for_update()

    def renew(connection: sa.Connection) -> None:
        due = database.now(connection) + timedelta(seconds=lease_seconds)
        connection.execute(sa.update(schema.runs).where(runs.id.in_(locked)).values(due_at=due))

    failpoint(Failpoint.HEART_BEATING)
    await database.write(renew)
    failpoint(Failpoint.HEART_BEAT)
