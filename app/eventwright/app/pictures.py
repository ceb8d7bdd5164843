"""Pictures for people: a workflow's graph with its guards, and how a run went. SVG, shown by a notebook as they are.

graph_picture(support)                                         before anything has run
timeline_picture(run, journal, effects, reviews)               what a run did, and what people decided
"""

from __future__ import annotations

import copy
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any

from eventwright.app.drawing.layering import Edge, Layout, Point, Route, lay_out
from eventwright.app.drawing.shapes import GREY, INK, Sheet, width_of
from eventwright.app.drawing.timeline import draw_timeline
from eventwright.graphs.workflow import Workflow
from eventwright.guardrails.policy import Policy
from eventwright.runs.records import Effect, JournalEntry, Review, Run

START, END = "__start__", "__end__"
DOT = 13.0
NAME, SMALL = 13.0, 10.5
MARGIN = 12.0

NODE, NODE_LINE = "#eef2fb", "#8fa2cf"
GROUP, GROUP_LINE = "#9aa3b21a", "#9aa3b2"
#: What a badge is about: its fill.
PERSON, DOUBT, AGAIN, LOOP = "#fde3a7", "#ddd3f7", "#cfe3f5", "#dfe3ea"
#: The line around a node at which a person is asked.
ASKING = "#d99a1c"


@dataclass(frozen=True)
class Picture:
    """An SVG picture. As the last value of a notebook's cell it shows itself."""

    svg: str

    def __repr__(self) -> str:
        return f"<Picture of {len(self.svg)} characters; .svg is the picture, .save(path) writes it>"

    def _repr_svg_(self) -> str:
        return self.svg

    def save(self, path: str | Path) -> Path:
        """Write it to a file, `something.svg`, and return its path."""
        file = Path(path)
        file.write_text(self.svg, encoding="utf-8")
        return file


def timeline_picture(
    run: Run, journal: Sequence[JournalEntry], effects: Sequence[Effect], reviews: Sequence[Review]
) -> Picture:
    """How a run went, from left to right: its states, and by node what was called and what people were asked.

    The order is true and the distances are not: a week of waiting takes no more room than a call. Words say how long.

    Args:
        run: the run.
        journal: its record, oldest first.
        effects: its ledger.
        reviews: everything people were asked about it, in any state.
    """
    return Picture(draw_timeline(run, journal, effects, reviews))


def graph_picture(workflow: Workflow, *, asking: Collection[str] = ()) -> Picture:
    """The workflow's graph as its author drew it, with a badge on a node for each guard of its policy.

    Conditional edges are dashed; one from a node to itself is a badge. A subgraph is drawn inside its node. The
    graph is neither changed nor compiled: a copy is.

    Args:
        workflow: the workflow.
        asking: nodes at which a person is being asked; they are marked.
    """
    compiled: Any = copy.copy(workflow.graph).compile()
    badges = {node: _badges(policy) for node, policy in workflow.policies.items()}
    hints = {node: _hint(node, workflow.policy(node)) for node in workflow.graph.nodes}
    inner = {name: _Drawing(graph.get_graph()) for name, graph in compiled.get_subgraphs()}
    drawing = _Drawing(compiled.get_graph(), badges=badges, hints=hints, inner=inner, asking=asking)
    sheet = Sheet(f"The graph of {workflow.name}, version {workflow.version}")
    drawing.draw(sheet, (MARGIN, MARGIN))
    width, height = drawing.size
    return Picture(sheet.svg(width + 2 * MARGIN, height + 2 * MARGIN))


def _badges(policy: Policy) -> list[tuple[str, str]]:
    """Words and colour of each guard that a reader of the graph should see."""
    found = []
    if policy.approve_when is not None:
        found.append(("asks a person", PERSON))
    if policy.min_confidence is not None:
        found.append((f"sure ≥ {policy.min_confidence:g}", DOUBT))
    if policy.most_retries:
        found.append(("1 retry" if policy.most_retries == 1 else f"{policy.most_retries} retries", AGAIN))
    return found


def _hint(node: str, policy: Policy) -> str:
    """The whole policy, for the pointer."""
    lines = [node]
    lines += [f"may call {tool.name} ({tool.tool_class})" for tool in policy.tools] or ["may call no tool"]
    if policy.timeout is not None:
        lines.append(f"timeout {policy.timeout:g} s")
    if policy.fallback is not None:
        lines.append("has a prepared answer, should the model be away")
    return "\n".join([*lines, *(words for words, _ in _badges(policy))])


