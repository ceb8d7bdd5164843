"""What each provider's body becomes: one event of the provider's own id and type, the same however often it is sent."""

from __future__ import annotations

import json
from datetime import UTC, datetime
from typing import Any
from urllib.parse import urlencode

import pytest
from tests.senders import (
    BUTTON,
    DEAL_MOVED,
    GITHUB,
    HMAC,
    HUBSPOT,
    MENTION,
    PAYMENT_FAILED,
    SENDERS,
    SHOPIFY,
    SLACK,
    SLACK_BUTTON,
    STANDARD,
    STRIPE,
    Sender,
    dumped,
    load,
    named,
)

from eventwright.queue.webhook_providers import PROVIDERS, Delivery, Options, Told
from eventwright.queue.webhooks import BadWebhook, single_headers, verify
from eventwright.runs.event import Event

NOW = datetime(2026, 1, 31, 9, 30, tzinfo=UTC)


def told(sender: Sender, body: bytes | None = None, at: datetime = NOW, **headers: str) -> Told:
    """What a delivery tells; keywords are headers, with _ for -."""
    raw, provider = sender.body if body is None else body, PROVIDERS[sender.scheme]
    sent = sender.headers(at, body=raw) | {name.replace("_", "-"): value for name, value in headers.items()}
    scheme = provider.scheme(Options(url="https://hooks.example.com/v1/webhooks/hubspot"))
    verified = verify(raw, sent, [sender.secret], at, scheme=scheme)
    return provider.tell(
        Delivery(source=sender.scheme, raw=raw, headers=single_headers(sent), verified=verified, parse=json.loads)
    )


def event_of(sender: Sender, body: Any = None, **headers: str) -> Event:
    raw = body if body is None or isinstance(body, bytes) else dumped(body)
    (event,) = told(sender, raw, **headers).events
    if isinstance(event, BadWebhook):
        raise event
    return event


def refused(sender: Sender, body: bytes) -> None:
    with pytest.raises(BadWebhook, match=f"webhook from '{sender.scheme}': "):
        event_of(sender, body)


@pytest.mark.parametrize("sender", SENDERS, ids=named)
@pytest.mark.parametrize("body", [b"null", b"[]", b"7", b"[7]", b'"text"'])
def test_a_body_that_is_no_object_is_refused_by_name(sender: Sender, body: bytes):
    refused(sender, body)


@pytest.mark.parametrize("sender", [STRIPE, SLACK, STANDARD, HMAC], ids=named)
@pytest.mark.parametrize("body", [b"{}", b'{"type": 7, "id": []}', b'{"type": "", "id": ""}', b'{"type": "a\\nb"}'])
def test_a_body_without_a_usable_name_is_refused_by_name(sender: Sender, body: bytes):
    refused(sender, body)


@pytest.mark.parametrize("sender", [SLACK_BUTTON, GITHUB], ids=named)
@pytest.mark.parametrize("body", [b"a=1&a=2", b"=&=%ff", b"payload", b"\xff", b"&".join([b"a=1"] * 101)])
def test_a_form_that_can_be_read_in_two_ways_is_refused_by_name(sender: Sender, body: bytes):
    refused(sender, body)


@pytest.mark.parametrize("sender", SENDERS, ids=named)
def test_an_event_has_its_providers_id_and_type_and_comes_from_its_source(sender: Sender):
    event = event_of(sender)
    assert (event.id, event.type, event.source) == (sender.id, sender.type, f"/webhooks/{sender.scheme}")


def test_a_payment_of_stripe_has_its_version_its_subject_and_its_time():
    event = event_of(STRIPE)
    assert (event.version, event.subject) == ("2025-10-29.clover", "in_1Pgc6tB7WZ01zgkWu9fdqL6I")
    assert event.time == datetime.fromtimestamp(1234567890, UTC)
    assert event.data["data"]["object"]["object"] == "invoice"


def test_stripe_says_no_version_and_it_is_the_first():
    assert event_of(STRIPE, PAYMENT_FAILED | {"api_version": None}).version == "1"


def test_stripe_sends_it_again_with_fewer_webhooks_to_come_and_it_is_the_same():
    assert event_of(STRIPE, PAYMENT_FAILED | {"pending_webhooks": 0}).digest == event_of(STRIPE).digest


def test_a_thin_event_of_stripe_is_about_its_related_object():
    thin = {
        "id": "evt_test_65",
        "object": "v2.core.event",
        "type": "v1.billing.meter.error_report_triggered",
        "created": "2026-01-31T09:29:58.123Z",
        "related_object": {"id": "mtr_test_61", "type": "billing.meter", "url": "/v1/billing/meters/mtr_test_61"},
    }
    event = event_of(STRIPE, thin)
    assert (event.id, event.subject) == ("evt_test_65", "mtr_test_61")
    assert event.time == datetime(2026, 1, 31, 9, 29, 58, 123000, tzinfo=UTC)


