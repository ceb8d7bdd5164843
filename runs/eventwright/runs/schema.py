"""The tables. Migrations make them (`migrations/`); a test keeps the two equal.

Times are aware UTC everywhere. SQLite knows neither zones nor decimals, so both stores go through the types here.
"""

from __future__ import annotations

from datetime import UTC, datetime
from decimal import Context, Decimal
from typing import Any

import sqlalchemy as sa


class UtcDateTime(sa.types.TypeDecorator[datetime]):
    """An aware UTC time: `timestamptz` on PostgreSQL, sortable text on SQLite. A naive time is refused."""

    impl = sa.String(32)
    cache_ok = True

    def load_dialect_impl(self, dialect: sa.Dialect) -> sa.types.TypeEngine[Any]:
        kind = sa.DateTime(timezone=True) if dialect.name == "postgresql" else sa.String(32)
        return dialect.type_descriptor(kind)

    def process_bind_param(self, value: datetime | None, dialect: sa.Dialect) -> Any:
        if value is None:
            return None
        if value.tzinfo is None:
            raise ValueError(f"a time needs its zone, {value!r} has none; use datetime.now(UTC)")
        value = value.astimezone(UTC)
        return value if dialect.name == "postgresql" else value.isoformat(timespec="microseconds")

    def process_result_value(self, value: Any, dialect: sa.Dialect) -> datetime | None:
        if value is None:
            return None
        return value.astimezone(UTC) if isinstance(value, datetime) else datetime.fromisoformat(value)


#: As many digits as `Money` holds: nothing is rounded on its way.
_DIGITS = Context(prec=38)


class Money(sa.types.TypeDecorator[Decimal]):
    """An exact decimal: `numeric` on PostgreSQL, text on SQLite, which would make it a float."""

    impl = sa.Numeric(38, 10)
    cache_ok = True

    def load_dialect_impl(self, dialect: sa.Dialect) -> sa.types.TypeEngine[Any]:
        return dialect.type_descriptor(sa.Numeric(38, 10) if dialect.name == "postgresql" else sa.String(64))

    def process_bind_param(self, value: Decimal | None, dialect: sa.Dialect) -> Any:
        if value is None:
            return None
        if not isinstance(value, Decimal) or not value.is_finite():
            raise ValueError(f"money is a finite Decimal, not {value!r}")
        return value if dialect.name == "postgresql" else format(value, "f")

    def process_result_value(self, value: Any, dialect: sa.Dialect) -> Decimal | None:
        return None if value is None else Decimal(value).normalize(_DIGITS)


#: JSON as it was written: JSONB would turn 1e22 into an integer, and digests would not match. None is SQL's NULL.
Json = sa.JSON(none_as_null=True)

#: States in which a run's checkpoints, and in the end its payloads, are not needed any more. Written out, because a
#: database finds an index that holds some rows only by the very condition that the index has.
FINISHED = "state IN ('completed', 'cancelled')"
_UNPRUNED, _UNEXPIRED = f"pruned_at IS NULL AND {FINISHED}", f"expired_at IS NULL AND {FINISHED}"

metadata = sa.MetaData(
    naming_convention={
        "ix": "ix_%(table_name)s_%(column_0_N_name)s",
        "uq": "uq_%(table_name)s_%(column_0_N_name)s",
        "pk": "pk_%(table_name)s",
    }
)

events = sa.Table(
    "events",
    metadata,
    sa.Column("uid", sa.String(64), primary_key=True),
    sa.Column("id", sa.String(512), nullable=False),
    sa.Column("source", sa.String(512), nullable=False),
    sa.Column("type", sa.String(512), nullable=False),
    sa.Column("subject", sa.String(512)),
    sa.Column("time", UtcDateTime),
    sa.Column("version", sa.String(64), nullable=False),
    sa.Column("data", Json),
    sa.Column("extensions", Json, nullable=False),
    sa.Column("digest", sa.String(64), nullable=False),
    sa.Column("state", sa.String(16), nullable=False),
    sa.Column("problem", Json),
    sa.Column("received_at", UtcDateTime, nullable=False),
    sa.Column("principal", sa.String(256)),
    # When its payload was taken out; what names it stays, so that it is still known as a duplicate.
    sa.Column("expired_at", UtcDateTime),
    # A refused event does not claim its name: corrected, it may come again.
    sa.Index(
        "uq_events_source_id",
        "source",
        "id",
        unique=True,
        sqlite_where=sa.text("state = 'accepted'"),
        postgresql_where=sa.text("state = 'accepted'"),
    ),
    sa.Index("ix_events_state_uid", "state", "uid"),
    sa.Index(
        "ix_events_unexpired",
        "received_at",
        sqlite_where=sa.text("expired_at IS NULL"),
        postgresql_where=sa.text("expired_at IS NULL"),
    ),
)

