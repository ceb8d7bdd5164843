"""What comes into the discounts workflow, and what it knows of a quote so far."""

from __future__ import annotations

from decimal import Decimal
from typing import Any, TypedDict

from pydantic import BaseModel, ConfigDict, Field

from eventwright.runs.event import Event
from eventwright.runs.records import Run
from eventwright.tools.pricing import Currency, Items

#: More than this is no discount that anybody could allow.
MOST_PERCENT = Decimal(40)

# -- what comes in -------------------------------------------------------------------------------------------------


class Asker(BaseModel):
    """Who wants a quote."""

    model_config = ConfigDict(extra="forbid")

    company: str = Field("", max_length=200)
    name: str = Field("", max_length=200)
    email: str | None = Field(None, max_length=254)


class Discount(BaseModel):
    """What is to be taken off, and why."""

    model_config = ConfigDict(extra="forbid")

    percent: Decimal = Field(Decimal(0), ge=0, le=MOST_PERCENT, decimal_places=2)
    reason: str = Field("", max_length=2000)


class QuoteRequest(BaseModel):
    """A colleague wants a quote for a lead. Version 1."""

    model_config = ConfigDict(extra="forbid")

    lead: Asker
    items: Items
    currency: Currency
    discount: Discount = Field(default_factory=lambda: Discount.model_validate({}))
    requested_by: str = Field(min_length=1, max_length=200)


class Answered(BaseModel):
    """The signature system says that somebody signed or declined. Which envelope it is, is all that we take from it."""

    envelope_id: str = Field(min_length=1, max_length=200)


# -- what is known so far -------------------------------------------------------------------------------------------


class QuoteState(TypedDict, total=False):
    """What is known of a quote so far."""

    lead: dict[str, Any]
    items: list[dict[str, Any]]
    currency: str
    discount: dict[str, Any]
    requested_by: str
    #: Where the quote goes.
    address: str | None
    company: str
    company_is_known: bool
    grounds: str
    #: Article numbers without a price.
    missing: list[str]
    quote: dict[str, Any]
    #: As it was sent, and as it was last read back.
    sent: dict[str, Any]
    envelope: dict[str, Any] | None
    #: How many of the times in REMINDERS and EXPIRY have passed, and whether the last wait ended by one of them.
    passed: int
    time_came: bool
    ending: str
    #: What sales is told.
    told: str
    #: The envelope that somebody has answered after its quote's run was over.
    late: str


def requester(event: Event) -> str | None:
    """Who asked for the quote, and so does not allow its discount."""
    name = event.data.get("requested_by") if isinstance(event.data, dict) else None
    return name if isinstance(name, str) else None


def came_late(answered: Answered, _event: Event, _earlier: Run) -> dict[str, Any]:
    """What a run begins with when an answer comes after the quote's own run is over."""
    return {"late": answered.envelope_id}
