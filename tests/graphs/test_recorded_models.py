"""An author's own chat model, and the model of the process, are asked once and for all."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest
from langchain_core.caches import InMemoryCache
from langchain_core.globals import get_llm_cache, set_llm_cache
from langchain_core.language_models import FakeListLLM
from langchain_core.messages import AIMessage, HumanMessage
from langchain_core.tools import tool
from pydantic import BaseModel
from tests.outside import World, a_world, chain, ended, job, pay, post
from tests.scripted import Hangs, Late, ScriptedModel, calls

from eventwright.app.composition import open_app
from eventwright.app.settings import Settings
from eventwright.app.simulate import simulate
from eventwright.graphs.recorded_models import LedgerCache, recorded_models
from eventwright.graphs.workflow import Workflow
from eventwright.guardrails.budgets import Budget
from eventwright.guardrails.policy import Policy
from eventwright.guardrails.rules import always
from eventwright.runs.records import EffectState
from eventwright.runs.states import Outcome, Reason, RunState
from eventwright.tools.chat_models import process_model
from eventwright.tools.contract import OutsideGate
from eventwright.tools.langchain_tools import langchain_tool


@pytest.fixture
async def world(sqlite_url: str) -> AsyncIterator[World]:
    async with a_world(sqlite_url) as world:
        with recorded_models():
            yield world


#: An author's own model in a node, and the model of the process.
KINDS = ["own", "process"]


def model_of(kind: str, world: World, *script: Any) -> tuple[ScriptedModel, Any]:
    """A scripted model, and what a node asks to reach it."""
    scripted = ScriptedModel(script=list(script))
    if kind == "own":
        return scripted, scripted
    world.resources = type(world.resources)((scripted, world.provider))
    return scripted, process_model()


def asks_then_pays(model: Any) -> Workflow:
    async def node(state: Any) -> dict[str, Any]:
        answer = await model.ainvoke([HumanMessage("how much?")])
        return {"log": [await pay(Decimal(answer.content))]}

    return job(chain(node=node), {"node": Policy(tools=[pay], approve_when=always, retries=1)})


# -- what goes wrong ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", KINDS)
class TestAModelThatFails:
    async def test_is_asked_again_by_the_next_attempt_and_its_error_is_no_answer(self, world: World, kind: str) -> None:
        scripted, model = model_of(kind, world, TimeoutError("too slow"), AIMessage("5"))
        run = await world.start(asks_then_pays(model))
        assert ended(await run.approve()) == (RunState.COMPLETED, Outcome.APPROVED)
        [effect] = [effect for effect in await run.effects() if effect.tool == "model.chat"]
        assert (effect.state, effect.attempt, len(scripted.asked)) == (EffectState.DONE, 2, 2)

    async def test_and_is_asked_again_in_the_same_node_is_one_question(self, world: World, kind: str) -> None:
        scripted, model = model_of(kind, world, ValueError("no"), ValueError("no"), AIMessage("5"), AIMessage("6"))
        run = await world.start(asks_then_pays(model.with_retry(stop_after_attempt=3, wait_exponential_jitter=False)))
        assert ended(await run.approve()) == (RunState.COMPLETED, Outcome.APPROVED)
        assert world.provider.done == [("pay", "5 ann")]
        assert len(scripted.asked) == 3

    async def test_for_good_makes_a_dead_letter_and_is_on_record(self, world: World, kind: str) -> None:
        _scripted, model = model_of(kind, world, *[ValueError("broken")] * 2)
        run = await world.start(asks_then_pays(model))
        assert ended(await run.run()) == (RunState.FAILED, Reason.ATTEMPTS)
        [effect] = await run.effects()
        assert (effect.tool, effect.state) == ("model.chat", EffectState.FAILED)
        assert "broken" in str(effect.error)


@pytest.mark.parametrize("kind", KINDS)
async def test_another_question_in_the_same_place_parks_the_run_whatever_the_node_catches(
    world: World, kind: str
) -> None:
    """LangChain lets only ordinary errors out of a model; a node that catches this one can call nothing more."""
    _, model = model_of(kind, world, AIMessage("5"), AIMessage("6"))
    times = iter(["one", "two"])

    async def node(state: Any) -> dict[str, Any]:
        try:
            answer = await model.with_retry(stop_after_attempt=2).ainvoke(f"how much, at {next(times)}?")
            return {"log": [await pay(Decimal(answer.content))]}
        except Exception:  # noqa: BLE001 - what an author may write
            await post("the model is down")
            return {"log": ["posted"]}

    run = await world.start(job(chain(node=node), {"node": Policy(tools=[pay, post], approve_when={pay: always})}))
    assert ended(await run.approve()) == (RunState.FAILED, Reason.NONDETERMINISTIC)
    assert world.provider.done == []


@pytest.mark.parametrize("kind", KINDS)
async def test_a_crash_while_the_model_thinks_asks_it_again_and_nothing_else(world: World, kind: str) -> None:
    hangs = Hangs()
    scripted, model = model_of(kind, world, AIMessage("first"), hangs, AIMessage("second"))

    async def node(state: Any) -> dict[str, Any]:
        first = await model.ainvoke("one")
        await post("letter")
        second = await model.ainvoke(f"two after {first.content}")
        return {"log": [first.content, second.content]}

    run = await world.send(job(chain(node=node), {"node": Policy(tools=[post])}))
    process = world.engine
    segment = asyncio.create_task(process.advance(run.run_id))
    await hangs.reached.wait()
    segment.cancel()
    await asyncio.gather(segment, return_exceptions=True)
    world.deploy(*process.workflows)
    run = world.take(run.run_id)
    await world.due(run)
    assert (await run.go_on()).state is RunState.COMPLETED
    assert (await run.values())["log"] == ["first", "second"]
    assert [messages[-1].content for messages, _ in scripted.asked] == ["one", "two after first", "two after first"]
    assert world.provider.done == [("post", "letter")]


@pytest.mark.parametrize("kind", KINDS)
async def test_a_timeout_of_the_node_leaves_no_answer_and_no_open_question(world: World, kind: str) -> None:
    _scripted, model = model_of(kind, world, Hangs(), AIMessage("5"))

    async def node(state: Any) -> dict[str, Any]:
        return {"log": [(await model.ainvoke("how much?")).content]}

    run = await world.start(job(chain(node=node), {"node": Policy(timeout=1.0, retries=1)}))
    assert ended(await run.run()) == (RunState.COMPLETED, Outcome.AUTO)
    assert (await run.values())["log"] == ["5"]


async def test_a_budget_is_asked_before_an_authors_model(world: World) -> None:
    scripted = ScriptedModel(script=[AIMessage("one"), AIMessage("two")])

    async def node(state: Any) -> dict[str, Any]:
        return {"log": [(await scripted.ainvoke(word)).content for word in ("a", "b", "c")]}

    run = await world.start(job(chain(node=node), {"node": Policy(budgets=[Budget("calls", 2)])}))
    assert ended(await run.run()) == (RunState.FAILED, Reason.NOT_RETRYABLE)
    assert len(scripted.asked) == 2


async def test_tokens_of_the_process_model_are_counted_and_those_of_an_authors_model_cannot_be(world: World) -> None:
    used = AIMessage("one", usage_metadata={"input_tokens": 30, "output_tokens": 40, "total_tokens": 70})
    scripted, model = model_of("process", world, used, used)

    async def node(state: Any) -> dict[str, Any]:
        return {"log": [(await model.ainvoke(word)).content for word in ("a", "b")]}

    for most, asked in ((20_000, 2), (1_000, 0)):
        scripted.asked.clear()
        scripted.script[:] = [used, used]
        await world.start(job(chain(node=node), {"node": Policy(budgets=[Budget("tokens", most)])}))
        assert len(scripted.asked) == asked
    spent = {use.label: use.used for use in await world.store.budgets()}
    assert sorted(spent.values())[-1] == 140

    model = scripted
    run = await (await world.start(job(chain(node=node), {"node": Policy(budgets=[Budget("tokens", 20_000)])}))).run()
    assert "nobody can say how many tokens" in str(run.error)


async def test_a_model_asked_synchronously_in_a_coroutine_is_refused(world: World) -> None:
    scripted = ScriptedModel(script=[AIMessage("one")])

    async def node(state: Any) -> dict[str, Any]:
        return {"log": [scripted.invoke("a").content]}

    run = await (await world.start(job(chain(node=node)))).run()
    assert (run.state, len(scripted.asked)) == (RunState.FAILED, 0)
    assert "await its ainvoke()" in str(run.error)


# -- what is asked once ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", KINDS)
class TestAnAnswer:
    async def test_that_a_person_approved_is_what_happens(self, world: World, kind: str) -> None:
        """The node runs again after the approval; a model that is asked again might say something else."""
        scripted, model = model_of(kind, world, AIMessage("5"), AIMessage("5000"))
        run = await world.start(asks_then_pays(model))
        assert ended(await run.approve()) == (RunState.COMPLETED, Outcome.APPROVED)
        assert world.provider.done == [("pay", "5 ann")]
        assert len(scripted.asked) == 1

    async def test_that_goes_into_the_next_question_is_the_same_on_replay(self, world: World, kind: str) -> None:
        _scripted, model = model_of(
            kind,
            world,
            AIMessage("a", usage_metadata={"input_tokens": 3, "output_tokens": 4, "total_tokens": 7}),
            AIMessage("5"),
        )

        async def node(state: Any) -> dict[str, Any]:
            said = [HumanMessage("one"), await model.ainvoke("one")]
            answer = await model.ainvoke([*said, HumanMessage("how much?")])
            return {"log": [await pay(Decimal(answer.content))]}

        run = await world.start(job(chain(node=node), {"node": Policy(tools=[pay], approve_when=always)}))
        assert ended(await run.approve()) == (RunState.COMPLETED, Outcome.APPROVED)
        first = next(effect for effect in await run.effects() if effect.ordinal == "0" and effect.tool == "model.chat")
        assert (first.result["input_tokens"], first.result["output_tokens"]) == (3, 4)

    async def test_of_questions_asked_at_once_finds_the_one_who_asked(self, world: World, kind: str) -> None:
        scripted, model = model_of(kind, world, Late(AIMessage("a")), *map(AIMessage, "bcd"))
        heard: list[list[Any]] = []

        async def node(state: Any) -> dict[str, Any]:
            said = await asyncio.gather(*(model.ainvoke(word) for word in ("same", "same", "other", "same")))
            heard.append([answer.content for answer in said])
            await pay(Decimal(1))
            return {"log": heard[-1]}

        run = await world.start(job(chain(node=node), {"node": Policy(tools=[pay], approve_when=always)}))
        assert ended(await run.approve()) == (RunState.COMPLETED, Outcome.APPROVED)
        assert heard == [list("abcd")] * 2
        assert len(scripted.asked) == 4

    async def test_is_found_again_though_objects_lie_elsewhere_in_memory(self, world: World, kind: str) -> None:
        _, model = model_of(kind, world, AIMessage("5"))
        kept = []

        async def node(state: Any) -> dict[str, Any]:
            kept.append(object())
            answer = await model.bind(hook=kept[-1]).ainvoke("how much?")
            return {"log": [await pay(Decimal(answer.content))]}

        run = await world.start(job(chain(node=node), {"node": Policy(tools=[pay], approve_when=always)}))
        assert ended(await run.approve()) == (RunState.COMPLETED, Outcome.APPROVED)

    async def test_with_tool_calls_and_structure_comes_back_whole(self, world: World, kind: str) -> None:
        class Amount(BaseModel):
            amount: int

        message = calls(("Amount", {"amount": 5}), content="well")
        scripted, model = model_of(kind, world, message, message)

        async def node(state: Any) -> dict[str, Any]:
            bound = model.bind_tools([Amount])
            said = await bound.ainvoke("how much?")
            await pay(Decimal(said.tool_calls[0]["args"]["amount"]))
            return {"log": [said.content, said.tool_calls]}

        run = await world.start(job(chain(node=node), {"node": Policy(tools=[pay], approve_when=always)}))
        assert ended(await run.approve()) == (RunState.COMPLETED, Outcome.APPROVED)
        content, [call] = (await run.values())["log"]
        assert (content, call["name"], call["args"]) == ("well", "Amount", {"amount": 5})
        assert len(scripted.asked) == 1

    @pytest.mark.parametrize(
        "odd", [{"n": 2**60}, {"n": float("nan")}, {"n": object()}, {"n": "\ud83d"}, {"n": b"x"}], ids=range(5)
    )
    async def test_may_have_anything_beside_its_words(self, world: World, kind: str, odd: Any) -> None:
        message = AIMessage("5 \ud83d" if odd["n"] == "\ud83d" else "5", response_metadata=odd)
        _, model = model_of(kind, world, message)

        async def node(state: Any) -> dict[str, Any]:
            return {"log": [(await model.ainvoke("how much?")).content[:1]]}

        run = await world.start(job(chain(node=node)))
        assert ended(await run.run()) == (RunState.COMPLETED, Outcome.AUTO)

    async def test_in_a_synchronous_node_is_recorded_too(self, world: World, kind: str) -> None:
        scripted, model = model_of(kind, world, ValueError("no"), AIMessage("5"), AIMessage("6"))

        def node(state: Any) -> dict[str, Any]:
            try:
                model.invoke("how much?")
            except Exception:  # noqa: BLE001 - whatever the model raises
                answer = model.invoke("how much?")
            return {"log": [pay.from_thread(Decimal(answer.content))]}

        run = await world.start(job(chain(node=node), {"node": Policy(tools=[pay], approve_when=always)}))
        again = await run.approve()
        # What an author's own model raises is nothing that a ledger could keep: the node relies on it in vain.
        relied_on = {"own": (RunState.FAILED, Reason.ATTEMPTS), "process": (RunState.COMPLETED, Outcome.APPROVED)}
        assert ended(again) == relied_on[kind]
        assert len(scripted.asked) == 2

    async def test_of_a_model_inside_a_tool_does_not_shift_the_nodes_own(self, world: World, kind: str) -> None:
        """On replay the tool's recorded answer comes back, and its model is not asked."""
        scripted, model = model_of(kind, world, AIMessage("inner"), AIMessage("5"))

        @tool
        async def think(about: str) -> str:
            """Think."""
            return str((await model.ainvoke(about)).content)

        thinks = langchain_tool(think, reads=True)

        async def node(state: Any) -> dict[str, Any]:
            thought = await thinks(about="it")
            answer = await model.ainvoke("how much?")
            return {"log": [thought.content, await pay(Decimal(answer.content))]}

        run = await world.start(job(chain(node=node), {"node": Policy(tools=[pay, thinks], approve_when=always)}))
        assert ended(await run.approve()) == (RunState.COMPLETED, Outcome.APPROVED)
        assert (await run.values())["log"] == ["inner", "pay 5 ann"]
        assert len(scripted.asked) == 2


