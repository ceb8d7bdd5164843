"""The census: how much of what there is, and for how long. One look at the database, for metrics."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from datetime import datetime
from typing import Any

import sqlalchemy as sa

from eventwright.runs import schema
from eventwright.runs.records import EventState, ReviewState
from eventwright.runs.states import FINAL
from eventwright.runs.store import Store


@dataclass(frozen=True)
class Group:
    """So many of a kind, and since when the oldest of them is, in seconds; None where that means nothing."""

    names: tuple[str, ...]
    count: int
    oldest: float | None


@dataclass(frozen=True, kw_only=True)
class Census:
    """What the database holds at one moment.

    Attributes:
        runs: by workflow and state; the oldest in its state.
        reviews: open ones, by workflow.
        due: runs that could be taken up, by lane.
        wakeups: bells in the outbox, by lane and whether they were rung (`waiting` or `rung`).
        refused: refused events.
    """

    runs: tuple[Group, ...]
    reviews: tuple[Group, ...]
    due: tuple[Group, ...]
    wakeups: tuple[Group, ...]
    refused: int


async def take_census(store: Store) -> Census:
    """Count. Raises StoreUnavailable."""
    now = await store.now()

    def read(connection: sa.Connection) -> Census:
        def groups(query: sa.Select[Any]) -> Iterator[Group]:
            for *names, count, oldest in connection.execute(query):
                yield Group(tuple(names), count, None if oldest is None else _age(oldest, now))

        final = {str(state) for state in FINAL}
        runs = tuple(
            Group(group.names, group.count, None if group.names[1] in final else group.oldest)
            for group in groups(_RUNS)
        )
        return Census(
            runs=runs,
            reviews=tuple(groups(_REVIEWS)),
            due=tuple(groups(_DUE.where(schema.runs.c.due_at <= now))),
            wakeups=tuple(groups(_WAKEUPS)),
            refused=connection.execute(_REFUSED).scalar_one(),
        )

    return await store.read(read)


def _age(since: datetime, now: datetime) -> float:
    return max((now - since).total_seconds(), 0.0)


def _counted(*names: sa.ColumnElement[str], since: sa.ColumnElement[datetime]) -> sa.Select[Any]:
    query: Any = sa.select(*names, sa.func.count(), sa.func.min(since))
    return query.group_by(*names)  # type: ignore[no-any-return]


_RUNS = _counted(schema.runs.c.workflow, schema.runs.c.state, since=schema.runs.c.updated_at)
_REVIEWS = _counted(schema.reviews.c.workflow, since=schema.reviews.c.created_at).where(
    schema.reviews.c.state == str(ReviewState.OPEN)
)
_DUE = _counted(schema.runs.c.lane, since=schema.runs.c.due_at)
_WAKEUPS = _counted(
    schema.wakeups.c.lane,
    sa.case((schema.wakeups.c.sent_at.is_(None), sa.literal_column("'waiting'")), else_=sa.literal_column("'rung'")),
    since=schema.wakeups.c.created_at,
)
_REFUSED = sa.select(sa.func.count()).where(schema.events.c.state == str(EventState.REFUSED))
