"""The pictures: a graph with its guards, and how a run went. They hold for every graph, on white and on black."""

from __future__ import annotations

import itertools
from datetime import timedelta
from pathlib import Path
from typing import Any, TypedDict
from xml.etree import ElementTree

import pytest
from hypothesis import given
from hypothesis import strategies as st
from langgraph.graph import END, START, StateGraph

from eventwright.app import pictures
from eventwright.app.drawing import shapes, timeline
from eventwright.app.drawing.layering import Edge, lay_out
from eventwright.app.pictures import Picture, graph_picture
from eventwright.app.simulate import Simulation, simulate
from eventwright.graphs.workflow import On, Workflow
from eventwright.guardrails.policy import Policy, review
from eventwright.guardrails.rules import always
from eventwright.tools.contract import NotDone, tool

SVG = "{http://www.w3.org/2000/svg}"


class State(TypedDict, total=False):
    said: str


@tool(name="bell.ring", writes="keyed")
async def ring(times: int) -> int:
    """Ring the bell."""
    if times > 99:
        raise NotDone("the rope <broke>")
    return times


@tool(name="letter.post", writes="plain")
async def post(text: str) -> str:
    """Post a letter."""
    raise RuntimeError(f"nobody knows about {text}")


async def nothing(state: State) -> State:
    return {}


def graph_of(nodes: dict[str, Any], *edges: tuple[str, str]) -> StateGraph[Any, Any, Any, Any]:
    graph = StateGraph(State)
    for name, node in nodes.items():
        graph.add_node(name, node)
    for source, target in edges:
        graph.add_edge(source, target)
    return graph


def workflow_of(graph: StateGraph[Any, Any, Any, Any], **policies: Policy) -> Workflow:
    return Workflow("bells", version="1", graph=graph, triggers=[On("bell.wanted", trusted=True)], policies=policies)


def calling(function: Any, **arguments: Any) -> Workflow:
    """One node that makes one call."""

    async def work(state: State) -> State:
        return {"said": str(await function(**arguments))}

    return workflow_of(graph_of({"work": work}, (START, "work"), ("work", END)))


def parsed(picture: Picture) -> ElementTree.Element:
    return ElementTree.fromstring(picture.svg)  # noqa: S314 - our own picture


def words(picture: Picture) -> list[str]:
    return [element.text or "" for element in parsed(picture).iter(f"{SVG}text")]


def dashed(picture: Picture, shape: str) -> int:
    return sum("stroke-dasharray" in element.attrib for element in parsed(picture).iter(f"{SVG}{shape}"))


# -- the graph -------------------------------------------------------------------------------------------------------


def test_a_name_that_looks_like_markup_stays_a_name() -> None:
    name = "<script>alert('&')</script>\x07"
    graph = graph_of({name: nothing}, (START, name), (name, END))
    picture = graph_picture(workflow_of(graph))
    assert words(picture) == ["<script>alert('&')</script> "]
    assert list(parsed(picture).iter(f"{SVG}script")) == []


def test_a_picture_leaves_the_graph_as_it_was() -> None:
    graph = graph_of({"a": nothing}, (START, "a"), ("a", END))
    before = dict(graph.nodes), set(graph.edges), graph.compiled
    graph_picture(workflow_of(graph))
    assert (dict(graph.nodes), set(graph.edges), graph.compiled) == before


def test_cycles_loops_and_dead_ends_are_drawn() -> None:
    graph = graph_of({"a": nothing, "b": nothing, "alone": nothing}, (START, "a"), ("a", "b"), ("b", "a"))
    graph.add_conditional_edges("b", lambda state: "b", {"again": "b", "enough": END})
    graph.add_conditional_edges(START, lambda state: "alone", ["alone"])
    picture = graph_picture(workflow_of(graph))
    assert sorted(words(picture)) == ["a", "alone", "b", "enough", "↻ again"]


def test_edges_that_depend_on_the_state_are_dashed_and_bear_the_authors_words() -> None:
    graph = graph_of({"a": nothing, "b": nothing}, (START, "a"), ("b", END))
    graph.add_conditional_edges("a", lambda state: "b", {"big": "b", "small": END})
    picture = graph_picture(workflow_of(graph))
    assert dashed(picture, "path") == 2
    assert {"big", "small"} <= set(words(picture))


