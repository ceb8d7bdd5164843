"""Runs with the same key go one after the other, on SQLite and on PostgreSQL, whoever looks at them at once."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from dataclasses import replace
from datetime import timedelta
from typing import Any

import pytest
import sqlalchemy as sa
from sqlalchemy.dialects import sqlite
from tests.conformance.world import NOW, Clock, ask, begin, bells, claim, event, leased

from eventwright.runs import schema
from eventwright.runs.event import new_id
from eventwright.runs.records import WAITS, EventState, Run
from eventwright.runs.states import Outcome, Reason, RunState
from eventwright.runs.store import Store
from eventwright.runs.turns import _HEAD, _LOCK, _number, ahead


async def keyed(store: Store, key: str = "invoice 7", **changes: Any) -> Run:
    run = await begin(store, **{"serial_key": key, "turn": WAITS} | changes)
    return await store.run(run.id)


async def due(store: Store) -> list[str]:
    return [run_id for run_id, _ in await store.due_runs(limit=1000)]


async def end(store: Store, run_id: str, to: RunState = RunState.COMPLETED) -> None:
    """What a worker does that takes the run and brings it to this end."""
    async with store.write(await leased(store, run_id)) as tx:
        reason = Reason.ATTEMPTS if to is RunState.FAILED else None
        tx.move(run_id, to, actor="engine", outcome=None if reason else Outcome.AUTO, reason=reason)


async def replay(store: Store, run_id: str) -> None:
    async with store.write() as tx:
        tx.move(run_id, RunState.RECEIVED, actor="ann", only_from=RunState.FAILED)
        tx.wake(run_id, lane="default")


class TestWhoWaits:
    async def test_a_run_behind_another_is_not_claimed_not_due_and_nobody_rings_for_it(self, store: Store) -> None:
        first, second = await keyed(store), await keyed(store)

        assert await claim(store, second.id) is None
        assert await due(store) == [first.id]
        assert await bells(store) == [first.id]
        assert await ahead(store, [first, second]) == {second.id: first.id}

    async def test_a_bell_that_rings_for_it_all_the_same_changes_nothing(self, store: Store) -> None:
        first, second = await keyed(store), await keyed(store)
        async with store.write() as tx:
            tx.make_due(second.id)
        assert await claim(store, second.id) is None
        assert await due(store) == [first.id]

        await end(store, first.id)
        assert await due(store) == [second.id]

    @pytest.mark.parametrize("rests", [RunState.RECEIVED, RunState.WAITING, RunState.RETRYING])
    async def test_the_run_that_goes_keeps_its_turn_while_it_rests(self, store: Store, rests: RunState) -> None:
        first, second = await keyed(store), await keyed(store)
        async with store.write(await leased(store, first.id)) as tx:
            tx.move(first.id, rests, actor="engine", due_at=NOW + timedelta(seconds=30))

        assert await claim(store, second.id) is None
        assert await ahead(store, [second]) == {second.id: first.id}

    async def test_a_run_that_waits_for_a_person_keeps_its_turn(self, store: Store) -> None:
        first, second = await keyed(store), await keyed(store)
        await ask(store, first.id)

        assert await claim(store, second.id) is None
        assert await due(store) == []

    async def test_a_run_whose_worker_died_keeps_its_turn(self, store: Store, clock: Clock) -> None:
        first, second = await keyed(store), await keyed(store)
        await leased(store, first.id)
        clock.pass_seconds(60)

        assert await claim(store, second.id) is None
        assert await due(store) == [first.id]

    async def test_nobody_waits_for_another_key_another_workflow_or_a_run_without_a_key(self, store: Store) -> None:
        await keyed(store)
        others = [
            await keyed(store, "invoice 8"),
            await keyed(store, workflow="other"),
            await begin(store),
            await begin(store),
        ]

        assert [(await claim(store, run.id)) is not None for run in others] == [True] * 4


class TestWhoIsNext:
    @pytest.mark.parametrize("to", [RunState.COMPLETED, RunState.FAILED, RunState.CANCELLED])
    async def test_whoever_ends_rings_for_the_next_in_the_same_transaction(self, store: Store, to: RunState) -> None:
        runs = [await keyed(store) for _ in range(3)]
        await end(store, runs[0].id, to)

        assert await due(store) == await bells(store) == [runs[1].id]
        assert await claim(store, runs[2].id) is None

    async def test_they_go_in_the_order_in_which_they_came(self, store: Store) -> None:
        runs = [await keyed(store) for _ in range(5)]
        gone = []
        while waiting := await due(store):
            (run_id,) = waiting
            await end(store, run_id)
            gone.append(run_id)

        assert gone == [run.id for run in runs]
        assert [(await store.run(run.id)).turn for run in runs] == [None] * 5

    async def test_an_event_that_was_accepted_first_goes_first_though_its_run_was_stored_later(
        self, store: Store
    ) -> None:
        late = await keyed(store, created_at=NOW + timedelta(seconds=1))
        early = await keyed(store, created_at=NOW)

        assert await claim(store, late.id) is None
        await end(store, early.id)
        await end(store, late.id)

    async def test_one_that_was_cancelled_in_the_line_is_left_out(self, store: Store) -> None:
        first, second, third = [await keyed(store) for _ in range(3)]
        async with store.write() as tx:
            tx.cancel(second.id, by="ann")
        assert await claim(store, third.id) is None

        await end(store, first.id)
        assert await due(store) == [third.id]

    async def test_one_whose_turn_has_come_and_that_is_cancelled_before_it_goes_passes_it_on(
        self, store: Store
    ) -> None:
        first, second, third = [await keyed(store) for _ in range(3)]
        await end(store, first.id)
        async with store.write() as tx:
            tx.cancel(second.id, by="ann")

        assert await due(store) == [third.id]

    async def test_a_dead_letter_lets_the_others_go_and_when_replayed_waits_for_the_one_that_goes(
        self, store: Store
    ) -> None:
        first, second, third = [await keyed(store) for _ in range(3)]
        await end(store, first.id, RunState.FAILED)
        await ask(store, second.id)
        await replay(store, first.id)
        assert await claim(store, first.id) is None
        assert await due(store) == []
        assert await ahead(store, [await store.run(first.id)]) == {first.id: second.id}

        async with store.write() as tx:
            tx.cancel(second.id, by="ann")
        # It came before the third.
        assert await due(store) == [first.id]
        await end(store, first.id)
        assert await due(store) == [third.id]

    async def test_what_one_transaction_does_is_seen_by_what_comes_after_it_there(self, store: Store) -> None:
        dead, first = [await keyed(store) for _ in range(2)]
        await end(store, dead.id, RunState.FAILED)
        async with store.write() as tx:
            claims = [tx.claim(first.id, worker="one", seconds=6)]
            tx.move(dead.id, RunState.RECEIVED, actor="ann")
            claims.append(tx.claim(dead.id, worker="two", seconds=6))
        assert [one.lease is not None for one in claims] == [True, False]

        new = [replace(first, id=new_id("run"), event=event(), serial_key="new") for _ in range(3)]
        async with store.write() as tx:
            for run in new:
                tx.add_event(run.event, EventState.ACCEPTED)
                tx.add_run(run)
                tx.wake(run.id, lane="default")
        assert await bells(store) == [new[0].id]


class TestMany:
    async def test_hundreds_that_wait_are_not_looked_at(self, store: Store) -> None:
        first = await keyed(store)
        await asyncio.gather(*(keyed(store) for _ in range(300)))

        assert await due(store) == [first.id]
        assert await store.due_runs(limit=1, lane="default") == [(first.id, "default")]
        assert await store.next_due() == first.due_at

    async def test_the_next_is_found_by_the_index_of_those_that_have_not_ended(self, sqlite_url: str) -> None:
        async with Store.open(sqlite_url) as store:
            dialect, literal = sqlite.dialect(), {"literal_binds": True}
            query = _HEAD.params(workflow="a", key="b").compile(dialect=dialect, compile_kwargs=literal)
            plan = await store.read(
                lambda connection: [str(row) for row in connection.execute(sa.text(f"EXPLAIN QUERY PLAN {query}"))]
            )
        assert "USING INDEX ix_runs_in_line (workflow=? AND serial_key=? AND turn>?)" in plan[0]
        assert len(plan) == 1, "it sorts"


class Watch:
    """Takes runs of several processes and sees who is at work together."""

    def __init__(self) -> None:
        self.at_work: set[str] = set()
        self.gone: list[str] = []
        self.most = 0

    async def take(self, store: Store, run_id: str) -> None:
        lease = await claim(store, run_id)
        if lease is None:
            return
        self.at_work.add(run_id)
        self.most = max(self.most, len(self.at_work))
        async with store.write(lease) as tx:
            tx.note(run_id, actor="worker", data={"text": "at work"})
        self.gone.append(run_id)
        self.at_work.discard(run_id)
        async with store.write(lease) as tx:
            tx.move(run_id, RunState.COMPLETED, actor="engine", outcome=Outcome.AUTO)

    async def work(self, stores: Sequence[Store], clock: Clock, runs: int) -> None:
        """Until all have ended: everybody tries whatever is due, again and again, at once."""
        while (await stores[0].counts()).get(("test", "completed"), 0) < runs:
            found = await due(stores[0])
            await asyncio.gather(*(self.take(store, run_id) for run_id in found for store in stores))
            if not found:
                clock.pass_seconds(1)


class TestRaces:
    async def test_two_processes_never_have_two_of_one_key_and_keep_their_order(
        self, store: Store, other: Store, clock: Clock
    ) -> None:
        runs = [await keyed(store) for _ in range(15)]
        watch = Watch()
        await watch.work((store, other), clock, len(runs))

        assert watch.most == 1
        assert watch.gone == [run.id for run in runs]

    async def test_runs_that_come_while_others_end_are_all_brought_to_their_end(
        self, store: Store, other: Store, clock: Clock
    ) -> None:
        watch = Watch()
        coming = asyncio.gather(*(keyed(place) for place in (store, other) for _ in range(20)))
        await watch.work((store, other), clock, 40)
        await coming

        assert watch.most == 1
        assert len(watch.gone) == len(set(watch.gone)) == 40

    async def test_a_run_that_joins_while_the_last_one_ends_is_not_forgotten(
        self, store: Store, other: Store, clock: Clock
    ) -> None:
        for _ in range(20):
            first = await keyed(store)
            lease = await leased(store, first.id)

            async def complete(run: Run = first, lease: Any = lease) -> None:
                async with store.write(lease) as tx:
                    tx.move(run.id, RunState.COMPLETED, actor="engine", outcome=Outcome.AUTO)

            _, second = await asyncio.gather(complete(), keyed(other))
            clock.pass_seconds(2)
            assert await due(store) == [second.id]
            await end(store, second.id)

    async def test_a_line_at_which_somebody_else_looks_is_looked_at_again_soon(
        self, postgres_url: str, clock: Clock
    ) -> None:
        async with Store.open(postgres_url, clock=clock) as store, Store.open(postgres_url, clock=clock) as other:
            run = await keyed(store)
            held = asyncio.Event()

            def hold(connection: sa.Connection) -> None:
                connection.execute(_LOCK, {"number": _number(("test", "invoice 7"))})
                loop.call_soon_threadsafe(held.set)
                connection.execute(sa.text("SELECT pg_sleep(0.5)"))

            loop = asyncio.get_running_loop()
            holding = asyncio.create_task(other._database.write(hold))
            await held.wait()
            assert await claim(store, run.id) is None
            await holding
            assert await due(store) == []
            clock.pass_seconds(1)
            assert await claim(store, run.id) is not None


async def test_the_turn_of_every_run_is_what_its_state_says(store: Store) -> None:
    """A run of a line that has not ended is due, or goes, or has somebody before it."""
    runs = [await keyed(store) for _ in range(4)]
    await end(store, runs[0].id, RunState.FAILED)
    await replay(store, runs[0].id)
    await leased(store, runs[0].id)

    rows = await store.rows_of(sa.select(schema.runs).order_by(schema.runs.c.id))
    assert [(row["turn"], row["due_at"] is None) for row in rows] == [(0, False), (1, False), (1, True), (1, True)]
