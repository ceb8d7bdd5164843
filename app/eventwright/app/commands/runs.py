"""The command line about runs: `runs`, `run`, `replay`, `cancel`."""

from __future__ import annotations

import asyncio
import sys
from typing import TYPE_CHECKING, Annotated

import typer

from eventwright.app.commands.console import AsJson, By, Yes, console, perform, show, show_json, sure
from eventwright.app.commands.session import opened, whoami, whole_id
from eventwright.runs.errors import EventwrightError
from eventwright.runs.records import Review, ReviewState, Run
from eventwright.runs.states import Reason, RunState

if TYPE_CHECKING:
    from rich.console import RenderableType

    from eventwright.app.composition import App

LOOK, REPAIR = "Look and decide", "Repair"
#: Seconds between two looks of --watch.
PACE = 1.0
#: Dead letters read at a time by `replay --all`.
PAGE = 200

app = typer.Typer()

RunId = Annotated[str, typer.Argument(metavar="RUN", help="A run's id, or its beginning or end.")]
States = Annotated[list[RunState] | None, typer.Option("--state", help="Only runs in this state; may be repeated.")]
WorkflowName = Annotated[str | None, typer.Option("--workflow", metavar="NAME", help="Only runs of this workflow.")]


@app.command(rich_help_panel=LOOK)
def runs(
    state: States = None,
    workflow: WorkflowName = None,
    limit: Annotated[int, typer.Option(min=1, max=1000, help="How many, the newest first.")] = 20,
    before: Annotated[str | None, typer.Option(metavar="RUN", help="Only runs older than this one.")] = None,
    watch: Annotated[bool, typer.Option("--watch", help="Stay and show them move; Ctrl-C ends.")] = False,
    as_json: AsJson = False,
) -> None:
    """List runs: where each one is, and why.

      [cyan]eventwright runs[/]
      [cyan]eventwright runs --watch[/]
      [cyan]eventwright runs --state failed --state retrying --workflow support[/]
      [cyan]eventwright runs --json | jq '.items[].id'[/]

    Next: [cyan]eventwright run RUN[/] tells everything about one.
    """
    if watch and (as_json or not sys.stdout.isatty()):
        raise typer.BadParameter("needs a terminal; ask for --json again and again instead", param_hint="--watch")

    async def work() -> None:
        async with opened() as app:
            listed = Listed(app, tuple(state or ()), workflow, limit)
            if watch:
                await listed.watch()
            elif as_json:
                await listed.show_json(before)
            else:
                await listed.show(before)

    perform(work(), as_json=as_json)


class Listed:
    """A list of runs by some filter."""

    def __init__(self, app: App, states: tuple[RunState, ...], workflow: str | None, limit: int) -> None:
        self._store = app.store
        self._states, self._workflow, self._limit = states, workflow, limit

    async def _runs(self, before: str | None, more: int = 0) -> list[Run]:
        older_than = None if before is None else await whole_id(self._store, "run", before)
        return await self._store.runs(
            states=self._states, workflow=self._workflow, limit=self._limit + more, before=older_than
        )

    async def _screen(self, found: list[Run]) -> RenderableType:
        from eventwright.app.commands.screens import runs_screen

        asking = [run.id for run in found if run.state is RunState.PENDING_APPROVAL]
        asked: dict[str, list[Review]] = {}
        for review in await self._store.reviews(state=ReviewState.OPEN, run_ids=asking, limit=1000) if asking else []:
            asked.setdefault(review.run_id, []).append(review)
        return runs_screen(found, asked, await self._store.now())

    async def show(self, before: str | None) -> None:
        """Once, on the screen."""
        from eventwright.app.commands.screens import after_runs

        found = await self._runs(before, more=1)
        out = console()
        out.print(await self._screen(found[: self._limit]))
        out.print(after_runs(found, self._limit))

    async def show_json(self, before: str | None) -> None:
        """Once, as the API answers it."""
        from eventwright.app.web.models import Run as Answer
        from eventwright.app.web.models import RunPage
        from eventwright.runs.turns import ahead
        from eventwright.runs.waits import waiting_for

        found = await self._runs(before, more=1)
        page = found[: self._limit]
        reviews = await self._store.review_ids([run.id for run in page]) if page else {}
        before_them = await ahead(self._store, page)
        waiting = await waiting_for(self._store, [run.id for run in page])
        items = [Answer.of(run, reviews[run.id], before_them.get(run.id), waiting[run.id]) for run in page]
        show_json(RunPage(items=items, next=page[-1].id if len(found) > self._limit else None))

    async def watch(self) -> None:
        """Again and again, in the same place, as many as the terminal is high."""
        from rich.live import Live

        out = console()
        self._limit = max(1, min(self._limit, out.height - 3))
        with Live(console=out, auto_refresh=False) as live:
            try:
                while True:
                    live.update(await self._screen(await self._runs(None)), refresh=True)
                    await asyncio.sleep(PACE)
            except asyncio.CancelledError:
                return  # Ctrl-C is how one leaves


