"""LangChain's tools under our contract, and ours as LangChain sees them.

`langchain_tool(search, reads=True)` makes a tool of ours out of a LangChain tool: it stands in a policy, and wherever
the LangChain tool is called in a `ToolNode` or an agent of that node, the call goes through the gate. Called by name it
works like any other tool: `await search_tool(query="...")`.

What is covered: calls by a `ToolNode` (alone, or inside `create_agent`, or deeper in a graph that is a node), and calls
of what these two functions return. A LangChain tool that a node calls itself (`await search.ainvoke(...)`, or through
an agent that a function builds and runs) is refused while the node runs, see `UnguardedTool`: give it `as_langchain`'s
tool instead. What is not covered: the plain function inside a LangChain tool, and a tool that a provider runs on its
own side (one that is bound to the model as a dictionary).
"""

from __future__ import annotations

import asyncio
import inspect
import re
import threading
from collections.abc import Awaitable, Callable, Iterator, Mapping
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass, field
from typing import Annotated, Any, Literal, overload

from langchain_core.messages import ToolMessage
from langchain_core.runnables import RunnableConfig
from langchain_core.tools import BaseTool
from pydantic import BaseModel, Field, SkipValidation, ValidationError

from eventwright.runs.errors import EventwrightError
from eventwright.tools.contract import (
    MODELS,
    Call,
    NotDone,
    Permanent,
    Role,
    Tool,
    ToolClass,
    Undo,
    Writes,
    current_gate,
    gate_for,
    roles_of,
)
from eventwright.tools.langchain_arguments import arguments_of, hints_of, without_absent
from eventwright.tools.replies import Reply, parsed, read_message, reply_of, words_of
from eventwright.tools.within import Inside, inside

#: What ends a task or the process, and is no pause of a run.
ENDS = (asyncio.CancelledError, KeyboardInterrupt, SystemExit, GeneratorExit)


class UnguardedTool(EventwrightError, PermissionError):
    """A LangChain tool was called in a running node, and not through its gate. It did nothing."""

    def __init__(self, name: str) -> None:
        self.name = name
        super().__init__(
            f"the LangChain tool {name!r} was called past the gate of the running node. Wrap it with langchain_tool(), "
            "name that in the node's policy, and call it, or give as_langchain() of it to the agent that calls it"
        )


class Waits(NotDone):
    """A LangChain tool stopped to ask somebody. It runs again, from its beginning, when there is an answer."""

    seen = False

    def __init__(self, signal: BaseException) -> None:
        self.signal = signal
        super().__init__(f"the tool waits for an answer: {signal}")


class UnfitArguments(Permanent):
    """A LangChain tool's own validation did not take the arguments; it did nothing."""


@dataclass(frozen=True, kw_only=True)
class Invocation:
    """What a LangChain tool is called with beside the arguments that passed the gate. None of it is recorded.

    Attributes:
        injected: arguments that LangGraph puts in: state, store, runtime.
        call_id: the id of the model's tool call.
        read: makes a reply of the output.
    """

    injected: Mapping[str, Any] = field(default_factory=dict)
    call_id: str | None = None
    config: RunnableConfig | None = None
    read: Callable[[Any], Reply] = read_message


_invocation: ContextVar[Invocation | None] = ContextVar("eventwright_invocation", default=None)
#: How a graph's pauses travel, beside ours: LangGraph's are ordinary exceptions. Set where LangGraph is known.
pauses: ContextVar[tuple[type[Exception], ...]] = ContextVar("eventwright_pauses", default=())


@contextmanager
def called_with(invocation: Invocation) -> Iterator[None]:
    """The LangChain tool that the gate calls in this block is called with these."""
    token = _invocation.set(invocation)
    try:
        yield
    finally:
        _invocation.reset(token)


