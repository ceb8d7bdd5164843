"""The fingerprint of a graph: the same wherever it is made, another one as soon as a paused run could trip over it."""

from __future__ import annotations

import json
import operator
import subprocess
import sys
from dataclasses import dataclass
from decimal import Decimal
from enum import Enum
from typing import Annotated, Any, Literal, NotRequired, TypedDict

import pytest
from langchain_core.messages import AnyMessage
from langgraph import types as langgraph_types
from langgraph.graph import END, START, StateGraph, add_messages
from langgraph.types import Command, interrupt
from pydantic import BaseModel
from tests.outside import State, chain, job, post

from eventwright.graphs.comparing import ChangeKind, changes
from eventwright.graphs.fingerprint import fingerprint_of, questions, structure_of
from eventwright.guardrails.policy import Policy

Graph = StateGraph[Any, Any, Any, Any]


async def step(state: Any) -> dict[str, Any]:
    return {}


async def other(state: Any) -> dict[str, Any]:
    return {"log": ["other"]}


async def asks(state: Any) -> dict[str, Any]:
    return {"log": [interrupt("sure?")]}


async def asks_twice(state: Any) -> dict[str, Any]:
    return {"log": [interrupt("sure?"), interrupt("really?")]}


def route(state: Any) -> str:
    return "b"


def elsewhere(state: Any) -> str:
    return "b"


def joined(sequence: list[Any], more: list[Any]) -> list[Any]:
    return more


class Line(BaseModel):
    what: str


class Order(BaseModel):
    number: int
    lines: list[Line] = []


def kinds(before: Graph, after: Graph) -> list[ChangeKind]:
    return [change.kind for change in changes(structure_of(before), structure_of(after))]


def one(**fields: Any) -> Graph:
    """A graph of one node, whose state has these fields."""
    graph: Graph = StateGraph(TypedDict("TheState", fields))  # type: ignore[operator]
    graph.add_node("a", step)
    graph.add_edge(START, "a")
    return graph


def routed(router: Any, ends: Any) -> Graph:
    graph: Graph = StateGraph(State)
    for name in ("a", "b", "c"):
        graph.add_node(name, step)
    graph.add_edge(START, "a")
    graph.add_conditional_edges("a", router, ends)
    return graph


PRINTS = """
import sys
sys.path.insert(0, sys.argv[1])
from eventwright.graphs.support import support
print(support.fingerprint)
"""


@pytest.mark.soak
def test_other_processes_and_other_hash_seeds_make_the_same_fingerprint() -> None:
    printed = {
        subprocess.run(
            [sys.executable, "-c", PRINTS, "."],
            env={"PYTHONHASHSEED": seed},
            capture_output=True,
            text=True,
            check=True,
        ).stdout
        for seed in ("1", "2")
    }
    assert len(printed) == 1
    from eventwright.graphs.support import support

    assert printed == {f"{support.fingerprint}\n"}


def test_the_structure_comes_back_from_json_as_it_was() -> None:
    from eventwright.graphs.support import support

    again = json.loads(json.dumps(support.structure))
    assert again == support.structure
    assert fingerprint_of(again) == support.fingerprint


def test_compiling_the_graph_elsewhere_changes_nothing() -> None:
    graph = chain(a=step, b=asks)
    before = structure_of(graph)
    graph.compile()
    assert structure_of(graph) == before


class TestTheSame:
    """What a paused run does not notice."""

    def test_another_policy(self) -> None:
        with_tools = job(chain(a=step), {"a": Policy(tools=[post], retries=3)})
        assert with_tools.fingerprint == job(chain(a=step), version="2").fingerprint

    def test_other_code_in_a_node(self) -> None:
        assert structure_of(chain(a=step)) == structure_of(chain(a=other))

    def test_the_order_in_which_things_are_declared(self) -> None:
        def graph(*names: str) -> Graph:
            made: Graph = StateGraph(State)
            for name in names:
                made.add_node(name, step)
            for name in reversed(names):
                made.add_edge(START, name)
            return made

        assert structure_of(graph("a", "b")) == structure_of(graph("b", "a"))
        assert structure_of(one(x=int, y=str)) == structure_of(one(y=str, x=int))
        assert structure_of(one(x=int | None)) == structure_of(one(x=None | int))
        assert structure_of(one(x=Literal["a", "b"])) == structure_of(one(x=Literal["b", "a"]))

    def test_whether_a_typed_dict_must_have_a_field(self) -> None:
        assert structure_of(one(x=int)) == structure_of(one(x=NotRequired[int]))


