"""Several people about one call: each counts once, whoever asked for it does not count, one no is enough."""

from __future__ import annotations

import asyncio
from datetime import timedelta
from decimal import Decimal
from typing import Any

import pytest
from tests.outside import World, chain, ended, job, pay, says, the_effect

from eventwright.app.simulate import Simulation
from eventwright.graphs.workflow import On
from eventwright.guardrails.policy import Policy, review
from eventwright.guardrails.rules import Ask, Rule, always, two_people
from eventwright.guardrails.verdicts import Rejected
from eventwright.queue.desk import AlreadyDecided, ReviewClosed
from eventwright.runs.errors import MayNotDecide
from eventwright.runs.event import Event, new_id
from eventwright.runs.records import DecisionType, EffectState, Review, ReviewState
from eventwright.runs.states import Outcome, RunState


async def pays(state: Any) -> dict[str, Any]:
    return {"log": [await pay(Decimal(5))]}


def paying(rule: Any = None, node: Any = pays, *, requester: Any = None, **how: Any) -> Any:
    policy = Policy(tools=[pay], approve_when=rule or two_people(always), approval=review("Pay?", **how))
    trigger = On("job", requester=requester)
    return job(chain(node=node), {"node": policy}, triggers=[trigger])


async def asked(run: Simulation, people: int = 2) -> list[Review]:
    reviews = await run.reviews()
    assert [(found.people, found.digest) for found in reviews] == [(people, reviews[0].digest)] * people
    return reviews


async def sent_by(world: World, workflow: Any, principal: str, data: Any = None) -> Simulation:
    world.deploy(workflow)
    event = Event(id=new_id("e"), source="/test", type="job", data=data or {"log": []}, principal=principal)
    receipt = await world.engine.receive(event)
    run = world.take(receipt.runs[0].id)
    await run.go_on()
    return run


class TestOnePerson:
    @pytest.mark.parametrize("again", ["ann", "Ann ", "ＡＮＮ", " aNN"])
    async def test_does_not_count_as_two_under_any_spelling(self, world: World, again: str) -> None:
        run = await world.start(paying())
        first, second = await asked(run)
        await world.engine.decide(first.id, says("approve", by="ann"))
        for kind in ("approve", "edit", "reject"):
            more = {"arguments": {"amount": "5", "to": "bob"}} if kind == "edit" else {}
            with pytest.raises(MayNotDecide, match="2 different people are needed"):
                await world.engine.decide(second.id, says(kind, by=again, **more))
        assert (await run.go_on()).state is RunState.PENDING_APPROVAL
        assert world.provider.calls == []
        assert (await world.store.review(second.id)).state is ReviewState.OPEN

    async def test_racing_in_two_sessions_counts_once(self, racing: tuple[World, World]) -> None:
        world, elsewhere = racing
        workflow = paying()
        elsewhere.deploy(workflow)
        for _ in range(30):
            run = await world.start(workflow)
            first, second = await asked(run)
            answers = await asyncio.gather(
                world.engine.decide(first.id, says("approve", by="ann")),
                elsewhere.engine.decide(second.id, says("approve", by="Ann")),
                return_exceptions=True,
            )
            assert sorted(type(answer) for answer in answers if isinstance(answer, Exception)) == [MayNotDecide]
            assert await run.go_on()
            assert world.provider.done == []
            [left] = await run.reviews()
            await world.engine.decide(left.id, says("approve", by="bob"))
            assert ended(await run.go_on()) == (RunState.COMPLETED, Outcome.APPROVED)
            assert world.provider.done == [("pay", "5 ann")]
            world.provider.done.clear()

    async def test_may_say_the_same_again_and_is_counted_once(self, world: World) -> None:
        run = await world.start(paying())
        first, _ = await asked(run)
        for _ in range(2):
            await world.engine.decide(first.id, says("approve", by="ann"))
        assert await world.store.agreed([first]) == {first.id: ["ann"]}

    async def test_who_decides_after_another_is_led_to_the_question_that_is_left(self, world: World) -> None:
        run = await world.start(paying())
        first, second = await asked(run)
        await world.engine.decide(first.id, says("approve", by="ann"))
        with pytest.raises(AlreadyDecided, match=second.id) as refused:
            await world.engine.decide(first.id, says("approve", by="bob"))
        assert refused.value.open == await world.store.review(second.id)


class TestWhoAskedForIt:
    async def test_is_none_of_several_who_approve_it(self, world: World) -> None:
        def named(event: Event) -> str:
            return str(event.data["for"])

        run = await sent_by(world, paying(requester=named), "dana", {"log": [], "for": "Eve"})
        first, _ = await asked(run)
        assert set(first.barred) == {"dana", "Eve"}
        for by in ("Dana", "eve "):
            with pytest.raises(MayNotDecide, match="asked for this call or changed it"):
                await world.engine.decide(first.id, says("approve", by=by))
        assert (await run.run()).event.principal == "dana"
        assert (await run.journal())[0].data["principal"] == "dana"

    async def test_may_approve_alone_where_one_person_is_enough(self, world: World) -> None:
        run = await sent_by(world, paying(always), "dana")
        assert ended(await run.approve(by="dana")) == (RunState.COMPLETED, Outcome.APPROVED)


class TestApprovers:
    async def test_are_the_only_ones_who_decide(self, world: World) -> None:
        run = await world.start(paying(always, approvers=["Ann", "bob"]))
        [only] = await asked(run, 1)
        for kind in ("approve", "reject"):
            with pytest.raises(MayNotDecide, match="only these people may: Ann, bob"):
                await world.engine.decide(only.id, says(kind, by="mallory"))
        assert (await run.approve(by="ann")).outcome is Outcome.APPROVED


