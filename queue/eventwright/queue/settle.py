"""How a segment's outcome is written: one clause per outcome, everything in the segment's one transaction."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any, assert_never

from eventwright.graphs.outcomes import Asks, Failed, Finished, Report, SegmentOutcome, Waits, Yields
from eventwright.guardrails.waiting import told as told_waits
from eventwright.runs.records import ReviewState, Run
from eventwright.runs.states import Reason, RunState
from eventwright.runs.transaction import Transaction

#: Who took an author's answer in, where the gate would name an effect.
GRAPH = "graph"
#: A run that was handed back so often without having got any further is taken out of the queue.
MOST_IDLE = 10


def reviews(tx: Transaction, run: Run, report: Report) -> None:
    """What people are asked from now on, and what they are not asked any more."""
    for review in report.opened:
        tx.open_review(review)
    for review_id in report.applied:
        tx.consume_review(review_id, GRAPH)
    for review_id, interrupt_id in report.rebound:
        tx.rebind_review(review_id, interrupt_id=interrupt_id)
    if report.superseded:
        tx.close_reviews(run.id, ReviewState.SUPERSEDED, ids=report.superseded)
    for visit in report.visits:
        tx.put_visit(visit)
    if report.forgotten:
        tx.forget_failures(run.id, report.forgotten)


def rest(tx: Transaction, run: Run, report: Report, *, actor: str) -> RunState:
    """Move the run to where it rests, and ring for what is due already.

    Returns:
        The state; an operator's wish to cancel, found in the same transaction, makes it cancelled instead.
    """
    state = _moved(tx, run, report, actor=actor)
    if report.waiting is not None:
        tx.settle_waits(run, report.waiting.standing, report.waiting.dropped, actor=actor)
    return state


def _moved(tx: Transaction, run: Run, report: Report, *, actor: str) -> RunState:
    waits = {} if report.waiting is None else told_waits(report.waiting.standing)
    match report.outcome:
        case Finished(outcome):
            tx.move(run.id, RunState.COMPLETED, actor=actor, outcome=outcome, crashes=0)
            return RunState.COMPLETED
        case Asks(until, lane):
            tx.move(
                run.id,
                RunState.PENDING_APPROVAL,
                actor=actor,
                due_at=until,
                heed_cancel=True,
                crashes=0,
                **_lane(run, lane, waits),
            )
            tx.wake_if_decided_meanwhile(run.id, seen=report.seen, lane=run.lane)
            if lane is not None:
                tx.make_due(run.id)
                tx.wake(run.id, lane=lane)
            tx.superseded_meanwhile(run.id)
            return RunState.PENDING_APPROVAL
        case Waits(until, why):
            tx.move(
                run.id, RunState.WAITING, actor=actor, due_at=until, error=why, heed_cancel=True, crashes=0, data=waits
            )
            return RunState.WAITING
        case Yields(lane):
            crashes = 0 if report.got_on else run.crashes
            tx.move(run.id, RunState.RECEIVED, actor=actor, heed_cancel=True, crashes=crashes, **_lane(run, lane))
            tx.wake(run.id, lane=lane)
            return RunState.RECEIVED
        case Failed(retry_at=None) as failed:
            tx.move(
                run.id,
                RunState.FAILED,
                actor=actor,
                reason=failed.reason,
                error=failed.error,
                data=_at(failed),
                heed_cancel=True,
            )
            return RunState.FAILED
        case Failed() as failed:
            tx.move(
                run.id,
                RunState.RETRYING,
                actor=actor,
                due_at=failed.retry_at,
                error=failed.error,
                data=_at(failed),
                heed_cancel=True,
                attempts=run.attempts + 1,
                crashes=0,
            )
            return RunState.RETRYING
        case _:
            assert_never(report.outcome)


def _lane(run: Run, lane: str | None, told: Mapping[str, Any] | None = None) -> dict[str, Any]:
    """How the run is handed over, if it is: told in the journal as well, with what else is `told`."""
    if lane in (None, run.lane):
        return {"data": told}
    return {"lane": lane, "data": {"lane": lane} | dict(told or {})}


def told(outcome: SegmentOutcome) -> dict[str, Any]:
    """What whoever watches is told of an outcome, beside the state: outcome; or reason, error and node."""
    match outcome:
        case Finished(name):
            return {"outcome": name}
        case Failed() as failed:
            return {"reason": failed.reason, "error": failed.error, "node": failed.node}
    return {}


def _at(failed: Failed) -> dict[str, Any]:
    return {} if failed.node is None else {"node": failed.node}


def unless_idle(report: Report, idle: int) -> Report:
    """The report, unless this is one time too many that the segment of a run which goes on at once led to nothing.

    Args:
        report: of the segment.
        idle: how many segments in a row that would be.
    """
    goes_on = isinstance(report.outcome, Yields) or (isinstance(report.outcome, Asks) and report.outcome.lane)
    if report.got_on or not goes_on:
        return report
    if idle < MOST_IDLE:
        return replace(report, idle=idle)
    words = (
        f"{MOST_IDLE} times in a row it was taken up and handed back without getting any further: no step was done, "
        "nothing called, nobody asked; mend what its next node does, or the lanes it wants, then replay it"
    )
    return replace(report, outcome=Failed(Reason.QUARANTINED, words))
