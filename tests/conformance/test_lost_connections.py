"""A line to PostgreSQL that breaks at the worst moment: what was committed is not done again, and nobody dies of it."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass
from datetime import timedelta
from typing import Any

import pytest
import sqlalchemy as sa
from tests.conformance.world import assert_unbroken, begin, leased
from tests.loopback import on_loopback

from eventwright.runs import database, schema
from eventwright.runs.commits import commits
from eventwright.runs.errors import StoreUnavailable
from eventwright.runs.records import JournalEntry, JournalKind
from eventwright.runs.retention import Keep, remove_some
from eventwright.runs.states import Outcome, RunState
from eventwright.runs.store import Store

#: What a server says before it ends a session; that it hung up is heard later.
LAST_WORDS = b"SFATAL\0VFATAL\0C25P03\0Mterminating connection\0\0"


@dataclass
class Line:
    """The line between a store and its PostgreSQL."""

    url: str
    #: So many answers to COMMIT will not arrive.
    loses: int = 0
    #: The session is ended behind the next answer to this.
    ends_after: bytes | None = None

    async def pass_on(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """Let a client talk to the server."""
        answers, questions = await asyncio.open_unix_connection(self.url)
        lost = ends = False

        async def ask() -> None:
            nonlocal lost, ends
            while chunk := await reader.read(65536):
                if self.ends_after and self.ends_after in chunk:
                    self.ends_after, ends = None, True
                if self.loses and b"COMMIT" in chunk:
                    self.loses, lost = self.loses - 1, True
                questions.write(chunk)
            questions.close()

        async def answer() -> None:
            while (chunk := await answers.read(65536)) and not lost:
                last = b"E" + (len(LAST_WORDS) + 4).to_bytes(4, "big") + LAST_WORDS if ends else b""
                writer.write(chunk + last)
                if last:
                    return
            writer.close()

        await asyncio.gather(ask(), answer())


@asynccontextmanager
async def through_a_line(url: str) -> AsyncIterator[tuple[Line, str]]:
    """A line, and the address at its end."""
    parsed = sa.make_url(url)
    line = Line(f"{parsed.query['host']}/.s.PGSQL.5432")
    async with on_loopback(line.pass_on) as port:
        yield line, parsed.set(host="127.0.0.1", port=port, query={}).render_as_string(hide_password=False)


def hang_up(connection: Any, _record: object) -> None:
    """The server is gone, and the driver knows it already when SQLAlchemy readies the new connection for itself."""
    connection.driver_connection.terminate()


async def test_a_connection_that_is_lost_while_it_is_made_is_a_database_that_is_away(postgres_url: str) -> None:
    """What the driver says then comes through as it is, and is not of the kind that every other trouble is."""
    async with Store.open(postgres_url) as store:
        engines = [store._database._reading.sync_engine, store._database._writing.sync_engine]  # type: ignore[attr-defined]
        for engine in engines:
            sa.event.listen(engine, "connect", hang_up, insert=True)
        with pytest.raises(StoreUnavailable):
            await store.now()
        with pytest.raises(StoreUnavailable):
            await begin(store)
        for engine in engines:
            sa.event.remove(engine, "connect", hang_up)
        await begin(store)
        await store.now()


@pytest.mark.parametrize(
    "statement", ["pg_catalog.version", "transaction isolation level", "standard_conforming_strings", "set_config"]
)
async def test_a_session_that_ends_while_it_is_made_is_a_database_that_is_away(
    postgres_url: str, statement: str
) -> None:
    """The driver has the server's last words before it hears that it hung up, and knows no more where it stands."""
    async with through_a_line(postgres_url) as (line, url), Store.open(url) as store:
        line.ends_after = statement.encode()
        with suppress(StoreUnavailable):  # or it was done on another connection
            await begin(store)
        assert line.ends_after is None
        await begin(store)


