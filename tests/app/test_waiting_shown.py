"""What a run waits for is shown wherever the run is: the API, the command line, the timeline, the workflow."""

from __future__ import annotations

import io

from rich.console import Console
from tests.outside import World
from tests.queue.waiting_world import paying, pays

from eventwright.app.commands.screens import run_screen
from eventwright.app.commands.workflow_screens import workflow_screen
from eventwright.app.web.models import Run
from eventwright.app.web.routes_system import describe_workflow
from eventwright.graphs.described import described_whole
from eventwright.runs.states import RunState
from eventwright.runs.waits import waiting_for


def words(screen: object) -> str:
    out = io.StringIO()
    Console(file=out, width=200).print(screen)
    return out.getvalue()


async def test_a_run_that_waits_says_for_what_and_until_when(world: World) -> None:
    run = await world.send(paying())
    assert await world.engine.advance(run.run_id) is RunState.WAITING
    found, waiting = await run.run(), (await waiting_for(world.store, [run.run_id]))[run.run_id]

    told = Run.of(found, [], None, waiting).model_dump(mode="json")["waiting_for"]
    assert found.due_at is not None
    assert told == [{"types": ["paid"], "key": "7", "until": found.due_at.isoformat().replace("+00:00", "Z")}]
    shown = words(run_screen(found, await run.journal(), [], [], await world.store.now(), waiting=waiting))
    assert "waits for  paid of 7, until " in shown
    assert "waits for paid of 7, until " in shown
    assert "waiting · paid" in (await run.timeline()).svg

    await pays(world)
    await run.go_on()
    shown = words(run_screen(await run.run(), await run.journal(), [], [], await world.store.now()))
    assert "came, which it waited for: paid " in shown


def test_a_workflow_says_which_events_go_on_with_its_runs() -> None:
    workflow = paying()
    triggers = describe_workflow(workflow, newest=True).triggers
    assert [(trigger.type, trigger.continues, trigger.key) for trigger in triggers] == [
        ("job", False, None),
        ("paid", True, "invoice_id"),
        ("replied", True, "<lambda>"),
    ]
    shown = words(workflow_screen(workflow, workflow.graph.compile().get_graph()))
    assert "paid (payload 1), goes on by invoice_id" in shown
    assert "eventwright send --type job" in shown
    assert "paid (goes on with a run): untrusted" in [line.words for line in described_whole(workflow)]
