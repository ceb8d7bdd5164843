"""What operators see and do about runs that went wrong, over the wire: effects, undoing, replaying."""

from __future__ import annotations

from datetime import datetime
from typing import Annotated, Any, Self

from pydantic import ConfigDict, Field, model_validator

from eventwright.app.web import examples
from eventwright.app.web.models import Answer, Body, example
from eventwright.graphs.mapping import StateMapping
from eventwright.queue.compensation import LedgerLine
from eventwright.queue.migration import Move
from eventwright.runs.event import canonical
from eventwright.runs.records import EffectState
from eventwright.runs.states import Reason, RunState

#: Bytes of JSON up to which arguments and results of a call are shown.
SHORT = 4096


class Effect(Answer):
    """A tool or model call of a run, and whether it can be taken back."""

    model_config = ConfigDict(serialize_by_alias=True)

    key: str = Field(description="names it for `POST /v1/runs/{run_id}/undo`; our idempotency key")
    tool: str
    tool_class: str = Field(alias="class", description="read, keyed, verifiable or plain")
    state: EffectState
    node: str
    attempt: int
    arguments: Any = Field(description=f"null above {SHORT} bytes; then `left_out` says so")
    result: Any = Field(description=f"null above {SHORT} bytes; then `left_out` says so")
    left_out: list[str]
    error: str | None
    at: datetime | None
    undo: str | None = Field(description="the tool that would take it back")
    undone_by: str | None = Field(description="the run that took it back, or is about to")
    undone: bool = Field(description="whether that is done")
    obstacle: str | None = Field(description="why it cannot be taken back")
    expired_at: datetime | None = Field(None, description="when `arguments` and `result` were deleted")

    @classmethod
    def of(cls, line: LedgerLine) -> Self:
        effect = line.effect
        values = {"arguments": effect.arguments, "result": effect.result}
        long = [name for name, value in values.items() if len(canonical(value)) > SHORT]
        shown = values | dict.fromkeys(long)
        about = {"class": effect.tool_class, "at": effect.updated_at, "left_out": long} | shown
        return cls.model_validate(vars(effect) | vars(line) | about)


class Ledger(Answer):
    """What a run did, in order."""

    model_config = ConfigDict(json_schema_extra=example(examples.LEDGER))

    items: list[Effect]


class Undo(Body):
    """What of a run is taken back; `{}` or no body means everything that can be."""

    model_config = ConfigDict(json_schema_extra=example({}, {"effects": [examples.EFFECT_KEY]}))

    effects: list[str] | None = Field(None, min_length=1, description="keys of effects")


class Replay(Body):
    """How a dead letter is taken up again."""

    model_config = ConfigDict(
        json_schema_extra=example(
            {},
            {"from_start": True},
            {"rename": {"pay": "refund"}},
            {"to_version": "2", "state": {"rename": {"total": "amount"}, "drop": ["note"], "set": {"currency": "EUR"}}},
        )
    )

    from_start: bool = Field(False, description="begin the graph anew; effects that are done are not repeated")
    rename: dict[str, str] = Field({}, description="nodes that a deploy renamed, old name to new")
    to_version: str | None = Field(None, description="of its workflow, to which it moves; by default its own")
    state: dict[str, Any] | None = Field(None, description="what becomes of its state: `rename`, `drop`, `set`")

    @property
    def move(self) -> Move:
        """Raises BadMapping."""
        state = None if self.state is None else StateMapping.read(self.state)
        return Move(to_version=self.to_version, rename=self.rename, state=state)


class ReplayFilter(Body):
    """Which dead letters are taken up again; `{}` means all."""

    model_config = ConfigDict(json_schema_extra=example({"reason": "attempts", "workflow": "support"}))

    state: Annotated[RunState, Field(strict=False)] = Field(
        RunState.FAILED, description="only `failed` runs can be replayed"
    )
    workflow: str | None = None
    reason: Annotated[Reason, Field(strict=False)] | None = None

    @model_validator(mode="before")
    @classmethod
    def _unwrapped(cls, value: Any) -> Any:
        """`{"filter": {...}}` says the same as the filter itself."""
        return value["filter"] if isinstance(value, dict) and value.keys() == {"filter"} else value

    @model_validator(mode="after")
    def _failed(self) -> Self:
        if self.state is not RunState.FAILED:
            raise ValueError(f"only failed runs can be replayed, not {self.state} ones")
        return self


class Replayed(Answer):
    """The runs that go on now."""

    model_config = ConfigDict(json_schema_extra=example(examples.REPLAYED))

    runs: list[str]
