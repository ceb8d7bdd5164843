"""A small workflow for tests of what is seen: the model is asked, a person approves above 50, money is paid.

EVENTWRIGHT_WORKFLOWS may name this module.
"""

from __future__ import annotations

import logging
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from decimal import Decimal
from pathlib import Path
from typing import Any, TypedDict

import structlog
from langgraph.graph import END, START, StateGraph
from pydantic import BaseModel

from eventwright.app.composition import App, open_app
from eventwright.app.settings import Settings
from eventwright.graphs.judgement import choose
from eventwright.graphs.workflow import On, Workflow
from eventwright.guardrails.policy import Policy
from eventwright.guardrails.rules import above
from eventwright.runs.event import Event, new_id
from eventwright.runs.records import Decision, DecisionType, Run
from eventwright.runs.states import FINAL, RunState
from eventwright.tools.contract import NotDone, Permanent, tool


class Claim(BaseModel):
    text: str
    account: str = "ann"
    amount: Decimal = Decimal("80.00")


class State(TypedDict, total=False):
    text: str
    account: str
    amount: str
    urgency: str


@tool(writes="keyed", name="bank.pay")
async def pay(account: str, amount: Decimal) -> str:
    """Pay money, unless the account is closed, or the bank too busy."""
    if account == "closed":
        raise Permanent(f"the account of {account} is closed, says ann@example.org")
    if account == "busy":
        raise NotDone("the bank is busy")
    return f"paid {amount}"


async def judge(state: State) -> State:
    logging.getLogger("office").info("a line from a node", extra={"shown": state["text"]})
    structlog.get_logger("office").info("a line by structlog")
    urgency = await choose(state["text"], ["low", "urgent"])
    return {"urgency": urgency.value}


async def settle(state: State) -> State:
    await pay(state["account"], Decimal(state["amount"]))
    return {}


def graph() -> StateGraph[State, None, State, State]:
    whole = StateGraph(State)
    whole.add_node("judge", judge)
    whole.add_node("settle", settle)
    whole.add_edge(START, "judge")
    whole.add_edge("judge", "settle")
    whole.add_edge("settle", END)
    return whole


office = Workflow(
    "office",
    version="1",
    graph=graph(),
    triggers=[On("claim.made", payload={"1": Claim}, trusted=True)],
    policies={"judge": Policy(), "settle": Policy(tools=[pay], approve_when=above("amount", 50), retries=1)},
)


@asynccontextmanager
async def opened(folder: Path, **more: Any) -> AsyncIterator[App]:
    """A process that works when it is told to."""
    settings = Settings(home=folder, redis_url="none")
    async with open_app(settings, workflows=[office], works=True, **more) as app:
        yield app


async def send(app: App, text: str = "it is urgent", *, trace: str | None = None, **data: Any) -> Run:
    """An event comes in; the run that it starts."""
    extensions = {} if trace is None else {"traceparent": trace}
    event = Event(
        id=new_id("event"), source="/test", type="claim.made", data={"text": text} | data, extensions=extensions
    )
    return (await app.engine.receive(event)).runs[0]


async def go_on(app: App, run: Run) -> Run:
    """The run, once it rests and time alone brings it no further."""
    while True:
        await app.engine.advance(run.id)
        run = await app.store.run(run.id)
        if run.state in FINAL or run.state in (RunState.FAILED, RunState.PENDING_APPROVAL, RunState.RETRYING):
            return run


async def approve(app: App, run: Run) -> None:
    """A person says yes."""
    (review,) = await app.store.reviews(run_ids=[run.id])
    await app.engine.decide(review.id, Decision(type=DecisionType.APPROVE, by="dana"))
