"""Two structures of a graph compared, and the one rule that says whether a run of the first may go on in the second.

The rule: the way that the run came is still a way through the graph, the nodes where it stands ask what they asked, and
everything it carries keeps its type. What lies ahead of it may change.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from langgraph.constants import START

from eventwright.graphs.fingerprint import Structure
from eventwright.runs.states import Documented


class Touch(Documented):
    """Which runs a change stops."""

    PATH = "path", "runs that stand there or have been there"
    STANDING = "standing", "runs that stand there"
    PASSED = "passed", "runs that have left that node"
    CARRIED = "carried", "runs that carry the field"
    MISSED = "missed", "runs that do not carry it"
    NONE = "none", "none; their journal says what has changed"


class ChangeKind(Documented):
    """What can change in a graph; each kind touches some runs, and leaves the others alone."""

    touch: Touch

    def __new__(cls, value: str, meaning: str, touch: Touch) -> ChangeKind:
        member = str.__new__(cls, value)
        member._value_ = value
        member.meaning = meaning
        member.touch = touch
        return member

    NODE_GONE = "node_gone", "a node is gone, or has another name", Touch.PATH
    NODE_NEW = "node_new", "a node is new", Touch.NONE
    QUESTIONS = "questions", "a node asks more or fewer questions (`interrupt`)", Touch.STANDING
    INSIDE = "inside", "the graph inside a node is another", Touch.STANDING
    WAITS = "waits", "a node waits for others that it did not wait for, or the other way round", Touch.STANDING
    WAYS = "ways", "what always comes after a node is another", Touch.PASSED
    ROUTER = "router", "a router is new, is gone, has another name, or leads elsewhere", Touch.PASSED
    TARGET_NEW = "target_new", "a router, or a Command, may lead to one place more", Touch.NONE
    FIELD_GONE = "field_gone", "a field of the state is gone, or has another name", Touch.CARRIED
    FIELD_TYPE = "field_type", "a field's type or its reducer is another", Touch.CARRIED
    FIELD_NEEDED = (
        "field_needed",
        "a pydantic state, or a dataclass, demands a field that was not demanded",
        Touch.MISSED,
    )
    FIELD_NEW = "field_new", "a field is new, and nobody demands it", Touch.NONE


@dataclass(frozen=True)
class Change:
    """One thing that is not as it was: of which kind, at which node or field, in words."""

    kind: ChangeKind
    at: str
    words: str


@dataclass(frozen=True)
class Stand:
    """What a run has touched of its graph, read off its checkpoint.

    Attributes:
        standing: nodes that it runs next, or runs, or asks at.
        passed: nodes that it has left.
        fields: what its state holds.
        joins: LangGraph's names of the joins to which somebody has come already.
    """

    standing: frozenset[str]
    passed: frozenset[str] = frozenset()
    fields: frozenset[str] = frozenset()
    joins: frozenset[str] = frozenset()

    def touched_by(self, change: Change) -> bool:
        """Whether the change stops this run."""
        match change.kind.touch:
            case Touch.PATH:
                return change.at in self.standing | self.passed
            case Touch.STANDING:
                return change.at in self.standing
            case Touch.PASSED:
                return change.at in self.passed
            case Touch.CARRIED:
                return change.at in self.fields
            case Touch.MISSED:
                return change.at not in self.fields
            case Touch.NONE:
                return False


def obstacles(stand: Stand, asked: Collection[str], began: Structure | None, now: Structure) -> list[Change]:
    """Why a run cannot go on in the graph as it is now; empty if it can.

    Args:
        asked: nodes about which people were asked, or have decided, and nothing came of it yet.
        began: the graph that it ran in until now; None if that is not known: then only nodes are looked for.
    """
    nodes = now["nodes"].keys()
    lost = [
        _gone(node, nodes if began is None else nodes - began["nodes"].keys(), began, now)
        for node in sorted((stand.standing | set(asked)) - nodes)
    ]
    if began is None or began == now:
        return lost
    known = {change.at for change in lost}
    return lost + [change for change in changes(began, now) if stand.touched_by(change) and change.at not in known]


def changes(began: Structure, now: Structure) -> Iterator[Change]:
    """Everything in which two graphs differ."""
    before, after = began["nodes"], now["nodes"]
    for node in sorted(before.keys() - after.keys()):
        yield _gone(node, after.keys() - before.keys(), began, now)
    for node in sorted(after.keys() - before.keys()):
        yield Change(ChangeKind.NODE_NEW, node, f"node {node!r} is new")
    for node in sorted(before.keys() & after.keys(), key=lambda name: (name != START, name)):
        yield from _at_node(node, before[node], after[node])
        yield from _waits(node, began, now)
    yield from _fields(began, now)


# -- nodes -------------------------------------------------------------------------------------------------------------


def _gone(node: str, fresh: Collection[str], began: Structure | None, now: Structure) -> Change:
    heir = None if began is None else _heir(node, fresh, began, now)
    hint = f" (is it {heir!r} now?)" if heir is not None else ""
    return Change(ChangeKind.NODE_GONE, node, f"node {node!r} is gone{hint}")


def heir_of(node: str, began: Structure | None, now: Structure) -> str | None:
    """The new node that stands where a lost one stood, if there is exactly one."""
    return None if began is None else _heir(node, now["nodes"].keys() - began["nodes"].keys(), began, now)


def _heir(node: str, fresh: Collection[str], began: Structure, now: Structure) -> str | None:
    if node not in began["nodes"]:
        return None
    alike = [name for name in fresh if _shape(name, now) == _shape(node, began)]
    return alike[0] if len(alike) == 1 else None


def _shape(node: str, structure: Structure) -> Any:
    """How many ways lead to and from a node, and what it asks: a node by any other name has the same."""
    nodes = structure["nodes"]
    mine = nodes[node]
    before = sorted(name == START for name, told in nodes.items() if node in _targets(told))
    joins = sorted((len(starts), end == node) for starts, end in structure["joins"] if node in (*starts, end))
    return before, len(set(_targets(mine))), mine.get("questions", 0), joins


def _targets(told: Mapping[str, Any]) -> list[str]:
    routed = [target for ends in told.get("routers", {}).values() for target in (ends or {}).values()]
    return [*told.get("to", ()), *told.get("commands", ()), *routed]


def _at_node(node: str, before: Mapping[str, Any], after: Mapping[str, Any]) -> Iterator[Change]:
    asked, asks = before.get("questions", 0), after.get("questions", 0)
    if asked != asks:
        words = f"node {node!r} asks {_count(asks, 'question')}, it was {asked}"
        yield Change(ChangeKind.QUESTIONS, node, words)
    if before.get("graph") != after.get("graph"):
        yield Change(ChangeKind.INSIDE, node, f"the graph inside {node!r} is another")
    was, is_now = before.get("to", []), after.get("to", [])
    if was != is_now:
        words = f"after {_named(node)} always comes {_listed(is_now)}, it was {_listed(was)}"
        yield Change(ChangeKind.WAYS, node, words)
    yield from _routers(node, before.get("routers", {}), after.get("routers", {}))
    new = set(after.get("commands", ())) - set(before.get("commands", ()))
    if new:
        yield Change(ChangeKind.TARGET_NEW, node, f"a Command of {node!r} may lead to {_listed(sorted(new))}")


def _routers(node: str, before: Mapping[str, Any], after: Mapping[str, Any]) -> Iterator[Change]:
    for name in sorted(before.keys() | after.keys()):
        router = f"router {name!r} of {_named(node)}"
        if name not in after:
            yield Change(ChangeKind.ROUTER, node, f"{router} is gone")
        elif name not in before:
            yield Change(ChangeKind.ROUTER, node, f"{router} is new")
        elif after[name] is not None and (before[name] is None or before[name].items() - after[name].items()):
            was = "anywhere" if before[name] is None else _routes(before[name])
            yield Change(ChangeKind.ROUTER, node, f"{router} leads to {_routes(after[name])}, it was {was}")
        elif after[name] != before[name]:
            more = "anywhere" if after[name] is None else _listed(_more(before[name], after[name]))
            yield Change(ChangeKind.TARGET_NEW, node, f"{router} may lead to {more} too")


def _more(before: Mapping[str, str], after: Mapping[str, str]) -> list[str]:
    return sorted(after[answer] for answer in after.keys() - before.keys())


def _waits(node: str, began: Structure, now: Structure) -> Iterator[Change]:
    """What comes together before a node, and whether it waits for everything else."""
    was, is_now = _before(node, began), _before(node, now)
    if was != is_now:
        words = f"{node!r} waits for {_listed(is_now, 'nobody')}, it was {_listed(was, 'nobody')}"
        yield Change(ChangeKind.WAITS, node, words)
    # A join leads out of those that come to it.
    to, before = _joins_from(node, now), _joins_from(node, began)
    if to != before:
        words = f"after {_named(node)} comes {_listed(to)}, it was {_listed(before)}"
        yield Change(ChangeKind.WAYS, node, words)


def _before(node: str, structure: Structure) -> list[str]:
    joins = [" and ".join(starts) for starts, end in structure["joins"] if end == node]
    return joins + (["all others"] if structure["nodes"][node].get("defer") else [])


def _joins_from(node: str, structure: Structure) -> list[str]:
    return [f"{end} ({' and '.join(starts)})" for starts, end in structure["joins"] if node in starts]


# -- the state ---------------------------------------------------------------------------------------------------------


def _fields(began: Structure, now: Structure) -> Iterator[Change]:
    before, after = began["fields"], now["fields"]
    for name in sorted(before.keys() - after.keys()):
        yield Change(ChangeKind.FIELD_GONE, name, f"field {name!r} is gone")
    for name in sorted(after):
        told = after[name]
        if told.get("needed") and not before.get(name, {}).get("needed"):
            yield Change(ChangeKind.FIELD_NEEDED, name, f"field {name!r} is demanded")
        elif name not in before:
            yield Change(ChangeKind.FIELD_NEW, name, f"field {name!r} is new")
        if name in before:
            words = "; ".join(_retyped(before[name], told, began["records"], now["records"]))
            if words:
                yield Change(ChangeKind.FIELD_TYPE, name, f"field {name!r} {words}")


def _retyped(
    was: Mapping[str, Any], told: Mapping[str, Any], records: Mapping[str, Any], new_records: Mapping[str, Any]
) -> Iterator[str]:
    if was["type"] != told["type"]:
        yield f"is {told['type']}, it was {was['type']}"
    for part in ("reducer", "kind"):
        if was.get(part) != told.get(part):
            yield f"has the {part} {told.get(part, 'none')}, it was {was.get(part, 'none')}"
    for record in was.get("records", ()):
        if record in new_records:
            yield from _within(record, records[record], new_records[record])


def _within(record: str, was: Mapping[str, Any], told: Mapping[str, Any]) -> Iterator[str]:
    """What of a record that a field holds does not fit any more. It may have got more fields that it can do without."""
    for name, kind in was["fields"].items():
        if told["fields"].get(name) != kind:
            yield f"holds {record}, whose {name!r} is {told['fields'].get(name, 'gone')}, it was {kind}"
    for name in sorted(set(told.get("needed", ())) - set(was.get("needed", ()))):
        yield f"holds {record}, which demands {name!r}"


def table() -> str:
    """Every kind of change with the runs that it stops, as Markdown: `docs/versions.md` holds it."""
    rows = ["| what a deploy changes | runs that stop |", "|---|---|"]
    return "\n".join([*rows, *(f"| {kind.meaning} | {kind.touch.meaning} |" for kind in ChangeKind)]) + "\n"


# -- words -------------------------------------------------------------------------------------------------------------


def _named(node: str) -> str:
    return "the start" if node == START else repr(node)


def _listed(names: Sequence[str], none: str = "nothing") -> str:
    return ", ".join("the end" if name == "__end__" else name for name in names) or none


def _routes(ends: Mapping[str, str]) -> str:
    return _listed(
        [target if answer == target else f"{target} for {answer!r}" for answer, target in sorted(ends.items())]
    )


def _count(number: int, what: str) -> str:
    return f"{number} {what}{'' if number == 1 else 's'}"
