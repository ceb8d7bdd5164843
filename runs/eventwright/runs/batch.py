"""A batch: what the units of work that leave together see of the database, and change.

It reads the runs and budgets that they name once (locked), lets each unit change them in memory, and writes runs,
journal and gathered rows with a handful of statements.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime
from typing import Any

import sqlalchemy as sa

from eventwright.runs import schema
from eventwright.runs.chain import hash_of, journal_row
from eventwright.runs.correlating import Line, lock_lines
from eventwright.runs.database import padded
from eventwright.runs.errors import LeaseLost, UnknownRun
from eventwright.runs.flows import lock_flows
from eventwright.runs.records import WAITS, Claim, JournalEntry, Lease, Reservation
from eventwright.runs.reservations import BudgetBook
from eventwright.runs.rows import run_of
from eventwright.runs.statements import Statements
from eventwright.runs.telemetry import Committed
from eventwright.runs.turns import Place, Turns

Step = Callable[["Batch"], object]
#: (workflow, version, JSON) → the JSON as it may be read by whoever reads a journal: without what is kept from them.
Redact = Callable[[str, str, Any], Any]

#: The columns of a run that may change; a batch writes them all for every run it changed.
RUN_COLUMNS = (
    "state",
    "outcome",
    "reason",
    "error",
    "attempts",
    "generation",
    "version",
    "lane",
    "fence",
    "worker",
    "crashes",
    "stood_at",
    "idle",
    "turn",
    "cancel_requested_by",
    "due_at",
    "updated_at",
)


@dataclass(eq=False)
class Unit:
    """The collected work of one transaction."""

    lease: Lease | None = None
    #: Runs that its steps read or change.
    run_ids: set[str] = field(default_factory=set)
    #: Where its steps tell events to waits: workflow, key, and the type of an event.
    lines: list[Line] = field(default_factory=list)
    #: What its steps count new runs by.
    flows: set[str] = field(default_factory=set)
    #: Rows of accepted events; all of a batch are stored with one statement, before the first step.
    events: list[dict[str, Any]] = field(default_factory=list)
    #: Calls that its steps reserve or settle budgets for, by effect key, and what they reserve.
    effect_keys: set[str] = field(default_factory=set)
    reservations: list[Reservation] = field(default_factory=list)
    steps: list[Step] = field(default_factory=list)
    future: asyncio.Future[None] | None = None


class Batch:
    """What a step sees: the connection, the database's time, the runs it named, as mutable rows.

    What steps gather is written by the next `execute`, so that a statement finds all that came before it.
    """

    def __init__(
        self, connection: sa.Connection, statements: Statements, now: datetime, redact: Redact | None = None
    ) -> None:
        self._redact = redact
        self.statements = statements
        self.now = now
        #: Whether the present unit has changed anything; then it cannot be left out, only undone with the batch.
        self.wrote = False
        self.stored_events: set[str] = set()
        self.budgets = BudgetBook(connection, statements, now)
        self._turns = Turns(connection, now)
        self._connection = connection
        self._rows: dict[str, dict[str, Any]] = {}
        #: Of runs whose rows nobody wants to see, but somebody has a lease of.
        self._fences: dict[str, int] = {}
        self._dirty: set[str] = set()
        #: Runs that are stored with this batch: nobody has written about them yet.
        self._new: set[str] = set()
        self._silenced: set[str] = set()
        self._inserts: dict[sa.Executable, list[dict[str, Any]]] = {}
        self._entries: list[JournalEntry] = []
        #: Claims that have succeeded, by run; when all is written they are told what they have.
        self.claims: dict[str, Claim] = {}

    def load(self, units: Sequence[Unit]) -> None:
        """Lock the runs and the budgets, and store the events, in one order for everybody, so that two processes
        cannot deadlock."""
        run_ids = {run_id for unit in units for run_id in unit.run_ids}
        run_ids |= lock_lines(self._connection, units, self.now) | lock_flows(self._connection, units)
        leased = {unit.lease.run_id for unit in units if unit.lease is not None}
        if self.statements.locks_rows:
            run_ids |= leased  # in the same statement, so that everybody locks runs in one order
        elif leased := leased - run_ids:
            found = self._connection.execute(self.statements.fences, {"ids": padded(leased)}).scalar_one()
            self._fences = dict(json.loads(found))
        if run_ids:
            rows = self._connection.execute(_LOCK_RUNS, {"ids": padded(run_ids)}).mappings()
            self._rows = {row["id"]: dict(row) for row in rows}
        self.budgets.load(units)
        events = sorted((event for unit in units for event in unit.events), key=lambda row: (row["source"], row["id"]))
        if events:
            self.stored_events.update(self._connection.execute(self.statements.event, events).scalars())

    def run(self, run_id: str) -> dict[str, Any]:
        """The run's row, read-only. Raises UnknownRun."""
        try:
            return self._rows[run_id]
        except KeyError:
            raise UnknownRun(run_id) from None

    def add_run(self, row: dict[str, Any]) -> None:
        self._rows[row["id"]] = row
        self._new.add(row["id"])
        self.insert(_INSERT_RUN, row)

    def change(self, run_id: str, **columns: Any) -> None:
        """Set columns of the run; written with the batch."""
        row = self.run(run_id)
        if row["serial_key"] is not None and "state" in columns:
            columns = self._turns.after(row, columns["state"]) | columns
        row.update(columns, updated_at=self.now)
        self._dirty.add(run_id)
        self.wrote = True

    def place(self, row: Mapping[str, Any]) -> Place:
        """Where a run with a serial key stands in its line."""
        self.catch_up()
        return self._turns.place(row)

    def in_line(self, run_id: str) -> bool:
        """Whether the run, if this batch knows it, waits for its turn."""
        row = self._rows.get(run_id)
        return row is not None and row["turn"] == WAITS and row["due_at"] is None

    def silence(self, run_id: str) -> None:
        """Delete the bells that are in the outbox for this run; those that the batch gathers are still to come."""
        self._silenced.add(run_id)
        self.wrote = True

    def insert(self, statement: sa.Executable, row: dict[str, Any]) -> None:
        """Gather a row; all rows of a statement are written at once."""
        self._inserts.setdefault(statement, []).append(row)
        self.wrote = True

    def journal(self, entry: JournalEntry) -> None:
        """Gather an entry, redacted; it gets its place in the chain when the batch is written."""
        self._entries.append(replace(entry, data=self.redacted(entry.run_id, entry.data)))
        self.wrote = True

    @property
    def committed(self) -> list[Committed]:
        """The gathered entries, each with its run: what there is to tell once they are committed."""
        return [Committed(entry, self._rows[entry.run_id]) for entry in self._entries]

    def redacted(self, run_id: str, value: Any) -> Any:
        """The JSON value as it may stand in the journal and in the words of an error. Raises UnknownRun."""
        run = self.run(run_id)
        return value if self._redact is None else self._redact(run["workflow"], run["version"], value)

    def execute(self, statement: sa.Executable, parameters: dict[str, Any] | None = None) -> sa.CursorResult[Any]:
        """Run a statement now."""
        self._write_gathered()
        result = self._connection.execute(statement, parameters)
        self.wrote = self.wrote or (not result.returns_rows and result.rowcount != 0)
        return result

    def check_fence(self, lease: Lease) -> None:
        """Raise LeaseLost if somebody took the run over since."""
        row = self._rows.get(lease.run_id)
        current = self._fences.get(lease.run_id) if row is None else row["fence"]
        if current != lease.fence:
            raise LeaseLost(lease.run_id, lease.fence, current)

    def flush(self) -> None:
        """Write what is still gathered."""
        self.catch_up()
        self.budgets.flush()
        self._turns.pass_on()
        if self._entries:
            self._write_journal()
        if self.claims:
            for row in self._connection.execute(_CLAIMED, {"ids": padded(self.claims)}).mappings():
                self.claims[row["id"]].run = run_of(row)

    def catch_up(self) -> None:
        """Write the runs as they are by now, so that a statement about others than the loaded ones finds them so."""
        self._write_gathered()
        if self._dirty:
            changed = [self._rows[run_id] for run_id in sorted(self._dirty)]
            self._connection.execute(
                _UPDATE_RUN, [{f"b_{name}": row[name] for name in ("id", *RUN_COLUMNS)} for row in changed]
            )
            self._dirty.clear()

    def _write_gathered(self) -> None:
        if self._silenced:
            self._connection.execute(_SILENCE, {"run_ids": padded(self._silenced)})
            self._silenced.clear()
        for statement, rows in self._inserts.items():
            self._connection.execute(statement, rows)
        self._inserts.clear()

    def _write_journal(self) -> None:
        heads = self._journal_heads({entry.run_id for entry in self._entries} - self._new)
        rows = []
        for entry in self._entries:
            seq, prev = heads.get(entry.run_id, (0, ""))
            linked = replace(entry, seq=seq + 1, at=self.now, prev=prev)
            row = journal_row(linked) | {"hash": hash_of(linked)}
            heads[entry.run_id] = (row["seq"], row["hash"])
            rows.append(row)
        self._connection.execute(_INSERT_JOURNAL, rows)

    def _journal_heads(self, run_ids: Collection[str]) -> dict[str, tuple[int, str]]:
        """Number and hash of each run's last entry, if it has one."""
        if not run_ids:
            return {}
        found = self._connection.execute(_JOURNAL_HEADS, {"run_ids": padded(run_ids)})
        return {row.run_id: (row.seq, row.hash) for row in found}


