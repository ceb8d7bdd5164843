"""The arguments of a LangChain tool as a strict model: what a model sees of them, and nothing else.

A LangChain tool describes its arguments by a pydantic model, or by a JSON schema (those of MCP servers do).
"""

from __future__ import annotations

import types
from collections.abc import Iterator, Mapping
from typing import Annotated, Any, ClassVar, Literal

from jsonschema import Draft202012Validator
from jsonschema.exceptions import best_match
from langchain_core.tools import BaseTool
from pydantic import BaseModel, ConfigDict, GetJsonSchemaHandler, create_model, model_validator
from pydantic.json_schema import JsonSchemaValue
from pydantic_core import CoreSchema
from referencing import Registry

from eventwright.tools.contract import LONGEST_STRING

STRICT = ConfigDict(
    extra="forbid",
    strict=True,
    allow_inf_nan=False,
    str_max_length=LONGEST_STRING,
    validate_by_name=True,
    validate_by_alias=True,
)


class ByJsonSchema(BaseModel):
    """Arguments that a JSON schema describes. What is left out, or null, is None and not handed on."""

    json_schema_of_all: ClassVar[Mapping[str, Any]] = {}

    @classmethod
    def __get_pydantic_json_schema__(cls, schema: CoreSchema, handler: GetJsonSchemaHandler) -> JsonSchemaValue:
        return dict(cls.json_schema_of_all)

    @model_validator(mode="before")
    @classmethod
    def _fits(cls, given: Any) -> Any:
        if not isinstance(given, dict):
            return given
        required = cls.json_schema_of_all.get("required", [])
        present = {name: value for name, value in given.items() if value is not None or name in required}
        # An empty registry: a reference in a schema never fetches anything.
        checks = Draft202012Validator(cls.json_schema_of_all, registry=Registry())
        flaw = best_match(checks.iter_errors(present))
        if flaw is not None:
            raise ValueError(f"{flaw.json_path}: {flaw.message[:300]}")
        if any(len(text) > LONGEST_STRING for text in _texts(present)):
            raise ValueError(f"a text is longer than {LONGEST_STRING} characters")
        return present


def arguments_of(tool: BaseTool, *, hidden: str | None = None) -> type[BaseModel]:
    """A strict model of the arguments that a model gives to the tool: without injected ones and without `hidden`.

    Raises:
        TypeError: the tool does not say what its arguments are, or one cannot be checked.
    """
    schema = tool.tool_call_schema
    if isinstance(schema, dict):
        names = dict.fromkeys(schema.get("properties", {}))
    elif isinstance(schema, type) and issubclass(schema, BaseModel):
        names = dict.fromkeys(schema.model_fields)
    else:
        raise TypeError(f"tool {tool.name!r}: its args_schema is of pydantic 1; make it a model of pydantic 2")
    if hidden is not None and hidden not in names:
        raise TypeError(f"tool {tool.name!r} has no parameter {hidden!r} for the key; it has: {', '.join(names)}")
    for name in names:
        # `args` and `kwargs` stand for parameters without a name.
        if name.startswith("_") or hasattr(BaseModel, name) or name in ("args", "kwargs"):
            raise TypeError(f"tool {tool.name!r}: an argument called {name!r} would go unchecked; give it another name")
    names.pop(hidden or "", None)
    if isinstance(schema, dict):
        return _from_json_schema(tool.name, schema, list(names))
    whole = tool.args_schema
    if isinstance(whole, type) and issubclass(whole, BaseModel) and list(names) == list(whole.model_fields):
        # The tool's own validators come along.
        return types.new_class(_title(tool), (whole,), exec_body=lambda body: body.update(model_config=STRICT))
    fields: dict[str, Any] = {name: (schema.model_fields[name].annotation, schema.model_fields[name]) for name in names}
    return create_model(_title(tool), __config__=STRICT, **fields)


def hints_of(arguments: type[BaseModel]) -> dict[str, Any]:
    """The type of each argument, with what is written beside it."""
    return {
        name: Annotated[field.annotation, *field.metadata] if field.metadata else field.annotation
        for name, field in arguments.model_fields.items()
    }


def without_absent(arguments: BaseModel) -> dict[str, Any]:
    """The arguments by name, without those that were not given."""
    values = {name: getattr(arguments, name) for name in type(arguments).model_fields}
    if not isinstance(arguments, ByJsonSchema):
        return values
    required = type(arguments).json_schema_of_all.get("required", [])
    return {name: value for name, value in values.items() if value is not None or name in required}


def _title(tool: BaseTool) -> str:
    return f"{tool.name} arguments"


def _from_json_schema(name: str, schema: Mapping[str, Any], names: list[str]) -> type[BaseModel]:
    required = [argument for argument in schema.get("required", []) if argument in names]
    properties = {argument: schema["properties"][argument] for argument in names}
    fields: dict[str, Any] = {
        argument: (_type(part), ...) if argument in required else (_type(part) | None, None)
        for argument, part in properties.items()
    }
    rest = {key: part for key, part in schema.items() if key not in ("title", "description")}
    model = create_model(f"{name} arguments", __base__=ByJsonSchema, **fields)
    model.model_config = STRICT
    model.json_schema_of_all = {**rest, "properties": properties, "required": required, "additionalProperties": False}
    model.model_rebuild(force=True)
    return model


def _type(part: Any) -> Any:
    """A property's type as far as it tells whether its values are few; the schema checks the rest."""
    if isinstance(part, dict) and part.get("type") == "boolean":
        return bool
    values = part.get("enum", [part["const"]] if "const" in part else []) if isinstance(part, dict) else []
    return Literal[tuple(values)] if values and all(isinstance(value, str | bool) for value in values) else Any


def _texts(value: Any) -> Iterator[str]:
    """Every text in a JSON value."""
    if isinstance(value, str):
        yield value
    parts = value.values() if isinstance(value, dict) else value if isinstance(value, list) else ()
    for part in parts:
        yield from _texts(part)
