"""The log of webhooks: every delivery that was read leaves a record, and can be taken in again."""

from __future__ import annotations

import json
from datetime import UTC, datetime, timedelta

import httpx
import pytest
from tests.app.deliveries.delivering import (
    ClientOf,
    Lettered,
    Numbered,
    Opened,
    deliver,
    each_sender,
    listening,
    logged,
    other_content,
    replayed,
    shown,
)
from tests.senders import (
    DEAL_MOVED,
    GITHUB,
    HMAC,
    HUBSPOT,
    STANDARD,
    STRIPE,
    Sender,
    dumped,
    load,
    shopify_headers,
)

from eventwright.app.composition import App
from eventwright.runs.deliveries import Delivered, Delivery
from eventwright.runs.errors import StoreUnavailable
from eventwright.runs.records import DeliveryOutcome
from eventwright.runs.transaction import Transaction

# -- what can go wrong -------------------------------------------------------------------------------------------------


async def test_a_provider_can_post_and_nobody_without_the_key_can_read_or_replay(opened: Opened, client_of: ClientOf):
    async with opened(listening(), api_key="k" * 40) as app, client_of(app) as client:
        assert (await deliver(client, STRIPE)).status_code == 202
        with_key = {"authorization": f"Bearer {'k' * 40}"}
        (one,) = (await client.get("/v1/webhooks/deliveries", headers=with_key)).json()["items"]
        for method, path in (
            ("GET", "/v1/webhooks/deliveries"),
            ("GET", "/v1/webhooks/stripe/deliveries"),
            ("GET", f"/v1/webhooks/deliveries/{one['id']}"),
            ("POST", f"/v1/webhooks/deliveries/{one['id']}/replay"),
            ("GET", "/v1/webhooks/stripe"),
        ):
            response = await client.request(method, path)
            assert response.status_code == 401, path
            assert response.json()["type"] == "urn:eventwright:problem:unauthenticated", path


@pytest.mark.parametrize("body", [b"no JSON", b'{"id": "evt_1"}', b'{"id": "evt_1", "type": "eventwright.undo"}'])
async def test_a_signed_body_that_is_no_event_is_kept_and_can_come_again_when_it_is_one(
    client: httpx.AsyncClient, monkeypatch: pytest.MonkeyPatch, body: bytes
):
    answer = await deliver(client, STRIPE, body)
    assert answer.status_code in (400, 403)
    (one,) = await logged(client, "stripe")
    kept = await shown(client, one)
    problem = kept["problem"] or kept["events"][0]["problem"]
    assert (kept["outcome"], kept["body"].encode()) == ("invalid", body)
    assert problem["detail"] == answer.json()["detail"]
    assert (await replayed(client, one)).status_code == answer.status_code


