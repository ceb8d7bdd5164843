"""EN 16931: what an invoice must say. BR-01 to BR-67, the rules of conditions among BR-CO, decimals."""

from __future__ import annotations

from collections.abc import Iterator
from decimal import Decimal

from eventwright.graphs.invoicing import codes
from eventwright.graphs.invoicing.findings import Finding, money
from eventwright.tools.e_invoice_fields import AllowanceCharge, EInvoice, Line, Party, PaymentMeans, Period

#: Means of payment that are credit transfers, for which the account must be known.
TRANSFERS = ("30", "58")


def missing(rule: str, at: str, thing: object, says: str) -> Iterator[Finding]:
    """A finding if there is nothing."""
    if thing is None or thing is False or thing == "":
        yield Finding(rule=rule, at=at, says=says)


def document(invoice: EInvoice) -> Iterator[Finding]:
    """What the document as a whole must say."""
    buyer, seller = invoice.buyer or Party(), invoice.seller or Party()
    yield from missing("BR-01", "BT-24", invoice.specification, "it names the specification that it follows")
    yield from missing("BR-02", "BT-1", invoice.number, "it has a number")
    yield from missing("BR-03", "BT-2", invoice.issued, "it has a date of issue")
    yield from missing("BR-04", "BT-3", invoice.type, "it has a type")
    yield from missing("BR-05", "BT-5", invoice.currency, "it has a currency")
    yield from missing("BR-06", "BT-27", seller.name, "it names the seller")
    yield from missing("BR-07", "BT-44", buyer.name, "it names the buyer")
    yield from missing("BR-08", "BG-5", seller.has_address, "it has the seller's address")
    yield from missing("BR-10", "BG-8", buyer.has_address, "it has the buyer's address")
    # In CII a country is missing also where the whole address is.
    in_cii = invoice.syntax == "cii"
    if seller.has_address or in_cii:
        yield from missing("BR-09", "BT-40", seller.country, "the seller's address has a country")
    if buyer.has_address or in_cii:
        yield from missing("BR-11", "BT-55", buyer.country, "the buyer's address has a country")
    yield from missing("BR-16", "BG-25", bool(invoice.lines), "it has a line")
    twice = invoice.syntax == "cii" and invoice.tax_currency == invoice.currency
    if invoice.tax_currency and (twice or all(total.currency != invoice.tax_currency for total in invoice.taxes)):
        yield Finding(rule="BR-53", at="BT-111", says="the VAT is also told in the currency of the tax")
    if invoice.tax_point and any(period.code for period in invoice.periods):
        yield Finding(rule="BR-CO-03", at="BT-7, BT-8", says="the tax point is a date or a code, not both")
    for number in invoice.preceding:
        yield from missing("BR-55", "BT-25", number, "an earlier invoice is referred to by its number")
    for number in invoice.documents:
        yield from missing("BR-52", "BT-122", number, "a document is referred to by its number")
    for period in invoice.periods:
        yield from _period(period, "BR-29", "BR-CO-19", "BG-14")
    for currency in invoice.sum_currencies:
        if currency and invoice.currency and currency != invoice.currency:
            says = "all amounts but those of the VAT are in the invoice's own currency"
            yield Finding(rule="CURRENCY", at="amounts", stated=currency[:20], expected=invoice.currency, says=says)
    yield from _unreadable(invoice)


def _unreadable(invoice: EInvoice) -> Iterator[Finding]:
    for one in invoice.unreadable:
        yield Finding(rule="FORM", at=one.at, stated=one.text, says="it can be read as what it should be")
    for each in invoice.misplaced:
        yield Finding(rule=each.rule, at=each.at, says="it stands where, and as often as, the syntax says")


def _period(period: Period, order: str, filled: str, at: str) -> Iterator[Finding]:
    if period.start and period.end and period.end < period.start:
        yield Finding(
            rule=order,
            at=at,
            stated=str(period.end),
            expected=f">= {period.start}",
            says="a period ends after it began",
        )
    if not (period.start or period.end or (period.code and filled == "BR-CO-19")):
        yield Finding(rule=filled, at=at, says="a period has a beginning or an end")


