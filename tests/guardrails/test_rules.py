"""Rules: what an argument may be, and when people are asked; exceptions first."""

from __future__ import annotations

from datetime import timedelta
from decimal import Decimal
from enum import Enum
from types import SimpleNamespace
from typing import Annotated, Any, Literal

import pytest

from eventwright.guardrails.policy import Policy, review
from eventwright.guardrails.rules import (
    ArgumentRule,
    Ask,
    Facts,
    Record,
    Rule,
    above,
    at_least,
    at_most,
    equals,
    from_person,
    from_record,
    matches,
    one_of,
    two_people,
    unless,
)
from eventwright.tools.contract import Call, Role, tool
from eventwright.tools.crm import find_account
from eventwright.tools.mail import send
from eventwright.tools.payments import refund


class Colour(Enum):
    RED = "red"


def allows(rule: ArgumentRule, value: Any, facts: Facts | None = None) -> bool:
    return rule.allows(value, facts or Facts())


class TestDeclarations:
    def test_nothing_is_one_of_nothing(self) -> None:
        with pytest.raises(ValueError, match="nothing is allowed by default"):
            one_of()

    def test_a_record_of_a_tool_that_is_not_trusted_proves_nothing(self) -> None:
        with pytest.raises(ValueError, match=r"@tool\(trusted=True\)"):
            from_record(send, "to", at="anywhere")

    @pytest.mark.parametrize("make", [above, at_most])
    def test_limits_by_another_argument_name_it(self, make: Any) -> None:
        with pytest.raises(ValueError, match="belong together"):
            make(*(["amount"] if make is above else []), {"EUR": 1})
        with pytest.raises(ValueError, match="belong together"):
            make(*(["amount"] if make is above else []), 1, by="currency")

    def test_a_rule_for_a_tool_or_an_argument_that_is_not_there_is_refused(self) -> None:
        with pytest.raises(ValueError, match="not among the policy's tools"):
            Policy(rules={send: {"to": equals("ann")}})
        with pytest.raises(ValueError, match="has no argument 'cc' to write a rule for; it has: to, subject, body"):
            Policy(tools=[send], rules={send: {"cc": equals("ann")}})

    def test_hosts_are_a_list(self) -> None:
        with pytest.raises(TypeError, match="a list of hosts"):
            Policy(links="example.org")

    def test_several_people_cannot_be_a_deadline(self) -> None:
        with pytest.raises(ValueError, match="a deadline is nobody"):
            review(people=2, deadline=timedelta(days=1), default="approve")
        with pytest.raises(ValueError, match="it cannot be 0"):
            review(people=0)

    def test_an_argument_of_a_write_that_nobody_marked_counts_as_a_destination(self) -> None:
        @tool(writes="plain")
        async def paint(
            wall: str,
            colour: Colour,
            coats: Annotated[int | None, Role.AMOUNT],
            finish: Literal["matt", "gloss"],
            quick: bool,
            note: Annotated[str, Role.CONTENT],
            corners: list[bool],
            *,
            call: Call,
        ) -> None:
            """Paint a wall."""

        assert paint.roles == {
            "wall": Role.DESTINATION,
            "coats": Role.AMOUNT,
            "note": Role.CONTENT,
            "corners": Role.DESTINATION,
        }
        assert Policy(tools=[paint]).unruled(paint) == ["wall", "coats", "corners"]
        assert Policy(tools=[paint], rules={paint: {"wall": equals("north")}}).unruled(paint) == ["coats", "corners"]

    def test_the_names_of_our_models_are_taken(self) -> None:
        with pytest.raises(TypeError, match="taken by our own models"):

            @tool(name="model.ask")
            async def mine(question: str) -> str:
                """Pretend to be the model."""
                return question


