"""The journal in an operator's words, as a timeline."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Literal

from eventwright.app.commands.telling import awaited, call, compact, is_judgement, line, result, short
from eventwright.runs.records import JournalEntry, JournalKind

Tone = Literal["plain", "quiet", "good", "bad", "ask"]

#: What becomes of a call's share of a budget, as the journal calls it and as an operator reads it.
_SHARES = {"reserved": "reserves", "spent": "used after all", "given_back": "gives back"}
_SETTLED = (JournalKind.EFFECT_DONE, JournalKind.EFFECT_FAILED, JournalKind.EFFECT_IN_DOUBT)


@dataclass(frozen=True)
class Moment:
    """One line of a timeline: when, where and by whom something happened, and what."""

    at: datetime | None
    node: str | None
    text: str
    tone: Tone = "plain"


def timeline(journal: Sequence[JournalEntry]) -> Iterator[Moment]:
    """The journal as an operator reads it: without what the next line says again or concerns nobody else."""
    settled = {_call_of(entry) for entry in journal if entry.kind in _SETTLED}
    begun = {_call_of(entry): entry.data for entry in journal if entry.kind is JournalKind.EFFECT_INTENDED}
    for entry in journal:
        match entry.kind:
            case JournalKind.TRANSITION:
                text, tone = _transition(entry)
                yield Moment(entry.at, entry.node or entry.data.get("node"), text, tone)
            case JournalKind.VERDICT:
                for stage in entry.data.get("stages", []):
                    if stage.get("verdict") == "deny":
                        refused = f"the gate denied {line(entry.data.get('tool'))}: {line(stage.get('reason'))}"
                        yield Moment(entry.at, entry.node, refused, "bad")
            case JournalKind.EFFECT_INTENDED:
                if _call_of(entry) not in settled:
                    yield Moment(entry.at, entry.node, f"begins {_called(entry.data)}")
            case JournalKind.BUDGET:
                if told := _shares(entry.data):
                    yield Moment(entry.at, entry.node, told, "quiet")
            case JournalKind.EFFECT_DONE:
                text, tone = _done({"arguments": begun.get(_call_of(entry), {}).get("arguments")} | entry.data)
                yield Moment(entry.at, entry.node, text, tone)
            case _:
                text, tone = _told(entry)
                yield Moment(entry.at, entry.node, text, tone)


def _call_of(entry: JournalEntry) -> tuple[Any, Any]:
    return entry.data.get("effect"), entry.data.get("attempt")


def _called(data: Mapping[str, Any]) -> str:
    return call(data.get("tool"), data.get("arguments"), 120)


def _done(data: Mapping[str, Any]) -> tuple[str, Tone]:
    if is_judgement(data.get("result")):
        return f"{line(data['result']['model'])} answers {result(data['result'], 80)}", "plain"
    nothing = "nothing" if data.get("class") == "read" else "done"
    said = line(data["error"]) if data.get("error") else result(data.get("result"), 100) or nothing
    return f"{_called(data)} → {said}", "plain" if data.get("class") == "read" else "good"


def _transition(entry: JournalEntry) -> tuple[str, Tone]:
    data, by = entry.data, line(entry.actor)
    origin = data.get("from")
    match data.get("to"):
        case "received" if origin is None:
            sender = f", sent by {line(data['principal'])}" if data.get("principal") else ""
            return f"event {line(_event_of(data))}{sender}", "plain"
        case "received" if "replay" in data:
            return f"{by} replays it {line(data['replay'])}", "plain"
        case "received" if "lane" in data:
            return f"handed over to lane {line(data['lane'])} by {by}", "quiet"
        case "received":
            return f"handed back by {by}", "quiet"
        case "processing":
            return f"taken {_from_whom(data)} by {by}", "quiet"
        case "pending_approval":
            meanwhile = f", and goes on in lane {line(data['lane'])} meanwhile" if "lane" in data else ""
            return f"rests until a person has decided{meanwhile}", "quiet"
        case "waiting":
            why = f": {line(data['error'])}" if data.get("error") else ""
            things = [awaited(one["types"], one["key"], one["until"]) for one in data.get("waiting_for", ())]
            until = f" until {line(data['due_at'])}" if "due_at" in data else ""
            return f"waits{until}{' for ' if things else ''}{'; '.join(things)}{why}", "quiet"
        case "retrying":
            return f"will be tried again: {line(data.get('error'))}", "bad"
        case "failed":
            return f"failed ({line(data.get('reason'))}): {line(data.get('error'))}", "bad"
        case "completed":
            return f"completed: {line(data.get('outcome'))}", "good"
        case "cancelled":
            return f"cancelled by {by}", "plain"
        case other:
            return f"{line(origin)} → {line(other)}", "plain"


def _event_of(data: Mapping[str, Any]) -> str:
    return f"{data.get('type')} {data.get('event')} from {data.get('source')}"


def _from_whom(data: Mapping[str, Any]) -> str:
    if not data.get("taken_over"):
        return "up"
    return "over from a worker that had to stop" if data.get("crashes") == 0 else "over from a dead worker"


def _told(entry: JournalEntry) -> tuple[str, Tone]:
    data, by = entry.data, line(entry.actor)
    match entry.kind:
        case JournalKind.EFFECT_FAILED:
            return f"{line(data.get('tool'))} failed: {line(data.get('error'))}", "bad"
        case JournalKind.EFFECT_IN_DOUBT:
            return f"nobody knows whether {line(data.get('tool'))} happened: {line(data.get('error'))}", "bad"
        case JournalKind.REVIEW_OPENED:
            return f"asks {short(str(data.get('review')))}: {line(data.get('question'))}", "ask"
        case JournalKind.DECISION:
            comment = f" – {line(data['comment'])}" if data.get("comment") else ""
            given = next((data[name] for name in ("arguments", "response") if data.get(name) is not None), None)
            said = f" {compact(given, 80)}" if given is not None else ""
            return f"{by}: {line(data.get('type'))}{said}{comment}", "ask"
        case _:
            rest = {name: value for name, value in data.items() if name != "text"}
            words = [line(data["text"])] if data.get("text") else []
            if rest.keys() >= {"event", "source", "type"}:
                return f"{' '.join(words)}: {line(_event_of(rest))}", "plain"
            if rest.keys() >= {"version", "version_before", "names", "changes"}:
                return f"{' '.join(words)}{line(_moved(rest))} ({by})", "plain"
            return f"{' '.join([*words, compact(rest, 120)] if rest else words)} ({by})", "plain"


def _moved(data: Mapping[str, Any]) -> str:
    """What an operator's move has changed, after a colon; nothing if the ways through the graph alone are others."""
    told = [f"version {data['version_before']} → {data['version']}"] * (data["version_before"] != data["version"])
    told += [f"{old} is {new} now" for old, new in data["names"].items()]
    told += [f"its state by {compact(data['state'], 120)}"] * bool(data.get("state"))
    told += list(data["changes"])
    return f": {'; '.join(told)}" if told else ""


def _shares(data: Mapping[str, Any]) -> str:
    """What becomes of a call's share in budgets that others have a share in as well."""
    told = [
        f"{words} {line(share.get('amount'))} of {line(share.get('budget'))}"
        for what, words in _SHARES.items()
        for share in data.get(what, [])
        if what != "reserved" or not str(share.get("budget")).startswith("run_")
    ]
    return "; ".join(told)
