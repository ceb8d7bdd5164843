"""The write transaction: everything that may be written, as verbs that collect; it leaves as one unit of a batch.

    async with store.write(lease) as tx:
        tx.move(run_id, RunState.COMPLETED, actor="engine", outcome=Outcome.AUTO)
        tx.note(run_id, actor="engine", data={"text": "done"})

A verb that finds the world changed raises when the transaction ends, and nothing of it is written.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import replace
from datetime import datetime
from typing import Any

import sqlalchemy as sa
from pydantic_core import to_jsonable_python

from eventwright.runs import quorum, schema
from eventwright.runs.amends import AmendVerbs
from eventwright.runs.batch import Batch, Step, Unit
from eventwright.runs.claims import ClaimVerbs
from eventwright.runs.correlating import CANCEL_WAITS, WaitVerbs
from eventwright.runs.database import padded
from eventwright.runs.deliveries import DeliveryVerbs
from eventwright.runs.errors import DecisionRefused, DecisionUsedUp, DuplicateEvent, EventExpired, IllegalMove, storable
from eventwright.runs.event import Event, new_id
from eventwright.runs.flows import FlowVerbs, store_run
from eventwright.runs.records import (
    Decision,
    Effect,
    EventState,
    JournalEntry,
    JournalKind,
    Review,
    ReviewState,
    Run,
    Visit,
)
from eventwright.runs.reservations import BudgetVerbs
from eventwright.runs.retention import RetentionVerbs
from eventwright.runs.rows import decision_row, effect_row, event_row, review_row, visit_row
from eventwright.runs.schedules import ScheduleVerbs
from eventwright.runs.states import CLAIMABLE, FINAL, MOVES, Outcome, Reason, RunState
from eventwright.runs.structures import StructureVerbs
from eventwright.runs.waits import waits


class Transaction(
    ClaimVerbs,
    BudgetVerbs,
    AmendVerbs,
    RetentionVerbs,
    StructureVerbs,
    ScheduleVerbs,
    DeliveryVerbs,
    WaitVerbs,
    FlowVerbs,
):
    """Collects verbs. Made by `Store.write`. Those by which workers take runs are in `claims`, those about budgets in
    `reservations`, those about effects that are taken back or read back in `amends`, those that delete in `retention`,
    those about graphs in `structures`, those about schedules in `schedules`, those about webhooks in `deliveries`,
    those about waits in `correlating`, those about runs that are held or superseded in `flows`."""

    def __init__(self, unit: Unit) -> None:
        self.unit = unit

    def _on(self, run_id: str, step: Step) -> None:
        """A step that reads or changes the run."""
        self.unit.run_ids.add(run_id)
        self.unit.steps.append(step)

    def _execute(self, statement: sa.Executable) -> None:
        self.unit.steps.append(lambda batch: batch.execute(statement))

    # -- events and runs ---------------------------------------------------------------------------------------------

    def add_event(self, event: Event, state: EventState, problem: dict[str, Any] | None = None) -> None:
        """Store an event. Ends in DuplicateEvent if an accepted one has its (source, id)."""
        row = event_row(event, state, problem)

        def step(batch: Batch) -> None:
            if event.uid not in batch.stored_events:
                raise DuplicateEvent(event.source, event.id)

        self.unit.events.append(row)
        self.unit.steps.append(step)

    def accept_event(self, event: Event) -> None:
        """Accept an event that was refused before. Ends in DuplicateEvent if an accepted one has its (source, id)."""
        table = schema.events
        accepted = table.c.state == str(EventState.ACCEPTED)
        taken = sa.select(table.c.uid).where(table.c.source == event.source, table.c.id == event.id, accepted)
        there = sa.and_(table.c.uid == event.uid, table.c.expired_at.is_(None))
        # Of two who accept it at once, the second one sees what the first one did.
        lock = sa.select(table.c.uid).where(table.c.uid == event.uid).with_for_update()
        accept = sa.update(table).where(there).values(state=str(EventState.ACCEPTED), problem=None)

        def step(batch: Batch) -> None:
            batch.execute(lock)
            if batch.execute(taken).first() is not None:
                raise DuplicateEvent(event.source, event.id)
            if batch.execute(accept).rowcount == 0:
                raise EventExpired(event.uid)

        self.unit.steps.append(step)

    def add_run(self, run: Run) -> None:
        """Store a new run, received and due at once, or when its turn comes."""
        self.unit.steps.append(lambda batch: store_run(batch, run))

    def move(
        self,
        run_id: str,
        to: RunState,
        *,
        actor: str,
        due_at: datetime | None = None,
        outcome: Outcome | None = None,
        reason: Reason | None = None,
        error: str | None = None,
        data: Mapping[str, Any] | None = None,
        only_from: RunState | None = None,
        heed_cancel: bool = False,
        **columns: Any,
    ) -> None:
        """Move the run, and journal it. Ends in IllegalMove where the table of states has no such move, or it is meant
        `only_from` another state.

        A received run is due at once; others are at `due_at`.
        With `heed_cancel` it is cancelled instead, if an operator asked for that meanwhile.
        """
        ended = {"outcome": outcome, "reason": reason, "error": error, "due_at": due_at}

        def step(batch: Batch) -> None:
            row = batch.run(run_id)
            target, facts = to, ended | ({"due_at": batch.now} if to is RunState.RECEIVED else {})
            facts["error"] = error and batch.redacted(run_id, storable(error))
            if heed_cancel and row["cancel_requested_by"]:
                target, facts = RunState.CANCELLED, dict.fromkeys(ended)
                for statement in _CLOSE:
                    batch.execute(statement, {"b_run_id": run_id})
            origin = RunState(row["state"])
            if target not in MOVES[origin] or only_from not in (None, origin):
                raise IllegalMove(run_id, origin, target)
            batch.change(run_id, state=str(target), worker=None, **facts, **columns)
            told = {name: to_jsonable_python(fact) for name, fact in facts.items() if fact is not None}
            body = {"from": str(origin), "to": str(target)} | dict(data or {}) | told
            batch.journal(JournalEntry(run_id=run_id, kind=JournalKind.TRANSITION, actor=actor, data=body))

        self._on(run_id, step)

    def wake_if_decided_meanwhile(self, run_id: str, *, seen: Collection[str], lane: str) -> None:
        """Make the run due again if a review of it was decided that this segment did not see: no bell is lost."""
        answered = sa.select(schema.reviews.c.id).where(
            schema.reviews.c.run_id == run_id,
            schema.reviews.c.state.in_([str(ReviewState.DECIDED), str(ReviewState.EXPIRED)]),
        )
        wakeup = new_id("wake")

        def step(batch: Batch) -> None:
            rests = batch.run(run_id)["state"] == RunState.PENDING_APPROVAL
            if rests and set(batch.execute(answered).scalars()) - set(seen):
                batch.change(run_id, due_at=batch.now)
                batch.insert(_WAKEUP, _wakeup_row(wakeup, run_id, lane, batch.now))

        self._on(run_id, step)

    def make_due(self, run_id: str) -> None:
        """Let the run be taken up now, if it rests; a processing run sees the news when its segment ends."""

        def step(batch: Batch) -> None:
            state = RunState(batch.run(run_id)["state"])
            if state in CLAIMABLE and state is not RunState.PROCESSING:
                batch.change(run_id, due_at=batch.now)

        self._on(run_id, step)

    def cancel(self, run_id: str, *, by: str) -> None:
        """End the run and close its questions; one that is processing is ended by its worker, at the next boundary.

        Ends in IllegalMove if it is final.
        """

        def step(batch: Batch) -> None:
            origin = RunState(batch.run(run_id)["state"])
            entry = JournalEntry(run_id=run_id, kind=JournalKind.NOTE, actor=by, data={"text": "cancel requested"})
            if origin is RunState.PROCESSING:
                batch.change(run_id, cancel_requested_by=by)
            elif RunState.CANCELLED in MOVES[origin]:
                for statement in _CLOSE:
                    batch.execute(statement, {"b_run_id": run_id})
                batch.change(run_id, state=str(RunState.CANCELLED), due_at=None, reason=None, error=None)
                data = {"from": str(origin), "to": str(RunState.CANCELLED)}
                entry = replace(entry, kind=JournalKind.TRANSITION, data=data)
            else:
                raise IllegalMove(run_id, origin, RunState.CANCELLED)
            batch.journal(entry)

        self._on(run_id, step)

    def wake(self, run_id: str, *, lane: str) -> str:
        """Write a bell to ring into the outbox, unless the run is new and waits for its turn; its id."""
        wakeup_id = new_id("wake")

        def step(batch: Batch) -> None:
            if not batch.in_line(run_id):
                batch.insert(_WAKEUP, _wakeup_row(wakeup_id, run_id, lane, batch.now))

        self.unit.steps.append(step)
        return wakeup_id

    def wakeups_sent(self, ids: Collection[str]) -> None:
        """Mark bells as rung."""
        mark = sa.update(schema.wakeups).where(schema.wakeups.c.id.in_(padded(ids)))
        self.unit.steps.append(lambda batch: batch.execute(mark.values(sent_at=batch.now)))

    # -- journal, ledger, visits -------------------------------------------------------------------------------------

    def journal(
        self, run_id: str, kind: JournalKind, *, actor: str, data: Mapping[str, Any], node: str | None = None
    ) -> None:
        """Add an entry to the run's record. `data` becomes JSON."""
        body = to_jsonable_python(dict(data))
        entry = JournalEntry(run_id=run_id, kind=kind, actor=actor, data=body, node=node)
        self._on(run_id, lambda batch: batch.journal(entry))

    def note(self, run_id: str, *, actor: str, data: Mapping[str, Any], node: str | None = None) -> None:
        """Add a note to the run's record."""
        self.journal(run_id, JournalKind.NOTE, actor=actor, data=data, node=node)

    def put_effect(self, effect: Effect) -> None:
        """Write an effect's present state into the ledger."""
        row = effect_row(effect)

        def step(batch: Batch) -> None:
            words = {name: row[name] and batch.redacted(effect.run_id, row[name]) for name in ("error", "failures")}
            batch.insert(batch.statements.effect, row | words | {"updated_at": batch.now})

        self._on(effect.run_id, step)

    def put_visit(self, visit: Visit) -> None:
        """Write a visit, or what changed of it."""
        row = visit_row(visit)
        self.unit.steps.append(lambda batch: batch.insert(batch.statements.visit, row))

    # -- reviews -----------------------------------------------------------------------------------------------------

    def open_review(self, review: Review) -> None:
        """Ask a person; a deadline gets its timer."""
        row = review_row(review)
        self.unit.steps.append(lambda batch: batch.insert(_REVIEW, row | {"created_at": batch.now}))
        if review.deadline is not None:
            timer = {"run_id": review.run_id, "review_id": review.id, "due_at": review.deadline, "id": new_id("timer")}
            self.unit.steps.append(lambda batch: batch.insert(_TIMER, timer))
        self.journal(
            review.run_id,
            JournalKind.REVIEW_OPENED,
            actor="gate" if review.interrupt_id is None else "workflow",
            node=review.node,
            data={
                "review": review.id,
                "kind": review.kind,
                "question": review.question,
                "digest": review.digest,
                "rule": review.rule,
                "deadline": review.deadline,
            },
        )

    def decide(self, review: Review, decision: Decision, *, state: ReviewState = ReviewState.DECIDED) -> None:
        """Write the one decision of an open review; where several people are asked, a no or an edit closes the others.

        Ends in DecisionRefused if it is not open or its run is final, in MayNotDecide if somebody else must decide.
        """
        close = (
            sa.update(schema.reviews)
            .where(schema.reviews.c.id == review.id, schema.reviews.c.state == str(ReviewState.OPEN))
            .values(state=str(state))
        )

        def step(batch: Batch) -> None:
            if state is ReviewState.DECIDED:  # a deadline is nobody, and no vote
                quorum.check(batch, review, decision)
            if RunState(batch.run(review.run_id)["state"]) in FINAL or batch.execute(close).rowcount == 0:
                raise DecisionRefused(review.id, "closed")
            batch.insert(_DECISION, decision_row(review.id, replace(decision, at=batch.now)))
            quorum.settle(batch, review, decision)

        self._on(review.run_id, step)
        self.delete_timers(review.id)
        self.journal(
            review.run_id,
            JournalKind.DECISION,
            actor=decision.by,
            node=review.node,
            data={
                "review": review.id,
                "type": decision.type,
                "digest": review.digest,
                "verified": decision.verified,
                "arguments": decision.arguments,
                "response": decision.response,
                "comment": decision.comment,
            },
        )

    def consume_review(self, review_id: str, by: str) -> None:
        """Use a decision up for one effect (its key), or for the graph. Ends in DecisionUsedUp if another did."""
        table = schema.reviews
        free = sa.or_(table.c.consumed_by.is_(None), table.c.consumed_by == by)
        use = sa.update(table).where(table.c.id == review_id, free).values(consumed_by=by)

        def step(batch: Batch) -> None:
            if batch.execute(use).rowcount == 0:
                raise DecisionUsedUp(review_id, by)

        self.unit.steps.append(step)

    def close_reviews(self, run_id: str, state: ReviewState, *, ids: Collection[str] | None = None) -> None:
        """Close open reviews of a run without a decision: superseded, cancelled."""
        condition = sa.and_(schema.reviews.c.run_id == run_id, schema.reviews.c.state == str(ReviewState.OPEN))
        if ids is not None:
            condition = sa.and_(condition, schema.reviews.c.id.in_(sorted(ids)))
        self._update_reviews(condition, state=str(state))
        timers = sa.delete(schema.timers).where(schema.timers.c.run_id == run_id)
        if ids is not None:
            timers = timers.where(schema.timers.c.review_id.in_(sorted(ids)))
        self._execute(timers)

    def delete_timers(self, review_id: str) -> None:
        """Forget the deadline of a review."""
        self._execute(sa.delete(schema.timers).where(schema.timers.c.review_id == review_id))

    def rebind_review(self, review_id: str, **columns: Any) -> None:
        """Point a review at where its question stands now (node, digest, interrupt_id), after a migration."""
        self._update_reviews(schema.reviews.c.id == review_id, **columns)

    def _update_reviews(self, condition: sa.ColumnElement[bool], **values: Any) -> None:
        self._execute(sa.update(schema.reviews).where(condition).values(**values))

    def forget_failures(self, run_id: str, effects: Collection[str]) -> None:
        """Let these effects (their keys) be tried anew: the node that has seen them fail begins a new attempt."""
        table = schema.effects
        of_run = sa.and_(table.c.run_id == run_id, table.c.key.in_(sorted(effects)))
        self._execute(sa.update(table).where(of_run).values(failures=None))

    # -- operators ---------------------------------------------------------------------------------------------------

    def reset_failures(self, run_id: str) -> None:
        """Give the run's nodes their attempts back, for a replay; what they have seen fail is tried anew."""
        self._execute(sa.update(schema.visits).where(schema.visits.c.run_id == run_id).values(failures=0))
        self._execute(sa.update(schema.effects).where(schema.effects.c.run_id == run_id).values(failures=None))

    def rename_nodes(self, run_id: str, names: Mapping[str, str]) -> None:
        """Let the run's effects and reviews at old names belong to the new; visits are put anew, with their places."""
        for table in (schema.effects, schema.reviews, waits):
            named = sa.and_(table.c.run_id == run_id, table.c.node.in_(list(names)))
            self._execute(sa.update(table).where(named).values(node=sa.case(dict(names), value=table.c.node)))

    # -- checkpoints -------------------------------------------------------------------------------------------------

    def put_checkpoint(self, row: dict[str, Any]) -> None:
        """Write a LangGraph checkpoint (columns of `schema.checkpoints`)."""
        self.unit.steps.append(lambda batch: batch.insert(batch.statements.checkpoint, row))

    def put_checkpoint_write(self, row: dict[str, Any], *, replace_earlier: bool) -> None:
        """Write a task's pending write (columns of `schema.checkpoint_writes`)."""

        name = "checkpoint_write_last" if replace_earlier else "checkpoint_write_first"
        self.unit.steps.append(lambda batch: batch.insert(getattr(batch.statements, name), row))

    def delete_thread(self, thread_id: str) -> None:
        """Delete every checkpoint of a thread."""
        for table in (schema.checkpoints, schema.checkpoint_writes):
            self._execute(sa.delete(table).where(table.c.thread_id == thread_id))


_WAKEUP = sa.insert(schema.wakeups)
_REVIEW = sa.insert(schema.reviews)
_TIMER = sa.insert(schema.timers)
_DECISION = sa.insert(schema.decisions)
_CANCEL_REVIEWS = (
    sa.update(schema.reviews)
    .where(schema.reviews.c.run_id == sa.bindparam("b_run_id"), schema.reviews.c.state == str(ReviewState.OPEN))
    .values(state=str(ReviewState.CANCELLED))
)
_DELETE_TIMERS = sa.delete(schema.timers).where(schema.timers.c.run_id == sa.bindparam("b_run_id"))
#: What is done for a run that an operator ends.
_CLOSE = (_CANCEL_REVIEWS, _DELETE_TIMERS, CANCEL_WAITS)


def _wakeup_row(wakeup_id: str, run_id: str, lane: str, at: datetime) -> dict[str, Any]:
    return {"id": wakeup_id, "run_id": run_id, "lane": lane, "created_at": at, "sent_at": None}
