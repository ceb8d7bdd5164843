"""Billing at Stripe: what is owed and by whom, one more attempt to collect it, and subscriptions that pause.

`Billing` says what can be asked. Stripe itself answers in `stripe_client.py`, an embedded stand-in without an account
in `billing_ledger.py`; one set of tests proves both. Amounts are in the currency's own unit, `Decimal("12.50")`: what
Stripe counts in its smallest unit is converted where it comes in.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from decimal import Decimal
from typing import Annotated

from pydantic import BaseModel, ConfigDict, Field

from eventwright.tools.contract import Call, Role, Undo, tool
from eventwright.tools.providers import Providers

#: Currencies in which Stripe counts whole units, and those in which it counts thousandths; in all others, hundredths.
#: This is Stripe's list and not that of ISO 4217: ISK and UGX have no hundredths any more, and are counted in them.
_WHOLE = "BIF CLP DJF GNF JPY KMF KRW MGA PYG RWF VND VUV XAF XOF XPF"
_THOUSANDTHS = "BHD JOD KWD OMR TND"
DECIMALS = dict.fromkeys(_WHOLE.split(), 0) | dict.fromkeys(_THOUSANDTHS.split(), 3)

InvoiceId = Annotated[str, Field(min_length=1, max_length=255)]
SubscriptionId = Annotated[str, Field(min_length=1, max_length=255)]


class Invoice(BaseModel):
    """What a customer owes, as the billing system has it at this moment."""

    model_config = ConfigDict(frozen=True)

    id: str
    #: As it stands on the invoice; a draft has none.
    number: str | None
    #: Stripe's word: draft, open, paid, void, uncollectible. Another one may come, and is then not open.
    status: str
    customer_id: str
    subscription_id: str | None
    #: What is still to be paid.
    due: Decimal
    #: ISO 4217, in capitals.
    currency: str
    #: How often the payment was tried, the first time included.
    attempts: int
    #: Where the customer can pay, at the billing system's.
    pay_url: str | None = None
    #: The run that has taken it on.
    owner: str | None = None

    @property
    def is_open(self) -> bool:
        """Whether somebody still owes it."""
        return self.status == "open"


class Customer(BaseModel):
    """Who owes; a field that the billing system does not know is None."""

    model_config = ConfigDict(frozen=True)

    id: str
    name: str | None
    email: str | None


class Subscription(BaseModel):
    """What the invoice is for."""

    model_config = ConfigDict(frozen=True)

    id: str
    #: Stripe's word: active, past_due, canceled, ...
    status: str
    #: Whether its invoices are not collected for now.
    is_paused: bool


class Decline(BaseModel):
    """The bank said no."""

    model_config = ConfigDict(frozen=True)

    #: The bank's reason as Stripe spells it (`insufficient_funds`), or Stripe's own code for the error.
    code: str
    message: str


class Payment(BaseModel):
    """What an attempt to collect came to. Without a decline the invoice says it: it is paid, or was settled before, or
    the payment is under way and the invoice still open."""

    model_config = ConfigDict(frozen=True)

    invoice: Invoice
    declined: Decline | None = None


class Pause(BaseModel):
    """What became of a pause."""

    model_config = ConfigDict(frozen=True)

    #: As it was at that moment.
    invoice: Invoice
    #: None if the invoice was not open any more, or is for no subscription.
    paused: Subscription | None = None


class Claim(BaseModel):
    """Whether the run that asked is the one that sees to an invoice."""

    model_config = ConfigDict(frozen=True)

    invoice: Invoice
    is_ours: bool


class Billing(ABC):
    """A billing system. Each call is one request; a write carries a key, and the same key again is the same write.

    Every method raises:
        Permanent: there is no such thing, it does not allow this, or our own key is not accepted.
        NotDone: it took nothing on for now.
        ToolError: it is not known what became of the request.
    """

    #: Which system it is, for the breaker before it.
    host: str

    @abstractmethod
    async def invoice(self, invoice_id: str) -> Invoice:
        """The invoice as it is now."""

    @abstractmethod
    async def customer(self, customer_id: str) -> Customer:
        """The customer as they are now."""

    @abstractmethod
    async def subscription(self, subscription_id: str) -> Subscription:
        """The subscription as it is now."""

    @abstractmethod
    async def claim(self, invoice_id: str, owner: str) -> Invoice:
        """Write the owner into an invoice that has none. Of several at the same moment one is written, for good."""

    @abstractmethod
    async def pay(self, invoice_id: str, *, idempotency_key: str) -> Payment:
        """Try to collect an invoice once more. An invoice that is not open is returned as it is."""

    @abstractmethod
    async def set_paused(self, subscription_id: str, paused: bool, *, idempotency_key: str) -> Subscription:
        """Stop collecting what comes of a subscription, or begin again."""


def in_units(amount: int, currency: str) -> Decimal:
    """An amount of Stripe's, in the currency's own unit: 1250 of `eur` is `12.50`, 1250 of `jpy` is `1250`."""
    return Decimal(amount).scaleb(-DECIMALS.get(currency.upper(), 2))


@asynccontextmanager
async def _asked(call: Call) -> AsyncIterator[Billing]:
    """The billing system of this process, unless it is known to be away."""
    billing = call.use(Billing)  # type: ignore[type-abstract]  # any of its kinds
    async with Providers.of(call.resources).asked(billing.host):
        yield billing


@tool(trusted=True, sensitive=True)
async def find_invoice(invoice_id: InvoiceId, *, call: Call) -> Invoice:
    """Look up an invoice as it is now."""
    async with _asked(call) as billing:
        return await billing.invoice(invoice_id)


@tool(trusted=True, sensitive=True)
async def find_customer(customer_id: Annotated[str, Field(min_length=1)], *, call: Call) -> Customer:
    """Look up a customer."""
    async with _asked(call) as billing:
        return await billing.customer(customer_id)


@tool(trusted=True)
async def find_subscription(subscription_id: SubscriptionId, *, call: Call) -> Subscription:
    """Look up a subscription."""
    async with _asked(call) as billing:
        return await billing.subscription(subscription_id)


@tool(writes="keyed", trusted=True)
async def claim_invoice(invoice_id: Annotated[InvoiceId, Role.DESTINATION], *, call: Call) -> Claim:
    """Take an invoice on for this run, unless another run has."""
    async with _asked(call) as billing:
        invoice = await billing.claim(invoice_id, call.run_id)
        return Claim(invoice=invoice, is_ours=invoice.owner == call.run_id)


@tool(writes="keyed", trusted=True)
async def pay_invoice(invoice_id: Annotated[InvoiceId, Role.DESTINATION], *, call: Call) -> Payment:
    """Try once more to collect an invoice. A card that is declined is an answer, no failure."""
    async with _asked(call) as billing:
        if call.attempt > 1:
            # Stripe gives a key the answer that it got first, a failure of its own too. What really happened since
            # stands in the invoice.
            invoice = await billing.invoice(invoice_id)
            if not invoice.is_open:
                return Payment(invoice=invoice)
        return await billing.pay(invoice_id, idempotency_key=call.idempotency_key)


@tool(writes="keyed", trusted=True)
async def resume_subscription(
    subscription_id: Annotated[SubscriptionId, Role.DESTINATION], *, call: Call
) -> Subscription:
    """Begin again to collect what comes of a subscription."""
    async with _asked(call) as billing:
        return await billing.set_paused(subscription_id, False, idempotency_key=call.idempotency_key)


@tool(
    writes="keyed",
    trusted=True,
    undo=Undo(resume_subscription, lambda _asked, given: {"subscription_id": given.invoice.subscription_id}),
)
async def pause_subscription(invoice_id: Annotated[InvoiceId, Role.DESTINATION], *, call: Call) -> Pause:
    """Stop collecting what comes of this invoice's subscription, if the invoice is still open."""
    async with _asked(call) as billing:
        # In the same call: between a look and a pause an approval may take days, and the customer may pay.
        invoice = await billing.invoice(invoice_id)
        if not invoice.is_open or invoice.subscription_id is None:
            return Pause(invoice=invoice)
        key = call.idempotency_key
        return Pause(
            invoice=invoice, paused=await billing.set_paused(invoice.subscription_id, True, idempotency_key=key)
        )
