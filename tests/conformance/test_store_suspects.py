"""Runs that may have killed their workers, on both databases: the guilty one is found, and its neighbours go on."""

from __future__ import annotations

import asyncio
from datetime import timedelta
from typing import Any

import pytest
from langgraph.checkpoint.base import empty_checkpoint
from tests.conformance.world import Clock, begin, bells, claim, leased, thread

from eventwright.runs.checkpoints import CheckpointSaver
from eventwright.runs.claims import MOST_CRASHES, SUSPECT
from eventwright.runs.errors import LeaseLost, UnknownRun
from eventwright.runs.records import Effect, EffectState, JournalKind, Lease, Run
from eventwright.runs.states import Outcome, RunState
from eventwright.runs.store import Store


async def crash(store: Store, clock: Clock, run_id: str, *, worker: str = "dead") -> None:
    """The run is taken by a worker that dies."""
    await leased(store, run_id, worker=worker)
    clock.pass_seconds(7)


async def suspect(store: Store, clock: Clock) -> Run:
    """A run that two workers died with."""
    run = await begin(store)
    for _ in range(SUSPECT):
        await crash(store, clock, run.id)
    return run


async def complete(store: Store, lease: Lease) -> None:
    async with store.write(lease) as tx:
        tx.move(lease.run_id, RunState.COMPLETED, actor=lease.worker, outcome=Outcome.AUTO, crashes=0)
        tx.wake_next_suspect()


async def crashes(store: Store, run_id: str) -> int:
    return (await store.run(run_id)).crashes


async def blame(store: Store, worker: str, run_id: str, *, node: str, seconds: float) -> None:
    async with store.write() as tx:
        tx.blame(run_id, worker=worker, node=node, seconds=seconds)


def called(run: Run, number: int) -> Effect:
    given: dict[str, Any] = {"requested_digest": "", "executed_digest": "", "arguments": {}, "tool_class": "read"}
    return Effect(
        key=f"{run.id} {number}", run_id=run.id, node="n", visit=1, tool="t", ordinal=str(number),
        state=EffectState.DONE, **given,
    )  # fmt: skip


class TestASuspect:
    async def test_is_not_taken_by_a_worker_that_holds_another_and_waits_for_the_next(
        self, store: Store, clock: Clock
    ) -> None:
        held, waiting = await suspect(store, clock), await suspect(store, clock)
        await leased(store, held.id, worker="heir")

        assert await claim(store, waiting.id, worker="heir") is None
        left = await store.run(waiting.id)
        assert (left.state, left.worker, left.crashes) == (RunState.PROCESSING, None, SUSPECT)
        assert left.due_at == clock() + timedelta(seconds=6)
        assert [entry.kind for entry in await store.journal(waiting.id)][-1] is JournalKind.NOTE
        clock.pass_seconds(6)
        assert await claim(store, waiting.id, worker="other") is not None

    async def test_is_counted_once_however_often_it_was_left(self, store: Store, clock: Clock) -> None:
        held, waiting = await suspect(store, clock), await suspect(store, clock)
        await leased(store, held.id, worker="heir", seconds=1000)
        for _ in range(3):
            assert await claim(store, waiting.id, worker="heir") is None
            clock.pass_seconds(6)
        notes = [entry for entry in await store.journal(waiting.id) if entry.kind is JournalKind.NOTE]

        assert (await crashes(store, waiting.id), len(notes)) == (SUSPECT, 1)

    async def test_does_not_keep_others_from_being_taken(self, store: Store, clock: Clock) -> None:
        held, once, fresh = await suspect(store, clock), await begin(store), await begin(store)
        await crash(store, clock, once.id)
        await leased(store, held.id, worker="heir")

        assert await claim(store, once.id, worker="heir") is not None
        assert await claim(store, fresh.id, worker="heir") is not None

    async def test_that_has_waited_longest_is_next_though_it_was_turned_away_last(
        self, store: Store, clock: Clock
    ) -> None:
        held, oldest, newer = await suspect(store, clock), await suspect(store, clock), await suspect(store, clock)
        lease = await leased(store, held.id, worker="heir", seconds=1000)
        assert await claim(store, newer.id, worker="heir") is None
        clock.pass_seconds(3)
        assert await claim(store, oldest.id, worker="heir") is None
        before = await bells(store)

        await complete(store, lease)
        assert [rung for rung in await bells(store) if rung not in before] == [oldest.id]

    async def test_that_comes_out_alive_lets_the_next_one_go_at_once(self, store: Store, clock: Clock) -> None:
        held, waiting = await suspect(store, clock), await suspect(store, clock)
        lease = await leased(store, held.id, worker="heir")
        assert await claim(store, waiting.id, worker="heir") is None
        await complete(store, lease)

        assert await bells(store) == [waiting.id]
        assert await claim(store, waiting.id, worker="heir") is not None

    async def test_two_that_are_claimed_in_one_batch_are_not_both_taken(self, store: Store, clock: Clock) -> None:
        runs = [await suspect(store, clock) for _ in range(3)]
        async with store.write() as tx:
            claims = [tx.claim(run.id, worker="heir", seconds=6) for run in runs]

        assert [claimed.lease is not None for claimed in claims] == [True, False, False]


