"""Ticks fire once, whatever number of schedulers there is, and what was missed is made up for as it was declared."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import AsyncExitStack
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from tests.outside import chain

from eventwright.graphs.runner import Runner
from eventwright.graphs.schedules import Every
from eventwright.graphs.workflow import On, Workflow, Workflows
from eventwright.queue import scheduler
from eventwright.queue.engine import Engine
from eventwright.queue.intake import ReservedEvent
from eventwright.queue.scheduler import Scheduler
from eventwright.runs.errors import StoreUnavailable
from eventwright.runs.event import Event, new_id
from eventwright.runs.failpoints import Failpoint, on_failpoint
from eventwright.runs.store import Store
from eventwright.tools.contract import Resources

HOURLY, SOURCE = "0 * * * *", "/schedules/report/report-due"


class Clock:
    """The database's clock. This process's own shows another time."""

    def __init__(self) -> None:
        self.at = datetime(2031, 5, 5, 8, 30, tzinfo=UTC)

    def __call__(self) -> datetime:
        return self.at

    def on(self, **span: int) -> None:
        self.at += timedelta(**span)


@pytest.fixture
def clock() -> Clock:
    return Clock()


Made = Callable[..., Scheduler]


@pytest.fixture
async def stores(database_url: str, clock: Clock) -> AsyncIterator[list[Store]]:
    """Three processes' ways to one database."""
    async with AsyncExitStack() as stack:
        yield [await stack.enter_async_context(Store.open(database_url, clock=clock)) for _ in range(3)]


async def look(state: Any) -> dict[str, Any]:
    return {}


def workflow(*triggers: On) -> Workflow:
    return Workflow("report", version="1", graph=chain(look=look), triggers=triggers)


def scheduler_on(store: Store, *triggers: On, **more: Any) -> Scheduler:
    """One that has just begun, in a process whose workflow has these triggers."""
    workflows = Workflows([workflow(*triggers)])
    return Scheduler(Engine(store, workflows, Runner(store, Resources()), worker=new_id("worker"), **more))


def every(cron: str = HOURLY, **more: Any) -> Every:
    return Every(cron, **{"type": "report.due", **more})


async def fired(store: Store) -> list[str]:
    """Day and hour of each tick that fired, in the order of their runs."""
    runs = await store.runs(limit=1000)
    assert len({run.event.uid for run in runs}) == len(runs)
    return [run.event.id[8:16].replace("T", " ") for run in reversed(runs)]


class TestSeveralSchedulers:
    async def test_fire_each_tick_once(self, stores: list[Store], clock: Clock) -> None:
        schedulers = [scheduler_on(store, every()) for store in stores]
        for hour in range(4):
            await asyncio.gather(*(one.once() for one in schedulers))
            assert len(await fired(stores[0])) == hour
            clock.on(hours=1)
        assert await fired(stores[0]) == ["05 09:00", "05 10:00", "05 11:00"]

    async def test_make_up_for_each_missed_tick_once_and_in_order(self, stores: list[Store], clock: Clock) -> None:
        await scheduler_on(stores[0], every(missed="all")).once()
        clock.on(hours=12)
        await asyncio.gather(*(scheduler_on(store, every(missed="all")).once() for store in stores))
        assert await fired(stores[0]) == [f"05 {hour:02}:00" for hour in range(9, 21)]

    async def test_of_two_releases_whose_data_differ_one_fires_and_the_other_is_content(
        self, stores: list[Store], clock: Clock
    ) -> None:
        both = [scheduler_on(store, every(data={"n": number})) for number, store in enumerate(stores[:2])]
        await asyncio.gather(*(one.once() for one in both))
        clock.on(hours=1)
        await asyncio.gather(*(one.once() for one in both))
        assert await fired(stores[0]) == ["05 09:00"]

    async def test_one_that_ends_between_the_firing_and_its_record_has_fired_once(
        self, stores: list[Store], clock: Clock
    ) -> None:
        one, other = (scheduler_on(store, every(missed="all")) for store in stores[:2])
        await one.once()
        clock.on(hours=2)

        def die(point: Failpoint) -> None:
            if point is Failpoint.INTAKE_STORED:
                raise KeyboardInterrupt

        on_failpoint(die)
        try:
            with pytest.raises(KeyboardInterrupt):
                await one.once()
        finally:
            on_failpoint(None)
        assert await fired(stores[0]) == ["05 09:00"]
        await other.once()
        assert await fired(stores[0]) == ["05 09:00", "05 10:00"]


