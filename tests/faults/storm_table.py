"""What a storm has left behind, as one table."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from itertools import pairwise
from typing import Any

from rich.console import Console
from rich.table import Table
from tests.faults.auditor import History, Outside
from tests.faults.storm_world import StoreKind

from eventwright.runs.database import open_database
from eventwright.runs.states import RunState

#: In these states a run has something to do, and nobody but a worker to do it.
AT_WORK = frozenset({RunState.RECEIVED, RunState.PROCESSING, RunState.RETRYING})


@dataclass(frozen=True, kw_only=True)
class Report:
    """How a storm went.

    Attributes:
        faults: how often each came about.
        facts: what happened, in words and figures, in the order in which they are told.
        violations: what must not be; empty if every promise was kept.
    """

    store: StoreKind
    seed: int
    seconds: float
    faults: Mapping[str, int]
    facts: Sequence[tuple[str, str]]
    violations: Sequence[str]

    def show(self, console: Console) -> None:
        table = Table(title=f"A storm over {self.store}: {self.seconds / 60:.1f} minutes, seed {self.seed}")
        table.add_column("what", overflow="fold")
        table.add_column("how often", justify="right", overflow="fold")
        for name, times in self.faults.items():
            table.add_row(name, str(times))
        table.add_section()
        for name, value in self.facts:
            table.add_row(name, value)
        table.add_section()
        table.add_row("violations", str(len(self.violations)), style="bold red" if self.violations else "bold green")
        console.print(table)
        for violation in self.violations:
            console.print(f"VIOLATION ({self.store}, seed {self.seed}): {violation}", style="red", markup=False)


@dataclass(frozen=True)
class Jumps:
    """When a clock was set ahead, by what it showed before, and by how many seconds."""

    seen: Sequence[tuple[float, float]] = ()

    def between(self, begin: datetime, end: datetime) -> timedelta:
        return timedelta(seconds=sum(by for at, by in self.seen if begin.timestamp() <= at < end.timestamp()))


async def facts(
    database_url: str, outside: Outside, *, count: Mapping[str, int], repeats: int, jumps: Jumps
) -> list[tuple[str, str]]:
    """What happened.

    Args:
        count: what people saw.
        repeats: how often the provider was asked again for what it had done.
    """
    async with open_database(database_url) as database:
        history = await database.read(lambda connection: History.read(connection, database.now(connection)))
    return list(_facts(history, outside, count, repeats, jumps))


def _facts(
    history: History, outside: Outside, count: Mapping[str, int], repeats: int, jumps: Jumps
) -> Iterator[tuple[str, str]]:
    runs = history.runs.values()
    moves = [entry["data"] for entry in history.entries("transition")]
    yield "events taken, by their senders' books", str(len(outside.accepted))
    yield from ((what, str(count.get(what, 0))) for what in SEEN)
    yield "runs by state", _told(Counter(run["state"] for run in runs))
    yield "runs by outcome", _told(Counter(run["outcome"] for run in runs if run["outcome"]))
    yield "runs taken over from a worker", str(sum(bool(move.get("taken_over")) for move in moves))
    yield "retries", str(sum(move["to"] == RunState.RETRYING for move in moves))
    yield (
        "runs put aside, and taken up again",
        _told(Counter(str(move.get("reason")) for move in moves if move["to"] == RunState.FAILED)),
    )
    yield "writes that were refused: the run was another's", str(_refused(history))
    yield "asked whether a call happened", str(sum(row["kind"] == "in_doubt" for row in history.reviews.values()))
    yield "decisions by deadline", str(sum(row["state"] == "expired" for row in history.reviews.values()))
    happened = Counter(deed.tool for deed in outside.deeds)
    ledger = [row for row in history.effects.values() if row["tool"] in happened]
    for tool, times in sorted(happened.items()):
        effects = [row for row in ledger if row["tool"] == tool]
        (kind,) = {row["tool_class"] for row in effects}
        states = _told(Counter(row["state"] for row in effects))
        yield f"{tool} ({kind}): at the provider, in the ledger", f"{times}, {states}"
    keys = Counter(deed.key for deed in outside.deeds)
    yield "effects that happened twice", str(sum(times > 1 for times in keys.values()))
    yield "keyed calls repeated, and done once", str(repeats)
    seconds, run_id = _stillness(history, jumps)
    yield "longest time that a run stood still", f"{seconds:.1f} s ({run_id})"


#: Of what people counted, what stands in the table.
SEEN = (
    "events told to be duplicates",
    "requests without an answer",
    "requests put off",
    "decisions acknowledged",
    "decisions too late",
)


def _told(counts: Mapping[Any, int]) -> str:
    return ", ".join(f"{name} {times}" for name, times in sorted(counts.items())) or "0"


def _refused(history: History) -> int:
    return sum("had lost the run" in entry["data"].get("text", "") for entry in history.entries("note"))


def _stillness(history: History, jumps: Jumps) -> tuple[float, str]:
    """The longest time between two entries of a journal while the run had something to do, and which run it was."""
    longest, longest_run = 0.0, ""
    for run_id, entries in history.journal.items():
        state = RunState.RECEIVED
        for before, after in pairwise(entries):
            if before["kind"] == "transition":
                state = RunState(before["data"]["to"])
            if state in AT_WORK or before["kind"] == "decision":
                still = after["at"] - before["at"] - jumps.between(before["at"], after["at"])
                if still.total_seconds() > longest:
                    longest, longest_run = still.total_seconds(), run_id
    return longest, longest_run
