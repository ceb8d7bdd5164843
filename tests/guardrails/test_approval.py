"""Approval: what a person decides is this call, once, whatever the node does when it runs again; exceptions first."""

from __future__ import annotations

import asyncio
from decimal import Decimal
from typing import Any

import pytest
from langgraph.graph import START
from langgraph.types import interrupt
from tests.outside import Trouble, World, chain, ended, job, look, pay, post, says, the_effect, the_review

from eventwright.guardrails.policy import Policy
from eventwright.guardrails.rules import Rule, above, always
from eventwright.guardrails.verdicts import Rejected
from eventwright.queue.desk import StaleDecision
from eventwright.runs.records import EffectState, JournalKind, ReviewState
from eventwright.runs.states import Outcome, Reason, RunState


def verdicts(journal: Any) -> list[dict[str, Any]]:
    return [stage for entry in journal if entry.kind is JournalKind.VERDICT for stage in entry.data["stages"]]


def one_node(node: Any, **policy: Any) -> Any:
    return job(chain(node=node), {"node": Policy(**policy)})


async def pays(state: Any) -> dict[str, Any]:
    return {"log": [await pay(Decimal(500))]}


class TestApproval:
    async def test_a_rule_that_raises_denies(self, world: World) -> None:
        run = await world.start(one_node(pays, tools=[pay], approve_when=lambda arguments: arguments.nonsense))
        assert ended(await run.run()) == (RunState.FAILED, Reason.NOT_RETRYABLE)
        assert "the rule failed: AttributeError" in verdicts(await run.journal())[-1]["reason"]
        assert world.provider.calls == []

    async def test_what_is_approved_is_this_call_and_not_the_one_that_a_changed_node_makes(self, world: World) -> None:
        amounts = iter(["500", "501", "501"])

        async def node(state: Any) -> dict[str, Any]:
            return {"log": [await pay(Decimal(next(amounts)))]}

        run = await world.start(one_node(node, tools=[pay], approve_when=above("amount", 100)))
        first = await the_review(run)
        rests = await run.approve()

        assert rests.state is RunState.PENDING_APPROVAL
        assert world.provider.calls == []
        second = await the_review(run)
        assert second.digest != first.digest
        assert second.arguments == {"amount": "501", "to": "ann"}
        assert (await run.approve()).state is RunState.COMPLETED
        assert world.provider.done == [("pay", "501 ann")]

    async def test_an_approval_is_good_for_its_own_run_alone(self, world: World) -> None:
        workflow = one_node(pays, tools=[pay], approve_when=always)
        one, other = await world.start(workflow), await world.start(workflow)
        assert (await the_review(one)).digest != (await the_review(other)).digest
        await one.approve()
        assert (await other.go_on()).state is RunState.PENDING_APPROVAL
        assert len(world.provider.done) == 1

    async def test_a_second_equal_call_needs_a_second_decision(self, world: World) -> None:
        async def node(state: Any) -> dict[str, Any]:
            return {"log": [await post("hello"), await post("hello")]}

        run = await world.start(one_node(node, tools=[post], approve_when=always))
        assert (await run.approve()).state is RunState.PENDING_APPROVAL
        assert len(world.provider.done) == 1
        assert (await run.approve()).state is RunState.COMPLETED
        assert len(world.provider.done) == 2

    @pytest.mark.parametrize("order", [(0, 1), (1, 0)])
    async def test_two_equal_calls_at_once_need_two_decisions_in_any_order(
        self, world: World, order: tuple[int, int]
    ) -> None:
        async def node(state: Any) -> dict[str, Any]:
            return {"log": await asyncio.gather(post("hello"), post("hello"))}

        run = await world.start(one_node(node, tools=[post], approve_when=always))
        reviews = await run.reviews()
        assert len(reviews) == 2
        await run.answer(says("approve"), reviews[order[0]].id)
        assert len(world.provider.done) <= 1
        done = await run.answer(says("approve"), reviews[order[1]].id)
        assert done.state is RunState.COMPLETED
        assert len(world.provider.done) == 2

    async def test_of_two_equal_calls_at_once_the_rejected_one_does_not_happen(self, world: World) -> None:
        async def node(state: Any) -> dict[str, Any]:
            answers = await asyncio.gather(post("hello"), post("hello"), return_exceptions=True)
            for answer in answers:
                if not isinstance(answer, str | Rejected):
                    raise answer
            return {"log": [type(answer).__name__ for answer in answers]}

        run = await world.start(one_node(node, tools=[post], approve_when=always))
        reviews = await run.reviews()
        await run.answer(says("approve"), reviews[0].id)
        done = await run.answer(says("reject"), reviews[1].id)
        assert ended(done) == (RunState.COMPLETED, Outcome.REJECTED)
        assert (await run.values())["log"] == ["str", "Rejected"]
        assert len(world.provider.done) == 1

    async def test_an_edit_is_what_is_executed_and_both_digests_are_kept(self, world: World) -> None:
        run = await world.start(one_node(pays, tools=[pay], approve_when=always))
        done = await run.edit({"amount": "50", "to": "bob"})

        assert ended(done) == (RunState.COMPLETED, Outcome.EDITED)
        assert world.provider.done == [("pay", "50 bob")]
        effect = the_effect(await run.effects(), "outside.pay")
        assert effect.requested_digest != effect.executed_digest

    async def test_an_edit_that_the_tool_does_not_take_any_more_is_refused_at_the_gate(self, world: World) -> None:
        run = await world.start(one_node(pays, tools=[pay], approve_when=always))
        # Written past the desk, as by an older version that knew another tool.
        review = await the_review(run)
        async with world.store.write() as tx:
            tx.decide(review, says("edit", arguments={"amount": "50", "account": "bob"}))
            tx.make_due(run.run_id)
        assert ended(await run.go_on()) == (RunState.FAILED, Reason.NOT_RETRYABLE)
        assert world.provider.calls == []

    async def test_a_decision_about_something_else_than_what_stands_there_is_stale(self, world: World) -> None:
        run = await world.start(one_node(pays, tools=[pay], approve_when=always))
        with pytest.raises(StaleDecision):
            await world.engine.decide((await the_review(run)).id, says("approve"), digest="0" * 64)
        assert (await the_review(run)).state is ReviewState.OPEN

    async def test_a_rejection_may_be_caught_by_the_node(self, world: World) -> None:
        async def node(state: Any) -> dict[str, Any]:
            try:
                await pay(Decimal(500))
            except Rejected as no:
                await post(f"sorry: {no.decision.comment}")
            return {"log": ["told"]}

        run = await world.start(one_node(node, tools=[pay, post], approve_when={pay: always}))
        done = await run.reject(comment="too much")
        assert ended(done) == (RunState.COMPLETED, Outcome.REJECTED)
        assert world.provider.done == [("post", "sorry: too much")]

    async def test_a_rejection_that_nobody_catches_ends_the_run(self, world: World) -> None:
        async def never(state: Any) -> dict[str, Any]:
            raise AssertionError

        run = await world.start(job(chain(node=pays, never=never), {"node": Policy(tools=[pay], approve_when=always)}))
        assert ended(await run.reject()) == (RunState.COMPLETED, Outcome.REJECTED)
        assert world.provider.calls == []

    async def test_a_question_that_a_node_does_not_repeat_is_superseded_and_never_answers_anything(
        self, world: World
    ) -> None:
        """The same call, when it comes back later, is asked about anew."""
        texts = iter(["a", "b", "a", "a"])

        async def letter(state: Any) -> dict[str, Any]:
            return {"log": [await post(next(texts))]}

        async def asks(state: Any) -> dict[str, Any]:
            return {"log": [interrupt("one?"), interrupt("two?")]}

        graph = chain(letter=letter)
        graph.add_node("asks", asks)
        graph.add_edge(START, "asks")
        run = await world.start(job(graph, {"letter": Policy(tools=[post], approve_when=always)}))
        [first] = [review for review in await run.reviews() if review.interrupt_id is None]

        # Each answer lets the node beside it run again.
        for expected in ("b", "a"):
            [question] = [review for review in await run.reviews() if review.interrupt_id]
            await run.answer(says("respond", response=1), question.id)
            [letter_review] = [review for review in await run.reviews() if review.interrupt_id is None]
            assert letter_review.arguments == {"text": expected}

        assert (await world.store.review(first.id)).state is ReviewState.SUPERSEDED
        assert (await run.approve()).state is RunState.COMPLETED
        assert world.provider.done == [("post", "a")]

    async def test_rules_are_frozen_into_the_question(self, world: World) -> None:
        run = await world.start(
            one_node(pays, tools=[pay], approve_when=Rule("large", lambda a: f"{a.amount} is large", "7"))
        )
        asked = await the_review(run)
        assert asked.rule is not None
        assert {name: asked.rule[name] for name in ("rule", "version", "reason")} == {
            "rule": "large",
            "version": "7",
            "reason": "500 is large",
        }


