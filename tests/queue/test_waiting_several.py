"""Several waits of a run, waits beside questions, what is told of them, and waits that cannot be meant."""

from __future__ import annotations

import asyncio
from datetime import UTC, datetime
from typing import Any

import pytest
from tests.outside import World, chain, ended, pay, post, says, the_review
from tests.queue.waiting_world import (
    DAY,
    amount,
    beside,
    log,
    paying,
    pays,
    replies,
    states,
    waiting,
    waits,
)

from eventwright.graphs.waiting import Continues, sleep, wait_for
from eventwright.graphs.workflow import BadWorkflow
from eventwright.guardrails.policy import Policy
from eventwright.guardrails.rules import always
from eventwright.runs.records import JournalKind
from eventwright.runs.states import Outcome, Reason, RunState
from eventwright.runs.waits import WaitState, waiting_for
from eventwright.tools.contract import OutsideGate


class TestSeveralWaits:
    async def test_of_one_node_find_their_answers_whatever_the_order(self, world: World) -> None:
        """On replay a recorded call returns at once, so the gathered waits are come to in another order."""
        order: list[str] = []

        async def one(key: str, pause: float) -> str:
            await asyncio.sleep(pause if len(order) < 3 else 0.02 - pause)
            order.append(key)
            return f"{key}: {amount(await wait_for('paid', key=key, within=DAY))}"

        async def node(state: Any) -> dict[str, Any]:
            return {"log": list(await asyncio.gather(one("7", 0.0), one("8", 0.01), one("9", 0.02)))}

        run = await waiting(world, paying(node))
        for key in ("9", "7", "8"):
            await pays(world, f"of {key}", key=key)
        assert (await run.go_on()).state is RunState.COMPLETED
        assert await log(run) == ["7: of 7", "8: of 8", "9: of 9"]

    async def test_for_the_same_are_told_apart_by_how_they_are_put(self, still: World) -> None:
        order: list[int] = []

        async def one(days: int) -> int:
            if order:
                await asyncio.sleep(0.01 * (3 - days))
            await sleep(days * DAY)
            return days

        async def node(state: Any) -> dict[str, Any]:
            try:
                return {"log": list(await asyncio.gather(one(1), one(2)))}
            finally:
                order.append(0)

        began = still.clock()
        run = await waiting(still, paying(node))
        assert (await run.run()).due_at == began + DAY
        await still.due(run)
        assert await still.engine.advance(run.run_id) is RunState.WAITING
        assert (await run.run()).due_at == began + 2 * DAY
        await still.due(run)
        assert await still.engine.advance(run.run_id) is RunState.COMPLETED

    async def test_of_nodes_side_by_side_are_each_answered(self, world: World) -> None:
        async def other(state: Any) -> dict[str, Any]:
            return {"log": [amount(await wait_for("replied", key="7", within=DAY))]}

        run = await waiting(world, paying(graph=beside(waits=waits, other=other)))
        told = (await waiting_for(world.store, [run.run_id]))[run.run_id]
        assert sorted(one.types for one in told) == [("paid",), ("replied",)]
        await pays(world)
        assert (await run.go_on()).state is RunState.WAITING
        await replies(world)
        assert (await run.go_on()).state is RunState.COMPLETED
        assert sorted(await log(run)) == ["10", "reply"]

    async def test_one_after_the_other_in_a_loop_of_a_node(self, world: World) -> None:
        async def node(state: Any) -> dict[str, Any]:
            heard: list[str] = []
            for days in (1, 2, 3):
                event = await wait_for("paid", key="7", within=days * DAY)
                heard.append(amount(event))
                if event is None:
                    await post(f"reminder {days}")
            return {"log": heard}

        run = await waiting(world, paying(node, policies={"node0": Policy(tools=[post])}, trusted=True))
        await run.pass_time(DAY)
        await pays(world, "two")
        assert (await run.go_on()).state is RunState.WAITING
        await run.pass_time(3 * DAY)
        assert (await run.run()).state is RunState.COMPLETED
        assert await log(run) == ["nothing", "two", "nothing"]
        assert world.provider.done == [("post", "reminder 1"), ("post", "reminder 3")], "each of them once"

    async def test_that_a_node_does_not_come_to_any_more_are_over(self, world: World) -> None:
        async def node(state: Any) -> dict[str, Any]:
            first = asyncio.create_task(wait_for("paid", key="7", within=5 * DAY))
            if (event := await wait_for("replied", key="7", within=DAY)) is not None:
                first.cancel()
                await asyncio.gather(first, return_exceptions=True)
                return {"log": [event.type]}
            return {"log": [amount(await first)]}

        run = await waiting(world, paying(node))
        await replies(world)
        assert (await run.go_on()).state is RunState.COMPLETED
        assert set(await states(run)) <= {WaitState.ANSWERED, WaitState.CANCELLED}
        assert await waiting_for(world.store, [run.run_id]) == {run.run_id: []}

    async def test_inside_a_graph_that_is_a_node_are_the_runs_waits(self, world: World) -> None:
        run = await waiting(world, paying(chain(inner=waits).compile()))
        await pays(world)
        assert (await run.go_on()).state is RunState.COMPLETED
        assert await log(run) == ["10"]


MAY_POST = {"ask": Policy(tools=[post], approve_when=always)}


async def ask(state: Any) -> dict[str, Any]:
    return {"log": [await post("letter")]}


