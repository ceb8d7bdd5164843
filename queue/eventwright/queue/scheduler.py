"""The scheduler: in every worker, fires the ticks of schedules that have come due. Any number of them is safe.

There is no leader. Whoever sees a tick sends its event, and the database keeps one event of a name: the others are told
that they came second. What is written down afterwards only spares looking at the same ticks again.
"""

from __future__ import annotations

import asyncio
import logging
import random
from collections.abc import Iterable, Iterator, Mapping
from contextlib import suppress
from datetime import datetime, timedelta

from eventwright.graphs.schedules import Every, Missed, schedules_of
from eventwright.graphs.workflow import SCHEDULES
from eventwright.queue.engine import Engine
from eventwright.queue.intake import EventConflict, EventRefused
from eventwright.runs.errors import Overloaded, StoreUnavailable
from eventwright.runs.schedules import Declared, seen_to

log = logging.getLogger(__name__)

#: A tick that is seen so late was missed: nobody was there, or the database was away.
LATE = timedelta(minutes=1)
#: Ticks of one schedule that are made up for when each of them counts; the newest.
MOST_MISSED = 1000
#: Seconds between two looks at the clock: a sleep may last longer than it was meant to, and a clock may be set.
LOOK = 30.0
#: Seconds after a failed round, or one that had to leave ticks for later.
PAUSE = 2.0
#: Keeps the schedulers of many workers apart by so many seconds, and guards nothing.
JITTER = 0.2


class Scheduler:
    """Fires until it is stopped.

    Args:
        engine: whose workflows' schedules it fires, through its verbs and by its store's clock.
    """

    def __init__(self, engine: Engine) -> None:
        self._engine = engine
        self._store = engine.store
        self._schedules = [every for workflow in engine.workflows for every in schedules_of(workflow)]
        self._adopted = False

    async def run(self, stopping: asyncio.Event) -> None:
        """Fire whatever comes due, until `stopping` is set."""
        while not stopping.is_set():
            try:
                seconds = await self.once(stopping)
            except StoreUnavailable as error:
                log.warning("schedules are put off: %s", error)
                seconds = PAUSE
            with suppress(TimeoutError):
                await asyncio.wait_for(stopping.wait(), seconds + random.uniform(0, JITTER))

    async def once(self, stopping: asyncio.Event | None = None) -> float:
        """Fire what is due, and say in how many seconds to come again. Raises StoreUnavailable."""
        if not self._adopted:
            await self._adopt()
            self._adopted = True
        if not self._schedules:
            return LOOK
        seen = await seen_to(self._store)
        # One after the other: what is made up for by a schedule keeps its order, and no crowd comes to the door.
        for every in self._schedules:
            if not await self._fire_due(every, seen, stopping):
                return PAUSE
        now = await self._store.now()
        nexts = (every.when().next_after(now) for every in self._schedules)
        return min([LOOK, *((tick - now).total_seconds() for tick in nexts if tick is not None)])

    async def _adopt(self) -> None:
        """Put the schedules as they are declared here in force, and out of force what is not declared any more."""
        mine = {declared(every) for every in self._schedules}
        in_force = {known.source: known for known in await seen_to(self._store)}
        loaded = tuple(f"{SCHEDULES}{workflow.name}/" for workflow in self._engine.workflows)
        there = {one.source for one in mine}
        gone = {
            Declared(source)
            for source, known in in_force.items()
            if known.cron and source.startswith(loaded) and source not in there
        }
        for one in sorted((mine | gone) - set(in_force.values())):
            async with self._store.write() as tx:
                tx.adopt_schedule(one)

    async def _fire_due(self, every: Every, seen: Mapping[Declared, datetime], stopping: asyncio.Event | None) -> bool:
        """Fire what is due of one schedule; whether nothing is left for later."""
        after = seen[declared(every)]
        for tick, fires in due(every, after=after, now=await self._store.now()):
            if stopping is not None and stopping.is_set():
                return False
            if fires and not await self._fire(every, tick):
                return False
            async with self._store.write() as tx:
                tx.see_schedule_to(declared(every), tick)
        return True

    async def _fire(self, every: Every, tick: datetime) -> bool:
        """Whether the tick is dealt with; a refused one is, for its event is kept and can be replayed."""
        event = every.firing(tick)
        try:
            await self._engine.fire(event)
        except Overloaded as error:
            log.warning("the tick %s of %s waits: %s", event.id, event.source, error)
            return False
        except EventConflict:
            # Another release, whose schedule says something else, has fired this tick.
            log.info("the tick %s of %s has fired already, with other data", event.id, event.source)
        except EventRefused as error:
            log.error("the tick %s of %s is refused, and kept: %s", event.id, event.source, error)
        return True


def declared(every: Every) -> Declared:
    """The schedule as its row is named. Raises ValueError if it is of no workflow."""
    if every.source is None:
        raise ValueError(f"the schedule {every.name!r} belongs to no workflow yet; take it from Workflow.triggers")
    return Declared(every.source, every.cron, every.zone)


def due(every: Every, *, after: datetime, now: datetime) -> Iterator[tuple[datetime, bool]]:
    """The ticks in (after, now] that have to be dealt with, oldest first, and whether each of them fires."""
    policy = Missed(every.missed)
    ticks: Iterable[datetime] = every.when().ticks(
        after=after, until=now, most=MOST_MISSED if policy is Missed.ALL else 1
    )
    for tick in ticks:
        yield tick, policy is not Missed.SKIP or now - tick <= LATE
