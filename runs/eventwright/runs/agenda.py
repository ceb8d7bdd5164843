"""The agenda: what waits for people, the most urgent first, without what makes a review heavy."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import sqlalchemy as sa

from eventwright.runs import schema
from eventwright.runs.records import Review, ReviewState
from eventwright.runs.rows import review_of

if TYPE_CHECKING:
    from eventwright.runs.store import Store


@dataclass(frozen=True, kw_only=True)
class Item:
    """An open review, and what it is about.

    Attributes:
        review: without its arguments, its evidence and its schema, which may be as large as an event.
        event_type, event_id, subject: of the event that started its run.
        serial_key: of its run, if it has one.
    """

    review: Review
    event_type: str
    event_id: str
    subject: str | None
    serial_key: str | None


async def agenda(
    store: Store, *, workflow: str | None = None, after: Review | None = None, limit: int = 50
) -> list[Item]:
    """Open reviews: the earliest deadline first, those without one last, the oldest first among equals.

    Args:
        workflow: only reviews of this one.
        after: the review that the last page ended with.
    """
    query = _OPEN if workflow is None else _OPEN.where(schema.reviews.c.workflow == workflow)
    if after is not None:
        query = query.where(_later(after))
    return [_item(row) for row in await store.rows_of(query.limit(limit))]


def _later(than: Review) -> sa.ColumnElement[bool]:
    deadline, identifier = schema.reviews.c.deadline, schema.reviews.c.id
    if than.deadline is None:
        return sa.and_(deadline.is_(None), identifier > than.id)
    same = sa.and_(deadline == than.deadline, identifier > than.id)
    return sa.or_(deadline.is_(None), deadline > than.deadline, same)


def _item(row: sa.RowMapping) -> Item:
    light: dict[str, Any] = {
        "arguments": None,
        "evidence": {},
        "response_schema": None,
        "decision_type": None,
        "expired_at": None,
    }
    return Item(
        review=review_of({**row, **light}),
        event_type=row["event_type"],
        event_id=row["event_id"],
        subject=row["event_subject"],
        serial_key=row["run_serial_key"],
    )


_HEAVY = frozenset({"arguments", "evidence", "response_schema"})
_LIGHT: Sequence[sa.Column[Any]] = [column for column in schema.reviews.c if column.name not in _HEAVY]
_OPEN: sa.Select[Any] = (
    sa.select(
        *_LIGHT,
        schema.runs.c.serial_key.label("run_serial_key"),
        schema.events.c.type.label("event_type"),
        schema.events.c.id.label("event_id"),
        schema.events.c.subject.label("event_subject"),
    )
    .join(schema.runs, schema.runs.c.id == schema.reviews.c.run_id)
    .join(schema.events, schema.events.c.uid == schema.runs.c.event_uid)
    .where(schema.reviews.c.state == str(ReviewState.OPEN))
    .order_by(schema.reviews.c.deadline.is_(None), schema.reviews.c.deadline, schema.reviews.c.id)
)
