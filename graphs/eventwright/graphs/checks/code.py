"""What the code of a node names: models, LangChain tools, Commands. Read off the functions, without running them.

What a function can reach is more than what its code names: an import by name, a value out of a container, a library
that calls back. So a find is certain, and finding nothing proves nothing.
"""

from __future__ import annotations

import functools
import sys
import sysconfig
import types
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import is_dataclass
from typing import Any, Literal, Union, get_args, get_origin, get_type_hints, is_typeddict

from langchain_core.language_models import BaseLanguageModel
from langchain_core.runnables import Runnable, RunnableLambda, RunnableSequence
from langchain_core.runnables.base import RunnableBindingBase
from langchain_core.tools import BaseTool
from langgraph._internal._runnable import RunnableCallable, RunnableSeq
from langgraph.constants import START
from langgraph.graph.state import CompiledStateGraph
from langgraph.prebuilt import ToolNode
from langgraph.pregel import Pregel
from langgraph.pregel._utils import get_function_nonlocals
from langgraph.types import Command, Send
from pydantic import BaseModel

from eventwright.graphs import judgement
from eventwright.tools.langchain_tools import GatedTool

#: Our own ways to ask a model.
JUDGEMENTS = (judgement.ask, judgement.classify, judgement.choose, judgement.draft)
#: Stands between the names of a node and of a node in the graph that it is.
INSIDE = ":"
#: Where code lies that is no author's.
_LIBRARIES = tuple(sysconfig.get_path(name) for name in ("stdlib", "platstdlib", "purelib", "platlib"))

# -- what a node consists of -------------------------------------------------------------------------------------------


def parts(name: str, runnable: Any) -> Iterator[tuple[str, Any]]:
    """A node, and the nodes of the graph that it is: each with the name that says where it is."""
    yield name, runnable
    if isinstance(runnable, Pregel):
        for inner, node in runnable.nodes.items():
            if inner != START:
                yield from parts(f"{name}{INSIDE}{inner}", node.bound)


def raw_tools(name: str, runnable: Any) -> Iterator[tuple[str, BaseTool, bool]]:
    """LangChain's own tools in a node: where, which, and whether a policy can reach it there. It can in a `ToolNode`,
    and not where the author's function has the tool in its own hands."""
    for place, part in parts(name, runnable):
        if isinstance(part, ToolNode):
            yield from ((place, tool, True) for tool in part.tools_by_name.values() if not isinstance(tool, GatedTool))
        else:
            yield from ((place, tool, False) for tool in _in_hand(part, {id(runnable)}))


def _in_hand(runnable: Any, seen: set[int]) -> Iterator[BaseTool]:
    """The tools that the author's functions name, also by an agent that they run: nobody stands between."""
    for value in named(runnable):
        if isinstance(value, BaseTool) and not isinstance(value, GatedTool):
            yield value
        elif isinstance(value, Pregel) and id(value) not in seen:
            seen.add(id(value))
            for _, part in parts("", value):
                tools = part.tools_by_name.values() if isinstance(part, ToolNode) else _in_hand(part, seen)
                yield from (tool for tool in tools if not isinstance(tool, GatedTool))


def asks_models(runnable: Any) -> bool:
    """Whether a node's code names a model, or one of our ways to ask one."""
    return any(
        _is_model(value) or any(value is judge for judge in JUDGEMENTS)
        for _, part in parts("", runnable)
        for value in (part, *named(part, frameworks=True))
    )


def _is_model(value: Any) -> bool:
    if isinstance(value, RunnableBindingBase):
        return _is_model(value.bound)
    if isinstance(value, RunnableSequence | RunnableSeq):
        return any(map(_is_model, value.steps))
    return isinstance(value, BaseLanguageModel)


# -- where a node goes and what it writes ------------------------------------------------------------------------------


def command_ends(runnable: Any) -> tuple[str, ...] | None:
    """Where the Commands lead that a node returns, by its type hints; None if they may lead anywhere."""
    if isinstance(runnable, Pregel):
        return None if _leaves(runnable) else ()
    commands = [hint for function in functions(runnable) for hint in _commands(returned(function))]
    if any(not _names(command) for command in commands):
        return None
    if commands:
        return tuple(dict.fromkeys(name for command in commands for name in _names(command)))
    return None if any(value is Command or value is Send for value in named(runnable)) else ()


def _leaves(graph: Pregel[Any, Any, Any, Any]) -> bool:
    """Whether the code in a graph that is a node names the graph around it; without that its Commands stay inside."""
    values = (value for _, part in parts("", graph) for value in named(part))
    return any(isinstance(value, str) and value == Command.PARENT for value in values)


def names_send(runnable: Any) -> bool:
    """Whether a node's, or a router's, code names Send, by which one node runs several times at once."""
    return _leaves(runnable) if isinstance(runnable, Pregel) else any(value is Send for value in named(runnable))


def returns_one(function: Any) -> bool:
    """Whether a router says that it names a single way: by a Literal, or a string."""
    hint = returned(function)
    return hint is str or get_origin(hint) is Literal


def written(runnable: Any, channels: frozenset[str]) -> frozenset[str]:
    """The channels that a node writes, by its type hints; all of them if those do not say it."""
    if isinstance(runnable, CompiledStateGraph) and command_ends(runnable) == ():
        return frozenset(runnable.builder.schemas[runnable.builder.output_schema]) & channels
    keys = _all_keys([returned(function) for function in functions(runnable)])
    return channels if keys is None else keys & channels


