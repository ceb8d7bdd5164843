"""Versions of one workflow, as a deploy after the other would bring them: LETTERS says which ones are loaded."""

import operator
import os
from decimal import Decimal
from typing import Annotated, Any, TypedDict

from langgraph.graph import START, StateGraph
from langgraph.types import interrupt

from eventwright.sdk import On, Workflow


class State(TypedDict, total=False):
    log: Annotated[list[str], operator.add]
    price: str


class NewState(TypedDict, total=False):
    log: Annotated[list[str], operator.add]
    amount: Decimal


def ask(state: Any) -> dict[str, Any]:
    return {"log": [interrupt({"question": "Send it?", "allowed": ["respond", "reject"]})]}


def letters(version: str, node: str, state: Any) -> Workflow:
    graph = StateGraph(state)
    graph.add_node(node, ask)
    graph.add_edge(START, node)
    return Workflow("letters", version=version, graph=graph, triggers=[On("letter.written", trusted=True)])


def in_cents(state: dict[str, Any]) -> dict[str, Any]:
    """A mapping of the state."""
    price = state.pop("price", None)
    return state | ({} if price is None else {"amount": Decimal(price) / 100})


ALL = {
    "1": letters("1", "ask", State),
    "1, renamed": letters("1", "sign", State),
    "2": letters("2", "ask", State),
    "3": letters("3", "ask", NewState),
}
for number, name in enumerate(os.environ.get("LETTERS", "1").split(";")):
    globals()[f"letters_{number}"] = ALL[name]
