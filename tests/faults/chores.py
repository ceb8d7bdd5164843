"""Workflows whose tools are of every class and act on a provider that keeps its own ledger, whatever happens to us."""

from __future__ import annotations

import asyncio
import operator
import os
import signal
import time
from collections.abc import Sequence
from datetime import timedelta
from typing import Annotated, TypedDict

from langgraph.graph import END, START, StateGraph
from langgraph.types import Command, Send, interrupt
from tests.faults.books import Provider

from eventwright.graphs.workflow import On, Workflow
from eventwright.guardrails.policy import Backoff, Policy, review
from eventwright.guardrails.rules import always
from eventwright.tools.contract import Call, NotDone, tool


@tool(trusted=True)
async def doze(seconds: float, call: Call) -> None:
    """Sleep, in company."""
    provider = call.use(Provider)
    provider.record("doze", call)
    await asyncio.sleep(seconds)
    provider.record("woke", call)


@tool(writes="keyed", trusted=True)
async def pay(seconds: float, call: Call) -> None:
    """Pay, once for a key."""
    await asyncio.sleep(seconds / 2)
    call.use(Provider).record("pay", call, once=True)
    await asyncio.sleep(seconds / 2)


async def posted(seconds: float, call: Call) -> str | None:
    """Whether it was posted."""
    return "posted" if call.use(Provider).find("post", call.idempotency_key) else None


@tool(writes="verifiable", verify=posted, trusted=True)
async def post(seconds: float, call: Call) -> str:
    """Post something that can be looked up."""
    await asyncio.sleep(seconds / 2)
    call.use(Provider).record("post", call)
    await asyncio.sleep(seconds / 2)
    return "posted"


@tool(writes="plain", trusted=True)
async def shout(seconds: float, call: Call) -> None:
    """Shout; nobody can tell afterwards whether it was heard."""
    await asyncio.sleep(seconds / 2)
    call.use(Provider).record("shout", call)
    await asyncio.sleep(seconds / 2)


@tool(writes="keyed", trusted=True)
async def stumble(call: Call) -> None:
    """Fail the first time."""
    call.use(Provider).record("stumble", call)
    if call.attempt == 1:
        raise NotDone("the first time fails")


@tool
async def hear(call: Call) -> float:
    """Hear what somebody says; nobody knows who."""
    call.use(Provider).record("hear", call)
    return 0.0


class State(TypedDict, total=False):
    seconds: float
    steps: Annotated[list[str], operator.add]


async def nap(state: State) -> State:
    await doze(state["seconds"])
    return {"steps": ["nap"]}


async def overhear(state: State) -> Command:
    return Command(goto=Send("buy", {"seconds": await hear()}))


async def buy(state: State) -> State:
    await pay(state["seconds"])
    return {"steps": ["buy"]}


async def publish(state: State) -> State:
    await post(state["seconds"])
    return {"steps": ["publish"]}


async def cheer(state: State) -> State:
    await shout(state["seconds"])
    return {"steps": ["cheer"]}


async def trip(state: State) -> State:
    await stumble()
    return {"steps": ["trip"]}


async def hog(state: State) -> State:
    await doze(0.0)
    time.sleep(state["seconds"])  # careless, which is what the test is about
    await doze(0.0)
    return {"steps": ["hog"]}


async def ask(state: State) -> State:
    return {"steps": [interrupt(f"Shall it go on after {len(state.get('steps', []))} steps?")]}


async def die(state: State) -> State:
    """What a library written in C does with a broken file."""
    os.kill(os.getpid(), signal.SIGKILL)
    return {}


def in_a_row(**nodes: object) -> StateGraph:
    """A graph of these nodes, one after the other."""
    graph = StateGraph(State)
    for name, node in nodes.items():
        graph.add_node(name, node)
    for before, after in zip((START, *nodes), (*nodes, END), strict=True):
        graph.add_edge(before, after)
    return graph


def workflow(name: str, graph: StateGraph, **policies: Policy) -> Workflow:
    return Workflow(name, version="1", graph=graph, triggers=[On(name, trusted=True)], policies=policies)


def may(*tools: object, **more: object) -> Policy:
    return Policy(tools=list(tools), **more)


naps = workflow("naps", in_a_row(first=nap, second=nap, third=nap), first=may(doze), second=may(doze), third=may(doze))
chores = workflow(
    "chores",
    in_a_row(nap=nap, buy=buy, publish=publish, cheer=cheer),
    nap=may(doze),
    buy=may(pay),
    publish=may(post),
    cheer=may(shout),
)
hogging = workflow("hogging", in_a_row(hog=hog, nap=nap), hog=may(doze), nap=may(doze))
tripping = workflow("tripping", in_a_row(trip=trip), trip=may(stumble, retries=1, backoff=Backoff(first=0.2, most=0.2)))
asking = workflow("asking", in_a_row(buy=buy), buy=may(pay, approve_when=always))
hurrying = workflow(
    "hurrying",
    in_a_row(buy=buy),
    buy=may(pay, approve_when=always, approval=review(deadline=timedelta(seconds=0.5), default="approve")),
)

gossip = in_a_row(nap=nap)
gossip.add_node("overhear", overhear)
gossip.add_node("buy", buy)
gossip.add_edge(START, "overhear")
gossiping = workflow("gossiping", gossip, nap=may(doze), overhear=may(hear), buy=may(pay))

conversing = workflow(
    "conversing", in_a_row(first=ask, buy=buy, second=ask, cheer=cheer), buy=may(pay), cheer=may(shout)
)
often = {"retries": 50, "backoff": Backoff(first=0.2, most=0.5)}
thrifty = workflow("thrifty", in_a_row(nap=nap, buy=buy), nap=may(doze, **often), buy=may(pay, **often))
poison = workflow("poison", in_a_row(nap=nap, die=die), nap=may(doze))

ALL: Sequence[Workflow] = (naps, chores, hogging, tripping, asking, hurrying, gossiping, poison, conversing, thrifty)
