"""A mapping of a run's state: what may be said, and what becomes of the labels of untrusted data."""

from __future__ import annotations

from typing import Any, TypedDict

import pytest
from langgraph.graph import START, StateGraph
from tests.outside import job

from eventwright.graphs.mapping import BadMapping, StateMapping


class Fields(TypedDict, total=False):
    a: int
    b: str
    c: dict[str, int]


async def step(state: Any) -> dict[str, Any]:
    return {}


graph: StateGraph[Any, Any, Any, Any] = StateGraph(Fields)
graph.add_node("step", step)
graph.add_edge(START, "step")
workflow = job(graph)


@pytest.mark.parametrize(
    "value",
    [[], "drop", {"remove": ["a"]}, {"drop": "a"}, {"rename": {"a": 1}}, {"rename": ["a"]}, {"set": ["a"]}],
)
def test_json_of_another_form_is_refused_with_the_form(value: Any) -> None:
    with pytest.raises(BadMapping, match="a mapping of the state looks like"):
        StateMapping.read(value)


@pytest.mark.parametrize(
    ("mapping", "words"),
    [
        ({"drop": ["z"]}, "the state has no field 'z'; it has: a, b, old"),
        ({"rename": {"z": "a"}}, "the state has no field 'z'"),
        ({"rename": {"old": "a"}}, "the state has a field 'a' already"),
        ({"rename": {"old": "new"}}, "has no field 'new'; its fields are: a, b, c"),
        ({"set": {"new": 1}}, "has no field 'new'"),
        ({"set": {"a": "many"}}, "field 'a' takes no such value"),
        ({"set": {"c": {"x": "y"}}}, "field 'c' takes no such value"),
    ],
)
def test_what_does_not_fit_the_state_or_the_graph_is_refused(mapping: Any, words: str) -> None:
    with pytest.raises(BadMapping) as refused:
        StateMapping.read(mapping).applied({"a": 1, "b": "x", "old": "2"}, workflow, ["a", "b", "old"])
    assert words in str(refused.value)


def test_two_fields_cannot_get_one_name() -> None:
    with pytest.raises(BadMapping, match="one name"):
        StateMapping.read({"rename": {"a": "c", "b": "c"}})


def test_a_field_that_this_run_does_not_carry_may_be_dropped_all_the_same() -> None:
    assert StateMapping(drop=["old"]).applied({"a": 1}, workflow, ["a", "old"]) == {"a": 1}


def test_fields_that_nobody_speaks_of_stay_as_they_are() -> None:
    assert StateMapping(set={"b": "y"}).applied({"a": "not looked at"}, workflow, ["a"]) == {
        "a": "not looked at",
        "b": "y",
    }


def test_values_become_what_the_field_holds() -> None:
    mapped = StateMapping(rename={"old": "a"}).applied({"old": "2"}, workflow, ["old"])
    assert mapped == {"a": 2}


def test_a_new_name_takes_the_label_along_and_a_function_gives_every_label_to_every_field() -> None:
    labels = {"old": ["the event"], "b": ["mail"]}
    assert StateMapping(rename={"old": "a"}).labels(labels, ["a", "b"]) == {"a": ["the event"], "b": ["mail"]}
    mixed = StateMapping(through=lambda state: state).labels(labels, ["a", "b"])
    assert mixed == {"old": ["the event"], "a": ["the event", "mail"], "b": ["the event", "mail"]}
