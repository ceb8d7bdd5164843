"""How an event finds the wait that it is the answer to, and a wait the event that came before it.

Both look for the other in the transaction that stores them, under the lock of their line: workflow and key. So none of
them is overlooked, however many processes there are. A wait ends once: whoever ends it has locked its run, and looks
whether it is still open.

Locks are taken in this order by everybody: lines, runs, what the steps of a transaction take.
"""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import TYPE_CHECKING, Any

import sqlalchemy as sa

from eventwright.runs import schema
from eventwright.runs.errors import Overloaded, UnknownRun
from eventwright.runs.event import Event, new_id
from eventwright.runs.gathered import run_events
from eventwright.runs.late import LateVerbs, waited
from eventwright.runs.records import JournalEntry, JournalKind, Run
from eventwright.runs.states import FINAL, RunState
from eventwright.runs.waits import FREE, Wait, WaitState, awaits, signals, wait_row, waits

if TYPE_CHECKING:
    from eventwright.runs.batch import Batch, Unit

#: A workflow and a key: the waits and the signals that may find each other; and of an event its type.
Line = tuple[str, str, str | None]
#: So many waits are looked at beyond those that the events of a batch may answer: some of them may just end.
SPARE = 16
#: Runs that rest in these states go on as soon as something comes that they wait for.
RESTING = frozenset({RunState.WAITING, RunState.PENDING_APPROVAL})


@dataclass
class Told:
    """To whom an event was told, filled in by the commit: the run that it goes on; else one that has waited for it in
    vain, and for which it may come too late."""

    run_id: str | None = None
    late_for: str | None = None


class WaitVerbs(LateVerbs):
    """The verbs about waits and signals, of `Transaction`."""

    unit: Unit

    def tell(self, event: Event, *, workflow: str, key: str, starts: bool) -> Told:
        """Let the event be the answer to the oldest wait for it, or be kept for one that is opened later.

        Args:
            starts: it starts a run of this workflow as well: then it cannot come too late for another.
        """
        told = Told()
        self.unit.lines.append((workflow, key, event.type))

        def step(batch: Batch) -> None:
            told.run_id = told.late_for = None  # a batch may be tried again
            wait = _oldest(batch, workflow, key, event.type)
            if wait is not None:
                told.run_id = wait["run_id"]
                _answer(batch, wait, event, actor="intake")
            elif not starts:
                told.late_for = batch.execute(waited(workflow, key, event.type)).scalar()
            row = {"event_uid": event.uid, "workflow": workflow, "type": event.type, "key": key, "at": batch.now}
            taken = {"wait_id": wait and wait["id"], "late_for": told.late_for, "input": None}
            batch.insert(_SIGNAL, row | taken)

        self.unit.steps.append(step)
        return told

    def settle_waits(self, run: Run, standing: Sequence[Wait], dropped: Collection[str], *, actor: str) -> None:
        """Write what the run waits for now that its segment has ended, and when it goes on.

        Args:
            standing: waits that the segment left open, new ones among them. What ended meanwhile makes the run due.
            dropped: ids of open waits that its nodes do not come to any more.
        """
        self.unit.lines += [(run.workflow, wait.key, None) for wait in standing if wait.key is not None]

        def step(batch: Batch) -> None:
            state = RunState(batch.run(run.id)["state"])
            if state in FINAL:
                batch.execute(CANCEL_WAITS, {"b_run_id": run.id})
                return
            found = {row["id"]: dict(row) for row in batch.execute(_OF_RUN, {"b_run_id": run.id}).mappings()}
            for row in found.values():
                if row["id"] in dropped and row["state"] == WaitState.OPEN:
                    _end(batch, row, WaitState.CANCELLED)
            for wait in standing:
                if wait.id not in found:
                    found[wait.id] = wait_row(wait) | {"opened_at": batch.now}
                    batch.insert(_OPEN, found[wait.id])
                elif found[wait.id]["state"] == WaitState.CANCELLED:
                    _end(batch, found[wait.id], WaitState.OPEN)
                else:
                    continue
                _look_back(batch, run, found[wait.id], actor)
            if state in RESTING:
                _rest(batch, run.id, found, {wait.id for wait in standing})

        self.unit.run_ids.add(run.id)
        self.unit.steps.append(step)

    def time_out_waits(self, run_id: str, *, actor: str) -> None:
        """End the waits of the run whose time has come."""

        def step(batch: Batch) -> None:
            for row in batch.execute(_OPEN_OF_RUN, {"b_run_id": run_id}).mappings().all():
                if _is_over(row["deadline"], batch.now):
                    _time_out(batch, dict(row), actor=actor)

        self.unit.run_ids.add(run_id)
        self.unit.steps.append(step)


