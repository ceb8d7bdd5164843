"""Who must approve what is booked. The limits are the business's, in `graphs/invoices.py`."""

from __future__ import annotations

from collections.abc import Mapping
from decimal import Decimal
from typing import Any

from eventwright.guardrails.rules import Ask, Facts, Rule
from eventwright.tools.accounting_records import PurchaseOrder

#: By currency: up to the first amount nobody is asked, up to the second one person, above it two.
Tiers = Mapping[str, tuple[Decimal, Decimal]]
#: What the rules bound when they ask nobody: an invoice may say it.
BOUNDED = ("amount", "currency", "sums")


def people_for(amount: Decimal, currency: str, tiers: Tiers) -> int:
    """How many different people must approve a payment of this amount; in a currency without limits two."""
    if currency not in tiers:
        return 2
    first, second = tiers[currency]
    return 0 if amount <= first else 1 if amount <= second else 2


def payment_rule(tiers: Tiers) -> Rule:
    """Who must approve a payment, and why: by its amount, its findings, its order and its account."""

    def test(call: Any, facts: Facts) -> Ask | None:
        people, reasons = people_for(call.amount, call.currency, tiers), list(call.remarks)
        if people:
            reasons.append(f"{call.amount} {call.currency} needs {people} to approve it")
        if not any(_covers(PurchaseOrder.model_validate(order), call) for order in _orders(facts)):
            reasons.append("no order of ours covers it")
        if all(call.account not in supplier["accounts"] for supplier in _suppliers(facts)):
            reasons.append("the account is not one that purchasing keeps")
        return Ask("; ".join(reasons), max(people, 1)) if reasons else None

    return Rule("payment", test, version="1", vouches_for=BOUNDED)


def _covers(order: PurchaseOrder, call: Any) -> bool:
    same = order.supplier_id == call.supplier_id and order.currency == call.currency
    return bool(same and call.sums.net <= order.left)


def _orders(facts: Facts) -> list[Any]:
    return _records(facts, "accounting.find_order", "look_up")


def _suppliers(facts: Facts) -> list[Any]:
    return _records(facts, "accounting.find_supplier", "identify")


def _records(facts: Facts, tool: str, node: str) -> list[Any]:
    return [one.value for one in facts.records if (one.tool, one.node) == (tool, node) and one.value]


#: What is not paid needs a person only where something is wrong with it.
findings_rule = Rule(
    "findings", lambda call: Ask("; ".join(call.remarks)) if call.remarks else None, version="1", vouches_for=BOUNDED
)