class LangChainTool(Tool):
    """A LangChain tool as a tool of ours. Made by `langchain_tool()`.

    Attributes:
        wrapped: the LangChain tool itself.
        key: the parameter that takes our idempotency key.
    """

    def __init__(
        self,
        wrapped: BaseTool,
        *,
        tool_class: ToolClass,
        verify: Callable[..., Awaitable[Any]] | None = None,
        trusted: bool = False,
        sensitive: bool = False,
        undo: Undo | None = None,
        roles: Mapping[str, Role] | None = None,
        key: str | None = None,
    ) -> None:
        if wrapped.name in MODELS:
            raise TypeError(f"the name {wrapped.name!r} is taken by our own models; give this tool another")

        async def reply(call: Call) -> Reply:
            raise NotImplementedError("see perform()")

        reply.__doc__ = wrapped.description
        reply.__annotations__ = {"call": Call, "return": Reply}
        super().__init__(
            reply,
            name=wrapped.name,
            tool_class=tool_class,
            verify=verify,
            trusted=trusted,
            sensitive=sensitive,
            undo=undo,
        )
        self.wrapped, self.key = wrapped, key
        self.arguments = arguments_of(wrapped, hidden=key)
        self.roles = roles_of(self.arguments, hints_of(self.arguments), writes=self.writes) | dict(roles or {})
        strangers = [name for name in self.roles if name not in self.arguments.model_fields]
        if strangers:
            raise TypeError(f"roles speaks of {strangers[0]!r}, which {wrapped.name!r} has no argument for")

    def __repr__(self) -> str:
        return f"<LangChain tool {self.name} ({self.tool_class})>"

    def bind(self, *args: Any, **kwargs: Any) -> dict[str, Any]:
        """The arguments by name. Raises TypeError for one without a name."""
        if args:
            raise TypeError(f"tool {self.name!r}: every argument needs its name, {args[0]!r} has none")
        return kwargs

    async def through(self, arguments: Mapping[str, Any], *, ordinal: str | None = None) -> Any:
        """Ask the gate for a call with these arguments. Raises what `__call__` raises, and the tool's own pauses."""
        try:
            return await super().through(arguments, ordinal=ordinal)
        except Waits as waits:
            raise waits.signal from None

    async def perform(self, arguments: BaseModel, call: Call) -> Any:
        """Really call the LangChain tool. For the gate alone. What cannot be recorded has happened all the same: then
        the error is the result, for `dump` to raise."""
        invocation = _invocation.get() or Invocation()
        given = without_absent(arguments) | ({self.key: call.idempotency_key} if self.key else {})
        request = {
            "name": self.wrapped.name,
            "args": {**given, **invocation.injected},
            "id": invocation.call_id or call.idempotency_key,
            "type": "tool_call",
        }
        performing, bare = inside.set(Inside(call.idempotency_key)), _invocation.set(None)
        try:
            output = await self.wrapped.ainvoke(request, invocation.config)
        except ValidationError as error:
            if error.title == self.wrapped.get_input_schema().__name__:
                raise UnfitArguments(f"{self.name}: {error}") from error
            raise
        except BaseException as error:
            if isinstance(error, (Exception, *ENDS)) and not isinstance(error, pauses.get()):
                raise
            raise Waits(error) from error
        finally:
            inside.reset(performing)
            _invocation.reset(bare)
        try:
            return invocation.read(output)
        except ValueError as error:
            return error

    async def verify(self, arguments: BaseModel, call: Call) -> Reply | None:
        """Read back whether an earlier call with this key happened. For the gate alone."""
        found = await super().verify(arguments, call)
        return found if found is None or isinstance(found, Reply) else Reply(content=words_of(found))

    def dump(self, result: Any) -> Any:
        """The reply as JSON, for the ledger. Raises ValueError if it is not JSON."""
        if isinstance(result, ValueError):
            raise result
        recorded = super().dump(result)
        if self.trusted and isinstance(recorded["content"], str):
            recorded["record"] = parsed(recorded["content"])
        return recorded


