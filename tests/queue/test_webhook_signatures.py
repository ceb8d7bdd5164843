"""Each provider's signature: what a stranger, a wire or a late repeat could change about a request is refused."""

from __future__ import annotations

import base64
from collections.abc import Mapping
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tests.senders import (
    DATED,
    GITHUB,
    HMAC,
    HUBSPOT,
    SENDERS,
    SHOPIFY,
    STRIPE,
    URL,
    Sender,
    digest,
    load,
    named,
)

from eventwright.queue.webhook_providers import PROVIDERS, Options, provider_of
from eventwright.queue.webhook_signatures import GitHub, HubSpot
from eventwright.queue.webhooks import Scheme, SignatureRefused, UnusableSecret, UnusableSource, verify

VECTORS = load("signature_vectors.json")
NOW = datetime(2026, 1, 31, 9, 30, tzinfo=UTC)
each_sender = pytest.mark.parametrize("sender", SENDERS, ids=named)
each_dated = pytest.mark.parametrize("sender", DATED, ids=named)


def scheme_of(name: str, url: str = URL) -> Scheme:
    return PROVIDERS[name].scheme(Options(url=url))


def accepts(scheme: Scheme, raw: bytes, headers: Mapping[str, str], secrets: list[str], now: datetime = NOW) -> bool:
    try:
        verify(raw, headers, secrets, now, scheme=scheme)
    except SignatureRefused:
        return False
    return True


@pytest.mark.parametrize("vector", VECTORS, ids=lambda vector: f"{vector['provider']} {vector['name']}")
def test_every_published_vector_is_judged_as_published(vector: dict[str, Any]):
    seconds = vector["now"] if "now" in vector else vector.get("now_ms", 0) / 1000
    provider = vector["provider"].removesuffix("-webhooks")
    scheme = scheme_of(provider, vector.get("url", ""))
    headers = vector["headers"] | ({"X-GitHub-Delivery": "72d3162e"} if provider == "github" else {})
    # HubSpot's first two versions sign no time: whoever saw such a request once could send it for ever.
    expected = vector["expect"] and vector.get("version") not in {"v1", "v2"}
    now = datetime.fromtimestamp(seconds, UTC)
    assert accepts(scheme, vector["body"].encode(), headers, [vector["secret"]], now) is expected


@pytest.mark.parametrize(
    ("scheme", "secret", "body", "headers", "seconds"),
    [
        (
            "stripe",
            "whsec_test_secret",
            b'{"id":"evt_test","object":"event"}',
            {"Stripe-Signature": "t=1614556800,v1=b0d2d9a36e336ac89c055bef9da2194fb43d132b8a924062e03bcc50d3b03f35"},
            1614556800,
        ),
        (
            "hubspot",
            "yyyyyyyy-yyyy-yyyy-yyyy-yyyyyyyyyyyy",
            b'{"example_field":"example_value"}',
            {
                "X-HubSpot-Request-Timestamp": "1700000000000",
                "X-HubSpot-Signature-v3": "rQEKkaNUiu+1qGF//O/pw4BCzstSqO1PyUnGICmf+7o=",
            },
            1700000000,
        ),
        (
            "shopify",
            "hush",
            b'{"id":1}',
            {
                "X-Shopify-Hmac-SHA256": "VnKUjZsLuN5iZWjn5EntcBVCF9kMN43LglzCE1/GSeY=",
                "X-Shopify-Webhook-Id": "b54557e4",
            },
            0,
        ),
    ],
)
def test_a_signature_computed_elsewhere_is_accepted_and_with_another_body_is_not(
    scheme: str, secret: str, body: bytes, headers: dict[str, str], seconds: int
):
    now, judge = datetime.fromtimestamp(seconds, UTC), scheme_of(scheme, "https://www.example.com/webhook_uri")
    assert accepts(judge, body, headers, [secret], now)
    assert not accepts(judge, body + b" ", headers, [secret], now)


@each_sender
@given(data=st.data())
def test_any_changed_byte_of_the_body_is_refused(sender: Sender, data: st.DataObject):
    place = data.draw(st.integers(0, len(sender.body) - 1))
    other = data.draw(st.integers(1, 255))
    changed = bytearray(sender.body)
    changed[place] ^= other
    assert not accepts(scheme_of(sender.scheme), bytes(changed), sender.headers(NOW), [sender.secret])


@each_sender
@given(data=st.data())
def test_any_changed_character_of_a_signature_is_refused(sender: Sender, data: st.DataObject):
    headers = sender.sign(sender.body, NOW, sender.secret)
    name = next(name for name in headers if "signature" in name.lower() or "hmac" in name.lower())
    value = headers[name].removesuffix(",v0=00")
    place = data.draw(st.integers(0, len(value) - 1))
    letter = data.draw(st.characters(min_codepoint=1, max_codepoint=255).filter(lambda new: new != value[place]))
    changed = dict(sender.also) | headers | {name: value[:place] + letter + value[place + 1 :]}
    assert not accepts(scheme_of(sender.scheme), sender.body, changed, [sender.secret])


@each_dated
@pytest.mark.parametrize("seconds", [-301, 301, -10 * 365 * 86400, 10 * 365 * 86400])
def test_a_time_too_long_ago_or_too_far_ahead_is_refused(sender: Sender, seconds: int):
    headers = sender.headers(NOW + timedelta(seconds=seconds))
    assert not accepts(scheme_of(sender.scheme), sender.body, headers, [sender.secret])


@each_dated
@pytest.mark.parametrize("seconds", [-300, 300])
def test_a_time_within_five_minutes_is_accepted(sender: Sender, seconds: int):
    headers = sender.headers(NOW + timedelta(seconds=seconds))
    assert accepts(scheme_of(sender.scheme), sender.body, headers, [sender.secret])


