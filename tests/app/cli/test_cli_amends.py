"""Several people, undo and reconcile at the command line, in the real program; exceptions first."""

from __future__ import annotations

import json
from functools import partial
from pathlib import Path
from typing import Any

import pytest


@pytest.fixture
def sagas(shell: Any) -> Any:
    return partial(shell, EVENTWRIGHT_WORKFLOWS="cli_amends")


def begin(sagas: Any, *options: str, **data: Any) -> str:
    given = json.dumps({"customer": "Ann", "amount": "20"} | data)
    sent = sagas("send", "--type", "saga.begun", "--data", given, "--json", *options)
    run_id: str = sent.json["events"][0]["runs"][0]["id"]
    return run_id


@pytest.mark.soak
def test_what_cannot_be_undone_is_an_error_that_says_what_to_do(sagas: Any) -> None:
    run_id = begin(sagas)
    busy = sagas("undo", run_id, "--yes")
    assert busy.code == 1
    assert "it is received and may still act" in busy.err
    assert "eventwright cancel" in busy.err
    assert "has an id that begins or ends with 'zz'" in sagas("undo", run_id, "--effect", "zz").err
    assert "reads back by itself" in sagas("reconcile", run_id).err
    sagas("cancel", run_id, "--yes")
    assert "it has done nothing outside" in sagas("undo", run_id, "--yes").err
    assert "it is known of every write" in sagas("reconcile", run_id).err


def test_a_dead_letter_shows_what_it_did_and_offers_to_take_it_back(sagas: Any) -> None:
    run_id = begin(sagas, fails=True)
    sagas("worker", "--burst")
    told = sagas("run", run_id).out
    assert "What it has done" in told
    assert 'shop.take_back(customer="Ann")' in told
    assert "cannot be undone: its tool names no way to take it back" in told
    assert f"eventwright undo {run_id[-8:]}" in told

    asked = sagas("undo", run_id[-8:], "--by", "olga")
    assert asked.code == 0
    assert 'shop.take_back(customer="Ann")' in asked.out
    assert "cannot be undone" in asked.out
    sagas("worker", "--burst")
    assert "undone by run" in sagas("run", run_id).out
    again = sagas("undo", run_id, "--json")
    assert (again.json["workflow"], again.json["state"]) == ("undo", "completed")
    assert again.json["event"]["principal"] == "olga"
    replayed = sagas("replay", run_id)
    assert replayed.code == 1
    assert "takes it back, or has done so" in replayed.err


def test_a_call_that_nobody_knows_of_is_read_back_by_a_worker(sagas: Any, tmp_path: Path) -> None:
    run_id = begin(sagas, parcels=str(tmp_path / "parcels"))
    sagas("worker", "--burst")
    assert f"eventwright reconcile {run_id[-8:]}" in sagas("run", run_id).out
    assert sagas("reconcile", run_id, "--json").json["workflow"] == "reconcile"
    sagas("worker", "--burst")
    assert "shop.ship" in sagas("run", run_id).out.partition("What it has done")[2]
    assert "eventwright reconcile" not in sagas("run", run_id).out
    assert "it is known of every write" in sagas("reconcile", run_id).err


@pytest.mark.soak
def test_two_people_are_shown_who_has_agreed_and_who_may_not(sagas: Any) -> None:
    run_id = begin(sagas, "--by", "dana", amount="80")
    sagas("worker", "--burst")
    told = sagas("reviews").out
    assert told.count("0 of 2 people have agreed") == 2
    assert told.count("dana") >= 2
    first, second = (review["id"] for review in sagas("reviews", "--json").json["items"])
    refused = sagas("decide", first, "approve", "--by", "Dana")
    assert refused.code == 1
    assert "ask somebody else" in refused.err
    assert "1 of 2 people have agreed (ann)" in sagas("decide", first, "approve", "--by", "ann").out
    assert "1 of 2 people have agreed (ann)" in sagas("reviews").out
    assert sagas("decide", second, "approve", "--by", "ann").code == 1
    assert sagas("decide", second, "approve", "--by", "bob").code == 0
    sagas("worker", "--burst")
    assert sagas("run", run_id, "--json").json["outcome"] == "approved"
