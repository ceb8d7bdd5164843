"""Webhooks: only what a known sender signed a moment ago comes in, and anything strange is one silent refusal."""

from __future__ import annotations

import base64
import json
from collections.abc import Mapping
from datetime import UTC, datetime, timedelta, timezone
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from standardwebhooks import Webhook

from eventwright.queue.webhook_signatures import GitHub
from eventwright.queue.webhooks import (
    BadWebhook,
    SignatureRefused,
    UnusableSecret,
    Verified,
    sign,
    verify,
    webhook_event,
)

VECTORS = json.loads((Path(__file__).parents[1] / "data/webhooks/signature_vectors.json").read_text())
STANDARD_VECTORS = [vector for vector in VECTORS if vector["provider"] == "standard-webhooks"]
GITHUB_VECTORS = [vector for vector in VECTORS if vector["provider"] == "github"]

SECRET = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw"
OTHER = "whsec_" + base64.b64encode(b"another secret of thirty-two byte").decode()
NOW = datetime(2026, 1, 31, 9, 30, tzinfo=UTC)
BODY = b'{"type": "ticket.created", "timestamp": "2026-01-31T09:29:58Z", "data": {"id": 7}}'
VERIFIED = Verified(message_id="msg_1", timestamp=NOW)


def signed(body: bytes = BODY, at: datetime = NOW, secret: str = SECRET) -> dict[str, str]:
    return sign(body, "msg_1", at, secret)


def refused(raw: bytes, headers: Mapping[str, str], secrets: list[str] | None = None, now: datetime = NOW) -> None:
    with pytest.raises(SignatureRefused) as caught:
        verify(raw, headers, [SECRET] if secrets is None else secrets, now)
    assert str(caught.value) == "the signature was not accepted"


@pytest.mark.parametrize("seconds", [-301, 301, -10 * 365 * 86400, 10 * 365 * 86400])
def test_a_signature_is_refused_when_its_time_is_too_old_or_too_far_ahead(seconds: int):
    refused(BODY, signed(at=NOW + timedelta(seconds=seconds)))


@pytest.mark.parametrize("seconds", [-300, 0, 300])
def test_a_signature_is_accepted_within_five_minutes_on_either_side(seconds: int):
    at = NOW + timedelta(seconds=seconds)
    assert verify(BODY, signed(at=at), [SECRET], NOW) == Verified(message_id="msg_1", timestamp=at)


def test_a_changed_body_id_or_time_is_refused():
    headers = signed()
    refused(BODY + b" ", headers)
    refused(BODY, headers | {"webhook-id": "msg_2"})
    refused(BODY, headers | {"webhook-timestamp": str(int(NOW.timestamp()) + 1)})


def test_without_an_active_secret_everything_is_refused():
    refused(BODY, signed(), secrets=[])


@pytest.mark.parametrize("absent", ["webhook-id", "webhook-timestamp", "webhook-signature"])
def test_a_missing_header_is_refused(absent: str):
    refused(BODY, {name: value for name, value in signed().items() if name != absent})


@pytest.mark.parametrize(
    "strange",
    [
        {"webhook-signature": "abc"},
        {"webhook-signature": ""},
        {"webhook-signature": "v1,abc"},
        {"webhook-signature": "v1,äöü"},
        {"webhook-signature": "v1,\ud800"},
        {"webhook-signature": ", , v1"},
        {"webhook-timestamp": "yesterday"},
        {"webhook-timestamp": ""},
        {"webhook-timestamp": "nan"},
        {"webhook-timestamp": "-1"},
        {"webhook-timestamp": "1769851800.5"},
        {"webhook-timestamp": "".join(chr(0x660 + int(digit)) for digit in str(int(NOW.timestamp())))},
        {"webhook-timestamp": "9" * 5000},
        {"webhook-id": ""},
        {"webhook-id": "x" * 100_000},
    ],
)
def test_a_strange_header_is_refused_like_any_other(strange: dict[str, str]):
    refused(BODY, signed() | strange)


