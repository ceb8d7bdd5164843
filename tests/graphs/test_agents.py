"""LangChain's agents under a policy: `create_agent` and its human in the loop, unchanged, as a node."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from typing import Any

import pytest
from langchain.agents import create_agent
from langchain.agents.middleware import ModelFallbackMiddleware, ToolRetryMiddleware
from langchain.agents.structured_output import ToolStrategy
from langchain_core.messages import AIMessage, HumanMessage
from langchain_core.tools import tool
from langgraph.graph import START, MessagesState, StateGraph
from langgraph.types import interrupt
from pydantic import BaseModel
from tests.outside import Trouble, World, a_world, ended, look, pay, post, says, the_review
from tests.scripted import Hangs, ScriptedModel, calls
from tests.toolbox import DONE, agent_job, answers

from eventwright.graphs.recorded_models import recorded_models
from eventwright.guardrails.budgets import Budget
from eventwright.guardrails.rules import always
from eventwright.runs.records import EffectState
from eventwright.runs.states import Outcome, Reason, RunState
from eventwright.tools.chat_models import process_model
from eventwright.tools.contract import NotDone
from eventwright.tools.langchain_tools import as_langchain, langchain_tool


@pytest.fixture
async def world(sqlite_url: str) -> AsyncIterator[World]:
    async with a_world(sqlite_url) as world:
        with recorded_models():
            yield world


# -- what an agent may not do ------------------------------------------------------------------------------------------


async def test_an_agent_that_is_refused_hears_so_and_goes_on(world: World) -> None:
    model = ScriptedModel(script=[calls(("outside_post", {"text": "x"})), calls(("outside_look", {"text": "y"})), DONE])
    agent = create_agent(model, [as_langchain(look), as_langchain(post)])
    run = await world.start(agent_job(agent, look))
    assert ended(await run.run()) == (RunState.COMPLETED, Outcome.AUTO)
    assert [status for status, _ in await answers(run)] == ["error", "success"]
    assert world.provider.done == [("look", "y")]
    assert "denied" in model.asked[1][0][-1].content, "the model reads the refusal"


async def test_an_agent_that_never_ends_is_ended_by_its_budget(world: World) -> None:
    forever = [calls(("outside_look", {"text": str(number)}), ids=[str(number)]) for number in range(50)]
    agent = create_agent(ScriptedModel(script=forever), [as_langchain(look)])
    run = await world.start(agent_job(agent, look, budgets=[Budget("calls", 7)]))
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
    run = await world.start(agent_job(agent, langchain_tool(read_page, reads=True), post))
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
    run = await world.send(agent_job(agent, look, pay, approve_when=always))
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
    run = await world.send(agent_job(create_agent(scripted, [as_langchain(look)]), look))
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
    run = await world.start(agent_job(agent, pay, approve_when=always))
    assert ended(await run.approve()) == (RunState.COMPLETED, Outcome.APPROVED)
    assert len(spare.asked) == 2


async def test_an_agent_retries_a_tool_as_one_effect(world: World) -> None:
    world.provider.troubles = [Trouble(error=NotDone("busy")), Trouble(error=NotDone("busy"))]
    retry = ToolRetryMiddleware(max_retries=2, initial_delay=0, jitter=False)
    agent = create_agent(
        ScriptedModel(script=[calls(("outside_look", {"text": "a"})), DONE]), [as_langchain(look)], middleware=[retry]
    )
    run = await world.start(agent_job(agent, look))
    assert await answers(run) == [("success", "look a")]
    [effect] = [effect for effect in await run.effects() if effect.tool == "outside.look"]
    assert (effect.state, effect.attempt) == (EffectState.DONE, 3)


async def test_an_agent_within_an_agent_is_guarded_as_well(world: World) -> None:
    inner = create_agent(
        ScriptedModel(script=[calls(("outside_look", {"text": "deep"})), AIMessage("found deep")]), [as_langchain(look)]
    )
    middle = StateGraph(MessagesState)
    middle.add_node("inner", inner)
    middle.add_edge(START, "inner")
    run = await world.start(agent_job(middle.compile(), look))
    assert (await run.run()).state is RunState.COMPLETED
    assert world.provider.done == [("look", "deep")]
    refused = await world.start(
        agent_job(
            create_agent(ScriptedModel(script=[calls(("outside_look", {"text": "x"})), DONE]), [as_langchain(look)])
        )
    )
    assert [status for status, _ in await answers(refused)] == ["error"]


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
    run = await world.start(agent_job(agent, langchain_tool(ask_helper, reads=True), pay, approve_when=always))
    assert ended(await run.approve()) == (RunState.COMPLETED, Outcome.APPROVED)
    assert await answers(run) == [("success", "42"), ("success", "pay 42 ann")]
    assert len(supervisor.asked) == 3


class Found(BaseModel):
    """What an agent answers with, in a form of the author's."""

    page: int


def keeping_agent() -> Any:
    """A graph around an agent that answers in a form of the author's, and asks about it."""

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
    return graph.compile()


async def test_what_an_agent_keeps_in_types_of_its_own_is_the_same_after_a_pause(world: World) -> None:
    run = await world.start(agent_job(keeping_agent()))
    assert (await run.respond("yes")).state is RunState.COMPLETED
    assert (await run.values())["messages"][-1].content == "page 7, yes"


async def test_an_agent_too_deep_in_a_function_is_refused_with_advice(world: World) -> None:
    """Two graphs deep nobody could tell its calls from those of another visit, on replay."""
    inner = keeping_agent()

    async def runs(state: MessagesState) -> dict[str, Any]:
        return {"messages": (await inner.ainvoke({"messages": state["messages"]}))["messages"]}

    run = await (await world.start(agent_job(runs))).run()
    assert run.state is RunState.FAILED
    assert "give the compiled graph to add_node() itself" in str(run.error)


async def test_an_agent_that_a_function_runs_has_its_answers_recorded(world: World) -> None:
    model = ScriptedModel(script=[calls(("outside_pay", {"amount": "5"})), DONE])
    inner = create_agent(model, [as_langchain(pay)])

    async def runs(state: MessagesState) -> dict[str, Any]:
        return {"messages": (await inner.ainvoke({"messages": state["messages"]}))["messages"]}

    run = await world.start(agent_job(runs, pay, approve_when=always))
    assert ended(await run.approve()) == (RunState.COMPLETED, Outcome.APPROVED)
    assert world.provider.done == [("pay", "5 ann")]
    assert len(model.asked) == 2
