"""What data a node may hold: where it may come from, by way of the graph's channels.

A node reads the channels of its input schema; one that a Send may start reads everything, for it may have been sent
anything. It writes the channels that its type hints name, or all. What it has read and what its tools returned goes
into whatever it writes.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property

from langgraph.constants import START

from eventwright.graphs.checks.code import written
from eventwright.graphs.checks.ways import ERROR, Exit, Ways
from eventwright.graphs.workflow import Workflow
from eventwright.tools.contract import Tool


@dataclass(frozen=True)
class Origin:
    """Where data comes from: a tool's results at a node, or the event, at START."""

    node: str
    what: str

    def __str__(self) -> str:
        return self.what if self.node == START else f"what {self.what} returned at {self.node}"


class Flow:
    """Where one kind of data gets to.

    Args:
        workflow: whose graph it is.
        ways: of that graph.
        yields: whether a tool returns such data.
        start: what the event brings of it; empty for nothing.
    """

    def __init__(
        self, workflow: Workflow, ways: Ways, yields: Callable[[Tool], bool], start: Sequence[str] = ()
    ) -> None:
        self._graph, self._ways = workflow.graph, ways
        self._channels = frozenset(workflow.graph.channels)
        self._made = {
            node: [Origin(node, tool.name) for tool in workflow.policy(node).tools if yields(tool)]
            for node in ways.nodes
        }
        self._start = [Origin(START, what) for what in start]

    def of(self, node: str, *, beside: Tool | None = None) -> list[Origin]:
        """What may be in a node's hands: what it reads, and what its tools return, except this one."""
        own = [origin for origin in self._made.get(node, ()) if beside is None or origin.what != beside.name]
        return list(dict.fromkeys((*self._among(self._arriving[node], self._reads(node)), *own)))

    def decided_on(self, way: Exit) -> list[Origin]:
        """What the decision about an exit may be made on."""
        if way.source == START:
            return self._start
        arriving = self._arriving[way.source]
        if way.reads is None or way.by == ERROR:
            return self.of(way.source)
        left = self._left(way.source, arriving)
        both = {channel: [*arriving.get(channel, ()), *left.get(channel, ())] for channel in {*arriving, *left}}
        return self._among(both, way.reads)

    # -- by channel ----------------------------------------------------------------------------------------------------

    @cached_property
    def _arriving(self) -> Mapping[str, Mapping[str, list[Origin]]]:
        """What may be in which channel when the run comes to a node. It only becomes more, as at run time."""
        first = dict.fromkeys(self._graph.schemas[self._graph.input_schema], self._start)
        arriving: dict[str, dict[str, list[Origin]]] = {node: dict(first) for node in self._ways.nodes}
        grows = True
        while grows:
            grows = False
            for node in self._ways.nodes:
                for earlier in self._ways.before(node):
                    for channel, origins in self._left(earlier, arriving[earlier]).items():
                        known = arriving[node].get(channel, [])
                        merged = list(dict.fromkeys((*known, *origins)))
                        grows = grows or len(merged) > len(known)
                        arriving[node][channel] = merged
        return arriving

    def _left(self, node: str, arriving: Mapping[str, list[Origin]]) -> dict[str, list[Origin]]:
        """What a node leaves in the channels that it writes."""
        holds = list(dict.fromkeys((*self._among(arriving, self._reads(node)), *self._made.get(node, ()))))
        return dict.fromkeys(self._writes[node], holds) if holds else {}

    @staticmethod
    def _among(held: Mapping[str, list[Origin]], channels: frozenset[str]) -> list[Origin]:
        return list(dict.fromkeys(origin for channel in sorted(channels) for origin in held.get(channel, ())))

    def _reads(self, node: str) -> frozenset[str]:
        spec = self._graph.nodes.get(node)
        if spec is None or node in self._sent:
            return self._channels
        return frozenset(self._graph.schemas.get(spec.input_schema, self._channels))

    @cached_property
    def _sent(self) -> frozenset[str]:
        """Nodes that a Send may start."""
        return frozenset(target for way in self._ways.decisions if way.sends for target in way.targets)

    @cached_property
    def _writes(self) -> Mapping[str, frozenset[str]]:
        specs = self._graph.nodes
        return {
            node: written(specs[node].runnable, self._channels) if node in specs else self._channels
            for node in self._ways.nodes
        }
