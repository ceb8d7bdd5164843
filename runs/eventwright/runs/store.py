"""The store: the one SQL database that holds the truth, on SQLite or PostgreSQL. Reads are here, writes in `transaction`."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator, Collection, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any

import sqlalchemy as sa
from sqlalchemy.exc import OperationalError
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine, create_async_engine

from eventwright.runs import rows, schema
from eventwright.runs.committer import Clock, Committer, Unit, database_time
from eventwright.runs.errors import StoreUnavailable, UnknownEvent, UnknownReview, UnknownRun
from eventwright.runs.records import (
    Effect,
    JournalEntry,
    Lease,
    Review,
    ReviewState,
    Run,
    StoredEvent,
    Timer,
    Visit,
    WakeUp,
)
from eventwright.runs.states import RunState
from eventwright.runs.transaction import Statements, Transaction


def compact_json(value: Any) -> str:
    """JSON text for a column: no spaces, no escapes for plain letters, no NaN."""
    return json.dumps(value, ensure_ascii=False, separators=(",", ":"), allow_nan=False)


def async_url(url: str) -> sa.URL:
    """The URL with its asynchronous driver: `sqlite:///file` and `postgresql://…` are what people write.

    Raises:
        ValueError: another kind of database.
    """
    parsed = sa.make_url(url)
    drivers = {
        "sqlite": "sqlite+aiosqlite",
        "postgresql": "postgresql+asyncpg",
        "postgres": "postgresql+asyncpg",
    }
    backend = parsed.drivername.partition("+")[0]
    if backend not in drivers:
        raise ValueError(
            f"EVENTWRIGHT_DATABASE_URL is {backend!r}; Eventwright keeps its truth in sqlite or postgresql"
        )
    return parsed.set(drivername=drivers[backend])


def create_engine(url: str, *, readers: int = 5) -> AsyncEngine:
    """An engine with the settings both stores need. SQLite: WAL, full sync, writers wait for each other."""
    parsed = async_url(url)
    engine = create_async_engine(
        parsed,
        json_serializer=compact_json,
        pool_size=readers,
        max_overflow=readers,
        pool_pre_ping=parsed.drivername[0] == "p",
    )
    if parsed.drivername.startswith("sqlite"):
        sa.event.listen(engine.sync_engine, "connect", _sqlite_settings)
        sa.event.listen(engine.sync_engine, "begin", _sqlite_begin)
    return engine


def _sqlite_settings(connection: Any, _record: Any) -> None:
    connection.isolation_level = None  # the driver would begin late, and without the lock
    cursor = connection.cursor()
    for pragma in ("busy_timeout=30000", "journal_mode=WAL", "synchronous=FULL", "temp_store=MEMORY"):
        cursor.execute(f"PRAGMA {pragma}")
    cursor.close()


def _sqlite_begin(connection: sa.Connection) -> None:
    writer = connection.get_execution_options().get("eventwright_writer", False)
    connection.exec_driver_sql("BEGIN IMMEDIATE" if writer else "BEGIN")


@dataclass(frozen=True)
class History:
    """What a segment must know of its run's past."""

    effects: dict[str, Effect]
    visits: dict[str, Visit]
    reviews: tuple[Review, ...]


