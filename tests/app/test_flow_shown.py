"""Flow control is shown wherever its trigger is, and a gathered run tells all its events."""

from __future__ import annotations

import pytest
from tests.app.test_waiting_shown import words
from tests.outside import World, says
from tests.queue.flow_world import MINUTE, asks, flowing, sends

from eventwright.app.commands.workflow_screens import workflow_screen
from eventwright.app.web.models import Run
from eventwright.app.web.routes_system import describe_workflow
from eventwright.app.wire.problems import problem_of
from eventwright.graphs.flow import Batch, Flow
from eventwright.queue.desk import ReviewClosed
from eventwright.runs.gathered import gathered


def test_a_workflow_says_when_its_runs_begin() -> None:
    workflow = flowing(Flow(debounce=MINUTE), key="of")
    told = [trigger.flow for trigger in describe_workflow(workflow, newest=True).triggers]
    assert told == ["debounced for 0:01:00, by of"] * 2
    shown = words(workflow_screen(workflow, workflow.graph.compile().get_graph()))
    assert "one at a time by of, debounced for 0:01:00, by of" in shown


async def test_a_run_tells_the_events_that_were_gathered_into_it(world: World) -> None:
    world.deploy(flowing(Flow(batch=Batch(3, MINUTE))))
    run = await sends(world, n=1)
    await sends(world, n=2)
    told = Run.of(run, [], gathered=await gathered(world.store, run.id))
    assert [event.data["n"] for event in (told.event, *told.gathered)] == [1, 2]


async def test_a_late_decision_is_gone_and_names_what_stands_there_instead(world: World) -> None:
    world.deploy(flowing(Flow(key="of", supersede=True), asks))
    first = await sends(world, n=1)
    await world.engine.advance(first.id)
    (asked,) = await world.take(first.id).reviews()
    second = await sends(world, n=2)
    await world.engine.advance(second.id)
    (instead,) = await world.take(second.id).reviews()
    with pytest.raises(ReviewClosed) as late:
        await world.engine.decide(asked.id, says("approve"))
    problem = problem_of(late.value)
    assert problem.type.status == 410
    assert problem.extensions["state"] == "superseded"
    assert (problem.extensions["newer_run"], problem.extensions["newer_reviews"]) == (second.id, [instead.id])