class TestTroubles:
    async def test_nobody_else_may_send_a_schedules_event_and_so_take_its_place(self, stores: list[Store]) -> None:
        engine = scheduler_on(stores[0], every())._engine
        for source in (SOURCE, SOURCE.upper(), "/schedules/"):
            with pytest.raises(ReservedEvent, match="'/schedules/'"):
                await engine.receive(Event(id="2031-05-05T09:00:00Z", source=source, type="report.due", data={}))
        assert await stores[0].events() == []

    async def test_too_much_to_do_delays_a_tick_and_loses_none(self, stores: list[Store], clock: Clock) -> None:
        full = scheduler_on(stores[0], every(missed="all"), most_backlog=2)
        await full.once()
        clock.on(hours=3)
        assert await full.once() == scheduler.PAUSE
        assert await fired(stores[0]) == ["05 09:00", "05 10:00"]
        await scheduler_on(stores[1], every(missed="all")).once()
        assert await fired(stores[0]) == ["05 09:00", "05 10:00", "05 11:00"]

    async def test_a_refused_tick_is_kept_and_can_be_replayed_and_the_next_one_fires(
        self, stores: list[Store], clock: Clock
    ) -> None:
        def key(event: Event) -> str:
            raise KeyError("mended later")

        broken = scheduler_on(stores[0], every(key=key))
        await broken.once()
        clock.on(hours=1)
        await broken.once()
        await broken.once()
        (refused,) = await stores[0].events(state="refused")
        mended = scheduler_on(stores[1], every())
        receipt = await mended._engine.receive_again(refused.event.uid)
        assert (receipt.duplicate, len(receipt.runs)) == (False, 1)
        clock.on(hours=1)
        await mended.once()
        assert await fired(stores[0]) == ["05 09:00", "05 10:00"]

    async def test_a_database_that_is_away_ends_no_scheduler_and_being_asked_to_end_does(
        self, stores: list[Store], monkeypatch: pytest.MonkeyPatch
    ) -> None:
        rounds, stopping = [], asyncio.Event()

        async def once(self: Scheduler, stopping: asyncio.Event) -> float:
            rounds.append(self)
            if len(rounds) == 1:
                raise StoreUnavailable("gone for a while")
            stopping.set()
            return 1000.0

        monkeypatch.setattr(Scheduler, "once", once)
        monkeypatch.setattr(scheduler, "PAUSE", 0.0)
        await scheduler_on(stores[0], every()).run(stopping)
        assert len(rounds) == 2

    async def test_who_is_asked_to_end_leaves_what_is_left_to_the_others(
        self, stores: list[Store], clock: Clock
    ) -> None:
        one, stopping = scheduler_on(stores[0], every(missed="all")), asyncio.Event()
        await one.once()
        clock.on(hours=5)
        one._engine.on_news.append(stopping.set)
        await one.once(stopping)
        assert await fired(stores[0]) == ["05 09:00"]
        await scheduler_on(stores[1], every(missed="all")).once()
        assert len(await fired(stores[0])) == 5


class TestTicksThatWereMissed:
    @pytest.mark.parametrize(
        ("missed", "made_up"),
        [("skip", []), ("one", ["05 12:00"]), ("all", ["05 09:00", "05 10:00", "05 11:00", "05 12:00"])],
    )
    async def test_are_left_out_or_stood_for_or_made_up_for_as_declared(
        self, stores: list[Store], clock: Clock, missed: str, made_up: list[str]
    ) -> None:
        await scheduler_on(stores[0], every(missed=missed)).once()
        clock.on(hours=4)
        after = scheduler_on(stores[1], every(missed=missed))
        await after.once()
        await after.once()
        assert await fired(stores[0]) == made_up
        clock.on(minutes=30)
        await after.once()
        assert await fired(stores[0]) == [*made_up, "05 13:00"]

    async def test_are_made_up_for_up_to_a_number_the_newest_of_them(
        self, stores: list[Store], clock: Clock, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(scheduler, "MOST_MISSED", 3)
        await scheduler_on(stores[0], every(missed="all")).once()
        clock.on(days=400)
        await scheduler_on(stores[0], every(missed="all")).once()
        assert await fired(stores[0]) == ["08 06:00", "08 07:00", "08 08:00"]

    async def test_a_tick_that_is_seen_within_the_minute_is_not_missed(self, stores: list[Store], clock: Clock) -> None:
        one = scheduler_on(stores[0], every(missed="skip"))
        await one.once()
        clock.on(minutes=30, seconds=59)
        await one.once()
        assert await fired(stores[0]) == ["05 09:00"]


class TestAScheduleThatChanges:
    async def test_does_not_fire_for_the_past_when_it_is_new(self, stores: list[Store]) -> None:
        await scheduler_on(stores[0], every("* * * * *", missed="all")).once()
        assert await fired(stores[0]) == []

    async def test_does_not_fire_for_the_past_of_its_new_line_nor_of_an_old_one_that_comes_back(
        self, stores: list[Store], clock: Clock
    ) -> None:
        for line in (HOURLY, "30 * * * *", HOURLY):
            await scheduler_on(stores[0], every(line, missed="all")).once()
            assert await fired(stores[0]) == []
            clock.on(days=3)
        await scheduler_on(stores[0], every(HOURLY, missed="one")).once()
        assert await fired(stores[0]) == ["14 08:00"]

    async def test_does_not_fire_for_the_time_for_which_it_was_taken_away(
        self, stores: list[Store], clock: Clock
    ) -> None:
        await scheduler_on(stores[0], every(missed="all")).once()
        await scheduler_on(stores[0], On("report.due")).once()
        clock.on(days=3)
        await scheduler_on(stores[0], every(missed="all")).once()
        assert await fired(stores[0]) == []

    async def test_is_fired_by_old_and_new_processes_as_long_as_both_are_there(
        self, stores: list[Store], clock: Clock
    ) -> None:
        old = scheduler_on(stores[0], every("0 * * * *"))
        await old.once()
        new = scheduler_on(stores[1], every("0,30 * * * *"))
        for _ in range(3):
            await asyncio.gather(old.once(), new.once())
            clock.on(minutes=30)
        assert await fired(stores[0]) == ["05 09:00", "05 09:30"]


async def test_a_scheduler_comes_again_when_the_next_tick_is_due_and_looks_at_the_clock_before(
    stores: list[Store], clock: Clock
) -> None:
    one = scheduler_on(stores[0], every())
    assert await one.once() == scheduler.LOOK
    clock.on(minutes=29, seconds=50)
    assert await one.once() == 10.0


async def test_a_clock_that_was_ahead_and_is_set_right_fires_nothing_twice(stores: list[Store], clock: Clock) -> None:
    one = scheduler_on(stores[0], every(missed="all"))
    await one.once()
    clock.on(hours=2)
    await one.once()
    clock.on(hours=-2)
    await one.once()
    clock.on(hours=3)
    await one.once()
    assert await fired(stores[0]) == ["05 09:00", "05 10:00", "05 11:00"]
