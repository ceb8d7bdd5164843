"""Fields for JSON: every value that goes in and is not touched comes out as it was, and every mistake is named."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from eventwright.app.inbox.fields import Kind, fields_for_edit, fields_for_response
from eventwright.guardrails.text import clean_value
from eventwright.tools.mail_reading import clean_text

SCALARS = st.none() | st.booleans() | st.integers(-(2**53) + 1, 2**53 - 1) | st.text().map(clean_text)
NAMES = st.text("abc", min_size=1, max_size=3)
VALUES = st.recursive(SCALARS, lambda inner: st.lists(inner, max_size=3) | st.dictionaries(NAMES, inner, max_size=3))


def one(schema: dict[str, Any], written: str, root: dict[str, Any] | None = None) -> Any:
    """What is made of this in the field for one member; the fault, if there is one."""
    whole = {"type": "object", "properties": {"it": schema}, "required": ["it"], **(root or {})}
    value, faults = fields_for_response(whole).read({"it": written})
    return faults.get("it", value.get("it"))


@pytest.mark.parametrize(
    ("schema", "written", "words"),
    [
        ({"type": "integer"}, "1.5", "whole number"),
        ({"type": "integer"}, "one", "whole number"),
        ({"type": "number"}, "1,5", "a number"),
        ({"type": "number"}, "NaN", "a number"),
        ({"type": "number"}, "9" * 400, "not JSON"),
        ({"type": "number"}, "", "fill this in"),
        ({"type": "string"}, "  ", "fill this in"),
        ({"type": "boolean"}, "yes", "choose"),
        ({"enum": ["a", 1]}, '"b"', "choose"),
        ({"enum": ["a", 1]}, "", "choose"),
        ({"type": "array"}, "[1", "not JSON"),
        ({"type": "object"}, '{"a": 1, "a": 2}', "not JSON"),
        ({"type": "object"}, "[" * 100 + "]" * 100, "not JSON"),
    ],
)
def test_what_is_no_value_of_the_kind_is_told_in_words(schema: dict[str, Any], written: str, words: str) -> None:
    assert words in one(schema, written)


@pytest.mark.parametrize(
    ("schema", "written", "value"),
    [
        ({"type": "integer"}, " 7 ", 7),
        ({"type": "number"}, "+12.50", 12.5),
        ({"anyOf": [{"type": "number"}, {"type": "string"}]}, "12.50", "12.50"),
        ({"anyOf": [{"type": "integer"}, {"type": "null"}]}, "", None),
        ({"type": ["string", "null"]}, "", None),
        ({"type": "boolean"}, "false", False),
        ({"enum": ["a", 1, None]}, "1", 1),
        ({"const": "only"}, '"only"', "only"),
        ({"oneOf": [{"const": "a"}, {"const": "b"}]}, '"b"', "b"),
        ({"type": "array"}, '["a"]', ["a"]),
        ({"type": "string"}, '"quoted"', '"quoted"'),
        ({"$ref": "#/$defs/Kind"}, '"b"', "b"),
    ],
)
def test_a_value_is_read_as_its_schema_says(schema: dict[str, Any], written: str, value: Any) -> None:
    assert one(schema, written, {"$defs": {"Kind": {"enum": ["a", "b"]}}}) == value


@pytest.mark.parametrize(("written", "value"), [("yes", "yes"), ("7", 7), ('{"a": 1}', {"a": 1}), ("null", None)])
def test_an_answer_without_a_schema_is_a_text_or_json(written: str, value: Any) -> None:
    assert fields_for_response(None).read({"value": written}) == (value, {})


def test_what_begins_like_json_and_is_none_is_asked_for_again() -> None:
    assert "not JSON" in fields_for_response(None).read({"value": '{"a": '})[1]["value"]


def test_a_schema_that_refers_to_itself_ends() -> None:
    endless = {"$defs": {"a": {"$ref": "#/$defs/a"}}, "$ref": "#/$defs/a"}
    assert fields_for_response(endless).items[0].kind is Kind.JSON


def test_what_is_proposed_and_none_of_the_options_is_not_lost() -> None:
    maybe = {"anyOf": [{"enum": ["refund", "card"]}, {"type": "null"}]}
    fields = fields_for_edit({"kind": "cheque", "none": None}, {"properties": {"kind": maybe, "none": maybe}})
    assert fields.read({"kind": "cheque", "none": ""}) == ({"kind": "cheque", "none": None}, {})
    assert [field.kind for field in fields.items] == [Kind.LINE, Kind.CHOICE]


def test_a_choice_between_kinds_that_are_choices_themselves_is_written_as_json() -> None:
    [field] = fields_for_response({"oneOf": [{"type": ["string", "null"]}, {"type": "number"}]}).items
    assert field.kind is Kind.JSON


def test_nothing_is_chosen_for_anybody() -> None:
    [field] = fields_for_response({"enum": ["refund", "card"]}, "refund").items
    assert field.text == ""


@given(arguments=st.dictionaries(NAMES, VALUES, min_size=1, max_size=4))
@settings(max_examples=60)
def test_what_nobody_touches_stays_exactly_as_it_is(arguments: dict[str, Any]) -> None:
    fields = fields_for_edit(arguments, None)
    # A browser ends lines in its own way, and so does whoever reads what it sends.
    sent = {field.name: clean_text(field.text.replace("\n", "\r\n")) for field in fields.items}
    assert fields.read(sent) == (clean_value(arguments), {})


def test_characters_that_cannot_be_seen_are_left_out_of_what_was_looked_at_for_a_change() -> None:
    fields = fields_for_edit({"to": "an\u200bn", "subject": "a\r\nb"}, None)
    assert [field.text for field in fields.items] == ["ann", "a\nb"]
    assert fields.read({"to": "ann", "subject": "a\nb"}) == ({"to": "ann", "subject": "a\r\nb"}, {})


def test_more_arguments_than_a_form_has_fields_are_one_json_object() -> None:
    many = {str(number): number for number in range(150)}
    fields = fields_for_edit(many, None)
    assert len(fields.items) == 1
    assert fields.read({"value": json.dumps(many | {"7": 8})}) == (many | {"7": 8}, {})
