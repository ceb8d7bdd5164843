"""What an operator reads about runs that wait for their turn, and about runs whose workers died or had to stop."""

from __future__ import annotations

import io
from typing import Any

from langgraph.graph import START, StateGraph
from rich.console import Console

from eventwright.app.commands.screens import run_screen
from eventwright.app.commands.timeline import timeline
from eventwright.app.commands.workflow_screens import workflow_screen
from eventwright.app.simulate import simulator
from eventwright.graphs.workflow import On, Workflow
from eventwright.runs.event import Event
from eventwright.runs.records import JournalEntry, JournalKind
from eventwright.runs.turns import ahead


def by_account(event: Event) -> str:
    return str(event.data["account"])


def ordered() -> Workflow:
    graph: StateGraph[Any, Any, Any, Any] = StateGraph(dict)
    graph.add_node("node", lambda state: {})
    graph.add_edge(START, "node")
    return Workflow("ordered", version="1", graph=graph, triggers=[On("paid", key=by_account)])


def words(screen: Any) -> str:
    out = io.StringIO()
    Console(file=out, width=200).print(screen)
    return out.getvalue()


async def test_a_run_in_line_says_why_it_waits_and_behind_whom() -> None:
    workflow = ordered()
    async with simulator(workflow) as (engine, _):
        events = [Event(id=name, source="/shop", type="paid", data={"account": "ann"}) for name in "12"]
        first, second = [(await engine.receive(event)).runs[0].id for event in events]
        run, now = await engine.store.run(second), await engine.store.now()
        waits_for = (await ahead(engine.store, [run])).get(second)
        said = words(run_screen(run, await engine.store.journal(second), [], [], now, waits_for=waits_for))

        assert "waits for its turn: runs of the key ann go one after the other" in said
        assert f"one run of the key ann at a time, behind {first[-8:]}" in said
        assert "one at a time by by_account" in words(
            workflow_screen(workflow, engine.runner.graph(workflow).get_graph())
        )


def test_the_timeline_tells_a_worker_that_died_from_one_that_had_to_stop() -> None:
    def taken(**data: Any) -> str:
        facts = {"from": "processing", "to": "processing", **data}
        entry = JournalEntry(run_id="run", kind=JournalKind.TRANSITION, actor="heir", data=facts)
        return next(timeline([entry])).text

    assert taken(taken_over=True, crashes=1) == "taken over from a dead worker by heir"
    assert taken(taken_over=True, crashes=0) == "taken over from a worker that had to stop by heir"
    assert taken(taken_over=True) == "taken over from a dead worker by heir", "as of an earlier release"