runs = sa.Table(
    "runs",
    metadata,
    sa.Column("id", sa.String(64), primary_key=True),
    sa.Column("event_uid", sa.String(64), nullable=False),
    sa.Column("workflow", sa.String(128), nullable=False),
    sa.Column("version", sa.String(64), nullable=False),
    sa.Column("state", sa.String(24), nullable=False),
    sa.Column("outcome", sa.String(16)),
    sa.Column("reason", sa.String(24)),
    sa.Column("error", sa.Text),
    sa.Column("attempts", sa.Integer, nullable=False),
    sa.Column("lane", sa.String(64), nullable=False),
    sa.Column("generation", sa.Integer, nullable=False),
    sa.Column("fence", sa.Integer, nullable=False),
    sa.Column("worker", sa.String(128)),
    sa.Column("crashes", sa.Integer, nullable=False),
    sa.Column("cancel_requested_by", sa.String(256)),
    sa.Column("due_at", UtcDateTime),
    sa.Column("created_at", UtcDateTime, nullable=False),
    sa.Column("updated_at", UtcDateTime, nullable=False),
    # Runs of one workflow with the same key go one after the other.
    sa.Column("serial_key", sa.String(256)),
    # Of the graph that it began with.
    sa.Column("fingerprint", sa.String(64)),
    # The W3C trace parent of all its spans, across pauses and workers.
    sa.Column("trace", sa.String(64)),
    # How many segments in a row brought it nowhere.
    sa.Column("idle", sa.Integer, nullable=False, server_default="0"),
    # When its checkpoints were deleted, and when what it read and wrote was.
    sa.Column("pruned_at", UtcDateTime),
    sa.Column("expired_at", UtcDateTime),
    # With a serial key: 0 for the run that goes, 1 for one that waits for its turn, nothing for one that has ended.
    sa.Column("turn", sa.Integer),
    # Where it stood when a worker last died with it.
    sa.Column("stood_at", sa.String(64)),
    # One event starts at most one run of a workflow (promise P2).
    sa.UniqueConstraint("event_uid", "workflow"),
    sa.Index("ix_runs_due_at", "due_at"),
    sa.Index("ix_runs_state_id", "state", "id"),
    sa.Index("ix_runs_workflow_id", "workflow", "id"),
    # Who goes and who waits among runs of the same key; those that have ended are not in it.
    sa.Index(
        "ix_runs_in_line",
        "workflow",
        "serial_key",
        "turn",
        "created_at",
        "id",
        sqlite_where=sa.text("turn IS NOT NULL"),
        postgresql_where=sa.text("turn IS NOT NULL"),
    ),
    # What retention still has to look at; a run enters when it ends and leaves with what is deleted.
    sa.Index("ix_runs_unpruned", "updated_at", sqlite_where=sa.text(_UNPRUNED), postgresql_where=sa.text(_UNPRUNED)),
    sa.Index("ix_runs_unexpired", "updated_at", sqlite_where=sa.text(_UNEXPIRED), postgresql_where=sa.text(_UNEXPIRED)),
)

#: The graphs that runs began with, as JSON that a later one can be compared with (`graphs/fingerprint.py`).
graphs = sa.Table(
    "graphs",
    metadata,
    sa.Column("fingerprint", sa.String(64), primary_key=True),
    # Where it was seen first; another version may have the same graph.
    sa.Column("workflow", sa.String(128), nullable=False),
    sa.Column("version", sa.String(64), nullable=False),
    sa.Column("structure", Json, nullable=False),
)

