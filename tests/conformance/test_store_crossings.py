"""Transactions of two processes that cross: PostgreSQL lets both begin, and what they say in the end is one story.

On SQLite one writes after the other.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from datetime import timedelta

import pytest
import sqlalchemy as sa
from tests.conformance.world import NOW, Clock, begin, event

from eventwright.runs.batch import Batch
from eventwright.runs.database import open_database
from eventwright.runs.errors import DuplicateEvent
from eventwright.runs.event import new_id
from eventwright.runs.late import Late, NotLate
from eventwright.runs.records import EventState, Run
from eventwright.runs.store import Store
from eventwright.runs.transaction import Transaction
from eventwright.runs.waits import Wait, waits_of

WEEK = timedelta(days=7).total_seconds()


def a_wait(run: Run, key: str) -> Wait:
    return Wait(
        id=new_id("wait"), run_id=run.id, workflow=run.workflow, node="n", visit=1, number=0, types=("paid",), key=key
    )


@pytest.mark.parametrize("first", ["waits", "deletes"])
async def test_what_a_run_begins_to_wait_for_in_the_moment_of_its_deletion_is_either_its_answer_or_gone(
    postgres_url: str, clock: Clock, first: str
) -> None:
    """Two processes, of which one is held up before it commits. (On SQLite one writes after the other anyway.)"""
    sent = event("paid", type="paid", received_at=NOW)
    async with Store.open(postgres_url, clock=clock) as one, Store.open(postgres_url, clock=clock) as two:
        run = await begin(one)
        async with one.write() as tx:
            tx.add_event(sent, EventState.ACCEPTED)
            tx.tell(sent, workflow=run.workflow, key="7", starts=False)
        wait = a_wait(run, "7")
        clock.pass_seconds(2 * WEEK)

        def waits(store: Store) -> Transaction:
            tx = store.transaction()
            tx.settle_waits(run, [wait], (), actor="worker")
            return tx

        def deletes(store: Store) -> Transaction:
            tx = store.transaction()
            tx.expire_events([sent.uid], before=NOW + timedelta(days=7))
            return tx

        earlier, later = (waits, deletes) if first == "waits" else (deletes, waits)
        async with held_up(postgres_url) as hold:
            begun, after = earlier(one), later(two)
            begun.unit.steps.append(hold)
            writing = [one.committer.post(begun.unit)]
            await waiting_for_locks(postgres_url, 1)
            writing.append(two.committer.post(after.unit))
            await waiting_for_locks(postgres_url, 2)
        await asyncio.gather(*writing)

        (settled,) = await waits_of(one, run.id)
        kept = (await one.event(sent.uid)).event.data is not None
    assert (settled.event is not None) == kept == (first == "waits")


async def test_two_that_wait_for_each_other_are_both_written(postgres_url: str, clock: Clock) -> None:
    """One process opens waits for two events, the other sees in the other order that these have come too late."""
    async with Store.open(postgres_url, clock=clock) as one, Store.open(postgres_url, clock=clock) as two:
        ended, *runs = [await begin(one) for _ in range(3)]
        sent = [event(key, type="paid") for key in ("1", "2")]
        async with one.write() as tx:
            tx.settle_waits(ended, [a_wait(ended, each.id) for each in sent], (), actor="worker")
            tx.cancel(ended.id, by="ann")
        for each in sent:
            async with one.write() as tx:
                tx.add_event(each, EventState.ACCEPTED)
                tx.tell(each, workflow="test", key=each.id, starts=False)
        late = [Late(event_uid=each.uid, workflow="test", type="paid", key=each.id, run_id=ended.id) for each in sent]

        async with held_up(postgres_url) as hold:
            opens = [one.transaction() for _ in runs]
            for tx, run, each in zip(opens, runs, sent, strict=True):
                tx.settle_waits(run, [a_wait(run, each.id)], (), actor="worker")
            opens[0].unit.steps.append(hold)
            opening = [one.committer.post(tx.unit) for tx in opens]
            await waiting_for_locks(postgres_url, 1)
            leaves = [two.transaction() for _ in late]
            for tx, each_late in zip(leaves, late, strict=True):
                tx.leave_late(each_late, given={})
            leaving = [two.committer.post(tx.unit) for tx in reversed(leaves)]
            await waiting_for_locks(postgres_url, 2)
        await asyncio.gather(*opening)
        left = await asyncio.gather(*reversed(leaving), return_exceptions=True)

        for run, outcome in zip(runs, left, strict=True):
            (wait,) = await waits_of(one, run.id)
            assert (wait.event is not None) == isinstance(outcome, NotLate), (wait, outcome)


async def test_what_two_people_replay_at_once_is_taken_in_once(postgres_url: str, clock: Clock) -> None:
    async with Store.open(postgres_url, clock=clock) as one, Store.open(postgres_url, clock=clock) as two:
        refused = event("refused")
        async with one.write() as tx:
            tx.add_event(refused, EventState.REFUSED, {"title": "InvalidPayload"})
        async with held_up(postgres_url) as hold:
            mine, theirs = one.transaction(), two.transaction()
            for tx in (mine, theirs):
                tx.accept_event(refused)
            mine.unit.steps.append(hold)
            replaying = [one.committer.post(mine.unit)]
            await waiting_for_locks(postgres_url, 1)
            replaying.append(two.committer.post(theirs.unit))
            await waiting_for_locks(postgres_url, 2)
        outcomes = await asyncio.gather(*replaying, return_exceptions=True)
    assert [type(outcome) for outcome in outcomes] == [type(None), DuplicateEvent]


@asynccontextmanager
async def held_up(url: str) -> AsyncIterator[Callable[[Batch], object]]:
    """A step at which a transaction waits while this is open."""
    async with open_database(url) as database, asyncio.TaskGroup() as tasks:
        opened, close = asyncio.Event(), asyncio.Event()

        async def keep() -> None:
            async with database._reading.connect() as connection:  # type: ignore[attr-defined]
                await connection.execute(sa.text("SELECT pg_advisory_lock(1)"))
                opened.set()
                await close.wait()
                await connection.execute(sa.text("SELECT pg_advisory_unlock(1)"))

        tasks.create_task(keep())
        await opened.wait()
        try:
            yield lambda batch: batch.execute(sa.text("SELECT pg_advisory_xact_lock(1)"))
        finally:
            close.set()


async def waiting_for_locks(url: str, count: int) -> None:
    query = "SELECT count(*) FROM pg_stat_activity WHERE datname = current_database() AND wait_event_type = 'Lock'"
    async with open_database(url) as database:
        while await database.read(lambda connection: connection.execute(sa.text(query)).scalar_one()) < count:
            await asyncio.sleep(0.01)
