"""An event that comes when nobody waits for it any more finds the run that had, and starts the path designed for it."""

from __future__ import annotations

import asyncio
import logging
from dataclasses import replace
from datetime import timedelta
from typing import Any

import pytest
import sqlalchemy as sa
from sqlalchemy.dialects import postgresql
from tests.outside import World, a_world
from tests.queue.waiting_world import DAY, Paid, log, notes, paying, pays, waits

from eventwright.graphs.waiting import wait_for
from eventwright.runs.database import open_database
from eventwright.runs.errors import UnknownEvent
from eventwright.runs.event import Event
from eventwright.runs.late import MOST_WAITED, waited
from eventwright.runs.records import Run
from eventwright.runs.retention import Keep, Removed, removable, remove_some
from eventwright.runs.states import Outcome, RunState
from eventwright.runs.waits import wait_row, waits_of
from eventwright.runs.waits import waits as waits_table


class Seen:
    """The path for what comes too late: it starts a run whose log says so, and keeps what it was given."""

    def __init__(self, answer: Any = None) -> None:
        self.answer = {"log": ["late"]} if answer is None else answer
        self.given: list[tuple[Any, Event, Run]] = []

    def __call__(self, payload: Any, event: Event, earlier: Run) -> Any:
        self.given.append((payload, event, earlier))
        if isinstance(self.answer, Exception):
            raise self.answer
        return self.answer


async def over(world: World, late: Any, *, paid: bool = False, nodes: Any = (waits,)) -> Any:
    """A run that has waited, in vain or not, and has ended."""
    run = await world.send(paying(*nodes, late=late))
    await run.go_on()
    if paid:
        await pays(world, "in time")
        await run.go_on()
    await run.pass_time(10 * DAY)
    assert (await run.run()).state is RunState.COMPLETED
    return run


@pytest.mark.parametrize("paid", [True, False])
async def test_it_starts_a_run_with_what_the_trigger_says_and_is_told_of_the_earlier_one(
    world: World, paid: bool
) -> None:
    late = Seen()
    run = await over(world, late, paid=paid)

    (started,) = (await pays(world, "99")).runs

    assert started.id != run.run_id
    ((payload, event, earlier),) = late.given
    assert (payload, event.id) == (Paid(invoice_id="7", amount="99"), started.event.id)
    assert (earlier.id, earlier.state, earlier.outcome) == (run.run_id, RunState.COMPLETED, Outcome.AUTO)
    assert await notes(run) == [("came, which it waited for" if paid else "nothing came in time"), "came too late"]
    new = world.take(started.id)
    assert (await new.go_on()).state is RunState.WAITING, "the new run waits as any other, and not for its own event"
    await pays(world, "100")
    assert (await new.go_on()).state is RunState.COMPLETED
    assert await log(new) == ["late", "100"]


async def test_without_a_path_it_is_kept_and_noted_and_starts_nothing(world: World) -> None:
    run = await over(world, None)
    receipt = await pays(world, id="late")
    assert receipt.runs == ()
    assert (await notes(run))[-1] == "came too late"
    assert (await pays(world, id="late")).duplicate
    assert (await notes(run)).count("came too late") == 1


async def test_a_path_may_say_that_nothing_starts(world: World) -> None:
    run = await over(world, lambda payload, event, earlier: None)
    assert (await pays(world)).runs == ()
    assert (await notes(run))[-1] == "came too late"


@pytest.mark.parametrize(
    "answer", [ValueError("broken"), ValueError("\x00\ud800" * 10_000), ["no dict"], {"log": object()}]
)
async def test_a_path_that_fails_is_noted_and_the_event_is_accepted_all_the_same(
    world: World, answer: Any, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.CRITICAL)  # half a surrogate in a captured log is more than pytest-xdist can carry
    run = await over(world, Seen(answer))
    assert (await pays(world)).runs == ()
    (note,) = [entry for entry in await run.journal() if entry.data.get("text") == "came too late"]
    assert note.data["problem"].startswith("late= of its trigger failed: ")
    await world.engine.tick()
    assert (await notes(run)).count("came too late") == 1


async def test_while_too_much_waits_its_path_waits_too_and_nobody_fails_of_it(world: World) -> None:
    """Neither who sends it, for it is accepted, nor the sweep of every worker."""
    await over(world, Seen())
    pressure = world.engine._intake._continuing._pressure
    most, pressure._most_backlog = pressure._most_backlog, 0
    assert (await pays(world, id="late")).runs == ()
    await world.engine.tick()
    assert len(await world.store.runs()) == 1

    pressure._most_backlog = most
    await world.engine.tick()
    assert [run.event.id for run in (await pays(world, id="late")).runs] == ["late"]


