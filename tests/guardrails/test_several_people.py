"""A call that several people must approve: distinct ones, not its requester and not its editor; exceptions first."""

from __future__ import annotations

from decimal import Decimal
from typing import Any

import pytest
from tests.outside import World, chain, ended, job, pay, says

from eventwright.graphs.workflow import On
from eventwright.guardrails.policy import Policy, review
from eventwright.guardrails.rules import above, always, at_most, one_of, two_people
from eventwright.queue.desk import ReviewClosed, UnfitDecision
from eventwright.runs.errors import MayNotDecide
from eventwright.runs.records import DecisionType, ReviewState
from eventwright.runs.states import Outcome, RunState


async def pays(state: Any) -> dict[str, Any]:
    return {"log": [await pay(Decimal(500))]}


def by_two(node: Any = pays, **policy: Any) -> Any:
    policy.setdefault("approve_when", two_people(above("amount", 100)))
    trigger = On("job", trusted=True, requester=lambda event: event.data.get("asked_by"))
    return job(chain(node=node), {"node": Policy(tools=[pay], **policy)}, triggers=[trigger])


async def answered(run: Any, kind: str, by: str, **more: Any) -> Any:
    """Answer the oldest open review."""
    [first, *_] = await run.reviews()
    return await run.answer(says(kind, by=by, **more), first.id)


class TestAnother:
    async def test_who_asked_for_it_does_not_decide_it_where_the_policy_wants_another(self, world: World) -> None:
        alone = by_two(approve_when=above("amount", 100), approval=review(by_another=True))
        run = await world.start(alone, {"log": [], "asked_by": "carl"})
        for kind in ("approve", "reject"):
            with pytest.raises(MayNotDecide, match="who asked for this call"):
                await answered(run, kind, "Carl")
        assert world.provider.calls == []
        assert ended(await answered(run, "approve", "ann")) == (RunState.COMPLETED, Outcome.APPROVED)

    async def test_unless_it_says_so_one_person_may_be_who_asked(self, world: World) -> None:
        run = await world.start(by_two(approve_when=above("amount", 100)), {"log": [], "asked_by": "carl"})
        assert ended(await answered(run, "approve", "carl")) == (RunState.COMPLETED, Outcome.APPROVED)


