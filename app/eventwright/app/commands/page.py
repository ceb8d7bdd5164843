"""`docs/cli.md` is made from the command line itself: `python -m eventwright.app.commands.page > docs/cli.md`."""

from __future__ import annotations

import inspect
import sys
from collections.abc import Iterator
from typing import Any

import typer
from rich.text import Text

from eventwright.app.cli import app

HEAD = """# The command line

`eventwright` alone shows what there is; `eventwright COMMAND --help` shows what stands here. Every command that shows
something takes `--json`: then stdout holds JSON and nothing else, and an error is a JSON document on stderr. The
exit code is 0 done, 1 not done (the error says why and what to do), 2 typed wrongly, 130 ended by Ctrl-C.

A run, a review or an event is named by its id, or by as much of the id's beginning or end as is unambiguous; screens
show the last eight characters. `EVENTWRIGHT_DEBUG=1` shows where an error comes from.
"""


def page() -> str:
    """The page as Markdown."""
    root: Any = typer.main.get_command(app)
    panels: dict[str, list[Any]] = {}
    for command in root.commands.values():
        panels.setdefault(command.rich_help_panel, []).append(command)
    parts = [HEAD]
    for panel, commands in panels.items():
        parts.append(f"\n## {panel}\n")
        for command in commands:
            subcommands = getattr(command, "commands", {})
            if not subcommands or command.invoke_without_command:
                parts += _command(command.name, command)
            for each in subcommands.values():
                parts += _command(f"{command.name} {each.name}", each)
    return "".join(parts)


def _command(name: str, command: Any) -> Iterator[str]:
    context = typer.Context(command, info_name=f"eventwright {name}")
    yield f"\n### `eventwright {name}`\n\n"
    for paragraph in inspect.cleandoc(command.help).split("\n\n"):
        if paragraph.startswith("  "):
            yield f"```console\n{inspect.cleandoc(Text.from_markup(paragraph).plain)}\n```\n\n"
        else:
            yield f"{paragraph.replace('[cyan]', '`').replace('[/]', '`')}\n\n"
    records = [parameter.get_help_record(context) for parameter in command.get_params(context)]
    rows = [(names, " ".join(text.split())) for names, text in filter(None, records) if names != "--help"]
    if rows:
        yield "| | |\n|---|---|\n"
    for names, text in rows:
        yield f"| `{names.replace('|', ', ')}` | {text.replace('|', ', ')} |\n"


if __name__ == "__main__":
    sys.stdout.write(page())
