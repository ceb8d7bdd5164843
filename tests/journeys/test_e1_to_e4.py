"""Four ways in which LangGraph by itself loses or doubles a person's decision. Here each has one meaning, once."""

from __future__ import annotations

import asyncio
from decimal import Decimal
from typing import Any

import pytest
from langgraph.types import interrupt
from tests.outside import World, chain, ended, job, pay, post, says, the_review

from eventwright.app.simulate import Simulation
from eventwright.graphs.runner import Stop
from eventwright.guardrails.policy import Policy
from eventwright.guardrails.rules import above
from eventwright.queue.desk import AlreadyDecided
from eventwright.queue.migration import BadMigration, Move
from eventwright.runs.errors import EventwrightError
from eventwright.runs.records import JournalKind, Review, ReviewState
from eventwright.runs.states import Outcome, Reason, RunState


async def pays(state: Any) -> dict[str, Any]:
    return {"log": [await pay(Decimal("500"))]}


def paying(limit: str = "100") -> Policy:
    return Policy(tools=[pay], approve_when=above("amount", limit))


# -- E1: a rule that changes while somebody thinks ---------------------------------------------------------------------


async def test_a_rejection_stands_though_the_limit_was_raised_while_it_waited(world: World) -> None:
    run = await world.start(job(chain(pay=pays), {"pay": paying("100")}))
    asked = await the_review(run)
    world.deploy(job(chain(pay=pays), {"pay": paying("1000")}))

    done = await world.take(run.run_id).reject(by="dana")

    assert ended(done) == (RunState.COMPLETED, Outcome.REJECTED)
    assert world.provider.calls == []
    assert asked.rule is not None
    assert asked.rule["inputs"] == {"amount": "500", "to": "ann"}


async def test_an_approval_stands_though_the_rule_is_gone_or_raises_by_now(world: World) -> None:
    def broken(arguments: Any) -> bool:
        raise ZeroDivisionError

    for later in (Policy(tools=[pay]), Policy(tools=[pay], approve_when=broken)):
        run = await world.start(job(chain(pay=pays), {"pay": paying()}))
        world.deploy(job(chain(pay=pays), {"pay": later}))
        done = await world.take(run.run_id).approve()
        assert ended(done) == (RunState.COMPLETED, Outcome.APPROVED)
    assert world.provider.done == [("pay", "500 ann")] * 2


# -- E2: many questions in one node ------------------------------------------------------------------------------------


@pytest.mark.parametrize("wording", ["question {}", "go on?"], ids=["five questions", "one question five times"])
async def test_five_questions_in_one_node_repeat_no_side_effect_and_take_five_answers(
    world: World, wording: str
) -> None:
    async def asks(state: Any) -> dict[str, Any]:
        answers = []
        for number in range(5):
            await post(f"letter {number}")
            answers.append(interrupt(wording.format(number)))
        return {"log": answers}

    run = await world.start(job(chain(asks=asks), {"asks": Policy(tools=[post])}))
    for number in range(5):
        assert world.provider.done == [("post", f"letter {done}") for done in range(number + 1)]
        assert (await the_review(run)).question == wording.format(number)
        await run.respond(f"answer {number}")

    assert ended(await run.run()) == (RunState.COMPLETED, Outcome.APPROVED)
    assert (await run.values())["log"] == [f"answer {number}" for number in range(5)]
    assert len(world.provider.calls) == 5


async def test_a_question_after_an_answered_one_is_asked_though_the_worker_died_in_between(world: World) -> None:
    async def asks(state: Any) -> dict[str, Any]:
        return {"log": [interrupt("go on?"), interrupt("go on?")]}

    workflow = job(chain(asks=asks))
    run = await world.start(workflow)
    await world.engine.decide((await the_review(run)).id, says("respond", response="first"))
    await lose_the_end_of_the_segment(world, run)

    rests = await run.go_on()

    assert rests.state is RunState.PENDING_APPROVAL
    done = await run.respond("second")
    assert done.state is RunState.COMPLETED
    assert (await run.values())["log"] == ["first", "second"]


