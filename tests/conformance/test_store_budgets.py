"""Budgets in the store, on SQLite and on PostgreSQL alike: what is reserved is exactly what may be used. Refusals
first."""

from __future__ import annotations

import asyncio
from decimal import Decimal

import pytest
import sqlalchemy as sa
from alembic import command
from tests.conformance.budget_book import count, of, release, reserve, settle, told, used
from tests.conformance.world import Clock, assert_unbroken, begin, claim, leased

from eventwright.runs import migrate
from eventwright.runs.database import open_database
from eventwright.runs.errors import BudgetExceeded, IllegalMove, LeaseLost, UnknownRun
from eventwright.runs.event import digest_of
from eventwright.runs.records import JournalKind
from eventwright.runs.states import RunState
from eventwright.runs.store import Store


class TestTooMuch:
    async def test_is_refused_with_what_is_left_and_nothing_of_the_unit_is_written(self, store: Store) -> None:
        run = await begin(store)
        await reserve(store, run, "first", of("refunds", "60.50"))

        with pytest.raises(BudgetExceeded, match=r"39.51 more .* 'refunds', of which 60.5 of 100 are used") as refused:
            await reserve(store, run, "second", of("calls"), of("refunds", "39.51"))

        assert (refused.value.scope, refused.value.label) == (digest_of("refunds"), "refunds")
        amounts = [refused.value.most, refused.value.used, refused.value.wanted]
        assert amounts == [Decimal(text) for text in ("100", "60.5", "39.51")]
        assert await used(store) == {"refunds": Decimal("60.5")}, "and the other budget was not even opened"
        assert list((await store.history(run.id)).visits) == ["first"]
        assert len(await told(store, run)) == 1
        await reserve(store, run, "third", of("refunds", "39.50"))
        assert await used(store) == {"refunds": 100}

    async def test_of_one_call_does_not_disturb_its_neighbours_in_the_batch(self, store: Store) -> None:
        runs = [await begin(store) for _ in range(9)]
        commits = store.committer.commits
        answers = await asyncio.gather(
            *(reserve(store, run, run.id, of("refunds", 25)) for run in runs), return_exceptions=True
        )

        assert count(answers, BudgetExceeded) == 5
        assert await used(store) == {"refunds": 100}
        assert store.committer.commits == commits + 1, "refused before anything was written, so nothing was undone"
        for run, answer in zip(runs, answers, strict=True):
            assert len((await store.history(run.id)).visits) == (answer is None)
            assert_unbroken(await store.journal(run.id))

    async def test_is_not_reserved_by_a_unit_that_is_refused_for_another_reason(self, store: Store) -> None:
        runs = [await begin(store) for _ in range(4)]
        done = await begin(store, RunState.COMPLETED)

        async def refused() -> None:
            async with store.write() as tx:
                tx.reserve(done.id, "refused", [of("refunds", 50)])
                tx.settle(done.id, "refused")
                tx.move(done.id, RunState.PROCESSING, actor="test")

        fine = (reserve(store, run, run.id, of("refunds", 20)) for run in runs)
        answers = await asyncio.gather(refused(), *fine, return_exceptions=True)

        assert [type(answer) for answer in answers if answer is not None] == [IllegalMove]
        assert await used(store) == {"refunds": 80}
        assert await told(store, done) == []

    async def test_is_not_reserved_by_a_zombie_worker(self, store: Store, other: Store, clock: Clock) -> None:
        run = await begin(store)
        zombie = await leased(store, run.id, worker="zombie")
        clock.pass_seconds(7)
        await claim(other, run.id, worker="heir")

        with pytest.raises(LeaseLost):
            await reserve(store, run, "late", of("refunds"), lease=zombie)
        with pytest.raises(UnknownRun):
            async with store.write() as tx:
                tx.reserve("run_that_is_not", "key", [of("refunds")])
        assert await used(store) == {}

    @pytest.mark.parametrize("amount", ["-1", "NaN", "Infinity", "1e15", "0.00000000001"])
    async def test_or_too_little_or_too_fine_a_number_is_refused_at_once(self, store: Store, amount: str) -> None:
        run = await begin(store)
        with pytest.raises(ValueError, match="a budget counts"):
            of("refunds", amount)
        with pytest.raises(ValueError, match="a budget counts"):
            of("refunds", 1, amount)
        with pytest.raises(ValueError, match="a budget counts"):
            await settle(store, run, "key", refunds=amount)

    async def test_for_any_of_several_budgets_reserves_of_none(self, store: Store) -> None:
        run = await begin(store)
        for small in ("a", "m", "z"):
            with pytest.raises(BudgetExceeded) as refused:
                await reserve(store, run, small, *(of(name, 5, 4 if name == small else 10) for name in ("a", "m", "z")))
            assert refused.value.label == small
        assert await used(store) == {}

    async def test_is_recorded_where_a_person_allowed_it_and_the_next_call_finds_it_used(self, store: Store) -> None:
        run = await begin(store)
        await reserve(store, run, "big", of("refunds", 250, None), of("calls", 1, 10))
        assert await used(store) == {"refunds": 250, "calls": 1}
        with pytest.raises(BudgetExceeded):
            await reserve(store, run, "small", of("refunds", "0.01"))