class TestBesideAQuestion:
    @pytest.mark.parametrize("answered_first", [True, False])
    async def test_both_are_heeded_in_any_order(self, world: World, answered_first: bool) -> None:
        run = await world.send(paying(graph=beside(waits=waits, ask=ask), policies=MAY_POST))
        assert await world.engine.advance(run.run_id) is RunState.PENDING_APPROVAL
        review = await the_review(run)
        if answered_first:
            await world.engine.decide(review.id, says("approve"))
            assert await world.engine.advance(run.run_id) is RunState.WAITING
        await pays(world)
        await world.engine.advance(run.run_id)
        if not answered_first:
            assert (await run.run()).state is RunState.PENDING_APPROVAL
            assert (await the_review(run)).id == review.id
            await run.approve()
        assert ended(await run.run()) == (RunState.COMPLETED, Outcome.APPROVED)
        assert sorted(await log(run)) == ["10", "post letter"]

    async def test_gathered_in_one_node_both_are_heeded(self, world: World) -> None:
        async def node(state: Any) -> dict[str, Any]:
            letter, event = await asyncio.gather(post("letter"), wait_for("paid", key="7", within=DAY))
            return {"log": [letter, amount(event)]}

        run = await world.send(paying(graph=chain(ask=node), policies=MAY_POST))
        assert await world.engine.advance(run.run_id) is RunState.PENDING_APPROVAL
        await pays(world)
        assert await world.engine.advance(run.run_id) is RunState.PENDING_APPROVAL
        await run.approve()
        assert await log(run) == ["post letter", "10"]

    async def test_the_time_of_the_wait_comes_though_nobody_answers(self, world: World) -> None:
        run = await world.send(paying(graph=beside(waits=waits, ask=ask), policies=MAY_POST))
        await world.engine.advance(run.run_id)
        await world.due(run)
        assert await world.engine.advance(run.run_id) is RunState.PENDING_APPROVAL
        assert await states(run) == [WaitState.TIMED_OUT]
        assert (await run.run()).due_at is None


class TestWhatIsTold:
    async def test_the_journal_says_what_is_waited_for(self, world: World) -> None:
        run = await waiting(world)
        (move,) = [entry for entry in await run.journal() if entry.data.get("to") == "waiting"]
        assert move.kind is JournalKind.TRANSITION
        (told,) = move.data["waiting_for"]
        assert (told["types"], told["key"]) == (["paid"], "7")
        assert datetime.fromisoformat(told["until"]) == (await run.run()).due_at

    async def test_what_an_event_brings_is_untrusted_and_may_choose_no_amount(self, world: World) -> None:
        async def node(state: Any) -> dict[str, Any]:
            event = await wait_for("paid", key="7", within=DAY)
            return {"log": [await pay(event.data["amount"] if event else "0")]}

        run = await waiting(world, paying(node, policies={"node0": Policy(tools=[pay])}))
        await pays(world, "1000")
        assert (await run.go_on()).state is RunState.PENDING_APPROVAL
        assert world.provider.done == []

    async def test_what_an_event_of_our_own_brings_is_trusted(self, world: World) -> None:
        async def node(state: Any) -> dict[str, Any]:
            event = await wait_for("paid", key="7", within=DAY)
            return {"log": [await pay(event.data["amount"] if event else "0")]}

        run = await waiting(world, paying(node, policies={"node0": Policy(tools=[pay])}, trusted=True))
        await pays(world, "1000")
        assert (await run.go_on()).state is RunState.COMPLETED


class TestAWaitThatCannotBeMeant:
    @pytest.mark.parametrize(
        ("wanted", "words"),
        [
            ({"types": "unknown", "key": "7"}, "have no Continues('unknown', key=...); declared are: paid, replied"),
            ({"types": "paid", "key": ""}, "1 to 256 letters"),
            ({"types": "paid", "key": None}, "1 to 256 letters"),
            ({"types": [], "key": "7"}, "the type of an event"),
            ({"types": "paid", "key": "7", "until": datetime(2026, 1, 1)}, "needs its zone"),  # noqa: DTZ001
            (
                {"types": "paid", "key": "7", "until": datetime(2026, 1, 1, tzinfo=UTC), "within": DAY},
                "within= or until=, not both",
            ),
        ],
    )
    async def test_fails_its_node_and_says_what_is_wrong(self, world: World, wanted: Any, words: str) -> None:
        async def node(state: Any) -> dict[str, Any]:
            await wait_for(**wanted)
            return {}

        run = await world.send(paying(node))
        await run.go_on()
        assert ended(await run.run()) == (RunState.FAILED, Reason.ATTEMPTS)
        assert words in ((await run.run()).error or "")

    async def test_outside_a_workflow_raises(self) -> None:
        with pytest.raises(OutsideGate):
            await wait_for("paid", key="7")

    @pytest.mark.parametrize(
        ("declared", "words"),
        [
            ({"type": "paid"}, "needs a key="),
            ({"type": "paid", "key": "n", "input": lambda payload, event: {}}, "starts no run"),
            ({"type": "eventwright.undo", "key": "n"}, "nobody can send"),
        ],
    )
    def test_a_trigger_that_cannot_be_meant_is_refused(self, declared: Any, words: str) -> None:
        with pytest.raises(BadWorkflow, match=words):
            Continues(**declared)
