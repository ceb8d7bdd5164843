"""What a node has seen fail is still true when it runs again: a person's answer is about what they were told."""

from __future__ import annotations

import asyncio
import gc
from collections.abc import AsyncIterator
from datetime import timedelta
from decimal import Decimal
from typing import Any

import pytest
from langchain_core.messages import ToolMessage
from langgraph.graph import START, StateGraph
from langgraph.prebuilt import ToolNode
from langgraph.types import RetryPolicy, interrupt
from tests.outside import (
    ModelServer,
    State,
    Trouble,
    World,
    a_world,
    answer,
    book,
    chain,
    ended,
    job,
    look,
    pay,
    post,
    says,
    the_effect,
)
from tests.scripted import calls
from tests.toolbox import Tools, answers, workflow

from eventwright.graphs.judgement import choose
from eventwright.guardrails.failures import again, kept
from eventwright.guardrails.policy import Backoff, Policy
from eventwright.guardrails.rules import always
from eventwright.runs.errors import StoreUnavailable
from eventwright.runs.failpoints import Failpoint, on_failpoint
from eventwright.runs.records import EffectState
from eventwright.runs.states import Outcome, RunState
from eventwright.tools.breaker import ProviderDown
from eventwright.tools.contract import NotDone, Permanent
from eventwright.tools.langchain_tools import langchain_tool
from eventwright.tools.models import ModelAnswerInvalid

FAST = Backoff(first=0.01, most=0.01)


@pytest.fixture
async def world(database_url: str) -> AsyncIterator[World]:
    async with a_world(database_url) as world:
        yield world


class Closed(Permanent):
    """The till is closed."""

    def __init__(self, till: int, until: str) -> None:
        self.till, self.until = till, until
        super().__init__(f"till {till} is closed until {until}")


class Opaque(NotDone):
    """It carries what no database holds."""

    def __init__(self) -> None:
        self.connection = object()
        super().__init__("no line")


async def pays_or_asks(state: Any) -> dict[str, Any]:
    """Pay; if that fails, ask somebody what to do instead."""
    try:
        return {"log": [await pay(Decimal(5))]}
    except NotDone as error:
        told = [type(error).__name__, str(error), error.retry_after]
        return {"log": [*told, interrupt("What else?")]}


def paying(**policy: Any) -> Any:
    return job(chain(node=pays_or_asks), {"node": Policy(tools=[pay, post, look, book], backoff=FAST, **policy)})


def one(node: Any, graph: StateGraph[Any, Any, Any, Any] | None = None, **policy: Any) -> Any:
    tools = [pay, post, look, book]
    return job(graph or chain(node=node), {"node": Policy(tools=tools, backoff=FAST, **policy)})


def side_by_side(beside: Any) -> Any:
    graph: StateGraph[Any, Any, Any, Any] = StateGraph(State)
    for name, node in (("node", pays_or_asks), ("beside", beside)):
        graph.add_node(name, node)
        graph.add_edge(START, name)
    return job(graph, {"node": Policy(tools=[pay]), "beside": Policy(retries=3, backoff=FAST)})


