"""What the demo shows: a board on which every run moves through its states, and in the end a summary of who is next."""

from __future__ import annotations

import shlex
import shutil
import sys
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from rich.console import Group, RenderableType
from rich.padding import Padding
from rich.table import Table
from rich.text import Text

from eventwright.app.commands.screens import COMMAND, STATES, state_text
from eventwright.app.commands.telling import answers, line, short
from eventwright.app.demo.messages import Case, Message
from eventwright.graphs.support import WHO_DECIDES
from eventwright.runs.records import DecisionType, Review, ReviewKind, Run
from eventwright.runs.states import Outcome, RunState

#: A run on the board needs this many columns: its number, some of its subject, its state.
NARROWEST = 38
#: Lines of the board beside the runs.
FRAME = 4
#: The order in which answers are proposed: what brings the run on comes first.
PROPOSED = (DecisionType.APPROVE, DecisionType.RESPOND, DecisionType.EDIT, DecisionType.REJECT)


@dataclass
class Scene:
    """How things stand: what was sent, and what became of it."""

    messages: Sequence[Message]
    #: By the message's number.
    runs: dict[int, Run] = field(default_factory=dict)
    #: Open questions, by the message's number.
    asked: dict[int, Review] = field(default_factory=dict)
    #: Deliveries so far, repeated ones included.
    sent: int = 0
    #: Messages whose second delivery was answered with the run of the first.
    duplicates: list[Message] = field(default_factory=list)
    #: Messages that were refused, with the reason.
    refused: list[tuple[Message, str]] = field(default_factory=list)

    def message(self, case: Case) -> Message:
        """The message of a case that occurs once."""
        return next(message for message in self.messages if message.case is case)

    def in_state(self, *states: RunState) -> list[tuple[Message, Run]]:
        """The runs in these states, with their messages."""
        return [(m, self.runs[m.number]) for m in self.messages if m.number in self.runs and self._is(m, states)]

    def _is(self, message: Message, states: Sequence[RunState]) -> bool:
        return self.runs[message.number].state in states

    @property
    def at_rest(self) -> bool:
        """Whether nothing moves by itself any more."""
        moving = (RunState.RECEIVED, RunState.PROCESSING, RunState.RETRYING, RunState.WAITING)
        answered = [run for _, run in self.in_state(RunState.PENDING_APPROVAL) if not run.asks]
        return not self.in_state(*moving) and not answered


# -- while it runs -----------------------------------------------------------------------------------------------------


