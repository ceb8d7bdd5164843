"""What the invoice workflow deals with outside, for its tests: real, embedded books on a file of their own."""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from decimal import Decimal
from pathlib import Path
from typing import Any

from eventwright.app.simulate import Simulation, simulator
from eventwright.graphs.invoices import invoices
from eventwright.runs.event import Event, new_id
from eventwright.tools.accounting import Books, Payment
from eventwright.tools.accounting_export import CsvExport
from eventwright.tools.accounting_records import OrderLine, PurchaseOrder, Supplier
from eventwright.tools.e_invoice_fields import EInvoice

OURS = "DE89370400440532013000"
MILL = Supplier(id="sup-1", name="Paper Mill Ltd", vat_id="DE123456789", accounts=(OURS,))


def order(number: str = "PO-7", *, boxes: str = "10", price: str = "10.00", **more: Any) -> PurchaseOrder:
    line = OrderLine(number="1", name="Paper A4", quantity=Decimal(boxes), price=Decimal(price))
    return PurchaseOrder(**{"number": number, "supplier_id": MILL.id, "currency": "EUR", "lines": (line,), **more})


@dataclass
class Office:
    """The accounting office of a test, on one of the two stores."""

    books: Books
    export: Any
    database_url: str

    @asynccontextmanager
    async def received(
        self, *extra: object, at: str | None = None, by: str | None = None, **data: Any
    ) -> AsyncIterator[Simulation]:
        """A run for this document, as far as it goes by itself; `by` whoever brought it in."""
        clients: Sequence[object] = [self.books, self.export, *extra]
        async with simulator(invoices, resources=clients, database_url=self.database_url) as (engine, clock):
            event = Event(
                id=at or new_id("mail"),
                source="/mail",
                type="invoice.received",
                principal=by,
                data={"sender": "a@mill.example"} | data,
            )
            receipt = await engine.receive(event)
            run = Simulation(engine, receipt.runs[0].id, clock)
            await run.go_on()
            yield run

    async def paid(self) -> list[tuple[str, str]]:
        """What is scheduled: account and amount."""
        payments: list[Payment] = await self.books.payments()
        return [(one.account, str(one.amount)) for one in payments if one.cancelled_at is None]

    async def knows(self, invoice: EInvoice) -> Supplier:
        """Purchasing knows the seller of this invoice, and has ordered what it asks for."""
        seller = invoice.seller
        assert seller is not None
        vat = next(iter(seller.vat_ids), None)
        supplier = Supplier(id=f"sup-{vat}", name=seller.name or "", vat_id=vat, accounts=tuple(invoice.accounts))
        supplier = supplier if supplier.accounts else supplier.model_copy(update={"accounts": (OURS,)})
        await self.books.add_supplier(supplier)
        if invoice.order:
            lines = tuple(
                OrderLine(
                    number=str(place),
                    name=line.name or "",
                    item=line.seller_item,
                    quantity=line.quantity or Decimal(1),
                    price=(line.amount or Decimal(0)) / (line.quantity or Decimal(1)),
                )
                for place, line in enumerate(invoice.lines, 1)
            )
            bought = PurchaseOrder(
                number=invoice.order, supplier_id=supplier.id, currency=invoice.currency or "", lines=lines
            )
            await self.books.add_order(bought)
        return supplier


@asynccontextmanager
async def open_office(folder: Path, database_url: str) -> AsyncIterator[Office]:
    async with Books.open(folder / "accounting.db") as books:
        await books.add_supplier(MILL)
        await books.add_order(order())
        yield Office(books, CsvExport(folder / "entries.csv"), database_url)
