"""Runs in the store, how they move, are claimed and are listed, on SQLite and on PostgreSQL alike. Refusals first."""

from __future__ import annotations

import asyncio
from datetime import timedelta

import pytest
from tests.conformance.world import NOW, Clock, ask, begin, bells, claim, leased, question

from eventwright.runs.errors import IllegalMove, UnknownRun
from eventwright.runs.records import ReviewState
from eventwright.runs.states import FINAL, MOVES, Outcome, Reason, RunState
from eventwright.runs.store import Store


class TestMoves:
    async def test_every_move_outside_the_table_is_refused_and_every_move_in_it_is_made(self, store: Store) -> None:
        for origin in RunState:
            for target in RunState:
                run = await begin(store, origin)
                if target in MOVES[origin]:
                    async with store.write() as tx:
                        tx.move(run.id, target, actor="test")
                    assert (await store.run(run.id)).state is target
                else:
                    with pytest.raises(IllegalMove, match=f"is {origin} and cannot become {target}"):
                        async with store.write() as tx:
                            tx.move(run.id, target, actor="test")
                    assert (await store.run(run.id)).state is origin

    async def test_a_move_that_is_meant_from_one_state_is_refused_from_another(self, store: Store) -> None:
        run = await begin(store)
        lease = await leased(store, run.id)
        with pytest.raises(IllegalMove, match="is processing and cannot become received"):
            async with store.write() as tx:
                tx.move(run.id, RunState.RECEIVED, actor="test", only_from=RunState.FAILED)
        async with store.write(lease) as tx:
            tx.move(run.id, RunState.RECEIVED, actor="test", only_from=RunState.PROCESSING)

    async def test_a_run_that_nobody_knows_cannot_be_moved_claimed_or_written_about(self, store: Store) -> None:
        with pytest.raises(UnknownRun):
            async with store.write() as tx:
                tx.move("run_x", RunState.CANCELLED, actor="test")
        with pytest.raises(UnknownRun):
            await claim(store, "run_x")
        with pytest.raises(UnknownRun):
            async with store.write() as tx:
                tx.note("run_x", actor="test", data={})
        with pytest.raises(UnknownRun):
            await store.journal("run_x")

    async def test_a_move_and_its_journal_entry_are_written_together(self, store: Store) -> None:
        run = await begin(store)
        lease = await leased(store, run.id)
        async with store.write(lease) as tx:
            tx.move(run.id, RunState.COMPLETED, actor="engine", outcome=Outcome.AUTO, data={"why": "done"})

        done = await store.run(run.id)
        last = (await store.journal(run.id))[-1]

        assert (done.state, done.outcome, done.worker, done.due_at) == (RunState.COMPLETED, Outcome.AUTO, None, None)
        assert last.data == {"from": "processing", "to": "completed", "outcome": "auto", "why": "done"}

    async def test_a_run_can_fail_with_words_that_no_database_takes(self, store: Store) -> None:
        run = await begin(store)
        lease = await leased(store, run.id)
        async with store.write(lease) as tx:
            tx.move(run.id, RunState.FAILED, actor="e", reason=Reason.NOT_RETRYABLE, error="nul \x00 half \ud800")

        assert (await store.run(run.id)).error == "nul \ufffd half ?"

    async def test_of_words_without_end_the_beginning_is_kept(self, store: Store) -> None:
        run = await begin(store)
        lease = await leased(store, run.id)
        async with store.write(lease) as tx:
            tx.move(run.id, RunState.FAILED, actor="e", reason=Reason.NOT_RETRYABLE, error="no " * 100_000)

        kept = (await store.run(run.id)).error or ""
        assert (len(kept), kept[:6], kept[-1]) == (10_000, "no no ", "…")
        assert (await store.journal(run.id))[-1].data["error"] == kept

    async def test_a_cancellation_that_came_meanwhile_wins_over_the_end_of_the_segment(self, store: Store) -> None:
        run = await begin(store)
        lease = await leased(store, run.id)
        review = question(run.id, deadline=NOW)
        async with store.write() as tx:
            tx.cancel(run.id, by="ann")
        async with store.write(lease) as tx:
            tx.open_review(review)
            tx.move(run.id, RunState.PENDING_APPROVAL, actor="engine", due_at=NOW, heed_cancel=True)

        ended = await store.run(run.id)

        assert (ended.state, ended.outcome, ended.due_at) == (RunState.CANCELLED, None, None)
        assert (await store.review(review.id)).state is ReviewState.CANCELLED
        assert await store.due_timers(limit=10) == []


