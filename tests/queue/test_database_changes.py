"""A change in the user's database is one event, whatever happens to whoever reads it. On both kinds of database."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
from pydantic import BaseModel
from tests.outside import chain
from tests.queue.shops import PostgresShop, Shop, SqliteShop, drained, engine_on, events, new_order, told

from eventwright.app.composition import open_app
from eventwright.app.settings import Settings
from eventwright.graphs.workflow import On, Workflow
from eventwright.queue import database_changes
from eventwright.queue.database_changes import Drain
from eventwright.queue.intake import ReservedEvent
from eventwright.runs.errors import StoreUnavailable
from eventwright.runs.event import Event
from eventwright.runs.failpoints import Failpoint, on_failpoint
from eventwright.runs.records import EventState
from eventwright.runs.states import RunState
from eventwright.runs.store import Store

PAID = "OLD.status <> 'paid' AND NEW.status = 'paid'"


@pytest.fixture
async def store(sqlite_url: str) -> AsyncIterator[Store]:
    async with Store.open(sqlite_url) as store:
        yield store


async def look(state: Any) -> dict[str, Any]:
    return {}


def workflow(*triggers: On) -> Workflow:
    return Workflow("orders", version="1", graph=chain(look=look), triggers=triggers)


ON_PAID = workflow(On("order.paid"))


async def waiting(shop: Shop) -> int:
    return (await shop.look()).waiting


class TestAChange:
    async def test_of_status_starts_one_run_though_nobody_listened_when_it_happened(
        self, shop: Shop, store: Store
    ) -> None:
        await shop.install(type="order.paid", when=PAID)
        await shop.run("INSERT INTO orders VALUES (7, 'new', NULL)")
        await shop.run("UPDATE orders SET status = 'paid'")
        await shop.run("UPDATE orders SET status = 'paid', note = 'again'")

        for _ in range(3):
            assert await drained(store, shop, ON_PAID) is None

        (run,) = await store.runs()
        assert (run.event.type, run.event.source, run.event.subject) == ("order.paid", "/databases/shop/orders", "7")
        assert run.event.data == {
            "operation": "update",
            "key": {"id": 7},
            "old": {"id": 7, "status": "new", "note": None},
            "new": {"id": 7, "status": "paid", "note": None},
            "changed": ["status"],
            "omitted": [],
        }
        assert await waiting(shop) == 0

    async def test_that_is_rolled_back_never_was(self, shop: Shop, store: Store) -> None:
        await shop.install()
        await shop.run("INSERT INTO orders VALUES (1, 'new', NULL)", roll_back=True)
        await drained(store, shop)
        assert await told(store) == []

    async def test_of_each_kind_tells_its_row_before_and_after(self, shop: Shop, store: Store) -> None:
        await shop.install()
        await shop.run(
            "INSERT INTO orders VALUES (1, 'new', 'a')", "UPDATE orders SET note = 'b'", "DELETE FROM orders"
        )
        await drained(store, shop)
        assert [event.type for event in await events(store)] == ["orders.insert", "orders.update", "orders.delete"]
        inserted, updated, deleted = [event.data for event in await events(store)]
        assert (inserted["old"], inserted["new"]["note"], inserted["changed"]) == (None, "a", [])
        assert (updated["old"]["note"], updated["new"]["note"], updated["changed"]) == ("a", "b", ["note"])
        assert (deleted["old"]["note"], deleted["new"], deleted["key"]) == ("b", None, {"id": 1})

    async def test_that_changes_nothing_is_none(self, shop: Shop, store: Store) -> None:
        await shop.run("INSERT INTO orders VALUES (1, 'new', NULL)")
        await shop.install()
        await shop.run("UPDATE orders SET status = status")
        assert await waiting(shop) == 0

    async def test_of_other_columns_than_those_that_were_asked_for_is_none(self, shop: Shop, store: Store) -> None:
        await shop.run("INSERT INTO orders VALUES (1, 'new', NULL)")
        await shop.install(columns=("status",))
        await shop.run("UPDATE orders SET note = 'x'", "UPDATE orders SET status = 'paid'")
        await drained(store, shop)
        assert await told(store) == [("update", "1", "paid")]

    async def test_of_a_table_without_a_key_has_no_subject_and_of_one_with_two_has_both(
        self, shop: Shop, store: Store
    ) -> None:
        await shop.run("CREATE TABLE notes (words text)", "CREATE TABLE lines (a text, b text, PRIMARY KEY (a, b))")
        await shop.install("notes")
        await shop.install("lines")
        await shop.run("INSERT INTO notes VALUES ('x')", "INSERT INTO lines VALUES ('1,2', '3')")
        await drained(store, shop)
        assert [(event.subject, event.data["key"]) for event in await events(store)] == [
            (None, None),
            ("1%2C2,3", {"a": "1,2", "b": "3"}),
        ]

    async def test_in_an_update_of_many_rows_is_one_event_for_each_in_their_order(
        self, shop: Shop, store: Store
    ) -> None:
        numbers = "WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < 350) SELECT i, 'new' FROM n"
        await shop.run(f"INSERT INTO orders (id, status) {numbers}")
        await shop.install(type="order.paid", when=PAID)
        await shop.run("UPDATE orders SET status = 'paid'")
        await drained(store, shop)
        assert [int(subject or 0) for _, subject, _ in await told(store)] == [*range(1, 351)]
        assert await waiting(shop) == 0


class TestAWorker:
    @pytest.mark.parametrize("point", [Failpoint.INTAKE_STORING, Failpoint.INTAKE_STORED])
    async def test_that_dies_before_or_after_it_has_stored_a_change_leaves_it_to_be_stored_once(
        self, shop: Shop, store: Store, point: Failpoint
    ) -> None:
        await shop.install(type="order.paid")
        await shop.run("INSERT INTO orders VALUES (1, 'a', '')", "INSERT INTO orders VALUES (2, 'b', '')")
        await shop.run("UPDATE orders SET status = 'c'")

        def die(crossed: Failpoint) -> None:
            if crossed is point:
                raise KeyboardInterrupt

        inbox = shop.inbox()
        on_failpoint(die)
        try:
            with pytest.raises(KeyboardInterrupt):
                await Drain(engine_on(store, ON_PAID), inbox).once()
        finally:
            on_failpoint(None)
            await inbox.close()
        assert await waiting(shop) == 4

        await drained(store, shop, ON_PAID)
        assert await told(store) == [
            ("insert", "1", "a"),
            ("insert", "2", "b"),
            ("update", "1", "c"),
            ("update", "2", "c"),
        ]
        assert len(await store.runs()) == 4

    async def test_beside_others_at_the_same_inbox_takes_each_change_once_and_in_order(
        self, shop: Shop, store: Store
    ) -> None:
        await shop.install(type="order.paid", operations=("insert",))
        for number in range(30):
            await shop.run(new_order(number))
        await asyncio.gather(*(drained(store, shop, ON_PAID) for _ in range(4)))
        await drained(store, shop, ON_PAID)
        assert [int(run.event.subject or 0) for run in await store.runs(limit=100)] == [*reversed(range(30))]

    async def test_that_finds_a_change_stored_in_other_words_by_another_release_leaves_it_at_that(
        self, shop: Shop, store: Store
    ) -> None:
        await shop.install()
        await shop.run(new_order(1))
        (kept,) = await shop.rows("SELECT id FROM eventwright_inbox")
        earlier = Event(id=str(kept[0]), source="/databases/shop/orders", type="orders.insert", data={"other": "words"})
        await engine_on(store).fire(earlier)
        await drained(store, shop)
        assert [event.data for event in await events(store)] == [{"other": "words"}]
        found = await shop.look()
        assert (found.waiting, found.put_aside) == (0, 0)

    async def test_that_stops_puts_nothing_away_that_it_has_not_stored(self, shop: Shop, store: Store) -> None:
        await shop.install()
        await shop.run("INSERT INTO orders VALUES (1, 'a', '')", "INSERT INTO orders VALUES (2, 'b', '')")
        stopping, inbox = asyncio.Event(), shop.inbox()

        def stop(crossed: Failpoint) -> None:
            if crossed is Failpoint.INTAKE_STORED:
                stopping.set()

        on_failpoint(stop)
        try:
            await Drain(engine_on(store), inbox).run(stopping)
        finally:
            on_failpoint(None)
        assert (await told(store), await waiting(shop)) == ([("insert", "1", "a")], 1)

    async def test_that_is_told_there_is_too_much_already_leaves_the_rest_for_later(
        self, shop: Shop, store: Store
    ) -> None:
        await shop.install(type="order.paid")
        await shop.run(*(new_order(number) for number in range(5)))
        assert await drained(store, shop, ON_PAID, most_backlog=2) == 5.0
        assert (len(await store.runs()), await waiting(shop)) == (2, 3)
        assert await drained(store, shop, ON_PAID) is None
        assert [subject for _, subject, _ in await told(store)] == ["0", "1", "2", "3", "4"]

    async def test_whose_own_database_is_away_leaves_what_there_is(
        self, shop: Shop, store: Store, caplog: pytest.LogCaptureFixture
    ) -> None:
        await shop.install()
        await shop.run("INSERT INTO orders VALUES (1, 'new', '')")

        def away(crossed: Failpoint) -> None:
            if crossed is Failpoint.INTAKE_STORING:
                raise StoreUnavailable("the database did not answer")

        on_failpoint(away)
        try:
            assert await drained(store, shop) == database_changes.PAUSE
        finally:
            on_failpoint(None)
        assert await waiting(shop) == 1
        await drained(store, shop)
        assert await told(store) == [("insert", "1", "new")]

    async def test_finds_nothing_where_no_trigger_is_installed(self, shop: Shop, store: Store) -> None:
        assert await drained(store, shop) is None

    async def test_complains_once_of_a_database_that_is_not_there(
        self, store: Store, tmp_path: Path, caplog: pytest.LogCaptureFixture
    ) -> None:
        for missing in (
            SqliteShop(f"sqlite:///{tmp_path / 'none.db'}"),
            PostgresShop(f"postgresql:///x?host={tmp_path}"),
        ):
            caplog.clear()
            drain = Drain(engine_on(store), missing.inbox())
            with caplog.at_level(logging.WARNING):
                assert [await drain.once(), await drain.once()] == [database_changes.PAUSE] * 2
            assert len(caplog.records) == 1
            assert "the database 'shop' does not give its changes" in caplog.text
        assert not (tmp_path / "none.db").exists()


async def test_a_worker_without_redis_runs_what_a_change_starts(
    shop: Shop, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("EVENTWRIGHT_DATABASE_SHOP_URL", shop.url)
    await shop.install(type="order.paid", when=PAID)
    settings, stopping = Settings(home=tmp_path / "home", redis_url="none"), asyncio.Event()
    async with open_app(settings, workflows=[ON_PAID], works=True) as app:
        work = asyncio.create_task(app.work(stopping))
        await shop.run(new_order(7))
        await shop.run("UPDATE orders SET status = 'paid'")
        while not await app.store.runs(states=[RunState.COMPLETED]):
            await asyncio.sleep(0.02)
        stopping.set()
        await work
        assert len(await app.store.runs()) == 1


class Paid(BaseModel):
    total: int


class TestARow:
    async def test_that_fits_no_payload_is_kept_as_a_refused_event_and_holds_up_nobody(
        self, shop: Shop, store: Store
    ) -> None:
        await shop.install(type="order.paid")
        await shop.run("INSERT INTO orders VALUES (1, 'new', '')", "INSERT INTO orders VALUES (2, 'new', '')")
        await drained(store, shop, workflow(On("order.paid", payload={"1": Paid})))
        assert len(await store.events(state=EventState.REFUSED)) == 2
        assert await waiting(shop) == 0

    async def test_that_can_be_no_event_is_put_aside_with_the_reason_and_holds_up_nobody(
        self, shop: Shop, store: Store, caplog: pytest.LogCaptureFixture
    ) -> None:
        await shop.install()
        await shop.run("INSERT INTO orders VALUES (1, 'new', '')", "INSERT INTO orders VALUES (2, 'new', '')")
        await shop.run(
            "UPDATE eventwright_inbox SET type = 'eventwright.undo' WHERE key LIKE '%1%'"
            if shop.kind == "sqlite"
            else "UPDATE eventwright_inbox SET type = 'eventwright.undo' WHERE key->>'id' = '1'"
        )
        for _ in range(2):
            await drained(store, shop)
        assert await told(store) == [("insert", "2", "new")]
        found = await shop.look()
        assert (found.waiting, found.put_aside) == (0, 1)
        assert "ReservedEvent" in found.problems[0]
        assert "is put aside" in caplog.text

    async def test_with_a_long_value_comes_without_it_and_says_so(self, shop: Shop, store: Store) -> None:
        await shop.install()
        long = "replace(hex(zeroblob(40000)), '00', 'long ')" if shop.kind == "sqlite" else "repeat('long ', 40000)"
        await shop.run(new_order(1, note=long))
        await drained(store, shop)
        (event,) = await events(store)
        assert (event.data["new"], event.data["omitted"]) == ({"id": 1, "status": "new"}, ["note"])

    async def test_with_many_values_that_are_too_long_together_comes_with_its_key_alone(
        self, shop: Shop, store: Store
    ) -> None:
        columns = [f"c{number}" for number in range(9)]
        await shop.run(f"CREATE TABLE wide (id integer PRIMARY KEY, {', '.join(f'{name} text' for name in columns)})")
        await shop.install("wide")
        long = "hex(zeroblob(30000))" if shop.kind == "sqlite" else "repeat('0', 60000)"
        for number, notes in enumerate([[long] * 9, [long] * 2 + ["NULL"] * 7]):
            await shop.run(f"INSERT INTO wide VALUES ({number}, {', '.join(notes)})")  # noqa: S608
        await drained(store, shop)
        one, other = [event.data for event in await events(store)]
        assert (one["new"], one["omitted"]) == ({"id": 0}, columns)
        assert (len(other["new"]), other["omitted"]) == (10, [])


HOSTILE = ["Order", 'a"b', "a'b", "x; DROP TABLE orders --", "ünï", "a.b", "%s", "100%", "$eventwright$", "*/", "{0}"]


class TestNames:
    @pytest.mark.parametrize("name", HOSTILE)
    async def test_of_tables_columns_and_types_are_what_they_are(self, shop: Shop, store: Store, name: str) -> None:
        table, column = ('"' + text.replace('"', '""') + '"' for text in (name, f"z{name}"))
        await shop.run(f"CREATE TABLE {table} (id integer PRIMARY KEY, {column} text)")
        plan = await shop.install(name, type=f"t {name}", columns=(f"z{name}",))
        again = await shop.install(name, type=f"t {name}", columns=(f"z{name}",))
        assert plan.label == again.label
        await shop.run(f"INSERT INTO {table} VALUES (1, 'a')", f"UPDATE {table} SET {column} = 'b'")  # noqa: S608
        await drained(store, shop)
        (event,) = await events(store)
        assert event.data["new"] == {"id": 1, f"z{name}": "b"}
        assert event.type == f"t {name}"
        assert event.source.isascii()
        (there,) = (await shop.look()).triggers
        assert (there.type, there.columns, there.operation) == (f"t {name}", (f"z{name}",), "update")
        await shop.uninstall(name)
        assert (await shop.look()).triggers == ()

    async def test_that_are_longer_than_the_database_keeps_do_not_make_two_triggers_one(
        self, shop: Shop, store: Store
    ) -> None:
        for end in "ab":
            await shop.install(type="order." + 60 * "x" + end)
        assert len((await shop.look()).triggers) == 6

    async def test_that_begin_a_source_like_ours_are_taken_from_nobody_else(self, store: Store) -> None:
        for source in ("/databases/shop/orders", "/DATABASES/x"):
            with pytest.raises(ReservedEvent, match="/databases/"):
                await engine_on(store).receive(Event(id="1", source=source, type="orders.insert", data={}))
