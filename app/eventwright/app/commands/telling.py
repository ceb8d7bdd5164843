"""Runs, reviews and journals in an operator's words. Plain values in, plain text out: every screen says it alike."""

from __future__ import annotations

import json
import shlex
import unicodedata
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import TYPE_CHECKING, Any, Literal, assert_never

from eventwright.guardrails.text import mark
from eventwright.runs.records import DecisionType, JournalEntry, JournalKind, Review, ReviewState, Run
from eventwright.runs.states import Reason, RunState

if TYPE_CHECKING:
    from eventwright.runs.waits import WaitingFor

Tone = Literal["plain", "quiet", "good", "bad", "ask"]

#: How many of an id's last characters name it on a screen; every command takes them back.
SHORT = 8
#: A proposed command longer than this has its JSON in a file.
LONGEST_COMMAND = 160
#: Categories of letters that steer a terminal, and are left when the hidden ones are marked.
_HARMFUL = frozenset({"Cc", "Cs", "Zl", "Zp"})
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


# -- text ------------------------------------------------------------------------------------------------------------


def plain(text: object) -> str:
    """A stranger's text, safe for a terminal: what hides, or turns a line, stands there as `⟦U+202E⟧`."""
    letters = mark(str(text).replace("\r\n", "\n").replace("\t", " "))
    return letters if letters.isprintable() else "".join("?" if _harmful(letter) else letter for letter in letters)


def _harmful(letter: str) -> bool:
    return unicodedata.category(letter) in _HARMFUL and letter != "\n"


def line(text: object, longest: int = 0) -> str:
    """The text on one line, cut at `longest` letters."""
    flat = " ".join(plain(text).split())
    return flat if not longest or len(flat) <= longest else flat[: longest - 1].rstrip() + "…"


def compact(value: Any, longest: int = 0) -> str:
    """A JSON value on one line; a string without its quotes."""
    return line(value if isinstance(value, str) else json.dumps(value, ensure_ascii=False), longest)


def expired(at: datetime) -> str:
    """What stands where data was, that was deleted because it had been kept long enough."""
    return f"expired on {at:%Y-%m-%d}"


def short(identifier: str) -> str:
    """The end of an id, by which every command finds it again."""
    return plain(identifier)[-SHORT:]


def call(tool: object, arguments: Any, longest: int = 0) -> str:
    """A call as it is written: `mail.send(to="ann@example.org", …)`."""
    if not isinstance(arguments, Mapping):
        return line(tool)
    question = arguments.get("question")
    if arguments.keys() == {"question"} and isinstance(question, Mapping) and "purpose" in question:
        return line(f"{tool}: {question['purpose']}", longest)  # what a model is asked goes on for pages
    inside = ", ".join(f"{name}={json.dumps(value, ensure_ascii=False)}" for name, value in arguments.items())
    return line(f"{tool}({inside})", longest)


def result(value: Any, longest: int = 0) -> str:
    """What a call brought back; of a model's answer what it says and how sure it is."""
    if value is None:
        return ""
    if _is_judgement(value):
        return f"{compact(value['value'], longest)}, {value['confidence']:.0%} sure"
    return compact(value, longest)


def _is_judgement(value: Any) -> bool:
    known = isinstance(value, Mapping) and {"value", "confidence", "model"} <= value.keys()
    return known and isinstance(value["confidence"], float | int)


def span(seconds: float) -> str:
    """A length of time in one unit."""
    for limit, unit, size in ((90, "s", 1), (5400, "min", 60), (129_600, "h", 3600)):
        if abs(seconds) < limit:
            return f"{abs(seconds) / size:.0f} {unit}"
    return f"{abs(seconds) / 86_400:.0f} d"


def when(moment: datetime | None, now: datetime) -> str:
    """How far away a time is: `3 min ago`, `in 5 s`."""
    if moment is None:
        return ""
    seconds = (moment - now).total_seconds()
    return f"in {span(seconds)}" if seconds > 0.5 else f"{span(seconds)} ago"


def clock(moment: datetime | None, beside: datetime | None = None) -> str:
    """A time on the reader's clock, with its day unless `beside` is on the same one."""
    if moment is None:
        return ""
    local = moment.astimezone()
    same_day = beside is not None and beside.astimezone().date() == local.date()
    return f"{local:%H:%M:%S}" if same_day else f"{local:%Y-%m-%d %H:%M:%S}"


# -- runs ------------------------------------------------------------------------------------------------------------


def why(run: Run, now: datetime, asked: Sequence[Review] = ()) -> str:
    """Why the run is where it is: what it waits for, or how it ended."""
    match run.state:
        case RunState.RECEIVED if run.in_line:
            return f"waits for its turn: runs of the key {line(run.serial_key, 40)} go one after the other"
        case RunState.RECEIVED:
            return f"waits for a worker of lane {line(run.lane)}"
        case RunState.PROCESSING:
            ending = f", and ends soon: {line(run.cancel_requested_by)} cancelled it" if run.cancel_requested_by else ""
            return f"a worker has it: {line(run.worker)}{ending}"
        case RunState.PENDING_APPROVAL:
            if not asked:
                return "waits for a person" if run.asks else "was answered, goes on soon"
            more = f" (and {len(asked) - 1} more)" if len(asked) > 1 else ""
            return line(asked[0].question) + more
        case RunState.WAITING:
            why = f": {line(run.error)}" if run.error else ""
            return f"goes on {when(run.due_at, now)}{why}" if run.due_at else "waits for an event"
        case RunState.RETRYING:
            return f"attempt {run.attempts} {when(run.due_at, now)}: {line(run.error)}"
        case RunState.FAILED:
            return f"{run.reason}: {line(run.error)}"
        case RunState.COMPLETED:
            return f"{run.outcome}: {run.outcome.meaning}" if run.outcome else ""
        case RunState.CANCELLED:
            return RunState.CANCELLED.meaning
        case _:
            assert_never(run.state)


