"""The providers of webhooks as they send: their bodies, and how each signs them, written down apart from our code."""

from __future__ import annotations

import base64
import hashlib
import hmac
import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path
from typing import Any
from urllib.parse import urlencode

DATA = Path(__file__).parent / "data/webhooks"
URL = "https://hooks.example.com/v1/webhooks/hubspot"


def load(name: str) -> Any:
    """A file of `tests/data/webhooks`."""
    return json.loads((DATA / name).read_text())


def dumped(value: Any) -> bytes:
    return json.dumps(value).encode()


def digest(secret: str, content: bytes) -> bytes:
    return hmac.new(secret.encode(), content, hashlib.sha256).digest()


def stripe_headers(body: bytes, at: datetime, secret: str) -> dict[str, str]:
    stamp = int(at.timestamp())
    return {"Stripe-Signature": f"t={stamp},v1={digest(secret, f'{stamp}.'.encode() + body).hex()},v0=00"}


def slack_headers(body: bytes, at: datetime, secret: str) -> dict[str, str]:
    stamp = str(int(at.timestamp()))
    signature = "v0=" + digest(secret, f"v0:{stamp}:".encode() + body).hex()
    return {"X-Slack-Request-Timestamp": stamp, "X-Slack-Signature": signature}


def hubspot_headers(body: bytes, at: datetime, secret: str) -> dict[str, str]:
    stamp = str(int(at.timestamp() * 1000))
    signature = base64.b64encode(digest(secret, f"POST{URL}".encode() + body + stamp.encode())).decode()
    return {"X-HubSpot-Request-Timestamp": stamp, "X-HubSpot-Signature-v3": signature}


def github_headers(body: bytes, at: datetime, secret: str) -> dict[str, str]:
    return {"X-Hub-Signature-256": f"sha256={digest(secret, body).hex()}"}


def shopify_headers(body: bytes, at: datetime, secret: str) -> dict[str, str]:
    return {"X-Shopify-Hmac-SHA256": base64.b64encode(digest(secret, body)).decode()}


def hmac_headers(body: bytes, at: datetime, secret: str) -> dict[str, str]:
    return {"X-Signature": digest(secret, body).hex()}


def standard_headers(body: bytes, at: datetime, secret: str, name: str = "msg_1") -> dict[str, str]:
    stamp = str(int(at.timestamp()))
    key = base64.b64decode(secret)
    signature = hmac.new(key, f"{name}.{stamp}.".encode() + body, hashlib.sha256).digest()
    signatures = f"v1,{base64.b64encode(signature).decode()}"
    return {"webhook-id": name, "webhook-timestamp": stamp, "webhook-signature": signatures}


@dataclass(frozen=True, kw_only=True)
class Sender:
    """One provider, and one thing that it tells."""

    scheme: str
    body: bytes
    #: The headers that sign a body at a time with a secret.
    sign: Callable[[bytes, datetime, str], dict[str, str]]
    #: The event that it is.
    id: str
    type: str
    also: Mapping[str, str] = field(default_factory=dict)
    secret: str = "MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw"
    dated: bool = True

    def headers(self, at: datetime, secret: str | None = None, body: bytes | None = None) -> dict[str, str]:
        """All headers of a delivery."""
        return dict(self.also) | self.sign(self.body if body is None else body, at, secret or self.secret)


