"""The schema's way up: Alembic in one transaction under a lock, so that any number of processes may start at once."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from importlib.resources import files

import sqlalchemy as sa
from alembic import command
from alembic.config import Config
from alembic.runtime.migration import MigrationContext
from alembic.script import ScriptDirectory
from sqlalchemy.ext.asyncio import AsyncConnection

from eventwright.runs.errors import SchemaOutdated
from eventwright.runs.store import create_engine

#: Any number that is ours; PostgreSQL's advisory locks are named by numbers.
LOCK = 7_305_118_226


def _config(connection: sa.Connection) -> Config:
    config = Config()
    config.set_main_option("script_location", str(files("eventwright.runs") / "migrations"))
    config.attributes["connection"] = connection
    return config


def newest() -> str:
    """The revision that this code wants."""
    config = Config()
    config.set_main_option("script_location", str(files("eventwright.runs") / "migrations"))
    head = ScriptDirectory.from_config(config).get_current_head()
    if head is None:
        raise LookupError("the package holds no migrations; it was built without eventwright/runs/migrations")
    return head


@asynccontextmanager
async def _locked(url: str) -> AsyncIterator[AsyncConnection]:
    engine = create_engine(url, readers=1)
    try:
        async with engine.connect() as connection:
            # On SQLite the writing transaction itself is the lock: the next process waits until it ends.
            await connection.execution_options(eventwright_writer=True)
            async with connection.begin():
                if connection.dialect.name == "postgresql":
                    await connection.execute(sa.select(sa.func.pg_advisory_xact_lock(LOCK)))
                yield connection
    finally:
        await engine.dispose()


async def upgrade(url: str) -> None:
    """Bring the database to the newest revision. Safe to call from many processes at once; does nothing if it is there."""

    def run(connection: sa.Connection) -> None:
        if MigrationContext.configure(connection).get_current_revision() != newest():
            command.upgrade(_config(connection), "head")

    async with _locked(url) as connection:
        await connection.run_sync(run)


async def current(url: str) -> str | None:
    """The revision the database is at; None for an empty one."""
    read: Callable[[sa.Connection], str | None] = lambda c: MigrationContext.configure(c).get_current_revision()  # noqa: E731
    engine = create_engine(url, readers=1)
    try:
        async with engine.connect() as connection:
            return await connection.run_sync(read)
    finally:
        await engine.dispose()


async def check(url: str) -> None:
    """Raises SchemaOutdated if the database is not at the newest revision."""
    found = await current(url)
    if found != newest():
        raise SchemaOutdated(found, newest())
