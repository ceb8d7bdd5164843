"""The event: what makes two deliveries the same, and what is no JSON."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

import pytest
import rfc8785
from hypothesis import given
from hypothesis import strategies as some

from eventwright.runs.event import Event, canonical, digest_of, new_id

SAFE = 2**53 - 1
odd_values = some.recursive(
    some.none()
    | some.booleans()
    | some.integers(-(2**54), 2**54)
    | some.floats()
    | some.text(some.characters(exclude_categories=()))
    | some.sampled_from(["\x7f", "\u2028", "\ud800", "\U0001f600", '"\\\b\f\x00']),
    lambda inner: some.lists(inner) | some.dictionaries(some.text(max_size=3), inner),
    max_leaves=12,
)
json_values = some.recursive(
    some.none()
    | some.booleans()
    | some.integers(-SAFE, SAFE)
    | some.floats(allow_nan=False, allow_infinity=False)
    | some.text(),
    lambda inner: some.lists(inner, max_size=4) | some.dictionaries(some.text(), inner, max_size=4),
    max_leaves=20,
)


def event(**changes: Any) -> Event:
    given: dict[str, Any] = {"id": "1", "source": "/shop", "type": "order.placed", "data": {"sum": 1}}
    return Event(**given | changes)


@pytest.mark.parametrize(
    "value",
    [float("nan"), float("inf"), 2**53, -(2**53), "\ud800", {1: "a number as a key"}, datetime.now(UTC), {1, 2}],
)
def test_what_is_not_json_has_no_digest(value: Any) -> None:
    with pytest.raises(ValueError, match="not canonical JSON"):
        digest_of({"value": value})


@pytest.mark.parametrize("changes", [{"type": "order.paid"}, {"subject": "7"}, {"data": {"sum": 2}}, {"version": "2"}])
def test_other_content_has_another_digest(changes: dict[str, Any]) -> None:
    assert event(**changes).digest != event().digest


@pytest.mark.parametrize(
    "changes", [{"time": datetime.now(UTC)}, {"extensions": {"traceparent": "x"}}, {"id": "2"}, {"data": {"sum": 1.0}}]
)
def test_a_second_delivery_has_the_digest_of_the_first(changes: dict[str, Any]) -> None:
    assert event(**changes).digest == event().digest


@given(odd_values)
def test_the_canonical_form_is_that_of_rfc_8785_byte_by_byte_also_on_the_short_way(value: Any) -> None:
    try:
        expected = rfc8785.dumps(value)
    except (rfc8785.CanonicalizationError, UnicodeEncodeError):
        with pytest.raises(ValueError, match="not canonical JSON"):
            canonical(value)
    else:
        assert canonical(value) == expected


def test_a_deep_value_has_a_canonical_form_too() -> None:
    deep: Any = []
    for _ in range(100):
        deep = [deep, {"a": 1}]
    assert canonical(deep) == rfc8785.dumps(deep)


def test_the_canonical_form_is_that_of_rfc_8785() -> None:
    assert canonical({"b": [1e22, 0.1, 1.0], "a": "é\n"}) == '{"a":"é\\n","b":[1e+22,0.1,1]}'.encode()


@given(json_values)
def test_the_digest_does_not_know_the_order_of_keys(value: Any) -> None:
    def turned(part: Any) -> Any:
        if isinstance(part, dict):
            return {key: turned(part[key]) for key in reversed(part)}
        return [turned(item) for item in part] if isinstance(part, list) else part

    assert digest_of(turned(value)) == digest_of(value)


def test_ids_sort_by_the_time_they_were_made() -> None:
    ids = [new_id("run") for _ in range(1000)]

    assert ids == sorted(set(ids))
