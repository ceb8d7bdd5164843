"""The graphs that the benchmark runs: five trivial nodes with 4 KB of state, and one question."""

from __future__ import annotations

import operator
import time
from typing import Annotated, Any, TypedDict

from langgraph.graph import START, StateGraph
from langgraph.types import interrupt

from eventwright.graphs.workflow import On, Workflow

PAYLOAD = "x" * 4000


class State(TypedDict, total=False):
    log: Annotated[list[str], operator.add]
    payload: str


class Question(TypedDict, total=False):
    resumed_at: float


async def step(_state: State) -> dict[str, Any]:
    return {"log": ["step"]}


async def question(_state: Question) -> dict[str, Any]:
    interrupt({"question": "Go on?"})
    return {"resumed_at": time.time()}


def five_nodes() -> StateGraph[Any, Any, Any, Any]:
    """A chain of five nodes that do nothing."""
    graph = StateGraph(State)
    previous = START
    for number in range(5):
        graph.add_node(f"node{number}", step)
        graph.add_edge(previous, f"node{number}")
        previous = f"node{number}"
    return graph


def one_question() -> StateGraph[Any, Any, Any, Any]:
    """One node that asks, and notes when it went on."""
    graph = StateGraph(Question)
    graph.add_node("question", question)
    graph.add_edge(START, "question")
    return graph


FIVE_NODES = Workflow("five-nodes", version="1", graph=five_nodes(), triggers=[On("five-nodes")])
ONE_QUESTION = Workflow("one-question", version="1", graph=one_question(), triggers=[On("one-question")])