class TestWhatIsMadeAnew:
    async def test_a_call_of_which_no_failure_is_on_record_yet(self, world: World) -> None:
        """The database goes away between the failure and its record, and the worker gives up: nobody has seen it."""

        def goes_away(point: Failpoint) -> None:
            if point is Failpoint.LEDGER_FAILING:
                raise StoreUnavailable("the database is away")

        world.provider.troubles = [Trouble(NotDone("busy"))]
        run = await world.send(paying())
        on_failpoint(goes_away)
        try:
            assert await world.engine.advance(run.run_id) is None
        finally:
            on_failpoint(None)
        world.deploy(*world.engine.workflows)
        assert (await world.take(run.run_id).go_on()).state is RunState.COMPLETED
        assert len(world.provider.calls) == 2

    async def test_by_a_node_that_has_failed_in_the_end(self, world: World) -> None:
        async def node(state: Any) -> dict[str, Any]:
            try:
                return {"log": [await pay(Decimal(5))]}
            except NotDone:
                raise ValueError("without a payment there is nothing to do") from None

        world.provider.troubles = [Trouble(NotDone("busy")), Trouble(NotDone("busy"))]
        run = await world.start(one(node, retries=2))
        assert ended(await run.run()) == (RunState.COMPLETED, Outcome.AUTO)
        assert (await run.values())["log"] == ["pay 5 ann"]

    async def test_by_every_try_of_langgraphs_own_retry_policy(self, world: World) -> None:
        async def node(state: Any) -> dict[str, Any]:
            return {"log": [await pay(Decimal(5))]}

        graph: StateGraph[Any, Any, Any, Any] = StateGraph(State)
        retry = RetryPolicy(max_attempts=3, initial_interval=0.01, jitter=False, retry_on=NotDone)
        graph.add_node("node", node, retry_policy=retry)
        graph.add_edge(START, "node")
        world.provider.troubles = [Trouble(NotDone("busy")), Trouble(NotDone("busy"))]
        run = await world.start(one(node, graph))
        assert (await run.run()).attempts == 1
        assert (await run.values())["log"] == ["pay 5 ann"]

    async def test_by_a_node_whose_time_was_up(self, world: World) -> None:
        hangs = iter([True, False])

        async def node(state: Any) -> dict[str, Any]:
            try:
                return {"log": [await pay(Decimal(5))]}
            except NotDone:
                if next(hangs):
                    await asyncio.Event().wait()
                return {"log": ["not paid"]}

        world.provider.troubles = [Trouble(NotDone("busy"))]
        run = await world.start(one(node, retries=1, timeout=1.0))
        assert (await run.values())["log"] == ["pay 5 ann"]

    @pytest.mark.parametrize("from_start", [False, True])
    async def test_in_a_run_that_an_operator_replays(self, world: World, from_start: bool) -> None:
        fails = iter([True, False])

        async def node(state: Any) -> dict[str, Any]:
            paid = "paid"
            try:
                await pay(Decimal(5))
            except NotDone:
                paid = "not paid"
            if next(fails):
                raise Permanent("something else")
            return {"log": [paid]}

        world.provider.troubles = [Trouble(NotDone("busy"))]
        run = await world.start(one(node))
        assert (await run.run()).state is RunState.FAILED
        await world.engine.replay(run.run_id, by="olga", from_start=from_start)
        assert (await run.go_on()).state is RunState.COMPLETED
        assert (await run.values())["log"] == ["paid"]

    async def test_beside_a_node_for_whose_sake_an_operator_replays(self, world: World) -> None:
        fails = iter([True, False])

        async def beside(state: Any) -> dict[str, Any]:
            if next(fails):
                raise Permanent("no such account")
            return {"log": []}

        world.provider.troubles = [Trouble(NotDone("busy"))]
        run = await world.start(side_by_side(beside))
        assert (await run.run()).state is RunState.FAILED
        await world.engine.replay(run.run_id, by="olga")
        assert (await run.go_on()).state is RunState.COMPLETED
        assert (await run.values())["log"] == ["pay 5 ann"]

    async def test_a_call_whose_error_cannot_be_kept(self, world: World) -> None:
        world.provider.troubles = [Trouble(Opaque())]
        run = await world.start(paying())
        assert (await run.respond("wait")).state is RunState.COMPLETED
        assert world.provider.done == [("pay", "5 ann")]

    async def test_a_call_that_may_have_been_done_after_all(self, world: World) -> None:
        async def node(state: Any) -> dict[str, Any]:
            try:
                return {"log": [await pay(Decimal(5))]}
            except OSError:
                return {"log": [interrupt("Pay by hand?")]}

        world.provider.troubles = [Trouble(OSError("connection lost"), happens=True)]
        run = await world.start(one(node))
        await run.respond("yes")
        assert (await run.values())["log"] == ["pay 5 ann"]
        assert the_effect(await run.effects(), "outside.pay").state is EffectState.DONE

    async def test_a_call_with_other_arguments(self, world: World) -> None:
        amounts = iter(["5", "6"])

        async def node(state: Any) -> dict[str, Any]:
            try:
                return {"log": [await pay(Decimal(next(amounts)))]}
            except NotDone:
                return {"log": [interrupt("How much?")]}

        world.provider.troubles = [Trouble(NotDone("too little"))]
        run = await world.start(one(node))
        await run.respond("6")
        assert world.provider.done == [("pay", "6 ann")]