PAYMENT_FAILED = load("stripe_fixtures.json")["event"] | {
    "type": "invoice.payment_failed",
    "api_version": "2025-10-29.clover",
    "data": {"object": load("stripe_fixtures.json")["invoice"]},
    "pending_webhooks": 2,
}
DEAL_MOVED: dict[str, Any] = {
    "eventId": 1,
    "subscriptionId": 12345,
    "portalId": 62515,
    "appId": 54321,
    "occurredAt": 1769851798123,
    "subscriptionType": "deal.propertyChange",
    "attemptNumber": 0,
    "objectId": 123,
    "propertyName": "dealstage",
    "propertyValue": "closedwon",
    "changeSource": "CRM",
}
MENTION: dict[str, Any] = {
    "token": "ZZZZZZWSxiZZZ2yIvs3peJ",
    "team_id": "T123ABC456",
    "api_app_id": "A123ABC456",
    "event": {
        "type": "app_mention",
        "user": "U123ABC456",
        "text": "What is the hour of the pearl, <@U0LAN0Z89>?",
        "ts": "1515449522.000016",
        "channel": "C123ABC456",
        "event_ts": "1515449522000016",
    },
    "type": "event_callback",
    "event_id": "Ev123ABC456",
    "event_time": 1515449522,
    "authed_users": ["U0LAN0Z89"],
}
BUTTON: dict[str, Any] = {
    "type": "block_actions",
    "team": {"id": "T9TK3CUKW", "domain": "example"},
    "user": {"id": "UA8RXUSPL", "username": "jtorrance", "team_id": "T9TK3CUKW"},
    "api_app_id": "AABA1ABCD",
    "token": "9s8d9as89d8as9d8as989",
    "container": {"type": "message", "message_ts": "1548261231.000200", "channel_id": "CBR2V3XEX"},
    "trigger_id": "12321423423.333649436676.d8c1bb837935619ccad0f624c448ffb3",
    "channel": {"id": "CBR2V3XEX", "name": "review-updates"},
    "response_url": "https://hooks.slack.com/actions/AABA1ABCD/1232321423432/D09sSasdasdAS9091209",
    "actions": [{"action_id": "approve", "block_id": "=qXel", "value": "run_1", "type": "button"}],
}
ORDER: dict[str, Any] = {"id": 5001234567890, "email": "jon@example.com", "total_price": "403.00"}

STRIPE = Sender(
    scheme="stripe",
    body=dumped(PAYMENT_FAILED),
    sign=stripe_headers,
    id="evt_1Pgc76B7WZ01zgkWwyRHS12y",
    type="invoice.payment_failed",
    secret="whsec_test_secret",
)
HUBSPOT = Sender(
    scheme="hubspot",
    body=dumped([DEAL_MOVED]),
    sign=hubspot_headers,
    id="1-62515-12345-123-1769851798123",
    type="deal.propertyChange",
)
SLACK = Sender(scheme="slack", body=dumped(MENTION), sign=slack_headers, id="Ev123ABC456", type="app_mention")
SLACK_BUTTON = Sender(
    scheme="slack",
    body=urlencode({"payload": json.dumps(BUTTON)}).encode(),
    sign=slack_headers,
    id=BUTTON["trigger_id"],
    type="block_actions",
    also={"content-type": "application/x-www-form-urlencoded"},
)
GITHUB = Sender(
    scheme="github",
    body=(DATA / "github_issues.json").read_bytes(),
    sign=github_headers,
    id="72d3162e-cc78-11e3-81ab-4c9367dc0958",
    type="issues",
    also={"X-GitHub-Event": "issues", "X-GitHub-Delivery": "72d3162e-cc78-11e3-81ab-4c9367dc0958"},
    secret="It's a Secret to Everybody",
    dated=False,
)
SHOPIFY = Sender(
    scheme="shopify",
    body=dumped(ORDER),
    sign=shopify_headers,
    id="b54557e4-bdd9-4b37-8a5f-bf7d70bcd043",
    type="orders/create",
    also={
        "X-Shopify-Topic": "orders/create",
        "X-Shopify-Webhook-Id": "b54557e4-bdd9-4b37-8a5f-bf7d70bcd043",
        "X-Shopify-Event-Id": "98880550-7158-44d4-b7cd-2c97c8a091b5",
        "X-Shopify-Shop-Domain": "example.myshopify.com",
        "X-Shopify-API-Version": "2025-10",
        "X-Shopify-Triggered-At": "2026-01-31T09:29:58.123456789Z",
    },
    secret="hush",
    dated=False,
)
STANDARD = Sender(
    scheme="standard",
    body=dumped({"type": "ticket.created", "timestamp": "2026-01-31T09:29:58Z", "data": {"id": 7}}),
    sign=standard_headers,
    id="msg_1",
    type="ticket.created",
)
HMAC = Sender(
    scheme="hmac",
    body=dumped({"id": 7, "event": "parcel.lost", "parcel": "p-1"}),
    sign=hmac_headers,
    id="7",
    type="parcel.lost",
    dated=False,
)
SENDERS = (STRIPE, HUBSPOT, SLACK, SLACK_BUTTON, GITHUB, SHOPIFY, STANDARD, HMAC)
DATED = tuple(sender for sender in SENDERS if sender.dated)


def named(sender: Sender) -> str:
    """The name of a sender's test."""
    return f"{sender.scheme}-{sender.type}"
