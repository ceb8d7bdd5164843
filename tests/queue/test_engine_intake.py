"""Intake: what comes in twice starts one run, what is refused is kept, what nobody wants is no error."""

from __future__ import annotations

import asyncio
from typing import Any, Self

import pytest
from pydantic import BaseModel, model_validator
from tests.outside import World, chain, job

from eventwright.graphs.workflow import BadWorkflow, InvalidPayload, On, UnknownPayloadVersion, Workflows
from eventwright.queue.intake import EventConflict, EventRefused
from eventwright.runs.errors import UnknownEvent
from eventwright.runs.event import Event
from eventwright.runs.records import EventState
from eventwright.runs.states import RunState


class Order(BaseModel):
    number: int


async def node(state: Any) -> dict[str, Any]:
    return {"log": ["done"]}


class Person(BaseModel):
    name: str = ""
    email: str = ""

    @model_validator(mode="after")
    def _somebody(self) -> Self:
        if not (self.name or self.email):
            raise ValueError("say who you are")
        return self


def takes(*triggers: On, name: str = "job", **more: Any) -> Any:
    return job(chain(node=node), name=name, triggers=list(triggers), **more)


ORDERS = takes(On("order", payload={"1": Order}))


def order(number: Any = 1, event_id: str = "e1", **more: Any) -> Event:
    return Event(**{"id": event_id, "source": "/shop", "type": "order", "data": {"number": number}} | more)


class TestWhatIsRefused:
    async def test_as_a_whole_is_told_in_its_models_own_words(self, world: World) -> None:
        world.deploy(takes(On("order", payload={"1": Person})))
        with pytest.raises(EventRefused) as refused:
            await world.engine.receive(order())
        assert str(refused.value.cause) == "the payload of 'order' is not valid: say who you are"

    @pytest.mark.parametrize(
        ("event", "cause"), [(order("many"), InvalidPayload), (order(version="2"), UnknownPayloadVersion)]
    )
    async def test_is_kept_with_the_reason_and_does_not_take_its_name(
        self, world: World, event: Event, cause: Any
    ) -> None:
        world.deploy(ORDERS)
        with pytest.raises(EventRefused) as refused:
            await world.engine.receive(event)
        assert isinstance(refused.value.cause, cause)
        [kept] = await world.store.events(state="refused")
        assert kept.problem is not None
        assert kept.problem["title"] == cause.__name__
        assert kept.run_ids == ()

        corrected = await world.engine.receive(order(7))
        assert (corrected.duplicate, len(corrected.runs)) == (False, 1)

    async def test_may_come_in_again_once_the_code_knows_it_and_is_a_dead_letter_no_more(self, world: World) -> None:
        world.deploy(ORDERS)
        with pytest.raises(EventRefused):
            await world.engine.receive(order(version="2"))
        [kept] = await world.store.events(state="refused")
        with pytest.raises(EventRefused):
            await world.engine.receive_again(kept.event.uid)
        assert len(await world.store.events(state="refused")) == 1

        world.deploy(takes(On("order", payload={"1": Order, "2": Order})))
        receipt = await world.engine.receive_again(kept.event.uid)

        assert not receipt.duplicate
        assert (await world.take(receipt.runs[0].id).go_on()).state is RunState.COMPLETED
        assert await world.store.events(state="refused") == []
        stored = await world.store.event(kept.event.uid)
        assert (stored.state, stored.problem, stored.run_ids) == (EventState.ACCEPTED, None, (receipt.runs[0].id,))
        assert (await world.engine.receive_again(kept.event.uid)).duplicate

    async def test_may_not_come_in_again_under_a_name_that_other_content_has_taken(self, world: World) -> None:
        world.deploy(ORDERS)
        with pytest.raises(EventRefused):
            await world.engine.receive(order("many"))
        [kept] = await world.store.events(state="refused")
        await world.engine.receive(order(7))
        with pytest.raises(EventConflict):
            await world.engine.receive_again(kept.event.uid)
        with pytest.raises(UnknownEvent):
            await world.engine.receive_again("evt_nowhere")

    async def test_because_it_is_no_json_is_not_stored(self, world: World) -> None:
        world.deploy(takes(On("order")))
        with pytest.raises(ValueError, match="not canonical JSON"):
            await world.engine.receive(order(float("nan")))
        assert await world.store.events() == []


