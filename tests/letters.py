"""Workflows of a few letters, as they were and as a deploy makes them, around a run that waits for an answer."""

from __future__ import annotations

import dataclasses
import operator
from decimal import Decimal
from typing import Annotated, Any, TypedDict

from langgraph.graph import START, StateGraph
from langgraph.types import interrupt
from pydantic import BaseModel
from tests.outside import World, chain, job, pay, post

from eventwright.app.simulate import Simulation
from eventwright.graphs.workflow import On, Workflow
from eventwright.guardrails.policy import Policy
from eventwright.runs.states import Reason, RunState

Graph = StateGraph[Any, Any, Any, Any]
STOPPED = (RunState.FAILED, Reason.NEEDS_MIGRATION)


async def first(state: Any) -> dict[str, Any]:
    return {"log": [await post("welcome")]}


async def asks(state: Any) -> dict[str, Any]:
    await post("notice")
    return {"log": [interrupt("pay?")]}


async def last(state: Any) -> dict[str, Any]:
    return {"log": [await pay(Decimal("5"))]}


async def extra(state: Any) -> dict[str, Any]:
    return {"log": [await post("extra")]}


def workflow(graph: Graph, **more: Any) -> Workflow:
    return job(graph, {node: Policy(tools=[post, pay]) for node in graph.nodes}, **more)


def letters(**nodes: Any) -> Workflow:
    return workflow(chain(**nodes))


def usual(**more: Any) -> Workflow:
    """`first`, then `asks`, where runs pause, then `last`."""
    return workflow(chain(first=first, asks=asks, last=last), **more)


async def asks_more(state: Any) -> dict[str, Any]:
    await post("notice")
    return {"log": [interrupt("sure?"), interrupt("pay?")]}


async def asks_nothing(state: Any) -> dict[str, Any]:
    return {"log": ["nobody was asked"]}


async def asks_in_other_words(state: Any) -> dict[str, Any]:
    await post("notice")
    return {"log": [interrupt("shall this be paid?")]}


def stated(fields: dict[str, Any]) -> Workflow:
    graph: Graph = StateGraph(TypedDict("TheState", fields, total=False))  # type: ignore[operator]
    for name, node in {"first": first, "asks": asks, "last": last}.items():
        graph.add_node(name, node)
    graph.add_edge(START, "first")
    graph.add_edge("first", "asks")
    graph.add_edge("asks", "last")
    return workflow(graph)


def untrusted(fields: dict[str, Any]) -> Workflow:
    return dataclasses.replace(stated(fields), triggers=[On("job")])


LOG = Annotated[list[Any], operator.add]


class Demanding(BaseModel):
    log: LOG = []
    n: int = 0
    amount: Decimal


def demanding() -> Workflow:
    graph: Graph = StateGraph(Demanding)
    for name, node in {"first": first, "asks": asks, "last": last}.items():
        graph.add_node(name, node)
    graph.add_edge(START, "first")
    graph.add_edge("first", "asks")
    graph.add_edge("asks", "last")
    return workflow(graph)


def routed(*ends: str) -> Workflow:
    def route(state: Any) -> str:
        return "asks"

    graph: Graph = chain(first=first)
    graph.add_node("asks", asks)
    graph.add_node("last", last)
    for name in set(ends) - {"asks", "last"}:
        graph.add_node(name, extra)
    graph.add_conditional_edges("first", route, list(ends))
    graph.add_edge("asks", "last")
    return workflow(graph)


async def answered(world: World, before: Workflow, after: Workflow) -> Simulation:
    """A run waits in the one graph; then the other is deployed, and somebody answers."""
    run = await world.start(before, {"log": []} if "log" in before.graph.channels else {"n": 1})
    assert (await run.run()).state is RunState.PENDING_APPROVAL
    world.deploy(after)
    run = world.take(run.run_id)
    await run.respond("yes")
    return run
