"""`Flow(supersede=True)`: newer input takes the place of a run whose question nobody has answered."""

from __future__ import annotations

import asyncio
from datetime import timedelta
from typing import Any

import pytest
from tests.outside import World, job, says
from tests.queue.flow_world import (
    MINUTE,
    Change,
    again,
    asks,
    change,
    flowing,
    given,
    notes,
    only,
    sends,
    values,
    writes,
)
from tests.queue.waiting_world import beside

from eventwright.graphs.flow import Flow
from eventwright.graphs.waiting import sleep
from eventwright.graphs.workflow import On
from eventwright.queue.desk import AlreadyDecided, ReviewClosed
from eventwright.runs.records import ReviewState, Run
from eventwright.runs.states import RunState
from eventwright.runs.waits import WaitState, waits_of

SUPERSEDING = Flow(key="of", supersede=True)


@pytest.fixture
async def world(racing: tuple[World, World]) -> World:
    return racing[0]


async def asking(world: World, *nodes: Any, flow: Flow = SUPERSEDING, **more: Any) -> Run:
    """A run that asks somebody."""
    world.deploy(flowing(flow, *(nodes or (asks,)), **more))
    run = await sends(world, n=1)
    assert await world.engine.advance(run.id) is RunState.PENDING_APPROVAL
    return run


async def ended(world: World, run: Run) -> tuple[RunState, list[ReviewState]]:
    reviews = await world.store.reviews(run_ids=[run.id])
    return (await again(world, run)).state, [review.state for review in reviews]


SUPERSEDED = (RunState.CANCELLED, [ReviewState.SUPERSEDED])


class TestARunThatAsks:
    async def test_is_superseded_and_a_late_decision_names_the_run_and_the_review_instead(self, world: World) -> None:
        first = await asking(world)
        (asked,) = await world.take(first.id).reviews()
        second = await sends(world, n=2)
        assert await ended(world, first) == SUPERSEDED
        assert "superseded: newer input has come" in await notes(world, first)
        assert "supersedes an earlier run and its questions" in await notes(world, second)
        await world.engine.advance(second.id)
        (open_now,) = await world.take(second.id).reviews()
        with pytest.raises(
            ReviewClosed, match=f"run {second.id} has taken the place of run {first.id}: it asks by"
        ) as late:
            await world.engine.decide(asked.id, says("approve"))
        assert (late.value.newer, late.value.open) == (second.id, (open_now,))

        third = await sends(world, n=3)
        with pytest.raises(ReviewClosed) as later:
            await world.engine.decide(asked.id, says("approve"))
        assert later.value.newer == third.id

    async def test_is_either_decided_or_superseded_when_both_come_at_once(self, racing: tuple[World, World]) -> None:
        world, other = racing
        for n in range(6):
            first = await asking(world, flow=Flow(key=lambda event: event.data["of"], supersede=True))
            other.deploy(*world.engine.workflows)
            (asked,) = await world.take(first.id).reviews()
            both = [other.engine.receive(change(n=n)), world.engine.decide(asked.id, says("approve"))]
            _, decided = await asyncio.gather(*both, return_exceptions=True)
            if isinstance(decided, BaseException):
                assert isinstance(decided, ReviewClosed)
                assert await ended(world, first) == SUPERSEDED
            else:
                assert await world.engine.advance(first.id) is RunState.COMPLETED
                assert (await ended(world, first))[1] == [ReviewState.DECIDED]

    async def test_goes_on_with_the_answer_that_it_has(self, world: World) -> None:
        first = await asking(world)
        (asked,) = await world.take(first.id).reviews()
        await world.engine.decide(asked.id, says("approve"))
        await sends(world, n=2)
        assert await world.engine.advance(first.id) is RunState.COMPLETED
        with pytest.raises(AlreadyDecided):
            await world.engine.decide(asked.id, says("reject", by="bob"))

    async def test_stays_when_it_has_written_and_both_say_so(self, world: World) -> None:
        first = await asking(world, writes, asks)
        second = await sends(world, n=2)
        assert await ended(world, first) == (RunState.PENDING_APPROVAL, [ReviewState.OPEN])
        assert "newer input has come; it has written already, and is not superseded" in await notes(world, first)
        assert "follows a run that has written already" in await notes(world, second)
        await sends(world, n=3)
        assert (await again(world, first)).state is RunState.PENDING_APPROVAL

    async def test_is_left_alone_by_a_duplicate_by_another_key_and_by_an_invalid_event(self, world: World) -> None:
        first = await asking(world)
        assert (await world.engine.receive(first.event)).duplicate
        await sends(world, "b")
        with pytest.raises(ValueError, match="not valid"):
            await world.engine.receive(change(data={"of": "a", "n": "none"}))
        assert await ended(world, first) == (RunState.PENDING_APPROVAL, [ReviewState.OPEN])

    async def test_is_superseded_by_an_event_of_another_type_with_its_key(self, world: World) -> None:
        first = await asking(world)
        await sends(world, n=2, kind="other")
        assert await ended(world, first) == SUPERSEDED

    async def test_gives_its_turn_to_the_run_that_supersedes_it(self, world: World) -> None:
        first = await asking(world, flow=Flow(supersede=True), key="of")
        second = await sends(world, n=2)
        assert await ended(world, first) == SUPERSEDED
        assert await world.engine.advance(second.id) is RunState.PENDING_APPROVAL

    async def test_is_superseded_at_once_by_an_event_that_is_held(self, world: World) -> None:
        flow = Flow(key="of", supersede=True, debounce=MINUTE)
        world.deploy(flowing(flow, asks))
        first = await sends(world, n=1)
        await world.due(world.take(first.id))
        await world.engine.advance(first.id)
        (asked,) = await world.take(first.id).reviews()
        await sends(world, n=2)
        last = await sends(world, n=3)
        assert await ended(world, first) == SUPERSEDED
        with pytest.raises(ReviewClosed) as late:
            await world.engine.decide(asked.id, says("approve"))
        assert late.value.newer == last.id


