"""`wait_for`: a run rests until an event from outside comes, or a time, whichever is first."""

from __future__ import annotations

import asyncio
from datetime import timedelta
from typing import Any

import pytest
from tests.outside import World, chain, job
from tests.queue.waiting_world import (
    DAY,
    amount,
    log,
    notes,
    paying,
    pays,
    replies,
    states,
    waiting,
    waits,
)

from eventwright.graphs.waiting import Continues, sleep, sleep_until, wait_for
from eventwright.graphs.workflow import On
from eventwright.queue.intake import EventRefused
from eventwright.runs.states import RunState
from eventwright.runs.waits import WaitState


class TestTheEvent:
    async def test_goes_on_with_the_run_that_waits_for_it(self, world: World) -> None:
        run = await waiting(world)
        assert await world.engine.advance(run.run_id) is None, "nothing has come"
        receipt = await pays(world, "12")
        assert [told.id for told in receipt.runs] == [run.run_id]
        assert await world.engine.advance(run.run_id) is RunState.COMPLETED
        assert await log(run) == ["12"]
        assert await notes(run) == ["came, which it waited for"]

    async def test_that_comes_before_the_wait_counts_and_is_taken_once(self, world: World) -> None:
        run = await world.send(paying(waits, waits))
        assert (await pays(world, "early")).runs == ()
        assert (await run.go_on()).state is RunState.WAITING, "the second wait is for another payment"
        assert await log(run) == ["early"]
        await pays(world, "late")
        assert (await run.go_on()).state is RunState.COMPLETED
        assert await log(run) == ["early", "late"]

    async def test_of_which_several_came_before_are_taken_in_the_order_of_arrival(self, world: World) -> None:
        run = await world.send(paying(waits, waits, waits))
        for number in "123":
            await pays(world, number)
        assert (await run.go_on()).state is RunState.COMPLETED
        assert await log(run) == ["1", "2", "3"]

    async def test_that_came_before_the_run_was_there_does_not_count(self, world: World) -> None:
        world.deploy(paying())
        await pays(world)
        run = await waiting(world)
        assert await states(run) == [WaitState.OPEN]

    async def test_that_starts_a_run_is_not_the_one_that_this_run_waits_for(self, world: World) -> None:
        triggers = [On("paid", trusted=True), Continues("paid", key="invoice_id")]
        world.deploy(job(chain(node=waits), triggers=triggers))
        first, second = [await pays(world, amount) for amount in ("1", "2")]
        (run,) = first.runs
        assert (await world.take(run.id).go_on()).state is RunState.COMPLETED
        assert await log(world.take(run.id)) == ["2"]
        assert (await world.take(second.runs[0].id).go_on()).state is RunState.WAITING

    async def test_that_comes_twice_is_answered_with_the_run_that_it_went_on(self, world: World) -> None:
        run = await waiting(world, paying(waits, waits))
        first, second = [await pays(world, id="one") for _ in range(2)]
        assert [first.duplicate, second.duplicate] == [False, True]
        assert [told.id for receipt in (first, second) for told in receipt.runs] == [run.run_id] * 2
        assert (await run.go_on()).state is RunState.WAITING
        assert await log(run) == ["10"]
        (stored,) = [one for one in await world.store.events() if one.event.id == "one"]
        assert stored.run_ids == (run.run_id,)

    @pytest.mark.parametrize("more", [{"key": "8"}, {"type": "unpaid"}, {"type": "Paid"}, {"key": "7 "}])
    async def test_of_another_key_or_type_is_another(self, world: World, more: Any) -> None:
        run = await waiting(world)
        assert (await pays(world, **more)).runs == ()
        assert await states(run) == [WaitState.OPEN]

    async def test_is_found_by_a_number_as_well_as_by_its_text(self, world: World) -> None:
        run = await waiting(world)
        assert [told.id for told in (await pays(world, key=7)).runs] == [run.run_id]

    async def test_that_is_not_valid_is_refused_and_kept_and_the_wait_stands(self, world: World) -> None:
        run = await waiting(world)
        for data in ({"amount": "1"}, {"invoice_id": "7", "amount": 3}, {"invoice_id": ""}):
            with pytest.raises(EventRefused):
                await pays(world, data=data)
        assert len(await world.store.events(state="refused")) == 3
        assert await states(run) == [WaitState.OPEN]

    async def test_that_was_refused_and_fits_a_later_deploy_goes_on_with_the_run(self, world: World) -> None:
        run = await waiting(world)
        with pytest.raises(EventRefused):
            await pays(world, version="2")
        (kept,) = await world.store.events(state="refused")
        triggers = [On("job", trusted=True), Continues("paid", key="invoice_id")]
        world.deploy(job(chain(node0=waits), triggers=triggers))
        receipt = await world.engine.receive_again(kept.event.uid)
        assert [told.id for told in receipt.runs] == [run.run_id]
        assert (await world.take(run.run_id).go_on()).state is RunState.COMPLETED

    async def test_answers_the_oldest_of_many_runs_that_wait_for_it_and_each_one_once(self, world: World) -> None:
        runs = [await waiting(world) for _ in range(20)]
        gone_on = [(await pays(world, str(number))).runs[0].id for number in range(20)]
        assert gone_on == [run.run_id for run in runs]
        assert (await pays(world)).runs == ()

    async def test_goes_on_with_one_run_of_each_workflow_that_waits_for_it(self, world: World) -> None:
        triggers = [On("other"), Continues("paid", key="invoice_id")]
        other = job(chain(node=waits), name="other", triggers=triggers)
        workflows = (paying(), other)
        world.deploy(*workflows)
        runs = [await world.send(kind=kind) for kind in ("job", "other")]
        for run in runs:
            await world.engine.advance(run.run_id)
        assert {told.id for told in (await pays(world)).runs} == {run.run_id for run in runs}

    async def test_finds_runs_of_an_earlier_version_also_where_the_new_one_waits_for_nothing(
        self, world: World
    ) -> None:
        old, new = paying(), job(chain(node=lambda state: {}), version="2")
        run = await waiting(world, old)
        world.deploy(old, new)
        assert [told.id for told in (await pays(world)).runs] == [run.run_id]

    async def test_does_not_hide_anything_from_the_node(self, world: World) -> None:
        run = await waiting(world)
        await pays(world, "1\u200b0\u202e")
        await run.go_on()
        assert await log(run) == ["10"]


