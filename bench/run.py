"""`make bench`: what it costs to lose nothing, beside those who promise less or the same, in one go on one machine.

The machine is shared and noisy: sides alternate, medians are compared, and the ratio is the figure to quote.
"""

from __future__ import annotations

import argparse
import asyncio
import os
import statistics
import sys
from collections.abc import Callable, Sequence
from pathlib import Path

os.environ.setdefault("LANGSMITH_TRACING", "false")
sys.path.insert(0, str(Path(__file__).parent))

import gate
import growth as grown
import measures
from rich.console import Console
from rich.table import Table
from throughput import CONCURRENCY, throughput

KINDS = ("sqlite", "postgres")
#: What is asked for: runs a second, by store.
FLOOR = {"sqlite": 200, "postgres": 150}


def _table(title: str, *headings: str) -> Table:
    table = Table(title=title, title_justify="left")
    for number, heading in enumerate(headings):
        table.add_column(heading, justify="right" if number else "left")
    return table


def _milliseconds(seconds: Sequence[float]) -> str:
    """Of many waits: what half, 95 and 99 of a hundred stay below."""
    return " / ".join(f"{1000 * measures.share(seconds, part):.0f}" for part in (0.5, 0.95, 0.99))


def runs(console: Console, kinds: Sequence[str], *, rounds: int, size: int) -> None:
    """Finished runs a second, beside the peers."""
    table = _table(
        f"5-node runs a second, one worker process, concurrency {CONCURRENCY}; medians of {rounds} rounds",
        "store",
        "LangGraph in memory",
        "LangGraph + stock saver",
        "DBOS",
        "Eventwright",
        "asked for",
        "of memory",
        "to stock",
        "to DBOS",
    )
    for kind in kinds:
        sides = throughput(kind, rounds=rounds, runs=size)
        memory, stock, dbos, ours = sides.medians()
        ratios = f"{ours / memory:.0%}", f"{ours / stock:.2f} (1.5)", f"{ours / dbos:.2f} (3)"
        row = (f"{one:.0f}" for one in (memory, stock, dbos, ours))
        table.add_row(kind, *row, str(FLOOR[kind]), *ratios)
        told = (" : ".join(f"{one:.0f}" for one in each) for each in sides.rounds())
        console.print(f"{kind}, round by round: " + ", ".join(told))
    console.print(table)
    console.print(
        "LangGraph in memory keeps nothing: the floor of one process. With its stock saver it writes checkpoints only. "
        "DBOS writes its queue and its steps. Eventwright writes the claim, the checkpoints, the journal and the end "
        "of each run, and wakes its worker through a real Valkey."
    )


def waiting(console: Console, kinds: Sequence[str], *, rounds: int) -> None:
    """A thousand runs that wait for a model."""
    table = _table("1,000 one-node runs, each waits 1 s", "store", "seconds (6)", "peak MB (250)", "MB before")
    for kind in kinds:
        found = [asyncio.run(measures.waiting(kind)) for _ in range(rounds)]
        table.add_row(
            kind,
            f"{statistics.median(one.seconds for one in found):.1f}",
            f"{max(one.peak for one in found) / 1e6:.0f}",
            f"{statistics.median(one.idle for one in found) / 1e6:.0f}",
        )
    console.print(table)


def intake(console: Console, kinds: Sequence[str], *, rounds: int) -> None:
    """Events accepted."""
    table = _table(
        "events accepted by one API process, 4 KB each",
        "store",
        "a second, singly (300)",
        "a second, by 50 (1,000)",
        "ms at 100/s, p50 / p95 (25) / p99",
    )
    for kind in kinds:
        found = [asyncio.run(measures.intake(kind)) for _ in range(rounds)]
        table.add_row(
            kind,
            f"{statistics.median(one.single for one in found):.0f}",
            f"{statistics.median(one.batched for one in found):.0f}",
            _milliseconds([answer for one in found for answer in one.answers]),
        )
    console.print(table)


def latency(console: Console, kinds: Sequence[str], *, rounds: int) -> None:
    """How soon an idle service goes on."""
    table = _table(
        "milliseconds, idle, API and worker apart; p50 / p95 / p99",
        "store",
        "event accepted to first node (25 / 60)",
        "decision to resumed node (30 / 80)",
    )
    for kind in kinds:
        first, resumed = [], []
        for _ in range(rounds):
            first += asyncio.run(measures.to_first_node(kind))
            resumed += asyncio.run(measures.to_resumed_node(kind))
        table.add_row(kind, _milliseconds(first), _milliseconds(resumed))
    console.print(table)


def recovery(console: Console, kinds: Sequence[str], *, rounds: int) -> None:
    """A killed worker."""
    table = _table(
        "kill -9 of a worker with 200 runs in a node; until another one has them",
        "store",
        "first s",
        "half s",
        "all s (10)",
        "lost (0)",
        "doubled (0)",
        "repeated with the same key",
    )
    for kind in kinds:
        found = [asyncio.run(measures.recovery(kind)) for _ in range(rounds)]
        table.add_row(
            kind,
            *(f"{statistics.median(getattr(one, name) for one in found):.1f}" for name in ("first", "median", "last")),
            *(str(sum(getattr(one, name) for one in found)) for name in ("lost", "doubled", "repeated")),
        )
    console.print(table)


def growth(console: Console, kinds: Sequence[str], *, rounds: int) -> None:
    """What throughput depends on."""
    for kind in kinds:
        table = _table(f"{kind}: 5-node runs a second, medians of {rounds} rounds", "with", "runs a second")
        rows: dict[str, list[float]] = {}
        for _ in range(rounds):
            for workers in (1, 2, 3):
                figure = asyncio.run(grown.with_workers(kind, workers, runs=600))
                rows.setdefault(f"{workers} worker processes", []).append(figure)
            for size in (4, 32, 256):
                figure = grown.with_state(kind, 1000 * size, runs=300)
                rows.setdefault(f"{size} KB of state", []).append(figure)
            for finished in (0, 100_000):
                figure = grown.with_history(kind, finished, runs=600)
                rows.setdefault(f"{finished:,} finished runs in the database", []).append(figure)
        for name, figures in rows.items():
            table.add_row(name, f"{statistics.median(figures):.0f}")
        console.print(table)


MEASURES: dict[str, Callable[..., None]] = {
    "waiting": waiting,
    "intake": intake,
    "latency": latency,
    "recovery": recovery,
    "growth": growth,
}


def main() -> int:
    """Measure and print; never fails on a figure."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--runs", type=int, default=900, help="runs a round, for the throughput")
    parser.add_argument("--only", choices=["gate", "runs", *MEASURES])
    parser.add_argument("--store", choices=KINDS, help="one of the stores alone")
    arguments = parser.parse_args()
    console, kinds = Console(), [arguments.store] if arguments.store else KINDS
    if arguments.only in (None, "gate"):
        gate.main(rounds=arguments.rounds)
    if arguments.only in (None, "runs"):
        runs(console, kinds, rounds=arguments.rounds, size=arguments.runs)
    for name, measure in MEASURES.items():
        if arguments.only in (None, name):
            measure(console, kinds, rounds=arguments.rounds)
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
