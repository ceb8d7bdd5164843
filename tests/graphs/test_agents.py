"""LangChain's agents under a policy: `create_agent` and its human in the loop, unchanged, as a node."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from typing import Any, Literal

import pytest
from langchain.agents import create_agent
from langchain.agents.middleware import HumanInTheLoopMiddleware, ModelFallbackMiddleware, ToolRetryMiddleware
from langchain.agents.structured_output import ToolStrategy
from langchain_core.messages import AIMessage, HumanMessage, ToolMessage
from langchain_core.tools import tool
from langgraph.graph import START, MessagesState, StateGraph
from langgraph.types import interrupt
from pydantic import BaseModel
from tests.outside import Trouble, World, a_world, ended, look, pay, post, says, the_review
from tests.scripted import Hangs, ScriptedModel, calls

from eventwright.app.simulate import Simulation
from eventwright.graphs.recorded_models import recorded_models
from eventwright.graphs.workflow import On, Workflow
from eventwright.guardrails.budgets import Budget
from eventwright.guardrails.policy import Policy
from eventwright.guardrails.rules import always
from eventwright.queue.desk import UnfitDecision
from eventwright.runs.records import EffectState, JournalKind
from eventwright.runs.states import Outcome, Reason, RunState
from eventwright.tools.chat_models import process_model
from eventwright.tools.contract import NotDone
from eventwright.tools.langchain_tools import as_langchain, langchain_tool

DONE = AIMessage("all done")


@pytest.fixture
async def world(sqlite_url: str) -> AsyncIterator[World]:
    async with a_world(sqlite_url) as world:
        with recorded_models():
            yield world


def workflow(agent: Any, *tools: Any, trusted: bool = True, **policy: Any) -> Workflow:
    """The agent as the only node, asked to do something."""
    graph = StateGraph(MessagesState)
    graph.add_node("agent", agent)
    graph.add_edge(START, "agent")
    on = On("job", input=lambda payload, event: {"messages": [HumanMessage("do it")]}, trusted=trusted)
    return Workflow("job", version="1", graph=graph, triggers=[on], policies={"agent": Policy(tools=tools, **policy)})


async def told(run: Simulation) -> list[tuple[str, str]]:
    """What the tools answered the agent."""
    return [(m.status, m.content) for m in (await run.values())["messages"] if isinstance(m, ToolMessage)]


# -- what an agent may not do ------------------------------------------------------------------------------------------


async def test_an_agent_that_is_refused_hears_so_and_goes_on(world: World) -> None:
    model = ScriptedModel(script=[calls(("outside_post", {"text": "x"})), calls(("outside_look", {"text": "y"})), DONE])
    agent = create_agent(model, [as_langchain(look), as_langchain(post)])
    run = await world.start(workflow(agent, look))
    assert ended(await run.run()) == (RunState.COMPLETED, Outcome.AUTO)
    assert [status for status, _ in await told(run)] == ["error", "success"]
    assert world.provider.done == [("look", "y")]
    assert "denied" in model.asked[1][0][-1].content, "the model reads the refusal"


async def test_an_agent_that_never_ends_is_ended_by_its_budget(world: World) -> None:
    forever = [calls(("outside_look", {"text": str(number)}), ids=[str(number)]) for number in range(50)]
    agent = create_agent(ScriptedModel(script=forever), [as_langchain(look)])
    run = await world.start(workflow(agent, look, budgets=[Budget("calls", 7)]))
    done = await run.run()
    assert ended(done) == (RunState.FAILED, Reason.NOT_RETRYABLE)
    assert "denied at the stage budgets" in str(done.error)
    assert len([effect for effect in await run.effects() if effect.state is EffectState.DONE]) == 7


async def test_a_writing_agent_that_has_read_untrusted_data_asks_also_after_a_pause(world: World) -> None:
    """The first letter is approved by a person; what the agent read before still counts for the second."""
    model = ScriptedModel(
        script=[
            calls(("read_page", {"number": 1})),
            calls(("outside_post", {"text": "one"})),
            calls(("outside_post", {"text": "two"})),
            DONE,
        ]
    )

    @tool
    async def read_page(number: int) -> str:
        """Read what others have written."""
        return f"page {number}"

    agent = create_agent(model, [read_page, as_langchain(post)])
    run = await world.start(workflow(agent, langchain_tool(read_page, reads=True), post))
    assert (await the_review(run)).arguments == {"text": "one"}
    await run.approve()
    assert (await the_review(run)).arguments == {"text": "two"}
    await run.reject()
    assert world.provider.done == [("post", "one")]


# -- once --------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", ["own", "process"])
async def test_an_agent_cut_off_in_a_tool_makes_no_call_twice_and_asks_no_model_twice(world: World, kind: str) -> None:
    scripted = ScriptedModel(
        script=[
            calls(("outside_look", {"text": "a"}), ("outside_look", {"text": "b"})),
            calls(("outside_pay", {"amount": "5"})),
            DONE,
        ]
    )
    world.resources = type(world.resources)((scripted, world.provider))
    agent = create_agent(scripted if kind == "own" else process_model(), [as_langchain(look), as_langchain(pay)])
    world.provider.troubles = [None, None, Trouble(happens=True)]
    run = await world.send(workflow(agent, look, pay, approve_when=always))
    await run.go_on()
    await world.engine.decide((await the_review(run)).id, says("approve"))
    run = await world.crash(run)
    await world.due(run)
    assert ended(await run.go_on()) == (RunState.COMPLETED, Outcome.APPROVED)
    assert sorted(world.provider.done) == [("look", "a"), ("look", "b"), ("pay", "5 ann")]
    assert [name for name, *_ in world.provider.calls] == ["look", "look", "pay", "pay"], "a keyed call, repeated"
    assert len(scripted.asked) == 3


async def test_an_agent_cut_off_while_its_model_thinks_repeats_nothing_else(world: World) -> None:
    hangs = Hangs()
    scripted = ScriptedModel(script=[calls(("outside_look", {"text": "a"})), hangs, DONE])
    run = await world.send(workflow(create_agent(scripted, [as_langchain(look)]), look))
    process = world.engine
    segment = asyncio.create_task(process.advance(run.run_id))
    await hangs.reached.wait()
    segment.cancel()
    await asyncio.gather(segment, return_exceptions=True)
    world.deploy(*process.workflows)
    run = world.take(run.run_id)
    await world.due(run)
    assert (await run.go_on()).state is RunState.COMPLETED
    assert world.provider.done == [("look", "a")]
    assert len(scripted.asked) == 3


async def test_the_answer_of_another_model_that_stood_in_is_replayed(world: World) -> None:
    """The first model's error was no answer; it is asked again when the node runs again, and fails again."""
    broken = ScriptedModel(script=[ValueError("down")] * 4, name_of_model="broken")
    spare = ScriptedModel(
        script=[calls(("outside_pay", {"amount": "5"})), DONE, AIMessage("another")], name_of_model="spare"
    )
    agent = create_agent(broken, [as_langchain(pay)], middleware=[ModelFallbackMiddleware(spare)])
    run = await world.start(workflow(agent, pay, approve_when=always))
    assert ended(await run.approve()) == (RunState.COMPLETED, Outcome.APPROVED)
    assert len(spare.asked) == 2


