"""What is executed, recorded and waited for on a bad day, or with a hostile node: no less than on a good one."""

from __future__ import annotations

import asyncio
from contextlib import suppress
from datetime import timedelta
from decimal import Decimal
from typing import Annotated, Any

import pytest
import sqlalchemy as sa
from langgraph.graph import START
from langgraph.types import interrupt
from pydantic import AfterValidator, SecretStr
from tests.guardrails.transfers import one_node, pays
from tests.outside import (
    Provider,
    Trouble,
    World,
    a_world,
    answer,
    chain,
    ended,
    job,
    look,
    pay,
    post,
    says,
    the_review,
)

from eventwright.graphs.judgement import choose
from eventwright.graphs.workflow import On
from eventwright.guardrails.budgets import Budget
from eventwright.guardrails.policy import Policy
from eventwright.guardrails.rules import always, from_person, from_record
from eventwright.guardrails.verdicts import Denied, Rejected
from eventwright.runs.states import Outcome, Reason, RunState
from eventwright.tools.contract import Call, NotDone, Role, tool
from eventwright.tools.model_tool import ask_model


@tool(writes="plain", name="outside.unlock")
async def unlock(code: SecretStr, *, call: Call) -> None:
    """Unlock a door."""
    await call.use(Provider).do("unlock", code.get_secret_value(), call)


@tool(writes="plain", name="outside.tip")
async def tip(amount: Annotated[int, AfterValidator(lambda amount: amount + 10)], *, call: Call) -> None:
    """Give somebody money, and ten more."""
    await call.use(Provider).do("tip", str(amount), call)


class TestWhatIsExecuted:
    """If it is not exactly what the stages looked at and what a person was shown, it does not happen."""

    async def test_was_not_changed_by_a_rule(self, world: World) -> None:
        def meddles(arguments: Any) -> bool:
            arguments.amount = Decimal(9000)
            return bool(asks.pop())

        asks = [False]
        run = await world.start(one_node(tools=[pay], approve_when=meddles))
        assert ended(await run.run()) == (RunState.FAILED, Reason.NOT_RETRYABLE)
        assert world.provider.calls == []
        asks = [True]
        run = await world.start(one_node(tools=[pay], approve_when=meddles))
        assert (await the_review(run)).arguments == {"amount": "500", "to": "ann"}
        await run.approve()
        assert world.provider.done == [("pay", "500 ann")]

    @pytest.mark.parametrize("call", [lambda: unlock("1234"), lambda: tip(100)], ids=["hides", "grows"])
    async def test_was_not_changed_by_a_type(self, world: World, call: Any) -> None:
        async def node(state: Any) -> dict[str, Any]:
            await call()
            return {}

        run = await world.start(one_node(node, tools=[unlock, tip]))
        assert ended(await run.run()) == (RunState.FAILED, Reason.NOT_RETRYABLE)
        assert world.provider.calls == []


