"""Workflows of which one blocks the event loop; EVENTWRIGHT_WORKFLOWS names this module."""

import asyncio
import time
from typing import Any, TypedDict

from langgraph.graph import END, START, StateGraph

from eventwright.sdk import On, Workflow


class State(TypedDict, total=False):
    text: str


async def hog(state: State) -> dict[str, Any]:
    time.sleep(3600)  # careless, which is what the test is about
    return {}


async def nap(state: State) -> dict[str, Any]:
    await asyncio.sleep(0.2)
    return {}


def slow(state: State) -> dict[str, Any]:
    time.sleep(3600)  # in a thread, which nobody can stop
    return {}


def one(name: str, node: Any) -> Workflow:
    graph = StateGraph(State)
    graph.add_node(name, node)
    graph.add_edge(START, name)
    graph.add_edge(name, END)
    return Workflow(name, version="1", graph=graph, triggers=[On(f"{name}.wanted", trusted=True)])


hogs, naps, slows = one("hog", hog), one("nap", nap), one("slow", slow)
