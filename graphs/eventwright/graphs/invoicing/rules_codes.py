"""EN 16931: the code lists. BR-CL-01 to BR-CL-26; a code that is missing is the business of other rules."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from eventwright.graphs.invoicing import codes
from eventwright.graphs.invoicing.codes_references import REFERENCES, SUBJECTS
from eventwright.graphs.invoicing.codes_units import UNITS
from eventwright.graphs.invoicing.findings import Finding
from eventwright.tools.e_invoice_fields import CREDIT_NOTE_TYPES, AllowanceCharge, EInvoice, Line, Party


def _listed(rule: str, at: str, found: Iterable[str | None], known: frozenset[str]) -> Iterator[Finding]:
    for code in dict.fromkeys(found):
        if code is not None and code not in known:
            yield Finding(rule=rule, at=at, stated=code[:20], says="the code is in its list")


def code_lists(invoice: EInvoice) -> Iterator[Finding]:
    """Codes that are in nobody's list."""
    yield from _listed("BR-CL-01", "BT-3", [invoice.type], _types(invoice))
    yield from _listed("BR-CL-03", "amounts", invoice.amount_currencies, codes.CURRENCIES)
    yield from _listed("BR-CL-04", "BT-5", [invoice.currency], codes.CURRENCIES)
    yield from _listed("BR-CL-05", "BT-6", [invoice.tax_currency], codes.CURRENCIES)
    points = codes.TAX_POINTS.get(invoice.syntax, frozenset())
    yield from _listed("BR-CL-06", "BT-8", [period.code for period in invoice.periods], points)
    yield from _listed("BR-CL-07", "BT-18, BT-128", invoice.references, REFERENCES)
    yield from _listed("BR-CL-08", "BT-21", invoice.subjects, SUBJECTS)
    for party in (invoice.seller, invoice.buyer, invoice.payee, invoice.representative):
        yield from _party(party or Party())
    yield from _listed("BR-CL-14", "BT-80", [invoice.delivery_country], codes.COUNTRIES)
    yield from _listed("BR-CL-16", "BT-81", [means.code for means in invoice.payment], codes.PAYMENT_MEANS)
    parts = [category for part in invoice.breakdown for category in part.categories]
    yield from _listed("BR-CL-22", "BT-121", [_upper(part.reason_code) for part in parts], codes.EXEMPTIONS)
    extras = [category for extra in invoice.extras for category in extra.categories]
    of_lines = [category for line in invoice.lines for extra in line.extras for category in extra.categories]
    taxed = [one.code for one in (*extras, *of_lines)]
    # The breakdown is told by the same element as a line's category in CII, as an allowance's in UBL.
    whole = "BR-CL-18" if invoice.syntax == "cii" else "BR-CL-17"
    yield from _listed(whole, "BT-118", [one.code for one in parts], codes.VAT_CATEGORIES)
    yield from _listed("BR-CL-17", "BT-95, BT-102", taxed, codes.VAT_CATEGORIES)
    yield from _listed("BR-CL-24", "BT-125", invoice.attachments, codes.ATTACHMENTS)
    yield from _listed("BR-CL-26", "BT-71", [invoice.delivery_scheme], codes.ID_SCHEMES)
    for extra in invoice.extras:
        yield from _reason(extra, "BT-98, BT-105")
    for place, line in enumerate(invoice.lines, 1):
        yield from _line(line, f"line {place}")


def _upper(code: str | None) -> str | None:
    """Codes of exemptions may be written in small letters."""
    return None if code is None else code.upper()


def _types(invoice: EInvoice) -> frozenset[str]:
    """UBL has a list for each of its two documents, CII has one document for both."""
    if invoice.syntax == "ubl":
        return CREDIT_NOTE_TYPES if invoice.root == "credit_note" else codes.INVOICE_TYPES
    return codes.INVOICE_TYPES | CREDIT_NOTE_TYPES


def _party(party: Party) -> Iterator[Finding]:
    yield from _listed("BR-CL-10", "BT-29, BT-46, BT-60", party.id_schemes, codes.ID_SCHEMES | {"SEPA"})
    yield from _listed("BR-CL-11", "BT-30, BT-47, BT-61", [party.legal_scheme], codes.ID_SCHEMES)
    yield from _listed("BR-CL-14", "BT-40, BT-55, BT-69", [party.country], codes.COUNTRIES)
    yield from _listed("BR-CL-25", "BT-34, BT-49", [party.endpoint_scheme], codes.ENDPOINT_SCHEMES)


def _reason(extra: AllowanceCharge, at: str) -> Iterator[Finding]:
    if extra.is_charge is not None:
        rule, known = ("BR-CL-20", codes.CHARGE_REASONS) if extra.is_charge else ("BR-CL-19", codes.ALLOWANCE_REASONS)
        yield from _listed(rule, at, [extra.reason_code], known)


def _line(line: Line, at: str) -> Iterator[Finding]:
    yield from _listed("BR-CL-13", f"{at}, BT-158", line.classification_schemes, codes.ITEM_CLASSES)
    yield from _listed("BR-CL-15", f"{at}, BT-159", [line.origin], codes.COUNTRIES)
    yield from _listed("BR-CL-18", f"{at}, BT-151", [one.code for one in line.categories], codes.VAT_CATEGORIES)
    yield from _listed("BR-CL-21", f"{at}, BT-157", line.standard_schemes, codes.ID_SCHEMES)
    yield from _listed("BR-CL-23", f"{at}, BT-130", [line.unit, *line.price_units], UNITS)
    for extra in line.extras:
        yield from _reason(extra, f"{at}, BT-140, BT-145")
