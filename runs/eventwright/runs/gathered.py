"""Events that were gathered into a run, beside the one that started it."""

from __future__ import annotations

from collections.abc import Collection
from typing import TYPE_CHECKING

import sqlalchemy as sa

from eventwright.runs import schema
from eventwright.runs.database import padded
from eventwright.runs.event import Event
from eventwright.runs.rows import event_of

if TYPE_CHECKING:
    from eventwright.runs.store import Store

run_events = sa.Table(
    "run_events",
    schema.metadata,
    sa.Column("run_id", sa.String(64), primary_key=True),
    # From 1 on, in the order in which they were accepted; the event that started the run would be 0.
    sa.Column("position", sa.Integer, primary_key=True),
    sa.Column("event_uid", sa.String(64), nullable=False),
    sa.Index("ix_run_events_event_uid", "event_uid"),
)


async def gathered(store: Store, run_id: str) -> list[Event]:
    """The events that were gathered into the run, without the one that started it. Raises StoreUnavailable."""
    query = (
        sa.select(schema.events)
        .join(run_events, run_events.c.event_uid == schema.events.c.uid)
        .where(run_events.c.run_id == run_id)
        .order_by(run_events.c.position)
    )
    return [event_of(row) for row in await store.rows_of(query)]


def gathered_into(uids: Collection[str]) -> sa.Select[tuple[str, str]]:
    """(uid, run) of these events that were gathered into runs."""
    columns = (run_events.c.event_uid.label("uid"), run_events.c.run_id.label("run"))
    return sa.select(*columns).where(run_events.c.event_uid.in_(padded(uids))).order_by(run_events.c.run_id)
