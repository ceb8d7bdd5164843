"""The schema is upgraded under runs: those that an older release has left go on, and an older process does no harm."""

from __future__ import annotations

import asyncio
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import sqlalchemy as sa
from alembic import command
from tests.faults.theatre import ROOT

from eventwright.runs import migrate, schema
from eventwright.runs.database import open_database
from eventwright.runs.failpoints import Failpoint
from eventwright.runs.records import Decision, DecisionType, ReviewState
from eventwright.runs.states import RunState

EFFECTS = ("pay", "post", "shout")
SOAK = pytest.mark.soak
#: A test runs on the store where it has more to say; on the other one when there is time.
ON_SQLITE = pytest.mark.parametrize("database_url", ["sqlite", pytest.param("postgres", marks=SOAK)], indirect=True)
ON_POSTGRES = pytest.mark.parametrize("database_url", ["postgres", pytest.param("sqlite", marks=SOAK)], indirect=True)
#: A revision that nobody has written yet.
NEXT = "9999"


@pytest.mark.soak
@pytest.mark.parametrize("revision", ["0001", pytest.param("0002", marks=SOAK), pytest.param("0003", marks=SOAK)])
async def test_runs_that_an_older_release_left_waiting_or_in_the_middle_go_on_after_the_upgrade(
    service: Any, tmp_path: Path, database_url: str, revision: str
) -> None:
    armed = tmp_path / "armed"
    hurt = {"kill": Failpoint.LEDGER_ANSWERED, "armed": str(armed)}
    worker = await service.start(hurt=hurt, **service.brisk)
    async with service.app(**service.brisk) as app:
        waiting = await service.send(app, "asking", 2, seconds=0.0)
        talking = await service.send(app, "conversing", 2, seconds=0.0)
        await service.eventually(lambda: asked(app, waiting + talking))
        broken = await service.send(app, "chores", 3, seconds=0.2)
        await service.eventually(lambda: len(service.ledger("pay")) == 3)
        armed.touch()
        assert await worker.wait() == -9
        fresh = await service.send(app, "chores", 2)
    await be_of(database_url, revision)
    assert await migrate.current(database_url) == revision

    upgraded = await eventwright(service, "db", "upgrade")
    assert upgraded.returncode == 0, upgraded.stderr
    assert f"newest revision, {migrate.newest()}" in upgraded.stdout
    async with service.working(**service.brisk) as app:
        for review in await app.store.reviews(state=ReviewState.OPEN, limit=100):
            said = DecisionType.APPROVE if review.run_id in waiting else DecisionType.RESPOND
            await app.engine.decide(review.id, Decision(type=said, by="ann", response=None))
        await service.eventually(lambda: asked(app, talking))
        for review in await app.store.reviews(state=ReviewState.OPEN, run_ids=talking):
            await app.engine.decide(review.id, Decision(type=DecisionType.RESPOND, by="ann", response="yes"))
        runs = await service.final(app, waiting + talking + broken + fresh)
    assert {run.state for run in runs} == {RunState.COMPLETED}
    assert service.ledger("pay") == dict.fromkeys(waiting + talking + broken + fresh, 1)
    assert service.ledger("post") == dict.fromkeys(broken + fresh, 1)
    assert service.ledger("shout") == dict.fromkeys(talking + broken + fresh, 1)


@ON_POSTGRES
async def test_a_worker_that_is_at_work_while_a_newer_release_adds_to_the_schema_goes_on(
    service: Any, database_url: str
) -> None:
    worker = await service.start(**service.brisk)
    async with service.app(**service.brisk) as app:
        ids = await service.send(app, "chores", 10, seconds=0.3)
        await service.eventually(lambda: len(service.ledger("doze")) >= 5)
        await be_newer(database_url)
        ids += await service.send(app, "chores", 5)
        assert {run.state for run in await service.final(app, ids)} == {RunState.COMPLETED}
    for what in EFFECTS:
        assert service.ledger(what) == dict.fromkeys(ids, 1), what
    worker.terminate()
    assert await worker.wait() == 0


async def test_a_process_that_is_older_than_the_schema_does_not_start_and_says_why(
    service: Any, database_url: str
) -> None:
    await be_newer(database_url)
    refused = await eventwright(service, "worker", "--burst")
    assert refused.returncode == 1
    assert f"at revision '{NEXT}', which this code does not know" in " ".join(refused.stderr.split())
    assert await migrate.current(database_url) == NEXT


async def be_of(database_url: str, revision: str) -> None:
    """Let the database be as an older release has left it."""
    async with open_database(database_url) as database:
        await database.write(lambda connection: command.downgrade(migrate._config(connection), revision))


async def be_newer(database_url: str) -> None:
    """Let a newer release have added to every table, and a table."""

    def add(connection: sa.Connection) -> None:
        for table in schema.metadata.sorted_tables:
            connection.execute(sa.text(f"ALTER TABLE {table.name} ADD COLUMN later INTEGER DEFAULT 1 NOT NULL"))
        connection.execute(sa.text("CREATE TABLE later (id INTEGER PRIMARY KEY)"))
        connection.execute(sa.text("UPDATE alembic_version SET version_num = :next"), {"next": NEXT})

    async with open_database(database_url) as database:
        await database.write(add)


async def eventwright(service: Any, *words: str) -> subprocess.CompletedProcess[str]:
    """The program itself, on the service's database."""
    environment = service.environment(workflows="tests.faults.chores")
    program = (sys.executable, "-m", "eventwright.app.cli", *words)
    return await asyncio.to_thread(
        subprocess.run, program, cwd=ROOT, env=environment, capture_output=True, text=True, check=False
    )


async def asked(app: Any, run_ids: list[str]) -> bool:
    """Whether each of these runs asks somebody."""
    open_ones = await app.store.reviews(state=ReviewState.OPEN, run_ids=run_ids)
    return {review.run_id for review in open_ones} == set(run_ids)
