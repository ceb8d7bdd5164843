"""The tool contract: a typed door to a system outside, which opens only inside a gate.

A tool says whether it reads or writes and, if it writes, how a repeat is made harmless. It never reaches
its system by itself: calling it hands its arguments to the gate of the running node, and the gate calls back.
"""

from __future__ import annotations

import asyncio
import enum
import functools
import inspect
import threading
from collections.abc import Awaitable, Callable, Mapping
from contextvars import ContextVar
from dataclasses import dataclass, field
from types import NoneType
from typing import Annotated, Any, ClassVar, Literal, Protocol, TypeVar, get_args, get_origin, get_type_hints, overload

from pydantic import BaseModel, ConfigDict, TypeAdapter, create_model
from pydantic_core import to_jsonable_python

from eventwright.runs.errors import EventwrightError
from eventwright.runs.event import canonical
from eventwright.runs.states import Documented
from eventwright.tools.secrets import Secrets
from eventwright.tools.within import ordinal_within

Resource = TypeVar("Resource")

#: No argument string is longer, whatever the tool says: a person has to be able to read what is approved.
LONGEST_STRING = 20_000

#: The tools through which models answer. They only advise, so every node may call them, and nobody else bears the name.
MODELS = frozenset({"model.ask", "model.chat"})


class ToolClass(Documented):
    """What a repeat of the call would do: it decides what happens after a crash between intent and result."""

    READ = "read", "changes nothing; a repeat is free"
    KEYED = "keyed", "the provider honours our idempotency key; repeated with the same key"
    VERIFIABLE = "verifiable", "it can be read back whether it happened; read back before a repeat"
    PLAIN = "plain", "neither; after a crash in the call a person is asked"


class Role(Documented):
    """What an argument of a write decides. Written beside its type: `to: Annotated[str, Role.DESTINATION]`."""

    DESTINATION = "destination", "says who or what is reached; untrusted data may not choose it"
    AMOUNT = "amount", "says how much; untrusted data may not choose it"
    CONTENT = "content", "is read by somebody outside; it may be untrusted, and is cleaned before it leaves"


class ToolError(EventwrightError, RuntimeError):
    """A tool could not do its work and cannot say whether the outside noticed."""


class Unusable(ToolError):
    """The call was made, but what it returned is not what the tool declares. It is not made again."""


class NotDone(ToolError):
    """The call certainly had no effect outside; it may be tried again, after `retry_after` seconds at least. Whoever
    caught it and runs again sees it again, with its attributes, which have to be JSON."""

    seen: ClassVar[bool] = True  # by the node, which does not see another error in its place

    def __init__(self, message: str, *, retry_after: float | None = None) -> None:
        self.retry_after = retry_after
        super().__init__(message)


class Permanent(NotDone):
    """The call had no effect outside and would fail again in the same way: no retry."""


class OutsideGate(EventwrightError, PermissionError):
    """A tool was called where no gate is open."""

    def __init__(self, tool: str) -> None:
        self.tool = tool
        super().__init__(
            f"the tool {tool!r} works only inside a running node whose policy names it; "
            "a task that outlives its node, a bare thread pool and a plain script have no gate"
        )


class ResourceMissing(EventwrightError, LookupError):
    """A tool needs a client that this process was not given."""

    def __init__(self, kind: type) -> None:
        self.kind = kind
        super().__init__(
            f"no {kind.__name__} was provided; let Workflow(lifespan=...) yield one, or give one to "
            "simulate(resources=[...]) or open_app(resources=[...])"
        )


@dataclass(frozen=True)
class Resources:
    """The clients of this process, by class: mailer, account book, chat model. Made by the composition root."""

    items: tuple[object, ...] = ()

    def use(self, kind: type[Resource]) -> Resource:
        """The last one given of this class.

        Raises:
            ResourceMissing: none was given.
        """
        for item in reversed(self.items):
            if isinstance(item, kind):
                return item
        raise ResourceMissing(kind)