class TestACrash:
    async def test_after_a_step_is_the_first_one_again(self, store: Store, clock: Clock) -> None:
        run, saver = await begin(store), CheckpointSaver(store, lease_of=lambda _thread: None)
        for number in (1, 2, 3):
            await crash(store, clock, run.id)
            await crash(store, clock, run.id)
            lease = await leased(store, run.id)
            assert await crashes(store, run.id) == 2
            if number == 1:
                await saver.aput(thread(run.id), empty_checkpoint(), {}, {})
            else:
                async with store.write(lease) as tx:
                    tx.put_effect(called(run, number))
            clock.pass_seconds(7)
            await crash(store, clock, run.id)
            assert await crashes(store, run.id) == 1
            async with store.write(await leased(store, run.id)) as tx:
                tx.move(run.id, RunState.RECEIVED, actor="engine", crashes=0)

    async def test_of_one_poisonous_run_costs_none_of_its_neighbours_their_run(
        self, store: Store, clock: Clock
    ) -> None:
        """One worker at a time takes all that is due, and dies if the poisonous run is among it."""
        runs = [await begin(store) for _ in range(20)]
        poison = runs[7].id
        for worker in range(100):
            leases = [
                lease
                for run_id, _ in await store.due_runs(limit=1000)
                if (lease := await claim(store, run_id, worker=f"worker {worker}")) is not None
            ]
            held = {lease.run_id: lease for lease in leases}
            if poison in held and await crashes(store, poison) >= MOST_CRASHES:
                break
            if poison in held:
                clock.pass_seconds(7)
                continue
            for lease in leases:
                await complete(store, lease)
            if not leases:
                clock.pass_seconds(1)
        else:
            raise AssertionError("the poisonous run kills one worker after the other")

        others = [await store.run(run.id) for run in runs if run.id != poison]
        assert max(run.crashes for run in others) <= SUSPECT
        while waiting := [run for run in others if run.state is not RunState.COMPLETED]:
            clock.pass_seconds(7)
            for run in waiting:
                if (lease := await claim(store, run.id, worker="last")) is not None:
                    await complete(store, lease)
            others = [await store.run(run.id) for run in others]


class TestAWorkerThatHasToStop:
    async def test_gives_its_run_up_and_that_is_no_crash(self, store: Store, clock: Clock) -> None:
        run = await begin(store)
        for _ in range(MOST_CRASHES + 1):
            lease = await leased(store, run.id)
            async with store.write(lease) as tx:
                tx.give_up(run.id, worker=lease.worker)
            assert await claim(store, run.id) is None, "its lease still holds: something may be under way"
            clock.pass_seconds(7)

        assert await claim(store, run.id) is not None
        assert await crashes(store, run.id) == 0

    async def test_does_not_give_up_what_another_has_taken_over(self, store: Store, clock: Clock) -> None:
        run = await begin(store)
        lease = await leased(store, run.id, worker="late")
        clock.pass_seconds(7)
        await leased(store, run.id, worker="heir")
        with pytest.raises(LeaseLost):
            async with store.write(lease) as tx:
                tx.give_up(run.id, worker=lease.worker)
        async with store.write() as tx:
            tx.give_up(run.id, worker="late")
        assert (await store.run(run.id)).worker == "heir"


