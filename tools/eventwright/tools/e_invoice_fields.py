"""What an e-invoice says, in the words of EN 16931, whichever syntax it came in.

Everything may be missing: what has to be there is the rules' business (`eventwright.graphs.invoicing.rules`). A number
that cannot be read is missing too, and stands in `unreadable`.
"""

from __future__ import annotations

from datetime import date
from decimal import Decimal
from typing import Literal

from pydantic import BaseModel, ConfigDict

#: Types of documents (UNTDID 1001) that give money back.
CREDIT_NOTE_TYPES = frozenset({"81", "83", "261", "262", "296", "308", "381", "396", "420", "458", "502", "503", "532"})


class Part(BaseModel):
    """A group of business terms."""

    model_config = ConfigDict(frozen=True, extra="forbid")


class Category(Part):
    """A VAT category: S standard, Z zero, E exempt, AE reverse charge, K within the EU, G export, O not subject, ...

    Attributes:
        vat: whether the tax is VAT at all, as far as the document says so.
    """

    code: str | None = None
    rate: Decimal | None = None
    vat: bool = True
    reason: str | None = None
    reason_code: str | None = None

    @property
    def key(self) -> str | None:
        """The code, if it is one of VAT."""
        return self.code if self.vat else None


class Period(Part):
    """From a day to another, both included; `code` says instead what day counts for the tax."""

    start: date | None = None
    end: date | None = None
    code: str | None = None


class AllowanceCharge(Part):
    """What is taken off (an allowance) or added (a charge); `is_charge` is None if the document does not say."""

    is_charge: bool | None = None
    amount: Decimal | None = None
    base: Decimal | None = None
    reason: str | None = None
    reason_code: str | None = None
    categories: tuple[Category, ...] = ()


class Party(Part):
    """Somebody; `has_address` is whether the document has a postal address of theirs, `country` what stands in it."""

    name: str | None = None
    trading_name: str | None = None
    #: Without the one that a bank knows a creditor by.
    ids: tuple[str, ...] = ()
    #: The schemes of all its identifiers, as far as they have one.
    id_schemes: tuple[str, ...] = ()
    legal_id: str | None = None
    legal_scheme: str | None = None
    vat_ids: tuple[str, ...] = ()
    #: Registrations with other tax schemes.
    tax_ids: tuple[str, ...] = ()
    has_address: bool = False
    country: str | None = None
    endpoint: str | None = None
    endpoint_scheme: str | None = None


class Account(Part):
    """Where the seller wants the money."""

    id: str | None = None
    bank: str | None = None


class PaymentMeans(Part):
    """How to pay."""

    code: str | None = None
    accounts: tuple[Account, ...] = ()
    card: str | None = None
    has_mandate: bool = False


class Breakdown(Part):
    """The VAT of one category at one rate."""

    taxable: Decimal | None = None
    tax: Decimal | None = None
    categories: tuple[Category, ...] = ()


class TaxTotal(Part):
    """The VAT in one currency, with its parts."""

    tax: Decimal | None = None
    currency: str | None = None
    breakdown: tuple[Breakdown, ...] = ()


class Totals(Part):
    """The sums at the end of the document."""

    lines: Decimal | None = None
    allowances: Decimal | None = None
    charges: Decimal | None = None
    without_vat: Decimal | None = None
    with_vat: Decimal | None = None
    prepaid: Decimal | None = None
    rounding: Decimal | None = None
    payable: Decimal | None = None


class Attribute(Part):
    """Something about an item: a name and a value."""

    name: str | None = None
    value: str | None = None


class Line(Part):
    """One line."""

    id: str | None = None
    quantity: Decimal | None = None
    unit: str | None = None
    amount: Decimal | None = None
    name: str | None = None
    seller_item: str | None = None
    order_line: str | None = None
    #: The country that the item comes from.
    origin: str | None = None
    price: Decimal | None = None
    #: How many units the price is for.
    price_base: Decimal | None = None
    #: What the base is counted in; None where it is not said.
    price_units: tuple[str | None, ...] = ()
    gross_price: Decimal | None = None
    categories: tuple[Category, ...] = ()
    periods: tuple[Period, ...] = ()
    extras: tuple[AllowanceCharge, ...] = ()
    attributes: tuple[Attribute, ...] = ()
    #: The schemes of the item's standard identifiers and classifications; None for one that has none.
    standard_schemes: tuple[str | None, ...] = ()
    classification_schemes: tuple[str | None, ...] = ()


