"""`check` finds what is wrong with a workflow before it runs, draws the way there, and is quiet about what is well."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import timedelta
from typing import Any, Literal

import pytest
from langgraph.graph import START, StateGraph
from langgraph.types import Command, Send
from tests.graphs.check_shop import (
    BOUNDED,
    Found,
    Page,
    State,
    browse,
    build,
    by_command,
    diagnosis,
    fetch,
    flow,
    found,
    judge,
    look_up,
    one,
    only,
    pay,
    read_found,
    read_page,
    tell_us,
    to_a_or_b,
    to_anywhere,
    work,
)

from eventwright.graphs.check import check, checked
from eventwright.graphs.support import support
from eventwright.graphs.workflow import On, Workflow
from eventwright.guardrails.budgets import Budget
from eventwright.guardrails.policy import Policy, review
from eventwright.guardrails.rules import (
    Rule,
    above,
    always,
    at_most,
    equals,
    matches,
    one_of,
    two_people,
)


class TestShippedWorkflows:
    def test_nothing_is_wrong_with_them(self) -> None:
        assert check(support) == []

    def test_what_is_well_is_told_in_one_line(self) -> None:
        summary = checked(support).summary
        assert "8 writes, each bounded: " in summary
        assert "payments.refund at refund by rules, at repeat_refund by a person" in summary

    def test_a_rule_that_is_taken_away_is_missed(self) -> None:
        findings = check(support.with_policy("send_reply", rules={}))
        assert [(finding.kind, finding.node) for finding in findings] == [
            ("unbounded_write", "send_reply"),
            ("rule_of_two", "send_reply"),
        ] * 3, "one that mails, one that asks, one that writes in Slack"
        assert findings[0].drawn.startswith("START → ?classify → assess → ?look_up_account → ?")
        assert findings[0].drawn.endswith(" → send_reply")


class TestWritesThatUntrustedDataMayChoose:
    def test_the_event_may_choose_who_gets_how_much(self) -> None:
        finding = only(one(tools=[pay]))
        assert (finding.kind, finding.node, finding.drawn) == ("unbounded_write", "act", "START → act")
        assert finding.message == f"the event order.made may choose to and amount of {pay.name}"
        assert finding.advice.endswith("or have every call approved: approve_when=always")

    def test_each_argument_that_is_left_open_is_named(self) -> None:
        finding = only(one(tools=[pay], rules={pay: {"to": equals("rent")}}))
        assert "may choose amount" in finding.message

    @pytest.mark.parametrize(
        "policy",
        [
            {"rules": BOUNDED},
            {"approve_when": always},
            {"approve_when": two_people(always)},
            {"rules": {pay: {"to": equals("rent")}}, "approve_when": above("amount", 50)},
            {"approve_when": Rule("mine", lambda call: call.amount > 50, vouches_for=("to", "amount"))},
        ],
    )
    def test_a_rule_or_an_approval_is_enough(self, policy: dict[str, Any]) -> None:
        assert check(one(tools=[pay], **policy)) == []

    def test_an_approval_that_a_deadline_gives_is_none(self) -> None:
        how = review(deadline=timedelta(hours=1), default="approve")
        assert found(one(tools=[pay], approve_when=always, approval=how)) == [("unbounded_write", "act")]

    def test_content_alone_may_be_untrusted(self) -> None:
        assert check(one(tools=[tell_us])) == []

    def test_events_of_our_own_may_choose(self) -> None:
        assert check(flow(build("START>act", {"act": work}), trusted=True, act=Policy(tools=[pay]))) == []

    def test_one_untrusted_trigger_among_several_is_enough(self) -> None:
        workflow = Workflow(
            "trial",
            version="1",
            graph=build("START>act", {"act": work}),
            triggers=[On("ours", trusted=True), On("theirs")],
            policies={"act": Policy(tools=[pay])},
        )
        assert "the event theirs may choose" in only(workflow).message


class TestPaths:
    def test_a_declared_path_is_drawn_though_a_shorter_one_may_be_there(self) -> None:
        nodes = {"first": work, "second": work, "third": work, "act": work}
        graph = build("START>first first>second second>third third>act", nodes, {"first": to_anywhere})
        finding = only(flow(graph, act=Policy(tools=[pay])))
        assert finding.drawn == "START → first → second → third → act"

    def test_where_there_is_none_the_shortest_is(self) -> None:
        graph = build("START>first first>second", {"first": work, "second": work, "act": work}, {"second": to_anywhere})
        assert only(flow(graph, act=Policy(tools=[pay]))).drawn == "START → first → second → ?act"


class TestWhereUntrustedDataGets:
    """Every trigger is our own here, so that only what tools return is untrusted."""

    def test_it_gets_on_through_the_channel_that_its_node_writes(self) -> None:
        graph = build("START>look look>think think>act", {"look": read_page, "think": work, "act": work})
        finding = only(flow(graph, trusted=True, look=Policy(tools=[fetch]), act=Policy(tools=[pay])))
        assert finding.drawn == "START → look → think → act"
        assert f"what {fetch.name} returned at look may choose" in finding.message

    def test_it_does_not_get_back_before_it_was_read(self) -> None:
        graph = build("START>act act>look", {"look": read_page, "act": work})
        assert check(flow(graph, trusted=True, look=Policy(tools=[fetch]), act=Policy(tools=[pay]))) == []

    def test_it_gets_back_in_a_loop(self) -> None:
        graph = build("START>act act>look", {"look": read_page, "act": work}, {"look": lambda state: "act"})
        workflow = flow(
            graph, trusted=True, budgets=[Budget("calls", 9)], look=Policy(tools=[fetch]), act=Policy(tools=[pay])
        )
        assert found(workflow) == [("unbounded_write", "act")]

    def test_it_does_not_get_into_a_channel_that_the_reader_does_not_read(self) -> None:
        graph = build("START>look look>act", {"look": read_page, "act": read_found})
        assert check(flow(graph, trusted=True, look=Policy(tools=[fetch]), act=Policy(tools=[pay]))) == []

    def test_a_node_that_does_not_say_what_it_writes_writes_everything(self) -> None:
        async def silent(state: State):  # type: ignore[no-untyped-def]
            return {}

        graph = build("START>look look>act", {"look": silent, "act": read_found})
        assert found(flow(graph, trusted=True, look=Policy(tools=[fetch]), act=Policy(tools=[pay]))) == [
            ("unbounded_write", "act")
        ]

    def test_another_tool_of_the_same_node_is_enough(self) -> None:
        graph = build("START>act", {"act": work})
        assert found(flow(graph, trusted=True, act=Policy(tools=[fetch, pay]))) == [("unbounded_write", "act")]
        assert check(flow(graph, trusted=True, act=Policy(tools=[look_up, pay]))) == []

    def test_a_model_makes_nothing_untrusted_and_nothing_trusted(self) -> None:
        graph = build("START>think think>act", {"think": judge, "act": work})
        assert check(flow(graph, trusted=True, act=Policy(tools=[pay]))) == []
        assert found(flow(graph, act=Policy(tools=[pay]))) == [("unbounded_write", "act")]

    def test_it_gets_out_of_a_graph_that_is_a_node(self) -> None:
        inner = build("START>act", {"act": read_page}).compile()
        graph = build("START>agent agent>act", {"agent": inner, "act": work})
        finding = only(flow(graph, trusted=True, agent=Policy(tools=[fetch]), act=Policy(tools=[pay])))
        assert finding.drawn == "START → agent → act"


class TestBranches:
    """The page is untrusted; one of two branches pays."""

    def arms(self, routers: Any = None, edges: str = "", first: Any = work) -> list[tuple[str, str | None]]:
        graph = build(f"START>first {edges}", {"first": first, "a": read_page, "b": work}, routers)
        return found(flow(graph, trusted=True, a=Policy(tools=[fetch]), b=Policy(tools=[pay])))

    def test_a_branch_that_is_taken_instead_sees_nothing_of_the_other(self) -> None:
        assert self.arms({"first": to_a_or_b}) == []

    def test_branches_that_run_together_may_see_each_other_later(self) -> None:
        assert self.arms(edges="first>a first>b") == [("unbounded_write", "b")]

    def test_a_router_that_does_not_say_that_it_takes_one_may_take_both(self) -> None:
        def router(state: State):  # type: ignore[no-untyped-def]
            return ["a", "b"]

        graph = build("START>first", {"first": work, "a": read_page, "b": work})
        graph.add_conditional_edges("first", router, ["a", "b"])
        assert found(flow(graph, trusted=True, a=Policy(tools=[fetch]), b=Policy(tools=[pay]))) == [
            ("unbounded_write", "b")
        ]

    def test_a_command_may_name_both(self) -> None:
        assert self.arms(first=by_command) == [("unbounded_write", "b")]

    def test_a_join_sees_what_both_saw(self) -> None:
        graph = build("START>a START>b", {"a": read_page, "b": work, "c": work})
        graph.add_edge(["a", "b"], "c")
        workflow = flow(graph, trusted=True, a=Policy(tools=[fetch]), c=Policy(tools=[pay]))
        assert only(workflow).drawn == "START → a → c"

    def test_what_a_send_brings_may_be_anything(self) -> None:
        def send(state: State) -> list[Send]:
            return [Send("act", {"found": state["page"]})]

        graph = build("START>look", {"look": read_page, "act": read_found})
        graph.add_conditional_edges("look", send, ["act"])
        assert found(flow(graph, trusted=True, look=Policy(tools=[fetch]), act=Policy(tools=[pay]))) == [
            ("unbounded_write", "act")
        ]

    def test_an_error_handler_is_on_the_way(self) -> None:
        def handle(state: State) -> Command[Literal["act"]]:
            return Command(goto="act")

        graph: StateGraph[Any] = StateGraph(State)
        graph.add_node("look", read_page, error_handler=handle)
        graph.add_node("act", work)
        graph.add_edge(START, "look")
        finding = only(flow(graph, act=Policy(tools=[pay])))
        assert finding.drawn == "START → look → ?__error_handler__look → ?act"


class TestDecisionsOnUntrustedData:
    """What is paid comes from our own records, but whether it is paid a stranger's words decide."""

    def workflow(self, router: Any, ends: Sequence[str], policy: Policy) -> Workflow:
        async def prepare(state: Found) -> Found:
            return {"found": ""}

        graph = StateGraph(State, input_schema=Page)
        graph.add_node("prepare", prepare)
        graph.add_node("act", read_found)
        if "stop" in ends:
            graph.add_node("stop", read_found)
        graph.add_edge(START, "prepare")
        graph.add_conditional_edges("prepare", router, list(ends))
        return flow(graph, act=policy)

    def test_they_must_not_lead_to_a_write_that_nothing_bounds(self) -> None:
        def router(state: Page) -> str:
            return "act"

        finding = only(self.workflow(router, ["act", "stop"], Policy(tools=[pay])))
        assert finding.drawn == "START → prepare → ?act"
        assert f"untrusted data decides whether {pay.name} is called" in finding.message
        assert "router of prepare, on the event order.made" in finding.message

    def test_every_branch_that_is_bounded_is_acceptable(self) -> None:
        def router(state: Page) -> str:
            return "act"

        assert check(self.workflow(router, ["act", "stop"], Policy(tools=[pay], rules=BOUNDED))) == []

    def test_a_decision_on_our_own_data_is_none_of_theirs(self) -> None:
        def router(state: Found) -> str:
            return "act"

        assert check(self.workflow(router, ["act", "stop"], Policy(tools=[pay]))) == []

    def test_what_the_deciding_node_has_just_read_decides_as_well(self) -> None:
        def router(state: Page) -> Literal["act", "stop"]:
            return "act"

        nodes = {"look": read_page, "act": read_found, "stop": read_found}
        graph = build("START>look", nodes, {"look": router})
        finding = only(flow(graph, trusted=True, look=Policy(tools=[fetch]), act=Policy(tools=[pay])))
        assert f"by router of look, on what {fetch.name} returned at look" in finding.message

    def test_a_decision_that_changes_nothing_is_none(self) -> None:
        def router(state: Page) -> str:
            return "act"

        assert check(self.workflow(router, ["act"], Policy(tools=[pay]))) == []


