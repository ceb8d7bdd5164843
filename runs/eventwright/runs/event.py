"""The event: an immutable fact from outside, with CloudEvents 1.0 attributes, a payload and the payload's version."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any

import rfc8785
from uuid_utils import uuid7


def new_id(prefix: str) -> str:
    """A new id that sorts by the time it was made: `run_0192…`."""
    return f"{prefix}_{uuid7().hex}"


def canonical(value: Any) -> bytes:
    """RFC 8785 canonical JSON.

    Raises:
        ValueError: the value is not JSON (NaN, an integer beyond 2**53 - 1, a lone surrogate, another type).
    """
    try:
        return rfc8785.dumps(value)
    except (rfc8785.CanonicalizationError, UnicodeEncodeError) as error:
        raise ValueError(f"not canonical JSON: {error}") from error


def digest_of(value: Any) -> str:
    """The SHA-256 of the canonical JSON, in hex."""
    return hashlib.sha256(canonical(value)).hexdigest()


@dataclass(frozen=True, kw_only=True)
class Event:
    """One event as it came in. `(source, id)` names it; `digest` tells whether the same name brought other content."""

    id: str
    source: str
    type: str
    data: Any
    subject: str | None = None
    time: datetime | None = None
    version: str = "1"
    #: Anything else the envelope carried (CloudEvents extension attributes), strings only.
    extensions: dict[str, str] = field(default_factory=dict)
    #: In whose name it was sent; None where a door knows nobody. No part of the fact, so of no digest.
    principal: str | None = None
    #: Ours, given at intake: the row's key.
    uid: str = field(default_factory=lambda: new_id("evt"))
    received_at: datetime = field(default_factory=lambda: datetime.now(UTC))

    @property
    def digest(self) -> str:
        """SHA-256 of type, subject, data and version: what makes two deliveries the same event."""
        return digest_of({"type": self.type, "subject": self.subject, "data": self.data, "version": self.version})
