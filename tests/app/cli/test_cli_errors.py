"""What goes wrong at the command line is said in one clear line, with what to do; programs get it as JSON."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pytest

from eventwright.app.commands.console import complain
from eventwright.runs.errors import StoreUnavailable


def one_line(said: Any, *, code: int = 1) -> str:
    """The error of a command that did nothing else."""
    assert (said.code, said.out) == (code, "")
    assert "Traceback" not in said.err
    (line,) = said.err.splitlines()
    assert line.startswith("error: ")
    return line


def test_a_garbage_file_is_refused_in_one_line(shell: Any, tmp_path: Path) -> None:
    file = tmp_path / "garbage.json"
    file.write_bytes(b'{"specversion": "1.0", ')
    assert "line 1" in one_line(shell("send", str(file)))


def test_a_huge_file_is_refused_with_the_limit(shell: Any, tmp_path: Path) -> None:
    file = tmp_path / "huge.json"
    file.write_text(json.dumps({"specversion": "1.0", "id": "1", "source": "/x", "type": "t", "data": "x" * 3_000_000}))
    assert "1048576 are allowed" in one_line(shell("send", str(file)))


def test_a_file_that_is_not_there_is_named(shell: Any) -> None:
    assert one_line(shell("send", "nowhere.json")) == "error: nowhere.json: No such file or directory"


def test_an_unknown_id_is_told_which_command_lists_ids(used: Any) -> None:
    assert "`eventwright runs` lists them" in one_line(used("run", "feedface"))
    assert "`eventwright reviews` lists them" in one_line(used("decide", "feedface", "approve"))


def test_a_part_of_an_id_that_fits_several_lists_them_all(used: Any) -> None:
    said = used("run", "run_")
    assert said.code == 1
    assert "fits several runs" in said.err
    assert len(re.findall(r"run_[0-9a-f]{32}", said.err)) == 4


def test_with_json_an_error_is_a_document_on_stderr_and_stdout_is_empty(used: Any) -> None:
    said = used("run", "run_", "--json")
    assert (said.code, said.out) == (1, "")
    document = json.loads(said.err)
    assert len(document["candidates"]) == 4
    assert "fits several runs" in document["detail"]


def test_a_run_that_did_not_fail_is_not_replayed(used: Any) -> None:
    done = next(run for run in used("runs", "--state", "completed", "--json").json["items"])
    assert "is completed and cannot become received" in one_line(used("replay", done["id"]))


def test_a_wrong_setting_is_named_and_its_value_is_not_repeated(shell: Any) -> None:
    told = one_line(shell("runs", EVENTWRIGHT_PORT="s3cret"))
    assert "EVENTWRIGHT_PORT" in told
    assert "s3cret" not in told


@pytest.mark.parametrize(
    ("variable", "value"),
    [("EVENTWRIGHT_METRICS_PORT", ""), ("EVENTWRIGHT_LANE", ""), ("EVENTWRIGHT_MODEL_CONCURRENCY", "")],
)
def test_a_setting_that_is_empty_counts_as_not_set(shell: Any, variable: str, value: str) -> None:
    assert shell("runs", **{variable: value}).code == 0


def test_what_is_wrong_with_a_setting_is_said_in_our_own_words_alone(shell: Any) -> None:
    assert one_line(shell("runs", EVENTWRIGHT_LANE="A b")).startswith("error: EVENTWRIGHT_LANE: 'A b' can be no lane")


@pytest.mark.parametrize(
    ("url", "problem"),
    [
        ("s3cret", "the address of the database cannot be read"),
        ("mysql://ann:s3cret@db/shop", "sqlite or postgresql, and not in 'mysql'"),
        ("sqlite:///{}", "holds no SQLite database, or a damaged one"),
    ],
)
def test_what_is_no_database_is_named_with_how_to_write_one(shell: Any, tmp_path: Path, url: str, problem: str) -> None:
    file = tmp_path / "letter.db"
    file.write_text("Dear Ann, this is a letter. " * 40)
    told = one_line(shell("runs", EVENTWRIGHT_DATABASE_URL=url.format(file)))
    assert problem in told
    assert "EVENTWRIGHT_DATABASE_URL is sqlite:///file or postgresql://" in told
    assert "s3cret" not in told


def test_a_workflow_that_is_not_loaded_is_told_with_those_that_are(shell: Any) -> None:
    assert "no workflow shopp is loaded (loaded: orders, gifts" in one_line(shell("policy", "show", "shopp"))
    assert "(loaded: orders, gifts" in one_line(shell("migrate", "--all", "--workflow", "shopp"))


def test_workflows_that_cannot_be_loaded_are_named(shell: Any) -> None:
    assert "EVENTWRIGHT_WORKFLOWS names 'nowhere'" in one_line(shell("runs", EVENTWRIGHT_WORKFLOWS="nowhere"))


def test_a_database_that_is_away_is_one_line_or_one_document(shell: Any) -> None:
    away = {"EVENTWRIGHT_DATABASE_URL": "postgresql://nobody:s3cret@127.0.0.1:1/nowhere"}
    said = shell("runs", "--json", **away)
    assert (said.code, said.out) == (1, "")
    assert "the database did not answer" in json.loads(said.err)["detail"]
    assert "s3cret" not in said.err


@pytest.mark.parametrize(
    "words",
    [
        ["decide", "1", "edit"],
        ["decide", "1", "approve", "--response", "x"],
        ["decide", "1", "maybe"],
        ["send"],
        ["send", "--data", "{}"],
        ["replay"],
        ["replay", "1", "--all"],
        ["replay", "1", "--rename", "pay"],
        ["replay", "1", "--reason", "attempts"],
        ["runs", "--watch"],
        ["worker", "--json"],
        ["nonsense"],
    ],
)
def test_what_is_typed_wrongly_ends_with_2_before_anything_is_opened(shell: Any, words: list[str]) -> None:
    said = shell(*words)
    assert (said.code, said.out) == (2, "")
    assert "Usage: eventwright" in said.err
    assert not shell.home.exists()


def test_a_name_of_eventwright_itself_cannot_be_borrowed(used: Any) -> None:
    review = used("reviews", "--json").json["items"][0]
    assert "no name of Eventwright itself" in one_line(used("decide", review["id"], "approve", "--by", "deadline"))


def test_a_strangers_escape_sequences_never_reach_the_terminal(used: Any) -> None:
    shown = [used("reviews"), used("events")]
    bad = next(item for item in used("runs", "--json").json["items"] if item["event"]["id"] == "o-4")
    shown += [used("run", bad["id"]), used("run", bad["id"], "--journal"), used("run", bad["id"], "--json")]
    assert all(said.code == 0 for said in shown)
    assert "Mallory" in shown[0].out
    for said in shown:
        assert "\x1b" not in said.out
        assert "\u202e" not in said.out


def test_what_broke_within_a_group_is_said_and_not_that_a_group_broke(capsys: pytest.CaptureFixture[str]) -> None:
    within = ExceptionGroup(
        "unhandled errors in a TaskGroup", [ValueError("no card takes 7"), StoreUnavailable("gone")]
    )
    complain(ExceptionGroup("unhandled errors in a TaskGroup", [within]), as_json=False)
    (line,) = capsys.readouterr().err.splitlines()
    assert line == (
        "error: ValueError: no card takes 7 (EVENTWRIGHT_DEBUG=1 shows where); gone; `eventwright doctor` looks into it"
    )


def test_a_home_that_is_a_file_is_said_to_be_one(shell_in: Any, tmp_path: Path) -> None:
    home = tmp_path / "home"
    home.write_text("not a folder")
    assert "home is a file, and a folder is needed" in one_line(shell_in(home)("runs"))