class Store:
    """Open it with `async with Store.open(url) as store`."""

    def __init__(self, engine: AsyncEngine, *, clock: Clock | None = None) -> None:
        self.engine = engine
        self.committer = Committer(engine, clock=clock)
        self._clock = clock
        self._statements = Statements(engine.dialect.name)

    @classmethod
    @asynccontextmanager
    async def open(cls, url: str, *, clock: Clock | None = None) -> AsyncIterator[Store]:
        """A store on a migrated database (see `migrate.upgrade`).

        Args:
            url: `sqlite:///path` or `postgresql://…`.
            clock: replaces the database's clock, for tests and simulations.
        """
        store = cls(create_engine(url), clock=clock)
        await store.committer.start()
        try:
            yield store
        finally:
            await store.committer.close()
            await store.engine.dispose()

    @asynccontextmanager
    async def write(self, lease: Lease | None = None) -> AsyncIterator[Transaction]:
        """A write transaction: collect verbs; on leaving it is committed, or raises and nothing of it was written.

        Args:
            lease: the right to write for a run; every write of a segment has one.

        Raises:
            LeaseLost: another worker took the run over.
            IllegalMove, DuplicateEvent, DecisionRefused, UnknownRun: the world is not as a verb expects.
            StoreUnavailable: the database did not take it.
        """
        transaction = self.transaction(lease)
        yield transaction
        await self.committer.post(transaction.unit)

    def transaction(self, lease: Lease | None = None) -> Transaction:
        """A transaction to be posted by hand (`committer.post(tx.unit)`), for writes nobody waits for."""
        unit = Unit(lease=lease)
        if lease is not None:
            unit.run_ids.add(lease.run_id)
        return Transaction(self._statements, unit)

    @asynccontextmanager
    async def read(self) -> AsyncIterator[AsyncConnection]:
        """A reading connection. Raises StoreUnavailable."""
        try:
            async with self.engine.connect() as connection:
                yield connection
        except (OperationalError, OSError) as error:
            raise StoreUnavailable(f"the database did not answer: {error}") from error

    async def now(self) -> datetime:
        """The database's time."""
        if self._clock is not None:
            return self._clock()
        async with self.read() as connection:
            return await database_time(connection)

    async def ping(self) -> None:
        """Raises StoreUnavailable if the database does not answer."""
        async with self.read() as connection:
            await connection.execute(sa.select(1))

    # -- runs --------------------------------------------------------------------------------------------------------

    async def run(self, run_id: str) -> Run:
        """The run. Raises UnknownRun."""
        found = await self._runs(_RUNS.where(schema.runs.c.id == run_id))
        if not found:
            raise UnknownRun(run_id)
        return found[0]

    async def runs(
        self,
        *,
        states: Collection[RunState] = (),
        workflow: str | None = None,
        limit: int = 50,
        before: str | None = None,
    ) -> list[Run]:
        """Runs, newest first; `before` is the id that the last page ended with."""
        query = _RUNS.order_by(schema.runs.c.id.desc()).limit(limit)
        if states:
            query = query.where(schema.runs.c.state.in_([str(state) for state in states]))
        if workflow is not None:
            query = query.where(schema.runs.c.workflow == workflow)
        if before is not None:
            query = query.where(schema.runs.c.id < before)
        return await self._runs(query)

    async def due_runs(self, *, limit: int) -> list[tuple[str, str]]:
        """(id, lane) of runs that may be taken up now, the longest due first: new, retried, decided, abandoned."""
        now = await self.now()
        due = schema.runs.c.due_at
        query = sa.select(schema.runs.c.id, schema.runs.c.lane).where(due <= now).order_by(due).limit(limit)
        async with self.read() as connection:
            return [(row.id, row.lane) for row in await connection.execute(query)]

    async def next_due(self) -> datetime | None:
        """When the next resting run or timer comes due."""
        query = sa.select(
            sa.select(sa.func.min(schema.runs.c.due_at, type_=schema.UtcDateTime())).scalar_subquery(),
            sa.select(sa.func.min(schema.timers.c.due_at, type_=schema.UtcDateTime())).scalar_subquery(),
        )
        async with self.read() as connection:
            times = [time for time in (await connection.execute(query)).one() if time is not None]
        return min(times, default=None)

    async def counts(self) -> dict[tuple[str, str], int]:
        """How many runs there are by (workflow, state)."""
        query = sa.select(schema.runs.c.workflow, schema.runs.c.state, sa.func.count()).group_by(
            schema.runs.c.workflow, schema.runs.c.state
        )
        async with self.read() as connection:
            return {(row[0], row[1]): row[2] for row in await connection.execute(query)}

    async def _runs(self, query: sa.Select[Any]) -> list[Run]:
        async with self.read() as connection:
            return [rows.run_of(row) for row in (await connection.execute(query)).mappings()]

    async def history(self, run_id: str) -> History:
        """What a segment must know: effects by key, visits by place, reviews in the order they were asked."""
        async with self.read() as connection:
            effects = await connection.execute(sa.select(schema.effects).where(schema.effects.c.run_id == run_id))
            visits = await connection.execute(sa.select(schema.visits).where(schema.visits.c.run_id == run_id))
            reviews = await connection.execute(
                _REVIEWS.where(schema.reviews.c.run_id == run_id).order_by(schema.reviews.c.id)
            )
            return History(
                effects={row["key"]: rows.effect_of(row) for row in effects.mappings()},
                visits={row["place"]: rows.visit_of(row) for row in visits.mappings()},
                reviews=tuple(rows.review_of(row) for row in reviews.mappings()),
            )

    async def journal(self, run_id: str) -> list[JournalEntry]:
        """The run's record, oldest first. Raises UnknownRun."""
        query = sa.select(schema.journal).where(schema.journal.c.run_id == run_id).order_by(schema.journal.c.seq)
        async with self.read() as connection:
            entries = [rows.journal_of(row) for row in (await connection.execute(query)).mappings()]
        if not entries:
            raise UnknownRun(run_id)
        return entries

    async def effects(self, run_id: str) -> list[Effect]:
        """The run's ledger, in the order of visits."""
        history = await self.history(run_id)
        return sorted(history.effects.values(), key=lambda effect: (effect.visit, effect.tool, effect.ordinal))

    # -- reviews -----------------------------------------------------------------------------------------------------

    async def review(self, review_id: str) -> Review:
        """The review with its decision. Raises UnknownReview."""
        found = await self._reviews(_REVIEWS.where(schema.reviews.c.id == review_id))
        if not found:
            raise UnknownReview(review_id)
        return found[0]

    async def reviews(
        self,
        *,
        state: ReviewState | None = None,
        run_ids: Collection[str] | None = None,
        limit: int = 50,
        after: str | None = None,
    ) -> list[Review]:
        """Reviews, oldest first; `after` is the id that the last page ended with."""
        query = _REVIEWS.order_by(schema.reviews.c.id).limit(limit)
        if state is not None:
            query = query.where(schema.reviews.c.state == str(state))
        if run_ids is not None:
            query = query.where(schema.reviews.c.run_id.in_(sorted(run_ids)))
        if after is not None:
            query = query.where(schema.reviews.c.id > after)
        return await self._reviews(query)

    async def review_ids(self, run_ids: Collection[str]) -> dict[str, list[str]]:
        """The ids of the reviews of each of these runs, oldest first."""
        query = (
            sa.select(schema.reviews.c.run_id, schema.reviews.c.id)
            .where(schema.reviews.c.run_id.in_(sorted(run_ids)))
            .order_by(schema.reviews.c.id)
        )
        found: dict[str, list[str]] = {run_id: [] for run_id in run_ids}
        async with self.read() as connection:
            for run_id, review_id in await connection.execute(query):
                found[run_id].append(review_id)
        return found

    async def due_timers(self, *, limit: int) -> list[Timer]:
        """Deadlines that have passed."""
        now = await self.now()
        query = (
            sa.select(schema.timers).where(schema.timers.c.due_at <= now).order_by(schema.timers.c.due_at).limit(limit)
        )
        async with self.read() as connection:
            return [rows.timer_of(row) for row in (await connection.execute(query)).mappings()]

    async def _reviews(self, query: sa.Select[Any]) -> list[Review]:
        async with self.read() as connection:
            return [rows.review_of(row) for row in (await connection.execute(query)).mappings()]

    # -- events ------------------------------------------------------------------------------------------------------

    async def accepted_event(self, source: str, event_id: str) -> StoredEvent | None:
        """The accepted event of this name, with its runs."""
        condition = sa.and_(
            schema.events.c.source == source,
            schema.events.c.id == event_id,
            schema.events.c.state == "accepted",
        )
        return next(iter(await self._events(sa.select(schema.events).where(condition))), None)

    async def event(self, uid: str) -> StoredEvent:
        """The stored event. Raises UnknownEvent."""
        found = await self._events(sa.select(schema.events).where(schema.events.c.uid == uid))
        if not found:
            raise UnknownEvent(uid)
        return found[0]

    async def events(
        self, *, state: str | None = None, limit: int = 50, before: str | None = None
    ) -> list[StoredEvent]:
        """Events, newest first."""
        query = sa.select(schema.events).order_by(schema.events.c.uid.desc()).limit(limit)
        if state is not None:
            query = query.where(schema.events.c.state == state)
        if before is not None:
            query = query.where(schema.events.c.uid < before)
        return await self._events(query)

    async def _events(self, query: sa.Select[Any]) -> list[StoredEvent]:
        async with self.read() as connection:
            found = list((await connection.execute(query)).mappings())
            uids = [row["uid"] for row in found]
            runs: dict[str, list[str]] = {uid: [] for uid in uids}
            started = sa.select(schema.runs.c.event_uid, schema.runs.c.id).where(schema.runs.c.event_uid.in_(uids))
            for uid, run_id in await connection.execute(started.order_by(schema.runs.c.workflow)):
                runs[uid].append(run_id)
        return [rows.stored_event_of(row, tuple(runs[row["uid"]])) for row in found]

    # -- the outbox --------------------------------------------------------------------------------------------------

    async def wakeups(self, *, sent: bool, older_than: timedelta, limit: int) -> list[WakeUp]:
        """Bells in the outbox, oldest first: not yet rung, or rung `older_than` ago and not answered by a claim."""
        now = await self.now()
        column = schema.wakeups.c.sent_at if sent else schema.wakeups.c.created_at
        query = (
            sa.select(schema.wakeups)
            .where(schema.wakeups.c.sent_at.is_not(None) if sent else schema.wakeups.c.sent_at.is_(None))
            .where(column <= now - older_than)
            .order_by(column)
            .limit(limit)
        )
        async with self.read() as connection:
            return [rows.wakeup_of(row) for row in (await connection.execute(query)).mappings()]

    async def rung(self, run_ids: Collection[str]) -> set[str]:
        """Which of these runs have a bell in the outbox already."""
        query = sa.select(schema.wakeups.c.run_id).where(schema.wakeups.c.run_id.in_(sorted(run_ids)))
        async with self.read() as connection:
            return set((await connection.execute(query)).scalars())

    # -- checkpoints -------------------------------------------------------------------------------------------------

    async def rows_of(self, query: sa.Select[Any]) -> Sequence[sa.RowMapping]:
        """Rows of a query, for the checkpoint saver."""
        async with self.read() as connection:
            return (await connection.execute(query)).mappings().all()


_RUNS = sa.select(
    schema.runs, *(column.label(f"event_{column.name}") for column in schema.events.c if column.name != "uid")
).join(schema.events, schema.events.c.uid == schema.runs.c.event_uid)
_REVIEWS = sa.select(
    schema.reviews, *(column.label(f"decision_{column.name}") for column in schema.decisions.c)
).outerjoin(schema.decisions, schema.decisions.c.review_id == schema.reviews.c.id)