class TestTheTime:
    async def test_comes_first(self, world: World) -> None:
        run = await waiting(world)
        due_at = (await run.run()).due_at
        await world.due(run)
        assert await world.engine.advance(run.run_id) is RunState.COMPLETED
        assert due_at is not None
        assert await log(run) == ["nothing"]
        assert await states(run) == [WaitState.TIMED_OUT]
        assert await notes(run) == ["nothing came in time"]

    async def test_has_come_exactly_at_the_deadline_and_an_event_of_that_moment_is_late(self, still: World) -> None:
        run = await waiting(still)
        await still.due(run)
        assert (await pays(still)).runs == ()
        assert await still.engine.advance(run.run_id) is RunState.COMPLETED
        assert await log(run) == ["nothing"]

    async def test_has_not_come_a_moment_before(self, still: World) -> None:
        run = await waiting(still)
        due_at = (await run.run()).due_at
        assert due_at is not None
        still.clock.pass_until(due_at - timedelta(microseconds=1))
        assert len((await pays(still)).runs) == 1
        await still.due(run)
        assert await still.engine.advance(run.run_id) is RunState.COMPLETED
        assert await log(run) == ["10"]

    async def test_is_counted_from_when_the_run_first_waited(self, still: World) -> None:
        async def node(state: Any) -> dict[str, Any]:
            await asyncio.gather(wait_for("replied", key="7"), waits(state))
            return {}

        began = still.clock()
        run = await waiting(still, paying(node))
        still.clock.pass_until(began + 2 * DAY)
        await replies(still)
        assert await still.engine.advance(run.run_id) is RunState.WAITING
        assert (await run.run()).due_at == began + 3 * DAY

    async def test_that_is_over_already_leaves_what_had_come_before_it(self, still: World) -> None:
        moment = still.clock() + DAY

        async def node(state: Any) -> dict[str, Any]:
            return {"log": [amount(await wait_for("paid", key=key, until=moment)) for key in "78"]}

        run = await still.send(paying(node))
        await pays(still, "in time")
        still.clock.pass_until(moment)
        await pays(still, "late", key="8")
        for state in (RunState.WAITING, RunState.WAITING, RunState.COMPLETED):
            assert await still.engine.advance(run.run_id) is state
        assert await log(run) == ["in time", "nothing"]

    async def test_alone_may_be_waited_for_a_span_or_a_moment(self, still: World) -> None:
        began = still.clock()

        async def node(state: Any) -> dict[str, Any]:
            await sleep(DAY)
            await sleep_until(began + 3 * DAY)
            return {"log": ["awake"]}

        run = await waiting(still, paying(node))
        assert (await run.run()).due_at == began + DAY
        await still.due(run)
        assert await still.engine.advance(run.run_id) is RunState.WAITING
        assert (await run.run()).due_at == began + 3 * DAY
        await still.due(run)
        assert await still.engine.advance(run.run_id) is RunState.COMPLETED
        assert await notes(run) == ["its time came"] * 2

    async def test_may_be_none_and_the_run_waits_for_as_long_as_it_takes(self, world: World) -> None:
        async def node(state: Any) -> dict[str, Any]:
            return {"log": [amount(await wait_for(["replied", "paid"], key=7))]}

        run = await waiting(world, paying(node))
        assert (await run.run()).due_at is None
        world.clock.pass_until(world.clock() + 1000 * DAY)
        await replies(world)
        assert (await run.go_on()).state is RunState.COMPLETED
        assert await log(run) == ["reply"]