@dataclass(frozen=True, kw_only=True)
class Call:
    """What a tool may know about the call it serves. Ask for it with a parameter `call: Call`."""

    run_id: str
    node: str
    #: Stable over retries and crashes of this very call, different for every other: give it to the provider.
    idempotency_key: str
    attempt: int
    resources: Resources = field(repr=False, default_factory=Resources)
    #: A budget asks for the cheaper way, where there is one.
    economy: bool = False

    def use(self, kind: type[Resource]) -> Resource:
        """The client of this class. Raises ResourceMissing."""
        return self.resources.use(kind)

    def secret(self, name: str) -> str:
        """The value of a secret, for the tool to use here and now; arguments and state hold its name at most.

        Raises:
            SecretMissing: this process was not given it.
        """
        return Secrets.of(self.resources).value(name)


class GateProtocol(Protocol):
    """What the gate of a running node offers to tools and to judgements."""

    loop: asyncio.AbstractEventLoop
    #: The thread that the loop runs in.
    thread: threading.Thread

    async def call(self, tool: Tool, arguments: Mapping[str, Any], *, ordinal: str | None = None) -> Any:
        """Make the call; `ordinal` tells it from others of the same tool where their order may change."""

    def for_model(self, value: Any) -> Any:
        """A text, or JSON, as a model may read it: without what the workflow keeps from models."""

    def here(self) -> str:
        """Where the running code stands in the graph: another place for every visit of a node."""


current_gate: ContextVar[GateProtocol | None] = ContextVar("eventwright_gate", default=None)


def gate_for(name: str) -> GateProtocol:
    """The gate of the node that is running here. Raises OutsideGate."""
    gate = current_gate.get()
    if gate is None:
        raise OutsideGate(name)
    return gate


@dataclass(frozen=True)
class Undo:
    """How a write is taken back: by another tool, with arguments made from the call's own and its result."""

    tool: Tool
    arguments: Callable[[Any, Any], dict[str, Any]]


