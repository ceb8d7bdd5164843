"""How long a run waits before its next attempt: at random, so that many do not come at once, and never for ever."""

from __future__ import annotations

import math

import pytest

from eventwright.guardrails.policy import Backoff

DRAWS = 2000


@pytest.mark.parametrize(
    ("named", "least"), [(math.nan, 0), (math.inf, 0), (-5.0, 0), (None, 0), (1e300, 86_400), (17.0, 17)]
)
def test_what_a_provider_asks_for_is_kept_as_far_as_it_makes_sense(named: float | None, least: float) -> None:
    waits = [Backoff(first=2).seconds(1, at_least=named) for _ in range(DRAWS)]
    assert all(least <= wait <= least + 2 for wait in waits)


def test_runs_that_were_told_the_same_time_do_not_come_back_in_the_same_moment() -> None:
    waits = {Backoff(first=2).seconds(1, at_least=30) for _ in range(DRAWS)}
    assert max(waits) - min(waits) > 1.5


@pytest.mark.parametrize("failures", [10, 1_100, 1_000_000])
def test_it_never_waits_for_longer_than_the_policy_says(failures: int) -> None:
    assert all(Backoff(first=1, most=300).seconds(failures) <= 300 for _ in range(DRAWS))


@pytest.mark.parametrize(("failures", "ceiling"), [(1, 1), (2, 2), (3, 4), (9, 256), (10, 300)])
def test_it_is_a_random_share_of_a_ceiling_that_doubles(failures: int, ceiling: float) -> None:
    waits = sorted(Backoff(first=1, most=300).seconds(failures) for _ in range(DRAWS))
    assert 0 <= waits[0] < 0.05 * ceiling
    assert 0.95 * ceiling < waits[-1] <= ceiling
    assert waits[DRAWS // 2] == pytest.approx(ceiling / 2, rel=0.2)
