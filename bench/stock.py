"""The peer: bare LangGraph with its own saver, the same graph, the same concurrency, sync durability."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any
from uuid import uuid4

from graphs import PAYLOAD, five_nodes
from langgraph.checkpoint.memory import InMemorySaver
from langgraph.checkpoint.postgres.aio import AsyncPostgresSaver
from langgraph.checkpoint.sqlite.aio import AsyncSqliteSaver
from psycopg.rows import dict_row
from psycopg_pool import AsyncConnectionPool


@asynccontextmanager
async def saver(kind: str, place: str) -> AsyncIterator[Any]:
    """LangGraph's saver as its documentation sets it up: SQLite with full sync, PostgreSQL with a pool of 10.

    `memory` is the one that keeps nothing: nobody who runs LangGraph in one process can be faster.
    """
    if kind == "memory":
        yield InMemorySaver()
        return
    if kind == "sqlite":
        async with AsyncSqliteSaver.from_conn_string(str(Path(place) / "stock.db")) as opened:
            await opened.setup()
            yield opened
        return
    options = {"autocommit": True, "prepare_threshold": 0, "row_factory": dict_row}
    async with AsyncConnectionPool(place, min_size=10, max_size=10, kwargs=options, open=False) as pool:
        opened = AsyncPostgresSaver(pool)
        await opened.setup()
        yield opened


async def runs_per_second(kind: str, place: str, *, runs: int, concurrency: int) -> float:
    """Finished runs a second; nothing but checkpoints is written."""
    async with saver(kind, place) as checkpointer:
        graph = five_nodes().compile(checkpointer=checkpointer)
        free = asyncio.Semaphore(concurrency)

        async def one() -> None:
            async with free:
                config = {"configurable": {"thread_id": uuid4().hex}}
                await graph.ainvoke({"log": [], "payload": PAYLOAD}, config, durability="sync")

        await asyncio.gather(*(one() for _ in range(min(20, runs))))
        began = time.perf_counter()
        await asyncio.gather(*(one() for _ in range(runs)))
        return runs / (time.perf_counter() - began)
