"""The runner: an ordinary graph goes from checkpoint to checkpoint, whatever its nodes are and whatever goes wrong."""

from __future__ import annotations

import asyncio
import functools
import operator
from collections.abc import AsyncIterator
from decimal import Decimal
from typing import Annotated, Any, TypedDict

import pytest
from langchain_core.runnables import RunnableLambda
from langgraph.graph import END, START, StateGraph
from langgraph.types import Command, RetryPolicy, Send, interrupt
from pydantic import BaseModel
from tests.outside import (
    State,
    Trouble,
    World,
    a_world,
    chain,
    ended,
    job,
    look,
    pay,
    post,
    says,
    the_effect,
    the_review,
)

from eventwright.graphs.workflow import BadWorkflow, On
from eventwright.guardrails.policy import Backoff, Policy, always
from eventwright.guardrails.verdicts import Rejected
from eventwright.runs.records import ReviewState
from eventwright.runs.states import Outcome, Reason, RunState
from eventwright.tools.contract import NotDone


@pytest.fixture
async def world(sqlite_url: str) -> AsyncIterator[World]:
    async with a_world(sqlite_url) as world:
        yield world


# -- the author's graph ------------------------------------------------------------------------------------------------


class Poster:
    async def __call__(self, state: Any) -> dict[str, Any]:
        return {"log": [await look("object")]}


async def with_greeting(greeting: str, state: Any) -> dict[str, Any]:
    return {"log": [await look(greeting)]}


async def looks(state: Any) -> dict[str, Any]:
    return {"log": [await look("async")]}


def looks_in_a_thread(state: Any) -> dict[str, Any]:
    return {"log": [look.from_thread("sync")]}


async def test_every_form_of_a_node_runs_behind_its_policy(world: World) -> None:
    forms = {
        "coroutine": looks,
        "thread": looks_in_a_thread,
        "partial": functools.partial(with_greeting, "partial"),
        "object": Poster(),
        "runnable": RunnableLambda(looks),
        "graph": chain(inner=looks).compile(),
    }
    workflow = job(chain(**forms), {name: Policy(tools=[look]) for name in forms})
    run = await world.start(workflow)
    assert (await run.values())["log"][:5] == ["look async", "look sync", "look partial", "look object", "look async"]
    assert [effect.node for effect in await run.effects()] == list(forms)

    stranger = await world.start(job(chain(**forms)))
    assert (await stranger.run()).reason is Reason.NOT_RETRYABLE


async def test_the_authors_graph_is_neither_changed_nor_compiled_and_draws_the_same(world: World) -> None:
    inner = chain(inner=looks).compile()
    graph = chain(one=looks, sub=inner)
    before = {name: (id(spec), id(spec.runnable)) for name, spec in graph.nodes.items()}
    inner_before = {name: (id(node), id(node.bound)) for name, node in inner.nodes.items()}
    drawing = chain(one=looks, sub=inner).compile().get_graph(xray=True).draw_mermaid()

    workflow = job(graph, {"one": Policy(tools=[look]), "sub": Policy(tools=[look], approve_when=always)})
    run = await world.start(workflow)

    assert (await run.run()).state is RunState.COMPLETED
    assert before == {name: (id(spec), id(spec.runnable)) for name, spec in graph.nodes.items()}
    assert inner_before == {name: (id(node), id(node.bound)) for name, node in inner.nodes.items()}
    assert not graph.compiled
    assert world.engine.runner.graph(workflow).get_graph(xray=True).draw_mermaid() == drawing


def test_a_compiled_graph_a_stray_policy_and_a_timeout_on_a_synchronous_node_are_refused() -> None:
    graph = chain(thread=looks_in_a_thread)
    with pytest.raises(BadWorkflow, match="the StateGraph itself"):
        job(graph.compile())  # type: ignore[arg-type]
    with pytest.raises(BadWorkflow, match="has a policy for 'nobody'"):
        job(graph, {"nobody": Policy()})
    with pytest.raises(BadWorkflow, match="cannot have a timeout"):
        job(graph, {"thread": Policy(timeout=1)})


