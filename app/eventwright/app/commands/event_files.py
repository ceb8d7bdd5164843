"""Events in files: one CloudEvent, a batch (a JSON array), or JSON lines, as strictly read as what comes over HTTP."""

from __future__ import annotations

from collections.abc import Iterator
from typing import IO

from eventwright.app.wire.envelopes import BATCH, STRUCTURED, read_events
from eventwright.app.wire.problems import Problem, Refused, problem_of
from eventwright.app.wire.strict_json import LIMIT, BadJSON, TooLarge, load
from eventwright.runs.event import Event

#: The space that JSON allows before a value.
_SPACE = b" \t\r\n"


def read_file(stream: IO[bytes]) -> Iterator[Event | Problem]:
    """The events of a file or a pipe, one by one, each with its own problem if it has one.

    A file whose first line is a JSON value by itself, and that goes on, is JSON lines and may be of any length: each
    line may hold what a request may hold. Everything else is one event or one batch.

    Raises:
        BadJSON, Refused: it is neither, or larger than a request may be.
    """
    head = stream.read(LIMIT + 1)
    first, _, rest = head.partition(b"\n")
    if rest.strip() and _whole(first):
        yield from _items_or_problem(first)
        yield from _lines(rest, stream)
    elif len(head) > LIMIT:
        raise TooLarge(len(head) + _left(stream), LIMIT)
    else:
        yield from _items(head)


def _whole(text: bytes) -> bool:
    try:
        load(text)
    except BadJSON:
        return False
    return True


def _lines(begun: bytes, stream: IO[bytes]) -> Iterator[Event | Problem]:
    """The lines of `begun` and what follows it in the stream; one that is too long is skipped to its end."""
    *complete, last = begun.split(b"\n")
    for line in complete:
        yield from _items_or_problem(line)
    last += stream.readline(LIMIT + 1 - len(last))
    while last:
        if len(last) > LIMIT and not last.endswith(b"\n"):
            size = len(last) + _skip_line(stream)
            yield problem_of(TooLarge(size, LIMIT))
        else:
            yield from _items_or_problem(last)
        last = stream.readline(LIMIT + 1)


def _items_or_problem(line: bytes) -> Iterator[Event | Problem]:
    if not line.strip():
        return
    try:
        yield from _items(line)
    except (BadJSON, Refused) as error:
        yield problem_of(error)


def _items(text: bytes) -> tuple[Event | Problem, ...]:
    kind = BATCH if text.lstrip(_SPACE).startswith(b"[") else STRUCTURED
    return read_events({"content-type": kind}, text).items


def _skip_line(stream: IO[bytes]) -> int:
    skipped = 0
    while part := stream.readline(LIMIT):
        skipped += len(part)
        if part.endswith(b"\n"):
            break
    return skipped


def _left(stream: IO[bytes]) -> int:
    left = 0
    while part := stream.read(LIMIT):
        left += len(part)
    return left
