"""Accounting: suppliers, purchase orders, and the double-entry ledger. Embedded, in a SQLite file of its own.

An invoice is booked in one transaction: the invoice, an entry whose postings balance, and the payment that is
scheduled for it. The same key again is the same booking; the same invoice under another key, or another number, is
refused. Nothing is ever deleted: what was wrong is reversed.
"""

from __future__ import annotations

import asyncio
import sqlite3
from collections.abc import AsyncIterator, Iterable
from contextlib import asynccontextmanager
from datetime import UTC, date, datetime, timedelta
from decimal import Decimal
from typing import Annotated, Any

import aiosqlite
from pydantic import BaseModel, ConfigDict, Field

from eventwright.runs.event import new_id
from eventwright.tools.accounting_records import (
    Booking,
    Document,
    Entry,
    NewBooking,
    PurchaseOrder,
    Sums,
    Supplier,
    balanced,
    plain,
)
from eventwright.tools.contract import Call, Permanent, Role, Undo, tool
from eventwright.tools.sqlite_file import SqliteFile, fault

#: Two invoices with the same lines and sums are taken for one if their dates are at most so far apart. What comes every
#: month is another one.
NEAR = timedelta(days=14)
#: As many like it are told as one can look at.
MOST_TWINS = 5

_TABLES = """
CREATE TABLE suppliers (id TEXT PRIMARY KEY, name TEXT NOT NULL, name_key TEXT NOT NULL, vat_key TEXT,
    record TEXT NOT NULL);
CREATE INDEX suppliers_by_name ON suppliers (name_key);
CREATE UNIQUE INDEX suppliers_by_vat ON suppliers (vat_key);
CREATE TABLE orders (number TEXT PRIMARY KEY, supplier_id TEXT NOT NULL REFERENCES suppliers (id),
    record TEXT NOT NULL);
CREATE TABLE bookings (id TEXT PRIMARY KEY, idempotency_key TEXT NOT NULL UNIQUE, supplier_id TEXT NOT NULL,
    number_key TEXT NOT NULL, lines_key TEXT NOT NULL, owed TEXT NOT NULL, currency TEXT NOT NULL, net TEXT NOT NULL,
    issued TEXT NOT NULL, order_number TEXT, record TEXT NOT NULL, reversed_at TEXT);
CREATE INDEX bookings_by_supplier ON bookings (supplier_id, issued);
CREATE INDEX bookings_by_order ON bookings (order_number);
CREATE TABLE entries (id TEXT PRIMARY KEY, booking_id TEXT NOT NULL REFERENCES bookings (id),
    idempotency_key TEXT NOT NULL UNIQUE, created_at TEXT NOT NULL, record TEXT NOT NULL);
CREATE TABLE payments (id TEXT PRIMARY KEY, booking_id TEXT NOT NULL UNIQUE REFERENCES bookings (id),
    account TEXT NOT NULL, amount TEXT NOT NULL, currency TEXT NOT NULL, pay_on TEXT NOT NULL, cancelled_at TEXT);
"""


class BooksMoved(Permanent):
    """The books are not as they were when the invoice was compared with them: look at them again."""


class Twin(BooksMoved):
    """An invoice that is booked already, or one so like it that a person has to say whether it is another."""


class Payment(BaseModel):
    """Money that leaves on a day, unless it was cancelled before."""

    model_config = ConfigDict(frozen=True)

    id: str
    booking_id: str
    account: str
    amount: Decimal
    currency: str
    pay_on: date
    cancelled_at: datetime | None = None


