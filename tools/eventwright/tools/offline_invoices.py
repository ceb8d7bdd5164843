"""How the offline model reads an invoice that is only words: labels before values, one a line, and a table of lines.

It takes what is labelled in English, plainly, and says how sure it is by how much of it was there.
"""

from __future__ import annotations

import re
from typing import Any

_AMOUNT = r"-?\d{1,3}(?:[ ,]\d{3})*(?:\.\d{1,2})?|-?\d+(?:\.\d{1,2})?"
_LABELS: dict[str, str] = {
    "number": r"(?:invoice|credit note)\s*(?:number|no\.?|#)\s*:?\s*(?P<value>\S.{0,60})",
    "issued": r"(?:invoice |issue )?date\s*:\s*(?P<value>\d{4}-\d\d-\d\d)",
    "due": r"(?:due|payable)(?: date| by)?\s*:\s*(?P<value>\d{4}-\d\d-\d\d)",
    "seller_name": r"(?:from|seller|supplier)\s*:\s*(?P<value>\S.{0,120})",
    "seller_vat": r"vat(?: id| number| no\.?)\s*:\s*(?P<value>[A-Z]{2}[A-Z0-9]{2,13})",
    "order": r"(?:purchase )?order(?: number| no\.?)?\s*:\s*(?P<value>\S.{0,60})",
    "total_without_vat": rf"(?:net total|subtotal|total without vat)\s*:\s*(?:[A-Z]{{3}}\s*)?(?P<value>{_AMOUNT})",
    "total_vat": rf"vat(?: \d+(?:\.\d+)? ?%)?\s*:\s*(?:[A-Z]{{3}}\s*)?(?P<value>{_AMOUNT})",
    "total_with_vat": rf"total(?: with vat)?\s*:\s*(?:[A-Z]{{3}}\s*)?(?P<value>{_AMOUNT})",
    "amount_due": rf"(?:amount due|to pay)\s*:\s*(?:[A-Z]{{3}}\s*)?(?P<value>{_AMOUNT})",
}
_CURRENCY = re.compile(r"\b(EUR|GBP|USD|DKK|SEK|NOK|CHF|PLN)\b")
#: `10 x Paper A4 @ 4.50 = 45.00`
_LINE = re.compile(
    rf"\s*(?P<quantity>{_AMOUNT}) x (?P<name>.{{1,120}}?) @ (?P<price>{_AMOUNT}) = (?P<amount>{_AMOUNT})\s*"
)


def read_invoice(material: str) -> tuple[dict[str, Any], float, str]:
    """The invoice's fields, how sure, and why."""
    found: dict[str, Any] = dict.fromkeys(_LABELS)
    lines = []
    for line in material.splitlines():
        row = _LINE.fullmatch(line)
        if row:
            numbers = {name: _number(row[name]) for name in ("quantity", "price", "amount")}
            lines.append({"name": row["name"], **numbers})
        for name, pattern in _LABELS.items():
            match = re.fullmatch(rf"\s*{pattern}\s*", line, re.IGNORECASE)
            if match and found[name] is None:
                value = match["value"].strip()
                found[name] = _number(value) if name.startswith(("total", "amount")) else value
    currencies = set(_CURRENCY.findall(material))
    found["currency"] = currencies.pop() if len(currencies) == 1 else None
    found["amount_due"] = found["amount_due"] or found["total_with_vat"]
    found["is_credit_note"] = re.search(r"\bcredit note\b", material, re.IGNORECASE) is not None
    found["lines"] = lines
    needed = ("number", "issued", "currency", "seller_name", "total_with_vat", "amount_due")
    there = sum(found[name] is not None for name in needed) + bool(lines)
    sure = 0.9 if there == len(needed) + 1 else 0.1
    return found, sure, f"{there} of {len(needed) + 1} labels were found"


def _number(written: str) -> str:
    return re.sub(r"[ ,]", "", written)
