"""Every provider's requests, changed in ten thousand ways, judged by us as by whoever else can judge them.

Stripe, Slack, HubSpot and Standard Webhooks publish a library; its known edges stand here one by one. GitHub publishes
none in Python, and Shopify's checks logins alone: for them, and for a plain HMAC, stands what their documentation says,
with an HMAC written out as RFC 2104 has it.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import json
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from random import Random
from typing import Any

import pytest
import stripe
from hubspot.exceptions import InvalidSignatureTimestampError
from hubspot.utils.signature import Signature
from slack_sdk.signature import SignatureVerifier
from standardwebhooks import Webhook
from standardwebhooks.webhooks import WebhookVerificationError
from tests.senders import GITHUB, HMAC, HUBSPOT, SHOPIFY, SLACK, STANDARD, STRIPE, URL, Sender, digest, named

from eventwright.queue.webhook_providers import PROVIDERS, Options
from eventwright.queue.webhooks import SignatureRefused, verify

Headers = dict[str, str]
Theirs = Callable[[bytes, Mapping[str, str], str], bool]

#: Another secret that all of them take.
OTHER = base64.b64encode(b"another secret of theirs").decode()
BODIES = [b'{"id": "evt_1"}', b'{"id": "evt_1"}', b"[]", b"", b"no JSON", '{"name": "Zo\u00eb"}'.encode()]


def ours(sender: Sender, raw: bytes, headers: Mapping[str, str], *, url: str = URL) -> bool:
    scheme = PROVIDERS[sender.scheme].scheme(Options(url=url))
    try:
        verify(raw, dict(sender.also) | dict(headers), [sender.secret], datetime.now(UTC), scheme=scheme)
    except SignatureRefused:
        return False
    return True


# -- the others' judgement ---------------------------------------------------------------------------------------------


def stripes(raw: bytes, headers: Mapping[str, str], secret: str) -> bool:
    return bool(stripe.WebhookSignature.verify_header(raw, headers["Stripe-Signature"], secret, 300))


def slacks(raw: bytes, headers: Mapping[str, str], secret: str) -> bool:
    stamp, signature = headers["X-Slack-Request-Timestamp"], headers["X-Slack-Signature"]
    return SignatureVerifier(secret).is_valid(raw, stamp, signature)


def hubspots(raw: bytes, headers: Mapping[str, str], secret: str, **changes: Any) -> bool:
    arguments: dict[str, Any] = {
        "signature": headers["X-HubSpot-Signature-v3"],
        "client_secret": secret,
        "request_body": raw.decode(),
        "http_uri": URL,
        "signature_version": "v3",
        "timestamp": headers["X-HubSpot-Request-Timestamp"],
    }
    return Signature.is_valid(**arguments | changes)


def standards(raw: bytes, headers: Mapping[str, str], secret: str) -> bool:
    Webhook(secret).verify(raw, dict(headers), json_parse=False)
    return True


def githubs(raw: bytes, headers: Mapping[str, str], secret: str) -> bool:
    """docs.github.com, "Validating webhook deliveries": `sha256=` and the HMAC in lower case hex."""
    return headers["X-Hub-Signature-256"] == f"sha256={written_out(secret, raw).hex()}"


def shopifys(raw: bytes, headers: Mapping[str, str], secret: str) -> bool:
    """shopify.dev, "Deliver webhooks through HTTPS": the HMAC in base64."""
    return headers["X-Shopify-Hmac-SHA256"] == base64.b64encode(written_out(secret, raw)).decode()


def plain(raw: bytes, headers: Mapping[str, str], secret: str) -> bool:
    """docs/webhooks.md: in lower case hex or in base64, with or without `sha256=`."""
    mac = written_out(secret, raw)
    return headers["X-Signature"].removeprefix("sha256=") in {mac.hex(), base64.b64encode(mac).decode()}


def written_out(secret: str, content: bytes) -> bytes:
    """HMAC-SHA256 (RFC 2104) without the module that our code uses."""
    key = secret.encode()
    key = (hashlib.sha256(key).digest() if len(key) > 64 else key).ljust(64, b"\0")
    inner = hashlib.sha256(bytes(byte ^ 0x36 for byte in key) + content).digest()
    return hashlib.sha256(bytes(byte ^ 0x5C for byte in key) + inner).digest()


# -- where they are known to differ ------------------------------------------------------------------------------------


def nowhere(headers: Mapping[str, str], theirs: bool) -> bool:
    return False


def stripes_edge(headers: Mapping[str, str], theirs: bool) -> bool:
    """It accepts a time ahead, twice, or loosely spelled, and pieces of no meaning; we do not."""
    if not theirs:
        return False
    pieces = [piece.split("=") for piece in headers["Stripe-Signature"].split(",")]
    times = [piece[1] for piece in pieces if piece[0] == "t"]
    loose = len(times) > 1 or str(int(times[0])) != times[0] or any(len(piece) != 2 for piece in pieces)
    return loose or int(times[0]) > datetime.now(UTC).timestamp() + 300


def hubspots_edge(headers: Mapping[str, str], theirs: bool) -> bool:
    """It accepts a time ahead, and whatever Python reads as a number; we do not."""
    stamp = headers["X-HubSpot-Request-Timestamp"]
    return theirs and (not stamp.isdigit() or int(stamp) > (datetime.now(UTC).timestamp() + 300) * 1000)


def standards_edge(headers: Mapping[str, str], theirs: bool) -> bool:
    """It accepts a time of any spelling, and skips over letters that are no base64; we do not. It gives up at a piece
    of no meaning; we look for one that is right."""
    pieces = headers["webhook-signature"].split(" ")
    if not theirs:
        return any(piece.count(",") != 1 for piece in pieces)
    return not headers["webhook-timestamp"].isdigit() or not any(
        re.fullmatch(r"v1,[A-Za-z0-9+/]{43}=", piece) for piece in pieces
    )


@dataclass(frozen=True)
class Oracle:
    sender: Sender
    #: What it raises is a no.
    theirs: Theirs
    #: Whether it is known to say this of these headers, and we are known to say the contrary.
    edge: Callable[[Mapping[str, str], bool], bool] = nowhere


ORACLES = [
    Oracle(STRIPE, stripes, stripes_edge),
    Oracle(SLACK, slacks),
    Oracle(HUBSPOT, hubspots, hubspots_edge),
    Oracle(STANDARD, standards, standards_edge),
    Oracle(GITHUB, githubs),
    Oracle(SHOPIFY, shopifys),
    Oracle(HMAC, plain),
]


@pytest.mark.parametrize("oracle", ORACLES, ids=lambda oracle: oracle.sender.scheme)
def test_ten_thousand_changed_requests_are_judged_as_the_vendor_judges_them(oracle: Oracle) -> None:
    random, judged, sender = Random(20260131), {True: 0, False: 0}, oracle.sender
    for _ in range(10_000):
        body, headers = changed(sender, random)
        theirs, own = _judgement(oracle, body, headers), ours(sender, body, headers)
        assert own == theirs or oracle.edge(headers, theirs), (body, headers, own, theirs)
        judged[own] += 1
    assert min(judged.values()) > 1000


def _judgement(oracle: Oracle, body: bytes, headers: Headers) -> bool:
    try:
        return oracle.theirs(body, headers, oracle.sender.secret)
    except (
        stripe.SignatureVerificationError,
        InvalidSignatureTimestampError,
        WebhookVerificationError,
        ValueError,  # of a time, of base64, of UTF-8
        TypeError,
    ):
        return False


def changed(sender: Sender, random: Random) -> tuple[bytes, Headers]:
    """A delivery with up to two changes: to its body, its time, its secret, or a piece of a header."""
    body = bytearray(random.choice(BODIES))
    at = datetime.now(UTC) + timedelta(seconds=random.choice([0, 0, 0, 60, -60, 290, -290, 310, -310, 10**8]))
    headers = sender.sign(bytes(body), at, random.choice([sender.secret, sender.secret, OTHER]))
    for _ in range(random.choice([0, 0, 1, 2])):
        name = random.choice(list(headers))
        value = headers[name]
        start, end = sorted(random.choices(range(len(value) + 1), k=2))
        match random.randrange(6):
            case 0 if body:
                body[random.randrange(len(body))] ^= 1 << random.randrange(8)
            case 1:
                headers[name] = value[:start] + value[end:]
            case 2:
                headers[name] = value[:start] + random.choice("0a=,v1t _+-ä\x00") + value[start:]
            case 3:
                headers[name] = value + "," + value[start:end]
            case 4:
                headers[name] = ",".join(random.sample(value.split(","), k=len(value.split(","))))
            case 5:
                headers[name] = value.swapcase()
    return bytes(body), headers


# -- the known edges, one by one ---------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Difference:
    """A request that a vendor's library judges in another way than we do, on purpose."""

    name: str
    sender: Sender
    theirs: Theirs
    #: What the library says of it, or what it raises.
    they: bool | type[Exception]
    we: bool
    change: Callable[[datetime], tuple[bytes, Headers]]


