"""The guarded twin of a graph: the same nodes, edges and state, each node inside its gate. The original is not touched.

The user's object is neither changed nor compiled: its builder is copied, each node's spec is replaced by one with a
guarded runnable, and the copy is compiled. A compiled graph that is a node itself is copied likewise, so that the nodes
inside it know where they stand.
"""

from __future__ import annotations

import asyncio
import copy
import dataclasses
import json
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from contextvars import Context, ContextVar
from dataclasses import dataclass
from datetime import datetime
from typing import Any, cast

from langchain_core.runnables import Runnable, RunnableConfig
from langgraph._internal._constants import PUSH
from langgraph._internal._serde import build_serde_allowlist
from langgraph.config import get_config
from langgraph.constants import START
from langgraph.errors import GraphBubbleUp, GraphInterrupt, ParentCommand
from langgraph.graph.state import CompiledStateGraph
from langgraph.prebuilt import ToolNode
from langgraph.pregel import Pregel
from langgraph.pregel._utils import find_subgraph_pregel
from langgraph.types import Interrupt, TimeoutPolicy

from eventwright.graphs.handover import stay_in
from eventwright.graphs.labels import Flow
from eventwright.graphs.recorded_models import answering
from eventwright.graphs.workflow import Workflow
from eventwright.graphs.wrapping import GuardedToolNode, watched
from eventwright.guardrails.gate import Gate
from eventwright.guardrails.policy import Policy
from eventwright.guardrails.segment import NodeFailure, Segment
from eventwright.guardrails.verdicts import Nondeterministic, Outage, Paused, Postponed
from eventwright.guardrails.waiting import Awaiting
from eventwright.runs.checkpoints import ERROR, CheckpointSaver
from eventwright.runs.errors import EventwrightError
from eventwright.runs.event import new_id
from eventwright.runs.failpoints import Failpoint, failpoint
from eventwright.runs.waits import PREFIX, Wait
from eventwright.tools.contract import current_gate

#: The segment that runs here; set by the runner, inherited by every task and thread that LangGraph starts.
current_segment: ContextVar[Segment | None] = ContextVar("eventwright_segment", default=None)
#: What begins the id of an interrupt by which the gate waits for a time. LangGraph's own ids are digests.
POSTPONED = "postponed"
#: What LangGraph calls a node that handles another's errors, before that one's name; and one that handles everybody's.
ERROR_HANDLERS = ("__error_handler__", "__default_error_handler__")
#: The nodes that the running code is in, outermost first: more than one inside a graph that is a node.
_standing: ContextVar[tuple[Level, ...]] = ContextVar("eventwright_standing", default=())


class NoSegment(EventwrightError, RuntimeError):
    """A guarded graph was run by hand; runs go through the engine."""


class ReplayDiffers(GraphBubbleUp):
    """A replayed node called a tool with other arguments than the first time. The run is parked.

    One of LangGraph's signals and no error, so that no retry policy and no error handler of the author takes it.
    """


class NoPlace(EventwrightError, RuntimeError):
    """A tool or a model was called in a graph within a graph that a node's function runs by itself."""

    def __init__(self, namespace: str) -> None:
        self.namespace = namespace
        super().__init__(
            f"a tool or a model was called at {namespace!r}, too deep in a function to tell one call from the next; "
            "give the compiled graph to add_node() itself instead of calling it in a function"
        )


@dataclass(frozen=True)
class Level:
    """One node that the running code is in: LangGraph's namespace, and name, superstep and path of the task."""

    namespace: str
    place: tuple[Any, ...]

    @classmethod
    def here(cls, above: tuple[Level, ...]) -> Level:
        """The node that runs right now, under those above it."""
        metadata = get_config().get("metadata") or {}
        namespace = str(metadata.get("langgraph_checkpoint_ns", ""))
        if above and namespace == above[-1].namespace:
            return above[-1]
        inner = namespace.removeprefix(f"{above[-1].namespace}|") if above else namespace
        parts = [part.partition(":") for part in inner.split("|")]
        name = "|".join(name for name, _, _ in parts)
        # A bare number counts the graphs that one function runs, an error handler runs beside its node. Any other
        # second id is that of a task between, of which we know nothing else.
        tasks = [name for name, colon, _ in parts if colon and not name.startswith(ERROR_HANDLERS)]
        if len(tasks) > 1:
            raise NoPlace(namespace)
        return cls(namespace, (name, metadata.get("langgraph_step"), metadata.get("langgraph_path")))


def locate() -> str:
    """Where the running code stands, as JSON: for each node that it is in, name, superstep and path of the task.

    None of LangGraph's ids is in it: they change when a graph starts anew or a node is renamed.
    """
    above = _standing.get()
    here = Level.here(above)
    levels = above if here in above else (*above, here)
    return _place_of([level.place for level in levels])


def running_in(context: Context) -> tuple[str, str | None] | None:
    """The run whose segment runs in this context, and the node that it is in, if it is in one; None if none does."""
    segment, levels = context.get(current_segment), context.get(_standing, ())
    return None if segment is None else (segment.run.id, str(levels[0].place[0]) if levels else None)