# -- failures ----------------------------------------------------------------------------------------------------------


def failing(times: int, error: Exception) -> Any:
    left = [times]

    async def node(state: Any) -> dict[str, Any]:
        if left[0]:
            left[0] -= 1
            raise error
        return {"log": ["at last"]}

    return node


class TestAFailure:
    async def test_is_tried_again_as_often_as_the_policy_says_visibly_and_later_each_time(self, world: World) -> None:
        waits = Backoff(first=10, most=100)
        run = await world.send(
            job(chain(node=failing(2, ValueError("no"))), {"node": Policy(retries=2, backoff=waits)})
        )
        ahead = []
        for attempts in (2, 3):
            assert await world.engine.advance(run.run_id) is RunState.RETRYING
            stored = await run.run()
            assert (stored.attempts, stored.error) == (attempts, "ValueError: no")
            assert stored.due_at is not None
            ahead.append((stored.due_at - world.clock()).total_seconds())
            assert await world.engine.advance(run.run_id) is None, "not before its time"
            world.clock.pass_until(stored.due_at)
        assert 4 < ahead[0] <= 10 < ahead[1] + 1 <= 21
        assert await world.engine.advance(run.run_id) is RunState.COMPLETED

    async def test_without_retries_makes_a_dead_letter_and_a_replay_gives_the_attempts_back(self, world: World) -> None:
        run = await world.start(job(chain(node=failing(2, ValueError("no")))))
        assert ended(await run.run()) == (RunState.FAILED, Reason.ATTEMPTS)
        await world.engine.replay(run.run_id, by="olga")
        assert ended(await run.go_on()) == (RunState.FAILED, Reason.ATTEMPTS)
        await world.engine.replay(run.run_id, by="olga")
        assert ended(await run.go_on()) == (RunState.COMPLETED, Outcome.AUTO)
        assert (await run.run()).attempts == 3

    async def test_of_one_node_does_not_use_up_the_attempts_of_another(self, world: World) -> None:
        nodes = {"one": failing(2, ValueError("no")), "two": failing(2, ValueError("no"))}
        run = await world.start(job(chain(**nodes), {name: Policy(retries=2) for name in nodes}))
        assert (await run.run()).state is RunState.COMPLETED

    async def test_does_not_repeat_the_effects_before_it(self, world: World) -> None:
        left = [2]

        async def node(state: Any) -> dict[str, Any]:
            await post("once")
            if left[0]:
                left[0] -= 1
                raise ValueError
            return {"log": [await post("twice")]}

        run = await world.start(job(chain(node=node), {"node": Policy(tools=[post], retries=2)}))
        assert (await run.run()).state is RunState.COMPLETED
        assert world.provider.done == [("post", "once"), ("post", "twice")]

    async def test_inside_the_authors_own_retry_policy_is_one_attempt_of_the_run(self, world: World) -> None:
        left = [2]

        async def node(state: Any) -> dict[str, Any]:
            await post("once")
            if left[0]:
                left[0] -= 1
                raise ValueError
            return {"log": []}

        graph: StateGraph[Any, Any, Any, Any] = StateGraph(State)
        retry = RetryPolicy(max_attempts=3, initial_interval=0.01, jitter=False, retry_on=ValueError)
        graph.add_node("node", node, retry_policy=retry)
        graph.add_edge(START, "node")
        run = await world.start(job(graph, {"node": Policy(tools=[post])}))
        assert (await run.run()).state is RunState.COMPLETED
        assert (await run.run()).attempts == 1
        assert world.provider.done == [("post", "once")]

    @pytest.mark.parametrize("grouped", [False, True], ids=["alone", "in a task group"])
    async def test_that_is_a_rejection_or_a_denial_is_not_retried(self, world: World, grouped: bool) -> None:
        async def node(state: Any) -> dict[str, Any]:
            if not grouped:
                return {"log": [await pay(Decimal(1))]}
            async with asyncio.TaskGroup() as group:
                group.create_task(pay(Decimal(1)))
            return {"log": []}

        run = await world.start(job(chain(node=node), {"node": Policy(tools=[pay], approve_when=always, retries=3)}))
        assert ended(await run.reject()) == (RunState.COMPLETED, Outcome.REJECTED)
        denied = await world.start(job(chain(node=node), {"node": Policy(retries=3)}))
        assert ended(await denied.run()) == (RunState.FAILED, Reason.NOT_RETRYABLE)

    async def test_beside_an_approval_waits_for_the_person_and_is_then_tried_again(self, world: World) -> None:
        fails = failing(1, NotDone("busy"))

        async def slowly_fails(state: Any) -> Any:
            await asyncio.sleep(0.05)
            return await fails(state)

        async def pays(state: Any) -> dict[str, Any]:
            return {"log": [await pay(Decimal(1))]}

        graph = chain(pays=pays)
        graph.add_node("fails", slowly_fails)
        graph.add_edge(START, "fails")
        policies = {"pays": Policy(tools=[pay], approve_when=always), "fails": Policy(retries=1)}
        run = await world.start(job(graph, policies))
        assert (await run.run()).state is RunState.PENDING_APPROVAL
        assert ended(await run.approve()) == (RunState.COMPLETED, Outcome.APPROVED)
        assert sorted((await run.values())["log"]) == ["at last", "pay 1 ann"]

    async def test_after_an_approval_is_retried_and_asks_nobody(self, world: World) -> None:
        """The record of the pause still stands in LangGraph's log; it is answered and nothing to wait for."""
        left = [1]

        async def node(state: Any) -> dict[str, Any]:
            paid = await pay(Decimal(1))
            if left[0]:
                left[0] -= 1
                raise ValueError("after paying")
            return {"log": [paid]}

        run = await world.start(job(chain(node=node), {"node": Policy(tools=[pay], approve_when=always, retries=1)}))
        done = await run.approve()
        assert ended(done) == (RunState.COMPLETED, Outcome.APPROVED)
        assert world.provider.done == [("pay", "1 ann")]

    async def test_after_an_answer_does_not_lose_the_answer(self, world: World) -> None:
        left = [1]

        async def node(state: Any) -> dict[str, Any]:
            colour = interrupt("which colour?")
            if left[0]:
                left[0] -= 1
                raise ValueError("after the answer")
            return {"log": [colour, interrupt("and which size?")]}

        run = await world.start(job(chain(node=node), {"node": Policy(retries=1)}))
        rests = await run.respond("blue")
        assert rests.state is RunState.PENDING_APPROVAL
        assert (await the_review(run)).question == "and which size?"
        assert (await run.respond("large")).state is RunState.COMPLETED
        assert (await run.values())["log"] == ["blue", "large"]

    async def test_of_an_asynchronous_node_may_be_its_timeout_and_that_is_retried(self, world: World) -> None:
        world.provider.troubles = [Trouble()]
        policy = Policy(tools=[look], timeout=0.1, retries=1)
        run = await world.start(job(chain(node=looks), {"node": policy}))
        done = await run.run()
        assert (done.state, done.attempts) == (RunState.COMPLETED, 2)

    async def test_that_is_a_timeout_every_time_makes_a_dead_letter(self, world: World) -> None:
        world.provider.troubles = [Trouble(), Trouble()]
        policy = Policy(tools=[look], timeout=0.1, retries=1)
        run = await world.start(job(chain(node=looks), {"node": policy}))
        assert ended(await run.run()) == (RunState.FAILED, Reason.ATTEMPTS)
        assert "NodeTimeoutError" in str((await run.run()).error)

    async def test_may_go_to_the_authors_error_handler(self, world: World) -> None:
        async def rescue(state: Any) -> Command[Any]:
            return Command(goto="after", update={"log": ["rescued"]})

        async def after(state: Any) -> dict[str, Any]:
            return {"log": ["after"]}

        graph: StateGraph[Any, Any, Any, Any] = StateGraph(State)
        graph.add_node("node", failing(9, ValueError("no")), error_handler=rescue)
        graph.add_node("after", after)
        graph.add_edge(START, "node")
        run = await world.start(job(graph))
        assert ended(await run.run()) == (RunState.COMPLETED, Outcome.AUTO)
        assert (await run.values())["log"] == ["rescued", "after"]

    async def test_that_is_a_different_replay_does_not_go_to_the_authors_error_handler(self, world: World) -> None:
        texts = iter("abcdef")

        async def node(state: Any) -> dict[str, Any]:
            await post(next(texts))
            return {"log": [interrupt("go on?")]}

        async def rescue(state: Any) -> Command[Any]:
            return Command(goto=END, update={"log": ["rescued"]})

        graph: StateGraph[Any, Any, Any, Any] = StateGraph(State)
        graph.add_node("node", node, error_handler=rescue, retry_policy=RetryPolicy(max_attempts=3))
        graph.add_edge(START, "node")
        run = await world.start(job(graph, {"node": Policy(tools=[post])}))
        assert ended(await run.approve()) == (RunState.FAILED, Reason.NONDETERMINISTIC)
        assert world.provider.done == [("post", "a")]

    async def test_of_a_router_never_ends_the_run_in_silence_however_often_it_is_replayed(self, world: World) -> None:
        left = [2]

        def route(state: Any) -> str:
            if left[0]:
                left[0] -= 1
                raise LookupError("no way")
            return "after"

        async def node(state: Any) -> dict[str, Any]:
            return {"log": [await post("once")]}

        async def after(state: Any) -> dict[str, Any]:
            return {"log": [await post("after")]}

        graph = chain(node=node)
        graph.add_node("after", after)
        graph.add_conditional_edges("node", route, ["after"])
        run = await world.start(job(graph, {name: Policy(tools=[post]) for name in ("node", "after")}))
        assert ended(await run.run()) == (RunState.FAILED, Reason.NOT_RETRYABLE)
        for state in (RunState.FAILED, RunState.COMPLETED):
            await world.engine.replay(run.run_id, by="olga")
            assert (await run.go_on()).state is state
        assert (await run.values())["log"] == ["post once", "post after"]
        assert world.provider.done == [("post", "once"), ("post", "after")]

    async def test_of_a_router_that_sent_before_it_raised_sends_nothing_twice(self, world: World) -> None:
        left = [1]

        def send(state: Any) -> list[Send]:
            return [Send("leaf", {"n": number}) for number in range(2)]

        def route(state: Any) -> str:
            if left[0]:
                left[0] -= 1
                raise LookupError("no way")
            return "leaf"

        async def leaf(state: Any) -> dict[str, Any]:
            return {"log": [state.get("n", "plain")]}

        graph = chain(node=failing(0, ValueError()))
        graph.add_node("leaf", leaf)
        graph.add_conditional_edges("node", send, ["leaf"])
        graph.add_conditional_edges("node", route, ["leaf"])
        run = await world.start(job(graph))
        assert (await run.run()).state is RunState.FAILED
        await world.engine.replay(run.run_id, by="olga")
        assert (await run.go_on()).state is RunState.COMPLETED
        assert sorted(map(str, (await run.values())["log"])) == ["0", "1", "at last", "plain"]

    async def test_to_come_to_an_end_is_found_out(self, world: World) -> None:
        graph = chain(node=failing(0, ValueError()))
        graph.add_edge("node", "node")
        run = await world.start(job(graph, {"node": Policy(retries=5)}, recursion_limit=10))
        assert ended(await run.run()) == (RunState.FAILED, Reason.NOT_RETRYABLE)
        assert "Recursion limit" in str((await run.run()).error)

    async def test_to_keep_what_a_node_returned_is_loud(self, world: World) -> None:
        async def node(state: Any) -> dict[str, Any]:
            return {"log": [asyncio.Event()]}

        run = await world.start(job(chain(node=node), {"node": Policy(retries=5)}))
        assert (await run.run()).state is RunState.FAILED

    async def test_to_agree_on_the_state_is_for_the_author(self, world: World) -> None:
        class Plain(TypedDict, total=False):
            n: int

        async def writes(state: Any) -> dict[str, Any]:
            return {"n": 1}

        graph: StateGraph[Any, Any, Any, Any] = StateGraph(Plain)
        for name in ("one", "two"):
            graph.add_node(name, writes)
            graph.add_edge(START, name)
        run = await world.start(job(graph, {"one": Policy(retries=5), "two": Policy(retries=5)}), {"n": 0})
        assert ended(await run.run()) == (RunState.FAILED, Reason.NOT_RETRYABLE)
        await world.engine.replay(run.run_id, by="olga")
        assert ended(await run.go_on()) == (RunState.FAILED, Reason.NOT_RETRYABLE)

    async def test_of_the_input_is_loud(self, world: World) -> None:
        def broken(payload: Any, event: Any) -> dict[str, Any]:
            raise KeyError("customer")

        run = await world.send(job(chain(node=looks), {"node": Policy(tools=[look])}))
        world.deploy(job(chain(node=looks), {"node": Policy(tools=[look])}, triggers=[On("job", input=broken)]))
        assert ended(await world.take(run.run_id).go_on()) == (RunState.FAILED, Reason.NOT_RETRYABLE)

        other = await world.send(job(chain(node=looks), {"node": Policy(tools=[look])}))
        world.deploy(job(chain(node=looks), {"node": Policy(tools=[look])}, triggers=[On("another")]))
        stopped = await world.take(other.run_id).go_on()
        assert stopped.state is RunState.FAILED
        assert "any more" in str(stopped.error)

    async def test_to_read_the_saved_state_in_a_changed_graph_is_loud(self, world: World) -> None:
        class Strict(BaseModel):
            log: Annotated[list[Any], lambda a, b: a + b]
            customer: str

        async def asks(state: Any) -> dict[str, Any]:
            return {"log": [interrupt("?")]}

        run = await world.start(job(chain(node=asks)))
        graph: StateGraph[Any, Any, Any, Any] = StateGraph(Strict)
        graph.add_node("node", asks)
        graph.add_edge(START, "node")
        world.deploy(job(graph))
        stopped = await world.take(run.run_id).approve()
        assert stopped.state is RunState.FAILED
        assert "customer" in str(stopped.error)


