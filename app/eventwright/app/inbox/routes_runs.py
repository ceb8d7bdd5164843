"""Runs as an operator sees them: where they are and why, what happened, and the two verbs for those that went wrong."""

from __future__ import annotations

import asyncio
import hashlib
from collections import Counter
from collections.abc import Sequence
from http import HTTPStatus
from typing import Any

from fastapi import APIRouter, Request
from starlette.responses import RedirectResponse, Response

from eventwright.app.commands.telling import call, result, short, waits, why
from eventwright.app.commands.timeline import timeline
from eventwright.app.composition import App
from eventwright.app.inbox import words
from eventwright.app.inbox.door import Asker, Chosen, InboxRoute, Who, check_mark
from eventwright.app.inbox.pages import HEADERS, message, page
from eventwright.app.pictures import graph_picture, timeline_picture
from eventwright.app.web.bodies import read_body
from eventwright.app.web.form_posts import TOKEN, read_post
from eventwright.app.web.paging import Cursor, Eventwright, Id, cut
from eventwright.app.web.refusals import logged_problem
from eventwright.graphs.workflow import UnknownWorkflow
from eventwright.runs.errors import EventwrightError
from eventwright.runs.gathered import gathered
from eventwright.runs.records import Effect, Review, ReviewState, Run
from eventwright.runs.states import FINAL, RunState
from eventwright.runs.turns import ahead
from eventwright.runs.waits import waiting_for

router = APIRouter(prefix="/inbox", include_in_schema=False, route_class=InboxRoute)

#: Runs on a page, lines of a timeline, reviews and effects of a run.
PAGE, MOMENTS, PARTS = 30, 150, 100
#: Entries of a journal up to which a run is drawn: beyond, nobody finds anything in the picture.
DRAWN = 250
_SVG = {"Content-Type": "image/svg+xml"}


@router.get("/runs")
async def show_runs(
    app: Eventwright, who: Who, state: RunState | None = None, workflow: Chosen = None, before: Cursor = None
) -> Response:
    """Runs, the newest first: each one's state, and why."""
    workflow = workflow or None
    states = [] if state is None else [state]
    found = await app.store.runs(states=states, workflow=workflow, limit=PAGE + 1, before=before)
    runs, more = cut(found, PAGE)
    now, counted = await app.store.recent_now(), await app.store.counts()
    by_state = Counter(dict.fromkeys(RunState, 0))
    for (name, found_state), count in counted.items():
        if workflow in (None, name):
            by_state[RunState(found_state)] += count
    asked = await _questions(app, runs)
    listed = [(run, words.title_of(run.event), why(run, now, asked.get(run.id, ()))) for run in runs]
    return page(
        "runs.html",
        who,
        here="runs",
        runs=listed,
        now=now,
        state=state,
        workflow=workflow,
        by_state=dict(by_state),
        workflows=sorted({name for name, _ in counted}),
        before=before,
        more=more.id if more else None,
        version=_version(runs, by_state),
    )


@router.get("/runs/{run_id}")
async def show_run(run_id: Id, app: Eventwright, who: Who) -> Response:
    """Everything an operator wants to know about one run."""
    return await _shown(app, who, await app.store.run(run_id))


@router.get("/runs/{run_id}/journal")
async def show_journal(run_id: Id, app: Eventwright, who: Who) -> Response:
    """All that happened, as one page."""
    run, moments = await app.store.run(run_id), list(timeline(await app.store.journal(run_id)))
    return page("journal.html", who, here="runs", run=run, moments=moments)


@router.get("/runs/{run_id}/event")
async def show_event(run_id: Id, app: Eventwright, who: Who) -> Response:
    """The event's data, uncut."""
    run = await app.store.run(run_id)
    events = [run.event, *await gathered(app.store, run_id)]
    parts = [words.shown(event.type, event.data, None) for event in events]
    links = {"Back to the run": f"/inbox/runs/{run.id}"}
    return page("whole.html", who, here="runs", title="What came in", parts=parts, links=links)


@router.get("/runs/{run_id}/timeline.svg")
async def draw_timeline(run_id: Id, app: Eventwright, who: Who) -> Response:
    """How it went, drawn."""
    run, journal = await app.store.run(run_id), await app.store.journal(run_id)
    history = await app.store.history(run_id)
    picture = timeline_picture(run, journal[:DRAWN], list(history.effects.values()), history.reviews)
    return Response(picture.svg, headers=HEADERS | _SVG)


@router.get("/runs/{run_id}/graph.svg")
async def draw_graph(run_id: Id, app: Eventwright, who: Who) -> Response:
    """Its workflow's graph, with the nodes marked at which somebody is asked. Raises UnknownWorkflow."""
    run = await app.store.run(run_id)
    workflow = app.workflows.get(run.workflow, run.version)
    reviews = await app.store.reviews(state=ReviewState.OPEN, run_ids=[run_id])
    picture = await asyncio.to_thread(graph_picture, workflow, asking={review.node for review in reviews})
    return Response(picture.svg, headers=HEADERS | _SVG)


