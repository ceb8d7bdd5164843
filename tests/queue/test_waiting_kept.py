"""What comes while a run waits, works, fails or dies is not lost; two machines that race agree."""

from __future__ import annotations

import asyncio
from datetime import timedelta
from typing import Any

import pytest
import sqlalchemy as sa
from sqlalchemy.dialects import sqlite
from tests.outside import World, chain, job, look
from tests.queue.waiting_world import (
    DAY,
    amount,
    beside,
    log,
    notes,
    paying,
    pays,
    replies,
    states,
    waiting,
    waits,
)

from eventwright.graphs.flow import Batch, Flow
from eventwright.graphs.runner import Stop
from eventwright.graphs.waiting import Continues, wait_for
from eventwright.graphs.workflow import On
from eventwright.guardrails.policy import Policy
from eventwright.runs.correlating import _KEPT
from eventwright.runs.event import Event, new_id
from eventwright.runs.states import RunState
from eventwright.runs.store import Store
from eventwright.runs.waits import WaitState


class TestNothingIsLost:
    async def test_when_the_event_comes_while_the_node_is_at_work(self, world: World) -> None:
        """Between the claim and the moment in which the run rests: the first time, and when it waits already."""

        async def node(state: Any) -> dict[str, Any]:
            await look("around")
            if not paid:
                paid.append(await pays(world, "meanwhile"))
            return await waits(state)

        paid: list[Any] = []
        run = await world.send(paying(node, policies={"node0": Policy(tools=[look])}))
        assert await world.engine.advance(run.run_id) is RunState.WAITING
        assert await world.engine.advance(run.run_id) is RunState.COMPLETED
        assert await log(run) == ["meanwhile"]

    async def test_when_the_event_comes_while_the_node_waits_anew(self, world: World) -> None:
        receipts: list[Any] = []
        replied: list[Any] = []

        async def node(state: Any) -> dict[str, Any]:
            if replied and not receipts:
                receipts.append(await pays(world, "meanwhile"))
            _, paid = await asyncio.gather(wait_for("replied", key="7"), waits(state))
            return dict(paid)

        run = await waiting(world, paying(node))
        replied.append(await replies(world))
        assert await world.engine.advance(run.run_id) is RunState.WAITING
        assert [told.id for told in receipts[0].runs] == [run.run_id]
        assert await world.engine.advance(run.run_id) is RunState.COMPLETED
        assert await log(run) == ["meanwhile"]

    async def test_when_the_worker_dies_before_it_could_say_that_the_run_waits(self, world: World) -> None:
        run, workflow = await world.send(paying()), paying()
        async with world.store.write() as tx:
            claim = tx.claim(run.run_id, worker="dies", seconds=6)
        assert claim.lease is not None
        await world.engine.runner.segment(await run.run(), workflow, claim.lease, Stop())
        assert (await pays(world, "meanwhile")).runs == ()
        await world.due(run)
        assert (await run.go_on()).state is RunState.COMPLETED
        assert await log(run) == ["meanwhile"]

    async def test_when_the_worker_dies_with_the_answer_in_its_hands(self, world: World) -> None:
        workflow = paying()
        run = await waiting(world, workflow)
        await pays(world, "answer")
        async with world.store.write() as tx:
            claim = tx.claim(run.run_id, worker="dies", seconds=6)
        assert claim.lease is not None
        await world.due(run)
        assert (await run.go_on()).state is RunState.COMPLETED
        assert await log(run) == ["answer"]

    async def test_of_an_answer_to_a_run_that_failed_meanwhile(self, world: World) -> None:
        broken = [True]

        async def fails(state: Any) -> dict[str, Any]:
            if broken:
                raise ValueError("broken")
            return {"log": ["mended"]}

        run = await world.send(paying(graph=beside(waits=waits, fails=fails)))
        assert await world.engine.advance(run.run_id) is RunState.FAILED
        assert await states(run) == [WaitState.OPEN], "the wait is stored all the same"
        assert [told.id for told in (await pays(world)).runs] == [run.run_id]
        assert await world.engine.advance(run.run_id) is None

        broken.clear()
        await world.engine.replay(run.run_id, by="olga")
        assert (await run.go_on()).state is RunState.COMPLETED
        assert sorted(await log(run)) == ["10", "mended"]

    async def test_by_a_replay_from_the_start_which_gets_the_same_answers_again(self, world: World) -> None:
        broken = [True]

        async def fails(state: Any) -> dict[str, Any]:
            if broken:
                raise ValueError("broken")
            return {}

        run = await world.send(paying(waits, waits, waits, fails))
        await pays(world, "1")
        await run.go_on()
        await run.pass_time()
        await pays(world, "3")
        assert (await run.go_on()).state is RunState.FAILED
        broken.clear()
        await pays(world, "not this one")
        await world.engine.replay(run.run_id, by="olga", from_start=True)
        assert (await run.go_on()).state is RunState.COMPLETED
        assert await log(run) == ["1", "nothing", "3"]

    async def test_by_a_cancelled_run_which_waits_no_more(self, world: World) -> None:
        run = await waiting(world)
        await world.engine.cancel(run.run_id, by="olga")
        assert await states(run) == [WaitState.CANCELLED]
        assert (await pays(world)).runs == ()
        assert await world.engine.advance(run.run_id) is None
        assert await notes(run) == ["came too late"]

    async def test_when_a_node_is_renamed(self, world: World) -> None:
        from eventwright.queue.migration import Move

        run = await waiting(world)
        world.deploy(paying(graph=chain(renamed=waits), version="2"))
        await world.engine.migrate(run.run_id, Move(to_version="2", rename={"node0": "renamed"}), by="olga")
        await pays(world)
        run = world.take(run.run_id)
        assert (await run.go_on()).state is RunState.COMPLETED
        assert await log(run) == ["10"]

    @pytest.mark.parametrize("node_catches", [Exception, BaseException])
    async def test_by_an_author_who_catches_everything(self, world: World, node_catches: Any) -> None:
        async def node(state: Any) -> dict[str, Any]:
            try:
                return await waits(state)
            except node_catches:
                return {"log": ["swallowed"]}

        run = await waiting(world, paying(node))
        await pays(world)
        assert (await run.go_on()).state is RunState.COMPLETED
        assert await log(run) == ["10"]


