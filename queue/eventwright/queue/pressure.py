"""Pressure: how much may wait before no more is taken in. What was accepted is never given up for it."""

from __future__ import annotations

import time
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager

from eventwright.runs.errors import Overloaded
from eventwright.runs.store import Store

#: Runs that may wait to be begun, by default.
MOST_BACKLOG = 100_000
#: Events that may be under way in this process: being looked up, checked, stored.
MOST_UNDER_WAY = 5_000
#: Seconds for which a count of the runs that wait holds.
COUNT_SECONDS = 1.0


class Pressure:
    """Keeps what waits within bounds.

    Args:
        store: whose waiting runs are counted.
        most_backlog: how many may wait to be begun.
    """

    def __init__(self, store: Store, *, most_backlog: int = MOST_BACKLOG) -> None:
        self._store = store
        self._most_backlog = most_backlog
        self._under_way = 0
        #: Runs that waited at the last count, that were stored here since, and that are being stored.
        self._counted = self._stored = self._reserved = 0
        self._counting, self._next_count = False, 0.0

    @contextmanager
    def under_way(self) -> Iterator[None]:
        """An event is being taken in. Raises Overloaded if too many are, or too much waits to be written."""
        if self._under_way >= MOST_UNDER_WAY or self._store.committer.crowded:
            raise Overloaded(f"{self._under_way} events are being taken in by this process already")
        self._under_way += 1
        try:
            yield
        finally:
            self._under_way -= 1

    @asynccontextmanager
    async def room(self, runs: int) -> AsyncIterator[None]:
        """So many runs are stored while this is open. Raises Overloaded if too many wait to be begun, StoreUnavailable.

        What this process stores is counted at once, what others store a moment later.
        """
        if runs:
            await self._count()
            waiting = self._counted + self._stored + self._reserved
            if waiting + runs > self._most_backlog:
                raise Overloaded(f"{waiting} runs wait to be begun, of at most {self._most_backlog}")
        self._reserved += runs
        try:
            yield
            self._stored += runs
        finally:
            self._reserved -= runs

    async def _count(self) -> None:
        if self._counting or time.monotonic() < self._next_count:
            return  # who comes while somebody counts goes by the count before
        self._counting, before = True, self._stored
        try:
            self._counted = await self._store.backlog(most=self._most_backlog)
            self._stored -= before
        finally:
            self._counting = False
            self._next_count = time.monotonic() + COUNT_SECONDS