def test_hubspot_tells_several_events_at_once_and_one_strange_among_them_hides_none():
    other = DEAL_MOVED | {"objectId": 124}
    first, strange, second = told(HUBSPOT, dumped([DEAL_MOVED, {"eventId": 3}, other])).events
    assert isinstance(first, Event)
    assert isinstance(second, Event)
    assert (first.id, second.id) == (HUBSPOT.id, HUBSPOT.id.replace("-123-", "-124-"))
    assert (first.subject, first.time) == ("123", datetime(2026, 1, 31, 9, 29, 58, 123000, tzinfo=UTC))
    assert isinstance(strange, BadWebhook)
    assert strange.name == "subscriptionType"


def test_another_attempt_of_hubspot_is_the_same_event():
    assert event_of(HUBSPOT, [DEAL_MOVED | {"attemptNumber": 3}]).digest == event_of(HUBSPOT).digest


def test_slacks_challenge_is_answered_and_is_no_event():
    challenge = {"type": "url_verification", "token": "t", "challenge": "3eZbrw1aBm2rZgRNFdxV2595E9CY3gmdALWMmHkvFXO7"}
    assert told(SLACK, dumped(challenge)) == Told(answer=challenge["challenge"])


def test_a_mention_in_slack_is_about_its_channel_and_keeps_no_token():
    event = event_of(SLACK)
    assert (event.subject, event.time) == ("C123ABC456", datetime.fromtimestamp(1515449522, UTC))
    assert event.data == {name: value for name, value in MENTION.items() if name != "token"}


def test_a_notice_of_slack_without_an_id_is_named_by_its_signature():
    notice = {"type": "app_rate_limited", "team_id": "T1", "minute_rate_limited": 1518467820, "api_app_id": "A1"}
    event, again = event_of(SLACK, notice), event_of(SLACK, notice)
    assert event.type == "app_rate_limited"
    assert event.id == again.id == SLACK.headers(NOW, body=dumped(notice))["X-Slack-Signature"]


def test_a_button_in_slack_is_an_event_about_its_action_and_slack_shows_no_answer():
    said = told(SLACK_BUTTON)
    (event,) = said.events
    assert isinstance(event, Event)
    assert (event.subject, event.time, said.answer) == ("approve", NOW, "")
    assert event.data == {name: value for name, value in BUTTON.items() if name != "token"}


def test_a_dialogue_and_a_command_in_slack_are_events_too():
    view = {"type": "view_submission", "trigger_id": "1.2.3", "view": {"id": "V1", "callback_id": "refund"}}
    dialogue = event_of(SLACK_BUTTON, urlencode({"payload": json.dumps(view)}).encode())
    assert (dialogue.id, dialogue.type, dialogue.subject) == ("1.2.3", "view_submission", "refund")
    command = event_of(SLACK_BUTTON, urlencode({"command": "/refund", "text": "ann 5", "trigger_id": "4.5"}).encode())
    assert (command.id, command.type, command.subject) == ("4.5", "slash_command", "/refund")
    assert command.data["text"] == "ann 5"


def test_githubs_ping_is_answered_and_is_no_event():
    assert told(GITHUB, dumped(load("github_ping.json")), **{"X-GitHub-Event": "ping"}) == Told(answer="pong")


def test_an_issue_of_github_is_about_its_number_and_a_push_about_its_repository():
    assert event_of(GITHUB).subject == "Codertocat/Hello-World#1"
    assert event_of(GITHUB, load("github_push.json"), **{"X-GitHub-Event": "push"}).subject == "Codertocat/Hello-World"


def test_github_may_send_a_form():
    form = urlencode({"payload": GITHUB.body.decode()}).encode()
    assert event_of(GITHUB, form).digest == event_of(GITHUB).digest


def test_an_order_of_shopify_has_its_version_its_time_and_its_shop():
    event = event_of(SHOPIFY)
    assert (event.version, event.subject) == ("2025-10", "5001234567890")
    assert event.extensions == {"shopdomain": "example.myshopify.com"}
    assert event.time == datetime(2026, 1, 31, 9, 29, 58, 123456, tzinfo=UTC)


def test_without_an_id_in_its_body_a_plain_hmac_is_named_by_the_bytes_of_the_body():
    body = {"type": "parcel.lost", "parcel": "p-1"}
    assert event_of(HMAC, body).id == event_of(HMAC, body).id != event_of(HMAC, body | {"parcel": "p-2"}).id


def test_what_cannot_be_a_time_or_a_subject_is_left_out():
    event = event_of(STRIPE, PAYMENT_FAILED | {"created": 10**15, "data": {"object": {"id": "a\nb"}}})
    assert (event.time, event.subject) == (None, None)
