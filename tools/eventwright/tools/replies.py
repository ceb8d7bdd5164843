"""What a LangChain tool answers, as the ledger keeps it and as a model reads it."""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import Any, Literal

from langchain_core.messages import ToolMessage
from pydantic_core import PydanticSerializationError, to_jsonable_python

from eventwright.runs.event import canonical
from eventwright.tools.contract import Tool

#: What a model reads of a write that returned nothing.
DONE = "It was done."


@dataclass(frozen=True, kw_only=True)
class Reply:
    """What a LangChain tool answered, as the ledger keeps it.

    Attributes:
        content: what the model reads.
        artifact: what only the program reads; None where it is not JSON.
        status: `error` where the tool handled its own error.
        steers: messages and commands for the graph, as JSON, where the tool returned those.
        record: the content read as JSON, of a trusted tool: what argument rules compare with.
    """

    content: str | list[Any] = ""
    artifact: Any = None
    status: Literal["success", "error"] = "success"
    steers: Any = None
    record: Any = None


def read_message(output: Any) -> Reply:
    """A LangChain tool's output as a reply."""
    if not isinstance(output, ToolMessage):
        raise ValueError(f"a {type(output).__name__} is for a graph; it works in a ToolNode alone")
    content = output.content
    if isinstance(content, str):  # half a surrogate pair is no text that anybody could send on
        content = content.encode("utf-8", "replace").decode()
    return Reply(content=content, artifact=_if_json(output.artifact), status=output.status)


def reply_of(tool: Tool, result: Any) -> Reply:
    """The result of a call as a model reads it."""
    if isinstance(result, Reply):
        return result
    if result is None and tool.writes:
        # Also what a write returns of which only a person knows that it happened.
        return Reply(content=DONE)
    return Reply(content=words_of(tool.dump(result)))


def words_of(value: Any) -> str:
    """A JSON value in words: a text as it is, anything else as JSON."""
    return value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)


def _if_json(value: Any) -> Any:
    try:
        jsonable = to_jsonable_python(value, inf_nan_mode="constants")
        canonical(jsonable)
    except (PydanticSerializationError, ValueError):
        return None
    return jsonable


def parsed(text: str) -> Any:
    try:
        return json.loads(text)
    except ValueError:
        return None