class TestWhatStillFails:
    @pytest.mark.parametrize(
        "error",
        [
            NotDone("busy", retry_after=7.0),
            Permanent("nul \x00 half \ud800"),
            Closed(3, "noon"),
            ProviderDown("the till is down: no answer", providers=("till",), retry_after=7.0),
        ],
        ids=lambda error: type(error).__name__,
    )
    async def test_what_a_person_was_told_is_so_when_they_have_answered(self, world: World, error: NotDone) -> None:
        world.provider.troubles = [Trouble(error)]
        run = await world.start(paying(patience=timedelta(0)))
        assert (await run.run()).state is RunState.PENDING_APPROVAL
        world.deploy(*world.engine.workflows)
        done = await world.take(run.run_id).respond("send a cheque")

        assert ended(done)[0] is RunState.COMPLETED
        words = str(error).replace("\x00", "\ufffd").replace("\ud800", "?")
        assert (await run.values())["log"] == [
            type(error).__name__,
            words,
            getattr(error, "retry_after", None),
            "send a cheque",
        ]
        assert len(world.provider.calls) == 1

    async def test_a_node_that_another_worker_takes_over_goes_the_way_it_went(self, world: World) -> None:
        async def node(state: Any) -> dict[str, Any]:
            try:
                return {"log": [await book("seat 1")]}
            except NotDone:
                return {"log": [await look("seat 2")]}

        world.provider.troubles = [Trouble(NotDone("taken")), Trouble()]
        run = await world.crash(await world.send(one(node)))
        assert (await run.go_on()).state is RunState.COMPLETED
        assert [name for name, *_ in world.provider.calls] == ["book", "look", "look"]

    async def test_an_approved_call_that_failed_before_another_one_was_asked_about(self, world: World) -> None:
        async def node(state: Any) -> dict[str, Any]:
            try:
                return {"log": [await pay(Decimal(5))]}
            except NotDone as error:
                return {"log": [await post(f"we could not pay: {error}")]}

        run = await world.start(one(node, approve_when=always))
        world.provider.troubles = [Trouble(NotDone("busy"))]
        assert (await run.approve()).state is RunState.PENDING_APPROVAL
        assert ended(await run.approve()) == (RunState.COMPLETED, Outcome.PARTIAL)
        assert world.provider.done == [("post", "we could not pay: busy")]
        assert len(world.provider.calls) == 2

    async def test_each_of_several_calls_ends_as_it_ended(self, world: World) -> None:
        async def node(state: Any) -> dict[str, Any]:
            log: list[Any] = []
            for amount in ("1", "2", "3"):
                try:
                    log.append(await pay(Decimal(amount)))
                except NotDone as error:
                    log.append(str(error))
            return {"log": [*log, interrupt("Is that enough?")]}

        world.provider.troubles = [Trouble(NotDone("busy")), None, Trouble(NotDone("closed"))]
        run = await world.start(one(node))
        await run.respond("yes")
        assert (await run.values())["log"] == ["busy", "pay 2 ann", "closed", "yes"]
        assert len(world.provider.calls) == 3

    async def test_while_a_node_beside_it_is_tried_again(self, world: World) -> None:
        """The question stands, whatever becomes of its neighbour."""
        tries = iter(range(9))

        async def beside(state: Any) -> dict[str, Any]:
            if next(tries) < 2:
                raise NotDone("not yet")
            return {"log": []}

        world.provider.troubles = [Trouble(NotDone("busy"))]
        run = await world.start(side_by_side(beside))
        for review in await run.reviews():
            await world.engine.decide(review.id, says("respond", response="cash"))
        assert (await run.go_on()).state is RunState.COMPLETED
        assert (await run.values())["log"] == ["NotDone", "busy", None, "cash"]
        assert len(world.provider.calls) == 1

    async def test_what_a_tool_node_told_its_model_that_it_tried_twice(self, world: World) -> None:
        searched = asyncio.Event()

        async def twice(request: Any, execute: Any) -> Any:
            if request.tool_call["name"] == "post":
                await searched.wait()
            words = []
            for _ in range(2):
                try:
                    return await execute(request)
                except NotDone as error:
                    words.append(str(error))
            searched.set()
            return ToolMessage(" and ".join(words), status="error", tool_call_id=request.tool_call["id"])

        tools = Tools()
        tools.errors = [NotDone("busy"), NotDone("closed")]
        named = [langchain_tool(tools.search, reads=True), langchain_tool(tools.post, writes="plain")]
        node = ToolNode([tools.search, tools.post], awrap_tool_call=twice)
        made = calls(("search", {"query": "x"}), ("post", {"text": "y"}))
        run = await world.start(workflow(made, node, *named, approve_when=always))
        assert (await run.run()).state is RunState.PENDING_APPROVAL
        assert (await run.approve()).state is RunState.COMPLETED
        assert await answers(run) == [("error", "busy and closed"), ("success", "post y ann")]
        assert tools.ran == [("search", "x"), ("search", "x"), ("post", "y ann")]


async def test_a_question_that_a_model_could_not_answer_is_not_put_to_it_again(
    model_world: tuple[World, ModelServer],
) -> None:
    world, server = model_world
    server.script = [answer("green"), answer("red")]

    async def node(state: Any) -> dict[str, Any]:
        try:
            return {"log": [(await choose("which?", ["red", "blue"])).value]}
        except ModelAnswerInvalid:
            return {"log": [interrupt("Which?")]}

    run = await world.start(job(chain(node=node), {"node": Policy(retries=1)}))
    await run.respond("blue")
    assert (await run.values())["log"] == ["blue"]
    assert server.asked == 1


class TestAnErrorOnRecord:
    def test_of_a_class_that_is_gone_is_of_the_next_one_above_it(self) -> None:
        class Gone(Closed):
            """A release without it follows."""

        [failure] = kept(Gone(3, "noon"))
        assert type(again(failure)) is Gone
        del Gone
        gc.collect()
        error = again(failure)
        assert type(error) is Closed
        assert (error.till, error.until) == (3, "noon")
        assert type(again({**failure, "classes": ["no.longer.There"]})) is NotDone

    def test_that_is_none_of_a_call_that_was_not_done_is_not_kept(self) -> None:
        assert kept(OSError("connection lost")) == ()
