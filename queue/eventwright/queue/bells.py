"""From the outbox to the workers: wake-up rows are rung once they are committed, many at a time, and marked as sent."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from datetime import timedelta

from eventwright.queue.wakeups import BellDown, Transport
from eventwright.runs.errors import StoreUnavailable
from eventwright.runs.failpoints import Failpoint, failpoint
from eventwright.runs.records import WakeUp
from eventwright.runs.store import Store

log = logging.getLogger(__name__)

#: Bells rung in one go.
MOST = 1000
#: The shortest time between two rounds, in seconds: it lets bells gather under load.
PAUSE = 0.01


class BellRinger:
    """Rings what the outbox holds. A failure is no loss: the sweep of every worker rings again."""

    def __init__(self, store: Store, transport: Transport) -> None:
        self._store = store
        self._transport = transport
        self._news = asyncio.Event()
        self._down = False

    def nudge(self) -> None:
        """There may be something to ring."""
        self._news.set()

    @asynccontextmanager
    async def ringing(self) -> AsyncIterator[None]:
        """Ring in the background while this is open; what is left at the end is rung before it closes."""
        task = asyncio.create_task(self._ring_on_news(), name="bell ringer")
        try:
            yield
        finally:
            task.cancel()
            with suppress(asyncio.CancelledError):
                await task
            await self._ring_fresh()

    async def _ring_on_news(self) -> None:
        while True:
            await self._news.wait()
            self._news.clear()
            await self._ring_fresh()
            await asyncio.sleep(PAUSE)

    async def _ring_fresh(self) -> None:
        """Ring every bell that was never rung; say once that they have to wait."""
        try:
            await self.ring_unsent(older_than=timedelta(0))
        except (BellDown, StoreUnavailable) as error:
            if not self._down:
                log.warning("bells wait in the outbox: %s", error)
            self._down = True

    async def ping(self) -> None:
        """Raises BellDown if nobody can be woken."""
        await self._transport.ping()

    async def ring_unsent(self, *, older_than: timedelta) -> None:
        """Ring every bell that was never rung, though it was written so long ago. Raises BellDown, StoreUnavailable."""
        while waiting := await self._store.wakeups(sent=False, older_than=older_than, limit=MOST):
            await self._ring(waiting)
            if len(waiting) < MOST:
                return

    async def ring_lost(self, *, older_than: timedelta) -> None:
        """Ring again what is in nobody's hands any more: Redis was emptied, or a worker died with it.

        Raises:
            BellDown, StoreUnavailable.
        """
        for lane in await self._store.lanes_rung():
            await self._ring_lost(lane, older_than)

    async def _ring_lost(self, lane: str, older_than: timedelta) -> None:
        # Workers take a lane's bells in their order, so of those that wait there none that is lost stands behind many.
        while sent := await self._store.wakeups(sent=True, older_than=older_than, limit=MOST, lane=lane):
            lost = {row_id for row_id, _, _ in await self._transport.missing([_row(wakeup) for wakeup in sent])}
            await self._ring([wakeup for wakeup in sent if wakeup.id in lost])
            if len(lost) < MOST:
                return  # else those that were looked at have made room for the ones behind them

    async def _ring(self, wakeups: list[WakeUp]) -> None:
        if not wakeups:
            return
        failpoint(Failpoint.BELLS_READ)
        await self._transport.ring([_row(wakeup) for wakeup in wakeups])
        failpoint(Failpoint.BELLS_RUNG)
        self._down = False
        async with self._store.write() as tx:
            tx.wakeups_sent([wakeup.id for wakeup in wakeups])
        failpoint(Failpoint.BELLS_MARKED)


def _row(wakeup: WakeUp) -> tuple[str, str, str]:
    return wakeup.id, wakeup.run_id, wakeup.lane
