"""Group commit: every write of this process waits in one line and leaves with all others that wait, in one transaction.

A batch reads the runs and budgets it touches once (locked), checks every fence, lets each unit change them in memory,
and writes runs, journal and gathered rows with a handful of statements. If a batch fails, its units go one by one.
"""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime
from typing import Any

import sqlalchemy as sa

from eventwright.runs import schema
from eventwright.runs.chain import hash_of, journal_row
from eventwright.runs.correlating import Line, lock_lines
from eventwright.runs.database import Database, is_away, padded, trouble_of
from eventwright.runs.errors import EventwrightError, LeaseLost, StoreUnavailable, Trouble, UnknownRun
from eventwright.runs.failpoints import Failpoint, failpoint
from eventwright.runs.flows import lock_flows
from eventwright.runs.health import Health
from eventwright.runs.records import WAITS, Claim, JournalEntry, Lease, Reservation
from eventwright.runs.reservations import BudgetBook
from eventwright.runs.rows import run_of
from eventwright.runs.statements import Statements
from eventwright.runs.telemetry import Committed, Telemetry
from eventwright.runs.turns import Place, Turns

Step = Callable[["Batch"], object]

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
#: Of a batch: why each unit was left out, None for one that was not, and what is told once the batch is committed.
Written = tuple["list[Exception | None]", "list[Committed]"]
#: (workflow, version, JSON) → the JSON as it may be read by whoever reads a journal: without what is kept from them.
Redact = Callable[[str, str, Any], Any]
MOST_UNITS = 256
#: How often a batch is tried while the database is away.
TRIES = 4
#: Seconds after which it is not tried again: waiting for a lock, or for a server that is frozen, took them already.
PATIENCE = 8.0
#: Units that may wait in line. Those of a segment wait in turn, so it takes a stuck database for so many to gather.
MOST_WAITING = 20_000


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
        self._dirty: set[str] = set()
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
        current = self._rows[lease.run_id]["fence"] if lease.run_id in self._rows else None
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
        run_ids = padded({entry.run_id for entry in self._entries})
        heads = {
            row.run_id: (row.seq, row.hash) for row in self._connection.execute(_JOURNAL_HEADS, {"run_ids": run_ids})
        }
        rows = []
        for entry in self._entries:
            seq, prev = heads.get(entry.run_id, (0, ""))
            linked = replace(entry, seq=seq + 1, at=self.now, prev=prev)
            row = journal_row(linked) | {"hash": hash_of(linked)}
            heads[entry.run_id] = (row["seq"], row["hash"])
            rows.append(row)
        self._connection.execute(_INSERT_JOURNAL, rows)


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


class Committer:
    """Posts every write of this process, one batch after the other."""

    def __init__(self, database: Database, redact: Redact | None = None, telemetry: Telemetry | None = None) -> None:
        self._database = database
        self._redact = redact
        self._telemetry = telemetry or Telemetry()
        self._statements = Statements(database.dialect)
        self._waiting: list[Unit] = []
        self._bell = asyncio.Event()
        self._task: asyncio.Task[None] | None = None
        self._closing = False
        self.health = Health()
        #: Commits made and units in them, for the metrics and the benchmark.
        self.commits = 0
        self.units = 0

    async def start(self) -> None:
        self._task = asyncio.create_task(self._serve(), name="group committer")

    async def close(self) -> None:
        """Write what waits, then stop."""
        self._closing = True
        self._bell.set()
        if self._task is not None:
            await self._task

    def post(self, unit: Unit, *, patience: float = 0.0) -> asyncio.Future[None]:
        """Put a unit in line; its future ends with the commit.

        Args:
            patience: seconds that it may wait for another unit, to go out in that one's commit instead of its own.
        """
        if self._task is None or self._task.done() or self._closing:
            raise StoreUnavailable("the store is closed; nothing was written")
        if len(self._waiting) >= MOST_WAITING:
            words = f"{len(self._waiting)} writes wait for the database already; nothing was written"
            raise StoreUnavailable(words, trouble=Trouble.CROWDED)
        unit.future = asyncio.get_running_loop().create_future()
        self._waiting.append(unit)
        if patience:
            asyncio.get_running_loop().call_later(patience, self._bell.set)
        else:
            self._bell.set()
        return unit.future

    @property
    def crowded(self) -> bool:
        """Whether so much waits in line that nothing new should be begun."""
        return len(self._waiting) >= MOST_WAITING // 2

    async def _serve(self) -> None:
        while not self._closing:
            await self._bell.wait()
            self._bell.clear()
            while self._waiting:
                await self._commit(self._next())

    def _next(self) -> Sequence[Unit]:
        units, self._waiting = self._waiting[:MOST_UNITS], self._waiting[MOST_UNITS:]
        return units

    async def _commit(self, units: Sequence[Unit]) -> None:
        refusals: Sequence[Exception | None]
        told: Sequence[Committed] = ()
        failpoint(Failpoint.COMMIT_BEGINNING)
        try:
            refusals, told = await self._write(units)
        except Exception as error:  # noqa: BLE001 - whoever waits for the unit gets it
            if len(units) > 1 and not isinstance(error, StoreUnavailable):
                for unit in units:
                    await self._commit((unit,))
                return
            refusals = [error] * len(units)
            self.health.not_written(error)
        else:
            self.commits += 1
            self.units += len(units)
            self.health.written()
            failpoint(Failpoint.COMMIT_DONE)
        for unit, refusal in zip(units, refusals, strict=True):
            _finish(unit, refusal)
        if told:
            self._telemetry.committed(told)

    async def _write(self, units: Sequence[Unit]) -> Written:
        """Write the batch, if need be several times: a database that is away may come back."""
        began = time.monotonic()
        for attempt in range(1, TRIES + 1):
            try:
                return await self._database.write(lambda connection: self._apply(connection, units))
            except Exception as error:
                if not is_away(error):
                    raise
                if attempt == TRIES or time.monotonic() - began > PATIENCE:
                    words = f"the database did not take the write: {error}"
                    raise StoreUnavailable(words, trouble=trouble_of(error)) from error
            await asyncio.sleep(0.05 * 2**attempt)
        raise AssertionError("the last attempt returns or raises")

    def _apply(self, connection: sa.Connection, units: Sequence[Unit]) -> Written:
        """Do the units' work in this transaction; one that is refused before it wrote anything is just left out."""
        batch = Batch(connection, self._statements, self._database.now(connection), self._redact)
        batch.load(units)
        refused: list[Exception | None] = []
        for unit in units:
            batch.wrote = any(event["uid"] in batch.stored_events for event in unit.events)
            try:
                if unit.lease is not None:
                    batch.check_fence(unit.lease)
                for step in unit.steps:
                    step(batch)
            except EventwrightError as refusal:
                if batch.wrote:
                    raise
                refused.append(refusal)
            else:
                refused.append(None)
        batch.flush()
        failpoint(Failpoint.COMMIT_APPLIED)
        return refused, batch.committed


def _finish(unit: Unit, error: Exception | None) -> None:
    if unit.future is None or unit.future.done():
        return
    if error is None:
        unit.future.set_result(None)
    else:
        unit.future.set_exception(error)
        # Whoever posted without waiting looks later, or never: that is no news for the event loop.
        with contextlib.suppress(BaseException):
            unit.future.exception()
