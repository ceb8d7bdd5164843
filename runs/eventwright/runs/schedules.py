"""How far each schedule was seen to. That a tick fires once is no matter of these rows: its event's name is unique.

A schedule may have been declared in several ways, by releases that follow each other, or are at work together for the
time of a deploy. Each way keeps a row of its own, and the process that begins last says which one is in force: so a
changed line begins when it is deployed, and so does an old one that comes back.
"""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass
from datetime import datetime
from typing import TYPE_CHECKING

import sqlalchemy as sa

from eventwright.runs import schema
from eventwright.runs.batch import Batch, Unit
from eventwright.runs.records import EventState

if TYPE_CHECKING:
    from eventwright.runs.store import Store


@dataclass(frozen=True, order=True)
class Declared:
    """A schedule in one of the ways in which it was declared; without a cron line it was taken away."""

    source: str
    cron: str = ""
    zone: str = ""


class ScheduleVerbs:
    """The verbs about schedules, of `Transaction`."""

    unit: Unit

    def adopt_schedule(self, declared: Declared) -> None:
        """Let the schedule be this one from now on, unless it is: what came due before is not its own."""
        newest = sa.select(_TABLE).where(_TABLE.c.source == declared.source).order_by(_TABLE.c.adopted_at.desc())

        def step(batch: Batch) -> None:
            found = batch.execute(newest).mappings().first()
            if found is not None and _declared(found) == declared:
                return
            begin = {"adopted_at": batch.now, "seen_to": batch.now}
            if found is not None:
                earlier = sa.update(_TABLE).where(_is(declared), _TABLE.c.adopted_at <= found["adopted_at"])
                batch.execute(earlier.values(begin))
            # Nothing happens where there is such a row; a process that began at the same moment may have put it there.
            batch.execute(batch.statements.schedule.values(**vars(declared), **begin))

        self.unit.steps.append(step)

    def see_schedule_to(self, declared: Declared, tick: datetime) -> None:
        """Ticks up to this one have fired, or were left out. It never goes back."""
        further = sa.update(_TABLE).where(_is(declared), _TABLE.c.seen_to < tick).values(seen_to=tick)
        self.unit.steps.append(lambda batch: batch.execute(further))


async def seen_to(store: Store) -> dict[Declared, datetime]:
    """How far each schedule was seen to, those in force last. Raises StoreUnavailable."""
    rows = await store.rows_of(sa.select(_TABLE).order_by(_TABLE.c.adopted_at))
    return {_declared(row): row["seen_to"] for row in rows}


async def last_firings(store: Store, sources: Collection[str]) -> dict[str, str]:
    """The id of the newest event of each source, which is its newest tick. Raises StoreUnavailable."""
    events = schema.events
    query = (
        sa.select(events.c.source, sa.func.max(events.c.id).label("id"))
        .where(events.c.source.in_(sorted(sources)), events.c.state == str(EventState.ACCEPTED))
        .group_by(events.c.source)
    )
    return {row["source"]: row["id"] for row in await store.rows_of(query)} if sources else {}


_TABLE = schema.schedules


def _declared(row: sa.RowMapping) -> Declared:
    return Declared(row["source"], row["cron"], row["zone"])


def _is(declared: Declared) -> sa.ColumnElement[bool]:
    return sa.and_(*(_TABLE.c[name] == value for name, value in vars(declared).items()))
