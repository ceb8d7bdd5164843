"""Schedules over HTTP: no door for their events, and a list of what fired and what is next."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractAsyncContextManager
from datetime import UTC, datetime
from typing import Any

from tests.outside import chain

from eventwright.app.composition import App
from eventwright.graphs.schedules import Every, schedules_of
from eventwright.graphs.workflow import Workflow

CLOUD = {"content-type": "application/cloudevents+json"}
Opened = Callable[..., AbstractAsyncContextManager[App]]


async def look(state: Any) -> dict[str, Any]:
    return {}


def report() -> Workflow:
    every = Every("0 9 * * MON-FRI", zone="Europe/Berlin", type="report.due", name="daily", data={"n": 3})
    return Workflow("report", version="1", graph=chain(look=look), triggers=[every])


async def test_an_event_that_claims_to_come_from_a_schedule_is_a_403(opened: Opened, client_of: Any) -> None:
    async with opened(report()) as app, client_of(app) as client:
        forged = {"id": "2031-05-05T09:00:00Z", "source": "/schedules/report/daily", "type": "report.due"}
        answer = await client.post("/v1/events", json={"specversion": "1.0", **forged}, headers=CLOUD)
        assert (answer.status_code, await app.store.events()) == (403, [])


async def test_schedules_are_listed_with_their_last_tick_its_run_and_their_next(opened: Opened, client_of: Any) -> None:
    async with opened(report()) as app, client_of(app) as client:
        (every,) = schedules_of(app.workflows.get("report"))
        for day in (2, 3):
            receipt = await app.engine.fire(every.firing(datetime(2026, 1, day, 8, tzinfo=UTC)))
        (told,) = (await client.get("/v1/schedules")).json()["items"]
        assert (told["workflow"], told["name"], told["cron"]) == ("report", "daily", "0 9 * * MON-FRI")
        assert (told["last"], told["runs"]) == ("2026-01-03T08:00:00Z", [receipt.runs[0].id])
        now = await app.store.now()
        assert datetime.fromisoformat(told["next"]) == every.when().next_after(now)


async def test_a_schedules_event_that_is_stored_can_be_replayed_like_any_other(opened: Opened, client_of: Any) -> None:
    async with opened(report()) as app, client_of(app) as client:
        (every,) = schedules_of(app.workflows.get("report"))
        fired = await app.engine.fire(every.firing(datetime(2026, 1, 2, 8, tzinfo=UTC)))
        answer = await client.post(f"/v1/events/{fired.event.uid}/replay")
        assert answer.status_code == 202, answer.text
        assert fired.runs[0].id in answer.text
