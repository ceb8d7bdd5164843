"""Runs through the HTTP door: reading, waiting, cancelling, replaying."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from itertools import pairwise
from typing import Any

import httpx
import pytest

from eventwright.app.composition import App

WISH = {"account": "ann", "amount": "10.00"}

Sent = Callable[..., Awaitable[str]]
Paused = Callable[..., Awaitable[tuple[str, str]]]


async def dead_letter(app: App, client: httpx.AsyncClient, bank: Any, sent: Sent, name: str = "1") -> str:
    bank.closed = True
    run_id = await sent(client, name, WISH, "refund.urgent")
    await app.engine.advance(run_id)
    return run_id


@pytest.mark.parametrize("verb", ["", "/journal", "/cancel", "/replay"])
@pytest.mark.parametrize("run_id", ["run_0", "%00", "a%20b", "x" * 65])
async def test_a_run_that_does_not_exist_is_a_404(client: httpx.AsyncClient, verb: str, run_id: str):
    method = "GET" if verb in ("", "/journal") else "POST"
    response = await client.request(method, f"/v1/runs/{run_id}{verb}")
    assert (response.status_code, response.headers["content-type"]) == (404, "application/problem+json")


@pytest.mark.parametrize("query", ["state=lost", "limit=0", "limit=201", "limit=x", "cursor=%00", "workflow=a%20b"])
async def test_a_question_that_makes_no_sense_is_a_400_that_names_the_parameter(client: httpx.AsyncClient, query: str):
    response = await client.get(f"/v1/runs?{query}")
    assert (response.status_code, response.headers["content-type"]) == (400, "application/problem+json")
    assert query.partition("=")[0] in response.json()["detail"]


async def test_a_run_that_is_not_failed_cannot_be_replayed(client: httpx.AsyncClient, sent: Sent):
    run_id = await sent(client, "1", WISH)
    response = await client.post(f"/v1/runs/{run_id}/replay")
    assert (response.status_code, response.json()["type"]) == (409, "urn:eventwright:problem:illegal-move")


async def test_a_run_cannot_be_cancelled_twice(client: httpx.AsyncClient, sent: Sent):
    run_id = await sent(client, "1", WISH)
    first, second = [await client.post(f"/v1/runs/{run_id}/cancel") for _ in range(2)]
    assert (first.status_code, first.json()["state"]) == (202, "cancelled")
    assert second.status_code == 409


@pytest.mark.parametrize(
    ("body", "status"),
    [
        (b"[]", 400),
        (b'{"from_start": "yes"}', 400),
        (b'{"rename": {"refund": 1}}', 400),
        (b'{"force": true}', 400),
        (b'{"rename": {"refund": "nowhere"}}', 400),
        (b'{"to_version": "9"}', 404),
        (b'{"state": {"remove": ["paid"]}}', 400),
        (b'{"state": {"drop": ["nothing"]}}', 400),
        (b'{"state": {"set": {"nothing": 1}}}', 400),
        (b'{"from_start": NaN}', 400),
        (b" " * (1024 * 1024 + 1), 413),
    ],
)
async def test_a_replay_that_is_not_understood_moves_nothing(
    app: App, client: httpx.AsyncClient, bank: Any, sent: Sent, body: bytes, status: int
):
    run_id = await dead_letter(app, client, bank, sent)
    response = await client.post(f"/v1/runs/{run_id}/replay", content=body)
    assert (response.status_code, response.headers["content-type"]) == (status, "application/problem+json")
    assert (await client.get(f"/v1/runs/{run_id}")).json()["state"] == "failed"


async def test_a_dead_letter_goes_on_once_its_cause_is_mended(
    app: App, client: httpx.AsyncClient, bank: Any, sent: Sent
):
    run_id = await dead_letter(app, client, bank, sent)
    failed = (await client.get(f"/v1/runs/{run_id}")).json()
    assert (failed["state"], failed["reason"]) == ("failed", "not_retryable")
    assert "the bank is closed" in failed["error"]
    bank.closed = False
    response = await client.post(f"/v1/runs/{run_id}/replay", headers={"eventwright-actor": "olga"})
    assert (response.status_code, response.json()["state"]) == (202, "received")
    await app.engine.advance(run_id)
    done = (await client.get(f"/v1/runs/{run_id}")).json()
    assert (done["state"], done["outcome"], done["attempts"]) == ("completed", "auto", 2)
    journal = (await client.get(f"/v1/runs/{run_id}/journal")).json()["items"]
    assert ("olga", "received") in [(entry["actor"], entry["data"].get("to")) for entry in journal]


@pytest.mark.parametrize(
    ("body", "fits"),
    [
        ({}, True),
        ({"reason": "not_retryable", "workflow": "fragile"}, True),
        ({"filter": {"state": "failed", "reason": "not_retryable"}}, True),
        ({"reason": "quarantined"}, False),
        ({"workflow": "refunds"}, False),
    ],
)
async def test_all_dead_letters_that_fit_are_replayed(
    app: App, client: httpx.AsyncClient, bank: Any, sent: Sent, body: dict[str, Any], fits: bool
):
    run_ids = [await dead_letter(app, client, bank, sent, str(number)) for number in range(3)]
    response = await client.post("/v1/runs/replay", json=body)
    assert response.status_code == 202
    assert sorted(response.json()["runs"]) == (run_ids if fits else [])
    left = (await client.get("/v1/runs", params={"state": "failed"})).json()["items"]
    assert len(left) == (0 if fits else 3)


@pytest.mark.parametrize("body", [b"", b"[]", b'{"state": "completed"}', b'{"reason": "bad luck"}', b'{"all": true}'])
async def test_a_replay_of_many_needs_a_filter_that_makes_sense(client: httpx.AsyncClient, body: bytes):
    response = await client.post("/v1/runs/replay", content=body)
    assert (response.status_code, response.headers["content-type"]) == (400, "application/problem+json")


async def test_a_run_shows_its_event_and_its_reviews(client: httpx.AsyncClient, paused: Paused):
    run_id, review_id = await paused(client)
    run = (await client.get(f"/v1/runs/{run_id}")).json()
    assert (run["id"], run["workflow"], run["version"], run["lane"]) == (run_id, "refunds", "1", "default")
    assert (run["state"], run["outcome"], run["reason"], run["attempts"]) == ("pending_approval", None, None, 1)
    assert run["reviews"] == [review_id]
    assert (run["event"]["id"], run["event"]["data"]) == ("1", {"account": "ann", "amount": "120.00"})
    assert run["created_at"] <= run["updated_at"]


async def test_the_pages_of_runs_hold_each_run_once(client: httpx.AsyncClient, sent: Sent):
    sent_ids = [await sent(client, str(number), WISH) for number in range(5)]
    seen: list[str] = []
    cursor: str | None = None
    while True:
        query = {"limit": 2, "state": "received", "workflow": "refunds"} | ({"cursor": cursor} if cursor else {})
        page = (await client.get("/v1/runs", params=query)).json()
        seen += [run["id"] for run in page["items"]]
        cursor = page["next"]
        if cursor is None:
            break
    assert seen == sent_ids[::-1]


async def test_runs_of_several_states_can_be_asked_for(client: httpx.AsyncClient, sent: Sent, paused: Paused):
    await paused(client)
    await sent(client, "2", WISH)
    both = await client.get("/v1/runs?state=received&state=pending_approval")
    none = await client.get("/v1/runs?state=completed&state=failed")
    assert (len(both.json()["items"]), none.json()["items"]) == (2, [])


async def test_the_journal_tells_the_story_in_order(client: httpx.AsyncClient, paused: Paused):
    run_id, _ = await paused(client)
    items = (await client.get(f"/v1/runs/{run_id}/journal")).json()["items"]
    assert [item["seq"] for item in items] == list(range(1, len(items) + 1))
    assert items[0]["data"]["to"] == "received"
    assert "review_opened" in [item["kind"] for item in items]
    assert all(later["prev"] == earlier["hash"] for earlier, later in pairwise(items))


# -- waiting -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("wait", ["-1", "soon", "nan"])
async def test_a_wait_that_is_no_time_is_a_400(client: httpx.AsyncClient, sent: Sent, wait: str):
    run_id = await sent(client, "1", WISH)
    assert (await client.get(f"/v1/runs/{run_id}?wait={wait}")).status_code == 400


async def test_a_wait_ends_when_its_time_is_up(client: httpx.AsyncClient, sent: Sent):
    run_id = await sent(client, "1", WISH)
    assert (await client.get(f"/v1/runs/{run_id}?wait=0.1")).json()["state"] == "received"


async def test_a_wait_holds_until_the_run_is_done(app: App, client: httpx.AsyncClient, sent: Sent):
    run_id = await sent(client, "1", WISH)
    waiting = asyncio.create_task(client.get(f"/v1/runs/{run_id}?wait=inf", timeout=60))
    await app.engine.advance(run_id)
    assert (await waiting).json()["state"] == "completed"


async def test_a_wait_holds_until_somebody_is_asked_and_again_once_that_is_answered(
    app: App, client: httpx.AsyncClient, sent: Sent
):
    run_id = await sent(client, "1", WISH | {"amount": "120.00"})
    waiting = asyncio.create_task(client.get(f"/v1/runs/{run_id}?wait=30", timeout=60))
    await app.engine.advance(run_id)
    (review_id,) = (await waiting).json()["reviews"]
    await client.post(f"/v1/reviews/{review_id}/decision", json={"type": "approve"})
    waiting = asyncio.create_task(client.get(f"/v1/runs/{run_id}?wait=30", timeout=60))
    await app.engine.advance(run_id)
    assert (await waiting).json()["state"] == "completed"


async def test_a_shutdown_does_not_wait_for_those_who_wait(app: App, serving: Any, sent: Sent):
    async with httpx.AsyncClient(timeout=60) as client:
        async with serving(app) as url:
            client.base_url = httpx.URL(url)
            run_id = await sent(client, "1", WISH)
            waiting = asyncio.create_task(client.get(f"/v1/runs/{run_id}?wait=60"))
            await client.get("/healthz")
        assert (await waiting).json()["state"] == "received"


async def test_a_run_that_waits_for_its_turn_says_for_whom(
    opened: Any, client_of: Any, paying_workflow: Any, sent: Sent
):
    ordered = paying_workflow("ordered", "order.paid", on={"key": "account"})
    async with opened(ordered) as app, client_of(app) as client:
        first, second = [await sent(client, name, WISH, "order.paid") for name in ("1", "2")]
        shown = {run["id"]: run for run in (await client.get("/v1/runs?workflow=ordered")).json()["items"]}
        assert [(shown[run]["serial_key"], shown[run]["waits_for"]) for run in (first, second)] == [
            ("ann", None),
            ("ann", first),
        ]
        await app.engine.advance(first)
        assert (await client.get(f"/v1/runs/{second}")).json()["waits_for"] is None


async def test_an_event_without_its_key_is_a_422_and_is_kept(opened: Any, client_of: Any, paying_workflow: Any):
    ordered = paying_workflow("ordered", "order.paid", on={"key": lambda event: event.data["order"]})
    event = {"specversion": "1.0", "id": "1", "source": "/shop", "type": "order.paid", "data": WISH}
    async with opened(ordered) as app, client_of(app) as client:
        headers = {"content-type": "application/cloudevents+json"}
        answer = await client.post("/v1/events", json=event, headers=headers)
        assert (answer.status_code, answer.json()["type"]) == (422, "urn:eventwright:problem:invalid-payload")
        assert answer.json()["errors"] == [{"at": "<lambda>", "problem": "it raised KeyError: 'order'"}]
        (kept,) = (await client.get("/v1/events?state=refused")).json()["items"]
        assert kept["uid"] == answer.json()["uid"]
