"""LangGraph's `ToolNode` behind the gate: in the twin of a graph every tool call of a model asks the gate of its node.

The user's `ToolNode` is copied, never changed. Its copy hands each call to the gate, which calls the LangChain tool if
the node's policy names a tool of ours that wraps exactly this one. A refusal is told to the model, so that an agent may
go on; a pause, and whatever else ends the segment, passes through.
"""

from __future__ import annotations

import asyncio
import copy
import dataclasses
import hashlib
import re
import types
from collections import Counter
from collections.abc import Awaitable, Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Any

from langchain_core.callbacks import BaseCallbackHandler
from langchain_core.messages import BaseMessage, ToolMessage, message_to_dict, messages_from_dict
from langchain_core.runnables import Runnable, RunnableConfig
from langchain_core.tools import BaseTool
from langchain_core.tracers.context import register_configure_hook
from langgraph.errors import GraphBubbleUp
from langgraph.prebuilt import ToolNode
from langgraph.prebuilt.tool_node import ToolCallRequest
from langgraph.types import Command, Send
from pydantic_core import PydanticSerializationError, to_jsonable_python

from eventwright.graphs.workflow import BadWorkflow
from eventwright.guardrails.verdicts import Denied, Rejected
from eventwright.runs.errors import storable
from eventwright.tools.contract import Tool, ToolClass, gate_for, tool
from eventwright.tools.langchain_tools import (
    GatedTool,
    Invocation,
    LangChainTool,
    UnfitArguments,
    called_with,
    pauses,
    refuse_past_the_gate,
)
from eventwright.tools.replies import Reply, read_message, reply_of

Answered = ToolMessage | Command[Any]
Execute = Callable[[ToolCallRequest], Awaitable[Answered]]
#: What may stand in an ordinal as it is; other ids of a model's tool calls stand there as a digest.
PLAIN_ID = re.compile(r"[A-Za-z0-9_-]{1,64}")
#: Characters of a name made up by a model that stand in the journal.
LONGEST_NAME = 64


#: Marks a message among recorded JSON.
MESSAGE = "langchain message"


class Watch(BaseCallbackHandler):
    """Refuses LangChain tools that run in a node and did not come through its gate.

    Synchronous, inline and raising: LangChain calls such a handler before the tool, of whatever kind that is.
    """

    raise_error = True
    run_inline = True

    def on_tool_start(self, serialized: dict[str, Any], input_str: str, **kwargs: Any) -> None:
        refuse_past_the_gate(str((serialized or {}).get("name")))


_watch: ContextVar[Watch | None] = ContextVar("eventwright_watch", default=None)
# LangChain asks for the handlers in such a variable wherever it calls something; it has no way to be told later.
register_configure_hook(_watch, inheritable=True)

#: How often each id was seen among the calls that a `ToolNode` makes at once.
_seen: ContextVar[Counter[str]] = ContextVar("eventwright_tool_calls")


@contextmanager
def watched() -> Iterator[None]:
    """No LangChain tool runs in this block that did not come through the gate; one that did may pause as LangGraph's
    tools do."""
    token, before = _watch.set(Watch()), pauses.set((GraphBubbleUp,))
    try:
        yield
    finally:
        _watch.reset(token)
        pauses.reset(before)