class Tool:
    """A typed door to a system outside. Made by `@tool`.

    Attributes:
        name: the exact name that a policy names, `module.function` for ours.
        tool_class: read, keyed, verifiable or plain.
        arguments: a strict pydantic model of the parameters (no extra fields, finite numbers, bounded strings).
        roles: what each argument of a write decides; one that is not marked counts as a destination, unless its type
            is closed (a bool, an enum, a Literal).
        trusted: whether what it returns are records of our own; what any other tool returns is untrusted.
        sensitive: whether it returns personal or confidential data.
        undo: how a call is taken back.
        advises: whether it is a model, whose answers are advice and change nothing by themselves.
    """

    def __init__(
        self,
        function: Callable[..., Any],
        *,
        name: str,
        tool_class: ToolClass,
        verify: Callable[..., Awaitable[Any]] | None = None,
        trusted: bool = False,
        sensitive: bool = False,
        undo: Undo | None = None,
    ) -> None:
        if (tool_class is ToolClass.VERIFIABLE) != (verify is not None):
            raise TypeError(f"tool {name!r}: writes='verifiable' and verify= belong together")
        if undo is not None and tool_class is ToolClass.READ:
            raise TypeError(f"tool {name!r} reads; there is nothing to undo")
        self.advises = name in MODELS
        if self.advises and not function.__module__.startswith("eventwright.tools."):
            raise TypeError(f"the name {name!r} is taken by our own models; give this tool another: @tool(name=...)")
        self.function, self.name, self.tool_class, self.verify_function = function, name, tool_class, verify
        self.trusted, self.sensitive, self.undo = trusted, sensitive, undo
        self.signature = inspect.signature(function)
        if not inspect.isroutine(function):
            raise TypeError(f"tool {name!r}: @tool takes a function, not {function!r}")
        hints = get_type_hints(function, include_extras=True)
        self._wants_call = hints.get("call") is Call
        self.arguments = _argument_model(name, self.signature, hints)
        self.roles = roles_of(self.arguments, hints, writes=self.writes)
        self._result = TypeAdapter[Any](hints.get("return", Any))
        functools.update_wrapper(self, function)
        #: Other names under which models know it, see `as_langchain`.
        self.also_called: set[str] = set()

    def __repr__(self) -> str:
        return f"<Tool {self.name} ({self.tool_class})>"

    @property
    def description(self) -> str:
        """The first line of the function's docstring, for people."""
        return (inspect.getdoc(self.function) or self.name).splitlines()[0]

    @property
    def writes(self) -> bool:
        return self.tool_class is not ToolClass.READ

    def bind(self, *args: Any, **kwargs: Any) -> dict[str, Any]:
        """The arguments by name. Raises TypeError like the function itself would."""
        parameters = [p for n, p in self.signature.parameters.items() if not (n == "call" and self._wants_call)]
        bound = self.signature.replace(parameters=parameters).bind(*args, **kwargs)
        bound.apply_defaults()
        return dict(bound.arguments)

    async def __call__(self, *args: Any, **kwargs: Any) -> Any:
        """Ask the gate of the running node for this call.

        Raises:
            OutsideGate: no node is running here.
            eventwright.guardrails.verdicts.Denied: the policy does not allow it.
            eventwright.guardrails.verdicts.Rejected: a person said no.
            ToolError: the system outside failed.
        """
        return await self.through(self.bind(*args, **kwargs))

    def from_thread(self, *args: Any, **kwargs: Any) -> Any:
        """The same for a synchronous node, which LangGraph runs in a thread: waits for the answer."""
        gate = gate_for(self.name)
        if threading.current_thread() is gate.thread:
            raise TypeError(
                f"from_thread() of {self.name!r} was called in a coroutine, and would block it; await the tool"
            )
        return asyncio.run_coroutine_threadsafe(self.through(self.bind(*args, **kwargs)), gate.loop).result()

    async def through(self, arguments: Mapping[str, Any], *, ordinal: str | None = None) -> Any:
        """The same, with the arguments by name."""
        return await gate_for(self.name).call(self, arguments, ordinal=ordinal or ordinal_within())

    async def perform(self, arguments: BaseModel, call: Call) -> Any:
        """Really do it. For the gate alone; a synchronous function runs in a thread."""
        return await self._run(self.function, arguments, call)

    async def verify(self, arguments: BaseModel, call: Call) -> Any:
        """Read back whether an earlier call with this key happened: its result, or None. For the gate alone."""
        if self.verify_function is None:
            raise TypeError(f"tool {self.name!r} is {self.tool_class}, it cannot be read back")
        return await self._run(self.verify_function, arguments, call)

    async def _run(self, function: Callable[..., Any], arguments: BaseModel, call: Call) -> Any:
        values = {name: getattr(arguments, name) for name in type(arguments).model_fields}
        if self._wants_call:
            values["call"] = call
        if inspect.iscoroutinefunction(function):
            return await function(**values)
        return await asyncio.to_thread(function, **values)

    def dump(self, result: Any) -> Any:
        """The result as JSON, for the ledger. Raises ValueError if it is not of the declared type, or not JSON."""
        recorded = to_jsonable_python(self._result.validate_python(result), inf_nan_mode="constants")
        canonical(recorded)
        return recorded

    def load(self, recorded: Any) -> Any:
        """The result from the ledger, of the declared type."""
        return self._result.validate_python(recorded)


