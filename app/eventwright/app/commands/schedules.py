"""The command line about schedules: `schedules`."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from typing import TYPE_CHECKING

import typer

from eventwright.app.commands.console import AsJson, perform, show, show_json
from eventwright.app.commands.runs import LOOK
from eventwright.app.commands.session import opened

if TYPE_CHECKING:
    from rich.console import RenderableType

    from eventwright.app.web.models_workflows import Schedule

app = typer.Typer()


@app.command(rich_help_panel=LOOK)
def schedules(as_json: AsJson = False) -> None:
    """List schedules: what starts by the clock, when it fired last, when it will.

    The next first. A time that was missed, because no worker was there, is left
    out (skip), fires once for all of them (one), or each fires (all).

      [cyan]eventwright schedules[/]
      [cyan]eventwright schedules --json | jq '.items[] | {name, next}'[/]

    Next: [cyan]eventwright runs --workflow NAME[/].
    """

    async def work() -> None:
        from eventwright.app.web.routes_system import list_schedules

        async with opened() as app:
            found, now = await list_schedules(app), await app.store.now()
        if as_json:
            show_json(found)
        else:
            show(_screen(found.items, now))

    perform(work(), as_json=as_json)


def _screen(schedules: Sequence[Schedule], now: datetime) -> RenderableType:
    """Schedules, one a line, on the clock of each one's zone."""
    from rich.console import Group
    from rich.text import Text

    from eventwright.app.commands.screens import ID, commands, table
    from eventwright.app.commands.telling import line, short, when

    if not schedules:
        return Text("No schedule is declared; Every('0 9 * * MON-FRI', type=...) among a workflow's triggers is one.")
    made = table("workflow", "schedule", "when", "zone", "missed", "last", "next", flexible="when")
    for one in schedules:
        last = Text("never" if one.last is None else when(one.last, now))
        if one.runs:
            last.append(f"  {short(one.runs[0])}", style=ID)
        made.add_row(
            Text(one.workflow, style="bold"),
            one.name,
            Text.assemble(line(one.cron), (f"  {one.words}", "dim")),
            one.zone,
            str(one.missed),
            last,
            when(one.next, now) or "never",
        )
    return Group(made, Text(), commands([f"eventwright runs --workflow {schedules[0].workflow}"]))
