"""The small rules of the discounts workflow that need neither a model nor a person."""

from __future__ import annotations

import re
from collections.abc import Mapping
from decimal import Decimal
from typing import Any

from pydantic import TypeAdapter
from pydantic_core import to_jsonable_python

from eventwright.guardrails.rules import ArgumentRule, Facts
from eventwright.tools import pricing, quotes

#: Where everybody has an address, so that it tells nothing of a company.
FREE_MAIL = frozenset(
    {
        "gmail.com",
        "googlemail.com",
        "gmx.de",
        "gmx.net",
        "hotmail.com",
        "icloud.com",
        "outlook.com",
        "proton.me",
        "web.de",
    }
)
#: What becomes of a quote by what its envelope says, where nobody has said it yet.
ENDINGS: dict[str, quotes.Ending] = {"completed": "signed", "declined": "declined", "voided": "withdrawn"}
_DOMAIN = re.compile(r"[a-z0-9](?:[a-z0-9.-]{0,250}[a-z0-9])?\.[a-z]{2,63}")


def company_domain(address: str) -> str | None:
    """The domain of a company's mail; None where it is nobody's, or none that could be looked up."""
    domain = address.rpartition("@")[2].lower()
    return domain if _DOMAIN.fullmatch(domain) and domain not in FREE_MAIL else None


def the_priced_items(at: str) -> ArgumentRule:
    """Only the items that were priced at this node."""

    def allows(value: Any, facts: Facts) -> bool:
        return priced(value, facts, at=at) is not None

    return ArgumentRule(f"what was priced at {at}", allows, contains=True, sources=((pricing.price.name, at),))


def priced(items: Any, facts: Facts, *, at: str) -> Mapping[str, Any] | None:
    """The price that was found for exactly these items at this node, as JSON."""
    wanted = to_jsonable_python(items)
    found = [record.value for record in facts.records if (record.tool, record.node) == (pricing.price.name, at)]
    return next((price for price in reversed(found) if price["items"] == wanted), None)


def off(price: Mapping[str, Any], percent: Decimal) -> Decimal:
    """What a discount takes off the price's sum."""
    return Decimal(price["amount"]) * percent / 100


def a_list_of_items() -> dict[str, Any]:
    """The form of an answer that is the items of a quote."""
    form = TypeAdapter(pricing.Items).json_schema()
    definitions = form.pop("$defs")
    properties = {"items": form}
    answer = {"type": "object", "properties": properties, "required": ["items"], "additionalProperties": False}
    return answer | {"$defs": definitions}


def letter(quote: Mapping[str, Any], days: int) -> str:
    """A quote in words, for who is to sign it."""
    price = quote["price"]
    lines = [
        f"{line['quantity']} x {line['name']} ({line['sku']}) at {line['unit_price']}: {line['amount']}"
        for line in price["lines"]
    ]
    less = [f"Less {price['percent']} %: {price['discount']}"] if Decimal(price["percent"]) else []
    return "\n".join(
        [
            f"Quote {quote['id']}",
            "",
            *lines,
            "",
            f"Sum: {price['amount']}",
            *less,
            f"Total: {price['total']} {price['currency']}, without taxes",
            "",
            f"This quote stands for {days} days. Prices by our list {price['price_list']}, rules {price['rules']}.",
        ]
    )


def differences(quote: Mapping[str, Any], envelope: Mapping[str, Any] | None, address: str) -> list[str]:
    """In what the envelope, as it was read back, is not what was approved."""
    if envelope is None:
        return ["the signature system does not know it"]
    price = quote["price"]
    approved = {"reference": quote["id"], "amount": price["total"], "currency": price["currency"], "email": address}
    return [
        f"{name} is {envelope[name]} and not {wanted}"
        for name, wanted in approved.items()
        if not _alike(str(envelope[name]), str(wanted), name)
    ]


def _alike(found: str, wanted: str, name: str) -> bool:
    if name == "amount":
        return Decimal(found) == Decimal(wanted)
    return found.casefold() == wanted.casefold() if name == "email" else found == wanted
