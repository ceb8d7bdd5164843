"""Retention: what is not needed any more is deleted once it was kept long enough, in small batches by anybody.

A finished run loses its checkpoints first, and then what it read and wrote: the arguments and results of its calls, the
arguments and the evidence of its questions; an event loses its data once none of its runs needs it. What names and
proves stays for ever: runs, decisions, digests, and the journal as it was written, whose chain of hashes holds.
"""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import TYPE_CHECKING, Any

import sqlalchemy as sa

from eventwright.runs import deliveries, schema
from eventwright.runs.commits import commits
from eventwright.runs.database import padded
from eventwright.runs.gathered import run_events
from eventwright.runs.records import JournalEntry, JournalKind
from eventwright.runs.states import FINAL
from eventwright.runs.waits import signals, waits

if TYPE_CHECKING:
    from eventwright.runs.batch import Batch, Unit
    from eventwright.runs.store import Store

#: Runs, or events, of one transaction: others wait for it.
MOST = 20
#: Deliveries of one transaction: there is less to each.
MOST_DELIVERIES = 200
#: After which the number of a process's last commit is needed no more.
LONGEST_SILENCE = timedelta(days=1)
#: Who deletes, in the journal.
RETENTION = "retention"


@dataclass(frozen=True, kw_only=True)
class Keep:
    """How long what is not needed any more is kept; None is for ever.

    Attributes:
        checkpoints: of finished runs, counted from their end.
        payloads: of finished runs, and data of events; with them go the checkpoints, which hold them too.
        deliveries: of webhooks, in the log of them; never longer than payloads, which a body that is kept may hold.
    """

    checkpoints: timedelta | None = timedelta(days=7)
    payloads: timedelta | None = None
    deliveries: timedelta | None = timedelta(days=30)

    @property
    def longest_checkpoints(self) -> timedelta | None:
        """How long a checkpoint is kept in the end."""
        return _shorter(self.checkpoints, self.payloads)

    @property
    def longest_deliveries(self) -> timedelta | None:
        """How long a delivery is kept in the end."""
        return _shorter(self.deliveries, self.payloads)


@dataclass(kw_only=True)
class Removed:
    """What was deleted, or would be."""

    #: Runs whose checkpoints went, and how many these were.
    runs: int = 0
    checkpoints: int = 0
    #: Runs whose payloads went, and events whose data did.
    payloads: int = 0
    events: int = 0
    #: Deliveries of webhooks whose entry in their log went.
    deliveries: int = 0

    def __bool__(self) -> bool:
        return bool(self.runs or self.payloads or self.events or self.deliveries)

    def __iadd__(self, other: Removed) -> Removed:
        self.runs += other.runs
        self.checkpoints += other.checkpoints
        self.payloads += other.payloads
        self.events += other.events
        self.deliveries += other.deliveries
        return self


def _shorter(*spans: timedelta | None) -> timedelta | None:
    return min((span for span in spans if span is not None), default=None)


async def remove_some(store: Store, keep: Keep) -> Removed:
    """Delete a little of what was kept long enough, each kind in a transaction of its own. Nothing is left to be
    deleted when nothing was.

    Raises:
        StoreUnavailable.
    """
    now = await store.now()
    removed = Removed()
    if await store.rows_of(sa.select(commits.c.writer).where(commits.c.at < now - LONGEST_SILENCE).limit(1)):
        async with store.write() as tx:
            tx.forget_writers()
    for column, longest in ((_RUNS.c.pruned_at, keep.longest_checkpoints), (_RUNS.c.expired_at, keep.payloads)):
        if longest is None:
            continue
        query = sa.select(_RUNS.c.id).where(_left(column, now - longest)).order_by(_RUNS.c.updated_at).limit(MOST)
        ids = [row["id"] for row in await store.rows_of(query)]
        if ids:
            async with store.write() as tx:
                some = tx.prune(ids) if column is _RUNS.c.pruned_at else tx.expire_runs(ids)
            removed += some
    if keep.payloads is not None:
        before = now - keep.payloads
        query = sa.select(_EVENTS.c.uid).where(_needless(before)).order_by(_EVENTS.c.received_at).limit(MOST)
        uids = [row["uid"] for row in await store.rows_of(query)]
        if uids:
            async with store.write() as tx:
                some = tx.expire_events(uids, before=before)
            removed += some
    if keep.longest_deliveries is not None:
        query = deliveries.received_before(now - keep.longest_deliveries).limit(MOST_DELIVERIES)
        if ids := [row["id"] for row in await store.rows_of(query)]:
            async with store.write() as tx:
                tx.forget_deliveries(ids)
            removed += Removed(deliveries=len(ids))
    return removed


