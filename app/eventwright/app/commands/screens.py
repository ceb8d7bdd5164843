"""Screens of the command line: values become rich tables and text. Calm: colour marks states and what to type next."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterable, Mapping, Sequence
from datetime import datetime
from typing import Any

from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from eventwright.app.commands.telling import (
    ANSWER,
    answers,
    call,
    clock,
    compact,
    decision_line,
    expired,
    line,
    next_commands,
    offered,
    people,
    plain,
    result,
    shape,
    short,
    waits,
    when,
    why,
)
from eventwright.app.commands.timeline import Tone, timeline
from eventwright.app.questions import explained, proposed, tool_of
from eventwright.guardrails.concerns import concerns
from eventwright.runs.records import (
    DecisionType,
    Effect,
    EffectState,
    EventState,
    JournalEntry,
    Review,
    ReviewState,
    Run,
    StoredEvent,
    person,
)
from eventwright.runs.states import RunState
from eventwright.runs.waits import WaitingFor

STATES: Mapping[RunState, str] = {
    RunState.RECEIVED: "dim",
    RunState.PROCESSING: "blue",
    RunState.PENDING_APPROVAL: "yellow",
    RunState.WAITING: "cyan",
    RunState.RETRYING: "magenta",
    RunState.FAILED: "red",
    RunState.COMPLETED: "green",
    RunState.CANCELLED: "dim",
}
TONES: Mapping[Tone, str] = {"plain": "", "quiet": "dim", "good": "green", "bad": "red", "ask": "yellow"}
_EFFECTS = {EffectState.DONE: "green", EffectState.FAILED: "red", EffectState.IN_DOUBT: "red"}

COMMAND = "cyan"
ID = "bold"


def table(*columns: str, flexible: str = "") -> Table:
    """A table without lines; the flexible column takes the room that the others leave, and is cut at its edge."""
    wide = bool(flexible) and sys.stdout.isatty()  # a pipe has no edge
    made = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0), header_style="dim", expand=wide)
    for name in columns:
        wide = name == flexible
        made.add_column(
            name, no_wrap=True, overflow="ellipsis", ratio=1 if wide else None, min_width=0 if wide else None
        )
    return made


def state_text(state: RunState) -> Text:
    """A state with its mark."""
    return mark(STATES[state], state)


def mark(style: str, words: str) -> Text:
    """Words behind a coloured dot."""
    return Text.assemble(("● ", style), str(words))


def commands(lines: Iterable[str]) -> RenderableType:
    """What to type next; never cut, so that it can be copied."""
    return Group(*(Text(f"  {plain(command)}", style=COMMAND, no_wrap=True, overflow="ignore") for command in lines))


def heading(text: str) -> Text:
    """The name of a part of a screen."""
    return Text(f"\n{text}", style="bold")


def spaced(screens: Iterable[RenderableType]) -> list[RenderableType]:
    """Screens with a line between them."""
    parts: list[RenderableType] = []
    for screen in screens:
        parts += [screen, Text()]
    return parts[:-1]


def facts(rows: Iterable[tuple[str, RenderableType]]) -> Table:
    """Names and values."""
    made = Table.grid(padding=(0, 2))
    made.add_column(style="dim", no_wrap=True)
    made.add_column()
    for name, value in rows:
        made.add_row(name, value)
    return made


# -- runs ------------------------------------------------------------------------------------------------------------


def runs_screen(runs: Sequence[Run], asked: Mapping[str, Sequence[Review]], now: datetime) -> RenderableType:
    """Runs, one a line: what each waits for, or how it ended."""
    if not runs:
        return Group(Text("No runs. Send an event:"), commands(["eventwright send --help"]))
    made = table("run", "workflow", "state", "since", "why", flexible="why")
    for run in runs:
        made.add_row(
            Text(short(run.id), style=ID),
            line(run.workflow),
            state_text(run.state),
            Text(when(run.updated_at, now).removesuffix(" ago"), style="dim"),
            why(run, now, asked.get(run.id, ())),
        )
    return made


def after_runs(found: Sequence[Run], limit: int) -> RenderableType:
    """What one may want to type after a list of runs that shows `limit` of those found."""
    wanted = []
    if any(run.state is RunState.PENDING_APPROVAL for run in found):
        wanted.append("eventwright reviews")
    failed = next((run for run in found if run.state is RunState.FAILED), None)
    if failed is not None:
        wanted.append(f"eventwright run {short(failed.id)}")
    if len(found) > limit:
        wanted.append(f"eventwright runs --before {short(found[limit - 1].id)}")
    return Group(Text(), commands(wanted)) if wanted else Group()


def replayed_screen(replayed: Sequence[Run], refused: Mapping[str, Exception]) -> RenderableType:
    """What became of the dead letters that were to be taken up again."""
    if not replayed and not refused:
        return Text("No failed run fits.")
    made = table("run", "became", flexible="became")
    for run in replayed:
        made.add_row(Text(short(run.id), style=ID), state_text(run.state))
    for run_id, error in refused.items():
        made.add_row(Text(short(run_id), style=ID), mark("red", line(error)))
    wanted = [f"eventwright run {short(replayed[0].id)}"] if len(replayed) == 1 else ["eventwright runs --watch"]
    return Group(made, Text(), commands(wanted))


def cancelled_screen(run: Run) -> RenderableType:
    """What became of a run that was to be ended."""
    if run.state is RunState.CANCELLED:
        return Text.assemble(state_text(run.state), f"  run {short(run.id)}")
    told = Text(f"run {short(run.id)} ends at its next boundary; it is {run.state} now")
    return Group(told, Text(), commands([f"eventwright run {short(run.id)}"]))


def rested_screen(rested: Mapping[str, str]) -> RenderableType:
    """Where the runs rest that a worker took up."""
    if not rested:
        return Text("Nothing was due.")
    made = table("run", "rests as")
    for run_id, state in rested.items():
        made.add_row(Text(short(run_id), style=ID), state_text(RunState(state)))
    asks = RunState.PENDING_APPROVAL in rested.values()
    return Group(made, Text(), commands(["eventwright reviews"])) if asks else made


def run_screen(
    run: Run,
    journal: Sequence[JournalEntry],
    effects: Sequence[Effect],
    asked: Sequence[Review],
    now: datetime,
    *,
    waits_for: str | None = None,
    waiting: Sequence[WaitingFor] = (),
) -> RenderableType:
    """Everything an operator wants to know about one run."""
    event = run.event
    parts: list[RenderableType] = [
        Text.assemble((run.id, ID), "  ", state_text(run.state)),
        Text(why(run, now, asked)),
        Text(),
        facts(
            [
                ("workflow", f"{line(run.workflow)} {line(run.version)}, lane {line(run.lane)}"),
                ("event", Text(f"{line(event.type)}  {line(event.id)}  from {line(event.source)}")),
                ("data", Text(expired(event.expired_at) if event.expired_at else compact(event.data, 400))),
                ("began", f"{clock(run.created_at)}, {when(run.created_at, now)}"),
                ("attempts", f"{run.attempts}"),
                *waits(run, waits_for, waiting, now),
            ]
        ),
        heading("What happened"),
        timeline_table(journal),
    ]
    if effects:
        told = f"Effects, their data {expired(run.expired_at)}" if run.expired_at else "Effects"
        parts += [heading(told), effects_table(effects)]
    if asked:
        parts += [heading("Who is asked"), *spaced(review_screen(review, now) for review in asked)]
    elif next_commands(run):
        parts += [heading("Next"), commands(next_commands(run))]
    return Group(*parts)


def timeline_table(journal: Sequence[JournalEntry]) -> Table:
    """The journal as an operator reads it; a long line goes on below itself."""
    made = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0), show_header=False)
    for style in ("dim", "dim"):
        made.add_column(style=style, no_wrap=True)
    made.add_column(overflow="fold")
    before = None
    for moment in timeline(journal):
        text = Text(moment.text, style=TONES[moment.tone])
        made.add_row(clock(moment.at, before or (journal[0].at if journal else None)), line(moment.node or ""), text)
        before = moment.at
    return made


def journal_table(journal: Sequence[JournalEntry]) -> Table:
    """The journal as it is."""
    made = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0), header_style="dim")
    for name in ("seq", "at", "kind", "actor", "node", "data"):
        made.add_column(name, no_wrap=name in ("seq", "at", "kind"), overflow="fold")
    for entry in journal:
        at = "" if entry.at is None else entry.at.isoformat(timespec="milliseconds")
        data = plain(json.dumps(entry.data, ensure_ascii=False))
        made.add_row(str(entry.seq), at, str(entry.kind), line(entry.actor), line(entry.node or ""), data)
    return made


def effects_table(effects: Sequence[Effect]) -> Table:
    """The ledger: what the run did outside, and what came of it."""
    made = table("state", "class", "tries", "call", "result", flexible="call")
    made.columns[-1].ratio = 1
    for effect in effects:
        made.add_row(
            mark(_EFFECTS.get(effect.state, "blue"), effect.state),
            line(effect.tool_class),
            str(effect.attempt),
            call(effect.tool, effect.arguments, 200),
            line(effect.error) if effect.error else result(effect.result),
        )
    return made


# -- reviews ---------------------------------------------------------------------------------------------------------


def reviews_screen(
    reviews: Sequence[Review], now: datetime, *, more: bool, agreed: Mapping[str, Sequence[str]] | None = None
) -> RenderableType:
    """Questions, each with its answers as commands; `more` says that there are others, `agreed` who has said yes."""
    if not reviews:
        return Text("Nobody is asked anything.")
    parts = spaced(review_screen(review, now, agreed=(agreed or {}).get(review.id, ())) for review in reviews)
    if more:
        parts += [Text(), commands([f"eventwright reviews --limit {2 * len(reviews)}"])]
    return Group(*parts)


def decided_screen(review: Review, agreed: Sequence[str] = ()) -> RenderableType:
    """A decision that was taken."""
    decision = review.decision
    said = f"{decision.type} by {line(decision.by)}" if decision else str(review.state)
    head = mark("green", f"{said}: {line(review.question, 100)}")
    edited = decision is not None and decision.type is DecisionType.EDIT
    told = "others are asked about the call as changed" if edited else people(review, agreed)
    shared = [Text(f"  {told}")] if review.people > 1 else []
    return Group(head, *shared, Text(), commands([f"eventwright run {short(review.run_id)}"]))


def review_screen(
    review: Review, now: datetime, *, with_answers: bool = True, agreed: Sequence[str] = ()
) -> RenderableType:
    """One question: what would happen, why it is asked, until when, and how to answer."""
    place = f"  {line(review.workflow)} › {line(review.node)}  run {short(review.run_id)}"
    head = Text.assemble((short(review.id), ID), (f"  {review.kind}", "yellow"), (place, "dim"))
    parts: list[RenderableType] = [head, Text(f"  {plain(review.question)}")]
    rows = [*_about(review, now), *_warnings(review), *_deciders(review, agreed)]
    if rows:
        parts.append(facts((f"  {name}", value) for name, value in rows))
    if review.state is ReviewState.OPEN and with_answers:
        parts.append(commands(answers(review).values()))
    return Group(*parts)


def _about(review: Review, now: datetime) -> Iterable[tuple[str, RenderableType]]:
    tool = tool_of(review)
    if review.expired_at is not None:
        yield "data", Text(expired(review.expired_at))
    if review.arguments is not None:
        shown = call(tool, review.arguments) if tool else compact(proposed(review))
        yield ("would do" if tool else "proposed"), Text(shown)
    yield from ((name, Text(text)) for name, text in explained(review))
    choices = offered(review.response_schema)
    if choices:
        yield "answers", Text(", ".join(compact(choice) for choice in choices))
    if example := shape(review):
        yield ANSWER, Text(example)
    if review.deadline is not None:
        default = (review.default or {}).get("type", "the run fails")
        yield "deadline", Text(f"{clock(review.deadline)} ({when(review.deadline, now)}), then: {line(default)}")
    if review.decision is not None:
        yield review.state, Text(decision_line(review, now))


def _warnings(review: Review) -> Iterable[tuple[str, RenderableType]]:
    found = concerns(review.arguments, question=review.question, evidence=review.evidence)
    if found:
        lines = (f"{concern.kind} in {line(concern.path)}: {line(concern.text, 200)}" for concern in found)
        yield "look twice", Text("\n".join(lines), style="yellow")


def _deciders(review: Review, agreed: Sequence[str]) -> Iterable[tuple[str, RenderableType]]:
    if review.people > 1:
        yield "people", Text(people(review, agreed))
    if review.approvers:
        barred = {person(name) for name in review.barred}
        free = [name for name in review.approvers if person(name) not in barred]
        few = "" if len(free) >= review.people else ": too few to agree, it can only be rejected"
        yield "may decide", Text(f"{line(', '.join(free)) or 'nobody'}{few}")
    for label, names in (("in the role", review.roles), ("may not", review.barred)):
        if names:
            yield label, Text(line(", ".join(names)))


# -- events ----------------------------------------------------------------------------------------------------------


def events_screen(events: Sequence[StoredEvent], now: datetime) -> RenderableType:
    """Events as they came in, with what became of each."""
    if not events:
        return Text("No events.")
    made = table("event", "type", "id", "state", "since", "became", flexible="became")
    for stored in events:
        event, refused = stored.event, stored.state is EventState.REFUSED
        detail = line((stored.problem or {}).get("detail", ""))
        runs = ", ".join(f"run {short(run_id)}" for run_id in stored.run_ids) or "no workflow wanted it"
        made.add_row(
            Text(short(event.uid), style=ID),
            line(event.type),
            line(event.id, 24),
            mark("red" if refused else "green", stored.state),
            Text(when(event.received_at, now).removesuffix(" ago"), style="dim"),
            detail if refused else runs,
        )
    refused_ones = [stored for stored in events if stored.state is EventState.REFUSED]
    again = [f"eventwright replay-event {short(stored.event.uid)}" for stored in refused_ones[:1]]
    return Group(made, Text(), commands(again)) if again else made


def sent_screen(items: Sequence[Mapping[str, Any]]) -> RenderableType:
    """What became of the events that were sent, one a line."""
    made = table("state", "event", "became", flexible="became")
    runs = []
    for item in items:
        if "error" in item:
            told = item["error"].get("detail") or item["error"].get("title", "refused")
            made.add_row(mark("red", "refused"), line(item.get("id") or "", 40), line(told))
            continue
        runs += [run["id"] for run in item["runs"]]
        became = ", ".join(f"run {short(run['id'])} ({line(run['workflow'])}, {run['state']})" for run in item["runs"])
        became_of_it = mark("dim", "duplicate") if item["duplicate"] else mark("green", "stored")
        made.add_row(became_of_it, line(item["id"], 40), became or "no workflow is meant for it")
    wanted = [f"eventwright run {short(runs[0])}"] if len(runs) == 1 else ["eventwright runs"] if runs else []
    if any(item.get("error", {}).get("uid") for item in items):
        wanted.append("eventwright events --state refused")
    return Group(made, Text(), commands(wanted)) if wanted else made