def lock_lines(connection: sa.Connection, units: Sequence[Unit], now: datetime) -> set[str]:
    """Lock the lines that these units speak of, in one order for everybody; the runs that their events may go on."""
    lines = Counter(line for unit in units for line in unit.lines)
    if connection.dialect.name == "postgresql":
        for number in sorted({_number(workflow, key) for workflow, key, _ in lines}):
            connection.execute(_LOCK, {"number": number})
    found: set[str] = set()
    for (workflow, key, event_type), events in lines.items():
        if event_type is not None:
            awaiting = _awaiting(connection, workflow, key, event_type, now, most=SPARE + events)
            found.update(row["run_id"] for row in awaiting)
    return found


def _awaiting(
    connection: sa.Connection | Batch, workflow: str, key: str, event_type: str, now: datetime, *, most: int
) -> list[dict[str, Any]]:
    """The oldest waits that an event of this type would be in time for."""
    query = _OPEN_IN_LINE.where(awaits(event_type)).limit(most)
    line = {"b_workflow": workflow, "b_key": key, "b_now": now}
    # SQLite's LIKE does not tell letter case.
    rows = connection.execute(query, line).mappings().all()
    return [dict(row) for row in rows if event_type in row["types"].split("\n")]


def _oldest(batch: Batch, workflow: str, key: str, event_type: str) -> dict[str, Any] | None:
    """The oldest wait that an event of the type answers now; the runs of those that come into question are locked."""
    found = _awaiting(batch, workflow, key, event_type, batch.now, most=SPARE)
    loaded = [row for row in found if _is_loaded(batch, row["run_id"])]
    if found and not loaded:
        raise Overloaded(f"many runs of {workflow} wait for the key {key!r}, and the first of them have just ended")
    return loaded[0] if loaded else None


def _is_loaded(batch: Batch, run_id: str) -> bool:
    try:
        batch.run(run_id)
    except UnknownRun:
        return False
    return True


def _look_back(batch: Batch, run: Run, wait: dict[str, Any], actor: str) -> None:
    """End a wait that was just opened, if what it waits for has come before."""
    while (kept := _kept(batch, run, wait)) is not None:
        taken = {"b_uid": kept["event_uid"], "b_of": run.workflow, "b_wait": wait["id"]}
        # Somebody may just delete it, or start a run for it that comes too late elsewhere: they hold no lock of lines.
        if batch.execute(_TAKE, taken).rowcount:
            event = Event(id=kept["id"], source=kept["source"], type=kept["type"], data=None, uid=kept["event_uid"])
            _answer(batch, wait, event, actor=actor)
            return
    if _is_over(wait["deadline"], batch.now):
        _time_out(batch, wait, actor=actor)


def _kept(batch: Batch, run: Run, wait: dict[str, Any]) -> sa.RowMapping | None:
    """The oldest event that was kept for such a wait, if it came in time. Of each type one is read, however many of
    them there are."""
    if wait["key"] is None:
        return None
    line = {"b_workflow": run.workflow, "b_key": wait["key"], "b_since": run.created_at, "b_run": run.id}
    asked = [line | {"b_own": run.event.uid, "b_type": name} for name in wait["types"].split("\n")[1:-1]]
    found = [row for one in asked for row in batch.execute(_KEPT, one).mappings()]
    oldest = min(found, key=lambda row: (row["at"], row["event_uid"]), default=None)
    return None if oldest is None or _is_over(wait["deadline"], oldest["at"]) else oldest


def _rest(batch: Batch, run_id: str, found: dict[str, dict[str, Any]], standing: Collection[str]) -> None:
    """Let the run go on at once if something ended that its segment took for open, else when the first time comes."""
    open_ones = [row for row in found.values() if row["state"] == WaitState.OPEN]
    if set(standing) - {row["id"] for row in open_ones}:
        _go_on(batch, run_id)
        return
    times = [batch.run(run_id)["due_at"], *(row["deadline"] for row in open_ones)]
    batch.change(run_id, due_at=min(filter(None, times), default=None))


def _go_on(batch: Batch, run_id: str) -> None:
    row = batch.run(run_id)
    batch.change(run_id, due_at=batch.now)
    bell = {"id": new_id("wake"), "run_id": run_id, "lane": row["lane"], "created_at": batch.now, "sent_at": None}
    batch.insert(_WAKEUP, bell)


