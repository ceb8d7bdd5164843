"""What a graph is, as JSON that is kept and can be compared; and its fingerprint.

It holds what a run that pauses in one graph and goes on in another can trip over: the nodes, the ways between them,
how many questions their authors ask, the graphs inside them, and what the fields of the state are. It does not hold
what a node's code does, nor what its policy allows. Every process describes the same graph alike.
"""

from __future__ import annotations

import dis
import types
from collections.abc import Callable, Iterator, Mapping
from typing import Any

from langgraph.channels.base import BaseChannel
from langgraph.constants import START
from langgraph.graph import StateGraph
from langgraph.graph.state import CompiledStateGraph
from langgraph.pregel import Pregel
from langgraph.pregel._utils import find_subgraph_pregel
from langgraph.types import interrupt

from eventwright.graphs.checks.code import authored
from eventwright.graphs.typed import Types, needed_fields, qualified
from eventwright.runs.event import digest_of

Structure = dict[str, Any]
#: LangGraph adds it to a graph when that is compiled: it belongs to no author.
_HIDDEN = "__default_error_handler__"


def structure_of(graph: StateGraph[Any, Any, Any, Any]) -> Structure:
    """What the graph is.

    - `nodes`: by name, `__start__` among them; each with what leads out of it (`to`: always; `routers`: by what they
      answer, None where that is not declared; `commands`: as far as it declares them), how many `questions` its author
      asks, the `graph` inside it, and whether it is deferred (`defer`).
    - `joins`: who is waited for before a node runs, and that node.
    - `fields`: of the state, each with its `type`, its `reducer` or another `kind` of channel, the `records` in its
      type, and whether a node cannot be run without it (`needed`).
    - `records`: the author's types that fields are made of, with their own fields.
    """
    described = Types()
    needed = _needed(graph)
    names = [START, *(name for name in graph.nodes if name != _HIDDEN)]
    return {
        "nodes": {name: _node(graph, name) for name in names},
        "joins": sorted([list(starts), end] for starts, end in graph.waiting_edges),
        "fields": {
            name: _field(channel, described) | ({"needed": True} if name in needed else {})
            for name, channel in graph.channels.items()
        },
        "records": described.records,
    }


def fingerprint_of(structure: Mapping[str, Any]) -> str:
    """SHA-256 of the canonical JSON, in hex."""
    return digest_of(structure)


def join_channels(structure: Mapping[str, Any]) -> frozenset[str]:
    """LangGraph's names for the joins: in them a checkpoint keeps who has come already."""
    return frozenset(f"join:{'+'.join(starts)}:{end}" for starts, end in structure["joins"])


# -- nodes -------------------------------------------------------------------------------------------------------------


def _node(graph: StateGraph[Any, Any, Any, Any], name: str) -> dict[str, Any]:
    """What is nothing is left out."""
    spec = graph.nodes.get(name)
    runnable: Any = None if spec is None else spec.runnable
    routers = graph.branches.get(name, {})
    told = {
        "to": sorted(end for start, end in graph.edges if start == name),
        "routers": {router: _ends(branch.ends) for router, branch in routers.items()},
        "commands": [] if spec is None else sorted(spec.ends or ()),
        "questions": 0 if spec is None else questions(runnable),
        "defer": spec is not None and spec.defer,
        "graph": _inside(runnable),
    }
    return {part: value for part, value in told.items() if value}


def _ends(ends: Mapping[Any, str] | None) -> dict[str, str] | None:
    return None if ends is None else {str(answer): target for answer, target in ends.items()}


def _inside(runnable: Any) -> Structure | None:
    """The graph that a node is, or runs."""
    inner: Any = None if runnable is None else find_subgraph_pregel(runnable)
    if inner is None:
        return None
    pauses = {
        "before": sorted(inner.interrupt_before_nodes),
        "after": sorted(inner.interrupt_after_nodes),
    }
    told = {name: nodes for name, nodes in pauses.items() if nodes}
    if isinstance(inner, CompiledStateGraph):
        return structure_of(inner.builder) | told
    return {"nodes": sorted(inner.nodes)} | told if isinstance(inner, Pregel) else None


def questions(runnable: Any) -> int:
    """In how many places the author's code calls LangGraph's `interrupt`, as far as it does so by name."""
    if isinstance(runnable, Pregel):
        return 0  # those inside are counted there
    return sum(_calls(function) for function in authored(runnable))


def _calls(function: Callable[..., Any]) -> int:
    plain: Any = getattr(function, "__func__", function)
    code = getattr(plain, "__code__", None)
    if code is None:
        return 0
    cells = dict(zip(code.co_freevars, plain.__closure__ or (), strict=False))
    names = {name for name, value in plain.__globals__.items() if value is interrupt}
    names |= {name for name, cell in cells.items() if _held(cell) is interrupt}
    # A `finally` stands twice in the bytecode, and once in the source.
    return len(set(_places(code, names)))


def _held(cell: types.CellType) -> Any:
    try:
        return cell.cell_contents
    except ValueError:  # not filled yet
        return None


def _places(code: types.CodeType, names: set[str]) -> Iterator[tuple[Any, ...]]:
    """Where code, also that of functions in it, loads `interrupt` under one of these names, or out of a module."""
    for instruction in dis.get_instructions(code):
        out_of_module = instruction.opname in ("LOAD_ATTR", "LOAD_METHOD") and instruction.argval == "interrupt"
        if out_of_module or (instruction.opname.startswith("LOAD_") and instruction.argval in names):
            position = instruction.positions
            where = position if position is not None and position.lineno is not None else instruction.offset
            yield code.co_qualname, where
    for constant in code.co_consts:
        if isinstance(constant, types.CodeType):
            yield from _places(constant, names)


# -- the state ---------------------------------------------------------------------------------------------------------


def _field(channel: BaseChannel[Any, Any, Any], described: Types) -> dict[str, Any]:
    kind, records = described.describe(channel.ValueType)
    reducer = getattr(channel, "operator", None) or getattr(channel, "reducer", None)
    told: dict[str, Any] = {"type": kind}
    if records:
        told["records"] = records
    if reducer is not None:
        told["reducer"] = qualified(reducer)
    name = type(channel).__name__
    return told if name in ("LastValue", "BinaryOperatorAggregate") else told | {"kind": name}


def _needed(graph: StateGraph[Any, Any, Any, Any]) -> frozenset[str]:
    """The fields without which some node, or some router, cannot be given its state."""
    schemas: list[Any] = [spec.input_schema for spec in graph.nodes.values()]
    schemas += [branch.input_schema for branches in graph.branches.values() for branch in branches.values()]
    return frozenset[str]().union(*(needed_fields(schema) for schema in schemas))
