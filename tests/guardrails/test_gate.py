"""The gate: whatever a node wants, only what its policy and a person allow can happen; exceptions first."""

from __future__ import annotations

import asyncio
import threading
from concurrent.futures import ThreadPoolExecutor
from decimal import Decimal
from typing import Any

import pytest
from pydantic import BaseModel
from tests.outside import World, chain, ended, job, look, pay, post, the_effect, the_review

from eventwright.guardrails.policy import Policy
from eventwright.guardrails.rules import always
from eventwright.guardrails.verdicts import Denied
from eventwright.queue.desk import UnfitDecision
from eventwright.runs.records import JournalKind, ReviewState
from eventwright.runs.states import Outcome, Reason, RunState
from eventwright.tools.contract import LONGEST_STRING, OutsideGate, tool


def verdicts(journal: Any) -> list[dict[str, Any]]:
    return [stage for entry in journal if entry.kind is JournalKind.VERDICT for stage in entry.data["stages"]]


def one_node(node: Any, **policy: Any) -> Any:
    return job(chain(node=node), {"node": Policy(**policy)})


class Person(BaseModel):
    name: str
    age: int


class TestCapability:
    async def test_a_tool_that_the_policy_does_not_name_is_denied_and_the_denial_is_on_record(
        self, world: World
    ) -> None:
        async def node(state: Any) -> dict[str, Any]:
            return {"log": [await pay(Decimal(1))]}

        run = await world.start(one_node(node, tools=[post]))

        assert ended(await run.run()) == (RunState.FAILED, Reason.NOT_RETRYABLE)
        assert world.provider.calls == []
        [verdict] = verdicts(await run.journal())
        assert (verdict["stage"], verdict["verdict"]) == ("capability", "deny")
        assert "add it to Policy(tools=[...])" in verdict["reason"]

    async def test_a_node_without_a_policy_may_call_nothing(self, world: World) -> None:
        async def node(state: Any) -> dict[str, Any]:
            return {"log": [await look("x")]}

        run = await world.start(job(chain(node=node)))
        assert ended(await run.run()) == (RunState.FAILED, Reason.NOT_RETRYABLE)
        assert world.provider.calls == []

    async def test_a_stranger_that_bears_the_name_of_an_allowed_tool_is_denied(self, world: World) -> None:
        done = []

        @tool(name="outside.look")
        async def stranger(text: str) -> str:
            """Pretend."""
            done.append(text)
            return text

        async def node(state: Any) -> dict[str, Any]:
            return {"log": [await stranger("x")]}

        run = await world.start(one_node(node, tools=[look]))
        assert (await run.run()).reason is Reason.NOT_RETRYABLE
        assert done == []

    async def test_a_node_may_catch_a_denial_and_go_another_way(self, world: World) -> None:
        async def node(state: Any) -> dict[str, Any]:
            try:
                await pay(Decimal(1))
            except Denied as denial:
                return {"log": [denial.verdict.stage]}
            raise AssertionError

        run = await world.start(one_node(node, tools=[look]))
        assert (await run.values())["log"] == ["capability"]
        assert (await run.run()).state is RunState.COMPLETED


async def pays(state: Any) -> dict[str, Any]:
    return {"log": [await pay(Decimal(500))]}


