"""The ways that `check` sees are those that LangGraph goes: random graphs are built, walked and compared."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from contextlib import suppress
from decimal import Decimal
from itertools import pairwise
from typing import Annotated, Any, TypedDict

from hypothesis import given, settings
from hypothesis import strategies as st
from langgraph.errors import GraphRecursionError
from langgraph.graph import END, START, StateGraph
from langgraph.types import Command, Send

from eventwright.graphs.check import check
from eventwright.graphs.checks.ways import COMMAND, Path, Ways
from eventwright.graphs.workflow import On, Workflow
from eventwright.guardrails.policy import Policy
from eventwright.guardrails.rules import Rule, above, always, two_people
from eventwright.tools.contract import Role, tool

NODES = ("a", "b", "c", "d")
EVERYWHERE = (*NODES, END)
#: How a node leads on; `none` does not.
FORMS = ("none", "edges", "router", "open router", "sends", "command", "open command")
#: No graph of four nodes has a longer shortest path.
STEPS = 6


class State(TypedDict, total=False):
    word: str


@tool(writes="plain", trusted=True)
async def pay(to: Annotated[str, Role.DESTINATION], amount: Annotated[Decimal, Role.AMOUNT]) -> str:
    """Pay somebody."""
    return to


#: Of START and each node: how it leads on, and where to.
Shape = Mapping[str, tuple[str, tuple[str, ...]]]
#: Decides where something leads: at which node, who decides, between what.
Choose = Callable[[str, str, tuple[str, ...]], str]

ends = st.lists(st.sampled_from(EVERYWHERE), min_size=1, max_size=3, unique=True).map(tuple)
shapes = st.fixed_dictionaries(
    {START: st.tuples(st.sampled_from(("edges", "router", "open router")), ends)}
    | {node: st.tuples(st.sampled_from(FORMS), ends) for node in NODES}
)
#: Which of several ways a decision takes, one number a decision.
dice = st.lists(st.integers(0, 11), min_size=STEPS, max_size=40)


def built(shape: Shape, choose: Choose, entered: list[str]) -> StateGraph[Any, Any, Any, Any]:
    """The graph of a shape; its nodes tell when they are entered."""
    graph: StateGraph[Any, Any, Any, Any] = StateGraph(State)
    for name in NODES:
        form, targets = shape[name]
        if form == "command":
            graph.add_node(name, commands(name, targets, choose, entered), destinations=targets)
        else:
            open_ended = form == "open command"
            graph.add_node(name, (commands(name, EVERYWHERE, choose, entered) if open_ended else says(name, entered)))
    for name, (form, targets) in shape.items():
        if form == "edges":
            for target in targets:
                graph.add_edge(name, target)
        elif form in ("router", "sends"):
            graph.add_conditional_edges(name, router(name, targets, choose, sends=form == "sends"), list(targets))
        elif form == "open router":
            graph.add_conditional_edges(name, router(name, EVERYWHERE, choose))
    return graph


def says(name: str, entered: list[str]) -> Any:
    def node(state: State) -> Any:
        entered.append(name)
        return {}

    return node


def commands(name: str, targets: tuple[str, ...], choose: Choose, entered: list[str]) -> Any:
    def node(state: State) -> Any:
        entered.append(name)
        return Command(goto=choose(name, COMMAND, targets))

    return node


def router(name: str, targets: tuple[str, ...], choose: Choose, *, sends: bool = False) -> Any:
    def decide(state: State) -> Any:
        target = choose(name, "decide", targets)
        return [Send(target, {"word": ""})] * 2 if sends and target != END else target

    return decide


def walk(shape: Shape, choose: Choose) -> list[str]:
    """The nodes that LangGraph really enters."""
    entered: list[str] = []
    with suppress(GraphRecursionError):
        built(shape, choose, entered).compile().invoke({"word": ""}, {"recursion_limit": STEPS})
    return entered


def by_dice(numbers: list[int]) -> Choose:
    """Decides as the dice fall; when there are no more, for the last way."""
    left = list(numbers)
    return lambda _name, _by, targets: targets[left.pop() % len(targets)] if left else targets[-1]


def along(path: Path) -> Choose:
    """Decides for this path."""
    wanted = {(before.node, stop.exit.by): stop.node for before, stop in pairwise(path) if stop.exit}
    return lambda name, by, targets: wanted.get((name, by), targets[-1])


def is_real(path: Path, shape: Shape) -> bool:
    """Whether it goes by what the graph has, and not by a Command that nobody wrote."""
    anywhere = [stop.exit for stop in path if stop.exit is not None and stop.exit.anywhere]
    return all(shape[way.source][0] in ("open router", "open command") for way in anywhere)


@settings(max_examples=60, deadline=None)
@given(shape=shapes, numbers=dice)
def test_langgraph_enters_no_node_that_the_check_does_not_see_coming(shape: Shape, numbers: list[int]) -> None:
    ways = Ways.of(built(shape, along(()), []))
    entered = walk(shape, by_dice(numbers))
    assert set(entered) <= ways.after(START) - set(ways.strangers)
    for number, node in enumerate(entered):
        together = set(entered[:number]) - ways.before(node)
        assert together <= {node}, f"{node} ran after {together}, which was not expected"


@settings(max_examples=40, deadline=None)
@given(shape=shapes)
def test_langgraph_goes_every_path_that_the_check_draws(shape: Shape) -> None:
    ways = Ways.of(built(shape, along(()), []))
    for node in NODES:
        path = ways.through(START, node)
        assert path[-1].node == node
        if is_real(path, shape):
            assert node in walk(shape, along(path)), f"{[stop.node for stop in path]} was not gone"


@settings(max_examples=60, deadline=None)
@given(
    shape=shapes,
    rules=st.fixed_dictionaries(
        dict.fromkeys(
            NODES,
            st.sampled_from(
                ["no tool", None, always, two_people(always), above("amount", 5), Rule("unsure", lambda call: True)]
            ),
        )
    ),
    numbers=dice,
    amount=st.integers(0, 10),
)
def test_a_proof_holds_on_every_walk_and_a_path_past_it_can_be_gone(
    shape: Shape, rules: dict[str, Any], numbers: list[int], amount: int
) -> None:
    policies = {
        node: Policy(tools=[pay], approve_when=rule) if rule is None or rule != "no tool" else Policy()
        for node, rule in rules.items()
    }

    def asked(node: str, amount: int) -> bool:
        policy = policies[node]
        rule = policy.rule_for(pay)
        arguments = pay.arguments.model_construct(to="me", amount=Decimal(amount))
        return not policy.allows(pay) or (rule is not None and rule.asks(arguments) is not None)

    workflow = Workflow(
        "walks",
        version="1",
        graph=built(shape, along(()), []),
        triggers=[On("walk.wanted", trusted=True)],
        policies=policies,
        must_approve=[pay],
    )
    findings = [finding for finding in check(workflow) if finding.kind == "not_proved"]
    lax = {finding.node for finding in findings}
    for node in walk(shape, by_dice(numbers)):
        assert node in lax or asked(node, amount)
    for finding in findings:
        assert finding.node is not None
        if is_real(finding.path, shape):
            assert finding.node in walk(shape, along(finding.path))
        rule = policies[finding.node].rule_for(pay)
        assert not asked(finding.node, 0) or (rule is not None and rule.name == "unsure"), "in doubt it is not proved"