class TestWhatComesTwice:
    async def test_gets_the_same_run(self, world: World) -> None:
        world.deploy(ORDERS)
        once, again = await world.engine.receive(order()), await world.engine.receive(order())
        assert (once.duplicate, again.duplicate) == (False, True)
        assert [run.id for run in once.runs] == [run.id for run in again.runs]

    async def test_with_other_content_is_a_conflict(self, world: World) -> None:
        world.deploy(takes(On("order")))
        await world.engine.receive(order())
        for other in (order(2), order(type="order.changed"), order(subject="x"), order(version="2")):
            with pytest.raises(EventConflict):
                await world.engine.receive(other)
        assert len(await world.store.runs()) == 1

    async def test_fifty_times_at_once_through_two_processes_is_one_run(self, world: World) -> None:
        world.deploy(ORDERS)
        engines = (world.engine, world.process(ORDERS))
        receipts = await asyncio.gather(*(engines[turn % 2].receive(order()) for turn in range(50)))
        assert len({run.id for receipt in receipts for run in receipt.runs}) == 1
        assert [receipt.duplicate for receipt in receipts].count(False) == 1
        assert len(await world.store.runs()) == 1

    async def test_at_once_with_other_content_has_one_winner(self, world: World) -> None:
        world.deploy(takes(On("order")))
        answers = await asyncio.gather(
            *(world.engine.receive(order(number)) for number in range(10)), return_exceptions=True
        )
        assert sum(isinstance(answer, EventConflict) for answer in answers) == 9
        assert len(await world.store.runs()) == 1

    async def test_from_another_source_is_another_event(self, world: World) -> None:
        world.deploy(ORDERS)
        await world.engine.receive(order())
        assert not (await world.engine.receive(order(source="/other"))).duplicate


class TestTriggers:
    async def test_an_event_that_nobody_wants_is_kept_and_starts_nothing(self, world: World) -> None:
        world.deploy(ORDERS)
        receipt = await world.engine.receive(order(type="weather"))
        assert receipt.runs == ()
        assert (await world.store.event(receipt.event.uid)).state is EventState.ACCEPTED

    async def test_the_first_fitting_trigger_makes_the_input(self, world: World) -> None:
        def labelled(label: str) -> Any:
            return lambda payload, event: {"log": [label]}

        world.deploy(
            takes(
                On("order", source="/other", input=labelled("source")),
                On("order", input=labelled("any")),
                On("order", source="/shop", input=labelled("too late")),
            )
        )
        for event, label in ((order(), "any"), (order(source="/other"), "source")):
            run = world.take((await world.engine.receive(event)).runs[0].id)
            await run.go_on()
            assert (await run.values())["log"] == [label, "done"]

    async def test_every_workflow_that_wants_an_event_gets_a_run_of_its_newest_version(self, world: World) -> None:
        triggers = On("order")
        world.deploy(
            takes(triggers, name="a"), takes(triggers, name="b", version="1"), takes(triggers, name="b", version="2")
        )
        receipt = await world.engine.receive(order())
        assert [(run.workflow, run.version) for run in receipt.runs] == [("a", "1"), ("b", "2")]

    async def test_a_run_keeps_the_version_it_began_with(self, world: World) -> None:
        one, two = takes(On("order"), version="1"), takes(On("order"), version="2")
        world.deploy(one)
        receipt = await world.engine.receive(order())
        world.deploy(one, two)
        done = await world.take(receipt.runs[0].id).go_on()
        assert (done.state, done.version) == (RunState.COMPLETED, "1")

    def test_one_version_declared_twice_is_refused(self) -> None:
        with pytest.raises(BadWorkflow, match="declared twice"):
            Workflows([takes(On("order")), takes(On("order"))])