@pytest.mark.parametrize(
    ("before", "after", "kind"),
    [
        (chain(a=step), chain(a=step, b=step), [ChangeKind.NODE_NEW, ChangeKind.WAYS]),
        (chain(a=asks), chain(a=asks_twice), [ChangeKind.QUESTIONS]),
        (one(x=int), one(x=int, y=str), [ChangeKind.FIELD_NEW]),
        (one(x=int, y=str), one(x=int), [ChangeKind.FIELD_GONE]),
        (one(x=int), one(x=Decimal), [ChangeKind.FIELD_TYPE]),
        (one(x=list[str]), one(x=Annotated[list[str], operator.add]), [ChangeKind.FIELD_TYPE]),
        (
            one(x=Annotated[list[str], operator.add]),
            one(x=Annotated[list[str], joined]),
            [ChangeKind.FIELD_TYPE],
        ),
        (routed(route, ["b"]), routed(elsewhere, ["b"]), [ChangeKind.ROUTER, ChangeKind.ROUTER]),
        (routed(route, ["b", "c"]), routed(route, ["b"]), [ChangeKind.ROUTER]),
        (routed(route, {"x": "b"}), routed(route, {"x": "c"}), [ChangeKind.ROUTER]),
        (routed(route, ["b"]), routed(route, ["b", "c"]), [ChangeKind.TARGET_NEW]),
        (routed(route, ["b"]), routed(route, None), [ChangeKind.TARGET_NEW]),
    ],
    ids=[
        "a node more",
        "a question more",
        "a field more",
        "a field less",
        "a field of another type",
        "a field with a reducer",
        "another reducer",
        "a router of another name",
        "a router with a target less",
        "a router that means something else by its answers",
        "a router with a target more",
        "a router that may lead anywhere",
    ],
)
def test_a_changed_graph_has_another_fingerprint_and_says_what_changed(
    before: Graph, after: Graph, kind: list[ChangeKind]
) -> None:
    assert fingerprint_of(structure_of(before)) != fingerprint_of(structure_of(after))
    assert kinds(before, after) == kind


def test_nodes_that_wait_for_one_another_are_part_of_it() -> None:
    def fork(*, waits: bool, defer: bool = False) -> Graph:
        graph: Graph = StateGraph(State)
        for name in ("a", "b"):
            graph.add_node(name, step)
            graph.add_edge(START, name)
        graph.add_node("c", step, defer=defer)
        if waits:
            graph.add_edge(["a", "b"], "c")
        else:
            graph.add_edge("a", "c")
            graph.add_edge("b", "c")
        return graph

    found = kinds(fork(waits=False), fork(waits=True))
    assert found == [ChangeKind.WAYS, ChangeKind.WAYS, ChangeKind.WAYS, ChangeKind.WAYS, ChangeKind.WAITS]
    assert kinds(fork(waits=False), fork(waits=False, defer=True)) == [ChangeKind.WAITS]


def test_the_graph_inside_a_node_is_part_of_it() -> None:
    inner, longer = chain(x=step).compile(), chain(x=step, y=step).compile()
    assert kinds(chain(a=inner), chain(a=longer)) == [ChangeKind.INSIDE]
    paused = chain(x=step).compile(interrupt_before=["x"])
    assert kinds(chain(a=inner), chain(a=paused)) == [ChangeKind.INSIDE]


def test_where_commands_lead_is_part_of_it() -> None:
    async def goes(state: Any) -> Command[Literal["b"]]:
        return Command(goto="b")

    async def may_end(state: Any) -> Command[Literal["b", "__end__"]]:
        return Command(goto=END)

    assert kinds(chain(a=goes, b=step), chain(a=may_end, b=step)) == [ChangeKind.TARGET_NEW]


