"""Tools, nodes and small graphs for the tests of `check`."""

from __future__ import annotations

from collections.abc import Mapping
from decimal import Decimal
from typing import Annotated, Any, Literal, TypedDict

from langgraph.graph import END, START, StateGraph
from langgraph.types import Command

from eventwright.graphs.check import check
from eventwright.graphs.checks.finding import Finding
from eventwright.graphs.judgement import classify
from eventwright.graphs.workflow import On, Workflow
from eventwright.guardrails.policy import Policy
from eventwright.guardrails.rules import (
    at_most,
    one_of,
)
from eventwright.tools.contract import Role, Undo, tool


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
