"""Narrow workers: what stands beside a node of another lane, a question, a wait or a failure, does not hinder it."""

from __future__ import annotations

from datetime import timedelta
from decimal import Decimal
from typing import Any

import pytest
from langgraph.types import interrupt
from tests.graphs.lane_floor import IO, LLM, Floor, beside
from tests.outside import World, ended, job, pay, post, says

from eventwright.guardrails.policy import Backoff, Policy
from eventwright.guardrails.rules import always
from eventwright.guardrails.verdicts import Postponed
from eventwright.runs.records import ReviewState
from eventwright.runs.states import Reason, RunState
from eventwright.tools.contract import NotDone


@pytest.fixture
async def floor(world: World) -> Floor:
    return Floor(world)


async def approves(state: Any) -> dict[str, Any]:
    return {"log": [await post("letter")]}


async def questions(state: Any) -> dict[str, Any]:
    return {"log": [interrupt("Which one?")]}


def answer_of(node: Any) -> Any:
    return says("approve") if node is approves else says("respond", response="post letter")


@pytest.mark.parametrize("node", [approves, questions])
class TestBesideAQuestion:
    MAY_POST = Policy(tools=[post], approve_when=always)

    async def test_the_run_goes_on_in_the_other_lane_while_the_person_is_asked(self, floor: Floor, node: Any) -> None:
        run = await floor.send(job(beside(node=node, b=floor.node("b")), {"b": LLM, "node": self.MAY_POST}))
        assert await floor.step(run) is RunState.PENDING_APPROVAL
        [asked] = await run.reviews()
        assert await floor.go_on(run) is RunState.PENDING_APPROVAL
        assert floor.where() == {"b": "llm"}
        [still] = await run.reviews()
        assert still.id == asked.id, "the question stands as it was"
        await floor.world.engine.decide(asked.id, answer_of(node))
        assert await floor.go_on(run) is RunState.COMPLETED
        assert floor.way == ["default", "llm", "llm", "default"]
        assert sorted((await run.values())["log"]) == ["b", "post letter"]

    async def test_an_answer_that_comes_before_the_other_lane_is_not_lost(self, floor: Floor, node: Any) -> None:
        run = await floor.send(job(beside(node=node, b=floor.node("b")), {"b": LLM, "node": self.MAY_POST}))
        await floor.step(run)
        [asked] = await run.reviews()
        await floor.world.engine.decide(asked.id, answer_of(node))
        assert await floor.go_on(run) is RunState.COMPLETED
        assert sorted((await run.values())["log"]) == ["b", "post letter"]
        [review] = (await floor.world.store.history(run.run_id)).reviews
        assert (review.state, review.consumed_by is None) == (ReviewState.DECIDED, False)

    async def test_nodes_of_two_lanes_that_ask_wait_and_do_not_pass_the_run_to_and_fro(
        self, floor: Floor, node: Any
    ) -> None:
        async def other(state: Any) -> dict[str, Any]:
            return {"log": [interrupt("And this?")]}

        run = await floor.send(job(beside(node=node, other=other), {"other": LLM, "node": self.MAY_POST}))
        assert await floor.go_on(run) is RunState.PENDING_APPROVAL
        assert floor.way == ["default", "llm"]
        reviews = {review.node: review for review in await run.reviews()}
        assert (await run.run()).due_at is None
        await floor.world.engine.decide(reviews["node"].id, answer_of(node))
        assert await floor.go_on(run) is RunState.PENDING_APPROVAL
        await floor.world.engine.decide(reviews["other"].id, says("respond", response="yes"))
        assert await floor.go_on(run) is RunState.COMPLETED
        assert sorted((await run.values())["log"]) == ["post letter", "yes"]


class TestBesideAnother:
    async def test_that_waits_for_a_time_in_another_lane_the_run_is_not_passed_to_and_fro(self, floor: Floor) -> None:
        opens = floor.world.clock() + timedelta(days=1)

        async def shop(state: Any) -> dict[str, Any]:
            if floor.world.clock() < opens:
                raise Postponed(opens)
            return {"log": [await pay(Decimal(1))]}

        policies = {"early": Policy(tools=[pay]), "late": Policy(tools=[pay], lane="llm"), "b": IO}
        run = await floor.send(job(beside(early=shop, late=shop, b=floor.node("b")), policies))
        assert await floor.go_on(run) is RunState.WAITING
        assert sorted(floor.way) == ["default", "io", "llm"]
        assert (await run.run()).due_at == opens
        floor.world.clock.pass_until(opens)
        assert await floor.go_on(run) is RunState.COMPLETED
        assert floor.where() == {"b": "io"}
        assert [what for what, _ in floor.world.provider.done] == ["pay", "pay"]

    async def test_that_fails_for_now_is_tried_again_in_its_own_lane(self, floor: Floor) -> None:
        left = [1]

        async def fails(state: Any) -> dict[str, Any]:
            floor.done.append((f"attempt {2 - left[0]}", floor.lane))
            if left[0]:
                left[0] -= 1
                raise NotDone("not yet")
            return {"log": ["at last"]}

        policies = {"fails": Policy(lane="llm", retries=1, backoff=Backoff(first=10))}
        run = await floor.send(job(beside(fails=fails, b=floor.node("b")), policies))
        assert await floor.go_on(run) is RunState.RETRYING
        await floor.world.due(run)
        assert await floor.go_on(run) is RunState.COMPLETED
        assert floor.where() == {"b": "default", "attempt 1": "llm", "attempt 2": "llm"}
        assert (await run.run()).attempts == 2

    async def test_that_fails_for_good_the_run_fails_and_a_replay_goes_on_where_it_belongs(self, floor: Floor) -> None:
        left = [1]

        async def fails(state: Any) -> dict[str, Any]:
            if left[0]:
                left[0] -= 1
                raise ValueError("no")
            return {"log": ["at last"]}

        run = await floor.send(job(beside(fails=fails, b=floor.node("b")), {"b": LLM}))
        assert await floor.go_on(run) is RunState.FAILED
        assert ended(await run.run()) == (RunState.FAILED, Reason.ATTEMPTS)
        await floor.world.engine.replay(run.run_id, by="olga")
        assert await floor.go_on(run) is RunState.COMPLETED
        assert floor.where() == {"b": "llm"}
