"""Deliveries: the log of what was posted to the door for webhooks, one row for each, with what became of it.

What a delivery brought stands in the events; here stands that it came. Its body is kept where no event holds it. Those
that nobody had signed, and those that we had no room for, are gathered: a row says how many came in a span of time.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import TYPE_CHECKING, Any

import sqlalchemy as sa

from eventwright.runs import schema
from eventwright.runs.batch import Batch, Unit
from eventwright.runs.database import padded
from eventwright.runs.errors import EventwrightError
from eventwright.runs.event import new_id
from eventwright.runs.records import DeliveryOutcome, EventState

if TYPE_CHECKING:
    from eventwright.runs.store import Store


#: Of these nothing is kept but that they came: a stranger chose them, or there was no room to write more.
GATHERED = frozenset(
    {DeliveryOutcome.UNAUTHORISED, DeliveryOutcome.UNREAD, DeliveryOutcome.OVERLOADED, DeliveryOutcome.FAILED}
)


class UnknownDelivery(EventwrightError, LookupError):
    """No delivery of a webhook has this id."""

    def __init__(self, delivery_id: str) -> None:
        self.delivery_id = delivery_id
        super().__init__(
            f"no delivery has the id {delivery_id!r}; `eventwright deliveries list` shows those that are kept"
        )


class NothingToReplay(EventwrightError, ValueError):
    """Of this delivery nothing is kept that could be taken in again."""

    def __init__(self, delivery: Delivery) -> None:
        self.delivery = delivery
        super().__init__(
            f"delivery {delivery.id} was {delivery.outcome}: {delivery.outcome.meaning}; nothing to replay"
        )


@dataclass(frozen=True, kw_only=True)
class Delivered:
    """One event of a delivery."""

    #: Its place in the body, from 0.
    position: int
    outcome: DeliveryOutcome
    #: The provider's id; None when it has none.
    event_id: str | None = None
    #: The stored event that it is; None while there is none.
    event_uid: str | None = None
    #: The problem that its sender was told.
    problem: dict[str, Any] | None = None
    #: The runs of that event, when it is read.
    run_ids: tuple[str, ...] = ()


@dataclass(frozen=True, kw_only=True)
class Delivery:
    """Something that was posted to the door for webhooks."""

    #: The name in the address; `unknown` for those that the settings do not know.
    source: str
    outcome: DeliveryOutcome
    id: str = field(default_factory=lambda: new_id("dlv"))
    #: The first one's, of those that are gathered; None until it is stored.
    received_at: datetime | None = None
    #: The last one's, of those that are gathered.
    last_at: datetime | None = None
    #: How many there were: 1, but for those that are gathered.
    times: int = 1
    #: Bytes of the body; of those that are gathered, all together.
    size: int = 0
    #: SHA-256 of the body.
    digest: str | None = None
    #: The provider's id of the delivery, where a header has it, and when it says that it signed.
    message_id: str | None = None
    signed_at: datetime | None = None
    problem: dict[str, Any] | None = None
    #: What is needed to read the body again, where no event holds what it says.
    headers: dict[str, str] | None = None
    body: bytes | None = None
    replayed_at: datetime | None = None
    replayed_by: str | None = None
    events: tuple[Delivered, ...] = ()


_DELIVERIES = sa.Table(
    "deliveries",
    schema.metadata,
    sa.Column("id", sa.String(64), primary_key=True),
    sa.Column("source", sa.String(512), nullable=False),
    sa.Column("outcome", sa.String(16), nullable=False),
    sa.Column("received_at", schema.UtcDateTime, nullable=False),
    sa.Column("last_at", schema.UtcDateTime),
    sa.Column("times", sa.Integer, nullable=False),
    sa.Column("size", sa.BigInteger, nullable=False),
    sa.Column("digest", sa.String(64)),
    sa.Column("message_id", sa.String(512)),
    sa.Column("signed_at", schema.UtcDateTime),
    sa.Column("problem", schema.Json),
    sa.Column("headers", schema.Json),
    sa.Column("body", sa.LargeBinary),
    sa.Column("replayed_at", schema.UtcDateTime),
    sa.Column("replayed_by", sa.String(256)),
    sa.Index("ix_deliveries_source_id", "source", "id"),
    sa.Index("ix_deliveries_received_at", "received_at"),
)
_DELIVERED = sa.Table(
    "delivered",
    schema.metadata,
    sa.Column("delivery_id", sa.String(64), primary_key=True),
    sa.Column("position", sa.Integer, primary_key=True),
    sa.Column("outcome", sa.String(16), nullable=False),
    sa.Column("event_id", sa.String(512)),
    sa.Column("event_uid", sa.String(64)),
    sa.Column("problem", schema.Json),
)
_ADD, _ADD_EVENT = sa.insert(_DELIVERIES), sa.insert(_DELIVERED)
_OF_DELIVERY = tuple(column.name for column in _DELIVERIES.c)
_OF_EVENT = tuple(column.name for column in _DELIVERED.c if column.name != "delivery_id")


class DeliveryVerbs:
    """The verbs about deliveries, of `Transaction`."""

    unit: Unit

    def add_delivery(self, delivery: Delivery) -> None:
        """Store a delivery, and those of its events that it names, as received now if it does not say when."""
        row = {name: getattr(delivery, name) for name in _OF_DELIVERY} | {"outcome": str(delivery.outcome)}

        def step(batch: Batch) -> None:
            batch.insert(_ADD, row | {"received_at": delivery.received_at or batch.now})

        self.unit.steps.append(step)
        for event in delivery.events:
            self.add_delivered(delivery.id, event)

    def add_count(self, delivery: Delivery) -> None:
        """Store a delivery that is gathered, unless it is stored already."""
        there = sa.select(_DELIVERIES.c.id).where(_DELIVERIES.c.id == delivery.id)
        row = {name: getattr(delivery, name) for name in _OF_DELIVERY} | {"outcome": str(delivery.outcome)}

        def step(batch: Batch) -> None:
            if batch.execute(there).first() is None:
                batch.insert(_ADD, row)

        self.unit.steps.append(step)

    def add_delivered(self, delivery_id: str, event: Delivered) -> None:
        """Store what became of an event of the delivery."""
        row = {name: getattr(event, name) for name in _OF_EVENT} | {"delivery_id": delivery_id}
        self.unit.steps.append(lambda batch: batch.insert(_ADD_EVENT, row | {"outcome": str(event.outcome)}))

    def settle_delivery(self, delivery: Delivery, *, replayed_by: str | None = None) -> None:
        """Store what became of a delivery that is stored already, and of its events; and that it was replayed."""
        news = {name: getattr(delivery, name) for name in ("problem", "headers", "body")}
        change = sa.update(_DELIVERIES).where(_DELIVERIES.c.id == delivery.id)
        forget = sa.delete(_DELIVERED).where(_DELIVERED.c.delivery_id == delivery.id)

        def step(batch: Batch) -> None:
            replayed = {} if replayed_by is None else {"replayed_at": batch.now, "replayed_by": replayed_by}
            batch.execute(change.values(news | replayed | {"outcome": str(delivery.outcome)}))
            batch.execute(forget)

        self.unit.steps.append(step)
        for event in delivery.events:
            self.add_delivered(delivery.id, event)

    def forget_deliveries(self, ids: Collection[str]) -> None:
        """Delete deliveries. The events that they brought stay."""
        named = padded(ids)
        delete_events = sa.delete(_DELIVERED).where(_DELIVERED.c.delivery_id.in_(named))
        delete = sa.delete(_DELIVERIES).where(_DELIVERIES.c.id.in_(named))
        self.unit.steps += [lambda batch: batch.execute(delete_events), lambda batch: batch.execute(delete)]


async def find(
    store: Store,
    *,
    source: str | None = None,
    outcome: DeliveryOutcome | None = None,
    limit: int = 50,
    before: str | None = None,
) -> list[Delivery]:
    """Deliveries without their bodies, newest first; `before` is the id that the last page ended with.

    Raises:
        StoreUnavailable.
    """
    told = [column for column in _DELIVERIES.c if column.name not in {"headers", "body"}]
    query = sa.select(*told).order_by(_DELIVERIES.c.id.desc()).limit(limit)
    if source is not None:
        query = query.where(_DELIVERIES.c.source == source)
    if outcome is not None:
        query = query.where(_DELIVERIES.c.outcome == str(outcome))
    if before is not None:
        query = query.where(_DELIVERIES.c.id < before)
    return await _read(store, query)


async def get(store: Store, delivery_id: str) -> Delivery:
    """One delivery, with its body where that is kept. Raises UnknownDelivery, StoreUnavailable."""
    found = await _read(store, sa.select(_DELIVERIES).where(_DELIVERIES.c.id == delivery_id))
    if not found:
        raise UnknownDelivery(delivery_id)
    return found[0]


async def ids_like(store: Store, part: str, *, limit: int = 10) -> list[str]:
    """Ids of deliveries that begin or end with `part`, newest first. Raises StoreUnavailable."""
    column = _DELIVERIES.c.id
    alike = column.startswith(part, autoescape=True) | column.endswith(part, autoescape=True)
    rows = await store.rows_of(sa.select(column).where(alike).order_by(column.desc()).limit(limit))
    return [row["id"] for row in rows]


def received_before(moment: datetime) -> sa.Select[Any]:
    """The query for the ids of deliveries that came before then, the oldest first."""
    column = _DELIVERIES.c.received_at
    return sa.select(_DELIVERIES.c.id).where(column < moment).order_by(column)


async def _read(store: Store, query: sa.Select[Any]) -> list[Delivery]:
    rows = await store.rows_of(query)
    ids = [row["id"] for row in rows]
    brought: dict[str, list[sa.RowMapping]] = {delivery_id: [] for delivery_id in ids}
    events = sa.select(_DELIVERED).where(_DELIVERED.c.delivery_id.in_(ids)).order_by(_DELIVERED.c.position)
    for row in await store.rows_of(events) if ids else ():
        brought[row["delivery_id"]].append(row)
    uids = sorted({row["event_uid"] for found in brought.values() for row in found if row["event_uid"]})
    runs, problems = await _runs(store, uids), await _problems(store, uids)
    return [_delivery_of(row, [_delivered_of(event, runs, problems) for event in brought[row["id"]]]) for row in rows]


async def _runs(store: Store, uids: Sequence[str]) -> dict[str, tuple[str, ...]]:
    """The runs of each of these events."""
    table = schema.runs.c
    query = sa.select(table.event_uid, table.id).where(table.event_uid.in_(uids)).order_by(table.workflow)
    found: dict[str, tuple[str, ...]] = {}
    for row in await store.rows_of(query) if uids else ():
        found[row["event_uid"]] = (*found.get(row["event_uid"], ()), row["id"])
    return found


async def _problems(store: Store, uids: Sequence[str]) -> dict[str, dict[str, Any]]:
    """Why those of these events that are refused are."""
    table = schema.events.c
    refused = sa.and_(table.uid.in_(uids), table.state == str(EventState.REFUSED), table.problem.is_not(None))
    rows = await store.rows_of(sa.select(table.uid, table.problem).where(refused)) if uids else ()
    return {row["uid"]: row["problem"] for row in rows}


def _delivery_of(row: sa.RowMapping, events: Sequence[Delivered]) -> Delivery:
    return Delivery(**{**row, "outcome": DeliveryOutcome(row["outcome"])}, events=tuple(events))


def _delivered_of(
    row: sa.RowMapping, runs: dict[str, tuple[str, ...]], problems: dict[str, dict[str, Any]]
) -> Delivered:
    uid = row["event_uid"]
    became = {"outcome": DeliveryOutcome(row["outcome"]), "problem": row["problem"] or problems.get(uid)}
    return Delivered(**{name: row[name] for name in _OF_EVENT} | became, run_ids=runs.get(uid, ()))