def stripe_header(change: Callable[[str], str]) -> Callable[[datetime], tuple[bytes, Headers]]:
    return lambda now: (STRIPE.body, {"Stripe-Signature": change(STRIPE.headers(now)["Stripe-Signature"])})


def with_headers(sender: Sender, **changes: str) -> Callable[[datetime], tuple[bytes, Headers]]:
    named_so = {name.replace("_", "-"): value for name, value in changes.items()}
    return lambda now: (sender.body, sender.headers(now) | named_so)


def of_body(sender: Sender, body: bytes) -> Callable[[datetime], tuple[bytes, Headers]]:
    return lambda now: (body, sender.sign(body, now, sender.secret))


def hubspot_at(spelled: Callable[[datetime], str]) -> Callable[[datetime], tuple[bytes, Headers]]:
    def change(now: datetime) -> tuple[bytes, Headers]:
        stamp = spelled(now)
        signature = digest(HUBSPOT.secret, f"POST{URL}".encode() + HUBSPOT.body + stamp.encode())
        headers = {"X-HubSpot-Signature-v3": base64.b64encode(signature).decode()}
        return HUBSPOT.body, headers | {"X-HubSpot-Request-Timestamp": stamp}

    return change


def second_version_of_hubspot(now: datetime) -> tuple[bytes, Headers]:
    mac = hashlib.sha256(f"{HUBSPOT.secret}POST{URL}".encode() + HUBSPOT.body).hexdigest()
    return HUBSPOT.body, {"X-HubSpot-Signature-v3": mac, "X-HubSpot-Request-Timestamp": "0"}


