"""Every call has a place of its own: in loops, in graphs inside graphs, in tasks sent side by side."""

from __future__ import annotations

import operator
from decimal import Decimal
from typing import Annotated, Any, TypedDict

import pytest
from langgraph.graph import END, START, StateGraph
from langgraph.types import Send, interrupt
from tests.outside import (
    State,
    World,
    chain,
    ended,
    job,
    pay,
    post,
    says,
    the_review,
)

from eventwright.guardrails.policy import Policy
from eventwright.guardrails.rules import always
from eventwright.runs.records import ReviewState
from eventwright.runs.states import Outcome, RunState


async def posts(state: Any) -> dict[str, Any]:
    return {"log": [await post(f"letter {state.get('n', 0)}")]}


def loop(inner: Any, times: int = 2) -> StateGraph[Any, Any, Any, Any]:
    async def counts(state: Any) -> dict[str, Any]:
        return {"n": state.get("n", 0) + 1}

    graph = chain(node=inner, counts=counts)
    graph.add_conditional_edges("counts", lambda state: "node" if state["n"] < times else END)
    return graph


def twice(inner: Any) -> StateGraph[Any, Any, Any, Any]:
    """A graph that visits its node twice, counting in a state of its own."""

    class Own(TypedDict, total=False):
        log: Annotated[list[Any], operator.add]
        visits: int

    async def counts(state: Any) -> dict[str, Any]:
        return {"visits": state.get("visits", 0) + 1}

    graph: StateGraph[Any, Any, Any, Any] = StateGraph(Own, input_schema=State, output_schema=State)
    graph.add_node("node", inner)
    graph.add_node("counts", counts)
    graph.add_edge(START, "node")
    graph.add_edge("node", "counts")
    graph.add_conditional_edges("counts", lambda state: "node" if state["visits"] < 2 else END)
    return graph


