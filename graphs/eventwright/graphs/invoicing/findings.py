"""What is wrong with an invoice, one finding each: the rule, where, and both amounts."""

from __future__ import annotations

from decimal import ROUND_FLOOR, Decimal

from pydantic import BaseModel, ConfigDict

_HALF = Decimal("0.5")


class Finding(BaseModel):
    """Something about an invoice that a person has to see before it is paid.

    Attributes:
        rule: of EN 16931 (`BR-CO-15`), or one of ours (`ORDER-TOTAL`).
        at: where: the business term, and the line.
        says: what the rule wants, in words.
        stated: what stands there; None for nothing.
        expected: what should; None where only the place is known.
    """

    model_config = ConfigDict(frozen=True)

    rule: str
    at: str
    says: str
    stated: str | None = None
    expected: str | None = None

    @property
    def words(self) -> str:
        """The finding as one line."""
        amounts = "" if self.expected is None else f": {self.stated or 'nothing'} stated, {self.expected} expected"
        shown = f": {self.stated!r}" if self.expected is None and self.stated is not None else ""
        return f"{self.rule}, {self.at}{amounts}{shown} ({self.says})"


def money(amount: Decimal | None) -> str | None:
    """An amount as it is shown: with its own digits, two at least, and never as a power of ten."""
    if amount is None:
        return None
    places = amount.as_tuple().exponent
    return f"{amount:.2f}" if isinstance(places, int) and places > -2 else f"{amount:f}"


def to_whole(number: Decimal) -> Decimal:
    """Rounded to a whole number as XPath does it: a half goes up, also below zero."""
    return (number + _HALF).to_integral_value(ROUND_FLOOR)


def to_cents(number: Decimal) -> Decimal:
    """Rounded to cents in the same way."""
    return to_whole(number * 100) / 100