@pytest.mark.parametrize("message_id", ["a\nb", " ", "x" * 513])
def test_an_id_that_could_not_name_an_event_is_refused_though_rightly_signed(message_id: str):
    refused(BODY, sign(BODY, message_id, NOW, SECRET))


def test_a_body_that_is_not_utf_8_is_refused():
    refused(b"\xff\xfe", signed())


def test_a_header_that_stands_twice_counts_as_absent():
    refused(BODY, signed() | {"Webhook-Id": "msg_1"})


def test_other_headers_may_stand_twice():
    assert verify(BODY, signed() | {"x-forwarded-for": "a", "X-Forwarded-For": "b"}, [SECRET], NOW)


def test_the_version_before_a_signature_counts():
    headers = signed()
    refused(BODY, headers | {"webhook-signature": headers["webhook-signature"].replace("v1,", "v1a,")})


def test_one_right_signature_among_strange_ones_is_enough():
    headers = signed()
    assert verify(
        BODY, headers | {"webhook-signature": f"v1a,xx nonsense {headers['webhook-signature']}"}, [SECRET], NOW
    )


def test_while_a_secret_is_replaced_both_are_accepted_and_afterwards_one():
    for secret in (SECRET, OTHER):
        assert verify(BODY, signed(secret=secret), [SECRET, OTHER], NOW)
    refused(BODY, signed(secret=OTHER), secrets=[SECRET])


def test_header_names_in_any_case_are_read():
    assert verify(BODY, {name.title(): value for name, value in signed().items()}, [SECRET], NOW)


def test_the_prefix_of_a_secret_is_optional():
    assert signed() == signed(secret=SECRET.removeprefix("whsec_"))


@pytest.mark.parametrize(
    "secret", ["", "whsec_", "not base64!", "whsec_abcde", "ab!cd", "url-safe_base64", "schlüssel"]
)
def test_a_secret_that_is_no_key_is_our_fault_and_is_not_repeated(secret: str):
    with pytest.raises(UnusableSecret) as caught:
        verify(BODY, signed(), [SECRET, secret], NOW)
    assert "openssl rand" in str(caught.value)
    assert not secret or secret.removeprefix("whsec_") not in str(caught.value) or secret == "whsec_"


@pytest.mark.parametrize("vector", STANDARD_VECTORS, ids=lambda vector: vector["name"])
def test_the_published_vectors_are_judged_as_published(vector: dict[str, Any]):
    now = datetime.fromtimestamp(vector["now"], UTC)
    if vector["expect"]:
        assert verify(vector["body"].encode(), vector["headers"], [vector["secret"]], now).timestamp == now
    else:
        refused(vector["body"].encode(), vector["headers"], [vector["secret"]], now)


def test_signing_gives_the_published_signature():
    at = datetime.fromtimestamp(1614265330, UTC)
    assert sign(b'{"test": 2432232314}', "msg_p5jXN8AQM9LWM0D4loKWxJek", at, SECRET) == {
        "webhook-id": "msg_p5jXN8AQM9LWM0D4loKWxJek",
        "webhook-timestamp": "1614265330",
        "webhook-signature": "v1,g0hM9SsE+OTPJTGt/tmIKtSyZlE3uFJELVlNIOLJ1OE=",
    }


def test_the_time_zone_of_the_sender_does_not_matter():
    assert signed(at=NOW.astimezone(timezone(timedelta(hours=5, minutes=30)))) == signed()


@given(st.binary(min_size=1), st.text(st.characters(codec="utf-8")), st.text(st.characters(codec="ascii"), min_size=1))
def test_what_we_sign_the_library_of_standard_webhooks_verifies(key: bytes, body: str, message_id: str):
    secret = base64.b64encode(key).decode()
    headers = sign(body.encode(), message_id, datetime.now(UTC), secret)
    Webhook(secret).verify(body, headers, json_parse=False)


headers_of_strangers = st.dictionaries(
    st.sampled_from(["webhook-id", "Webhook-Id", "webhook-timestamp", "webhook-signature"]),
    st.text(st.characters(codec=None)) | st.sampled_from([str(int(NOW.timestamp())), "v1,", "v1,abc", "msg_1"]),
)


