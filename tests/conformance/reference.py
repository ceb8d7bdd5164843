"""What the store promises, as plain dicts: the model that a store's answers are compared with.

Written from the documented promises alone. Its verbs have the names and the parameters of the store's, so that one call
can be made on both; what they do is said once more here, in the simplest words, with no regard to speed.
"""

from __future__ import annotations

import copy
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Any

from tests.conformance.reference_calls import CallVerbs
from tests.conformance.reference_world import Refused, row_of

from eventwright.runs.event import Event
from eventwright.runs.records import Decision, Effect, EventState, Lease, Review, ReviewState, Run, Visit
from eventwright.runs.states import AT_AN_END, FINAL, MOVES, Outcome, Reason, RunState

#: Two crashes at one place make a run suspect; at four nobody holds it back any more, for the engine puts it aside.
SUSPECT, PUT_ASIDE = 2, 4


@dataclass
class Unit:
    """One transaction: verbs by name, each with its arguments."""

    lease: Lease | None = None
    verbs: list[tuple[str, dict[str, Any]]] = field(default_factory=list)


@dataclass
class Answer:
    """What became of a transaction: why it was refused, if so, and what its verbs answered."""

    refusals: tuple[str, ...] = ()
    values: list[Any] = field(default_factory=list)


class Reference(CallVerbs):
    """The store as it should be. `now` is moved by the test."""

    def commit(self, units: Sequence[Unit], *, together: bool) -> list[Answer]:
        """Several transactions that are committed at once, or one after the other: each does all of its verbs, or
        leaves nothing behind. Those who wait in line move up at the end of each commit."""
        answers = []
        for commit in [units] if together else [[unit] for unit in units]:
            answers += self._commit(commit)
        return answers

    def _commit(self, units: Sequence[Unit]) -> list[Answer]:
        # New events are stored before anything else of a commit.
        self.arriving = {
            (event.source, event.id)
            for unit in units
            for name, given in unit.verbs
            if name == "add_event" and given["state"] is EventState.ACCEPTED and (event := given["event"])
        }
        self.left_lines: set[tuple[str, str]] = set()
        self.new_bells: list[dict[str, Any]] = []
        answers = [self._attempt(unit) for unit in units]
        for line in sorted(self.left_lines):
            self._move_up(line)
        self.bells += self.new_bells
        return answers

    def _attempt(self, unit: Unit) -> Answer:
        before = copy.deepcopy(self.__dict__)
        self.here: set[str] = set()
        try:
            if unit.lease is not None:
                run = self.runs.get(unit.lease.run_id)
                if run is None or run["fence"] != unit.lease.fence:
                    raise Refused("LeaseLost")
            # What a transaction wants of budgets must be there before it gives anything back.
            for name, given in unit.verbs:
                if name == "reserve":
                    self._fresh(given["effect_key"], given["reservations"])
            return Answer(values=[getattr(self, name)(**given) for name, given in unit.verbs])
        except Refused as refused:
            self.__dict__ = before
            return Answer(refusals=refused.names)

    # -- events and runs ---------------------------------------------------------------------------------------------

    def add_event(self, event: Event, state: EventState, problem: dict[str, Any] | None = None) -> None:
        if state is EventState.ACCEPTED and self.accepted(event):
            raise Refused("DuplicateEvent")
        self.events[event.uid] = {
            "name": (event.source, event.id), "state": state, "data": event.data, "received_at": event.received_at,
            "problem": problem, "expired_at": None, "digest": event.digest,
        }  # fmt: skip

    def accept_event(self, event: Event) -> None:
        if self.accepted(event) or (event.source, event.id) in self.arriving:
            raise Refused("DuplicateEvent")
        if self.events[event.uid]["expired_at"] is not None:
            raise Refused("EventExpired")
        self.events[event.uid].update(state=EventState.ACCEPTED, problem=None)

    def add_run(self, run: Run) -> None:
        if any(other["event"] == run.event.uid and other["workflow"] == run.workflow for other in self.runs.values()):
            raise Refused("IntegrityError")
        self.runs[run.id] = row_of(run)
        self.journals[run.id] = []
        waits = run.serial_key is not None and not self.is_first(run.id)
        self.runs[run.id]["due_at"] = None if waits else self.now
        self.here.add(run.id)
        self.tell(run.id, "transition", "intake", to=run.state, event=run.event.id)

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
        only_from: RunState | None = None,
        heed_cancel: bool = False,
        **columns: Any,
    ) -> None:
        run = self.run(run_id)
        ended: dict[str, Any] = {"outcome": outcome, "reason": reason, "error": error, "due_at": due_at}
        if to is RunState.RECEIVED:
            ended["due_at"] = self.now
        if heed_cancel and run["cancel_requested_by"]:
            to, ended = RunState.CANCELLED, dict.fromkeys(ended)
            self._close_questions(run_id, ReviewState.CANCELLED)
        origin = run["state"]
        if to not in MOVES[origin] or only_from not in (None, origin):
            raise Refused("IllegalMove")
        self.change(run_id, state=to, worker=None, **ended, **columns)
        told = {name: ended[name] for name in ("outcome", "reason", "error") if ended[name] is not None}
        self.tell(run_id, "transition", actor, **{"from": origin, "to": to}, **told)

    def cancel(self, run_id: str, *, by: str) -> None:
        origin = self.run(run_id)["state"]
        if origin is RunState.PROCESSING:
            self.change(run_id, cancel_requested_by=by)
            self.tell(run_id, "note", by, text="cancel requested")
        elif RunState.CANCELLED in MOVES[origin]:
            self._close_questions(run_id, ReviewState.CANCELLED)
            self.change(run_id, state=RunState.CANCELLED, due_at=None, reason=None, error=None)
            self.tell(run_id, "transition", by, **{"from": origin, "to": RunState.CANCELLED})
        else:
            raise Refused("IllegalMove")

    def make_due(self, run_id: str) -> None:
        if self.run(run_id)["state"] not in AT_AN_END | {RunState.PROCESSING}:
            self.change(run_id, due_at=self.now)

    def wake_if_decided_meanwhile(self, run_id: str, *, seen: Collection[str], lane: str) -> None:
        answered = {
            name
            for name, review in self.reviews.items()
            if review["run_id"] == run_id and review["state"] in (ReviewState.DECIDED, ReviewState.EXPIRED)
        }
        if self.run(run_id)["state"] is RunState.PENDING_APPROVAL and answered - set(seen):
            self.change(run_id, due_at=self.now)
            self.ring(run_id)

    def wake(self, run_id: str, *, lane: str) -> None:
        run = self.runs[run_id]
        if not self.in_line(run):
            self.ring(run_id)
        elif run_id not in self.here:
            # The bell of one that waits is in vain, and harmless.
            self.ring(run_id, surely=False)

    def wakeups_sent(self, ids: Collection[str]) -> None:
        for bell in self.bells:
            if bell["id"] in ids:
                bell["sent_at"] = self.now

    # -- workers -----------------------------------------------------------------------------------------------------

    def claim(self, run_id: str, *, worker: str, seconds: float) -> tuple[Any, ...] | None:
        run = self.run(run_id)
        self.bells = [bell for bell in self.bells if bell["run_id"] != run_id]
        for bell in self.new_bells:
            # Whether it was rung before or after this, within one commit, is nobody's business.
            bell["sure"] = bell["sure"] and bell["run_id"] != run_id
        if run["state"] in AT_AN_END or run["due_at"] is None or run["due_at"] > self.now:
            return None
        if run["serial_key"] is not None and not self.is_first(run_id):
            self.change(run_id, due_at=None)
            return None
        died, rested, due = run["worker"] is not None, run["state"], run["due_at"]
        if died:
            self._count_crash(run_id)
        if SUSPECT <= run["crashes"] < PUT_ASIDE and self._holds_a_suspect(worker, other_than=run_id):
            self.change(run_id, worker=None, due_at=self.now + timedelta(seconds=seconds))
            if died:
                self.tell(run_id, "note", worker, crashes=run["crashes"])
            return None
        turn = None if run["serial_key"] is None else 0
        until = self.now + timedelta(seconds=seconds)
        fence = run["fence"] + 1
        self.change(run_id, state=RunState.PROCESSING, fence=fence, worker=worker, due_at=until, turn=turn)
        taken_over = {"taken_over": True, "crashes": run["crashes"]} if rested is RunState.PROCESSING else {}
        told = {"from": rested, "to": RunState.PROCESSING, "fence": fence}
        self.tell(run_id, "transition", worker, **told, **taken_over)
        return Lease(run_id, fence, worker), rested, (self.now - due).total_seconds()

    def _holds_a_suspect(self, worker: str, *, other_than: str) -> bool:
        return any(
            run["crashes"] >= SUSPECT and run["worker"] == worker and run["state"] is RunState.PROCESSING
            for name, run in self.runs.items()
            if name != other_than
        )

    def _count_crash(self, run_id: str, at_least: int = 1) -> None:
        run, place = self.run(run_id), self.place_of(run_id)
        crashes = run["crashes"] + 1 if run["stood_at"] == place else 1
        self.change(run_id, crashes=max(crashes, at_least), stood_at=place, worker=None)

    def give_up(self, run_id: str, *, worker: str) -> None:
        if self.run(run_id)["worker"] == worker:
            self.change(run_id, worker=None)

    def count_idle(self, run_id: str, segments: int) -> None:
        self.run(run_id)
        self.change(run_id, idle=segments)

    def blame(self, run_id: str, *, worker: str, node: str, seconds: float) -> None:
        run = self.run(run_id)
        if run["worker"] != worker or run["state"] is not RunState.PROCESSING:
            return
        self._count_crash(run_id, at_least=SUSPECT)
        self.tell(run_id, "note", worker, crashes=run["crashes"])
        for other in self.runs.values():
            if other["worker"] == worker and other["state"] is RunState.PROCESSING:
                other["worker"] = None

    def wake_next_suspect(self) -> None:
        waiting = [
            (run["due_at"], name)
            for name, run in self.runs.items()
            if run["crashes"] >= SUSPECT and run["state"] is RunState.PROCESSING and run["worker"] is None
        ]
        if waiting:
            _, name = min(waiting)
            self.runs[name]["due_at"] = self.now
            self.ring(name)

    def beat(self, worker: str, held: Collection[str], seconds: float) -> None:
        for name in held:
            if self.runs[name]["worker"] == worker and self.runs[name]["state"] is RunState.PROCESSING:
                self.runs[name]["due_at"] = self.now + timedelta(seconds=seconds)

    # -- journal, ledger, visits, checkpoints ------------------------------------------------------------------------

    def note(self, run_id: str, *, actor: str, data: Mapping[str, Any]) -> None:
        self.run(run_id)
        self.tell(run_id, "note", actor, **data)

    def put_effect(self, effect: Effect) -> None:
        old = self.effects.get(effect.key, {})
        self.effects[effect.key] = vars(effect) | {"undone_by": old.get("undone_by"), "updated_at": self.now}

    def put_visit(self, visit: Visit) -> None:
        self.visits[visit.run_id, visit.visit] = vars(visit)

    def reset_failures(self, run_id: str) -> None:
        for (owner, _), visit in self.visits.items():
            visit["failures"] = 0 if owner == run_id else visit["failures"]
        self.forget_failures(run_id, self.effects)

    def forget_failures(self, run_id: str, effects: Collection[str]) -> None:
        for key in effects:
            if key in self.effects and self.effects[key]["run_id"] == run_id:
                self.effects[key]["failures"] = ()

    def put_checkpoint(self, row: dict[str, Any]) -> None:
        self.checkpoints.setdefault(row["thread_id"], set()).add(row["id"])

    # -- reviews -----------------------------------------------------------------------------------------------------

    def open_review(self, review: Review) -> None:
        self.run(review.run_id)
        self.reviews[review.id] = vars(review) | {"created_at": self.now}
        if review.deadline is not None:
            self.timers[review.id] = (review.run_id, review.deadline)
        self.tell(review.run_id, "review_opened", "gate", review=review.id)

    def decide(self, review: Review, decision: Decision, *, state: ReviewState = ReviewState.DECIDED) -> None:
        known, reasons = self.reviews[review.id], []
        if state is ReviewState.DECIDED and not self.may_decide(review.id, decision.by):
            reasons.append("MayNotDecide")
        if known["state"] is not ReviewState.OPEN or self.run(review.run_id)["state"] in FINAL:
            reasons.append("DecisionRefused")
        if reasons:
            raise Refused(*reasons)
        known.update(state=state, decision=(decision.type, decision.by, self.now))
        self.timers.pop(review.id, None)
        self.tell(review.run_id, "decision", decision.by, review=review.id, type=decision.type)
        if known["people"] > 1 and decision.type != "approve":
            for other in self.about_the_same(review.id):
                unused = other["consumed_by"] is None
                if unused and other["state"] in (ReviewState.OPEN, ReviewState.DECIDED) and other is not known:
                    other["state"] = ReviewState.SUPERSEDED
                    self.timers.pop(other["id"], None)

    def consume_review(self, review_id: str, by: str) -> None:
        review = self.reviews[review_id]
        if review["consumed_by"] not in (None, by):
            raise Refused("DecisionUsedUp")
        review["consumed_by"] = by

    def close_reviews(self, run_id: str, state: ReviewState, *, ids: Collection[str] | None = None) -> None:
        self._close_questions(run_id, state, ids)

    def _close_questions(self, run_id: str, state: ReviewState, ids: Collection[str] | None = None) -> None:
        for name, review in self.reviews.items():
            if review["run_id"] == run_id and (ids is None or name in ids):
                self.timers.pop(name, None)
                if review["state"] is ReviewState.OPEN:
                    review["state"] = state

    def delete_timers(self, review_id: str) -> None:
        self.timers.pop(review_id, None)
