"""What the tests of budgets do all the time: calls that reserve, settle and give back."""

from __future__ import annotations

from collections.abc import Iterable
from decimal import Decimal
from typing import Any

from eventwright.runs.event import digest_of
from eventwright.runs.records import JournalKind, Lease, Reservation, Run, Visit
from eventwright.runs.store import Store


def of(budget: str, amount: Any = 1, most: Any = 100, **more: Any) -> Reservation:
    """A reservation of a budget, by a short name."""
    limit = None if most is None else Decimal(most)
    scope = more.pop("scope", budget)
    return Reservation(
        scope=digest_of(scope),
        budget=digest_of(budget),
        label=scope,
        amount=Decimal(amount),
        most=limit,
        **more,
    )


async def reserve(store: Store, run: Run, key: str, *reservations: Reservation, lease: Lease | None = None) -> None:
    async with store.write(lease) as tx:
        tx.put_visit(Visit(run_id=run.id, node="n", visit=1, place=key))
        tx.reserve(run.id, key, reservations, node="n")


async def settle(store: Store, run: Run, key: str, **actual: Any) -> None:
    async with store.write() as tx:
        tx.settle(run.id, key, {digest_of(budget): Decimal(amount) for budget, amount in actual.items()})


async def release(store: Store, run: Run, key: str) -> None:
    async with store.write() as tx:
        tx.release(run.id, key)


async def used(store: Store) -> dict[str, Decimal]:
    """Every budget that was ever used, by its label."""
    return {budget.label: budget.used for budget in await store.budgets(limit=1000)}


async def told(store: Store, run: Run) -> list[Any]:
    return [entry.data for entry in await store.journal(run.id) if entry.kind is JournalKind.BUDGET]


def count(answers: Iterable[Any], kind: type) -> int:
    return sum(isinstance(answer, kind) for answer in answers)