@overload
def langchain_tool(
    wrapped: BaseTool,
    *,
    reads: Literal[True],
    trusted: bool = False,
    sensitive: bool = False,
    roles: Mapping[str, Role] | None = None,
) -> LangChainTool: ...
@overload
def langchain_tool(
    wrapped: BaseTool,
    *,
    writes: Writes,
    trusted: bool = False,
    sensitive: bool = False,
    roles: Mapping[str, Role] | None = None,
    undo: Undo | None = None,
    key: str | None = None,
    verify: Callable[..., Awaitable[Any]] | None = None,
) -> LangChainTool: ...
def langchain_tool(
    wrapped: BaseTool,
    *,
    reads: bool = False,
    writes: Writes | None = None,
    trusted: bool = False,
    sensitive: bool = False,
    roles: Mapping[str, Role] | None = None,
    undo: Undo | None = None,
    key: str | None = None,
    verify: Callable[..., Awaitable[Any]] | None = None,
) -> LangChainTool:
    """A LangChain tool as a tool of ours, by its own name and with the arguments that a model sees of it.

    Args:
        wrapped: the LangChain tool; it is not changed.
        reads: it changes nothing. A LangChain tool does not say so, hence this or `writes` has to.
        writes: `keyed` (with `key=`), `verifiable` (with `verify=`) or `plain`.
        trusted: what it returns are records of our own.
        sensitive: what it returns is personal or confidential.
        roles: what its arguments decide; an open one of a write without a role counts as a destination.
        undo: how a call is taken back.
        key: the parameter that takes our idempotency key, which the tool hands to a provider that honours it. No model
            sees it.
        verify: reads back whether the call happened: takes the arguments and `call`, returns what the tool would have
            returned, or None.

    Raises:
        TypeError: neither or both of `reads` and `writes`; a part of the class is missing; a tool without a schema.
    """
    if reads == (writes is not None):
        raise TypeError(f"say what {wrapped.name!r} does: reads=True, or writes='keyed', 'verifiable' or 'plain'")
    if isinstance(wrapped, GatedTool):
        raise TypeError(f"{wrapped.name!r} is a tool of ours already; put {wrapped.tool!r} into the policy")
    if not isinstance(wrapped, BaseTool):
        raise TypeError(f"langchain_tool() takes a LangChain tool, not {wrapped!r}")
    if (writes == "keyed") != (key is not None):
        raise TypeError(f"tool {wrapped.name!r}: writes='keyed' and key=, the parameter for the key, belong together")
    return LangChainTool(
        wrapped,
        tool_class=ToolClass(writes) if writes else ToolClass.READ,
        verify=verify,
        trusted=trusted,
        sensitive=sensitive,
        undo=undo,
        roles=roles,
        key=key,
    )


class GatedTool(BaseTool):
    """A tool of ours as LangChain sees it. Every call of it asks the gate of the node that runs."""

    tool: Annotated[Any, SkipValidation] = Field(exclude=True)

    async def ainvoke(self, input: Any, config: RunnableConfig | None = None, **kwargs: Any) -> Any:
        """Call the tool through the gate: a `ToolMessage` for a model's tool call, else the content alone."""
        arguments, call_id = self._call(input)
        with called_with(Invocation(call_id=call_id, config=config)):
            result = await self.tool.through(arguments)
        reply = reply_of(self.tool, result)
        return reply.content if call_id is None else self.message(reply, call_id)

    def invoke(self, input: Any, config: RunnableConfig | None = None, **kwargs: Any) -> Any:
        """The same for a synchronous node, which LangGraph runs in a thread: waits for the answer."""
        gate = gate_for(self.tool.name)
        if threading.current_thread() is gate.thread:
            raise TypeError(f"invoke() of {self.name!r} was called in a coroutine, and would block it; await ainvoke()")
        return asyncio.run_coroutine_threadsafe(self.ainvoke(input, config, **kwargs), gate.loop).result()

    def message(self, reply: Reply, call_id: str) -> ToolMessage:
        """The reply as the answer to a model's tool call."""
        return ToolMessage(
            content=reply.content, artifact=reply.artifact, status=reply.status, name=self.name, tool_call_id=call_id
        )

    def _call(self, input: Any) -> tuple[dict[str, Any], str | None]:
        """The arguments of a call, and its id if a model made it."""
        if isinstance(input, str):
            [only] = self.tool.arguments.model_fields
            return {only: input}, None
        if input.get("type") == "tool_call":
            return dict(input["args"]), input["id"]
        return dict(input), None

    def _run(self, **arguments: Any) -> Any:
        return self.invoke(arguments)

    async def _arun(self, **arguments: Any) -> Any:
        return await self.ainvoke(arguments)


def as_langchain(tool: Tool, *, name: str | None = None, description: str | None = None) -> GatedTool:
    """A tool of ours for a `ToolNode`, `create_agent` or `bind_tools`. The policy names the tool itself, as ever.

    Args:
        name: what models call it; by default its own name, with `_` for what models' providers do not take.
        description: what models read; by default the tool's docstring.
    """
    called = name or re.sub(r"[^A-Za-z0-9_-]", "_", tool.name)[:64]
    tool.also_called.add(called)
    return GatedTool(
        name=called,
        description=description or inspect.getdoc(tool.function) or tool.name,
        args_schema=tool.arguments.model_json_schema(),
        tool=tool,
    )


def refuse_past_the_gate(name: str) -> None:
    """Raises UnguardedTool where a node runs and its gate has not let this LangChain tool through."""
    if current_gate.get() is not None and inside.get() is None:
        raise UnguardedTool(name)