async def removable(store: Store, keep: Keep) -> Removed:
    """What `remove_some` would delete by and by. Raises StoreUnavailable."""
    now = await store.now()
    found = Removed()
    if keep.longest_checkpoints is not None:
        left = _left(_RUNS.c.pruned_at, now - keep.longest_checkpoints)
        (counted,) = await store.rows_of(_PRUNABLE.where(left))
        found.runs = counted["runs"]
        # The run's thread, and one more for each time that it was replayed from the start.
        for number in range(counted["generation"] + 1):
            name: sa.ColumnElement[str] = _RUNS.c.id if number == 0 else _RUNS.c.id + f":{number}"
            threads = sa.select(name).where(left, _RUNS.c.generation >= number)
            found.checkpoints += await _count(store, _CHECKPOINTS, _CHECKPOINTS.c.thread_id.in_(threads))
    if keep.payloads is not None:
        before = now - keep.payloads
        found.payloads = await _count(store, _RUNS, _left(_RUNS.c.expired_at, before))
        going_on = sa.and_(~_left(_RUNS.c.expired_at, before), _RUNS.c.expired_at.is_(None))
        found.events = await _count(store, _EVENTS, sa.and_(_unexpired(before), ~_needed_by(going_on)))
    if keep.longest_deliveries is not None:
        old = deliveries.received_before(now - keep.longest_deliveries).order_by(None).subquery()
        (counted,) = await store.rows_of(sa.select(sa.func.count().label("n")).select_from(old))
        found.deliveries = counted["n"]
    return found


async def _count(store: Store, table: sa.Table, condition: sa.ColumnElement[bool]) -> int:
    (row,) = await store.rows_of(sa.select(sa.func.count().label("n")).select_from(table).where(condition))
    return int(row["n"])


class RetentionVerbs:
    """The verbs that delete, of `Transaction`. What somebody else deleted meanwhile is left out of their answers, which
    the commit fills in."""

    unit: Unit

    def prune(self, run_ids: Collection[str]) -> Removed:
        """Delete the checkpoints of these finished runs."""
        removed = Removed()

        def step(batch: Batch) -> None:
            ids = _mark(batch, run_ids, _RUNS.c.pruned_at)
            removed.runs, removed.checkpoints = len(ids), _delete_checkpoints(batch, ids)

        self.unit.run_ids.update(run_ids)
        self.unit.steps.append(step)
        return removed

    def forget_writers(self) -> None:
        """Delete the numbers of processes that write no more; one that does after all begins anew."""
        silent = sa.delete(commits).where(commits.c.at < sa.bindparam("since"))
        self.unit.steps.append(lambda batch: batch.execute(silent, {"since": batch.now - LONGEST_SILENCE}))

    def expire_runs(self, run_ids: Collection[str]) -> Removed:
        """Delete what these finished runs read and wrote, and journal that."""
        removed = Removed()

        def step(batch: Batch) -> None:
            ids = _mark(batch, run_ids, _RUNS.c.expired_at)
            unpruned = _mark(batch, ids, _RUNS.c.pruned_at)
            removed.payloads, removed.runs = len(ids), len(unpruned)
            removed.checkpoints = _delete_checkpoints(batch, unpruned)
            if not ids:
                return
            for forget in (_FORGET_CALLS, _FORGET_QUESTIONS):
                batch.execute(forget, {"ids": padded(ids)})
            for run_id in ids:
                data = {"text": "what it read and wrote was kept long enough, and is deleted"}
                batch.journal(JournalEntry(run_id=run_id, kind=JournalKind.NOTE, actor=RETENTION, data=data))

        self.unit.run_ids.update(run_ids)
        self.unit.steps.append(step)
        return removed

    def expire_events(self, uids: Collection[str], *, before: datetime) -> Removed:
        """Delete the data of these events, received before then, unless a run needs it. Their names and digests stay,
        so that duplicates are known; of a refusal its kind does, for its words may repeat the data."""
        removed = Removed()
        named = padded(uids)
        lock = sa.select(_EVENTS.c.uid).where(_EVENTS.c.uid.in_(named)).order_by(_EVENTS.c.uid)
        lock_signals = sa.select(signals.c.event_uid).where(signals.c.event_uid.in_(named))
        lock_signals = lock_signals.order_by(signals.c.event_uid, signals.c.workflow)
        # Looked at again once they are locked: an operator may have taken a refused one in meanwhile, or a wait one
        # that was kept.
        look = sa.select(_EVENTS.c.uid, _EVENTS.c.problem).where(_EVENTS.c.uid.in_(named), _needless(before))

        def step(batch: Batch) -> None:
            for locked in (lock, lock_signals):
                batch.execute(locked.with_for_update()).all()
            found = batch.execute(look).all()
            removed.events = len(found)
            for row in found:
                kept = row.problem and {"title": row.problem.get("title")}
                batch.execute(_FORGET_EVENT.values(problem=kept, expired_at=batch.now), {"b_uid": row.uid})
                batch.execute(_FORGET_SIGNALS, {"b_uid": row.uid})

        self.unit.steps.append(step)
        return removed