async def test_a_time_and_an_event_that_race_make_one_answer(racing: tuple[World, World]) -> None:
    """Two machines: one takes events in while the other sees that the time has come."""
    one, other = racing
    workflow = paying()
    for world in racing:
        world.deploy(workflow)
    for number in range(8):
        run = await waiting(one, workflow)
        other.deploy(workflow)
        due_at = (await run.run()).due_at
        assert due_at is not None
        one.clock.pass_until(due_at - timedelta(milliseconds=number))
        paid, _ = await asyncio.gather(pays(one), other.engine.advance(run.run_id))
        await run.pass_time(DAY)
        answered = [told.id for told in paid.runs] == [run.run_id]
        assert await log(run) == ["10" if answered else "nothing"]
        assert await states(run) == [WaitState.ANSWERED if answered else WaitState.TIMED_OUT]
        if not answered:
            await one.engine.tick()


async def test_events_and_waits_that_race_find_each_other(racing: tuple[World, World]) -> None:
    """Two machines: one opens waits while the other takes events in; no event is left beside an open wait."""
    one, other = racing
    workflow = paying()
    runs = [await one.send(workflow) for _ in range(12)]
    other.deploy(workflow)
    opened = [one.engine.advance(run.run_id) for run in runs]
    await asyncio.gather(*opened, *(pays(other, str(number)) for number in range(12)))
    for run in runs:
        await one.take(run.run_id).go_on()
    assert sorted([(await log(one.take(run.run_id)))[0] for run in runs], key=int) == [str(n) for n in range(12)]


