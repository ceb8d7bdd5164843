"""Webhooks: is this body really from that sender, and which event is it?

`verify` answers the first question for every scheme of signing, and answers it with nothing but yes or no:
whatever is strange about a request is one and the same refusal. A scheme is a small class that knows where
its provider puts the signature and how it is computed; the time window, several secrets and the comparison
are done here, once. Standard Webhooks, the scheme of every source without one of its own, stands here with the
event that its bodies become; the other schemes are in `webhook_signatures.py`, their events and the table of all
providers in `webhook_providers.py`.
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
#: Characters of a header that is looked at. No provider comes near.
_LONGEST_HEADER = 4096


class SignatureRefused(EventwrightError, PermissionError):
    """The request is not signed by anyone we know. The message never says why; its cause may."""

    def __init__(self) -> None:
        super().__init__("the signature was not accepted")


class UnusableSecret(EventwrightError, ValueError):
    """A signing secret from the settings cannot be a key. The message does not repeat the secret."""

    def __init__(self, what: str) -> None:
        self.what = what
        super().__init__(f"a webhook secret {what}; make one with `openssl rand -base64 32`")


class UnusableSource(EventwrightError, ValueError):
    """What the settings say about a source of webhooks is not enough to check what comes from it."""

    def __init__(self, what: str) -> None:
        self.what = what
        super().__init__(what)


class BadWebhook(EventwrightError, ValueError):
    """The body is rightly signed but does not say which event it is."""

    def __init__(self, source: str, name: str, fault: str) -> None:
        self.source, self.name, self.fault = source, name, fault
        super().__init__(f"webhook from {source!r}: {name} {fault}")


@dataclass(frozen=True, kw_only=True)
class Signed:
    """What a request claims, before anyone has checked it."""

    #: The provider's id of the message; None where it stands in the body.
    message_id: str | None
    #: When the sender signed it; None for providers that sign no time.
    timestamp: datetime | None
    #: The signatures it brings, as they stand in the header. One that fits is enough.
    signatures: tuple[bytes, ...]
    #: The time as the header spells it, for schemes that sign these characters.
    stamp: str = ""


@dataclass(frozen=True, kw_only=True)
class Verified:
    """A request whose signature was right: the id of the message, if a header has it, and when it was signed (UTC)."""

    message_id: str | None
    timestamp: datetime | None


class Scheme(Protocol):
    """How one provider signs."""

    def check_secret(self, secret: str) -> None:
        """Raise UnusableSecret when this cannot be a secret of the scheme, UnusableSource when more is missing."""

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
        return Signed(
            message_id=headers["webhook-id"],
            timestamp=signed_time(headers["webhook-timestamp"]),
            signatures=tuple(headers["webhook-signature"].encode("ascii").split(b" ")),
        )

    def signature(self, raw: bytes, signed: Signed, secret: str) -> bytes:
        """`v1,` and the base64 of the HMAC over id, time and body."""
        if signed.message_id is None or signed.timestamp is None:
            raise ValueError("Standard Webhooks always signs an id and a time")
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
        UnusableSource: the scheme lacks something else from the settings.
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


def single_headers(headers: Mapping[str, str]) -> dict[str, str]:
    """The headers that can be meant one way only, names in lower case.

    One that stands twice could mean one thing to a proxy and another to us, and one without end means nothing: both
    count as absent.
    """
    pairs = [(name.lower(), value) for name, value in headers.items()]
    times = Counter(name for name, _ in pairs)
    return {name: value for name, value in pairs if times[name] == 1 and len(value) <= _LONGEST_HEADER}


def signed_time(number: str, *, per_second: int = 1) -> datetime:
    """The moment that a header names by a count since 1970, in UTC.

    Args:
        number: digits and nothing else.
        per_second: 1000 when it counts milliseconds.

    Raises:
        ValueError, OverflowError, OSError: there is no such moment.
    """
    if not (number.isascii() and number.isdigit()):
        raise ValueError("not a number of seconds")
    seconds, rest = divmod(int(number), per_second)
    return datetime.fromtimestamp(seconds, UTC) + timedelta(seconds=rest / per_second)


def webhook_event(source: str, verified: Verified, payload: Any) -> Event:
    """The event that a body in the shape of Standard Webhooks tells of.

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
    enveloped = "data" in payload and ("timestamp" in payload or payload.keys() <= _ENVELOPE)
    return named_event(
        source,
        {"webhook-id": verified.message_id, "type": payload.get("type")},
        payload["data"] if enveloped else payload,
        time=time_in(payload.get("timestamp")) or verified.timestamp,
        version=_version(source, payload.get("version")),
    )


def named_event(
    source: str,
    names: Mapping[str, Any],
    data: Any,
    *,
    subject: Any = None,
    time: datetime | None = None,
    version: Any = None,
    extensions: Mapping[str, str] | None = None,
) -> Event:
    """An event with the names that its provider gave it, if they can be attributes.

    Args:
        source: the name in the address.
        names: the provider's id and its type of event, in this order, by what the provider calls them.
        data: the payload.
        subject: what it is about, if that can be an attribute; else it has no subject.
        time: when it happened.
        version: the provider's version of the payload; "1" if it names none.
        extensions: further attributes.

    Raises:
        BadWebhook: a name, the version or the source is none, by the provider's word for it.
    """
    event_source = f"/webhooks/{quote(source, safe='')}"
    version = "1" if version is None else version
    faults = {name: text_fault(value) for name, value in names.items()}
    faults |= {"version": version_fault(version), "source": source_fault(event_source)}
    for name, fault in faults.items():
        if fault is not None:
            raise BadWebhook(source, name, fault)
    event_id, event_type = names.values()
    return Event(
        id=event_id,
        source=event_source,
        type=event_type,
        data=data,
        subject=subject if text_fault(subject) is None else None,
        time=time,
        version=version,
        extensions=dict(extensions or {}),
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
    signed = scheme.read(single_headers(headers))
    if signed.timestamp is not None and abs(now - signed.timestamp) > TOLERANCE:
        return None
    if signed.message_id is not None and text_fault(signed.message_id) is not None:
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


def time_in(value: Any) -> datetime | None:
    """The time in a body, where providers also write epochs or nothing; only RFC 3339 is taken for one."""
    try:
        return read_time(value) if isinstance(value, str) else None
    except ValueError:
        return None