class TestARepeat:
    async def test_of_the_same_call_reserves_nothing_more(self, store: Store, other: Store) -> None:
        run = await begin(store)
        for process in (store, store, other):
            await reserve(process, run, "call", of("refunds", 60))
        assert await used(store) == {"refunds": 60}
        assert [data["reserved"] for data in await told(store, run)] == [[{"budget": "refunds", "amount": "60"}]]

        await settle(store, run, "call")
        await reserve(other, run, "call", of("refunds", 60))
        assert await used(store) == {"refunds": 60}

        with pytest.raises(BudgetExceeded):
            await reserve(store, run, "another", of("refunds", 60))

    async def test_on_the_next_day_stays_in_the_day_on_which_the_call_was_begun(self, store: Store) -> None:
        run = await begin(store)
        await reserve(store, run, "call", of("refunds", 60, scope="monday"))
        await reserve(store, run, "call", of("refunds", 60, 10, scope="tuesday"))
        await settle(store, run, "call", refunds=50)
        assert await used(store) == {"monday": 50}

    async def test_of_a_call_that_gave_its_share_back_reserves_again(self, store: Store) -> None:
        run = await begin(store)
        await reserve(store, run, "call", of("refunds", 60), of("calls", 1, 2, spent=True))
        await release(store, run, "call")
        await release(store, run, "call")
        assert await used(store) == {"refunds": 0, "calls": 1}, "a call that failed was a call all the same"

        await reserve(store, run, "call", of("refunds", 70), of("calls", 1, 2, spent=True))
        assert await used(store) == {"refunds": 70, "calls": 1}, "and its repeat is the same one"

    async def test_in_the_same_batch_is_seen(self, store: Store) -> None:
        run = await begin(store)
        answers = await asyncio.gather(
            *(reserve(store, run, "call", of("refunds", 60)) for _ in range(5)),
            release(store, run, "call"),
            reserve(store, run, "call", of("refunds", 40)),
            settle(store, run, "call", refunds=30),
            release(store, run, "call"),
            return_exceptions=True,
        )
        assert answers == [None] * 9
        assert await used(store) == {"refunds": 30}
        async with store.write() as tx:
            tx.reserve(run.id, "brief", [of("refunds")])
            tx.release(run.id, "brief")
        await reserve(store, run, "brief", of("refunds", 2))
        assert await used(store) == {"refunds": 32}