class Books(SqliteFile):
    """The books. `async with Books.open(path) as books`."""

    def __init__(self, connection: aiosqlite.Connection) -> None:
        super().__init__(connection)
        self._writing = asyncio.Lock()

    async def prepare(self) -> None:
        if await super().execute("SELECT name FROM sqlite_master WHERE name = 'bookings'"):
            return
        for statement in _TABLES.split(";")[:-1]:
            await self._connection.execute(statement)

    async def execute(self, statement: str, parameters: Iterable[Any] = ()) -> list[sqlite3.Row]:
        """One statement by itself, never in the middle of a booking: they share the connection."""
        async with self._writing:
            return await super().execute(statement, parameters)

    @asynccontextmanager
    async def _transaction(self) -> AsyncIterator[None]:
        """All of it or nothing. Another process that writes to the file is waited for."""
        async with self._writing:
            try:
                await self._connection.execute("BEGIN IMMEDIATE")
                yield
                await self._connection.commit()
            except sqlite3.Error as error:
                raise fault(error, "a booking") from error
            finally:
                if self._connection.in_transaction:
                    await self._connection.rollback()

    # -- the records that others keep --------------------------------------------------------------------------------

    async def add_supplier(self, supplier: Supplier) -> None:
        """Keep a supplier, or what is known of them now."""
        await self.execute(
            "INSERT INTO suppliers VALUES (?, ?, ?, ?, ?) ON CONFLICT (id) DO UPDATE SET name = excluded.name,"
            " name_key = excluded.name_key, vat_key = excluded.vat_key, record = excluded.record",
            (
                supplier.id,
                supplier.name,
                plain(supplier.name),
                plain(supplier.vat_id or "") or None,
                supplier.model_dump_json(),
            ),
        )

    async def add_order(self, order: PurchaseOrder) -> None:
        """Keep a purchase order, or how it stands now."""
        await self.execute(
            "INSERT INTO orders VALUES (?, ?, ?) ON CONFLICT (number) DO UPDATE SET supplier_id = excluded.supplier_id,"
            " record = excluded.record",
            (order.number, order.supplier_id, order.model_dump_json()),
        )

    async def supplier(self, *written: str) -> Supplier | None:
        """The supplier with one of these ids, VAT numbers or names; the first that names exactly one counts."""
        for text in written:
            rows = await self.execute(
                "SELECT record FROM suppliers WHERE ? IN (vat_key, name_key) OR id = ?",
                (plain(text) or None, text.strip()),
            )
            if len(rows) == 1:
                return Supplier.model_validate_json(rows[0]["record"])
        return None

    async def order(self, number: str) -> PurchaseOrder | None:
        """The order with this number, and how much of it is not invoiced yet."""
        rows = await self.execute("SELECT record FROM orders WHERE number = ?", (number,))
        if not rows:
            return None
        order = PurchaseOrder.model_validate_json(rows[0]["record"])
        async with self._writing:
            return order.model_copy(update={"invoiced": await self._invoiced(order.number)})

    # -- bookings ----------------------------------------------------------------------------------------------------

    async def twins(self, new: NewBooking) -> list[Booking]:
        """What is booked already and may be this very invoice: the same number, or the same sums and lines within two
        weeks under another one."""
        async with self._writing:
            return await self._twins(new)

    async def book(self, new: NewBooking, *, account: str | None, known_twin: bool, idempotency_key: str) -> Booking:
        """Book an invoice once per key; with an account, schedule its payment.

        Args:
            new: what is booked.
            account: where the money goes; None for what is not paid: a credit note, an invoice without anything due.
            known_twin: whether a person said that it is another one than those like it.

        Raises:
            Twin: it is booked already, or may be.
            BooksMoved: more or less of its order is invoiced than it was compared with.
            Permanent: the key belongs to another booking, or money would go out for nothing.
            ToolError: the books cannot be written.
        """
        if account is not None and (new.is_credit or new.owed <= 0):
            raise Permanent(f"{new.number!r} asks for no money ({new.owed} {new.currency}); it is never paid out")
        async with self._transaction():
            rows = await super().execute("SELECT record FROM bookings WHERE idempotency_key = ?", (idempotency_key,))
            if rows:
                booking = Booking.model_validate_json(rows[0]["record"])
                if booking.model_dump(include=set(NewBooking.model_fields)) != new.model_dump():
                    raise Permanent(f"the idempotency key {idempotency_key!r} belongs to the booking {booking.id}")
                return booking
            for twin in await self._twins(new):
                same = twin.number_key == new.number_key
                if same or not known_twin:
                    raise Twin(f"{new.number!r} is booked already, as {twin.id} ({twin.number!r})")
            await self._check_order(new)
            return await self._write(new, account, idempotency_key)

    async def _check_order(self, new: NewBooking) -> None:
        if new.order_invoiced is None or new.order is None:
            return
        invoiced = await self._invoiced(new.order)
        if invoiced != new.order_invoiced:
            raise BooksMoved(f"{invoiced} of order {new.order!r} is invoiced by now, not {new.order_invoiced}")

    async def _invoiced(self, order: str) -> Decimal:
        rows = await super().execute(
            "SELECT net FROM bookings WHERE order_number = ? AND reversed_at IS NULL", (order,)
        )
        return sum((Decimal(row["net"]) for row in rows), Decimal(0))

    async def _twins(self, new: NewBooking) -> list[Booking]:
        rows = await super().execute(
            "SELECT record FROM bookings WHERE supplier_id = ? AND reversed_at IS NULL AND (number_key = ? OR"
            " (lines_key = ? AND owed = ? AND currency = ? AND issued BETWEEN ? AND ?)) ORDER BY issued LIMIT ?",
            (
                new.supplier_id,
                new.number_key,
                new.lines_key,
                str(new.owed.normalize()),
                new.currency,
                str(new.issued - NEAR),
                str(new.issued + NEAR),
                MOST_TWINS,
            ),
        )
        found = [Booking.model_validate_json(row["record"]) for row in rows]
        # What says for which time it is asks for that time alone.
        return [
            twin
            for twin in found
            if (twin.owed > 0) is (new.owed > 0)  # a credit may bear the number of its invoice
            and (twin.number_key == new.number_key or None in (twin.period, new.period) or twin.period == new.period)
        ]

    async def _write(self, new: NewBooking, account: str | None, key: str) -> Booking:
        now = datetime.now(UTC)
        number = new_id("book")
        pay_on = max(new.due, now.date()) if account is not None else None
        entry = Entry(
            id=new_id("entry"),
            booking_id=number,
            day=new.issued,
            text=f"{'credit' if new.is_credit else 'invoice'} {new.number} of {new.supplier_id}",
            currency=new.currency,
            postings=balanced(new.sums, new.owed),
        )
        booking = Booking(**dict(new), id=number, entry=entry, account=account, pay_on=pay_on, created_at=now)
        execute = self._connection.execute
        await execute(
            "INSERT INTO bookings VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, NULL)",
            (
                number,
                key,
                new.supplier_id,
                new.number_key,
                new.lines_key,
                str(new.owed.normalize()),
                new.currency,
                str(new.sums.net),
                str(new.issued),
                new.order,
                booking.model_dump_json(),
            ),
        )
        await execute(
            "INSERT INTO entries VALUES (?, ?, ?, ?, ?)", (entry.id, number, key, str(now), entry.model_dump_json())
        )
        if account is not None:
            await execute(
                "INSERT INTO payments VALUES (?, ?, ?, ?, ?, ?, NULL)",
                (new_id("pay"), number, account, str(new.owed), new.currency, str(pay_on)),
            )
        return booking

    async def reverse(self, booking_id: str, *, idempotency_key: str) -> Entry:
        """Take a booking back, once: an entry the other way round, and no payment any more.

        Raises:
            Permanent: there is no such booking.
            ToolError: the books cannot be written.
        """
        async with self._transaction():
            rows = await super().execute(
                "SELECT record FROM entries WHERE booking_id = ? ORDER BY rowid", (booking_id,)
            )
            if not rows:
                raise Permanent(f"there is no booking {booking_id!r} to take back")
            if len(rows) > 1:
                return Entry.model_validate_json(rows[1]["record"])
            first, now = Entry.model_validate_json(rows[0]["record"]), datetime.now(UTC)
            entry = first.reversed(new_id("entry"), now.date())
            execute = self._connection.execute
            await execute(
                "INSERT INTO entries VALUES (?, ?, ?, ?, ?)",
                (entry.id, booking_id, idempotency_key, str(now), entry.model_dump_json()),
            )
            await execute("UPDATE bookings SET reversed_at = ? WHERE id = ?", (str(now), booking_id))
            await execute("UPDATE payments SET cancelled_at = ? WHERE booking_id = ?", (now.isoformat(), booking_id))
            return entry

    async def entries(self) -> list[Entry]:
        """Every entry, oldest first."""
        rows = await self.execute("SELECT record FROM entries ORDER BY rowid")
        return [Entry.model_validate_json(row["record"]) for row in rows]

    async def entry(self, entry_id: str) -> Entry | None:
        """The entry with this id."""
        rows = await self.execute("SELECT record FROM entries WHERE id = ?", (entry_id,))
        return Entry.model_validate_json(rows[0]["record"]) if rows else None

    async def payments(self) -> list[Payment]:
        """Every payment that was scheduled, also those that were cancelled, oldest first."""
        rows = await self.execute("SELECT * FROM payments ORDER BY rowid")
        return [Payment.model_validate(dict(row)) for row in rows]


