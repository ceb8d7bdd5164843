"""A workflow for the tests of roles on the command line; EVENTWRIGHT_WORKFLOWS names this module."""

from decimal import Decimal
from typing import TypedDict

from langgraph.graph import START, StateGraph

from eventwright.sdk import Call, On, Policy, Workflow, above, review, tool


class State(TypedDict, total=False):
    amount: str


@tool(writes="keyed", name="shop.pay", trusted=True)
async def pay(amount: Decimal, *, call: Call) -> str:
    """Pay."""
    return f"{amount}"


async def pays(state: State) -> State:
    await pay(Decimal(state["amount"]))
    return {}


graph = StateGraph(State)
graph.add_node("pays", pays)
graph.add_edge(START, "pays")
approval = review("May this be paid?", roles=["manager"])
policy = Policy(tools=[pay], approve_when=above("amount", 5), approval=approval)
shop = Workflow("shop", version="1", graph=graph, triggers=[On("wanted", trusted=True)], policies={"pays": policy})
