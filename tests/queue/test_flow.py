"""`On(..., flow=Flow(...))`: when runs begin. Debounce, throttle and batch, on both stores, in two processes."""

from __future__ import annotations

import asyncio
from datetime import timedelta
from typing import Any

import pytest
from tests.outside import World, chain, job
from tests.queue.flow_world import MINUTE, again, asks, change, ends, flowing, notes, only, sends, values

from eventwright.graphs.flow import BadFlow, Batch, Flow, Throttle
from eventwright.graphs.runner import Runner
from eventwright.graphs.waiting import Continues
from eventwright.graphs.workflow import BadWorkflow, On
from eventwright.queue.engine import Engine
from eventwright.queue.intake import EventRefused
from eventwright.runs.failpoints import Failpoint, on_failpoint
from eventwright.runs.gathered import gathered
from eventwright.runs.records import Run
from eventwright.runs.retention import Keep, remove_some
from eventwright.runs.states import RunState

DEBOUNCED = Flow(key="of", debounce=MINUTE, at_most=3 * MINUTE)
THROTTLED = Flow(key="of", throttle=Throttle(2, per=MINUTE))
GATHERED = Flow(key="of", batch=Batch(size=3, within=MINUTE, into="log"))


@pytest.fixture
async def world(racing: tuple[World, World]) -> World:
    return racing[0]


def offset(run: Run) -> timedelta:
    """How long after it came the run is due; the clock goes on a little while a test does."""
    assert run.due_at is not None
    return timedelta(seconds=round((run.due_at - run.created_at).total_seconds() / 2) * 2)


async def in_both(worlds: tuple[World, World], *events: Any) -> list[Run]:
    """The runs that the events go into, which come at once, to one process and the other."""
    receipts = await asyncio.gather(*(worlds[number % 2].engine.receive(event) for number, event in enumerate(events)))
    return [await again(worlds[0], only(receipt)) for receipt in receipts]


class TestADeclaration:
    @pytest.mark.parametrize(
        ("make", "words"),
        [
            (lambda: Flow(), "says debounce=, throttle=, batch= or supersede=True"),
            (lambda: Flow(debounce=MINUTE, throttle=Throttle(1, MINUTE)), "one of debounce=, throttle= and batch="),
            (lambda: Flow(debounce=timedelta(0)), "debounce= is a timedelta above zero"),
            (lambda: Flow(debounce=timedelta(days=400)), "of at most 366 days"),
            (lambda: Flow(debounce=MINUTE, at_most=MINUTE / 2), "no shorter than it"),
            (lambda: Flow(supersede=True, at_most=MINUTE), "bounds a debounce="),
            (lambda: Throttle(0, per=MINUTE), "1 to 1000 runs"),
            (lambda: Throttle(True, per=MINUTE), "1 to 1000 runs"),
            (lambda: Batch(size=1, within=MINUTE), "2 to 1000 events"),
            (lambda: Batch(size=2, within=MINUTE, into=""), "the name of a field"),
            (lambda: On("job", flow=Flow(supersede=True)), "supersede=True needs a key="),
            (lambda: flowing(Flow(key="nothing", debounce=MINUTE)), "has no field 'nothing'"),
            (lambda: Continues("paid", key="of", flow=DEBOUNCED), "starts no run and takes no"),
        ],
    )
    def test_that_contradicts_itself_is_refused(self, make: Any, words: str) -> None:
        with pytest.raises((BadFlow, BadWorkflow), match=words):
            make()

    def test_is_told_in_words(self) -> None:
        assert DEBOUNCED.words(None) == "debounced for 0:01:00, at most 0:03:00 long, by of"
        assert Flow(throttle=Throttle(2, MINUTE)).words(None) == "at most 2 in 0:01:00"
        assert Flow(batch=Batch(3, MINUTE), supersede=True).words("n").endswith("within 0:01:00, superseding, by n")


