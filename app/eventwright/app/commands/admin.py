"""The command line for whoever runs the service: `workflows`, `doctor`, `db`."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer

from eventwright.app.commands.console import AsJson, perform, show, show_json
from eventwright.app.commands.session import opened, read_settings

if TYPE_CHECKING:
    from eventwright.app.composition import App

KEEP = "Look after it"

app = typer.Typer()
db = typer.Typer(help="Look after the database: its schema, its size.", no_args_is_help=True, rich_markup_mode="rich")


@app.command(rich_help_panel=KEEP)
def workflows(
    name: Annotated[str | None, typer.Argument(metavar="NAME", help="Show this one, with its graph.")] = None,
    version: Annotated[str | None, typer.Option(help="Another version than the one that new events start.")] = None,
    mermaid: Annotated[bool, typer.Option("--mermaid", help="The graph as Mermaid text, for a page.")] = False,
    as_json: AsJson = False,
) -> None:
    """List the workflows that are loaded, or show one.

    Each stands there in every version; new events start the newest, which is
    the one declared last, the others go on with their runs. One is shown with
    its triggers, its graph, and what each node may do.

      [cyan]eventwright workflows[/]
      [cyan]eventwright workflows support[/]
      [cyan]eventwright workflows support --mermaid > graph.mmd[/]

    Next: [cyan]eventwright send --type TYPE --data JSON[/] starts one.
    """
    if mermaid and (name is None or as_json):
        raise typer.BadParameter("goes with a NAME, and without --json", param_hint="--mermaid")

    async def work() -> None:
        async with opened() as app:
            if name is None:
                await _list_workflows(app, as_json=as_json)
            elif mermaid:
                typer.echo(app.engine.runner.graph(app.workflows.get(name, version)).get_graph().draw_mermaid())
            else:
                await _show_workflow(app, name, version, as_json=as_json)

    perform(work(), as_json=as_json)


async def _list_workflows(app: App, *, as_json: bool) -> None:
    from eventwright.app.commands.workflow_screens import workflows_screen
    from eventwright.app.web.routes_system import list_workflows
    from eventwright.runs.structures import counts_by_version

    if as_json:
        show_json(await list_workflows(app))
    else:
        show(workflows_screen(app.workflows, await counts_by_version(app.store)))


async def _show_workflow(app: App, name: str, version: str | None, *, as_json: bool) -> None:
    from eventwright.app.commands.workflow_screens import workflow_screen
    from eventwright.app.web.routes_system import describe_workflow

    workflow = app.workflows.get(name, version)
    if as_json:
        show_json(describe_workflow(workflow, newest=app.workflows.is_newest(workflow)))
    else:
        show(workflow_screen(workflow, app.engine.runner.graph(workflow).get_graph()))


@app.command(rich_help_panel=KEEP)
def doctor(as_json: AsJson = False) -> None:
    """Look whether everything is well.

    Each thing the service needs is looked at; where something is missing, it
    says what to do. Exit code 1 on a fault.

      [cyan]eventwright doctor[/]
      [cyan]eventwright doctor --json | jq '.checks[] | select(.status != "ok")'[/]
    """

    async def work() -> int:
        from eventwright.app.commands.doctor import doctor_screen, examine, healthy

        findings = await examine()
        if as_json:
            show_json({"ok": healthy(findings), "checks": findings})
        else:
            show(doctor_screen(findings))
        return 0 if healthy(findings) else 1

    perform(work(), as_json=as_json)


@db.command()
def status(as_json: AsJson = False) -> None:
    """Say which schema the database has, and which one this code wants.

    Exit code 1 if they differ.

      [cyan]eventwright db status[/]
    """

    async def work() -> int:
        from eventwright.app.commands.places import sqlite_file, without_password
        from eventwright.runs.migrate import current, newest

        url = read_settings().database
        file = sqlite_file(url)
        found = None if file is not None and not file.exists() else await current(url)
        if as_json:
            show_json({"database": without_password(url), "revision": found, "newest": newest()})
        else:
            where = without_password(url)
            if found == newest():
                typer.echo(f"{where} is at the newest revision, {found}")
            else:
                typer.echo(
                    f"{where} is at {found or 'no revision'}, this code wants {newest()}: eventwright db upgrade"
                )
        return 0 if found == newest() else 1

    perform(work(), as_json=as_json)


@db.command()
def upgrade(as_json: AsJson = False) -> None:
    """Bring the database to the newest schema.

    Every process does it when it starts; this is for a deploy.

      [cyan]eventwright db upgrade[/]
    """

    async def work() -> None:
        from eventwright.app.commands.places import without_password
        from eventwright.runs import migrate

        settings = read_settings()
        settings.home.mkdir(parents=True, exist_ok=True)
        await migrate.upgrade(settings.database)
        if as_json:
            show_json({"database": without_password(settings.database), "revision": migrate.newest()})
        else:
            typer.echo(f"{without_password(settings.database)} is at the newest revision, {migrate.newest()}")

    perform(work(), as_json=as_json)


@db.command()
def path(as_json: AsJson = False) -> None:
    """Print where the database is.

    A password in its address is left out.

      [cyan]eventwright db path[/]
      [cyan]sqlite3 "$(eventwright db path)" .schema[/]
    """

    async def work() -> None:
        from eventwright.app.commands.places import sqlite_file, without_password

        url = read_settings().database
        place = sqlite_file(url) or without_password(url)
        if as_json:
            show_json({"database": str(place)})
        else:
            typer.echo(str(place))

    perform(work(), as_json=as_json)


@db.command()
def stats(as_json: AsJson = False) -> None:
    """Count what the database holds.

    Rows and size of each table, the runs of each workflow, and what could be
    deleted by now. It only reads.

      [cyan]eventwright db stats[/]
      [cyan]eventwright db stats --json | jq .log_bytes[/]

    Next: [cyan]eventwright db prune --dry-run[/].
    """

    async def work() -> None:
        from eventwright.app.commands.upkeep_screens import statistics_screen
        from eventwright.runs.retention import removable
        from eventwright.runs.statistics import statistics

        async with opened() as app:
            found, due = await statistics(app.store), await removable(app.store, app.settings.keep)
            if as_json:
                show_json(vars(found) | {"removable": due})
            else:
                show(statistics_screen(found, due, await app.store.now()))

    perform(work(), as_json=as_json)


@db.command()
def prune(
    checkpoints_after: Annotated[
        str | None, typer.Option(metavar="TIME", help="Instead of EVENTWRIGHT_KEEP_CHECKPOINTS: 12h, 7d, forever.")
    ] = None,
    payloads_after: Annotated[
        str | None, typer.Option(metavar="TIME", help="Instead of EVENTWRIGHT_KEEP_PAYLOADS: 90d, forever.")
    ] = None,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Say what would be deleted.")] = False,
    as_json: AsJson = False,
) -> None:
    """Delete what was kept long enough.

    Checkpoints of finished runs, and with EVENTWRIGHT_KEEP_PAYLOADS what they
    read and wrote. Workers do it by themselves; this is for more, or for now.
    The journal, decisions and digests stay.

      [cyan]eventwright db prune --dry-run[/]
      [cyan]eventwright db prune --checkpoints-after 1d --payloads-after 90d[/]

    Next: [cyan]eventwright db stats[/].
    """

    async def work() -> None:
        from asyncio import Event

        from eventwright.app.commands.upkeep_screens import removed_screen
        from eventwright.queue.keeper import Keeper
        from eventwright.runs.retention import removable

        async with opened(keep_checkpoints=checkpoints_after, keep_payloads=payloads_after) as app:
            keep = app.settings.keep
            removed = await (removable(app.store, keep) if dry_run else Keeper(app.store, keep).round(Event()))
            if as_json:
                show_json(vars(removed) | {"dry_run": dry_run})
            else:
                given = (("--checkpoints-after", checkpoints_after), ("--payloads-after", payloads_after))
                again = ["eventwright db prune", *(f"{name} {value}" for name, value in given if value is not None)]
                show(removed_screen(removed, dry_run=dry_run, again=" ".join(again)))

    perform(work(), as_json=as_json)


app.add_typer(db, name="db", rich_help_panel=KEEP)
