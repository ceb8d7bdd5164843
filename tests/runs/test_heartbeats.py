"""A run stays with the worker that is really at work on it, and with nobody else."""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import AsyncIterator
from datetime import timedelta

import pytest
import sqlalchemy as sa
from sqlalchemy.exc import ProgrammingError

from eventwright.runs.database import open_database
from eventwright.runs.event import Event, new_id
from eventwright.runs.heartbeats import heartbeats
from eventwright.runs.records import EventState, Lease, Run
from eventwright.runs.states import RunState
from eventwright.runs.store import Store


@pytest.fixture
async def store(database_url: str) -> AsyncIterator[Store]:
    async with Store.open(database_url) as store:
        yield store


async def leased(store: Store, worker: str = "worker", *, seconds: float = 60.0) -> Lease:
    """The lease of a new run."""
    now = await store.now()
    event = Event(id=new_id("event"), source="/test", type="test", data={})
    times = {"created_at": now, "updated_at": now, "due_at": now}
    run = Run(
        id=new_id("run"), workflow="test", version="1", state=RunState.RECEIVED, lane="default", event=event, **times
    )
    async with store.write() as tx:
        tx.add_event(event, EventState.ACCEPTED)
        tx.add_run(run)
    async with store.write() as tx:
        claim = tx.claim(run.id, worker=worker, seconds=seconds)
    assert claim.lease is not None
    return claim.lease


async def renewed(store: Store, lease: Lease) -> None:
    """Wait for a beat."""
    before = (await store.run(lease.run_id)).due_at
    while (await store.run(lease.run_id)).due_at == before:
        await asyncio.sleep(0.01)


class TestWhatStopsTheHeart:
    async def test_a_database_that_breaks_the_connection_is_tried_again(
        self, postgres_url: str, caplog: pytest.LogCaptureFixture
    ) -> None:
        async with Store.open(postgres_url) as store:
            lease = await leased(store)
            async with heartbeats(postgres_url, "worker", [lease.run_id], every=0.05, lease_seconds=60):
                await renewed(store, lease)
                async with open_database(postgres_url) as other:
                    await other.read(_break_all_other_connections)
                while "heartbeat of worker failed" not in caplog.text:
                    await asyncio.sleep(0.01)
                await renewed(store, lease)

    async def test_another_fault_ends_the_worker_instead_of_letting_its_leases_run_out(
        self, empty_postgres_url: str
    ) -> None:
        with pytest.raises(ProgrammingError, match="runs"):
            async with heartbeats(empty_postgres_url, "worker", ["run"], every=0.01, lease_seconds=60):
                await asyncio.Event().wait()

    async def test_leaving_stops_it_at_once_and_leaves_no_thread(self, sqlite_url: str) -> None:
        before = threading.active_count()
        async with heartbeats(sqlite_url, "worker", [], every=1000, lease_seconds=6000):
            assert threading.active_count() > before
        assert not [thread for thread in threading.enumerate() if thread.name.startswith("heartbeats")]

    async def test_an_error_inside_comes_out_as_it_is(self, sqlite_url: str) -> None:
        with pytest.raises(ZeroDivisionError):
            async with heartbeats(sqlite_url, "worker", [], every=1000, lease_seconds=6000):
                raise ZeroDivisionError


class TestWhoKeepsALease:
    async def test_a_run_that_was_given_up_is_not_kept_while_its_neighbour_is(
        self, store: Store, database_url: str
    ) -> None:
        kept, given_up = await leased(store), await leased(store)
        held = {kept.run_id: None, given_up.run_id: None}
        async with heartbeats(database_url, "worker", held, every=0.05, lease_seconds=60):
            await renewed(store, given_up)
            del held[given_up.run_id]
            await renewed(store, kept)
            before = (await store.run(given_up.run_id)).due_at
            await renewed(store, kept)
            assert (await store.run(given_up.run_id)).due_at == before

    async def test_a_run_that_another_worker_took_over_is_left_to_it(self, store: Store, database_url: str) -> None:
        kept, lost = await leased(store), await leased(store, seconds=0.0)
        async with store.write() as tx:
            tx.claim(lost.run_id, worker="heir", seconds=30)
        before = await store.run(lost.run_id)
        async with heartbeats(database_url, "worker", [kept.run_id, lost.run_id], every=0.05, lease_seconds=60):
            await renewed(store, kept)
            await renewed(store, kept)
        assert await store.run(lost.run_id) == before

    async def test_a_worker_without_runs_writes_nothing(self, sqlite_url: str) -> None:
        async with open_database(sqlite_url) as database:
            before = await database.read(lambda connection: connection.scalar(sa.text("PRAGMA data_version")))
            async with heartbeats(sqlite_url, "worker", [], every=0.01, lease_seconds=60):
                await asyncio.sleep(0.2)
            assert await database.read(lambda c: c.scalar(sa.text("PRAGMA data_version"))) == before

    async def test_a_loop_that_is_blocked_in_the_middle_of_a_transaction_loses_no_lease(
        self, postgres_url: str
    ) -> None:
        # SQLite's transactions have a thread of their own; PostgreSQL's keep their locks while the loop is blocked.
        async with Store.open(postgres_url) as store:
            leases = [await leased(store, seconds=4) for _ in range(5)]
            watched = asyncio.create_task(asyncio.to_thread(asyncio.run, least_left(postgres_url, seconds=6)))
            held = [lease.run_id for lease in leases]
            async with heartbeats(postgres_url, "worker", held, every=1, lease_seconds=4):
                await asyncio.sleep(0.5)
                transaction = store.transaction(leases[0])
                transaction.note(leases[0].run_id, actor="test", data={})
                blocks = [4.5]
                transaction.unit.steps.append(lambda _: time.sleep(blocks.pop()) if blocks else None)
                await store.committer.post(transaction.unit)
                assert await watched > timedelta(0)
            assert len(await store.journal(leases[0].run_id)) == 3


async def least_left(url: str, *, seconds: float) -> timedelta:
    """How close any run came to the end of its lease, watched for so long."""
    least, end = timedelta(days=1), time.monotonic() + seconds
    async with Store.open(url) as store:
        while time.monotonic() < end:
            now = await store.now()
            least = min(least, *(run.due_at - now for run in await store.runs() if run.due_at))
            await asyncio.sleep(0.05)
    return least


def _break_all_other_connections(connection: sa.Connection) -> None:
    connection.execute(
        sa.text(
            "SELECT pg_terminate_backend(pid) FROM pg_stat_activity "
            "WHERE datname = current_database() AND pid <> pg_backend_pid()"
        )
    )

    async def test_any_number_of_runs_is_renewed_in_one_statement(self, store: Store, database_url: str) -> None:
        leases = [await leased(store) for _ in range(40)]
        async with heartbeats(database_url, "worker", [lease.run_id for lease in leases], every=0.2, lease_seconds=90):
            await renewed(store, leases[0])
        ends = {(await store.run(lease.run_id)).due_at for lease in leases}
        assert len(ends) == 1