class TestARunUnderWay:
    async def test_is_superseded_when_it_comes_to_ask(self, world: World) -> None:
        world.deploy(flowing(SUPERSEDING, asks))
        first, second = await sends(world, n=1), await sends(world, n=2)
        assert "an earlier run with this key is under way" in await notes(world, second)
        await world.engine.advance(first.id)
        assert await ended(world, first) == SUPERSEDED
        assert await world.engine.advance(second.id) is RunState.PENDING_APPROVAL

    async def test_goes_to_its_end_if_it_asks_nobody(self, world: World) -> None:
        world.deploy(flowing(SUPERSEDING))
        first, second = await sends(world, n=1), await sends(world, n=2)
        for run in (first, second):
            assert await world.engine.advance(run.id) is RunState.COMPLETED
        assert [await values(world, run) for run in (first, second)] == [[1], [2]]

    async def test_of_many_that_come_at_once_the_last_one_alone_is_left_to_ask(
        self, racing: tuple[World, World]
    ) -> None:
        for world in racing:
            world.deploy(flowing(SUPERSEDING, asks))
        receipts = await asyncio.gather(*(racing[n % 2].engine.receive(change(n=n)) for n in range(12)))
        runs = [only(receipt) for receipt in receipts]
        await asyncio.gather(*(racing[n % 2].engine.advance(run.id) for n, run in enumerate(runs)))
        states = [(await again(racing[0], run)).state for run in runs]
        assert sorted(states) == [RunState.CANCELLED] * 11 + [RunState.PENDING_APPROVAL]

    async def test_is_ended_with_all_that_it_waits_for_beside_its_question(self, world: World) -> None:
        async def sleeps(state: Any) -> dict[str, Any]:
            await sleep(timedelta(minutes=5))
            return {}

        trigger = On("job", payload={"1": Change}, input=given, flow=SUPERSEDING, trusted=True)
        world.deploy(job(beside(asks=asks, sleeps=sleeps), triggers=[trigger]))
        first = await sends(world, n=1)
        assert await world.engine.advance(first.id) is RunState.PENDING_APPROVAL
        await sends(world, n=2)
        assert await ended(world, first) == SUPERSEDED
        assert [wait.state for wait in await waits_of(world.store, first.id)] == [WaitState.CANCELLED]
        assert (await again(world, first)).due_at is None
