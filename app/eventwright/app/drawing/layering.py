"""Where the nodes of a directed graph stand and how its edges run: in layers, from top to bottom.

The classic four steps: turn the edges that go back, give each node its layer, order the layers so that few edges cross,
and move everything as near to its neighbours as it may go.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from statistics import fmean

Point = tuple[float, float]

#: How often the layers are swept, down and up. Graphs that people draw settle within a few.
SWEEPS = 12
#: The width that an edge takes where it passes a layer.
LANE = 18.0
#: How much more an edge insists on its place than a node does.
STRAIGHTNESS = 3.0


@dataclass(frozen=True)
class Edge:
    """A directed edge; `label` is the room its words take (width, height), if it has any."""

    source: str
    target: str
    label: tuple[float, float] | None = None


@dataclass(frozen=True)
class Route:
    """The way of an edge, from its source to its target: it enters and leaves each layer that it passes vertically."""

    points: list[Point]
    #: The middle of its label.
    label: Point | None = None


@dataclass(frozen=True)
class Layout:
    """Centres of the nodes, a route for each edge in the given order, and the size of it all, in pixels."""

    centres: dict[str, Point]
    routes: list[Route]
    width: float
    height: float


@dataclass(frozen=True)
class _Chain:
    """An edge as the layers see it: from the upper vertex to the lower one, through one vertex of its own a layer."""

    vertices: list[str]
    turned: bool
    label: str | None


def lay_out(sizes: Mapping[str, tuple[float, float]], edges: Sequence[Edge], *, gap: float = 30.0) -> Layout:
    """Place the nodes of a graph; cycles are welcome.

    Args:
        sizes: width and height of each node, in the order in which they should be read.
        edges: between these nodes; one from a node to itself gets a route of no points.
        gap: the free room between two nodes, beside and below each other.
    """
    turned = _going_back(list(sizes), edges)
    ranks = _ranks(list(sizes), edges, turned)
    room = dict(sizes)
    chains = [_chain(number, edge, ranks, edge in turned, room) for number, edge in enumerate(edges)]
    layers = _ordered(ranks, [link for chain in chains for link in _links(chain)])
    middle = _across(layers, room, chains, gap)
    down, heights = _down(layers, room, gap * 1.4)
    ports = _Ports(chains, middle, room)
    routes = [_route(number, chain, middle, down, heights, room, ports) for number, chain in enumerate(chains)]
    left = min((middle[v] - room[v][0] / 2 for v in middle), default=0.0)
    right = max((middle[v] + room[v][0] / 2 for v in middle), default=0.0)
    bottom = max((down[v] + room[v][1] / 2 for v in down), default=0.0)
    centres = {node: (middle[node] - left, down[node]) for node in sizes}
    return Layout(centres, [_moved(route, left) for route in routes], right - left, bottom)


def _going_back(nodes: Iterable[str], edges: Sequence[Edge]) -> set[Edge]:
    """The edges that close a cycle, in the order of a walk through the nodes."""
    onward: dict[str, list[Edge]] = {}
    for edge in edges:
        onward.setdefault(edge.source, []).append(edge)
    closing: set[Edge] = set()
    done: set[str] = set()
    for node in nodes:
        path = [(node, iter(onward.get(node, ())))] if node not in done else []
        on_path = {node}
        while path:
            here, remaining = path[-1]
            step = next(remaining, None)
            if step is None:
                path.pop()
                on_path.discard(here)
                done.add(here)
            elif step.target in on_path:
                closing.add(step)
            elif step.target not in done:
                path.append((step.target, iter(onward.get(step.target, ()))))
                on_path.add(step.target)
    return closing


def _ranks(nodes: Sequence[str], edges: Sequence[Edge], turned: set[Edge]) -> dict[str, int]:
    """The layer of each node: one below the lowest node that leads to it, two where a label stands between."""
    ranks = dict.fromkeys(nodes, 0)
    steps = []
    for edge in edges:
        upper, lower = (edge.target, edge.source) if edge in turned else (edge.source, edge.target)
        if upper != lower:
            steps.append((upper, lower, 1 if edge.label is None else 2))
    for _ in nodes:
        for upper, lower, length in steps:
            ranks[lower] = max(ranks[lower], ranks[upper] + length)
    return ranks


def _chain(
    number: int, edge: Edge, ranks: dict[str, int], turned: bool, room: dict[str, tuple[float, float]]
) -> _Chain:
    """The edge's chain; its own vertices are added to the ranks and to the rooms."""
    if edge.source == edge.target:
        return _Chain([], False, None)
    upper, lower = (edge.target, edge.source) if turned else (edge.source, edge.target)
    own = [f"\0{number}.{rank}" for rank in range(ranks[upper] + 1, ranks[lower])]
    for rank, vertex in enumerate(own, start=ranks[upper] + 1):
        ranks[vertex] = rank
        room[vertex] = (LANE, 0.0)
    label = None
    if edge.label is not None:
        label = own[-1] if turned else own[0]
        room[label] = edge.label
    return _Chain([upper, *own, lower], turned, label)


