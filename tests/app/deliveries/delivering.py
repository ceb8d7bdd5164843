"""What the tests of the log of webhooks share: a workflow that listens, deliveries, and what the API says of them."""

from __future__ import annotations

import json
from collections.abc import Callable
from contextlib import AbstractAsyncContextManager
from datetime import UTC, datetime
from typing import Any, TypedDict

import httpx
import pytest
from langgraph.graph import START, StateGraph
from pydantic import BaseModel
from tests.senders import SENDERS, SLACK_BUTTON, STANDARD, Sender, dumped, named

from eventwright.app.composition import App
from eventwright.graphs.workflow import On, Workflow

Opened = Callable[..., AbstractAsyncContextManager[App]]
ClientOf = Callable[..., httpx.AsyncClient]
each_sender = pytest.mark.parametrize("sender", SENDERS, ids=named)


class Heard(TypedDict, total=False):
    id: str


class Numbered(BaseModel):
    id: int


class Lettered(BaseModel):
    id: str


def listening(payload: type[BaseModel] | None = None) -> Workflow:
    """A workflow that every sender's event starts; with a model, Standard Webhooks' data must fit it."""
    graph = StateGraph(Heard)
    graph.add_node("listen", lambda state: {})
    graph.add_edge(START, "listen")
    models = {STANDARD.type: {"1": payload}} if payload is not None else {}
    triggers = [
        On(name, input=lambda *_: {}, **{"payload": models[name]} if name in models else {})
        for name in sorted({sender.type for sender in SENDERS})
    ]
    return Workflow("listening", version="1", graph=graph, triggers=triggers)


async def deliver(client: httpx.AsyncClient, sender: Sender, body: bytes | None = None, **more: str) -> httpx.Response:
    sent = sender.body if body is None else body
    headers = sender.headers(datetime.now(UTC), body=sent) | more
    return await client.post(f"/v1/webhooks/{sender.scheme}", content=sent, headers=headers)


async def logged(client: httpx.AsyncClient, source: str = "", **query: Any) -> list[dict[str, Any]]:
    path = f"/v1/webhooks/{source}/deliveries" if source else "/v1/webhooks/deliveries"
    response = await client.get(path, params=query)
    assert response.status_code == 200, response.text
    items: list[dict[str, Any]] = response.json()["items"]
    return items


async def shown(client: httpx.AsyncClient, delivery: dict[str, Any]) -> dict[str, Any]:
    found: dict[str, Any] = (await client.get(f"/v1/webhooks/deliveries/{delivery['id']}")).json()
    return found


async def replayed(client: httpx.AsyncClient, delivery: dict[str, Any]) -> httpx.Response:
    return await client.post(f"/v1/webhooks/deliveries/{delivery['id']}/replay", headers={"eventwright-actor": "ann"})


def other_content(sender: Sender) -> bytes:
    """What this sender says, under the same id, with something else in it."""
    if sender is SLACK_BUTTON:
        return sender.body.replace(b"review-updates", b"review-upgrades")
    said = json.loads(sender.body)
    (said[0] if isinstance(said, list) else said)["data" if sender is STANDARD else "more"] = {"id": 8}
    return dumped(said)
