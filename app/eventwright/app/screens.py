"""Screens of the command line: values become rich tables and text. Calm: colour marks states and what to type next."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from datetime import datetime
from typing import Any

from rich.console import Group, RenderableType
from rich.padding import Padding
from rich.table import Table
from rich.text import Text

from eventwright.app.telling import (
    Tone,
    answers,
    call,
    clock,
    compact,
    line,
    next_commands,
    offered,
    plain,
    short,
    timeline,
    when,
    why,
)
from eventwright.runs.records import (
    Effect,
    EffectState,
    EventState,
    JournalEntry,
    Review,
    ReviewState,
    Run,
    StoredEvent,
)
from eventwright.runs.states import RunState

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
    """A table without lines; the flexible column takes the room that is left and is cut at its edge."""
    made = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0), header_style="dim", expand=False)
    for name in columns:
        wide = name == flexible
        made.add_column(
            name, no_wrap=True, overflow="ellipsis", ratio=1 if wide else None, min_width=0 if wide else None
        )
    return made


def state_text(state: RunState) -> Text:
    """A state with its mark."""
    return Text("● ", style=STATES[state]) + Text(str(state))


def commands(lines: Iterable[str]) -> RenderableType:
    """What to type next; never cut, so that it can be copied."""
    return Group(*(Text(f"  {plain(command)}", style=COMMAND, overflow="fold") for command in lines))


def heading(text: str) -> Text:
    """The name of a part of a screen."""
    return Text(f"\n{text}", style="bold")


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


def after_runs(runs: Sequence[Run]) -> RenderableType:
    """What one may want to do about these runs."""
    states = {run.state for run in runs}
    wanted = []
    if RunState.PENDING_APPROVAL in states:
        wanted.append("eventwright reviews")
    if RunState.FAILED in states:
        wanted.append(f"eventwright run {short(next(run.id for run in runs if run.state is RunState.FAILED))}")
    return Group(Text(), commands(wanted)) if wanted else Text()


def run_screen(
    run: Run, journal: Sequence[JournalEntry], effects: Sequence[Effect], asked: Sequence[Review], now: datetime
) -> RenderableType:
    """Everything an operator wants to know about one run."""
    event = run.event
    parts: list[RenderableType] = [
        Text(run.id, style=ID) + Text("  ") + state_text(run.state),
        Padding(Text(why(run, now, asked)), (0, 0, 1, 0)),
        facts(
            [
                ("workflow", f"{line(run.workflow)} {line(run.version)}, lane {line(run.lane)}"),
                ("event", Text(f"{line(event.type)}  {line(event.id)}  from {line(event.source)}")),
                ("data", Text(compact(event.data, 400))),
                ("began", f"{clock(run.created_at)}, {when(run.created_at, now)}"),
                ("attempts", f"{run.attempts}"),
            ]
        ),
        heading("What happened"),
        timeline_table(journal),
    ]
    if effects:
        parts += [heading("Effects"), effects_table(effects)]
    if asked:
        parts.append(heading("Who is asked"))
        parts += [Padding(review_screen(review, now), (0, 0, 1, 0)) for review in asked]
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
    for name in ("seq", "at", "kind", "actor", "node"):
        made.add_column(name, no_wrap=name in ("seq", "at", "kind"), overflow="fold")
    made.add_column("data", overflow="fold")
    for entry in journal:
        at = "" if entry.at is None else entry.at.isoformat(timespec="milliseconds")
        data = plain(json.dumps(entry.data, ensure_ascii=False))
        made.add_row(str(entry.seq), at, str(entry.kind), line(entry.actor), line(entry.node or ""), data)
    return made


def effects_table(effects: Sequence[Effect]) -> Table:
    """The ledger: what the run did outside, and what came of it."""
    made = table("state", "class", "tries", "call", "result", flexible="call")
    for effect in effects:
        result = effect.error if effect.error else "" if effect.result is None else compact(effect.result)
        made.add_row(
            Text("● ", style=_EFFECTS.get(effect.state, "blue")) + Text(str(effect.state)),
            line(effect.tool_class),
            str(effect.attempt),
            call(effect.tool, effect.arguments, 200),
            line(result, 40),
        )
    return made


# -- reviews ---------------------------------------------------------------------------------------------------------


def reviews_screen(reviews: Sequence[Review], now: datetime) -> RenderableType:
    """Open questions, each with its answers as commands."""
    if not reviews:
        return Text("Nobody is asked anything.")
    return Group(*(Padding(review_screen(review, now), (0, 0, 1, 0)) for review in reviews))


def review_screen(review: Review, now: datetime) -> RenderableType:
    """One question: what would happen, why it is asked, until when, and how to answer."""
    head = Text(short(review.id), style=ID) + Text(f"  {review.kind}", style="yellow")
    head += Text(f"  {line(review.workflow)} › {line(review.node)}  run {short(review.run_id)}", style="dim")
    parts: list[RenderableType] = [head, Text(f"  {plain(review.question)}")]
    rows = list(_about(review, now))
    if rows:
        parts.append(Padding(facts(rows), (0, 0, 0, 2)))
    if review.state is ReviewState.OPEN:
        parts.append(commands(answers(review).values()))
    return Group(*parts)


def _about(review: Review, now: datetime) -> Iterable[tuple[str, RenderableType]]:
    tool = review.evidence.get("tool")
    if review.arguments is not None:
        shown = call(tool, review.arguments) if tool else compact(review.arguments)
        yield ("would do" if tool else "proposed"), Text(shown)
    reason = (review.rule or {}).get("reason")
    if reason:
        yield "because", Text(line(reason))
    for name in ("material", "reason", "event"):
        value = review.evidence.get(name)
        if value and not (name == "reason" and tool):
            yield {"material": "text", "reason": "model"}.get(name, name), Text(compact(value, 400))
            if name == "material":
                break
    choices = offered(review.response_schema)
    if choices:
        yield "answers", Text(", ".join(compact(choice) for choice in choices))
    if review.deadline is not None:
        default = (review.default or {}).get("type", "the run fails")
        yield "deadline", Text(f"{clock(review.deadline)} ({when(review.deadline, now)}), then: {line(default)}")
    if review.decision is not None:
        yield review.state, Text(decision_line(review, now))


def decision_line(review: Review, now: datetime) -> str:
    """Who decided, what and when."""
    decision = review.decision
    if decision is None:
        return f"{review.state}: {review.state.meaning}"
    comment = f": {line(decision.comment)}" if decision.comment else ""
    unproven = "" if decision.verified else " (name not verified)"
    return f"{line(decision.by)}{unproven} said {decision.type} {when(decision.at, now)}{comment}"


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
            Text("● ", style="red" if refused else "green") + Text(str(stored.state)),
            Text(when(event.received_at, now).removesuffix(" ago"), style="dim"),
            detail if refused else runs,
        )
    refused_ones = [stored for stored in events if stored.state is EventState.REFUSED]
    again = [f"eventwright replay-event {short(stored.event.uid)}" for stored in refused_ones[:1]]
    return Group(made, Text(), commands(again)) if again else made


def sent_screen(items: Sequence[Mapping[str, Any]]) -> RenderableType:
    """What became of the events that were sent, one a line."""
    made = table("", "event", "became", flexible="became")
    runs = []
    for item in items:
        if "error" in item:
            told = item["error"].get("detail") or item["error"].get("title", "refused")
            made.add_row(Text("● refused", style="red"), line(item.get("id") or "", 40), line(told))
            continue
        runs += [run["id"] for run in item["runs"]]
        became = ", ".join(f"run {short(run['id'])} ({line(run['workflow'])}, {run['state']})" for run in item["runs"])
        mark = Text("● duplicate", style="dim") if item["duplicate"] else Text("● stored", style="green")
        made.add_row(mark, line(item["id"], 40), became or "stored; no workflow is meant for it")
    wanted = [f"eventwright run {short(runs[0])}"] if len(runs) == 1 else ["eventwright runs"] if runs else []
    if any(item.get("error", {}).get("uid") for item in items):
        wanted.append("eventwright events --state refused")
    return Group(made, Text(), commands(wanted)) if wanted else made