@each_sender
def test_each_of_several_secrets_is_accepted_and_no_other(sender: Sender):
    new, scheme = base64.b64encode(b"another secret").decode(), scheme_of(sender.scheme)
    for secret in (sender.secret, new):
        assert accepts(scheme, sender.body, sender.headers(NOW, secret), [sender.secret, new])
    assert not accepts(scheme, sender.body, sender.headers(NOW, new), [sender.secret])
    assert not accepts(scheme, sender.body, sender.headers(NOW), [])


STRANGE = ["", " ", "=", ",", "v1", "t=,v1=", "sha256=", "äöü", "\x00", "\ud800", "nan", "-1", "9" * 5000, "v0=" * 2000]


@each_sender
@pytest.mark.parametrize("strange", STRANGE, ids=range(len(STRANGE)))
def test_a_strange_header_is_refused_like_any_other(sender: Sender, strange: str):
    for name in sender.sign(sender.body, NOW, sender.secret):
        assert not accepts(
            scheme_of(sender.scheme), sender.body, sender.headers(NOW) | {name: strange}, [sender.secret]
        )


@each_sender
def test_a_missing_header_or_one_that_stands_twice_is_refused(sender: Sender):
    headers = sender.headers(NOW)
    for name in sender.sign(sender.body, NOW, sender.secret):
        scheme, secrets = scheme_of(sender.scheme), [sender.secret]
        assert not accepts(scheme, sender.body, {key: headers[key] for key in headers if key != name}, secrets)
        assert not accepts(scheme, sender.body, headers | {name.upper(): headers[name]}, secrets)


@pytest.mark.parametrize("sender", [GITHUB, SHOPIFY], ids=named)
def test_a_delivery_without_its_id_is_refused(sender: Sender):
    headers = sender.sign(sender.body, NOW, sender.secret)
    assert not accepts(scheme_of(sender.scheme), sender.body, headers, [sender.secret])


@each_sender
@given(raw=st.binary(max_size=50), values=st.lists(st.text(st.characters(codec=None)), min_size=3, max_size=3))
def test_nothing_but_a_refusal_comes_of_garbage(sender: Sender, raw: bytes, values: list[str]):
    headers = dict(zip(sender.headers(NOW), values, strict=False))
    assert not accepts(scheme_of(sender.scheme), raw, headers, [sender.secret])


def test_one_of_stripes_several_signatures_is_enough():
    wrong = f"v1={'0' * 64}"
    signature = STRIPE.headers(NOW)["Stripe-Signature"]
    for header in (f"{signature},{wrong}", signature.replace(",", f",{wrong},", 1)):
        assert accepts(scheme_of("stripe"), STRIPE.body, {"Stripe-Signature": header}, [STRIPE.secret])


def test_a_signature_under_another_version_of_stripe_does_not_count():
    header = STRIPE.headers(NOW)["Stripe-Signature"].replace("v1=", "v2=")
    assert not accepts(scheme_of("stripe"), STRIPE.body, {"Stripe-Signature": header}, [STRIPE.secret])


@pytest.mark.parametrize(
    ("registered", "signed"),
    [
        ("https://a.example/hook#part", "https://a.example/hook"),
        ("https://a.example/hook?u=a%3A%2Fb%20c%25", "https://a.example/hook?u=a:/b%20c%25"),
        ("https://a.example/ho%3Aok", "https://a.example/ho%3Aok"),
    ],
)
def test_hubspot_signs_the_registered_address_with_a_few_characters_decoded(registered: str, signed: str):
    stamp = str(int(NOW.timestamp() * 1000))
    signature = base64.b64encode(digest("secret", f"POST{signed}{{}}{stamp}".encode())).decode()
    headers = {"X-HubSpot-Request-Timestamp": stamp, "X-HubSpot-Signature-v3": signature}
    assert accepts(HubSpot(registered), b"{}", headers, ["secret"])
    assert not accepts(HubSpot("https://b.example/hook"), b"{}", headers, ["secret"])


def test_hubspot_without_its_address_is_our_fault_and_says_what_to_set():
    with pytest.raises(UnusableSource, match="EVENTWRIGHT_WEBHOOK_<SOURCE>_URL"):
        verify(HUBSPOT.body, HUBSPOT.headers(NOW), [HUBSPOT.secret], NOW, scheme=HubSpot(""))


@pytest.mark.parametrize("spelling", ["hex", "base64", "sha256=hex", "sha256=base64"])
def test_a_plain_hmac_may_be_spelled_in_four_ways_under_a_header_of_ones_choice(spelling: str):
    mac = digest("secret", HMAC.body)
    value = spelling.replace("hex", mac.hex()).replace("base64", base64.b64encode(mac).decode())
    scheme = PROVIDERS["hmac"].scheme(Options(header="X-Parcel-Mac"))
    assert accepts(scheme, HMAC.body, {"x-parcel-mac": value}, ["secret"])
    assert not accepts(scheme, HMAC.body, {"x-signature": value}, ["secret"])


def test_an_empty_secret_is_our_fault():
    with pytest.raises(UnusableSecret):
        verify(GITHUB.body, GITHUB.headers(NOW, ""), [""], NOW, scheme=GitHub())


def test_a_source_is_read_as_the_settings_say_or_as_it_is_called():
    assert provider_of("stripe") is provider_of("billing", "Stripe") is PROVIDERS["stripe"]
    assert provider_of("shop") is provider_of("hmac") is provider_of("stripe", "standard") is PROVIDERS["standard"]
    with pytest.raises(UnusableSource, match=r"'stipe' is no scheme .* there are: standard, stripe, hubspot"):
        provider_of("billing", "stipe")
