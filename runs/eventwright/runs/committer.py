"""Group commit: every write of this process waits in one line and leaves with all others that wait, in one transaction.

If a batch fails, its units go one by one.
"""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import Sequence
from datetime import datetime

import sqlalchemy as sa

from eventwright.runs.batch import Batch, Redact, Unit
from eventwright.runs.commits import Commits
from eventwright.runs.database import Database, is_away, trouble_of
from eventwright.runs.errors import EventwrightError, StoreUnavailable, Trouble
from eventwright.runs.failpoints import Failpoint, failpoint
from eventwright.runs.health import Health
from eventwright.runs.statements import Statements
from eventwright.runs.telemetry import Committed, Telemetry

#: Of a batch: why each unit was left out, None for one that was not, and what is told once the batch is committed.
Written = tuple["list[Exception | None]", "list[Committed]"]
MOST_UNITS = 256
#: How often a batch is tried while the database is away.
TRIES = 4
#: Seconds after which it is not tried again: waiting for a lock, or for a server that is frozen, took them already.
PATIENCE = 8.0
#: Units that may wait in line. Those of a segment wait in turn, so it takes a stuck database for so many to gather.
MOST_WAITING = 20_000


class Committer:
    """Posts every write of this process, one batch after the other."""

    def __init__(self, database: Database, redact: Redact | None = None, telemetry: Telemetry | None = None) -> None:
        self._database = database
        self._redact = redact
        self._telemetry = telemetry or Telemetry()
        self._statements = Statements(database.dialect)
        self._commits = Commits(database)
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
        number, began = self._commits.next(), time.monotonic()
        written: Written = [], []

        def apply(connection: sa.Connection) -> Written:
            nonlocal written
            now = self._commits.begin(connection, number)
            if now is not None:  # else the last attempt was committed, and nobody heard of it
                written = self._apply(connection, units, now)
            return written

        for attempt in range(1, TRIES + 1):
            try:
                return await self._database.write(apply)
            except Exception as error:
                if not is_away(error):
                    raise
                if attempt == TRIES or time.monotonic() - began > PATIENCE:
                    words = f"the database did not take the write: {error}"
                    raise StoreUnavailable(words, trouble=trouble_of(error)) from error
            await asyncio.sleep(0.05 * 2**attempt)
        raise AssertionError("the last attempt returns or raises")

    def _apply(self, connection: sa.Connection, units: Sequence[Unit], now: datetime) -> Written:
        """Do the units' work in this transaction; one that is refused before it wrote anything is just left out."""
        batch = Batch(connection, self._statements, now, self._redact)
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
