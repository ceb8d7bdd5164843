"""Finished runs a second: LangGraph with its stock saver, DBOS, and Eventwright, in turn in one go."""

from __future__ import annotations

import asyncio
import multiprocessing
import statistics
import tempfile
from collections.abc import Callable, Coroutine, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import dbos_peer
import ours
import stock
from processes import database

CONCURRENCY = 100


@dataclass
class Sides:
    """Runs a second of each side, round by round."""

    memory: list[float] = field(default_factory=list)
    stock: list[float] = field(default_factory=list)
    dbos: list[float] = field(default_factory=list)
    ours: list[float] = field(default_factory=list)

    def rounds(self) -> Iterator[tuple[float, float, float, float]]:
        """Of LangGraph with nothing kept, of LangGraph with its stock saver, of DBOS, of ours."""
        return zip(self.memory, self.stock, self.dbos, self.ours, strict=True)

    def medians(self) -> list[float]:
        """Of each side over all rounds."""
        return [statistics.median(side) for side in zip(*self.rounds(), strict=True)]


def alone(side: Callable[..., Coroutine[Any, Any, float]], *arguments: Any, **more: Any) -> float:
    """Measure a side in a process of its own: what one of them leaves behind is not the next one's burden."""
    with multiprocessing.get_context("spawn").Pool(1) as pool:
        return pool.apply(_run, (side, arguments, more))


def _run(side: Callable[..., Coroutine[Any, Any, float]], arguments: tuple[Any, ...], more: dict[str, Any]) -> float:
    return asyncio.run(side(*arguments, **more))


def throughput(kind: str, *, rounds: int, runs: int) -> Sides:
    """All sides, round by round in turn; the slower ones with fewer runs, for as much time."""
    sides = Sides()
    with tempfile.TemporaryDirectory(prefix="ew-bench-") as folder, database(kind, Path(folder)) as url:
        for number in range(rounds):
            place = Path(folder) / f"round{number}"
            place.mkdir()
            sides.memory.append(alone(stock.runs_per_second, "memory", "", runs=runs, concurrency=CONCURRENCY))
            with _database_of_its_own(kind, url, f"stock{number}") as own:
                where = own if kind == "postgres" else str(place)
                sides.stock.append(alone(stock.runs_per_second, kind, where, runs=runs // 3, concurrency=CONCURRENCY))
            with _database_of_its_own(kind, url, f"dbos{number}") as own:
                where = own if kind == "postgres" else f"sqlite:///{place / 'dbos.db'}"
                sides.dbos.append(alone(dbos_peer.runs_per_second, where, runs=runs // 5, concurrency=CONCURRENCY))
            with _database_of_its_own(kind, url, f"ours{number}") as own:
                sides.ours.append(alone(ours.runs_per_second, kind, own, place, runs=runs, concurrency=CONCURRENCY))
    return sides


@contextmanager
def _database_of_its_own(kind: str, url: str, name: str) -> Iterator[str]:
    """The URL of a new database of that server; nothing for SQLite."""
    if kind == "sqlite":
        yield ""
        return
    import psycopg

    with psycopg.connect(url, autocommit=True) as connection:
        connection.execute(f"CREATE DATABASE {name}")  # type: ignore[arg-type]
    head, _, tail = url.partition("/postgres?")
    yield f"{head}/{name}?{tail}"
