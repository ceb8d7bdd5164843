"""How each provider signs: where its signature stands, over what, and how it is spelled.

A scheme only reads and computes. The time window, several secrets and the comparison are `webhooks.verify`'s.
"""

from __future__ import annotations

import base64
import hmac
import re
from collections.abc import Mapping
from dataclasses import dataclass
from urllib.parse import unquote

from eventwright.queue.webhooks import Signed, UnusableSecret, UnusableSource, signed_time

#: What HubSpot decodes in the query of the address that it signs, and nothing else.
_HUBSPOT_DECODES = re.compile(r"%(?:3A|2F|3F|40|21|24|27|28|29|2A|2C|3B)", re.IGNORECASE)
#: Characters of a SHA-256 in hex.
_HEX = 64


class TextSecret:
    """A scheme whose secret is the key as it is written."""

    def check_secret(self, secret: str) -> None:
        """Raise UnusableSecret when it is empty."""
        if not secret:
            raise UnusableSecret("is empty")


class Stripe(TextSecret):
    """`Stripe-Signature: t=…,v1=…`: hex over time and body."""

    def read(self, headers: Mapping[str, str]) -> Signed:
        """One time and any number of `v1` signatures; those of other versions are not looked at."""
        pairs = [part.split("=", 1) for part in headers["stripe-signature"].split(",")]
        # Two times would leave open which of them was signed.
        (stamp,) = [value for name, value in pairs if name == "t"]
        return Signed(
            message_id=None,
            timestamp=signed_time(stamp),
            signatures=tuple(value.encode("ascii") for name, value in pairs if name == "v1"),
            stamp=stamp,
        )

    def signature(self, raw: bytes, signed: Signed, secret: str) -> bytes:
        """The hex of the HMAC over `time.body`."""
        return _hex(secret, signed.stamp.encode("ascii") + b"." + raw)


class Slack(TextSecret):
    """`X-Slack-Signature: v0=…`: hex over version, time and body."""

    def read(self, headers: Mapping[str, str]) -> Signed:
        """The two `X-Slack-*` headers."""
        stamp = headers["x-slack-request-timestamp"]
        return Signed(
            message_id=None,
            timestamp=signed_time(stamp),
            signatures=(headers["x-slack-signature"].encode("ascii"),),
            stamp=stamp,
        )

    def signature(self, raw: bytes, signed: Signed, secret: str) -> bytes:
        """`v0=` and the hex of the HMAC over `v0:time:body`."""
        return b"v0=" + _hex(secret, b"v0:" + signed.stamp.encode("ascii") + b":" + raw)


@dataclass(frozen=True)
class HubSpot(TextSecret):
    """`X-HubSpot-Signature-v3`: base64 over method, address, body and time.

    Args:
        url: the address as it is registered with HubSpot. What a request says of its own address is a stranger's word,
            and a proxy may have changed it.
    """

    url: str

    def check_secret(self, secret: str) -> None:
        """As for any; raise UnusableSource without an address."""
        super().check_secret(secret)
        if not self.url:
            raise UnusableSource(
                "HubSpot signs the address that it calls: set EVENTWRIGHT_WEBHOOK_<SOURCE>_URL to it, "
                "as it is registered with HubSpot"
            )

    def read(self, headers: Mapping[str, str]) -> Signed:
        """The two `X-HubSpot-*` headers of version 3, whose time is in milliseconds."""
        stamp = headers["x-hubspot-request-timestamp"]
        return Signed(
            message_id=None,
            timestamp=signed_time(stamp, per_second=1000),
            signatures=(headers["x-hubspot-signature-v3"].encode("ascii"),),
            stamp=stamp,
        )

    def signature(self, raw: bytes, signed: Signed, secret: str) -> bytes:
        """The base64 of the HMAC over `POST`, address, body and time."""
        address, question_mark, query = self.url.partition("#")[0].partition("?")
        decoded = _HUBSPOT_DECODES.sub(lambda found: unquote(found[0]), query)
        called = f"POST{address}{question_mark}{decoded}".encode()
        return _base64(secret, called + raw + signed.stamp.encode("ascii"))


class GitHub(TextSecret):
    """`X-Hub-Signature-256: sha256=…`: hex over the body. No time is signed."""

    def read(self, headers: Mapping[str, str]) -> Signed:
        """The signature and the id of the delivery, which a repeated delivery keeps."""
        return Signed(
            message_id=headers["x-github-delivery"],
            timestamp=None,
            signatures=(headers["x-hub-signature-256"].encode("ascii"),),
        )

    def signature(self, raw: bytes, signed: Signed, secret: str) -> bytes:
        """`sha256=` and the hex of the HMAC over the body."""
        return b"sha256=" + _hex(secret, raw)


class Shopify(TextSecret):
    """`X-Shopify-Hmac-SHA256`: base64 over the body. No time is signed."""

    def read(self, headers: Mapping[str, str]) -> Signed:
        """The signature and the id of the webhook, which a repeated delivery keeps."""
        return Signed(
            message_id=headers["x-shopify-webhook-id"],
            timestamp=None,
            signatures=(headers["x-shopify-hmac-sha256"].encode("ascii"),),
        )

    def signature(self, raw: bytes, signed: Signed, secret: str) -> bytes:
        """The base64 of the HMAC over the body."""
        return _base64(secret, raw)


@dataclass(frozen=True)
class PlainHmac(TextSecret):
    """An HMAC-SHA256 over the body in a header, in lower case hex or in base64, with or without `sha256=` before it.

    Args:
        header: the name of the header.
    """

    header: str

    def read(self, headers: Mapping[str, str]) -> Signed:
        """The signature."""
        return Signed(message_id=None, timestamp=None, signatures=(headers[self.header.lower()].encode("ascii"),))

    def signature(self, raw: bytes, signed: Signed, secret: str) -> bytes:
        """The HMAC over the body, in the spelling of the one that came."""
        (given,) = signed.signatures
        prefix = b"sha256=" if given.startswith(b"sha256=") else b""
        spelled = _hex if len(given) - len(prefix) == _HEX else _base64
        return prefix + spelled(secret, raw)


def _hex(secret: str, content: bytes) -> bytes:
    return hmac.new(secret.encode(), content, "sha256").hexdigest().encode("ascii")


def _base64(secret: str, content: bytes) -> bytes:
    return base64.b64encode(hmac.digest(secret.encode(), content, "sha256"))
