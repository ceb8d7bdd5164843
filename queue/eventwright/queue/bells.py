"""From the outbox to the workers: wake-up rows are rung once they are committed, many at a time, and marked as sent."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from datetime import timedelta

from eventwright.queue.wakeups import BellDown, Transport
from eventwright.runs.errors import StoreUnavailable
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
            await self.ring_unsent()

    async def _ring_on_news(self) -> None:
        while True:
            await self._news.wait()
            self._news.clear()
            await self.ring_unsent()
            await asyncio.sleep(PAUSE)

    async def ring_unsent(self) -> None:
        """Ring every bell that was never rung."""
        try:
            while waiting := await self._store.wakeups(sent=False, older_than=timedelta(0), limit=MOST):
                await self.ring(waiting)
                if len(waiting) < MOST:
                    return
        except (BellDown, StoreUnavailable) as error:
            if not self._down:
                log.warning("bells wait in the outbox: %s", error)
            self._down = True

    async def ring(self, wakeups: list[WakeUp]) -> None:
        """Ring these, and mark them as sent. Raises BellDown, StoreUnavailable."""
        await self._transport.ring([(wakeup.id, wakeup.run_id, wakeup.lane) for wakeup in wakeups])
        self._down = False
        async with self._store.write() as tx:
            tx.wakeups_sent([wakeup.id for wakeup in wakeups], await self._store.now())

    async def ring_lost(self, *, older_than: timedelta, limit: int) -> int:
        """Ring again what was rung and is in nobody's hands any more: Redis was emptied, or a worker died with it.

        Returns:
            How many there were.
        """
        sent = {w.id: w for w in await self._store.wakeups(sent=True, older_than=older_than, limit=limit)}
        lost = await self._transport.missing([(w.id, w.run_id, w.lane) for w in sent.values()])
        if lost:
            await self.ring([sent[wakeup_id] for wakeup_id, _, _ in lost])
        return len(lost)
