"""The keeper: in every worker, deletes what was kept long enough. Any number of them is safe."""

from __future__ import annotations

import asyncio
import logging
import random
from contextlib import suppress

from eventwright.runs.errors import StoreUnavailable
from eventwright.runs.retention import Keep, Removed, remove_some
from eventwright.runs.store import Store

log = logging.getLogger(__name__)

#: Seconds between two rounds; the jitter on it keeps the rounds of many workers apart, and guards nothing.
ROUND = 60.0
#: Seconds between two batches of a round: runs that are at work write in between.
PAUSE = 0.05


class Keeper:
    """Deletes until it is stopped.

    Args:
        store: what it deletes from.
        keep: how long what is kept.
        every: seconds between two rounds.
    """

    def __init__(self, store: Store, keep: Keep, *, every: float = ROUND) -> None:
        self._store = store
        self._keep = keep
        self._every = every

    async def run(self, stopping: asyncio.Event) -> None:
        """A round every now and then, until `stopping` is set."""
        while not await _stopped(stopping, random.uniform(0.5, 1.0) * self._every):
            try:
                removed = await self.round(stopping)
            except StoreUnavailable as error:
                log.warning("nothing is deleted for now: %s", error)
            else:
                if removed:
                    log.info("deleted what was kept long enough: %s", removed)

    async def round(self, stopping: asyncio.Event) -> Removed:
        """Delete all that was kept long enough, batch after batch. Raises StoreUnavailable."""
        removed = Removed()
        while some := await remove_some(self._store, self._keep):
            removed += some
            if await _stopped(stopping, PAUSE):
                break
        return removed


async def _stopped(stopping: asyncio.Event, seconds: float) -> bool:
    """Wait so long, or until it is set; whether it is."""
    with suppress(TimeoutError):
        await asyncio.wait_for(stopping.wait(), seconds)
    return stopping.is_set()
