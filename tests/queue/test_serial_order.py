"""`On(..., key=...)`: events about the same thing are worked on one after the other, as they came in."""

from __future__ import annotations

import asyncio
import dataclasses
from pathlib import Path
from typing import Any

import pytest
from langgraph.types import interrupt
from pydantic import BaseModel
from tests.outside import World, chain, job, says
from tests.queue.place import Place, rested, send, workflow

from eventwright.app.simulate import Simulation
from eventwright.graphs.workflow import BadWorkflow, On
from eventwright.queue.intake import EventRefused
from eventwright.runs.event import Event, new_id
from eventwright.runs.records import Run
from eventwright.runs.states import RunState


class Invoice(BaseModel):
    invoice_id: str
    customer: dict[str, Any] = {}


async def node(state: Any) -> dict[str, Any]:
    return {"log": ["done"]}


async def asks(state: Any) -> dict[str, Any]:
    return {"log": [interrupt("go on?")]}


def raises(event: Event) -> str:
    return str(event.data["missing"])


def ordered(key: Any, node: Any = node, **on: Any) -> Any:
    return job(chain(node=node), triggers=[On("job", trusted=True, key=key, **on)])


async def started(world: World, data: Any) -> Simulation:
    event = Event(id=new_id("e"), source="/test", type="job", data=data)
    return world.take((await world.engine.receive(event)).runs[0].id)


async def key_of(world: World, key: Any, data: Any, **on: Any) -> str | None:
    world.deploy(ordered(key, **on))
    return (await (await started(world, data)).run()).serial_key


class TestAnEventWithoutAKey:
    @pytest.mark.parametrize(
        ("key", "data", "words"),
        [
            ("invoice_id", {"n": 1}, "invoice_id: the payload has no such field"),
            ("customer.id", {"customer": "ann"}, "customer.id: the payload has no such field"),
            ("n", {"n": 1.5}, "a key is a text or an integer, not float"),
            ("n", {"n": True}, "not bool"),
            ("n", {"n": ""}, "1 to 256 letters"),
            ("n", {"n": "x" * 257}, "1 to 256 letters"),
            (lambda event: "nul \x00", {"n": 1}, "1 to 256 letters"),
            (raises, {"n": 1}, "raises: it raised KeyError"),
            (lambda event: event.data, {"n": 1}, "not dict"),
        ],
    )
    async def test_is_refused_kept_and_can_be_taken_in_again(
        self, world: World, key: Any, data: Any, words: str
    ) -> None:
        world.deploy(ordered(key))
        with pytest.raises(EventRefused, match="the serial key of 'job' is not usable") as refused:
            await started(world, data)
        assert words in str(refused.value)
        (kept,) = await world.store.events(state="refused")
        assert kept.problem is not None
        assert words.partition(": ")[2] in kept.problem["errors"][0]["problem"]

        world.deploy(ordered(lambda event: "any"))
        (run,) = (await world.engine.receive_again(kept.event.uid)).runs
        assert run.serial_key == "any"

    async def test_starts_nothing_if_its_trigger_is_not_meant_for_it_and_is_refused_if_nobody_can_say(
        self, world: World
    ) -> None:
        def is_urgent(event: Event) -> bool:
            return bool(event.data["urgent"])

        trigger = On("job", only_if=is_urgent)
        assert trigger.matches(Event(id="1", source="/t", type="job", data={"urgent": True}))
        assert not trigger.matches(Event(id="1", source="/t", type="job", data={"urgent": False}))
        world.deploy(dataclasses.replace(ordered("n"), triggers=[trigger]))
        with pytest.raises(EventRefused, match="is_urgent: it raised KeyError"):
            await started(world, {"n": 1})

    def test_could_never_have_one_if_its_payload_has_no_such_field(self) -> None:
        with pytest.raises(BadWorkflow, match="has no field 'invoice'; its fields are: invoice_id, customer"):
            On("invoice.updated", payload={"1": Invoice}, key="invoice.id")