class TestSchema:
    @pytest.mark.parametrize(
        "arguments",
        [
            {"amount": float("nan")},
            {"amount": 1e309},
            {"amount": Decimal("NaN")},
            {"amount": "1.5.0"},
            {"amount": True},
            {"amount": None},
            {"amount": "1", "to": 7},
            {"amount": "1", "to": b"\xff"},
            {"amount": "1", "to": "x" * (LONGEST_STRING + 1)},
            {"amount": "1", "to": "\ud800"},
            {"amount": 2**60},
        ],
        ids=repr,
    )
    async def test_arguments_that_are_not_exactly_valid_are_denied(
        self, world: World, arguments: dict[str, Any]
    ) -> None:
        async def node(state: Any) -> dict[str, Any]:
            return {"log": [await pay(**arguments)]}

        run = await world.start(one_node(node, tools=[pay]))

        assert ended(await run.run()) == (RunState.FAILED, Reason.NOT_RETRYABLE)
        assert world.provider.calls == []
        assert verdicts(await run.journal())[-1]["stage"] == "schema"

    async def test_a_field_too_many_is_denied_though_a_person_edited_it_in(self, world: World) -> None:
        run = await world.start(one_node(pays, tools=[pay], approve_when=always))
        with pytest.raises(UnfitDecision, match="Extra"):
            await run.edit({"amount": "1", "to": "ann", "extra": 1})
        with pytest.raises(UnfitDecision):
            await run.edit({"to": "ann"})
        assert (await the_review(run)).state is ReviewState.OPEN

    @pytest.mark.parametrize(
        "person", [{"name": "ann", "age": "7"}, {"name": "ann", "age": 7, "admin": True}], ids=repr
    )
    async def test_what_is_inside_an_argument_is_as_strict(self, world: World, person: dict[str, Any]) -> None:
        greeted = []

        @tool(name="outside.greet")
        async def greet(person: Person) -> None:
            """Greet somebody."""
            greeted.append(person)

        async def node(state: Any) -> dict[str, Any]:
            return {"log": [await greet(person)]}

        run = await world.start(one_node(node, tools=[greet]))
        assert ended(await run.run()) == (RunState.FAILED, Reason.NOT_RETRYABLE)
        assert greeted == []

    async def test_decimals_as_strings_are_exact(self, world: World) -> None:
        async def node(state: Any) -> dict[str, Any]:
            return {"log": [await pay("12.50")]}

        run = await world.start(one_node(node, tools=[pay]))
        assert world.provider.done == [("pay", "12.50 ann")]
        assert the_effect(await run.effects(), "outside.pay").arguments == {"amount": "12.50", "to": "ann"}


class TestWhereAGateIs:
    async def test_outside_of_a_node_a_tool_is_closed(self) -> None:
        with pytest.raises(OutsideGate):
            await look("x")

    async def test_a_task_that_outlives_its_node_finds_the_gate_closed(self, world: World) -> None:
        late: list[asyncio.Task[str]] = []
        go = asyncio.Event()

        async def afterwards() -> str:
            await go.wait()
            return str(await post("late"))

        async def node(state: Any) -> dict[str, Any]:
            late.append(asyncio.create_task(afterwards()))
            return {"log": []}

        run = await world.start(one_node(node, tools=[post]))
        go.set()
        with pytest.raises(OutsideGate):
            await late[0]
        assert (await run.run()).state is RunState.COMPLETED
        assert world.provider.calls == []

    async def test_a_bare_thread_pool_has_no_gate_and_to_thread_has(self, world: World) -> None:
        def asks(text: str) -> str:
            try:
                return str(look.from_thread(text))
            except OutsideGate:
                return "no gate"

        async def node(state: Any) -> dict[str, Any]:
            loop = asyncio.get_running_loop()
            with ThreadPoolExecutor(1) as pool:
                bare = await loop.run_in_executor(pool, asks, "bare")
            return {"log": [bare, await asyncio.to_thread(asks, "threaded")]}

        run = await world.start(one_node(node, tools=[look]))
        assert (await run.values())["log"] == ["no gate", "look threaded"]

    async def test_a_synchronous_node_calls_pauses_and_resumes_like_any_other(self, world: World) -> None:
        threads = []

        def node(state: Any) -> dict[str, Any]:
            threads.append(threading.current_thread())
            found = look.from_thread("x")
            return {"log": [found, post.from_thread("y")]}

        run = await world.start(one_node(node, tools=[look, post], approve_when=always))
        assert (await run.run()).state is RunState.PENDING_APPROVAL
        done = await run.approve()
        assert ended(done) == (RunState.COMPLETED, Outcome.APPROVED)
        assert (await run.values())["log"] == ["look x", "post y"]
        assert [name for name, *_ in world.provider.calls] == ["look", "post"]
        assert threading.main_thread() not in threads
