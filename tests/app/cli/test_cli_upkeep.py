"""What an operator does about the size of the database: look, try, delete; and what a deleted run still shows."""

from __future__ import annotations

import json
from collections.abc import Callable
from functools import partial
from typing import Any

import pytest

from eventwright.app.durations import read_duration

NOTHING = {"runs": 0, "checkpoints": 0, "payloads": 0, "events": 0, "deliveries": 0}


@pytest.mark.parametrize("written", ["7", "soon", "-1d", "1.5d", "d", "99999999d", ""])
def test_a_time_that_is_none_is_refused_with_how_to_write_one(written: str) -> None:
    with pytest.raises(ValueError, match=r"write 30m, 12h, 7d, 4w, or forever"):
        read_duration(written)


def test_the_setting_with_a_bad_time_is_named(shell: Any) -> None:
    said = shell("db", "prune", "--checkpoints-after", "soon")
    assert said.code == 1
    assert "EVENTWRIGHT_KEEP_CHECKPOINTS: " in said.err
    assert "EVENTWRIGHT_KEEP_PAYLOADS: " in shell("db", "stats", EVENTWRIGHT_KEEP_PAYLOADS="soon").err


def test_an_empty_database_has_nothing_to_delete(shell: Any) -> None:
    assert shell("db", "prune").out == "Nothing was kept long enough to be deleted.\n"
    assert shell("db", "prune", "--json").json == NOTHING | {"dry_run": False}
    stats = shell("db", "stats", "--json").json
    assert stats["workflows"] == []
    assert {table["rows"] for table in stats["tables"]} == {0}


def test_by_default_what_ended_a_moment_ago_is_kept(used: Any) -> None:
    assert shell_counts(used, "--dry-run") == NOTHING
    assert shell_counts(used) == NOTHING


def shell_counts(shell: Any, *words: str) -> dict[str, int]:
    told: dict[str, int] = shell("db", "prune", "--json", *words).json
    del told["dry_run"]
    return told


def test_stats_show_where_the_bytes_are_and_the_oldest_run_that_has_not_ended(used: Any) -> None:
    said = used("db", "stats")
    assert said.code == 0
    stats = used("db", "stats", "--json").json
    tables = {table["name"]: table for table in stats["tables"]}
    assert (tables["runs"]["rows"], tables["events"]["rows"]) == (4, 5)
    sizes = [table["bytes"] for table in stats["tables"]]
    assert sizes == sorted(sizes, reverse=True)
    assert 0 < sum(sizes) <= stats["bytes"]
    waiting = used("runs", "--json", "--state", "pending_approval").json["items"]
    orders = next(one for one in stats["workflows"] if one["name"] == waiting[-1]["workflow"])
    assert (orders["unfinished"], orders["oldest"]) == (2, waiting[-1]["id"])
    assert f"{waiting[-1]['id'][-8:]}  ● pending_approval" in said.out
    assert stats["removable"] == NOTHING


def test_what_is_tried_first_deletes_nothing_and_says_what_would_be(
    shell: Any, json_lines: Callable[..., bytes]
) -> None:
    done = returned(shell, json_lines)
    tried = shell("db", "prune", "--dry-run", "--checkpoints-after", "0s", "--payloads-after", "0s")
    assert "would delete" in tried.out
    assert "checkpoints of 1 finished runs" in tried.out
    assert "  eventwright db prune --checkpoints-after 0s --payloads-after 0s\n" in tried.out
    assert "Ann" in shell("run", done).out
    told = shell_counts(shell, "--dry-run", "--checkpoints-after", "0s", "--payloads-after", "0s")
    assert shell_counts(shell, "--checkpoints-after", "0s", "--payloads-after", "0s") == told
    assert (told["runs"], told["payloads"], told["events"]) == (1, 1, 1)


def returned(shell: Any, json_lines: Callable[..., bytes]) -> str:
    event = {"id": "o-1", "type": "order.returned", "data": {"customer": "Ann", "amount": "8.00"}}
    assert shell("send", "-", given=json_lines(event)).code == 0
    assert shell("worker", "--burst").code == 0
    (run,) = shell("runs", "--json").json["items"]
    assert run["state"] == "completed"
    run_id: str = run["id"]
    return run_id


def test_a_run_whose_data_expired_says_so_and_is_not_undone(shell: Any, json_lines: Callable[..., bytes]) -> None:
    done = returned(shell, json_lines)
    assert "deleted" in shell("db", "prune", "--payloads-after", "0s").out

    shown = shell("run", done)
    assert shown.code == 0
    assert "data      expired on 20" in shown.out
    assert "Effects, their data expired on 20" in shown.out
    undone = shell("undo", done, "--yes")
    assert undone.code == 1
    assert "kept long enough, and were deleted" in undone.err
    (event,) = shell("events", "--json").json["items"]
    assert event["data"] is None
    assert event["expired_at"] is not None
    again = shell("replay-event", event["uid"])
    assert (again.code, "is deleted" in again.err) == (1, True)
    same = {"id": "o-1", "type": "order.returned", "data": {"customer": "Ann", "amount": "8.00"}}
    said = shell("send", "-", "--json", given=json_lines(same)).json
    assert [(item["duplicate"], item["runs"][0]["id"]) for item in said["events"]] == [(True, done)]
    other = {"id": "o-1", "type": "order.returned", "data": {"customer": "Ann", "amount": "9.00"}}
    assert "event-conflict" in shell("send", "-", "--json", given=json_lines(other)).out


def test_a_run_without_checkpoints_can_be_undone_as_long_as_its_data_is_here(shell: Any) -> None:
    given = json.dumps({"customer": "Ann", "amount": "20"})
    sagas = partial(shell, EVENTWRIGHT_WORKFLOWS="cli_amends")
    sent = sagas("send", "--type", "saga.begun", "--data", given, "--json")
    done = sent.json["events"][0]["runs"][0]["id"]
    sagas("worker", "--burst")
    assert shell_counts(sagas, "--checkpoints-after", "0s")["runs"] == 1

    assert sagas("undo", done, "--yes").code == 0
    sagas("worker", "--burst")
    assert "undone by run" in sagas("undo", done, "--yes").out
