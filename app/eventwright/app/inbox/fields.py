"""Fields for JSON: made from a schema and from what is proposed, read back with every mistake beside its field.

What has no field of its own kind (lists, objects, unions) is written as JSON.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from enum import StrEnum
from typing import Any

from eventwright.app.commands.telling import example_of, line
from eventwright.app.wire.strict_json import BadJSON, parse
from eventwright.guardrails.text import clean
from eventwright.runs.errors import EventwrightError

#: More members than this are written as one JSON object. Twice as many fit into a post.
MOST = 90
#: The field for a value that is no object with members.
WHOLE = "value"
#: A text that is longer, or has several lines, gets an area.
LINE = 80
_NUMBER = re.compile(r"[+-]?\d+(\.\d+)?([eE][+-]?\d{1,3})?", re.ASCII)


class Misfit(EventwrightError, ValueError):
    """Something written in a field is not what the field is for."""


class Kind(StrEnum):
    """How a field is filled in."""

    LINE = "line"
    AREA = "area"
    NUMBER = "number"
    CHOICE = "choice"
    JSON = "json"
    #: JSON, or a text that needs no quotes.
    FREE = "free"


@dataclass(frozen=True, kw_only=True)
class Field:
    """One field.

    Attributes:
        name: of the member, or `WHOLE`.
        text: what is written in it at first.
        options: the values to choose from, as JSON and in words.
        proposed: the value behind `text`, kept as it is where nobody changes the text.
        whole_number, nullable: what the schema says.
    """

    name: str
    kind: Kind
    label: str
    text: str = ""
    hint: str = ""
    required: bool = True
    options: Sequence[tuple[str, str]] = ()
    proposed: Any = None
    has_proposed: bool = False
    whole_number: bool = False
    nullable: bool = False

    def read(self, written: str) -> Any:
        """The value of what is written. Raises Misfit."""
        if self.has_proposed and written == self.text and clean(self.text) == _text_of(self.proposed, self.kind):
            return self.proposed
        if not written.strip():
            return self._empty(written)
        match self.kind:
            case Kind.LINE | Kind.AREA:
                return written
            case Kind.NUMBER:
                return self._number(written.strip())
            case Kind.CHOICE:
                if written not in dict(self.options):
                    raise Misfit("Please choose one of the options.")
                return json.loads(written)
            case Kind.JSON:
                return _json(written)
            case Kind.FREE:
                return _free(written)

    def _empty(self, written: str) -> Any:
        if self.nullable:
            return None
        if self.kind in (Kind.LINE, Kind.AREA) and self.has_proposed:
            return written
        raise Misfit("Please choose one of the options." if self.kind is Kind.CHOICE else "Please fill this in.")

    def _number(self, written: str) -> int | float:
        if not _NUMBER.fullmatch(written):
            raise Misfit("Please write a whole number." if self.whole_number else "Please write a number, as in 12.50.")
        value = _json(written.removeprefix("+"))
        if self.whole_number and not isinstance(value, int):
            raise Misfit("Please write a whole number.")
        number: int | float = value
        return number


@dataclass(frozen=True)
class Fields:
    """The fields of one answer.

    Attributes:
        alone: whether the one field is the whole value, and no member of an object.
    """

    items: tuple[Field, ...]
    alone: bool = False

    def read(self, written: Mapping[str, str]) -> tuple[Any, dict[str, str]]:
        """The value that all fields make together, and what has to be changed before it is one, by field."""
        value: dict[str, Any] = {}
        faults: dict[str, str] = {}
        for field in self.items:
            text = written.get(field.name, "")
            if not text.strip() and not field.required:
                continue
            try:
                value[field.name] = field.read(text)
            except Misfit as misfit:
                faults[field.name] = str(misfit)
        return (value.get(WHOLE) if self.alone else value), faults


def fields_for_edit(arguments: Any, schema: Mapping[str, Any] | None) -> Fields:
    """A field for each argument of a call, with what is proposed in it."""
    if not isinstance(arguments, Mapping) or len(arguments) > MOST:
        return Fields((_field(WHOLE, {}, {}, arguments, kind=Kind.JSON),), alone=True)
    root = schema or {}
    members = root.get("properties")
    members = members if isinstance(members, Mapping) else {}
    return Fields(tuple(_edited(name, members.get(name), root, value) for name, value in arguments.items()))


def fields_for_response(schema: Mapping[str, Any] | None, proposed: Any = None) -> Fields:
    """The fields of an answer: one for each member of an object, else one for the whole."""
    if schema is None:
        hint = "A text, or JSON."
        return Fields((Field(name=WHOLE, kind=Kind.FREE, label="Answer", hint=hint),), alone=True)
    shape, _ = _resolved(schema, schema)
    members = shape.get("properties")
    if shape.get("type") == "object" and isinstance(members, Mapping) and 0 < len(members) <= MOST:
        wanted = shape.get("required", ())
        known = proposed if isinstance(proposed, Mapping) else {}
        made = [
            _field(name, part, schema, known.get(name), required=name in wanted, proposed=name in known)
            for name, part in members.items()
        ]
        return Fields(tuple(map(_not_chosen, made)))
    field = _field(WHOLE, schema, schema, proposed, proposed=isinstance(proposed, str), label="Answer")
    return Fields((_not_chosen(field),), alone=True)


def _edited(name: str, part: Mapping[str, Any] | None, root: Mapping[str, Any], value: Any) -> Field:
    """The field with what is proposed in it, even where that is none of the options."""
    field = _field(name, part, root, value)
    return field if field.has_proposed or value is None else _field(name, None, {}, value)


def _not_chosen(field: Field) -> Field:
    """A choice is the person's: nothing is chosen for them, not even what is proposed."""
    return replace(field, text="", proposed=None, has_proposed=False) if field.kind is Kind.CHOICE else field


