"""Budgets in the store: calls reserve before they are made, all reservations of a batch against locked rows.

Two processes that race for what is left of a budget therefore never take more than that, and a unit that is refused
has not written anything.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import datetime
from decimal import Context, Decimal, Inexact, InvalidOperation
from typing import TYPE_CHECKING, Any

import sqlalchemy as sa

from eventwright.runs import schema
from eventwright.runs.database import padded
from eventwright.runs.errors import BudgetExceeded
from eventwright.runs.records import JournalEntry, JournalKind, Reservation, countable
from eventwright.runs.statements import Statements

if TYPE_CHECKING:
    from eventwright.runs.batch import Batch, Unit

#: Adds to the last digit, or raises.
EXACT = Context(prec=38, traps=[Inexact, InvalidOperation])


class BudgetBook:
    """The budgets that a batch touches, as mutable rows: locked at its beginning, written at its end."""

    def __init__(self, connection: sa.Connection, statements: Statements, now: datetime) -> None:
        self._connection, self._statements, self._now = connection, statements, now
        #: By scope.
        self._budgets: dict[str, dict[str, Any]] = {}
        #: By effect key and budget.
        self._taken: dict[str, dict[str, dict[str, Any]]] = {}
        self._opened: set[str] = set()
        self._changed: set[str] = set()
        self._put: set[tuple[str, str]] = set()
        self._given_back: set[tuple[str, str]] = set()

    def load(self, units: Sequence[Unit]) -> None:
        """Lock the budgets that the units speak of, in one order for everybody. Their runs are locked already, so that
        nobody else changes what these calls have reserved."""
        keys = {key for unit in units for key in unit.effect_keys}
        if not keys:
            return
        for row in self._connection.execute(_TAKEN, {"keys": padded(keys)}).mappings():
            self._taken.setdefault(row["effect_key"], {})[row["budget"]] = dict(row)
        wanted = {item.scope: item.label for unit in units for item in unit.reservations}
        if wanted:
            rows = [
                {"scope": scope, "label": wanted[scope], "used": Decimal(0), "most": None, "opened_at": self._now}
                for scope in sorted(wanted)
            ]
            self._opened.update(self._connection.execute(self._statements.budget, rows).scalars())
        scopes = {*wanted, *(row["scope"] for taken in self._taken.values() for row in taken.values())}
        if scopes:
            locked = self._connection.execute(_LOCK_BUDGETS, {"scopes": padded(scopes)}).mappings()
            self._budgets = {row["scope"]: dict(row) for row in locked}

    def check(self, effect_key: str, reservations: Sequence[Reservation]) -> list[Reservation]:
        """What of this the call has not reserved before. Raises BudgetExceeded where too little is left for it."""
        taken = self._taken.get(effect_key, {})
        fresh = [item for item in reservations if item.budget not in taken]
        for item in fresh:
            used = self._budgets[item.scope]["used"]
            if item.most is not None and EXACT.add(used, item.amount) > item.most:
                raise BudgetExceeded(item.scope, item.label, most=item.most, used=used, wanted=item.amount)
        return fresh

    def reserve(self, run_id: str, effect_key: str, reservations: Sequence[Reservation]) -> list[Reservation]:
        """Take what the call has not taken before; what that was. Raises BudgetExceeded."""
        fresh = {item.budget: item for item in self.check(effect_key, reservations)}
        for budget, item in fresh.items():
            self._taken.setdefault(effect_key, {})[budget] = {
                "effect_key": effect_key,
                "budget": budget,
                "scope": item.scope,
                "run_id": run_id,
                "amount": item.amount,
                "settled": item.spent,
            }
            self._put.add((effect_key, budget))
            self._use(item.scope, item.amount)
            if item.most is not None:
                self._budgets[item.scope]["most"] = item.most
        return list(fresh.values())

    def settle(self, effect_key: str, actual: Mapping[str, Decimal]) -> list[tuple[str, Decimal, Decimal]]:
        """Let everything that the call reserved be spent; (label, reserved, spent) of what came to something else."""
        different = []
        for budget, row in self._unsettled(effect_key):
            reserved, spent = row["amount"], actual.get(budget, row["amount"])
            row.update(amount=spent, settled=True)
            self._put.add((effect_key, budget))
            if spent != reserved:
                label = self._use(row["scope"], EXACT.subtract(spent, reserved))
                different.append((label, reserved, spent))
        return different

    def release(self, effect_key: str) -> list[tuple[str, Decimal]]:
        """Give back what the call reserved and did not spend; (label, amount) of it."""
        given_back = []
        for budget, row in self._unsettled(effect_key):
            del self._taken[effect_key][budget]
            self._given_back.add((effect_key, budget))
            given_back.append((self._use(row["scope"], -row["amount"]), row["amount"]))
        return given_back

    def _unsettled(self, effect_key: str) -> list[tuple[str, dict[str, Any]]]:
        return [(budget, row) for budget, row in self._taken.get(effect_key, {}).items() if not row["settled"]]

    def _use(self, scope: str, amount: Decimal) -> str:
        """Use so much more, or less, of a budget; its label."""
        row = self._budgets[scope]
        row["used"] = EXACT.add(row["used"], amount)
        self._changed.add(scope)
        return str(row["label"])

    def flush(self) -> None:
        """Write what changed; a budget that was opened for a call that was refused is gone again."""
        if self._changed:
            rows = [self._budgets[scope] for scope in sorted(self._changed)]
            self._connection.execute(
                _UPDATE_BUDGET, [{f"b_{name}": row[name] for name in ("scope", "used", "most")} for row in rows]
            )
        if self._opened - self._changed:
            self._connection.execute(_FORGET, {"scopes": padded(self._opened - self._changed)})
        if self._given_back:
            gone = [{"b_effect_key": key, "b_budget": budget} for key, budget in sorted(self._given_back)]
            self._connection.execute(_GIVE_BACK, gone)
        kept = [self._taken[key][budget] for key, budget in sorted(self._put) if budget in self._taken[key]]
        if kept:
            self._connection.execute(self._statements.reservation, kept)


class BudgetVerbs:
    """The verbs about budgets, of `Transaction`."""

    unit: Unit

    def reserve(
        self, run_id: str, effect_key: str, reservations: Sequence[Reservation], *, node: str | None = None
    ) -> None:
        """Reserve for a call about to be made; what it reserved before, also what is settled, is not reserved again.

        Ends in BudgetExceeded for the first budget with too little left; then nothing is reserved anywhere.
        """

        def step(batch: Batch) -> None:
            _begin(batch, run_id)
            fresh = batch.budgets.reserve(run_id, effect_key, reservations)
            told = [{"budget": item.label, "amount": _plain(item.amount)} for item in fresh]
            _journal(batch, run_id, node, effect_key, "reserved", told)

        self._about(run_id, effect_key)
        self.unit.reservations.extend(reservations)
        # A refusal comes before anything is written, so that it does not undo the batch.
        self.unit.steps.insert(0, lambda batch: batch.budgets.check(effect_key, reservations))
        self.unit.steps.append(step)

    def settle(
        self, run_id: str, effect_key: str, actual: Mapping[str, Decimal] | None = None, *, node: str | None = None
    ) -> None:
        """Let what a call reserved be spent, now that it was made.

        Args:
            actual: what it came to, by `Reservation.budget`, less or more than was reserved; the rest as reserved.

        Raises:
            ValueError: a budget cannot hold the number.
        """
        spent = {budget: countable(amount) for budget, amount in (actual or {}).items()}

        def step(batch: Batch) -> None:
            _begin(batch, run_id)
            told = [
                {"budget": label, "reserved": _plain(reserved), "amount": _plain(amount)}
                for label, reserved, amount in batch.budgets.settle(effect_key, spent)
            ]
            _journal(batch, run_id, node, effect_key, "spent", told)

        self._about(run_id, effect_key)
        self.unit.steps.append(step)

    def release(self, run_id: str, effect_key: str, *, node: str | None = None) -> None:
        """Give back what a call reserved that certainly did not happen; when it is tried again it reserves again."""

        def step(batch: Batch) -> None:
            _begin(batch, run_id)
            told = [{"budget": label, "amount": _plain(amount)} for label, amount in batch.budgets.release(effect_key)]
            _journal(batch, run_id, node, effect_key, "given_back", told)

        self._about(run_id, effect_key)
        self.unit.steps.append(step)

    def _about(self, run_id: str, effect_key: str) -> None:
        self.unit.run_ids.add(run_id)
        self.unit.effect_keys.add(effect_key)


def _begin(batch: Batch, run_id: str) -> None:
    """The run is known, and from here on the unit cannot be left out of the batch any more."""
    batch.run(run_id)
    batch.wrote = True


def _journal(
    batch: Batch, run_id: str, node: str | None, effect_key: str, what: str, told: list[dict[str, str]]
) -> None:
    if told:
        data = {"effect": effect_key, what: told}
        batch.journal(JournalEntry(run_id=run_id, kind=JournalKind.BUDGET, actor="gate", node=node, data=data))


def _plain(number: Decimal) -> str:
    return f"{number.normalize(EXACT):f}"


def _any_of(column: sa.ColumnElement[Any], name: str) -> sa.ColumnElement[bool]:
    return column.in_(sa.bindparam(name, expanding=True))


_TAKEN = sa.select(schema.reservations).where(_any_of(schema.reservations.c.effect_key, "keys"))
_LOCK_BUDGETS = (
    sa.select(schema.budgets)
    .where(_any_of(schema.budgets.c.scope, "scopes"))
    .order_by(schema.budgets.c.scope)
    .with_for_update()
)
_UPDATE_BUDGET = (
    sa.update(schema.budgets)
    .where(schema.budgets.c.scope == sa.bindparam("b_scope"))
    .values(used=sa.bindparam("b_used"), most=sa.bindparam("b_most"))
)
_FORGET = sa.delete(schema.budgets).where(_any_of(schema.budgets.c.scope, "scopes"))
_GIVE_BACK = sa.delete(schema.reservations).where(
    schema.reservations.c.effect_key == sa.bindparam("b_effect_key"),
    schema.reservations.c.budget == sa.bindparam("b_budget"),
)