def _links(chain: _Chain) -> list[tuple[str, str]]:
    return list(pairwise(chain.vertices))


# -- the order within the layers -------------------------------------------------------------------------------------


def _ordered(ranks: Mapping[str, int], links: Sequence[tuple[str, str]]) -> list[list[str]]:
    """The layers, each in an order in which few edges cross."""
    layers: list[list[str]] = [[] for _ in range(max(ranks.values(), default=-1) + 1)]
    for vertex, rank in ranks.items():
        layers[rank].append(vertex)
    above, below = _neighbours(links)
    best, fewest = [list(layer) for layer in layers], _crossings(layers, below)
    for sweep in range(SWEEPS):
        goes_down = sweep % 2 == 0
        for layer, fixed in _passes(layers, goes_down):
            place = {vertex: index for index, vertex in enumerate(fixed)}
            _sort_by_neighbours(layer, above if goes_down else below, place)
        crossings = _crossings(layers, below)
        if crossings < fewest:
            best, fewest = [list(layer) for layer in layers], crossings
    return best


def _neighbours(links: Sequence[tuple[str, str]]) -> tuple[dict[str, list[str]], dict[str, list[str]]]:
    above: dict[str, list[str]] = {}
    below: dict[str, list[str]] = {}
    for upper, lower in links:
        above.setdefault(lower, []).append(upper)
        below.setdefault(upper, []).append(lower)
    return above, below


def _passes(layers: list[list[str]], goes_down: bool) -> list[tuple[list[str], list[str]]]:
    """Each layer to be changed, with the one beside it that stays."""
    towards = layers if goes_down else layers[::-1]
    return list(zip(towards[1:], towards, strict=False))


def _sort_by_neighbours(layer: list[str], neighbours: dict[str, list[str]], place: dict[str, int]) -> None:
    own = {vertex: float(index) for index, vertex in enumerate(layer)}
    layer.sort(key=lambda vertex: fmean([place[n] for n in neighbours.get(vertex, ())] or [own[vertex]]))


def _crossings(layers: list[list[str]], below: dict[str, list[str]]) -> int:
    crossings = 0
    for upper, lower in pairwise(layers):
        place = {vertex: index for index, vertex in enumerate(lower)}
        ends = [place[target] for vertex in upper for target in sorted(below.get(vertex, ()), key=place.__getitem__)]
        crossings += sum(ends[i] > ends[j] for i in range(len(ends)) for j in range(i + 1, len(ends)))
    return crossings


# -- coordinates -----------------------------------------------------------------------------------------------------


def _across(
    layers: list[list[str]], room: Mapping[str, tuple[float, float]], chains: Sequence[_Chain], gap: float
) -> dict[str, float]:
    """The middle of each vertex from left to right: near its neighbours, in its layer's order, nothing overlapping."""
    above, below = _neighbours([link for chain in chains for link in _links(chain)])
    along = {vertex: chain.vertices for chain in chains for vertex in chain.vertices[1:-1]}
    middle: dict[str, float] = {}
    for layer in layers:
        _settle(layer, dict.fromkeys(layer, 0.0), along, room, gap, middle)
    for sweep in range(4 * SWEEPS):
        sides = [(above,), (below,), (above, below)][sweep % 3]
        for layer in layers[::-1] if sweep % 3 == 1 else layers:
            wanted = {}
            for vertex in layer:
                # An edge wants to run straight: all of it goes where its middle is.
                near = along.get(vertex) or [n for side in sides for n in side.get(vertex, ())]
                wanted[vertex] = fmean([middle[n] for n in near] or [middle[vertex]])
            _settle(layer, wanted, along, room, gap, middle)
    return middle


