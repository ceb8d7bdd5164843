"""SQLite's side of database changes: the user's file is read with the sweep, and its users do not wait for us."""

from __future__ import annotations

import asyncio
import sqlite3
from collections.abc import AsyncIterator
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest
from tests.queue.shops import ORDERS, SqliteShop, drained, engine_on, events, told

from eventwright.queue import database_changes, database_changes_sqlite
from eventwright.queue.database_changes import BadDatabase, Drain, sqlite_path
from eventwright.runs.store import Store


@pytest.fixture
async def shop(tmp_path: Path) -> SqliteShop:
    (tmp_path / "shop.db").touch()
    shop = SqliteShop(f"sqlite:///{tmp_path / 'shop.db'}")
    await shop.run(ORDERS)
    return shop


@pytest.fixture
async def store(sqlite_url: str) -> AsyncIterator[Store]:
    async with Store.open(sqlite_url) as store:
        yield store


async def test_a_sweep_finds_a_change_that_nobody_told_of(shop: SqliteShop, store: Store) -> None:
    await shop.install()
    stopping = asyncio.Event()
    task = asyncio.create_task(Drain(engine_on(store, sweep=0.05), shop.inbox()).run(stopping))
    await shop.run("INSERT INTO orders VALUES (1, 'new', NULL)")
    while not await store.events():
        await asyncio.sleep(0.01)
    stopping.set()
    await task
    assert await told(store) == [("insert", "1", "new")]


async def test_a_row_that_somebody_else_wrote_into_the_inbox_is_put_aside_and_holds_up_nobody(
    shop: SqliteShop, store: Store
) -> None:
    await shop.install()
    for at in ("'yesterday'", "7"):
        await shop.run(
            f"INSERT INTO eventwright_inbox (changed_at, source, type, operation, changed, omitted) "  # noqa: S608
            f"VALUES ({at}, 'orders', 'orders.insert', 'insert', '[]', '[]')"
        )
    await shop.run("INSERT INTO orders VALUES (1, 'new', NULL)")
    await drained(store, shop)
    assert await told(store) == [("insert", "1", "new")]


async def test_values_arrive_exactly_whatever_their_type(shop: SqliteShop, store: Store) -> None:
    values: dict[str, tuple[Any, Any]] = {
        "nothing": (None, None),
        "whole": (7, 7),
        "large": (2**63 - 1, str(2**63 - 1)),
        "real": (0.1 + 0.2, 0.1 + 0.2),
        "endless": (float("inf"), "Inf"),
        "bytes": (b"\x00\xff", "\\x00ff"),
        "words": ('a 😀 " \\ \n', 'a 😀 " \\ \n'),
        "document": ('{"a": 1}', '{"a": 1}'),
        "Upper Case": ("x", "x"),
    }
    names = ", ".join(f'"{name}"' for name in values)
    await shop.run(f"CREATE TABLE a (id integer PRIMARY KEY, {names})")
    await shop.install("a")
    with closing(sqlite3.connect(shop.path)) as connection:
        given = [value for value, _ in values.values()]
        connection.execute(f"INSERT INTO a VALUES (1{', ?' * len(given)})", given)  # noqa: S608
        connection.commit()
    await drained(store, shop)
    (event,) = await events(store)
    assert event.data["new"] == {"id": 1, **{name: told for name, (_, told) in values.items()}}


async def test_text_that_is_none_comes_with_marks_in_it(shop: SqliteShop, store: Store) -> None:
    await shop.install()
    await shop.run("INSERT INTO orders VALUES (1, CAST(x'ff41' AS text), 'a' || char(0) || 'b')")
    await drained(store, shop)
    (event,) = await events(store)
    assert event.data["new"] == {"id": 1, "status": "\ufffdA", "note": "a\ufffdb"}


async def test_a_column_that_a_trigger_names_is_not_dropped_before_the_trigger_is(
    shop: SqliteShop, store: Store
) -> None:
    await shop.install()
    with pytest.raises(sqlite3.OperationalError, match="eventwright:orders"):
        await shop.run("ALTER TABLE orders DROP COLUMN note")
    await shop.uninstall()
    await shop.run("ALTER TABLE orders DROP COLUMN note")
    await shop.install()
    await shop.run("INSERT INTO orders VALUES (1, 'new')")
    await drained(store, shop)
    assert (await events(store))[0].data["new"] == {"id": 1, "status": "new"}


async def test_a_column_that_came_later_is_named_until_the_trigger_is_installed_again(shop: SqliteShop) -> None:
    await shop.install(operations=("insert",))
    await shop.run("ALTER TABLE orders ADD COLUMN total")
    assert [one.unknown for one in (await shop.look()).triggers] == [("total",)]
    await shop.install(operations=("insert",))
    assert [one.unknown for one in (await shop.look()).triggers] == [()]


async def test_a_trigger_of_somebody_else_is_not_taken_for_ours(shop: SqliteShop) -> None:
    await shop.run('CREATE TRIGGER "eventwright:mine" AFTER INSERT ON orders BEGIN SELECT 1;\n/* eventwright {} */ END')
    assert (await shop.look()).triggers == ()
    await shop.uninstall()
    assert await shop.rows("SELECT name FROM sqlite_master WHERE type = 'trigger'") == [("eventwright:mine",)]


async def test_a_locked_file_is_tried_again_and_what_was_stored_meanwhile_is_stored_once(
    shop: SqliteShop, store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(database_changes_sqlite, "LOCK_SECONDS", 0.05)
    await shop.install()
    await shop.run("INSERT INTO orders VALUES (1, 'new', NULL)")
    with closing(sqlite3.connect(shop.path, isolation_level=None)) as somebody:
        somebody.execute("BEGIN IMMEDIATE")
        assert await drained(store, shop) == database_changes.PAUSE
        assert len(await store.events()) == 1
        somebody.execute("ROLLBACK")
    assert await drained(store, shop) is None
    assert (len(await store.events()), (await shop.look()).waiting) == (1, 0)


async def test_a_user_does_not_wait_while_changes_are_stored(shop: SqliteShop) -> None:
    await shop.install()
    await shop.run("INSERT INTO orders VALUES (1, 'new', NULL)")
    begun, go, inbox = asyncio.Event(), asyncio.Event(), shop.inbox()

    async def judge(rows: Any) -> list[None]:
        begun.set()
        await go.wait()
        return [None for _ in rows]

    taking = asyncio.create_task(inbox.take(judge))
    await begun.wait()
    with closing(sqlite3.connect(shop.path, timeout=0)) as somebody:
        somebody.execute("INSERT INTO orders VALUES (2, 'new', NULL)")
        somebody.commit()
    go.set()
    assert await taking is False
    assert (await shop.look()).waiting == 1


async def test_an_insert_that_cannot_be_made_at_all_is_no_reason_to_refuse_a_trigger(shop: SqliteShop) -> None:
    await shop.run("CREATE TABLE strict (id integer PRIMARY KEY, name text NOT NULL)")
    assert len((await shop.install("strict")).checks) == 3
    assert len((await shop.look()).triggers) == 3


@pytest.mark.parametrize("url", ["sqlite://", "sqlite:///", "sqlite:shop.db", "mysql:///x"])
def test_an_address_without_a_file_is_none(url: str) -> None:
    with pytest.raises(BadDatabase, match="'shop'"):
        sqlite_path("shop", url)


def test_a_file_is_named_relative_or_absolute() -> None:
    assert sqlite_path("shop", "sqlite:///shop.db") == Path("shop.db")
    assert sqlite_path("shop", "sqlite+aiosqlite:////var/shop.db?x=1") == Path("/var/shop.db")
