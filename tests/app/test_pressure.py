"""A service with too much waiting says so and when to come again, and loses nothing of what it accepted."""

from __future__ import annotations

import asyncio
import json
import logging
from collections.abc import Callable
from contextlib import AbstractAsyncContextManager, AsyncExitStack
from typing import Any
from urllib.parse import urlsplit

import httpx
import pytest

from eventwright.app.composition import App
from eventwright.app.sending import NotAccepted, send
from eventwright.app.web import bodies
from eventwright.queue import pressure
from eventwright.runs import committer
from eventwright.runs.errors import Overloaded, StoreUnavailable, Trouble
from eventwright.runs.event import Event
from eventwright.runs.states import RunState

Opened = Callable[..., AbstractAsyncContextManager[App]]
WISH = {"account": "ann", "amount": "10.00"}
JSON = {"content-type": "application/cloudevents+json"}
BATCH = {"content-type": "application/cloudevents-batch+json"}


@pytest.fixture(autouse=True)
def counted_each_time(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pressure, "COUNT_SECONDS", 0.0)


def wish(name: str, event_type: str = "refund.wanted") -> dict[str, Any]:
    return {"specversion": "1.0", "id": name, "source": "/shop", "type": event_type, "data": WISH}


async def answered(client: httpx.AsyncClient, name: str, event_type: str = "refund.wanted") -> httpx.Response:
    return await client.post("/v1/events", json=wish(name, event_type), headers=JSON)


async def test_too_many_waiting_runs_are_a_429_that_says_when_to_come_again(opened: Opened, client_of: Any):
    async with opened(max_backlog=2) as app, client_of(app) as client:
        accepted = [await answered(client, name) for name in ("1", "2")]
        refused = await answered(client, "3")
        assert (refused.status_code, refused.headers["content-type"]) == (429, "application/problem+json")
        assert refused.headers["retry-after"] == str(refused.json()["retry_after"])
        assert refused.json()["type"] == "urn:eventwright:problem:too-busy"
        assert "2 runs wait" in refused.json()["detail"]
        assert len(await app.store.events()) == 2

        again = await answered(client, "1")
        assert (again.status_code, again.json()["events"][0]["duplicate"]) == (202, True)
        assert (await answered(client, "4", "nobody.wants")).status_code == 202
        for response in accepted:
            assert await app.engine.advance(response.json()["events"][0]["runs"][0]["id"]) is RunState.COMPLETED
        assert (await answered(client, "3")).status_code == 202


async def test_a_webhook_is_told_the_same(opened: Opened, client_of: Any, monkeypatch: pytest.MonkeyPatch):
    from datetime import UTC, datetime

    from standardwebhooks import Webhook

    secret = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw"
    monkeypatch.setenv("EVENTWRIGHT_WEBHOOK_SHOP_SECRET", secret)
    body, now = json.dumps({"type": "refund.wanted", "data": WISH}), datetime.now(UTC)
    signed = {
        "webhook-id": "1",
        "webhook-timestamp": str(int(now.timestamp())),
        "webhook-signature": Webhook(secret).sign("1", now, body),
        "content-type": "application/json",
    }
    async with opened(max_backlog=1) as app, client_of(app) as client:
        await answered(client, "1")
        refused = await client.post("/v1/webhooks/shop", content=body, headers=signed)
        assert (refused.status_code, refused.headers["retry-after"]) == (429, "5")


async def test_in_a_batch_every_item_answers_for_itself(opened: Opened, client_of: Any):
    async with opened(max_backlog=3) as app, client_of(app) as client:
        batch = [wish(str(number)) for number in range(5)]
        response = await client.post("/v1/events", json=batch, headers=BATCH)
        assert response.status_code == 202
        told = response.json()["events"]
        refused = [item["error"] for item in told if "error" in item]
        assert [(error["status"], error["retry_after"]) for error in refused] == [(429, 5)] * 2
        assert sorted(stored.event.id for stored in await app.store.events()) == [
            item["id"] for item in told if "runs" in item
        ]
        full = await client.post("/v1/events", json=[wish("8"), wish("9")], headers=BATCH)
        assert (full.status_code, full.headers["retry-after"]) == (429, "5")
        assert [item["error"]["status"] for item in full.json()["events"]] == [429, 429]


async def test_a_python_caller_gets_an_error_with_the_time_to_wait(opened: Opened):
    async with opened(max_backlog=1) as app:
        await app.engine.receive(Event(id="1", source="/shop", type="refund.wanted", data=WISH))
        with pytest.raises(Overloaded, match="1 runs wait") as caught:
            await app.engine.receive(Event(id="2", source="/shop", type="refund.wanted", data=WISH))
    assert isinstance(caught.value, RuntimeError)
    assert caught.value.retry_after > 0


