"""The doctor finds what is wrong before a user does, says what to do, and changes nothing."""

from __future__ import annotations

import sqlite3
from contextlib import closing
from functools import partial
from pathlib import Path
from typing import Any

import pytest


def found(said: Any) -> dict[str, dict[str, str]]:
    return {check["name"]: check for check in said.json["checks"]}


def test_everything_that_is_away_is_a_fault_with_advice(shell: Any) -> None:
    said = shell(
        "doctor",
        "--json",
        EVENTWRIGHT_DATABASE_URL="postgresql://nobody:s3cret@127.0.0.1:1/nowhere",
        EVENTWRIGHT_REDIS_URL="redis://:s3cret@127.0.0.1:1",
        EVENTWRIGHT_SMTP_URL="smtp://nobody:s3cret@127.0.0.1:1",
        EVENTWRIGHT_DATABASE_SHOP_EU_URL="postgresql://nobody:s3cret@127.0.0.1:1/nowhere",
        EVENTWRIGHT_WORKFLOWS="nowhere",
        EVENTWRIGHT_HOST="192.0.2.1",
    )
    assert said.code == 1
    checks = found(said)
    faults = {name for name, check in checks.items() if check["status"] == "fail"}
    assert faults == {"settings", "workflows", "database", "Redis", "mail", "database shop-eu"}
    assert all(check["advice"] for name, check in checks.items() if name in faults - {"settings"})
    assert "EVENTWRIGHT_DATABASE_SHOP_EU_URL" in checks["database shop-eu"]["advice"]
    assert "s3cret" not in said.out + said.err


def test_a_new_installation_is_well_and_nothing_is_made_by_looking(shell: Any) -> None:
    said = shell("doctor", EVENTWRIGHT_REDIS_URL="")
    assert said.code == 0, said.out
    assert "✓ serialization" in said.out
    assert "eventwright up" in said.out
    assert not shell.home.exists()


def test_a_setting_whose_name_is_typed_wrongly_is_named(shell: Any) -> None:
    known = {"EVENTWRIGHT_SECRET_SHOP": "s3cret-s3cret", "EVENTWRIGHT_WEBHOOK_SHOP_EU_SECRET": "whsec_x"}
    assert found(shell("doctor", "--json", **known))["settings"]["status"] == "ok"
    settings = found(shell("doctor", "--json", **known, EVENTWRIGHT_CONCURENCY="5"))["settings"]
    assert settings["status"] == "warn"
    assert settings["detail"].endswith("nobody reads EVENTWRIGHT_CONCURENCY")


def test_runs_that_no_worker_takes_are_found(shell: Any) -> None:
    shell.send("wish.made", {})
    database = Path(shell("db", "path").out.strip())
    with closing(sqlite3.connect(database)) as connection, connection:
        connection.execute("UPDATE runs SET due_at = '2026-01-01T00:00:00.000000+00:00'")
    said = shell("doctor", "--json")
    assert said.code == 1
    assert found(said)["runs"]["advice"] == "eventwright worker --lane default"


@pytest.mark.parametrize(
    ("held", "status", "detail"),
    [
        ("", "warn", "manager (shop, pays): nobody has it"),
        ("director=cleo", "warn", "manager (shop, pays): nobody has it"),
        ("manager=mona,max", "ok", "manager: mona, max"),
    ],
)
def test_a_role_that_a_workflow_asks_for_and_nobody_has_is_found(
    shell: Any, held: str, status: str, detail: str
) -> None:
    said = shell("doctor", "--json", EVENTWRIGHT_WORKFLOWS="cli_roles", EVENTWRIGHT_ROLES=held)
    assert said.code == 0
    assert (found(said)["roles"]["status"], found(said)["roles"]["detail"]) == (status, detail)
    assert ("EVENTWRIGHT_ROLES" in found(said)["roles"]["advice"]) is (status == "warn")


def test_the_roles_that_the_rule_about_discounts_asks_for_are_known_before_it_asks(shell: Any) -> None:
    shop = partial(shell, EVENTWRIGHT_WORKFLOWS="eventwright.graphs.discounts")
    said = shop("doctor", "--json", EVENTWRIGHT_ROLES="sales-manager=mona")
    assert found(said)["roles"]["detail"] == "sales-director (discounts, give): nobody has it"
    assert "in the role sales-manager or sales-director" in shop("policy", "show", "discounts").out


@pytest.mark.soak
def test_a_question_that_nobody_has_the_role_for_is_a_fault(shell: Any) -> None:
    shop = partial(shell, EVENTWRIGHT_WORKFLOWS="cli_roles")
    shop("send", "--type", "wanted", "--data", '{"amount": "10"}')
    shop("worker", "--burst")
    [asked] = shop("reviews", "--json").json["items"]
    said = shop("doctor", "--json")
    assert said.code == 1
    assert found(said)["reviews"]["detail"] == (
        f"1 that nobody may decide, {asked['id'][-8:]} for want of the role manager"
    )
    well = found(shop("doctor", "--json", EVENTWRIGHT_ROLES="manager=mona"))
    assert (well["reviews"]["status"], well["reviews"]["detail"]) == ("ok", "1 open, each for somebody")


def test_roles_that_are_not_written_as_they_should_be_are_a_fault(shell: Any) -> None:
    said = shell("doctor", "--json", EVENTWRIGHT_ROLES="manager")
    assert said.code == 1
    assert "does not say who has the role" in found(said)["settings"]["detail"]


def test_a_database_of_ones_own_is_looked_at_for_triggers_and_what_they_cannot_tell(shell: Any, tmp_path: Path) -> None:
    file = tmp_path / "shop.db"
    shop = partial(shell, EVENTWRIGHT_DATABASE_SHOP_URL=f"sqlite:///{file}")

    def looked() -> tuple[str, str, str]:
        check = found(shop("doctor", "--json"))["database shop"]
        return check["status"], check["detail"], check["advice"]

    assert looked()[0] == "fail"
    assert not file.exists()
    with closing(sqlite3.connect(file)) as connection, connection:
        connection.execute("CREATE TABLE orders (id integer PRIMARY KEY, status text)")
    assert looked() == (
        "warn", "answers; no trigger is installed", "eventwright triggers install-sqlite FILE TABLE"
    )  # fmt: skip
    shop("triggers", "install-sqlite", str(file), "orders", "--yes")
    assert looked() == ("ok", "triggers on orders; no changes wait", "")
    with closing(sqlite3.connect(file)) as connection, connection:
        connection.execute("INSERT INTO orders VALUES (1, 'new')")
        connection.execute("ALTER TABLE orders ADD COLUMN total text")
    status, detail, advice = looked()
    assert (status, advice) == ("warn", "eventwright triggers")
    assert "1 changes wait" in detail
    assert "does not know total" in detail


def test_a_database_is_made_and_its_schema_told(shell: Any) -> None:
    assert shell("db", "status").code == 1
    assert not shell.home.exists()
    made = shell("db", "upgrade", "--json").json
    assert shell("db", "status", "--json").json == made | {"newest": made["revision"]}


@pytest.mark.soak
def test_a_workflow_is_shown_with_what_it_may_do(used: Any) -> None:
    shown = used("workflows", "orders").out
    assert "a person approves: amount above 50" in shown
    assert "2 retries, 10 s at most" in shown
    told = used("workflows", "orders", "--json").json
    assert [node["name"] for node in told["nodes"]] == ["look", "refund"]
    assert used("workflows", "--json").json["items"][0]["name"] == "orders"
    assert "look --> refund" in used("workflows", "orders", "--mermaid").out
    assert "no workflow nothing is loaded" in used("workflows", "nothing").err
