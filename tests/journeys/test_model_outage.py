"""The provider of the models is down for an hour: tickets wait by themselves, everything else goes on, and when it is
back each of them is answered, once."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import datetime, timedelta
from typing import Any

import pytest
from tests.journeys.support_world import ANN, CLEAR, Outside, ticket
from tests.loopback import on_loopback
from tests.outside import chain, job
from tests.tools.model_provider import Provider, completion, http, problem

from eventwright.app.simulate import SimulatedClock, Simulation, simulator
from eventwright.graphs.support import PREPARED_REPLY, support
from eventwright.graphs.workflow import Workflow
from eventwright.queue.engine import Engine
from eventwright.runs.event import Event, new_id
from eventwright.runs.states import Outcome, RunState
from eventwright.tools.building import Models, ModelSettings, build_models

#: Works without any model.
ERRANDS = job(chain(errand=lambda state: {"log": ["done"]}), name="errands")
GOOD = {"classify": "card_delivery", "choose": "high", "draft": "Dear Ann, it is on its way."}


class Hospital(Provider):
    """A provider that is ill, or well."""

    ill: bool = True
    #: What it has answered.
    answered: list[str]

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.script = [self._reply]
        await super().serve(reader, writer)

    async def _reply(self, writer: asyncio.StreamWriter) -> None:
        if self.ill:
            await problem(503)(writer)
            return
        self.answered.append(json.dumps(self.requests[-1], sort_keys=True))
        name = self.requests[-1]["tools"][0]["function"]["name"]
        arguments = json.dumps({"value": GOOD.get(name), "confidence": 0.95, "reason": "clear"})
        call = {"id": "1", "type": "function", "function": {"name": name, "arguments": arguments}}
        said = {"content": None, "tool_calls": [call]} if name in GOOD else {"content": "There is nothing."}
        await http(completion(said, "tool_calls" if name in GOOD else "stop"))(writer)


@pytest.fixture
async def hospital() -> AsyncIterator[Hospital]:
    hospital = Hospital()
    hospital.answered = []
    async with on_loopback(hospital.serve) as hospital.port:
        yield hospital


@asynccontextmanager
async def models_at(hospital: Hospital, **settings: Any) -> AsyncIterator[Models]:
    models = build_models(ModelSettings(base_url=f"http://127.0.0.1:{hospital.port}/v1", **settings))
    try:
        yield models
    finally:
        await models.close()


async def send(engine: Engine, clock: SimulatedClock, workflow: Workflow, data: dict[str, Any]) -> Simulation:
    event = Event(id=new_id("e"), source="/test", type=workflow.triggers[0].type, data=data)
    receipt = await engine.receive(event)
    return Simulation(engine, receipt.runs[0].id, clock)


async def test_tickets_wait_for_the_provider_while_all_else_goes_on_and_each_is_answered_once(
    hospital: Hospital, outside: Outside
) -> None:
    patient = support.with_policy("classify", patience=timedelta(days=1))
    async with (
        models_at(hospital) as models,
        simulator(patient, ERRANDS, resources=[*outside.clients, models]) as (engine, clock),
    ):
        scout = await send(engine, clock, patient, ticket())
        while await engine.advance(scout.run_id) is RunState.RETRYING:
            clock.pass_until(await due(scout))
        began = await scout.run()
        assert (began.state, began.attempts, len(hospital.requests)) == (RunState.WAITING, 3, 3)

        tickets = [await send(engine, clock, patient, ticket(f"{CLEAR} It is my {n}th card.")) for n in range(4, 9)]
        for run in tickets:
            assert await engine.advance(run.run_id) is RunState.WAITING
            now = await run.run()
            assert (now.attempts, now.error) == (1, f"gpt-4.1-mini at 127.0.0.1:{hospital.port} is down")
        assert len(hospital.requests) == 3, "nobody asked it on their behalf"

        errand = await send(engine, clock, ERRANDS, {"log": []})
        assert (await errand.go_on()).outcome is Outcome.AUTO

        back = clock() + timedelta(hours=1)
        while (next_look := await due(scout)) < back:
            clock.pass_until(next_look)
            assert await engine.advance(scout.run_id) is RunState.WAITING
        looks = len(hospital.requests)
        assert looks < 25, "it was looked for now and then"

        hospital.ill = False
        for run in (scout, *tickets):
            done = await run.go_on()
            assert (done.state, done.outcome) == (RunState.COMPLETED, Outcome.AUTO)
            assert done.attempts == (3 if run is scout else 1)
        assert [message.to for message in outside.smtp.messages] == [ANN.email] * 6
        assert len(hospital.answered) == len(set(hospital.answered)) == len(hospital.requests) - looks


async def test_as_it_is_shipped_a_ticket_gets_the_prepared_reply_after_some_minutes(
    hospital: Hospital, outside: Outside
) -> None:
    async with (
        models_at(hospital) as models,
        simulator(support, resources=[*outside.clients, models]) as (engine, clock),
    ):
        began = clock()
        run = await send(engine, clock, support, ticket())
        done = await run.go_on()
        assert (done.state, done.outcome) == (RunState.COMPLETED, Outcome.FALLBACK)
        assert timedelta(minutes=1) < clock() - began < timedelta(minutes=10)
        [message] = outside.smtp.messages
        assert message.body.startswith(PREPARED_REPLY)


async def due(run: Simulation) -> datetime:
    due_at = (await run.run()).due_at
    assert due_at is not None
    return due_at