def _argument_model(name: str, signature: inspect.Signature, hints: dict[str, Any]) -> type[BaseModel]:
    fields: dict[str, Any] = {}
    for parameter in signature.parameters.values():
        if parameter.kind in (parameter.VAR_POSITIONAL, parameter.VAR_KEYWORD, parameter.POSITIONAL_ONLY):
            raise TypeError(f"tool {name!r}: every parameter needs a name, {parameter} has none")
        if parameter.name == "call" and hints.get("call") is Call:
            continue
        if parameter.name.startswith("_") or hasattr(BaseModel, parameter.name):
            raise TypeError(
                f"tool {name!r}: the name {parameter.name!r} is pydantic's own, the argument would go unchecked"
            )
        if parameter.name not in hints:
            raise TypeError(f"tool {name!r}: the parameter {parameter.name!r} needs a type")
        default = ... if parameter.default is parameter.empty else parameter.default
        fields[parameter.name] = (hints[parameter.name], default)
    config = ConfigDict(extra="forbid", strict=True, allow_inf_nan=False, str_max_length=LONGEST_STRING)
    return create_model(f"{name} arguments", __config__=config, **fields)


def roles_of(arguments: type[BaseModel], hints: Mapping[str, Any], *, writes: bool) -> dict[str, Role]:
    """What each argument decides. Nobody said so of an open type of a write: then it may decide everything."""
    found = {name: _roles(hints[name], writes) for name in arguments.model_fields}
    return {name: min(roles, key=list(Role).index) for name, roles in found.items() if roles}


def _roles(hint: Any, writes: bool) -> list[Role]:
    """The role that is written beside a type; without one, those of its parts."""
    own = [part for part in getattr(hint, "__metadata__", ()) if isinstance(part, Role)]
    if own or _is_closed(hint):
        return own
    parts = get_args(hint)[:1] if get_origin(hint) is Annotated else get_args(hint)
    inside = [role for part in parts for role in _roles(part, writes)]
    return inside or ([Role.DESTINATION] if writes else [])


def _is_closed(hint: Any) -> bool:
    """Whether a type has few values, all of them the author's."""
    origin = get_origin(hint)
    if origin is Annotated:
        return _is_closed(get_args(hint)[0])
    if origin is Literal or hint in (bool, NoneType):
        return True
    if isinstance(hint, type):
        return issubclass(hint, enum.Enum)
    parts = get_args(hint)
    return bool(parts) and all(_is_closed(part) for part in parts) and origin not in (list, tuple, dict, set, frozenset)


Writes = Literal["keyed", "verifiable", "plain"]


@overload
def tool(function: Callable[..., Any], /) -> Tool: ...
@overload
def tool(
    *,
    writes: Writes | None = None,
    name: str | None = None,
    verify: Callable[..., Awaitable[Any]] | None = None,
    trusted: bool = False,
    sensitive: bool = False,
    undo: Undo | None = None,
) -> Callable[[Callable[..., Any]], Tool]: ...
def tool(
    function: Callable[..., Any] | None = None,
    /,
    *,
    writes: Writes | None = None,
    name: str | None = None,
    verify: Callable[..., Awaitable[Any]] | None = None,
    trusted: bool = False,
    sensitive: bool = False,
    undo: Undo | None = None,
) -> Tool | Callable[[Callable[..., Any]], Tool]:
    """Make a function a tool: `@tool` for one that reads, `@tool(writes="plain")` for one that writes.

    Args:
        writes: `keyed` (hands `call.idempotency_key` to a provider that honours it), `verifiable` (with
            `verify=`, same parameters, returns the result of an earlier call or None) or `plain`.
        name: the name that policies use; default `module.function`.
        verify: reads back whether the call happened.
        trusted: what it returns are records of our own, which rules may compare with.
        sensitive: what it returns is personal or confidential.
        undo: how a call is taken back.

    Raises:
        TypeError: a parameter has no type or no name; `verify`, `undo` and `writes` do not fit.
    """

    def make(decorated: Callable[..., Any]) -> Tool:
        module = decorated.__module__.rpartition(".")[2]
        return Tool(
            decorated,
            name=name or f"{module}.{decorated.__name__}",
            tool_class=ToolClass(writes) if writes else ToolClass.READ,
            verify=verify,
            trusted=trusted,
            sensitive=sensitive,
            undo=undo,
        )

    return make(function) if function is not None else make