async def test_two_machines_that_take_in_two_events_for_one_wait_give_it_one_of_them(
    racing: tuple[World, World],
) -> None:
    one, other = racing
    workflow = paying(waits, waits)
    run = await waiting(one, workflow)
    other.deploy(workflow)
    first, second = await asyncio.gather(pays(one, "1"), pays(other, "2"))
    assert sorted([len(first.runs), len(second.runs)]) == [0, 1]
    assert (await run.go_on()).state is RunState.COMPLETED
    assert sorted(await log(run)) == ["1", "2"]


async def test_an_event_of_a_type_with_a_strange_name_finds_only_its_own(world: World) -> None:
    names = ["a%b", "a_b", "aXb", "a"]

    async def node(state: Any) -> dict[str, Any]:
        return {"log": [(await wait_for(state["log"][0], key="7")).type]}  # type: ignore[union-attr]

    triggers = [On("job", trusted=True), *(Continues(name, key=lambda event: "7") for name in names)]
    workflow = job(chain(node=node), triggers=triggers)
    runs = {name: await world.send(workflow, {"log": [name]}) for name in names}
    for run in runs.values():
        assert await world.engine.advance(run.run_id) is RunState.WAITING
    for name in reversed(names):
        receipt = await world.engine.receive(Event(id=new_id("e"), source="/test", type=name, data={}))
        assert [told.id for told in receipt.runs] == [runs[name].run_id]


async def test_what_was_gathered_into_a_run_is_no_answer_to_it(world: World) -> None:
    """As little as the event that has started it."""

    async def node(state: Any) -> dict[str, Any]:
        event = await wait_for("job", key="7", within=DAY)
        return {"log": ["nothing" if event is None else event.id]}

    together = Flow(key=_seven, batch=Batch(size=2, within=DAY, into="log"))
    triggers = [On("job", flow=together, trusted=True), Continues("job", key=_seven)]
    world.deploy(job(chain(node=node), triggers=triggers))
    first, second = [await world.engine.receive(Event(id=f"e{n}", source="/test", type="job", data={})) for n in (1, 2)]
    assert first.runs[0].id == second.runs[0].id
    run = world.take(first.runs[0].id)

    assert (await run.go_on()).state is RunState.WAITING
    await world.engine.receive(Event(id="e3", source="/test", type="job", data={}))
    assert (await run.go_on()).state is RunState.COMPLETED
    assert (await log(run))[-1] == "e3"


def _seven(event: Event) -> str:
    return "7"


async def test_of_all_that_was_kept_a_wait_takes_the_oldest_of_any_of_its_types(world: World) -> None:
    async def node(state: Any) -> dict[str, Any]:
        return {"log": [amount(await wait_for(["replied", "paid"], key="7")) for _ in range(3)]}

    run = await world.send(paying(node))
    for sent in (pays(world, "1"), replies(world), pays(world, "3")):
        await sent
        world.clock.pass_until(world.clock() + timedelta(seconds=1))
    while (await run.go_on()).state is not RunState.COMPLETED:
        pass
    assert await log(run) == ["1", "reply", "3"]


async def test_what_was_kept_for_a_wait_is_found_by_an_index_however_much_of_it_there_is(sqlite_url: str) -> None:
    """Whoever floods a key, with events of whatever type, slows nobody down who waits there."""
    async with Store.open(sqlite_url) as store:
        query = _KEPT.compile(dialect=sqlite.dialect(), compile_kwargs={"literal_binds": False})
        plan = await store.read(
            lambda connection: [
                row.detail
                for row in connection.execute(
                    sa.text(f"EXPLAIN QUERY PLAN {query}".replace("?", "'x'")).execution_options()
                )
            ]
        )
    assert any("ix_signals_kept (workflow=? AND key=? AND type=? AND at>?)" in step for step in plan), plan
    assert not any("TEMP B-TREE" in step or "SCAN" in step for step in plan), plan
