"""Triggers are installed as they were shown, all of them or none. On both kinds of database."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Any

import pytest
from tests.queue.shops import Shop, drained, events

from eventwright.queue.database_triggers import BadTrigger, UnknownTable, Wanted
from eventwright.runs.store import Store

PAID = "OLD.status <> 'paid' AND NEW.status = 'paid'"


@pytest.fixture
async def store(sqlite_url: str) -> AsyncIterator[Store]:
    async with Store.open(sqlite_url) as store:
        yield store


class TestInstalling:
    @pytest.mark.parametrize("condition", ["NEW.nope = 1", "nonsense(", "true); DROP TABLE orders; SELECT (1", ""])
    async def test_a_condition_that_the_database_does_not_take_changes_nothing(
        self, shop: Shop, condition: str
    ) -> None:
        await shop.install(type="order.paid", when=PAID)
        before = await shop.look()
        with pytest.raises(BadTrigger, match="nothing was changed"):
            await shop.install(type="order.paid", operations=("update",), when=condition)
        assert await shop.look() == before
        await shop.run("INSERT INTO orders VALUES (1, 'new', '')")

    async def test_again_replaces_what_was_there_of_the_same_type(self, shop: Shop, store: Store) -> None:
        await shop.install(type="order.paid", operations=("insert", "update"))
        await shop.install(type="order.seen", operations=("insert",))
        await shop.install(type="order.paid", when=PAID)
        kept = {(one.type, one.operation, one.when is not None) for one in (await shop.look()).triggers}
        assert kept == {("order.seen", "insert", False), ("order.paid", "update", True)}

    async def test_says_which_tables_and_columns_there_are_not(self, shop: Shop) -> None:
        with pytest.raises(UnknownTable, match="'nope'"):
            await shop.install("nope")
        with pytest.raises(BadTrigger, match="nope"):
            await shop.install(columns=("nope",))

    @pytest.mark.parametrize(
        ("wanted", "words"),
        [
            ({"operations": ("upsert",)}, "'upsert' is no operation"),
            ({"operations": ("insert",), "columns": ("status",)}, "set by updates alone"),
            ({"type": "eventwright.undo"}, "Eventwright's own"),
            ({"type": ""}, "1 to 200 printable"),
            ({"type": "a\nb"}, "1 to 200 printable"),
        ],
    )
    def test_refuses_what_can_be_on_no_table(self, wanted: dict[str, Any], words: str) -> None:
        with pytest.raises(BadTrigger, match=words):
            Wanted(table="orders", **wanted)

    async def test_nothing_is_run_that_was_not_asked_to_be(self, shop: Shop) -> None:
        async with shop.triggers() as triggers:
            plan = await triggers.install(Wanted(table="orders"))
        assert plan.sql.startswith("BEGIN;\n")
        assert (await shop.look()).triggers == ()

    async def test_taking_it_away_leaves_what_waits_to_be_taken(self, shop: Shop, store: Store) -> None:
        await shop.install()
        await shop.install(type="order.paid")
        await shop.run("INSERT INTO orders VALUES (1, 'new', '')")
        await shop.uninstall(type="order.paid")
        assert {one.type for one in (await shop.look()).triggers} == {"orders.insert", "orders.update", "orders.delete"}
        await shop.uninstall()
        await shop.run("INSERT INTO orders VALUES (2, 'new', '')")
        await drained(store, shop)
        assert {(event.type, event.subject) for event in await events(store)} == {
            ("orders.insert", "1"),
            ("order.paid", "1"),
        }
