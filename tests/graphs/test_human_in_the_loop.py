"""LangChain's own human in the loop is a review of ours, and what it approves the gate need not ask again."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Any, Literal

import pytest
from langchain.agents import create_agent
from langchain.agents.middleware import HumanInTheLoopMiddleware
from langchain_core.messages import AIMessage
from tests.outside import World, a_world, ended, look, pay, post, says, the_review
from tests.scripted import ScriptedModel, calls
from tests.toolbox import DONE, agent_job, answers

from eventwright.app.simulate import Simulation
from eventwright.graphs.recorded_models import recorded_models
from eventwright.guardrails.policy import review
from eventwright.guardrails.rules import always
from eventwright.queue.desk import UnfitDecision
from eventwright.runs.records import JournalKind
from eventwright.runs.states import Outcome, RunState
from eventwright.tools.langchain_tools import as_langchain


@pytest.fixture
async def world(sqlite_url: str) -> AsyncIterator[World]:
    async with a_world(sqlite_url) as world:
        with recorded_models():
            yield world


Mode = Literal["batched", "per_call"]


def asking_agent(mode: Mode, *turns: AIMessage, allowed: list[Any] | None = None) -> Any:
    """An agent that asks before it posts."""
    decisions: Any = {"allowed_decisions": allowed} if allowed else True
    ask = HumanInTheLoopMiddleware(interrupt_on={"outside_post": decisions}, interrupt_mode=mode)
    model = ScriptedModel(script=[*turns, DONE])
    return create_agent(model, [as_langchain(post), as_langchain(look)], middleware=[ask])


@pytest.mark.parametrize("mode", ["batched", "per_call"])
class TestTheMiddlewaresQuestion:
    async def test_is_a_review_and_its_approval_is_the_gates_as_well(self, world: World, mode: Mode) -> None:
        agent = asking_agent(mode, calls(("outside_post", {"text": "x"})))
        run = await world.start(agent_job(agent, post, look, approve_when=always))
        review = await the_review(run)
        assert review.arguments == {"text": "x"}
        assert [str(answer) for answer in review.allowed] == ["approve", "edit", "reject", "respond"]
        assert ended(await run.approve()) == (RunState.COMPLETED, Outcome.APPROVED)
        assert world.provider.done == [("post", "x")]

    async def test_edited_is_approved_as_edited_and_not_as_asked(self, world: World, mode: Mode) -> None:
        agent = asking_agent(mode, calls(("outside_post", {"text": "x"})))
        run = await world.start(agent_job(agent, post, look, approve_when=always))
        with pytest.raises(UnfitDecision):
            await run.edit({"text": 5})
        assert ended(await run.edit({"text": "y"})) == (RunState.COMPLETED, Outcome.EDITED)
        assert world.provider.done == [("post", "y")]

    async def test_rejected_or_answered_by_a_person_posts_nothing(self, world: World, mode: Mode) -> None:
        agent = asking_agent(mode, calls(("outside_post", {"text": "x"})))
        run = await world.start(agent_job(agent, post, look))
        assert ended(await run.reject(comment="no letters")) == (RunState.COMPLETED, Outcome.REJECTED)
        agent = asking_agent(mode, calls(("outside_post", {"text": "x"})))
        other = await world.start(agent_job(agent, post, look))
        await other.respond("I have told them myself")
        assert world.provider.done == []
        assert "no letters" in (await answers(run))[0][1]
        assert await answers(other) == [("success", "I have told them myself")]

    async def test_offers_what_the_author_allows(self, world: World, mode: Mode) -> None:
        agent = asking_agent(mode, calls(("outside_post", {"text": "x"})), allowed=["approve"])
        run = await world.start(agent_job(agent, post, look))
        assert [str(answer) for answer in (await the_review(run)).allowed] == ["approve"]
        with pytest.raises(UnfitDecision):
            await run.reject()
        assert (await run.approve()).state is RunState.COMPLETED

    async def test_does_not_let_another_call_pass_than_the_one_that_was_shown(self, world: World, mode: Mode) -> None:
        """The same call a second time, in the next message, is asked about by the gate: one approval, one letter."""
        same = calls(("outside_post", {"text": "x"}), ids=["c"])
        once: list[str] = []
        ask = HumanInTheLoopMiddleware(
            interrupt_on={"outside_post": {"allowed_decisions": ["approve"], "when": lambda request: not once}},
            interrupt_mode=mode,
        )
        agent = create_agent(ScriptedModel(script=[same, same, DONE]), [as_langchain(post)], middleware=[ask])
        run = await world.start(agent_job(agent, post, approve_when=always))
        await run.engine.decide((await the_review(run)).id, says("approve"))
        await run.go_on()
        assert world.provider.done == [("post", "x")]
        again = await the_review(run)
        once.append("asked")
        assert again.arguments == {"text": "x"}

    async def test_without_an_answer_of_the_gates_is_no_capability(self, world: World, mode: Mode) -> None:
        agent = asking_agent(mode, calls(("outside_post", {"text": "x"})))
        run = await world.start(agent_job(agent, look))
        await run.approve()
        assert world.provider.done == []
        assert (await answers(run))[0][0] == "error"
        assert [entry for entry in await run.journal() if entry.kind is JournalKind.VERDICT]


async def test_an_approval_by_somebody_who_may_not_decide_is_not_the_gates(world: World) -> None:
    agent = asking_agent("batched", calls(("outside_post", {"text": "x"})))
    policy = {"approve_when": always, "approval": review("Post?", approvers=["ann"])}
    run = await world.start(agent_job(agent, post, look, **policy))
    assert (await run.approve(by="bob")).state is RunState.PENDING_APPROVAL
    assert world.provider.done == []
    await run.approve(by="ann")
    assert world.provider.done == [("post", "x")]


async def test_an_approval_counts_for_the_call_with_the_defaults_that_nobody_wrote(world: World) -> None:
    ask = HumanInTheLoopMiddleware(interrupt_on={"outside_pay": True})
    model = ScriptedModel(script=[calls(("outside_pay", {"amount": 5})), DONE])
    run = await world.start(
        agent_job(create_agent(model, [as_langchain(pay)], middleware=[ask]), pay, approve_when=always)
    )
    assert (await the_review(run)).arguments == {"amount": 5}
    assert ended(await run.approve()) == (RunState.COMPLETED, Outcome.APPROVED)
    assert world.provider.done == [("pay", "5 ann")]


class TestSeveralActionsAtOnce:
    """A hostile model gives two calls the same name, and the same id."""

    @staticmethod
    async def asked(world: World, *texts: str) -> Simulation:
        turn = calls(*[("outside_post", {"text": text}) for text in texts])
        return await world.start(agent_job(asking_agent("batched", turn), post, look, approve_when=always))

    async def test_approved_are_done_each_once(self, world: World) -> None:
        run = await self.asked(world, "one", "two")
        [review] = await run.reviews()
        assert [action["args"]["text"] for action in review.arguments["actions"]] == ["one", "two"]
        assert ended(await run.approve()) == (RunState.COMPLETED, Outcome.APPROVED)
        assert sorted(world.provider.done) == [("post", "one"), ("post", "two")]

    async def test_edited_keep_their_places(self, world: World) -> None:
        run = await self.asked(world, "one", "two")
        both = [{"name": "outside_post", "args": {"text": text}} for text in ("one", "2")]
        for wrong in (
            {"text": "x"},
            {"actions": both[:1]},
            {"actions": [*both, both[0]]},
            {"actions": [{"name": "pay"}, both[1]]},
        ):
            with pytest.raises(UnfitDecision):
                await run.edit(wrong)
        await run.edit({"actions": both})
        assert sorted(world.provider.done) == [("post", "2"), ("post", "one")]

    async def test_are_decided_one_by_one(self, world: World) -> None:
        run = await self.asked(world, "one", "two", "three")
        edit = {"type": "edit", "edited_action": {"name": "outside_post", "args": {"text": "3"}}}
        with pytest.raises(UnfitDecision):
            await run.respond({"decisions": [edit]})
        decisions = [{"type": "approve"}, {"type": "reject", "message": "not two"}, edit]
        await run.respond({"decisions": decisions})
        assert sorted(world.provider.done) == [("post", "3"), ("post", "one")]

    async def test_of_one_id_are_not_mistaken_for_each_other(self, world: World) -> None:
        """LangChain keeps an edit by the id of the call, and would make both calls as edited: the gate does not."""
        turn = calls(("outside_post", {"text": "one"}), ("outside_post", {"text": "two"}), ids=["same", "same"])
        run = await world.start(agent_job(asking_agent("batched", turn), post, look, approve_when=always))
        both = [{"name": "outside_post", "args": {"text": text}} for text in ("one", "edited")]
        await run.edit({"actions": both})
        assert world.provider.done.count(("post", "edited")) == 1
        asked = await the_review(run)
        assert asked.arguments == {"text": "edited"}, "the second one was never approved like that"
