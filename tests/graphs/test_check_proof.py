"""`check` on what must be approved: a proof, or the way past it."""

from __future__ import annotations

from datetime import timedelta
from decimal import Decimal
from typing import Any

import pytest
from langgraph.types import Command
from tests.graphs.check_shop import BOUNDED, State, build, flow, look_up, one, only, pay, take_back, work

from eventwright.graphs.check import UnknownTool, check, checked
from eventwright.graphs.workflow import BadWorkflow
from eventwright.guardrails.policy import DeadLetter, Policy, review
from eventwright.guardrails.rules import (
    Rule,
    above,
    always,
    two_people,
)
from eventwright.sdk import simulate


def sneaking(node: str) -> Any:
    return Command(goto=node)


class TestProof:
    def test_a_tool_that_nobody_names_proves_nothing(self) -> None:
        with pytest.raises(UnknownTool, match=r"names a tool 'check_shop.paj'; they name: .*check_shop.pay"):
            check(one(tools=[pay]), approved=["check_shop.paj"])

    def test_must_approve_takes_tools(self) -> None:
        with pytest.raises(BadWorkflow, match="must_approve takes tools"):
            flow(build("START>act", {"act": work}), must_approve=["pay"])

    @pytest.mark.parametrize(
        ("policy", "words"),
        [
            ({}, "the policy has no approval rule for it"),
            ({"approve_when": above("amount", 50)}, "whenever the rule 'amount above 50' (version 1) does not ask"),
            ({"approve_when": {}}, "the policy has no approval rule for it"),
            (
                {"approve_when": always, "approval": review(deadline=timedelta(days=1), default="approve")},
                "when nobody answers within 1 day: the deadline approves",
            ),
        ],
    )
    def test_the_way_past_the_approval_is_drawn(self, policy: dict[str, Any], words: str) -> None:
        graph = build("START>first first>a a>b", {"first": work, "a": work, "b": work})
        policies = {"a": Policy(tools=[pay], approve_when=always), "b": Policy(tools=[pay], rules=BOUNDED, **policy)}
        finding = only(flow(graph, trusted=True, **policies), approved=[pay.name])
        assert (finding.kind, finding.node) == ("not_proved", "b")
        assert words in finding.message
        assert finding.drawn == "START → first → a → b"

    @pytest.mark.parametrize("rule", [always, two_people(always), {pay: always}])
    def test_a_rule_that_always_asks_is_a_proof(self, rule: Any) -> None:
        assert (
            check(flow(build("START>a", {"a": work}), must_approve=[pay], a=Policy(tools=[pay], approve_when=rule)))
            == []
        )

    def test_what_is_proved_is_said(self) -> None:
        workflow = flow(build("START>a", {"a": work}), must_approve=[pay], a=Policy(tools=[pay], approve_when=always))
        assert checked(workflow).summary.endswith(f"proved: {pay.name} never without an approval")

    def test_a_rule_that_says_always_asks_even_if_its_test_does_not(self) -> None:
        rule = Rule("never", lambda call: False, always=True)
        assert rule.asks(pay.arguments.model_construct()) is not None

    def test_a_node_that_no_edge_leads_to_may_be_reached_by_a_command(self) -> None:
        graph = build("START>first", {"first": work, "hidden": work})
        finding = only(flow(graph, trusted=True, must_approve=[pay], hidden=Policy(tools=[pay])))
        assert finding.drawn == "START → first → ?hidden"
        assert "no edge leads there, but a Command may" in finding.message

    def test_a_read_is_never_approved(self) -> None:
        graph = build("START>a", {"a": work})
        finding = only(flow(graph, a=Policy(tools=[look_up], approve_when=always)), approved=[look_up.name])
        assert "nobody is asked about a read" in finding.message

    def test_what_undoes_is_called_unasked_when_a_run_fails_for_good(self) -> None:
        policy = Policy(tools=[pay], approve_when=always, dead_letter=DeadLetter.UNDO)
        graph = build("START>a", {"a": work})
        finding = only(flow(graph, a=policy), approved=[take_back.name])
        assert f"takes back {pay.name}" in finding.message
        assert check(flow(graph, a=Policy(tools=[pay], approve_when=always)), approved=[take_back.name]) == []

    async def test_who_finds_a_way_that_nobody_declared_still_asks(self) -> None:
        """The proof counts on the gate, not on the graph: a hidden Command does not get past it."""

        async def sneak(state: State) -> Any:
            return sneaking("hidden")

        async def hidden(state: State) -> State:
            return {"found": await pay("me", Decimal(1_000_000), "now")}

        graph = build("START>first first>last", {"first": sneak, "last": work, "hidden": hidden})
        workflow = flow(graph, trusted=True, must_approve=[pay], hidden=Policy(tools=[pay], approve_when=always))
        assert check(workflow) == []
        async with simulate(workflow, {"order": "1"}) as simulation:
            (asked,) = await simulation.reviews()
            assert (asked.node, asked.kind) == ("hidden", "approval")
