"""EN 16931: the VAT categories. Ten rules of one form for each of them, and what some of them have of their own."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from decimal import Decimal

from eventwright.graphs.invoicing.findings import Finding, money, to_cents
from eventwright.graphs.invoicing.rules_sums import differ, is_near, total_of
from eventwright.tools.e_invoice_fields import AllowanceCharge, Breakdown, Category, EInvoice, Party


@dataclass(frozen=True)
class Kind:
    """What the standard wants of one VAT category.

    Attributes:
        family: how its rules begin.
        taxed: whether there is tax, at one or more rates; the others have a rate of zero.
        above_zero: whether that rate is never zero.
        exempt: whether the breakdown says why there is no tax; the others may not say so.
        seller: who must be known to the tax on the seller's side: `any` registration, a `vat` number, or `none`.
        buyer: the same of the buyer; `legal` where a registration of the company is enough.
    """

    family: str
    taxed: bool = False
    above_zero: bool = False
    exempt: bool = False
    seller: str = "any"
    buyer: str = ""


KINDS = {
    "S": Kind("BR-S", taxed=True, above_zero=True),
    "Z": Kind("BR-Z"),
    "E": Kind("BR-E", exempt=True),
    "AE": Kind("BR-AE", exempt=True, buyer="legal"),
    "K": Kind("BR-IC", exempt=True, seller="vat", buyer="vat"),
    "G": Kind("BR-G", exempt=True, seller="vat"),
    "O": Kind("BR-O", exempt=True, seller="none"),
    "L": Kind("BR-AF", taxed=True),
    "M": Kind("BR-AG", taxed=True),
}


def categories(invoice: EInvoice) -> Iterator[Finding]:
    """The rules of every category, and those of the split payment in Italy."""
    for code, kind in KINDS.items():
        yield from _listed(invoice, code, kind)
        yield from _known(invoice, code, kind)
        yield from _rates(invoice, code, kind)
        for part in invoice.breakdown:
            for category in part.categories:
                if category.key == code:
                    yield from _part(invoice, part, category, kind)
    yield from _within_the_union(invoice)
    yield from _not_subject(invoice)
    yield from _split_payment(invoice)


def _listed(invoice: EInvoice, code: str, kind: Kind) -> Iterator[Finding]:
    """-01: what stands in a line stands in the breakdown, and the other way round; without tax exactly once."""
    used = any(category.code == code if code == "S" else category.key == code for category in invoice.categories)
    inside = [category for part in invoice.breakdown for category in part.categories]
    found = sum(category.code == code if kind.taxed else category.key == code for category in inside)
    if invoice.syntax == "cii":
        wrong = used and not found if kind.taxed else (used or found > 0) and not (used and found == 1)
    elif kind.taxed:
        wrong = not found if used else any(one.code == code and (one.vat or code == "S") for one in inside)
    else:
        wrong = (used or found > 0) and found != 1
    if wrong:
        says = f"category {code} stands in the breakdown if it stands in a line, an allowance or a charge"
        yield Finding(
            rule=f"{kind.family}-01", at="BG-23", stated=f"{found} times", expected=_times(used, kind), says=says
        )


def _times(used: bool, kind: Kind) -> str:
    return "once" if not kind.taxed else "once or more" if used else "never"


def _known(invoice: EInvoice, code: str, kind: Kind) -> Iterator[Finding]:
    """-02 to -04: who must be known to the tax, for lines, allowances and charges."""
    seller, buyer = invoice.seller or Party(), invoice.buyer or Party()
    representative = invoice.representative or Party()
    vat = bool(seller.vat_ids or representative.vat_ids)
    if kind.seller == "none":
        right = not vat and not buyer.vat_ids
        says = f"with category {code} nobody has a VAT number"
    else:
        right = vat or (kind.seller == "any" and bool(seller.tax_ids))
        right &= kind.buyer == "" or bool(buyer.vat_ids) or (kind.buyer == "legal" and bool(buyer.legal_id))
        says = f"with category {code} those who owe the tax have a number for it"
    places = (
        ("02", "lines", [line.categories for line in invoice.lines]),
        ("03", "allowances", [extra.categories for extra in invoice.extras if extra.is_charge is False]),
        ("04", "charges", [extra.categories for extra in invoice.extras if extra.is_charge is True]),
    )
    for number, at, found in places:
        known = [category for one in found for category in one if category.code == code]
        # A line of the standard rate whose tax is no VAT has nobody who could be known.
        stray = code == "S" and number == "02" and invoice.syntax == "ubl" and not any(one.vat for one in known)
        if any(one.vat or stray for one in known) and (stray or not right):
            yield Finding(rule=f"{kind.family}-{number}", at=at, says=says)


def _rates(invoice: EInvoice, code: str, kind: Kind) -> Iterator[Finding]:
    """-05 to -07: which rates lines, allowances and charges may have."""
    for place, line in enumerate(invoice.lines, 1):
        for category in line.categories:
            if category.key == code:
                yield from _rate(category, kind, "05", f"line {place}, BT-152")
    for extra in invoice.extras:
        for category in extra.categories:
            if category.key == code and extra.is_charge is not None:
                yield from _rate(category, kind, "07" if extra.is_charge else "06", _term(extra))


def _term(extra: AllowanceCharge) -> str:
    return "BT-103" if extra.is_charge else "BT-96"


def _rate(category: Category, kind: Kind, number: str, at: str) -> Iterator[Finding]:
    rate = category.rate
    if kind.seller == "none":
        right, expected = rate is None, "no rate"
    elif not kind.taxed:
        right, expected = rate == 0, "0"
    elif kind.above_zero:
        right, expected = rate is not None and rate > 0, "> 0"
    else:
        right, expected = rate is not None and rate >= 0, ">= 0"
    if not right:
        says = f"category {category.code} has a rate that fits it"
        yield Finding(rule=f"{kind.family}-{number}", at=at, stated=money(rate), expected=expected, says=says)


def _part(invoice: EInvoice, part: Breakdown, category: Category, kind: Kind) -> Iterator[Finding]:
    """-08 to -10: the taxable amount, the tax, and the reason why there is none."""
    rates = {category.rate} if kind.taxed else None
    if not kind.taxed or category.rate is not None:
        yield from _taxable(invoice, part, category, kind, rates)
    if kind.taxed:
        expected = None
        if part.taxable is not None and category.rate is not None:
            expected = to_cents(abs(part.taxable) * category.rate / 100)
        if part.tax is None or expected is None or not is_near(abs(part.tax), expected):
            says = "the tax is the rate of the taxable amount"
            found = money(part.tax), money(expected)
            yield Finding(rule=f"{kind.family}-09", at="BT-117", stated=found[0], expected=found[1], says=says)
    else:
        zero = Decimal(0)
        yield from differ(f"{kind.family}-09", "BT-117", part.tax, zero, f"category {category.code} bears no tax")
    told = bool(category.reason or category.reason_code)
    if told != kind.exempt:
        says = "it says why there is no tax" if kind.exempt else "it says nothing about an exemption"
        yield Finding(rule=f"{kind.family}-10", at="BT-120, BT-121", says=says)


def _taxable(
    invoice: EInvoice, part: Breakdown, category: Category, kind: Kind, rates: set[Decimal | None] | None
) -> Iterator[Finding]:
    def counts(ones: tuple[Category, ...]) -> bool:
        return any(one.code == category.code for one in ones) and (
            rates is None or any(one.rate in rates for one in ones)
        )

    lines = [line.amount for line in invoice.lines if counts(line.categories)]
    extras = [extra for extra in invoice.extras if counts(extra.categories)]
    charges = total_of(extra.amount for extra in extras if extra.is_charge is True)
    allowances = total_of(extra.amount for extra in extras if extra.is_charge is False)
    expected = to_cents(total_of(lines)) + to_cents(charges) - to_cents(allowances)
    if invoice.syntax != "cii":
        expected = total_of(lines) + charges - allowances
    says = f"the taxable amount is that of the lines, charges and allowances of category {category.code}"
    if not kind.taxed:
        # In CII the standard leaves room for those who round on each line; in UBL it does not.
        near = invoice.syntax == "cii" and part.taxable is not None and is_near(part.taxable, expected)
        wrong = not invoice.lines or not (near or part.taxable == expected)
    else:
        nothing = not lines and not extras if kind.above_zero else not invoice.lines
        nothing &= invoice.syntax != "cii"
        exact = invoice.syntax == "cii" and kind.above_zero
        near = part.taxable is not None and (part.taxable == expected if exact else is_near(part.taxable, expected))
        wrong = nothing or not near
    if wrong:
        yield Finding(
            rule=f"{kind.family}-08", at="BT-116", stated=money(part.taxable), expected=money(expected), says=says
        )


def _in_breakdown(invoice: EInvoice) -> set[str]:
    return {category.key for part in invoice.breakdown for category in part.categories if category.key}


def _within_the_union(invoice: EInvoice) -> Iterator[Finding]:
    if "K" not in _in_breakdown(invoice):
        return
    if not invoice.delivered and not any(period != type(period)() for period in invoice.periods):
        says = "a delivery within the Union has a date or a period"
        yield Finding(rule="BR-IC-11", at="BT-72, BG-14", says=says)
    if not invoice.delivery_country:
        yield Finding(rule="BR-IC-12", at="BT-80", says="a delivery within the Union has a country")


def _not_subject(invoice: EInvoice) -> Iterator[Finding]:
    inside = _in_breakdown(invoice)
    if "O" not in inside:
        return

    def of_extras(is_charge: bool) -> set[str | None]:
        extras = (extra for extra in invoice.extras if extra.is_charge is is_charge)
        return {one.key for extra in extras for one in extra.categories}

    places: tuple[tuple[str, str, set[str | None]], ...] = (
        ("BR-O-11", "BG-23", {*inside}),
        ("BR-O-12", "lines", {one.key for line in invoice.lines for one in line.categories}),
        ("BR-O-13", "allowances", of_extras(False)),
        ("BR-O-14", "charges", of_extras(True)),
    )
    for rule, at, codes in places:
        if codes - {"O", None}:
            yield Finding(rule=rule, at=at, says="what is not subject to VAT stands beside nothing that is")


def _split_payment(invoice: EInvoice) -> Iterator[Finding]:
    used = {category.code for category in invoice.categories} | {
        category.code for part in invoice.breakdown for category in part.categories
    }
    if "B" not in used:
        return
    countries = {party.country for party in (invoice.seller, invoice.buyer, invoice.representative) if party}
    if (countries | {invoice.delivery_country}) - {"IT", None}:
        yield Finding(rule="BR-B-01", at="BG-23", says="split payment is for invoices within Italy")
    if "S" in used:
        yield Finding(rule="BR-B-02", at="BG-23", says="split payment stands beside no standard rate")