async def test_a_session_that_ends_between_two_statements_is_not_used_again(postgres_url: str) -> None:
    async with through_a_line(postgres_url) as (line, url), Store.open(url) as store:
        line.ends_after = b"INSERT INTO journal"
        run = await begin(store)
        assert line.ends_after is None
        for number in range(database.READERS + 1):
            line.ends_after = b"'said %d'" % number
            await store.rows_of(sa.select(sa.literal_column(f"'said {number}'").label("said")))
            assert line.ends_after is None
        assert len(await store.journal(run.id)) == 1


async def test_what_was_committed_without_an_answer_is_not_written_again(postgres_url: str) -> None:
    async with through_a_line(postgres_url) as (line, url), Store.open(url) as store:
        line.loses = 1
        run = await begin(store)
        line.loses = 1
        lease = await leased(store, run.id)
        line.loses = 2
        async with store.write(lease) as tx:
            tx.note(run.id, actor="test", data={"text": "once"})
        line.loses = 1
        async with store.write(lease) as tx:
            tx.move(run.id, RunState.COMPLETED, actor="test", outcome=Outcome.AUTO)

        assert line.loses == 0
        ended = await store.run(run.id)
        assert (ended.state, ended.fence, ended.crashes) == (RunState.COMPLETED, 1, 0)
        journal = await store.journal(run.id)
        assert [entry.kind for entry in journal] == [
            JournalKind.TRANSITION,
            JournalKind.TRANSITION,
            JournalKind.NOTE,
            JournalKind.TRANSITION,
        ]
        assert_unbroken(journal)


async def test_each_of_those_who_write_at_once_has_an_answer_though_that_of_the_database_is_lost(
    postgres_url: str,
) -> None:
    async with through_a_line(postgres_url) as (line, url), Store.open(url) as store:
        line.loses = 3
        runs = await asyncio.gather(*(begin(store) for _ in range(20)))
        assert line.loses == 0
        assert len({run.id for run in runs}) == 20
        counted = await store.rows_of(sa.select(sa.func.count().label("n")).select_from(schema.journal))
        assert counted[0]["n"] == 20


async def test_a_process_that_was_silent_for_long_writes_as_before(postgres_url: str) -> None:
    async with through_a_line(postgres_url) as (line, url), Store.open(url) as store:
        run = await begin(store)
        aged = sa.update(commits).values(at=await store.now() - timedelta(days=2))
        await store._database.write(lambda connection: connection.execute(aged).rowcount)
        await remove_some(store, Keep())
        assert len(await store.rows_of(sa.select(commits))) == 1, "whoever deletes writes its own number"

        line.loses = 1
        async with store.write() as tx:
            tx.note(run.id, actor="test", data={"text": "once"})
        notes: list[JournalEntry] = [entry for entry in await store.journal(run.id) if entry.kind is JournalKind.NOTE]
        assert len(notes) == 1


async def test_whoever_is_frozen_while_a_statement_is_prepared_keeps_the_others_out_for_a_while_and_not_for_good(
    postgres_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """PostgreSQL does not count them as silent then, and no limit but the one of the whole transaction holds."""
    monkeypatch.setattr(database, "LONGEST_SILENCE", 100)
    monkeypatch.setattr(database, "LONGEST_TRANSACTION", 1000)
    thawed = asyncio.Event()

    async def prepare_and_freeze(driver: Any) -> None:
        await driver.prepare("SELECT 'for the first time'")
        locked.set()
        await thawed.wait()

    async with Store.open(postgres_url) as store, Store.open(postgres_url) as other:
        run, locked = await begin(store), asyncio.Event()

        def write(connection: sa.Connection) -> None:
            connection.execute(sa.update(schema.runs).values(lane="never"))
            adapted: Any = connection.connection.dbapi_connection
            adapted.run_async(prepare_and_freeze)

        frozen = asyncio.create_task(store._database.write(write))
        await locked.wait()
        async with other.write() as tx:
            tx.make_due(run.id)
            tx.wake(run.id, lane="usual")
        thawed.set()
        with pytest.raises(sa.exc.DBAPIError):
            await frozen
        assert (await other.run(run.id)).lane == run.lane
        await begin(store)
