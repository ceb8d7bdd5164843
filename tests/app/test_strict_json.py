"""JSON from strangers: whatever comes in can be stored and read back, or it is refused with what and where."""

from __future__ import annotations

import json
import sys
from typing import Any

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from eventwright.app.wire.strict_json import LARGEST, LIMIT, BadJSON, TooLarge, check, load, parse
from eventwright.runs.event import canonical

json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(st.characters(codec=None)),
    lambda inner: st.lists(inner) | st.dictionaries(st.text(st.characters(codec=None)), inner),
    max_leaves=20,
)


def refusal(raw: bytes, **bounds: int) -> BadJSON:
    with pytest.raises(BadJSON) as caught:
        parse(raw, **bounds)
    return caught.value


def test_a_body_over_the_limit_is_refused_by_its_size_alone():
    error = refusal(b" " * (LIMIT + 1))
    assert isinstance(error, TooLarge)
    assert (error.size, error.limit) == (LIMIT + 1, LIMIT)


def test_a_body_of_exactly_the_limit_is_read():
    assert parse(b'"' + b"x" * (LIMIT - 2) + b'"') == "x" * (LIMIT - 2)


@pytest.mark.parametrize("encoding", ["utf-16", "utf-32", "latin-1"])
def test_only_utf_8_is_read(encoding: str):
    assert "UTF-8" in refusal('"Grüße"'.encode(encoding)).what


def test_a_byte_order_mark_is_not_json():
    assert "BOM" in refusal('\ufeff{"a": 1}'.encode()).what


@pytest.mark.parametrize(
    "raw", [b"", b"{", b'{"a": 1,}', b"[1] 2", b"{'a': 1}", b"01", b'"\x01"', b"undefined", b'"\\']
)
def test_what_is_not_json_is_refused_with_line_and_column(raw: bytes):
    error = refusal(raw)
    assert error.what.startswith("not JSON")
    assert error.where.startswith("line 1 column")


@pytest.mark.parametrize("name", ["NaN", "Infinity", "-Infinity"])
def test_numbers_that_are_none_are_refused(name: str):
    error = refusal(f'{{"price": [1, {name}]}}'.encode())
    assert name in error.what
    assert error.where == "$.price[1]"


def test_a_key_that_stands_twice_is_refused_wherever_it_is():
    error = refusal(b'{"order": {"amount": 1, "amount": 1000}}')
    assert "'amount' stands twice" in error.what
    assert error.where == "$.order"


def test_keys_that_are_equal_after_unescaping_stand_twice_too():
    assert "stands twice" in refusal(b'{"a": 1, "\\u0061": 2}').what


@pytest.mark.parametrize(
    "number",
    [
        "9007199254740992",
        "-9007199254740992",
        "1e309",
        "-1e309",
        "1e16",
        "9" * 5000,
        "1" + "0" * 400 + ".5",
        "1e999999999",
    ],
)
def test_numbers_beyond_2_to_the_53_are_refused_however_they_are_written(number: str):
    error = refusal(f'{{"id": {number}}}'.encode())
    assert "2**53" in error.what
    assert error.where == "$.id"


def test_the_largest_exact_numbers_are_kept():
    assert parse(f"[{LARGEST}, {-LARGEST}, 0.1, 12.50, 1e-300, -0]".encode()) == [
        LARGEST,
        -LARGEST,
        0.1,
        12.5,
        1e-300,
        0,
    ]


@pytest.mark.parametrize("escape", ["\\u0000", "\\ud800", "\\udc00 \\ud83d"])
def test_characters_that_no_database_stores_are_refused(escape: str):
    error = refusal(f'{{"notes": ["fine", "a{escape}b"]}}'.encode())
    assert "cannot be stored" in error.what
    assert error.where == "$.notes[1]"


def test_such_characters_are_refused_in_keys_too():
    assert refusal(b'{"outer": {"a\\u0000b": 1}}').where == "$.outer"


def test_a_whole_surrogate_pair_is_one_character():
    assert parse(b'"\\ud83d\\ude00"') == "\U0001f600"


def test_nesting_has_a_limit_and_brackets_in_strings_do_not_count():
    deepest = b"[" * 64 + b'"[[[[{{{{ \\" [["' + b"]" * 64
    assert parse(deepest)
    assert "64" in refusal(b'{"a":' + deepest + b"}").what


def test_a_bomb_of_brackets_is_refused_and_does_not_reach_the_parser():
    assert "inside one another" in refusal(b"[" * LIMIT).what
    assert "inside one another" in refusal(b'{"a":' * (LIMIT // 5)).what


def test_a_caller_who_allows_any_depth_still_gets_a_refusal():
    depth = sys.getrecursionlimit() * 100
    assert "nested" in refusal(b"[" * depth + b"]" * depth, depth=depth).what


def test_a_string_that_never_ends_is_refused_in_one_pass():
    """Half a million escaped quotes: a scan that tried again at each would not come back within this test's life."""
    assert refusal(b'"' + b'\\"' * (LIMIT // 2 - 1)).what.startswith("not JSON")


def test_an_object_of_many_keys_and_one_twice_is_refused_in_one_pass():
    members = ",".join(f'"{number}":0' for number in range(90_000))
    assert "'7' stands twice" in refusal(f'{{{members},"7":0}}'.encode()).what


def test_a_long_key_does_not_make_a_long_message():
    key = "k" * 10_000
    assert len(str(refusal(f'{{"{key}": {{"a": NaN}}}}'.encode()))) < 300


def test_one_bad_item_of_a_list_leaves_the_others_usable():
    items = load(b'[{"a": 1}, {"a": NaN}, {"a": 1, "a": 2}]')
    check(items[0])
    for position in (1, 2):
        with pytest.raises(BadJSON, match=rf"\$\[{position}\]"):
            check(items[position], f"$[{position}]")


@given(st.binary() | st.text().map(str.encode) | st.text('[]{}":,\\ue0123456789.NaN-').map(str.encode))
@example(b'{"a": "\\ud800"}')
def test_parse_raises_nothing_but_bad_json(raw: bytes):
    try:
        value = parse(raw)
    except BadJSON:
        return
    assert parse(canonical(value)) == value


@given(json_values)
def test_what_is_accepted_survives_its_canonical_form(value: Any):
    raw = json.dumps(value).encode()
    try:
        accepted = parse(raw)
    except BadJSON:
        return
    assert accepted == value
    assert parse(canonical(accepted)) == accepted
