"""Workflows with which something is wrong, for the tests of `eventwright check`."""

from datetime import timedelta
from decimal import Decimal
from typing import Annotated, Any, Literal, TypedDict

from langgraph.graph import END, START, StateGraph

from eventwright.guardrails.budgets import Budget
from eventwright.guardrails.policy import DeadLetter
from eventwright.guardrails.rules import one_of, two_people
from eventwright.sdk import On, Policy, Workflow, above, always, classify, review, tool
from eventwright.tools.contract import Role, Undo


class State(TypedDict, total=False):
    order: str


@tool(writes="plain")
async def call_back(transfer: Annotated[str, Role.DESTINATION]) -> str:
    """Take a transfer back."""
    return transfer


@tool(writes="keyed", undo=Undo(call_back, lambda _arguments, result: {"transfer": result}))
async def transfer(
    to: Annotated[str, Role.DESTINATION], amount: Annotated[Decimal, Role.AMOUNT], note: Annotated[str, Role.CONTENT]
) -> str:
    """Pay somebody."""
    return to


async def look(state: State) -> State:
    return {}


async def pay(state: State) -> State:
    await classify(state["order"], ["a", "b"])
    return {}


def enough(state: State) -> Literal["pay", "__end__"]:
    return "pay"


graph = StateGraph(State)
graph.add_node("look", look)
graph.add_node("pay", pay)
graph.add_edge(START, "look")
graph.add_conditional_edges("look", enough)
graph.add_edge("pay", "look")

unwell = Workflow(
    "unwell",
    version="1",
    graph=graph,
    triggers=[On("order.made")],
    budgets=[Budget("amount", 500, per="day", of=transfer, then="tomorrow")],
    must_approve=[transfer],
    policies={
        "pay": Policy(
            tools=[transfer],
            rules={transfer: {"to": one_of("rent", "power")}},
            approve_when=two_people(above("amount", 50)),
            approval=review("May this be paid?", approvers=["ann"], deadline=timedelta(days=2)),
            min_confidence=0.75,
            fallback="sorry",
            retries={TimeoutError: 3},
            timeout=10,
            budgets=[Budget("calls", 5, of=transfer, by="to")],
            links=["example.org"],
            dead_letter=DeadLetter.UNDO,
        )
    },
)

line: StateGraph[Any, Any, Any, Any] = StateGraph(State)
line.add_node("pay", pay)
line.add_edge(START, "pay")
line.add_edge("pay", END)
wishes = Workflow(
    "wishes",
    version="1",
    graph=line,
    triggers=[On("wish.made")],
    policies={"pay": Policy(tools=[transfer], approve_when=always)},
)
quiet = Workflow("quiet", version="1", graph=line, triggers=[On("quiet.wanted")])
