"""From an invoice to what the books take, and the forms of answers."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import timedelta
from decimal import Decimal
from typing import Any

from eventwright.graphs.invoicing.findings import Finding, to_cents
from eventwright.tools.accounting_records import Document, NewBooking, Sums, Supplier, lines_key
from eventwright.tools.e_invoice_fields import EInvoice

#: So many findings stand in the books, and so much of each.
MOST_REMARKS, LONGEST_REMARK = 200, 300
_NOTHING = Decimal(0)


def booking(state: Mapping[str, Any]) -> NewBooking:
    """The document of the workflow's state as the books take it.

    Raises:
        ValueError: see `booking_of`.
    """
    order = state.get("order")
    return booking_of(
        EInvoice.model_validate(state["invoice"]),
        Supplier.model_validate(state["supplier"]),
        sha256=state["sha256"],
        order_invoiced=Decimal(order["invoiced"]) if order else None,
        findings=[Finding.model_validate(one) for one in state.get("findings", ())],
    )


def booking_of(
    invoice: EInvoice,
    supplier: Supplier,
    *,
    sha256: str,
    order_invoiced: Decimal | None = None,
    findings: Sequence[Finding] = (),
) -> NewBooking:
    """The document as the books take it: what lessens our debt is below zero, whichever way the document writes it.

    Raises:
        ValueError: it does not say what is booked, or no books could hold it.
    """
    totals, sign = invoice.totals, -1 if invoice.is_credit else 1
    if totals is None or invoice.owed is None or invoice.issued is None:
        raise ValueError("no amount is due, or no day is stated")
    if invoice.owed != to_cents(invoice.owed):
        raise ValueError(f"{invoice.owed} is no amount in cents")
    vat = next((one.tax for one in invoice.taxes if one.currency == invoice.currency), None)
    period = next((f"{one.start}/{one.end}" for one in invoice.periods if one.start or one.end), None)
    return NewBooking(
        supplier_id=supplier.id,
        number=(invoice.number or "")[:200],
        is_credit=invoice.is_credit,
        issued=invoice.issued,
        due=invoice.due or invoice.issued + timedelta(days=supplier.terms_days),
        owed=to_cents(invoice.owed).quantize(Decimal("0.01")),
        currency=invoice.currency or "",
        sums=Sums(
            # Nothing has no sign.
            net=sign * totals.without_vat if totals.without_vat else _NOTHING,
            vat=sign * vat if vat else _NOTHING,
            prepaid=sign * totals.prepaid if totals.prepaid else _NOTHING,
            rounding=sign * totals.rounding if totals.rounding else _NOTHING,
        ),
        lines_key=lines_key((line.amount, line.quantity) for line in invoice.lines),
        period=period,
        order=short(invoice.order),
        order_invoiced=order_invoiced,
        sha256=sha256,
        remarks=tuple(finding.words[:LONGEST_REMARK] for finding in findings[:MOST_REMARKS]),
    )


def as_it_came(booked: Mapping[str, Any]) -> NewBooking:
    """What is booked, without what the books have added to it."""
    return NewBooking.model_validate({name: value for name, value in booked.items() if name in NewBooking.model_fields})


def bookable(invoice: EInvoice) -> bool:
    """Whether the document says all that the books need."""
    try:
        booking_of(invoice, Supplier(id="any", name="any"), sha256="")
    except (ValueError, ArithmeticError):
        return False
    return True


def arguments_of(new: NewBooking, *, known_twin: bool) -> dict[str, Any]:
    """The arguments of the tools that book."""
    return {
        "supplier_id": new.supplier_id,
        "amount": new.owed,
        "currency": new.currency,
        "sums": new.sums,
        "document": Document.model_validate({name: getattr(new, name) for name in Document.model_fields}),
        "remarks": list(new.remarks),
        "known_twin": known_twin,
    }


def short(text: str | None) -> str | None:
    """A text as the books look for it; None for none."""
    return text[:200] if text else None


def an_answer(name: str, longest: int, pattern: str = r"\S") -> dict[str, Any]:
    """The form of an answer that is one text."""
    text = {"type": "string", "minLength": 1, "maxLength": longest, "pattern": pattern}
    return {"type": "object", "properties": {name: text}, "required": [name], "additionalProperties": False}
