"""A call on its way through the gate, and how its arguments become canonical."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from pydantic import BaseModel, ValidationError
from pydantic_core import PydanticSerializationError, to_jsonable_python

from eventwright.guardrails.policy import Policy
from eventwright.guardrails.redaction import Redaction
from eventwright.guardrails.rules import Facts
from eventwright.guardrails.text import clean_value
from eventwright.guardrails.verdicts import Verdict
from eventwright.runs.errors import in_one_line
from eventwright.runs.event import canonical, digest_of
from eventwright.runs.records import Review, Visit
from eventwright.tools.contract import Role, Tool


@dataclass(frozen=True, kw_only=True)
class Request:
    """One call on its way through the gate."""

    tool: Tool
    node: str
    policy: Policy
    visit: Visit
    ordinal: str
    #: The effect's key: run, visit, tool, ordinal. It survives retries, crashes, renamed nodes and new threads.
    key: str
    #: Canonical arguments, as they were asked for or as a person edited them.
    arguments: dict[str, Any]
    validated: BaseModel
    #: What a person approves: workflow, version, run, node, tool and arguments.
    digest: str
    facts: Facts
    #: Where untrusted data came from that the node has read; empty if everything it has read can be relied on.
    tainted_by: tuple[str, ...] = ()
    verdicts: tuple[Verdict, ...] = ()
    #: The reviews whose decisions let this call pass.
    reviews: tuple[Review, ...] = ()


def validate(tool: Tool, raw: Mapping[str, Any]) -> tuple[dict[str, Any], BaseModel]:
    """The canonical arguments and the strictly validated model.

    Validated from JSON, so that strict mode accepts `"12.50"` for a Decimal and an ISO time for a time, and nothing
    that is merely convertible.

    Raises:
        ValueError: the arguments are not canonical JSON, or not valid (pydantic's ValidationError is one).
    """
    validated = tool.arguments.model_validate_json(canonical(_as_json(raw)), strict=True, extra="forbid")
    return to_jsonable_python(validated), validated


def take_as_given(tool: Tool, raw: Mapping[str, Any]) -> tuple[dict[str, Any], BaseModel]:
    """The arguments without any check: what a gate that has no schema stage works with."""
    return _as_json(raw), tool.arguments.model_construct(**dict(raw))


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


def call_digest(workflow: str, version: str, run_id: str, node: str, tool: str, arguments: Any) -> str:
    """SHA-256 over everything an approval is bound to."""
    return digest_of(
        {
            "workflow": workflow,
            "version": version,
            "run": run_id,
            "node": node,
            "tool": tool,
            "arguments": arguments,
        }
    )


def brief(error: ValueError) -> str:
    """What is wrong with arguments, on one line, for the person who gave them."""
    if isinstance(error, ValidationError):
        return in_one_line(
            [f"{'.'.join(map(str, item['loc'])) or 'arguments'}: {item['msg']}" for item in error.errors()]
        )
    return str(error)
