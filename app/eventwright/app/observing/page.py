"""The tables of docs/observability.md are made from the code: `python -m eventwright.app.observing.page`."""

from __future__ import annotations

import sys
from collections.abc import Iterable

from eventwright.app.observing.exposition import OF_COMMITS, OF_DATABASE
from eventwright.app.observing.metrics import Family, Metrics


def own_metrics() -> list[Family]:
    """What every process counts."""
    return [*Metrics().families, *OF_COMMITS]


def table(families: Iterable[Family]) -> str:
    """A table in Markdown."""
    rows = [
        f"| `{one.name}` | {one.kind} | {', '.join(f'`{label}`' for label in one.labels)} | {one.words} |\n"
        for one in families
    ]
    return "| metric | kind | labels | what it says |\n|---|---|---|---|\n" + "".join(rows)


if __name__ == "__main__":
    sys.stdout.write(f"{table(OF_DATABASE)}\n{table(own_metrics())}")
