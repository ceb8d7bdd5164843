"""Budgets of runs: what calls use together, in one run, one day or ever, is never more than that; exceptions first."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from datetime import timedelta
from decimal import Decimal
from typing import Any

import pytest
from langgraph.graph import START, StateGraph
from tests.guardrails.amounts import grant, refund
from tests.outside import State, Trouble, World, a_world, chain, ended, job, look, says, the_effect, the_review

from eventwright.app.simulate import Simulation
from eventwright.guardrails.budgets import Budget, midnight_after
from eventwright.guardrails.policy import Backoff, Policy
from eventwright.guardrails.rules import always
from eventwright.guardrails.verdicts import Denied
from eventwright.runs.records import EffectState, JournalKind, ReviewState
from eventwright.runs.states import Outcome, Reason, RunState
from eventwright.tools.contract import NotDone


@pytest.fixture
async def world(sqlite_url: str) -> AsyncIterator[World]:
    async with a_world(sqlite_url) as world:
        # At noon, so that no test runs into the next day.
        world.clock.pass_until(midnight_after(world.clock()) + timedelta(hours=12))
        yield world


def refunds(*amounts: Any, account: str = "ann") -> Any:
    async def node(state: Any) -> dict[str, Any]:
        return {"log": [await refund(Decimal(amount), account) for amount in amounts]}

    return node


def shop(*budgets: Budget, node: Any = None, policy: dict[str, Any] | None = None, **more: Any) -> Any:
    """A workflow of one node with these budgets."""
    given = {"tools": [refund, look], "budgets": budgets} | (policy or {})
    return job(chain(node=node or refunds(30, 30, 30, 30, 30)), {"node": Policy(**given)}, **more)


async def used(world: World) -> dict[str, Decimal]:
    """What is used of each budget, by the last words of its label."""
    return {budget.label.partition(" · ")[2]: budget.used for budget in await world.store.budgets(limit=100)}


def done(world: World) -> int:
    return len(world.provider.done)


async def advance(run: Simulation) -> RunState | None:
    return await run.engine.advance(run.run_id)


PER_RUN = Budget("amount", 100, of=refund)
PER_DAY = Budget("amount", 100, of=refund, per="day", then="tomorrow")
ASKING = Budget("amount", 100, of=refund, then="person")


class TestDenied:
    async def test_the_call_too_many_is_not_made_and_the_refusal_is_on_record(self, world: World) -> None:
        run = await world.start(shop(PER_RUN))

        assert ended(await run.run()) == (RunState.FAILED, Reason.NOT_RETRYABLE)
        assert done(world) == 3
        assert await used(world) == {"job / node · outside.refund amount": 90}
        verdicts = [entry.data for entry in await run.journal() if entry.kind is JournalKind.VERDICT]
        [stage] = verdicts[-1]["stages"]
        assert (stage["stage"], stage["verdict"]) == ("budgets", "deny")
        assert "30 more is above" in stage["reason"]
        assert "90 of 100 are used" in stage["reason"]

    async def test_a_node_may_catch_it_and_go_another_way(self, world: World) -> None:
        async def node(state: Any) -> dict[str, Any]:
            log = []
            for _ in range(5):
                try:
                    log.append(await refund(Decimal(30)))
                except Denied as denied:
                    log.append(denied.verdict.stage)
            return {"log": log}

        run = await world.start(shop(PER_RUN, node=node))
        assert (await run.values())["log"] == [*["refund 30 EUR ann"] * 3, "budgets", "budgets"]

    async def test_what_nobody_can_count_is_not_made(self, world: World) -> None:
        async def node(state: Any) -> dict[str, Any]:
            return {"log": [await grant(None, 1)]}

        run = await world.start(shop(Budget("points", 5, of=grant), node=node, policy={"tools": [grant]}))
        assert ended(await run.run()) == (RunState.FAILED, Reason.NOT_RETRYABLE)
        assert done(world) == 0

    async def test_calls_gathered_in_one_node_share_what_is_left(self, world: World) -> None:
        async def node(state: Any) -> dict[str, Any]:
            answers = await asyncio.gather(*(refund(Decimal(30)) for _ in range(12)), return_exceptions=True)
            return {"log": [isinstance(answer, Denied) for answer in answers]}

        run = await world.start(shop(PER_RUN, node=node))
        assert sorted((await run.values())["log"]) == [False] * 3 + [True] * 9
        assert done(world) == 3

    async def test_runs_of_two_processes_share_what_is_left_of_the_day(self, world: World) -> None:
        daily = Budget("amount", 100, of=refund, per="day")
        workflow = shop(daily, node=refunds(30))
        runs = [await world.send(workflow if number == 0 else None) for number in range(20)]
        processes = [world.process(workflow) for _ in range(2)]
        await asyncio.gather(*(processes[number % 2].advance(run.run_id) for number, run in enumerate(runs)))

        states = [(await run.run()).state for run in runs]
        assert states.count(RunState.COMPLETED) == done(world) == 3
        assert states.count(RunState.FAILED) == 17
        assert await used(world) == {"job / node · outside.refund amount": 90}

    async def test_splitting_an_amount_over_accounts_nodes_and_runs_does_not_get_round_the_workflows_limit(
        self, world: World
    ) -> None:
        total = Budget("amount", 100, of=refund, per="workflow")
        each = Budget("amount", 50, of=refund, by="account")
        graph = chain(one=refunds(30, account="ann"), two=refunds(30, account="bob"))
        policy = Policy(tools=[refund], budgets=[each])
        workflow = job(graph, {"one": policy, "two": policy}, budgets=[total])

        first = await world.start(workflow)
        assert (await first.run()).state is RunState.COMPLETED
        second = await world.start(workflow)
        assert (await second.run()).state is RunState.FAILED
        assert done(world) == 3

    async def test_reads_are_counted_where_calls_are(self, world: World) -> None:
        async def node(state: Any) -> dict[str, Any]:
            return {"log": [await look(str(number)) for number in range(5)]}

        run = await world.start(shop(Budget("calls", 3), node=node))
        assert (await run.run()).state is RunState.FAILED
        assert done(world) == 3


class TestARepeat:
    async def test_after_a_failure_takes_nothing_more_and_a_call_that_failed_gives_its_amount_back(
        self, world: World
    ) -> None:
        world.provider.troubles = [Trouble(NotDone("down"))] * 3
        calls = Budget("calls", 1)
        policy = {"retries": 3, "backoff": Backoff(first=10)}
        run = await world.send(shop(PER_RUN, calls, node=refunds(60), policy=policy))
        assert await advance(run) is RunState.RETRYING
        assert await used(world) == {"job / node · outside.refund amount": 0, "job / node · calls": 1}

        assert (await run.go_on()).state is RunState.COMPLETED
        assert await used(world) == {"job / node · outside.refund amount": 60, "job / node · calls": 1}
        assert the_effect(await run.effects(), "outside.refund").attempt == 4

    async def test_after_a_crash_takes_nothing_more_even_on_the_next_day(self, world: World) -> None:
        world.provider.troubles = [Trouble(happens=True)]
        daily = Budget("amount", 100, of=refund, per="day")
        run = await world.crash(await world.send(shop(daily, node=refunds(60))))
        world.clock.pass_until(midnight_after(world.clock()))
        assert (await run.go_on()).state is RunState.COMPLETED
        assert [budget.used for budget in await world.store.budgets()] == [60]
        assert done(world) == 1

    async def test_of_the_whole_run_from_its_start_takes_nothing_more(self, world: World) -> None:
        left = [1]

        async def fails(state: Any) -> dict[str, Any]:
            if left[0]:
                left[0] -= 1
                raise ValueError("no")
            return {"log": []}

        graph = chain(node=refunds(30, 30, 30), fails=fails)
        run = await world.start(job(graph, {"node": Policy(tools=[refund], budgets=[PER_RUN])}))
        await world.engine.replay(run.run_id, by="olga", from_start=True)
        assert (await run.go_on()).state is RunState.COMPLETED
        assert await used(world) == {"job / node · outside.refund amount": 90}
        assert done(world) == 3


class TestAPerson:
    async def test_may_let_a_call_go_over_the_limit_and_it_counts(self, world: World) -> None:
        run = await world.start(shop(ASKING, node=refunds(60, 60)))
        assert (await run.run()).state is RunState.PENDING_APPROVAL
        review = await the_review(run)
        assert review.arguments == {"amount": "60", "account": "ann", "currency": "EUR"}
        assert "60 of 100 are used" in review.question or "60 of 100 are used" in str(review.evidence)
        assert done(world) == 1

        assert ended(await run.approve()) == (RunState.COMPLETED, Outcome.APPROVED)
        assert done(world) == 2
        assert await used(world) == {"job / node · outside.refund amount": 120}

    async def test_may_refuse_and_nothing_more_is_used(self, world: World) -> None:
        run = await world.start(shop(ASKING, node=refunds(60, 60)))
        assert ended(await run.reject()) == (RunState.COMPLETED, Outcome.REJECTED)
        assert await used(world) == {"job / node · outside.refund amount": 60}

    async def test_is_asked_for_each_call_over_the_limit_also_where_each_call_was_approved(self, world: World) -> None:
        run = await world.start(shop(ASKING, node=refunds(60, 60, 60), policy={"approve_when": always}))
        asked = 0
        while (await run.run()).state is RunState.PENDING_APPROVAL:
            asked += 1
            assert asked < 10
            await run.approve()
        assert (await run.run()).state is RunState.COMPLETED
        assert asked == 5, "three calls, two of them over the limit"
        assert await used(world) == {"job / node · outside.refund amount": 180}

    async def test_cannot_let_a_call_go_over_a_limit_that_denies(self, world: World) -> None:
        hard = Budget("amount", 150, of=refund)
        run = await world.start(shop(ASKING, hard, node=refunds(60, 60, 60)))
        assert (await run.approve()).state is RunState.FAILED
        assert done(world) == 2
        assert [review.state for review in await world.store.reviews()] == [ReviewState.DECIDED]


class TestTomorrow:
    async def test_the_run_waits_for_midnight_and_goes_on_with_the_next_days_budget(self, world: World) -> None:
        run = await world.send(shop(PER_DAY))
        assert await advance(run) is RunState.WAITING
        midnight = midnight_after(world.clock())
        assert (await run.run()).due_at == midnight
        assert done(world) == 3
        assert await run.reviews() == []

        world.clock.pass_until(midnight)
        assert await advance(run) is RunState.COMPLETED
        assert done(world) == 5
        assert [budget.used for budget in await world.store.budgets()] == [60, 90]
        assert len({budget.label for budget in await world.store.budgets()}) == 2

    async def test_runs_beyond_tomorrows_budget_wait_until_the_day_after(self, world: World) -> None:
        workflow = shop(PER_DAY, node=refunds(60))
        runs = [await world.send(workflow if number == 0 else None) for number in range(3)]
        days = []
        for _ in range(3):
            states = [await advance(run) for run in runs]
            days.append(states.count(RunState.COMPLETED))
            world.clock.pass_until(midnight_after(world.clock()))
        assert days == [1, 1, 1]
        assert done(world) == 3

    async def test_a_run_that_waits_can_be_cancelled(self, world: World) -> None:
        run = await world.send(shop(PER_DAY))
        await advance(run)
        await world.engine.cancel(run.run_id, by="olga")
        world.clock.pass_until(midnight_after(world.clock()))
        assert await advance(run) is None
        assert done(world) == 3

    async def test_a_run_whose_worker_died_at_the_limit_waits_as_well(self, world: World) -> None:
        world.provider.troubles = [None, None, Trouble(happens=True)]
        run = await world.crash(await world.send(shop(PER_DAY)))
        await world.due(run)
        assert await advance(run) is RunState.WAITING
        assert (await run.go_on()).state is RunState.COMPLETED
        assert done(world) == 5

    async def test_a_person_asked_beside_it_is_not_kept_waiting(self, world: World) -> None:
        graph: StateGraph[Any, Any, Any, Any] = StateGraph(State)
        graph.add_node("pays", refunds(60, 60))
        graph.add_node("asks", refunds(5, account="bob"))
        for node in ("pays", "asks"):
            graph.add_edge(START, node)
        policies = {
            "pays": Policy(tools=[refund], budgets=[PER_DAY]),
            "asks": Policy(tools=[refund], approve_when=always),
        }
        run = await world.send(job(graph, policies))
        assert await advance(run) is RunState.PENDING_APPROVAL
        assert (await run.run()).due_at == midnight_after(world.clock())
        await world.engine.decide((await the_review(run)).id, says("approve"))
        assert await advance(run) is RunState.WAITING
        assert (await run.go_on()).state is RunState.COMPLETED
        assert [effect.state for effect in await run.effects()] == [EffectState.DONE] * 3
