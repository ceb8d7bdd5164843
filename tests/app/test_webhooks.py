"""Webhooks of each provider through the HTTP door: signed once is one run, anything else is a 401 and is counted."""

from __future__ import annotations

import asyncio
import json
from collections import Counter
from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from functools import partial
from random import Random
from typing import Any, TypedDict

import httpx
import pytest
from langgraph.graph import START, StateGraph
from tests.senders import (
    DATED,
    DEAL_MOVED,
    GITHUB,
    HMAC,
    HUBSPOT,
    SENDERS,
    SHOPIFY,
    SLACK,
    SLACK_BUTTON,
    STANDARD,
    STRIPE,
    URL,
    Sender,
    dumped,
    load,
    named,
    standard_headers,
)

from eventwright.app.composition import App
from eventwright.graphs.workflow import On, Workflow

Opened = Callable[..., AbstractAsyncContextManager[App]]
each_sender = pytest.mark.parametrize("sender", SENDERS, ids=named)


class Heard(TypedDict, total=False):
    id: str


def listening() -> Workflow:
    graph = StateGraph(Heard)
    graph.add_node("listen", lambda state: {})
    graph.add_edge(START, "listen")
    types = sorted({sender.type for sender in SENDERS})
    return Workflow("listening", version="1", graph=graph, triggers=[On(name, input=lambda *_: {}) for name in types])