class TestABadDay:
    async def test_a_record_that_could_not_be_written_is_no_failure_of_the_call(
        self, postgres_url: str, postgres_server: Any
    ) -> None:
        """The provider has done it while the database was away; a node that takes this for a failure does nothing
        else instead, and the call is not made twice."""
        database = sa.make_url(postgres_url).database
        closes = f"ALTER DATABASE {database} ALLOW_CONNECTIONS false"
        drops = f"SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = '{database}'"  # noqa: S608
        opens = f"ALTER DATABASE {database} ALLOW_CONNECTIONS true"
        turns = iter([[closes, drops], []])

        @tool(writes="keyed", name="outside.charge", trusted=True)
        async def charge(*, call: Call) -> str:
            """Charge somebody."""
            done = await call.use(Provider).do("charge", "", call, repeats=False)
            for statement in next(turns):
                await asyncio.to_thread(postgres_server.execute, statement)
            return done

        async def node(state: Any) -> dict[str, Any]:
            try:
                return {"log": [await charge()]}
            except Exception as error:  # noqa: BLE001 - as authors do
                await asyncio.to_thread(postgres_server.execute, opens)
                return {"log": [await post(f"sorry: {error}")]}

        async with a_world(postgres_url) as world:
            run = await world.send(one_node(node, tools=[charge, post]))
            await world.engine.advance(run.run_id)
            assert (await run.run()).state is RunState.PROCESSING
            world.deploy(*world.engine.workflows)
            await world.due(run)
            assert ended(await world.take(run.run_id).go_on()) == (RunState.COMPLETED, Outcome.AUTO)
            assert world.provider.done == [("charge", "")]

    async def test_a_write_is_not_made_on_the_word_of_a_read_that_is_not_on_record(
        self, postgres_url: str, postgres_server: Any
    ) -> None:
        """The next worker would read something else, and could not tell why this was written."""
        database = sa.make_url(postgres_url).database
        closes = f"ALTER DATABASE {database} ALLOW_CONNECTIONS false"
        drops = f"SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = '{database}'"  # noqa: S608
        opens = f"ALTER DATABASE {database} ALLOW_CONNECTIONS true"

        @tool(name="outside.guess", trusted=True)
        async def guess(*, call: Call) -> str:
            """Guess."""
            for statement in (closes, drops):
                await asyncio.to_thread(postgres_server.execute, statement)
            return "something"

        async def node(state: Any) -> dict[str, Any]:
            word = await guess()
            await asyncio.sleep(3)  # longer than the store tries
            await asyncio.to_thread(postgres_server.execute, opens)
            return {"log": [await post(word)]}

        async with a_world(postgres_url) as world:
            run = await world.send(one_node(node, tools=[guess, post]))
            await world.engine.advance(run.run_id)
            assert world.provider.calls == []

    async def test_a_result_with_a_character_that_a_database_may_not_take_is_recorded(self, postgres_url: str) -> None:
        @tool(name="outside.odd", trusted=True)
        async def odd(*, call: Call) -> str:
            """Read something odd."""
            return "a\x00b"

        async def node(state: Any) -> dict[str, Any]:
            return {"n": len(await odd())}

        async with a_world(postgres_url) as world:
            run = await world.start(one_node(node, tools=[odd]))
            assert ended(await run.run()) == (RunState.COMPLETED, Outcome.AUTO)

    async def test_a_trigger_that_cannot_say_who_asked_ends_the_run_with_a_reason(self, world: World) -> None:
        workflow = job(
            chain(node=pays),
            {"node": Policy(tools=[pay])},
            triggers=[On("job", requester=lambda event: event.data["by"])],
        )
        run = await world.send(workflow, {"log": []})
        await run.go_on()
        assert ended(await run.run()) == (RunState.FAILED, Reason.NOT_RETRYABLE)
        assert "requester" in ((await run.run()).error or "")

    async def test_prepared_content_stays_the_answer_though_the_question_changed_between_attempts(
        self, model_world: Any
    ) -> None:
        world, server = model_world
        server.script = [503, 503]
        questions = iter(["one?", "two?", "two?"])

        async def node(state: Any) -> dict[str, Any]:
            judged = await choose(next(questions), ["red", "blue"])
            return {"log": [judged.value, judged.model, await post("decided")]}

        policy = {"tools": [post], "retries": 1, "fallback": "blue", "approve_when": always}
        run = await world.start(one_node(node, **policy))
        assert (await run.approve()).state is RunState.COMPLETED
        assert (await run.values())["log"][:2] == ["blue", "fallback"]

    async def test_prepared_content_stays_the_answer_when_the_budget_has_more_the_next_time(
        self, model_world: Any
    ) -> None:
        world, server = model_world
        server.script = [answer("red")]

        async def node(state: Any) -> dict[str, Any]:
            judged = [await choose(f"{number}?", ["red", "blue"]) for number in range(2)]
            return {"log": [*(one.value for one in judged), await post("decided")]}

        budgets = [Budget("calls", 1, per="day", of=ask_model, then="fallback")]
        policy = {"tools": [post], "fallback": "blue", "approve_when": {post: always}, "budgets": budgets}
        run = await world.start(one_node(node, **policy))
        asked = await the_review(run)
        assert asked.arguments == {"text": "decided"}
        world.clock.pass_until(world.clock() + timedelta(days=2))
        assert (await run.approve()).state is RunState.COMPLETED
        assert (await run.values())["log"] == ["red", "blue", "post decided"]
        assert server.asked == 1

    async def test_a_write_whose_answer_nobody_understands_does_not_look_as_if_it_had_not_happened(
        self, world: World
    ) -> None:
        @tool(writes="keyed", name="outside.charge")
        async def charge(*, call: Call) -> int:
            """Charge somebody, and answer in words."""
            return await call.use(Provider).do("charge", "", call)  # type: ignore[return-value]

        async def node(state: Any) -> dict[str, Any]:
            try:
                await charge()
            except NotDone:
                await post("charge it some other way")
            return {}

        run = await world.start(one_node(node, tools=[charge, post]))
        assert ended(await run.run()) == (RunState.FAILED, Reason.NOT_RETRYABLE)
        assert [name for name, _ in world.provider.done] == ["charge"]


