"""The reference model of the store, the part about calls: what they take of budgets, how they are taken back or read
back, and when what is known of them is deleted."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from datetime import datetime
from decimal import Decimal
from typing import Any

from tests.conformance.reference_world import Refused, World, thread_of

from eventwright.runs.amends import ReadBack
from eventwright.runs.records import Reservation, ReviewState
from eventwright.runs.retention import Keep, Removed
from eventwright.runs.states import AT_AN_END, FINAL, RunState


class CallVerbs(World):
    """Budgets, amends and retention."""

    # -- budgets -----------------------------------------------------------------------------------------------------

    def _fresh(self, effect_key: str, reservations: Sequence[Reservation]) -> list[Reservation]:
        """What a call has not reserved before, if there is enough."""
        fresh = [wanted for wanted in reservations if (effect_key, wanted.budget) not in self.taken]
        for wanted in fresh:
            used = self.budgets.get(wanted.scope, {}).get("used", Decimal(0))
            if wanted.most is not None and used + wanted.amount > wanted.most:
                raise Refused("BudgetExceeded")
        return fresh

    def reserve(self, run_id: str, effect_key: str, reservations: Sequence[Reservation]) -> None:
        self.run(run_id)
        fresh = self._fresh(effect_key, reservations)
        for wanted in fresh:
            new = {"used": Decimal(0), "most": None, "label": wanted.label, "opened_at": self.now}
            budget = self.budgets.setdefault(wanted.scope, new)
            budget["used"] += wanted.amount
            budget["most"] = budget["most"] if wanted.most is None else wanted.most
            taken = {"scope": wanted.scope, "amount": wanted.amount, "settled": wanted.spent}
            self.taken[effect_key, wanted.budget] = taken
        if fresh:
            self.tell(run_id, "budget", "gate", effect=effect_key)

    def settle(self, run_id: str, effect_key: str, actual: Mapping[str, Decimal]) -> None:
        self.run(run_id)
        if self._settle(effect_key, actual):
            self.tell(run_id, "budget", "gate", effect=effect_key)

    def _settle(self, effect_key: str, actual: Mapping[str, Decimal]) -> bool:
        """Whether it came to something else than was reserved."""
        different = False
        for budget, taken in self._unsettled(effect_key).items():
            spent = actual.get(budget, taken["amount"])
            different = different or spent != taken["amount"]
            self.budgets[taken["scope"]]["used"] += spent - taken["amount"]
            taken.update(amount=spent, settled=True)
        return different

    def release(self, run_id: str, effect_key: str) -> None:
        self.run(run_id)
        if self._release(effect_key):
            self.tell(run_id, "budget", "gate", effect=effect_key)

    def _release(self, effect_key: str) -> bool:
        """Whether there was something to give back."""
        given_back = self._unsettled(effect_key)
        for budget, taken in given_back.items():
            self.budgets[taken["scope"]]["used"] -= taken["amount"]
            del self.taken[effect_key, budget]
        return bool(given_back)

    def _unsettled(self, effect_key: str) -> dict[str, dict[str, Any]]:
        return {
            budget: taken for (key, budget), taken in self.taken.items() if key == effect_key and not taken["settled"]
        }

    # -- amends ------------------------------------------------------------------------------------------------------

    def take_back(self, run_id: str, effects: Mapping[str, str | None], *, by_run: str) -> None:
        if self.run(run_id)["state"] not in AT_AN_END:
            raise Refused("UndoRefused")
        for key, before in effects.items():
            effect = self.effects[key]
            if (effect["run_id"], effect["state"], effect["undone_by"]) != (run_id, "done", before):
                raise Refused("UndoRefused")
            effect["undone_by"] = by_run

    def refuse_undone(self, run_id: str, *, given_up: Collection[str] = ()) -> None:
        self.run(run_id)
        undoing = {effect["undone_by"] for effect in self.effects.values() if effect["run_id"] == run_id}
        if undoing - {None, *given_up}:
            raise Refused("AlreadyUndone")

    def settle_read_back(self, run_id: str, found: Collection[ReadBack], *, by: str) -> None:
        run = self.run(run_id)
        if run["state"] is RunState.PROCESSING:
            return
        settled = [one for one in found if self._read_back(run_id, one, by)]
        if settled and run["state"] not in AT_AN_END:
            self.change(run_id, due_at=self.now)

    def _read_back(self, run_id: str, one: ReadBack, by: str) -> bool:
        effect = self.effects[one.effect]
        if effect["state"] not in ("intended", "in_doubt") or effect["attempt"] != one.attempt:
            return False
        error = None if one.happened else "read back: it did not happen"
        effect.update(state="done" if one.happened else "failed", result=one.result, error=error)
        for review in self.reviews.values():
            doubt = review["run_id"] == run_id and review["kind"] == "in_doubt" and review["state"] == "open"
            if doubt and review["evidence"].get("idempotency_key") == one.effect:
                review["state"] = ReviewState.SUPERSEDED
        if one.happened:
            self._settle(one.effect, {})
        elif self._release(one.effect):
            self.tell(run_id, "budget", by, effect=one.effect)
        self.tell(run_id, f"effect_{effect['state']}", by, effect=one.effect, read_back=True)
        return True

    # -- retention ---------------------------------------------------------------------------------------------------

    def prune(self, run_ids: Collection[str]) -> Removed:
        removed = Removed()
        for run_id in sorted(run_ids):
            run = self.run(run_id)
            if run["state"] in FINAL and run["pruned_at"] is None:
                run["pruned_at"] = self.now
                removed.runs += 1
                for generation in range(run["generation"] + 1):
                    removed.checkpoints += len(self.checkpoints.pop(thread_of(run_id, generation), ()))
        return removed

    def expire_runs(self, run_ids: Collection[str]) -> Removed:
        ids = [run_id for run_id in sorted(run_ids) if self.run(run_id)["state"] in FINAL]
        ids = [run_id for run_id in ids if self.runs[run_id]["expired_at"] is None]
        removed = self.prune(ids)
        removed.payloads = len(ids)
        for effect in self.effects.values():
            forgotten = {"arguments": None, "result": None, "failures": ()}
            effect.update(forgotten if effect["run_id"] in ids else {})
        for review in self.reviews.values():
            review.update({"arguments": None, "evidence": {}} if review["run_id"] in ids else {})
        for run_id in ids:
            self.runs[run_id]["expired_at"] = self.now
            self.tell(run_id, "note", "retention")
        return removed

    def expire_events(self, uids: Collection[str], *, before: datetime) -> Removed:
        removed = Removed()
        for uid in uids:
            event = self.events[uid]
            needed = any(run["event"] == uid and run["expired_at"] is None for run in self.runs.values())
            if event["expired_at"] is None and event["received_at"] < before and not needed:
                problem = event["problem"] and {"title": event["problem"]["title"]}
                event.update(data=None, problem=problem, expired_at=self.now)
                removed.events += 1
        return removed

    def keep(self, keep: Keep) -> Removed:
        """Delete all that was kept long enough."""
        removed = Removed()
        spans = [span for span in (keep.checkpoints, keep.payloads) if span is not None]
        if spans:
            removed += self.prune(self._ended_before(self.now - min(spans)))
        if keep.payloads is not None:
            removed += self.expire_runs(self._ended_before(self.now - keep.payloads))
            removed += self.expire_events(list(self.events), before=self.now - keep.payloads)
        return removed

    def _ended_before(self, time: datetime) -> list[str]:
        return [name for name, run in self.runs.items() if run["state"] in FINAL and run["updated_at"] < time]
