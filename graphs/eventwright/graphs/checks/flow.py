"""What data a node may hold: where it may come from, by way of the graph's channels.

A node reads the channels of its input schema; one that a Send may start reads everything, for it may have been sent
anything. It writes the channels that its type hints name, or all. What it has read and what its tools returned goes
into whatever it writes.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property, partial

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


#: What is in a channel, or in a node's hands: a bit for each origin.
Origins = int


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
        made = [Origin(node, tool.name) for node in ways.nodes for tool in workflow.policy(node).tools if yields(tool)]
        self._origins = [*(Origin(START, what) for what in start), *made]

    def of(self, node: str, *, beside: Tool | None = None) -> list[Origin]:
        """What may be in a node's hands: what it reads, and what its tools return, except this one."""
        own = self._bits(lambda origin: origin.node == node and (beside is None or origin.what != beside.name))
        return self._list(_among(self._arriving[node], self._reads[node]) | own)

    def decided_on(self, way: Exit) -> list[Origin]:
        """What the decision about an exit may be made on."""
        if way.source == START:
            return self._list(self._bits(lambda origin: origin.node == START))
        if way.reads is None or way.by == ERROR:
            return self.of(way.source)
        arriving = self._arriving[way.source]
        left = _among(arriving, self._reads[way.source]) | self._made[way.source]
        own = left if way.reads & self._writes[way.source] else 0
        return self._list(_among(arriving, way.reads) | own)

    # -- by channel ----------------------------------------------------------------------------------------------------

    @cached_property
    def _arriving(self) -> Mapping[str, Mapping[str, Origins]]:
        """What may be in which channel when the run comes to a node. It only becomes more, as at run time."""
        first = dict.fromkeys(
            self._graph.schemas[self._graph.input_schema], self._bits(lambda origin: origin.node == START)
        )
        arriving = {node: dict(first) for node in self._ways.nodes}
        grows = True
        while grows:
            grows = False
            left = {node: _among(held, self._reads[node]) | self._made[node] for node, held in arriving.items()}
            for node, held in arriving.items():
                for earlier in self._ways.before(node):
                    for channel in self._writes[earlier] if left[earlier] else ():
                        merged = held.get(channel, 0) | left[earlier]
                        grows = grows or merged != held.get(channel, 0)
                        held[channel] = merged
        return arriving

    @cached_property
    def _made(self) -> Mapping[str, Origins]:
        """What a node's own tools return."""
        return {node: self._bits(partial(_of_node, node)) for node in self._ways.nodes}

    @cached_property
    def _reads(self) -> Mapping[str, frozenset[str]]:
        sent = {target for way in self._ways.decisions if way.sends for target in way.targets}
        specs, schemas = self._graph.nodes, self._graph.schemas
        return {
            node: self._channels
            if node in sent or node not in specs
            else frozenset(schemas.get(specs[node].input_schema, self._channels))
            for node in self._ways.nodes
        }

    @cached_property
    def _writes(self) -> Mapping[str, frozenset[str]]:
        specs = self._graph.nodes
        return {
            node: written(specs[node].runnable, self._channels) if node in specs else self._channels
            for node in self._ways.nodes
        }

    # -- origins as bits -----------------------------------------------------------------------------------------------

    def _bits(self, chosen: Callable[[Origin], bool]) -> Origins:
        return sum(1 << number for number, origin in enumerate(self._origins) if chosen(origin))

    def _list(self, origins: Origins) -> list[Origin]:
        return [origin for number, origin in enumerate(self._origins) if origins >> number & 1]


def _among(held: Mapping[str, Origins], channels: frozenset[str]) -> Origins:
    found = 0
    for channel in channels & held.keys():
        found |= held[channel]
    return found


def _of_node(node: str, origin: Origin) -> bool:
    return origin.node == node