#: Every run beside its event, whose columns bear the prefix `event_`.
runs_with_events = sa.select(
    runs, *(column.label(f"event_{column.name}") for column in events.c if column.name != "uid")
).join(events, events.c.uid == runs.c.event_uid)

journal = sa.Table(
    "journal",
    metadata,
    sa.Column("run_id", sa.String(64), primary_key=True),
    sa.Column("seq", sa.Integer, primary_key=True),
    sa.Column("at", UtcDateTime, nullable=False),
    sa.Column("kind", sa.String(24), nullable=False),
    sa.Column("actor", sa.String(256), nullable=False),
    sa.Column("node", sa.String(256)),
    sa.Column("version", sa.Integer, nullable=False),
    sa.Column("data", Json, nullable=False),
    sa.Column("prev", sa.String(64), nullable=False),
    sa.Column("hash", sa.String(64), nullable=False),
)

visits = sa.Table(
    "visits",
    metadata,
    sa.Column("run_id", sa.String(64), primary_key=True),
    # Counted over the whole run: an effect's key holds it, and no node's name, so that a node may be renamed.
    sa.Column("visit", sa.Integer, primary_key=True),
    sa.Column("node", sa.String(256), nullable=False),
    sa.Column("place", sa.Text, nullable=False),
    sa.Column("failures", sa.Integer, nullable=False),
    sa.UniqueConstraint("run_id", "place"),
)

effects = sa.Table(
    "effects",
    metadata,
    sa.Column("key", sa.String(64), primary_key=True),
    sa.Column("run_id", sa.String(64), nullable=False),
    sa.Column("node", sa.String(256), nullable=False),
    sa.Column("visit", sa.Integer, nullable=False),
    sa.Column("tool", sa.String(256), nullable=False),
    sa.Column("ordinal", sa.String(256), nullable=False),
    sa.Column("tool_class", sa.String(16), nullable=False),
    sa.Column("state", sa.String(16), nullable=False),
    sa.Column("requested_digest", sa.String(64), nullable=False),
    sa.Column("executed_digest", sa.String(64), nullable=False),
    sa.Column("arguments", Json),
    sa.Column("result", Json),
    sa.Column("error", sa.Text),
    sa.Column("attempt", sa.Integer, nullable=False),
    sa.Column("updated_at", UtcDateTime, nullable=False),
    # A call is taken back once: the run that does it is written here by compare-and-set.
    sa.Column("undone_by", sa.String(64)),
    # What the node's present attempt has seen of it, and sees again when the node runs again.
    sa.Column("failures", Json),
    sa.Index("ix_effects_run_id", "run_id"),
)

#: How much of each budget is used: reserved by calls that are under way, or spent. A new day is a new row.
budgets = sa.Table(
    "budgets",
    metadata,
    sa.Column("scope", sa.String(64), primary_key=True),
    sa.Column("label", sa.Text, nullable=False),
    sa.Column("used", Money, nullable=False),
    # The limit that was last kept to, for people; what counts is the limit of each call's own policy.
    sa.Column("most", Money),
    sa.Column("opened_at", UtcDateTime, nullable=False),
    sa.Index("ix_budgets_opened_at_scope", "opened_at", "scope"),
)

#: What each call took of each budget; a call takes once, however often, and on whichever day, it is repeated.
reservations = sa.Table(
    "reservations",
    metadata,
    sa.Column("effect_key", sa.String(64), primary_key=True),
    sa.Column("budget", sa.String(64), primary_key=True),
    sa.Column("scope", sa.String(64), nullable=False),
    sa.Column("run_id", sa.String(64), nullable=False),
    sa.Column("amount", Money, nullable=False),
    # Spent, and not to be given back any more.
    sa.Column("settled", sa.Boolean, nullable=False),
)

