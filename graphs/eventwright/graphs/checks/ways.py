"""The ways through a graph: who leads where, who decides it, what may run before what.

They are those that the graph declares: edges, joins, the ends of routers, the destinations of Commands, error
handlers. A router or a Command that declares nothing may lead anywhere, and so it counts. A node that no declared way
leads to may be led to from everywhere.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from itertools import pairwise
from typing import Any, cast

from langgraph._internal._runnable import coerce_to_runnable
from langgraph.constants import END, START
from langgraph.graph import StateGraph

from eventwright.graphs.checks.code import command_ends, functions, names_send, returns_one

#: What LangGraph calls the handler that a graph has for the errors of every node without one of its own.
DEFAULT_HANDLER = "__default_error_handler__"
#: Who decides about an exit, where it is no router.
COMMAND, ERROR = "a Command", "an error"


@dataclass(frozen=True)
class Exit:
    """One way or several out of a node that are taken, or decided about, together.

    Attributes:
        by: who decides: the name of a router, `a Command` or `an error`; None where nobody does.
        several: whether more than one of them, or one more than once, may be taken at a time.
        sends: whether a Send may be among them, which brings an input of its own.
        reads: the channels that the decision is made on; None for all that the node knows.
        anywhere: it leads to every node because nothing says where.
    """

    source: str
    targets: tuple[str, ...]
    by: str | None = None
    several: bool = False
    sends: bool = False
    reads: frozenset[str] | None = None
    anywhere: bool = False


@dataclass(frozen=True)
class Stop:
    """A node on a path, and the exit by which one comes to it; None for where the path begins."""

    node: str
    exit: Exit | None = None


Path = tuple[Stop, ...]


class Ways:
    """The ways of one graph.

    Args:
        nodes: all of them, without START and END.
        exits: of START and of the nodes.
    """

    def __init__(self, nodes: Sequence[str], exits: Sequence[Exit]) -> None:
        self.nodes = tuple(nodes)
        self._exits: dict[str, list[Exit]] = {name: [] for name in (START, *nodes)}
        for way in exits:
            known = tuple(target for target in way.targets if target in self._exits or target == END)
            self._exits[way.source].append(replace(way, targets=known))
        self._next = {node: _targets(ways) for node, ways in self._exits.items()}
        #: Nodes that no declared way leads to.
        self.strangers: list[str] = []
        if not self._after(START) - {END}:
            self._lead_anywhere([START], nodes)
        while lost := [node for node in nodes if node not in self._after(START)]:
            led = {target for targets in self._next.values() for target in targets}
            self._lead_anywhere(nodes, [node for node in lost if node not in led] or lost)

    def _lead_anywhere(self, sources: Sequence[str], strangers: Sequence[str]) -> None:
        """No declared way leads to these nodes, so a Command may, from wherever it comes."""
        self.strangers += strangers
        for source in sources:
            others = tuple(name for name in strangers if name != source)
            self._exits[source].append(Exit(source, others, by=COMMAND, anywhere=True))
            self._next[source] = _targets(self._exits[source])

    @classmethod
    def of(cls, graph: StateGraph[Any, Any, Any, Any]) -> Ways:
        """The ways of a graph that is not compiled."""
        default = None if DEFAULT_HANDLER in graph.nodes else graph._node_defaults.error_handler
        nodes = [*graph.nodes, *([DEFAULT_HANDLER] if default is not None else [])]
        everywhere = (*nodes, END)
        exits = []
        for source in (START, *graph.nodes):
            plain = tuple(sorted(end for start, end in graph._all_edges if start == source))
            exits += [Exit(source, plain, several=len(plain) > 1)] if plain else []
            exits += [_branch(graph, source, name, branch, everywhere) for name, branch in _branches(graph, source)]
        for name, spec in graph.nodes.items():
            exits += _commands(name, spec.runnable, tuple(spec.ends or ()), everywhere)
            handler = spec.error_handler_node or (DEFAULT_HANDLER if default and not spec.is_error_handler else None)
            exits += [Exit(name, (handler,), by=ERROR)] if handler else []
        if default is not None:
            handles = coerce_to_runnable(cast(Any, default), name=None, trace=False)
            exits += _commands(DEFAULT_HANDLER, handles, (), everywhere)
        return cls(nodes, exits)

    def exits(self, node: str) -> Sequence[Exit]:
        """The ways out of a node."""
        return self._exits.get(node, ())

    @property
    def decisions(self) -> Iterator[Exit]:
        """The exits about which somebody decides."""
        return (way for ways in self._exits.values() for way in ways if way.by is not None)

    def successors(self, node: str) -> frozenset[str]:
        """The nodes that may run next, END among them."""
        return self._next.get(node, frozenset())

    # -- reaching ------------------------------------------------------------------------------------------------------

    def after(self, node: str) -> frozenset[str]:
        """The nodes that may run after this one, itself among them if it may run again."""
        return self._reach[node]

    @cached_property
    def _reach(self) -> Mapping[str, frozenset[str]]:
        return {node: frozenset(self._after(node)) - {END} for node in self._exits}

    def _after(self, node: str) -> set[str]:
        return self._from(self.successors(node))

    def _from(self, nodes: Collection[str], without: str | None = None) -> set[str]:
        """These nodes and all that may run after them, on ways that do not touch `without`."""
        found = {node for node in nodes if node != without}
        waiting = list(found)
        while waiting:
            new = self.successors(waiting.pop()) - found - {without}
            found |= new
            waiting += new
        return found

    def before(self, node: str) -> frozenset[str]:
        """The nodes of which a run may have been through when it comes to this one: on the way to it, or beside it."""
        return self._earlier[node]

    @cached_property
    def _earlier(self) -> Mapping[str, frozenset[str]]:
        earlier = {node: {other for other in self.nodes if node in self.after(other)} for node in self.nodes}
        for source in self._exits:
            if self._forks(source):
                beside = self._from(self.successors(source)) - {END}
                for node in beside:
                    earlier[node] |= beside - {node}
        return {node: frozenset(others) for node, others in earlier.items()}

    def _forks(self, node: str) -> bool:
        """Whether several ways may be taken from here at once."""
        ways = [way for way in self.exits(node) if way.by != ERROR and set(way.targets) - {END}]
        return len(ways) > 1 or any(way.several for way in ways)

    def decides(self, way: Exit, node: str) -> bool:
        """Whether it is this exit on which it depends that the run comes to the node."""
        if node not in self._from(way.targets):
            return False
        # An error is decided about against everything that would have come without it.
        choice = self.successors(way.source) if way.by == ERROR else way.targets
        others = self._from(choice, without=node)
        ends = END in others or any(not self.successors(other) for other in others)
        return ends or any(other in self._from(self.successors(other), without=node) for other in others)

    # -- paths ---------------------------------------------------------------------------------------------------------

    def path(self, source: str, target: str, *, among: Collection[str] | None = None) -> Path | None:
        """The shortest path with at least one step, on declared ways if it can be; None if there is none.

        Args:
            among: the only nodes that it may go through.
        """
        for declared in (True, False):
            came: dict[str, tuple[str, Exit]] = {}
            waiting = deque([source])
            while waiting and target not in came:
                node = waiting.popleft()
                for way, reached in self._steps(node, declared=declared):
                    if reached not in came and (among is None or reached in among):
                        came[reached] = (node, way)
                        waiting.append(reached)
            if target in came:
                return _traced(came, source, target)
        return None

    def _steps(self, node: str, *, declared: bool) -> Iterator[tuple[Exit, str]]:
        return ((way, target) for way in self.exits(node) if not (declared and way.anywhere) for target in way.targets)

    def through(self, *nodes: str) -> Path:
        """A path through these nodes, in this order, each of which may run after the one before it."""
        path: Path = (Stop(nodes[0]),)
        for source, target in pairwise(nodes):
            step = self.path(source, target)
            path = (*path, *(step[1:] if step else (Stop(target),)))
        return path


def _targets(ways: Sequence[Exit]) -> frozenset[str]:
    return frozenset(target for way in ways for target in way.targets)


def _traced(came: Mapping[str, tuple[str, Exit]], source: str, target: str) -> Path:
    stops: list[Stop] = []
    node = target
    while True:
        before, way = came[node]
        stops.append(Stop(node, way))
        node = before
        if node == source:
            return (Stop(source), *reversed(stops))


def _branches(graph: StateGraph[Any, Any, Any, Any], source: str) -> list[tuple[str, Any]]:
    return list(graph.branches[source].items()) if source in graph.branches else []


def _branch(graph: Any, source: str, name: str, branch: Any, everywhere: tuple[str, ...]) -> Exit:
    schema = branch.input_schema or (graph.nodes[source].input_schema if source in graph.nodes else graph.state_schema)
    targets = everywhere if branch.ends is None else tuple(dict.fromkeys(branch.ends.values()))
    one, sends = any(map(returns_one, functions(branch.path))), names_send(branch.path)
    return Exit(
        source,
        targets,
        by=name,
        several=sends or (not one and _several(targets)),
        sends=sends,
        reads=frozenset(graph.schemas.get(schema, graph.channels)),
        anywhere=branch.ends is None,
    )


def _commands(name: str, runnable: Any, ends: tuple[str, ...], everywhere: tuple[str, ...]) -> list[Exit]:
    """Where the Commands lead that a node returns."""
    told = ends or command_ends(runnable)
    targets = everywhere if told is None else told
    if not targets:
        return []
    sends = names_send(runnable)
    several = sends or _several(targets)
    return [Exit(name, targets, by=COMMAND, several=several, sends=sends, anywhere=told is None)]


def _several(targets: tuple[str, ...]) -> bool:
    return len(set(targets) - {END}) > 1
