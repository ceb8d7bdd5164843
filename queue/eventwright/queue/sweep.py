"""The sweep: runs in every worker and sees to whatever is due and whatever was lost. Any number of them is safe.

The database says what is due: retries, expired leases, decided reviews, bells that nobody answered. Without Redis the
sweep is the transport: it takes due runs itself.
"""

from __future__ import annotations

import asyncio
import logging
import random
from collections.abc import Callable
from datetime import timedelta

from eventwright.queue.bells import BellRinger
from eventwright.queue.engine import Engine
from eventwright.queue.wakeups import BellDown
from eventwright.runs.errors import StoreUnavailable

log = logging.getLogger(__name__)

MOST = 500


class Sweep:
    """Sweeps until it is stopped.

    Args:
        engine: whose verbs it calls.
        ringer: rings for due runs; None when there is no Redis.
        take: takes a due run here, when there is no Redis; returns False when this process is full.
    """

    def __init__(self, engine: Engine, ringer: BellRinger | None, take: Callable[[str], bool] | None = None) -> None:
        self._engine = engine
        self._ringer = ringer
        self._take = take
        self._news = asyncio.Event()

    def nudge(self) -> None:
        """Something was committed: without Redis this is the bell, with Redis it may be a retry that is due soon."""
        self._news.set()

    async def run(self, stopping: asyncio.Event) -> None:
        """Sweep every `times.sweep` seconds with jitter, and whenever something comes due before that."""
        while not stopping.is_set():
            try:
                await self.once()
                wait = await self._until_next()
            except (StoreUnavailable, BellDown) as error:
                log.warning("sweep put off: %s", error)
                wait = self._engine.times.sweep
            await self._sleep(wait, stopping)

    async def once(self) -> None:
        """One round. Raises StoreUnavailable, BellDown."""
        await self._engine.tick()
        if self._ringer is None:
            for run_id, _ in await self._engine.store.due_runs(limit=MOST):
                if self._take is None or not self._take(run_id):
                    break
            return
        due = await self._engine.store.due_runs(limit=MOST, unrung=True)
        if due:
            now = await self._engine.store.now()
            async with self._engine.store.write() as tx:
                for run_id, lane in due:
                    tx.wake(run_id, lane=lane, at=now)
        await self._ringer.ring_unsent()
        await self._ringer.ring_lost(older_than=timedelta(seconds=self._engine.times.sweep), limit=MOST)

    async def _until_next(self) -> float:
        """Seconds until the next round: the usual interval, or less if a retry or a deadline comes due before."""
        sweep = self._engine.times.sweep
        # Jitter keeps the sweeps of many workers apart; it guards nothing.
        usual = random.uniform(0.75 * sweep, sweep)
        due = await self._engine.store.next_due()
        if due is None:
            return usual
        ahead = (due - await self._engine.store.now()).total_seconds()
        return min(usual, ahead) if ahead > 0 else usual

    async def _sleep(self, seconds: float, stopping: asyncio.Event) -> None:
        """Sleep, but not through news or the end."""
        self._news.clear()
        waits = [asyncio.ensure_future(event.wait()) for event in (stopping, self._news)]
        try:
            await asyncio.wait(waits, timeout=seconds, return_when=asyncio.FIRST_COMPLETED)
        finally:
            for wait in waits:
                wait.cancel()