async def test_an_agent_retries_a_tool_as_one_effect(world: World) -> None:
    world.provider.troubles = [Trouble(error=NotDone("busy")), Trouble(error=NotDone("busy"))]
    retry = ToolRetryMiddleware(max_retries=2, initial_delay=0, jitter=False)
    agent = create_agent(
        ScriptedModel(script=[calls(("outside_look", {"text": "a"})), DONE]), [as_langchain(look)], middleware=[retry]
    )
    run = await world.start(workflow(agent, look))
    assert await told(run) == [("success", "look a")]
    [effect] = [effect for effect in await run.effects() if effect.tool == "outside.look"]
    assert (effect.state, effect.attempt) == (EffectState.DONE, 3)


async def test_an_agent_within_an_agent_is_guarded_as_well(world: World) -> None:
    inner = create_agent(
        ScriptedModel(script=[calls(("outside_look", {"text": "deep"})), AIMessage("found deep")]), [as_langchain(look)]
    )
    middle = StateGraph(MessagesState)
    middle.add_node("inner", inner)
    middle.add_edge(START, "inner")
    run = await world.start(workflow(middle.compile(), look))
    assert (await run.run()).state is RunState.COMPLETED
    assert world.provider.done == [("look", "deep")]
    refused = await world.start(
        workflow(
            create_agent(ScriptedModel(script=[calls(("outside_look", {"text": "x"})), DONE]), [as_langchain(look)])
        )
    )
    assert [status for status, _ in await told(refused)] == ["error"]


async def test_an_agent_that_is_a_tool_of_an_agent_is_one_effect(world: World) -> None:
    """A supervisor: whoever names the tool in a policy says what the agent inside it may come to."""
    helper = create_agent(ScriptedModel(script=[AIMessage("42")]), [])

    @tool
    async def ask_helper(question: str) -> str:
        """Ask the helper."""
        answer = await helper.ainvoke({"messages": [HumanMessage(question)]})
        return str(answer["messages"][-1].content)

    supervisor = ScriptedModel(
        script=[calls(("ask_helper", {"question": "6 x 7"})), calls(("outside_pay", {"amount": "42"})), DONE]
    )
    agent = create_agent(supervisor, [ask_helper, as_langchain(pay)])
    run = await world.start(workflow(agent, langchain_tool(ask_helper, reads=True), pay, approve_when=always))
    assert ended(await run.approve()) == (RunState.COMPLETED, Outcome.APPROVED)
    assert await told(run) == [("success", "42"), ("success", "pay 42 ann")]
    assert len(supervisor.asked) == 3


