"""What the attributes of an event must be, whichever door it came through: CloudEvents or a webhook."""

from __future__ import annotations

import re
import unicodedata
from datetime import UTC, datetime
from typing import Any

#: Characters that one attribute may have.
LONGEST = 512
#: Characters that the version of a payload may have.
LONGEST_VERSION = 64

_URI_REFERENCE = re.compile(r"(?:[A-Za-z0-9\-._~:/?#\[\]@!$&'()*+,;=]|%[0-9A-Fa-f]{2})+")
_RFC_3339 = re.compile(r"[0-9]{4}-[0-9]{2}-[0-9]{2}T[0-9]{2}:[0-9]{2}:[0-9]{2}(?:\.[0-9]+)?(?:Z|[+-][0-9]{2}:[0-9]{2})")


def text_fault(value: Any) -> str | None:
    """What keeps a value from being an attribute, to be read after its name; None when nothing does."""
    if not isinstance(value, str):
        return f"must be a string, not {_kind(value)}"
    if not value.strip():
        return "must not be empty"
    if len(value) > LONGEST:
        return f"has {len(value)} characters, {LONGEST} are allowed"
    if any(unicodedata.category(character) in {"Cc", "Cs"} for character in value):
        return f"must not hold control characters: {value!a}"
    return None


def source_fault(value: Any) -> str | None:
    """As `text_fault`, for a source: a URI reference such as `/shop/berlin` or `https://example.com/crm`."""
    fault = text_fault(value)
    if fault is None and not _URI_REFERENCE.fullmatch(value):
        return f"must be a URI reference such as /shop/berlin (percent-encode other characters): {value!a}"
    return fault


def version_fault(value: Any) -> str | None:
    """As `text_fault`, for the version of a payload, which is short."""
    fault = text_fault(value)
    if fault is None and len(value) > LONGEST_VERSION:
        return f"has {len(value)} characters, {LONGEST_VERSION} are allowed"
    return fault


def read_time(value: str) -> datetime:
    """An RFC 3339 time, which always names its offset, in UTC.

    Raises:
        ValueError: it is another notation, no such moment exists, or it lies outside the years 1 to 9999.
    """
    if not _RFC_3339.fullmatch(value.upper()):
        raise ValueError(f"must be a time such as 2026-01-31T09:30:00Z, with its offset: {value[:64]!a}")
    try:
        return datetime.fromisoformat(value.upper()).astimezone(UTC)
    except (ValueError, OverflowError) as error:
        raise ValueError(f"names a moment that does not exist: {value}") from error


def _kind(value: Any) -> str:
    """The JSON name of a value's type."""
    names = {
        type(None): "null",
        bool: "a boolean",
        int: "a number",
        float: "a number",
        list: "an array",
        dict: "an object",
    }
    return names.get(type(value), type(value).__name__)