# -- the tools ---------------------------------------------------------------------------------------------------------

Text = Annotated[str, Field(max_length=200)]


@tool(trusted=True, sensitive=True)
async def find_supplier(vat_id: Text | None, name: Text | None, hint: Text | None, *, call: Call) -> Supplier | None:
    """Look up the supplier with this VAT number, else with this name, else as the hint calls them."""
    return await call.use(Books).supplier(*filter(None, (vat_id, name, hint)))


@tool(trusted=True)
async def find_order(number: Text, *, call: Call) -> PurchaseOrder | None:
    """Look up the purchase order with this number, and how much of it is invoiced."""
    return await call.use(Books).order(number)


@tool(trusted=True)
async def find_twins(booking: NewBooking, *, call: Call) -> list[Booking]:
    """List what is booked already and may be this very invoice."""
    return await call.use(Books).twins(booking)


@tool(writes="keyed", trusted=True)
async def reverse_booking(booking_id: Annotated[str, Role.DESTINATION], *, call: Call) -> Entry:
    """Take a booking back, and cancel its payment."""
    return await call.use(Books).reverse(booking_id, idempotency_key=call.idempotency_key)


_UNDO = Undo(reverse_booking, lambda _asked, booked: {"booking_id": booked.id})
Supplied = Annotated[str, Field(min_length=1, max_length=64), Role.DESTINATION]
Currency = Annotated[str, Field(pattern=r"^[A-Z]{3}$"), Role.AMOUNT]
Remarks = Annotated[list[Annotated[str, Field(max_length=300)]], Field(max_length=200), Role.CONTENT]


