"""Migrations: any number of processes may start at once, and the tables are what the schema says."""

from __future__ import annotations

import subprocess
import sys

import pytest
import sqlalchemy as sa
from alembic import command
from alembic.autogenerate import compare_metadata
from alembic.runtime.migration import MigrationContext

from eventwright.runs import migrate, schema
from eventwright.runs.database import open_database
from eventwright.runs.errors import SchemaNewer, SchemaOutdated
from eventwright.runs.transaction import Transaction  # noqa: F401 - brings all tables, some stand with their verbs

UPGRADE = "import asyncio, sys; from eventwright.runs.migrate import upgrade; asyncio.run(upgrade(sys.argv[1]))"


async def test_a_database_without_a_schema_is_refused_with_the_way_out(empty_database_url: str) -> None:
    with pytest.raises(SchemaOutdated, match="eventwright db upgrade") as refused:
        await migrate.check(empty_database_url)
    assert refused.value.found is None


async def test_a_database_of_a_newer_release_is_refused_and_left_alone(empty_database_url: str) -> None:
    await migrate.upgrade(empty_database_url)
    async with open_database(empty_database_url) as database:
        await database.write(
            lambda connection: connection.execute(sa.text("UPDATE alembic_version SET version_num='x'"))
        )
    for refused in (migrate.check, migrate.upgrade):
        with pytest.raises(SchemaNewer, match="'x'"):
            await refused(empty_database_url)
    assert await migrate.current(empty_database_url) == "x"


async def test_a_database_of_an_older_release_is_refused_until_it_is_upgraded(empty_database_url: str) -> None:
    async with open_database(empty_database_url) as database:
        await database.write(lambda connection: command.upgrade(migrate._config(connection), "0001"))
    with pytest.raises(SchemaOutdated, match="'0001'"):
        await migrate.check(empty_database_url)
    await migrate.upgrade(empty_database_url)
    await migrate.check(empty_database_url)


async def test_another_kind_of_database_is_refused_by_name() -> None:
    with pytest.raises(ValueError, match="'mysql'"):
        await migrate.upgrade("mysql://localhost/x")


def test_many_processes_may_upgrade_an_empty_database_at_once(empty_database_url: str) -> None:
    processes = [
        subprocess.Popen([sys.executable, "-c", UPGRADE, empty_database_url], stderr=subprocess.PIPE) for _ in range(6)
    ]
    errors = [process.communicate()[1].decode() for process in processes]

    assert [process.returncode for process in processes] == [0] * 6, errors


async def test_a_review_of_the_first_release_is_for_one_person_whoever_it_is(empty_database_url: str) -> None:
    def first_release(connection: sa.Connection) -> None:
        command.upgrade(migrate._config(connection), "0001")
        old = dict.fromkeys(("id", "run_id", "workflow", "node", "kind", "question", "digest", "state"), "x")
        old |= {"allowed": "[]", "evidence": "{}", "created_at": "2026-01-01T00:00:00+00:00"}
        columns = ", ".join(old)
        values = ", ".join(f"'{value}'" for value in old.values())
        connection.execute(sa.text(f"INSERT INTO reviews ({columns}) VALUES ({values})"))  # noqa: S608 - its own

    async with open_database(empty_database_url) as database:
        await database.write(first_release)
        await migrate.upgrade(empty_database_url)
        query = sa.select(schema.reviews.c.people, schema.reviews.c.approvers, schema.reviews.c.barred)
        assert await database.read(lambda connection: connection.execute(query).all()) == [(1, None, None)]


async def test_upgrading_again_changes_nothing(database_url: str) -> None:
    await migrate.upgrade(database_url)
    await migrate.upgrade(database_url)
    await migrate.check(database_url)
    assert await migrate.current(database_url) == migrate.newest()


async def test_the_migrated_tables_are_those_of_the_schema(database_url: str) -> None:
    def differences(connection: sa.Connection) -> list[object]:
        context = MigrationContext.configure(connection, opts={"compare_type": True, "compare_server_default": True})
        found: list[object] = compare_metadata(context, schema.metadata)
        return found

    async with open_database(database_url) as database:
        assert await database.read(differences) == []


async def test_a_migration_that_fails_leaves_nothing_behind(empty_database_url: str) -> None:
    """A table that is in the way makes the migration fail: it must not stop half-way."""
    async with open_database(empty_database_url) as database:
        await database.write(lambda connection: connection.execute(sa.text("CREATE TABLE wakeups (id INTEGER)")))
        with pytest.raises(sa.exc.DBAPIError):
            await migrate.upgrade(empty_database_url)
        tables = await database.read(lambda connection: sa.inspect(connection).get_table_names())
    assert tables == ["wakeups"]