class TestPlaces:
    async def test_a_node_visited_twice_has_two_effects(self, world: World) -> None:
        async def same(state: Any) -> dict[str, Any]:
            return {"log": [await post("same")]}

        run = await world.start(job(loop(same), {"node": Policy(tools=[post])}))
        assert world.provider.done == [("post", "same")] * 2
        assert (await run.run()).state is RunState.COMPLETED

    @pytest.mark.parametrize("depth", [1, 2, 3])
    async def test_a_graph_inside_a_node_that_is_visited_twice_has_two_effects(self, world: World, depth: int) -> None:
        """Inside, both visits look the same to LangGraph: same names, same superstep, same path."""

        async def same(state: Any) -> dict[str, Any]:
            return {"log": [await post("same")]}

        inner: Any = same
        for _ in range(depth):
            inner = twice(inner).compile()
        run = await world.start(job(twice(inner), {"node": Policy(tools=[post])}))
        assert (await run.run()).state is RunState.COMPLETED
        assert world.provider.done == [("post", "same")] * 2 ** (depth + 1)

    async def test_a_graph_that_a_node_runs_by_itself_has_effects_of_its_own_each_time(self, world: World) -> None:
        inner = chain(inner=posts).compile()

        async def node(state: Any) -> dict[str, Any]:
            await inner.ainvoke({"log": [], "n": 1})
            await inner.ainvoke({"log": [], "n": 1})
            return {"log": [interrupt("go on?")]}

        run = await world.start(job(loop(node), {"node": Policy(tools=[post])}))
        await run.approve()
        await run.approve()
        assert (await run.run()).state is RunState.COMPLETED
        assert world.provider.done == [("post", "letter 1")] * 4

    async def test_a_call_that_cannot_be_told_from_another_is_not_made(self, world: World) -> None:
        inner = chain(middle=chain(inner=posts).compile()).compile()

        async def node(state: Any) -> dict[str, Any]:
            return {"log": (await inner.ainvoke({"log": []}))["log"]}

        run = await world.start(job(chain(node=node), {"node": Policy(tools=[post])}))
        assert (await run.run()).state is RunState.FAILED
        assert "give the compiled graph to add_node() itself" in str((await run.run()).error)
        assert world.provider.calls == []

    async def test_finished_nodes_inside_a_graph_are_not_run_again_when_one_after_them_pauses(
        self, world: World
    ) -> None:
        entered = []

        async def before(state: Any) -> dict[str, Any]:
            entered.append("before")
            return {"log": [await post("before")]}

        async def asks(state: Any) -> dict[str, Any]:
            return {"log": [await post("asked"), interrupt("go on?"), await pay(Decimal(1))]}

        inner = chain(before=before, asks=asks).compile()
        policies = {"sub": Policy(tools=[post, pay], approve_when={pay: always})}
        run = await world.start(job(chain(sub=inner), policies))
        world.deploy(*world.engine.workflows)
        run = world.take(run.run_id)
        assert (await run.respond("yes")).state is RunState.PENDING_APPROVAL
        assert (await the_review(run)).interrupt_id is None
        assert (await run.approve()).state is RunState.COMPLETED
        assert entered == ["before"]
        assert world.provider.done == [("post", "before"), ("post", "asked"), ("pay", "1 ann")]

    async def test_sent_tasks_have_effects_and_questions_of_their_own(self, world: World) -> None:
        async def fan(state: Any) -> dict[str, Any]:
            return {}

        async def leaf(state: Any) -> dict[str, Any]:
            return {"log": [await post("same"), interrupt(f"leaf {state['n']}?")]}

        graph = chain(fan=fan)
        graph.add_node("leaf", leaf)
        graph.add_conditional_edges("fan", lambda state: [Send("leaf", {"n": n}) for n in range(3)], ["leaf"])
        run = await world.start(job(graph, {"leaf": Policy(tools=[post])}))
        assert world.provider.done == [("post", "same")] * 3
        reviews = {review.question: review for review in await run.reviews()}
        assert len(reviews) == 3
        for question in ("leaf 2?", "leaf 0?", "leaf 1?"):
            await run.answer(says("respond", response=question.upper()), reviews[question].id)
        assert (await run.run()).state is RunState.COMPLETED
        assert (await run.values())["log"] == [part for n in range(3) for part in ("post same", f"LEAF {n}?")]
        assert len(world.provider.calls) == 3

    async def test_sent_graphs_have_effects_of_their_own(self, world: World) -> None:
        class Only(TypedDict):
            log: Annotated[list[Any], operator.add]

        async def fan(state: Any) -> dict[str, Any]:
            return {}

        async def same(state: Any) -> dict[str, Any]:
            return {"log": [await post("same")]}

        def nested(node: Any) -> Any:
            graph: StateGraph[Any, Any, Any, Any] = StateGraph(Only)
            graph.add_node("inner", node)
            graph.add_edge(START, "inner")
            return graph.compile()

        graph = chain(fan=fan)
        graph.add_node("leaf", nested(nested(same)))
        graph.add_conditional_edges("fan", lambda state: [Send("leaf", {"log": []}) for _ in range(3)], ["leaf"])
        run = await world.start(job(graph, {"leaf": Policy(tools=[post])}))
        assert (await run.run()).state is RunState.COMPLETED
        assert world.provider.done == [("post", "same")] * 3

    async def test_of_sent_tasks_that_wait_for_approval_each_goes_on_by_its_own(self, world: World) -> None:
        async def fan(state: Any) -> dict[str, Any]:
            return {}

        graph = chain(fan=fan)
        graph.add_node("leaf", posts)
        graph.add_conditional_edges("fan", lambda state: [Send("leaf", {"n": n}) for n in range(3)], ["leaf"])
        run = await world.start(job(graph, {"leaf": Policy(tools=[post], approve_when=always)}))
        reviews = {review.arguments["text"]: review for review in await run.reviews() if review.arguments}
        for text in ("letter 1", "letter 0"):
            await run.answer(says("approve"), reviews[text].id)
            assert {review.state for review in await run.reviews()} == {ReviewState.OPEN}
        await run.answer(says("approve"), reviews["letter 2"].id)
        assert (await run.run()).state is RunState.COMPLETED
        assert sorted(world.provider.done) == [("post", f"letter {n}") for n in range(3)]

    @pytest.mark.parametrize("first", ["question", "approval", "both"])
    async def test_an_approval_beside_an_authors_question_is_answered_in_any_order(
        self, world: World, first: str
    ) -> None:
        async def asks(state: Any) -> dict[str, Any]:
            return {"log": [interrupt("right?")]}

        graph = chain(left=posts)
        graph.add_node("right", asks)
        graph.add_edge(START, "right")
        run = await world.start(job(graph, {"left": Policy(tools=[post], approve_when=always)}))
        reviews = await run.reviews()
        assert len(reviews) == 2
        approval = next(review for review in reviews if review.interrupt_id is None)
        question = next(review for review in reviews if review.interrupt_id)
        steps = [(question, says("respond", response="R")), (approval, says("approve"))]
        for review, decision in steps[::-1] if first == "approval" else steps:
            if first == "both":
                await world.engine.decide(review.id, decision)
            else:
                assert (await run.run()).state is RunState.PENDING_APPROVAL
                await run.answer(decision, review.id)
        await run.go_on()
        assert (await run.run()).state is RunState.COMPLETED
        assert sorted((await run.values())["log"]) == ["R", "post letter 0"]

    async def test_a_node_may_ask_by_itself_and_need_approval_too(self, world: World) -> None:
        async def node(state: Any) -> dict[str, Any]:
            paid = await pay(Decimal(1))
            return {"log": [paid, interrupt("colour?"), await post("done")]}

        run = await world.start(job(chain(node=node), {"node": Policy(tools=[pay, post], approve_when=always)}))
        await run.approve()
        await run.respond("blue")
        done = await run.approve()
        assert ended(done) == (RunState.COMPLETED, Outcome.APPROVED)
        assert (await run.values())["log"] == ["pay 1 ann", "blue", "post done"]
