"""What a review asks, told apart from what an author or a stranger shows beside it: for the pages and the terminal."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from eventwright.app.commands.telling import compact, line
from eventwright.guardrails.middleware import Asked
from eventwright.runs.records import Review

#: Characters of a value in a terminal.
LONGEST = 400
#: Members of the evidence that have a place of their own, in an author's question and in one of the gate's.
_AUTHORED, _OURS = frozenset({"event", "asked"}), frozenset({"tool", "event", "asks", "material"})
#: Members of what an author asks that have a place of their own; so do the question and the arguments.
_ELSEWHERE = frozenset({"evidence", "allowed", "roles"})


def is_authored(review: Review) -> bool:
    """Whether it is an author's interrupt, whose evidence may come from anybody."""
    return "asked" in review.evidence


def tool_of(review: Review) -> str:
    """The tool whose call is asked about; empty where an author asks something else, whatever its evidence says."""
    named = not is_authored(review) or Asked.read(review.evidence["asked"]) is not None
    return str(review.evidence.get("tool") or "") if named else ""


def asked_with(review: Review) -> dict[str, Any]:
    """What an author's `interrupt(...)` shows to people beside what has a place of its own."""
    value = review.evidence.get("asked")
    if value in (None, review.question) or Asked.read(value) is not None:
        return {}
    if not isinstance(value, Mapping):
        return {"asked": value}
    elsewhere = {"question": review.question, "arguments": review.arguments}
    return {
        name: item
        for name, item in value.items()
        if name not in _ELSEWHERE and (name not in elsewhere or elsewhere[name] != item)
    }


def evidence(review: Review) -> dict[str, Any]:
    """What was known when it was asked, beside what has a place of its own."""
    elsewhere = _AUTHORED if is_authored(review) else _OURS
    elsewhere |= {"tool", "reason"} if tool_of(review) else set()
    return {name: value for name, value in review.evidence.items() if name not in elsewhere}


def proposed(review: Review) -> Any:
    """What is proposed: the arguments, or the value that stands in them alone."""
    arguments: Any = review.arguments
    alone = isinstance(arguments, Mapping) and arguments.keys() == {"value"}
    return arguments["value"] if alone else arguments


def explained(review: Review) -> Iterator[tuple[str, str]]:
    """What a terminal tells beside the proposal: why the gate asks, or what an author shows, by names that cannot pass
    for the gate's."""
    if not is_authored(review):
        yield from _known(review)
        return
    for label, members in (("shown", asked_with(review)), ("evidence", evidence(review))):
        if members:
            yield label, "\n".join(f"{line(name, 60)}: {compact(value, LONGEST)}" for name, value in members.items())
    if event := review.evidence.get("event"):
        yield "event", compact(event, LONGEST)


def _known(review: Review) -> Iterator[tuple[str, str]]:
    reason = (review.rule or {}).get("reason")
    if reason:
        yield "because", line(reason)
    for name in ("material", "reason", "event"):
        value = review.evidence.get(name)
        if value and not (name == "reason" and tool_of(review)):
            yield {"material": "text", "reason": "model"}.get(name, name), compact(value, LONGEST)
            if name == "material":
                break
