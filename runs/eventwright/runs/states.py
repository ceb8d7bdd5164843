"""The states of a run and every move between them: one table, which the store enforces and the docs draw.

Nobody moves a run but `Transaction.move` and `Transaction.claim`, and they ask this table.
"""

from __future__ import annotations

from enum import StrEnum
from typing import Self


class Documented(StrEnum):
    """A string enum whose members each carry a sentence, `meaning`."""

    meaning: str

    def __new__(cls, value: str, meaning: str = "") -> Self:
        member = str.__new__(cls, value)
        member._value_ = value
        member.meaning = meaning
        return member


class RunState(Documented):
    RECEIVED = "received", "stored, not yet begun"
    PROCESSING = "processing", "a worker holds the lease"
    PENDING_APPROVAL = "pending_approval", "a person must decide"
    WAITING = "waiting", "an outside event or a time must come"
    RETRYING = "retrying", "failed; the next attempt is scheduled"
    FAILED = "failed", "a dead letter: it waits for an operator, with a reason"
    COMPLETED = "completed", "done, with an outcome"
    CANCELLED = "cancelled", "an operator ended it, or newer input took its place before it had written anything"


class Reason(Documented):
    """Why a run is a dead letter."""

    ATTEMPTS = "attempts", "every attempt that the policy allows has failed"
    NOT_RETRYABLE = "not_retryable", "the failure would come again: a refusal, a permanent error, bad data"
    NEEDS_MIGRATION = "needs_migration", "the code here lacks its workflow or version, or changed the graph under it"
    QUARANTINED = "quarantined", "it took several workers down with it, or was taken up again and again for nothing"
    NONDETERMINISTIC = "nondeterministic", "a replayed node asked for something else than the first time"


class Outcome(Documented):
    """How a completed run came to its end; the first that applies, from the bottom of this list upwards."""

    AUTO = "auto", "nobody had to decide"
    APPROVED = "approved", "a person approved or answered"
    EDITED = "edited", "a person changed what the workflow proposed"
    FALLBACK = "fallback", "a prepared answer stood in for the model"
    PARTIAL = "partial", "a write was given up on the way, the rest was done"
    REJECTED = "rejected", "a person said no"


MOVES: dict[RunState, frozenset[RunState]] = {
    RunState.RECEIVED: frozenset({RunState.PROCESSING, RunState.CANCELLED}),
    RunState.PROCESSING: frozenset(
        {
            RunState.COMPLETED,
            RunState.PENDING_APPROVAL,
            RunState.WAITING,
            RunState.RETRYING,
            RunState.FAILED,
            RunState.RECEIVED,
            RunState.CANCELLED,
        }
    ),
    RunState.PENDING_APPROVAL: frozenset({RunState.PROCESSING, RunState.FAILED, RunState.CANCELLED}),
    RunState.WAITING: frozenset({RunState.PROCESSING, RunState.FAILED, RunState.CANCELLED}),
    RunState.RETRYING: frozenset({RunState.PROCESSING, RunState.CANCELLED}),
    RunState.FAILED: frozenset({RunState.RECEIVED, RunState.CANCELLED}),
    RunState.COMPLETED: frozenset(),
    RunState.CANCELLED: frozenset(),
}

FINAL = frozenset(state for state, moves in MOVES.items() if not moves)
#: A run in these states does nothing any more, unless an operator takes it up again.
AT_AN_END = FINAL | {RunState.FAILED}
#: States in which a wake-up may find work; in the others it is a bell at the wrong door.
CLAIMABLE = frozenset(state for state, moves in MOVES.items() if RunState.PROCESSING in moves) | {RunState.PROCESSING}


def diagram() -> str:
    """The table as a Mermaid state diagram; `docs/states.md` holds it and a test keeps it there."""
    lines = ["stateDiagram-v2", "    [*] --> received"]
    for origin in RunState:
        lines += [f"    {origin} --> {target}" for target in RunState if target in MOVES[origin]]
        if origin in FINAL:
            lines.append(f"    {origin} --> [*]")
    return "\n".join(lines)
