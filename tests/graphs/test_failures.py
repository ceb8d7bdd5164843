"""Whatever goes wrong in a graph is tried again, or told, and never ends a run in silence."""

from __future__ import annotations

import asyncio
from decimal import Decimal
from typing import Annotated, Any, TypedDict

import pytest
from langgraph.graph import END, START, StateGraph
from langgraph.types import Command, RetryPolicy, Send, interrupt
from pydantic import BaseModel
from tests.outside import (
    State,
    Trouble,
    World,
    chain,
    ended,
    job,
    look,
    pay,
    post,
    the_review,
)

from eventwright.graphs.workflow import On
from eventwright.guardrails.policy import Backoff, Policy
from eventwright.guardrails.rules import always
from eventwright.runs.records import ReviewKind
from eventwright.runs.states import Outcome, Reason, RunState
from eventwright.tools.contract import NotDone


async def looks(state: Any) -> dict[str, Any]:
    return {"log": [await look("async")]}


def failing(times: int, error: Exception) -> Any:
    left = [times]

    async def node(state: Any) -> dict[str, Any]:
        if left[0]:
            left[0] -= 1
            raise error
        return {"log": ["at last"]}

    return node


class TestAFailure:
    async def test_is_tried_again_as_often_as_the_policy_says_visibly_and_after_a_while(self, world: World) -> None:
        waits = Backoff(first=100_000, most=1_000_000)
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
        assert ahead[0] <= 100_000
        assert ahead[1] <= 200_000
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

    @pytest.mark.parametrize("inside", [False, True], ids=["in the graph", "in a graph inside"])
    async def test_inside_the_authors_own_retry_policy_is_one_attempt_of_the_run_and_repeats_no_call(
        self, world: World, inside: bool
    ) -> None:
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
        if inside:
            graph = chain(node=graph.compile())
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
        policy = Policy(tools=[look], timeout=1.0, retries=1)
        run = await world.start(job(chain(node=looks), {"node": policy}))
        done = await run.run()
        assert (done.state, done.attempts) == (RunState.COMPLETED, 2)

    async def test_that_is_a_timeout_every_time_makes_a_dead_letter(self, world: World) -> None:
        world.provider.troubles = [Trouble(), Trouble()]
        policy = Policy(tools=[look], timeout=0.1, retries=1)
        run = await world.start(job(chain(node=looks), {"node": policy}))
        assert ended(await run.run()) == (RunState.FAILED, Reason.ATTEMPTS)
        assert "NodeTimeoutError" in str((await run.run()).error)

    async def test_beside_a_write_does_not_leave_the_write_in_doubt(self, world: World) -> None:
        """LangGraph stops the nodes beside one that fails; the call that is being made is still made to its end."""

        async def posts(state: Any) -> dict[str, Any]:
            return {"log": [await post("letter")]}

        async def fails(state: Any) -> dict[str, Any]:
            await world.provider.reached.wait()
            if not world.provider.go.is_set():
                asyncio.get_running_loop().call_later(0.05, world.provider.go.set)
                raise NotDone("busy")
            return {"log": []}

        graph = chain(posts=posts)
        graph.add_node("fails", fails)
        graph.add_edge(START, "fails")
        world.provider.troubles = [Trouble()]
        run = await world.start(job(graph, {"posts": Policy(tools=[post]), "fails": Policy(retries=1)}))
        assert ended(await run.run()) == (RunState.COMPLETED, Outcome.AUTO)
        assert [name for name, *_ in world.provider.calls] == ["post"]

    @pytest.mark.parametrize("comes_back", [True, False], ids=["soon", "never"])
    async def test_to_end_in_time_leaves_a_write_in_doubt_only_if_it_does_not_come_back(
        self, world: World, monkeypatch: pytest.MonkeyPatch, comes_back: bool
    ) -> None:
        monkeypatch.setattr("eventwright.guardrails.segment.GRACE", 30.0 if comes_back else 0.05)

        async def posts(state: Any) -> dict[str, Any]:
            return {"log": [await post("letter")]}

        if comes_back:
            asyncio.get_running_loop().call_later(1.5, world.provider.go.set)
        world.provider.troubles = [Trouble()]
        run = await world.start(job(chain(node=posts), {"node": Policy(tools=[post], timeout=1.0, retries=1)}))
        if not comes_back:
            assert (await the_review(run)).kind is ReviewKind.IN_DOUBT
            await run.respond({"happened": False})
        assert ended(await run.run()) == (RunState.COMPLETED, Outcome.AUTO)
        assert world.provider.done == [("post", "letter")]

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