class Unreadable(Part):
    """A value that is none: an amount with letters, a date that no calendar has, an element that may stand once."""

    at: str
    text: str


class Misplaced(Part):
    """Something that the syntax's own rules do not let stand there: the rule, and where."""

    rule: str
    at: str


class EInvoice(Part):
    """An invoice or a credit note.

    Attributes:
        syntax: `ubl` and `cii` are XML, `text` was read by a model.
        root: what the document calls itself; a credit note may also call itself an invoice of type 381.
    """

    syntax: Literal["ubl", "cii", "text"]
    root: Literal["invoice", "credit_note"] = "invoice"
    specification: str | None = None
    number: str | None = None
    issued: date | None = None
    type: str | None = None
    currency: str | None = None
    tax_currency: str | None = None
    #: The currencies that its amounts bear, each once; "" for an amount without one.
    amount_currencies: tuple[str, ...] = ()
    #: Those of them that bear all but the VAT's, which alone may be told in two currencies.
    sum_currencies: tuple[str, ...] = ()
    tax_point: date | None = None
    due: date | None = None
    terms: str | None = None
    order: str | None = None
    periods: tuple[Period, ...] = ()
    #: Numbers of earlier invoices that it refers to; None for a reference without one. The same of other documents.
    preceding: tuple[str | None, ...] = ()
    documents: tuple[str | None, ...] = ()
    #: What kinds of objects it refers to, and what its notes are about, as far as it says so by codes.
    references: tuple[str, ...] = ()
    subjects: tuple[str, ...] = ()
    #: What kinds of files are inside.
    attachments: tuple[str, ...] = ()
    seller: Party | None = None
    buyer: Party | None = None
    payee: Party | None = None
    representative: Party | None = None
    delivered: date | None = None
    delivery_country: str | None = None
    #: The scheme of the identifier of the place of delivery.
    delivery_scheme: str | None = None
    has_delivery_address: bool = False
    payment: tuple[PaymentMeans, ...] = ()
    extras: tuple[AllowanceCharge, ...] = ()
    taxes: tuple[TaxTotal, ...] = ()
    totals: Totals | None = None
    lines: tuple[Line, ...] = ()
    unreadable: tuple[Unreadable, ...] = ()
    misplaced: tuple[Misplaced, ...] = ()

    @property
    def is_credit(self) -> bool:
        """Whether it gives money back by what it calls itself; an invoice with a negative sum does so as well."""
        return self.root == "credit_note" or self.type in CREDIT_NOTE_TYPES

    @property
    def owed(self) -> Decimal | None:
        """What the buyer has to pay for it; below 0 it lessens what they owe. None if the document does not say."""
        payable = None if self.totals is None else self.totals.payable
        if payable is None:
            return None
        return -payable if self.is_credit else payable

    @property
    def accounts(self) -> list[str]:
        """The accounts that it names, without spaces and in capitals, each once."""
        ids = (account.id for means in self.payment for account in means.accounts)
        return list(dict.fromkeys(compact_account(one) for one in ids if one))

    @property
    def categories(self) -> list[Category]:
        """Those of the lines, and of what is taken off or added for the whole document."""
        parts = (*(line.categories for line in self.lines), *(extra.categories for extra in self.extras))
        return [category for part in parts for category in part]

    @property
    def breakdown(self) -> list[Breakdown]:
        """The parts of the VAT, in every currency."""
        return [part for total in self.taxes for part in total.breakdown]


def compact_account(written: str) -> str:
    """An account number without what people put between its groups."""
    return "".join(letter for letter in written if letter.isalnum()).upper()
