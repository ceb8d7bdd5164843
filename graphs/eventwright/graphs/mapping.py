"""What becomes of a run's state when it moves to another graph: fields get other names, are dropped, or are set."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass, field
from typing import Any

from pydantic import BaseModel, ConfigDict, TypeAdapter, ValidationError
from pydantic.errors import PydanticSchemaGenerationError, PydanticUserError

from eventwright.graphs.workflow import Workflow
from eventwright.guardrails.request import brief
from eventwright.runs.errors import EventwrightError

State = dict[str, Any]


class _Form(BaseModel, extra="forbid", strict=True):
    """What a mapping looks like in JSON."""

    rename: dict[str, str] = {}
    drop: list[str] = []
    set: dict[str, Any] = {}


class BadMapping(EventwrightError, ValueError):
    """A mapping of the state says something that cannot be done."""


@dataclass(frozen=True, kw_only=True)
class StateMapping:
    """How a state becomes one of another graph: `rename` (old name to new) and `drop` speak of the fields as they were,
    `set` of those that shall be; last comes `through`, a function from the whole state to the whole new one.

    Raises:
        BadMapping: two fields would get one name.
    """

    rename: Mapping[str, str] = field(default_factory=dict)
    drop: Collection[str] = ()
    set: Mapping[str, Any] = field(default_factory=dict)
    through: Callable[[State], State] | None = None

    def __post_init__(self) -> None:
        if len({*self.rename.values()}) < len(self.rename):
            raise BadMapping(f"two fields cannot get one name: {dict(self.rename)}")

    @classmethod
    def read(cls, value: Any) -> StateMapping:
        """From JSON: `{"rename": {"old": "new"}, "drop": ["field"], "set": {"field": value}}`, each part if wanted.

        Raises:
            BadMapping: it has another form.
        """
        try:
            return cls(**_Form.model_validate(value).model_dump())
        except ValidationError as error:
            form = '{"rename": {"old": "new"}, "drop": ["field"], "set": {"field": value}}'
            raise BadMapping(f"a mapping of the state looks like {form}: {brief(error)}") from error

    def settles(self, name: str) -> bool:
        """Whether it says what becomes of a field, under its name before or after."""
        spoken_of = {*self.rename, *self.rename.values(), *self.drop, *self.set}
        return self.through is not None or name in spoken_of

    def applied(self, state: State, workflow: Workflow, known: Collection[str]) -> State:
        """The state as it fits the workflow's graph.

        Args:
            known: the fields that there were in the graph which the state is of.

        Raises:
            BadMapping: it speaks of a field that is not there, or a value does not fit the field's type.
        """
        strangers = sorted({*self.rename, *self.drop} - {*known, *state})
        if strangers:
            raise BadMapping(f"the state has no field {strangers[0]!r}; it has: {', '.join(sorted({*known, *state}))}")
        taken = sorted({*self.rename.values()} & (state.keys() - {*self.rename, *self.drop}))
        if taken:
            raise BadMapping(f"the state has a field {taken[0]!r} already; drop or rename that as well")
        mapped = {self.rename.get(name, name): value for name, value in state.items() if name not in self.drop}
        mapped |= self.set
        if self.through is not None:
            mapped = _called(self.through, mapped)
        return {
            name: _fitting(workflow, name, value) if self.settles(name) else value for name, value in mapped.items()
        }

    def labels(self, labels: Mapping[str, list[str]], after: Collection[str]) -> dict[str, list[str]]:
        """Which fields hold untrusted data afterwards, and where it came from. A function may have made every field out
        of any other."""
        moved = {self.rename.get(name, name): list(sources) for name, sources in labels.items()}
        if self.through is not None:
            everything = list(dict.fromkeys(source for sources in labels.values() for source in sources))
            moved |= dict.fromkeys(after, everything) if everything else {}
        return moved

    def as_json(self) -> dict[str, Any]:
        """For the journal. The values that are set are not repeated there: they stand in the state."""
        told = {
            "rename": dict(self.rename),
            "drop": sorted(self.drop),
            "set": sorted(self.set),
            "function": None if self.through is None else f"{self.through.__module__}:{self.through.__qualname__}",
        }
        return {name: value for name, value in told.items() if value}


def _called(function: Callable[[State], State], state: State) -> State:
    try:
        mapped = function(state)
    except Exception as error:
        raise BadMapping(f"the mapping failed: {type(error).__name__}: {error}") from error
    if not isinstance(mapped, dict):
        raise BadMapping(f"the mapping returned {type(mapped).__name__}, and not the new state as a dict")
    return mapped


def _fitting(workflow: Workflow, name: str, value: Any) -> Any:
    """The value as the field's type has it. Raises BadMapping."""
    channel = workflow.graph.channels.get(name)
    if channel is None:
        known = ", ".join(sorted(workflow.graph.channels))
        raise BadMapping(f"{workflow.name} version {workflow.version} has no field {name!r}; its fields are: {known}")
    try:
        return _adapter(channel.ValueType).validate_python(value)
    except ValidationError as error:
        raise BadMapping(f"field {name!r} takes no such value: {brief(error)}") from error


def _adapter(kind: Any) -> TypeAdapter[Any]:
    """Of a type that pydantic knows nothing of it is looked at whether a value is one."""
    try:
        return TypeAdapter(kind)
    except PydanticSchemaGenerationError:
        return TypeAdapter(kind, config=ConfigDict(arbitrary_types_allowed=True))
    except PydanticUserError:
        return TypeAdapter(Any)
