"""A small workflow that has everything: a tool of each class, a judgement, an approval, an author's question, branches
beside each other, budgets. What it does outside, a provider writes down that outlives it."""

from __future__ import annotations

import operator
from datetime import timedelta
from decimal import Decimal
from typing import Annotated, Any, TypedDict

from langgraph.graph import END, START, StateGraph
from langgraph.types import interrupt
from tests.faults.books import Provider

from eventwright.graphs.judgement import classify
from eventwright.graphs.workflow import On, Workflow
from eventwright.guardrails.budgets import Budget
from eventwright.guardrails.policy import Backoff, Policy, review
from eventwright.guardrails.rules import always
from eventwright.tools.breaker import ProviderDown
from eventwright.tools.contract import Call, NotDone, Role, tool


@tool(name="errand.look", trusted=True)
async def look(call: Call) -> str:
    """Look how much it is. The first time nobody answers."""
    await call.use(Provider).do("errand.look", call)
    if call.attempt == 1:
        raise NotDone("nobody answers the first time")
    return "12.50"


@tool(writes="keyed", name="errand.hold", trusted=True)
async def hold(call: Call) -> None:
    """Have it put aside."""
    await call.use(Provider).do("errand.hold", call, once=True)


@tool(writes="keyed", name="errand.pay", trusted=True)
async def pay(amount: Annotated[Decimal, Role.AMOUNT], call: Call) -> str:
    """Pay for it."""
    await call.use(Provider).do("errand.pay", call, once=True)
    return f"paid {amount}"


async def booked(what: str, call: Call) -> str | None:
    return what if call.use(Provider).find("errand.book", call.idempotency_key) else None


@tool(writes="verifiable", name="errand.book", verify=booked, trusted=True)
async def book(what: str, call: Call) -> str:
    """Book its delivery, which can be looked up."""
    await call.use(Provider).do("errand.book", call)
    return what


@tool(writes="plain", name="errand.tell", trusted=True)
async def tell(what: str, call: Call) -> None:
    """Tell somebody; nobody can say afterwards whether it was heard."""
    await call.use(Provider).do("errand.tell", call)


@tool(writes="keyed", name="errand.order", trusted=True)
async def order(call: Call) -> None:
    """Order it. Twice the shop is down."""
    shop = call.use(Provider)
    if len(shop.find("errand.down", call.idempotency_key)) < 2:
        await shop.do("errand.down", call)
        raise ProviderDown("the shop is down", providers=("shop",), retry_after=0.0)
    await shop.do("errand.order", call, once=True)


class Errand(TypedDict, total=False):
    text: str
    price: str
    kind: str
    steps: Annotated[list[str], operator.add]


async def ask_price(state: Errand) -> Errand:
    return {"price": await look(), "steps": ["price"]}


async def judge(state: Errand) -> Errand:
    return {"kind": (await classify(state["text"], ["card_delivery", "other"])).value, "steps": ["kind"]}


async def confirm(state: Errand) -> Errand:
    await hold()
    answer = interrupt({"question": f"Shall it be bought for {state['price']}?", "allowed": ["approve", "reject"]})
    return {"steps": [f"confirmed {answer}"]}


async def buy(state: Errand) -> Errand:
    return {"steps": [await pay(Decimal(state["price"]))]}


async def get(state: Errand) -> Errand:
    await order()
    return {"steps": ["ordered"]}


async def deliver(state: Errand) -> Errand:
    return {"steps": [await book(state["kind"])]}


async def cheer(state: Errand) -> Errand:
    await tell(state["kind"])
    return {"steps": ["told"]}


def in_everybody() -> StateGraph[Any, Any, Any, Any]:
    graph: StateGraph[Any, Any, Any, Any] = StateGraph(Errand)
    for name, node in (("ask_price", ask_price), ("judge", judge), ("confirm", confirm), ("buy", buy)):
        graph.add_node(name, node)
    graph.add_node("deliver", deliver)
    graph.add_node("cheer", cheer)
    graph.add_edge(START, "ask_price")
    graph.add_edge(START, "judge")
    graph.add_edge(["ask_price", "judge"], "confirm")
    graph.add_edge("confirm", "buy")
    graph.add_edge("buy", "deliver")
    graph.add_edge("buy", "cheer")
    graph.add_edge("deliver", END)
    graph.add_edge("cheer", END)
    return graph


errand = Workflow(
    "errand",
    version="1",
    graph=in_everybody(),
    triggers=[On("errand", trusted=True)],
    budgets=[Budget("calls", 1000, per="day")],
    policies={
        "ask_price": Policy(tools=[look], retries=2, backoff=Backoff(first=0.01, most=0.01)),
        "judge": Policy(min_confidence=0.8, otherwise=review("What kind of errand is this?")),
        "confirm": Policy(tools=[hold]),
        "buy": Policy(tools=[pay], approve_when=always, budgets=[Budget("amount", "10000", per="day", of=pay)]),
        "deliver": Policy(tools=[book]),
        "cheer": Policy(tools=[tell]),
    },
)

only_buying: StateGraph[Any, Any, Any, Any] = StateGraph(Errand)
only_buying.add_node("buy", buy)
only_buying.add_edge(START, "buy")

#: Nobody answers in time, and the deadline does.
hurry = Workflow(
    "hurry",
    version="1",
    graph=only_buying,
    triggers=[On("hurry", trusted=True)],
    policies={
        "buy": Policy(
            tools=[pay],
            approve_when=always,
            approval=review(deadline=timedelta(seconds=0.2), default="approve"),
        )
    },
)

only_getting: StateGraph[Any, Any, Any, Any] = StateGraph(Errand)
only_getting.add_node("get", get)
only_getting.add_edge(START, "get")

#: A provider is down, and the run waits for it.
outage = Workflow(
    "outage",
    version="1",
    graph=only_getting,
    triggers=[On("outage", trusted=True)],
    policies={"get": Policy(tools=[order], budgets=[Budget("calls", 1000, per="day")])},
)
