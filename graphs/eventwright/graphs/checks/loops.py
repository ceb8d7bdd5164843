"""Findings about loops: one that calls something needs a budget that ends it."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

from langgraph.constants import START
from langgraph.graph.state import CompiledStateGraph
from langgraph.prebuilt import ToolNode
from langgraph.pregel import Pregel

from eventwright.graphs.checks.code import INSIDE, asks_models, named
from eventwright.graphs.checks.finding import Finding, Kind
from eventwright.graphs.checks.ways import Path, Stop, Ways
from eventwright.graphs.workflow import Workflow
from eventwright.guardrails.budgets import Budget
from eventwright.tools.contract import Tool
from eventwright.tools.langchain_tools import GatedTool
from eventwright.tools.model_tool import ask_model

Calls = Callable[[str], Sequence[Tool]]


def loop_findings(workflow: Workflow, ways: Ways) -> Iterator[Finding]:
    """Loops that call tools or models without a budget: of the graph, and of graphs that are its nodes."""
    specs = workflow.graph.nodes

    def calls(node: str) -> Sequence[Tool]:
        policy = workflow.policy(node)
        return _callable(specs[node].runnable, policy.tools) if node in specs else ()

    def budgets(node: str) -> Sequence[Budget]:
        return (*workflow.policy(node).budgets, *workflow.budgets)

    cycle = _loop(ways, calls, budgets)
    if cycle is not None:
        path = (*ways.through(START, cycle[0].node), *cycle[1:])
        yield _finding(cycle[0].node, cycle, calls, path, "in the policy of one of its nodes, or in the workflow")
    for node, spec in specs.items():
        path = ways.through(START, node)
        yield from _inside(path, node, spec.runnable, workflow.policy(node).tools, budgets(node))


def _inside(
    path: Path, name: str, runnable: Any, tools: Sequence[Tool], budgets: Sequence[Budget]
) -> Iterator[Finding]:
    """Loops in a graph that is a node: its nodes share the policy of that node.

    Args:
        path: to the outermost node.
        name: where the graph is.
        tools, budgets: of that policy.
    """
    if not isinstance(runnable, Pregel):
        return
    inner = {place: node.bound for place, node in runnable.nodes.items() if place != START}
    if isinstance(runnable, CompiledStateGraph):
        calls = _calls_of(inner, tools)
        cycle = _loop(Ways.of(runnable.builder), calls, lambda _node: budgets)
        if cycle is not None:
            stops = tuple(Stop(f"{name}{INSIDE}{stop.node}", stop.exit) for stop in cycle)
            node = path[-1].node
            yield _finding(node, cycle, calls, (*path, *stops), f"in the policy of {node}, or in the workflow")
    for place, part in inner.items():
        yield from _inside(path, f"{name}{INSIDE}{place}", part, tools, budgets)


def _calls_of(inner: Mapping[str, Any], tools: Sequence[Tool]) -> Calls:
    return lambda node: _callable(inner[node], _within(inner[node], tools)) if node in inner else ()


def _within(runnable: Any, tools: Sequence[Tool]) -> Sequence[Tool]:
    """Which of these tools a node inside may call; a `ToolNode` any of them."""
    if isinstance(runnable, ToolNode):
        return tools
    found = [value.tool if isinstance(value, GatedTool) else value for value in named(runnable)]
    return [tool for tool in tools if any(tool is value for value in found)]


def _callable(runnable: Any, tools: Sequence[Tool]) -> Sequence[Tool]:
    return (*tools, ask_model) if asks_models(runnable) else tools


def _ends(budgets: Sequence[Budget], tool: Tool) -> bool:
    """Whether one of the budgets ends calls of this tool. A cheaper model goes on for ever, and so does a budget for
    each value of an argument."""
    return any(
        (budget.what == "calls" or (budget.counts_models and tool.advises))
        and (budget.of in (None, tool) or (budget.of is not None and budget.of.advises and tool.advises))
        and not budget.by
        and budget.then != "cheaper"
        for budget in budgets
    )


def _loop(ways: Ways, calls: Calls, budgets: Callable[[str], Sequence[Budget]]) -> Path | None:
    """The shortest loop through a node that calls something, past all nodes that call only what a budget ends."""
    ended = [node for node in ways.nodes if calls(node) and all(_ends(budgets(node), tool) for tool in calls(node))]
    free = set(ways.nodes) - set(ended)
    loops = [ways.path(node, node, among=free) for node in ways.nodes if node in free and calls(node)]
    return min(filter(None, loops), key=len, default=None)


def _finding(node: str, cycle: Path, calls: Calls, path: Path, whose: str) -> Finding:
    called = list(dict.fromkeys(tool.name for stop in cycle for tool in calls(stop.node)))
    loose = [stop.exit for stop in cycle if stop.exit is not None and stop.exit.anywhere]
    said = "".join(f"; {way.by} of {way.source} says nowhere where it leads, so it may lead anywhere" for way in loose)
    hint = ", or name its ends in its type hint, by a Literal" if loose else ""
    message = f"a loop calls {' and '.join(called)}, and no budget ends it{said}"
    return Finding(Kind.ENDLESS_LOOP, node, message, f"give it one: Budget('calls', …) {whose}{hint}", path)