class TestRuleOfTwo:
    def test_a_stranger_a_secret_and_a_way_out_do_not_meet_in_one_node(self) -> None:
        rules = {pay: {"to": matches(".*@example.org"), "amount": at_most(1)}}
        finding = only(one(tools=[diagnosis, pay], rules=rules))
        assert (finding.kind, finding.node) == ("rule_of_two", "act")
        assert f"what {diagnosis.name} returned at act is sensitive" in finding.message

    def test_a_secret_that_was_read_earlier_is_one(self) -> None:
        graph = build("START>look look>act", {"look": work, "act": work})
        rules = {pay: {"to": matches(".*"), "amount": at_most(1)}}
        workflow = flow(graph, look=Policy(tools=[diagnosis]), act=Policy(tools=[pay], rules=rules))
        assert only(workflow).drawn == "START → look → act"

    @pytest.mark.parametrize(
        "policy",
        [
            {"rules": {pay: {"to": equals("us"), "amount": at_most(1)}}},
            {"rules": {pay: {"to": one_of("a", "b") | equals("c"), "amount": at_most(1)}}},
            {"rules": {pay: {"to": matches(".*"), "amount": at_most(1)}}, "approve_when": always},
        ],
    )
    def test_a_destination_that_is_known_or_approved_is_well(self, policy: dict[str, Any]) -> None:
        assert check(one(tools=[diagnosis, pay], **policy)) == []

    def test_two_of_the_three_may_meet(self) -> None:
        rules = {pay: {"to": matches(".*"), "amount": at_most(1)}}
        assert check(one(tools=[pay], rules=rules)) == []
        graph = build("START>act", {"act": work})
        assert check(flow(graph, trusted=True, act=Policy(tools=[diagnosis, pay], rules=rules))) == []

    def test_a_read_that_reaches_any_address_is_a_way_out(self) -> None:
        finding = only(one(tools=[diagnosis, browse]))
        assert finding.kind == "rule_of_two"
        assert "approve_when" not in finding.advice, "nobody is asked about a read"
        assert check(one(tools=[diagnosis, browse], rules={browse: {"url": equals("https://example.org")}})) == []
