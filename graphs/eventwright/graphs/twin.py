"""The guarded twin of a graph: the same nodes, edges and state, each node inside its gate. The original is not touched.

The user's object is neither changed nor compiled: its builder is copied, each node's spec is replaced by one with a
guarded runnable, and the copy is compiled.
"""

from __future__ import annotations

import asyncio
import copy
import dataclasses
import json
from contextvars import ContextVar
from typing import Any, cast

from langchain_core.runnables import Runnable, RunnableConfig
from langgraph._internal._serde import build_serde_allowlist
from langgraph.config import get_config
from langgraph.errors import GraphBubbleUp, GraphInterrupt
from langgraph.graph.state import CompiledStateGraph
from langgraph.pregel._utils import find_subgraph_pregel
from langgraph.types import Interrupt, TimeoutPolicy

from eventwright.graphs.workflow import Workflow
from eventwright.guardrails.gate import Gate
from eventwright.guardrails.policy import Policy
from eventwright.guardrails.segment import NodeFailure, Segment
from eventwright.guardrails.verdicts import Nondeterministic, Paused
from eventwright.runs.checkpoints import CheckpointSaver
from eventwright.runs.errors import EventwrightError

#: The segment that runs here; set by the runner, inherited by every task and thread that LangGraph starts.
current_segment: ContextVar[Segment | None] = ContextVar("eventwright_segment", default=None)


class NoSegment(EventwrightError, RuntimeError):
    """A guarded graph was run by hand; runs go through the engine."""


class ReplayDiffers(EventwrightError, RuntimeError):
    """A replayed node called a tool with other arguments than the first time. The run is parked."""


def locate() -> str:
    """Where the running code stands: LangGraph's namespace without ids, its superstep, the task's path; as JSON."""
    metadata = get_config().get("metadata") or {}
    namespace = str(metadata.get("langgraph_checkpoint_ns", ""))
    names = [part.partition(":")[0] for part in namespace.split("|")]
    place = [names, metadata.get("langgraph_step"), metadata.get("langgraph_path")]
    return json.dumps(place, default=list, separators=(",", ":"))


def rename_place(place: str, old: str, new: str) -> str:
    """The place after a node was renamed."""

    def renamed(part: Any) -> Any:
        if isinstance(part, list):
            return [renamed(item) for item in part]
        return new if part == old else part

    return json.dumps(renamed(json.loads(place)), separators=(",", ":"))


class Guarded(Runnable[Any, Any]):
    """A node inside its gate."""

    def __init__(self, node: str, inner: Runnable[Any, Any], policy: Policy) -> None:
        self.name, self._inner, self._policy = node, inner, policy

    def invoke(self, input: Any, config: RunnableConfig | None = None, **kwargs: Any) -> Any:
        raise NoSegment("an Eventwright graph runs asynchronously, through the engine")

    async def ainvoke(self, input: Any, config: RunnableConfig | None = None, **kwargs: Any) -> Any:
        segment = current_segment.get()
        if segment is None:
            raise NoSegment("an Eventwright graph runs through the engine, which holds the run's lease")
        node = str(self.name)
        place = locate()
        segment.entered.add(node)
        gate = Gate(segment, node, self._policy, asyncio.get_running_loop())
        try:
            with gate.opened():
                result = await self._inner.ainvoke(input, config, **kwargs)
        except Paused as pause:
            review = pause.review
            raise GraphInterrupt((Interrupt(value={"review": review.id}, id=review.id),)) from None
        except Nondeterministic as differs:
            error = ReplayDiffers(str(differs))
            segment.failures[place] = NodeFailure(node, place, error)
            raise error from None
        except GraphBubbleUp:
            raise
        except Exception as error:
            segment.failures[place] = NodeFailure(node, place, error)
            raise
        segment.failures.pop(place, None)
        return result


def guarded_twin(workflow: Workflow, saver: CheckpointSaver) -> CompiledStateGraph[Any, Any, Any, Any]:
    """The workflow's graph, compiled with our saver, every node behind its policy."""
    original = workflow.graph
    twin = copy.copy(original)
    twin.nodes = {node: _guarded(spec, workflow.policy(node), node) for node, spec in original.nodes.items()}
    compiled = twin.compile(checkpointer=saver.with_allowlist(_state_types(original)))
    for node, spec in original.nodes.items():
        subgraph = find_subgraph_pregel(cast(Runnable[Any, Any], spec.runnable))
        compiled.nodes[node].subgraphs = [subgraph] if subgraph else []
    return compiled


def _guarded(spec: Any, policy: Policy, node: str) -> Any:
    changes: dict[str, Any] = {"runnable": Guarded(node, spec.runnable, policy)}
    if policy.timeout is not None and spec.timeout is None:
        changes["timeout"] = TimeoutPolicy(run_timeout=policy.timeout)
    return dataclasses.replace(spec, **changes)


def _state_types(graph: Any) -> set[tuple[str, ...]]:
    """The types that a checkpoint of this graph may hold; LangGraph works them out only under its own strict switch."""
    schemas = [graph.state_schema, graph.input_schema, graph.output_schema, graph.context_schema]
    schemas += [spec.input_schema for spec in graph.nodes.values()]
    schemas += [branch.input_schema for branches in graph.branches.values() for branch in branches.values()]
    return build_serde_allowlist(schemas=[schema for schema in schemas if schema is not None], channels=graph.channels)
