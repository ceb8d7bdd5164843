"""Schedules as they are declared on a workflow: what is refused, and what a tick becomes."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

import pytest
from pydantic import BaseModel
from tests.outside import chain

from eventwright.app.simulate import simulate
from eventwright.graphs.schedules import Every, schedules_of
from eventwright.graphs.workflow import BadWorkflow, On, Workflow


class Report(BaseModel):
    team: str
    scheduled_for: datetime


async def look(state: Any) -> dict[str, Any]:
    return {}


def reports(*triggers: On, name: str = "report") -> Workflow:
    return Workflow(name, version="1", graph=chain(look=look), triggers=triggers)


@pytest.mark.parametrize(
    ("wrong", "problem"),
    [
        ({"cron": "0 25 * * *"}, "bad hour"),
        ({"zone": "Berlin"}, "no such time zone"),
        ({"missed": "some"}, "none of skip, one, all"),
        ({"name": "Every day"}, "lower case letters"),
        ({"type": "eventwright.own"}, "Eventwright's own"),
        ({"data": {"at": datetime(2026, 1, 1, tzinfo=UTC)}}, "not canonical JSON"),
        ({"payload": {"1": Report}}, "team: Field required"),
        ({"payload": {"2": Report}, "data": {"team": "a"}}, "payload version '1'"),
        ({"key": "team"}, "no such field"),
    ],
)
def test_a_schedule_that_could_not_fire_is_refused_when_it_is_declared(wrong: dict[str, Any], problem: str) -> None:
    with pytest.raises(BadWorkflow, match=problem):
        Every(**{"cron": "0 9 * * *", "type": "report.due"} | wrong)


def test_two_schedules_of_one_name_are_refused() -> None:
    with pytest.raises(BadWorkflow, match="two schedules with the source '/schedules/report/report-due'"):
        reports(Every("0 9 * * *", type="report.due"), Every("0 18 * * *", type="report.due"))
    evening = Every("0 18 * * *", type="report.due", name="evening")
    assert len(schedules_of(reports(Every("0 9 * * *", type="report.due"), evening))) == 2


def test_a_tick_becomes_an_event_that_is_named_by_schedule_and_time() -> None:
    every = Every("0 9 * * *", zone="Europe/Berlin", type="report.due", data={"team": "a"}, payload={"1": Report})
    workflow = reports(On("report.wanted"), every)
    (bound,) = schedules_of(workflow)
    tick = datetime(2026, 7, 1, 7, tzinfo=UTC)
    event = bound.firing(tick)
    assert (event.source, event.id, event.time) == ("/schedules/report/report-due", "2026-07-01T07:00:00Z", tick)
    assert event.data == {"team": "a", "scheduled_for": "2026-07-01T07:00:00Z"}
    assert workflow.trigger(event) is bound
    assert reports(every, name="other").trigger(event) is None


def test_a_schedule_of_no_workflow_fires_nothing() -> None:
    with pytest.raises(ValueError, match="belongs to no workflow"):
        Every("0 9 * * *", type="report.due").firing(datetime(2026, 7, 1, tzinfo=UTC))


async def test_a_scheduled_workflow_can_be_simulated_without_waiting_for_its_time() -> None:
    workflow = reports(Every("0 9 * * *", type="report.due", data={"n": 1}))
    async with simulate(workflow, {"log": ["x"]}) as simulation:
        assert await simulation.values() == {"n": 1, "log": ["x"]}