class _Drawing:
    """A graph laid out, ready to be drawn anywhere; drawings of its subgraphs stand inside their nodes."""

    def __init__(
        self,
        graph: Any,
        *,
        badges: dict[str, list[tuple[str, str]]] | None = None,
        hints: dict[str, str] | None = None,
        inner: dict[str, _Drawing] | None = None,
        asking: Collection[str] = (),
    ) -> None:
        self._hints, self._inner, self._asking = hints or {}, inner or {}, asking
        self._edges = list(graph.edges)
        self._badges = {node: [*(badges or {}).get(node, ()), *self._loops(node)] for node in graph.nodes}
        self._sizes = {node: self._size(node) for node in sorted(graph.nodes, key=lambda name: name == END)}
        self._layout: Layout = lay_out(self._sizes, [_laid(edge) for edge in self._edges])

    @property
    def size(self) -> tuple[float, float]:
        """Width and height in pixels."""
        return self._layout.width, self._layout.height

    def _loops(self, node: str) -> list[tuple[str, str]]:
        """Edges from the node to itself, as badges."""
        found = [edge for edge in self._edges if edge.source == edge.target == node]
        return [(f"↻ {_label(edge)}".rstrip(), LOOP) for edge in found]

    def _size(self, node: str) -> tuple[float, float]:
        if node in (START, END):
            return DOT, DOT
        badges = self._badges[node]
        row = sum(width_of(words, SMALL) + 14 for words, _ in badges) + 5 * max(len(badges) - 1, 0)
        width, height = max(width_of(node, NAME, bold=True), row) + 28, 36.0 + (24 if badges else 0)
        if node in self._inner:
            inner_width, inner_height = self._inner[node].size
            width, height = max(width, inner_width + 32), height + inner_height + 16
        return width, height

    def draw(self, sheet: Sheet, corner: Point) -> None:
        """Draw it with its upper left corner there."""
        left, top = corner
        for edge, route in zip(self._edges, self._layout.routes, strict=True):
            if route.points:
                _draw_edge(sheet, edge, route, corner)
        for node, (x, y) in self._layout.centres.items():
            self._draw_node(sheet, node, (left + x, top + y))

    def _draw_node(self, sheet: Sheet, node: str, centre: Point) -> None:
        x, y = centre
        width, height = self._sizes[node]
        if node in (START, END):
            hint = "here it begins" if node == START else "here it ends"
            sheet.dot(centre, DOT / 2 - 1, GREY if node == START else "none", line=GREY, hint=hint)
            if node == END:
                sheet.dot(centre, DOT / 2 - 4, GREY)
            return
        left, top = x - width / 2, y - height / 2
        grouped = node in self._inner
        fill, line = (GROUP, GROUP_LINE) if grouped else (NODE, NODE_LINE)
        asked = node in self._asking
        sheet.box(
            (left, top),
            (width, height),
            fill,
            line=ASKING if asked else line,
            thick=2.6 if asked else 1.2,
            hint=self._hints.get(node, node),
        )
        sheet.text((x, top + 18), node, NAME, GREY if grouped else INK, bold=True)
        self._draw_badges(sheet, node, (x, top + 41))
        if grouped:
            inner_width, inner_height = self._inner[node].size
            self._inner[node].draw(sheet, (x - inner_width / 2, top + height - inner_height - 16))

    def _draw_badges(self, sheet: Sheet, node: str, centre: Point) -> None:
        badges = [(words, fill, width_of(words, SMALL) + 14) for words, fill in self._badges[node]]
        x = centre[0] - (sum(width for *_, width in badges) + 5 * (len(badges) - 1)) / 2
        for words, fill, width in badges:
            sheet.box((x, centre[1] - 9), (width, 18), fill, round_by=9)
            sheet.text((x + width / 2, centre[1]), words, SMALL, INK)
            x += width + 5


def _laid(edge: Any) -> Edge:
    words = _label(edge)
    room = (width_of(words, SMALL) + 10, 15.0) if words else None
    return Edge(edge.source, edge.target, room)


def _label(edge: Any) -> str:
    """What the author's router calls this way, where it is more than the name of the next node."""
    return "" if edge.data is None or str(edge.data) == edge.target else str(edge.data)


def _draw_edge(sheet: Sheet, edge: Any, route: Route, corner: Point) -> None:
    left, top = corner
    points = [(left + x, top + y) for x, y in route.points]
    (_, before), (x, y) = points[-2:]
    tip, base = (x, y), y - 8 if y > before else y + 8
    points[-1] = (x, base)
    label = None if route.label is None else (left + route.label[0], top + route.label[1])
    curve = f"M {points[0][0]:.1f} {points[0][1]:.1f}"
    for (from_x, from_y), (to_x, to_y) in pairwise(points):
        if label is not None and (from_y - label[1]) * (to_y - label[1]) < 0:
            # The line makes room for its own words.
            curve += f" M {to_x:.1f} {to_y:.1f}"
            continue
        half = (from_y + to_y) / 2
        curve += f" C {from_x:.1f} {half:.1f} {to_x:.1f} {half:.1f} {to_x:.1f} {to_y:.1f}"
    sheet.path(curve, GREY, dashes="4 4" if edge.conditional else None)
    sheet.shape([tip, (x - 4.5, base), (x + 4.5, base)], GREY)
    if label is not None:
        sheet.text(label, _label(edge), SMALL, GREY)
