"""A run that waits for a time: it rests as waiting, is taken up again by itself, and is nobody's question."""

from __future__ import annotations

import asyncio
from datetime import datetime, timedelta
from decimal import Decimal
from typing import Any

import pytest
from langgraph.graph import START, StateGraph
from langgraph.types import interrupt
from tests.outside import State, World, chain, ended, job, pay, post, says, the_review

from eventwright.app.simulate import Simulation
from eventwright.graphs.runner import Stop
from eventwright.guardrails.policy import Backoff, Policy
from eventwright.guardrails.rules import always
from eventwright.guardrails.verdicts import Postponed
from eventwright.runs.records import JournalKind
from eventwright.runs.states import Outcome, Reason, RunState
from eventwright.tools.contract import NotDone

DAY = timedelta(days=1)


class Shop:
    """A node that pays, but not before a shop opens."""

    def __init__(self, world: World, *, opens_in: timedelta = DAY, amount: int = 1) -> None:
        self.world, self.amount = world, Decimal(amount)
        self.opens = world.clock() + opens_in
        #: How often the node came.
        self.came = 0

    async def __call__(self, state: Any) -> dict[str, Any]:
        self.came += 1
        if self.world.clock() < self.opens:
            raise Postponed(self.opens)
        return {"log": [await pay(self.amount)]}


async def asks(state: Any) -> dict[str, Any]:
    return {"log": [await post("letter")]}


async def questions(state: Any) -> dict[str, Any]:
    return {"log": [interrupt("Which one?")]}


def beside(**nodes: Any) -> StateGraph[Any, Any, Any, Any]:
    """A graph of these nodes, all at once, and then the end."""
    graph: StateGraph[Any, Any, Any, Any] = StateGraph(State)
    graph.add_node("end", lambda state: {"n": len(state["log"])})
    for name, node in nodes.items():
        graph.add_node(name, node)
        graph.add_edge(START, name)
    graph.add_edge(list(nodes), "end")
    return graph


MAY_PAY = Policy(tools=[pay])
MAY_POST = Policy(tools=[post], approve_when=always)


async def advance(run: Simulation) -> tuple[RunState | None, datetime | None]:
    """One segment: the state in which the run rests, and until when."""
    state = await run.engine.advance(run.run_id)
    return state, (await run.run()).due_at


async def opens(world: World, shop: Shop) -> None:
    world.clock.pass_until(shop.opens)


class TestWaiting:
    async def test_for_a_time_makes_no_question_and_the_run_goes_on_then_with_nothing_resumed(
        self, world: World
    ) -> None:
        shop = Shop(world)
        run = await world.send(job(chain(first=lambda state: {"log": ["first"]}, shop=shop), {"shop": MAY_PAY}))

        assert await advance(run) == (RunState.WAITING, shop.opens)
        assert await run.reviews() == []
        assert await world.engine.advance(run.run_id) is None, "not before its time"
        assert shop.came == 1

        await opens(world, shop)
        assert await advance(run) == (RunState.COMPLETED, None)
        assert ended(await run.run()) == (RunState.COMPLETED, Outcome.AUTO)
        assert (await run.values())["log"] == ["first", "pay 1 ann"]
        assert (await run.run()).attempts == 1
        journal = await run.journal()
        assert [entry.kind for entry in journal if entry.kind is JournalKind.REVIEW_OPENED] == []
        moves = [entry.data for entry in journal if entry.data.get("to") == "waiting"]
        assert [datetime.fromisoformat(move["due_at"]) for move in moves] == [shop.opens]

    async def test_ends_when_an_operator_cancels(self, world: World) -> None:
        shop = Shop(world)
        run = await world.send(job(chain(shop=shop), {"shop": MAY_PAY}))
        await advance(run)
        assert (await world.engine.cancel(run.run_id, by="olga")).state is RunState.CANCELLED
        await opens(world, shop)
        assert await world.engine.advance(run.run_id) is None
        assert world.provider.done == []

    async def test_begins_again_where_a_worker_died_before_it_could_say_so(self, world: World) -> None:
        shop = Shop(world)
        workflow = job(chain(shop=shop), {"shop": MAY_PAY})
        run = await world.send(workflow)
        async with world.store.write() as tx:
            claim = tx.claim(run.run_id, worker="dies", seconds=6)
        assert claim.lease is not None
        await world.engine.runner.segment(await run.run(), workflow, claim.lease, Stop())
        await world.due(run)

        assert await advance(world.take(run.run_id)) == (RunState.WAITING, shop.opens)
        await opens(world, shop)
        assert (await run.go_on()).state is RunState.COMPLETED
        assert world.provider.done == [("pay", "1 ann")]

    async def test_may_be_put_off_again(self, world: World) -> None:
        shop = Shop(world)
        run = await world.send(job(chain(shop=shop), {"shop": MAY_PAY}))
        for _ in range(3):
            assert await advance(run) == (RunState.WAITING, shop.opens)
            await opens(world, shop)
            shop.opens += DAY
        await opens(world, shop)
        assert await advance(run) == (RunState.COMPLETED, None)
        assert shop.came == 4

    async def test_survives_a_deploy_without_the_workflow_and_a_replay(self, world: World) -> None:
        shop = Shop(world)
        workflow = job(chain(shop=shop), {"shop": MAY_PAY})
        run = await world.send(workflow)
        await advance(run)
        await opens(world, shop)
        world.deploy()
        run = world.take(run.run_id)
        await advance(run)
        assert ended(await run.run()) == (RunState.FAILED, Reason.NEEDS_MIGRATION)

        world.deploy(workflow)
        run = world.take(run.run_id)
        await world.engine.replay(run.run_id, by="olga")
        assert (await run.go_on()).state is RunState.COMPLETED
        assert world.provider.done == [("pay", "1 ann")]

    async def test_inside_a_graph_that_is_a_node_is_the_runs_waiting(self, world: World) -> None:
        shop = Shop(world)
        run = await world.send(job(chain(inner=chain(shop=shop).compile()), {"inner": MAY_PAY}))
        assert await advance(run) == (RunState.WAITING, shop.opens)
        await opens(world, shop)
        assert await advance(run) == (RunState.COMPLETED, None)
        assert world.provider.done == [("pay", "1 ann")]

    async def test_in_a_thread_and_past_an_authors_except_is_waiting_all_the_same(self, world: World) -> None:
        shop = Shop(world)

        def node(state: Any) -> dict[str, Any]:
            try:
                asyncio.run(shop(state))
            except Exception:  # noqa: BLE001 - an author who swallows whatever comes
                return {"log": ["swallowed"]}
            return {"log": ["open"]}

        run = await world.send(job(chain(node=node)))
        assert await advance(run) == (RunState.WAITING, shop.opens)


