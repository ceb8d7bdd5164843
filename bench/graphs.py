"""The workflows that the benchmark runs: five trivial nodes with 4 KB of state, and small ones of one node."""

from __future__ import annotations

import asyncio
import operator
import os
import time
from pathlib import Path
from typing import Annotated, Any, TypedDict

from langgraph.graph import START, StateGraph
from langgraph.types import interrupt

from eventwright.graphs.workflow import On, Workflow
from eventwright.guardrails.policy import Policy
from eventwright.guardrails.rules import matches
from eventwright.tools.contract import Call, tool

PAYLOAD = "x" * 4000


class State(TypedDict, total=False):
    log: Annotated[list[str], operator.add]
    payload: str


class Moment(TypedDict, total=False):
    seconds: float
    at: float


async def step(_state: State) -> dict[str, Any]:
    return {"log": ["step"]}


async def question(_state: Moment) -> dict[str, Any]:
    interrupt({"question": "Go on?"})
    return {"at": time.time()}


async def note(_state: Moment) -> dict[str, Any]:
    """Note when the node began."""
    return {"at": time.time()}


async def wait(state: Moment) -> dict[str, Any]:
    """Wait as for a model."""
    await asyncio.sleep(state["seconds"])
    return {"at": time.time()}


@tool(writes="keyed")
async def charge(account: str, call: Call) -> str:
    """Charge an account at a provider that keeps its books in a file: a line for each call that reaches it."""
    line = f"{call.idempotency_key} {account}\n".encode()
    book = os.open(Path(os.environ["EVENTWRIGHT_HOME"]) / "provider.txt", os.O_WRONLY | os.O_CREAT | os.O_APPEND)
    try:
        os.write(book, line)
    finally:
        os.close(book)
    return account


class Charge(TypedDict, total=False):
    account: str
    seconds: float


async def wait_and_charge(state: Charge) -> dict[str, Any]:
    """A write, a long wait, and another write."""
    await charge(f"{state['account']} before")
    await asyncio.sleep(state["seconds"])
    await charge(f"{state['account']} after")
    return {}


def five_nodes() -> StateGraph[Any, Any, Any, Any]:
    """A chain of five nodes that do nothing."""
    graph = StateGraph(State)
    previous = START
    for number in range(5):
        graph.add_node(f"node{number}", step)
        graph.add_edge(previous, f"node{number}")
        previous = f"node{number}"
    return graph


def one_node(node: Any, state: type) -> StateGraph[Any, Any, Any, Any]:
    """A graph of one node."""
    graph = StateGraph(state)
    graph.add_node("node", node)
    graph.add_edge(START, "node")
    return graph


FIVE_NODES = Workflow("five-nodes", version="1", graph=five_nodes(), triggers=[On("five-nodes")])
ONE_QUESTION = Workflow("one-question", version="1", graph=one_node(question, Moment), triggers=[On("one-question")])
NOTED = Workflow("noted", version="1", graph=one_node(note, Moment), triggers=[On("noted")])
WAITING = Workflow("waiting", version="1", graph=one_node(wait, Moment), triggers=[On("waiting")])
CHARGING = Workflow(
    "charging",
    version="1",
    graph=one_node(wait_and_charge, Charge),
    triggers=[On("charging")],
    policies={"node": Policy(tools=[charge], rules={charge: {"account": matches(r"run \d+ (before|after)")}})},
)
