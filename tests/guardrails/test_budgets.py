"""Budgets as they are declared, and what one call takes of them; refusals first."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from typing import Any

import pytest
from tests.conformance.world import event
from tests.guardrails.amounts import grant, refund
from tests.outside import look

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
from eventwright.guardrails.plan import Plan
from eventwright.runs.records import Reservation, Run
from eventwright.runs.states import RunState
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


def in_order(reserved: Sequence[tuple[Budget, Reservation]]) -> list[Budget]:
    """The budgets as the store looks at them; the first that has too little left decides."""
    return [budget for budget, _ in Plan().taking(reserved).reservations]


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
        assert in_order(taken(every)) == [refunds, calls, daily]
        assert in_order(taken(every, look)) == [calls]
        assert in_order(taken(every, ask_model, estimate=a_call)) == [calls, tokens, models]
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
