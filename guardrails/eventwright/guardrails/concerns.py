"""What a person who reviews a call should look at twice: hidden characters, look-alike letters, length, links."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import islice
from typing import Any

import regex

from eventwright.guardrails.text import hidden_in, links, mark, strings
from eventwright.runs.states import Documented

#: Longer than this, and nobody reads a text to its end.
LONG = 5_000
#: So many things are told of one review.
MOST = 50

#: Scripts that have letters which look like those of another one.
_ALIKE = {
    name: regex.compile(rf"\p{{{name}}}") for name in ("Latin", "Cyrillic", "Greek", "Armenian", "Cherokee", "Coptic")
}
#: Letters that are others in another dress: wide, mathematical, in circles.
_DRESSED = regex.compile(r"[\uff21-\uff3a\uff41-\uff5a\U0001d400-\U0001d7ff\u24b6-\u24e9\U0001f130-\U0001f189]")
_LETTERS = rf"[\p{{L}}\p{{M}}\p{{N}}{_DRESSED.pattern[1:-1]}]+"
_WORD = regex.compile(rf"{_LETTERS}(?:[.@_-]{_LETTERS})*+")


class ConcernKind(Documented):
    HIDDEN = "hidden", "characters that cannot be seen, or that turn what can be seen"
    LOOK_ALIKE = "look_alike", "a word with letters of several scripts, or in another dress: it may be another word"
    LONG = "long", f"a text of more than {LONG} characters"
    LINK = "link", "something that leads somewhere"
    IMAGE = "image", "something that is loaded without a click"


@dataclass(frozen=True)
class Concern:
    """One thing to look at: where (`arguments.body`), what kind, and what it is in words safe to show."""

    path: str
    kind: ConcernKind
    text: str


def concerns(arguments: Any, **beside: Any) -> list[Concern]:
    """What to look at in a review, at most `MOST` things.

    Args:
        arguments: what would be done; it is looked at for everything.
        beside: what is shown with it (the question, the evidence), by name; looked at for what is hidden alone.
    """
    seen = [*_hidden({"arguments": arguments, **beside}), *islice(_visible(arguments), MOST)]
    return seen[:MOST]


def _hidden(value: Any) -> Iterator[Concern]:
    for place in hidden_in(value):
        if "more" in place:
            yield Concern("", ConcernKind.HIDDEN, f"and in {place['more']} more texts")
        else:
            counted = ", ".join(f"{code} ×{count}" for code, count in place["characters"].items())
            yield Concern(place["path"], ConcernKind.HIDDEN, counted)


def _visible(arguments: Any) -> Iterator[Concern]:
    for path, text in strings(arguments, "arguments"):
        if len(text) > LONG:
            yield Concern(path, ConcernKind.LONG, f"{len(text)} characters")
        for word, why in _look_alikes(text):
            yield Concern(path, ConcernKind.LOOK_ALIKE, f"{mark(word)}: {why}")
        for link in links(text):
            kind = ConcernKind.IMAGE if link.image else ConcernKind.LINK
            host = "" if link.host is None or link.host in link.written.lower() else f" (leads to {link.host})"
            yield Concern(path, kind, mark(link.written) + host)


def _look_alikes(text: str) -> Iterator[tuple[str, str]]:
    """Words whose letters are of more than one of the scripts that look alike; an address or a host's name is one word.

    A word wholly in another script is found only as a part of such a name. What looks alike within one script (`rn`
    and `m`) is not found.
    """
    for match in _WORD.finditer(text) if not text.isascii() else ():
        word = match[0]
        for part in [word] if regex.search(r"[.@]", word) else regex.split(r"[_-]", word):
            scripts = [name for name, letters in _ALIKE.items() if letters.search(part)]
            if len(scripts) > 1:
                yield part, f"{' and '.join(scripts)} letters in one word"
            elif _DRESSED.search(part):
                yield part, "letters in another dress"