def _settle(
    layer: list[str],
    wanted: Mapping[str, float],
    along: Mapping[str, list[str]],
    room: Mapping[str, tuple[float, float]],
    gap: float,
    middle: dict[str, float],
) -> None:
    """Put a layer where it wants to be, as nearly (in least squares) as its order and the gaps allow."""
    offset, offsets = 0.0, []
    for before, vertex in zip([None, *layer], layer, strict=False):
        if before is not None:
            offset += (room[before][0] + room[vertex][0]) / 2 + gap
        offsets.append(offset)
    # Vertices that would overlap become a block, which goes to the mean of what its members want.
    blocks: list[tuple[float, float, int]] = []
    for vertex, shift in zip(layer, offsets, strict=True):
        weight = STRAIGHTNESS if vertex in along else 1.0
        total, count = (wanted[vertex] - shift) * weight, 1
        while blocks and blocks[-1][0] / blocks[-1][1] > total / weight:
            earlier, earlier_weight, members = blocks.pop()
            total, weight, count = total + earlier, weight + earlier_weight, count + members
        blocks.append((total, weight, count))
    starts = [total / weight for total, weight, count in blocks for _ in range(count)]
    middle.update({vertex: start + shift for vertex, start, shift in zip(layer, starts, offsets, strict=True)})


def _down(
    layers: list[list[str]], room: Mapping[str, tuple[float, float]], gap: float
) -> tuple[dict[str, float], dict[str, float]]:
    """The middle of each vertex from top to bottom, and the height of its layer."""
    down: dict[str, float] = {}
    heights: dict[str, float] = {}
    top = 0.0
    for layer in layers:
        tallest = max((room[vertex][1] for vertex in layer), default=0.0)
        down.update(dict.fromkeys(layer, top + tallest / 2))
        heights.update(dict.fromkeys(layer, tallest))
        top += tallest + gap
    return down, heights


class _Ports:
    """Where edges leave and enter a node: side by side, in the order of where they come from."""

    def __init__(
        self, chains: Sequence[_Chain], middle: Mapping[str, float], room: Mapping[str, tuple[float, float]]
    ) -> None:
        self._middle = middle
        self._shift: dict[tuple[int, str], float] = {}
        beside: dict[tuple[str, bool], list[tuple[float, int]]] = {}
        for number, chain in enumerate(chains):
            if chain.vertices:
                first, second, *_ = chain.vertices
                *_, last_but_one, last = chain.vertices
                beside.setdefault((first, True), []).append((middle[second], number))
                beside.setdefault((last, False), []).append((middle[last_but_one], number))
        for (vertex, leaves), others in beside.items():
            # On something as small as a dot they meet.
            step = min(LANE, 0.6 * room[vertex][0] / max(len(others) - 1, 1)) if room[vertex][0] > 2 * LANE else 0.0
            for index, (_, number) in enumerate(sorted(others)):
                self._shift[number, vertex + str(leaves)] = (index - (len(others) - 1) / 2) * step

    def at(self, number: int, vertex: str, *, leaves: bool) -> float:
        return self._middle[vertex] + self._shift[number, vertex + str(leaves)]


def _route(
    number: int,
    chain: _Chain,
    middle: Mapping[str, float],
    down: Mapping[str, float],
    heights: Mapping[str, float],
    room: Mapping[str, tuple[float, float]],
    ports: _Ports,
) -> Route:
    if not chain.vertices:
        return Route([])
    first, *own, last = chain.vertices
    points = [(ports.at(number, first, leaves=True), down[first] + room[first][1] / 2)]
    for vertex in own:
        x, y, half = middle[vertex], down[vertex], heights[vertex] / 2
        points.append((x, y - half))
        if vertex == chain.label:
            points += [(x, y - room[vertex][1] / 2), (x, y + room[vertex][1] / 2)]
        points.append((x, y + half))
    points.append((ports.at(number, last, leaves=False), down[last] - room[last][1] / 2))
    label = None if chain.label is None else (middle[chain.label], down[chain.label])
    return Route(points[::-1] if chain.turned else points, label)


def _moved(route: Route, left: float) -> Route:
    label = None if route.label is None else (route.label[0] - left, route.label[1])
    return Route([(x - left, y) for x, y in route.points], label)