async def lose_the_end_of_the_segment(world: World, run: Simulation) -> None:
    """The graph goes on, and the worker dies before it has written how the segment ended."""
    engine = world.engine
    await world.due(run)
    lease = (await engine._claim(run.run_id)).lease
    assert lease is not None
    stored = await run.run()
    await engine.runner.segment(stored, engine.workflows.get(stored.workflow, stored.version), lease, Stop())


# -- E3: two people at once --------------------------------------------------------------------------------------------


async def answer_at_once(world: World, run: Simulation, second: str) -> tuple[Review, AlreadyDecided]:
    """Two people decide at once, through two processes; who won, and what the other is told."""
    review = await the_review(run)
    others = world.process(*world.engine.workflows)
    answers = await asyncio.gather(
        world.engine.decide(review.id, says("approve", by="ann")),
        others.decide(review.id, says(second, by="bob")),
        return_exceptions=True,
    )
    [won] = [answer for answer in answers if isinstance(answer, Review)]
    [lost] = [answer for answer in answers if isinstance(answer, EventwrightError)]
    assert isinstance(lost, AlreadyDecided)
    return won, lost


async def race(world: World, second: str) -> None:
    before = len(world.provider.done)
    run = await world.start(job(chain(pay=pays), {"pay": paying()}))
    won, lost = await answer_at_once(world, run, second)
    assert won.decision is not None
    assert lost.review.decision == won.decision
    assert won.decision.by in str(lost)

    others = world.process(*world.engine.workflows)
    await asyncio.gather(*(engine.advance(run.run_id) for engine in (world.engine, others, world.engine)))
    done = await run.go_on()

    approved = won.decision.type == "approve"
    assert ended(done) == (RunState.COMPLETED, Outcome.APPROVED if approved else Outcome.REJECTED)
    assert len(world.provider.done) - before == approved
    decisions = [entry for entry in await run.journal() if entry.kind is JournalKind.DECISION]
    assert [entry.actor for entry in decisions] == [won.decision.by]


@pytest.mark.parametrize("second", ["approve", "reject"])
async def test_when_two_people_answer_at_once_one_wins_one_effect_follows_and_the_other_is_told(
    world: World, second: str
) -> None:
    for _ in range(20):
        await race(world, second)


@pytest.mark.soak
@pytest.mark.timeout(600)
@pytest.mark.parametrize("second", ["approve", "reject"])
async def test_two_hundred_races_have_two_hundred_single_winners(world: World, second: str) -> None:
    for _ in range(200):
        await race(world, second)


# -- E4: a deploy renames the node in which a run waits ----------------------------------------------------------------


async def first(state: Any) -> dict[str, Any]:
    return {"log": [await post("welcome")]}


async def asks_then_pays(state: Any) -> dict[str, Any]:
    await post("notice")
    if interrupt("pay?") is not True:
        return {"log": ["not paid"]}
    return {"log": [await pay(Decimal("5"))]}


async def notifies_then_pays(state: Any) -> dict[str, Any]:
    await post("notice")
    return {"log": [await pay(Decimal("500"))]}


def renamed(node: Any, name: str) -> Any:
    policies = {
        "first": Policy(tools=[post]),
        name: Policy(tools=[pay, post], approve_when={pay: above("amount", "100")}),
    }
    return job(chain(**{"first": first, name: node}), policies)


