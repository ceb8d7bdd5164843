"""What a call takes from its budgets: planned before it, reserved with its intent, settled with its result."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from eventwright.guardrails.budgets import HARSHNESS, Budget, actual
from eventwright.guardrails.verdicts import Stage, Verdict, VerdictKind, allow
from eventwright.runs.event import digest_of
from eventwright.runs.records import Effect, Reservation
from eventwright.runs.transaction import Transaction
from eventwright.tools.chat_models import ChatAnswer
from eventwright.tools.contract import MODELS
from eventwright.tools.models import Answer


@dataclass(frozen=True, kw_only=True)
class Plan:
    """What one call reserves.

    Attributes:
        reservations: what it takes of which budget.
        verdict: what stage 5 says about it.
        economy: whether the call is made the cheaper way.
    """

    reservations: tuple[tuple[Budget, Reservation], ...] = ()
    verdict: Verdict = field(default_factory=lambda: allow(Stage.BUDGETS, "none"))
    economy: bool = False

    #: Scopes of budgets that this call may exceed.
    exceeding: frozenset[str] = frozenset()

    def taking(self, taken: Sequence[tuple[Budget, Reservation]]) -> Plan:
        """The same call, with these reservations; of several budgets with too little left the harshest end decides."""
        taken = sorted(taken, key=lambda one: HARSHNESS[one[0].then])
        reserved = tuple(
            (budget, replace(one, most=None) if one.scope in self.exceeding else one) for budget, one in taken
        )
        inputs = {one.label: f"{one.amount:f} of {budget.limit:f}" for budget, one in taken}
        rule = "reserved" if taken else "none"
        verdict = Verdict(kind=VerdictKind.ALLOW, stage=Stage.BUDGETS, rule=rule, inputs=inputs)
        return Plan(reservations=reserved, verdict=verdict, economy=self.economy, exceeding=self.exceeding)

    def budget(self, scope: str) -> Budget:
        """The budget that this scope is of."""
        return next(budget for budget, reservation in self.reservations if reservation.scope == scope)

    def beyond(self, scope: str, *, economy: bool = False) -> Plan:
        """The same call, which may exceed this budget."""
        return replace(self, exceeding=self.exceeding | {scope}, economy=self.economy or economy)

    def reserve(self, tx: Transaction, effect: Effect) -> None:
        """Reserve with the intent."""
        if self.reservations:
            tx.reserve(effect.run_id, _account(effect), [item for _, item in self.reservations], node=effect.node)

    def settle(self, tx: Transaction, effect: Effect, result: Any) -> None:
        """Let what the call came to be spent."""
        if self.reservations:
            counted = isinstance(result, Answer | ChatAnswer) and result.counted
            tokens = result.input_tokens + result.output_tokens if counted else None
            spent = actual(self.reservations, tokens=tokens, cost=result.cost if counted else None)
            tx.settle(effect.run_id, _account(effect), spent, node=effect.node)

    def release(self, tx: Transaction, effect: Effect) -> None:
        """Give back what a call reserved that certainly did not happen."""
        if self.reservations:
            tx.release(effect.run_id, _account(effect), node=effect.node)


def _account(effect: Effect) -> str:
    """Under which key the store knows what a call took. A write that is repeated is the same one; a model that is asked
    again is paid again."""
    return digest_of([effect.key, effect.attempt]) if effect.tool in MODELS else effect.key
