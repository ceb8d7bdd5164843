"""How a worker's throughput grows: with more workers, with the size of the state, with what lies in the database."""

from __future__ import annotations

import asyncio
import tempfile
import time
from collections.abc import Sequence
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Any

import ours
import sqlalchemy as sa
from processes import database, looking_on, place, running, until
from throughput import CONCURRENCY, alone

from eventwright.runs import schema
from eventwright.runs.database import open_database

#: What names a row, or the row that it belongs to.
NAMES = {"id", "uid", "event_uid", "run_id", "thread_id"}
COPIED = (schema.events, schema.runs, schema.journal, schema.visits, schema.checkpoints)


async def with_workers(kind: str, workers: int, *, runs: int) -> float:
    """Finished runs a second of so many worker processes, over one Valkey, from when the first of the runs is done."""
    with place(kind) as where:
        async with looking_on(where) as app, AsyncExitStack() as stack:
            for _ in range(workers):
                await stack.enter_async_context(running("worker", where, EVENTWRIGHT_CONCURRENCY=str(CONCURRENCY)))
            await ours.receive(app, "five-nodes", runs // 10)
            await until(lambda: ours.are_completed(app, "five-nodes", runs // 10))
            began = time.perf_counter()
            await ours.receive(app, "five-nodes", runs)
            await until(lambda: ours.are_completed(app, "five-nodes", runs // 10 + runs))
            return runs / (time.perf_counter() - began)


def with_state(kind: str, size: int, *, runs: int) -> float:
    """Finished runs a second of one worker, with so many bytes of state."""
    with tempfile.TemporaryDirectory(prefix="ew-bench-") as folder, database(kind, Path(folder)) as url:
        return alone(ours.runs_per_second, kind, url, Path(folder), runs=runs, concurrency=CONCURRENCY, size=size)


def with_history(kind: str, finished: int, *, runs: int) -> float:
    """Finished runs a second of one worker, with so many finished runs in its database."""
    with tempfile.TemporaryDirectory(prefix="ew-bench-") as folder, database(kind, Path(folder)) as url:
        home = Path(folder)
        alone(ours.runs_per_second, kind, url, home, runs=100, concurrency=CONCURRENCY, size=100)
        if finished:
            asyncio.run(_copy(url or f"sqlite:///{home / 'eventwright.db'}", times=finished // 100))
        return alone(ours.runs_per_second, kind, url, home, runs=runs, concurrency=CONCURRENCY)


async def _copy(url: str, *, times: int) -> None:
    """Each row that is there so many times more, under other names."""
    first = sa.select(sa.literal(1).label("n")).cte("numbers", recursive=True)
    numbers = first.union_all(sa.select(first.c.n + 1).where(first.c.n < times))

    def insert(connection: sa.Connection) -> None:
        for table in COPIED:
            suffix = sa.literal("-") + sa.cast(numbers.c.n, sa.String)
            columns: Sequence[Any] = [
                (column + suffix).label(column.name) if column.name in NAMES else column for column in table.c
            ]
            query = sa.select(*columns).select_from(table.join(numbers, sa.true()))
            connection.execute(sa.insert(table).from_select([column.name for column in table.c], query))

    async with open_database(url, statement_seconds=None) as opened:
        await opened.write(insert)