class TestWhatIsNoRecord:
    @pytest.mark.parametrize("way", ["failed", "in doubt", "rejected", "withdrawn"])
    async def test_of_ours_and_no_persons_word(self, world: World, way: str) -> None:
        texts = iter(["ann"] if way != "withdrawn" else ["ann", "bob", "bob"])

        async def asks(state: Any) -> dict[str, Any]:
            with suppress(NotDone, Rejected):
                if way == "failed":
                    await look("ann")
                else:
                    await post("ann" if way != "withdrawn" else next(texts))
            return {"log": ["asked"]}

        async def sends(state: Any) -> dict[str, Any]:
            return {"log": [await pay(Decimal(1), "ann")]}

        async def beside(state: Any) -> dict[str, Any]:
            interrupt("one?")
            return {}

        known = from_person("text", at="asks") | from_record(look, "to", at="asks") | from_record(post, "to", at="asks")
        policies = {
            "asks": Policy(tools=[look, post], approve_when=None if way in ("failed", "in doubt") else always),
            "sends": Policy(tools=[pay], rules={pay: {"to": known}}),
        }
        graph = chain(asks=asks, sends=sends)
        if way == "withdrawn":
            graph.add_node("beside", beside)
            graph.add_edge(START, "beside")
        if way in ("failed", "in doubt"):
            world.provider.troubles = [Trouble(NotDone("no")) if way == "failed" else Trouble(OSError("who knows"))]
        run = await world.start(job(graph, policies))
        match way:
            case "in doubt":
                await run.respond({"happened": True})
            case "rejected":
                await run.reject()
            case "withdrawn":
                [question] = [one for one in await run.reviews() if one.interrupt_id]
                await run.answer(says("approve"), question.id)
                await run.approve()
        assert ended(await run.run()) == (RunState.FAILED, Reason.NOT_RETRYABLE)
        assert not [call for call in world.provider.done if call[0] == "pay"]


class TestErrorsMeanNo:
    async def test_a_default_of_a_rules_second_parameter_is_the_authors(self, world: World) -> None:
        def large(call: Any, relaxed: bool = False) -> bool:
            return not relaxed and call.amount > 100

        run = await world.start(one_node(tools=[pay], approve_when=large))
        assert (await the_review(run)).arguments == {"amount": "500", "to": "ann"}

    async def test_a_record_that_the_deployed_tool_cannot_read_parks_the_run(self, world: World) -> None:
        """A node that takes it for a failure would do something else, though the call was made."""

        def deployed(version: int) -> Any:
            if version == 1:

                @tool(writes="keyed", name="outside.charge", trusted=True)
                async def charge(much: int = 1, *, call: Call) -> str:
                    """Charge somebody."""
                    return await call.use(Provider).do("charge", "", call, repeats=False)

            else:

                @tool(writes="keyed", name="outside.charge", trusted=True)
                async def charge(much: int = 1, *, call: Call) -> int:  # type: ignore[misc]
                    """Charge somebody."""
                    return len(await call.use(Provider).do("charge", "", call, repeats=False))

            async def node(state: Any) -> dict[str, Any]:
                try:
                    await charge()
                except Exception:  # noqa: BLE001 - as authors do
                    await post("charge it some other way")
                interrupt("go on?")
                return {}

            return one_node(node, tools=[charge, post])

        run = await world.start(deployed(1))
        world.deploy(deployed(2))
        assert ended(await world.take(run.run_id).approve()) == (RunState.FAILED, Reason.NONDETERMINISTIC)
        assert [name for name, _ in world.provider.done] == ["charge"]

    async def test_a_stage_that_fails_denies(self, world: World) -> None:
        """A tool whose roles were tampered with makes the stage of labels fail."""

        @tool(writes="plain", name="outside.shout")
        async def shout(text: Annotated[str, Role.CONTENT], *, call: Call) -> None:
            """Shout."""
            await call.use(Provider).do("shout", text, call)

        shout.roles["volume"] = Role.AMOUNT

        async def node(state: Any) -> dict[str, Any]:
            with suppress(Denied):
                await shout("hello")
                raise AssertionError
            return {"log": ["denied"]}

        run = await world.start(job(chain(node=node), {"node": Policy(tools=[shout])}, triggers=[On("job")]))
        assert (await run.values())["log"][-1] == "denied"
        assert world.provider.calls == []
        assert any(
            stage["stage"] == "labels" and stage["verdict"] == "deny"
            for entry in await run.journal()
            if entry.kind == "verdict"
            for stage in entry.data["stages"]
        )
