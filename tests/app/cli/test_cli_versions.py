"""A deploy from the command line: what it would break, and how runs are moved on."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest

BOTH = {"EVENTWRIGHT_WORKFLOWS": "cli_letters"}


def loaded(*versions: str) -> dict[str, str]:
    return BOTH | {"LETTERS": ";".join(versions)}


@pytest.fixture
def waiting(shell: Any, home: Path) -> Any:
    """A shell in whose home two runs of version 1 wait for an answer; the older one carries a price."""
    shutil.copytree(home, shell.home)
    return shell


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory, shell_in: Any) -> Path:
    """The home that each test gets a copy of."""
    shell = shell_in(tmp_path_factory.mktemp("letters") / "home")
    for number, data in enumerate(({"price": "500"}, {})):
        event = {"specversion": "1.0", "source": "/test", "id": str(number), "type": "letter.written", "data": data}
        assert shell("send", "-", given=json.dumps(event).encode(), **loaded("1")).code == 0
    assert shell("worker", "--burst", **loaded("1")).code == 0
    home: Path = shell.home
    return home


def ids(shell: Any, **settings: str) -> list[str]:
    """Of the runs, the oldest first."""
    return [item["id"] for item in reversed(shell("runs", "--json", **settings).json["items"])]


@pytest.mark.parametrize(
    "words",
    [
        ["migrate"],
        ["migrate", "1", "--all"],
        ["migrate", "--all"],
        ["migrate", "1", "--from", "1"],
        ["migrate", "1", "--workflow", "letters"],
        ["migrate", "1", "--state-filter", "failed"],
        ["migrate", "1", "--rename", "ask"],
        ["check", "--database", "sqlite:///x"],
        ["check", "letters", "--against", "--version", "1"],
        ["check", "--against", "--approved", "pay"],
    ],
)
def test_what_is_typed_wrongly_ends_with_2_before_anything_is_opened(shell: Any, words: list[str]) -> None:
    said = shell(*words, **loaded("1"))
    assert (said.code, said.out) == (2, "")
    assert not shell.home.exists()


def test_a_database_that_is_not_there_is_not_made_by_looking(shell: Any) -> None:
    said = shell("check", "--against", **loaded("1"))
    assert (said.code, said.out) == (1, "")
    assert "there is no such database" in said.err
    assert not shell.home.exists()


@pytest.mark.parametrize("mapping", ["nowhere.json", "cli_letters:nothing", "no_such_module:nothing"])
def test_a_mapping_that_is_not_there_is_told_and_moves_nothing(waiting: Any, mapping: str) -> None:
    run = ids(waiting, **loaded("1"))[0]
    said = waiting("migrate", run, "--to", "3", "--state", mapping, **loaded("1", "3"))
    assert (said.code, said.out) == (1, "")
    assert mapping.partition(":")[2] in said.err
    assert waiting("run", run, "--json", **loaded("1")).json["version"] == "1"


def test_a_deploy_that_breaks_runs_is_found_before_it_is_made(waiting: Any) -> None:
    fine = waiting("check", "--against", **loaded("1", "2"))
    assert fine.code == 0
    assert "2 unfinished runs" in fine.out

    broken = waiting("check", "--against", **loaded("1, renamed"))
    assert broken.code == 1
    assert "2 runs would break" in broken.out
    assert "node 'ask' is gone (is it 'sign' now?)" in broken.out
    run = ids(waiting, **loaded("1"))[0]
    assert f"eventwright migrate {run[-8:]} --rename ask=sign" in broken.out

    told = waiting("check", "--against", "--json", **loaded("2")).json
    assert (told["fine"], [one["kind"] for one in told["broken"]]) == (0, ["not_loaded", "not_loaded"])
    assert told["broken"][1]["run"] == run
    assert waiting("check", "gifts", "--against", **loaded("2")).code == 0, (
        "those of another workflow are not asked for"
    )


def test_another_database_than_that_of_the_settings_can_be_looked_at(waiting: Any) -> None:
    url = f"sqlite:///{waiting('db', 'path', **loaded('1')).out.strip()}"
    told = waiting("check", "--against", "--database", url, "--json", EVENTWRIGHT_HOME="/nowhere", **loaded("2")).json
    assert (told["database"], len(told["broken"])) == (url, 2)


def test_a_run_is_moved_to_a_renamed_node_and_goes_on_there(waiting: Any) -> None:
    after = loaded("1, renamed")
    run = ids(waiting, **loaded("1"))[0]
    shown = waiting("migrate", run, "--rename", "ask=sign", "--dry-run", **after)
    assert shown.code == 0
    assert "would move; nothing was changed" in shown.out
    assert "ask → sign" in shown.out
    assert "kept" in shown.out

    moved = waiting("migrate", run, "--rename", "ask=sign", "--by", "olga", "--json", **after).json
    assert moved["dry_run"] is False
    assert moved["runs"][0]["stands_at"] == ["sign"]
    assert "moved to another graph: ask is sign now" in waiting("run", run, **after).out
    assert waiting("worker", "--burst", **after).code == 0
    (review,) = waiting("run", run, "--json", **after).json["reviews"]
    assert waiting("decide", review, "respond", "--response", '"yes"', **after).code == 0
    assert waiting("worker", "--burst", **after).code == 0
    assert waiting("run", run, "--json", **after).json["state"] == "completed"


def test_all_runs_of_a_version_are_moved_and_one_that_cannot_be_does_not_stop_the_others(waiting: Any) -> None:
    after = loaded("1", "3")
    with_price, without = ids(waiting, **loaded("1"))
    words = ("migrate", "--all", "--workflow", "letters", "--from", "1", "--to", "3")
    said = waiting(*words, "--json", **after)
    assert said.code == 1
    assert [one["id"] for one in said.json["runs"]] == [without]
    assert [one["id"] for one in said.json["refused"]] == [with_price]
    assert "field 'price' is gone" in said.json["refused"][0]["error"]["detail"]

    said = waiting(*words, "--state", "cli_letters:in_cents", **after)
    assert said.code == 0
    assert "price: " in said.out
    assert waiting(*words, **after).out == "No run fits.\n"
    assert waiting("check", "--against", **after).code == 0


def test_a_mapping_may_be_a_file(waiting: Any) -> None:
    mapping = waiting.home / "mapping.json"
    mapping.write_text(json.dumps({"rename": {"price": "amount"}}))
    run = ids(waiting, **loaded("1"))[0]
    said = waiting("migrate", run, "--to", "3", "--state", str(mapping), "--json", **loaded("1", "3"))
    assert said.json["runs"][0]["state"] == {"amount": {"after": "500"}, "price": {"before": "500"}}


def test_only_runs_in_some_states_are_moved(waiting: Any) -> None:
    words = ("migrate", "--all", "--workflow", "letters", "--to", "2")
    assert waiting(*words, "--state-filter", "failed", **loaded("1", "2")).out == "No run fits.\n"
    told = waiting(*words, "--state-filter", "pending_approval", "--json", **loaded("1", "2")).json
    assert {run["version"] for run in told["runs"]} == {"2"}


def test_every_version_is_listed_and_which_one_new_events_start(waiting: Any) -> None:
    shown = waiting("workflows", **loaded("1", "2"))
    old, new = (line for line in shown.out.splitlines() if line.startswith("letters"))
    assert "nothing: it goes on with its runs" in old
    assert "2 pending_approval" in old
    assert "letter.written" in new
    told = waiting("workflows", "--json", **loaded("1", "2")).json["items"]
    assert [(item["version"], item["newest"]) for item in told] == [("1", False), ("2", True)]
    assert told[0]["fingerprint"] == told[1]["fingerprint"]


def test_a_run_that_stopped_before_a_changed_graph_says_what_to_type_next(waiting: Any) -> None:
    after = loaded("1, renamed")
    run = ids(waiting, **loaded("1"))[0]
    (review,) = waiting("run", run, "--json", **after).json["reviews"]
    assert waiting("decide", review, "respond", "--response", '"yes"', **after).code == 0
    assert waiting("worker", "--burst", **after).code == 0
    shown = waiting("run", run, **after).out
    assert "needs_migration" in shown
    assert f"eventwright migrate --dry-run {run[-8:]}" in shown