def test_a_subgraph_is_drawn_inside_its_node() -> None:
    inner = graph_of({"read": nothing, "sum_up": nothing}, (START, "read"), ("read", "sum_up"), ("sum_up", END))
    graph = graph_of({"research": inner.compile(), "tell": nothing}, (START, "research"), ("research", "tell"))
    picture = graph_picture(workflow_of(graph))
    group, *inside = [box for box in boxes(picture) if box[3] > 60] + [box for box in boxes(picture) if box[3] <= 60]
    assert {"research", "read", "sum_up", "tell"} == set(words(picture))
    assert sum(contains(group, box) for box in inside) == 2


def test_each_guard_of_a_policy_has_its_badge() -> None:
    graph = graph_of({"a": nothing, "b": nothing}, (START, "a"), ("a", "b"))
    guards = Policy(tools=[ring], approve_when=always, min_confidence=0.8, retries=3)
    picture = graph_picture(workflow_of(graph, a=guards, b=Policy(retries=1)))
    assert words(picture) == ["a", "asks a person", "sure ≥ 0.8", "3 retries", "b", "1 retry"]
    assert "may call bell.ring (keyed)" in picture.svg


def test_the_node_at_which_a_person_is_asked_is_marked() -> None:
    workflow = workflow_of(graph_of({"a": nothing, "b": nothing}, (START, "a"), ("a", "b")))
    assert pictures.ASKING not in graph_picture(workflow).svg
    assert graph_picture(workflow, asking=["b"]).svg.count(pictures.ASKING) == 1


Box = tuple[float, float, float, float]


def boxes(picture: Picture) -> list[Box]:
    sides = ("x", "y", "width", "height")
    found = [tuple(float(box.attrib[side]) for side in sides) for box in parsed(picture).iter(f"{SVG}rect")]
    return [(x, y, width, height) for x, y, width, height in found]


def contains(outer: Box, box: Box) -> bool:
    (x, y, width, height), (a, b, c, d) = outer, box
    return x <= a and y <= b and a + c <= x + width and b + d <= y + height


nodes = st.integers(0, 11).map(lambda number: f"node {number}")


@given(st.lists(st.tuples(nodes, nodes, st.booleans()), max_size=30, unique_by=lambda edge: edge[:2]))
def test_no_graph_has_nodes_that_overlap_or_edges_that_miss_them(edges: list[tuple[str, str, bool]]) -> None:
    names = sorted({name for source, target, _ in edges for name in (source, target)} | {"node 0"})
    sizes = {name: (40.0 + 10 * index, 30.0) for index, name in enumerate(names)}
    drawn = [Edge(source, target, (50.0, 12.0) if labelled else None) for source, target, labelled in edges]
    layout = lay_out(sizes, drawn)
    for (one, (x, y)), (other, (a, b)) in itertools.combinations(layout.centres.items(), 2):
        apart = abs(x - a) >= (sizes[one][0] + sizes[other][0]) / 2 or abs(y - b) >= 30
        assert apart, f"{one} and {other} overlap"
    for edge, route in zip(drawn, layout.routes, strict=True):
        if edge.source == edge.target:
            assert route.points == []
            continue
        for node, (x, y) in ((edge.source, route.points[0]), (edge.target, route.points[-1])):
            a, b = layout.centres[node]
            assert abs(x - a) <= sizes[node][0] / 2
            assert abs(y - b) == pytest.approx(15)
        assert (route.label is not None) == (edge.label is not None)
    for name, (x, y) in layout.centres.items():
        assert sizes[name][0] / 2 - 0.01 <= x <= layout.width - sizes[name][0] / 2 + 0.01
        assert 15 <= y <= layout.height - 15


# -- the timeline ----------------------------------------------------------------------------------------------------


async def test_a_refused_call_is_seen_with_the_rule_that_refused_it() -> None:
    async with simulate(calling(ring, times=1), {}) as run:
        told = words(await run.timeline())
    assert "✕ bell.ring denied: tools" in told
    assert "failed · not retryable" in told


async def test_each_attempt_is_seen_and_the_last_error_too() -> None:
    workflow = calling(ring, times=100).with_policy("work", tools=[ring], retries=1)
    async with simulate(workflow, {}) as run:
        picture = await run.timeline()
    told = words(picture)
    assert told.count("✕ bell.ring") == 1
    assert "✕ bell.ring · attempt 2" in told
    assert [state for state in told if state in ("retrying", "failed · attempts")] == ["retrying", "failed · attempts"]
    assert "the rope &lt;broke&gt;" in picture.svg


async def test_a_call_that_may_have_happened_is_seen_as_a_question() -> None:
    workflow = calling(post, text="a letter").with_policy("work", tools=[post])
    async with simulate(workflow, {}) as run:
        told = words(await run.timeline())
        assert "? letter.post" in told
        assert "in doubt · who answers?" in told
        await run.respond({"happened": True}, by="ann")
        assert "in doubt · ann: respond" in words(await run.timeline())


