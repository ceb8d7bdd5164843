"""The doctor finds what is wrong before a user does, says what to do, and changes nothing."""

from __future__ import annotations

import sqlite3
from contextlib import closing
from pathlib import Path
from typing import Any


def found(said: Any) -> dict[str, dict[str, str]]:
    return {check["name"]: check for check in said.json["checks"]}


def test_everything_that_is_away_is_a_fault_with_advice(shell: Any) -> None:
    said = shell(
        "doctor",
        "--json",
        EVENTWRIGHT_DATABASE_URL="postgresql://nobody:s3cret@127.0.0.1:1/nowhere",
        EVENTWRIGHT_REDIS_URL="redis://:s3cret@127.0.0.1:1",
        EVENTWRIGHT_SMTP_URL="smtp://nobody:s3cret@127.0.0.1:1",
        EVENTWRIGHT_WORKFLOWS="nowhere",
        EVENTWRIGHT_HOST="192.0.2.1",
    )
    assert said.code == 1
    checks = found(said)
    faults = {name for name, check in checks.items() if check["status"] == "fail"}
    assert faults == {"settings", "workflows", "database", "Redis", "mail"}
    assert all(check["advice"] for name, check in checks.items() if name in faults - {"settings"})
    assert "s3cret" not in said.out + said.err


def test_a_new_installation_is_well_and_nothing_is_made_by_looking(shell: Any) -> None:
    said = shell("doctor", EVENTWRIGHT_REDIS_URL="")
    assert said.code == 0, said.out
    assert "✓ serialization" in said.out
    assert "eventwright up" in said.out
    assert not shell.home.exists()


def test_runs_that_no_worker_takes_are_found(shell: Any) -> None:
    shell.send("wish.made", {})
    database = Path(shell("db", "path").out.strip())
    with closing(sqlite3.connect(database)) as connection, connection:
        connection.execute("UPDATE runs SET due_at = '2026-01-01T00:00:00.000000+00:00'")
    said = shell("doctor", "--json")
    assert said.code == 1
    assert found(said)["runs"]["advice"] == "eventwright worker --lane default"


def test_a_database_is_made_and_its_schema_told(shell: Any) -> None:
    assert shell("db", "status").code == 1
    assert not shell.home.exists()
    made = shell("db", "upgrade", "--json").json
    assert shell("db", "status", "--json").json == made | {"newest": made["revision"]}


def test_a_workflow_is_shown_with_what_it_may_do(used: Any) -> None:
    shown = used("workflows", "orders").out
    assert "a person approves: amount above 50" in shown
    assert "2 retries, 10 s at most" in shown
    told = used("workflows", "orders", "--json").json
    assert [node["name"] for node in told["nodes"]] == ["look", "refund"]
    assert used("workflows", "--json").json["items"][0]["name"] == "orders"
    assert "look --> refund" in used("workflows", "orders", "--mermaid").out
    assert "no workflow nothing is loaded" in used("workflows", "nothing").err