class TestSettling:
    @pytest.mark.parametrize(("spent", "left"), [("12.3456789012", "87.6543210988"), ("60", "40"), ("0", "100")])
    async def test_what_was_not_spent_is_there_for_others_to_the_last_digit(
        self, store: Store, spent: str, left: str
    ) -> None:
        run = await begin(store)
        await reserve(store, run, "call", of("cost", 60))
        spent, left = (str(Decimal(text).quantize(Decimal("1e-10"))) for text in (spent, left))
        await settle(store, run, "call", cost=spent)

        assert await used(store) == {"cost": Decimal(spent)}
        await reserve(store, run, "rest", of("cost", left))
        assert await used(store) == {"cost": 100}
        with pytest.raises(BudgetExceeded):
            await reserve(store, run, "more", of("cost", "0.0000000001"))

    async def test_what_came_to_more_is_told_and_counts(self, store: Store) -> None:
        run = await begin(store)
        await reserve(store, run, "call", of("cost", 60), of("calls", 1))
        await settle(store, run, "call", cost=130)

        assert await used(store) == {"cost": 130, "calls": 1}
        assert (await told(store, run))[-1]["spent"] == [{"budget": "cost", "reserved": "60", "amount": "130"}]
        with pytest.raises(BudgetExceeded):
            await reserve(store, run, "more", of("cost", 0))

    async def test_happens_once_and_what_is_settled_is_not_given_back(self, store: Store, other: Store) -> None:
        run = await begin(store)
        await reserve(store, run, "call", of("cost", 60))
        await asyncio.gather(*(settle(process, run, "call", cost=10) for process in (store, other) * 3))
        await settle(store, run, "call", cost=99)
        await release(other, run, "call")
        assert await used(store) == {"cost": 10}

    async def test_that_is_refused_for_another_reason_has_not_happened(self, store: Store) -> None:
        run = await begin(store)
        await reserve(store, run, "call", of("cost", 60))

        async def refused() -> None:
            async with store.write() as tx:
                tx.settle(run.id, "call")
                tx.move(run.id, RunState.COMPLETED, actor="test")

        with pytest.raises(IllegalMove):
            await refused()
        await release(store, run, "call")
        assert await used(store) == {"cost": 0}

    async def test_of_a_call_that_reserved_nothing_changes_nothing(self, store: Store) -> None:
        run = await begin(store)
        await settle(store, run, "call", cost=10)
        await release(store, run, "call")
        assert await used(store) == {}
        assert await told(store, run) == []

    async def test_stays_exact_however_large_the_sum(self, store: Store) -> None:
        run = await begin(store)
        amount = Decimal("999999999999999.9999999999")
        for number in range(12):
            await reserve(store, run, str(number), of("cost", amount, None))
        assert (await used(store))["cost"] == Decimal("11999999999999999.9999999988")


class TestLooking:
    async def test_a_new_day_is_a_new_budget_and_the_latest_come_first_page_by_page(
        self, store: Store, clock: Clock
    ) -> None:
        run = await begin(store)
        for day in range(3):
            for account in ("ann", "bob"):
                name = f"day {day} {account}"
                await reserve(store, run, name, of(f"refunds {account}", 100 - day, scope=name))
            clock.pass_seconds(86_400)

        budgets = await store.budgets()
        assert [budget.label[:5] for budget in budgets] == ["day 2", "day 2", "day 1", "day 1", "day 0", "day 0"]
        assert {(budget.used, budget.most) for budget in budgets[:2]} == {(Decimal(98), Decimal(100))}
        pages, before = [], None
        while page := await store.budgets(limit=2 if before else 1, before=before):
            pages += page
            before = page[-1].scope
        assert pages == budgets

    async def test_the_record_of_the_run_tells_what_was_reserved_spent_and_given_back(self, store: Store) -> None:
        run = await begin(store)
        await reserve(store, run, "call", of("refunds", "60.00"), of("calls", 1, 3, spent=True))
        await release(store, run, "call")

        entries = [entry for entry in await store.journal(run.id) if entry.kind is JournalKind.BUDGET]
        assert [(entry.actor, entry.node) for entry in entries] == [("gate", "n"), ("gate", None)]
        assert [entry.data for entry in entries] == [
            {
                "effect": "call",
                "reserved": [{"budget": "refunds", "amount": "60"}, {"budget": "calls", "amount": "1"}],
            },
            {"effect": "call", "given_back": [{"budget": "refunds", "amount": "60"}]},
        ]
        assert_unbroken(await store.journal(run.id))


async def test_a_database_of_the_release_before_gets_budgets_and_keeps_its_runs(empty_database_url: str) -> None:
    async with open_database(empty_database_url) as database:
        await database.write(lambda connection: command.upgrade(migrate._config(connection), "0001"))
        await database.write(lambda connection: connection.execute(sa.text(OLD_RUN)))
    await migrate.upgrade(empty_database_url)

    async with Store.open(empty_database_url) as store:
        assert await store.counts() == {("test", "received"): 1}
        run = await begin(store)
        await reserve(store, run, "call", of("refunds", 60))
        assert await used(store) == {"refunds": 60}


OLD_RUN = """
INSERT INTO runs (id, event_uid, workflow, version, state, attempts, lane, generation, fence, crashes, created_at,
                  updated_at)
VALUES ('run_old', 'evt_old', 'test', '1', 'received', 1, 'default', 0, 0, 0, '2026-01-01T00:00:00+00:00',
        '2026-01-01T00:00:00+00:00')
"""