class TestTheKey:
    async def test_is_a_field_of_the_payload_or_what_a_function_makes_of_the_event(self, world: World) -> None:
        invoice = {"invoice_id": "7", "customer": {"id": 4711}}
        assert await key_of(world, "invoice_id", invoice, payload={"1": Invoice}) == "7"
        assert await key_of(world, "customer.id", invoice) == "4711"
        assert await key_of(world, lambda event: event.source, invoice) == "/test"
        assert await key_of(world, lambda event: None, invoice) is None
        assert await key_of(world, None, invoice) is None


class TestRunsOfOneKey:
    async def test_wait_for_the_one_before_them_also_while_that_asks_somebody(self, world: World) -> None:
        world.deploy(ordered("n", asks))
        first, second, other = [await started(world, {"n": n}) for n in (1, 1, 2)]
        for run in (first, second, other):
            await world.engine.advance(run.run_id)
        states = [(await run.run()).state for run in (first, second, other)]
        assert states == [RunState.PENDING_APPROVAL, RunState.RECEIVED, RunState.PENDING_APPROVAL]

        await first.answer(says("approve"))
        assert await world.engine.advance(second.run_id) is RunState.PENDING_APPROVAL

    async def test_go_on_past_a_dead_letter_which_comes_again_when_no_other_is_under_way(self, world: World) -> None:
        broken = [True]

        async def fails_once(state: Any) -> dict[str, Any]:
            if broken:
                broken.clear()
                raise ValueError("broken")
            return await asks(state)

        world.deploy(ordered("n", fails_once))
        first, second = [await started(world, {"n": 1}) for _ in range(2)]
        assert await world.engine.advance(first.run_id) is RunState.FAILED
        assert await world.engine.advance(second.run_id) is RunState.PENDING_APPROVAL
        await world.engine.replay(first.run_id, by="olga")
        assert await world.engine.advance(first.run_id) is None

        await second.answer(says("approve"))
        assert (await second.run()).state is RunState.COMPLETED
        assert await world.engine.advance(first.run_id) is RunState.PENDING_APPROVAL

    async def test_are_never_at_work_together_and_go_in_order_though_two_workers_take_them(
        self, tmp_path: Path, database_url: str, redis_url: str
    ) -> None:
        await self._go_in_order(Place(tmp_path, database_url, redis_url))

    async def test_go_in_order_without_redis_too(self, tmp_path: Path, sqlite_url: str) -> None:
        await self._go_in_order(Place(tmp_path, sqlite_url, "none"))

    async def _go_in_order(self, place: Place) -> None:
        """Sweeps come once in a quarter of an hour: whoever ends has to wake the next."""
        at_work: dict[str, int] = {}
        gone: dict[str, list[int]] = {}

        async def work(state: Any) -> Any:
            key, number = state["steps"]
            at_work[key] = at_work.get(key, 0) + 1
            assert at_work[key] == 1
            await asyncio.sleep(0.01)
            at_work[key] -= 1
            gone.setdefault(key, []).append(int(number))
            return {}

        invoices = workflow("invoice", work, key=lambda event: event.data["steps"][0])
        never = {"sweep_seconds": 1000}
        async with place.worker(invoices, **never), place.worker(invoices, **never) as app:
            runs: list[Run] = []
            for number in range(30):
                data = {"steps": ["abc"[number % 3], str(number)]}
                event = Event(id=new_id("e"), source="/test", type="invoice", data=data)
                runs += (await app.engine.receive(event)).runs
            await rested(app, [run.id for run in runs])
        assert gone == {key: list(range(start, 30, 3)) for start, key in enumerate("abc")}

    async def test_do_not_hold_up_runs_without_a_key(self, tmp_path: Path, sqlite_url: str) -> None:
        release = asyncio.Event()

        async def work(state: Any) -> Any:
            await release.wait()
            return {}

        async def quick(state: Any) -> Any:
            return {}

        ordered, free = workflow("ordered", work, key=lambda event: "one"), workflow("free", quick)
        place = Place(tmp_path, sqlite_url, "none")
        async with place.worker(ordered, free, concurrency=3) as app:
            waiting = await send(app, "ordered", 50)
            await rested(app, await send(app, "free", 20))
            release.set()
            await rested(app, waiting)