@app.command(rich_help_panel=LOOK)
def run(
    run: RunId,
    journal: Annotated[bool, typer.Option("--journal", help="The record as it is, every entry.")] = False,
    as_json: AsJson = False,
) -> None:
    """Tell everything about one run.

    Why it is where it is, what happened, what it did outside, and who is asked
    what.

      [cyan]eventwright run 3f9a1c02[/]
      [cyan]eventwright run 3f9a1c02 --journal[/]
      [cyan]eventwright run 3f9a1c02 --json[/]

    Next: the screen names the command for each open question.
    """

    async def work() -> None:
        async with opened() as app:
            run_id = await whole_id(app.store, "run", run)
            await (_show_journal if journal else _show_run)(app, run_id, as_json=as_json)

    perform(work(), as_json=as_json)


async def _show_run(app: App, run_id: str, *, as_json: bool) -> None:
    from eventwright.app.commands.screens import run_screen
    from eventwright.app.web.models import Run as Answer
    from eventwright.runs.turns import ahead
    from eventwright.runs.waits import waiting_for

    found = await app.store.run(run_id)
    before, waiting = (await ahead(app.store, [found])).get(run_id), (await waiting_for(app.store, [run_id]))[run_id]
    if as_json:
        show_json(Answer.of(found, (await app.store.review_ids([run_id]))[run_id], before, waiting))
        return
    asked = await app.store.reviews(state=ReviewState.OPEN, run_ids=[run_id])
    record, effects = await app.store.journal(run_id), await app.store.effects(run_id)
    show(run_screen(found, record, effects, asked, await app.store.now(), waits_for=before, waiting=waiting))
    if found.state is RunState.FAILED:
        from eventwright.app.commands.amend_screens import done_screen, written

        lines = await app.engine.ledger(run_id)
        if written(lines):
            show(done_screen(found, lines))


async def _show_journal(app: App, run_id: str, *, as_json: bool) -> None:
    from eventwright.app.commands.screens import journal_table
    from eventwright.app.web.models import Journal

    record = await app.store.journal(run_id)
    if as_json:
        show_json(Journal.of(record))
    else:
        show(journal_table(record))