async def test_one_that_cannot_be_seen_to_holds_up_no_other(world: World, caplog: pytest.LogCaptureFixture) -> None:
    late = Seen()
    await over(world, late)
    pressure = world.engine._intake._continuing._pressure
    most, pressure._most_backlog = pressure._most_backlog, 0
    for name in ("first", "second"):
        await pays(world, id=name)
    pressure._most_backlog = most
    late.given.clear()
    whole, world.store.event = world.store.event, _gone(world)  # type: ignore[method-assign]
    await world.engine.tick()
    world.store.event = whole  # type: ignore[method-assign]
    assert [event.id for _, event, _ in late.given] == ["second"]
    assert "UnknownEvent" in caplog.text


def _gone(world: World) -> Any:
    """The store's `event`, for one whose first event is not there any more."""
    found = world.store.event

    async def event(uid: str) -> Any:
        stored = await found(uid)
        if stored.event.id == "first":
            raise UnknownEvent(uid)
        return stored

    return event


async def test_what_comes_twice_starts_one_run(world: World) -> None:
    await over(world, Seen())
    first, second = [await pays(world, id="late") for _ in range(2)]
    assert [run.id for run in first.runs] == [run.id for run in second.runs]
    assert len(first.runs) == 1
    assert second.duplicate


async def test_of_a_run_that_may_wait_for_it_again_it_is_not_late(world: World) -> None:
    """Between two waits of a loop: the next one takes it."""
    paid: list[Any] = []

    async def between(state: Any) -> dict[str, Any]:
        if not paid:
            paid.append(await pays(world, "between"))
        return {}

    late = Seen()
    run = await world.send(paying(waits, between, waits, late=late))
    await run.go_on()
    await pays(world, "first")
    assert (await run.go_on()).state is RunState.COMPLETED
    assert await log(run) == ["first", "between"]
    await world.engine.tick()
    assert late.given == []


async def test_if_that_run_ends_without_waiting_again_it_is_late_then(world: World) -> None:
    paid: list[Any] = []

    async def after(state: Any) -> dict[str, Any]:
        if not paid:
            paid.append(await pays(world, "after"))
        return {}

    run = await world.send(paying(waits, after, late=Seen()))
    await run.go_on()
    await run.pass_time(3 * DAY)
    assert (await run.run()).state is RunState.COMPLETED
    assert paid[0].runs == ()

    await world.engine.tick()

    new = next(one for one in await world.store.runs() if one.id != run.run_id)
    assert new.event.data["amount"] == "after"
    assert (await notes(run))[-1] == "came too late"
    await world.engine.tick()
    assert len(await world.store.runs()) == 2


async def test_a_dead_letter_may_be_replayed_and_take_it(world: World) -> None:
    broken = [True]

    async def fails(state: Any) -> dict[str, Any]:
        if broken:
            raise ValueError("broken")
        return {}

    late = Seen()
    run = await world.send(paying(waits, fails, waits, late=late))
    await run.go_on()
    await pays(world, "1")
    assert (await run.go_on()).state is RunState.FAILED
    assert (await pays(world, "2")).runs == ()
    await world.engine.tick()
    assert late.given == []
    broken.clear()
    await world.engine.replay(run.run_id, by="olga")
    assert (await run.go_on()).state is RunState.COMPLETED
    assert await log(run) == ["1", "2"]


async def test_a_worker_that_dies_in_between_leaves_it_to_the_next(world: World) -> None:
    """The event is accepted; what starts for it is started by whoever ticks first, and once."""
    late = Seen()
    await over(world, late)
    world.engine._intake._continuing.see_to_late = _dies  # type: ignore[method-assign]
    with pytest.raises(asyncio.CancelledError):
        await pays(world, id="late")
    world.deploy(paying(late=late))
    await asyncio.gather(world.engine.tick(), world.engine.tick())
    assert len(await world.store.runs()) == 2
    assert [run.event.id for run in (await pays(world, id="late")).runs] == ["late"]


async def _dies(*_: Any, **__: Any) -> list[Run]:
    raise asyncio.CancelledError


