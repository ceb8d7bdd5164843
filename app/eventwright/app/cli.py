"""The command line: `eventwright`. Here are the processes; what operators and developers type is in `cli_*`.

Only what `--help` needs is imported here; each command imports the rest when it runs.
"""

from __future__ import annotations

import sys
from importlib.metadata import version
from pathlib import Path
from typing import Annotated

import typer

from eventwright.app.commands import (
    admin,
    amends,
    budgets,
    deliveries,
    events,
    policies,
    reviews,
    runs,
    schedules,
    triggers,
    versions,
)
from eventwright.app.commands.console import AsJson, perform, show, show_json
from eventwright.app.commands.session import read_settings

SERVE = "Serve"

app = typer.Typer(
    name="eventwright",
    help="Your LangGraph graph, unchanged, behind events, queues and people.",
    epilog="Begin with [cyan]eventwright demo[/], or with [cyan]eventwright up[/] and then [cyan]eventwright send[/]. "
    "Every command has examples: [cyan]eventwright send --help[/].",
    rich_markup_mode="rich",
    pretty_exceptions_enable=False,
    add_completion=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)

Host = Annotated[str | None, typer.Option(help="Listen on this address instead of EVENTWRIGHT_HOST.")]
Port = Annotated[int | None, typer.Option(help="Listen on this port instead of EVENTWRIGHT_PORT; 0 for any free one.")]
Lane = Annotated[
    str | None,
    typer.Option(help="Take the runs of this lane instead of EVENTWRIGHT_LANE; of several, the most urgent first."),
]


@app.callback(invoke_without_command=True)
def _root(
    context: typer.Context, show_version: Annotated[bool, typer.Option("--version", help="The version.")] = False
) -> None:
    if show_version:
        typer.echo(version("eventwright"))
    elif context.invoked_subcommand is None:
        typer.echo(context.get_help())


@app.command(rich_help_panel=SERVE)
def up(host: Host = None, port: Port = None) -> None:
    """Start everything in one process: API, worker, scheduler.

    Without any setting it keeps its data in .eventwright (SQLite, and a Valkey
    of its own) and listens on http://127.0.0.1:8585. Ctrl-C finishes what is
    under way, a second one ends at once.

      [cyan]eventwright up[/]
      [cyan]EVENTWRIGHT_WORKFLOWS=shop.orders eventwright up --port 9000[/]

    Next: [cyan]eventwright send[/] in another terminal.
    """

    async def work() -> None:
        from eventwright.app.commands import processes

        await processes.up(read_settings(host=host, port=port))

    perform(work())


@app.command(rich_help_panel=SERVE)
def api(host: Host = None, port: Port = None) -> None:
    """Start the HTTP API alone.

    Any number of APIs and workers go together on one database and one Redis.
    On one machine they find each other through EVENTWRIGHT_HOME. Beyond this
    machine it listens only with an EVENTWRIGHT_API_KEY.

      [cyan]eventwright api[/]
      [cyan]eventwright api --host 0.0.0.0 --port 80[/]

    Next: [cyan]eventwright worker[/].
    """

    async def work() -> None:
        from eventwright.app.commands import processes

        await processes.api(read_settings(host=host, port=port))

    perform(work())


@app.command(rich_help_panel=SERVE)
def worker(
    lane: Lane = None,
    burst: Annotated[bool, typer.Option("--burst", help="Finish what is due, then end.")] = False,
    metrics_port: Annotated[
        int | None, typer.Option(help="Show /metrics on this port instead of EVENTWRIGHT_METRICS_PORT.")
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Start a worker alone.

    It takes runs as far as they go, retries what failed, and sees to deadlines.
    Any number of workers go together.

      [cyan]eventwright worker[/]
      [cyan]eventwright worker --lane llm[/]
      [cyan]eventwright worker --lane urgent,default[/]
      [cyan]eventwright worker --metrics-port 9464[/]
      [cyan]eventwright worker --burst[/]      finish what is due, then end

    Next: [cyan]eventwright runs[/].
    """
    if as_json and not burst:
        raise typer.BadParameter("goes with --burst; a worker that stays has logs", param_hint="--json")

    async def work() -> None:
        from eventwright.app.commands import processes

        settings = read_settings(lane=lane, metrics_port=metrics_port)
        if not burst:
            return await processes.worker(settings)
        rested = await processes.burst(settings)
        if as_json:
            show_json({"runs": [{"id": run_id, "state": state} for run_id, state in rested.items()]})
        else:
            from eventwright.app.commands.screens import rested_screen

            show(rested_screen(rested))

    perform(work(), as_json=as_json)


@app.command(rich_help_panel=SERVE)
def demo(
    once: Annotated[bool, typer.Option("--once", help="End when the story is told.")] = False,
    home: Annotated[
        Path | None, typer.Option(help="An empty folder to keep everything in; default one that is gone at the end.")
    ] = None,
) -> None:
    """Watch forty support tickets go through; no account, no key.

    The hard cases are among them: duplicates, refunds above the limit, a mail
    server that is down.

      [cyan]eventwright demo[/]
      [cyan]eventwright demo --once[/]         tell the story, then end

    Next: [cyan]eventwright up[/].
    """

    async def work() -> int:
        from eventwright.app.demo.play import demo as play

        return await play(once=once, home=home)

    perform(work())


app.add_typer(events.app)
app.add_typer(deliveries.app)
app.add_typer(runs.app)
app.add_typer(versions.app)
app.add_typer(amends.app)
app.add_typer(reviews.app)
app.add_typer(budgets.app)
app.add_typer(schedules.app)
app.add_typer(policies.app)
app.add_typer(admin.app)
app.add_typer(triggers.app)


def main() -> None:
    """The entry point of the `eventwright` command."""
    for stream in (sys.stdout, sys.stderr):
        # A terminal that knows no “…” shall show something else, and not end the command.
        stream.reconfigure(errors="replace")  # type: ignore[union-attr]
    app()


if __name__ == "__main__":
    main()