class TestClaim:
    async def test_a_due_run_is_claimed_once_and_its_bells_are_done_with(self, store: Store, other: Store) -> None:
        for _ in range(10):
            run = await begin(store)
            claims = await asyncio.gather(*(claim(s, run.id, worker=w) for s in (store, other) for w in ("a", "b")))
            (lease,) = [lease for lease in claims if lease is not None]
            held = await store.run(run.id)

            assert (held.state, held.worker, held.fence) == (RunState.PROCESSING, lease.worker, lease.fence)
            assert held.due_at == NOW + timedelta(seconds=6)
            assert await bells(store) == []

    async def test_a_run_that_is_not_due_is_not_claimed_and_a_bell_in_vain_is_silenced(self, store: Store) -> None:
        run = await begin(store)
        lease = await leased(store, run.id)
        async with store.write(lease) as tx:
            tx.move(run.id, RunState.RETRYING, actor="engine", due_at=NOW + timedelta(seconds=30))
            tx.wake(run.id, lane="default")

        assert await claim(store, run.id) is None
        assert (await store.run(run.id)).state is RunState.RETRYING
        assert await bells(store) == []
        assert await store.due_runs(limit=10) == []

    async def test_a_retry_is_claimed_when_its_time_has_come(self, store: Store, clock: Clock) -> None:
        run = await begin(store)
        lease = await leased(store, run.id)
        async with store.write(lease) as tx:
            tx.move(run.id, RunState.RETRYING, actor="engine", due_at=NOW + timedelta(seconds=30))
        clock.pass_seconds(30)

        assert [run_id for run_id, _ in await store.due_runs(limit=10)] == [run.id]
        again = await leased(store, run.id)
        assert (again.fence, (await store.run(run.id)).crashes) == (lease.fence + 1, 0)

    async def test_a_run_whose_worker_died_is_taken_over_and_the_crash_is_counted(
        self, store: Store, clock: Clock
    ) -> None:
        run = await begin(store)
        await leased(store, run.id, worker="dead")
        clock.pass_seconds(5)
        assert await claim(store, run.id, worker="heir") is None
        clock.pass_seconds(2)

        lease = await leased(store, run.id, worker="heir")

        taken = await store.run(run.id)
        assert (taken.worker, taken.fence, taken.crashes) == ("heir", lease.fence, 1)
        assert (await store.journal(run.id))[-1].data["taken_over"] is True

    @pytest.mark.parametrize("state", [*sorted(FINAL), RunState.FAILED])
    async def test_a_run_that_is_over_is_not_claimed(self, store: Store, state: RunState) -> None:
        run = await begin(store, state)

        assert await claim(store, run.id) is None
        assert (await store.run(run.id)).state is state

    async def test_a_run_that_waits_for_a_person_is_not_claimed_before_somebody_makes_it_due(
        self, store: Store
    ) -> None:
        run = await begin(store)
        await ask(store, run.id)
        assert await claim(store, run.id) is None
        async with store.write() as tx:
            tx.make_due(run.id)
        assert await claim(store, run.id) is not None


async def test_counts_and_pages_are_what_was_stored(store: Store) -> None:
    runs = [await begin(store) for _ in range(5)]
    await leased(store, runs[0].id)

    assert await store.counts() == {("test", "received"): 4, ("test", "processing"): 1}
    page = await store.runs(limit=2)
    assert [run.id for run in page] == [runs[4].id, runs[3].id]
    assert [run.id for run in await store.runs(before=page[-1].id)] == [runs[2].id, runs[1].id, runs[0].id]
    assert [run.id for run in await store.runs(states=[RunState.PROCESSING])] == [runs[0].id]
