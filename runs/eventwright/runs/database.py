"""A database as two verbs, `read` and `write`: each runs a piece of synchronous work on a connection.

What a caller awaits is one hop for a whole transaction, not one for every statement: SQLite's work runs in threads
of ours, PostgreSQL's on asyncpg (docs/decisions/0002-sqlite-writer-thread.md).
"""

from __future__ import annotations

import asyncio
import json
import sqlite3
import time
from abc import ABC, abstractmethod
from collections.abc import AsyncIterator, Callable, Collection
from concurrent.futures import ThreadPoolExecutor
from contextlib import AsyncExitStack, asynccontextmanager
from datetime import UTC, datetime, timedelta
from typing import Any, TypeVar

import sqlalchemy as sa
from sqlalchemy.exc import DBAPIError, InterfaceError, InternalError, OperationalError
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine, create_async_engine

from eventwright.runs.errors import EventwrightError, NoDatabase, Trouble

Answer = TypeVar("Answer")
Work = Callable[[sa.Connection], Answer]
Clock = Callable[[], datetime]

#: Connections that read at the same time.
READERS = 4
#: Seconds to wait for a process that keeps SQLite's lock; then whoever waits is told.
LOCK_SECONDS = 10.0
#: Seconds after which a PostgreSQL that does not answer a new connection, or a statement, counts as away.
CONNECT_SECONDS, STATEMENT_SECONDS = 5.0, 10.0
#: Seconds for which its time is reckoned from what PostgreSQL said last.
HEARD_SECONDS = 60.0
#: Milliseconds after which PostgreSQL undoes a transaction in which nothing happens, whose batch is then tried again.
#: A process that is frozen, or whose loop is blocked, must not keep locks: its own heartbeats would wait for them.
LONGEST_SILENCE = 2000
#: Milliseconds that a transaction may take in all, on a PostgreSQL that can limit it (17 and later). Somebody who is
#: frozen after they asked for a statement to be prepared are not silent in the sense of the other limit.
LONGEST_TRANSACTION = 10_000
_LIMITED = """
    SELECT set_config('transaction_timeout', '{}', false) WHERE current_setting('server_version_num')::int >= 170000
"""


class Database(ABC):
    """One database, for one event loop. Made by `open_database`."""

    dialect: str

    def __init__(self, clock: Clock | None) -> None:
        self._clock = clock
        #: What the database last said the time is, and when that was on our own clock, which never jumps.
        self._heard: tuple[datetime, float] | None = None

    async def time(self) -> datetime:
        """The database's time."""
        return await self.read(self.now)

    async def recent_time(self) -> datetime:
        """The database's time, reckoned from when it was last heard. It is behind by what the answer took, then."""
        if self._clock is not None:
            return self._clock()
        if self._heard is None or time.monotonic() - self._heard[1] > HEARD_SECONDS:
            return self.told(await self.time())
        said, at = self._heard
        return said + timedelta(seconds=time.monotonic() - at)

    @abstractmethod
    async def read(self, work: Work[Answer]) -> Answer:
        """Run `work`, which only reads."""

    @abstractmethod
    async def write(self, work: Work[Answer]) -> Answer:
        """Run `work` in a transaction and commit it."""

    @abstractmethod
    async def close(self) -> None:
        """Let the work that has begun end, then close every connection."""

    def now(self, connection: sa.Connection) -> datetime:
        """The database's clock, which all its processes share; SQLite's is this machine's."""
        if self._clock is not None:
            return self._clock()
        if self.dialect == "sqlite":
            return datetime.now(UTC)
        now: datetime = connection.execute(_CLOCK).scalar_one()
        return now.astimezone(UTC)

    def told(self, now: datetime) -> datetime:
        """The time that a statement brought along; a clock that replaces the database's has the last word."""
        self._heard = now, time.monotonic()
        return now if self._clock is None else self._clock()


_CLOCK = sa.select(sa.func.clock_timestamp())


def compact_json(value: Any) -> str:
    """JSON text for a column: no spaces, no escapes for plain letters, no NaN."""
    return json.dumps(value, ensure_ascii=False, separators=(",", ":"), allow_nan=False)


