"""What is written about a run's effects from outside of its own segments: that they are taken back, or were read back.

Both look at the run under its lock, so that no worker goes on with it meanwhile, and change only what is as it was.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass
from typing import Any

import sqlalchemy as sa

from eventwright.runs import schema
from eventwright.runs.batch import Batch, Step, Unit
from eventwright.runs.errors import AlreadyUndone, UndoRefused
from eventwright.runs.records import EffectState, JournalEntry, JournalKind, ReviewKind, ReviewState
from eventwright.runs.states import AT_AN_END, CLAIMABLE, RunState

_UNKNOWN = [str(EffectState.INTENDED), str(EffectState.IN_DOUBT)]


@dataclass(frozen=True, kw_only=True)
class ReadBack:
    """What a provider says about a call of which nobody knew whether it happened."""

    effect: str
    #: The attempt that was asked about; a later one is another matter.
    attempt: int
    happened: bool
    result: Any = None


class AmendVerbs:
    """The verbs about effects that are taken back or read back, of `Transaction`."""

    unit: Unit

    def take_back(self, run_id: str, effects: Mapping[str, str | None], *, by_run: str) -> None:
        """Mark effects of a run at its end as taken back by another run; with each, the run it was marked with before.

        Ends in UndoRefused if the run may still act, or an effect is not as it was.
        """
        self._amend(run_id, _taking_back(run_id, effects, by_run))

    def refuse_undone(self, run_id: str, *, given_up: Collection[str] = ()) -> None:
        """End in AlreadyUndone if what the run did was taken back, except by the runs that gave that up."""
        self._amend(run_id, _refusing_undone(run_id, given_up))

    def settle_read_back(self, run_id: str, found: Collection[ReadBack], *, by: str) -> None:
        """Write what was read back about effects of which nobody knew, withdraw the questions about them, and make the
        run due. What is not in doubt any more is left alone, and so is a run that a worker has: it finds out itself."""
        self.unit.effect_keys.update(one.effect for one in found)
        self._amend(run_id, _settling(run_id, found, by))

    def _amend(self, run_id: str, step: Step) -> None:
        self.unit.run_ids.add(run_id)
        self.unit.steps.append(step)


def _taking_back(run_id: str, effects: Mapping[str, str | None], by_run: str) -> Step:
    table = schema.effects

    def step(batch: Batch) -> None:
        state = RunState(batch.run(run_id)["state"])
        if state not in AT_AN_END:
            raise UndoRefused(run_id, f"it is {state} and may still act")
        for key, before in effects.items():
            as_it_was = sa.and_(
                table.c.key == key,
                table.c.run_id == run_id,
                table.c.state == str(EffectState.DONE),
                table.c.undone_by.is_not_distinct_from(before),
            )
            if batch.execute(sa.update(table).where(as_it_was).values(undone_by=by_run)).rowcount != 1:
                raise UndoRefused(run_id, f"somebody else was faster to take effect {key} back")

    return step


def _refusing_undone(run_id: str, given_up: Collection[str]) -> Step:
    table = schema.effects
    query = sa.select(table.c.undone_by).where(table.c.run_id == run_id, table.c.undone_by.is_not(None))

    def step(batch: Batch) -> None:
        undoing = sorted(set(batch.execute(query).scalars()) - set(given_up))
        if undoing:
            raise AlreadyUndone(run_id, undoing[0])

    return step


def _settling(run_id: str, found: Collection[ReadBack], by: str) -> Step:
    def step(batch: Batch) -> None:
        state = RunState(batch.run(run_id)["state"])
        if state is RunState.PROCESSING:
            return
        settled = [one for one in found if _settle(batch, run_id, one, by)]
        if settled and state in CLAIMABLE:
            batch.change(run_id, due_at=batch.now)

    return step


def _settle(batch: Batch, run_id: str, one: ReadBack, by: str) -> bool:
    table = schema.effects
    as_it_was = sa.and_(table.c.key == one.effect, table.c.attempt == one.attempt, table.c.state.in_(_UNKNOWN))
    state = EffectState.DONE if one.happened else EffectState.FAILED
    error = None if one.happened else "read back: it did not happen"
    # When it was last heard of stays as it was: that is nearer to when it happened.
    change = sa.update(table).where(as_it_was).values(state=str(state), result=one.result, error=error)
    if batch.execute(change).rowcount != 1:
        return False
    _withdraw_questions(batch, run_id, one.effect)
    row = batch.execute(sa.select(table).where(table.c.key == one.effect)).mappings().one()
    _settle_budgets(batch, run_id, row["node"], one, by)
    data = {
        "tool": row["tool"],
        "class": row["tool_class"],
        "effect": row["key"],
        "attempt": row["attempt"],
        "requested": row["requested_digest"],
        "executed": row["executed_digest"],
        "read_back": True,
    } | ({"error": error} if error else {})
    kind = JournalKind.EFFECT_DONE if one.happened else JournalKind.EFFECT_FAILED
    batch.journal(JournalEntry(run_id=run_id, kind=kind, actor=by, node=row["node"], data=data))
    return True


def _settle_budgets(batch: Batch, run_id: str, node: str, one: ReadBack, by: str) -> None:
    """What the call reserved is spent, or there again."""
    if one.happened:
        batch.budgets.settle(one.effect, {})
    elif given_back := batch.budgets.release(one.effect):
        told = [{"budget": label, "amount": f"{amount:f}"} for label, amount in given_back]
        data = {"effect": one.effect, "given_back": told}
        batch.journal(JournalEntry(run_id=run_id, kind=JournalKind.BUDGET, actor=by, node=node, data=data))


def _withdraw_questions(batch: Batch, run_id: str, effect: str) -> None:
    table = schema.reviews
    doubts = sa.select(table.c.id, table.c.evidence).where(
        table.c.run_id == run_id,
        table.c.kind == str(ReviewKind.IN_DOUBT),
        table.c.state == str(ReviewState.OPEN),
    )
    ids = [row.id for row in batch.execute(doubts) if row.evidence.get("idempotency_key") == effect]
    if ids:
        close = sa.update(table).where(table.c.id.in_(ids))
        batch.execute(close.values(state=str(ReviewState.SUPERSEDED)))
