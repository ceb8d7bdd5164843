"""What the tests of the API share: two small workflows, an open App, a client in process, a real server.

`refunds` asks a person when the amount is above 50; `fragile` fails for good while its bank is closed.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from dataclasses import dataclass, field
from decimal import Decimal
from pathlib import Path
from typing import Any, TypedDict

import httpx
import pytest
from langgraph.graph import END, START, StateGraph
from pydantic import BaseModel

from eventwright.app.composition import App, open_app
from eventwright.app.settings import Settings
from eventwright.app.web.api import create_api, serve_api
from eventwright.graphs.workflow import On, Workflow
from eventwright.guardrails.policy import Policy
from eventwright.guardrails.rules import above
from eventwright.tools.contract import Call, Permanent, tool

OpenApp = Callable[..., AbstractAsyncContextManager[App]]
Serving = Callable[..., AbstractAsyncContextManager[str]]
Paused = Callable[..., Awaitable[tuple[str, str]]]


@dataclass
class Bank:
    """The system outside: it pays, once per key, unless it is closed."""

    closed: bool = False
    paid: dict[str, tuple[str, Decimal]] = field(default_factory=dict)


class Wish(BaseModel):
    account: str
    amount: Decimal


class WishState(TypedDict, total=False):
    account: str
    amount: str


@tool(writes="keyed", name="bank.pay")
async def pay(account: str, amount: Decimal, *, call: Call) -> str:
    """Pay money to an account."""
    bank = call.use(Bank)
    if bank.closed:
        raise Permanent("the bank is closed")
    bank.paid[call.idempotency_key] = (account, amount)
    return "paid"


async def refund(state: WishState) -> WishState:
    await pay(state["account"], Decimal(state["amount"]))
    return {}


def paying(name: str, event_type: str, *, on: dict[str, Any] | None = None, **policy: Any) -> Workflow:
    graph = StateGraph(WishState)
    graph.add_node("refund", refund)
    graph.add_edge(START, "refund")
    graph.add_edge("refund", END)
    return Workflow(
        name,
        version="1",
        description="Pays money back",
        graph=graph,
        triggers=[On(event_type, **{"payload": {"1": Wish}, "trusted": True} | (on or {}))],
        policies={"refund": Policy(tools=[pay], **policy)},
    )


@pytest.fixture
def paying_workflow() -> Callable[..., Workflow]:
    """Makes a workflow that pays; `on` are fields of its trigger, other keywords those of its policy."""
    return paying


@pytest.fixture
def bank() -> Bank:
    return Bank()


@pytest.fixture
def opened(tmp_path: Path, sqlite_url: str, bank: Bank) -> OpenApp:
    """Opens an App without Redis, with more workflows if given; the test advances its runs. Keywords are settings."""

    @asynccontextmanager
    async def open_one(*also: Workflow, **settings: Any) -> AsyncIterator[App]:
        values: dict[str, Any] = {"home": tmp_path, "database_url": sqlite_url, "redis_url": "none", "port": 0}
        workflows = [
            paying("refunds", "refund.wanted", approve_when=above("amount", 50)),
            paying("fragile", "refund.urgent"),
            *also,
        ]
        async with open_app(Settings(**values | settings), workflows=workflows, resources=[bank], rings=False) as app:
            yield app

    return open_one


@pytest.fixture
async def app(opened: OpenApp) -> AsyncIterator[App]:
    async with opened() as app:
        yield app


@pytest.fixture
async def client(app: App) -> AsyncIterator[httpx.AsyncClient]:
    """A client of the API in process, without a socket between."""
    async with in_process(app) as client:
        yield client


def in_process(app: App, **options: Any) -> httpx.AsyncClient:
    transport = httpx.ASGITransport(app=create_api(app), raise_app_exceptions=False)
    return httpx.AsyncClient(**{"transport": transport, "base_url": "http://localhost"} | options)


@pytest.fixture
def client_of() -> Callable[..., httpx.AsyncClient]:
    """Makes a client in process for an App; keywords are httpx's."""
    return in_process


@pytest.fixture
def serving() -> Serving:
    """A real server for an App on a free port, and its URL; leaving the block stops it."""

    @asynccontextmanager
    async def serve(app: App, **options: Any) -> AsyncIterator[str]:
        stopping = asyncio.Event()
        ready: asyncio.Future[str] = asyncio.get_running_loop().create_future()
        served = asyncio.create_task(serve_api(app, stopping, on_ready=ready.set_result, **options))
        try:
            await asyncio.wait({served, ready}, return_when=asyncio.FIRST_COMPLETED)
            if served.done():
                served.result()
            yield ready.result()
        finally:
            stopping.set()
            await served

    return serve


@pytest.fixture
def paused(app: App) -> Paused:
    """Sends a wish that needs approval and lets its run go as far as it gets: (run id, review id)."""

    async def pause(client: httpx.AsyncClient, name: str = "1", amount: str = "120.00") -> tuple[str, str]:
        run_id = await send(client, name, {"account": "ann", "amount": amount})
        await app.engine.advance(run_id)
        (review_id,) = (await client.get(f"/v1/runs/{run_id}")).json()["reviews"]
        return run_id, review_id

    return pause


async def send(client: httpx.AsyncClient, name: str, data: Any, event_type: str = "refund.wanted") -> str:
    body = {"specversion": "1.0", "id": name, "source": "/shop", "type": event_type, "data": data}
    response = await client.post("/v1/events", json=body, headers={"content-type": "application/cloudevents+json"})
    assert response.status_code == 202, response.text
    run_id: str = response.json()["events"][0]["runs"][0]["id"]
    return run_id


@pytest.fixture
def sent() -> Callable[..., Awaitable[str]]:
    """Sends one event and returns its run's id."""
    return send