@router.get("/runs/{run_id}/cancel")
async def ask_to_cancel(run_id: Id, app: Eventwright, who: Who) -> Response:
    """The page that asks back before a run is ended."""
    return page("confirm.html", who, here="runs", run=await app.store.run(run_id), verb="cancel", token_name=TOKEN)


@router.get("/runs/{run_id}/replay")
async def ask_to_replay(run_id: Id, app: Eventwright, who: Who) -> Response:
    """The page that asks back before a run is taken up again."""
    return page("confirm.html", who, here="runs", run=await app.store.run(run_id), verb="replay", token_name=TOKEN)


@router.post("/runs/{run_id}/cancel")
async def cancel(run_id: Id, request: Request, app: Eventwright, who: Who) -> Response:
    """End the run; one that is processing ends at its next boundary."""
    check_mark(who, (await read_post(await read_body(request), request.headers)).token)
    try:
        await app.engine.cancel(run_id, by=who.name)
    except EventwrightError as error:
        return _not_done(error, run_id, who)
    return RedirectResponse(f"/inbox/runs/{run_id}", HTTPStatus.SEE_OTHER, headers=HEADERS)


@router.post("/runs/{run_id}/replay")
async def replay(run_id: Id, request: Request, app: Eventwright, who: Who) -> Response:
    """Take a dead letter up again, on from its last checkpoint or from the start."""
    post = await read_post(await read_body(request), request.headers)
    check_mark(who, post.token)
    try:
        await app.engine.replay(run_id, by=who.name, from_start=post.values.get("from_start") == "true")
    except EventwrightError as error:
        return _not_done(error, run_id, who)
    return RedirectResponse(f"/inbox/runs/{run_id}", HTTPStatus.SEE_OTHER, headers=HEADERS)


def _not_done(error: EventwrightError, run_id: str, who: Asker) -> Response:
    problem = logged_problem(error)
    links = {"Back to the run": f"/inbox/runs/{run_id}", "All runs": "/inbox/runs"}
    return message("Nothing was done", problem.detail or problem.title, HTTPStatus(problem.status), who, links=links)


async def _shown(app: App, who: Asker, run: Run) -> Response:
    store = app.store
    now, journal, effects = await store.recent_now(), await store.journal(run.id), await store.effects(run.id)
    standing = await store.reviews(state=ReviewState.OPEN, run_ids=[run.id], limit=PARTS)
    reviews = await store.reviews(run_ids=[run.id], limit=PARTS)
    moments = list(timeline(journal))
    facts = waits(run, (await ahead(store, [run])).get(run.id), (await waiting_for(store, [run.id]))[run.id], now)
    told = [
        (effect, call(effect.tool, _read(effect), 300), effect.error or result(effect.result, 300))
        for effect in effects[-PARTS:]
    ]
    return page(
        "run.html",
        who,
        here="runs",
        run=run,
        now=now,
        why=why(run, now, standing),
        next=words.NEXT[run.state],
        facts=list(facts),
        moments=moments[-MOMENTS:],
        earlier=max(len(moments) - MOMENTS, 0),
        effects=told,
        calls=len(effects),
        standing=standing,
        closed=[review for review in reviews if review.state is not ReviewState.OPEN],
        data=words.rows(run.event.data),
        others=len(await gathered(store, run.id)),
        drawn=len(journal) <= DRAWN,
        loaded=_is_loaded(app, run),
        final=run.state in FINAL,
        version=f"{run.state} {len(journal)}",
        short=short,
    )


def _is_loaded(app: App, run: Run) -> bool:
    try:
        app.workflows.get(run.workflow, run.version)
    except UnknownWorkflow:
        return False
    return True


def _read(effect: Effect) -> Any:
    """The arguments of a call for people; what a chat model is given is made for models."""
    return None if effect.tool == "model.chat" else effect.arguments


async def _questions(app: App, runs: Sequence[Run]) -> dict[str, list[Review]]:
    """What is asked about these runs."""
    asking = [run.id for run in runs if run.asks]
    found = await app.store.reviews(state=ReviewState.OPEN, run_ids=asking) if asking else []
    asked: dict[str, list[Review]] = {}
    for review in found:
        asked.setdefault(review.run_id, []).append(review)
    return asked


def _version(runs: Sequence[Run], by_state: Counter[RunState]) -> str:
    """Changes when there is something new on the page, and not with the time."""
    lines = [f"{run.id} {run.state} {run.updated_at}" for run in runs]
    return hashlib.sha256(f"{lines} {sorted(by_state.items())}".encode()).hexdigest()[:16]