def as_by_default(raw: bytes, headers: Mapping[str, str], secret: str) -> bool:
    return Signature.is_valid(headers["X-HubSpot-Signature-v3"], secret, raw.decode(), URL)


def without_a_tolerance(raw: bytes, headers: Mapping[str, str], secret: str) -> bool:
    return bool(stripe.WebhookSignature.verify_header(raw, headers["Stripe-Signature"], secret))


def parsing(raw: bytes, headers: Mapping[str, str], secret: str) -> bool:
    return bool(Webhook(secret).verify(raw, dict(headers)))


def later(sender: Sender, **span: float) -> Callable[[datetime], tuple[bytes, Headers]]:
    return lambda now: (sender.body, sender.headers(now + timedelta(**span)))


def after_a_strange_one(now: datetime) -> tuple[bytes, Headers]:
    headers = STANDARD.headers(now)
    return STANDARD.body, headers | {"webhook-signature": f"abc {headers['webhook-signature']}"}


DIFFERENCES = [
    Difference("ten years ahead", STRIPE, stripes, True, False, later(STRIPE, days=3650)),
    Difference("two times", STRIPE, stripes, True, False, stripe_header(lambda header: f"{header},t=1")),
    Difference(
        "a zero before the time", STRIPE, stripes, True, False, stripe_header(lambda text: text.replace("t=", "t=0"))
    ),
    Difference("a piece of no meaning", STRIPE, stripes, True, False, stripe_header(lambda text: f"{text},nonsense")),
    Difference("a year old, by default", STRIPE, without_a_tolerance, True, False, later(STRIPE, days=-365)),
    Difference(
        "no ASCII", STRIPE, stripes, TypeError, False, stripe_header(lambda text: text.replace("v1=", "v1=\u00e4"))
    ),
    Difference("a body that is no UTF-8", STRIPE, stripes, UnicodeDecodeError, True, of_body(STRIPE, b"\xff")),
    Difference("no ASCII", SLACK, slacks, TypeError, False, with_headers(SLACK, X_Slack_Signature="v0=\u00e4")),
    Difference(
        "no number for a time", SLACK, slacks, ValueError, False, with_headers(SLACK, X_Slack_Request_Timestamp="today")
    ),
    Difference("ten years ahead", HUBSPOT, hubspots, True, False, later(HUBSPOT, days=3650)),
    Difference(
        "a time as a fraction",
        HUBSPOT,
        hubspots,
        True,
        False,
        hubspot_at(lambda now: f"{int(now.timestamp() * 1000)}.0"),
    ),
    Difference("an hour old", HUBSPOT, hubspots, InvalidSignatureTimestampError, False, later(HUBSPOT, hours=-1)),
    Difference("version 2, by default", HUBSPOT, as_by_default, True, False, second_version_of_hubspot),
    Difference(
        "no ASCII", HUBSPOT, hubspots, TypeError, False, with_headers(HUBSPOT, **{"X-HubSpot-Signature-v3": "\u00e4"})
    ),
    Difference(
        "one word", STANDARD, standards, ValueError, False, with_headers(STANDARD, **{"webhook-signature": "abc"})
    ),
    Difference(
        "no base64",
        STANDARD,
        standards,
        binascii.Error,
        False,
        with_headers(STANDARD, **{"webhook-signature": "v1,abc"}),
    ),
    Difference("a strange one before the right one", STANDARD, standards, ValueError, True, after_a_strange_one),
    Difference("a body that is no JSON", STANDARD, parsing, json.JSONDecodeError, True, of_body(STANDARD, b"no JSON")),
    Difference("a body that is no UTF-8", STANDARD, standards, UnicodeDecodeError, False, of_body(STANDARD, b"\xff")),
]


