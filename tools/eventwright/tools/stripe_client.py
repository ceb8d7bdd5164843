"""Stripe itself, through its own library: `async with StripeBilling.open(key) as billing`.

The library does not retry here. The policy of a node says how often something is tried, and every attempt of it is
seen; the same effect always goes out under the same idempotency key.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator, Mapping
from contextlib import asynccontextmanager, contextmanager
from typing import Any
from urllib.parse import urlsplit

import httpx
import stripe
from pydantic import ValidationError

from eventwright.tools.contract import NotDone, Permanent, ToolError
from eventwright.tools.faults import clip, retry_after
from eventwright.tools.stripe_billing import Billing, Customer, Decline, Invoice, Payment, Subscription, in_units

#: Seconds for one request; a payment waits for the customer's bank.
TIMEOUT = 60.0
#: What Stripe does with invoices that come while a subscription is paused: they stay drafts, and nobody is asked for
#: them.
PAUSED = {"behavior": "keep_as_draft"}
#: Where in an invoice's metadata stands which run has taken it on.
OWNER = "eventwright_run"
#: Failures of the connection before anything could have left.
NOT_SENT = (httpx.ConnectError, httpx.ConnectTimeout, httpx.PoolTimeout)


class StripeAway(NotDone):
    """Stripe cannot be reached; nothing was sent."""


class KeyTaken(Permanent):
    """The idempotency key belongs to another request; nothing was done."""


class StripeBilling(Billing):
    """Stripe's API, at the version that the library was made for, whatever the account's own is."""

    def __init__(self, client: stripe.StripeClient, host: str) -> None:
        self._api = client.v1
        self.host = host

    @classmethod
    @asynccontextmanager
    async def open(
        cls, api_key: str, *, api_base: str = stripe.DEFAULT_API_BASE, timeout: float = TIMEOUT
    ) -> AsyncIterator[StripeBilling]:
        """A client, and its connections until the block ends.

        Args:
            api_key: a restricted key is enough: invoices, payments and subscriptions to write, customers to read.
            api_base: where the API is.
            timeout: seconds that a request may take.
        """
        http = stripe.HTTPXClient(timeout=timeout)
        try:
            client = stripe.StripeClient(
                api_key, http_client=http, base_addresses={"api": api_base}, max_network_retries=0
            )
            yield cls(client, urlsplit(api_base).netloc)
        finally:
            await http.close_async()  # type: ignore[no-untyped-call]

    async def invoice(self, invoice_id: str) -> Invoice:
        with _faults():
            return invoice_of((await self._api.invoices.retrieve_async(invoice_id)).to_dict())

    async def customer(self, customer_id: str) -> Customer:
        with _faults():
            found = (await self._api.customers.retrieve_async(customer_id)).to_dict()
            # One that was deleted has nothing but its id.
            return Customer(id=found["id"], name=found.get("name"), email=found.get("email"))

    async def subscription(self, subscription_id: str) -> Subscription:
        with _faults():
            return _subscription_of((await self._api.subscriptions.retrieve_async(subscription_id)).to_dict())

    async def claim(self, invoice_id: str, owner: str) -> Invoice:
        invoice = await self.invoice(invoice_id)
        if invoice.owner is not None:
            return invoice
        # One key for everybody: Stripe takes it with the first owner, and refuses it with any other.
        options: stripe.RequestOptions = {"idempotency_key": f"{OWNER}_{invoice_id}"}
        try:
            with _faults():
                claimed = await self._api.invoices.update_async(invoice_id, {"metadata": {OWNER: owner}}, options)
                return invoice_of(claimed.to_dict())
        except KeyTaken:
            invoice = await self.invoice(invoice_id)
            if invoice.owner is None:
                raise NotDone(f"invoice {invoice_id} was taken on by a run, and somebody took its mark away") from None
            return invoice

    async def pay(self, invoice_id: str, *, idempotency_key: str) -> Payment:
        try:
            with _faults():
                paid = await self._api.invoices.pay_async(invoice_id, {}, {"idempotency_key": idempotency_key})
                return Payment(invoice=invoice_of(paid.to_dict()))
        except _Declined as declined:
            return Payment(invoice=await self.invoice(invoice_id), declined=declined.decline)
        except Permanent:
            # Perhaps because somebody else was faster: what is not open cannot be paid.
            invoice = await self.invoice(invoice_id)
            if invoice.is_open:
                raise
            return Payment(invoice=invoice)

    async def set_paused(self, subscription_id: str, paused: bool, *, idempotency_key: str) -> Subscription:
        # Empty text is how Stripe takes a field away.
        pause: Any = PAUSED if paused else ""
        with _faults():
            changed = await self._api.subscriptions.update_async(
                subscription_id, {"pause_collection": pause}, {"idempotency_key": idempotency_key}
            )
            return _subscription_of(changed.to_dict())


class _Declined(Exception):
    def __init__(self, decline: Decline) -> None:
        self.decline = decline


@contextmanager
def _faults() -> Iterator[None]:
    """Around a request: what Stripe's errors mean to a caller."""
    try:
        yield
    except stripe.CardError as error:
        raise _Declined(_decline_of(error)) from error
    except stripe.StripeError as error:
        raise fault(error) from error
    except (LookupError, TypeError, AttributeError, ValidationError) as error:
        raise ToolError(f"Stripe answered, but not with what was asked for: {error!r}") from error


def fault(error: stripe.StripeError) -> ToolError:
    """What an error of Stripe's means: refused for good, not done for now, or nobody knows."""
    words = clip(error.user_message or error)
    if isinstance(error, stripe.RateLimitError):
        return NotDone(f"Stripe has too much to do: {words}", retry_after=retry_after(error.headers or {}))
    if isinstance(error, stripe.AuthenticationError | stripe.PermissionError):
        return Permanent(f"Stripe does not accept the key: {words}; look at EVENTWRIGHT_STRIPE_API_KEY")
    if isinstance(error, stripe.IdempotencyError):
        return KeyTaken(f"the idempotency key belongs to another request: {words}")
    if isinstance(error, stripe.InvalidRequestError):
        return Permanent(f"Stripe refused the request: {words}")
    if isinstance(error.__cause__, NOT_SENT):
        return StripeAway(f"no connection to Stripe: {error.__cause__}")
    # Also a 409: the first request with this key is not finished.
    return ToolError(f"what became of the request is unknown ({error.http_status or 'no answer'}): {words}")


def _decline_of(error: stripe.CardError) -> Decline:
    body = error.json_body
    said: Mapping[str, Any] = body.get("error", {}) if isinstance(body, dict) else {}
    return Decline(
        code=said.get("decline_code") or said.get("code") or "unknown",
        message=clip(said.get("message") or "the bank gave no reason"),
    )


def invoice_of(found: Mapping[str, Any]) -> Invoice:
    """An invoice from one of Stripe's, of any version of its API."""
    about = (found.get("parent") or {}).get("subscription_details") or {}
    return Invoice(
        id=found["id"],
        number=found.get("number"),
        status=found.get("status") or "draft",
        customer_id=found["customer"],
        # Before March 2025 it stood in the invoice itself.
        subscription_id=about.get("subscription") or found.get("subscription"),
        due=in_units(found["amount_remaining"], found["currency"]),
        currency=found["currency"].upper(),
        attempts=found["attempt_count"],
        pay_url=found.get("hosted_invoice_url"),
        owner=(found.get("metadata") or {}).get(OWNER),
    )


def _subscription_of(found: Mapping[str, Any]) -> Subscription:
    return Subscription(id=found["id"], status=found["status"], is_paused=found.get("pause_collection") is not None)
