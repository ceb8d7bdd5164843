"""EN 16931: the sums. BR-12 to BR-15, BR-45 to BR-48, BR-CO-10 to BR-CO-18. Decimals, never floats."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from decimal import Decimal

from eventwright.graphs.invoicing.findings import Finding, money, to_cents, to_whole
from eventwright.graphs.invoicing.rules_fields import missing
from eventwright.tools.e_invoice_fields import Breakdown, Category, EInvoice, Totals

_NOTHING = Decimal(0)


def total_of(amounts: Iterable[Decimal | None]) -> Decimal:
    """The sum of those that are there."""
    return sum((amount for amount in amounts if amount is not None), _NOTHING)


def differ(rule: str, at: str, stated: Decimal | None, expected: Decimal | None, says: str) -> Iterator[Finding]:
    """A finding if the two are not one amount; an amount that is missing equals nothing."""
    if stated is None or expected is None or stated != expected:
        yield Finding(rule=rule, at=at, stated=money(stated), expected=money(expected), says=says)


def sums(invoice: EInvoice) -> Iterator[Finding]:
    """Every sum of the document, as far as it has such sums at all."""
    if invoice.totals is not None:
        yield from _totals(invoice, invoice.totals)
    in_cii = invoice.syntax == "cii"
    if invoice.lines or not in_cii:
        yield from missing("BR-CO-18", "BG-23", bool(invoice.breakdown), "the VAT is broken down")
    for total in invoice.taxes:
        # CII may leave a VAT of nothing away; then there is no sum of the parts, and BR-CO-15 looks at the totals.
        if total.tax is not None and total.currency == invoice.currency if in_cii else total.breakdown:
            parts = to_cents(total_of(part.tax for part in total.breakdown))
            yield from differ("BR-CO-14", "BT-110", total.tax, parts, "the VAT is the sum of its parts")
        for part in total.breakdown:
            yield from _part(part, in_cii)
    yield from _with_vat(invoice)


def _totals(invoice: EInvoice, totals: Totals) -> Iterator[Finding]:
    yield from missing("BR-12", "BT-106", totals.lines, "it has the sum of its lines")
    yield from missing("BR-13", "BT-109", totals.without_vat, "it has a total without VAT")
    yield from missing("BR-14", "BT-112", totals.with_vat, "it has a total with VAT")
    yield from missing("BR-15", "BT-115", totals.payable, "it has an amount due")
    lines = to_cents(total_of(line.amount for line in invoice.lines))
    yield from differ("BR-CO-10", "BT-106", totals.lines, lines, "the sum of the lines is that of their net amounts")
    for rule, at, stated, is_charge in (
        ("BR-CO-11", "BT-107", totals.allowances, False),
        ("BR-CO-12", "BT-108", totals.charges, True),
    ):
        parts = [extra.amount for extra in invoice.extras if extra.is_charge is is_charge]
        if stated is not None or parts:
            says = f"the sum of the {'charges' if is_charge else 'allowances'} is that of their amounts"
            yield from differ(rule, at, stated, to_cents(total_of(parts)), says)
    net = None
    if totals.lines is not None:
        net = totals.lines + (totals.charges or 0) - (totals.allowances or 0)
        net = net if totals.charges is None and totals.allowances is None else to_cents(net)
    says = "the total without VAT is the lines, less allowances, and charges"
    yield from differ("BR-CO-13", "BT-109", totals.without_vat, net, says)
    yield from _due(totals)


def _due(totals: Totals) -> Iterator[Finding]:
    due = totals.payable
    if due is not None and totals.rounding is not None:
        due = to_cents(due - totals.rounding)
    expected = totals.with_vat
    if expected is not None and totals.prepaid is not None:
        expected = to_cents(expected - totals.prepaid)
    if due is None or expected is None or due != expected:
        shown = None if expected is None else expected + (totals.rounding or 0)
        says = "what is due is the total with VAT, less what is paid, and the rounding"
        yield Finding(rule="BR-CO-16", at="BT-115", stated=money(totals.payable), expected=money(shown), says=says)


def _with_vat(invoice: EInvoice) -> Iterator[Finding]:
    if invoice.currency is None:
        return
    says = "the total with VAT is the one without, and the VAT in the invoice's currency, which is told once"
    totals = invoice.totals or Totals()
    taxes = [total.tax for total in invoice.taxes if total.currency == invoice.currency and total.tax is not None]
    if invoice.syntax == "cii" and not any(total.tax is not None for total in invoice.taxes):
        taxes = [_NOTHING]
    if len(taxes) != 1 or totals.without_vat is None:
        yield Finding(rule="BR-CO-15", at="BT-112", stated=money(totals.with_vat), says=says)
    else:
        yield from differ("BR-CO-15", "BT-112", totals.with_vat, to_cents(totals.without_vat + taxes[0]), says)


def _part(part: Breakdown, in_cii: bool) -> Iterator[Finding]:
    categories = [category for category in part.categories if category.vat]
    first = categories[0] if categories else Category()
    yield from missing("BR-45", "BT-116", part.taxable, "a part of the VAT has a taxable amount")
    yield from missing("BR-46", "BT-117", part.tax, "a part of the VAT has an amount of tax")
    yield from missing("BR-47", "BT-118", first.code, "a part of the VAT has a category")
    if first.code != "O":
        yield from missing("BR-48", "BT-119", first.rate, "a part of the VAT has a rate")
    yield from _tax_of(part, first.rate, in_cii)


def _tax_of(part: Breakdown, rate: Decimal | None, in_cii: bool) -> Iterator[Finding]:
    """A finding if the tax is not the rate of the taxable amount. In CII it may also be just one off."""
    rule = "BR-CO-17"
    says = "the tax is the rate of the taxable amount"
    if rate is None or to_whole(rate) == 0:
        if part.tax is None or to_whole(part.tax) != 0:
            yield Finding(rule=rule, at="BT-117", stated=money(part.tax), expected="0.00", says=says)
        return
    expected = None if part.taxable is None else to_cents(abs(part.taxable) * rate / 100)
    near = part.tax is not None and expected is not None and is_near(abs(part.tax), expected, 1 if in_cii else None)
    if not near:
        shown = None if expected is None or part.taxable is None else money(expected.copy_sign(part.taxable))
        yield Finding(rule=rule, at="BT-117", stated=money(part.tax), expected=shown, says=says)


def is_near(amount: Decimal, expected: Decimal, also: int | None = None) -> bool:
    """Whether two amounts are less than one apart, or `also` so much: what the standard leaves to those who round on
    each line."""
    return abs(amount - expected) < 1 or abs(amount - expected) == also
