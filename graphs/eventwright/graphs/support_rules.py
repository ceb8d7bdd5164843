"""The small rules of the support workflow that need neither a model nor a person."""

from __future__ import annotations

import re
from decimal import Decimal
from typing import Any

#: `£25`, `1,250.00 euros`, `EUR 30`. A dollar sign could be one of many dollars, and `25,50` two numbers: those are
#: not clear.
MONEY = re.compile(
    r"(?:(?P<sign>[£€])|\b(?P<code>gbp|eur|usd)\b)?\s?"
    r"(?<![\d.,])(?P<number>\d+(?:,\d{3})*(?:\.\d\d)?)(?![.,]?\d)"
    r"(?:\s?(?P<word>pounds?|gbp|euros?|eur|usd)\b)?",
    re.IGNORECASE,
)
#: What no ledger could hold is no amount but a number.
TOO_MUCH = 10**12
CURRENCIES = {"£": "GBP", "€": "EUR", "pound": "GBP", "gbp": "GBP", "euro": "EUR", "eur": "EUR", "usd": "USD"}
#: Narrower than what mail allows, and enough for what a person types into a form.
ADDRESS = r"^[A-Za-z0-9_+'-]+(\.[A-Za-z0-9_+'-]+)*@[A-Za-z0-9-]+(\.[A-Za-z0-9-]+)+$"


def the_one_amount(text: str) -> tuple[Decimal, str] | None:
    """The amount and the currency that a message speaks of; None if it is not exactly one."""
    found = set()
    for match in MONEY.finditer(text):
        currency = match["sign"] or match["code"] or match["word"]
        if currency:
            # The pattern takes an old-fashioned `ſ` for an s; casefold makes it one.
            found.add((Decimal(match["number"].replace(",", "")), CURRENCIES[currency.casefold().rstrip("s")]))
    (amount, currency), *others = found or {(Decimal(0), "")}
    return (amount, currency) if 0 < amount < TOO_MUCH and not others else None


def one_line(text: str) -> str:
    """A customer's subject without anything that could end a line of a mail's head, at most 200 characters."""
    return " ".join("".join(letter if letter.isprintable() else " " for letter in text).split())[:200]


def unquoted(text: str) -> str:
    """A letter without the lines that it quotes of earlier ones."""
    return "\n".join(line for line in text.splitlines() if not line.lstrip().startswith(">"))


def an_address(name: str) -> dict[str, Any]:
    """The form of an answer that is one e-mail address."""
    address = {"type": "string", "pattern": ADDRESS, "maxLength": 254}
    return {"type": "object", "properties": {name: address}, "required": [name], "additionalProperties": False}


def an_amount() -> dict[str, Any]:
    """The form of an answer that is an amount of money."""
    fields = {
        "amount": {"type": "string", "pattern": r"^(?!0+(\.0+)?$)[0-9]{1,12}(\.[0-9]{2})?$"},
        "currency": {"type": "string", "pattern": "^[A-Z]{3}$"},
    }
    return {"type": "object", "properties": fields, "required": [*fields], "additionalProperties": False}
