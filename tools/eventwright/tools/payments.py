"""The payment provider: gives money back. Embedded, a ledger in a SQLite file of its own.

It keeps the promise that real providers make with idempotency keys: the same key again is the same refund.
"""

from __future__ import annotations

from datetime import UTC, datetime
from decimal import Decimal
from typing import Annotated

from pydantic import AwareDatetime, BaseModel, ConfigDict, Field, ValidationError

from eventwright.runs.event import new_id
from eventwright.tools.contract import Call, Permanent, Role, Undo, tool
from eventwright.tools.sqlite_file import SqliteFile

#: More than nothing, in whole cents.
Amount = Annotated[Decimal, Field(gt=0, max_digits=14, decimal_places=2)]
#: ISO 4217, in capitals: `EUR`.
Currency = Annotated[str, Field(pattern=r"^[A-Z]{3}$")]
Named = Annotated[str, Field(min_length=1)]


class Refund(BaseModel):
    """Money given back, as the ledger holds it."""

    model_config = ConfigDict(frozen=True)

    id: str
    account_id: Named
    amount: Amount
    currency: Currency
    reason: Named
    created_at: AwareDatetime
    #: When it was taken back; None for one that the account holder has.
    cancelled_at: AwareDatetime | None = None


class PaymentLedger(SqliteFile):
    """The ledger of refunds. `async with PaymentLedger.open(path) as ledger`."""

    async def prepare(self) -> None:
        # The amount is text: SQLite would keep a decimal as a float.
        await self._connection.execute(
            "CREATE TABLE IF NOT EXISTS refunds (idempotency_key TEXT PRIMARY KEY NOT NULL,"
            " id TEXT NOT NULL UNIQUE, account_id TEXT NOT NULL, amount TEXT NOT NULL,"
            " currency TEXT NOT NULL, reason TEXT NOT NULL, created_at TEXT NOT NULL)"
        )
        await self._connection.execute("CREATE INDEX IF NOT EXISTS refunds_by_account ON refunds (account_id)")
        # A refund is never deleted: it was given, and it was taken back.
        await self._connection.execute(
            "CREATE TABLE IF NOT EXISTS cancellations (idempotency_key TEXT PRIMARY KEY NOT NULL,"
            " refund_id TEXT NOT NULL UNIQUE REFERENCES refunds (id), cancelled_at TEXT NOT NULL)"
        )

    async def refund(
        self, account_id: str, amount: Decimal, currency: str, reason: str, *, idempotency_key: str
    ) -> Refund:
        """Give money back, once per key: the same key again answers with the first refund, unchanged.

        Raises:
            Permanent: the key was used for another refund, or the amount or currency is impossible.
            ToolError: the ledger cannot be written.
        """
        wanted = _checked(account_id, amount, currency, reason)
        await self.execute(
            "INSERT INTO refunds VALUES (:key, :id, :account_id, :amount, :currency, :reason, :created_at)"
            " ON CONFLICT (idempotency_key) DO NOTHING",
            {"key": idempotency_key, **wanted.model_dump(mode="json", exclude={"cancelled_at"})},
        )
        # Whoever wrote the row, we or an earlier call with this key, it is the one refund of the key.
        [row] = await self.execute(f"{_REFUNDS} WHERE refunds.idempotency_key = ?", (idempotency_key,))
        kept = Refund.model_validate(dict(row))
        if _asked(kept) != _asked(wanted):
            raise Permanent(
                f"the idempotency key {idempotency_key!r} belongs to refund {kept.id} ({_asked(kept)}); "
                f"another refund ({_asked(wanted)}) needs a key of its own"
            )
        return kept

    async def cancel_refund(self, refund_id: str, *, idempotency_key: str) -> Refund:
        """Take a refund back, once; whoever asks again, with this key or another, finds it cancelled.

        Raises:
            Permanent: there is no such refund, or the key was used for another one.
            ToolError: the ledger cannot be written.
        """
        await self.execute(
            "INSERT INTO cancellations SELECT ?, id, ? FROM refunds WHERE id = ? ON CONFLICT DO NOTHING",
            (idempotency_key, datetime.now(UTC).isoformat(), refund_id),
        )
        found = await self.execute(f"{_REFUNDS} WHERE refunds.id = ?", (refund_id,))
        if not found:
            raise Permanent(f"there is no refund {refund_id!r}; payments.refunds_of lists those of an account")
        refund = Refund.model_validate(dict(found[0]))
        if refund.cancelled_at is None:
            raise Permanent(f"the idempotency key {idempotency_key!r} belongs to another refund than {refund_id}")
        return refund

    async def refunds_of(self, account_id: str) -> list[Refund]:
        """The refunds of one account, oldest first, also those that were cancelled.

        Raises:
            ToolError: the ledger cannot be read.
        """
        rows = await self.execute(f"{_REFUNDS} WHERE account_id = ? ORDER BY refunds.rowid", (account_id,))
        return [Refund.model_validate(dict(row)) for row in rows]


#: The refunds with what became of them.
_REFUNDS = (
    "SELECT refunds.*, cancellations.cancelled_at FROM refunds"
    " LEFT JOIN cancellations ON cancellations.refund_id = refunds.id"
)


def _checked(account_id: str, amount: Decimal, currency: str, reason: str) -> Refund:
    try:
        return Refund(
            id=new_id("ref"),
            account_id=account_id,
            amount=amount,
            currency=currency,
            reason=reason,
            created_at=datetime.now(UTC),
        )
    except ValidationError as error:
        raise Permanent(f"no such refund is possible: {error}") from error


def _asked(refund: Refund) -> str:
    return f"{refund.amount:.2f} {refund.currency} to {refund.account_id!r}, {refund.reason!r}"


@tool(writes="keyed", trusted=True)
async def cancel_refund(refund_id: Annotated[Named, Role.DESTINATION], *, call: Call) -> Refund:
    """Take a refund back."""
    return await call.use(PaymentLedger).cancel_refund(refund_id, idempotency_key=call.idempotency_key)


@tool(writes="keyed", trusted=True, undo=Undo(cancel_refund, lambda _asked, given: {"refund_id": given.id}))
async def refund(
    account_id: Annotated[Named, Role.DESTINATION],
    amount: Annotated[Amount, Role.AMOUNT],
    currency: Annotated[Currency, Role.AMOUNT],
    reason: Annotated[Named, Role.CONTENT],
    *,
    call: Call,
) -> Refund:
    """Give money back to the owner of this account."""
    ledger = call.use(PaymentLedger)
    return await ledger.refund(account_id, amount, currency, reason, idempotency_key=call.idempotency_key)


@tool(trusted=True, sensitive=True)
async def refunds_of(account_id: str, *, call: Call) -> list[Refund]:
    """List the refunds that this account has had, oldest first, also those that were cancelled."""
    return await call.use(PaymentLedger).refunds_of(account_id)
