"""Screens about the database: what it holds, what was deleted of it."""

from __future__ import annotations

from datetime import datetime

from rich.console import Group, RenderableType
from rich.text import Text

from eventwright.app.commands.screens import ID, commands, facts, heading, state_text, table
from eventwright.app.commands.telling import line, short, when
from eventwright.runs.retention import Removed
from eventwright.runs.statistics import Statistics


def size(number: int | None) -> str:
    """Bytes in the largest unit that leaves something before the point; empty where they are not known."""
    if number is None:
        return ""
    amount = float(number)
    for unit in ("B", "KB", "MB", "GB"):
        if amount < 1000:
            return f"{amount:.0f} {unit}" if unit == "B" or amount >= 100 else f"{amount:.1f} {unit}"
        amount /= 1000
    return f"{amount:.1f} TB"


def statistics_screen(found: Statistics, removable: Removed, now: datetime) -> RenderableType:
    """Tables by size, workflows with their oldest run that has not ended, and what retention has before it."""
    tables = table("table", "rows", "size")
    for one in found.tables:
        tables.add_row(one.name, f"{one.rows:,}", size(one.bytes))
    workflows = table("workflow", "runs", "unfinished", "oldest of them")
    for use in found.workflows:
        oldest = Text()
        if use.oldest is not None and use.oldest_state is not None:
            began = when(use.oldest_at, now)
            oldest = Text.assemble((short(use.oldest), ID), "  ", state_text(use.oldest_state), f"  came {began}")
        workflows.add_row(line(use.name), f"{use.runs:,}", f"{use.unfinished:,}", oldest)
    free = "" if not found.free_bytes else f", {size(found.free_bytes)} of it free to be used again"
    whole = [("database", f"{size(found.bytes)}{free}"), ("write-ahead log", size(found.log_bytes) or "not told")]
    parts: list[RenderableType] = [tables, Text(), facts([*whole, ("could be deleted", _words(removable))])]
    if found.workflows:
        parts += [heading("Workflows"), workflows]
    if removable:
        parts += [Text(), commands(["eventwright db prune --dry-run"])]
    return Group(*parts)


def removed_screen(removed: Removed, *, dry_run: bool, again: str = "eventwright db prune") -> RenderableType:
    """What was deleted, or would be, by the command `again`."""
    if not removed:
        return Text("Nothing was kept long enough to be deleted.")
    told = Text(f"{'would delete' if dry_run else 'deleted'} {_words(removed)}")
    return Group(told, commands([again])) if dry_run else told


def _words(removed: Removed) -> str:
    parts = []
    if removed.runs:
        parts.append(f"{removed.checkpoints:,} checkpoints of {removed.runs:,} finished runs")
    if removed.payloads:
        parts.append(f"what {removed.payloads:,} finished runs read and wrote")
    if removed.events:
        parts.append(f"the data of {removed.events:,} events")
    if removed.deliveries:
        parts.append(f"{removed.deliveries:,} deliveries of webhooks")
    return ", ".join(parts) or "nothing"