@given(st.binary(), headers_of_strangers)
def test_verify_raises_nothing_but_its_refusal(raw: bytes, headers: dict[str, str]):
    refused(raw, headers)


@pytest.mark.parametrize("vector", GITHUB_VECTORS, ids=lambda vector: vector["name"])
def test_another_providers_scheme_is_one_small_class(vector: dict[str, Any]):
    headers = vector["headers"] | {"X-GitHub-Delivery": "72d3162e"}
    raw, secrets = vector["body"].encode(), [vector["secret"]]
    if vector["expect"]:
        assert verify(raw, headers, secrets, NOW, scheme=GitHub()) == Verified(message_id="72d3162e", timestamp=None)
    else:
        with pytest.raises(SignatureRefused):
            verify(raw, headers, secrets, NOW, scheme=GitHub())


@pytest.mark.parametrize("payload", [None, [], "text", 7])
def test_a_body_that_is_no_object_names_no_event(payload: Any):
    with pytest.raises(BadWebhook, match="must be a JSON object"):
        webhook_event("shop", VERIFIED, payload)


@pytest.mark.parametrize("event_type", [None, "", 7, "a\nb", "a\ud800", "x" * 513])
def test_a_body_without_a_usable_type_is_refused_by_name(event_type: Any):
    with pytest.raises(BadWebhook, match="'shop': type"):
        webhook_event("shop", VERIFIED, {"type": event_type})


@pytest.mark.parametrize("version", [True, 1.5, [], {}, "", "1\n2"])
def test_a_version_that_is_none_is_refused_and_not_taken_for_the_first(version: Any):
    with pytest.raises(BadWebhook, match="'shop': version"):
        webhook_event("shop", VERIFIED, {"type": "t", "version": version})


def test_the_standard_shape_becomes_an_event_with_its_data():
    event = webhook_event("shop", VERIFIED, json.loads(BODY))
    assert (event.id, event.source, event.type, event.version) == ("msg_1", "/webhooks/shop", "ticket.created", "1")
    assert event.data == {"id": 7}
    assert event.time == datetime(2026, 1, 31, 9, 29, 58, tzinfo=UTC)


@pytest.mark.parametrize(
    ("body", "data"),
    [
        ({"type": "t", "data": [1]}, [1]),
        ({"type": "t", "data": None, "version": 2}, None),
        ({"type": "t", "data": {}, "timestamp": "2026-01-31T09:29:58Z", "id": "evt_1"}, {}),
    ],
)
def test_data_is_taken_out_of_its_envelope(body: dict[str, Any], data: Any):
    assert webhook_event("shop", VERIFIED, body).data == data


@pytest.mark.parametrize("body", [{"type": "t", "id": 7}, {"type": "t", "data": {"a": 1}, "customer": "cus_1"}])
def test_a_body_of_another_shape_is_kept_whole(body: dict[str, Any]):
    assert webhook_event("shop", VERIFIED, body).data == body


@pytest.mark.parametrize(("version", "text"), [(2, "2"), ("2026-01", "2026-01"), (None, "1")])
def test_the_bodys_version_is_the_payloads_version(version: Any, text: str):
    assert webhook_event("shop", VERIFIED, {"type": "t", "version": version}).version == text


@pytest.mark.parametrize("timestamp", [None, 1769851800, "last week", "2026-01-31", "2026-02-30T00:00:00Z"])
def test_without_a_readable_time_the_event_has_the_time_of_its_signature(timestamp: Any):
    assert webhook_event("shop", VERIFIED, {"type": "t", "timestamp": timestamp}).time == NOW


def test_the_same_delivery_again_is_the_same_event():
    later = Verified(message_id="msg_1", timestamp=NOW + timedelta(hours=1))
    first, again = (webhook_event("shop", verified, {"type": "t", "a": 1}) for verified in (VERIFIED, later))
    assert (first.id, first.source, first.digest) == (again.id, again.source, again.digest)


def test_a_source_of_any_name_becomes_a_uri_reference():
    assert webhook_event("büro 1/a", VERIFIED, {"type": "t"}).source == "/webhooks/b%C3%BCro%201%2Fa"
