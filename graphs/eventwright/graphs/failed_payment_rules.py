"""The small rules of the failed payments: what an event is about, what a bank's no means, what a letter says."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from datetime import timedelta
from decimal import Decimal
from typing import Any, Literal

from pydantic import BaseModel

from eventwright.graphs.support_rules import one_line

#: What becomes of a card that was declined: it is charged again, or not; or a person says which.
Card = Literal["again", "never", "unclear"]

#: The bank says that it may work another day. Stripe's words, https://docs.stripe.com/declines/codes.
PASSING = frozenset(
    {
        "approve_with_id",
        "authentication_required",
        "card_velocity_exceeded",
        "do_not_honor",
        "do_not_try_again_today",
        "generic_decline",
        "insufficient_funds",
        "issuer_not_available",
        "processing_error",
        "reenter_transaction",
        "try_again_later",
        "withdrawal_count_limit_exceeded",
    }
)
#: The bank says that this card will never work again. Who asks all the same is fined by the card's network.
FINAL = frozenset(
    {
        "expired_card",
        "fraudulent",
        "incorrect_number",
        "invalid_account",
        "invalid_number",
        "lost_card",
        "new_account_information_available",
        "no_such_card",
        "pickup_card",
        "restricted_card",
        "revocation_of_all_authorizations",
        "revocation_of_authorization",
        "stolen_card",
        "stop_payment_order",
    }
)


@dataclass(frozen=True, kw_only=True)
class Step:
    """What happens after one failed attempt: the customer is reminded, and then has so much time."""

    time: timedelta
    subject: str
    text: str


class Owed(BaseModel):
    """The invoice of an event. What else stands in it was true when the event was sent, and is read back."""

    object: Literal["invoice"]
    id: str


class Data(BaseModel):
    """What Stripe puts around it."""

    object: Owed


class InvoiceEvent(BaseModel):
    """An event of Stripe's about an invoice."""

    data: Data


class EveryVersion(Mapping[str, type[BaseModel]]):
    """One model for every payload version.

    Stripe calls the version of an event by that of its API, which is each account's own; what is read here stands in
    all of them.
    """

    def __init__(self, model: type[BaseModel]) -> None:
        self._model = model

    def __getitem__(self, version: str) -> type[BaseModel]:
        return self._model

    def __iter__(self) -> Iterator[str]:
        return iter(["1"])

    def __len__(self) -> int:
        return 1


def after_decline(code: str) -> Card:
    """Whether a card is charged again that was declined for this reason."""
    if code in FINAL:
        return "never"
    return "again" if code in PASSING else "unclear"


def large(due: Decimal, currency: str, limits: Mapping[str, Decimal]) -> str | None:
    """Why a person looks after this invoice; None if nobody does."""
    limit = limits.get(currency)
    if limit is None:
        return f"there is no limit for {currency}"
    return f"{due} {currency} is above the limit of {limit}" if due > limit else None


def letter(text: str, invoice: Mapping[str, Any], name: str | None, *, card: Card, days: int) -> str:
    """The body of a mail, with what is known filled in."""
    facts = {
        "name": one_line(name or "") or "customer",
        "number": invoice["number"] or invoice["id"],
        "due": f"{invoice['due']} {invoice['currency']}",
        "days": days,
    }
    ways = ["Your bank says that this card will not work again: please give us another one."] * (card == "never")
    if invoice["pay_url"]:
        ways.append(f"You can pay here: {invoice['pay_url']}")
    return "\n\n".join([text.format(**facts).rstrip(), *ways, "Kind regards,\nYour billing team"])
