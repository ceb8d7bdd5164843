"""Runs: what they are at, what happened to them, and an operator's verbs."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from contextlib import suppress
from typing import Annotated

from fastapi import APIRouter, Depends, Query, Request

from eventwright.app.composition import App
from eventwright.app.web.access import Who
from eventwright.app.web.bodies import body_of
from eventwright.app.web.document import operation_id, takes
from eventwright.app.web.models import Journal, Run, RunPage
from eventwright.app.web.models_repairs import Effect, Ledger, Replay, Replayed, ReplayFilter, Undo
from eventwright.app.web.paging import Cursor, Eventwright, Id, Limit, Name, cut, problems
from eventwright.app.wire.problems import ProblemType
from eventwright.runs import records
from eventwright.runs.errors import IllegalMove
from eventwright.runs.gathered import gathered
from eventwright.runs.states import FINAL, RunState
from eventwright.runs.turns import ahead
from eventwright.runs.waits import waiting_for

router = APIRouter(prefix="/v1", tags=["runs"], generate_unique_id_function=operation_id)

#: Seconds that one request may wait for a run.
LONGEST_WAIT = 60.0
#: Runs that a filter's replay takes up at once.
BATCH = 100


@router.get("/runs", responses=problems(ProblemType.BAD_REQUEST))
async def list_runs(
    app: Eventwright,
    state: Annotated[Sequence[RunState], Query(description="may stand several times")] = (),
    workflow: Name = None,
    limit: Limit = 50,
    cursor: Cursor = None,
) -> RunPage:
    """The runs, newest first."""
    found = await app.store.runs(states=state, workflow=workflow, limit=limit + 1, before=cursor)
    items, last = cut(found, limit)
    reviews = await app.store.review_ids([run.id for run in items]) if items else {}
    before = await ahead(app.store, items)
    waiting = await waiting_for(app.store, [run.id for run in items])
    shown = [Run.of(run, reviews[run.id], before.get(run.id), waiting[run.id]) for run in items]
    return RunPage(items=shown, next=last.id if last else None)


@router.post(
    "/runs/replay",
    status_code=202,
    responses=problems(ProblemType.BAD_REQUEST, ProblemType.BAD_JSON),
    openapi_extra=takes(ReplayFilter),
)
async def replay_runs(
    chosen: Annotated[ReplayFilter, Depends(body_of(ReplayFilter))], app: Eventwright, who: Who
) -> Replayed:
    """Take up all dead letters that fit, each on from its last checkpoint."""
    replayed: list[str] = []
    cursor: str | None = None
    while page := await app.store.runs(states=[RunState.FAILED], workflow=chosen.workflow, limit=BATCH, before=cursor):
        cursor = page[-1].id
        fitting = [run for run in page if chosen.reason in (None, run.reason)]
        taken = await asyncio.gather(*(_replay_if_failed(app, run, who.name) for run in fitting))
        replayed += [run.id for run, is_taken in zip(fitting, taken, strict=True) if is_taken]
    return Replayed(runs=replayed)


@router.get("/runs/{run_id}", responses=problems(ProblemType.NOT_FOUND))
async def show_run(
    run_id: Id,
    request: Request,
    app: Eventwright,
    wait: Annotated[
        float, Query(ge=0, description=f"seconds to hold until it is final, failed or asks; at most {LONGEST_WAIT:g}")
    ] = 0.0,
) -> Run:
    """One run; with `wait`, as soon as there is news that somebody can act on."""
    return await _shown(app, await _rested(app, run_id, min(wait, LONGEST_WAIT), request))


@router.get("/runs/{run_id}/journal", responses=problems(ProblemType.NOT_FOUND))
async def show_journal(run_id: Id, app: Eventwright) -> Journal:
    """Everything that happened to the run, oldest first."""
    return Journal.of(await app.store.journal(run_id))


@router.post(
    "/runs/{run_id}/cancel", status_code=202, responses=problems(ProblemType.NOT_FOUND, ProblemType.ILLEGAL_MOVE)
)
async def cancel_run(run_id: Id, app: Eventwright, who: Who) -> Run:
    """End the run; one that is processing ends at its next boundary."""
    return await _shown(app, await app.engine.cancel(run_id, by=who.name))


@router.post(
    "/runs/{run_id}/replay",
    status_code=202,
    responses=problems(ProblemType.NOT_FOUND, ProblemType.ILLEGAL_MOVE, ProblemType.BAD_REQUEST, ProblemType.BAD_JSON),
    openapi_extra=takes(Replay, required=False),
)
async def replay_run(
    run_id: Id, how: Annotated[Replay, Depends(body_of(Replay, required=False))], app: Eventwright, who: Who
) -> Run:
    """Take a dead letter up again, on from its last checkpoint; effects that are done are not repeated.

    With `to_version`, `rename` or `state` it is moved to another graph first, and so is a run that waits: it waits on
    there.
    """
    move = how.move
    if move and not how.from_start:
        await app.engine.migrate(run_id, move, by=who.name)
    else:
        await app.engine.replay(run_id, by=who.name, from_start=how.from_start, move=move)
    return await _shown(app, await app.store.run(run_id))


@router.get("/runs/{run_id}/effects", responses=problems(ProblemType.NOT_FOUND))
async def show_effects(run_id: Id, app: Eventwright) -> Ledger:
    """What the run did: every call of a tool or a model, with what can be taken back."""
    return Ledger(items=[Effect.of(line) for line in await app.engine.ledger(run_id)])


@router.post(
    "/runs/{run_id}/undo",
    status_code=202,
    responses=problems(ProblemType.NOT_FOUND, ProblemType.ILLEGAL_MOVE, ProblemType.BAD_REQUEST, ProblemType.BAD_JSON),
    openapi_extra=takes(Undo, required=False),
)
async def undo_run(
    run_id: Id, what: Annotated[Undo, Depends(body_of(Undo, required=False))], app: Eventwright, who: Who
) -> Run:
    """Have what a run did taken back, the last first, by a run of its own, which is the answer.

    Asked twice it is the same run. A run that may still act is a 409: wait for its end, or cancel it.
    """
    return await _shown(app, await app.engine.undo(run_id, by=who.name, effects=what.effects))


@router.post(
    "/runs/{run_id}/reconcile", status_code=202, responses=problems(ProblemType.NOT_FOUND, ProblemType.ILLEGAL_MOVE)
)
async def reconcile_run(run_id: Id, app: Eventwright, who: Who) -> Run:
    """Have the writes that nobody knows to have happened read back, by a run of its own, which is the answer."""
    return await _shown(app, await app.engine.reconcile(run_id, by=who.name))


async def _shown(app: App, run: records.Run) -> Run:
    before = await ahead(app.store, [run])
    waiting = await waiting_for(app.store, [run.id])
    reviews = (await app.store.review_ids([run.id]))[run.id]
    return Run.of(run, reviews, before.get(run.id), waiting[run.id], await gathered(app.store, run.id))


async def _replay_if_failed(app: App, run: records.Run, by: str) -> bool:
    """Replay the run; False if somebody else took it up, or ended it, since it was looked for."""
    try:
        await app.engine.replay(run.id, by=by)
    except IllegalMove:
        return False
    return True


async def _rested(app: App, run_id: str, seconds: float, request: Request) -> records.Run:
    """The run once it rests, or as it is when the time is up, the service stops, or nobody listens any more."""
    ending: asyncio.Event = request.app.state.ending
    clock = asyncio.get_running_loop().time
    deadline, pause = clock() + seconds, 0.05
    while True:
        run = await app.store.run(run_id)
        left = deadline - clock()
        if _rests(run) or left <= 0 or ending.is_set() or await request.is_disconnected():
            return run
        with suppress(TimeoutError):
            await asyncio.wait_for(ending.wait(), min(pause, left))
        pause = min(pause * 1.5, 1.0)


def _rests(run: records.Run) -> bool:
    """Whether it is final, failed or asks."""
    return run.asks or run.state in FINAL or run.state is RunState.FAILED