def _any_of(column: sa.ColumnElement[Any], name: str) -> sa.ColumnElement[bool]:
    return column.in_(sa.bindparam(name, expanding=True))


_LOCK_RUNS = sa.select(schema.runs).where(_any_of(schema.runs.c.id, "ids")).order_by(schema.runs.c.id).with_for_update()
_CLAIMED = schema.runs_with_events.where(_any_of(schema.runs.c.id, "ids"))
_INSERT_RUN = sa.insert(schema.runs)
_UPDATE_RUN = (
    sa.update(schema.runs)
    .where(schema.runs.c.id == sa.bindparam("b_id"))
    .values({name: sa.bindparam(f"b_{name}") for name in RUN_COLUMNS})
)
_SILENCE = sa.delete(schema.wakeups).where(_any_of(schema.wakeups.c.run_id, "run_ids"))
_LATEST = (
    sa.select(schema.journal.c.run_id, sa.func.max(schema.journal.c.seq).label("seq"))
    .where(_any_of(schema.journal.c.run_id, "run_ids"))
    .group_by(schema.journal.c.run_id)
    .subquery()
)
_JOURNAL_HEADS = sa.select(schema.journal.c.run_id, schema.journal.c.seq, schema.journal.c.hash).join(
    _LATEST, sa.and_(schema.journal.c.run_id == _LATEST.c.run_id, schema.journal.c.seq == _LATEST.c.seq)
)
_INSERT_JOURNAL = sa.insert(schema.journal)
