"""A service whose database is full or away refuses at every door, stores nothing by halves, and goes on by itself."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from typing import Any, TypedDict

import httpx
import pytest
from langgraph.graph import END, START, StateGraph

from eventwright.app.composition import App
from eventwright.graphs.workflow import On, Workflow
from eventwright.runs.states import RunState

Opened = Callable[..., AbstractAsyncContextManager[App]]
BRISK = {"lease_seconds": 1.0, "heartbeat_seconds": 0.3, "sweep_seconds": 0.3}
#: More than the pages that a database has to spare.
LARGE = "x" * 200_000


class Notes(TypedDict, total=False):
    text: str


class Writer:
    """A workflow whose second step writes more than a full database takes, once it is let go."""

    def __init__(self) -> None:
        self.begun, self.go = asyncio.Event(), asyncio.Event()
        self.visits = 0

    async def wait(self, state: Notes) -> Notes:
        self.visits += 1
        self.begun.set()
        await self.go.wait()
        return {"text": LARGE}

    @property
    def workflow(self) -> Workflow:
        graph = StateGraph(Notes)
        graph.add_node("wait", self.wait)
        graph.add_edge(START, "wait")
        graph.add_edge("wait", END)
        return Workflow("notes", version="1", graph=graph, triggers=[On("note.taken", trusted=True)])


@asynccontextmanager
async def at_work(app: App) -> AsyncIterator[asyncio.Task[None]]:
    stopping = asyncio.Event()
    work = asyncio.create_task(app.work(stopping))
    try:
        yield work
    finally:
        stopping.set()
        await work


async def post(client: httpx.AsyncClient, event_type: str, data: Any, **more: str) -> httpx.Response:
    event = {"specversion": "1.0", "id": "1", "source": "/shop", "type": event_type, "data": data} | more
    return await client.post("/v1/events", json=event, headers={"content-type": "application/cloudevents+json"})


async def let_grow(app: App, pages: int) -> None:
    """So many pages may the database have, not one more."""
    await app.store._database.write(lambda connection: connection.exec_driver_sql(f"PRAGMA max_page_count={pages}"))


async def ended(app: App, run_id: str) -> RunState:
    """The state of the run when it is final; pytest's timeout is the only limit."""
    while (run := await app.store.run(run_id)).state is not RunState.COMPLETED:
        await asyncio.sleep(0.02)
    return run.state


async def test_with_a_full_disk_every_door_says_so_and_work_goes_on_when_there_is_room(
    opened: Opened, client_of: Any, caplog: pytest.LogCaptureFixture
) -> None:
    writer = Writer()
    async with opened(writer.workflow, **BRISK) as app, client_of(app) as client, at_work(app) as work:
        run_id = (await post(client, "note.taken", {})).json()["events"][0]["runs"][0]["id"]
        await writer.begun.wait()
        stored = len(await app.store.events())
        await let_grow(app, 1)
        writer.go.set()
        while "given up" not in caplog.text:
            await asyncio.sleep(0.02)

        large = {"account": LARGE, "amount": "10"}
        for refused in (
            await post(client, "refund.wanted", large, id="2"),
            await client.get("/readyz"),
        ):
            assert (refused.status_code, refused.headers["retry-after"]) == (503, "2")
            assert refused.json()["detail"] == "there is no room left where the database is"
        assert (await client.get("/healthz")).status_code == 200
        assert (await client.get("/v1/runs")).status_code == 200
        assert len(await app.store.events()) == stored
        assert not work.done()

        await let_grow(app, 1_000_000)
        assert await ended(app, run_id) is RunState.COMPLETED
        assert writer.visits == 2, "what was not stored is done again"
        assert (await post(client, "refund.wanted", large, id="2")).status_code == 202
        assert (await client.get("/readyz")).status_code == 200


async def test_while_postgresql_is_down_every_door_says_so_and_work_goes_on_when_it_is_back(
    opened: Opened, client_of: Any, postgres_url: str, postgres_server: Any
) -> None:
    writer = Writer()
    async with (
        opened(writer.workflow, database_url=postgres_url, **BRISK) as app,
        client_of(app) as client,
        at_work(app) as work,
    ):
        run_id = (await post(client, "note.taken", {})).json()["events"][0]["runs"][0]["id"]
        await writer.begun.wait()
        with postgres_server.stopped():
            writer.go.set()
            for door in ("/v1/runs", f"/v1/runs/{run_id}/journal", "/v1/reviews", "/v1/events", "/readyz"):
                refused = await client.get(door)
                assert (refused.status_code, refused.headers["retry-after"]) == (503, "2"), door
                assert refused.json()["detail"] == "the database does not answer"
            for door in (f"/v1/runs/{run_id}/cancel", "/v1/reviews/review_1/decision", f"/v1/runs/{run_id}/undo"):
                refused = await client.post(door, json={"type": "approve"} if "reviews" in door else {})
                assert (refused.status_code, refused.headers["retry-after"]) == (503, "2"), door
            refused = await post(client, "note.taken", {}, id="2")
            assert (refused.status_code, refused.headers["retry-after"]) == (503, "2")
            assert (await client.get("/healthz")).status_code == 200
            assert not work.done()
        assert await ended(app, run_id) is RunState.COMPLETED
        blamed = [entry.data["crashes"] for entry in await app.store.journal(run_id) if "crashes" in entry.data]
        assert not any(blamed), "nobody could renew a lease, and no worker died of this run"
        later = (await post(client, "note.taken", {}, id="2")).json()["events"][0]
        assert later["duplicate"] is False
        assert await ended(app, later["runs"][0]["id"]) is RunState.COMPLETED
        assert (await client.get("/readyz")).status_code == 200
