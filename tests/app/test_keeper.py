"""Workers delete by themselves what was kept long enough, and go on with it after a trouble."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from functools import partial
from typing import Any

import pytest

from eventwright.app import composition
from eventwright.app.composition import App
from eventwright.queue import keeper
from eventwright.queue.keeper import Keeper
from eventwright.runs.errors import StoreUnavailable
from eventwright.runs.retention import Keep, Removed
from eventwright.runs.states import RunState

Opened = Callable[..., AbstractAsyncContextManager[App]]
WISH = {"account": "ann", "amount": "10.00"}


@pytest.fixture(autouse=True)
def often(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(composition, "Keeper", partial(Keeper, every=0.05))


@asynccontextmanager
async def at_work(app: App) -> AsyncIterator[None]:
    stopping = asyncio.Event()
    work = asyncio.create_task(app.work(stopping))
    yield
    stopping.set()
    await work


async def test_a_trouble_of_the_database_does_not_end_the_worker(
    opened: Opened, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    tried: list[Keep] = []

    async def fail_first(store: Any, keep: Keep) -> Removed:
        tried.append(keep)
        if len(tried) == 1:
            raise StoreUnavailable("no room")
        return Removed()

    monkeypatch.setattr(keeper, "remove_some", fail_first)
    async with opened() as app, at_work(app):
        while len(tried) < 3:
            await asyncio.sleep(0.02)
    assert "nothing is deleted for now: no room" in caplog.text


async def test_a_worker_deletes_what_is_over_its_time_and_shows_that_it_did(
    opened: Opened, client_of: Any, sent: Any
) -> None:
    async with opened(keep_checkpoints="1s", keep_payloads="1s") as app, client_of(app) as client:
        done = await sent(client, "1", WISH)
        asked = await sent(client, "2", WISH | {"amount": "120.00"})
        async with at_work(app):
            while (await app.store.run(done)).expired_at is None or not (await app.store.run(done)).event.expired_at:
                await asyncio.sleep(0.05)
        run = (await client.get(f"/v1/runs/{done}")).json()
        assert (run["state"], run["event"]["data"]) == ("completed", None)
        assert run["event"]["expired_at"] is not None
        (effect,) = (await client.get(f"/v1/runs/{done}/effects")).json()["items"]
        assert (effect["arguments"], effect["result"], effect["state"]) == (None, None, "done")
        assert effect["expired_at"] is not None
        assert "were deleted on" in effect["obstacle"]
        undo = await client.post(f"/v1/runs/{done}/undo")
        assert (undo.status_code, "were deleted on" in undo.json()["detail"]) == (409, True)
        replay = await client.post(f"/v1/events/{run['event']['uid']}/replay")
        assert (replay.status_code, replay.json()["type"]) == (410, "urn:eventwright:problem:expired")
        entries = (await client.get(f"/v1/runs/{done}/journal")).json()["items"]
        assert (entries[-1]["actor"], entries[-2]["data"]["to"]) == ("retention", "completed")

        waiting = await app.store.run(asked)
        assert (waiting.state, waiting.event.data["amount"]) == (RunState.PENDING_APPROVAL, "120.00")


async def test_an_expired_question_is_shown_with_its_decision(opened: Opened, client_of: Any, sent: Any) -> None:
    async with opened(keep_payloads="1s") as app, client_of(app) as client:
        run_id = await sent(client, "1", WISH | {"amount": "120.00"})
        await app.engine.advance(run_id)
        (review_id,) = (await client.get(f"/v1/runs/{run_id}")).json()["reviews"]
        await client.post(f"/v1/reviews/{review_id}/decision", json={"type": "approve"})
        assert await app.engine.advance(run_id) is RunState.COMPLETED
        async with at_work(app):
            while (await app.store.run(run_id)).expired_at is None:
                await asyncio.sleep(0.05)
        review = (await client.get(f"/v1/reviews/{review_id}")).json()
    assert (review["arguments"], review["evidence"], review["decision"]["type"]) == (None, {}, "approve")
    assert review["expired_at"] is not None