class GuardedToolNode(Runnable[Any, Any]):
    """The copy of a `ToolNode` whose calls go through the gate.

    Args:
        node: the user's; it is not changed.
        tools: those of the policy.
    """

    def __init__(self, node: ToolNode, tools: Sequence[Tool]) -> None:
        self.name = node.name
        self._tools = tools
        # Attributes of LangGraph that its constructor's arguments of the same names end up in.
        self._author, author_sync = node._awrap_tool_call, node._wrap_tool_call
        if self._author is None and author_sync is not None:
            self._author = _in_a_thread(author_sync)
        self._inner = copy.copy(node)
        for attribute in ("func", "afunc"):
            function = getattr(node, attribute)
            if getattr(function, "__self__", None) is node:
                setattr(self._inner, attribute, types.MethodType(function.__func__, self._inner))
        self._inner._wrap_tool_call, self._inner._awrap_tool_call = None, self._wrapped
        self._doors = {raw.name: _door(raw, tools) for raw in node.tools_by_name.values()}

    def invoke(self, input: Any, config: RunnableConfig | None = None, **kwargs: Any) -> Any:
        raise NotImplementedError("a guarded ToolNode runs asynchronously, in the twin of its graph")

    async def ainvoke(self, input: Any, config: RunnableConfig | None = None, **kwargs: Any) -> Any:
        token = _seen.set(Counter())
        try:
            return await self._inner.ainvoke(input, config, **kwargs)
        finally:
            _seen.reset(token)

    async def _wrapped(self, request: ToolCallRequest, execute: Execute) -> Answered:
        """One call, around what the author has around it. Calls made at once arrive here in the order in which the
        model made them, before any of them waits for anything: so the count of equal ids is the same on replay."""
        call_id = str(request.tool_call["id"])
        count = _seen.get()[call_id]
        _seen.get()[call_id] += 1
        plain = call_id if PLAIN_ID.fullmatch(call_id) else f"sha256:{_digest(call_id)}"
        ordinal = f"{plain}.{count}"

        async def through_the_gate(asked: ToolCallRequest) -> Answered:
            return await self._through_the_gate(asked, execute, ordinal)

        return await (through_the_gate(request) if self._author is None else self._author(request, through_the_gate))

    async def _through_the_gate(self, request: ToolCallRequest, execute: Execute, ordinal: str) -> Answered:
        call, raw = request.tool_call, request.tool
        try:
            if raw is None:
                await gate_for(call["name"]).call(_unknown(call["name"]), {}, ordinal=ordinal)
                return await execute(request)
            known = self._doors.get(raw.name)
            door = known if known is not None and known.raw is raw else _door(raw, self._tools)
            return await execute(request.override(tool=door.for_call(call["args"], ordinal)))
        except (Denied, Rejected, UnfitArguments) as refusal:
            return ToolMessage(content=str(refusal), status="error", name=call["name"], tool_call_id=call["id"])


class Door(GatedTool):
    """A LangChain tool in the copy of a `ToolNode`: what it is called with goes through the gate."""

    raw: BaseTool
    given: Mapping[str, Any] = {}
    ordinal: str | None = None

    def for_call(self, given: Mapping[str, Any], ordinal: str) -> Door:
        """The same for one call.

        Args:
            given: the arguments as the model gave them; whatever else it is called with, LangGraph has put in.
        """
        return self.model_copy(update={"given": given, "ordinal": ordinal})

    async def ainvoke(self, input: Any, config: RunnableConfig | None = None, **kwargs: Any) -> Any:
        """The tool's answer, as the ledger has it."""
        arguments, call_id = self._call(input)
        injected = {
            name: value for name, value in arguments.items() if name not in self.given or value is not self.given[name]
        }
        asked = {name: value for name, value in self.given.items() if name not in injected}
        invocation = Invocation(injected=injected, call_id=call_id, config=config, read=_read)
        with called_with(invocation):
            result = await self.tool.through(asked, ordinal=self.ordinal)
        reply = reply_of(self.tool, result)
        return self.message(reply, call_id or "") if reply.steers is None else _restored(reply.steers)


def _door(raw: BaseTool, tools: Sequence[Tool]) -> Door:
    """The door to a LangChain tool: to the policy's tool that wraps it, else to one that no policy names."""
    if isinstance(raw, GatedTool):
        ours: Tool = raw.tool
    else:
        wrapping = [one for one in tools if isinstance(one, LangChainTool) and one.wrapped is raw]
        if len(wrapping) > 1:
            raise BadWorkflow(f"a policy names two tools that wrap the same LangChain tool {raw.name!r}; keep one")
        ours = wrapping[0] if wrapping else LangChainTool(raw, tool_class=ToolClass.PLAIN)
    return Door(
        name=raw.name,
        description=raw.description,
        args_schema={"type": "object", "properties": {}},
        return_direct=raw.return_direct,
        tool=ours,
        raw=raw,
    )