class TestOneNo:
    async def test_is_enough_and_nobody_need_answer_any_more(self, world: World) -> None:
        run = await world.start(paying(lambda _arguments: Ask("three", people=3)))
        first, second, third = await asked(run, 3)
        await world.engine.decide(first.id, says("approve", by="ann"))
        await world.engine.decide(second.id, says("reject", by="bob"))
        with pytest.raises(ReviewClosed):
            await world.engine.decide(third.id, says("approve", by="cem"))
        assert ended(await run.go_on()) == (RunState.COMPLETED, Outcome.REJECTED)
        assert world.provider.calls == []

    async def test_leaves_no_half_of_an_approval_for_the_next_equal_call(self, world: World) -> None:
        async def twice(state: Any) -> dict[str, Any]:
            try:
                return await pays(state)
            except Rejected:
                return await pays(state)

        run = await world.start(paying(node=twice))
        first, second = await asked(run)
        await world.engine.decide(first.id, says("approve", by="ann"))
        await world.engine.decide(second.id, says("reject", by="bob"))
        assert (await run.go_on()).state is RunState.PENDING_APPROVAL
        assert world.provider.calls == []
        again = await asked(run)
        for found, by in zip(again, ("ann", "bob"), strict=True):
            await world.engine.decide(found.id, says("approve", by=by))
        await run.go_on()
        assert world.provider.done == [("pay", "5 ann")]

    async def test_and_a_yes_at_the_same_moment_never_make_the_call(self, racing: tuple[World, World]) -> None:
        world, elsewhere = racing
        workflow = paying()
        elsewhere.deploy(workflow)
        for _ in range(10):
            run = await world.start(workflow)
            first, second = await asked(run)
            await asyncio.gather(
                world.engine.decide(first.id, says("approve", by="ann")),
                elsewhere.engine.decide(second.id, says("reject", by="bob")),
                return_exceptions=True,
            )
            assert (await run.go_on()).outcome is Outcome.REJECTED
        assert world.provider.calls == []


class TestAnEdit:
    async def test_is_asked_anew_of_as_many_people_and_its_editor_is_none_of_them(self, world: World) -> None:
        run = await world.start(paying())
        first, second = await asked(run)
        edit = says("edit", by="ann", arguments={"amount": "4", "to": "bob"})
        await world.engine.decide(first.id, edit)
        with pytest.raises(ReviewClosed):
            await world.engine.decide(second.id, says("approve", by="bob"))
        assert (await run.go_on()).state is RunState.PENDING_APPROVAL
        one, other = await asked(run)
        assert one.arguments == {"amount": "4", "to": "bob"}
        assert one.barred == ("ann",)
        with pytest.raises(MayNotDecide):
            await world.engine.decide(one.id, says("approve", by="ANN"))
        await world.engine.decide(one.id, says("approve", by="bob"))
        await run.go_on()
        assert world.provider.calls == []
        await world.engine.decide(other.id, says("approve", by="cem"))

        assert ended(await run.go_on()) == (RunState.COMPLETED, Outcome.EDITED)
        assert world.provider.done == [("pay", "4 bob")]


class TestADeadline:
    async def test_is_never_one_of_several_people(self, world: World) -> None:
        """The rule asks for two where the policy thought of one, whose deadline approves."""
        run = await world.start(paying(deadline=timedelta(hours=1), default="approve"))
        first, second = await asked(run)
        await world.engine.decide(first.id, says("approve", by="ann"))
        done = await run.pass_time(timedelta(hours=2))

        assert ended(done) == (RunState.COMPLETED, Outcome.REJECTED)
        assert world.provider.calls == []
        expired = await world.store.review(second.id)
        assert expired.state is ReviewState.EXPIRED
        assert expired.decision is not None
        assert (expired.decision.type, expired.decision.by) == (DecisionType.REJECT, "deadline")
        assert await world.store.due_timers(limit=9) == []

    async def test_that_would_approve_for_several_people_is_refused_when_it_is_declared(self) -> None:
        with pytest.raises(ValueError, match="a deadline is nobody"):
            review(people=2, deadline=timedelta(hours=1), default="approve")


class TestTwoPeople:
    async def test_make_the_call_together_once(self, world: World) -> None:
        run = await world.start(paying())
        first, second = await asked(run)
        await world.engine.decide(second.id, says("approve", by="ann"))
        assert (await run.go_on()).state is RunState.PENDING_APPROVAL
        assert world.provider.calls == []
        await world.engine.decide(first.id, says("approve", by="bob"))

        assert ended(await run.go_on()) == (RunState.COMPLETED, Outcome.APPROVED)
        assert world.provider.done == [("pay", "5 ann")]
        paid = the_effect(await run.effects(), "outside.pay")
        assert paid.state is EffectState.DONE
        assert {found.consumed_by for found in await world.store.reviews(run_ids=[run.run_id])} == {paid.key}

    async def test_may_agree_to_the_next_equal_call_as_well(self, world: World) -> None:
        async def twice(state: Any) -> dict[str, Any]:
            return {"log": [await pay(Decimal(5)), await pay(Decimal(5))]}

        run = await world.start(paying(Rule("both", lambda _: Ask("both", people=2)), node=twice))
        for _ in range(2):
            for found, by in zip(await asked(run), ("ann", "bob"), strict=True):
                await world.engine.decide(found.id, says("approve", by=by))
            await run.go_on()
        assert world.provider.done == [("pay", "5 ann")] * 2
