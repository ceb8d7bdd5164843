"""The states: one table, and the page that shows it."""

from __future__ import annotations

from pathlib import Path

import pytest

from eventwright.runs import failpoints, records, states
from eventwright.runs.states import CLAIMABLE, FINAL, MOVES, Documented, Outcome, Reason, RunState, diagram

PAGE = Path(__file__).parents[2] / "docs" / "states.md"
CLOSED_SETS = [
    found
    for module in (states, records, failpoints)
    for found in vars(module).values()
    if isinstance(found, type) and issubclass(found, Documented) and found is not Documented
]


def test_only_completed_and_cancelled_are_final() -> None:
    assert {RunState.COMPLETED, RunState.CANCELLED} == FINAL


def test_every_state_is_in_the_table_and_can_be_reached_and_left_for_an_end() -> None:
    assert set(MOVES) == set(RunState)
    for state in RunState:
        assert state is RunState.RECEIVED or any(state in moves for moves in MOVES.values())
        assert state in FINAL or RunState.CANCELLED in MOVES[state]


def test_a_run_that_is_over_or_failed_is_never_claimed() -> None:
    assert CLAIMABLE.isdisjoint(FINAL | {RunState.FAILED})


def test_a_dead_letter_goes_on_only_where_an_operator_replays_it() -> None:
    assert MOVES[RunState.FAILED] == {RunState.RECEIVED, RunState.CANCELLED}


@pytest.mark.parametrize("closed_set", CLOSED_SETS)
def test_every_member_of_a_closed_set_says_what_it_means(closed_set: type[Documented]) -> None:
    for member in closed_set:
        assert member.meaning.strip(), member
    assert len({member.meaning for member in closed_set}) == len(closed_set)


def test_the_page_shows_the_diagram_that_the_table_draws() -> None:
    assert f"```mermaid\n{diagram()}\n```" in PAGE.read_text(encoding="utf-8")


@pytest.mark.parametrize("closed_set", [RunState, Reason, Outcome])
def test_the_page_says_what_each_state_reason_and_outcome_means(closed_set: type[Documented]) -> None:
    page = PAGE.read_text(encoding="utf-8")
    for member in closed_set:
        assert f"| `{member}` | {member.meaning} |" in page
