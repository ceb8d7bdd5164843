"""A run's whole way by the command line alone: sent, worked on, decided, replayed, cancelled."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest


def sent(shell: Any, type: str, data: dict[str, str]) -> str:
    said = shell.send(type, data, "--json")
    assert said.code == 0, said.err
    run_id: str = said.json["events"][0]["runs"][0]["id"]
    return run_id


def asked(shell: Any) -> dict[str, Any]:
    (review,) = shell("reviews", "--json").json["items"]
    return review


def test_an_event_is_sent_worked_on_decided_and_completed(shell: Any) -> None:
    run_id = sent(shell, "order.returned", {"customer": "Ann", "amount": "80.00"})
    assert shell("worker", "--burst", "--json").json == {"runs": [{"id": run_id, "state": "pending_approval"}]}

    review = asked(shell)
    shown = shell("run", run_id[-8:])
    assert f"eventwright decide {review['id'][-8:]} approve" in shown.out

    # What the screen proposes can be typed as it stands.
    decided = shell("decide", review["id"][-8:], "approve", "--by", "ann", "--json")
    assert decided.json["decision"]["by"] == "ann"
    assert not decided.json["decision"]["verified"]

    # The same again is no second decision; another person's is, and learns who won.
    assert shell("decide", review["id"], "approve", "--by", "ann").code == 0
    late = shell("decide", review["id"], "reject", "--by", "bob")
    assert late.code == 1
    assert "ann said approve" in late.err

    assert shell("worker", "--burst").code == 0
    told = shell("run", run_id, "--json").json
    assert (told["state"], told["outcome"]) == ("completed", "approved")
    assert 'pay(customer="Ann", amount="80.00") → 80.00 to Ann' in shell("run", run_id).out
    kinds = [entry["kind"] for entry in shell("run", run_id, "--journal", "--json").json["items"]]
    assert kinds.count("decision") == kinds.count("effect_done") == 1


@pytest.mark.soak
def test_an_edit_must_fit_and_is_what_is_done(shell: Any) -> None:
    run_id = sent(shell, "order.returned", {"customer": "Ann", "amount": "80.00"})
    shell("worker", "--burst")
    review = asked(shell)

    unfit = shell("decide", review["id"], "edit", "--arguments", '{"customer": "Ann"}')
    assert unfit.code == 1
    assert "amount" in unfit.err

    edit = shell("decide", review["id"], "edit", "--arguments", '{"customer": "Ann", "amount": "60.00"}')
    assert edit.code == 0, edit.err
    shell("worker", "--burst")
    assert shell("run", run_id, "--json").json["outcome"] == "edited"
    assert "60.00 to Ann" in shell("run", run_id).out


def test_a_question_takes_a_plain_text_and_a_cancelled_run_takes_no_answer(shell: Any) -> None:
    answered, ended = sent(shell, "wish.made", {}), sent(shell, "wish.made", {"customer": "other"})
    shell("worker", "--burst")
    reviews = {review["run_id"]: review["id"] for review in shell("reviews", "--json").json["items"]}

    assert shell("decide", reviews[answered], "respond", "--response", "teal").code == 0
    assert shell("cancel", ended, "--yes", "--json").json["state"] == "cancelled"
    closed = shell("decide", reviews[ended], "respond", "--response", "teal")
    assert closed.code == 1
    assert "is cancelled" in closed.err

    shell("worker", "--burst")
    assert shell("run", answered, "--json").json["state"] == "completed"
    assert shell("reviews").out == "Nobody is asked anything.\n"


@pytest.mark.soak
def test_dead_letters_are_taken_up_again_one_by_one_or_all(shell: Any, tmp_path: Path) -> None:
    needed = tmp_path / "needed"
    runs = [sent(shell, "file.needed", {"needs": str(needed)}) for _ in range(3)]
    shell("worker", "--burst")
    failed = shell("runs", "--state", "failed")
    assert failed.out.count("is missing") == 3

    needed.touch()
    assert shell("replay", runs[0][-8:], "--json").json == {"runs": [runs[0]]}
    assert shell("replay", "--all", "--reason", "quarantined").out == "No failed run fits.\n"
    assert set(shell("replay", "--all", "--reason", "attempts", "--json").json["runs"]) == set(runs[1:])
    shell("worker", "--burst")
    page = shell("runs", "--limit", "2", "--json").json
    assert [run["state"] for run in page["items"]] == ["completed"] * 2
    rest = shell("runs", "--before", page["next"], "--json").json
    assert [run["id"] for run in rest["items"]] == [runs[0]]
    assert rest["next"] is None
