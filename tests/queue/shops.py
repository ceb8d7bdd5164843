"""Databases of a user's, whose changes start runs: a SQLite file and a PostgreSQL database, used alike by the tests."""

from __future__ import annotations

import asyncio
import sqlite3
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, closing
from pathlib import Path
from typing import Any

import asyncpg

from eventwright.graphs.runner import Runner
from eventwright.graphs.workflow import Workflow, Workflows
from eventwright.queue.database_changes import Drain, Inbox, open_inbox, postgres_address
from eventwright.queue.database_triggers import Found, Plan, Triggers, Wanted
from eventwright.queue.database_triggers_postgres import postgres_triggers
from eventwright.queue.database_triggers_sqlite import SqliteTriggers
from eventwright.queue.engine import Engine, Lapse
from eventwright.runs.event import Event, new_id
from eventwright.runs.store import Store
from eventwright.tools.contract import Resources

ORDERS = "CREATE TABLE orders (id integer PRIMARY KEY, status text, note text)"


def new_order(number: int, *, note: str = "NULL") -> str:
    return f"INSERT INTO orders VALUES ({number}, 'new', {note})"  # noqa: S608


class Shop:
    """The user's side of a database called `shop`."""

    kind: str

    def __init__(self, url: str) -> None:
        self.url = url

    async def run(self, *statements: str, roll_back: bool = False) -> None:
        """Run the statements as the user would, in one transaction."""
        raise NotImplementedError

    async def rows(self, query: str) -> list[tuple[Any, ...]]:
        raise NotImplementedError

    @asynccontextmanager
    async def triggers(self) -> AsyncIterator[Triggers]:
        raise NotImplementedError
        yield

    async def install(self, table: str = "orders", **wanted: Any) -> Plan:
        async with self.triggers() as triggers:
            plan = await triggers.install(Wanted(table=table, **wanted))
            await triggers.run(plan)
            return plan

    async def uninstall(self, table: str = "orders", type: str | None = None) -> None:
        async with self.triggers() as triggers:
            await triggers.run(await triggers.uninstall(table, type))

    async def look(self) -> Found:
        async with self.triggers() as triggers:
            return await triggers.look()

    def inbox(self) -> Inbox:
        return open_inbox("shop", self.url)


class SqliteShop(Shop):
    kind = "sqlite"

    async def run(self, *statements: str, roll_back: bool = False) -> None:
        def work() -> None:
            with closing(sqlite3.connect(self.path, isolation_level=None)) as connection:
                connection.execute("BEGIN")
                for statement in statements:
                    connection.execute(statement)
                connection.execute("ROLLBACK" if roll_back else "COMMIT")

        await asyncio.to_thread(work)

    async def rows(self, query: str) -> list[tuple[Any, ...]]:
        with closing(sqlite3.connect(self.path)) as connection:
            return connection.execute(query).fetchall()

    @property
    def path(self) -> Path:
        return Path(self.url.removeprefix("sqlite:///"))

    @asynccontextmanager
    async def triggers(self) -> AsyncIterator[Triggers]:
        yield SqliteTriggers(self.path)


class PostgresShop(Shop):
    kind = "postgres"

    @asynccontextmanager
    async def connection(self) -> AsyncIterator[Any]:
        connection = await asyncpg.connect(postgres_address("shop", self.url))
        try:
            yield connection
        finally:
            await connection.close()

    async def run(self, *statements: str, roll_back: bool = False) -> None:
        async with self.connection() as connection:
            transaction = connection.transaction()
            await transaction.start()
            for statement in statements:
                await connection.execute(statement)
            await (transaction.rollback() if roll_back else transaction.commit())

    async def rows(self, query: str) -> list[tuple[Any, ...]]:
        async with self.connection() as connection:
            return [tuple(row) for row in await connection.fetch(query)]

    @asynccontextmanager
    async def triggers(self) -> AsyncIterator[Triggers]:
        async with postgres_triggers("shop", self.url) as triggers:
            yield triggers


def engine_on(store: Store, *workflows: Workflow, sweep: float = 3600.0, **more: Any) -> Engine:
    """An engine whose sweep never comes: what happens, happens because somebody was told."""
    times = Lapse(sweep=sweep)
    return Engine(store, Workflows(workflows), Runner(store, Resources()), worker=new_id("worker"), times=times, **more)


async def drained(store: Store, shop: Shop, *workflows: Workflow, **more: Any) -> float | None:
    """A worker comes by and takes what is there; for how many seconds it wants to wait, if it does."""
    inbox = shop.inbox()
    try:
        return await Drain(engine_on(store, *workflows, **more), inbox).once()
    finally:
        await inbox.close()


async def events(store: Store) -> list[Event]:
    """All that were taken in, the oldest first."""
    return [stored.event for stored in reversed(await store.events(limit=1000))]


async def told(store: Store) -> list[tuple[str, str | None, Any]]:
    """Operation, subject and new status of each event, the oldest first."""
    return [
        (event.data["operation"], event.subject, (event.data["new"] or {}).get("status"))
        for event in await events(store)
    ]