@asynccontextmanager
async def open_database(
    url: str, *, clock: Clock | None = None, statement_seconds: float | None = STATEMENT_SECONDS
) -> AsyncIterator[Database]:
    """The database at `sqlite:///path` or `postgresql://…`, whatever driver the URL names.

    Args:
        url: where it is.
        clock: replaces the database's clock, for tests and simulations.
        statement_seconds: how long a statement may take on PostgreSQL; None for as long as it wants.

    Raises:
        NoDatabase: no address, or another kind of database.
    """
    try:
        parsed = sa.make_url(url)
    except sa.exc.ArgumentError:
        raise NoDatabase("the address of the database cannot be read") from None
    kind = parsed.drivername.partition("+")[0]
    database: Database
    if kind == "sqlite":
        database = _Sqlite(parsed.set(drivername="sqlite+pysqlite"), clock)
    elif kind in ("postgresql", "postgres"):
        database = _Postgres(parsed.set(drivername="postgresql+asyncpg"), clock, statement_seconds)
    else:
        raise NoDatabase(f"Eventwright keeps its truth in sqlite or postgresql, and not in {kind!r}")
    try:
        yield database
    finally:
        await database.close()


class _Sqlite(Database):
    """One thread writes, so that no two writers of this process wait for each other's lock; a few threads read.

    A read is one statement, or several that need no common snapshot.
    """

    dialect = "sqlite"

    def __init__(self, url: sa.URL, clock: Clock | None) -> None:
        super().__init__(clock)
        self._writing = _sqlite_engine(url, connections=1)
        # The driver would begin late, and without the lock.
        sa.event.listen(self._writing, "begin", lambda connection: connection.exec_driver_sql("BEGIN IMMEDIATE"))
        self._reading = _sqlite_engine(url, connections=READERS)
        self._writer = ThreadPoolExecutor(1, thread_name_prefix="sqlite-writer")
        self._readers = ThreadPoolExecutor(READERS, thread_name_prefix="sqlite-reader")

    async def time(self) -> datetime:
        return datetime.now(UTC) if self._clock is None else self._clock()

    recent_time = time

    async def read(self, work: Work[Answer]) -> Answer:
        return await asyncio.get_running_loop().run_in_executor(self._readers, _on_connection, self._reading, work)

    async def write(self, work: Work[Answer]) -> Answer:
        return await asyncio.get_running_loop().run_in_executor(self._writer, _in_transaction, self._writing, work)

    async def close(self) -> None:
        for threads, engine in ((self._writer, self._writing), (self._readers, self._reading)):
            await asyncio.to_thread(threads.shutdown)
            engine.dispose()


def _on_connection(engine: sa.Engine, work: Work[Answer]) -> Answer:
    with engine.connect() as connection:
        return work(connection)


def _in_transaction(engine: sa.Engine, work: Work[Answer]) -> Answer:
    with engine.begin() as connection:
        return work(connection)


#: What statements carry stays out of errors, and so out of logs: it is people's data.
_ENGINE: dict[str, Any] = {"json_serializer": compact_json, "max_overflow": 0, "hide_parameters": True}


def _sqlite_engine(url: sa.URL, *, connections: int) -> sa.Engine:
    engine = sa.create_engine(url, pool_size=connections, **_ENGINE)
    sa.event.listen(engine, "connect", _sqlite_settings)
    return engine


def _sqlite_settings(connection: Any, _record: Any) -> None:
    connection.isolation_level = None
    cursor = connection.cursor()
    patience = f"busy_timeout={LOCK_SECONDS * 1000:.0f}"
    for pragma in (patience, "journal_mode=WAL", "synchronous=FULL", "temp_store=MEMORY"):
        cursor.execute(f"PRAGMA {pragma}")
    cursor.close()


class _Postgres(Database):
    """One connection writes, a few read. A read is one statement, or several that need no common snapshot."""

    dialect = "postgresql"

    def __init__(self, url: sa.URL, clock: Clock | None, statement_seconds: float | None) -> None:
        super().__init__(clock)
        patience: dict[str, Any] = {"timeout": CONNECT_SECONDS, "command_timeout": statement_seconds}
        breaks = patience | {"server_settings": {"idle_in_transaction_session_timeout": str(LONGEST_SILENCE)}}
        self._writing = create_async_engine(url, pool_size=1, connect_args=breaks, **_ENGINE)
        if statement_seconds is not None:
            sa.event.listen(self._writing.sync_engine, "connect", _limited)
        self._reading = create_async_engine(
            url, pool_size=READERS, isolation_level="AUTOCOMMIT", connect_args=patience, **_ENGINE
        )

    async def read(self, work: Work[Answer]) -> Answer:
        try:
            return await self._read(work)
        except sa.exc.DBAPIError as error:
            if not error.connection_invalidated:
                raise
            # The server ended the connection while it rested in the pool. Asking for it before every read costs more.
            return await self._read(work)

    async def _read(self, work: Work[Answer]) -> Answer:
        async with _connected(self._reading) as connection:
            return await connection.run_sync(work)

    async def write(self, work: Work[Answer]) -> Answer:
        async with _connected(self._writing) as connection, connection.begin():
            return await connection.run_sync(work)

    async def close(self) -> None:
        await self._writing.dispose()
        await self._reading.dispose()


