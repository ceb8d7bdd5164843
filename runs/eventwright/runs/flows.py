"""When a run begins that its event does not simply start at once, and which run it takes the place of.

A held run is received and not due yet; the time at which it comes due is all that holds it. A row for each thing that
is counted says which run came last, and when. Whoever takes an event in looks at that row and changes it in the
transaction that stores the event, under the row's lock: so however many processes there are, one decides after the
other. Once a run is due it is not held any more, whether or not somebody has taken it up.

Locks are taken in this order by everybody: lines, flows, runs, what the steps of a transaction take.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import TYPE_CHECKING, Any

import sqlalchemy as sa

from eventwright.runs import schema
from eventwright.runs.correlating import CANCEL_WAITS
from eventwright.runs.database import padded
from eventwright.runs.errors import UnknownRun
from eventwright.runs.event import Event, digest_of, new_id
from eventwright.runs.gathered import run_events
from eventwright.runs.records import EffectState, JournalEntry, JournalKind, ReviewState, Run
from eventwright.runs.rows import run_row
from eventwright.runs.states import AT_AN_END, RunState
from eventwright.runs.turns import Place

if TYPE_CHECKING:
    from eventwright.runs.batch import Batch, Unit
    from eventwright.runs.store import Store

#: Who holds, gathers and supersedes, in the journal.
INTAKE = "intake"

flows = sa.Table(
    "flows",
    schema.metadata,
    # A digest of what is counted: the workflow, the key and, for all but superseding, the type of the event.
    sa.Column("scope", sa.String(64), primary_key=True),
    # The same for people.
    sa.Column("workflow", sa.String(128), nullable=False),
    sa.Column("key", sa.String(256), nullable=False),
    # The run that came last.
    sa.Column("run_id", sa.String(64), nullable=False),
    # When the first of the events came that are held in it, and how many there are.
    sa.Column("first_at", schema.UtcDateTime, nullable=False),
    sa.Column("events", sa.Integer, nullable=False),
    # Of a throttle: when the last runs came due, or will; as many as may in its span.
    sa.Column("slots", schema.Json),
)

#: The run that came after this one with the same key, where newer ones supersede.
successors = sa.Table(
    "successors",
    schema.metadata,
    sa.Column("run_id", sa.String(64), primary_key=True),
    sa.Column("successor", sa.String(64), nullable=False),
)


@dataclass(frozen=True, kw_only=True)
class Terms:
    """What a trigger's flow means for one event. One of debounce, throttle and gather, or none of them.

    Attributes:
        key: what is counted by.
        debounce: how long no other event may come; `at_most` bounds the waiting of all together.
        throttle: how many runs may come due in which span.
        gather: how many events one run takes, and how long the first waits.
        supersede: whether the run takes the place of the one before it.
    """

    key: str
    debounce: timedelta | None = None
    at_most: timedelta | None = None
    throttle: tuple[int, timedelta] | None = None
    gather: tuple[int, timedelta] | None = None
    supersede: bool = False


@dataclass
class Flowed:
    """The run that an event has gone into, filled in by the commit."""

    run_id: str


class FlowVerbs:
    """The verbs about when runs begin, of `Transaction`."""

    unit: Unit

    def flow_in(self, run: Run, terms: Terms, note: Mapping[str, Any] | None = None) -> Flowed:
        """Store a new run, due when its flow says; or gather its event into a run that is held.

        Args:
            note: on the run that the event goes into.
        """
        flowed = Flowed(run.id)
        kind = "debounce" if terms.debounce else "throttle" if terms.throttle else "gather" if terms.gather else None
        hold = None if kind is None else digest_of([kind, run.workflow, run.event.type, terms.key])
        lead = digest_of(["supersede", run.workflow, terms.key]) if terms.supersede else None
        self.unit.flows.update(filter(None, (hold, lead)))

        def step(batch: Batch) -> None:
            flowed.run_id = run.id  # a batch may be tried again
            counted = None if hold is None else _Counted(batch, hold, run, terms.key)
            open_to = (
                counted.open_to(run, terms.gather[0]) if counted is not None and terms.gather is not None else None
            )
            if counted is not None and terms.gather is not None and open_to is not None:
                counted.gather(open_to, run.event, full=terms.gather[0])
                flowed.run_id = open_to["run_id"]
            else:
                _begin(batch, run, terms, counted)
                if lead is not None:
                    _lead(batch, _Counted(batch, lead, run, terms.key), run)
            if note is not None:
                _note(batch, flowed.run_id, **note)

        self.unit.steps.append(step)
        return flowed

    def superseded_meanwhile(self, run_id: str) -> None:
        """End the run if it asks somebody, and newer input has come while it was worked on."""

        def step(batch: Batch) -> None:
            if _asks(batch, batch.run(run_id)):
                successor = batch.execute(_SUCCESSOR, {"b_run_id": run_id}).scalar()
                if successor is not None:
                    _supersede(batch, run_id, successor)

        self.unit.run_ids.add(run_id)
        self.unit.steps.append(step)


def store_run(batch: Batch, run: Run, due_at: datetime | None = None) -> None:
    """Store a new run, and journal it: due at this time, else at once, or when its turn comes.

    One that is held does not stand in line before it is due.
    """
    row = run_row(run)
    if due_at is not None and due_at > batch.now:
        batch.add_run(row | {"due_at": due_at, "turn": None})
    else:
        waits = row["serial_key"] is not None and batch.place(row) is Place.BEHIND
        batch.add_run(row | {"due_at": None if waits else batch.now})
    event = run.event
    data = {"to": str(run.state), "event": event.id, "source": event.source, "type": event.type}
    if event.principal is not None:
        data["principal"] = event.principal
    batch.journal(JournalEntry(run_id=run.id, kind=JournalKind.TRANSITION, actor=INTAKE, data=data))


def lock_flows(connection: sa.Connection, units: Sequence[Unit]) -> set[str]:
    """Lock what these units count by, in one order for everybody; the runs that came last there."""
    scopes = sorted({scope for unit in units for scope in unit.flows})
    if not scopes:
        return set()
    if connection.dialect.name == "postgresql":
        for number in sorted({int.from_bytes(bytes.fromhex(scope)[:8], "big", signed=True) for scope in scopes}):
            connection.execute(_LOCK, {"number": number})
    return set(connection.execute(_LAST_RUNS, {"scopes": padded(scopes)}).scalars())


async def taken_by(store: Store, run_id: str) -> str | None:
    """The newest run that took this one's place; None if none did. Raises StoreUnavailable."""

    def read(connection: sa.Connection) -> str | None:
        newest = None
        while (found := connection.execute(_SUCCESSOR, {"b_run_id": newest or run_id}).scalar()) is not None:
            newest = found
        return newest

    return await store.read(read)