async def test_an_open_question_is_dashed_until_somebody_answers() -> None:
    async with simulate(asking_workflow(), {}) as run:
        picture = await run.timeline()
        assert "approval · who answers?" in words(picture)
        assert dashed(picture, "rect") == 1
        await run.reject(by="ben", comment="too loud")
        picture = await run.timeline()
    assert "approval · ben: reject" in words(picture)
    assert "too loud" in picture.svg
    assert dashed(picture, "rect") == 0


async def test_a_deadline_is_seen_as_what_decided_and_the_wait_in_words() -> None:
    async with simulate(asking_workflow(), {}) as run:
        await run.pass_time(timedelta(days=6))
        told = words(await run.timeline())
    assert "approval · deadline: reject" in told
    assert "days" in told


def asking_workflow() -> Workflow:
    approval = review("Ring?", deadline=timedelta(days=5))
    workflow = calling(ring, times=3)
    return workflow.with_policy("work", tools=[ring], approve_when=always, approval=approval)


async def test_a_run_that_was_cut_off_or_cancelled_is_drawn_as_far_as_it_came() -> None:
    async with simulate(asking_workflow(), {}) as run:
        history, journal = await run.engine.store.history(run.run_id), await run.journal()
        for length in range(1, len(journal) + 1):
            part = journal[:length]
            parsed(pictures.timeline_picture(await run.run(), part, list(history.effects.values()), history.reviews))
        await run.engine.cancel(run.run_id, by="carla")
        told = words(await run.timeline())
    assert "approval · run cancelled" in told
    assert "cancelled" in told


async def test_nothing_in_a_timeline_overlaps_and_nothing_sticks_out() -> None:
    async with simulate(calling(ring, times=100).with_policy("work", tools=[ring], retries=4), {}) as run:
        picture = await run.timeline()
    width, height = (float(parsed(picture).attrib[side]) for side in ("width", "height"))
    drawn = boxes(picture)
    assert all(contains((0, 0, width, height), box) for box in drawn)
    for (x, y, w, h), (a, b, c, d) in itertools.combinations(drawn, 2):
        assert x + w <= a + 0.1 or a + c <= x + 0.1 or y + h <= b + 0.1 or b + d <= y + 0.1


async def test_the_simulations_picture_marks_where_a_person_is_asked() -> None:
    async with simulate(asking_workflow(), {}) as run:
        assert pictures.ASKING in (await run.picture()).svg
        await run.approve()
        assert pictures.ASKING not in (await run.picture()).svg


# -- the paper -------------------------------------------------------------------------------------------------------


async def both_pictures(run: Simulation) -> list[Picture]:
    return [await run.picture(), await run.timeline()]


async def test_two_pictures_on_one_page_do_not_disturb_each_other(tmp_path: Path) -> None:
    async with simulate(asking_workflow(), {}) as run:
        for picture in await both_pictures(run):
            root = parsed(picture)
            assert [element for element in root.iter() if "id" in element.attrib or element.tag.endswith("style")] == []
            assert picture._repr_svg_() == picture.save(tmp_path / "picture.svg").read_text(encoding="utf-8")


@pytest.mark.parametrize("page", ["#ffffff", "#0d1117"])
def test_what_stands_on_the_page_is_readable_whether_it_is_white_or_black(page: str) -> None:
    assert contrast(shapes.GREY, page) >= 3.5


def test_what_stands_in_a_box_is_readable() -> None:
    fills = [*timeline.STATE_FILL.values(), *timeline.LINES, pictures.NODE, pictures.PERSON, pictures.DOUBT]
    assert min(contrast(shapes.INK, fill) for fill in [*fills, pictures.AGAIN, pictures.LOOP]) >= 7


def test_every_state_has_a_colour_of_its_own() -> None:
    fills = timeline.STATE_FILL
    assert set(fills) == set(timeline.RunState)
    assert len(set(fills.values())) == len(fills)


def contrast(one: str, other: str) -> float:
    """The contrast ratio of two colours, 1 to 21, as WCAG 2 defines it."""

    def luminance(colour: str) -> float:
        channels = [int(colour[place : place + 2], 16) / 255 for place in (1, 3, 5)]
        linear = [c / 12.92 if c <= 0.04045 else ((c + 0.055) / 1.055) ** 2.4 for c in channels]
        return sum(weight * value for weight, value in zip((0.2126, 0.7152, 0.0722), linear, strict=True))

    lighter, darker = sorted((luminance(one), luminance(other)), reverse=True)
    return (lighter + 0.05) / (darker + 0.05)