class TestSeveralPeople:
    async def test_one_of_two_is_not_enough(self, world: World) -> None:
        run = await world.start(by_two())
        first, second = await run.reviews()
        assert first.digest == second.digest
        assert (await answered(run, "approve", "ann")).state is RunState.PENDING_APPROVAL
        assert world.provider.calls == []
        assert ended(await answered(run, "approve", "bob")) == (RunState.COMPLETED, Outcome.APPROVED)
        assert world.provider.done == [("pay", "500 ann")]

    @pytest.mark.parametrize("name", ["ann", "Ann", " ann ", "ａｎｎ"])
    async def test_the_same_person_does_not_count_twice_however_the_name_is_written(
        self, world: World, name: str
    ) -> None:
        run = await world.start(by_two())
        await answered(run, "approve", "ann")
        with pytest.raises(MayNotDecide):
            await answered(run, "approve", name)
        assert world.provider.calls == []

    async def test_who_asked_for_it_is_none_of_them(self, world: World) -> None:
        run = await world.start(by_two(), {"log": [], "asked_by": "carl"})
        with pytest.raises(MayNotDecide):
            await answered(run, "approve", "Carl")

    async def test_one_no_is_a_no_and_the_others_need_not_answer(self, world: World) -> None:
        run = await world.start(by_two())
        first, second = await run.reviews()
        assert ended(await run.answer(says("reject", by="ann"), first.id)) == (RunState.COMPLETED, Outcome.REJECTED)
        with pytest.raises(ReviewClosed):
            await run.answer(says("approve", by="bob"), second.id)
        assert world.provider.calls == []

    async def test_an_edit_is_a_new_call_that_two_others_must_approve(self, world: World) -> None:
        run = await world.start(by_two())
        await answered(run, "edit", "ann", arguments={"amount": "400", "to": "ann"})
        asked = await run.reviews()
        assert [one.arguments["amount"] for one in asked if one.arguments] == ["400", "400"]
        with pytest.raises(MayNotDecide):
            await answered(run, "approve", "ann")
        await answered(run, "approve", "bob")
        assert world.provider.calls == []
        assert ended(await answered(run, "approve", "cleo")) == (RunState.COMPLETED, Outcome.EDITED)
        assert world.provider.done == [("pay", "400 ann")]

    async def test_an_edit_below_the_rule_is_approved_by_its_editor(self, world: World) -> None:
        run = await world.start(by_two())
        assert (await answered(run, "edit", "ann", arguments={"amount": "50", "to": "ann"})).state is RunState.COMPLETED
        assert world.provider.done == [("pay", "50 ann")]

    async def test_an_edit_that_a_rule_would_deny_is_refused_and_the_question_stays_open(self, world: World) -> None:
        rules = {pay: {"to": one_of("ann"), "amount": at_most(1000)}}
        run = await world.start(by_two(rules=rules, approve_when=always))
        for wrong, why in (
            ({"amount": "1001", "to": "ann"}, "amount is not at most 1000"),
            ({"amount": "1", "to": "eve"}, "to is not one of ann"),
        ):
            with pytest.raises(UnfitDecision, match=why):
                await answered(run, "edit", "ann", arguments=wrong)
        await answered(run, "edit", "ann", arguments={"amount": "1000", "to": "ann"})
        assert world.provider.done == [("pay", "1000 ann")]

    async def test_an_edit_of_an_edit_bars_both_editors(self, world: World) -> None:
        run = await world.start(by_two())
        await answered(run, "edit", "ann", arguments={"amount": "400", "to": "ann"})
        await answered(run, "edit", "bob", arguments={"amount": "300", "to": "ann"})
        for editor in ("ann", "bob"):
            with pytest.raises(MayNotDecide):
                await answered(run, "approve", editor)
        await answered(run, "approve", "cleo")
        await answered(run, "approve", "dan")
        assert world.provider.done == [("pay", "300 ann")]

    async def test_who_may_decide_can_be_named(self, world: World) -> None:
        run = await world.start(by_two(approve_when=always, approval=review("Pay?", approvers=["ann"])))
        with pytest.raises(MayNotDecide, match="only these people may: ann"):
            await answered(run, "approve", "bob")
        assert (await answered(run, "approve", "ann")).state is RunState.COMPLETED

    async def test_a_worker_killed_between_the_two_loses_neither(self, world: World) -> None:
        run = await world.start(by_two())
        await answered(run, "approve", "ann")
        world.deploy(*world.engine.workflows)
        run = world.take(run.run_id)
        assert ended(await answered(run, "approve", "bob")) == (RunState.COMPLETED, Outcome.APPROVED)
        history = await world.store.history(run.run_id)
        assert {one.decision.by for one in history.reviews if one.decision} == {"ann", "bob"}
        assert all(one.consumed_by for one in history.reviews)

    async def test_two_equal_calls_need_four_answers(self, world: World) -> None:
        async def twice(state: Any) -> dict[str, Any]:
            return {"log": [await pay(Decimal(500)), await pay(Decimal(500))]}

        run = await world.start(by_two(twice))
        for person in ("ann", "bob", "ann", "bob"):
            await answered(run, "approve", person)
        assert (await run.run()).state is RunState.COMPLETED
        assert len(world.provider.done) == 2
        decided = [one for one in (await world.store.history(run.run_id)).reviews if one.decision is not None]
        assert [one.decision.type for one in decided if one.decision] == [DecisionType.APPROVE] * 4
        assert {one.state for one in decided} == {ReviewState.DECIDED}
