"""The command line about deploys: `migrate` moves runs to another graph; and what `check --against` reads."""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Annotated, Any

import typer

from eventwright.app.commands.console import AsJson, By, document_of, perform, show, show_json
from eventwright.app.commands.runs import REPAIR, renamed
from eventwright.app.commands.session import opened, read_settings, whoami, whole_id
from eventwright.runs.errors import EventwrightError
from eventwright.runs.states import RunState

if TYPE_CHECKING:
    from eventwright.app.composition import App
    from eventwright.graphs.mapping import StateMapping
    from eventwright.graphs.workflow import Workflows
    from eventwright.queue.migration import Migration
    from eventwright.queue.preflight import Preflight
    from eventwright.runs.store import Store

#: Runs that are read at a time by `migrate --all`.
PAGE = 200

app = typer.Typer()


@app.command(rich_help_panel=REPAIR)
def migrate(
    run: Annotated[str | None, typer.Argument(metavar="RUN", help="A run's id, or its beginning or end.")] = None,
    to: Annotated[str | None, typer.Option(metavar="VERSION", help="Of its workflow; by default its own.")] = None,
    rename: Annotated[
        list[str] | None, typer.Option(metavar="OLD=NEW", help="A node that has another name now; may be repeated.")
    ] = None,
    state: Annotated[
        str | None, typer.Option(metavar="MAPPING", help="What becomes of its state: a JSON file, or module:function.")
    ] = None,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Show what would change, and change nothing.")] = False,
    every: Annotated[bool, typer.Option("--all", help="Every run of a workflow that rests and is not ended.")] = False,
    workflow: Annotated[str | None, typer.Option(metavar="NAME", help="With --all: the workflow.")] = None,
    version: Annotated[
        str | None, typer.Option("--from", metavar="VERSION", help="With --all: only runs of this version.")
    ] = None,
    states: Annotated[
        list[RunState] | None, typer.Option("--state-filter", help="With --all: only runs in this state; repeatable.")
    ] = None,
    by: By = None,
    as_json: AsJson = False,
) -> None:
    """Move runs to another graph, or to another version.

    What was done stays done, what was decided stays decided. A run that waits
    waits on there; a dead letter is taken up again. MAPPING as JSON is
    {"rename": {"old": "new"}, "drop": ["field"], "set": {"field": 1}}; a
    function gets the state and returns the new one. docs/versions.md tells
    when a run needs it.

      [cyan]eventwright migrate 3f9a1c02 --to 2 --dry-run[/]
      [cyan]eventwright migrate 3f9a1c02 --rename pay=refund[/]
      [cyan]eventwright migrate 3f9a1c02 --to 2 --state mapping.json[/]
      [cyan]eventwright migrate --all --workflow shop --from 1 --to 2[/]

    Next: [cyan]eventwright runs --watch[/].
    """
    if (run is None) != every:
        raise typer.BadParameter("give one run, or --all", param_hint="RUN")
    if every and workflow is None:
        raise typer.BadParameter("says of which workflow, with --all", param_hint="--workflow")
    if not every and (workflow or version or states):
        given = "--workflow" if workflow else "--from" if version else "--state-filter"
        raise typer.BadParameter("goes with --all", param_hint=given)
    names = renamed(rename)

    async def work() -> int:
        from eventwright.app.commands.version_screens import migrated_screen
        from eventwright.queue.migration import Move

        mapping = None if state is None else _mapping(state)
        move = Move(to_version=to, rename=names, state=mapping)
        async with opened() as app:
            name = whoami(by)
            if workflow is not None:
                app.engine.workflows.get(workflow, to)  # a name that is typed wrongly is not "no run fits"
            ids = await _at_rest(app, workflow, version, states) if run is None else [await _one(app, run)]
            done: list[Migration] = []
            refused: dict[str, EventwrightError] = {}
            for run_id in ids:
                try:
                    done.append(await app.engine.migrate(run_id, move, by=name, dry_run=dry_run))
                except EventwrightError as error:
                    if not every:
                        raise
                    refused[run_id] = error
        if as_json:
            errors = [{"id": run_id, "error": document_of(error)} for run_id, error in refused.items()]
            runs: dict[str, Any] = {"runs": [one.as_json() for one in done], "dry_run": dry_run}
            show_json(runs | ({"refused": errors} if errors else {}))
        else:
            show(migrated_screen(done, refused, dry_run=dry_run))
        return 1 if refused else 0

    perform(work(), as_json=as_json)


async def _one(app: App, part: str) -> str:
    return await whole_id(app.store, "run", part)


async def _at_rest(app: App, workflow: str | None, version: str | None, states: list[RunState] | None) -> list[str]:
    from eventwright.runs.structures import AT_REST

    wanted, found, before = tuple(states or AT_REST), list[str](), None
    while page := await app.store.runs(states=wanted, workflow=workflow, limit=PAGE, before=before):
        found += [run.id for run in page if version in (None, run.version)]
        before = page[-1].id
    return found


def _mapping(given: str) -> StateMapping:
    """The mapping that a file holds, or a function makes. Raises BadMapping, OSError."""
    import importlib
    import json
    from pathlib import Path

    from eventwright.graphs.mapping import BadMapping, StateMapping

    module, colon, name = given.partition(":")
    if colon and not Path(given).exists():
        try:
            function = getattr(importlib.import_module(module), name)
        except (ImportError, AttributeError) as error:
            raise BadMapping(f"--state {given}: {error}") from error
        return StateMapping(through=function)
    try:
        value = json.loads(Path(given).read_text())
    except ValueError as error:
        raise BadMapping(f"--state {given} is no JSON: {error}") from error
    return StateMapping.read(value)


# -- check --against ---------------------------------------------------------------------------------------------------


async def look_at(workflows: Workflows, database: str | None, only: Sequence[str]) -> tuple[Preflight, str]:
    """What these workflows would break of a database's unfinished runs, and where that is. Nothing is written there."""
    from eventwright.app.commands.places import without_password
    from eventwright.queue.preflight import preflight

    url = database or read_settings().database
    async with _reading(url) as store:
        return await preflight(store, workflows, only=only), without_password(url)


@asynccontextmanager
async def _reading(url: str) -> AsyncIterator[Store]:
    """The database as it is. Raises SchemaOutdated, FileNotFoundError."""
    from eventwright.app.commands.places import sqlite_file
    from eventwright.runs import migrate as schema
    from eventwright.runs.store import Store

    file = sqlite_file(url)
    if file is not None and not file.exists():
        raise FileNotFoundError(2, "there is no such database", str(file))
    await schema.check(url)
    async with Store.open(url) as store:
        yield store