class Found(BaseModel):
    """What an agent answers with, in a form of the author's."""

    page: int


@pytest.mark.parametrize("nested", ["a node", "called by a function"])
async def test_what_an_agent_keeps_in_types_of_its_own_is_the_same_after_a_pause(world: World, nested: str) -> None:
    class Inner(MessagesState):
        structured_response: Found

    async def shows(state: Inner) -> dict[str, Any]:
        answer = interrupt("is it right?")
        return {"messages": [AIMessage(f"page {state['structured_response'].page}, {answer}")]}

    model = ScriptedModel(script=[calls(("Found", {"page": 7}))])
    graph = StateGraph(Inner)
    graph.add_node("agent", create_agent(model, [], response_format=ToolStrategy(Found)))
    graph.add_node("shows", shows)
    graph.add_edge(START, "agent")
    graph.add_edge("agent", "shows")
    inner = graph.compile()

    async def runs(state: MessagesState) -> dict[str, Any]:
        return {"messages": (await inner.ainvoke({"messages": state["messages"]}))["messages"][-1:]}

    run = await world.start(workflow(inner if nested == "a node" else runs))
    assert (await run.respond("yes")).state is RunState.COMPLETED
    assert (await run.values())["messages"][-1].content == "page 7, yes"


# -- LangChain's own human in the loop ---------------------------------------------------------------------------------

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
        run = await world.start(workflow(agent, post, look, approve_when=always))
        review = await the_review(run)
        assert review.arguments == {"text": "x"}
        assert [str(answer) for answer in review.allowed] == ["approve", "edit", "reject", "respond"]
        assert ended(await run.approve()) == (RunState.COMPLETED, Outcome.APPROVED)
        assert world.provider.done == [("post", "x")]

    async def test_edited_is_approved_as_edited_and_not_as_asked(self, world: World, mode: Mode) -> None:
        agent = asking_agent(mode, calls(("outside_post", {"text": "x"})))
        run = await world.start(workflow(agent, post, look, approve_when=always))
        with pytest.raises(UnfitDecision):
            await run.edit({"text": 5})
        assert ended(await run.edit({"text": "y"})) == (RunState.COMPLETED, Outcome.EDITED)
        assert world.provider.done == [("post", "y")]

    async def test_rejected_or_answered_by_a_person_posts_nothing(self, world: World, mode: Mode) -> None:
        agent = asking_agent(mode, calls(("outside_post", {"text": "x"})))
        run = await world.start(workflow(agent, post, look))
        assert ended(await run.reject(comment="no letters")) == (RunState.COMPLETED, Outcome.REJECTED)
        agent = asking_agent(mode, calls(("outside_post", {"text": "x"})))
        other = await world.start(workflow(agent, post, look))
        await other.respond("I have told them myself")
        assert world.provider.done == []
        assert "no letters" in (await told(run))[0][1]
        assert await told(other) == [("success", "I have told them myself")]

    async def test_offers_what_the_author_allows(self, world: World, mode: Mode) -> None:
        agent = asking_agent(mode, calls(("outside_post", {"text": "x"})), allowed=["approve"])
        run = await world.start(workflow(agent, post, look))
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
        run = await world.start(workflow(agent, post, approve_when=always))
        await run.engine.decide((await the_review(run)).id, says("approve"))
        await run.go_on()
        assert world.provider.done == [("post", "x")]
        again = await the_review(run)
        once.append("asked")
        assert again.arguments == {"text": "x"}

    async def test_without_an_answer_of_the_gates_is_no_capability(self, world: World, mode: Mode) -> None:
        agent = asking_agent(mode, calls(("outside_post", {"text": "x"})))
        run = await world.start(workflow(agent, look))
        await run.approve()
        assert world.provider.done == []
        assert (await told(run))[0][0] == "error"
        assert [entry for entry in await run.journal() if entry.kind is JournalKind.VERDICT]


class TestSeveralActionsAtOnce:
    """A hostile model gives two calls the same name, and the same id."""

    @staticmethod
    async def asked(world: World, *texts: str) -> Simulation:
        turn = calls(*[("outside_post", {"text": text}) for text in texts])
        return await world.start(workflow(asking_agent("batched", turn), post, look, approve_when=always))

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
        run = await world.start(workflow(asking_agent("batched", turn), post, look, approve_when=always))
        both = [{"name": "outside_post", "args": {"text": text}} for text in ("one", "edited")]
        await run.edit({"actions": both})
        assert world.provider.done.count(("post", "edited")) == 1
        asked = await the_review(run)
        assert asked.arguments == {"text": "edited"}, "the second one was never approved like that"
