"""Small workflows for the tests of the command line; EVENTWRIGHT_WORKFLOWS names this module."""

import asyncio
from decimal import Decimal
from pathlib import Path
from typing import Any, TypedDict

from langgraph.graph import END, START, StateGraph
from langgraph.types import interrupt
from pydantic import BaseModel

from eventwright.sdk import Budget, Call, On, Policy, Workflow, above, review, tool


class Order(BaseModel):
    customer: str
    amount: str


class State(TypedDict, total=False):
    customer: str
    amount: str
    paid: str
    wish: str
    needs: str


@tool(writes="keyed")
async def pay(customer: str, amount: Decimal, *, call: Call) -> str:
    """Pay money back to a customer."""
    return f"{amount} to {customer} as {call.idempotency_key[:6]}"


async def look(state: State) -> dict[str, Any]:
    return {}


async def refund(state: State) -> dict[str, Any]:
    return {"paid": await pay(customer=state["customer"], amount=Decimal(state["amount"]))}


def ask(state: State) -> dict[str, Any]:
    return {"wish": interrupt({"question": "Which colour?", "allowed": ["respond", "reject"]})}


async def nap(state: State) -> dict[str, Any]:
    await asyncio.sleep(3600)
    return {}


def need(state: State) -> dict[str, Any]:
    if not Path(state["needs"]).exists():
        raise RuntimeError(f"{state['needs']} is missing")
    return {}


def in_a_row(**nodes: Any) -> StateGraph[State, None, State, State]:
    graph = StateGraph(State)
    names = list(nodes)
    for name, node in nodes.items():
        graph.add_node(name, node)
    for origin, target in zip([START, *names], [*names, END], strict=True):
        graph.add_edge(origin, target)
    return graph


orders = Workflow(
    "orders",
    version="1",
    graph=in_a_row(look=look, refund=refund),
    triggers=[On("order.returned", payload={"1": Order}, trusted=True)],
    policies={
        "refund": Policy(
            tools=[pay], approve_when=above("amount", 50), approval=review("Pay this back?"), retries=2, timeout=10
        )
    },
    description="Pays money back for what was returned.",
)
gifts = Workflow(
    "gifts",
    version="1",
    graph=in_a_row(refund=refund),
    triggers=[On("gift.wanted", payload={"1": Order}, trusted=True)],
    policies={"refund": Policy(tools=[pay], budgets=[Budget("calls", 2, per="workflow", of=pay, by="customer")])},
)
wishes = Workflow("wishes", version="1", graph=in_a_row(ask=ask), triggers=[On("wish.made", trusted=True)])
fragile = Workflow("fragile", version="1", graph=in_a_row(need=need), triggers=[On("file.needed", trusted=True)])
naps = Workflow("naps", version="1", graph=in_a_row(nap=nap), triggers=[On("nap.wanted", trusted=True)])