class TestReplay:
    async def test_a_node_that_asks_for_another_call_than_the_first_time_is_parked_and_calls_nothing(
        self, world: World
    ) -> None:
        texts = iter(["one", "two"])

        async def node(state: Any) -> dict[str, Any]:
            try:
                await post(next(texts))
            except Exception as error:  # noqa: BLE001 - as authors do
                return {"log": [f"swallowed {error}"]}
            return {"log": [interrupt("go on?")]}

        run = await world.start(one_node(node, tools=[post]))
        parked = await run.approve()

        assert ended(parked) == (RunState.FAILED, Reason.NONDETERMINISTIC)
        assert world.provider.done == [("post", "one")]

    async def test_no_except_exception_swallows_a_pause(self, world: World) -> None:
        async def node(state: Any) -> dict[str, Any]:
            try:
                return {"log": [await post("x")]}
            except Exception as error:  # noqa: BLE001 - as authors do
                return {"log": [f"swallowed {error}"]}

        run = await world.start(one_node(node, tools=[post], approve_when=always))
        assert (await run.run()).state is RunState.PENDING_APPROVAL
        await run.approve()
        assert (await run.values())["log"] == ["post x"]

    async def test_gathered_calls_in_another_order_never_run_on_each_others_approval(self, world: World) -> None:
        turns = iter([(0.0, 0.03), (0.03, 0.0), (0.0, 0.03), (0.03, 0.0)])

        async def later(text: str, seconds: float) -> str:
            await asyncio.sleep(seconds)
            return str(await post(text))

        async def node(state: Any) -> dict[str, Any]:
            a, b = next(turns)
            return {"log": await asyncio.gather(later("A", a), later("B", b))}

        run = await world.start(one_node(node, tools=[post], approve_when=always))
        asked = {review.arguments["text"]: review for review in await run.reviews() if review.arguments}
        await run.answer(says("approve"), next(iter(asked.values())).id)
        while reviews := await run.reviews():
            await run.answer(says("reject" if reviews[0].arguments == {"text": "B"} else "approve"), reviews[0].id)
        assert ("post", "B") not in world.provider.done
        assert world.provider.done.count(("post", "A")) <= 1

    async def test_a_pause_in_a_task_group_is_a_pause(self, world: World) -> None:
        async def node(state: Any) -> dict[str, Any]:
            async with asyncio.TaskGroup() as group:
                tasks = [group.create_task(post(text)) for text in ("free", "a", "b")]
            return {"log": [task.result() for task in tasks]}

        ask = Rule("not free", lambda arguments: arguments.text != "free")
        run = await world.start(one_node(node, tools=[post], approve_when=ask))
        assert (await run.run()).state is RunState.PENDING_APPROVAL
        while await run.reviews():
            await run.approve()
        assert (await run.run()).state is RunState.COMPLETED
        assert sorted(text for _, text in world.provider.done) == ["a", "b", "free"]

    async def test_a_call_beside_one_that_pauses_is_finished_before_the_run_rests(self, world: World) -> None:
        async def slow(text: str) -> str:
            return str(await look(text))

        async def node(state: Any) -> dict[str, Any]:
            return {"log": await asyncio.gather(post("asks"), slow("slow"))}

        run = await world.send(one_node(node, tools=[post, look], approve_when=always))
        world.provider.troubles = [Trouble()]
        segment = asyncio.create_task(run.go_on())
        await world.provider.reached.wait()
        while not await run.reviews():
            await asyncio.sleep(0.01)
        await asyncio.sleep(0.2)  # long enough for a run that does not wait to come to rest
        assert (await run.run()).state is RunState.PROCESSING
        world.provider.go.set()
        assert (await segment).state is RunState.PENDING_APPROVAL
        assert the_effect(await run.effects(), "outside.look").state is EffectState.DONE
        await run.approve()
        assert [name for name, *_ in world.provider.calls] == ["look", "post"]