class TestDebounce:
    async def test_starts_one_run_for_the_last_of_events_that_come_to_two_processes_at_once(
        self, racing: tuple[World, World]
    ) -> None:
        for world in racing:
            world.deploy(flowing(DEBOUNCED))
        runs = await in_both(racing, *(change("ab"[n % 4 // 2], n) for n in range(24)))
        held = [run for run in runs if run.state is RunState.RECEIVED]
        assert sorted(run.event.data["of"] for run in held) == ["a", "b"]
        assert {run.state for run in runs if run not in held} == {RunState.CANCELLED}

    async def test_keeps_the_events_and_says_where_each_has_gone(self, world: World) -> None:
        world.deploy(flowing(DEBOUNCED))
        first, event = await sends(world, n=1), change(n=2)
        second = only(await world.engine.receive(event))
        assert "a later event took its place before it began" in await notes(world, first)
        assert "takes the place of an event that was held" in await notes(world, second)

        duplicate = await world.engine.receive(event)
        assert (duplicate.duplicate, only(duplicate).id) == (True, second.id)
        stored = await world.store.accepted_event(first.event.source, first.event.id)
        assert stored is not None
        assert stored.run_ids == (first.id,)
        assert (await again(world, second)).state is RunState.RECEIVED

    async def test_holds_a_run_until_it_is_quiet_and_begins_anew_after_that(self, world: World) -> None:
        world.deploy(flowing(DEBOUNCED))
        run = await sends(world, n=1)
        assert offset(run) == MINUTE
        assert await world.engine.advance(run.id) is None
        assert await world.store.due_runs(limit=9) == []
        await world.due(world.take(run.id))
        # It is due: whether or not somebody has taken it up, it is not held any more.
        later = await sends(world, n=2)
        assert await world.engine.advance(run.id) is RunState.COMPLETED
        assert await values(world, run) == [1]
        assert (await again(world, later)).state is RunState.RECEIVED

    async def test_cannot_be_put_off_longer_than_at_most(self, world: World) -> None:
        world.deploy(flowing(DEBOUNCED))
        first = run = await sends(world)
        for _ in range(3):
            world.clock.pass_until(run.created_at + 50 * MINUTE / 60)
            run = await sends(world)
        assert run.due_at is not None
        assert first.due_at is not None
        assert timedelta(0) <= run.due_at - first.due_at - 2 * MINUTE < timedelta(seconds=2)

    async def test_leaves_other_keys_other_types_and_events_without_a_key_alone(self, world: World) -> None:
        world.deploy(flowing(Flow(key=lambda event: event.data["of"], debounce=MINUTE)))
        hostile = ["a", "A", "a ", "a\ta", '["a"]', "\N{LATIN SMALL LETTER A WITH ACUTE}", "x" * 256]
        runs = [await sends(world, key) for key in hostile] + [await sends(world, "a", kind="other")]
        assert {(await again(world, run)).state for run in runs} == {RunState.RECEIVED}
        free = await sends(world, None)
        assert await world.engine.advance(free.id) is RunState.COMPLETED

    async def test_refuses_an_event_without_a_usable_key_and_the_held_one_stays(self, world: World) -> None:
        world.deploy(flowing(DEBOUNCED))
        held = await sends(world)
        for data in ({"of": None}, {"of": "x" * 257}, {"n": "none"}):
            with pytest.raises(EventRefused):
                await world.engine.receive(change(data=data))
        assert (await again(world, held)).state is RunState.RECEIVED

    async def test_begins_anew_when_an_operator_has_cancelled_what_was_held(self, world: World) -> None:
        world.deploy(flowing(DEBOUNCED))
        held = await sends(world)
        await world.engine.cancel(held.id, by="olga")
        world.clock.pass_until(held.created_at + MINUTE / 2)
        later = await sends(world)
        assert offset(later) == MINUTE
        assert "takes the place of an event that was held" not in await notes(world, later)

    async def test_lets_the_newest_version_run(self, world: World) -> None:
        world.deploy(flowing(DEBOUNCED))
        await sends(world, n=1)
        world.deploy(flowing(DEBOUNCED), flowing(DEBOUNCED, version="2"))
        run = await sends(world, n=2)
        await world.due(world.take(run.id))
        assert await world.engine.advance(run.id) is RunState.COMPLETED
        assert run.version == "2"

    async def test_stands_in_line_with_runs_of_its_serial_key_when_it_is_due(self, world: World) -> None:
        world.deploy(flowing(Flow(debounce=MINUTE), asks, key="of"))
        first = await sends(world)
        await world.due(world.take(first.id))
        second = await sends(world)
        assert await world.engine.advance(first.id) is RunState.PENDING_APPROVAL
        await world.due(world.take(second.id))
        assert await world.engine.advance(second.id) is None
        assert (await again(world, second)).in_line
        await world.engine.cancel(first.id, by="olga")
        assert await world.engine.advance(second.id) is RunState.PENDING_APPROVAL

    async def test_holds_up_nobody_of_its_serial_key_before_it_is_due(self, world: World) -> None:
        first_only = Flow(key=lambda event: "held" if event.data["n"] == 1 else None, debounce=MINUTE)
        world.deploy(flowing(first_only, key="of"))
        held, free = await sends(world, n=1), await sends(world, n=2)
        assert await world.engine.advance(free.id) is RunState.COMPLETED
        assert (await again(world, held)).due_at == held.due_at

    async def test_keeps_what_was_held_when_the_process_dies_before_the_commit(self, world: World) -> None:
        world.deploy(flowing(DEBOUNCED))
        held, event = await sends(world), change(n=2)

        def dies(point: Failpoint) -> None:
            if point is Failpoint.COMMIT_APPLIED:
                raise RuntimeError("killed")

        on_failpoint(dies)
        try:
            with pytest.raises(RuntimeError, match="killed"):
                await world.engine.receive(event)
        finally:
            on_failpoint(None)
        assert (await again(world, held)).state is RunState.RECEIVED
        receipt = await world.engine.receive(event)
        assert not receipt.duplicate
        assert "takes the place of an event that was held" in await notes(world, only(receipt))


class TestThrottle:
    async def test_lets_so_many_begin_in_its_span_and_loses_none_of_those_that_come_at_once(
        self, racing: tuple[World, World]
    ) -> None:
        for world in racing:
            world.deploy(flowing(THROTTLED))
        runs = await in_both(racing, *(change(n=n) for n in range(7)), change("b"))
        other = runs.pop()
        due = sorted(run.due_at for run in runs if run.due_at is not None)
        begins = due[0]
        assert [round((time - begins) / MINUTE, 1) for time in due] == [0, 0, 1, 1, 2, 2, 3]
        assert offset(other) == timedelta(0)
        world = racing[0]
        for run in sorted(runs, key=lambda run: run.due_at or begins):
            await world.due(world.take(run.id))
            assert await world.engine.advance(run.id) is RunState.COMPLETED

    async def test_lets_them_begin_in_the_order_in_which_they_came(self, world: World) -> None:
        world.deploy(flowing(Flow(throttle=Throttle(1, per=MINUTE))))
        runs = [await sends(world, f"any {n}") for n in range(4)]
        assert [offset(run) // MINUTE for run in runs] == [0, 1, 2, 3]
        assert await world.store.due_runs(limit=9) == [(runs[0].id, "default")]

    async def test_has_room_again_when_its_span_has_passed(self, world: World) -> None:
        world.deploy(flowing(THROTTLED))
        first, _, third = [await sends(world) for _ in range(3)]
        assert offset(third) == MINUTE
        world.clock.pass_until(first.created_at + 3 * MINUTE)
        assert offset(await sends(world)) == timedelta(0)

    async def test_that_is_made_wider_overtakes_nobody_who_waits(self, world: World) -> None:
        world.deploy(flowing(THROTTLED))
        before = [await sends(world) for _ in range(5)]
        world.deploy(flowing(Flow(key="of", throttle=Throttle(100, per=MINUTE)), version="2"))
        later = await sends(world)
        assert later.due_at is not None
        assert all(run.due_at is not None and run.due_at <= later.due_at for run in before)

    async def test_answers_a_duplicate_with_the_same_run_and_takes_no_place_for_it(self, world: World) -> None:
        world.deploy(flowing(THROTTLED))
        event = change()
        runs = [only(await world.engine.receive(event)) for _ in range(5)]
        assert len({run.id for run in runs}) == 1
        assert offset(await sends(world)) == timedelta(0)


class TestABatch:
    async def test_gathers_events_that_come_at_once_into_full_runs(self, racing: tuple[World, World]) -> None:
        for world in racing:
            world.deploy(flowing(GATHERED))
        runs = await in_both(racing, *(change(n=n) for n in range(8)))
        world = racing[0]
        found = {run.id: run for run in runs}
        assert sorted([run.id for run in runs].count(run_id) for run_id in found) == [2, 3, 3]
        due = {run_id for run_id, _ in await world.store.due_runs(limit=9)}
        assert len(due) == 2
        seen = []
        for run_id, run in found.items():
            if run_id not in due:
                await world.due(world.take(run_id))
            assert await world.engine.advance(run_id) is RunState.COMPLETED
            seen += [one["log"][0] for one in await values(world, run)]
        assert sorted(seen) == list(range(8))

    async def test_begins_when_its_first_event_has_waited_long_enough_with_all_in_order(self, world: World) -> None:
        world.deploy(flowing(GATHERED))
        first = await sends(world, n=1)
        assert await world.engine.advance(first.id) is None
        world.clock.pass_until(first.created_at + MINUTE / 2)
        second = await sends(world, n=2)
        assert (second.id, second.due_at) == (first.id, first.due_at)
        assert [event.data["n"] for event in await gathered(world.store, first.id)] == [2]
        await world.due(world.take(first.id))
        assert (await sends(world, n=3)).id != first.id
        assert await world.engine.advance(first.id) is RunState.COMPLETED
        assert await values(world, first) == [{"log": [1]}, {"log": [2]}]

    async def test_answers_a_duplicate_of_a_gathered_event_with_the_same_run(self, world: World) -> None:
        world.deploy(flowing(GATHERED))
        first, event = await sends(world), change()
        assert [only(await world.engine.receive(event)).id for _ in range(3)] == [first.id] * 3
        assert len(await gathered(world.store, first.id)) == 1

    async def test_refuses_an_event_that_is_not_valid_alone(self, world: World) -> None:
        world.deploy(flowing(GATHERED))
        held = await sends(world)
        with pytest.raises(EventRefused):
            await world.engine.receive(change(data={"of": "a", "n": "none"}))
        assert (await sends(world)).id == held.id
        assert len(await gathered(world.store, held.id)) == 1

    async def test_takes_nothing_more_in_when_it_was_cancelled_or_is_of_another_version(self, world: World) -> None:
        world.deploy(flowing(GATHERED))
        cancelled = await sends(world)
        await world.engine.cancel(cancelled.id, by="olga")
        old = await sends(world)
        assert old.id != cancelled.id
        world.deploy(flowing(GATHERED), flowing(GATHERED, version="2"))
        new = await sends(world)
        assert new.id != old.id
        await world.due(world.take(old.id))
        assert await world.engine.advance(old.id) is RunState.COMPLETED

    async def test_is_told_what_was_hidden_in_a_gathered_event(self, world: World) -> None:
        world.deploy(flowing(GATHERED))
        run = await sends(world)
        await world.engine.receive(change(data={"of": "a", "hidden": "\u200b"}))
        assert "hidden characters are left out of what the graph reads" in await notes(world, run)

    async def test_keeps_its_events_as_long_as_its_own_data(self, world: World) -> None:
        world.deploy(flowing(GATHERED))
        run = await sends(world)
        event = (await sends(world, n=7)) and (await gathered(world.store, run.id))[0]
        keep = Keep(payloads=timedelta(days=1), checkpoints=None)
        world.clock.pass_until(run.created_at + timedelta(days=9))
        await remove_some(world.store, keep)
        assert (await world.store.event(event.uid)).event.data == {"of": "a", "n": 7}
        await world.engine.advance(run.id)
        world.clock.pass_until(run.created_at + timedelta(days=20))
        for _ in range(2):
            await remove_some(world.store, keep)
        assert (await world.store.event(event.uid)).event.expired_at is not None


class TestALane:
    async def test_of_a_trigger_is_the_one_that_its_runs_begin_and_stay_in(self, world: World) -> None:
        urgent = [On("job", trusted=True), On("urgent", trusted=True, lane="fast")]
        world.deploy(job(chain(node=ends), triggers=urgent))
        run, other = await sends(world, kind="urgent"), await sends(world)
        assert (run.lane, other.lane) == ("fast", "default")
        assert await world.store.due_runs(limit=9, lane="fast") == [(run.id, "fast")]
        (workflow,) = world.engine.workflows
        assert workflow.lanes == ("default", "fast")
        for lane, of_lane in (("fast", run), ("default", other)):
            narrow = Runner(world.store, world.resources, lanes=[lane])
            process = Engine(world.store, world.engine.workflows, narrow, worker=lane)
            assert await process.advance(of_lane.id) is RunState.COMPLETED

    def test_has_a_name_that_workers_can_be_given(self) -> None:
        with pytest.raises(BadWorkflow, match="a lane's name is"):
            On("job", lane="Very Fast")
