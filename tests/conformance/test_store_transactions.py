"""Transactions of the store, fenced and committed in batches, on SQLite and on PostgreSQL alike. Refusals first."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest
from tests.conformance.world import NOW, Clock, assert_unbroken, begin, bells, event, leased, question

from eventwright.runs.errors import IllegalMove, LeaseLost, StoreUnavailable
from eventwright.runs.records import EventState, Lease, ReviewState, Run, Visit
from eventwright.runs.states import RunState
from eventwright.runs.store import Store


class TestFence:
    async def test_a_zombie_worker_writes_nothing(self, store: Store, other: Store, clock: Clock) -> None:
        run = await begin(store)
        zombie = await leased(store, run.id, worker="zombie")
        clock.pass_seconds(7)
        heir = await leased(other, run.id, worker="heir")

        async def write_late() -> None:
            async with store.write(zombie) as tx:
                tx.put_visit(Visit(run_id=run.id, node="n", visit=1, place="p"))
                tx.wake(run.id, lane="default")
                tx.move(run.id, RunState.COMPLETED, actor="zombie")

        with pytest.raises(LeaseLost) as lost:
            await write_late()

        assert (lost.value.fence, lost.value.current) == (zombie.fence, heir.fence)
        assert (await store.run(run.id)).worker == "heir"
        assert (await store.history(run.id)).visits == {}
        assert await bells(store) == []

    async def test_a_zombies_refusal_does_not_disturb_its_neighbours_in_the_batch(self, store: Store) -> None:
        mine, theirs = await begin(store), await begin(store)
        lease = await leased(store, mine.id)

        async def note(lease: Lease, run: Run) -> None:
            async with store.write(lease) as tx:
                tx.note(run.id, actor="test", data={})

        forged = Lease(theirs.id, 7, "zombie")
        answers = await asyncio.gather(
            note(lease, mine), note(forged, theirs), note(lease, mine), return_exceptions=True
        )

        assert [type(answer) for answer in answers] == [type(None), LeaseLost, type(None)]
        assert len(await store.journal(mine.id)) == 4
        assert len(await store.journal(theirs.id)) == 1


class TestBatches:
    @pytest.mark.parametrize("before", ["event", "rows", "journal", "nothing"])
    async def test_nothing_of_a_refused_unit_is_written_and_all_of_its_neighbours_is(
        self, store: Store, before: str
    ) -> None:
        runs = [await begin(store) for _ in range(8)]
        done = await begin(store, RunState.COMPLETED)
        bells_before = await bells(store)

        async def fine(run: Run) -> None:
            async with store.write() as tx:
                tx.put_visit(Visit(run_id=run.id, node="n", visit=1, place="p"))
                tx.note(run.id, actor="test", data={})

        async def refused() -> None:
            async with store.write() as tx:
                if before == "event":
                    tx.add_event(event("refused"), EventState.ACCEPTED)
                if before == "rows":
                    tx.put_visit(Visit(run_id=done.id, node="n", visit=1, place="p"))
                    tx.wake(done.id, lane="default")
                if before == "journal":
                    tx.note(done.id, actor="test", data={})
                tx.move(done.id, RunState.PROCESSING, actor="test")
                tx.open_review(question(done.id, deadline=NOW))

        answers = await asyncio.gather(*map(fine, runs[:4]), refused(), *map(fine, runs[4:]), return_exceptions=True)

        assert [type(answer) for answer in answers if answer is not None] == [IllegalMove]
        for run in runs:
            assert len((await store.history(run.id)).visits) == 1
            assert len(await store.journal(run.id)) == 2
        past = await store.history(done.id)
        assert (past.visits, past.reviews) == ({}, ())
        assert len(await store.journal(done.id)) == 1
        assert await store.accepted_event("/tests", "refused") is None
        assert await store.due_timers(limit=10) == []
        assert await bells(store) == bells_before

    @pytest.mark.parametrize("value", [float("nan"), 2**53, "half a pair \ud800"])
    async def test_what_is_not_json_is_refused_alone(self, store: Store, value: Any) -> None:
        good, bad = await begin(store), await begin(store)

        async def note(run: Run, value: Any) -> None:
            async with store.write() as tx:
                tx.note(run.id, actor="test", data={"value": value})

        answers = await asyncio.gather(note(good, 1), note(bad, value), note(good, 2), return_exceptions=True)

        assert [answer is None for answer in answers] == [True, False, True]
        assert isinstance(answers[1], ValueError)
        assert len(await store.journal(good.id)) == 3
        assert len(await store.journal(bad.id)) == 1

    async def test_the_verbs_of_one_transaction_happen_in_their_order(self, store: Store) -> None:
        run = await begin(store)
        old, new = question(run.id), question(run.id)
        async with store.write() as tx:
            tx.open_review(old)
            tx.close_reviews(run.id, ReviewState.SUPERSEDED)
            tx.open_review(new)
            tx.put_visit(Visit(run_id=run.id, node="n", visit=1, place="p", failures=3))
            tx.reset_failures(run.id)

        past = await store.history(run.id)

        assert [review.state for review in past.reviews] == [ReviewState.SUPERSEDED, ReviewState.OPEN]
        assert past.visits["p"].failures == 0

    async def test_closing_writes_what_waits(self, database_url: str) -> None:
        async with Store.open(database_url) as store:
            run = await begin(store)
            for _ in range(600):
                transaction = store.transaction()
                transaction.note(run.id, actor="test", data={})
                store.committer.post(transaction.unit)

        async with Store.open(database_url) as store:
            assert len(await store.journal(run.id)) == 601

    async def test_a_closed_store_says_so(self, database_url: str) -> None:
        async with Store.open(database_url) as store:
            run = await begin(store)
        with pytest.raises(StoreUnavailable, match="closed"):
            async with store.write() as tx:
                tx.note(run.id, actor="test", data={})

    async def test_callers_that_give_up_do_not_hurt_the_others(self, store: Store) -> None:
        run = await begin(store)

        async def note(number: int) -> None:
            async with store.write() as tx:
                tx.note(run.id, actor="test", data={"number": number})

        for _ in range(10):
            tasks = [asyncio.create_task(note(number)) for number in range(20)]
            await asyncio.sleep(0)
            for task in tasks[::2]:
                task.cancel()
            answers = await asyncio.gather(*tasks, return_exceptions=True)
            assert [answer for answer in answers[1::2] if answer is not None] == []

        entries = await store.journal(run.id)
        assert_unbroken(entries)
        assert sum(entry.data.get("number", 0) % 2 for entry in entries) == 100
