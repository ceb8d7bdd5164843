"""Webhooks: is this body really from that sender, and which event is it?

`verify` answers the first question for every scheme of signing, and answers it with nothing but yes or no:
whatever is strange about a request is one and the same refusal. A scheme is a small class that knows where
its provider puts the signature and how it is computed; the time window, several secrets and the comparison
are done here, once. `webhook_event` answers the second question. Standard Webhooks is the scheme of every
source without one of its own.
"""

from __future__ import annotations

import base64
import binascii
import hmac
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any, Protocol
from urllib.parse import quote

from standardwebhooks import Webhook

from eventwright.queue.attributes import read_time, source_fault, text_fault, version_fault
from eventwright.runs.errors import EventwrightError
from eventwright.runs.event import Event

#: How far a signed time may lie from ours, in the past and in the future.
TOLERANCE = timedelta(seconds=300)

#: What a Standard Webhooks body without a timestamp consists of.
_ENVELOPE = frozenset({"type", "data", "version"})


class SignatureRefused(EventwrightError, PermissionError):
    """The request is not signed by anyone we know. The message never says why; its cause may."""

    def __init__(self) -> None:
        super().__init__("the signature was not accepted")


class UnusableSecret(EventwrightError, ValueError):
    """A signing secret from the settings cannot be a key. The message does not repeat the secret."""

    def __init__(self, what: str) -> None:
        self.what = what
        super().__init__(f"a webhook secret {what}; make one with `openssl rand -base64 32`")


class BadWebhook(EventwrightError, ValueError):
    """The body is rightly signed but does not say which event it is."""

    def __init__(self, source: str, name: str, fault: str) -> None:
        self.source, self.name, self.fault = source, name, fault
        super().__init__(f"webhook from {source!r}: {name} {fault}")


@dataclass(frozen=True, kw_only=True)
class Signed:
    """What a request claims, before anyone has checked it."""

    message_id: str
    #: When the sender signed it; None for providers that sign no time.
    timestamp: datetime | None
    #: The signatures it brings, as they stand in the header. One that fits is enough.
    signatures: tuple[bytes, ...]


@dataclass(frozen=True, kw_only=True)
class Verified:
    """A request whose signature was right: the provider's id of the message, and when it was signed (UTC)."""

    message_id: str
    timestamp: datetime | None


class Scheme(Protocol):
    """How one provider signs."""

    def check_secret(self, secret: str) -> None:
        """Raise UnusableSecret when this cannot be a secret of the scheme. Settings ask it early."""

    def read(self, headers: Mapping[str, str]) -> Signed:
        """What the headers claim (names in lower case). Whatever it raises is a refusal."""

    def signature(self, raw: bytes, signed: Signed, secret: str) -> bytes:
        """The signature that would be right, spelled as in the header. Whatever it raises is a refusal."""


class StandardWebhooks:
    """https://www.standardwebhooks.com, symmetric signatures (`v1`)."""

    def check_secret(self, secret: str) -> None:
        """Raise UnusableSecret when it is not base64 of at least one byte (`whsec_` may stand before it)."""
        _key(secret)

    def read(self, headers: Mapping[str, str]) -> Signed:
        """The three `webhook-*` headers."""
        seconds = headers["webhook-timestamp"]
        if not (seconds.isascii() and seconds.isdigit()):
            raise ValueError("webhook-timestamp is not a number of seconds")
        return Signed(
            message_id=headers["webhook-id"],
            timestamp=datetime.fromtimestamp(int(seconds), UTC),
            signatures=tuple(headers["webhook-signature"].encode("ascii").split(b" ")),
        )

    def signature(self, raw: bytes, signed: Signed, secret: str) -> bytes:
        """`v1,` and the base64 of the HMAC over id, time and body."""
        if signed.timestamp is None:
            raise ValueError("Standard Webhooks always signs a time")
        # The library's verify() has a fixed clock and raises five kinds of error; its sign() has neither.
        # It takes the wall time of any time zone for UTC, hence the conversion.
        moment = signed.timestamp.astimezone(UTC)
        return Webhook(_key(secret)).sign(signed.message_id, moment, raw.decode("utf-8")).encode("ascii")


STANDARD = StandardWebhooks()


def verify(
    raw: bytes,
    headers: Mapping[str, str],
    secrets: Sequence[str],
    now: datetime,
    *,
    scheme: Scheme = STANDARD,
) -> Verified:
    """Prove that one of the secrets signed this body, within five minutes of now.

    Args:
        raw: the body exactly as it came.
        headers: the request's headers, in any case.
        secrets: all that are active, so that one can be replaced without a gap. None refuses everything.
        now: the present moment, with a time zone.
        scheme: how the provider signs.

    Raises:
        SignatureRefused: for whatever reason; the answer to the sender is 401 and nothing more.
        UnusableSecret: one of our own secrets is not a key.
    """
    for secret in secrets:
        scheme.check_secret(secret)
    # A stranger chose every byte below. Errors that we did not think of must end as a refusal too.
    try:
        accepted = _accepted(raw, headers, secrets, now, scheme)
    except Exception as error:
        raise SignatureRefused from error
    if accepted is None:
        raise SignatureRefused
    return accepted