def rename_place(place: str, names: Mapping[str, str]) -> str:
    """The place after nodes of the outermost graph were renamed."""
    (name, step, path), *inside = json.loads(place)
    path = [names.get(part, part) if isinstance(part, str) else part for part in path]
    return _place_of([(names.get(name, name), step, path), *inside])


def _place_of(levels: Any) -> str:
    return json.dumps(levels, default=list, separators=(",", ":"))


class Placed(Runnable[Any, Any]):
    """A node inside a graph that is a node: it knows where it stands, and its pauses are LangGraph's."""

    def __init__(self, node: str, inner: Runnable[Any, Any]) -> None:
        self.name, self._inner = node, inner

    def invoke(self, input: Any, config: RunnableConfig | None = None, **kwargs: Any) -> Any:
        raise NoSegment("an Eventwright graph runs asynchronously, through the engine")

    async def ainvoke(self, input: Any, config: RunnableConfig | None = None, **kwargs: Any) -> Any:
        with _stands(), _signals():
            gate = current_gate.get()
            if isinstance(gate, Gate):
                # Also when LangGraph tries it again, as its author's RetryPolicy says: the same calls are the same.
                gate.count_anew()
            return await self._inner.ainvoke(input, config, **kwargs)


class Guarded(Placed):
    """A node inside its gate, and in its lane (None: in any)."""

    def __init__(
        self, node: str, inner: Runnable[Any, Any], policy: Policy, flow: Flow, lane: str | None = None
    ) -> None:
        super().__init__(node, inner)
        self.policy, self._flow, self._lane = policy, flow, lane

    async def ainvoke(self, input: Any, config: RunnableConfig | None = None, **kwargs: Any) -> Any:
        segment = current_segment.get()
        if segment is None:
            raise NoSegment("an Eventwright graph runs through the engine, which holds the run's lease")
        stay_in(self._lane)
        node = str(self.name)
        with _stands(), segment.store.telemetry.node(segment.run, node) as watch:
            place = locate()
            segment.entered.add(node)
            # What a task was sent is no channel: it may hold anything that the graph holds.
            reads = None if _was_sent() else self._flow.reads
            # What a graph inside the node has read stays read when it goes on in the middle.
            sources = list(dict.fromkeys((*segment.sources(reads), *_read_inside(segment, node))))
            gate = Gate(segment, node, place, self.policy, asyncio.get_running_loop(), sources)
            kept, result = self._flow.kept(input, segment), None
            try:
                with _signals(), watched():
                    async with gate.opened():
                        failpoint(Failpoint.NODE_ENTERED)
                        with answering():
                            result = await self._inner.ainvoke(input, config, **kwargs)
                        failpoint(Failpoint.NODE_LEFT)
            except ParentCommand as command:
                # A graph inside the node writes to the one outside.
                result = command.args[0]
                raise
            except (Exception, asyncio.CancelledError) as error:
                segment.label([ERROR], gate.tainted_by)
                if isinstance(error, ReplayDiffers) or not isinstance(error, GraphBubbleUp):
                    segment.failures[place] = NodeFailure(node, place, error)
                    watch.failed(error)
                if isinstance(error, Exception) and not isinstance(error, GraphBubbleUp):
                    # Also LangGraph may try the node again, as its author's RetryPolicy says.
                    segment.forget_failures(place)
                raise
            finally:
                written = self._flow.written(result) | self._flow.changed(input, kept)
                segment.label(written, gate.tainted_by)
        segment.failures.pop(place, None)
        return result


def _was_sent() -> bool:
    """Whether the running task was made by a Send, with an input of its own."""
    path = list((get_config().get("metadata") or {}).get("langgraph_path") or ())
    return path[:1] == [PUSH]


def _read_inside(segment: Segment, node: str) -> list[str]:
    """The tools whose untrusted results graphs inside the node have seen."""
    inside = {
        visit.visit for visit in segment.visits.values() if visit.node == node and len(json.loads(visit.place)) > 1
    }
    return segment.untrusted_results(inside) if inside else []


@contextmanager
def _stands() -> Iterator[None]:
    """The code inside is in one node more."""
    above = _standing.get()
    token = _standing.set((*above, Level.here(above)))
    try:
        yield
    finally:
        _standing.reset(token)


@contextmanager
def _signals() -> Iterator[None]:
    """What ends a segment, alone or out of a task group, becomes what LangGraph calls it."""
    try:
        yield
    except (Paused, Postponed, Nondeterministic, BaseExceptionGroup) as raised:
        signals = list(leaves(raised))
        differs = next((signal for signal in signals if isinstance(signal, Nondeterministic)), None)
        if differs is not None:
            raise ReplayDiffers(str(differs)) from None
        pauses = [_pause(signal) for signal in signals if isinstance(signal, Paused | Postponed)]
        if not pauses:
            raise
        # Of waits that were gathered, only the first is raised; the task rests until any of them is over.
        pauses += map(_wait, _waits_here())
        raise GraphInterrupt(tuple({pause.id: pause for pause in pauses}.values())) from None


