"""A call on its way through the gate, and how its arguments become canonical."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, NamedTuple

from pydantic import BaseModel, ValidationError
from pydantic_core import PydanticSerializationError, to_jsonable_python

from eventwright.guardrails.policy import Policy
from eventwright.guardrails.redaction import Redaction
from eventwright.guardrails.rules import Facts
from eventwright.guardrails.text import clean_value
from eventwright.guardrails.verdicts import Verdict
from eventwright.runs.errors import in_one_line
from eventwright.runs.event import canonical
from eventwright.runs.records import Review, Run, Visit
from eventwright.tools.contract import Role, Tool


class Arguments(NamedTuple):
    """The arguments of a call, in the three forms that the gate needs."""

    #: JSON, for people and for the ledger.
    values: dict[str, Any]
    #: The same as canonical JSON, for digests.
    text: bytes
    #: For rules, and for the tool.
    validated: BaseModel


@dataclass(kw_only=True)
class Request:
    """One call on its way through the gate, which the stages add to."""

    tool: Tool
    node: str
    policy: Policy
    visit: Visit
    ordinal: str
    #: The effect's key: run, visit, tool, ordinal. It survives retries, crashes, renamed nodes and new threads.
    key: str
    #: Canonical arguments, as they were asked for or as a person edited them.
    arguments: dict[str, Any]
    #: The same, as canonical JSON.
    text: bytes
    validated: BaseModel
    #: What a person approves: workflow, version, run, node, tool and arguments.
    digest: str
    facts: Facts
    #: Where untrusted data came from that the node has read; empty if everything it has read can be relied on.
    tainted_by: tuple[str, ...] = ()
    #: What the stages have said so far; each adds to it.
    verdicts: list[Verdict] = field(default_factory=list)
    #: The reviews whose decisions let this call pass.
    reviews: tuple[Review, ...] = ()

    @property
    def arguments_digest(self) -> str:
        """What the ledger knows the arguments by: their `digest_of`."""
        return hashlib.sha256(self.text).hexdigest()


def validate(tool: Tool, raw: Mapping[str, Any]) -> Arguments:
    """The canonical arguments and the strictly validated model.

    Validated from JSON, so that strict mode accepts `"12.50"` for a Decimal and an ISO time for a time, and nothing
    that is merely convertible.

    Raises:
        ValueError: the arguments are not canonical JSON, or not valid (pydantic's ValidationError is one).
    """
    validated = read(tool, canonical(_as_json(raw)))
    values = to_jsonable_python(validated, inf_nan_mode="constants")
    return Arguments(values, canonical(values), validated)


def read(tool: Tool, text: bytes) -> BaseModel:
    """The strictly validated model. Raises ValueError."""
    return tool.arguments.model_validate_json(text, strict=True, extra="forbid")


def take_as_given(tool: Tool, raw: Mapping[str, Any]) -> Arguments:
    """The arguments without any check: what a gate that has no schema stage works with. What is as the tool wants it
    has the tool's types, and all else is as it came."""
    values = _as_json(raw)
    typed = {name: _typed(tool, name, value) for name, value in raw.items()}
    return Arguments(values, canonical(values), tool.arguments.model_construct(**typed))


def _typed(tool: Tool, name: str, value: Any) -> Any:
    model = tool.arguments.model_construct()
    try:
        tool.arguments.__pydantic_validator__.validate_assignment(model, name, value)
    except ValueError:
        return value
    typed = getattr(model, name)
    return typed if _as_json({name: typed}) == _as_json({name: value}) else value


def _as_json(raw: Mapping[str, Any]) -> dict[str, Any]:
    try:
        jsonable: dict[str, Any] = to_jsonable_python(dict(raw), inf_nan_mode="constants")
    except PydanticSerializationError as error:
        raise ValueError(f"not JSON: {error}") from error
    return jsonable


def outgoing(tool: Tool, raw: Mapping[str, Any], redaction: Redaction) -> dict[str, Any]:
    """The arguments with every text that leaves, also in lists and objects, cleaned of invisible characters and of what
    must not leave."""
    return {
        name: redaction.for_outgoing(clean_value(to_jsonable_python(value, inf_nan_mode="constants")))
        if tool.roles.get(name) is Role.CONTENT
        else value
        for name, value in raw.items()
    }


def bound_to(run: Run, node: str, tool: str) -> bytes:
    """What an approval is bound to besides the arguments, as canonical JSON."""
    return canonical({"workflow": run.workflow, "version": run.version, "run": run.id, "node": node, "tool": tool})


def call_digest(bound: bytes, arguments: bytes) -> str:
    """SHA-256 over everything an approval is bound to: the canonical JSON of `bound_to` with the arguments as one more
    member, whose name comes first in the alphabet.

    Args:
        arguments: canonical JSON.
    """
    return hashlib.sha256(b'{"arguments":' + arguments + b"," + bound[1:]).hexdigest()


def brief(error: ValueError) -> str:
    """What is wrong with arguments, on one line, for the person who gave them."""
    if isinstance(error, ValidationError):
        return in_one_line(
            [f"{'.'.join(map(str, item['loc'])) or 'arguments'}: {item['msg']}" for item in error.errors()]
        )
    return str(error)
