"""Group commit: every write of this process waits in one line and leaves with all others that wait, in one transaction.

A batch reads the runs it touches once (locked), checks every fence, lets each unit change them in memory, and
writes runs, journal and gathered rows with a handful of statements. If a batch fails, its units go one by one.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from typing import Any

import sqlalchemy as sa
from sqlalchemy.exc import DBAPIError, IntegrityError
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine

from eventwright.runs import schema
from eventwright.runs.errors import EventwrightError, LeaseLost, StoreUnavailable, UnknownRun
from eventwright.runs.event import digest_of
from eventwright.runs.records import JournalEntry, Lease

Clock = Callable[[], datetime]
Step = Callable[["Batch"], None]

#: The columns of a run that may change; a batch writes them all for every run it changed.
RUN_COLUMNS = (
    "state",
    "outcome",
    "reason",
    "error",
    "attempts",
    "generation",
    "version",
    "fence",
    "worker",
    "crashes",
    "cancel_requested_by",
    "due_at",
    "updated_at",
)
MOST_UNITS = 256
#: How often a single unit is tried when the database is away or another process was faster.
TRIES = 4


@dataclass(eq=False)
class Unit:
    """The collected work of one transaction."""

    lease: Lease | None = None
    #: Runs that its steps read or change.
    run_ids: set[str] = field(default_factory=set)
    steps: list[Step] = field(default_factory=list)
    inserts: list[tuple[sa.Executable, dict[str, Any]]] = field(default_factory=list)
    entries: list[JournalEntry] = field(default_factory=list)
    future: asyncio.Future[None] | None = None


class Batch:
    """What a step sees: the connection, the database's time, the runs it named, as mutable rows."""

    def __init__(self, connection: sa.Connection, now: datetime) -> None:
        self.connection = connection
        self.now = now
        self.wrote = False
        self._rows: dict[str, dict[str, Any]] = {}
        self._dirty: set[str] = set()
        self._inserts: dict[sa.Executable, list[dict[str, Any]]] = {}
        self._entries: list[JournalEntry] = []

    def load(self, run_ids: set[str]) -> None:
        """Read and lock these runs, in one order for everybody, so that two processes cannot deadlock."""
        if not run_ids:
            return
        query = (
            sa.select(schema.runs)
            .where(schema.runs.c.id.in_(sorted(run_ids)))
            .order_by(schema.runs.c.id)
            .with_for_update()
        )
        self._rows = {row["id"]: dict(row) for row in self.connection.execute(query).mappings()}

    def run(self, run_id: str) -> dict[str, Any]:
        """The run's row, read-only. Raises UnknownRun."""
        try:
            return self._rows[run_id]
        except KeyError:
            raise UnknownRun(run_id) from None

    def change(self, run_id: str, **columns: Any) -> None:
        """Set columns of the run; written with the batch."""
        self.run(run_id).update(columns, updated_at=self.now)
        self._dirty.add(run_id)
        self.wrote = True

    def execute(self, statement: sa.Executable, parameters: Any = None) -> int:
        """Run a writing statement now; the number of rows it changed."""
        result = self.connection.execute(statement, parameters)
        self.wrote = self.wrote or result.rowcount != 0
        return int(result.rowcount)

    def insert(self, statement: sa.Executable, row: dict[str, Any]) -> None:
        self._inserts.setdefault(statement, []).append(row)

    def journal(self, entry: JournalEntry) -> None:
        self._entries.append(entry)

    def check_fence(self, lease: Lease) -> None:
        """Raise LeaseLost if somebody took the run over since."""
        row = self._rows.get(lease.run_id)
        if row is None or row["fence"] != lease.fence:
            raise LeaseLost(lease.run_id, lease.fence, row and row["fence"])

    def flush(self) -> None:
        """Write what was gathered."""
        for statement, rows in self._inserts.items():
            self.connection.execute(statement, rows)
        if self._dirty:
            self.connection.execute(
                _UPDATE_RUN,
                [
                    {"b_id": run_id, **{f"b_{name}": self._rows[run_id][name] for name in RUN_COLUMNS}}
                    for run_id in sorted(self._dirty)
                ],
            )
        if self._entries:
            self._write_journal()

    def _write_journal(self) -> None:
        run_ids = sorted({entry.run_id for entry in self._entries})
        latest = (
            sa.select(schema.journal.c.run_id, sa.func.max(schema.journal.c.seq).label("seq"))
            .where(schema.journal.c.run_id.in_(run_ids))
            .group_by(schema.journal.c.run_id)
            .subquery()
        )
        heads = {
            row.run_id: (row.seq, row.hash)
            for row in self.connection.execute(
                sa.select(schema.journal.c.run_id, schema.journal.c.seq, schema.journal.c.hash).join(
                    latest,
                    sa.and_(schema.journal.c.run_id == latest.c.run_id, schema.journal.c.seq == latest.c.seq),
                )
            )
        }
        rows = []
        for entry in self._entries:
            seq, prev = heads.get(entry.run_id, (0, ""))
            chained = chain(replace(entry, seq=seq + 1, at=self.now), prev)
            heads[entry.run_id] = (chained.seq, chained.hash)
            rows.append(journal_row(chained))
        self.connection.execute(_INSERT_JOURNAL, rows)