@app.command(rich_help_panel=REPAIR)
def replay(
    run: Annotated[
        str | None, typer.Argument(metavar="RUN", help="A failed run's id, or its beginning or end.")
    ] = None,
    every: Annotated[bool, typer.Option("--all", help="Every failed run that the filters leave.")] = False,
    reason: Annotated[Reason | None, typer.Option(help="With --all: only those that failed for this.")] = None,
    workflow: Annotated[
        str | None, typer.Option(metavar="NAME", help="With --all: only runs of this workflow.")
    ] = None,
    from_start: Annotated[bool, typer.Option("--from-start", help="Begin anew; what is done is not repeated.")] = False,
    rename: Annotated[
        list[str] | None, typer.Option(metavar="OLD=NEW", help="A node that a deploy renamed; may be repeated.")
    ] = None,
    by: By = None,
    as_json: AsJson = False,
) -> None:
    """Take a failed run up again.

    It goes on from its last checkpoint. Effects that are done stay done,
    whatever is replayed.

      [cyan]eventwright replay 3f9a1c02[/]
      [cyan]eventwright replay 3f9a1c02 --from-start[/]
      [cyan]eventwright replay 3f9a1c02 --rename pay=refund[/]    after a deploy
      [cyan]eventwright replay --all --reason attempts[/]         when mail is back

    Next: [cyan]eventwright runs --watch[/].
    """
    if (run is None) != every:
        raise typer.BadParameter("give one run, or --all", param_hint="RUN")
    if not every and (reason or workflow):
        raise typer.BadParameter("goes with --all", param_hint="--reason" if reason else "--workflow")
    names = renamed(rename)

    async def work() -> int:
        from eventwright.queue.migration import Move

        move = Move(rename=names)
        async with opened() as app:
            name = whoami(by)
            ids = await _dead_letters(app, reason, workflow) if run is None else [await whole_id(app.store, "run", run)]
            replayed: list[Run] = []
            refused: dict[str, EventwrightError] = {}
            for run_id in ids:
                try:
                    replayed.append(await app.engine.replay(run_id, by=name, from_start=from_start, move=move))
                except EventwrightError as error:
                    if not every:
                        raise
                    refused[run_id] = error
            _show_replayed(replayed, refused, as_json=as_json)
            return 1 if refused else 0

    perform(work(), as_json=as_json)


def renamed(pairs: list[str] | None) -> dict[str, str]:
    """The new names by the old ones, as they are typed."""
    names: dict[str, str] = {}
    for pair in pairs or ():
        old, equals, new = pair.partition("=")
        if not (old and equals and new):
            raise typer.BadParameter(f"{pair!r} is not OLD=NEW", param_hint="--rename")
        names[old] = new
    return names


async def _dead_letters(app: App, reason: Reason | None, workflow: str | None) -> list[str]:
    found: list[str] = []
    before = None
    while page := await app.store.runs(states=[RunState.FAILED], workflow=workflow, limit=PAGE, before=before):
        found += [run.id for run in page if reason in (None, run.reason)]
        before = page[-1].id
    return found


def _show_replayed(replayed: list[Run], refused: dict[str, EventwrightError], *, as_json: bool) -> None:
    from eventwright.app.commands.console import document_of
    from eventwright.app.commands.screens import replayed_screen

    if as_json:
        errors = [{"id": run_id, "error": document_of(error)} for run_id, error in refused.items()]
        show_json({"runs": [run.id for run in replayed]} | ({"refused": errors} if errors else {}))
    else:
        show(replayed_screen(replayed, refused))


@app.command(rich_help_panel=REPAIR)
def cancel(run: RunId, by: By = None, yes: Yes = False, as_json: AsJson = False) -> None:
    """End a run for good.

    One that is being worked on ends at its next boundary, never inside a call.

      [cyan]eventwright cancel 3f9a1c02[/]
      [cyan]eventwright cancel 3f9a1c02 --yes --by ann[/]
    """

    async def work() -> None:
        from eventwright.app.commands.screens import cancelled_screen
        from eventwright.app.commands.telling import why
        from eventwright.app.web.models import Run as Answer

        async with opened() as app:
            found = await app.store.run(await whole_id(app.store, "run", run))
            sure(
                f"End run {found.id} ({found.workflow}, {found.state}: {why(found, await app.store.now())})?",
                yes=yes or as_json,
            )
            ended = await app.engine.cancel(found.id, by=whoami(by))
            if as_json:
                show_json(Answer.of(ended, (await app.store.review_ids([ended.id]))[ended.id]))
            else:
                show(cancelled_screen(ended))

    perform(work(), as_json=as_json)
