"""A button in Slack answers a review: in the name of whoever clicked, once, and only if Slack signed the click."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator, Callable
from datetime import UTC, datetime, timedelta
from typing import Any
from urllib.parse import urlencode

import httpx
import pytest
from tests.app.conftest import OpenApp, Paused, paying
from tests.senders import BUTTON, SLACK, STANDARD
from tests.tools.vendors import Request, Response, on_http

from eventwright.app.composition import App
from eventwright.app.web.api import create_api
from eventwright.guardrails.policy import review
from eventwright.guardrails.rules import above
from eventwright.tools.slack_answers import SlackAnswers

CLICKER = f"slack:{BUTTON['user']['id']}"


class Hooks:
    """Where Slack is told what people shall hear."""

    def __init__(self) -> None:
        self.heard: list[dict[str, Any]] = []
        self.status = 200
        self.url = ""

    async def answer(self, request: Request) -> Response:
        self.heard.append(request.body)
        return Response(self.status, "ok")


@pytest.fixture
async def hooks() -> AsyncIterator[Hooks]:
    hooks = Hooks()
    async with on_http(hooks.answer) as port:
        hooks.url = f"http://127.0.0.1:{port}"
        yield hooks


@pytest.fixture
async def app(opened: OpenApp, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[App]:
    for source in ("SLACK", "SLACK_EU", "SHOP"):
        monkeypatch.setenv(f"EVENTWRIGHT_WEBHOOK_{source}_SECRET", SLACK.secret)
    monkeypatch.setenv("EVENTWRIGHT_WEBHOOK_SLACK_EU_SCHEME", "slack")
    limits = {"approve_when": above("amount", 50), "approval": review(approvers=["slack:UBOSS"])}
    async with opened(paying("guarded", "refund.guarded", **limits)) as app:
        yield app


@pytest.fixture
async def client(app: App, hooks: Hooks) -> AsyncIterator[httpx.AsyncClient]:
    transport = httpx.ASGITransport(app=create_api(app, slack=SlackAnswers(origin=hooks.url)))
    async with httpx.AsyncClient(transport=transport, base_url="http://localhost") as client:
        yield client


Click = Callable[..., Any]


@pytest.fixture
def click(client: httpx.AsyncClient, hooks: Hooks) -> Click:
    """Clicks a button with this value, as `user`."""

    async def click(value: Any, *, user: str = "UA8RXUSPL", source: str = "slack", **changes: Any) -> httpx.Response:
        text = value if isinstance(value, str) else json.dumps(value)
        action = {"action_id": "eventwright.decision.approve", "type": "button", "value": text}
        payload = BUTTON | {"actions": [action], "user": {"id": user}, "response_url": f"{hooks.url}/actions/1"}
        at = changes.pop("at", datetime.now(UTC))
        secret = changes.pop("secret", SLACK.secret)
        payload |= {"trigger_id": datetime.now(UTC).isoformat()} | changes
        body = urlencode({"payload": json.dumps(payload)}).encode()
        headers = SLACK.sign(body, at, secret)
        return await client.post(f"/v1/webhooks/{source}", content=body, headers=headers)

    return click


async def shown_review(client: httpx.AsyncClient, review_id: str) -> dict[str, Any]:
    review: dict[str, Any] = (await client.get(f"/v1/reviews/{review_id}")).json()
    return review


async def says(client: httpx.AsyncClient, review_id: str, type: str = "approve", **more: Any) -> dict[str, Any]:
    """The value of a button about this review as it is now."""
    return {"review": review_id, "type": type, "digest": (await shown_review(client, review_id))["digest"]} | more


# -- what can go wrong -------------------------------------------------------------------------------------------------


async def test_a_click_that_slack_has_not_signed_or_signed_long_ago_decides_nothing(
    client: httpx.AsyncClient, click: Click, paused: Paused, hooks: Hooks
):
    _, review_id = await paused(client)
    value = await says(client, review_id)
    for strange in ({"secret": "another"}, {"at": datetime.now(UTC) - timedelta(minutes=6)}, {"source": "stranger"}):
        assert (await click(value, **strange)).status_code == 401
    assert (await shown_review(client, review_id))["state"] == "open"
    assert hooks.heard == []


async def test_what_looks_like_a_click_and_came_by_another_way_decides_nothing(
    client: httpx.AsyncClient, paused: Paused
):
    _, review_id = await paused(client)
    action = {"action_id": "eventwright.decision", "value": json.dumps(await says(client, review_id))}
    payload = BUTTON | {"actions": [action]}
    body = json.dumps(payload).encode()
    signed = STANDARD.sign(body, datetime.now(UTC), SLACK.secret)
    assert (await client.post("/v1/webhooks/shop", content=body, headers=signed)).status_code == 202
    event = {"specversion": "1.0", "id": "1", "source": "/webhooks/slack", "type": "block_actions", "data": payload}
    sent = await client.post("/v1/events", json=event, headers={"content-type": "application/cloudevents+json"})
    assert sent.status_code == 202
    assert (await shown_review(client, review_id))["state"] == "open"


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"digest": "0" * 64}, "look at it again"),
        ({"review": "rev_1"}, "no review has the id"),
        ({"type": "edit"}, "the button does not say what it decides"),
        ({"type": "respond", "response": "yes"}, "respond is not offered"),
        ({"digest": None}, "the button does not say what it decides"),
        ({"more": 1}, "the button does not say what it decides"),
    ],
)
async def test_a_button_that_is_wrong_or_stale_is_answered_in_private_and_decides_nothing(
    client: httpx.AsyncClient, click: Click, paused: Paused, hooks: Hooks, change: dict[str, Any], words: str
):
    _, review_id = await paused(client)
    answer = await click(await says(client, review_id, **change))
    assert (answer.status_code, answer.text) == (200, "")
    (heard,) = hooks.heard
    assert (heard["response_type"], heard["replace_original"]) == ("ephemeral", False)
    assert heard["text"].startswith("Nothing was decided: ")
    assert words in heard["text"]
    assert (await shown_review(client, review_id))["state"] == "open"


@pytest.mark.parametrize("value", ["", "approve", "[]", "{", "[" * 1000])
async def test_a_button_without_a_decision_in_it_is_answered_in_private(click: Click, hooks: Hooks, value: str):
    assert (await click(value)).status_code == 200
    assert "the button does not say what it decides" in hooks.heard[0]["text"]


async def test_who_clicks_too_late_is_told_who_was_first(
    client: httpx.AsyncClient, click: Click, paused: Paused, hooks: Hooks
):
    _, review_id = await paused(client)
    await click(await says(client, review_id))
    await click(await says(client, review_id, "reject"), user="U2")
    assert f"{CLICKER} said approve" in hooks.heard[1]["text"]
    assert (await shown_review(client, review_id))["decision"]["type"] == "approve"


async def test_who_clicks_after_the_run_was_cancelled_is_told(
    client: httpx.AsyncClient, click: Click, paused: Paused, hooks: Hooks
):
    run_id, review_id = await paused(client)
    value = await says(client, review_id)
    await client.post(f"/v1/runs/{run_id}/cancel")
    await click(value)
    assert "cancelled" in hooks.heard[0]["text"]


async def test_only_those_whom_the_policy_names_may_click(
    app: App, client: httpx.AsyncClient, click: Click, sent: Any, hooks: Hooks
):
    run_id = await sent(client, "1", {"account": "ann", "amount": "120.00"}, "refund.guarded")
    await app.engine.advance(run_id)
    (review_id,) = (await client.get(f"/v1/runs/{run_id}")).json()["reviews"]
    value = await says(client, review_id)
    await click(value)
    await click(value, user="UBOSS", source="slack-eu")  # the user of another team, who may have the same id
    assert (await shown_review(client, review_id))["state"] == "open"
    assert ["may not decide" in heard["text"] for heard in hooks.heard] == [True, True]
    await click(value, user="UBOSS")
    assert (await shown_review(client, review_id))["decision"]["by"] == "slack:UBOSS"


async def test_a_click_is_answered_only_at_slack(client: httpx.AsyncClient, click: Click, paused: Paused, hooks: Hooks):
    _, review_id = await paused(client)
    elsewhere = hooks.url.replace("127.0.0.1", "localhost")
    for address in (elsewhere, f"{hooks.url}@{elsewhere[7:]}", "http://[", "file:///etc/passwd", hooks.url + "1"):
        await click(await says(client, review_id), response_url=address)
    assert hooks.heard == []
    assert (await shown_review(client, review_id))["state"] == "decided"


async def test_what_was_decided_stands_though_slack_does_not_hear_it(
    client: httpx.AsyncClient, click: Click, paused: Paused, hooks: Hooks, caplog: pytest.LogCaptureFixture
):
    _, review_id = await paused(client)
    hooks.status = 500
    assert (await click(await says(client, review_id))).status_code == 200
    assert (await shown_review(client, review_id))["state"] == "decided"
    assert "Slack did not take what became of a click: 500" in caplog.text


# -- what it is for ----------------------------------------------------------------------------------------------------


async def test_a_click_decides_in_the_name_of_who_clicked_and_the_run_goes_on(
    app: App, client: httpx.AsyncClient, click: Click, paused: Paused, hooks: Hooks
):
    run_id, review_id = await paused(client)
    value = await says(client, review_id)
    for _ in range(2):  # a second click says the same again
        answer = await click(value)
        assert (answer.status_code, answer.text) == (200, "")
    decision = (await shown_review(client, review_id))["decision"]
    assert (decision["type"], decision["by"], decision["verified"]) == ("approve", CLICKER, True)
    await app.engine.advance(run_id)
    assert (await client.get(f"/v1/runs/{run_id}")).json()["outcome"] == "approved"
    assert [heard["text"][:30] for heard in hooks.heard] == [f"Noted: approve, by {CLICKER}."[:30]] * 2


async def test_a_click_on_any_button_is_an_event_in_the_log_of_webhooks(client: httpx.AsyncClient, click: Click):
    await click("run_1", actions=[{"action_id": "approve", "value": "run_1"}])
    await click({"review": "rev_1", "type": "approve", "digest": "0"})
    events = (await client.get("/v1/events")).json()["items"]
    assert [(event["type"], event["subject"]) for event in events] == [
        ("block_actions", "eventwright.decision.approve"),
        ("block_actions", "approve"),
    ]
    log = (await client.get("/v1/webhooks/slack/deliveries")).json()["items"]
    assert [one["outcome"] for one in log] == ["accepted", "accepted"]


async def test_replaying_the_delivery_of_a_click_decides_nothing_anew(
    client: httpx.AsyncClient, click: Click, paused: Paused, hooks: Hooks
):
    _, review_id = await paused(client)
    await click(await says(client, review_id, digest="0"))
    (one,) = (await client.get("/v1/webhooks/slack/deliveries")).json()["items"]
    assert (await client.post(f"/v1/webhooks/deliveries/{one['id']}/replay")).status_code == 202
    assert len(hooks.heard) == 1