async def test_what_has_started_a_run_is_no_answer_to_another(world: World) -> None:
    """A second late one comes while the run that the first one started is at work, and has not waited yet."""
    await over(world, Seen())
    (second,) = (await pays(world, "first")).runs
    (third,) = (await pays(world, "second")).runs

    run = await world.take(second.id).go_on()

    assert run.state is RunState.WAITING, "the second payment is what the third run is about"
    assert (await world.take(third.id).go_on()).state is RunState.WAITING
    assert (await pays(world, "third")).runs[0].id == second.id


async def test_on_two_machines_it_starts_a_run_or_answers_one(racing: tuple[World, World]) -> None:
    """One sees that it is late in the moment in which a run on the other begins to wait for it."""
    one, other = racing
    for world in racing:
        world.deploy(paying(late=Seen()))
    for number in range(6):
        await over(one, Seen())
        pressure = one.engine._intake._continuing._pressure
        run = await one.send()
        other.deploy(paying(late=Seen()))
        most, pressure._most_backlog = pressure._most_backlog, 0
        paid = await pays(one, id=f"late {number}")
        assert paid.runs == ()
        pressure._most_backlog = most

        await asyncio.gather(one.engine.tick(), other.engine.advance(run.run_id))

        started = [each for each in await one.store.runs() if each.event.id == f"late {number}"]
        (wait,) = await waits_of(one.store, run.run_id)
        assert bool(started) != bool(wait.event), (started, wait)
        for each in (*started, await run.run()):
            await one.engine.cancel(each.id, by="olga")


async def test_on_two_machines_it_starts_one_run(racing: tuple[World, World]) -> None:
    one, other = racing
    await over(one, None)
    for world in racing:
        world.deploy(paying(late=Seen()))
    world = racing[0]
    async with world.store.write() as tx:
        event = Event(id="late", source="/bank", type="paid", data={"invoice_id": "7"})
        from eventwright.runs.records import EventState

        tx.add_event(event, EventState.ACCEPTED)
        tx.tell(event, workflow="job", key="7", starts=False)
    await asyncio.gather(one.engine.tick(), other.engine.tick())
    assert len(await world.store.runs()) == 2


async def test_the_event_is_kept_as_long_as_a_run_needs_it(world: World) -> None:
    """Retention: neither the answer of a run that is under way goes, nor what may yet start one."""
    keep = Keep(checkpoints=None, payloads=timedelta(days=7), deliveries=None)
    run = await world.send(paying(waits, _for_ever, late=Seen()))
    await run.go_on()
    await pays(world, "answer")
    await run.go_on()
    await pays(world, "kept")
    world.clock.pass_until(world.clock() + 30 * DAY)
    assert await removable(world.store, keep) == await remove_some(world.store, keep) == Removed()

    await world.engine.cancel(run.run_id, by="olga")
    await world.engine.tick()
    late = next(one for one in await world.store.runs() if one.id != run.run_id)
    await world.engine.cancel(late.id, by="olga")
    world.clock.pass_until(world.clock() + 30 * DAY)
    assert (await removable(world.store, keep)).events == 3
    while await remove_some(world.store, keep):
        pass
    assert [stored.event.data for stored in await world.store.events()] == [None] * 3


async def _for_ever(state: Any) -> dict[str, Any]:
    await wait_for("replied", key="7")
    return {}


async def test_of_all_that_ever_waited_for_a_key_only_the_last_are_looked_at(postgres_url: str) -> None:
    """Whoever makes very many runs wait for one key slows nobody down who tells it something."""
    async with a_world(postgres_url) as world:
        run = await over(world, None)
        (wait,) = await waits_of(world.store, run.run_id)
        many = [
            wait_row(replace(wait, id=f"{number:04}")) | {"opened_at": world.clock() - number * DAY}
            for number in range(2_000)
        ]

        def rows_read(connection: sa.Connection) -> list[int]:
            connection.execute(sa.insert(waits_table), many)
            connection.execute(sa.text("ANALYZE waits"))
            query = waited("job", "7", "paid").compile(
                dialect=postgresql.dialect(), compile_kwargs={"literal_binds": True}
            )
            explained = connection.exec_driver_sql(f"EXPLAIN (ANALYZE, FORMAT JSON) {query}").scalar_one()
            plan = explained[0]["Plan"]
            return [step["Actual Rows"] * step["Actual Loops"] for step in _steps(plan)]

        async with open_database(postgres_url) as database:
            assert max(await database.write(rows_read)) <= 2 * MOST_WAITED
        await pays(world)
        assert (await notes(run))[-1] == "came too late"


def _steps(plan: dict[str, Any]) -> list[dict[str, Any]]:
    return [plan, *(step for below in plan.get("Plans", ()) for step in _steps(below))]
