"""The command line about amends: `undo`, `reconcile`."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Annotated

import typer

from eventwright.app.commands.console import AsJson, By, NotOne, Yes, perform, show, show_json, sure
from eventwright.app.commands.runs import REPAIR, RunId
from eventwright.app.commands.session import opened, whoami, whole_id

if TYPE_CHECKING:
    from eventwright.app.composition import App
    from eventwright.queue.compensation import LedgerLine
    from eventwright.runs.records import Run

app = typer.Typer()


@app.command(rich_help_panel=REPAIR)
def undo(
    run: RunId,
    effect: Annotated[
        list[str] | None,
        typer.Option(metavar="KEY", help="Only this call, by the beginning or end of its key; may be repeated."),
    ] = None,
    by: By = None,
    yes: Yes = False,
    as_json: AsJson = False,
) -> None:
    """Take back what a run did.

    The last call first, by the tools that undo its tools, as a run of its own:
    tried again, on record, done once. It shows what would be undone and what
    cannot be before it asks. A run that may still act must end first.

      [cyan]eventwright undo 3f9a1c02[/]
      [cyan]eventwright undo 3f9a1c02 --effect 5c0e77d1[/]
      [cyan]eventwright undo 3f9a1c02 --yes --by ann[/]

    Next: [cyan]eventwright run RUN[/], with the run that undoes it.
    """

    async def work() -> None:
        from eventwright.app.commands.amend_screens import undo_screen

        async with opened() as app:
            found = await app.store.run(await whole_id(app.store, "run", run))
            lines = await app.engine.ledger(found.id)
            keys = [_whole_key(lines, part, found.id) for part in effect or ()]
            chosen = [line for line in lines if line.undoable and (not keys or line.effect.key in keys)]
            if not as_json:
                show(undo_screen(found, lines, chosen))
            if chosen:
                sure(f"\nUndo {len(chosen)} of the calls of run {found.id}?", yes=yes or as_json)
            # What was shown is what is undone. Where there is nothing, the engine says why.
            shown = keys or [line.effect.key for line in chosen]
            undoing = await app.engine.undo(found.id, by=whoami(by), effects=shown or None)
            await _show_started(app, undoing, as_json=as_json)

    perform(work(), as_json=as_json)


@app.command(rich_help_panel=REPAIR)
def reconcile(run: RunId, by: By = None, as_json: AsJson = False) -> None:
    """Look whether calls happened of which nobody knows.

    A worker asks the systems outside, where a tool can be read back. What
    happened counts as done, what did not may be repeated, and nobody is asked
    about it any more.

      [cyan]eventwright reconcile 3f9a1c02[/]

    Next: [cyan]eventwright run RUN[/].
    """

    async def work() -> None:
        async with opened() as app:
            run_id = await whole_id(app.store, "run", run)
            await _show_started(app, await app.engine.reconcile(run_id, by=whoami(by)), as_json=as_json)

    perform(work(), as_json=as_json)


def _whole_key(lines: Sequence[LedgerLine], part: str, run_id: str) -> str:
    keys = [line.effect.key for line in lines]
    found = [key for key in keys if part and (key.startswith(part) or key.endswith(part))]
    if len(found) != 1:
        raise NotOne("effect", part, found, f"eventwright undo {run_id}")
    return found[0]


async def _show_started(app: App, started: Run, *, as_json: bool) -> None:
    from eventwright.app.commands.amend_screens import started_screen
    from eventwright.app.web.models import Run as Answer

    if as_json:
        show_json(Answer.of(started, (await app.store.review_ids([started.id]))[started.id]))
    else:
        show(started_screen(started))
