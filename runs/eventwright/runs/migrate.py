"""The schema's way up: Alembic in one transaction under a lock, so that any number of processes may start at once."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from importlib.resources import files

import sqlalchemy as sa
from alembic import command
from alembic.config import Config
from alembic.runtime.migration import MigrationContext
from alembic.script import ScriptDirectory

from eventwright.runs.database import is_away, is_no_database, open_database, trouble_of
from eventwright.runs.errors import NoDatabase, SchemaNewer, SchemaOutdated, StoreUnavailable

#: Any number that is ours; PostgreSQL's advisory locks are named by numbers.
LOCK = 7_305_118_226


def _config(connection: sa.Connection) -> Config:
    config = Config()
    config.set_main_option("script_location", str(files("eventwright.runs") / "migrations"))
    config.attributes["connection"] = connection
    return config


def _migrations() -> ScriptDirectory:
    config = Config()
    config.set_main_option("script_location", str(files("eventwright.runs") / "migrations"))
    return ScriptDirectory.from_config(config)


def newest() -> str:
    """The revision that this code wants."""
    head = _migrations().get_current_head()
    if head is None:
        raise LookupError("the package holds no migrations; it was built without eventwright/runs/migrations")
    return head


def _refuse_newer(found: str | None) -> None:
    """Raises SchemaNewer if no migration here leads to this revision."""
    if found is not None and found not in {script.revision for script in _migrations().walk_revisions()}:
        raise SchemaNewer(found, newest())


async def upgrade(url: str) -> None:
    """Bring the database to the newest revision. Many processes may call it at once; does nothing if it is there.

    Raises:
        SchemaNewer: it is at a revision of a newer release.
        StoreUnavailable: the database did not answer.
    """

    def run(connection: sa.Connection) -> None:
        # On SQLite the writing transaction itself is the lock: the next process waits until it ends.
        if connection.dialect.name == "postgresql":
            connection.execute(sa.select(sa.func.pg_advisory_xact_lock(LOCK)))
        found = _revision(connection)
        if found != newest():
            _refuse_newer(found)
            command.upgrade(_config(connection), "head")

    # A migration takes as long as it takes, and so does waiting for another process that migrates.
    async with open_database(url, statement_seconds=None) as database:
        with _away_as_unavailable():
            await database.write(run)


async def current(url: str) -> str | None:
    """The revision the database is at; None for an empty one. Raises StoreUnavailable."""
    async with open_database(url) as database:
        with _away_as_unavailable():
            return await database.read(_revision)


@contextmanager
def _away_as_unavailable() -> Iterator[None]:
    try:
        yield
    except Exception as error:
        if is_no_database(error):
            raise NoDatabase("the file of the database holds no SQLite database, or a damaged one") from error
        if not is_away(error):
            raise
        raise StoreUnavailable(f"the database did not answer: {error}", trouble=trouble_of(error)) from error


def _revision(connection: sa.Connection) -> str | None:
    return MigrationContext.configure(connection).get_current_revision()


async def check(url: str) -> None:
    """Raises SchemaOutdated or SchemaNewer if the database is not at the newest revision."""
    found = await current(url)
    if found != newest():
        _refuse_newer(found)
        raise SchemaOutdated(found, newest())
