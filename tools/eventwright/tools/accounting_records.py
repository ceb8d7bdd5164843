"""The records of accounting: suppliers, orders, bookings, entries. Amounts are decimals, and signed: what we owe is
above zero, what we are owed below."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable
from datetime import date
from decimal import Decimal
from typing import Annotated

from pydantic import AwareDatetime, BaseModel, ConfigDict, Field, field_validator

from eventwright.tools.e_invoice_fields import compact_account

#: Digits as an invoice could have them.
Money = Annotated[Decimal, Field(max_digits=18, decimal_places=4)]


class Record(BaseModel):
    """Something that the books hold."""

    model_config = ConfigDict(frozen=True, extra="forbid")


class Supplier(Record):
    """Somebody whom we buy from, as purchasing knows them. The account is the one that money goes to."""

    id: str
    name: str
    vat_id: str | None = None
    accounts: tuple[str, ...] = ()
    #: Days until we pay, where an invoice says nothing.
    terms_days: int = Field(default=30, ge=0, le=365)

    @field_validator("accounts")
    @classmethod
    def _compact(cls, accounts: tuple[str, ...]) -> tuple[str, ...]:
        return tuple(map(compact_account, accounts))


class OrderLine(Record):
    """What was ordered; `price` is for one unit, without VAT."""

    number: str
    name: str
    item: str | None = None
    quantity: Money
    price: Money


class PurchaseOrder(Record):
    """An order, and how much of it is invoiced already, without VAT."""

    number: str
    supplier_id: str
    currency: str
    lines: tuple[OrderLine, ...] = ()
    invoiced: Decimal = Decimal(0)

    @property
    def total(self) -> Decimal:
        """What was ordered, without VAT."""
        return sum((line.quantity * line.price for line in self.lines), Decimal(0))

    @property
    def left(self) -> Decimal:
        """What may still be invoiced, without VAT."""
        return self.total - self.invoiced


class Sums(Record):
    """The sums of a document, as it states them."""

    net: Money
    vat: Money
    prepaid: Money = Decimal(0)
    rounding: Money = Decimal(0)


class Document(Record):
    """What stands in an invoice or credit note, as far as the books need it.

    Attributes:
        number: the supplier's number; compared without spaces, signs and leading zeros.
        lines_key: see `lines_key`.
        period: for which time it asks, as two ISO days; None if it does not say.
        order_invoiced: how much of its order was invoiced when it was compared with it; None without an order of ours.
        sha256: of the document as it came, in hex.
    """

    number: str = Field(min_length=1, max_length=200)
    is_credit: bool
    issued: date
    due: date
    lines_key: str = Field(max_length=64)
    period: str | None = Field(None, max_length=30)
    order: str | None = Field(None, max_length=200)
    order_invoiced: Decimal | None = None
    sha256: str = Field(max_length=64)

    @property
    def number_key(self) -> str:
        return plain(self.number).lstrip("0") or self.number


class NewBooking(Document):
    """What is booked; `owed` is what we owe for it, below zero for what lessens our debt, and so are its sums."""

    supplier_id: str = Field(max_length=64)
    owed: Money
    currency: str = Field(pattern=r"^[A-Z]{3}$")
    sums: Sums
    remarks: tuple[str, ...] = ()


class Posting(Record):
    """One side of an entry: what comes to an account (debit) or goes from it (credit)."""

    account: str
    debit: Decimal = Decimal(0)
    credit: Decimal = Decimal(0)


class Entry(Record):
    """An entry of the ledger. Its debits are its credits."""

    id: str
    booking_id: str
    day: date
    text: str
    currency: str
    postings: tuple[Posting, ...]

    def reversed(self, entry_id: str, day: date) -> Entry:
        """The same the other way round."""
        turned = tuple(Posting(account=one.account, debit=one.credit, credit=one.debit) for one in self.postings)
        update = {"id": entry_id, "day": day, "text": f"reversal of {self.text}", "postings": turned}
        return self.model_copy(update=update)


class Booking(NewBooking):
    """An invoice or a credit note in the books; `pay_on` is None where no money leaves."""

    id: str
    entry: Entry
    account: str | None = None
    pay_on: date | None = None
    created_at: AwareDatetime


def balanced(sums: Sums, owed: Decimal) -> tuple[Posting, ...]:
    """The postings of a document. What does not add up in it stands in an account of its own, for all to see."""
    rows = [
        ("5000 purchases", sums.net),
        ("1400 input VAT", sums.vat),
        ("5900 rounding", sums.rounding),
        ("1200 prepayments", -sums.prepaid),
        ("2000 payables", -owed),
    ]
    rows.append(("5990 differences", -sum((amount for _, amount in rows), Decimal(0))))
    return tuple(_posting(account, amount) for account, amount in rows if amount)


def _posting(account: str, amount: Decimal) -> Posting:
    return Posting(account=account, debit=amount) if amount > 0 else Posting(account=account, credit=-amount)


def plain(text: str) -> str:
    """Names and numbers as they are compared: letters and digits, in small letters."""
    return "".join(letter for letter in text.casefold() if letter.isalnum())


def lines_key(lines: Iterable[tuple[Decimal | None, Decimal | None]]) -> str:
    """What the lines of an invoice are known by: their amounts and quantities, in whatever order and words."""
    known = sorted([_digits(amount), _digits(quantity)] for amount, quantity in lines)
    return hashlib.sha256(json.dumps(known).encode()).hexdigest()


def _digits(number: Decimal | None) -> str:
    return "" if number is None else f"{number.normalize():f}"
