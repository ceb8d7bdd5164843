"""What a terminal shows of the triggers in the user's databases."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

from rich.console import Group
from rich.text import Text

from eventwright.app.commands.screens import commands, table
from eventwright.app.commands.telling import line
from eventwright.queue.database_triggers import Found, Installed
from eventwright.runs.errors import EventwrightError

if TYPE_CHECKING:
    from rich.console import RenderableType


def triggers_screen(databases: Mapping[str, Found | EventwrightError]) -> RenderableType:
    """Triggers, one a line; below what waits, what was put aside, and which database does not answer."""
    if not databases:
        return Text("No database is named; EVENTWRIGHT_DATABASE_SHOP_URL=postgresql://… names one `shop`.")
    made = table("database", "table", "on", "when", "type", flexible="when")
    remarks: list[Text] = []
    for name, found in databases.items():
        if isinstance(found, EventwrightError):
            remarks.append(Text(line(str(found)), style="red"))
            continue
        for one in found.triggers:
            made.add_row(Text(name, style="bold"), line(one.table), _on(one), line(one.when or ""), line(one.type))
        remarks += _remarks(name, found)
    last = [] if made.row_count else [commands(["eventwright triggers install-postgres TABLE"])]
    return Group(*([made] if made.row_count else []), *remarks, *last)


def _on(one: Installed) -> str:
    return line(f"{one.operation} of {', '.join(one.columns)}" if one.columns else one.operation)


def _remarks(name: str, found: Found) -> list[Text]:
    triggers = "1 trigger" if len(found.triggers) == 1 else f"{len(found.triggers) or 'no'} triggers"
    waiting = "1 change waits" if found.waiting == 1 else f"{found.waiting} changes wait"
    told = [Text(f"{name}: {triggers}, {waiting}")]
    if found.put_aside:
        words = f"{name}: {found.put_aside} changes are put aside, the first because: {line(found.problems[0])}"
        told.append(Text(words, style="red"))
    for one in found.triggers:
        if one.unknown:
            words = f"{name}: {one.name} does not know {', '.join(one.unknown)}; install it again"
            told.append(Text(line(words), style="yellow"))
    return told