async def test_a_crowd_at_the_door_is_sent_away_and_who_was_let_in_is_stored(app: App, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(pressure, "MOST_UNDER_WAY", 10)
    events = [Event(id=str(number), source="/shop", type="refund.wanted", data=WISH) for number in range(25)]
    answers = await asyncio.gather(*(app.engine.receive(event) for event in events), return_exceptions=True)
    refused = [answer for answer in answers if isinstance(answer, Overloaded)]
    assert len(refused) == 15
    assert len(await app.store.events()) == 10
    assert (await app.engine.receive(events[-1])).duplicate is False


async def test_a_line_of_writes_that_grows_too_long_takes_no_event_and_then_no_write(
    app: App, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(committer, "MOST_WAITING", 20)

    async def write() -> None:
        async with app.store.write() as tx:
            tx.delete_timers("none")

    writes = [asyncio.create_task(write()) for _ in range(30)]
    while not app.store.committer.crowded:
        await asyncio.sleep(0)
    with pytest.raises(Overloaded):
        await app.engine.receive(Event(id="1", source="/shop", type="refund.wanted", data=WISH))
    answers = await asyncio.gather(*writes, return_exceptions=True)
    refused = [answer for answer in answers if answer is not None]
    assert [(type(error), error.trouble) for error in refused] == [(StoreUnavailable, Trouble.CROWDED)] * 10
    assert not app.store.committer.crowded


@pytest.mark.parametrize("over_http", [False, True])
async def test_send_waits_as_long_as_it_is_asked_to_and_says_so(
    opened: Opened, serving: Any, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture, over_http: bool
):
    """The clock is not real: the one that waits lets the run that is in the way end."""
    async with opened(max_backlog=1) as app, serving(app) as url:
        first = await send("refund.wanted", WISH, to=app)
        slept: list[float] = []

        async def end_the_run(seconds: float) -> None:
            slept.append(seconds)
            await app.engine.advance(first["runs"][0]["id"])

        with monkeypatch.context() as patched:
            patched.setattr("eventwright.app.sending.sleep", end_the_run)
            with caplog.at_level(logging.WARNING):
                second = await send("refund.wanted", WISH, id="2", to=url if over_http else app)
        assert second["duplicate"] is False
        assert [5.0 <= seconds <= 6.25 for seconds in slept] == [True]
        assert "'2' was not accepted (429)" in caplog.text
        assert "sent again in" in caplog.text


async def test_who_would_have_to_wait_for_longer_than_the_patience_is_told_at_once(
    opened: Opened, monkeypatch: pytest.MonkeyPatch
):
    slept: list[float] = []

    async def note(seconds: float) -> None:
        slept.append(seconds)

    monkeypatch.setattr("eventwright.app.sending.sleep", note)
    async with opened(max_backlog=1) as app:
        await send("refund.wanted", WISH, to=app)
        with pytest.raises(NotAccepted, match="1 runs wait") as caught:
            await send("refund.wanted", WISH, to=app, patience=1)
    assert caught.value.problem["status"] == 429
    assert slept == []


async def test_bodies_that_stop_in_the_middle_take_no_more_memory_than_is_allowed(
    app: App, serving: Any, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(bodies, "MOST_IN_HAND", 100_000)
    head = "POST /v1/events HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/cloudevents+json\r\n"
    async with serving(app) as url, httpx.AsyncClient(base_url=url) as client, AsyncExitStack() as slow:
        address = urlsplit(url)
        for _ in range(3):
            _, writer = await asyncio.open_connection(address.hostname, address.port)
            slow.push_async_callback(writer.wait_closed)
            slow.callback(writer.close)
            writer.write(f"{head}Content-Length: 40000\r\n\r\n".encode() + b" " * 33_300)
            await writer.drain()
        while (refused := await answered(client, "1")).status_code == 202:
            await asyncio.sleep(0.01)  # not all of it has been read
        assert (refused.status_code, refused.headers["retry-after"]) == (429, "5")
        assert (await client.get("/readyz")).status_code == 200
        await slow.aclose()
        while (await answered(client, "2")).status_code == 429:
            await asyncio.sleep(0.01)  # nor has every server task ended


async def test_a_packed_body_is_not_unpacked(client: httpx.AsyncClient):
    import gzip

    bomb = gzip.compress(b"[" * 10_000_000)
    refused = await client.post("/v1/events", content=bomb, headers=JSON | {"content-encoding": "gzip"})
    assert (refused.status_code, refused.json()["type"]) == (400, "urn:eventwright:problem:bad-json")
