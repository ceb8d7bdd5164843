"""`check` finds what is wrong with a workflow before it runs, draws the way there, and is quiet about what is well."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from datetime import timedelta
from decimal import Decimal
from typing import Annotated, Any, Literal, TypedDict

import pytest
from langchain.agents import create_agent
from langchain_core.language_models.fake_chat_models import GenericFakeChatModel
from langchain_core.messages import AIMessage
from langchain_core.tools import BaseTool, StructuredTool
from langgraph.graph import END, START, StateGraph
from langgraph.prebuilt import ToolNode
from langgraph.types import Command, Send

from eventwright.graphs.check import UnknownTool, check, checked
from eventwright.graphs.checks.finding import Finding
from eventwright.graphs.judgement import classify
from eventwright.graphs.support import support
from eventwright.graphs.workflow import BadWorkflow, On, Workflow
from eventwright.guardrails.budgets import Budget
from eventwright.guardrails.policy import DeadLetter, Policy, review
from eventwright.guardrails.rules import (
    Rule,
    above,
    always,
    at_most,
    equals,
    from_person,
    from_record,
    matches,
    one_of,
    two_people,
)
from eventwright.sdk import simulate
from eventwright.tools.contract import Role, Undo, tool
from eventwright.tools.langchain_tools import as_langchain, langchain_tool
from eventwright.tools.model_tool import ask_model


class State(TypedDict, total=False):
    order: str
    found: str
    page: str


class Found(TypedDict, total=False):
    found: str


class Page(TypedDict, total=False):
    page: str


# -- tools -------------------------------------------------------------------------------------------------------------


@tool(trusted=True)
async def look_up(email: str) -> dict[str, str]:
    """Look up our own record."""
    return {"email": email}


@tool(trusted=True, sensitive=True)
async def diagnosis(patient: str) -> str:
    """Read what only the doctor may know."""
    return patient


@tool
async def fetch(name: str) -> str:
    """Fetch a page that strangers write."""
    return name


@tool
async def browse(url: Annotated[str, Role.DESTINATION]) -> str:
    """Fetch any address there is."""
    return url


@tool(writes="plain", trusted=True)
async def take_back(payment: Annotated[str, Role.DESTINATION]) -> str:
    """Take a payment back."""
    return payment


@tool(writes="plain", undo=Undo(take_back, lambda _arguments, result: {"payment": result}))
async def pay(
    to: Annotated[str, Role.DESTINATION], amount: Annotated[Decimal, Role.AMOUNT], note: Annotated[str, Role.CONTENT]
) -> str:
    """Pay somebody."""
    return to


@tool(writes="plain")
async def tell_us(text: Annotated[str, Role.CONTENT]) -> str:
    """Write into our own channel."""
    return text


BOUNDED = {pay: {"to": one_of("rent", "power"), "amount": at_most(100)}}

# -- graphs ------------------------------------------------------------------------------------------------------------


async def work(state: State) -> State:
    return {}


async def read_page(state: State) -> Page:
    return {"page": ""}


async def read_found(state: Found) -> Found:
    return {"found": ""}


async def judge(state: State) -> State:
    return {"found": (await classify(state["order"], ["a", "b"])).value}


def to_a_or_b(state: State) -> Literal["a", "b"]:
    return "a"


def to_anywhere(state: State) -> Any:
    return "a"


async def by_command(state: State) -> Command[Literal["a", "b"]]:
    return Command(goto="a")


async def steer(state: State) -> Any:
    return Command(goto="a")


def build(edges: str, nodes: Mapping[str, Any], routers: Mapping[str, Any] | None = None) -> StateGraph[Any]:
    """A graph from edges as they are drawn, `START>a a>b`; a router leads on from the node that it is named after."""
    graph: StateGraph[Any] = StateGraph(State)
    for name, node in nodes.items():
        graph.add_node(name, node)
    for edge in edges.split():
        source, target = ({"START": START, "END": END}.get(end, end) for end in edge.split(">"))
        graph.add_edge(source, target)
    for source, router in (routers or {}).items():
        graph.add_conditional_edges(source, router)
    return graph


def flow(graph: StateGraph[Any], *, trusted: bool = False, **rest: Any) -> Workflow:
    """A workflow; keywords that are no field of it are policies of nodes."""
    fields = {name: rest.pop(name) for name in ("budgets", "must_approve") if name in rest}
    return Workflow(
        "trial", version="1", graph=graph, triggers=[On("order.made", trusted=trusted)], policies=rest, **fields
    )


def one(node: Any = work, **policy: Any) -> Workflow:
    """A workflow of one node, which reads what a stranger sent."""
    return flow(build("START>act act>END", {"act": node}), act=Policy(**policy))


def found(workflow: Workflow, **options: Any) -> list[tuple[str, str | None]]:
    return [(str(finding.kind), finding.node) for finding in check(workflow, **options)]


def only(workflow: Workflow, **options: Any) -> Finding:
    (finding,) = check(workflow, **options)
    return finding


class TestShippedWorkflows:
    def test_nothing_is_wrong_with_them(self) -> None:
        assert check(support) == []

    def test_what_is_well_is_told_in_one_line(self) -> None:
        summary = checked(support).summary
        assert "3 writes, each bounded: payments.refund at refund by rules, at repeat_refund by a person" in summary

    def test_a_rule_that_is_taken_away_is_missed(self) -> None:
        findings = check(support.with_policy("send_reply", rules={}))
        assert [(finding.kind, finding.node) for finding in findings] == [
            ("unbounded_write", "send_reply"),
            ("rule_of_two", "send_reply"),
        ]
        assert findings[0].drawn == "START → classify → assess → ?look_up_account → ?draft_reply → send_reply"


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
        assert check(flow(graph, trusted=True, look=Policy(tools=[fetch]), act=Policy(tools=[tell_us, pay]))) == [
            *check(flow(graph, trusted=True, act=Policy(tools=[tell_us, pay])))
        ]

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
            (review(allowed=["respond", "reject"]), "offers respond and reject"),
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
        finding = only(one(judge, min_confidence=0.5, otherwise=review(allowed=["edit", "reject"])))
        assert "allowed= offers edit and reject" in finding.message
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

    def test_an_agent_is_a_loop(self) -> None:
        agent = create_agent(GenericFakeChatModel(messages=iter([AIMessage("done")])), [as_langchain(look_up)])
        finding = only(one(agent, tools=[look_up]))
        assert (finding.kind, finding.node) == ("endless_loop", "act")
        assert finding.drawn == "START → act → act:model → ?act:tools → ?act:model"
        assert check(one(agent, tools=[look_up], budgets=[Budget("calls", 9)])) == []


def to_c(state: State) -> Literal["c", "__end__"]:
    return "c"


def to_b(state: State) -> Literal["b"]:
    return "b"


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

    def test_links_to_what_is_no_host(self) -> None:
        assert "links= names 'https://example.org'" in only(one(tools=[tell_us], links=["https://example.org"])).message
        assert check(one(tools=[tell_us], links=["example.org", "müller.example"])) == []

    def test_a_rule_for_an_argument_of_a_read_is_well(self) -> None:
        assert check(one(tools=[look_up], rules={look_up: {"email": matches(".*@example.org")}})) == []


class TestProof:
    def test_a_tool_that_nobody_names_proves_nothing(self) -> None:
        with pytest.raises(UnknownTool, match=r"names a tool 'test_check.paj'; they name: .*test_check.pay"):
            check(one(tools=[pay]), approved=["test_check.paj"])

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


def sneaking(node: str) -> Any:
    return Command(goto=node)
