"""What an operator sees of schedules: the list, what fired last and what is next."""

from __future__ import annotations

import sqlite3
from contextlib import closing
from datetime import UTC, datetime, timedelta
from typing import Any

CLOCK = {"EVENTWRIGHT_WORKFLOWS": "cli_clock"}


def test_a_line_that_cannot_be_read_is_an_error_that_names_it_before_anything_runs(shell: Any) -> None:
    checked = shell("check", EVENTWRIGHT_WORKFLOWS="cli_clock_broken")
    said = " ".join(checked.err.split())
    assert checked.code == 1
    assert "Every('0 25 * * *', zone='Europe/Berlin'): bad hour" in said


def test_no_schedule_is_said_in_a_sentence(shell: Any) -> None:
    assert "No schedule is declared" in shell("schedules").out
    assert shell("schedules", "--json").json == {"items": []}


def test_schedules_are_listed_with_what_they_mean_and_when_they_fire(shell: Any) -> None:
    said = shell("schedules", **CLOCK)
    assert said.code == 0
    assert "0 9 * * MON-FRI  At 09:00 on Monday through Friday" in said.out
    assert "Europe/Berlin" in said.out
    assert "never" in said.out
    assert "report.due by the clock: 0 9 * * MON-FRI Europe/Berlin" in shell("workflows", "report", **CLOCK).out

    minute, daily = shell("schedules", "--json", **CLOCK).json["items"]
    assert (minute["name"], minute["missed"], daily["name"], daily["missed"]) == ("minute-come", "skip", "daily", "one")
    assert daily["source"] == "/schedules/report/daily"
    assert (daily["last"], daily["runs"]) == (None, [])
    assert datetime.fromisoformat(daily["next"]) > datetime.now(UTC)


def test_a_worker_that_only_comes_by_makes_up_for_what_was_missed_and_it_is_shown(shell: Any) -> None:
    assert shell("worker", "--burst", "--json", **CLOCK).json == {"runs": []}
    with closing(sqlite3.connect(shell.home / "eventwright.db")) as database:
        days_ago = (datetime.now(UTC) - timedelta(days=5)).isoformat(timespec="microseconds")
        database.execute("UPDATE schedules SET seen_to = ? WHERE source LIKE '%daily'", (days_ago,))
        database.commit()
    rested = shell("worker", "--burst", "--json", **CLOCK).json["runs"]
    schedules = {one["name"]: one for one in shell("schedules", "--json", **CLOCK).json["items"]}
    daily = schedules["daily"]
    assert set(daily["runs"]) <= {run["id"] for run in rested}
    assert timedelta(0) < datetime.now(UTC) - datetime.fromisoformat(daily["last"]) < timedelta(days=4)
    assert daily["runs"][0][-8:] in shell("schedules", **CLOCK).out