reviews = sa.Table(
    "reviews",
    metadata,
    sa.Column("id", sa.String(64), primary_key=True),
    sa.Column("run_id", sa.String(64), nullable=False),
    sa.Column("workflow", sa.String(128), nullable=False),
    sa.Column("node", sa.String(256), nullable=False),
    sa.Column("kind", sa.String(24), nullable=False),
    sa.Column("question", sa.Text, nullable=False),
    sa.Column("allowed", Json, nullable=False),
    sa.Column("digest", sa.String(64), nullable=False),
    sa.Column("state", sa.String(16), nullable=False),
    sa.Column("arguments", Json),
    sa.Column("evidence", Json, nullable=False),
    sa.Column("response_schema", Json),
    sa.Column("deadline", UtcDateTime),
    sa.Column("default", Json),
    sa.Column("rule", Json),
    sa.Column("interrupt_id", sa.String(64)),
    sa.Column("consumed_by", sa.String(64)),
    sa.Column("created_at", UtcDateTime, nullable=False),
    sa.Column("people", sa.Integer, nullable=False, server_default="1"),
    sa.Column("approvers", Json),
    sa.Column("barred", Json),
    sa.Index("ix_reviews_run_id", "run_id"),
    sa.Index("ix_reviews_state_id", "state", "id"),
)

#: One row a review at most: the primary key is the promise "one decision per review" (P5).
decisions = sa.Table(
    "decisions",
    metadata,
    sa.Column("review_id", sa.String(64), primary_key=True),
    sa.Column("type", sa.String(16), nullable=False),
    sa.Column("by", sa.String(256), nullable=False),
    sa.Column("verified", sa.Boolean, nullable=False),
    sa.Column("at", UtcDateTime, nullable=False),
    sa.Column("arguments", Json),
    sa.Column("response", Json),
    sa.Column("comment", sa.Text),
)

timers = sa.Table(
    "timers",
    metadata,
    sa.Column("id", sa.String(64), primary_key=True),
    sa.Column("run_id", sa.String(64), nullable=False),
    sa.Column("review_id", sa.String(64), nullable=False),
    sa.Column("due_at", UtcDateTime, nullable=False),
    sa.Index("ix_timers_due_at", "due_at"),
)

#: The outbox: written with the state that needs the bell, deleted by the claim that answers it.
wakeups = sa.Table(
    "wakeups",
    metadata,
    sa.Column("id", sa.String(64), primary_key=True),
    sa.Column("run_id", sa.String(64), nullable=False),
    sa.Column("lane", sa.String(64), nullable=False),
    sa.Column("created_at", UtcDateTime, nullable=False),
    sa.Column("sent_at", UtcDateTime),
    sa.Index("ix_wakeups_run_id", "run_id"),
    sa.Index("ix_wakeups_sent_at", "sent_at"),
)

#: How far each schedule was seen to, for each way in which it was ever declared: ticks up to then have fired, or were
#: left out. The one adopted last is in force; a cron line of no letters says that the schedule was taken away.
schedules = sa.Table(
    "schedules",
    metadata,
    sa.Column("source", sa.String(512), primary_key=True),
    sa.Column("cron", sa.String(256), primary_key=True),
    sa.Column("zone", sa.String(256), primary_key=True),
    sa.Column("adopted_at", UtcDateTime, nullable=False),
    sa.Column("seen_to", UtcDateTime, nullable=False),
)

checkpoints = sa.Table(
    "checkpoints",
    metadata,
    sa.Column("thread_id", sa.String(80), primary_key=True),
    sa.Column("ns", sa.String(512), primary_key=True),
    sa.Column("id", sa.String(64), primary_key=True),
    sa.Column("parent", sa.String(64)),
    sa.Column("type", sa.String(32), nullable=False),
    sa.Column("body", sa.LargeBinary, nullable=False),
    sa.Column("metadata", Json, nullable=False),
)

checkpoint_writes = sa.Table(
    "checkpoint_writes",
    metadata,
    sa.Column("thread_id", sa.String(80), primary_key=True),
    sa.Column("ns", sa.String(512), primary_key=True),
    sa.Column("checkpoint_id", sa.String(64), primary_key=True),
    sa.Column("task_id", sa.String(64), primary_key=True),
    sa.Column("idx", sa.Integer, primary_key=True),
    sa.Column("channel", sa.String(512), nullable=False),
    sa.Column("type", sa.String(32), nullable=False),
    sa.Column("body", sa.LargeBinary, nullable=False),
    sa.Column("path", sa.Text, nullable=False),
)
