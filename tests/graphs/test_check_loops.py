"""`check` on loops: what calls something over and over needs a budget that ends it."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Literal

import pytest
from langchain.agents import create_agent
from langchain_core.language_models.fake_chat_models import GenericFakeChatModel
from langchain_core.messages import AIMessage
from langchain_core.tools import StructuredTool
from langgraph.graph import END
from langgraph.prebuilt import ToolNode
from langgraph.types import Command
from tests.graphs.check_shop import (
    State,
    build,
    by_command,
    flow,
    found,
    judge,
    look_up,
    one,
    only,
    steer,
    to_anywhere,
    work,
)

from eventwright.graphs.check import check
from eventwright.graphs.workflow import Workflow
from eventwright.guardrails.budgets import Budget
from eventwright.guardrails.policy import Policy
from eventwright.tools.langchain_tools import as_langchain, langchain_tool
from eventwright.tools.model_tool import ask_model


def to_c(state: State) -> Literal["c", "__end__"]:
    return "c"


def to_b(state: State) -> Literal["b"]:
    return "b"


class TestLoopsWithoutABudget:
    def loop(self, first: Any = work, *, router: Callable[..., Any] | None = None, **rest: Any) -> Workflow:
        graph = build("START>first first>second", {"first": first, "second": work})
        graph.add_conditional_edges("second", router or (lambda state: "first"), None if router else ["first", END])
        return flow(graph, **rest)

    def test_one_that_calls_a_tool_is_drawn(self) -> None:
        finding = only(self.loop(first=work, **{"second": Policy(tools=[look_up])}))
        assert (finding.kind, finding.node) == ("endless_loop", "second")
        assert finding.drawn == "START → first → second → ?first → second"
        assert f"calls {look_up.name}, and no budget ends it" in finding.message

    def test_one_that_asks_a_model_is_found(self) -> None:
        assert found(self.loop(judge)) == [("endless_loop", "first")]

    def test_one_that_calls_nothing_is_the_graphs_own_matter(self) -> None:
        assert check(self.loop()) == []

    @pytest.mark.parametrize(
        "rest",
        [
            {"budgets": [Budget("calls", 9)]},
            {"budgets": [Budget("calls", 9, of=look_up)]},
            {"second": Policy(tools=[look_up], budgets=[Budget("calls", 9)])},
            {"second": Policy(tools=[look_up], budgets=[Budget("calls", 9, per="day", then="tomorrow")])},
        ],
    )
    def test_a_budget_of_its_calls_ends_it(self, rest: dict[str, Any]) -> None:
        assert check(self.loop(**{"second": Policy(tools=[look_up]), **rest})) == []

    @pytest.mark.parametrize(
        "budget",
        [
            Budget("calls", 9, of=ask_model),
            Budget("calls", 9, of=look_up, by="email"),
            Budget("tokens", 9),
        ],
    )
    def test_a_budget_of_something_else_does_not(self, budget: Budget) -> None:
        policy = Policy(tools=[look_up], budgets=[budget])
        assert found(self.loop(**{"second": policy})) == [("endless_loop", "second")]

    def test_tokens_end_a_loop_of_a_model_and_a_cheaper_one_does_not(self) -> None:
        assert check(self.loop(judge, budgets=[Budget("tokens", 9)])) == []
        assert found(self.loop(judge, budgets=[Budget("tokens", 9, then="cheaper")])) == [("endless_loop", "first")]

    def test_each_loop_needs_one_of_its_own(self) -> None:
        graph = build("START>a a>b b>a", {"a": work, "b": work, "c": work}, {"b": to_c, "c": to_b})
        calls, ended = Policy(tools=[look_up]), Policy(tools=[look_up], budgets=[Budget("calls", 9)])
        assert only(flow(graph, a=ended, b=calls, c=calls)).drawn.endswith("b → ?c → ?b")
        assert check(flow(graph, a=calls, b=ended, c=calls)) == []

    def test_a_router_that_declares_nothing_may_lead_back_and_is_told(self) -> None:
        finding = only(self.loop(router=to_anywhere, **{"second": Policy(tools=[look_up])}))
        assert finding.kind == "endless_loop"
        assert "to_anywhere of second says nowhere where it leads, so it may lead anywhere" in finding.message
        assert "by a Literal" in finding.advice

    def test_a_command_that_declares_nothing_may_lead_back_and_is_told(self) -> None:
        graph = build("START>first first>last", {"first": steer, "last": work})
        finding = only(flow(graph, first=Policy(tools=[look_up])))
        assert "a Command of first says nowhere where it leads" in finding.message
        assert finding.drawn == "START → first → ?first"

    def test_a_graph_that_is_a_node_leads_anywhere_if_it_names_the_graph_around_it(self) -> None:
        async def out(state: State) -> Any:
            return Command(graph=Command.PARENT, goto="last")

        policy = Policy(tools=[look_up])
        inner = build("START>a a>b", {"a": by_command, "b": work}).compile()
        graph = build("START>agent agent>last", {"agent": inner, "last": work})
        assert check(flow(graph, agent=policy)) == []
        graph = build("START>agent agent>last", {"agent": build("START>a", {"a": out}).compile(), "last": work})
        assert "a Command of agent says nowhere where it leads" in only(flow(graph, agent=policy)).message

    def test_a_tool_may_return_a_command(self) -> None:
        def hand_over(name: str) -> Any:
            """Hand over to somebody else."""
            return Command(goto=name)

        handing = StructuredTool.from_function(hand_over, name="hand_over")
        graph = build("START>tools tools>last", {"tools": ToolNode([handing]), "last": work})
        finding = only(flow(graph, tools=Policy(tools=[langchain_tool(handing, reads=True)])))
        assert finding.drawn == "START → tools → ?tools"

    def test_an_agent_is_a_loop(self) -> None:
        agent = create_agent(GenericFakeChatModel(messages=iter([AIMessage("done")])), [as_langchain(look_up)])
        finding = only(one(agent, tools=[look_up]))
        assert (finding.kind, finding.node) == ("endless_loop", "act")
        assert finding.drawn == "START → act → act:model → ?act:tools → ?act:model"
        assert check(one(agent, tools=[look_up], budgets=[Budget("calls", 9)])) == []