def _digest(text: str) -> str:
    return hashlib.sha256(text.encode("utf-8", "surrogatepass")).hexdigest()


def _unknown(name: str) -> Tool:
    """Stands for a tool that a model made up; no policy names it."""

    async def nothing() -> None:
        """No tool at all."""

    return tool(name=f"no such tool: {storable(name[:LONGEST_NAME])}")(nothing)


def _in_a_thread(author: Callable[[ToolCallRequest, Callable[[ToolCallRequest], Answered]], Answered]) -> Any:
    """An author's synchronous wrapper around tool calls, which LangGraph would let block the loop."""

    async def wrapper(request: ToolCallRequest, execute: Execute) -> Answered:
        loop = asyncio.get_running_loop()

        def waits(asked: ToolCallRequest) -> Answered:
            async def executes() -> Answered:
                return await execute(asked)

            return asyncio.run_coroutine_threadsafe(executes(), loop).result()

        return await asyncio.to_thread(author, request, waits)

    return wrapper


# -- what a tool may return beside content -----------------------------------------------------------------------------


def _read(output: Any) -> Reply:
    """A LangChain tool's output as a reply. Raises ValueError if it cannot be recorded."""
    if isinstance(output, ToolMessage):
        return read_message(output)
    parts = output if isinstance(output, list) else [output]
    steers = [_recorded(part) for part in parts]
    return Reply(steers=steers if isinstance(output, list) else steers[0])


def _recorded(part: Any) -> dict[str, Any]:
    """A message or a command as JSON, if it is the same when it is read again."""
    if isinstance(part, Command):
        part = dataclasses.replace(part, goto=list(part.goto) if isinstance(part.goto, tuple) else part.goto)
        ways = part.goto if isinstance(part.goto, list) else [part.goto]
        goto = [{"node": way.node, "arg": _as_json(way.arg)} if isinstance(way, Send) else way for way in ways]
        one = ways is not part.goto
        steer = {"graph": part.graph, "update": _as_json(part.update), "goto": goto, "one": one}
    else:
        steer = {"message": _as_json(part)}
    if _restored(steer) != part:
        raise ValueError(f"a {type(part).__name__} that holds more than JSON and messages cannot be recorded")
    return steer


def _restored(steer: Any) -> Any:
    """What a tool returned for the graph, from the ledger."""
    if isinstance(steer, list):
        return [_restored(part) for part in steer]
    if "message" in steer:
        return _from_json(steer["message"])
    goto = [Send(way["node"], _from_json(way["arg"])) if isinstance(way, dict) else way for way in steer["goto"]]
    return Command(graph=steer["graph"], update=_from_json(steer["update"]), goto=goto[0] if steer["one"] else goto)


def _as_json(value: Any) -> Any:
    """JSON in which messages are marked. Raises ValueError for anything that is neither."""
    if isinstance(value, BaseMessage):
        return {MESSAGE: _as_json(message_to_dict(value))}
    if isinstance(value, dict):
        return {name: _as_json(part) for name, part in value.items()}
    if isinstance(value, list | tuple):
        return [_as_json(part) for part in value]
    try:
        return to_jsonable_python(value)
    except PydanticSerializationError as error:
        raise ValueError(f"a tool's word to the graph cannot be recorded: {error}") from error


def _from_json(value: Any) -> Any:
    if isinstance(value, dict) and list(value) == [MESSAGE]:
        return messages_from_dict([value[MESSAGE]])[0]
    if isinstance(value, dict):
        return {name: _from_json(part) for name, part in value.items()}
    return [_from_json(part) for part in value] if isinstance(value, list) else value