@pytest.mark.parametrize("row", DIFFERENCES, ids=lambda row: f"{named(row.sender)} {row.name}")
def test_at_the_known_edges_of_a_vendors_library_we_say_what_stands_here(row: Difference) -> None:
    raw, headers = row.change(datetime.now(UTC))
    if isinstance(row.they, bool):
        assert row.theirs(raw, headers, row.sender.secret) is row.they
    else:
        with pytest.raises(row.they):
            row.theirs(raw, headers, row.sender.secret)
    assert ours(row.sender, raw, headers) is row.we


def test_hubspots_library_does_not_decode_the_address_as_hubspot_does_before_it_signs() -> None:
    registered, signed = "https://a.example/hook?to=a%3Ab", "https://a.example/hook?to=a:b"
    stamp = str(int(datetime.now(UTC).timestamp() * 1000))
    mac = digest(HUBSPOT.secret, f"POST{signed}".encode() + HUBSPOT.body + stamp.encode())
    headers = {"X-HubSpot-Request-Timestamp": stamp, "X-HubSpot-Signature-v3": base64.b64encode(mac).decode()}
    assert not hubspots(HUBSPOT.body, headers, HUBSPOT.secret, http_uri=registered)
    assert hubspots(HUBSPOT.body, headers, HUBSPOT.secret, http_uri=signed)
    assert ours(HUBSPOT, HUBSPOT.body, headers, url=registered)