def _limited(connection: Any, _record: Any) -> None:
    connection.run_async(lambda driver: driver.execute(_LIMITED.format(LONGEST_TRANSACTION)))


@asynccontextmanager
async def _connected(engine: AsyncEngine) -> AsyncIterator[AsyncConnection]:
    """A connection to PostgreSQL.

    Raises:
        ConnectionError: it was lost while it was being made.
    """
    from asyncpg import InterfaceError as DriverError
    from asyncpg import InternalClientError, PostgresError

    async with AsyncExitStack() as stack:
        try:
            connection = await stack.enter_async_context(engine.connect())
        except (DriverError, InternalClientError, PostgresError) as error:
            # What the driver says while a connection is readied comes through SQLAlchemy as it is.
            raise ConnectionError(f"the connection was lost while it was being made: {error}") from error
        yield connection


def is_away(error: Exception) -> bool:
    """Whether the database is to blame for the error, not what was asked of it: the same may work later."""
    if not isinstance(error, DBAPIError):
        # A refusal of ours may be an OSError as well: a PermissionError.
        return isinstance(error, OSError | sa.exc.TimeoutError) and not isinstance(error, EventwrightError)
    sqlstate = getattr(error.orig, "sqlstate", None)
    if sqlstate is not None:
        return sqlstate[:2] in _AWAY
    if getattr(error.orig, "sqlite_errorcode", None) == sqlite3.SQLITE_ERROR:
        return False  # the driver calls a statement that does not fit the schema "operational" as well
    # "Internal" without a code of the server is a driver that knows no more where it stands with it.
    return error.connection_invalidated or isinstance(error, OperationalError | InterfaceError | InternalError)


def is_no_database(error: Exception) -> bool:
    """Whether SQLite found something else in the file than a database, or one that is damaged."""
    code = getattr(getattr(error, "orig", None), "sqlite_errorcode", None)
    return code is not None and code & 0xFF in (sqlite3.SQLITE_NOTADB, sqlite3.SQLITE_CORRUPT)


def trouble_of(error: Exception) -> Trouble:
    """What keeps the database from serving, going by an error of which it is to blame."""
    origin = getattr(error, "orig", None)
    code = getattr(origin, "sqlite_errorcode", None)
    # The last byte is the kind, what stands before it says more of the place.
    found = _SQLITE.get(code & 0xFF) if code is not None else _SQLSTATE.get(getattr(origin, "sqlstate", None) or "")
    return found or Trouble.AWAY


_SQLITE = {
    sqlite3.SQLITE_FULL: Trouble.FULL,
    sqlite3.SQLITE_IOERR: Trouble.UNWRITABLE,
    sqlite3.SQLITE_READONLY: Trouble.UNWRITABLE,
    sqlite3.SQLITE_BUSY: Trouble.LOCKED,
    sqlite3.SQLITE_LOCKED: Trouble.LOCKED,
}
_SQLSTATE = {"53100": Trouble.FULL, "25006": Trouble.UNWRITABLE, "55P03": Trouble.LOCKED}
#: Classes of SQLSTATE: connection, read-only transaction, login, no such database, deadlock, resources, lock, operator,
#: system.
_AWAY = frozenset({"08", "25", "28", "3D", "40", "53", "55", "57", "58"})


def padded(values: Collection[str]) -> list[str]:
    """The values for an IN list, sorted, the last one repeated up to a power of two: the fewer lengths there are,
    the fewer statements the database has to prepare."""
    ordered = sorted(values)
    return ordered + ordered[-1:] * ((1 << (len(ordered) - 1).bit_length()) - len(ordered))
