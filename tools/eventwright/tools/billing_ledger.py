"""The billing system of who has no account at Stripe: a ledger in a SQLite file of its own, with the same promises.

It begins with a subscription and an open invoice for each account of the account book, whose card was declined once:
account `rec-122-org` is customer `cus_122` with `sub_122` and `in_122`, 49.00 EUR; those whose number ends in a 0
are large and owe 4900.00 EUR. What customers and banks do is told to it: `set_card`, `settle`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from decimal import Decimal
from typing import Any

from pydantic import BaseModel

from eventwright.tools.contract import Permanent
from eventwright.tools.crm import packaged_accounts
from eventwright.tools.sqlite_file import SqliteFile
from eventwright.tools.stripe_billing import Billing, Customer, Decline, Invoice, Payment, Subscription

#: What the cards of the accounts that the ledger begins with answer.
DECLINED = "insufficient_funds"
SMALL, LARGE = Decimal("49.00"), Decimal("4900.00")

TABLES = (
    # The card is why it is declined; NULL pays.
    "CREATE TABLE customers (id TEXT PRIMARY KEY NOT NULL, name TEXT, email TEXT, card TEXT)",
    "CREATE TABLE subscriptions (id TEXT PRIMARY KEY NOT NULL, status TEXT NOT NULL)",
    "CREATE TABLE invoices (id TEXT PRIMARY KEY NOT NULL, number TEXT, customer_id TEXT NOT NULL,"
    " subscription_id TEXT, due TEXT NOT NULL, currency TEXT NOT NULL, tried_before INTEGER NOT NULL, pay_url TEXT)",
    # What happened to an invoice is only ever added to; how it stands follows from it.
    "CREATE TABLE claims (invoice_id TEXT PRIMARY KEY NOT NULL, owner TEXT NOT NULL)",
    "CREATE TABLE requests (idempotency_key TEXT PRIMARY KEY NOT NULL, what TEXT NOT NULL)",
    "CREATE TABLE charges (idempotency_key TEXT PRIMARY KEY NOT NULL, invoice_id TEXT NOT NULL, at TEXT NOT NULL,"
    " declined TEXT)",
    "CREATE TABLE settlements (invoice_id TEXT PRIMARY KEY NOT NULL, status TEXT NOT NULL, at TEXT NOT NULL)",
    "CREATE TABLE pauses (idempotency_key TEXT PRIMARY KEY NOT NULL, subscription_id TEXT NOT NULL,"
    " paused INTEGER NOT NULL)",
    "CREATE INDEX charges_by_invoice ON charges (invoice_id)",
    "CREATE VIEW standing AS SELECT invoices.*, coalesce("
    " (SELECT 'paid' FROM charges WHERE invoice_id = invoices.id AND declined IS NULL),"
    " (SELECT status FROM settlements WHERE invoice_id = invoices.id), 'open') AS status,"
    " (SELECT owner FROM claims WHERE invoice_id = invoices.id) AS owner,"
    " tried_before + (SELECT count(*) FROM charges WHERE invoice_id = invoices.id) AS attempts FROM invoices",
)


def now() -> datetime:
    """The present moment."""
    return datetime.now(UTC)


class BillingLedger(SqliteFile, Billing):
    """The ledger. `async with BillingLedger.open(path) as ledger`."""

    host = "the billing ledger"
    #: By what time it writes.
    clock: Callable[[], datetime] = staticmethod(now)

    async def prepare(self) -> None:
        if await self.execute("SELECT name FROM sqlite_master WHERE name = 'customers'"):
            return
        for table in TABLES:
            await self._connection.execute(table)
        customers, invoices = zip(*_to_begin_with(), strict=True)
        await self._connection.executemany(_CUSTOMER, (_row(one) | {"card": DECLINED} for one in customers))
        await self._connection.executemany(_INVOICE, map(_row, invoices))
        await self._connection.executemany(_SUBSCRIPTION, map(_row, invoices))

    # -- what can be asked -------------------------------------------------------------------------------------------

    async def invoice(self, invoice_id: str) -> Invoice:
        rows = await self.execute("SELECT * FROM standing WHERE id = ?", (invoice_id,))
        if not rows:
            raise Permanent(f"there is no invoice {invoice_id!r}")
        found = dict(rows[0])
        due = Decimal(0) if found["status"] == "paid" else found["due"]
        return Invoice.model_validate(found | {"due": due})

    async def customer(self, customer_id: str) -> Customer:
        rows = await self.execute("SELECT * FROM customers WHERE id = ?", (customer_id,))
        if not rows:
            raise Permanent(f"there is no customer {customer_id!r}")
        return Customer.model_validate(dict(rows[0]))

    async def subscription(self, subscription_id: str) -> Subscription:
        rows = await self.execute(
            "SELECT *, coalesce((SELECT paused FROM pauses WHERE subscription_id = id ORDER BY rowid DESC LIMIT 1), 0)"
            " AS is_paused FROM subscriptions WHERE id = ?",
            (subscription_id,),
        )
        if not rows:
            raise Permanent(f"there is no subscription {subscription_id!r}")
        return Subscription.model_validate(dict(rows[0]))

    async def claim(self, invoice_id: str, owner: str) -> Invoice:
        await self.execute(
            "INSERT INTO claims SELECT id, ? FROM invoices WHERE id = ? ON CONFLICT DO NOTHING", (owner, invoice_id)
        )
        return await self.invoice(invoice_id)

    async def pay(self, invoice_id: str, *, idempotency_key: str) -> Payment:
        await self._claim(idempotency_key, f"pay {invoice_id}")
        # Whether it is still open, and what the card says, is looked up by the statement that charges it.
        await self.execute(
            "INSERT INTO charges SELECT ?, standing.id, ?, card FROM standing JOIN customers"
            " ON customers.id = customer_id WHERE standing.id = ? AND status = 'open' ON CONFLICT DO NOTHING",
            (idempotency_key, self.clock().isoformat(), invoice_id),
        )
        invoice = await self.invoice(invoice_id)
        made = await self.execute("SELECT * FROM charges WHERE idempotency_key = ?", (idempotency_key,))
        code = made[0]["declined"] if made else None
        return Payment(invoice=invoice, declined=code and Decline(code=code, message=f"The card was declined: {code}."))

    async def set_paused(self, subscription_id: str, paused: bool, *, idempotency_key: str) -> Subscription:
        await self._claim(idempotency_key, f"{'pause' if paused else 'resume'} {subscription_id}")
        await self.execute(
            "INSERT INTO pauses VALUES (?, ?, ?) ON CONFLICT DO NOTHING", (idempotency_key, subscription_id, paused)
        )
        return await self.subscription(subscription_id)

    async def _claim(self, key: str, what: str) -> None:
        """The key is for this request. Raises Permanent if it was for another one."""
        await self.execute("INSERT INTO requests VALUES (?, ?) ON CONFLICT DO NOTHING", (key, what))
        [row] = await self.execute("SELECT what FROM requests WHERE idempotency_key = ?", (key,))
        if row["what"] != what:
            raise Permanent(f"the idempotency key {key!r} belongs to another request: {row['what']}, and not {what}")

    # -- what customers and banks do -------------------------------------------------------------------------------

    async def add(self, customer: Customer, invoice: Invoice, *, card: str | None = DECLINED) -> None:
        """A customer with an invoice, and the subscription that it is for, each if it is not there yet."""
        await self.execute(_CUSTOMER, _row(customer) | {"card": card})
        await self.execute(_INVOICE, _row(invoice))
        if invoice.subscription_id is not None:
            await self.execute(_SUBSCRIPTION, _row(invoice))
        if not invoice.is_open:
            await self.settle(invoice.id, invoice.status)

    async def set_card(self, customer_id: str, declined: str | None) -> None:
        """From now on the customer's card is declined for this reason; None for one that pays."""
        await self.execute("UPDATE customers SET card = ? WHERE id = ?", (declined, customer_id))

    async def settle(self, invoice_id: str, status: str = "paid") -> None:
        """The customer pays by other means; or the invoice is void, or given up as uncollectible."""
        await self.execute(
            "INSERT INTO settlements VALUES (?, ?, ?) ON CONFLICT DO NOTHING",
            (invoice_id, status, self.clock().isoformat()),
        )

    async def paid_at(self, invoice_id: str) -> datetime | None:
        """When the invoice was paid."""
        rows = await self.execute(
            "SELECT at FROM charges WHERE invoice_id = :id AND declined IS NULL"
            " UNION ALL SELECT at FROM settlements WHERE invoice_id = :id AND status = 'paid' ORDER BY at",
            {"id": invoice_id},
        )
        return datetime.fromisoformat(rows[0]["at"]) if rows else None


_CUSTOMER = "INSERT INTO customers VALUES (:id, :name, :email, :card) ON CONFLICT DO NOTHING"
_SUBSCRIPTION = "INSERT INTO subscriptions VALUES (:subscription_id, 'active') ON CONFLICT DO NOTHING"
_INVOICE = (
    "INSERT INTO invoices VALUES (:id, :number, :customer_id, :subscription_id, :due, :currency, :attempts, :pay_url)"
    " ON CONFLICT DO NOTHING"
)


def _row(value: BaseModel) -> dict[str, Any]:
    """The fields by name, amounts as text: SQLite would keep a decimal as a float."""
    return value.model_dump(mode="json")


def _to_begin_with() -> Iterator[tuple[Customer, Invoice]]:
    for account in packaged_accounts():
        number = account.id.split("-")[1]
        yield (
            Customer(id=f"cus_{number}", name=account.name, email=account.email),
            Invoice(
                id=f"in_{number}",
                number=f"EW-{number:0>4}",
                status="open",
                customer_id=f"cus_{number}",
                subscription_id=f"sub_{number}",
                due=LARGE if number.endswith("0") else SMALL,
                currency="EUR",
                attempts=1,
            ),
        )
