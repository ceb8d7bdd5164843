"""Forms: what a page asks people for, made from the payload's model.

On("ticket.created", payload={"1": Ticket}, form=Form(title="Write to us", fields={"text": "Your message"}))
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any

from pydantic import BaseModel
from pydantic.errors import PydanticInvalidForJsonSchema

from eventwright.runs.errors import EventwrightError

#: A text that may be longer than this gets an area of several lines.
LINE = 500
_LONG_NAMES = frozenset({"text", "message", "comment", "comments", "description", "notes", "body"})
#: What browsers know about the one who fills a form in, by the names that fields have.
_AUTOCOMPLETE = {
    "email": "email",
    "sender": "email",
    "name": "name",
    "full_name": "name",
    "first_name": "given-name",
    "given_name": "given-name",
    "last_name": "family-name",
    "surname": "family-name",
    "phone": "tel",
    "company": "organization",
    "job_title": "organization-title",
    "street": "street-address",
    "city": "address-level2",
    "postal_code": "postal-code",
    "postcode": "postal-code",
    "state": "address-level1",
    "country": "country-name",
    "website": "url",
}


class BadForm(EventwrightError, ValueError):
    """A form cannot be made of a payload's model."""


class Kind(StrEnum):
    """How a field is filled in."""

    TEXT = "text"
    EMAIL = "email"
    URL = "url"
    AREA = "area"
    NUMBER = "number"
    INTEGER = "integer"
    DATE = "date"
    CHECKBOX = "checkbox"
    SELECT = "select"


@dataclass(frozen=True, kw_only=True)
class Input:
    """One field of a form."""

    name: str
    label: str
    kind: Kind
    hint: str = ""
    required: bool = False
    #: Empty where the model has none.
    default: str = ""
    options: tuple[str, ...] = ()
    #: Attributes of the element that keep a mistake from being sent: `maxlength`, `min`, ...
    limits: Mapping[str, str] = field(default_factory=dict)
    autocomplete: str = "off"


@dataclass(frozen=True, kw_only=True)
class Form:
    """A page that sends the trigger's event. Everybody who can reach the service may fill it in.

    Args:
        title: what stands above it.
        intro: what it is for.
        fields: the label of each field; by default the name in the model, in words.
        button: what sends it.
        thanks: what is said when it was received.
        version: of the payload; by default the newest.
        leave_out: fields of the model that the page does not ask for; a form of one's own may send them.
    """

    title: str
    intro: str = ""
    fields: Mapping[str, str] = field(default_factory=dict)
    button: str = "Send"
    thanks: str = "Thank you. We have received what you sent."
    version: str | None = None
    leave_out: Sequence[str] = ()

    def version_of(self, payload: Mapping[str, type[BaseModel]]) -> str:
        """The payload version that the form sends. Raises BadForm if there is none."""
        version = self.version or next(iter(list(payload)[-1:]), None)
        if version is None or version not in payload:
            known = ", ".join(payload) or "none"
            raise BadForm(f"a form needs a payload model; version {version!r} is not among: {known}")
        return version

    def inputs(self, payload: Mapping[str, type[BaseModel]]) -> tuple[Input, ...]:
        """The fields, in the model's order.

        Raises:
            BadForm: the model has what no one field can ask for; a label is for a field that is not there; what is left
                out is not there, or has to be filled in.
        """
        model = payload[self.version_of(payload)]
        try:
            schema = model.model_json_schema(mode="validation")
        except PydanticInvalidForJsonSchema as error:
            raise BadForm(f"no form can be made of {model.__name__}: {error}") from error
        properties = schema.get("properties", {})
        if strangers := sorted({*self.fields, *self.leave_out} - properties.keys()):
            raise BadForm(f"{model.__name__} has no field {strangers[0]!r}; its fields are: {', '.join(properties)}")
        required = set(schema.get("required", ()))
        if missed := sorted(required.intersection(self.leave_out)):
            raise BadForm(f"{model.__name__} needs {missed[0]!r}, so the page has to ask for it")
        return tuple(
            _input(name, part, schema, required=name in required, label=self.fields.get(name))
            for name, part in properties.items()
            if name not in self.leave_out
        )


def _input(name: str, part: Mapping[str, Any], whole: Mapping[str, Any], *, required: bool, label: str | None) -> Input:
    shapes = [_resolved(shape, whole) for shape in part.get("anyOf", [part])]
    shapes = [dict(shape) for shape in shapes if shape.get("type") != "null"]
    # A number may come as a text as well, so that no digit of it is lost: it is a number.
    shape = next((shape for shape in shapes if shape.get("type") in ("number", "integer")), shapes[0])
    default = part.get("default")
    return Input(
        name=name,
        label=label or _in_words(name),
        kind=_kind(name, shape, part),
        hint=str(part.get("description", "")),
        required=required,
        default="" if default is None else str(default).lower() if isinstance(default, bool) else str(default),
        options=tuple(map(str, shape.get("enum", [shape["const"]] if "const" in shape else ()))),
        limits=_limits(shape),
        autocomplete=_AUTOCOMPLETE.get(name, "off"),
    )


def _resolved(shape: Mapping[str, Any], whole: Mapping[str, Any]) -> Mapping[str, Any]:
    reference = shape.get("$ref")
    if reference is None and len(shape.get("allOf", ())) == 1:
        reference = shape["allOf"][0].get("$ref")
    if reference is None:
        return shape
    found: Mapping[str, Any] = whole["$defs"][str(reference).rpartition("/")[2]]
    return found


def _kind(name: str, shape: Mapping[str, Any], part: Mapping[str, Any]) -> Kind:
    if "enum" in shape or "const" in shape:
        return Kind.SELECT
    kind, form = shape.get("type"), shape.get("format")
    if kind == "string" and form in (None, "email", "uri", "date"):
        known = {"email": Kind.EMAIL, "uri": Kind.URL, "date": Kind.DATE}.get(str(form))
        if known is None and _AUTOCOMPLETE.get(name) == "email":
            return Kind.EMAIL
        longest = shape.get("maxLength", part.get("maxLength"))
        long = name in _LONG_NAMES if longest is None else longest > LINE
        return known or (Kind.AREA if long else Kind.TEXT)
    simple = {"number": Kind.NUMBER, "integer": Kind.INTEGER, "boolean": Kind.CHECKBOX}.get(str(kind))
    if simple is None:
        what = " ".join(str(word) for word in (kind, form) if word) or "of several kinds"
        raise BadForm(
            f"no field of a form can ask for {name!r}, which is {what}; forms take texts, numbers, dates, yes or no, "
            "and choices. Give the form a version of the payload without it"
        )
    return simple


def _limits(shape: Mapping[str, Any]) -> dict[str, str]:
    limits = {"minlength": shape.get("minLength"), "maxlength": shape.get("maxLength")}
    limits |= {"min": shape.get("minimum"), "max": shape.get("maximum")}
    if shape.get("type") == "integer":
        above, below = shape.get("exclusiveMinimum"), shape.get("exclusiveMaximum")
        limits["min"] = limits["min"] if above is None else above + 1
        limits["max"] = limits["max"] if below is None else below - 1
    return {
        name: format(value, "g") if isinstance(value, float) else str(value)
        for name, value in limits.items()
        if value is not None
    }


def _in_words(name: str) -> str:
    words = name.replace("_", " ").strip()
    return words[:1].upper() + words[1:]
