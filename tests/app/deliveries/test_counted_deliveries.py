"""Deliveries that are turned away unread: they are counted, and garbage does not fill the log."""

from __future__ import annotations

import asyncio
from typing import Any

import httpx
import pytest
from tests.app.deliveries.delivering import ClientOf, Opened, deliver, listening, logged, replayed, shown
from tests.senders import GITHUB, STRIPE

from eventwright.app.composition import App
from eventwright.app.wire.strict_json import LIMIT
from eventwright.queue.gathering import Gatherer
from eventwright.runs import deliveries
from eventwright.runs.errors import StoreUnavailable
from eventwright.runs.records import DeliveryOutcome


async def test_a_flood_of_garbage_writes_nothing_while_it_lasts_and_one_line_after_it(
    app: App, client: httpx.AsyncClient
):
    before = app.store.committer.commits
    for number in range(50):
        assert (await client.post("/v1/webhooks/stripe", content=b"x" * number)).status_code == 401
        assert (await client.post(f"/v1/webhooks/stranger-{number}", content=b"x")).status_code == 401
    assert app.store.committer.commits == before
    found = await logged(client)
    assert {(one["source"], one["outcome"], one["times"], one["size"]) for one in found} == {
        ("stripe", "unauthorised", 50, sum(range(50))),
        ("unknown", "unauthorised", 50, 50),
    }
    assert app.store.committer.commits == before + 1
    (one,) = await logged(client, "stripe")
    kept = await shown(client, one)
    assert (kept["body"], kept["headers"], kept["digest"], kept["message_id"], kept["events"]) == (None,) * 4 + ([],)
    assert kept["received_at"] <= kept["last_at"]
    refusal = await replayed(client, one)
    assert (refusal.status_code, refusal.json()["type"]) == (409, "urn:eventwright:problem:nothing-to-replay")


async def test_what_was_counted_while_the_database_was_away_is_written_when_it_is_back(
    app: App, monkeypatch: pytest.MonkeyPatch
):
    gatherer = Gatherer(app.store, every=0.01)

    def away(*_: Any, **__: Any) -> None:
        raise StoreUnavailable("no room")

    async with gatherer.gathering():
        with monkeypatch.context() as patch:
            patch.setattr(app.store.committer, "post", away)
            gatherer.add("stripe", DeliveryOutcome.UNAUTHORISED, 10)
            await asyncio.sleep(0.05)
            gatherer.add("stripe", DeliveryOutcome.UNAUTHORISED, 5)
            with pytest.raises(StoreUnavailable):
                await gatherer.flush()
        gatherer.add("shop", DeliveryOutcome.UNREAD, 0)
    found = await deliveries.find(app.store)
    assert sorted((one.source, one.times, one.size) for one in found) == [
        ("shop", 1, 0), ("stripe", 1, 5), ("stripe", 1, 10),
    ]  # fmt: skip


async def test_a_count_whose_write_was_broken_off_is_in_the_log_once(app: App):
    """Who reads the log may go away in the middle; what was posted is written all the same."""
    gatherer = Gatherer(app.store)
    gatherer.add("stripe", DeliveryOutcome.UNAUTHORISED, 10)
    reader = asyncio.create_task(gatherer.flush())
    await asyncio.sleep(0)
    reader.cancel()
    with pytest.raises(asyncio.CancelledError):
        await reader
    gatherer.add("stripe", DeliveryOutcome.UNAUTHORISED, 5)
    await gatherer.flush()
    assert sorted((one.times, one.size) for one in await deliveries.find(app.store)) == [(1, 5), (1, 10)]


async def test_what_a_process_has_counted_is_written_by_itself_and_when_it_ends(
    opened: Opened, client_of: ClientOf, monkeypatch: pytest.MonkeyPatch
):
    async with opened() as app, client_of(app) as client:
        assert (await client.post("/v1/webhooks/stripe", content=b"")).status_code == 401
    async with opened() as app:
        (one,) = await deliveries.find(app.store)
        assert (one.outcome, one.times) == (DeliveryOutcome.UNAUTHORISED, 1)
        gatherer = Gatherer(app.store, every=0.01)
        async with gatherer.gathering():
            gatherer.add("shop", DeliveryOutcome.UNREAD, 0)
            while len(await deliveries.find(app.store)) < 2:
                await asyncio.sleep(0.01)


async def test_a_body_that_is_too_long_is_counted(client: httpx.AsyncClient):
    assert (await deliver(client, STRIPE, b" " * (LIMIT + 1))).status_code == 413
    (one,) = await logged(client, "stripe")
    assert (one["outcome"], one["times"]) == ("unread", 1)


async def test_what_there_was_no_room_for_is_counted_and_costs_no_write(opened: Opened, client_of: ClientOf):
    async with opened(listening(), max_backlog=1) as app, client_of(app) as client:
        assert (await deliver(client, STRIPE)).status_code == 202
        before = app.store.committer.commits
        assert [(await deliver(client, GITHUB)).status_code for _ in range(3)] == [429] * 3
        assert app.store.committer.commits == before
        assert [(one["outcome"], one["times"]) for one in await logged(client, "github")] == [("overloaded", 3)]


async def test_a_setting_of_ours_that_is_wrong_is_counted_as_our_failure(
    client: httpx.AsyncClient, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setenv("EVENTWRIGHT_WEBHOOK_STRIPE_SCHEME", "stipe")
    assert (await deliver(client, STRIPE)).status_code == 500
    assert [one["outcome"] for one in await logged(client, "stripe")] == ["failed"]