class TestADatabaseThatWasAway:
    """Nobody could renew a lease, so that a lease that ended says nothing about its worker."""

    async def excuse(self, store: Store, *dropped: str, worker: str = "alive") -> None:
        async with store.write() as tx:
            tx.excuse(dropped, worker=worker)

    async def test_makes_no_suspects_of_the_runs_whose_leases_ended(self, store: Store, clock: Clock) -> None:
        run = await begin(store)
        for _ in range(MOST_CRASHES + 1):
            await leased(store, run.id, worker="cut off")
            clock.pass_seconds(7)
            await self.excuse(store)
        assert await claim(store, run.id) is not None
        assert await crashes(store, run.id) == 0

    async def test_excuses_a_worker_for_the_runs_that_it_let_go_and_they_are_taken_when_they_are_due(
        self, store: Store, clock: Clock
    ) -> None:
        dropped, kept = await begin(store), await begin(store)
        for run in (dropped, kept):
            await leased(store, run.id, worker="alive")
        await self.excuse(store, dropped.id)
        assert await claim(store, dropped.id) is None, "its lease still holds: something may be under way"
        clock.pass_seconds(7)
        for run in (dropped, kept):
            await leased(store, run.id, worker="heir")
        assert [await crashes(store, run.id) for run in (dropped, kept)] == [0, 1]

    async def test_is_no_excuse_for_a_run_in_other_hands_nor_for_a_later_death(
        self, store: Store, clock: Clock
    ) -> None:
        run = await begin(store)
        await leased(store, run.id, worker="other")
        await self.excuse(store, run.id)
        assert (await store.run(run.id)).worker == "other"
        await self.excuse(store)
        clock.pass_seconds(7)
        await leased(store, run.id, worker="heir")
        assert await crashes(store, run.id) == 1

    async def test_leaves_what_the_same_commit_says_of_a_run_as_it_says(self, store: Store, clock: Clock) -> None:
        run = await begin(store)
        await leased(store, run.id, worker="cut off")
        clock.pass_seconds(7)

        async def cancel() -> None:
            async with store.write() as tx:
                tx.cancel(run.id, by="ann")

        await asyncio.gather(cancel(), self.excuse(store))
        found = await store.run(run.id)
        assert found.worker is None
        assert found.cancel_requested_by == "ann"


class TestABlockedWorker:
    async def test_loses_its_runs_whatever_else_is_written_about_them_in_that_moment(self, store: Store) -> None:
        guilty, innocent = await begin(store), await begin(store)
        for run in (guilty, innocent):
            await leased(store, run.id, worker="blocked")

        async def cancel() -> None:
            async with store.write() as tx:
                tx.cancel(innocent.id, by="ann")

        await asyncio.gather(blame(store, "blocked", guilty.id, node="parse", seconds=30), cancel())
        left = await store.run(innocent.id)
        assert (left.worker, left.cancel_requested_by) == (None, "ann")

    async def test_of_a_run_in_other_hands_is_not_blamed_on_it(self, store: Store, other: Store) -> None:
        run = await begin(store)
        await leased(store, run.id, worker="another")
        await blame(other, "blocked", run.id, node="parse", seconds=30)
        with pytest.raises(UnknownRun):
            await blame(other, "blocked", "run_x", node="parse", seconds=30)

        left = await store.run(run.id)
        assert (left.worker, left.crashes) == ("another", 0)

    async def test_loses_all_its_runs_and_only_the_guilty_one_is_suspect(
        self, store: Store, other: Store, clock: Clock
    ) -> None:
        guilty, innocent, another = await begin(store), await begin(store), await begin(store)
        for run in (guilty, innocent):
            await leased(store, run.id, worker="blocked")
        await leased(store, another.id, worker="well")
        await blame(other, "blocked", guilty.id, node="parse", seconds=31.26)

        runs = [await store.run(run.id) for run in (guilty, innocent, another)]
        assert [(run.worker, run.crashes) for run in runs] == [(None, SUSPECT), (None, 0), ("well", 0)]
        note = (await store.journal(guilty.id))[-1]
        assert (note.node, note.data["seconds"], note.data["crashes"]) == ("parse", 31.3, SUSPECT)
        clock.pass_seconds(7)
        for run in (guilty, innocent):
            assert await claim(store, run.id, worker="heir") is not None
        assert [await crashes(store, run.id) for run in (guilty, innocent)] == [SUSPECT, 0]