@tool(writes="keyed", trusted=True, sensitive=True, undo=_UNDO)
async def book_invoice(
    supplier_id: Supplied,
    account: Annotated[str, Field(min_length=4, max_length=64), Role.DESTINATION],
    amount: Annotated[Decimal, Field(gt=0, max_digits=14, decimal_places=2), Role.AMOUNT],
    currency: Currency,
    sums: Annotated[Sums, Role.AMOUNT],
    document: Annotated[Document, Role.CONTENT],
    remarks: Remarks,
    known_twin: bool,
    *,
    call: Call,
) -> Booking:
    """Book an invoice, and schedule its payment to this account."""
    new = _new(document, supplier_id=supplier_id, owed=amount, currency=currency, sums=sums, remarks=tuple(remarks))
    key = call.idempotency_key
    return await call.use(Books).book(new, account=account, known_twin=known_twin, idempotency_key=key)


@tool(writes="keyed", trusted=True, sensitive=True, undo=_UNDO)
async def book_without_payment(
    supplier_id: Supplied,
    amount: Annotated[Decimal, Field(max_digits=14, decimal_places=2), Role.AMOUNT],
    currency: Currency,
    sums: Annotated[Sums, Role.AMOUNT],
    document: Annotated[Document, Role.CONTENT],
    remarks: Remarks,
    known_twin: bool,
    *,
    call: Call,
) -> Booking:
    """Book a credit note, or an invoice with nothing due. No money leaves."""
    new = _new(document, supplier_id=supplier_id, owed=amount, currency=currency, sums=sums, remarks=tuple(remarks))
    key = call.idempotency_key
    return await call.use(Books).book(new, account=None, known_twin=known_twin, idempotency_key=key)


def _new(document: Document, **more: Any) -> NewBooking:
    return NewBooking(**document.model_dump(), **more)