class TestTypesOfTheAuthor:
    def test_a_field_less_in_a_model_that_a_state_holds_is_a_change(self) -> None:
        class Order(BaseModel):
            lines: list[Line] = []

        Order.__module__, Order.__qualname__ = globals()["Order"].__module__, "Order"
        (change,) = changes(structure_of(one(x=globals()["Order"])), structure_of(one(x=Order)))
        assert change.kind is ChangeKind.FIELD_TYPE
        assert "'number' is gone" in change.words

    def test_a_field_more_is_one_only_if_nothing_can_be_made_without_it(self) -> None:
        def with_more(**more: Any) -> Graph:
            order = type("Order", (Order,), more | {"__module__": Order.__module__, "__qualname__": "Order"})
            return one(x=list[order])  # type: ignore[valid-type]

        known = one(x=list[Order])
        assert kinds(known, with_more(__annotations__={"note": str}, note="")) == []
        assert kinds(known, with_more(__annotations__={"note": str})) == [ChangeKind.FIELD_TYPE]

    def test_what_is_inside_what_a_state_holds_counts_too(self) -> None:
        described = structure_of(one(x=dict[str, Order]))
        assert described["fields"]["x"]["records"] == [f"{__name__}.Line", f"{__name__}.Order"]
        assert described["records"][f"{__name__}.Line"] == {"fields": {"what": "str"}, "needed": ["what"]}

    def test_a_type_may_hold_itself(self) -> None:
        described = structure_of(one(x=Tree))
        assert described["records"][f"{__name__}.Tree"]["fields"] == {"children": f"list[{__name__}.Tree]"}

    def test_enums_and_dataclasses_are_looked_into(self) -> None:
        described = structure_of(one(x=Colour, y=Point))
        assert described["records"][f"{__name__}.Colour"]["fields"] == {"RED": "= 'red'"}
        assert described["records"][f"{__name__}.Point"] == {"fields": {"x": "int", "y": "int"}, "needed": ["x"]}

    def test_messages_count_by_where_they_come_from_and_not_by_what_they_are_made_of(self) -> None:
        described = structure_of(one(x=Annotated[list[AnyMessage], add_messages]))
        assert described["fields"]["x"] == {"type": "list[langchain_core.*]", "reducer": "langgraph._add_messages"}
        assert described["records"] == {}

    def test_a_pydantic_state_says_which_fields_it_cannot_do_without(self) -> None:
        class Demanding(BaseModel):
            x: int
            y: int = 0

        graph: Graph = StateGraph(Demanding)
        graph.add_node("a", step)
        graph.add_edge(START, "a")
        assert structure_of(graph)["fields"] == {"x": {"type": "int", "needed": True}, "y": {"type": "int"}}
        assert kinds(one(x=int, y=int), graph) == [ChangeKind.FIELD_NEEDED]


class Tree(BaseModel):
    children: list[Tree] = []


class Colour(Enum):
    RED = "red"


@dataclass
class Point:
    x: int
    y: int = 0


class TestQuestions:
    def test_are_counted_where_the_code_asks_them(self) -> None:
        async def finally_asks(state: Any) -> dict[str, Any]:
            try:
                return {}
            finally:
                interrupt("anyway?")

        async def by_module(state: Any) -> dict[str, Any]:
            return {"log": [langgraph_types.interrupt("so?")]}

        async def in_a_loop(state: Any) -> dict[str, Any]:
            return {"log": [interrupt(str(number)) for number in range(5)]}

        graph = chain(none=step, one=asks, two=asks_twice, anyway=finally_asks, module=by_module, loop=in_a_loop)
        counted = {name: questions(spec.runnable) for name, spec in graph.nodes.items()}
        assert counted == {"none": 0, "one": 1, "two": 2, "anyway": 1, "module": 1, "loop": 1}

    def test_of_a_helper_count_for_the_node_that_calls_it(self) -> None:
        async def calls(state: Any) -> dict[str, Any]:
            return {"log": [helper()]}

        assert questions(chain(a=calls).nodes["a"].runnable) == 1


def helper() -> Any:
    return interrupt("from a helper?")