@pytest.fixture
async def app(opened: Opened, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[App]:
    for sender in SENDERS:
        monkeypatch.setenv(f"EVENTWRIGHT_WEBHOOK_{sender.scheme.upper()}_SECRET", f"b2xkIHNlY3JldA==,{sender.secret}")
    monkeypatch.setenv("EVENTWRIGHT_WEBHOOK_HUBSPOT_URL", URL)
    monkeypatch.setenv("EVENTWRIGHT_WEBHOOK_HMAC_SCHEME", "hmac")
    async with opened(listening()) as app:
        yield app


async def deliver(
    client: httpx.AsyncClient, sender: Sender, *, at: datetime | None = None, source: str = "", **request: Any
) -> httpx.Response:
    body = request.pop("body", sender.body)
    headers = sender.headers(at or datetime.now(UTC), body=body) | request.pop("headers", {})
    return await client.post(f"/v1/webhooks/{source or sender.scheme}", content=body, headers=headers)


async def runs(client: httpx.AsyncClient) -> list[str]:
    return [run["id"] for run in (await client.get("/v1/runs")).json()["items"]]


async def refusals(client: httpx.AsyncClient, source: str) -> float:
    text = (await client.get("/metrics")).text
    name = f'eventwright_webhooks_refused_total{{source="{source}"}}'
    return sum(float(line.split()[-1]) for line in text.splitlines() if line.startswith(name))


@each_sender
async def test_a_wrong_signature_is_a_401_without_a_reason_and_is_counted(client: httpx.AsyncClient, sender: Sender):
    for changed in (sender.body + b" ", b"", b"\xff", b"x" * 100_000):
        headers = sender.headers(datetime.now(UTC))
        response = await client.post(f"/v1/webhooks/{sender.scheme}", content=changed, headers=headers)
        assert response.status_code == 401
        assert response.json().keys() == {"type", "title", "status", "instance"}
    assert (await client.get("/v1/events")).json()["items"] == []
    assert await refusals(client, sender.scheme) == 4


@pytest.mark.parametrize("sender", DATED, ids=named)
@pytest.mark.parametrize("minutes", [-6, 6])
async def test_a_time_outside_five_minutes_is_a_401(client: httpx.AsyncClient, sender: Sender, minutes: int):
    response = await deliver(client, sender, at=datetime.now(UTC) + timedelta(minutes=minutes))
    assert response.status_code == 401
    assert await refusals(client, sender.scheme) == 1


@each_sender
async def test_a_header_that_is_strange_absent_or_there_twice_is_a_401(client: httpx.AsyncClient, sender: Sender):
    signing = sender.sign(sender.body, datetime.now(UTC), sender.secret)
    for name, value in signing.items():
        others = [(key, text) for key, text in (dict(sender.also) | signing).items() if key != name]
        for strange in ([], [(name, value)] * 2, [(name, "ä".encode())], [(name, "x" * 30_000)], [(name, "")]):
            headers = [
                (key.encode(), text if isinstance(text, bytes) else text.encode()) for key, text in others + strange
            ]
            response = await client.post(f"/v1/webhooks/{sender.scheme}", content=sender.body, headers=headers)
            assert response.status_code == 401, (name, strange)


async def test_a_source_that_the_settings_do_not_know_is_a_401_and_counted_without_its_name(client: httpx.AsyncClient):
    assert (await deliver(client, STRIPE, source="stranger")).status_code == 401
    assert await refusals(client, "unknown") == 1
    assert "stranger" not in (await client.get("/metrics")).text


@each_sender
async def test_a_signed_delivery_is_one_run_however_often_it_comes(client: httpx.AsyncClient, sender: Sender):
    answers = [await deliver(client, sender, at=datetime.now(UTC) - timedelta(seconds=age)) for age in (2, 1, 0)]
    assert {answer.status_code for answer in answers} == {200 if sender is SLACK_BUTTON else 202}
    (run,) = await runs(client)
    if sender is not SLACK_BUTTON:
        told = [answer.json()["events"][0] for answer in answers]
        assert [event["duplicate"] for event in told] == [False, True, True]
        assert {(event["id"], event["runs"][0]["id"]) for event in told} == {(sender.id, run)}


@each_sender
async def test_an_event_that_is_delivered_often_out_of_order_and_at_the_same_time_is_one_run(
    opened: Opened, client_of: Callable[..., httpx.AsyncClient], app: App, database_url: str, sender: Sender
):
    """Each of twelve events comes one to five times, by way of two processes."""
    chance = Random(sender.scheme)
    told = [numbered(sender, number) for number in range(12)]
    sent = [one for one in told for _ in range(chance.randint(1, 5))]
    chance.shuffle(sent)
    settings = {"database_url": database_url}
    async with (
        opened(listening(), **settings) as here,
        opened(listening(), **settings) as there,
        client_of(here) as first,
        client_of(there) as second,
    ):

        async def arrive(one: Sender) -> httpx.Response:
            at = datetime.now(UTC) - timedelta(seconds=chance.randint(0, 200))
            return await deliver(chance.choice([first, second]), one, at=at)

        answers = await asyncio.gather(*map(arrive, sent))
        assert {answer.status_code for answer in answers} == {200 if sender is SLACK_BUTTON else 202}
        events = (await first.get("/v1/events", params={"limit": 200})).json()["items"]
        assert len(await runs(second)) == len(events) == len(told)
        assert {len(event["runs"]) for event in events} == {1}
        log = (await first.get("/v1/webhooks/deliveries", params={"limit": 200})).json()["items"]
    outcomes = Counter(one["outcome"] for one in log)
    assert outcomes == {"accepted": len(told), "duplicate": len(sent) - len(told)}


def numbered(sender: Sender, number: int) -> Sender:
    """The sender with another thing that it tells, under an id of its own."""
    if sender is SLACK_BUTTON:
        return replace(sender, body=sender.body.replace(b"12321423423", b"%d" % number))
    if sender in (GITHUB, SHOPIFY):
        name = "X-GitHub-Delivery" if sender is GITHUB else "X-Shopify-Webhook-Id"
        return replace(sender, also=dict(sender.also) | {name: f"delivery-{number}"})
    if sender is STANDARD:
        return replace(sender, sign=partial(standard_headers, name=f"msg_{number}"))
    said = json.loads(sender.body)
    name = {"hubspot": "eventId", "slack": "event_id"}.get(sender.scheme, "id")
    (said[0] if isinstance(said, list) else said)[name] = f"{name}-{number}"
    return replace(sender, body=dumped(said))


async def test_slacks_challenge_is_answered_with_itself(client: httpx.AsyncClient):
    response = await deliver(client, SLACK, body=dumped({"type": "url_verification", "challenge": "3eZbrw1a"}))
    assert (response.status_code, response.text) == (200, "3eZbrw1a")
    assert response.headers["content-type"].startswith("text/plain")


async def test_slacks_challenge_that_nobody_signed_is_a_401(client: httpx.AsyncClient):
    body = dumped({"type": "url_verification", "challenge": "3eZbrw1a"})
    assert (await client.post("/v1/webhooks/slack", content=body)).status_code == 401


async def test_githubs_ping_is_answered_and_stores_nothing(client: httpx.AsyncClient):
    response = await deliver(client, GITHUB, body=dumped(load("github_ping.json")), headers={"X-GitHub-Event": "ping"})
    assert (response.status_code, response.text) == (200, "pong")
    assert (await client.get("/v1/events")).json()["items"] == []


async def test_hubspots_batch_is_an_event_each(client: httpx.AsyncClient):
    batch = [DEAL_MOVED | {"objectId": number} for number in (1, 2, 2)] + [{"eventId": 1}]
    response = await deliver(client, HUBSPOT, body=dumped(batch))
    assert response.status_code == 202
    one, two, again, strange = response.json()["events"]
    assert (one["duplicate"], two["duplicate"], again["duplicate"]) == (False, False, True)
    assert strange["error"]["type"] == "urn:eventwright:problem:bad-event"
    assert len(await runs(client)) == 2


async def test_hubspot_is_to_send_its_batch_again_when_there_was_room_for_a_part_of_it(
    app: App, opened: Opened, client_of: Callable[..., httpx.AsyncClient]
):
    batch = dumped([DEAL_MOVED | {"objectId": number} for number in range(5)])
    async with opened(listening(), max_backlog=3) as busy, client_of(busy) as client:
        response = await deliver(client, HUBSPOT, body=batch)
        assert (response.status_code, response.headers["retry-after"]) == (429, "5")
        assert response.json()["detail"].startswith("2 of 5 events were not accepted")
        assert len(await runs(client)) == 3
    async with opened(listening()) as calm, client_of(calm) as client:
        answers = (await deliver(client, HUBSPOT, body=batch)).json()["events"]
        assert sorted(answer["duplicate"] for answer in answers) == [False, False, True, True, True]
        assert len(await runs(client)) == 5


async def test_a_source_says_whose_scheme_it_uses(client: httpx.AsyncClient, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("EVENTWRIGHT_WEBHOOK_EU_BILLING_SECRET", STRIPE.secret)
    monkeypatch.setenv("EVENTWRIGHT_WEBHOOK_EU_BILLING_SCHEME", "stripe")
    (event,) = (await deliver(client, STRIPE, source="eu-billing")).json()["events"]
    assert (event["id"], event["source"]) == (STRIPE.id, "/webhooks/eu-billing")


async def test_a_source_names_the_header_of_its_plain_hmac(client: httpx.AsyncClient, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("EVENTWRIGHT_WEBHOOK_HMAC_HEADER", "X-Parcel-Mac")
    assert (await deliver(client, HMAC)).status_code == 401
    mac = HMAC.headers(datetime.now(UTC))["X-Signature"]
    assert (await deliver(client, HMAC, headers={"X-Parcel-Mac": mac})).status_code == 202


@pytest.mark.parametrize(("setting", "value"), [("STRIPE_SCHEME", "stipe"), ("HUBSPOT_URL", "")])
async def test_a_setting_of_ours_that_is_wrong_is_our_fault_and_the_log_says_which(
    client: httpx.AsyncClient,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
    setting: str,
    value: str,
):
    monkeypatch.setenv(f"EVENTWRIGHT_WEBHOOK_{setting}", value)
    response = await deliver(client, STRIPE if "STRIPE" in setting else HUBSPOT)
    assert response.status_code == 500
    assert "detail" not in response.json()
    assert "is no scheme of webhooks" in caplog.text or "as it is registered with HubSpot" in caplog.text


async def test_a_signed_body_that_is_no_event_is_a_400_that_says_what_is_missing(client: httpx.AsyncClient):
    response = await deliver(client, STRIPE, body=json.dumps({"id": "evt_1"}).encode())
    assert response.status_code == 400
    assert response.json()["detail"] == "webhook from 'stripe': type must be a string, not null"
