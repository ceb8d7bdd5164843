"""How probable the words are in which a model gave its value, from the log probabilities of its tokens."""

from __future__ import annotations

import json
import math
from typing import Any

_DECODER = json.JSONDecoder()


def probability_of_value(content: str, tokens: object) -> float | None:
    """The probability, 0 to 1, of the tokens that spell the text under `value` in a JSON object.

    The closing quote counts as well: where `card` and `card_delivery` are to choose from, it is what decides. Tokens
    before and after the JSON (a model's thoughts, marks of the end) do not count.

    Args:
        content: the JSON object; the text under `value` is a string.
        tokens: what the provider gave as the tokens of its message, in the form of OpenAI's `logprobs.content`.

    Returns:
        None if that is not what it should be, or does not spell the content.
    """
    try:
        pieces = [_piece(token) for token in tokens]  # type: ignore[attr-defined]
    except (TypeError, ValueError, LookupError, AttributeError, OverflowError):
        return None
    begins = b"".join(piece for piece, _ in pieces).rfind(content.encode())
    if begins < 0:
        return None
    opening, end = _place(content)
    first = begins + len(content[: opening + 1].encode())
    last = begins + len(content[:end].encode())
    at, total = 0, 0.0
    for piece, logprob in pieces:
        if piece and at < last and at + len(piece) > first:
            total += logprob
        at += len(piece)
    return math.exp(total)


def _piece(token: Any) -> tuple[bytes, float]:
    """The bytes of a token and its log probability. One character may be spread over several tokens."""
    raw, logprob = token.get("bytes"), token["logprob"]
    if isinstance(logprob, bool) or not isinstance(logprob, int | float) or not -math.inf < logprob <= 0:
        raise ValueError(f"{logprob!r} is no log probability")
    if raw is not None and not isinstance(raw, list):
        raise TypeError(f"{raw!r} are no bytes")
    return (token["token"].encode() if raw is None else bytes(raw)), float(logprob)


def _place(content: str) -> tuple[int, int]:
    """Where the object's `value` begins and ends. Of two, readers of JSON take the last."""
    place = (0, 0)
    at = _next(content, content.index("{") + 1)
    while content[at] != "}":
        name, at = _DECODER.raw_decode(content, at)
        begins = _next(content, at)
        _, at = _DECODER.raw_decode(content, begins)
        if name == "value":
            place = (begins, at)
        at = _next(content, at)
    return place


def _next(content: str, at: int) -> int:
    """The next place at which something other than space, a comma or a colon stands."""
    while content[at] in " \t\r\n,:":
        at += 1
    return at
