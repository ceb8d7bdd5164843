"""Budgets: what calls may use together, in one run, one day or ever, is never more than that; exceptions first."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Sequence
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from typing import Annotated, Any

import pytest
from langgraph.graph import START, StateGraph
from tests.conformance.world import event
from tests.outside import (
    Provider,
    State,
    Trouble,
    World,
    a_world,
    chain,
    ended,
    job,
    look,
    says,
    the_effect,
    the_review,
)

from eventwright.app.simulate import Simulation
from eventwright.guardrails.budgets import (
    ENDS,
    PERIODS,
    BadBudget,
    Budget,
    Uncountable,
    actual,
    midnight_after,
    reservations,
)
from eventwright.guardrails.policy import Backoff, Policy
from eventwright.guardrails.rules import always
from eventwright.guardrails.verdicts import Denied
from eventwright.runs.records import EffectState, JournalKind, Reservation, ReviewState, Run
from eventwright.runs.states import Outcome, Reason, RunState
from eventwright.tools.contract import Call, NotDone, Role, tool
from eventwright.tools.model_tool import ask_model
from eventwright.tools.models import Estimate

NOON = datetime(2026, 11, 22, 12, tzinfo=UTC)
A_RUN = Run(
    id="run_1",
    workflow="support",
    version="1",
    state=RunState.PROCESSING,
    lane="default",
    event=event(),
    created_at=NOON,
    updated_at=NOON,
)


@tool(writes="keyed", name="outside.refund", trusted=True)
async def refund(
    amount: Annotated[Decimal, Role.AMOUNT],
    account: Annotated[str, Role.DESTINATION] = "ann",
    currency: Annotated[str, Role.DESTINATION] = "EUR",
    *,
    call: Call,
) -> str:
    """Refund something."""
    return await call.use(Provider).do("refund", f"{amount} {currency} {account}", call, repeats=False)


@tool(writes="plain", name="outside.grant", trusted=True)
async def grant(
    points: Annotated[int | float | None, Role.AMOUNT], hours: Annotated[int, Role.AMOUNT], *, call: Call
) -> str:
    """Grant something."""
    return await call.use(Provider).do("grant", f"{points} {hours}", call)


def taken(
    budgets: Sequence[Budget],
    used: Any = refund,
    *,
    node: str | None = "pay",
    estimate: Estimate | None = None,
    now: datetime = NOON,
    run: Run = A_RUN,
    **arguments: Any,
) -> list[tuple[Budget, Reservation]]:
    """What a call of the tool takes of the budgets."""
    given = used.arguments.model_construct(**({"amount": Decimal(1), "account": "a", "currency": "EUR"} | arguments))
    return reservations(budgets, run=run, node=node, tool=used, arguments=given, estimate=estimate, now=now)


def of_one(budget: Budget, **call: Any) -> Reservation:
    [(_, reservation)] = taken([budget], **call)
    return reservation


def weighs(tokens: int, cost: Any, model: str = "gpt") -> Estimate:
    return Estimate(tokens=tokens, cost=None if cost is None else Decimal(cost), currency="EUR", model=model)


class TestDeclarations:
    @pytest.mark.parametrize(
        ("declared", "says"),
        [
            ({"what": "call"}, "'call'.*counts calls, tokens, cost, or an amount of a tool, which of= must name"),
            ({"what": "account", "of": refund}, "marked Role.AMOUNT; outside.refund has: amount"),
            ({"what": "amount", "of": look}, "outside.look has: none"),
            ({"what": "tokens", "of": refund}, "marked Role.AMOUNT; outside.refund has: amount"),
            ({"most": 0}, "most is above 0"),
            ({"most": -3}, "from 0 to below"),
            ({"most": 0.5}, "a string like '12.50', not 0.5"),
            ({"most": True}, "not True"),
            ({"most": "many"}, "most='many' is no number"),
            ({"most": "Infinity"}, "most='Infinity'"),
            ({"most": 10**15}, "from 0 to below"),
            ({"most": "2.5"}, "calls are whole"),
            ({"per": "week"}, "per= is one of run, workflow, day, not 'week'"),
            ({"then": "ignore"}, "then= is one of deny, person"),
            ({"then": "tomorrow"}, "needs per='day'"),
            ({"then": "fallback"}, "is for budgets that count models"),
            ({"what": "amount", "of": refund, "then": "cheaper"}, "is for budgets that count models"),
            ({"by": "account"}, "'account' is none; say which tool's with of="),
            ({"by": ("account", "colour"), "of": refund}, "'colour' is none; outside.refund has: amount, account"),
            ({"of": "refund"}, "of= is a tool made by @tool, not 'refund'"),
        ],
    )
    def test_that_contradict_themselves_are_refused_with_what_would_do(
        self, declared: dict[str, Any], says: str
    ) -> None:
        given: dict[str, Any] = {"what": "calls", "most": 3} | declared
        with pytest.raises(BadBudget, match=says):
            Budget(**given)

    def test_that_make_sense_say_what_they_allow(self) -> None:
        daily = Budget("amount", "500.00", per="day", of=refund, by=("account", "currency"), then="tomorrow")
        assert daily.describe() == (
            "at most 500.00 outside.refund amount per day (UTC), for each account and currency; "
            "then the run waits until the next day"
        )
        assert Budget("cost", "0.25", then="fallback").describe() == (
            "at most 0.25 cost per run; then prepared content stands in for the model"
        )
        for period in PERIODS:
            for end in ENDS:
                if (end, period == "day") != ("tomorrow", False):
                    assert Budget("tokens", 10, per=period, then=end).describe().endswith(ENDS[end])
        assert Budget("calls", 3, of=ask_model, then="cheaper").counts_models


class TestWhatACallTakes:
    def test_is_unknown_without_a_price_and_the_call_is_refused_with_its_model(self) -> None:
        unknown = weighs(100, None, model="gpt-new")
        with pytest.raises(Uncountable, match="no price for gpt-new"):
            taken([Budget("cost", 1)], ask_model, estimate=unknown)
        with pytest.raises(Uncountable, match="nobody can say how many tokens"):
            taken([Budget("tokens", 1)], ask_model)
        assert of_one(Budget("tokens", 1000), used=ask_model, estimate=unknown).amount == 100

    @pytest.mark.parametrize(
        ("arguments", "says"),
        [
            ({"points": None}, "gives None"),
            ({"points": True}, "gives True"),
            ({"points": "7"}, "gives '7'"),
            ({"points": -1}, "from 0 to below"),
            ({"points": float("nan")}, "from 0 to below"),
            ({"points": 10**400}, "from 0 to below"),
            ({"points": 1e-11}, "steps"),
            ({}, "gives None"),
        ],
    )
    def test_of_an_amount_is_a_number_that_can_be_added_up_or_the_call_is_refused(
        self, arguments: dict[str, Any], says: str
    ) -> None:
        with pytest.raises(Uncountable, match=f"outside.grant points .*{says}"):
            taken([Budget("points", 100, of=grant)], grant, **arguments)

    def test_is_exact(self) -> None:
        points = Budget("points", 100, of=grant)
        for value, amount in {7: "7", 0.1: "0.1", 0: "0", Decimal("0.30"): "0.3"}.items():
            assert of_one(points, used=grant, points=value).amount == Decimal(amount)
        cost = weighs(9, "0.12345678901")
        assert of_one(Budget("cost", 1), used=ask_model, estimate=cost).amount == Decimal("0.1234567891"), "never less"

    def test_is_taken_of_the_budgets_that_count_it_the_harshest_end_first(self) -> None:
        calls = Budget("calls", 9, then="person")
        models, tokens = Budget("calls", 9, of=ask_model, then="cheaper"), Budget("tokens", 9, then="fallback")
        refunds, daily = Budget("amount", 9, of=refund), Budget("calls", 9, per="day", then="tomorrow", of=refund)
        every = [models, tokens, daily, calls, refunds]
        a_call = weighs(1, None)
        assert [budget for budget, _ in taken(every)] == [refunds, calls, daily]
        assert [budget for budget, _ in taken(every, look)] == [calls]
        assert [budget for budget, _ in taken(every, ask_model, estimate=a_call)] == [calls, tokens, models]
        assert {one.amount for _, one in taken([calls, daily])} == {1}
        assert all(one.spent == (budget.what == "calls") for budget, one in taken(every))

    def test_can_be_read_by_an_operator(self) -> None:
        daily = Budget("amount", 500, per="day", of=refund, by=("account", "currency"))
        assert of_one(daily, node=None, account="rec-1").label == (
            "day 2026-11-22 · support · outside.refund amount · account=rec-1 currency=EUR"
        )
        assert of_one(Budget("calls", 5)).label == "run_1 · support / pay · calls"
        assert of_one(Budget("calls", 5, per="workflow"), node=None).label == "all runs · support · calls"
        hostile = of_one(daily, account="x\n\x1b[2J" + "y" * 20_000).label
        assert "\n" not in hostile
        assert len(hostile) < 200

    def test_is_counted_apart_by_day_run_node_tool_and_value(self) -> None:
        def scope(budget: Budget | None = None, **call: Any) -> str:
            return of_one(budget or Budget("amount", 5, per="day", of=refund, by="account"), **call).scope

        other_run = Run(**{**A_RUN.__dict__, "id": "run_2"})
        day, run = Budget("calls", 5, per="day"), Budget("calls", 5)
        apart = [
            scope(),
            scope(account="b"),
            scope(now=NOON + timedelta(hours=12)),
            scope(node="other"),
            scope(node=None),
            scope(day),
            scope(run),
            scope(run, run=other_run),
            scope(Budget("calls", 5, per="workflow")),
            scope(Budget("calls", 5, of=refund)),
            scope(Budget("calls", 5, then="person")),
        ]
        assert len(set(apart)) == len(apart)
        assert scope(day, run=other_run) == scope(day)
        assert scope(Budget("calls", 7, per="day")) == scope(day), "who raises a limit does not begin again"
        assert scope(day, now=datetime(2026, 11, 22, 23, 59, 59, tzinfo=UTC)) == scope(day)
        ahead = (NOON + timedelta(hours=11)).astimezone(datetime.strptime("+0900", "%z").tzinfo)
        assert scope(day, now=ahead) == scope(day), "a day is a day in UTC, wherever the clock stands"

    @pytest.mark.parametrize("spelling", ["REC-1", " rec-1 ", "rec-1\u200b", "ｒｅｃ-1", "rec-1\u2060"])
    def test_a_name_spelled_differently_has_no_budget_of_its_own(self, spelling: str) -> None:
        daily = Budget("amount", 500, per="day", of=refund, by="account")
        assert of_one(daily, account=spelling).scope == of_one(daily, account="rec-1").scope

    def test_a_call_is_the_same_one_whatever_the_day(self) -> None:
        daily = Budget("amount", 500, per="day", of=refund)
        today, tomorrow = of_one(daily), of_one(daily, now=NOON + timedelta(days=1))
        assert today.budget == tomorrow.budget
        assert today.scope != tomorrow.scope

    def test_of_a_models_budget_is_settled_by_what_the_answer_took(self) -> None:
        tokens, cost, calls = Budget("tokens", 1000), Budget("cost", 10), Budget("calls", 3)
        reserved = taken([tokens, cost, calls], ask_model, estimate=weighs(500, 1))
        budgets = {budget.what: one.budget for budget, one in reserved}
        assert actual(reserved, tokens=120, cost=Decimal("0.12345678901")) == {
            budgets["tokens"]: 120,
            budgets["cost"]: Decimal("0.1234567891"),
        }
        assert actual(reserved, tokens=120, cost=None) == {budgets["tokens"]: 120}
        assert actual(reserved, tokens=0, cost=Decimal(0)) == {}, "a provider that does not count leaves the estimate"

    def test_midnight_is_the_next_one_in_utc(self) -> None:
        assert midnight_after(NOON) == datetime(2026, 11, 23, tzinfo=UTC)
        assert midnight_after(datetime(2026, 12, 31, 23, 59, 59, tzinfo=UTC)) == datetime(2027, 1, 1, tzinfo=UTC)
        assert midnight_after(datetime(2026, 11, 22, tzinfo=UTC)) == datetime(2026, 11, 23, tzinfo=UTC)
        ahead = datetime.strptime("2026-11-23T01:00:00+0900", "%Y-%m-%dT%H:%M:%S%z")
        assert midnight_after(ahead) == datetime(2026, 11, 23, tzinfo=UTC)


# -- in a run ----------------------------------------------------------------------------------------------------------


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