def _field(
    name: str,
    part: Mapping[str, Any] | None,
    root: Mapping[str, Any],
    value: Any,
    *,
    kind: Kind | None = None,
    required: bool = True,
    proposed: bool = True,
    label: str = "",
) -> Field:
    given = part if isinstance(part, Mapping) else {}
    shape, nullable = _resolved(given, root) if given else (_shape_of(value), proposed and value is None)
    options = _options(shape)
    found = kind or _kind(shape, options, value)
    if found is Kind.CHOICE and proposed and json.dumps(value) not in dict(options):
        proposed = False
    text = clean(_text_of(value, found)) if proposed else ""
    longest = shape.get("maxLength")
    roomy = not text and isinstance(longest, int) and longest > 500
    if found is Kind.LINE and (len(text) > LINE or "\n" in text or roomy):
        found = Kind.AREA
    hint = str(given.get("description") or "")
    if found is Kind.JSON and not proposed:
        # Beside the field and not in it: what stands there is taken for the person's own answer.
        hint = f"{hint} JSON, as in {json.dumps(example_of(given, root), ensure_ascii=False)}"
    return Field(
        name=name,
        kind=found,
        label=label or line(name, 100),
        text=text,
        hint=line(hint, 500),
        required=required,
        options=tuple(options),
        proposed=value if proposed else None,
        has_proposed=proposed,
        whole_number=shape.get("type") == "integer",
        nullable=nullable,
    )


def _resolved(shape: Mapping[str, Any], root: Mapping[str, Any]) -> tuple[Mapping[str, Any], bool]:
    """The shape behind references and a choice between it and nothing, and whether nothing is allowed."""
    nullable = False
    for _ in range(10):  # a schema may refer to itself
        several = shape.get("anyOf") or shape.get("oneOf") or shape.get("allOf")
        if "$ref" in shape:
            found = root.get("$defs", {}).get(str(shape["$ref"]).rpartition("/")[2], {})
            shape = found if isinstance(found, Mapping) else {}
        elif isinstance(several, list):
            shapes = [one if isinstance(one, Mapping) else {} for one in several]  # `true` is a schema too
            others = [one for one in shapes if one.get("type") != "null"]
            nullable |= len(others) < len(several)
            shape = _one_of(others)
        elif isinstance(shape.get("type"), list):
            types = [one for one in shape["type"] if one != "null"]
            nullable |= len(types) < len(shape["type"])
            shape = {**shape, "type": types[0] if len(types) == 1 else None}
        else:
            break
    return shape, nullable


def _one_of(shapes: Sequence[Mapping[str, Any]]) -> Mapping[str, Any]:
    """One shape for several, where one field can ask for any of them."""
    if len(shapes) == 1:
        return shapes[0]
    if shapes and all("const" in shape for shape in shapes):
        return {"enum": [shape["const"] for shape in shapes]}
    kinds = {str(shape.get("type")) for shape in shapes}
    # A number that may come as a text as well, so that no digit of it is lost, is written as a text.
    return {"type": "string"} if kinds == {"number", "string"} else {}


def _options(shape: Mapping[str, Any]) -> list[tuple[str, str]]:
    listed = shape.get("enum", [shape["const"]] if "const" in shape else None)
    if shape.get("type") == "boolean" and listed is None:
        return [("true", "Yes"), ("false", "No")]
    if not isinstance(listed, list):
        return []
    return [(json.dumps(value), line(value if isinstance(value, str) else json.dumps(value), 200)) for value in listed]


def _kind(shape: Mapping[str, Any], options: Sequence[object], value: Any) -> Kind:
    if options:
        return Kind.CHOICE
    kind = {"string": Kind.LINE, "integer": Kind.NUMBER, "number": Kind.NUMBER}.get(str(shape.get("type")), Kind.JSON)
    fits = {Kind.LINE: str, Kind.NUMBER: int | float}.get(kind)
    if value is not None and fits is not None and (isinstance(value, bool) or not isinstance(value, fits)):
        return Kind.LINE if isinstance(value, str) else Kind.JSON
    return kind


def _shape_of(value: Any) -> Mapping[str, Any]:
    """What a value without a schema is."""
    match value:
        case bool():
            return {"type": "boolean"}
        case int():
            return {"type": "number"}
        case float():
            return {"type": "number"}
        case str():
            return {"type": "string"}
    return {}


def _text_of(value: Any, kind: Kind) -> str:
    """The value as it stands in a field."""
    if value is None and kind is not Kind.JSON:
        return ""
    if isinstance(value, str) and kind in (Kind.LINE, Kind.AREA, Kind.FREE):
        return value.replace("\r\n", "\n").replace("\r", "\n")
    return json.dumps(value, ensure_ascii=False, indent=2 if kind is Kind.JSON else None)


def _json(written: str) -> Any:
    try:
        return parse(written.encode())
    except (BadJSON, UnicodeEncodeError) as error:
        raise Misfit(f"This is not JSON: {error}.") from error


def _free(written: str) -> Any:
    """A text, unless it is JSON. What begins like JSON and is none was meant to be."""
    if written.lstrip()[0] in '"{[':
        return _json(written)
    try:
        return _json(written.strip())
    except Misfit:
        return written
