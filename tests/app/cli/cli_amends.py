"""A workflow for the tests of amends on the command line; EVENTWRIGHT_WORKFLOWS names this module.

It pays, sends a letter that nothing takes back, and fails for good where `fails` is set. Payments above 50 need two
people. A parcel's carrier can be asked whether it was sent.
"""

from decimal import Decimal
from pathlib import Path
from typing import Any, TypedDict

from langgraph.graph import END, START, StateGraph

from eventwright.sdk import Call, On, Permanent, Policy, ToolError, Undo, Workflow, above, review, tool, two_people


class State(TypedDict, total=False):
    customer: str
    amount: str
    fails: bool
    parcels: str


@tool(writes="keyed", name="shop.take_back")
async def take_back(customer: str, *, call: Call) -> str:
    """Take money back."""
    return f"taken back from {customer}"


@tool(
    writes="keyed", name="shop.pay", trusted=True, undo=Undo(take_back, lambda asked, _: {"customer": asked.customer})
)
async def pay(customer: str, amount: Decimal, *, call: Call) -> str:
    """Pay a customer."""
    return f"{amount} to {customer}"


@tool(writes="plain", name="shop.write", trusted=True)
async def write(customer: str, *, call: Call) -> str:
    """Write a letter."""
    return f"a letter to {customer}"


async def carried(parcels: str, *, call: Call) -> str | None:
    return "sent" if call.idempotency_key in Path(parcels).read_text() else None


@tool(writes="verifiable", name="shop.ship", verify=carried)
async def ship(parcels: str, *, call: Call) -> str:
    """Send a parcel, and lose the answer."""
    Path(parcels).write_text(call.idempotency_key)
    raise ToolError("the line broke")


async def pays(state: State) -> dict[str, Any]:
    await pay(state["customer"], Decimal(state["amount"]))
    return {}


async def writes(state: State) -> dict[str, Any]:
    await write(state["customer"])
    return {}


async def ends(state: State) -> dict[str, Any]:
    if state.get("fails"):
        raise Permanent("no luck")
    if state.get("parcels"):
        await ship(state["parcels"])
    return {}


graph = StateGraph(State)
graph.add_node("pays", pays)
graph.add_node("writes", writes)
graph.add_node("ends", ends)
graph.add_edge(START, "pays")
graph.add_edge("pays", "writes")
graph.add_edge("writes", "ends")
graph.add_edge("ends", END)

sagas = Workflow(
    "sagas",
    version="1",
    graph=graph,
    triggers=[On("saga.begun", trusted=True)],
    policies={
        "pays": Policy(tools=[pay], approve_when=two_people(above("amount", 50)), approval=review("Pay this?")),
        "writes": Policy(tools=[write]),
        "ends": Policy(tools=[ship]),
    },
)