# -- places ------------------------------------------------------------------------------------------------------------


async def posts(state: Any) -> dict[str, Any]:
    return {"log": [await post(f"letter {state.get('n', 0)}")]}


async def asks_and_posts(state: Any) -> dict[str, Any]:
    answer = interrupt(f"question {state.get('n', 0)}?")
    return {"log": [answer, await post(f"answered {state.get('n', 0)}")]}


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


# -- renamed nodes that are not simply the one that waits --------------------------------------------------------------


def forked(names: dict[str, str]) -> Any:
    """`one` and `two` side by side, then `both`: one is done, two asks."""
    named = {name: names.get(name, name) for name in ("start", "one", "two", "both")}

    async def start(state: Any) -> dict[str, Any]:
        return {"log": [await post("start")]}

    async def one(state: Any) -> dict[str, Any]:
        return {"log": [await post("one")]}

    async def two(state: Any) -> dict[str, Any]:
        return {"log": [interrupt("two?"), await post("two")]}

    async def both(state: Any) -> dict[str, Any]:
        return {"log": [await post("both")]}

    graph = chain(**{named["start"]: start})
    for name, node in (("one", one), ("two", two), ("both", both)):
        graph.add_node(named[name], node)
    for name in ("one", "two"):
        graph.add_edge(named["start"], named[name])
    graph.add_edge([named["one"], named["two"]], named["both"])
    return job(graph, {name: Policy(tools=[post]) for name in named.values()})


