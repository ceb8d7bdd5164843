"""`check` on tools without a class, people who cannot be asked, names of nothing."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

import pytest
from langchain.agents import create_agent
from langchain_core.language_models.fake_chat_models import GenericFakeChatModel
from langchain_core.messages import AIMessage
from langchain_core.tools import BaseTool, StructuredTool
from langgraph.prebuilt import ToolNode
from tests.graphs.check_shop import BOUNDED, State, build, flow, found, judge, look_up, one, only, pay, tell_us, work

from eventwright.graphs.check import check
from eventwright.graphs.workflow import Workflow
from eventwright.guardrails.budgets import Budget
from eventwright.guardrails.policy import Policy, review
from eventwright.guardrails.rules import (
    above,
    always,
    at_most,
    equals,
    from_person,
    from_record,
    matches,
    two_people,
)
from eventwright.tools.langchain_tools import as_langchain, langchain_tool
from eventwright.tools.model_tool import ask_model


def plain(name: str) -> str:
    """Do something."""
    return name


def langchain(name: str) -> BaseTool:
    return StructuredTool.from_function(plain, name=name)


class TestToolsWithoutAClass:
    def test_a_tool_node_whose_tool_no_policy_names(self) -> None:
        finding = only(one(ToolNode([langchain("search")])))
        assert (finding.kind, finding.node) == ("no_class", "act")
        assert "langchain_tool(search, reads=True)" in finding.advice

    def test_a_policy_that_wraps_another_tool_of_the_same_name_does_not_count(self) -> None:
        other = langchain_tool(langchain("search"), reads=True)
        assert found(one(ToolNode([langchain("search")]), tools=[other])) == [("no_class", "act")]

    def test_an_agent_says_in_which_of_its_nodes(self) -> None:
        agent = create_agent(GenericFakeChatModel(messages=iter([AIMessage("done")])), [langchain("search")])
        workflow = one(agent, budgets=[Budget("calls", 9)])
        assert "'search' in act:tools" in only(workflow).message

    def test_a_tool_in_the_hands_of_the_nodes_own_code(self) -> None:
        search = langchain("search")

        async def node(state: State) -> State:
            return {"found": await search.ainvoke({"name": ""})}

        finding = only(one(node, tools=[langchain_tool(search, reads=True)]))
        assert finding.kind == "no_class"
        assert "past the gate" in finding.message

    def test_an_agent_that_a_function_runs_by_itself(self) -> None:
        agent = create_agent(GenericFakeChatModel(messages=iter([AIMessage("done")])), [langchain("search")])

        async def node(state: State) -> State:
            return {"found": str(await agent.ainvoke({}))}

        assert found(one(node)) == [("no_class", "act")]

    def test_a_node_may_name_the_graph_that_it_is_in(self) -> None:
        graphs: list[Any] = []

        async def node(state: State) -> State:
            return {"found": str(graphs[0].get_graph())}

        inner = build("START>act", {"act": node}).compile()
        graphs.append(inner)
        assert check(one(inner)) == []

    def test_what_a_policy_names_or_the_gate_sees_is_well(self) -> None:
        search = langchain("search")
        known = langchain_tool(search, reads=True)
        assert check(one(ToolNode([search]), tools=[known])) == []
        assert check(one(ToolNode([as_langchain(look_up)]), tools=[look_up])) == []

        async def node(state: State) -> State:
            return {"found": await as_langchain(look_up).ainvoke({"email": ""})}

        assert check(one(node, tools=[look_up])) == []


class TestApprovalsThatNobodyCanGive:
    @pytest.mark.parametrize(
        ("how", "words"),
        [
            (review(people=2, approvers=["ann"]), "2 different people must agree, and approvers= names 1: ann"),
            (review(people=2, approvers=["Ann ", "ann"]), "names 1: ann"),
            (review(approvers=[" "]), "one person must agree, and approvers= names 0: nobody"),
            (review(allowed=["reject"]), "allowed= offers reject, by which nothing is ever allowed"),
            (review(people=2, allowed=["edit", "reject"]), "offers edit and reject"),
        ],
    )
    def test_each_is_found(self, how: Any, words: str) -> None:
        finding = only(one(tools=[pay], approve_when=always, approval=how))
        assert (finding.kind, finding.node) == ("nobody_can_approve", "act")
        assert words in finding.message

    def test_a_rule_may_want_more_people_than_there_are(self) -> None:
        finding = only(
            one(tools=[pay], rules=BOUNDED, approve_when=two_people(always), approval=review(approvers=["a"]))
        )
        assert "2 different people must agree" in finding.message

    def test_two_people_cannot_be_a_deadline(self) -> None:
        how = review(deadline=timedelta(hours=1), default="approve")
        workflow = one(tools=[pay], rules=BOUNDED, approve_when=two_people(above("amount", 1)), approval=how)
        assert "a deadline that approves is none" in only(workflow).message

    def test_a_model_that_is_unsure_may_have_nobody_to_ask(self) -> None:
        finding = only(one(judge, min_confidence=0.5, otherwise=review(allowed=["reject"])))
        assert "allowed= offers reject" in finding.message
        assert finding.advice == "add approve or respond"

    @pytest.mark.parametrize(
        "how",
        [
            review(people=2, approvers=["ann", "ben"]),
            review(people=2),
            review(allowed=["edit", "reject"]),
            review(deadline=timedelta(hours=1)),
        ],
    )
    def test_who_can_be_satisfied_is_not_found(self, how: Any) -> None:
        assert check(one(tools=[pay], approve_when=always, approval=how)) == []


class TestNamesOfNothing:
    def two(self, rule: Any, first: Policy | None = None) -> Workflow:
        graph = build("START>first first>act act>last", {"first": work, "act": work, "last": work})
        policy = Policy(tools=[pay], rules={pay: {"to": rule, "amount": at_most(1)}})
        return flow(graph, first=first or Policy(tools=[look_up]), act=policy, last=Policy(tools=[look_up]))

    @pytest.mark.parametrize(
        ("rule", "words"),
        [
            (from_record(look_up, "email", at="frist"), "no node is called 'frist'"),
            (from_record(look_up, "email", at="act"), f"the policy of act does not name {look_up.name}"),
            (from_record(look_up, "email", at="last"), "last never runs before act"),
            (from_person("email", at="nobody"), "no node is called 'nobody'"),
            (equals("us") | from_person("email", at="nobody"), "no node is called 'nobody'"),
        ],
    )
    def test_a_rule_that_can_never_be_kept(self, rule: Any, words: str) -> None:
        finding = only(self.two(rule))
        assert (finding.kind, finding.node) == ("names_nothing", "act")
        assert words in finding.message

    def test_a_rule_that_can_be_kept_is_well(self) -> None:
        assert check(self.two(from_record(look_up, "email", at="first") | from_person("email", at="first"))) == []

    def test_an_approval_rule_that_vouches_for_an_argument_that_is_not_there(self) -> None:
        finding = only(one(tools=[pay, tell_us], rules={pay: {"to": equals("us")}}, approve_when=above("amount", 50)))
        assert finding.kind == "names_nothing"
        assert f"vouches for amount of {tell_us.name}, which has: text" in finding.message

    def test_budgets_that_count_nothing(self) -> None:
        budget = Budget("calls", 9, of=pay)
        assert found(one(tools=[look_up], budgets=[budget])) == [("names_nothing", "act")]
        graph = build("START>act", {"act": work})
        assert found(flow(graph, budgets=[budget], act=Policy(tools=[look_up]))) == [("names_nothing", None)]
        assert check(flow(graph, budgets=[Budget("tokens", 9), Budget("calls", 9, of=ask_model)])) == []

    def test_a_budget_that_ends_in_prepared_content_which_nobody_gave(self) -> None:
        budget = Budget("tokens", 9, then="fallback")
        assert found(one(tools=[look_up], budgets=[budget])) == [("names_nothing", "act")]
        assert check(one(tools=[look_up], budgets=[budget], fallback="Thank you.")) == []

    def test_a_rule_for_an_argument_of_a_read_is_well(self) -> None:
        assert check(one(tools=[look_up], rules={look_up: {"email": matches(".*@example.org")}})) == []
