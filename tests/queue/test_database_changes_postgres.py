"""PostgreSQL's side of database changes: it tells us at once, a cut line loses nothing, values arrive as they are."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import asynccontextmanager, closing
from typing import Any

import asyncpg
import pytest
import sqlalchemy as sa
from tests.conftest import PostgresServer
from tests.loopback import on_loopback
from tests.queue.shops import ORDERS, PostgresShop, drained, engine_on, events, new_order, told

from eventwright.queue import database_changes_postgres
from eventwright.queue.database_changes import PAUSE, Drain, open_inbox, postgres_address
from eventwright.queue.database_triggers import BadTrigger, Wanted
from eventwright.runs.store import Store

#: What PostgreSQL says when a connection is made, and to everybody when it has to begin anew.
READY = b"Z\x00\x00\x00\x05I"
FATAL = b"SFATAL\0VFATAL\0C57P02\0Mterminating connection because of crash of another server process\0\0"
CRASH = b"E" + (len(FATAL) + 4).to_bytes(4, "big") + FATAL


@pytest.fixture
def shop_url(postgres_server: PostgresServer) -> Iterator[str]:
    with postgres_server.database() as url:
        yield url


@pytest.fixture
async def shop(shop_url: str) -> PostgresShop:
    shop = PostgresShop(shop_url)
    await shop.run(ORDERS)
    return shop


@pytest.fixture
async def store(sqlite_url: str) -> AsyncIterator[Store]:
    async with Store.open(sqlite_url) as store:
        yield store


@asynccontextmanager
async def listening(store: Store, shop: PostgresShop) -> AsyncIterator[None]:
    """A worker at the inbox, whose sweep never comes. It listens when this begins."""
    stopping = asyncio.Event()
    async with asyncio.TaskGroup() as tasks:  # one that ends before it is told to ends the test
        tasks.create_task(Drain(engine_on(store), shop.inbox()).run(stopping))
        try:
            await until(lambda: listeners(shop))
            yield
        finally:
            stopping.set()


async def until(holds: Callable[[], Awaitable[object]]) -> None:
    """pytest's timeout is the only limit."""
    while not await holds():
        await asyncio.sleep(0.01)


async def listeners(shop: PostgresShop) -> list[tuple[Any, ...]]:
    """Sessions of ours that listen, and have done whatever they began with."""
    idle = "SELECT pid FROM pg_stat_activity WHERE application_name = 'eventwright' AND state = 'idle'"
    return await shop.rows(idle)


async def count(store: Store) -> int:
    return len(await store.events(limit=1000))