class _Counted:
    """What is counted under one scope, as it is now; its lock is held."""

    def __init__(self, batch: Batch, scope: str, run: Run, key: str) -> None:
        self._batch, self._scope = batch, scope
        self._names = {"workflow": run.workflow, "key": key}
        self.row = batch.execute(_OF_SCOPE, {"b_scope": scope}).mappings().one_or_none()

    @property
    def last(self) -> dict[str, Any] | None:
        """The run that came last."""
        try:
            return None if self.row is None else self._batch.run(self.row["run_id"])
        except UnknownRun:
            return None

    @property
    def held(self) -> dict[str, Any] | None:
        """The run that came last, if it is held."""
        last = self.last
        waits = last is not None and last["state"] == RunState.RECEIVED and last["due_at"] is not None
        return last if last is not None and waits and last["due_at"] > self._batch.now else None

    def open_to(self, run: Run, size: int) -> sa.RowMapping | None:
        """What is counted, if a run is held that may take this one's event in: of the same graph, with room."""
        held = self.held
        same = held is not None and (held["version"], held["fingerprint"]) == (run.version, run.fingerprint)
        return self.row if same and self.row is not None and self.row["events"] < size else None

    def gather(self, row: sa.RowMapping, event: Event, *, full: int) -> None:
        """Gather the event into the held run, which is due as soon as it has so many."""
        run_id, number = row["run_id"], row["events"]
        self._batch.insert(_GATHER, {"run_id": run_id, "position": number, "event_uid": event.uid})
        said = {"event": event.id, "source": event.source, "type": event.type, "events": number + 1}
        _note(self._batch, run_id, text="one more event was gathered", **said)
        if number + 1 >= full:
            self._batch.change(run_id, due_at=self._batch.now)
            _ring(self._batch, run_id)
        self.save(run_id, first_at=row["first_at"], events=number + 1)

    def save(self, run_id: str, *, first_at: datetime | None = None, events: int = 1, slots: Any = None) -> None:
        values = {"run_id": run_id, "first_at": first_at or self._batch.now, "events": events, "slots": slots}
        if self.row is None:
            self._batch.execute(sa.insert(flows).values(scope=self._scope, **self._names, **values))
        else:
            self._batch.execute(sa.update(flows).where(flows.c.scope == self._scope).values(**values))


def _begin(batch: Batch, run: Run, terms: Terms, counted: _Counted | None) -> None:
    """Store the run, due when its flow says, and see to the one that it replaces."""
    due_at, first_at, replaced = batch.now, batch.now, None
    slots: list[datetime] = []
    if counted is not None and terms.debounce is not None:
        replaced = counted.held
        first_at = counted.row["first_at"] if replaced is not None and counted.row is not None else batch.now
        due_at = batch.now + terms.debounce
        if terms.at_most is not None:
            due_at = min(due_at, first_at + terms.at_most)
    elif counted is not None and terms.throttle is not None:
        slots = _slots(counted.row, batch.now, *terms.throttle)
        due_at = slots[-1]
    elif terms.gather is not None:
        due_at = batch.now + terms.gather[1]
    store_run(batch, run, due_at)
    if due_at > batch.now:
        _note(batch, run.id, text="is held back", until=due_at.isoformat())
    elif not batch.in_line(run.id):
        _ring(batch, run.id)
    if replaced is not None:
        _debounced(batch, replaced, run)
    if counted is not None:
        counted.save(run.id, first_at=first_at, slots=[slot.isoformat() for slot in slots] or None)