async def test_a_model_that_completes_text_is_recorded_as_well(world: World) -> None:
    model = FakeListLLM(responses=["5", "6"])

    async def node(state: Any) -> dict[str, Any]:
        return {"log": [await pay(Decimal(await model.ainvoke("how much?")))]}

    run = await world.start(job(chain(node=node), {"node": Policy(tools=[pay], approve_when=always)}))
    assert ended(await run.approve()) == (RunState.COMPLETED, Outcome.APPROVED)
    assert world.provider.done == [("pay", "5 ann")]


async def test_a_synchronous_node_that_is_replayed_gets_the_recorded_answer(world: World) -> None:
    scripted = ScriptedModel(script=[AIMessage("5"), AIMessage("6")])

    def node(state: Any) -> dict[str, Any]:
        return {"log": [pay.from_thread(Decimal(scripted.invoke("how much?").content))]}

    run = await world.start(job(chain(node=node), {"node": Policy(tools=[pay], approve_when=always)}))
    assert ended(await run.approve()) == (RunState.COMPLETED, Outcome.APPROVED)
    assert world.provider.done == [("pay", "5 ann")]
    assert len(scripted.asked) == 1


# -- the cache of the process ------------------------------------------------------------------------------------------


class TestTheCacheOfTheProcess:
    @pytest.fixture(autouse=True)
    def _as_before(self) -> Any:
        before = get_llm_cache()
        yield
        set_llm_cache(before)

    async def test_is_there_while_a_simulation_is_and_then_as_it_was(self, world: World) -> None:
        mine = InMemoryCache()
        set_llm_cache(mine)
        async with simulate(job(chain(node=_nothing)), {"log": []}):
            async with simulate(job(chain(node=_nothing)), {"log": []}):
                inner = get_llm_cache()
            assert get_llm_cache() is inner
            assert isinstance(inner, LedgerCache)
        assert get_llm_cache() is mine

    @pytest.mark.parametrize("works", [True, False])
    async def test_is_there_in_a_process_that_works_and_gone_when_it_closes(self, tmp_path: Path, works: bool) -> None:
        settings = Settings(home=tmp_path, redis_url="none")
        async with open_app(settings, workflows=[], works=works):
            assert isinstance(get_llm_cache(), LedgerCache) is works
        assert get_llm_cache() is None

    async def test_outside_of_nodes_is_the_cache_that_was_there_before(self) -> None:
        scripted = ScriptedModel(script=list(map(AIMessage, "abc")))
        with recorded_models():
            assert [(await scripted.ainvoke("x")).content for _ in range(2)] == ["a", "b"]
        set_llm_cache(InMemoryCache())
        with recorded_models():
            assert [(await scripted.ainvoke("x")).content for _ in range(2)] == ["c", "c"]
            assert scripted.invoke("x").content == "c"

    async def test_is_not_disturbed_by_a_cache_that_a_test_or_a_user_sets_within(self) -> None:
        with recorded_models():
            set_llm_cache(mine := InMemoryCache())
        assert get_llm_cache() is mine


async def test_the_model_of_the_process_works_inside_a_node_alone() -> None:
    with pytest.raises(OutsideGate):
        await process_model().ainvoke("hello")


async def _nothing(state: Any) -> dict[str, Any]:
    return {}