class TestArgumentRules:
    @pytest.mark.parametrize(
        ("rule", "good", "bad"),
        [
            (equals("a"), "a", "A"),
            (equals(1), 1, True),
            (one_of("EUR", "GBP"), "GBP", "gbp"),
            (one_of(True), True, 1),
            (at_most(100), Decimal("100.00"), Decimal("100.01")),
            (at_least(1), 1, Decimal("0.99")),
            (matches(r"[a-z]+"), "abc", "abc\n"),
            (matches(r"[a-z]+"), "abc", "1abc"),
        ],
    )
    def test_allow_what_they_say_and_nothing_that_looks_like_it(self, rule: ArgumentRule, good: Any, bad: Any) -> None:
        assert allows(rule, good)
        assert not allows(rule, bad)

    def test_limits_by_currency_allow_nothing_in_a_currency_without_one(self) -> None:
        rule = at_most({"EUR": 100}, by="currency")
        assert allows(rule, Decimal(100), Facts(arguments={"currency": "EUR"}))
        assert not allows(rule, Decimal(1), Facts(arguments={"currency": "USD"}))

    @pytest.mark.parametrize("value", [None, "", "bob@ours.example", ["ann@ours.example"], 0])
    def test_a_record_allows_nothing_but_what_stands_in_it(self, value: Any) -> None:
        facts = Facts(
            records=[
                Record("crm.find_account", "look_up", {"email": "ann@ours.example", "phone": None}),
                Record("crm.find_account", "elsewhere", {"email": "bob@ours.example"}),
                Record("", "look_up", {"email": "bob@ours.example"}),
                Record("crm.find_account", "look_up", None),
            ]
        )
        assert allows(from_record(find_account, "email", at="look_up"), "ann@ours.example", facts)
        assert not allows(from_record(find_account, "email", at="look_up"), value, facts)
        assert not allows(from_record(find_account, "phone", at="look_up"), value, facts)

    def test_a_record_is_searched_through_lists_and_below_names(self) -> None:
        facts = Facts(records=[Record("crm.find_account", "n", [{"owner": {"id": "7"}}, {"owner": {"id": "8"}}])])
        assert allows(from_record(find_account, "owner.id", at="n"), "8", facts)
        assert not allows(from_record(find_account, "owner", at="n"), "8", facts)

    def test_either_of_two_rules_is_enough_and_contains_only_if_both_do(self) -> None:
        person = from_person("to", at="ask")
        either = equals("ann") | person
        assert allows(either, "ann")
        assert allows(either, "bob", Facts(records=[Record("", "ask", {"to": "bob"})]))
        assert not allows(either, "eve")
        assert either.contains
        assert not (equals("ann") | matches(".*")).contains
        assert either.name == "equals ann, or to that a person gave or approved at ask"


class TestApprovalRules:
    def arguments(self, **values: Any) -> Any:
        return SimpleNamespace(**values)

    def test_above_a_limit_by_currency_asks_where_there_is_none(self) -> None:
        rule = above("amount", {"EUR": "99.50"}, by="currency")
        assert rule.asks(self.arguments(amount=Decimal("99.50"), currency="EUR")) is None
        assert rule.asks(self.arguments(amount=Decimal("99.51"), currency="EUR")) == Ask("amount 99.51 is above 99.50")
        assert rule.asks(self.arguments(amount=Decimal(1), currency="XXX")) == Ask("there is no limit for currency XXX")
        assert rule.vouches_for == ("amount", "currency")

    def test_a_rule_may_look_at_records_and_asks_where_an_argument_rule_would_deny(self) -> None:
        rule = unless("to", from_record(find_account, "email", at="look_up"))
        known = Facts(records=[Record("crm.find_account", "look_up", {"email": "ann@ours.example"})])
        assert rule.asks(self.arguments(to="ann@ours.example"), known) is None
        ask = rule.asks(self.arguments(to="eve@evil.example"), known)
        assert ask is not None
        assert ask.reason == "to is not email of what crm.find_account returned at look_up"
        assert rule.asks(self.arguments(to="ann@ours.example")) is not None
        assert rule.vouches_for == ("to",)

    def test_two_people_asks_for_two_when_the_rule_asks_at_all(self) -> None:
        rule = two_people(above("amount", 10))
        assert rule.asks(self.arguments(amount=10)) is None
        assert rule.asks(self.arguments(amount=11)) == Ask("amount 11 is above 10", people=2)
        assert rule.name == "amount above 10, by two people"

    def test_a_test_may_ask_for_as_many_people_as_the_call_is_worth(self) -> None:
        rule = Rule("worth", lambda call: call.amount > 10 and Ask("much", people=3 if call.amount > 100 else 1))
        assert [rule.asks(self.arguments(amount=amount)) for amount in (1, 50, 500)] == [
            None,
            Ask("much", 1),
            Ask("much", 3),
        ]


class TestRetriesByClassOfError:
    def test_the_first_class_that_fits_counts_and_none_means_none(self) -> None:
        policy = Policy(retries={ConnectionError: 5, OSError: 2})
        assert policy.retries_for([ConnectionResetError()]) == 5
        assert policy.retries_for([FileNotFoundError()]) == 2
        assert policy.retries_for([ValueError()]) == 0
        assert policy.retries_for([ConnectionError(), OSError()]) == 2
        assert Policy(retries=3).retries_for([ValueError()]) == 3
        with pytest.raises(ValueError, match="cannot be"):
            Policy(retries={OSError: -1})


def test_the_shipped_writes_say_what_their_arguments_decide() -> None:
    assert send.roles == {"to": Role.DESTINATION, "subject": Role.CONTENT, "body": Role.CONTENT}
    assert refund.roles["account_id"] is Role.DESTINATION
    assert refund.roles["amount"] is Role.AMOUNT
