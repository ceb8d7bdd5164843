"""JSON from strangers: what is accepted here can be stored, canonicalised (RFC 8785) and read back unchanged.

Reading goes in two steps, because in a batch every item answers for itself. `load` refuses what spoils the
whole text (size, encoding, depth, syntax). `check` walks one value and refuses what could not be kept: a
number beyond 2**53, NaN, a key that stands twice, NUL, half a surrogate pair. `parse` is both.
"""

from __future__ import annotations

import json
import re
from collections import Counter
from dataclasses import dataclass
from typing import Any

from eventwright.runs.errors import EventwrightError

#: Bytes that one body may have.
LIMIT = 1024 * 1024
#: How many arrays and objects may stand inside one another.
DEPTH = 64
#: The largest whole number that every JSON reader keeps exactly (RFC 7493, RFC 8785). A larger float comes
#: back from PostgreSQL's JSONB as a whole number, so the limit holds for every number.
LARGEST = 2**53 - 1

#: A whole string, or one bracket. A string that never ends is taken to the end, which keeps the scan linear.
_STRUCTURE = re.compile(rb'"[^"\\]*+(?:\\.[^"\\]*+)*+"?|[\[\]{}]', re.DOTALL)
#: NUL, which PostgreSQL cannot store, and halves of surrogate pairs, which UTF-8 cannot.
_UNSTORABLE = re.compile("[\x00\ud800-\udfff]")


class BadJSON(EventwrightError, ValueError):
    """The body is not JSON that could be stored and read back unchanged."""

    def __init__(self, what: str, where: str = "$") -> None:
        self.what, self.where = what, where
        super().__init__(f"{what} (at {where})")


class TooLarge(BadJSON):
    """The body has more bytes than the door takes."""

    def __init__(self, size: int, limit: int) -> None:
        self.size, self.limit = size, limit
        super().__init__(
            f"the body has {size} bytes, {limit} are allowed; send a reference to a large document instead"
        )


@dataclass(frozen=True)
class _Flaw:
    """Stands in the loaded value where something cannot be kept, so that `check` can say where it is."""

    what: str


#: The way to a value: the way to its parent and the step from there, or the name of the root.
_Path = tuple[Any, str | int] | str


def parse(raw: bytes, *, limit: int = LIMIT, depth: int = DEPTH) -> Any:
    """The value of a JSON text.

    Args:
        raw: the body as it came, UTF-8.
        limit: bytes that the body may have.
        depth: arrays and objects that may stand inside one another.

    Raises:
        TooLarge: the body is longer than `limit`.
        BadJSON: anything else that is not strict JSON, with what and where.
    """
    value = load(raw, limit=limit, depth=depth)
    check(value)
    return value


def load(raw: bytes, *, limit: int = LIMIT, depth: int = DEPTH) -> Any:
    """The value of a JSON text, of which each part must still pass `check` before anyone reads it.

    Raises:
        TooLarge: the body is longer than `limit`.
        BadJSON: it is not UTF-8, not JSON, or nested deeper than `depth`.
    """
    if len(raw) > limit:
        raise TooLarge(len(raw), limit)
    try:
        text = raw.decode("utf-8")
    except UnicodeDecodeError as error:
        raise BadJSON("the body is not UTF-8", f"byte {error.start}") from error
    _refuse_depth(raw, depth)
    try:
        return json.loads(
            text,
            object_pairs_hook=_object,
            parse_int=_whole_number,
            parse_constant=lambda name: _Flaw(f"{name} is not JSON; send null or a string"),
        )
    except json.JSONDecodeError as error:
        raise BadJSON(f"not JSON: {error.msg}", f"line {error.lineno} column {error.colno}") from error
    except RecursionError as error:  # a caller that raised `depth`, or one that stands deep in the stack itself
        raise BadJSON("nested too deeply; flatten it") from error


def check(value: Any, where: str = "$") -> None:
    """Refuse a loaded value of which some part could not be kept.

    Args:
        value: what `load` returned, or a part of it.
        where: the name of the root in messages.

    Raises:
        BadJSON: with what is wrong and the path to it.
    """
    waiting: list[tuple[_Path, Any]] = [(where, value)]
    while waiting:
        path, part = waiting.pop()
        what = _what_is_wrong(part)
        if what is not None:
            raise BadJSON(what, _spelled(path))
        if isinstance(part, dict):
            for key, inner in part.items():
                if _UNSTORABLE.search(key):
                    raise BadJSON(f"the key {_short(key)} holds a character that cannot be stored", _spelled(path))
                waiting.append(((path, key), inner))
        elif isinstance(part, list):
            waiting.extend(((path, position), inner) for position, inner in enumerate(part))


def _what_is_wrong(part: Any) -> str | None:
    """What keeps this one value, without its children, from being stored."""
    match part:
        case _Flaw(what):
            return what
        case int() | float() if not -LARGEST <= part <= LARGEST:
            return "a number beyond 2**53 - 1 loses digits in JSON; send it as a string"
        case str() if found := _UNSTORABLE.search(part):
            return f"the string holds U+{ord(found[0]):04X}, which cannot be stored; leave it out"
    return None


def _refuse_depth(raw: bytes, depth: int) -> None:
    """Count brackets before the parser does, because it recurses."""
    level = 0
    for token in _STRUCTURE.finditer(raw):
        first = raw[token.start()]
        if first in b"[{":
            level += 1
            if level > depth:
                raise BadJSON(
                    f"more than {depth} arrays and objects inside one another; flatten it",
                    f"byte {token.start()}",
                )
        elif first in b"]}":
            level -= 1


def _object(pairs: list[tuple[str, Any]]) -> dict[str, Any] | _Flaw:
    """The object of these members; one key twice means two readers could see two different values."""
    members = dict(pairs)
    if len(members) == len(pairs):
        return members
    twice, _ = Counter(key for key, _ in pairs).most_common(1)[0]
    return _Flaw(f"the key {_short(twice)} stands twice in one object")


def _whole_number(digits: str) -> int | float:
    """The number; one too long to be kept becomes a float, for Python refuses to read thousands of digits."""
    return int(digits) if len(digits) <= len(str(-LARGEST)) else float(digits)


def _spelled(path: _Path) -> str:
    """A path as `$.items[3].name`."""
    steps: list[str] = []
    while not isinstance(path, str):
        path, step = path
        steps.append(f"[{step}]" if isinstance(step, int) else f".{_short(step)[1:-1]}")
    return path + "".join(reversed(steps))


def _short(text: str) -> str:
    """A stranger's text for a message: quoted, escaped, and not longer than a line."""
    return ascii(text if len(text) <= 64 else f"{text[:61]}...")
