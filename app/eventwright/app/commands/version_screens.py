"""Screens about deploys: runs that moved to another graph, and those that a deploy would break."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from pydantic_core import to_jsonable_python
from rich.console import Group, RenderableType
from rich.padding import Padding
from rich.text import Text

from eventwright.app.commands.screens import ID, STATES, commands, facts, mark, spaced
from eventwright.app.commands.telling import compact, line, short
from eventwright.queue.migration import Migration
from eventwright.queue.preflight import Broken, Preflight


def migrated_screen(done: Sequence[Migration], refused: Mapping[str, Exception], *, dry_run: bool) -> RenderableType:
    """What moved, or would move, and what did not."""
    if not done and not refused:
        return Text("No run fits.")
    parts: list[RenderableType] = [_moved(one, dry_run=dry_run) for one in done]
    for run_id, error in refused.items():
        parts.append(Text.assemble(("✗ ", "red"), (short(run_id), ID), f"  {line(error)}"))
    wanted = [f"eventwright run {short(done[0].run.id)}"] if len(done) == 1 else ["eventwright runs --watch"]
    return Group(*spaced(parts), Text(), commands([] if dry_run else wanted))


def _moved(one: Migration, *, dry_run: bool) -> RenderableType:
    versions = one.version if one.version == one.run.version else f"{one.run.version} → {one.version}"
    head = Text.assemble(
        ("○ " if dry_run else "✓ ", "yellow" if dry_run else "green"),
        (short(one.run.id), ID),
        f"  {one.run.workflow} {versions}",
        ("  would move; nothing was changed" if dry_run else "  moved", "dim"),
    )
    return Group(head, Padding(facts([(name, Text(words)) for name, words in _facts(one)]), (0, 0, 0, 2)))


def _facts(one: Migration) -> Iterator[tuple[str, str]]:
    yield "stands at", ", ".join(one.stands_at) or "its start: it takes the graph as it is"
    if one.changes is None:
        yield "changed", "not known: it began before graphs were kept"
    for words in one.changes or ():
        yield "changed", line(words)
    for old, new in one.rename.items():
        yield "renamed", line(f"{old} → {new}")
    for name in sorted({*one.before, *one.after}):
        if one.is_other(name):
            yield "state", line(f"{name}: {_value(name, one.before)} → {_value(name, one.after)}")
    if one.reviews:
        count = len(one.reviews)
        yield "kept", f"{count} question{'' if count == 1 else 's'} to people, with the answers"


def _value(name: str, state: Mapping[str, Any]) -> str:
    return compact(to_jsonable_python(state[name], fallback=str)) if name in state else "nothing"


def against_screen(found: Preflight, database: str) -> RenderableType:
    """Which unfinished runs this code would break, one after the other, and how many are fine."""
    count = len(found.broken)
    fine = f"{found.fine} unfinished run{'' if found.fine == 1 else 's'} of {database} would go on"
    if not count:
        return Text.assemble(("✓ ", "green"), fine)
    head = Text.assemble(("✗ ", "red"), f"{count} run{'' if count == 1 else 's'} would break; {fine}")
    return Group(*spaced([head, *map(_broken, found.broken)]))


def _broken(one: Broken) -> RenderableType:
    run = one.run
    head = Text.assemble((short(run.id), ID), f"  {run.workflow} {run.version}  ", mark(STATES[run.state], run.state))
    advice = Text(f"→ {line(one.way_out.replace('RUN', short(run.id)))}", style="cyan")
    kind = Text(str(one.kind), style="bold yellow")
    return Padding(Group(head, Padding(Group(kind, Text(line(one.why)), advice), (0, 0, 0, 2))), (0, 0, 0, 2))


def against_document(found: Preflight, database: str) -> dict[str, Any]:
    """The same for programs."""
    return {
        "database": database,
        "fine": found.fine,
        "broken": [
            {
                "run": one.run.id,
                "workflow": one.run.workflow,
                "version": one.run.version,
                "state": one.run.state,
                "kind": one.kind,
                "why": one.why,
                "way_out": one.way_out.replace("RUN", one.run.id),
            }
            for one in found.broken
        ],
    }