def order(key: str, waits_for: str | None) -> str:
    """With which others a run stands in line, and behind whom."""
    behind = f", behind {short(waits_for)}" if waits_for else ""
    return f"one run of the key {line(key, 40)} at a time{behind}"


def waits(run: Run, waits_for: str | None, waiting: Sequence[WaitingFor], now: datetime) -> Iterator[tuple[str, str]]:
    """What keeps a run from going on: its turn among others, events from outside, times."""
    if run.serial_key:
        yield "order", order(run.serial_key, waits_for)
    for one in waiting:
        until = None if one.until is None else f"{clock(one.until)} ({when(one.until, now)})"
        yield "waits for", awaited(one.types, one.key, until)


def awaited(types: Sequence[str], key: str | None, until: str | None) -> str:
    """What is waited for: `payment.succeeded of 4711, until 2026-07-01`."""
    events = f"{' or '.join(line(name) for name in types)} of {line(key, 40)}" if types else ""
    return ", ".join(filter(None, [events, f"until {line(until)}" if until else ""]))


def next_commands(run: Run, asked: Sequence[Review] = ()) -> list[str]:
    """What an operator can do about the run now."""
    if asked:
        return [command for review in asked for command in answers(review).values()]
    match run.state:
        case RunState.FAILED:
            again = "migrate --dry-run" if run.reason is Reason.NEEDS_MIGRATION else "replay"
            return [f"eventwright {again} {short(run.id)}", f"eventwright cancel {short(run.id)}"]
        case RunState.COMPLETED | RunState.CANCELLED:
            return []
        case _:
            return [f"eventwright run {short(run.id)}", f"eventwright cancel {short(run.id)}"]


# -- reviews ---------------------------------------------------------------------------------------------------------


def answers(review: Review) -> dict[DecisionType, str]:
    """The exact command for each answer that an open review allows."""
    if review.state is not ReviewState.OPEN:
        return {}
    return {answer: _answer(review, answer) for answer in review.allowed}


def people(review: Review, agreed: Sequence[str]) -> str:
    """How many of the people who must agree have done so, and who: `1 of 2 people (ann)`."""
    names = f" ({line(', '.join(agreed))})" if agreed else ""
    return f"{len(agreed)} of {review.people} people have agreed{names}"


def _answer(review: Review, answer: DecisionType) -> str:
    command = f"eventwright decide {short(review.id)} {answer}"
    match answer:
        case DecisionType.EDIT:
            example = example_of(review.response_schema) if review.arguments is None else review.arguments
            return _with_json(command, "--arguments", example)
        case DecisionType.RESPOND:
            return _with_json(command, "--response", example_of(review.response_schema))
        case DecisionType.APPROVE | DecisionType.REJECT:
            return command
        case _:
            assert_never(answer)


def _with_json(command: str, option: str, value: Any) -> str:
    text = value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)
    whole = f"{command} {option} {shlex.quote(text)}"
    # A mark for what is hidden is no part of an answer, and must not be copied into one.
    fits = len(whole) <= LONGEST_COMMAND and "\n" not in whole and plain(text) == text
    return whole if fits else f"{command} {option} @answer.json"


def offered(schema: Mapping[str, Any] | None) -> list[Any]:
    """The values that a schema allows, if it lists them, or asks for a yes or no alone."""
    schema = schema or {}
    wanted = schema.get("required", [])
    if len(wanted) == 1 and schema.get("properties", {}).get(wanted[0], {}).get("type") == "boolean":
        return [{wanted[0]: True}, {wanted[0]: False}]
    return list(schema.get("enum", []))


def example_of(schema: Mapping[str, Any] | None, root: Mapping[str, Any] | None = None) -> Any:
    """A value of the shape that a JSON schema describes, to be filled in."""
    schema = schema or {}
    root = root or schema
    if "$ref" in schema:
        return example_of(root.get("$defs", {}).get(str(schema["$ref"]).rpartition("/")[2]), root)
    for given in ("const", "default"):
        if given in schema:
            return schema[given]
    listed = offered(schema) or schema.get("examples")
    if listed:
        return listed[0]
    for choice in ("anyOf", "oneOf", "allOf"):
        if schema.get(choice):
            return example_of(schema[choice][0], root)
    match schema.get("type"):
        case "object":
            fields = schema.get("properties", {})
            wanted: Collection[str] = schema.get("required") or fields
            return {name: example_of(fields.get(name), root) for name in wanted}
        case "boolean":
            return True
        case "integer" | "number":
            return 0
        case "array":
            return []
        case _:
            return "…"


# -- the journal -----------------------------------------------------------------------------------------------------


def timeline(journal: Sequence[JournalEntry]) -> Iterator[Moment]:
    """The journal as an operator reads it: without what is said again by the next line."""
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
    if _is_judgement(data.get("result")):
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
            told = f"event {line(data.get('type'))} {line(data.get('event'))} from {line(data.get('source'))}{sender}"
            return told, "plain"
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
        case JournalKind.BUDGET:
            told = [
                f"{words} {line(share.get('amount'))} of {line(share.get('budget'))}"
                for what, words in _SHARES.items()
                for share in data.get(what, [])
            ]
            return "; ".join(told), "quiet"
        case _:
            rest = {name: value for name, value in data.items() if name != "text"}
            words = [line(data["text"])] if data.get("text") else []
            return f"{' '.join([*words, compact(rest, 120)] if rest else words)} ({by})", "plain"