def board(scene: Scene, width: int, height: int) -> RenderableType:
    """Every run with its state, in as many columns as there is room for."""
    shown = [message for message in scene.messages if message.number in scene.runs]
    columns = max(1, min(4, width // NARROWEST))
    rows = max(-(-len(scene.messages) // columns), 1)
    if rows + FRAME > height:
        columns = max(columns, -(-len(scene.messages) // max(height - FRAME, 1)))
        rows = -(-len(scene.messages) // columns)
    grid = Table.grid(padding=(0, 2, 0, 0), expand=True)
    for _ in range(columns):
        grid.add_column(width=2, justify="right", style="dim")
        grid.add_column(ratio=1, no_wrap=True, overflow="ellipsis")
        grid.add_column(width=18, no_wrap=True)
    for row in range(min(rows, len(shown))):
        cells: list[RenderableType] = []
        for message in shown[row::rows]:
            cells += [str(message.number), line(message.subject), state_text(scene.runs[message.number].state)]
        grid.add_row(*cells)
    missing = min(rows, len(shown))
    return Group(
        Text("Support tickets, each a run of one LangGraph graph", style="bold"),
        Text(),
        grid,
        *(Text() for _ in range(rows - missing)),
        Text(),
        counts(scene),
    )


def counts(scene: Scene) -> Text:
    """How many runs are in which state."""
    found = Counter(run.state for run in scene.runs.values())
    states = Text("   ").join(
        Text(f"{found[state]} {state}", style=STATES[state]) for state in RunState if found[state]
    )
    return Text(f"{scene.sent} sent   ", style="bold") + states


# -- in the end --------------------------------------------------------------------------------------------------------


def summary(scene: Scene, home: Path | None) -> RenderableType:
    """What was done, what waits for whom and why, what failed, and the next command for each.

    Args:
        scene: how things stand.
        home: what EVENTWRIGHT_HOME has to be for the commands; None when they are not to be typed any more.
    """
    title = Text(f"\nWhat became of {scene.sent} messages", style="bold underline")
    parts: list[RenderableType] = [title, *_done(scene), *_waiting(scene), *_dead(scene)]
    parts += [*_doubled(scene), *_refused(scene)]
    if home is not None:
        parts.append(Text("\nTo type these commands in another terminal, first:", style="dim"))
        exports = [f"EVENTWRIGHT_HOME={shlex.quote(str(home))}"]
        if shutil.which("eventwright") is None:
            exports.append(f"PATH={shlex.quote(str(Path(sys.executable).parent))}:$PATH")
        parts += [_typed(Text(f"export {export}", style=COMMAND)) for export in exports]
    return Group(*parts)


def _done(scene: Scene) -> list[RenderableType]:
    done = scene.in_state(RunState.COMPLETED)
    helped = [pair for pair in done if pair[1].outcome is not Outcome.AUTO or pair[0].case in _MENDED]
    alone = [pair for pair in done if pair not in helped]
    parts: list[RenderableType] = [_title("Done automatically", len(alone), "one mail each, and nobody was asked")]
    for message, run in alone:
        if message.case in _REMARKS:
            parts.append(_entry(message, _REMARKS[message.case].format(attempts=run.attempts)))
    if helped:
        parts.append(_title("Done with a person's help", len(helped)))
        parts += [_entry(message, f"{message.case.meaning}: {_end(message, run)}") for message, run in helped]
    return parts


def _end(message: Message, run: Run) -> str:
    return _MENDED.get(message.case, str(run.outcome)).format(attempts=run.attempts)


#: What is worth a line among what went by itself.
_REMARKS: Mapping[Case, str] = {
    Case.REFUND: "20.50 GBP given back, within the limit",
    Case.FLAKY_MAIL: "the mail server refused twice; sent at attempt {attempts}",
}
#: How the mail server's victims were helped; to the workflow they went by themselves.
_MENDED: Mapping[Case, str] = {
    Case.DEAD_MAIL: "replayed, sent at attempt {attempts}",
    Case.LOST_ANSWER: "it had left, so it was not sent again",
}


def _waiting(scene: Scene) -> list[RenderableType]:
    asked = [(message, scene.asked[message.number]) for message in scene.messages if message.number in scene.asked]
    if not asked:
        return []
    parts: list[RenderableType] = [_title("Waits for a person", len(asked))]
    for message, review in asked:
        parts.append(_entry(message, f"{message.case.meaning}, for {WHO_DECIDES[review.node]}"))
        reason = str((review.rule or {}).get("reason") or "")
        why = line(f"{review.question} ({reason})" if reason else review.question)
        parts += [_detail(Text(why, style="dim")), _typed(_command(review, message))]
    return parts


def _dead(scene: Scene) -> list[RenderableType]:
    dead = scene.in_state(RunState.FAILED)
    parts: list[RenderableType] = [_title("Dead letters", len(dead))] if dead else []
    for message, run in dead:
        parts.append(_entry(message, f"{message.case.meaning}, for an operator"))
        parts.append(_detail(Text(line(f"{run.reason} used up after {run.attempts}: {run.error}"), style="dim")))
        parts.append(_typed(Text(f"eventwright replay {short(run.id)}", style=COMMAND)))
    return parts


def _doubled(scene: Scene) -> list[RenderableType]:
    parts: list[RenderableType] = []
    if scene.duplicates:
        parts.append(_title("Recognised as a duplicate", len(scene.duplicates)))
    for message in scene.duplicates:
        run = scene.runs[message.number]
        parts.append(_entry(message, f"{message.case.meaning}: one run, one mail"))
        parts.append(_typed(Text(f"eventwright run {short(run.id)}", style=COMMAND)))
    return parts


def _refused(scene: Scene) -> list[RenderableType]:
    parts: list[RenderableType] = []
    if scene.refused:
        parts.append(_title("Refused, and kept", len(scene.refused)))
    for message, reason in scene.refused:
        parts += [_entry(message, message.case.meaning), _detail(Text(line(reason), style="dim"))]
        parts.append(_typed(Text("eventwright events --state refused", style=COMMAND)))
    return parts


def _title(words: str, number: int, remark: str = "") -> RenderableType:
    return Text(f"\n{words}  {number}", style="bold") + Text(f"  {remark}" if remark else "", style="dim")


def _entry(message: Message, words: str) -> RenderableType:
    row = Table.grid(padding=(0, 2, 0, 0))
    row.add_column(width=4, justify="right", style="dim")
    row.add_column(width=22, no_wrap=True, overflow="ellipsis")
    row.add_column()
    row.add_row(str(message.number), line(message.subject), words)
    return row


def _detail(words: Text) -> RenderableType:
    words.overflow = "fold"
    return Padding(words, (0, 0, 0, 6), expand=False)


def _typed(words: Text) -> RenderableType:
    """A command, on one line whatever the terminal's width: so it is still whole when it is copied."""
    return Text(" " * 6, no_wrap=True, overflow="ignore") + words


def _command(review: Review, message: Message) -> Text:
    """The command that brings the run on, filled in where the demo knows the answer, and what else may be said."""
    offered = answers(review)
    guessed = review.kind is ReviewKind.LOW_CONFIDENCE
    first = next(answer for answer in (PROPOSED[1:] if guessed else PROPOSED) if answer in offered)
    command = offered[first].replace("…", message.account.email)
    if guessed:
        command = command.rpartition(" ")[0] + " other"
    others = [str(answer) for answer in offered if answer is not first]
    return Text(command, style=COMMAND) + Text(f"   # or {', '.join(others)}" if others else "", style="dim")
