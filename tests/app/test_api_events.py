"""Events through the HTTP door: what is refused and how it is said, and what a 2xx promises."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager
from datetime import UTC, datetime, timedelta
from typing import Any

import httpx
import pytest
from pydantic import BaseModel

from eventwright.app.composition import App
from eventwright.queue.webhooks import sign

STRUCTURED = {"content-type": "application/cloudevents+json"}
BATCH = {"content-type": "application/cloudevents-batch+json"}
WISH = {"account": "ann", "amount": "10.00"}
SECRET = "MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw"

Opened = Callable[..., AbstractAsyncContextManager[App]]


class Wish(BaseModel):
    account: str
    amount: str


class Order(BaseModel):
    items: list[int]


def event(name: str = "1", **attributes: Any) -> dict[str, Any]:
    own = {"specversion": "1.0", "id": name, "source": "/shop", "type": "refund.wanted", "data": WISH}
    return own | attributes


def problem(response: httpx.Response) -> dict[str, Any]:
    assert response.headers["content-type"] == "application/problem+json", response.text
    document: dict[str, Any] = response.json()
    assert document["status"] == response.status_code
    return document


async def post(client: httpx.AsyncClient, body: Any, headers: dict[str, str] = STRUCTURED) -> httpx.Response:
    content = body if isinstance(body, bytes) else json.dumps(body).encode()
    return await client.post("/v1/events", content=content, headers=headers)


@pytest.mark.parametrize(
    ("body", "status"),
    [
        (b"", 400),
        (b"\xff\xfe\x00", 400),
        (b"{", 400),
        (b"null", 400),
        (b'{"specversion": "1.0"}', 400),
        (json.dumps(event()).replace('"10.00"', "NaN").encode(), 400),
        (json.dumps(event()).replace('"id"', '"id": "2", "id"').encode(), 400),
        (json.dumps(event()).replace('"10.00"', "[" * 100 + "]" * 100).encode(), 400),
        (json.dumps(event(data="\x00")).encode(), 400),
        (json.dumps(event(payloadversion="v" * 65)).encode(), 400),
    ],
)
async def test_garbage_is_a_problem_document_and_nothing_is_stored(client: httpx.AsyncClient, body: bytes, status: int):
    assert problem(await post(client, body))["status"] == status
    assert (await client.get("/v1/events")).json()["items"] == []


async def test_a_media_type_that_is_not_read_is_a_415(client: httpx.AsyncClient):
    assert problem(await post(client, event(), {"content-type": "text/html"}))["status"] == 415


async def test_a_body_that_announces_too_much_is_a_413(client: httpx.AsyncClient):
    document = problem(await post(client, event(data="x" * 1024 * 1024)))
    assert (document["status"], document["type"]) == (413, "urn:eventwright:problem:too-large")


async def test_a_body_that_grows_too_large_is_a_413_without_an_announcement(client: httpx.AsyncClient):
    async def chunks() -> AsyncIterator[bytes]:
        for _ in range(20):
            yield b" " * 100_000

    response = await client.post("/v1/events", content=chunks(), headers=STRUCTURED)
    assert problem(response)["status"] == 413


async def test_a_body_just_under_the_limit_is_taken(client: httpx.AsyncClient):
    response = await post(client, event(type="note", data="x" * (1024 * 1024 - 200)))
    assert response.status_code == 202


async def test_the_same_id_with_other_content_is_a_conflict(client: httpx.AsyncClient):
    await post(client, event())
    document = problem(await post(client, event(data=WISH | {"amount": "99.00"})))
    assert (document["status"], document["type"]) == (409, "urn:eventwright:problem:event-conflict")


async def test_a_payload_that_does_not_fit_is_refused_with_every_fault_and_kept(client: httpx.AsyncClient):
    document = problem(await post(client, event(data={"amount": "much"})))
    assert (document["status"], document["type"]) == (422, "urn:eventwright:problem:invalid-payload")
    assert {fault["at"] for fault in document["errors"]} == {"account", "amount"}
    kept = (await client.get(f"/v1/events/{document['uid']}")).json()
    assert (kept["state"], kept["runs"], kept["data"]) == ("refused", [], {"amount": "much"})
    assert kept["problem"]["errors"] == document["errors"]


async def test_of_faults_without_number_the_first_are_told_and_kept(
    opened: Opened, client_of: Any, paying_workflow: Any
):
    orders = paying_workflow("orders", "order.placed", on={"payload": {"1": Order}})
    async with opened(orders) as app, client_of(app) as client:
        unreadable = problem(await post(client, event(**{f"Attribute-{number}": 1 for number in range(1000)})))
        invalid = problem(await post(client, event(type="order.placed", data={"items": ["x"] * 1000})))
        assert (len(unreadable["errors"]), len(invalid["errors"])) == (20, 20)
        assert unreadable["detail"].endswith("and 980 more")
        assert invalid["detail"].endswith("(and 999 more)")
        kept = (await client.get(f"/v1/events/{invalid['uid']}")).json()
        assert kept["problem"]["errors"] == invalid["errors"]


async def test_an_unknown_payload_version_is_refused_and_lists_among_the_refused(client: httpx.AsyncClient):
    document = problem(await post(client, event(payloadversion="7")))
    assert (document["status"], document["type"]) == (422, "urn:eventwright:problem:unknown-version")
    await post(client, event("2"))
    refused = (await client.get("/v1/events", params={"state": "refused"})).json()
    assert [item["uid"] for item in refused["items"]] == [document["uid"]]


async def test_a_refused_event_may_come_again_corrected(client: httpx.AsyncClient):
    problem(await post(client, event(data={})))
    (answer,) = (await post(client, event())).json()["events"]
    assert answer["duplicate"] is False


async def test_a_refused_event_can_be_taken_in_after_a_deploy_that_knows_it(
    opened: Opened, client_of: Any, paying_workflow: Any
):
    wanted = event(type="bonus.wanted", payloadversion="2")
    first, second = [
        paying_workflow("bonuses", "bonus.wanted", on={"payload": dict.fromkeys(known, Wish)}) for known in ("1", "12")
    ]
    async with opened(first) as app, client_of(app) as client:
        uid = problem(await post(client, wanted))["uid"]
        assert problem(await client.post(f"/v1/events/{uid}/replay"))["status"] == 422
    async with opened(second) as app, client_of(app) as client:
        response = await client.post(f"/v1/events/{uid}/replay")
        assert response.status_code == 202
        assert response.json()["events"][0]["runs"][0]["workflow"] == "bonuses"


async def test_an_event_that_nobody_stored_is_a_404(client: httpx.AsyncClient):
    assert problem(await client.get("/v1/events/evt_0"))["status"] == 404
    assert problem(await client.post("/v1/events/evt_0/replay"))["status"] == 404
    assert problem(await client.get("/v1/events/%00"))["status"] == 404


async def test_an_accepted_event_names_its_run(client: httpx.AsyncClient):
    response = await post(client, event())
    assert response.status_code == 202
    (answer,) = response.json()["events"]
    (run,) = answer["runs"]
    assert answer == {"id": "1", "source": "/shop", "duplicate": False, "runs": [run]}
    assert (run["workflow"], run["state"]) == ("refunds", "received")


async def test_a_duplicate_event_answers_with_the_same_run(client: httpx.AsyncClient):
    first, again = [(await post(client, event())).json()["events"][0] for _ in range(2)]
    assert again == first | {"duplicate": True}


async def test_an_event_that_no_workflow_wants_is_kept(client: httpx.AsyncClient):
    response = await post(client, event(type="weather.changed"))
    assert (response.status_code, response.json()["events"][0]["runs"]) == (202, [])
    (kept,) = (await client.get("/v1/events", params={"state": "accepted"})).json()["items"]
    assert kept["type"] == "weather.changed"


async def test_attributes_may_come_as_headers(client: httpx.AsyncClient):
    names = {"specversion": "1.0", "id": "1", "source": "/shop", "type": "refund.wanted"}
    headers = {f"ce-{name}": value for name, value in names.items()} | {"content-type": "application/json"}
    (answer,) = (await post(client, WISH, headers)).json()["events"]
    assert (answer["id"], len(answer["runs"])) == ("1", 1)


async def test_each_item_of_a_batch_answers_for_itself(client: httpx.AsyncClient):
    batch = [event("1"), event("2", data={}), {"id": "3"}, event("1"), event("1", data=WISH | {"amount": "1"})]
    response = await post(client, batch, BATCH)
    assert response.status_code == 202
    first, refused, no_event, duplicate, conflict = response.json()["events"]
    assert (first["duplicate"], duplicate["duplicate"]) == (False, True)
    assert duplicate["runs"] == first["runs"]
    assert [item["error"]["status"] for item in (refused, no_event, conflict)] == [422, 400, 409]
    assert (refused["id"], refused["source"]) == ("2", "/shop")


async def test_of_items_with_one_name_in_a_batch_the_first_is_the_one_that_counts(client: httpx.AsyncClient):
    other = WISH | {"amount": "1"}
    batch = [item for n in range(100) for item in (event(str(n)), event(str(n), data=other))]
    answers = (await post(client, batch, BATCH)).json()["events"]
    assert all("runs" in answer for answer in answers[::2])
    assert [answer["error"]["status"] for answer in answers[1::2]] == [409] * 100


async def test_a_batch_of_which_nothing_is_accepted_is_a_problem_with_each_answer(client: httpx.AsyncClient):
    document = problem(await post(client, [event("1", data={}), {}], BATCH))
    assert document["status"] == 422
    assert [item["error"]["status"] for item in document["events"]] == [422, 400]
    assert problem(await post(client, [], BATCH))["status"] == 400


async def test_a_store_that_is_away_is_a_503_that_asks_to_come_again(app: App, client: httpx.AsyncClient):
    await app.store.committer.close()
    for response in (await post(client, event()), await post(client, [event()], BATCH)):
        assert problem(response)["status"] == 503
        assert response.headers["retry-after"].isdigit()
        assert "closed" not in response.text


async def test_fifty_duplicates_at_once_are_one_run(app: App, serving: Any):
    async with serving(app) as url, httpx.AsyncClient(base_url=url) as client:
        responses = await asyncio.gather(*(post(client, event()) for _ in range(50)))
        answers = [response.json()["events"][0] for response in responses]
        assert {response.status_code for response in responses} == {202}
        assert len({answer["runs"][0]["id"] for answer in answers}) == 1
        assert sum(not answer["duplicate"] for answer in answers) == 1
        assert len((await client.get("/v1/runs")).json()["items"]) == 1


# -- webhooks ----------------------------------------------------------------------------------------------------------


@pytest.fixture
def secret(monkeypatch: pytest.MonkeyPatch) -> str:
    monkeypatch.setenv("EVENTWRIGHT_WEBHOOK_MY_SHOP_SECRET", f"{SECRET}")
    return SECRET


def webhook(data: Any = WISH, *, secret: str = SECRET, at: datetime | None = None) -> dict[str, Any]:
    body = json.dumps({"type": "refund.wanted", "data": data}).encode()
    signature = sign(body, "msg_1", at or datetime.now(UTC), secret)
    return {"content": body, "headers": {"content-type": "application/json"} | signature}


@pytest.mark.parametrize("source", ["my-shop", "unknown", "other%20shop", "%00"])
async def test_a_webhook_that_nobody_signed_is_a_401_without_a_reason(
    client: httpx.AsyncClient, secret: str, source: str
):
    document = problem(await client.post(f"/v1/webhooks/{source}", content=b"{}"))
    assert document.keys() == {"type", "title", "status", "instance"}
    assert document["status"] == 401
    assert (await client.get("/v1/events")).json()["items"] == []


async def test_a_webhook_with_a_wrong_or_an_old_signature_is_a_401(client: httpx.AsyncClient, secret: str):
    wrong = webhook(secret="d3Jvbmcgd3Jvbmcgd3Jvbmc=")
    old = webhook(at=datetime.now(UTC) - timedelta(minutes=6))
    for request in (wrong, old):
        assert problem(await client.post("/v1/webhooks/my-shop", **request))["status"] == 401


async def test_a_signed_webhook_starts_a_run(client: httpx.AsyncClient, secret: str):
    response = await client.post("/v1/webhooks/my-shop", **webhook())
    assert response.status_code == 202
    (answer,) = response.json()["events"]
    assert (answer["id"], answer["source"], len(answer["runs"])) == ("msg_1", "/webhooks/my-shop", 1)


async def test_a_signed_webhook_sent_again_to_another_spelling_is_a_duplicate(client: httpx.AsyncClient, secret: str):
    request = webhook()
    for source, duplicate in (("my-shop", False), ("my_shop", True), ("MY-Shop", True)):
        (answer,) = (await client.post(f"/v1/webhooks/{source}", **request)).json()["events"]
        assert answer["duplicate"] is duplicate


async def test_a_source_that_only_looks_like_ours_in_capitals_has_no_secret(client: httpx.AsyncClient, secret: str):
    source = "my-\u017fhop"
    assert source.upper() == "MY-SHOP"
    assert problem(await client.post(f"/v1/webhooks/{source}", **webhook()))["status"] == 401


async def test_a_signed_body_that_is_no_event_is_a_400(client: httpx.AsyncClient, secret: str):
    body = b'{"no": "type"}'
    headers = sign(body, "msg_1", datetime.now(UTC), SECRET)
    assert problem(await client.post("/v1/webhooks/my-shop", content=body, headers=headers))["status"] == 400


async def test_a_secret_of_ours_that_is_no_key_is_our_fault_and_not_repeated(
    client: httpx.AsyncClient, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setenv("EVENTWRIGHT_WEBHOOK_MY_SHOP_SECRET", "not base64!")
    response = await client.post("/v1/webhooks/my-shop", **webhook())
    assert problem(response)["status"] == 500
    assert "base64" not in response.text
