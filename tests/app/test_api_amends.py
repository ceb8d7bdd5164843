"""Several people, taking back and reading back through the HTTP door; exceptions first."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager
from decimal import Decimal
from typing import Any, TypedDict

import httpx
import pytest
from langgraph.graph import START, StateGraph

from eventwright.app.composition import App
from eventwright.app.sending import NotAccepted, send
from eventwright.graphs.workflow import On, Workflow
from eventwright.guardrails.policy import Policy
from eventwright.guardrails.rules import always, two_people
from eventwright.tools.contract import Call, Undo, tool

Opened = Callable[..., AbstractAsyncContextManager[App]]
WISH = {"account": "ann", "amount": "10.00"}


@tool(writes="keyed", name="bank.take_back")
async def take_back(account: str, *, call: Call) -> str:
    """Take money back."""
    return f"back from {account}"


@tool(writes="keyed", name="bank.give", trusted=True, undo=Undo(take_back, lambda asked, _: {"account": asked.account}))
async def give(account: str, amount: Decimal, *, call: Call) -> str:
    """Give money."""
    return "given" + "!" * 5000


class GiftState(TypedDict, total=False):
    account: str
    amount: str


async def gives(state: GiftState) -> GiftState:
    await give(state["account"], Decimal(state["amount"]))
    return {}


def giving() -> Workflow:
    graph = StateGraph(GiftState)
    graph.add_node("gives", gives)
    graph.add_edge(START, "gives")
    trigger = On("given", trusted=True)
    return Workflow("giving", version="1", graph=graph, triggers=[trigger], policies={"gives": Policy(tools=[give])})


@pytest.fixture
def shop(paying_workflow: Callable[..., Workflow]) -> list[Workflow]:
    shared = paying_workflow("shared", "shared.wanted", approve_when=two_people(always))
    return [shared, giving()]


@pytest.fixture
async def door(opened: Opened, client_of: Any, shop: list[Workflow]) -> AsyncIterator[tuple[App, httpx.AsyncClient]]:
    async with opened(*shop) as app, client_of(app) as client:
        yield app, client


def problem(response: httpx.Response) -> tuple[int, str]:
    assert response.headers["content-type"] == "application/problem+json", response.text
    return response.status_code, response.json()["type"].rpartition(":")[2]


async def post(client: httpx.AsyncClient, kind: str, by: str, **more: Any) -> httpx.Response:
    event = {"specversion": "1.0", "id": "1", "source": "/shop", "type": kind, "data": WISH} | more
    headers = {"content-type": "application/cloudevents+json", "eventwright-actor": by}
    return await client.post("/v1/events", json=event, headers=headers)


async def started(client: httpx.AsyncClient, kind: str, by: str = "dana") -> str:
    run_id: str = (await post(client, kind, by)).json()["events"][0]["runs"][0]["id"]
    return run_id


async def approve(client: httpx.AsyncClient, review_id: str, by: str) -> httpx.Response:
    headers = {"eventwright-actor": by}
    return await client.post(f"/v1/reviews/{review_id}/decision", json={"type": "approve"}, headers=headers)


async def test_who_may_not_decide_is_told_so_and_that_somebody_else_must(
    door: tuple[App, httpx.AsyncClient], bank: Any
) -> None:
    app, client = door
    run_id = await started(client, "shared.wanted")
    await app.engine.advance(run_id)
    first, second = (await client.get("/v1/reviews?state=open")).json()["items"]
    assert (first["people"], first["barred"], first["agreed"]) == (2, ["dana"], [])

    requester = await approve(client, first["id"], "Dana")
    assert problem(requester) == (403, "forbidden")
    assert "ask somebody else" in requester.json()["detail"]
    assert (await approve(client, first["id"], "ann")).json()["agreed"] == ["ann"]
    assert problem(await approve(client, second["id"], "ANN")) == (403, "forbidden")
    twice = await approve(client, first["id"], "bob")
    assert problem(twice) == (409, "decided")
    assert second["id"] in twice.json()["detail"]
    assert (await client.get(f"/v1/reviews/{second['id']}")).json()["agreed"] == ["ann"]
    await app.engine.advance(run_id)
    assert bank.paid == {}
    assert (await approve(client, second["id"], "bob")).json()["agreed"] == ["ann", "bob"]
    await app.engine.advance(run_id)
    run = (await client.get(f"/v1/runs/{run_id}")).json()
    assert (run["outcome"], run["event"]["principal"]) == ("approved", "dana")


@pytest.mark.parametrize(
    "forged", [{"type": "eventwright.undo"}, {"type": "EVENTWRIGHT.reconcile"}, {"type": "x", "source": "/eventwright"}]
)
async def test_no_door_takes_an_event_that_only_eventwright_sends(
    door: tuple[App, httpx.AsyncClient], forged: dict[str, str]
) -> None:
    app, client = door
    refused = await post(client, "x", "dana", **forged)
    assert problem(refused) == (403, "forbidden")
    assert "eventwright undo" in refused.json()["detail"]
    with pytest.raises(NotAccepted, match="Eventwright's own"):
        await send(forged["type"], WISH, source=forged.get("source", "/shop"), to=app)
    assert (await client.get("/v1/events")).json()["items"] == []


async def test_what_cannot_be_undone_or_read_back_is_a_conflict_that_says_why(
    door: tuple[App, httpx.AsyncClient],
) -> None:
    _app, client = door
    run_id = await started(client, "given")
    busy = await client.post(f"/v1/runs/{run_id}/undo")
    assert problem(busy) == (409, "illegal-move")
    assert "may still act" in busy.json()["detail"]
    assert problem(await client.post(f"/v1/runs/{run_id}/reconcile")) == (409, "illegal-move")
    assert problem(await client.post("/v1/runs/run_0/undo")) == (404, "not-found")
    assert problem(await client.post("/v1/runs/run_0/reconcile")) == (404, "not-found")
    assert problem(await client.get("/v1/runs/run_0/effects")) == (404, "not-found")
    for body in ({"effects": []}, {"effects": "all"}, {"all": True}):
        assert problem(await client.post(f"/v1/runs/{run_id}/undo", json=body)) == (400, "bad-request")


async def test_what_a_run_did_is_shown_and_taken_back(door: tuple[App, httpx.AsyncClient]) -> None:
    app, client = door
    run_id = await started(client, "given")
    await app.engine.advance(run_id)
    (effect,) = (await client.get(f"/v1/runs/{run_id}/effects")).json()["items"]
    assert (effect["tool"], effect["class"], effect["state"]) == ("bank.give", "keyed", "done")
    assert (effect["arguments"], effect["result"], effect["left_out"]) == (WISH, None, ["result"])
    assert (effect["undo"], effect["undone_by"], effect["obstacle"]) == ("bank.take_back", None, None)

    headers = {"eventwright-actor": "olga"}
    undoing = await client.post(f"/v1/runs/{run_id}/undo", json={"effects": [effect["key"]]}, headers=headers)
    assert undoing.status_code == 202
    assert (undoing.json()["workflow"], undoing.json()["event"]["principal"]) == ("undo", "olga")
    assert (await client.post(f"/v1/runs/{run_id}/undo")).json()["id"] == undoing.json()["id"]
    await app.engine.advance(undoing.json()["id"])
    (undone,) = (await client.get(f"/v1/runs/{run_id}/effects")).json()["items"]
    assert (undone["undone_by"], undone["undone"]) == (undoing.json()["id"], True)
    assert [item["name"] for item in (await client.get("/v1/workflows")).json()["items"]].count("undo") == 0
