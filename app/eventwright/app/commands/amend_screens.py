"""Screens about what a run did outside, and what of it can be taken back."""

from __future__ import annotations

from collections.abc import Collection, Sequence

from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from eventwright.app.commands.screens import ID, commands, heading, state_text
from eventwright.app.commands.telling import call, line, short
from eventwright.queue.compensation import LedgerLine
from eventwright.runs.records import EffectState, Run
from eventwright.tools.contract import ToolClass


def undo_screen(run: Run, lines: Sequence[LedgerLine], chosen: Collection[LedgerLine]) -> RenderableType:
    """What a run did, the last first: what would be taken back now, what was, and what cannot be."""
    head = Text.assemble((run.id, ID), "  ", state_text(run.state))
    done = written(lines)
    if not done:
        return Group(head, Text("It has done nothing outside."))
    return Group(head, Text(), _table(done, chosen))


def done_screen(run: Run, lines: Sequence[LedgerLine]) -> RenderableType:
    """What a dead letter has done outside, and the command that takes it back."""
    done = written(lines)
    undoable = [one for one in done if one.undoable]
    unknown = [one for one in done if one.effect.state in (EffectState.INTENDED, EffectState.IN_DOUBT)]
    wanted = [f"eventwright undo {short(run.id)}"] if undoable else []
    wanted += [f"eventwright reconcile {short(run.id)}"] if unknown else []
    return Group(heading("What it has done"), _table(done, undoable), *([commands(wanted)] if wanted else []))


def started_screen(run: Run) -> RenderableType:
    """The run that was started to make amends."""
    head = Text.assemble("run ", (short(run.id), ID), f" ({line(run.workflow)})  ", state_text(run.state))
    return Group(Text(), head, commands([f"eventwright run {short(run.id)}"]))


def written(lines: Sequence[LedgerLine]) -> list[LedgerLine]:
    """The writes that happened, or may have, the last first."""
    return [
        one
        for one in reversed(lines)
        if one.effect.tool_class != ToolClass.READ and one.effect.state is not EffectState.FAILED
    ]


def _table(lines: Sequence[LedgerLine], chosen: Collection[LedgerLine]) -> Table:
    made = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0), header_style="dim")
    for name in ("effect", "state"):
        made.add_column(name, no_wrap=True)
    made.add_column("call", overflow="fold")
    made.add_column("to undo it", overflow="fold")
    for one in lines:
        effect = one.effect
        made.add_row(
            Text(short(effect.key), style=ID),
            str(effect.state),
            call(effect.tool, effect.arguments, 200),
            _way(one, chosen),
        )
    return made


def _way(one: LedgerLine, chosen: Collection[LedgerLine]) -> Text:
    if one.undone_by is not None:
        return Text(f"{'undone' if one.undone else 'is being undone'} by run {short(one.undone_by)}", style="dim")
    if one.obstacle is not None:
        return Text(f"cannot be undone: {line(one.obstacle)}", style="red")
    told = call(one.undo, one.arguments, 200)
    return Text(told, style="green") if one in chosen else Text(f"left alone; {told}", style="dim")