def parties(invoice: EInvoice) -> Iterator[Finding]:
    """What is said about the seller, the buyer and others."""
    seller, buyer = invoice.seller, invoice.buyer
    if seller is not None:
        if not (seller.vat_ids or seller.ids or seller.legal_id):
            says = "the seller has an identifier, a registration or a VAT number"
            yield Finding(rule="BR-CO-26", at="BT-29, BT-30, BT-31", says=says)
        if seller.endpoint:
            yield from missing("BR-62", "BT-34", seller.endpoint_scheme, "the seller's electronic address has a scheme")
    if buyer is not None and buyer.endpoint:
        yield from missing("BR-63", "BT-49", buyer.endpoint_scheme, "the buyer's electronic address has a scheme")
    if invoice.payee is not None:
        own = seller or Party()
        same = invoice.payee.trading_name == own.trading_name or set(invoice.payee.ids) & set(own.ids)
        if not invoice.payee.trading_name or same:
            yield Finding(rule="BR-17", at="BT-59", says="a payee is named, and is another than the seller")
    if invoice.representative is not None:
        yield from _representative(invoice.representative)
    for party in (seller, buyer, invoice.payee, invoice.representative):
        for number in party.vat_ids if party else ():
            if number[:2] not in codes.VAT_PREFIXES:
                says = "a VAT number begins with the code of a country"
                yield Finding(rule="BR-CO-09", at="BT-31, BT-48, BT-63", stated=number[:2], says=says)


def _representative(party: Party) -> Iterator[Finding]:
    yield from missing("BR-18", "BT-62", party.trading_name, "the seller's tax representative is named")
    yield from missing("BR-19", "BG-12", party.has_address, "the tax representative has an address")
    if party.has_address:
        yield from missing("BR-20", "BT-69", party.country, "the tax representative's address has a country")
    yield from missing("BR-56", "BT-63", bool(party.vat_ids), "the tax representative has a VAT number")


def payment(invoice: EInvoice) -> Iterator[Finding]:
    """How it is to be paid, and where it was delivered."""
    for means in invoice.payment:
        yield from _means(means)
    if sum(means.card is not None for means in invoice.payment) > 1:
        yield Finding(rule="BR-66", at="BG-18", says="one card at most is named")
    if sum(means.has_mandate for means in invoice.payment) > 1:
        yield Finding(rule="BR-67", at="BG-19", says="one mandate at most is named")
    if invoice.has_delivery_address:
        # An empty one is there in UBL; that it is no code, another rule says.
        country = invoice.delivery_country if invoice.syntax == "cii" else invoice.delivery_country is not None
        yield from missing("BR-57", "BT-80", country, "the address of delivery has a country")


def _means(means: PaymentMeans) -> Iterator[Finding]:
    yield from missing("BR-49", "BT-81", means.code, "a way to pay has a code")
    if means.code in TRANSFERS:
        if any(not account.id for account in means.accounts):
            yield Finding(rule="BR-50", at="BT-84", says="an account that is named has a number")
        if not any(account.id for account in means.accounts):
            yield Finding(rule="BR-61", at="BT-84", says="for a transfer the account is named")
    if means.card and len(means.card) > 10:
        yield Finding(rule="BR-51", at="BT-87", says="of a card no more than the ends of its number are told")


def lines(invoice: EInvoice) -> Iterator[Finding]:
    """What each line must say, and each allowance and charge."""
    for place, line in enumerate(invoice.lines, 1):
        yield from _line(line, f"line {place}")
    for extra in invoice.extras:
        rules = ("BR-36", "BR-37", "BR-38", "BR-CO-22") if extra.is_charge else ("BR-31", "BR-32", "BR-33", "BR-CO-21")
        if extra.is_charge is not None:
            yield from _extra(extra, "BG-21" if extra.is_charge else "BG-20", rules)


