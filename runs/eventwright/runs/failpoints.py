"""Failpoints: the named boundaries at which a process may die, for the tests that kill it there.

    failpoint(Failpoint.INTAKE_STORED)

does nothing, unless a test has given a hook to `on_failpoint`. No setting reaches it. What crosses which failpoint how
often, and what is true after a death there, is found out by `tests/faults`.
"""

from __future__ import annotations

from collections.abc import Callable

from eventwright.runs.states import Documented


class Failpoint(Documented):
    """Where: `room.what`. A boundary has one before it and one after it."""

    INTAKE_STORING = "intake.storing", "an event was checked and is about to be stored"
    INTAKE_STORED = "intake.stored", "an event and its runs are committed; who sent it does not know yet"

    BELLS_READ = "bells.read", "bells were read from the outbox; none of them was rung"
    BELLS_RUNG = "bells.rung", "bells were rung in Redis; the outbox does not say so yet"
    BELLS_MARKED = "bells.marked", "the outbox says that the bells were rung"

    WORKER_TAKEN = "worker.taken", "wake-ups left their queue; RQ's books do not have them yet"
    WORKER_BEGUN = "worker.begun", "RQ's books say that wake-ups have begun; their runs are not claimed"
    WORKER_ENDED = "worker.ended", "a wake-up was attended to; RQ's books do not say so yet"

    ENGINE_CLAIMING = "engine.claiming", "a run is about to be claimed"
    ENGINE_CLAIMED = "engine.claimed", "a run is claimed; nothing was done for it yet"
    ENGINE_SETTLING = "engine.settling", "a segment has ended; how it ended is not written"
    ENGINE_SETTLED = "engine.settled", "how a segment ended is committed; nobody was told"

    DESK_DECIDING = "desk.deciding", "a person's decision was checked and is about to be written"
    DESK_DECIDED = "desk.decided", "a decision is committed; the person who made it does not know yet"
    DESK_EXPIRING = "desk.expiring", "a deadline passed; its default action is about to be written"
    DESK_EXPIRED = "desk.expired", "what a deadline decided is committed; nobody was told"

    NODE_ENTERED = "node.entered", "a node begins"
    NODE_LEFT = "node.left", "a node has returned; no checkpoint says so yet"

    CHECKPOINT_WRITING = "checkpoint.writing", "a checkpoint is about to be written"
    CHECKPOINT_WRITTEN = "checkpoint.written", "a checkpoint is committed; the graph does not know yet"
    TASK_WRITING = "task.writing", "what a task of the graph has written is about to be kept"
    TASK_WRITTEN = "task.written", "what a task has written is committed; the graph does not know yet"

    GATE_ASKING = "gate.asking", "a call wants a person; the question is about to be written"
    GATE_ASKED = "gate.asked", "a question is committed; the node goes on as if it were not"
    GATE_USING_UP = "gate.using_up", "a decision is about to be used up without a call"
    GATE_USED_UP = "gate.used_up", "a decision is used up; what it decided has not been done"

    BUDGET_PLANNED = "budget.planned", "it is known what a call takes of its budgets; nothing is reserved"

    LEDGER_INTENDING = "ledger.intending", "a call is permitted; its intent is about to be written"
    LEDGER_INTENDED = "ledger.intended", "an intent is committed, with its budgets and decisions; nothing was called"
    LEDGER_ANSWERED = "ledger.answered", "a tool has answered; its result is not written"
    LEDGER_RECORDED = "ledger.recorded", "a result is committed; the node does not know yet"
    LEDGER_FAILING = "ledger.failing", "a call failed; that is not written"
    LEDGER_FAILED = "ledger.failed", "a failure is committed; the node does not know yet"
    LEDGER_PUTTING_OFF = "ledger.putting_off", "a call's provider is down; the ledger still says that it is being made"
    LEDGER_PUT_OFF = "ledger.put_off", "a call is put off until its provider is back; its run does not wait yet"
    LEDGER_DOUBTING = "ledger.doubting", "nobody knows whether a call happened; the question is about to be written"
    LEDGER_DOUBTED = "ledger.doubted", "a doubt and its question are committed"
    LEDGER_RESOLVING = "ledger.resolving", "a person said whether a call happened; that is about to be recorded"
    LEDGER_RESOLVED = "ledger.resolved", "it is recorded whether a doubtful call happened; the node does not know yet"
    LEDGER_READ_BACK = "ledger.read_back", "a call that was cut off was looked up; what was found is not written"

    HEART_BEATING = "heart.beating", "leases are about to be renewed"
    HEART_BEAT = "heart.beat", "leases are renewed"

    SWEEP_BEGUN = "sweep.begun", "a sweep begins"
    SWEEP_TICKED = "sweep.ticked", "a sweep has seen to deadlines"
    SWEEP_WOKEN = "sweep.woken", "a sweep has written bells for runs that nobody rang for"
    SWEEP_RUNG = "sweep.rung", "a sweep has rung what was never rung, or was lost"
    SWEEP_TAKEN = "sweep.taken", "a sweep has taken due runs itself"

    COMMIT_BEGINNING = "commit.beginning", "a batch of writes is about to begin its transaction"
    COMMIT_APPLIED = "commit.applied", "all statements of a batch have run; the transaction is not committed"
    COMMIT_DONE = "commit.done", "a batch is committed; nobody who waits for it was told"


#: What a test has happen at a failpoint. It is called in whatever thread comes by.
Hook = Callable[[Failpoint], object]

_hook: Hook | None = None


def failpoint(point: Failpoint) -> None:
    """The running code comes by this boundary."""
    if _hook is not None:
        _hook(point)


def on_failpoint(hook: Hook | None) -> None:
    """From now on, call `hook` at every failpoint of this process; None for nothing."""
    global _hook
    _hook = hook