_UPDATE_RUN = (
    sa.update(schema.runs)
    .where(schema.runs.c.id == sa.bindparam("b_id"))
    .values({name: sa.bindparam(f"b_{name}") for name in RUN_COLUMNS})
)
_INSERT_JOURNAL = sa.insert(schema.journal)


def chain(entry: JournalEntry, prev: str) -> JournalEntry:
    """The entry with `prev` and its own hash: SHA-256 over the canonical JSON of everything else, `prev` included."""
    assert entry.at is not None
    body = {
        "run_id": entry.run_id,
        "seq": entry.seq,
        "at": entry.at.astimezone(UTC).isoformat(timespec="microseconds"),
        "kind": str(entry.kind),
        "actor": entry.actor,
        "node": entry.node,
        "version": entry.version,
        "data": entry.data,
        "prev": prev,
    }
    return replace(entry, prev=prev, hash=digest_of(body))


def journal_row(entry: JournalEntry) -> dict[str, Any]:
    """The entry as the journal table's row."""
    names = ("run_id", "seq", "at", "actor", "node", "version", "data", "prev", "hash")
    return {"kind": str(entry.kind), **{name: getattr(entry, name) for name in names}}


class Committer:
    """Owns the one writing connection of this process."""

    def __init__(self, engine: AsyncEngine, *, clock: Clock | None = None) -> None:
        self._engine = engine
        self._clock = clock
        self._waiting: list[Unit] = []
        self._bell = asyncio.Event()
        self._task: asyncio.Task[None] | None = None
        self._closing = False
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
        """Put a unit in line; its future ends with the commit. With `patience` it waits for company, in seconds."""
        if self._task is None or self._task.done() or self._closing:
            raise StoreUnavailable("the store is closed; nothing was written")
        loop = asyncio.get_running_loop()
        unit.future = loop.create_future()
        self._waiting.append(unit)
        if patience:
            loop.call_later(patience, self._bell.set)
        else:
            self._bell.set()
        return unit.future

    def withdraw(self, unit: Unit) -> None:
        """Take a unit out of the line, as done, if it has not left yet: a later one made it needless."""
        if unit in self._waiting and unit.future is not None:
            self._waiting.remove(unit)
            unit.future.set_result(None)

    async def _serve(self) -> None:
        while not (self._closing and not self._waiting):
            await self._bell.wait()
            self._bell.clear()
            while self._waiting:
                batch, self._waiting = self._waiting[:MOST_UNITS], self._waiting[MOST_UNITS:]
                await self._commit(batch)
            if self._closing:
                self._bell.set()

    async def _commit(self, units: Sequence[Unit]) -> None:
        try:
            refused = await self._write(units)
        except Exception as error:
            if len(units) == 1:
                await self._commit_alone(units[0], error)
            else:
                for unit in units:
                    await self._commit((unit,))
            return
        self.commits += 1
        self.units += len(units)
        for unit, refusal in zip(units, refused, strict=True):
            _finish(unit, refusal)

    async def _commit_alone(self, unit: Unit, error: Exception) -> None:
        """Try one unit again where that can help: the database was away, or another process took our place."""
        for attempt in range(1, TRIES):
            if not isinstance(error, DBAPIError):
                break
            await asyncio.sleep(0.05 * 2**attempt)
            try:
                (refusal,) = await self._write((unit,))
            except Exception as again:
                error = again
            else:
                _finish(unit, refusal)
                return
        if isinstance(error, DBAPIError) and not isinstance(error, IntegrityError | sa.exc.DataError):
            unavailable = StoreUnavailable(f"the database did not take the write: {error.orig}")
            unavailable.__cause__ = error
            error = unavailable
        _finish(unit, error)

    async def _write(self, units: Sequence[Unit]) -> list[Exception | None]:
        async with self._engine.connect() as connection:
            await connection.execution_options(eventwright_writer=True)
            async with connection.begin():
                now = await self._now(connection)
                return await connection.run_sync(_apply, units, now)

    async def _now(self, connection: AsyncConnection) -> datetime:
        if self._clock is not None:
            return self._clock()
        return await database_time(connection)


async def database_time(connection: AsyncConnection) -> datetime:
    """The database's clock; SQLite has none but this machine's, which all its writers share."""
    if connection.dialect.name == "sqlite":
        return datetime.now(UTC)
    value: datetime = (await connection.execute(sa.select(sa.func.clock_timestamp()))).scalar_one()
    return value.astimezone(UTC)


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


def _apply(connection: sa.Connection, units: Sequence[Unit], now: datetime) -> list[Exception | None]:
    """Do the units' work in this transaction; a unit refused before it wrote anything does not disturb the others."""
    batch = Batch(connection, now)
    batch.load({run_id for unit in units for run_id in unit.run_ids})
    refused: list[Exception | None] = []
    for unit in units:
        batch.wrote = False
        try:
            if unit.lease is not None:
                batch.check_fence(unit.lease)
            for step in unit.steps:
                step(batch)
        except EventwrightError as refusal:
            if batch.wrote:
                raise
            refused.append(refusal)
            continue
        for statement, row in unit.inserts:
            batch.insert(statement, row)
        for entry in unit.entries:
            batch.journal(entry)
        refused.append(None)
    batch.flush()
    return refused