def _line(line: Line, at: str) -> Iterator[Finding]:
    yield from missing("BR-21", f"{at}, BT-126", line.id, "a line has an identifier")
    yield from missing("BR-22", f"{at}, BT-129", line.quantity, "a line has a quantity")
    yield from missing("BR-23", f"{at}, BT-130", line.unit, "a quantity has a unit")
    yield from missing("BR-24", f"{at}, BT-131", line.amount, "a line has a net amount")
    yield from missing("BR-25", f"{at}, BT-153", line.name, "a line names its item")
    yield from missing("BR-26", f"{at}, BT-146", line.price, "a line has a net price")
    for rule, term, price in (("BR-27", "BT-146", line.price), ("BR-28", "BT-148", line.gross_price)):
        if price is None and rule == "BR-27":
            yield Finding(rule=rule, at=f"{at}, {term}", says="a price is not below zero")
        if price is not None and price < 0:
            says = "a price is not below zero"
            yield Finding(rule=rule, at=f"{at}, {term}", stated=money(price), expected=">= 0.00", says=says)
    if not any(category.key for category in line.categories):
        yield Finding(rule="BR-CO-04", at=f"{at}, BT-151", says="a line has a VAT category")
    for period in line.periods:
        yield from _period(period, "BR-30", "BR-CO-20", f"{at}, BG-26")
    for extra in line.extras:
        rules = ("BR-43", "", "BR-44", "BR-CO-24") if extra.is_charge else ("BR-41", "", "BR-42", "BR-CO-23")
        if extra.is_charge is not None:
            yield from _extra(extra, f"{at}, {'BG-28' if extra.is_charge else 'BG-27'}", rules)
    for attribute in line.attributes:
        if not (attribute.name and attribute.value):
            yield Finding(rule="BR-54", at=f"{at}, BG-32", says="an attribute has a name and a value")
    for rule, schemes in (("BR-64", line.standard_schemes), ("BR-65", line.classification_schemes)):
        if not all(schemes):
            yield Finding(rule=rule, at=f"{at}, item", says="an item's identifier has a scheme")


def _extra(extra: AllowanceCharge, at: str, rules: tuple[str, str, str, str]) -> Iterator[Finding]:
    amount, category, reason, again = rules
    yield from missing(amount, at, extra.amount, "it has an amount")
    if category and not any(one.key for one in extra.categories):
        yield Finding(rule=category, at=at, says="it has a VAT category")
    if not (extra.reason or extra.reason_code):
        # The standard says so twice, in the description of the terms and as a condition.
        yield Finding(rule=reason, at=at, says="it has a reason")
        yield Finding(rule=again, at=at, says="it has a reason")


def _shortest(amount: Decimal | None) -> Decimal | None:
    return None if amount is None else amount.normalize()


def decimals(invoice: EInvoice) -> Iterator[Finding]:
    """Amounts have two decimals at most."""
    totals = invoice.totals
    amounts: list[tuple[str, str, Decimal | None]] = []
    if totals is not None:
        amounts += [
            ("BR-DEC-09", "BT-106", totals.lines),
            ("BR-DEC-10", "BT-107", totals.allowances),
            ("BR-DEC-11", "BT-108", totals.charges),
            ("BR-DEC-12", "BT-109", totals.without_vat),
            ("BR-DEC-14", "BT-112", totals.with_vat),
            ("BR-DEC-16", "BT-113", totals.prepaid),
            ("BR-DEC-17", "BT-114", totals.rounding),
            ("BR-DEC-18", "BT-115", totals.payable),
        ]
    for total in invoice.taxes:
        rule = "BR-DEC-15" if total.currency == invoice.tax_currency != invoice.currency else "BR-DEC-13"
        # Of these two CII looks at the value, not at how many zeros follow it.
        amounts.append((rule, "BT-110, BT-111", _shortest(total.tax) if invoice.syntax == "cii" else total.tax))
        for part in total.breakdown:
            amounts += [("BR-DEC-19", "BT-116", part.taxable), ("BR-DEC-20", "BT-117", part.tax)]
    for extra in invoice.extras:
        rules = ("BR-DEC-05", "BR-DEC-06") if extra.is_charge else ("BR-DEC-01", "BR-DEC-02")
        amounts += [(rules[0], "BT-92, BT-99", extra.amount), (rules[1], "BT-93, BT-100", extra.base)]
    for place, line in enumerate(invoice.lines, 1):
        amounts.append(("BR-DEC-23", f"line {place}, BT-131", line.amount))
        for extra in line.extras:
            rules = ("BR-DEC-27", "BR-DEC-28") if extra.is_charge else ("BR-DEC-24", "BR-DEC-25")
            at = f"line {place}, allowance or charge"
            amounts += [(rules[0], at, extra.amount), (rules[1], at, extra.base)]
    for rule, at, amount in amounts:
        if amount is not None and isinstance(places := amount.as_tuple().exponent, int) and places < -2:
            yield Finding(rule=rule, at=at, stated=f"{amount:f}", says="an amount has two decimals at most")
