"""What runs wait for: an event from outside that is known by its type and a key, or a time, whichever is first.

A wait belongs to a place in its run, as an effect does: asked again there, it says again how it ended. What an event
says to the runs of a workflow is a signal; the oldest open wait takes it, or else the next one that is opened by a run
that was there before the event, unless a run was started for it because it came too late. How both find each other is
in `correlating.py`.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import TYPE_CHECKING, Any

import sqlalchemy as sa

from eventwright.runs import schema
from eventwright.runs.database import padded
from eventwright.runs.event import Event
from eventwright.runs.gathered import gathered_into
from eventwright.runs.rows import event_of
from eventwright.runs.states import Documented

if TYPE_CHECKING:
    from eventwright.runs.store import Store

#: What begins the id of a wait.
PREFIX = "wait_"


class WaitState(Documented):
    OPEN = "open", "neither the event nor the time has come"
    ANSWERED = "answered", "the event came first; it is the answer for good"
    TIMED_OUT = "timed_out", "the time came first"
    CANCELLED = "cancelled", "its node has gone another way, or its run has ended"


@dataclass(frozen=True, kw_only=True)
class Wait:
    """One place in a run at which it waits.

    Attributes:
        visit, number: the place: the visit of its node, and which of the waits for the same in that visit it is.
        types: of the events, any of which will do; none where only a time is waited for.
        key: that the event must have; None where only a time is waited for.
        deadline: the time that ends it without an event.
        asked: the deadline as the node has put it, to tell waits for the same apart.
        event: that answered it.
    """

    id: str
    run_id: str
    workflow: str
    node: str
    visit: int
    number: int
    types: tuple[str, ...] = ()
    key: str | None = None
    deadline: datetime | None = None
    asked: str = ""
    state: WaitState = WaitState.OPEN
    event: Event | None = None

    def as_json(self) -> dict[str, Any]:
        """For the journal."""
        until = None if self.deadline is None else self.deadline.isoformat()
        return {"types": list(self.types), "key": self.key, "until": until}


@dataclass(frozen=True)
class WaitingFor:
    """What a run waits for just now: an event of one of these types with this key, or a time, whichever is first."""

    types: tuple[str, ...]
    key: str | None
    until: datetime | None


waits = sa.Table(
    "waits",
    schema.metadata,
    sa.Column("id", sa.String(64), primary_key=True),
    sa.Column("run_id", sa.String(64), nullable=False),
    sa.Column("workflow", sa.String(128), nullable=False),
    sa.Column("node", sa.String(256), nullable=False),
    sa.Column("visit", sa.Integer, nullable=False),
    sa.Column("number", sa.Integer, nullable=False),
    # One a line, with a line's end before the first and after the last.
    sa.Column("types", sa.Text, nullable=False),
    sa.Column("key", sa.String(256)),
    sa.Column("deadline", schema.UtcDateTime),
    sa.Column("asked", sa.String(64), nullable=False),
    sa.Column("state", sa.String(16), nullable=False),
    # The uid of the event.
    sa.Column("answered_by", sa.String(64)),
    sa.Column("opened_at", schema.UtcDateTime, nullable=False),
    sa.Index("ix_waits_run_id", "run_id"),
    sa.Index("ix_waits_workflow_key", "workflow", "key", "opened_at"),
    sa.Index(
        "ix_waits_open",
        "workflow",
        "key",
        "opened_at",
        "id",
        sqlite_where=sa.text("state = 'open'"),
        postgresql_where=sa.text("state = 'open'"),
    ),
    sa.Index("ix_waits_answered_by", "answered_by"),
)

#: Of a signal: no wait has taken it, and no run was started for it. In these words, for the index that holds such.
FREE = "wait_id IS NULL AND input IS NULL"

#: What an event says to the runs of a workflow.
signals = sa.Table(
    "signals",
    schema.metadata,
    sa.Column("event_uid", sa.String(64), primary_key=True),
    sa.Column("workflow", sa.String(128), primary_key=True),
    sa.Column("type", sa.String(512), nullable=False),
    sa.Column("key", sa.String(256), nullable=False),
    sa.Column("at", schema.UtcDateTime, nullable=False),
    # The wait that took it.
    sa.Column("wait_id", sa.String(64)),
    # A run that has waited for it in vain: once that is at its end, the event comes too late, and that is seen to.
    sa.Column("late_for", sa.String(64)),
    # What the run starts with that it starts because it came too late.
    sa.Column("input", schema.Json),
    sa.Index(
        "ix_signals_kept",
        "workflow",
        "key",
        "type",
        "at",
        "event_uid",
        sqlite_where=sa.text(FREE),
        postgresql_where=sa.text(FREE),
    ),
    sa.Index(
        "ix_signals_late_for",
        "late_for",
        sqlite_where=sa.text("late_for IS NOT NULL"),
        postgresql_where=sa.text("late_for IS NOT NULL"),
    ),
)


def wait_row(wait: Wait) -> dict[str, Any]:
    """The row of a new wait, but for when it is opened."""
    names = ("id", "run_id", "workflow", "node", "visit", "number", "key", "deadline", "asked")
    row = {name: getattr(wait, name) for name in names}
    return row | {"types": lines_of(wait.types), "state": str(wait.state), "answered_by": None}


def wait_of(row: Mapping[Any, Any]) -> Wait:
    """A wait from its row, joined with that of its event (whose columns bear the prefix `event_`)."""
    names = ("id", "run_id", "workflow", "node", "visit", "number", "key", "deadline", "asked")
    event = None if row["event_uid"] is None else event_of(row, "event_")
    return Wait(
        **{name: row[name] for name in names},
        types=tuple(row["types"].split("\n")[1:-1]),
        state=WaitState(row["state"]),
        event=event,
    )


def lines_of(types: Iterable[str]) -> str:
    """The types as they are stored."""
    return "".join(f"\n{name}" for name in types) + "\n"


def awaits(event_type: str) -> sa.ColumnElement[bool]:
    """A wait that an event of this type would do for."""
    return waits.c.types.contains(f"\n{event_type}\n", autoescape=True)


_WITH_EVENTS = sa.select(waits, *(column.label(f"event_{column.name}") for column in schema.events.c)).outerjoin(
    schema.events, schema.events.c.uid == waits.c.answered_by
)
#: The waits of a run, in the order of their places.
OF_RUN = _WITH_EVENTS.where(waits.c.run_id == sa.bindparam("run_id")).order_by(waits.c.visit, waits.c.number)


async def waits_of(store: Store, run_id: str) -> list[Wait]:
    """The waits of a run, in the order of their places. Raises StoreUnavailable."""

    def read(connection: sa.Connection) -> list[Wait]:
        return [wait_of(row) for row in connection.execute(OF_RUN, {"run_id": run_id}).mappings()]

    return await store.read(read)


async def waiting_for(store: Store, run_ids: Collection[str]) -> dict[str, list[WaitingFor]]:
    """What each of these runs waits for, in the order in which it began to. Raises StoreUnavailable."""
    found: dict[str, list[WaitingFor]] = {run_id: [] for run_id in run_ids}
    query = (
        sa.select(waits.c.run_id, waits.c.types, waits.c.key, waits.c.deadline)
        .where(waits.c.run_id.in_(padded(run_ids)), waits.c.state == str(WaitState.OPEN))
        .order_by(waits.c.opened_at, waits.c.visit, waits.c.number)
    )
    for row in await store.rows_of(query) if run_ids else ():
        types = tuple(row["types"].split("\n")[1:-1])
        found[row["run_id"]].append(WaitingFor(types, row["key"], row["deadline"]))
    return found


async def runs_of_events(store: Store, uids: Collection[str]) -> dict[str, list[str]]:
    """The runs that each of these events has started or was gathered into, and then those that it went on. Raises
    StoreUnavailable."""
    found: dict[str, list[str]] = {uid: [] for uid in uids}
    started = sa.select(schema.runs.c.event_uid.label("uid"), schema.runs.c.id.label("run"))
    continued = sa.select(waits.c.answered_by.label("uid"), waits.c.run_id.label("run"))
    queries = (
        started.where(schema.runs.c.event_uid.in_(padded(uids))).order_by(schema.runs.c.workflow),
        gathered_into(uids),
        continued.where(waits.c.answered_by.in_(padded(uids))).order_by(waits.c.workflow, waits.c.id),
    )
    for query in queries if uids else ():
        for row in await store.rows_of(query):
            if row["run"] not in found[row["uid"]]:
                found[row["uid"]].append(row["run"])
    return found


async def late_input(store: Store, event_uid: str, workflow: str) -> Any:
    """What the run starts with that the event started because it came too late; None if it did not."""
    query = sa.select(signals.c.input).where(signals.c.event_uid == event_uid, signals.c.workflow == workflow)
    rows = await store.rows_of(query)
    return rows[0]["input"] if rows else None