def _all_keys(hints: Sequence[Any]) -> frozenset[str] | None:
    each = [_keys_of(hint) for hint in hints]
    known = [keys for keys in each if keys is not None]
    return frozenset().union(*known) if each and len(known) == len(each) else None


def _keys_of(hint: Any) -> frozenset[str] | None:
    """The keys of what has this type hint; None if it may have any."""
    if hint is None or hint is types.NoneType:
        return frozenset()
    if get_origin(hint) in (Union, types.UnionType):
        return _all_keys(get_args(hint))
    is_record = is_typeddict(hint) or (isinstance(hint, type) and (is_dataclass(hint) or issubclass(hint, BaseModel)))
    return frozenset(get_type_hints(hint)) if is_record and hint is not Command else None


def returned(function: Any) -> Any:
    """What a function says that it returns; Any if it does not say, or nobody can read it."""
    try:
        return get_type_hints(function).get("return", Any)
    except (NameError, TypeError, AttributeError):
        return Any


def _commands(hint: Any) -> list[Any]:
    """The Commands in a type hint, also in unions and lists."""
    if hint is Command or get_origin(hint) is Command:
        return [hint]
    return [command for part in get_args(hint) for command in _commands(part)]


def _names(command: Any) -> tuple[str, ...]:
    """The nodes that a Command's type hint names."""
    return tuple(name for part in get_args(command) if get_origin(part) is Literal for name in get_args(part))


# -- what code names ---------------------------------------------------------------------------------------------------


def functions(runnable: Any) -> list[Callable[..., Any]]:
    """The functions that a node is made of."""
    if isinstance(runnable, RunnableBindingBase):
        return functions(runnable.bound)
    if isinstance(runnable, RunnableSequence | RunnableSeq):
        return [function for step in runnable.steps for function in functions(step)]
    if isinstance(runnable, ToolNode):
        tools = runnable.tools_by_name.values()
        inner = [getattr(tool, name, None) for tool in tools for name in ("func", "coroutine")]
        return [function for function in inner if function is not None]
    if isinstance(runnable, RunnableCallable | RunnableLambda):
        both = (getattr(runnable, "func", None), getattr(runnable, "afunc", None))
        return list({id(function): function for function in map(_bare, both) if function is not None}.values())
    if isinstance(runnable, Runnable) and not _is_framework(type(runnable)):
        return [getattr(runnable, name) for name in ("invoke", "ainvoke") if name in vars(type(runnable))]
    return []


def _bare(function: Any) -> Any:
    """A plain function or method, out of what LangGraph or the author put around it."""
    if isinstance(function, functools.partial):
        inner = next((value for value in function.args if callable(value)), None)
        return _bare(function.func if inner is None or not _is_framework(function.func) else inner)
    if function is None or isinstance(function, types.FunctionType | types.MethodType):
        return function
    return getattr(function, "__call__", function)  # noqa: B004 - the method is wanted, with the object that it is of


def authored(runnable: Any) -> list[Callable[..., Any]]:
    """The author's functions that a node runs: its own, and the helpers that they name, of the same package."""
    own = [function for function in functions(runnable) if not _is_framework(function)]
    homes = {_package(function) for function in own}
    kinds = types.FunctionType | types.MethodType
    helpers = [value for value in named(runnable) if isinstance(value, kinds) and _package(value) in homes]
    return list({id(function): function for function in (*own, *helpers)}.values())


def named(runnable: Any, *, frameworks: bool = False) -> list[Any]:
    """Every value that the functions of a node name, also through the author's own helpers.

    Args:
        frameworks: look at LangChain's functions as well: those of `create_agent`, say.
    """
    waiting = [function for function in functions(runnable) if frameworks or not _is_framework(function)]
    homes = {_package(function) for function in waiting}
    found: dict[int, Any] = {}
    while waiting:
        for value in _values(waiting.pop()):
            if id(value) in found:
                continue
            found[id(value)] = value
            if isinstance(value, types.FunctionType | types.MethodType) and _is_authors(value, homes):
                waiting.append(value)
    return list(found.values())


def _values(function: Any) -> Iterator[Any]:
    """What one function names: globals, captured values, what its object holds; of containers what is in them."""
    owner = getattr(function, "__self__", None)
    held = getattr(owner, "__dict__", {}) if not isinstance(owner, type | types.ModuleType) else {}
    for value in (*get_function_nonlocals(function), *held.values()):
        yield value
        if isinstance(value, list | tuple | set | frozenset):
            yield from value
        elif isinstance(value, Mapping):
            yield from value.values()


def _package(thing: Any) -> str:
    return (getattr(thing, "__module__", None) or "").partition(".")[0]


def _is_framework(thing: Any) -> bool:
    return _package(thing).startswith(("langchain", "langgraph"))


def _is_authors(function: Any, homes: set[str]) -> bool:
    """Whether a function is the author's own: of the node's package, or of no installed library."""
    module = function.__module__ or ""
    if module.startswith("eventwright."):
        return module.startswith("eventwright.graphs.")
    file = getattr(sys.modules.get(module), "__file__", None) or ""
    return _package(function) in homes or not file.startswith(_LIBRARIES)
