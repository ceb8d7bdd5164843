"""A model is down: a run that asks it waits, or goes on with what was prepared."""

from __future__ import annotations

from collections.abc import AsyncIterator
from datetime import timedelta
from typing import Any

import pytest
from tests.graphs.test_outages import FIRST, waits
from tests.outside import ModelServer, World, a_model, a_world, answer, chain, ended, job

from eventwright.graphs.judgement import classify
from eventwright.guardrails.policy import Policy
from eventwright.runs.states import Outcome, RunState
from eventwright.tools.breaker import Tolerance
from eventwright.tools.chat_models import process_model
from eventwright.tools.contract import Resources
from eventwright.tools.providers import Providers


@pytest.fixture
async def asking(sqlite_url: str) -> AsyncIterator[tuple[World, ModelServer]]:
    """A world whose model is a server with a script, which is left alone after one fault."""
    server = ModelServer()
    async with a_model(server) as model, a_world(sqlite_url, model) as world:
        providers = Providers(Tolerance(failures=1, first=FIRST), clock=lambda: world.clock().timestamp())
        world.resources = Resources((*world.resources.items, providers))
        yield world, server


async def judges(state: Any) -> dict[str, Any]:
    return {"log": [(await classify("a text", ("good", "bad"))).value]}


async def chats(state: Any) -> dict[str, Any]:
    model = process_model().bind_tools([{"name": "note", "description": "d", "parameters": {"type": "object"}}])
    try:
        reply = await model.ainvoke("a text")
    except Exception:  # noqa: BLE001 - a node may try; its own cleverness must not lose the wait
        return {"log": ["nothing"]}
    return {"log": [reply.tool_calls[0]["args"]["value"]]}


@pytest.mark.parametrize("node", [judges, chats])
async def test_a_run_waits_for_a_model_that_is_down_and_asks_it_once_more(
    asking: tuple[World, ModelServer], node: Any
) -> None:
    world, server = asking
    server.script = [503, answer("good")]
    run = await world.send(job(chain(node=node)))
    await waits(run)
    assert ((await run.run()).error or "").startswith("gpt-4.1-mini at 127.0.0.1:")
    done = await run.go_on()
    assert (*ended(done), done.attempts) == (RunState.COMPLETED, Outcome.AUTO, 1)
    assert (await run.values())["log"] == ["good"]
    assert server.asked == 2


@pytest.mark.parametrize(("patience", "minutes"), [(None, 1), (timedelta(minutes=10), 10), (timedelta(0), 0)], ids=str)
async def test_prepared_content_stands_in_for_a_model_that_is_down_once_patience_is_over(
    asking: tuple[World, ModelServer], patience: timedelta | None, minutes: int
) -> None:
    world, server = asking
    server.script = [503] * 50
    policy = Policy(retries=3, fallback="bad", patience=patience)
    run = await world.send(job(chain(node=judges), {"node": policy}))
    began = world.clock()
    done = await run.go_on()
    assert (*ended(done), done.attempts) == (RunState.COMPLETED, Outcome.FALLBACK, 1)
    assert (await run.values())["log"] == ["bad"]
    assert timedelta(minutes=minutes) <= world.clock() - began < timedelta(minutes=minutes + 1)
