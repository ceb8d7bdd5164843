"""Lengths of time as people write them: `90d`, `12h`, `forever`."""

from __future__ import annotations

import re
from datetime import timedelta

FOREVER = "forever"
_WRITTEN = re.compile(r"(\d{1,6})\s*([smhdw])")
_UNITS = {"s": "seconds", "m": "minutes", "h": "hours", "d": "days", "w": "weeks"}


def read_duration(text: str) -> timedelta | None:
    """The length of time; None for `forever`.

    Raises:
        ValueError: it is none, with how to write one.
    """
    wanted = text.strip().lower()
    if wanted == FOREVER:
        return None
    found = _WRITTEN.fullmatch(wanted)
    if found is None:
        raise ValueError(f"{text!r} is no length of time: write 30m, 12h, 7d, 4w, or {FOREVER}")
    return timedelta(**{_UNITS[found[2]]: int(found[1])})