def _answer(batch: Batch, wait: dict[str, Any], event: Event, *, actor: str) -> None:
    """The event is the wait's answer; a run that rests goes on."""
    _end(batch, wait, WaitState.ANSWERED, event.uid)
    told = {"text": "came, which it waited for", "event": event.id, "source": event.source, "type": event.type}
    _note(batch, wait, actor, told | {"key": wait["key"]})
    if RunState(batch.run(wait["run_id"])["state"]) in RESTING:
        _go_on(batch, wait["run_id"])


def _time_out(batch: Batch, wait: dict[str, Any], *, actor: str) -> None:
    _end(batch, wait, WaitState.TIMED_OUT)
    types = wait["types"].split("\n")[1:-1]
    told = {"text": "nothing came in time", "types": types, "key": wait["key"]} if types else {"text": "its time came"}
    _note(batch, wait, actor, told | {"until": wait["deadline"].isoformat()})


def _end(batch: Batch, wait: dict[str, Any], state: WaitState, event_uid: str | None = None) -> None:
    wait["state"] = state
    batch.execute(_CHANGE, {"b_id": wait["id"], "b_state": str(state), "b_event": event_uid})


def _note(batch: Batch, wait: dict[str, Any], actor: str, data: dict[str, Any]) -> None:
    entry = JournalEntry(
        run_id=wait["run_id"], kind=JournalKind.NOTE, actor=actor, node=wait["node"], data=data | {"wait": wait["id"]}
    )
    batch.journal(entry)


def _is_over(deadline: datetime | None, at: datetime) -> bool:
    """Whether something that comes then comes too late: also exactly at the deadline."""
    return deadline is not None and deadline <= at


def _number(workflow: str, key: str) -> int:
    """PostgreSQL's advisory locks are named by numbers; two lines that share one only wait for each other."""
    return int.from_bytes(hashlib.sha256(f"waits\0{workflow}\0{key}".encode()).digest()[:8], "big", signed=True)


_LOCK = sa.select(sa.func.pg_advisory_xact_lock(sa.bindparam("number", type_=sa.BigInteger)))
_SIGNAL, _OPEN, _WAKEUP = sa.insert(signals), sa.insert(waits), sa.insert(schema.wakeups)
_OF_RUN = sa.select(waits).where(waits.c.run_id == sa.bindparam("b_run_id"))
_OPEN_OF_RUN = _OF_RUN.where(waits.c.state == str(WaitState.OPEN)).order_by(waits.c.visit, waits.c.number)
_CHANGE = (
    sa.update(waits)
    .where(waits.c.id == sa.bindparam("b_id"))
    .values(state=sa.bindparam("b_state"), answered_by=sa.bindparam("b_event"))
)
#: Of a run that ends.
CANCEL_WAITS = (
    sa.update(waits)
    .where(waits.c.run_id == sa.bindparam("b_run_id"), waits.c.state == str(WaitState.OPEN))
    .values(state=str(WaitState.CANCELLED))
)
_IN_LINE = sa.and_(waits.c.workflow == sa.bindparam("b_workflow"), waits.c.key == sa.bindparam("b_key"))
_OPEN_IN_LINE = (
    sa.select(waits)
    .where(
        _IN_LINE,
        sa.text("waits.state = 'open'"),  # in the words of the index that holds such waits
        sa.or_(waits.c.deadline.is_(None), waits.c.deadline > sa.bindparam("b_now", type_=schema.UtcDateTime)),
    )
    .order_by(waits.c.opened_at, waits.c.id)
)
#: Without what the run began with: the event that started it, and those that were gathered into it.
_KEPT = (
    sa.select(signals.c.event_uid, signals.c.type, signals.c.at, schema.events.c.id, schema.events.c.source)
    .join(schema.events, schema.events.c.uid == signals.c.event_uid)
    .where(
        signals.c.workflow == sa.bindparam("b_workflow"),
        signals.c.key == sa.bindparam("b_key"),
        signals.c.type == sa.bindparam("b_type"),
        sa.text(FREE),
        signals.c.at >= sa.bindparam("b_since", type_=schema.UtcDateTime),
        signals.c.event_uid != sa.bindparam("b_own"),
        ~sa.exists().where(run_events.c.run_id == sa.bindparam("b_run"), run_events.c.event_uid == signals.c.event_uid),
    )
    .order_by(signals.c.at, signals.c.event_uid)
    .limit(1)
)
_TAKE = (
    sa.update(signals)
    .where(signals.c.event_uid == sa.bindparam("b_uid"), signals.c.workflow == sa.bindparam("b_of"), sa.text(FREE))
    .values(wait_id=sa.bindparam("b_wait"), late_for=None)
)
