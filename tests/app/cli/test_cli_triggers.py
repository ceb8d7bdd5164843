"""What an operator does about database changes: sees the SQL, installs it, lists it, and a change starts a run."""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest
from tests.conftest import PostgresServer, in_a_loop_of_its_own

RETURNED = ("--type", "order.returned", "--when", "OLD.status <> 'returned' AND NEW.status = 'returned'")
MAKE = "CREATE TABLE orders (id integer PRIMARY KEY, customer text, amount text, status text)"
CHANGES = (
    "INSERT INTO orders VALUES (7, 'Ann', '8.00', 'sent')",
    "UPDATE orders SET status = 'returned'",
)


@pytest.fixture
def file(tmp_path: Path) -> Path:
    file = tmp_path / "shop.db"
    with closing(sqlite3.connect(file)) as connection:
        connection.execute(MAKE)
    return file


@pytest.fixture
def named(file: Path) -> dict[str, str]:
    return {"EVENTWRIGHT_DATABASE_SHOP_URL": f"sqlite:///{file}"}


@pytest.fixture
def shop_url(postgres_server: PostgresServer) -> Iterator[str]:
    with postgres_server.database() as url:
        run(url, MAKE)
        yield url


def run(url: str, *statements: str) -> None:
    import asyncpg

    async def work() -> None:
        connection = await asyncpg.connect(url.replace("+asyncpg", ""))
        for statement in statements:
            await connection.execute(statement)
        await connection.close()

    in_a_loop_of_its_own(work())


def change(file: Path) -> None:
    with closing(sqlite3.connect(file)) as connection:
        for statement in CHANGES:
            connection.execute(statement)
        connection.commit()


def test_a_change_in_sqlite_starts_a_run_of_a_worker_that_comes_by_later(
    shell: Any, file: Path, named: dict[str, str]
) -> None:
    said = shell("triggers", "install-sqlite", str(file), "orders", *RETURNED, **named)
    assert said.code == 0
    assert said.out.startswith("BEGIN;\nCREATE TABLE IF NOT EXISTS eventwright_inbox")
    assert "/databases/shop/orders" in said.err
    change(file)
    assert "shop: 1 trigger, 1 change waits" in shell("triggers", **named).out

    assert shell("worker", "--burst", **named).code == 0
    (event,) = shell("events", "--json", **named).json["items"]
    assert (event["type"], event["source"], event["subject"]) == ("order.returned", "/databases/shop/orders", "7")
    assert "order.returned" in shell("triggers", **named).out
    assert shell("triggers", "--json", **named).json["items"][0]["waiting"] == 0

    assert shell("triggers", "uninstall-sqlite", str(file), "orders", **named).out.startswith("BEGIN;\nDROP TRIGGER")
    assert "there is no trigger of ours" in shell("triggers", "uninstall-sqlite", str(file), "orders").out


def test_a_change_in_postgresql_becomes_an_event_and_its_trigger_goes_again(shell: Any, shop_url: str) -> None:
    named = {"EVENTWRIGHT_DATABASE_SHOP_EU_URL": shop_url}
    said = shell("triggers", "install-postgres", "orders", *RETURNED, **named)
    assert said.code == 0
    assert "CREATE OR REPLACE TRIGGER" in said.out
    assert "/databases/shop-eu/orders" in said.err
    run(shop_url, *CHANGES)
    assert shell("worker", "--burst", **named).code == 0
    (event,) = shell("events", "--json", **named).json["items"]
    assert (event["source"], event["data"]["new"]["status"]) == ("/databases/shop-eu/orders", "returned")
    (found,) = shell("triggers", "--json", **named).json["items"]
    assert [one["when"] for one in found["triggers"]] == [
        "((old.status <> 'returned'::text) AND (new.status = 'returned'::text))"
    ]
    doctor = {check["name"]: check for check in shell("doctor", "--json", **named).json["checks"]}
    assert doctor["database shop-eu"]["detail"] == "triggers on orders; no changes wait"
    assert shell("triggers", "uninstall-postgres", "orders", "--yes", **named).code == 0
    assert shell("triggers", "--json", **named).json["items"][0]["triggers"] == []


def test_what_is_only_printed_can_be_run_by_the_databases_own_shell(shell: Any, file: Path) -> None:
    said = shell("triggers", "install-sqlite", str(file), "orders", "--print", *RETURNED)
    with closing(sqlite3.connect(file)) as connection:
        assert connection.execute("SELECT count(*) FROM sqlite_master").fetchone() == (1,)
        connection.executescript(said.out)
        assert connection.execute("SELECT count(*) FROM sqlite_master WHERE type = 'trigger'").fetchone() == (1,)


def test_what_is_installed_can_be_read_by_a_program(shell: Any, file: Path) -> None:
    said = shell("triggers", "install-sqlite", str(file), "orders", "--on", "insert,delete", "--json").json
    assert (said["table"], said["done"], len(said["statements"])) == ("orders", True, 3)
    said = shell("triggers", "uninstall-sqlite", str(file), "orders", "--print", "--json").json
    assert (said["done"], len(said["statements"])) == (False, 2)


def test_which_database_is_meant_is_asked_for_with_the_names_that_there_are(shell: Any) -> None:
    none = shell("triggers", "install-postgres", "orders")
    assert (none.code, "EVENTWRIGHT_DATABASE_<NAME>_URL" in none.err) == (1, True)
    two = {"EVENTWRIGHT_DATABASE_A_URL": "postgresql:///a", "EVENTWRIGHT_DATABASE_B_URL": "postgresql:///b"}
    assert "a, b; say which one with --database" in shell("triggers", "install-postgres", "orders", **two).err
    other = shell("triggers", "install-postgres", "orders", "--database", "c", **two)
    assert "'c' is none of them" in other.err


def test_a_database_that_does_not_answer_is_said_beside_those_that_do(
    shell: Any, named: dict[str, str], tmp_path: Path
) -> None:
    away = named | {"EVENTWRIGHT_DATABASE_AWAY_URL": f"postgresql:///x?host={tmp_path}"}
    said = shell("triggers", **away)
    assert said.code == 1
    assert "the database 'away' does not give its changes" in said.out
    assert "shop: no triggers, 0 changes wait" in said.out
    assert [set(one) >= {"error"} for one in shell("triggers", "--json", **away).json["items"]] == [True, False]


def test_no_database_is_said_in_a_sentence(shell: Any) -> None:
    assert "No database is named" in shell("triggers").out


def test_an_address_that_is_none_is_an_error_that_does_not_repeat_it(shell: Any) -> None:
    said = shell("worker", "--burst", EVENTWRIGHT_DATABASE_SHOP_URL="mysql://root:secret@db/shop")
    assert said.code == 1
    assert "the database 'shop' needs an address" in said.err
    assert "secret" not in said.err + json.dumps(said.out)


def test_a_condition_that_the_database_refuses_is_one_line(shell: Any, file: Path) -> None:
    said = shell("triggers", "install-sqlite", str(file), "orders", "--when", "NEW.nope = 1")
    assert said.code == 1
    assert said.err == "error: SQLite refuses it, and nothing was changed: no such column: NEW.nope\n"
