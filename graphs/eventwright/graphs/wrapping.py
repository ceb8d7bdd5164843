"""LangGraph's `ToolNode` behind the gate: in the twin of a graph every tool call of a model goes through its node's gate.

The user's `ToolNode` is copied, never changed. Its copy hands each call to the gate, which calls the LangChain tool if
the node's policy names a tool of ours that wraps exactly this one. A refusal is told to the model, so that an agent may
go on; a pause, and whatever else ends the segment, passes through.
"""

from __future__ import annotations

import asyncio
import copy
import re
import types
from collections import Counter
from collections.abc import Awaitable, Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Any, cast

from langchain_core.callbacks import BaseCallbackHandler
from langchain_core.load import dumpd, load
from langchain_core.messages import ToolMessage
from langchain_core.runnables import Runnable, RunnableConfig
from langchain_core.tools import BaseTool
from langchain_core.tracers.context import register_configure_hook
from langgraph.prebuilt import ToolNode
from langgraph.prebuilt.tool_node import ToolCallRequest
from langgraph.types import Command, Send

from eventwright.graphs.workflow import BadWorkflow
from eventwright.guardrails.verdicts import Denied, Rejected
from eventwright.runs.event import digest_of
from eventwright.tools.contract import Tool, ToolClass, gate_for, tool
from eventwright.tools.langchain_tools import (
    GatedTool,
    Invocation,
    LangChainTool,
    Reply,
    UnfitArguments,
    called_with,
    refuse_past_the_gate,
    words_of,
)

Answered = ToolMessage | Command[Any]
Execute = Callable[[ToolCallRequest], Awaitable[Answered]]
#: What may stand in an ordinal as it is; other ids of a model's tool calls stand there as a digest.
PLAIN_ID = re.compile(r"[A-Za-z0-9_-]{1,64}")
#: Characters of a name made up by a model that stand in the journal.
LONGEST_NAME = 64


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
    """No LangChain tool runs in this block that did not come through the gate."""
    token = _watch.set(Watch())
    try:
        yield
    finally:
        _watch.reset(token)


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
        ordinal = f"{call_id if PLAIN_ID.fullmatch(call_id) else digest_of(call_id.encode().hex())}.{count}"

        async def through_the_gate(asked: ToolCallRequest) -> Answered:
            return await self._through_the_gate(asked, execute, ordinal)

        return await (through_the_gate(request) if self._author is None else self._author(request, through_the_gate))

    async def _through_the_gate(self, request: ToolCallRequest, execute: Execute, ordinal: str) -> Answered:
        call, raw = request.tool_call, request.tool
        try:
            if raw is None:
                await gate_for(call["name"]).call(_unknown(call["name"]), {}, ordinal=ordinal)
            known = self._doors.get(raw.name) if raw is not None else None
            door = known if known is not None and known.raw is raw else _door(cast(BaseTool, raw), self._tools)
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
            result = await gate_for(self.tool.name).call(self.tool, asked, ordinal=self.ordinal)
        reply = result if isinstance(result, Reply) else Reply(content=words_of(self.tool.dump(result)))
        if reply.steers is None:
            return self.message(reply, call_id or "")
        return _steers(reply.steers)


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


def _unknown(name: str) -> Tool:
    """Stands for a tool that a model made up; no policy names it."""

    async def nothing() -> None:
        """No tool at all."""

    return tool(name=f"no such tool: {name[:LONGEST_NAME]}")(nothing)


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
        return Invocation().read(output)
    parts = output if isinstance(output, list) else [output]
    steers = [_command(part) if isinstance(part, Command) else {"message": dumpd(part)} for part in parts]
    try:
        _steers(steers)
    except (NotImplementedError, KeyError, TypeError) as error:
        raise ValueError(f"a {type(output).__name__} with this in it cannot be recorded: {error}") from error
    return Reply(steers=steers if isinstance(output, list) else steers[:1], status="success", content="")


def _command(command: Command[Any]) -> dict[str, Any]:
    goto = command.goto if isinstance(command.goto, list | tuple) else [command.goto]
    ways = [{"node": way.node, "arg": dumpd(way.arg)} if isinstance(way, Send) else way for way in goto]
    return {"command": {"graph": command.graph, "update": dumpd(command.update), "goto": ways}}


def _steers(steers: Sequence[Mapping[str, Any]]) -> Any:
    """The messages and commands of a reply, as the tool returned them: one, or a list."""
    return [_steer(steer) for steer in steers]


def _steer(steer: Mapping[str, Any]) -> Any:
    if "message" in steer:
        return load(steer["message"], allowed_objects="messages")
    recorded = steer["command"]
    goto = [
        Send(way["node"], load(way["arg"], allowed_objects="messages")) if isinstance(way, dict) else way
        for way in recorded["goto"]
    ]
    update = load(recorded["update"], allowed_objects="messages")
    return Command(graph=recorded["graph"], update=update, goto=goto)
