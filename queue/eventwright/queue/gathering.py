"""Gathering: deliveries of which nothing is kept but that they came are counted here, and written a few at a time.

Whoever floods the door with garbage costs a number in memory for each piece, and a row of the log every few seconds.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from dataclasses import replace
from datetime import UTC, datetime

from eventwright.runs.deliveries import Delivery
from eventwright.runs.errors import StoreUnavailable
from eventwright.runs.records import DeliveryOutcome
from eventwright.runs.store import Store

log = logging.getLogger(__name__)

#: Seconds between two rows of the same source and outcome. What a killed process had not written yet is lost.
EVERY = 10.0
#: The source of those that the settings do not know: a stranger chose their names.
UNKNOWN_SOURCE = "unknown"


class Gatherer:
    """Counts deliveries by source and outcome.

    Args:
        store: where the counts go.
        every: seconds between two writes.
    """

    def __init__(self, store: Store, *, every: float = EVERY) -> None:
        self._store = store
        self._every = every
        self._counted: dict[tuple[str, DeliveryOutcome], Delivery] = {}
        #: Those whose write did not end as it should. Whether they are in the log by now, it alone can say: they are
        #: written once more as they are, and what came since beside them.
        self._doubtful: list[Delivery] = []
        self._writing = asyncio.Lock()
        self._some = asyncio.Event()

    def add(self, source: str, outcome: DeliveryOutcome, size: int) -> None:
        """One more has come.

        Args:
            source: a name that the settings know, or empty.
            outcome: one of `GATHERED`.
            size: bytes of its body that were read.
        """
        now = datetime.now(UTC)
        one = Delivery(source=source or UNKNOWN_SOURCE, outcome=outcome, received_at=now, last_at=now, size=size)
        self._merge(one)

    @asynccontextmanager
    async def gathering(self) -> AsyncIterator[None]:
        """Write every few seconds while this is open, and once more at its end."""
        task = asyncio.create_task(self._write_now_and_then(), name="gatherer of deliveries")
        try:
            yield
        finally:
            task.cancel()
            with suppress(asyncio.CancelledError):
                await task
            await self._flush_or_say()

    async def flush(self) -> None:
        """Write what was counted. Raises StoreUnavailable, and keeps it then."""
        async with self._writing:
            if self._doubtful:
                await self._write()
            self._doubtful, self._counted = list(self._counted.values()), {}
            self._some.clear()
            if self._doubtful:
                await self._write()

    async def _write(self) -> None:
        try:
            async with self._store.write() as tx:
                for one in self._doubtful:
                    tx.add_count(one)
        except BaseException:
            self._some.set()
            raise
        self._doubtful = []

    def _merge(self, one: Delivery) -> None:
        key = (one.source, one.outcome)
        found = self._counted.get(key)
        self._some.set()
        if found is None or found.received_at is None or found.last_at is None:
            self._counted[key] = one
        elif one.received_at is not None and one.last_at is not None:
            self._counted[key] = replace(
                found,
                received_at=min(found.received_at, one.received_at),
                last_at=max(found.last_at, one.last_at),
                times=found.times + one.times,
                size=found.size + one.size,
            )

    async def _write_now_and_then(self) -> None:
        while True:
            await self._some.wait()
            await asyncio.sleep(self._every)
            await self._flush_or_say()

    async def _flush_or_say(self) -> None:
        try:
            await self.flush()
        except StoreUnavailable as error:
            left = (*self._doubtful, *self._counted.values())
            told = ", ".join(f"{one.times} from {one.source} {one.outcome}" for one in left)
            log.warning("the log of webhooks does not have these yet (%s): %s", told, error)