class TestAListener:
    async def test_takes_a_change_as_soon_as_it_is_committed(self, shop: PostgresShop, store: Store) -> None:
        await shop.install()
        async with listening(store, shop):
            for number in range(3):
                await shop.run(new_order(number))
                await until(lambda: _has(store, number + 1))  # noqa: B023 - it is called in this round
        assert [subject for _, subject, _ in await told(store)] == ["0", "1", "2"]

    async def test_whose_line_is_cut_comes_back_and_takes_what_happened_meanwhile(
        self, shop: PostgresShop, store: Store, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr("eventwright.queue.database_changes.PAUSE", 0.1)
        await shop.install()
        async with listening(store, shop):
            for number in range(3):
                # The change and the end of the session that would have heard of it are one.
                await shop.run(
                    new_order(number),
                    "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE application_name = 'eventwright'",
                )
                await until(lambda: _has(store, number + 1))  # noqa: B023 - it is called in this round
        assert [subject for _, subject, _ in await told(store)] == ["0", "1", "2"]

    async def test_survives_a_restart_of_the_server(
        self, shop: PostgresShop, store: Store, postgres_server: PostgresServer, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr("eventwright.queue.database_changes.PAUSE", 0.1)
        await shop.install()
        async with listening(store, shop):
            with postgres_server.stopped():
                pass
            await shop.run("INSERT INTO orders VALUES (1, 'new', NULL)")
            await until(lambda: _has(store, 1))

    async def test_of_a_server_that_crashes_while_the_connection_is_made_tries_it_again(
        self, shop_url: str, store: Store, caplog: pytest.LogCaptureFixture
    ) -> None:
        """The driver has words of its own for that, which are those of no error of the server."""
        parsed = sa.make_url(shop_url)

        async def crash(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            answers, questions = await asyncio.open_unix_connection(f"{parsed.query['host']}/.s.PGSQL.5432")
            with closing(questions):
                questions.write(await reader.read(65536))
                writer.write((await answers.readuntil(READY)) + CRASH)
                await writer.drain()

        async with on_loopback(crash) as port:
            inbox = open_inbox("shop", f"postgresql://postgres@127.0.0.1:{port}/{parsed.database}?sslmode=disable")
            assert await Drain(engine_on(store), inbox).once() == PAUSE
        assert "'shop' does not give its changes" in caplog.text

    async def test_that_freezes_with_the_inbox_in_its_hands_is_let_go_of_and_another_goes_on(
        self, shop: PostgresShop, store: Store, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(database_changes_postgres, "LONGEST_SILENCE", 1)
        await shop.install()
        await shop.run("INSERT INTO orders VALUES (1, 'new', NULL)")
        frozen, begun, go = shop.inbox(), asyncio.Event(), asyncio.Event()

        async def judge(rows: Any) -> list[None]:
            begun.set()
            await go.wait()
            return [None for _ in rows]

        taking = asyncio.create_task(frozen.take(judge))
        await begun.wait()
        assert await drained(store, shop) is None
        assert await count(store) == 0  # one at a time, for the order's sake
        while not await count(store):
            await drained(store, shop)
        go.set()
        with pytest.raises(ConnectionError):
            await taking
        await frozen.close()
        assert await count(store) == 1

    async def test_may_find_no_inbox_and_hears_of_the_first_change_all_the_same(
        self, shop: PostgresShop, store: Store
    ) -> None:
        async with listening(store, shop):
            await shop.install()
            await shop.run("INSERT INTO orders VALUES (1, 'new', NULL)")
            await until(lambda: _has(store, 1))


async def _has(store: Store, number: int) -> bool:
    return await count(store) == number


COLUMNS = {
    "whole": ("integer", "7", 7),
    "large": ("bigint", "9223372036854775807", "9223372036854775807"),
    "money": ("numeric(12, 2)", "19.90", "19.90"),
    "exact": ("numeric", "12345678901234567890.123", "12345678901234567890.123"),
    "none": ("numeric", "'NaN'", "NaN"),
    "price": ("amount", "3.10", "3.10"),
    "real": ("float8", "0.1", 0.1),
    "endless": ("float8", "'Infinity'", "Infinity"),
    "huge": ("float8", "1e300", "1e+300"),
    "truth": ("boolean", "true", True),
    "nothing": ("text", "NULL", None),
    "words": ("text", r"E'a \U0001F600 \" \\ \n'", 'a 😀 " \\ \n'),
    "escape": ("text", r"'\u0000'", "\\u0000"),
    "document": ("jsonb", """'{"a": [1.5, null, {"b": 12345678901234567890}]}'""", None),
    "moment": ("timestamptz", "'2026-01-02 03:04:05.6+05'", "2026-01-01T22:04:05.6+00:00"),
    "local": ("timestamp", "'2026-01-02 03:04:05'", "2026-01-02T03:04:05"),
    "day": ("date", "'2026-01-02'", "2026-01-02"),
    "span": ("interval", "'1 day 2 hours'", "P1DT2H"),
    "name": ("uuid", "'5e2f1f0e-0000-4000-8000-00000000000a'", "5e2f1f0e-0000-4000-8000-00000000000a"),
    "bytes": ("bytea", r"'\x00ff'", "\\x00ff"),
    "list": ("integer[]", "'{1,NULL,3}'", [1, None, 3]),
    "mood": ("mood", "'so so'", "so so"),
    "Upper Case": ("text", "'x'", "x"),
}


async def test_values_of_every_type_arrive_exactly_whatever_session_writes_them(
    shop: PostgresShop, store: Store
) -> None:
    declared = ", ".join(f'"{name}" {kind}' for name, (kind, _, _) in COLUMNS.items())
    values = ", ".join(value for _, value, _ in COLUMNS.values())
    await shop.run(
        "CREATE DOMAIN amount AS numeric(12, 2)",
        "CREATE TYPE mood AS ENUM ('so so')",
        f'CREATE TABLE "All" (id integer PRIMARY KEY, {declared})',
    )
    await shop.install("All")
    await shop.run(
        "SET LOCAL timezone = 'Asia/Tokyo'",
        "SET LOCAL bytea_output = 'escape'",
        "SET LOCAL intervalstyle = 'postgres_verbose'",
        "SET LOCAL extra_float_digits = -10",
        f'INSERT INTO "All" VALUES (1, {values})',  # noqa: S608
    )
    await drained(store, shop)
    (event,) = await events(store)
    expected = {name: value for name, (_, _, value) in COLUMNS.items()}
    expected["document"] = {"a": [1.5, None, {"b": "12345678901234567890"}]}
    assert event.data["new"] == {"id": 1, **expected}


async def test_json_that_no_reader_could_read_does_not_fail_the_users_transaction(
    shop: PostgresShop, store: Store
) -> None:
    deep = "[" * 100 + "]" * 100
    await shop.run("CREATE TABLE notes (id integer PRIMARY KEY, body json, text text)")
    await shop.install("notes")
    await shop.run(
        r"""INSERT INTO notes VALUES (1, '{"a": "\u0000", "b": "\ud800", "c": "\ud83d\ude00"}', 'x')""",
        rf"""INSERT INTO notes VALUES (2, '{deep}', '\ud800')""",  # noqa: S608
        r"""INSERT INTO notes VALUES (3, '"\ud83d\ude00"', '')""",
    )
    await drained(store, shop)
    one, two, three = [event.data for event in await events(store)]
    assert one["new"]["body"]["a"] == one["new"]["body"]["b"] == "\ufffd"
    assert (two["new"], two["omitted"]) == ({"id": 2, "text": "\\ud800"}, ["body"])
    assert three["new"]["body"] == "😀"


async def test_a_column_may_be_dropped_or_added_later(shop: PostgresShop, store: Store) -> None:
    await shop.install()
    await shop.run("ALTER TABLE orders DROP COLUMN note", "ALTER TABLE orders ADD COLUMN total numeric(8, 2)")
    await shop.run("INSERT INTO orders VALUES (1, 'new', 9.50)")
    await drained(store, shop)
    assert (await events(store))[0].data["new"] == {"id": 1, "status": "new", "total": "9.50"}


async def test_a_table_in_a_schema_of_its_own_is_told_apart_from_one_of_the_same_name(
    shop: PostgresShop, store: Store
) -> None:
    await shop.run('CREATE SCHEMA "Back office"', 'CREATE TABLE "Back office".orders (id integer PRIMARY KEY)')
    await shop.install()
    await shop.install('"Back office".orders')
    await shop.run('INSERT INTO "Back office".orders VALUES (1)', "INSERT INTO orders VALUES (1, 'new', NULL)")
    await drained(store, shop)
    assert [(event.source, event.type) for event in await events(store)] == [
        ("/databases/shop/Back%20office.orders", "Back%20office.orders.insert"),
        ("/databases/shop/orders", "orders.insert"),
    ]


async def test_a_partitioned_table_tells_its_changes_as_its_own(shop: PostgresShop, store: Store) -> None:
    await shop.run(
        "CREATE TABLE sales (id integer, year integer, PRIMARY KEY (id, year)) PARTITION BY LIST (year)",
        "CREATE TABLE sales_26 PARTITION OF sales FOR VALUES IN (2026)",
    )
    await shop.install("sales")
    await shop.run("INSERT INTO sales VALUES (1, 2026)")
    await drained(store, shop)
    assert [(event.source, event.subject) for event in await events(store)] == [("/databases/shop/sales", "1,2026")]
    assert [one.table for one in (await shop.look()).triggers] == ["sales"] * 3


async def test_a_condition_is_one_condition_and_no_further_statement(shop: PostgresShop) -> None:
    more = (
        "true) EXECUTE FUNCTION eventwright_note_change('a', 'b'); CREATE TABLE more (id integer); "
        "CREATE TRIGGER more AFTER UPDATE ON orders FOR EACH ROW WHEN (true"
    )
    with pytest.raises(BadTrigger, match="multiple commands"):
        await shop.install(when=more)
    assert (await shop.look()).triggers == ()


class TestRights:
    @pytest.fixture
    def clerk(self, postgres_server: PostgresServer) -> Iterator[str]:
        postgres_server.execute("CREATE ROLE clerk")
        try:
            yield "clerk"
        finally:
            postgres_server.execute("DROP ROLE clerk")

    async def test_who_may_change_the_table_needs_no_rights_to_the_inbox_and_has_none(
        self, shop: PostgresShop, store: Store, clerk: str
    ) -> None:
        await shop.install()
        try:
            await shop.run("GRANT INSERT ON orders TO clerk", "GRANT CREATE ON SCHEMA public TO clerk")
            await shop.run("SET LOCAL ROLE clerk", "INSERT INTO orders VALUES (1, 'new', NULL)")
            for forbidden in (
                "SELECT * FROM eventwright_inbox",
                "DELETE FROM eventwright_inbox",
                "CREATE TABLE mine (id integer); CREATE TRIGGER forged AFTER INSERT ON mine FOR EACH ROW "
                "EXECUTE FUNCTION eventwright_note_change('orders', 'order.paid')",
            ):
                with pytest.raises(asyncpg.InsufficientPrivilegeError):
                    await shop.run("SET LOCAL ROLE clerk", forbidden)
        finally:
            await shop.run("DROP OWNED BY clerk")
        await drained(store, shop)
        assert await told(store) == [("insert", "1", "new")]

    async def test_an_inbox_that_somebody_else_has_laid_out_is_not_used(self, shop: PostgresShop, clerk: str) -> None:
        await shop.run("CREATE ROLE installer", "GRANT CREATE ON SCHEMA public TO installer, clerk")
        try:
            await shop.run("SET LOCAL ROLE clerk", "CREATE TABLE eventwright_inbox (position bigint)")
            await shop.run("ALTER TABLE orders OWNER TO installer")
            async with shop.triggers() as triggers:
                await triggers._connection.execute("SET ROLE installer")  # type: ignore[attr-defined]
                with pytest.raises(BadTrigger, match="belongs to another role"):
                    await triggers.install(Wanted(table="orders"))
        finally:
            await shop.run("DROP OWNED BY clerk, installer", "DROP ROLE installer")


def test_the_name_of_a_driver_in_an_address_is_left_out() -> None:
    assert postgres_address("shop", "postgresql+asyncpg://u@h/d?host=/x") == "postgresql://u@h/d?host=/x"