def _waits_here() -> list[Wait]:
    """The open waits that the code at this place has come to."""
    segment, place = current_segment.get(), locate()
    if segment is None or place not in segment.visits:
        return []
    return segment.waits.at_visit(segment.visits[place].visit)


def _wait(wait: Wait) -> Interrupt[Any]:
    return Interrupt(value={"wait": wait.id}, id=wait.id)


def is_wait(interrupt: Interrupt[Any]) -> bool:
    """Whether an event, or a time, is waited for there that is written as a wait of the run."""
    return interrupt.id.startswith(PREFIX)


def _pause(signal: Paused | Postponed) -> Interrupt[Any]:
    if isinstance(signal, Awaiting):
        return _wait(signal.wait)
    if isinstance(signal, Postponed):
        value: dict[str, Any] = {POSTPONED: signal.until.isoformat()}
        if signal.outage is not None:
            value |= {"providers": list(signal.outage.providers), "since": signal.outage.since.isoformat()}
        return Interrupt(value=value, id=new_id(POSTPONED))
    return Interrupt(value={"review": signal.review.id}, id=signal.review.id)


def postponed_until(interrupt: Interrupt[Any]) -> datetime | None:
    """The time that the gate waits for there; None if somebody is asked."""
    is_ours = interrupt.id.startswith(f"{POSTPONED}_")
    return datetime.fromisoformat(interrupt.value[POSTPONED]) if is_ours else None


def outage_of(interrupt: Interrupt[Any]) -> Outage | None:
    """The providers that the gate waits for there; None if it is something else that is waited for."""
    if postponed_until(interrupt) is None or "providers" not in interrupt.value:
        return None
    return Outage(tuple(interrupt.value["providers"]), datetime.fromisoformat(interrupt.value["since"]))


def leaves(error: BaseException) -> Iterator[BaseException]:
    """The error itself, or every one in the group."""
    if isinstance(error, BaseExceptionGroup):
        for part in error.exceptions:
            yield from leaves(part)
    else:
        yield error


def guarded_twin(workflow: Workflow, saver: CheckpointSaver) -> CompiledStateGraph[Any, Any, Any, Any]:
    """The workflow's graph, compiled with our saver, every node behind its policy."""
    original = workflow.graph
    twin = copy.copy(original)
    policies = {node: workflow.policy(node) for node in original.nodes}
    inner = {node: _placed(cast(Any, spec.runnable), policies[node]) for node, spec in original.nodes.items()}
    twin.nodes = {
        node: _guarded(
            spec,
            Guarded(
                node,
                inner[node],
                policies[node],
                Flow.of(original, spec, policies[node]),
                workflow.lane_of(node),
            ),
        )
        for node, spec in original.nodes.items()
    }
    compiled = twin.compile(checkpointer=saver.with_allowlist(_state_types(original)))
    for node, runnable in inner.items():
        subgraph = find_subgraph_pregel(runnable)
        compiled.nodes[node].subgraphs = [subgraph] if subgraph else []
    # LangGraph adds the handler of errors of all nodes when it compiles.
    for name in compiled.nodes.keys() - original.nodes.keys() - {START}:
        added = compiled.nodes[name]
        handler = Guarded(name, added.bound, workflow.policy(name), Flow.of_handler(original))
        compiled.nodes[name] = added.copy({"bound": handler})
    return compiled


def _placed(runnable: Runnable[Any, Any], policy: Policy) -> Runnable[Any, Any]:
    """A compiled graph as a copy whose nodes know where they stand, a `ToolNode` as one that calls tools through the
    gate; everything else as it is."""
    if isinstance(runnable, ToolNode):
        return GuardedToolNode(runnable, policy.tools)
    if not isinstance(runnable, Pregel):
        return runnable
    nodes = {}
    for name, node in runnable.nodes.items():
        inner = _placed(node.bound, policy)
        subgraphs = [inner] if isinstance(inner, Pregel) else node.subgraphs
        nodes[name] = node if name == START else node.copy({"bound": Placed(name, inner), "subgraphs": subgraphs})
    return cast(Runnable[Any, Any], runnable.copy({"nodes": nodes}))


def _guarded(spec: Any, guarded: Guarded) -> Any:
    changes: dict[str, Any] = {"runnable": guarded}
    timeout = guarded.policy.timeout
    if timeout is not None and spec.timeout is None:
        changes["timeout"] = TimeoutPolicy(run_timeout=timeout)
    return dataclasses.replace(spec, **changes)


def _state_types(graph: Any) -> set[tuple[str, ...]]:
    """The types that a checkpoint of this graph, or of one inside it, may hold; LangGraph works them out only under its
    own strict switch."""
    schemas = [graph.state_schema, graph.input_schema, graph.output_schema, graph.context_schema]
    schemas += [spec.input_schema for spec in graph.nodes.values()]
    schemas += [branch.input_schema for branches in graph.branches.values() for branch in branches.values()]
    types = build_serde_allowlist(schemas=[schema for schema in schemas if schema is not None], channels=graph.channels)
    inside = (find_subgraph_pregel(cast(Any, spec.runnable)) for spec in graph.nodes.values())
    return types.union(*(_state_types(one.builder) for one in inside if isinstance(one, CompiledStateGraph)))