@pytest.mark.parametrize("node", [asks_then_pays, notifies_then_pays], ids=["author's question", "gate's approval"])
class TestARenamedNode:
    async def test_stops_the_run_loudly_and_keeps_the_decision(self, world: World, node: Any) -> None:
        run = await self.paused(world, node)
        world.deploy(renamed(node, "payout"))
        stopped = await world.take(run.run_id).approve(by="dana")

        assert ended(stopped) == (RunState.FAILED, Reason.NEEDS_MIGRATION)
        assert stopped.error is not None
        assert "migrate RUN --rename pay=payout" in stopped.error
        [review] = await world.store.reviews(run_ids=[run.run_id])
        assert review.state is ReviewState.DECIDED
        assert review.decision is not None
        assert review.decision.by == "dana"
        assert world.provider.done == [("post", "welcome"), ("post", "notice")]

    async def test_can_also_be_decided_about_while_the_run_is_a_dead_letter(self, world: World, node: Any) -> None:
        run = await self.paused(world, node)
        review = await the_review(run)
        # Somebody else's news wakes the run under the new code before anybody has answered.
        world.deploy(renamed(node, "payout"))
        async with world.store.write() as tx:
            tx.make_due(run.run_id)
        assert (await world.take(run.run_id).go_on()).reason is Reason.NEEDS_MIGRATION

        await world.engine.decide(review.id, says("approve"))
        await self.moved_on(world, run.run_id)

    async def test_is_moved_on_by_an_operator_and_what_was_done_stays_done(self, world: World, node: Any) -> None:
        run = await self.paused(world, node)
        world.deploy(renamed(node, "payout"))
        await world.take(run.run_id).approve()

        await self.moved_on(world, run.run_id)

    async def moved_on(self, world: World, run_id: str) -> None:
        await world.engine.replay(run_id, by="olga", move=Move(rename={"pay": "payout"}))
        done = await world.take(run_id).go_on()

        assert ended(done) == (RunState.COMPLETED, Outcome.APPROVED)
        assert [name for name, _ in world.provider.done] == ["post", "post", "pay"]
        assert len(world.provider.calls) == 3
        assert await world.store.reviews(run_ids=[run_id], state=ReviewState.OPEN) == []

    async def test_that_is_moved_before_anybody_answered_asks_on_and_once(self, world: World, node: Any) -> None:
        run = await self.paused(world, node)
        asked = await the_review(run)
        world.deploy(renamed(node, "payout"))
        async with world.store.write() as tx:
            tx.make_due(run.run_id)
        run = world.take(run.run_id)
        await run.go_on()
        await world.engine.replay(run.run_id, by="olga", move=Move(rename={"pay": "payout"}))

        assert (await run.go_on()).state is RunState.PENDING_APPROVAL
        still = await the_review(run)
        assert (still.id, still.node) == (asked.id, "payout")
        assert ended(await run.approve()) == (RunState.COMPLETED, Outcome.APPROVED)
        assert len(world.provider.calls) == 3

    async def test_stays_stopped_when_it_is_replayed_without_saying_what_it_is_called_now(
        self, world: World, node: Any
    ) -> None:
        run = await self.paused(world, node)
        world.deploy(renamed(node, "payout"))
        run = world.take(run.run_id)
        await run.approve()
        await world.engine.replay(run.run_id, by="olga")

        assert ended(await run.go_on()) == (RunState.FAILED, Reason.NEEDS_MIGRATION)
        with pytest.raises(BadMigration):
            await world.engine.replay(run.run_id, by="olga", move=Move(rename={"pay": "pya"}))
        assert ended(await run.run()) == (RunState.FAILED, Reason.NEEDS_MIGRATION)
        assert len(world.provider.calls) == 2

    async def test_goes_on_when_the_deploy_is_rolled_back(self, world: World, node: Any) -> None:
        run = await self.paused(world, node)
        world.deploy(renamed(node, "payout"))
        await world.take(run.run_id).approve()

        world.deploy(renamed(node, "pay"))
        await world.engine.replay(run.run_id, by="olga")

        assert ended(await world.take(run.run_id).go_on()) == (RunState.COMPLETED, Outcome.APPROVED)
        assert len(world.provider.calls) == 3

    async def test_of_a_workflow_that_is_not_loaded_waits_for_it(self, world: World, node: Any) -> None:
        run = await self.paused(world, node)
        review = await the_review(run)
        world.deploy()
        await world.engine.decide(review.id, says("approve"))
        assert ended(await world.take(run.run_id).go_on()) == (RunState.FAILED, Reason.NEEDS_MIGRATION)

        world.deploy(renamed(node, "pay"))
        await world.engine.replay(run.run_id, by="olga")
        assert ended(await world.take(run.run_id).go_on()) == (RunState.COMPLETED, Outcome.APPROVED)

    async def paused(self, world: World, node: Any) -> Simulation:
        run = await world.start(renamed(node, "pay"))
        assert (await run.run()).state is RunState.PENDING_APPROVAL
        return run
