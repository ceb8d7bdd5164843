"""An invoice beside what we know ourselves: the supplier's record and the purchase order."""

from __future__ import annotations

from collections.abc import Iterator
from decimal import Decimal

from eventwright.graphs.invoicing.findings import Finding, money, to_cents
from eventwright.tools.accounting_records import OrderLine, PurchaseOrder, Supplier, plain
from eventwright.tools.e_invoice_fields import EInvoice, Line


def compare(invoice: EInvoice, supplier: Supplier, order: PurchaseOrder | None) -> list[Finding]:
    """Everything in which they differ to our cost, or which says that this is not what it seems."""
    return [*_supplier(invoice, supplier), *_order(invoice, supplier, order)]


def _supplier(invoice: EInvoice, supplier: Supplier) -> Iterator[Finding]:
    seller = invoice.seller
    names = [name for name in (seller.name, seller.trading_name) if name] if seller else []
    if plain(supplier.name) not in map(plain, names):
        says = "the seller has the name that purchasing knows"
        yield Finding(rule="SUPPLIER-NAME", at="BT-27", stated=", ".join(names)[:80], expected=supplier.name, says=says)
    numbers = seller.vat_ids if seller else ()
    if supplier.vat_id and numbers and plain(supplier.vat_id) not in map(plain, numbers):
        says = "the seller has the VAT number that purchasing knows"
        stated = ", ".join(numbers)[:80]
        yield Finding(rule="SUPPLIER-VAT", at="BT-31", stated=stated, expected=supplier.vat_id, says=says)
    if invoice.is_credit and (invoice.owed or 0) > 0:
        says = "a credit note gives money back"
        yield Finding(rule="CREDIT-SIGN", at="BT-115", stated=money(invoice.owed), expected="<= 0.00", says=says)


def _order(invoice: EInvoice, supplier: Supplier, order: PurchaseOrder | None) -> Iterator[Finding]:
    if (invoice.owed or 0) <= 0 or invoice.is_credit:
        return  # nothing was bought
    if order is None:
        rule = "ORDER-UNKNOWN" if invoice.order else "ORDER-MISSING"
        yield Finding(rule=rule, at="BT-13", says="an invoice names the purchase order that it is for")
        return
    if order.supplier_id != supplier.id:
        says = "the order was given to this supplier"
        yield Finding(rule="ORDER-SUPPLIER", at="BT-13", stated=supplier.id, expected=order.supplier_id, says=says)
    if order.currency != invoice.currency:
        says = "the invoice is in the order's currency"
        yield Finding(rule="ORDER-CURRENCY", at="BT-5", stated=invoice.currency, expected=order.currency, says=says)
    net = invoice.totals.without_vat if invoice.totals else None
    if net is None or net > order.left:
        says = "no more is invoiced than was ordered and is left"
        stated, left = money(net), money(order.left)
        yield Finding(rule="ORDER-TOTAL", at="BT-109", stated=stated, expected=f"<= {left}", says=says)
    for place, line in enumerate(invoice.lines, 1):
        yield from _line(line, f"line {place}", order)


def _line(line: Line, at: str, order: PurchaseOrder) -> Iterator[Finding]:
    ordered = _ordered(line, order)
    if ordered is None:
        yield Finding(rule="ORDER-LINE", at=at, stated=money(line.amount), says="what is invoiced was ordered")
        return
    quantity = line.quantity if line.quantity is not None else ordered.quantity
    if quantity > ordered.quantity:
        says = "no more is invoiced than was ordered"
        expected = f"<= {ordered.quantity:f}"
        yield Finding(rule="ORDER-QUANTITY", at=f"{at}, BT-129", stated=f"{quantity:f}", expected=expected, says=says)
    # By what the line costs, not by the price that it states: so nothing hides between the two.
    most = to_cents(quantity * ordered.price)
    if line.amount is None or line.amount > max(most, Decimal(0)):
        says = "a line costs no more than its quantity at the price that was ordered"
        expected = f"<= {money(most)}"
        yield Finding(rule="ORDER-PRICE", at=f"{at}, BT-131", stated=money(line.amount), expected=expected, says=says)


def _ordered(line: Line, order: PurchaseOrder) -> OrderLine | None:
    """The line of the order: by the number that the invoice names, else by the item, else by its name."""
    for stated, known in (
        (line.order_line, [one.number for one in order.lines]),
        (line.seller_item, [one.item for one in order.lines]),
        (line.name, [one.name for one in order.lines]),
    ):
        fitting = [place for place, one in enumerate(known) if stated and one and plain(one) == plain(stated)]
        if len(fitting) == 1:
            return order.lines[fitting[0]]
    return None