async def test_a_body_that_could_not_be_read_can_be_after_its_source_says_how(
    client: httpx.AsyncClient, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setenv("EVENTWRIGHT_WEBHOOK_HMAC_SCHEME", "shopify")
    signature = dict(HUBSPOT.also) | {"X-Shopify-Hmac-SHA256": _shopifys_signature(b'{"type": "t"}')}
    sent = await client.post(
        "/v1/webhooks/hmac", content=b'{"type": "t"}', headers=signature | {"X-Shopify-Webhook-Id": "7"}
    )
    assert sent.status_code == 400  # the topic is not there
    (one,) = await logged(client, "hmac")
    monkeypatch.setenv("EVENTWRIGHT_WEBHOOK_HMAC_SCHEME", "hmac")
    again = await replayed(client, one)
    assert (again.status_code, again.json()["events"][0]["duplicate"]) == (202, False)
    kept = await shown(client, one)
    assert (kept["outcome"], kept["body"], kept["problem"]) == ("accepted", None, None)


def _shopifys_signature(body: bytes) -> str:
    return shopify_headers(body, datetime.now(UTC), HMAC.secret)["X-Shopify-Hmac-SHA256"]


@each_sender
async def test_other_content_under_the_same_id_is_kept_and_still_a_conflict_when_it_comes_again(
    client: httpx.AsyncClient, sender: Sender
):
    await deliver(client, sender)
    body = other_content(sender)
    assert (await deliver(client, sender, body)).status_code == 409
    conflict, accepted = await logged(client, sender.scheme)
    assert [accepted["outcome"], conflict["outcome"]] == ["accepted", "conflict"]
    kept = await shown(client, conflict)
    assert kept["body"].encode() == body
    assert [(event["id"], event["uid"], event["outcome"]) for event in kept["events"]] == [
        (sender.id, None, "conflict")
    ]
    again = await replayed(client, conflict)
    assert (again.status_code, again.json()["type"]) == (409, "urn:eventwright:problem:event-conflict")
    assert (await shown(client, conflict))["replayed_by"] == "ann"


async def test_a_refused_delivery_whose_event_was_kept_long_enough_is_a_410_and_stays_refused(
    opened: Opened, client_of: ClientOf
):
    async with opened(listening(Lettered)) as app, client_of(app) as client:
        await deliver(client, STANDARD)
        (one,) = await logged(client)
        async with app.store.write() as tx:
            tx.expire_events([one["events"][0]["uid"]], before=datetime.now(UTC) + timedelta(days=1))
        again = await replayed(client, one)
        assert (again.status_code, again.json()["type"]) == (410, "urn:eventwright:problem:expired")
        kept = await shown(client, one)
        assert (kept["outcome"], kept["events"][0]["outcome"]) == ("refused", "refused")


async def test_a_batch_whose_process_died_half_way_can_be_taken_in_again_without_its_provider(
    app: App, client: httpx.AsyncClient, monkeypatch: pytest.MonkeyPatch
):
    """The database takes one of three events, and not even the end of the log's entry: as if the process had died."""
    batch = [DEAL_MOVED | {"objectId": number} for number in (1, 2, 3)]
    with monkeypatch.context() as patch:
        add = Transaction.add_delivered
        taken: list[str | None] = []

        def only_one(tx: Transaction, delivery_id: str, event: Delivered) -> None:
            taken.append(event.event_id)
            if len(taken) > 1:
                raise StoreUnavailable("no room")
            add(tx, delivery_id, event)

        patch.setattr(Transaction, "add_delivered", only_one)
        assert (await deliver(client, HUBSPOT, dumped(batch))).status_code == 503
    (one,) = await logged(client, "hubspot")
    assert (one["outcome"], [event["id"] for event in one["events"]]) == ("received", taken[:1])
    answer = await replayed(client, one)
    assert sorted(event["duplicate"] for event in answer.json()["events"]) == [False, False, True]
    kept = await shown(client, one)
    assert (kept["outcome"], kept["body"], len(kept["events"])) == ("accepted", None, 3)


async def test_a_delivery_that_is_not_there_is_a_404(client: httpx.AsyncClient):
    assert (await client.get("/v1/webhooks/deliveries/dlv_1")).status_code == 404
    assert (await client.post("/v1/webhooks/deliveries/dlv_1/replay")).status_code == 404


async def test_a_delivery_that_the_log_has_no_room_for_is_answered_all_the_same(
    app: App, client: httpx.AsyncClient, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
):
    first = await deliver(client, STRIPE)

    add = Transaction.add_delivery

    def no_room_for_a_duplicate(tx: Transaction, delivery: Delivery) -> None:
        if delivery.outcome is DeliveryOutcome.DUPLICATE:
            raise StoreUnavailable("no room")
        add(tx, delivery)

    monkeypatch.setattr(Transaction, "add_delivery", no_room_for_a_duplicate)
    again = await deliver(client, STRIPE)
    assert again.status_code == 202
    assert again.json()["events"][0]["runs"] == first.json()["events"][0]["runs"]
    assert "a delivery from stripe (duplicate) is not in the log" in caplog.text


# -- what it is for ----------------------------------------------------------------------------------------------------


@each_sender
async def test_an_accepted_delivery_is_written_with_its_event_in_one_commit(
    app: App, client: httpx.AsyncClient, sender: Sender
):
    before = app.store.committer.commits
    await deliver(client, sender)
    commits = app.store.committer.commits - before
    (one,) = await logged(client, sender.scheme)
    (event,) = (await client.get("/v1/events")).json()["items"]
    assert (one["outcome"], one["size"], one["times"]) == ("accepted", len(sender.body), 1)
    assert one["events"] == [
        {"id": sender.id, "uid": event["uid"], "outcome": "accepted", "problem": None, "runs": event["runs"]}
    ]
    assert commits == 1
    assert (await shown(client, one))["body"] is None  # the event has it


async def test_a_duplicate_is_logged_beside_the_first_and_replaying_either_names_the_same_run(
    client: httpx.AsyncClient,
):
    first = (await deliver(client, STRIPE)).json()["events"][0]
    await deliver(client, STRIPE)
    duplicate, accepted = await logged(client, "stripe")
    assert [accepted["outcome"], duplicate["outcome"]] == ["accepted", "duplicate"]
    assert accepted["events"][0]["uid"] == duplicate["events"][0]["uid"]
    for one in (accepted, duplicate):
        answer = await replayed(client, one)
        (event,) = answer.json()["events"]
        assert (answer.status_code, event["duplicate"], event["runs"]) == (202, True, first["runs"])
        assert (await shown(client, one))["outcome"] == one["outcome"]
    assert len((await client.get("/v1/runs")).json()["items"]) == 1


async def test_a_refused_delivery_starts_its_run_once_the_model_fits(opened: Opened, client_of: ClientOf):
    async with opened(listening(Lettered)) as strict, client_of(strict) as client:
        assert (await deliver(client, STANDARD)).status_code == 422
        (one,) = await logged(client, outcome="refused")
        (event,) = one["events"]
        assert (await client.get(f"/v1/events/{event['uid']}")).json()["state"] == "refused"
        assert "id" in event["problem"]["detail"]
        still = await replayed(client, one)
        assert (still.status_code, still.json()["uid"]) == (422, event["uid"])
    async with opened(listening(Numbered)) as corrected, client_of(corrected) as client:
        answer = await replayed(client, one)
        assert answer.status_code == 202
        (run,) = answer.json()["events"][0]["runs"]
        kept = await shown(client, one)
        assert (kept["outcome"], kept["events"][0]["runs"], kept["replayed_by"]) == ("accepted", [run["id"]], "ann")
        assert kept["events"][0]["problem"] is None
        assert await logged(client, outcome="refused") == []


async def test_hubspots_batch_is_one_delivery_with_what_became_of_each_event(client: httpx.AsyncClient):
    await deliver(client, HUBSPOT, dumped([DEAL_MOVED]))
    batch = [DEAL_MOVED, DEAL_MOVED | {"objectId": 2}, {"eventId": 1}, DEAL_MOVED | {"propertyValue": "lost"}]
    assert (await deliver(client, HUBSPOT, dumped(batch))).status_code == 202
    one, _ = await logged(client, "hubspot")
    assert one["outcome"] == "accepted"
    assert [event["outcome"] for event in one["events"]] == ["duplicate", "accepted", "invalid", "conflict"]
    assert [bool(event["runs"]) for event in one["events"]] == [True, True, False, False]
    assert json.loads((await shown(client, one))["body"]) == batch
    answer = await replayed(client, one)
    assert [event["duplicate"] for event in answer.json()["events"]] == [True, True]
    assert [event["outcome"] for event in (await shown(client, one))["events"]] == [
        event["outcome"] for event in one["events"]
    ]


async def test_githubs_ping_is_in_the_log_and_nothing_to_replay(client: httpx.AsyncClient):
    await deliver(client, GITHUB, dumped(load("github_ping.json")), **{"X-GitHub-Event": "ping"})
    (one,) = await logged(client, "github")
    assert (one["outcome"], one["events"]) == ("answered", [])
    assert (await replayed(client, one)).status_code == 409


async def test_the_log_is_read_in_pages_newest_first_by_source_and_outcome(client: httpx.AsyncClient):
    for sender in (STRIPE, GITHUB, STRIPE):
        await deliver(client, sender)
    first = (await client.get("/v1/webhooks/deliveries", params={"limit": 2})).json()
    rest = (await client.get("/v1/webhooks/deliveries", params={"limit": 2, "cursor": first["next"]})).json()
    found = [*first["items"], *rest["items"]]
    assert [one["source"] for one in found] == ["stripe", "github", "stripe"]
    assert rest["next"] is None
    assert [one["outcome"] for one in await logged(client, "STRIPE")] == ["duplicate", "accepted"]
    assert [one["source"] for one in await logged(client, outcome="duplicate")] == ["stripe"]
    assert (await client.get("/v1/webhooks/deliveries", params={"outcome": "nice"})).status_code == 400