def _slots(row: sa.RowMapping | None, now: datetime, runs: int, per: timedelta) -> list[datetime]:
    """When the last so many runs of a throttle come due, with the next one, which is the last of the list."""
    slots = [datetime.fromisoformat(slot) for slot in (row["slots"] if row is not None else None) or ()]
    due_at = max(now, slots[-runs] + per) if len(slots) >= runs else now
    # Never before one that came earlier, also where the throttle was another one then.
    return [*slots, max([due_at, *slots[-1:]])][-runs:]


def _debounced(batch: Batch, earlier: dict[str, Any], run: Run) -> None:
    _cancel(batch, earlier["id"])
    new = {"event": run.event.id, "source": run.event.source}
    _note(batch, earlier["id"], text="a later event took its place before it began", run=run.id, **new)
    _note(batch, run.id, text="takes the place of an event that was held", run=earlier["id"])


def _lead(batch: Batch, counted: _Counted, run: Run) -> None:
    """Let the run be the one that counts for its key, and see to the one that did."""
    earlier = counted.last
    if earlier is not None:
        batch.insert(_SUCCEED, {"run_id": earlier["id"], "successor": run.id})
        if _asks(batch, earlier):
            if _supersede(batch, earlier["id"], run.id):
                _note(batch, run.id, text="supersedes an earlier run and its questions", run=earlier["id"])
            else:
                told = "newer input has come; it has written already, and is not superseded"
                _note(batch, earlier["id"], text=told, run=run.id)
                _note(batch, run.id, text="follows a run that has written already", run=earlier["id"])
        elif RunState(earlier["state"]) not in AT_AN_END:
            _note(batch, run.id, text="an earlier run with this key is under way", run=earlier["id"])
    counted.save(run.id)


def _asks(batch: Batch, row: Mapping[str, Any]) -> bool:
    """Whether the run rests until somebody answers; one that has an answer goes on with it."""
    # What another process made due while this one waited for its locks may bear a later time than this one's.
    is_due = row["due_at"] is not None and row["due_at"] <= max(batch.now, row["updated_at"])
    return row["state"] == RunState.PENDING_APPROVAL and not is_due


def _supersede(batch: Batch, run_id: str, successor: str) -> bool:
    """End the run, whose questions are superseded, unless it has written something; whether it was ended."""
    if batch.execute(_WRITES, {"b_run_id": run_id}).first() is not None:
        return False
    asked = sorted(batch.execute(_CLOSE_REVIEWS, {"b_run_id": run_id}).scalars())
    for close in (_DELETE_TIMERS, CANCEL_WAITS):
        batch.execute(close, {"b_run_id": run_id})
    _cancel(batch, run_id)
    _note(batch, run_id, text="superseded: newer input has come", run=successor, reviews=asked)
    return True


def _cancel(batch: Batch, run_id: str) -> None:
    origin = batch.run(run_id)["state"]
    batch.change(run_id, state=str(RunState.CANCELLED), due_at=None, worker=None, reason=None, error=None)
    data = {"from": str(origin), "to": str(RunState.CANCELLED)}
    batch.journal(JournalEntry(run_id=run_id, kind=JournalKind.TRANSITION, actor=INTAKE, data=data))


def _note(batch: Batch, run_id: str, **data: Any) -> None:
    batch.journal(JournalEntry(run_id=run_id, kind=JournalKind.NOTE, actor=INTAKE, data=data))


def _ring(batch: Batch, run_id: str) -> None:
    row = batch.run(run_id)
    bell = {"id": new_id("wake"), "run_id": run_id, "lane": row["lane"], "created_at": batch.now, "sent_at": None}
    batch.insert(_WAKEUP, bell)


_LOCK = sa.select(sa.func.pg_advisory_xact_lock(sa.bindparam("number", type_=sa.BigInteger)))
_LAST_RUNS = sa.select(flows.c.run_id).where(flows.c.scope.in_(sa.bindparam("scopes", expanding=True)))
_OF_SCOPE = sa.select(flows).where(flows.c.scope == sa.bindparam("b_scope"))
_GATHER, _SUCCEED, _WAKEUP = sa.insert(run_events), sa.insert(successors), sa.insert(schema.wakeups)
_SUCCESSOR = sa.select(successors.c.successor).where(successors.c.run_id == sa.bindparam("b_run_id"))
#: Calls that have changed something outside, or may have.
_WRITES = (
    sa.select(schema.effects.c.key)
    .where(
        schema.effects.c.run_id == sa.bindparam("b_run_id"),
        schema.effects.c.tool_class != "read",
        schema.effects.c.state != str(EffectState.FAILED),
    )
    .limit(1)
)
_CLOSE_REVIEWS = (
    sa.update(schema.reviews)
    .where(schema.reviews.c.run_id == sa.bindparam("b_run_id"), schema.reviews.c.state == str(ReviewState.OPEN))
    .values(state=str(ReviewState.SUPERSEDED))
    .returning(schema.reviews.c.id)
)
_DELETE_TIMERS = sa.delete(schema.timers).where(schema.timers.c.run_id == sa.bindparam("b_run_id"))