def webhook_event(source: str, verified: Verified, payload: Any) -> Event:
    """The event that a webhook tells of.

    - `id` is the provider's id of the message, `source` is `/webhooks/<source>`, `type` is the body's `type`.
    - `data` is the body's `data` when the body is the Standard Webhooks envelope: it has `timestamp` beside
      `data`, or nothing but `type`, `data` and `version`. Any other body is the data as a whole: nothing is
      dropped.
    - `version` is the body's `version`, a string or a whole number; "1" when it has none.
    - `time` is the body's `timestamp` when that is RFC 3339, else the moment it was signed.

    Args:
        source: the name in the address, `POST /v1/webhooks/{source}`.
        verified: what `verify` proved.
        payload: the body, parsed strictly.

    Raises:
        BadWebhook: the body is no object, or its type, its version or the message's id is no attribute.
    """
    if not isinstance(payload, dict):
        raise BadWebhook(source, "the body", "must be a JSON object with a `type`")
    event_source = f"/webhooks/{quote(source, safe='')}"
    version = _version(source, payload.get("version"))
    faults = {
        "webhook-id": text_fault(verified.message_id),
        "type": text_fault(payload.get("type")),
        "version": version_fault(version),
        "source": source_fault(event_source),
    }
    for name, fault in faults.items():
        if fault is not None:
            raise BadWebhook(source, name, fault)
    enveloped = "data" in payload and ("timestamp" in payload or payload.keys() <= _ENVELOPE)
    return Event(
        id=verified.message_id,
        source=event_source,
        type=payload["type"],
        data=payload["data"] if enveloped else payload,
        time=_time(payload.get("timestamp")) or verified.timestamp,
        version=version,
    )


def sign(body: bytes, message_id: str, timestamp: datetime, secret: str) -> dict[str, str]:
    """The headers with which a sender signs a body by Standard Webhooks.

    Args:
        body: the exact bytes to be sent, UTF-8.
        message_id: the same for every repeat of the same message.
        timestamp: when it is sent, with a time zone; whole seconds count.
        secret: base64, with or without `whsec_`.

    Raises:
        UnusableSecret: the secret is not a key.
        ValueError: the body is not UTF-8.
    """
    signed = Signed(message_id=message_id, timestamp=timestamp, signatures=())
    return {
        "webhook-id": message_id,
        "webhook-timestamp": str(int(timestamp.timestamp())),
        "webhook-signature": STANDARD.signature(body, signed, secret).decode("ascii"),
    }


def _accepted(
    raw: bytes, headers: Mapping[str, str], secrets: Sequence[str], now: datetime, scheme: Scheme
) -> Verified | None:
    # A header that stands twice could mean one thing to a proxy and another to us: it counts as absent.
    times = Counter(name.lower() for name, _ in headers.items())
    signed = scheme.read({name.lower(): value for name, value in headers.items() if times[name.lower()] == 1})
    if signed.timestamp is not None and abs(now - signed.timestamp) > TOLERANCE:
        return None
    if text_fault(signed.message_id) is not None:
        return None
    expected = [scheme.signature(raw, signed, secret) for secret in secrets]
    # Every pair is compared, so that the time taken does not tell which secret was right.
    fits = [hmac.compare_digest(right, given) for right in expected for given in signed.signatures]
    return Verified(message_id=signed.message_id, timestamp=signed.timestamp) if any(fits) else None


def _key(secret: str) -> bytes:
    """The bytes of a secret. The library would drop what is not base64 and sign with the rest."""
    encoded = secret.removeprefix("whsec_").rstrip("=")
    try:
        key = base64.b64decode(encoded + "=" * (-len(encoded) % 4), validate=True)
    except (binascii.Error, ValueError) as error:
        raise UnusableSecret("is not base64") from error
    if not key:
        raise UnusableSecret("is empty")
    return key


def _version(source: str, value: Any) -> str:
    match value:
        case None:
            return "1"
        case bool():
            raise BadWebhook(source, "version", "must be a string or a whole number, not a boolean")
        case str() | int():
            return str(value)
    raise BadWebhook(source, "version", f"must be a string or a whole number: {ascii(value)[:64]}")


def _time(value: Any) -> datetime | None:
    """The time in a body, where providers also write epochs or nothing; only RFC 3339 is taken for one."""
    try:
        return read_time(value) if isinstance(value, str) else None
    except ValueError:
        return None