class TestBesideAnother:
    async def test_that_waits_too_the_earliest_time_counts_and_nobody_pays_twice(self, world: World) -> None:
        early, late = Shop(world, opens_in=DAY), Shop(world, opens_in=2 * DAY, amount=2)
        run = await world.send(job(beside(late=late, early=early), {"early": MAY_PAY, "late": MAY_PAY}))
        assert await advance(run) == (RunState.WAITING, early.opens)
        await opens(world, early)
        assert await advance(run) == (RunState.WAITING, late.opens), "what has ended since is not waited for"
        await opens(world, late)
        assert await advance(run) == (RunState.COMPLETED, None)
        assert world.provider.done == [("pay", "1 ann"), ("pay", "2 ann")]
        assert early.came == 2

    @pytest.mark.parametrize("node", [asks, questions])
    async def test_that_asks_the_person_is_asked_and_an_answer_finds_its_question(
        self, world: World, node: Any
    ) -> None:
        shop = Shop(world)
        run = await world.send(job(beside(shop=shop, node=node), {"shop": MAY_PAY, "node": MAY_POST}))

        assert await advance(run) == (RunState.PENDING_APPROVAL, shop.opens)
        assert (await run.run()).asks
        assert await run.go_on() == await run.run(), "time does not pass by itself while a person is asked"
        review = await the_review(run)
        assert review.node == "node"

        await world.engine.decide(review.id, says("approve") if node is asks else says("respond", response="this one"))
        assert not (await run.run()).asks
        assert await advance(run) == (RunState.WAITING, shop.opens)
        await opens(world, shop)
        assert await advance(run) == (RunState.COMPLETED, None)
        answer = "post letter" if node is asks else "this one"
        assert sorted((await run.values())["log"]) == sorted(["pay 1 ann", answer])

    @pytest.mark.parametrize("node", [asks, questions])
    async def test_that_asks_in_vain_goes_on_when_its_time_has_come(self, world: World, node: Any) -> None:
        shop = Shop(world)
        run = await world.send(job(beside(shop=shop, node=node), {"shop": MAY_PAY, "node": MAY_POST}))
        await advance(run)
        before = await the_review(run)
        await opens(world, shop)

        assert await advance(run) == (RunState.PENDING_APPROVAL, None)
        assert world.provider.done == [("pay", "1 ann")]
        assert (await the_review(run)).id == before.id, "the question stands as it was"
        await run.answer(says("approve") if node is asks else says("respond", response="this one"))
        assert (await run.run()).state is RunState.COMPLETED
        assert len(world.provider.done) == (2 if node is asks else 1)

    async def test_that_fails_for_now_is_tried_again_first(self, world: World) -> None:
        shop, left = Shop(world), [1]

        async def fails(state: Any) -> dict[str, Any]:
            if left[0]:
                left[0] -= 1
                raise NotDone("not yet")
            return {"log": ["at last"]}

        policies = {"shop": MAY_PAY, "fails": Policy(retries=1, backoff=Backoff(first=10))}
        run = await world.send(job(beside(shop=shop, fails=fails), policies))
        state, due_at = await advance(run)
        assert state is RunState.RETRYING
        assert due_at is not None
        assert due_at < shop.opens
        world.clock.pass_until(due_at)
        assert await advance(run) == (RunState.WAITING, shop.opens)
        await opens(world, shop)
        assert await advance(run) == (RunState.COMPLETED, None)

    async def test_that_fails_for_good_the_run_fails_and_a_replay_waits_again(self, world: World) -> None:
        shop, left = Shop(world), [1]

        async def fails(state: Any) -> dict[str, Any]:
            if left[0]:
                left[0] -= 1
                raise ValueError("no")
            return {"log": ["at last"]}

        run = await world.send(job(beside(shop=shop, fails=fails), {"shop": MAY_PAY}))
        await advance(run)
        assert ended(await run.run()) == (RunState.FAILED, Reason.ATTEMPTS)
        await world.engine.replay(run.run_id, by="olga")
        assert await advance(run) == (RunState.WAITING, shop.opens)
        await opens(world, shop)
        assert await advance(run) == (RunState.COMPLETED, None)

    async def test_in_the_same_node_that_asks_both_are_heeded(self, world: World) -> None:
        shop = Shop(world)

        async def node(state: Any) -> dict[str, Any]:
            return {"log": list(await asyncio.gather(post("letter"), shop_later()))}

        async def shop_later() -> Any:
            return (await shop({}))["log"][0]

        policy = Policy(tools=[pay, post], approve_when={post: always})
        run = await world.send(job(chain(node=node), {"node": policy}))
        assert await advance(run) == (RunState.PENDING_APPROVAL, shop.opens)
        await world.engine.decide((await the_review(run)).id, says("approve"))
        assert await advance(run) == (RunState.WAITING, shop.opens)
        await opens(world, shop)
        assert await advance(run) == (RunState.COMPLETED, None)
        assert sorted(world.provider.done) == [("pay", "1 ann"), ("post", "letter")]

    async def test_raised_together_with_a_question_both_are_heeded(self, world: World) -> None:
        shop = Shop(world)

        async def node(state: Any) -> dict[str, Any]:
            answers = await asyncio.gather(post("letter"), shop(state), return_exceptions=True)
            signals = [answer for answer in answers if isinstance(answer, BaseException)]
            if signals:
                raise BaseExceptionGroup("both", signals)
            return {"log": ["done"]}

        policy = Policy(tools=[pay, post], approve_when={post: always})
        run = await world.send(job(chain(node=node), {"node": policy}))
        assert await advance(run) == (RunState.PENDING_APPROVAL, shop.opens)
        await opens(world, shop)
        assert await advance(run) == (RunState.PENDING_APPROVAL, None), "it was not kept waiting for the person"
        assert world.provider.done == [("pay", "1 ann")]
        assert (await run.approve()).state is RunState.COMPLETED

    async def test_in_a_task_group_that_asks_both_are_heeded(self, world: World) -> None:
        shop = Shop(world)

        async def node(state: Any) -> dict[str, Any]:
            async with asyncio.TaskGroup() as group:
                letter = group.create_task(post("letter"))
                later = group.create_task(shop(state))
            return {"log": [letter.result(), *later.result()["log"]]}

        policy = Policy(tools=[pay, post], approve_when={post: always})
        run = await world.send(job(chain(node=node), {"node": policy}))
        state, _ = await advance(run)
        assert state in (RunState.WAITING, RunState.PENDING_APPROVAL)
        await opens(world, shop)
        assert await advance(run) == (RunState.PENDING_APPROVAL, None)
        await run.approve()
        assert (await run.run()).state is RunState.COMPLETED
        assert sorted(world.provider.done) == [("pay", "1 ann"), ("post", "letter")]

    async def test_a_draining_worker_hands_the_run_over_and_the_next_one_waits(self, world: World) -> None:
        shop = Shop(world)

        async def drains(state: Any) -> dict[str, Any]:
            world.engine.drain()
            return {"log": ["drained"]}

        workflow = job(chain(drains=drains, shop=shop), {"shop": MAY_PAY})
        run = await world.send(workflow)
        assert (await advance(run))[0] is RunState.RECEIVED
        world.deploy(workflow)
        run = world.take(run.run_id)
        assert await advance(run) == (RunState.WAITING, shop.opens)
