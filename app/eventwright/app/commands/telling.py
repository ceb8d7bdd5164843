"""Runs and reviews in an operator's words. Plain values in, plain text out: every screen says it alike."""

from __future__ import annotations

import json
import shlex
import unicodedata
from collections.abc import Collection, Iterator, Mapping, Sequence
from datetime import datetime
from typing import TYPE_CHECKING, Any, assert_never

from eventwright.guardrails.text import mark
from eventwright.runs.records import DecisionType, Review, ReviewState, Run
from eventwright.runs.states import Reason, RunState

if TYPE_CHECKING:
    from eventwright.runs.waits import WaitingFor

#: How many of an id's last characters name it on a screen; every command takes them back.
SHORT = 8
#: A proposed command longer than this has its JSON in a file.
LONGEST_COMMAND = 160
ANSWER = "answer.json"
#: Categories of letters that steer a terminal, and are left when the hidden ones are marked.
_HARMFUL = frozenset({"Cc", "Cs", "Zl", "Zp"})


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
    if is_judgement(value):
        return f"{compact(value['value'], longest)}, {value['confidence']:.0%} sure"
    return compact(value, longest)


def is_judgement(value: Any) -> bool:
    """Whether a model's answer is in it, with how sure it was."""
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
            return ["eventwright runs --watch", f"eventwright cancel {short(run.id)}"]


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


def decision_line(review: Review, now: datetime) -> str:
    """Who decided, what and when."""
    decision = review.decision
    if decision is None:
        return f"{review.state}: {review.state.meaning}"
    comment = f": {line(decision.comment)}" if decision.comment else ""
    unproven = "" if decision.verified else " (name not verified)"
    return f"{line(decision.by)}{unproven} said {decision.type} {when(decision.at, now)}{comment}"


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
    return whole if fits else f"{command} {option} @{ANSWER}"


def shape(review: Review) -> str:
    """What is to be written into the file of a response that is too long for a command; empty for a short one."""
    in_a_file = answers(review).get(DecisionType.RESPOND, "").endswith(f"@{ANSWER}")
    return compact(example_of(review.response_schema), 1000) if in_a_file else ""


def offered(schema: Mapping[str, Any] | None) -> list[Any]:
    """The values that a schema allows, if it lists them, or asks for a yes or no alone."""
    schema = schema or {}
    wanted = schema.get("required", [])
    only = schema.get("properties", {}).get(wanted[0]) if len(wanted) == 1 else None
    if isinstance(only, Mapping) and only.get("type") == "boolean":
        return [{wanted[0]: True}, {wanted[0]: False}]
    return list(schema.get("enum", []))


def example_of(schema: Mapping[str, Any] | None, root: Mapping[str, Any] | None = None, depth: int = 10) -> Any:
    """A value of the shape that a JSON schema describes, to be filled in; one that refers to itself ends somewhere."""
    schema = schema if isinstance(schema, Mapping) else {}  # `true` is a schema too
    if depth == 0:
        return "…"
    root = root or schema
    if "$ref" in schema:
        return example_of(root.get("$defs", {}).get(str(schema["$ref"]).rpartition("/")[2]), root, depth - 1)
    for given in ("const", "default"):
        if given in schema:
            return schema[given]
    listed = offered(schema) or schema.get("examples")
    if listed:
        return listed[0]
    for choice in ("anyOf", "oneOf", "allOf"):
        if schema.get(choice):
            return example_of(schema[choice][0], root, depth - 1)
    match schema.get("type"):
        case "object":
            fields = schema.get("properties", {})
            wanted: Collection[str] = schema.get("required") or fields
            return {name: example_of(fields.get(name), root, depth - 1) for name in wanted}
        case "boolean":
            return True
        case "integer" | "number":
            return 0
        case "array":
            return []
        case _:
            return "…"
