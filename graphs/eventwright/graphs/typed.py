"""Types in words that are the same in every process: of a graph's fields, and of the reducers that write them.

A type of the author's own that is made of fields (a pydantic model, a dataclass, a TypedDict, an Enum) is described
with them. One of Python, LangChain or LangGraph counts by its name: what it is made of is looked after there.
"""

from __future__ import annotations

import dataclasses
import functools
import re
import sys
import types
from collections.abc import Iterable
from enum import Enum
from typing import Annotated, Any, ForwardRef, Literal, NotRequired, Required, Union, get_args, get_origin, is_typeddict
from typing import get_type_hints as hints_of

from pydantic import BaseModel

#: What is left out of the words of something that says where it lies in memory.
_ADDRESS = re.compile(r" at 0x[0-9a-fA-F]+")
_FRAMEWORKS = ("langchain", "langgraph", "langsmith", "pydantic", "typing_extensions")


class Types:
    """The types that one graph's fields are of.

    Attributes:
        records: each type that is made of fields, by name: what its fields are, and which of them it cannot do without.
    """

    def __init__(self) -> None:
        self.records: dict[str, dict[str, Any]] = {}

    def describe(self, hint: Any) -> tuple[str, list[str]]:
        """A type in words, and the names of all records in it."""
        words = self._name(hint)
        return words, sorted(self._among(words, set()))

    def _among(self, words: str, found: set[str]) -> set[str]:
        """The records that these words name, and those in them."""
        for name in set(re.findall(r"[\w.<>]+", words)) & self.records.keys() - found:
            found.add(name)
            for inner in self.records[name]["fields"].values():
                self._among(inner, found)
        return found

    def _name(self, hint: Any) -> str:
        if hint is None or hint is types.NoneType:
            return "None"
        if hint is ... or hint is Any:
            return "..." if hint is ... else "Any"
        if isinstance(hint, str | ForwardRef):
            return hint if isinstance(hint, str) else hint.__forward_arg__
        if isinstance(hint, list | tuple):
            return f"[{', '.join(map(self._name, hint))}]"
        origin = get_origin(hint)
        if origin in (Annotated, Required, NotRequired):
            return self._name(get_args(hint)[0])
        if origin is Literal:
            return f"Literal[{', '.join(sorted(map(repr, get_args(hint))))}]"
        if origin in (Union, types.UnionType):
            return " | ".join(sorted({self._member(part) for part in get_args(hint)}))
        if origin is not None:
            return f"{self._name(origin)}[{', '.join(map(self._name, get_args(hint)))}]"
        if isinstance(hint, type):
            self._record(hint)
            return qualified(hint)
        return _ADDRESS.sub("", str(getattr(hint, "__name__", None) or hint))

    def _member(self, hint: Any) -> str:
        """One of several types. Those of a framework, of which a later release may have more, count together."""
        bare = get_args(hint)[0] if get_origin(hint) is Annotated else hint
        if isinstance(bare, type) and bare.__module__.startswith(_FRAMEWORKS):
            return f"{bare.__module__.partition('.')[0]}.*"
        return self._name(hint)

    def _record(self, kind: type) -> None:
        """Look into a type of the author's own."""
        name = qualified(kind)
        if name in self.records or _is_foreign(kind):
            return
        found = _fields(kind)
        if found is None:
            return
        record: dict[str, Any] = {"fields": {}}
        self.records[name] = record  # before its fields: one of them may be of the type itself
        inner, needed = found
        record["fields"] = {
            field: str(hint) if isinstance(hint, _Value) else self._name(hint) for field, hint in inner.items()
        }
        if needed:
            record["needed"] = sorted(needed)


class _Value(str):
    """The value of an Enum's member; it is no type."""

    __slots__ = ()


def _fields(kind: type) -> tuple[dict[str, Any], Iterable[str]] | None:
    """The fields of a type that is made of some, and those it cannot be without."""
    if issubclass(kind, Enum):
        return {member.name: _Value(f"= {member.value!r}") for member in kind if _is_plain(member.value)}, ()
    if issubclass(kind, BaseModel) or dataclasses.is_dataclass(kind):
        return _hints(kind), needed_fields(kind)
    return (_hints(kind), ()) if is_typeddict(kind) else None


def needed_fields(kind: Any) -> frozenset[str]:
    """The fields without which nothing of this type can be made: those without a default of a pydantic model, or of a
    dataclass. Nobody looks whether a TypedDict is whole."""
    if isinstance(kind, type) and issubclass(kind, BaseModel):
        return frozenset(name for name, field in kind.model_fields.items() if field.is_required())
    if isinstance(kind, type) and dataclasses.is_dataclass(kind):
        none = dataclasses.MISSING
        return frozenset(
            field.name
            for field in dataclasses.fields(kind)
            if field.init and field.default is none and field.default_factory is none
        )
    return frozenset()


def _hints(kind: type) -> dict[str, Any]:
    try:
        found = hints_of(kind, include_extras=True)
    except (NameError, TypeError):  # a name that only a type checker knows
        found = dict(getattr(kind, "__annotations__", {}))
    return {name: hint for name, hint in found.items() if not name.startswith(("model_", "__"))}


def _is_plain(value: Any) -> bool:
    return isinstance(value, str | int | float | bool | None)


def _is_foreign(kind: type) -> bool:
    home = kind.__module__.partition(".")[0]
    return home in sys.stdlib_module_names or home.startswith(_FRAMEWORKS)


def qualified(thing: Any) -> str:
    """The name of a class or a function, with its module; of a function of a framework, which may move there, with the
    framework's."""
    if isinstance(thing, functools.partial):
        return qualified(thing.func)
    module, name = getattr(thing, "__module__", None) or "", getattr(thing, "__qualname__", None)
    if name is None:
        return qualified(type(thing))
    if not isinstance(thing, type) and module.startswith(_FRAMEWORKS):
        return f"{module.partition('.')[0]}.{thing.__name__}"
    return name if module == "builtins" else f"{module}.{name}"
