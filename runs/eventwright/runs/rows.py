"""Rows of the tables as the values of `records`, and back."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from eventwright.runs.event import Event
from eventwright.runs.records import (
    Decision,
    DecisionType,
    Effect,
    EffectState,
    EventState,
    JournalEntry,
    JournalKind,
    Review,
    ReviewKind,
    ReviewState,
    Run,
    StoredEvent,
    Timer,
    Visit,
    WakeUp,
)
from eventwright.runs.states import Outcome, Reason, RunState

Row = Mapping[Any, Any]

_EVENT = (
    "uid",
    "id",
    "source",
    "type",
    "subject",
    "time",
    "version",
    "data",
    "extensions",
    "received_at",
    "principal",
    "expired_at",
)
_RUN = (
    "id",
    "workflow",
    "version",
    "lane",
    "created_at",
    "updated_at",
    "error",
    "attempts",
    "generation",
    "fence",
    "worker",
    "crashes",
    "cancel_requested_by",
    "due_at",
    "serial_key",
    "fingerprint",
    "trace",
    "idle",
    "turn",
    "stood_at",
    "pruned_at",
    "expired_at",
)
_REVIEW = (
    "id",
    "run_id",
    "workflow",
    "node",
    "question",
    "digest",
    "arguments",
    "evidence",
    "response_schema",
    "deadline",
    "default",
    "rule",
    "interrupt_id",
    "consumed_by",
    "created_at",
    "people",
)
_DECISION = ("by", "at", "verified", "arguments", "response", "comment")
_EFFECT = (
    "key",
    "run_id",
    "node",
    "visit",
    "tool",
    "ordinal",
    "tool_class",
    "requested_digest",
    "executed_digest",
    "arguments",
    "result",
    "error",
    "attempt",
    "updated_at",
    "undone_by",
)
_JOURNAL = ("run_id", "seq", "at", "actor", "node", "version", "data", "prev", "hash")


def _pick(value: Any, names: tuple[str, ...]) -> dict[str, Any]:
    return {name: getattr(value, name) for name in names}


def _take(row: Row, names: tuple[str, ...], prefix: str = "") -> dict[str, Any]:
    return {name: row[prefix + name] for name in names}


def event_row(event: Event, state: EventState, problem: dict[str, Any] | None) -> dict[str, Any]:
    return _pick(event, _EVENT) | {"digest": event.digest, "state": str(state), "problem": problem}


def event_of(row: Row, prefix: str = "") -> Event:
    return Event(**_take(row, _EVENT, prefix))


def stored_event_of(row: Row, run_ids: tuple[str, ...]) -> StoredEvent:
    return StoredEvent(
        event=event_of(row),
        state=EventState(row["state"]),
        digest=row["digest"],
        problem=row["problem"],
        run_ids=run_ids,
    )


def run_row(run: Run) -> dict[str, Any]:
    return _pick(run, _RUN) | {
        "event_uid": run.event.uid,
        "state": str(run.state),
        "outcome": run.outcome and str(run.outcome),
        "reason": run.reason and str(run.reason),
    }


def run_of(row: Row) -> Run:
    """A run from its row joined with its event's, whose columns carry the prefix `event_`."""
    return Run(
        **_take(row, _RUN),
        state=RunState(row["state"]),
        outcome=Outcome(row["outcome"]) if row["outcome"] else None,
        reason=Reason(row["reason"]) if row["reason"] else None,
        event=event_of(row, "event_"),
    )


def review_row(review: Review) -> dict[str, Any]:
    return _pick(review, _REVIEW) | {
        "kind": str(review.kind),
        "allowed": [str(answer) for answer in review.allowed],
        "state": str(review.state),
        "approvers": list(review.approvers),
        "barred": list(review.barred),
    }


def review_of(row: Row) -> Review:
    """A review from its row joined with its decision's, whose columns carry the prefix `decision_`."""
    decision = None
    if row["decision_type"] is not None:
        decision = Decision(type=DecisionType(row["decision_type"]), **_take(row, _DECISION, "decision_"))
    return Review(
        **_take(row, _REVIEW),
        expired_at=row["expired_at"],
        kind=ReviewKind(row["kind"]),
        allowed=tuple(DecisionType(answer) for answer in row["allowed"]),
        state=ReviewState(row["state"]),
        # Reviews of the first release have none.
        approvers=tuple(row["approvers"] or ()),
        barred=tuple(row["barred"] or ()),
        decision=decision,
    )


def decision_row(review_id: str, decision: Decision) -> dict[str, Any]:
    return {"review_id": review_id, "type": str(decision.type)} | _pick(decision, _DECISION)


def effect_row(effect: Effect) -> dict[str, Any]:
    return _pick(effect, _EFFECT) | {"state": str(effect.state), "failures": list(effect.failures) or None}


def effect_of(row: Row) -> Effect:
    return Effect(**_take(row, _EFFECT), state=EffectState(row["state"]), failures=tuple(row["failures"] or ()))


def journal_of(row: Row) -> JournalEntry:
    return JournalEntry(**_take(row, _JOURNAL), kind=JournalKind(row["kind"]))


def visit_row(visit: Visit) -> dict[str, Any]:
    return _pick(visit, ("run_id", "node", "visit", "place", "failures"))


def visit_of(row: Row) -> Visit:
    return Visit(**row)


def wakeup_of(row: Row) -> WakeUp:
    return WakeUp(**row)


def timer_of(row: Row) -> Timer:
    return Timer(**row)
