"""The providers of webhooks: how each signs, and which event each of its bodies is.

The id of an event is the provider's own, because only that stays the same when the provider sends it again. What a
provider counts about its deliveries (attempts, webhooks still to come) is no part of the fact and is left out of the
data: with it, a repeated delivery would be another content under the same id.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from types import MappingProxyType
from typing import Any
from urllib.parse import parse_qsl

from eventwright.queue.attributes import text_fault
from eventwright.queue.webhook_signatures import GitHub, HubSpot, PlainHmac, Shopify, Slack, Stripe
from eventwright.queue.webhooks import (
    STANDARD,
    BadWebhook,
    Scheme,
    UnusableSource,
    Verified,
    named_event,
    time_in,
    webhook_event,
)
from eventwright.runs.event import Event

#: Where a plain HMAC stands, unless the settings name another header.
HMAC_HEADER = "X-Signature"
#: Fields that a form may have; the longest of ours has a dozen.
_MOST_FIELDS = 100
#: What together names one of HubSpot's events: it does not promise that `eventId` alone does.
_HUBSPOT_ID = ("eventId", "portalId", "subscriptionId", "objectId", "occurredAt")
#: What one of Slack's events is about: the first of these that it has.
_SLACK_SUBJECTS = (("channel",), ("channel", "id"), ("item", "channel"), ("user",), ("user", "id"))
#: The headers in which Shopify says what its body does not.
_OF_SHOPIFY = frozenset({"x-shopify-topic", "x-shopify-shop-domain", "x-shopify-triggered-at", "x-shopify-api-version"})
#: The `action_id` of a button that answers a review; something more may follow after a point.
DECIDING = "eventwright.decision"
_SLACK_USER = re.compile(r"[A-Z0-9]{2,32}")
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


@dataclass(frozen=True, kw_only=True)
class Delivery:
    """A request whose signature was right."""

    #: The name in the address.
    source: str
    raw: bytes
    #: Those that its provider `reads` and that can be meant one way only, names in lower case.
    headers: Mapping[str, str]
    verified: Verified
    #: Reads strict JSON. Whatever it raises is its caller's.
    parse: Callable[[bytes], Any]

    def payload(self) -> Any:
        """The body as JSON."""
        return self.parse(self.raw)

    def form(self) -> dict[str, str] | None:
        """The fields of a form; None when the body is JSON.

        The body decides and not the content type, which nobody signed.

        Raises:
            BadWebhook: it is neither.
        """
        if self.raw.lstrip()[:1] in (b"{", b"["):
            return None
        try:
            text = self.raw.decode("ascii")
            pairs = parse_qsl(
                text, keep_blank_values=True, strict_parsing=True, errors="strict", max_num_fields=_MOST_FIELDS
            )
        except ValueError as error:
            raise BadWebhook(self.source, "the body", "must be JSON or a form") from error
        fields = dict(pairs)
        if len(fields) != len(pairs):
            raise BadWebhook(self.source, "the form", "has a field twice")
        return fields


@dataclass(frozen=True, kw_only=True)
class Click:
    """A button that somebody clicked to answer a review."""

    #: Who, as the provider signed it: `slack:U123`; of a source by another name than the provider, `slack:team:U123`.
    by: str
    #: What the button says.
    value: str
    #: Where the one who clicked can be told what became of it.
    answer_to: str | None = None


@dataclass(frozen=True, kw_only=True)
class Told:
    """What a delivery tells: its events, and the answer when the provider wants another one than ours."""

    #: In their order; one that names no event stands as why it does not.
    events: tuple[Event | BadWebhook, ...] = ()
    #: Answered with a 200, as plain text, once the events are stored.
    answer: str | None = None
    #: What somebody decided with it.
    click: Click | None = None


@dataclass(frozen=True, kw_only=True)
class Options:
    """What the settings say about a source beside its secrets; empty where they say nothing."""

    url: str = ""
    header: str = ""


@dataclass(frozen=True)
class Provider:
    """One row of the table: how it signs, and what its bodies tell."""

    scheme: Callable[[Options], Scheme]
    #: Raises BadWebhook, and what `Delivery.parse` raises.
    tell: Callable[[Delivery], Told]
    #: The headers that `tell` finds in its delivery, in lower case; it sees no others.
    reads: frozenset[str] = frozenset()


def provider_of(source: str, scheme: str = "") -> Provider:
    """The provider of a source: the one that the settings name, or the one that it is called like, or the standard.

    Raises:
        UnusableSource: the settings name one that is not known.
    """
    if not scheme:
        return PROVIDERS[source if source in _KNOWN_BY_NAME else "standard"]
    try:
        return PROVIDERS[scheme.lower()]
    except KeyError:
        known = ", ".join(PROVIDERS)
        raise UnusableSource(f"{scheme!r} is no scheme of webhooks for {source!r}; there are: {known}") from None


def _standard(delivery: Delivery) -> Told:
    return Told(events=(webhook_event(delivery.source, delivery.verified, delivery.payload()),))


def _stripe(delivery: Delivery) -> Told:
    payload = _object(delivery, delivery.payload())
    event = named_event(
        delivery.source,
        {"id": payload.get("id"), "type": payload.get("type")},
        _without(payload, "pending_webhooks"),
        # Events of Stripe's second API hold a reference to their object instead of the object.
        subject=_at(payload, "data", "object", "id") or _at(payload, "related_object", "id"),
        time=_since_epoch(payload.get("created")) or time_in(payload.get("created")),
        version=payload.get("api_version"),
    )
    return Told(events=(event,))


def _hubspot(delivery: Delivery) -> Told:
    items = delivery.payload()
    if not isinstance(items, list) or not items:
        raise BadWebhook(delivery.source, "the body", "must be a JSON array of events")
    return Told(events=tuple(_hubspot_item(delivery, item) for item in items))


def _hubspot_item(delivery: Delivery, item: Any) -> Event | BadWebhook:
    try:
        item = _object(delivery, item)
        parts = [str(item[name]) for name in _HUBSPOT_ID if _is_number_or_text(item.get(name))]
        milliseconds = item.get("occurredAt")
        return named_event(
            delivery.source,
            {
                "eventId": "-".join(parts) if _is_number_or_text(item.get("eventId")) else None,
                "subscriptionType": item.get("subscriptionType"),
            },
            _without(item, "attemptNumber"),
            subject=_text(item.get("objectId")),
            time=_since_epoch(milliseconds, per_second=1000),
        )
    except BadWebhook as fault:
        return fault


def _slack(delivery: Delivery) -> Told:
    form = delivery.form()
    if form is not None:
        return _slack_interaction(delivery, form)
    payload = _object(delivery, delivery.payload())
    if payload.get("type") == "url_verification":
        challenge = payload.get("challenge")
        if text_fault(challenge) is not None:
            raise BadWebhook(delivery.source, "challenge", "must be a string")
        return Told(answer=challenge)
    inner = payload["event"] if isinstance(payload.get("event"), dict) else {}
    event = named_event(
        delivery.source,
        {
            # Notices about the app itself have no id. Their signature is over time and body, so it is theirs alone.
            "event_id": payload.get("event_id", delivery.headers["x-slack-signature"]),
            "type": inner.get("type", payload.get("type")),
        },
        _without(payload, "token"),
        subject=next(filter(None, (_at(inner, *path) for path in _SLACK_SUBJECTS)), None),
        time=_since_epoch(payload.get("event_time")),
    )
    return Told(events=(event,))


def _slack_interaction(delivery: Delivery, form: dict[str, str]) -> Told:
    """A button, a dialogue, a shortcut, or a command with a slash. Slack shows people what is answered: nothing."""
    if "payload" in form:
        payload = _object(delivery, delivery.parse(form["payload"].encode()))
        actions = payload.get("actions")
        first = actions[0] if isinstance(actions, list) and actions else None
        kind = payload.get("type")
        subject = _at(first, "action_id") or _at(payload, "view", "callback_id") or _at(payload, "callback_id")
    else:
        payload, kind, subject = dict(form), "slash_command", form.get("command")
    event = named_event(
        delivery.source,
        {
            # One for each thing that a person does. A dialogue that was closed has none; see above.
            "trigger_id": payload.get("trigger_id", delivery.headers["x-slack-signature"]),
            "type": kind,
        },
        _without(payload, "token"),
        subject=subject,
        time=delivery.verified.timestamp,
    )
    return Told(events=(event,), answer="", click=_click(delivery.source, payload))


def _click(source: str, payload: dict[str, Any]) -> Click | None:
    actions = payload.get("actions")
    action = actions[0] if isinstance(actions, list) and len(actions) == 1 else None
    action_id, value, user = _at(action, "action_id"), _at(action, "value"), _at(payload, "user", "id")
    if payload.get("type") != "block_actions" or action_id is None or value is None:
        return None
    if action_id.split(".")[:2] != DECIDING.split(".") or user is None or not _SLACK_USER.fullmatch(user):
        return None
    by = f"slack:{user}" if source == "slack" else f"slack:{source}:{user}"
    return Click(by=by, value=value, answer_to=_at(payload, "response_url"))


def _github(delivery: Delivery) -> Told:
    name = delivery.headers.get("x-github-event")
    form = delivery.form()
    raw = delivery.raw if form is None else form.get("payload", "").encode()
    payload = _object(delivery, delivery.parse(raw))
    if name == "ping":
        return Told(answer="pong")
    place = _at(payload, "repository", "full_name") or _at(payload, "organization", "login")
    numbers = (payload.get(kind, {}) for kind in ("issue", "pull_request", "discussion"))
    number = next((about["number"] for about in numbers if isinstance(about, dict) and "number" in about), None)
    event = named_event(
        delivery.source,
        {"X-GitHub-Delivery": delivery.verified.message_id, "X-GitHub-Event": name},
        payload,
        subject=f"{place}#{number}" if place and number is not None else place,
    )
    return Told(events=(event,))


def _shopify(delivery: Delivery) -> Told:
    payload, headers = _object(delivery, delivery.payload()), delivery.headers
    shop = headers.get("x-shopify-shop-domain")
    event = named_event(
        delivery.source,
        {"X-Shopify-Webhook-Id": delivery.verified.message_id, "X-Shopify-Topic": headers.get("x-shopify-topic")},
        payload,
        subject=_at(payload, "admin_graphql_api_id") or _text(payload.get("id")),
        time=time_in(headers.get("x-shopify-triggered-at")),
        version=headers.get("x-shopify-api-version"),
        # The body does not say whose it is.
        extensions={"shopdomain": shop} if shop is not None and text_fault(shop) is None else {},
    )
    return Told(events=(event,))


def _plain_hmac(delivery: Delivery) -> Told:
    payload = _object(delivery, delivery.payload())
    # Who repeats a delivery repeats its bytes, and nothing else tells it apart where the body has no id.
    own_id = _text(payload.get("id")) or hashlib.sha256(delivery.raw).hexdigest()
    event = named_event(
        delivery.source,
        {"id": own_id, "type": _at(payload, "type") or _at(payload, "event_type") or _at(payload, "event")},
        payload,
        time=time_in(payload.get("timestamp")),
        version=payload.get("api_version"),
    )
    return Told(events=(event,))


#: Every provider by its name in the settings. The first is that of a source that says nothing.
PROVIDERS: Mapping[str, Provider] = MappingProxyType(
    {
        "standard": Provider(lambda _: STANDARD, _standard),
        "stripe": Provider(lambda _: Stripe(), _stripe),
        "hubspot": Provider(lambda options: HubSpot(options.url), _hubspot),
        "slack": Provider(lambda _: Slack(), _slack, frozenset({"x-slack-signature"})),
        "github": Provider(lambda _: GitHub(), _github, frozenset({"x-github-event"})),
        "shopify": Provider(lambda _: Shopify(), _shopify, _OF_SHOPIFY),
        "hmac": Provider(lambda options: PlainHmac(options.header or HMAC_HEADER), _plain_hmac),
    }
)
#: Those whose name a source may have in their place.
_KNOWN_BY_NAME = PROVIDERS.keys() - {"standard", "hmac"}


def _object(delivery: Delivery, value: Any) -> dict[str, Any]:
    if not isinstance(value, dict):
        raise BadWebhook(delivery.source, "the body", "must be a JSON object")
    return value


def _without(payload: dict[str, Any], name: str) -> dict[str, Any]:
    return {key: value for key, value in payload.items() if key != name}


def _at(value: Any, *path: str) -> str | None:
    """The text at the end of this path, if there is one."""
    for name in path:
        value = value.get(name) if isinstance(value, dict) else None
    return value if isinstance(value, str) else None


def _is_number_or_text(value: Any) -> bool:
    return isinstance(value, str | int) and not isinstance(value, bool)


def _text(value: Any) -> str | None:
    """An id as text; providers also write them as numbers."""
    return str(value) if _is_number_or_text(value) else None


def _since_epoch(value: Any, *, per_second: int = 1) -> datetime | None:
    """The moment of a count since 1970; None if it is none."""
    if not isinstance(value, int) or isinstance(value, bool):
        return None
    try:
        return _EPOCH + timedelta(seconds=value / per_second)
    except OverflowError:
        return None
