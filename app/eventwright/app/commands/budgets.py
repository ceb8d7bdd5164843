"""The command line about budgets: `budgets`."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Annotated

import typer

from eventwright.app.commands.console import AsJson, perform, show, show_json
from eventwright.app.commands.runs import LOOK
from eventwright.app.commands.session import opened
from eventwright.runs.records import BudgetUse

if TYPE_CHECKING:
    from rich.console import RenderableType

app = typer.Typer()


@app.command(rich_help_panel=LOOK)
def budgets(
    limit: Annotated[int, typer.Option(min=1, max=1000, help="How many, the latest first.")] = 20,
    before: Annotated[
        str | None, typer.Option(metavar="SCOPE", help="Only budgets after this one in the list; `next` in --json.")
    ] = None,
    as_json: AsJson = False,
) -> None:
    """List budgets: how much of each is used.

    The latest first. A budget stands here once a call has used something of it,
    each day's by itself; what calls that are under way have reserved counts as
    used.

      [cyan]eventwright budgets[/]
      [cyan]eventwright budgets --json | jq '.items[] | select(.used == .most)'[/]

    Next: [cyan]eventwright workflows NAME[/] shows what each node may do.
    """

    async def work() -> None:
        async with opened() as app:
            found = await app.store.budgets(limit=limit + 1, before=before)
        page, more = found[:limit], len(found) > limit
        if as_json:
            show_json({"items": [_told(budget) for budget in page], "next": page[-1].scope if more else None})
        else:
            show(_screen(page, more=more))

    perform(work(), as_json=as_json)


def _told(budget: BudgetUse) -> dict[str, object]:
    return {
        "scope": budget.scope,
        "budget": budget.label,
        "used": f"{budget.used:f}",
        "most": None if budget.most is None else f"{budget.most:f}",
        "opened_at": budget.opened_at,
    }


def _screen(budgets: Sequence[BudgetUse], *, more: bool) -> RenderableType:
    """Budgets, one a line; those with nothing left are marked."""
    from rich.console import Group
    from rich.text import Text

    from eventwright.app.commands.screens import commands, table
    from eventwright.app.commands.telling import line

    if not budgets:
        return Text("No call has used a budget yet; budgets=[...] of a policy or a workflow sets one.")
    made = table("used", "of", "budget", flexible="budget")
    for budget in budgets:
        used_up = budget.most is not None and budget.used >= budget.most
        most = "" if budget.most is None else f"{budget.most:f}"
        made.add_row(Text(f"{budget.used:f}", style="red" if used_up else ""), most, line(budget.label))
    after = [commands([f"eventwright budgets --before {budgets[-1].scope}"])] if more else []
    return Group(made, *([Text(), *after] if after else []))