def _mark(batch: Batch, run_ids: Collection[str], column: sa.Column[Any]) -> list[str]:
    """Mark those of the runs that are final and not marked yet, also by another unit of this batch; which they are."""
    ids = [run_id for run_id in sorted(run_ids) if batch.run(run_id)["state"] in FINAL]
    if not ids:
        return []
    unmarked = sa.and_(_RUNS.c.id.in_(padded(ids)), column.is_(None))
    marked = batch.execute(sa.update(_RUNS).where(unmarked).values({column: batch.now}).returning(_RUNS.c.id))
    batch.wrote = True
    return sorted(marked.scalars())


def _delete_checkpoints(batch: Batch, ids: Collection[str]) -> int:
    """How many there were."""
    if not ids:
        return 0
    threads = [
        run_id if generation == 0 else f"{run_id}:{generation}"
        for run_id in ids
        for generation in range(batch.run(run_id)["generation"] + 1)
    ]
    batch.execute(_DELETE_WRITES, {"threads": padded(threads)})
    return batch.execute(_DELETE_CHECKPOINTS, {"threads": padded(threads)}).rowcount


_RUNS, _EVENTS, _CHECKPOINTS, _WRITES = schema.runs, schema.events, schema.checkpoints, schema.checkpoint_writes


def _left(column: sa.Column[Any], before: datetime) -> sa.ColumnElement[bool]:
    """A run that ended before then and has not lost this yet; in the words of the index that holds such runs."""
    return sa.and_(column.is_(None), sa.text(schema.FINISHED), _RUNS.c.updated_at < before)


def _unexpired(before: datetime) -> sa.ColumnElement[bool]:
    return sa.and_(_EVENTS.c.expired_at.is_(None), _EVENTS.c.received_at < before)


def _needless(before: datetime) -> sa.ColumnElement[bool]:
    """An event received before then of which every run has lost its own data."""
    return sa.and_(_unexpired(before), ~_needed_by(_RUNS.c.expired_at.is_(None)))


def _needed_by(run: sa.ColumnElement[bool]) -> sa.ColumnElement[bool]:
    """An event that a run like this was started by, or has waited for; or that may yet start one by coming too late."""
    return sa.or_(
        sa.exists().where(_of_event, run),
        sa.exists().where(run_events.c.event_uid == _EVENTS.c.uid, run_events.c.run_id == _RUNS.c.id, run),
        sa.exists().where(waits.c.answered_by == _EVENTS.c.uid, sa.exists().where(waits.c.run_id == _RUNS.c.id, run)),
        sa.exists().where(signals.c.event_uid == _EVENTS.c.uid, signals.c.late_for.is_not(None)),
    )


def _among(column: sa.Column[Any], name: str) -> sa.ColumnElement[bool]:
    return column.in_(sa.bindparam(name, expanding=True))


_of_event = _RUNS.c.event_uid == _EVENTS.c.uid
_LAST = sa.func.coalesce(sa.func.max(_RUNS.c.generation), 0)
_PRUNABLE = sa.select(sa.func.count().label("runs"), _LAST.label("generation")).select_from(_RUNS)
_DELETE_CHECKPOINTS = sa.delete(_CHECKPOINTS).where(_among(_CHECKPOINTS.c.thread_id, "threads"))
_DELETE_WRITES = sa.delete(_WRITES).where(_among(_WRITES.c.thread_id, "threads"))
_FORGET_CALLS = (
    sa.update(schema.effects)
    .where(_among(schema.effects.c.run_id, "ids"))
    .values(arguments=None, result=None, failures=None)
)
_FORGET_QUESTIONS = (
    sa.update(schema.reviews).where(_among(schema.reviews.c.run_id, "ids")).values(arguments=None, evidence={})
)
_FORGET_SIGNALS = sa.delete(signals).where(signals.c.event_uid == sa.bindparam("b_uid"))
_FORGET_EVENT = sa.update(_EVENTS).where(_EVENTS.c.uid == sa.bindparam("b_uid")).values(data=None)
