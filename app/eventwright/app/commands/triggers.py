"""The command line about database changes: `triggers`, which lists, installs and uninstalls."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from eventwright.app.commands.admin import KEEP
from eventwright.app.commands.console import AsJson, Yes, perform, show, show_json, sure
from eventwright.app.commands.session import read_settings
from eventwright.runs.errors import EventwrightError

if TYPE_CHECKING:
    from eventwright.queue.database_triggers import Found, Plan, Triggers

app = typer.Typer()
triggers = typer.Typer(rich_markup_mode="rich", invoke_without_command=True)

Table = Annotated[str, typer.Argument(metavar="TABLE", help="The table, as in SQL: orders, shop.orders.")]
File = Annotated[Path, typer.Argument(metavar="FILE", help="Your SQLite file.", exists=True, dir_okay=False)]
Database = Annotated[
    str | None, typer.Option(metavar="NAME", help="Of EVENTWRIGHT_DATABASE_<NAME>_URL; needed if there are several.")
]
On = Annotated[
    str, typer.Option("--on", metavar="OPERATIONS", help="Of insert,update,delete; with --when or --of, update alone.")
]
Of = Annotated[str, typer.Option("--of", metavar="COLUMNS", help="Only updates that set one of these columns.")]
When = Annotated[
    str | None, typer.Option(metavar="SQL", help="Only changes for which this holds, over OLD and NEW, in its SQL.")
]
Type = Annotated[str | None, typer.Option(help="The type of the events; by default TABLE.update and so on.")]
OfType = Annotated[str | None, typer.Option("--type", help="Only what sends events of this type.")]
Print = Annotated[bool, typer.Option("--print", help="Print the SQL, and run nothing.")]


class NoDatabase(EventwrightError, LookupError):
    """The settings do not say which database is meant."""

    def __init__(self, name: str | None, known: list[str]) -> None:
        self.name, self.known = name, known
        if known:
            what = "say which one with --database" if name is None else f"{name!r} is none of them"
            words = f"the settings name these PostgreSQL databases: {', '.join(known)}; {what}"
        else:
            words = (
                "the settings name no PostgreSQL database; set EVENTWRIGHT_DATABASE_<NAME>_URL=postgresql://…, here "
                "and for the workers. It may be the address in EVENTWRIGHT_DATABASE_URL"
            )
        super().__init__(words)


@triggers.callback()
def list_triggers(context: typer.Context, as_json: AsJson = False) -> None:
    """List what of your databases starts runs, and what waits there.

    Each database is an EVENTWRIGHT_DATABASE_<NAME>_URL. Exit code 1 if one
    does not answer. docs/database-changes.md tells how a change becomes a run.

      [cyan]eventwright triggers[/]
      [cyan]eventwright triggers --json | jq '.items[] | {database, waiting}'[/]

    Next: [cyan]eventwright triggers install-postgres TABLE[/].
    """
    if context.invoked_subcommand is not None:
        return

    async def work() -> int:
        from eventwright.app.commands.trigger_screens import triggers_screen

        found: dict[str, Found | EventwrightError] = {}
        for name, url in read_settings().databases.items():
            try:
                async with triggers_of(name, url) as there:
                    found[name] = await there.look()
            except ConnectionError as error:
                if not isinstance(error, EventwrightError):
                    raise
                found[name] = error
        if as_json:
            show_json({"items": [_told(name, one) for name, one in found.items()]})
        else:
            show(triggers_screen(found))
        return 1 if any(isinstance(one, EventwrightError) for one in found.values()) else 0

    perform(work(), as_json=as_json)


def _told(name: str, found: Found | EventwrightError) -> dict[str, Any]:
    from dataclasses import asdict

    return {"database": name} | ({"error": str(found)} if isinstance(found, EventwrightError) else asdict(found))


@triggers.command()
def install_postgres(
    table: Table,
    database: Database = None,
    on: On = "",
    of: Of = "",
    when: When = None,
    type: Type = None,
    print_only: Print = False,
    yes: Yes = False,
    as_json: AsJson = False,
) -> None:
    """Have changes of a PostgreSQL table become events.

    The SQL is shown before it runs: a trigger writes each change into the table
    eventwright_inbox, in the transaction that makes it. The same command again
    replaces what it installed.

      [cyan]eventwright triggers install-postgres orders --print[/]
      [cyan]eventwright triggers install-postgres orders --of status --type order.paid \\
        --when "OLD.status <> 'paid' AND NEW.status = 'paid'"[/]

    Next: [cyan]eventwright triggers[/].
    """
    wanted = _wanted(table, on, of, when, type)

    async def work() -> None:
        name, url = _postgres(database)
        async with triggers_of(name, url) as there:
            plan = await there.install(wanted())
            await _carry_out(there, plan, f"the database {name}", print_only, yes, as_json)
        if not print_only and not as_json:
            _say(f"changes become events with the source /databases/{name}/{plan.label}")

    perform(work(), as_json=as_json)


@triggers.command()
def install_sqlite(
    file: File,
    table: Table,
    on: On = "",
    of: Of = "",
    when: When = None,
    type: Type = None,
    print_only: Print = False,
    yes: Yes = False,
    as_json: AsJson = False,
) -> None:
    """Have changes of a table in a SQLite file become events.

    The SQL is shown before it runs: a trigger writes each change into the table
    eventwright_inbox of the same file, in the transaction that makes it. It
    knows the columns that are there now: install it again when there are more.

      [cyan]eventwright triggers install-sqlite shop.db orders --print[/]
      [cyan]eventwright triggers install-sqlite shop.db orders --type order.paid \\
        --when "OLD.status <> 'paid' AND NEW.status = 'paid'"[/]

    Next: [cyan]eventwright triggers[/].
    """
    wanted = _wanted(table, on, of, when, type)

    async def work() -> None:
        from eventwright.queue.database_triggers_sqlite import SqliteTriggers

        there = SqliteTriggers(file)
        plan = await there.install(wanted())
        await _carry_out(there, plan, str(file), print_only, yes, as_json)
        if not print_only and not as_json:
            _say(_where_sqlite(file, plan.label))

    perform(work(), as_json=as_json)


@triggers.command()
def uninstall_postgres(
    table: Table,
    database: Database = None,
    type: OfType = None,
    print_only: Print = False,
    yes: Yes = False,
    as_json: AsJson = False,
) -> None:
    """Take our triggers off a PostgreSQL table.

    What waits in the inbox is still taken; the inbox itself stays.

      [cyan]eventwright triggers uninstall-postgres orders[/]
      [cyan]eventwright triggers uninstall-postgres orders --type order.paid[/]
    """

    async def work() -> None:
        name, url = _postgres(database)
        async with triggers_of(name, url) as there:
            plan = await there.uninstall(table, type)
            await _carry_out(there, plan, f"the database {name}", print_only, yes, as_json)

    perform(work(), as_json=as_json)


@triggers.command()
def uninstall_sqlite(
    file: File,
    table: Table,
    type: OfType = None,
    print_only: Print = False,
    yes: Yes = False,
    as_json: AsJson = False,
) -> None:
    """Take our triggers off a table in a SQLite file.

    What waits in the inbox is still taken; the inbox itself stays.

      [cyan]eventwright triggers uninstall-sqlite shop.db orders[/]
    """

    async def work() -> None:
        from eventwright.queue.database_triggers_sqlite import SqliteTriggers

        there = SqliteTriggers(file)
        plan = await there.uninstall(table, type)
        await _carry_out(there, plan, str(file), print_only, yes, as_json)

    perform(work(), as_json=as_json)


def _wanted(table: str, on: str, of: str, when: str | None, type: str | None) -> Callable[[], Any]:
    """What is wanted, to be looked at where its errors are told."""
    from eventwright.queue.database_triggers import Wanted

    operations, columns = (tuple(part.strip() for part in text.split(",") if part.strip()) for text in (on, of))
    return lambda: Wanted(table=table, operations=operations, columns=columns, when=when, type=type)


async def _carry_out(there: Triggers, plan: Plan, where: str, print_only: bool, yes: bool, as_json: bool) -> None:
    """Show what would be run, ask, run it."""
    if not as_json:
        typer.echo(plan.sql if plan.statements else f"there is no trigger of ours on {plan.label}")
    if not print_only and plan.statements:
        sure(f"Run this in {where}?", yes=yes or as_json)
        await there.run(plan)
    if as_json:
        show_json({"table": plan.label, "statements": plan.statements, "done": not print_only})


@asynccontextmanager
async def triggers_of(name: str, url: str) -> AsyncIterator[Triggers]:
    """The triggers of the database of this name. Raises BadDatabase, InboxAway."""
    if url.startswith("sqlite"):
        from eventwright.queue.database_changes import sqlite_path
        from eventwright.queue.database_triggers_sqlite import SqliteTriggers

        yield SqliteTriggers(sqlite_path(name, url))
        return
    from eventwright.queue.database_triggers_postgres import postgres_triggers

    async with postgres_triggers(name, url) as there:
        yield there


def _postgres(name: str | None) -> tuple[str, str]:
    """The name and the address of the PostgreSQL database that is meant. Raises NoDatabase."""
    named = {known: url for known, url in read_settings().databases.items() if not url.startswith("sqlite")}
    if name is None and len(named) == 1:
        return next(iter(named.items()))
    if name is None or name not in named:
        raise NoDatabase(name, list(named))
    return name, named[name]


def _where_sqlite(file: Path, label: str) -> str:
    from eventwright.queue.database_changes import sqlite_path

    urls = {name: url for name, url in read_settings().databases.items() if url.startswith("sqlite")}
    for name, url in urls.items():
        if sqlite_path(name, url).resolve() == file.resolve():
            return f"changes become events with the source /databases/{name}/{label}"
    return f"workers look into it once they have EVENTWRIGHT_DATABASE_<NAME>_URL=sqlite:///{file.resolve()}"


def _say(words: str) -> None:
    typer.echo(words, err=True)


app.add_typer(triggers, name="triggers", rich_help_panel=KEEP)