@pytest.mark.parametrize(
    "names",
    [
        {"two": "zwei"},
        {"one": "eins"},
        {"one": "eins", "two": "zwei"},
        {"both": "beide"},
        {"start": "anfang", "one": "eins", "two": "zwei", "both": "beide"},
    ],
    ids=["the one that asks", "its finished neighbour", "both", "the join after them", "everything"],
)
async def test_a_fork_survives_the_renaming_of(world: World, names: dict[str, str]) -> None:
    run = await world.start(forked({}))
    review = await the_review(run)
    world.deploy(forked(names))
    await world.engine.decide(review.id, says("respond", response="yes"))
    run = world.take(run.run_id)
    rests = await run.go_on()
    if rests.state is RunState.FAILED:
        assert rests.reason is Reason.NEEDS_MIGRATION
        await world.engine.replay(run.run_id, by="olga", rename=names)
        rests = await run.go_on()

    assert ended(rests) == (RunState.COMPLETED, Outcome.APPROVED)
    assert sorted(text for _, text in world.provider.done) == ["both", "one", "start", "two"]


async def test_a_renamed_node_that_tasks_were_sent_to_stops_the_run_and_can_be_moved(world: World) -> None:
    def fans(leaf_name: str) -> Any:
        async def fan(state: Any) -> dict[str, Any]:
            return {}

        async def leaf(state: Any) -> dict[str, Any]:
            return {"log": [await post(f"{state['n']}"), interrupt("same question?")]}

        graph = chain(fan=fan)
        graph.add_node(leaf_name, leaf)
        graph.add_conditional_edges("fan", lambda state: [Send(leaf_name, {"n": n}) for n in range(2)], [leaf_name])
        return job(graph, {leaf_name: Policy(tools=[post])})

    run = await world.start(fans("leaf"))
    world.deploy(fans("blatt"))
    for review, answer in zip(await run.reviews(), ("a", "b"), strict=True):
        await world.engine.decide(review.id, says("respond", response=answer))
    run = world.take(run.run_id)
    assert ended(await run.go_on()) == (RunState.FAILED, Reason.NEEDS_MIGRATION)
    await world.engine.replay(run.run_id, by="olga", rename={"leaf": "blatt"})
    assert (await run.go_on()).state is RunState.COMPLETED
    assert (await run.values())["log"] == ["post 0", "a", "post 1", "b"]
    assert sorted(world.provider.done) == [("post", "0"), ("post", "1")]


# -- how it is called --------------------------------------------------------------------------------------------------


async def test_a_run_that_a_person_answered_in_is_approved_and_one_that_was_refused_is_rejected(world: World) -> None:
    async def node(state: Any) -> dict[str, Any]:
        try:
            return {"log": [interrupt("ok?")]}
        except Rejected:
            raise AssertionError from None

    approved, rejected = await world.start(job(chain(node=node))), await world.start(job(chain(node=node)))
    assert (await approved.approve()).outcome is Outcome.APPROVED
    assert (await rejected.reject()).outcome is Outcome.REJECTED
    assert (await rejected.values())["log"] == [False]


async def test_the_ledger_names_node_visit_and_tool(world: World) -> None:
    run = await world.start(job(chain(node=posts), {"node": Policy(tools=[post])}))
    effect = the_effect(await run.effects(), "outside.post")
    assert (effect.node, effect.visit, effect.ordinal, effect.attempt) == ("node", 1, "0", 1)
