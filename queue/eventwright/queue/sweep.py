"""The sweep: runs in every worker and sees to whatever is due and whatever was lost. Any number of them is safe.

The database says what is due: retries, expired leases, decided reviews, bells that nobody answered. Without Redis, and
while Redis is away, the sweep is the transport: it takes due runs itself.
"""

from __future__ import annotations

import asyncio
import logging
import random
import time
from collections.abc import Sequence
from datetime import datetime, timedelta
from functools import partial

from eventwright.queue.bells import BellRinger
from eventwright.queue.engine import Engine
from eventwright.queue.wakeups import BellDown
from eventwright.runs.errors import StoreUnavailable
from eventwright.runs.failpoints import Failpoint, failpoint

log = logging.getLogger(__name__)

#: Runs seen to in one round.
MOST = 500
#: The shortest time between two looks at the database, in seconds: it lets news gather under load.
PAUSE = 0.1


class Sweep:
    """Sweeps until it is stopped.

    Args:
        engine: whose verbs it calls.
        ringer: rings for due runs; None when there is no Redis.
        lanes: whose runs it takes when nobody can be woken, the most urgent lane first.
        concurrency: up to how many runs at once it fills this process with.
    """

    def __init__(
        self,
        engine: Engine,
        ringer: BellRinger | None,
        *,
        lanes: Sequence[str] = ("default",),
        concurrency: int = 100,
    ) -> None:
        self._engine = engine
        self._ringer = ringer
        self._lanes = tuple(lanes)
        self._concurrency = concurrency
        self._alone = ringer is None
        self._taken: dict[str, asyncio.Task[object]] = {}
        self._news = asyncio.Event()
        #: Whether the database was away in the last round.
        self._was_away = False

    def nudge(self) -> None:
        """Something was committed, or a run has ended here: there may be something to take, or due soon."""
        self._news.set()

    async def run(self, stopping: asyncio.Event, *, drain_seconds: float = 0.0) -> None:
        """Sweep every `times.sweep` seconds with jitter, and whenever something comes due before that.

        In the end the runs that it took have `drain_seconds` to come to their boundary; the late ones are cancelled.
        """
        while not stopping.is_set():
            self._news.clear()
            # Jitter keeps the sweeps of many workers apart; it guards nothing.
            latest = time.monotonic() + random.uniform(0.75, 1.0) * self._engine.times.sweep
            try:
                began, beginning = await self._engine.store.now(), time.monotonic()
                await self.once()
                self._engine.store.telemetry.swept(time.monotonic() - beginning)
                await self._rest(began, latest, stopping)
            except StoreUnavailable as error:
                self._was_away = True
                log.warning("sweep put off: %s", error)
                await self._woken(latest - time.monotonic(), stopping)
        await self._finish(drain_seconds)

    async def once(self) -> None:
        """One round. Raises StoreUnavailable."""
        failpoint(Failpoint.SWEEP_BEGUN)
        if self._was_away or self._engine.dropped:
            await self._engine.after_outage()
            self._was_away = False
        await self._engine.tick()
        failpoint(Failpoint.SWEEP_TICKED)
        self._alone = self._ringer is None
        if self._ringer is not None:
            try:
                await self._ring(self._ringer)
            except BellDown:
                self._alone = True  # nobody can be woken; the ringer and the RQ worker say so in the log
        if self._alone:
            await self._take()
            failpoint(Failpoint.SWEEP_TAKEN)

    async def _ring(self, ringer: BellRinger) -> None:
        await ringer.ping()
        due = await self._engine.store.due_runs(limit=MOST, unrung=True)
        if due:
            async with self._engine.store.write() as tx:
                for run_id, lane in due:
                    tx.wake(run_id, lane=lane)
            failpoint(Failpoint.SWEEP_WOKEN)
            ringer.nudge()
        # What is younger may still be on its way.
        age = timedelta(seconds=self._engine.times.sweep)
        await ringer.ring_unsent(older_than=age)
        await ringer.ring_lost(older_than=age)
        failpoint(Failpoint.SWEEP_RUNG)

    async def _rest(self, began: datetime, latest: float, stopping: asyncio.Event) -> None:
        """Rest until `latest` (of the monotonic clock), or until something is due that was not when the round began.

        News may bring such a thing; while there is nobody else to wake, it is reason enough for a round.
        """
        store = self._engine.store
        while not stopping.is_set():
            due = await store.next_due(after=began)
            left = latest - time.monotonic()
            if due is not None:
                left = min(left, (due - await store.now()).total_seconds())
            if left <= 0 or not await self._woken(left, stopping) or self._alone:
                return
            self._news.clear()
            await asyncio.sleep(PAUSE)

    async def _woken(self, seconds: float, stopping: asyncio.Event) -> bool:
        """Wait for news or the end, at most so long; whether it came."""
        waits = [asyncio.ensure_future(event.wait()) for event in (stopping, self._news)]
        try:
            done, _ = await asyncio.wait(waits, timeout=max(seconds, 0), return_when=asyncio.FIRST_COMPLETED)
        finally:
            for wait in waits:
                wait.cancel()
        return bool(done)

    # -- runs taken without being told -------------------------------------------------------------------------------

    async def _take(self) -> None:
        """Go on with due runs here, as many as there is room for, those of the most urgent lane first."""
        for lane in self._lanes:
            busy = self._engine.active.keys() | self._taken.keys()
            if len(busy) >= self._concurrency:
                return
            due = await self._engine.store.due_runs(limit=self._concurrency, lane=lane)
            free = [run_id for run_id, _ in due if run_id not in busy]
            self._begin(free[: self._concurrency - len(busy)])

    def _begin(self, run_ids: Sequence[str]) -> None:
        for run_id in run_ids:
            task = asyncio.create_task(self._engine.advance(run_id), name=f"run {run_id}")
            self._taken[run_id] = task
            task.add_done_callback(partial(self._ended, run_id))

    def _ended(self, run_id: str, task: asyncio.Task[object]) -> None:
        del self._taken[run_id]
        if not task.cancelled() and (error := task.exception()) is not None:
            log.error("segment of %s failed; it is taken up again when its lease runs out", run_id, exc_info=error)
        self.nudge()

    async def _finish(self, seconds: float) -> None:
        """Wait for the runs that are under way; after `seconds` they are cancelled, and taken up elsewhere."""
        if self._taken:
            _, late = await asyncio.wait(self._taken.values(), timeout=seconds)
            for task in late:
                task.cancel()
            await asyncio.gather(*late, return_exceptions=True)
