"""Stripe on the loopback: the parts of its API that we use, with objects of its own and its idempotency.

It keeps what was asked and what it did. Failures are put into `failing`; each stands in for one answer, before or
after the work was done.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from decimal import Decimal
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs

from tests.loopback import on_loopback

from eventwright.tools.stripe_billing import DECIMALS, Customer, Invoice
from eventwright.tools.stripe_client import StripeBilling

OBJECTS = json.loads((Path(__file__).parents[1] / "data/webhooks/stripe_fixtures.json").read_text())
KEY = "rk_test_51Nobody"
Break = Callable[[asyncio.StreamWriter], Awaitable[None]]
Answer = tuple[int, dict[str, Any]]


@dataclass(frozen=True)
class Failure:
    """One request that goes wrong: with an answer of its own, or without one."""

    status: int = 0
    error: dict[str, Any] = field(default_factory=dict)
    headers: dict[str, str] = field(default_factory=dict)
    #: Breaks the connection in place of an answer.
    broken: Break | None = None
    #: The work is done all the same, and only its answer is lost.
    after_the_work: bool = False
    #: The answer is kept under the key, as Stripe keeps those of its own failures.
    kept: bool = False


@dataclass
class StripeServer:
    """A Stripe account."""

    port: int = 0
    invoices: dict[str, dict[str, Any]] = field(default_factory=dict)
    customers: dict[str, dict[str, Any]] = field(default_factory=dict)
    subscriptions: dict[str, dict[str, Any]] = field(default_factory=dict)
    #: Why each customer's card is declined; those who are not here pay.
    cards: dict[str, str] = field(default_factory=dict)
    failing: list[Failure] = field(default_factory=list)
    #: The same for payments alone.
    failing_payments: list[Failure] = field(default_factory=list)
    #: Every request: method, path, idempotency key.
    requests: list[tuple[str, str, str | None]] = field(default_factory=list)
    #: The versions of the API that were asked for.
    versions: set[str] = field(default_factory=set)
    _kept: dict[str, tuple[str, Answer]] = field(default_factory=dict)

    # -- the account ---------------------------------------------------------------------------------------------------

    async def add(self, customer: Customer, invoice: Invoice, *, card: str | None = "insufficient_funds") -> None:
        smallest = int(invoice.due.scaleb(DECIMALS.get(invoice.currency, 2)))
        parent = {"type": "subscription_details", "subscription_details": {"subscription": invoice.subscription_id}}
        self.invoices[invoice.id] = OBJECTS["invoice"] | {
            "id": invoice.id,
            "number": invoice.number,
            "status": invoice.status,
            "customer": customer.id,
            "parent": parent if invoice.subscription_id else None,
            "amount_due": smallest,
            "amount_remaining": smallest,
            "currency": invoice.currency.lower(),
            "attempt_count": invoice.attempts,
            "hosted_invoice_url": invoice.pay_url,
        }
        self.customers[customer.id] = OBJECTS["customer"] | customer.model_dump()
        if invoice.subscription_id:
            self.subscriptions[invoice.subscription_id] = OBJECTS["subscription"] | {
                "id": invoice.subscription_id,
                "pause_collection": None,
            }
        await self.set_card(customer.id, card)

    async def set_card(self, customer_id: str, declined: str | None) -> None:
        self.cards.pop(customer_id, None)
        if declined:
            self.cards[customer_id] = declined

    async def settle(self, invoice_id: str, status: str = "paid") -> None:
        remaining = 0 if status == "paid" else self.invoices[invoice_id]["amount_remaining"]
        self.invoices[invoice_id] |= {"status": status, "amount_remaining": remaining}

    def writes(self) -> list[str]:
        """The paths that were written to."""
        return [path for method, path, _ in self.requests if method == "POST"]

    # -- the server ----------------------------------------------------------------------------------------------------

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while True:
            head = (await reader.readuntil(b"\r\n\r\n")).decode().split("\r\n")
            method, path, _ = head[0].split()
            headers = {name.lower(): value for name, value in (line.split(": ", 1) for line in head[1:] if line)}
            raw = (await reader.readexactly(int(headers.get("content-length", "0")))).decode()
            key = headers.get("idempotency-key")
            self.requests.append((method, path, key))
            self.versions.add(headers["stripe-version"])
            script = self.failing_payments if path.endswith("/pay") and self.failing_payments else self.failing
            failure = script.pop(0) if script else None
            if failure is None:
                await _send(writer, *self._answer(method, path, raw, key, headers))
                continue
            if failure.after_the_work:
                self._answer(method, path, raw, key, headers)
            answer = (failure.status, {"error": {"type": "api_error", "message": "no"} | failure.error})
            if failure.kept and key:
                self._kept[key] = (path + raw, answer)
            if failure.broken is not None:
                await failure.broken(writer)
                return
            await _send(writer, *answer, failure.headers)

    def _answer(self, method: str, path: str, raw: str, key: str | None, headers: dict[str, str]) -> Answer:
        if headers.get("authorization") != f"Bearer {KEY}":
            return _error(401, "invalid_request_error", "Invalid API Key provided")
        if method == "GET" or key is None:
            return self._done(method, path, raw)
        asked, answer = self._kept.get(key, ("", (0, {})))
        if asked and asked != path + raw:
            return _error(
                400, "idempotency_error", "Keys can only be used with the parameters they were first used with"
            )
        if not asked:
            answer = self._done(method, path, raw)
            self._kept[key] = (path + raw, json.loads(json.dumps(answer)))
        return answer[0], answer[1]

    def _done(self, method: str, path: str, raw: str) -> Answer:
        _, _, kind, name, *verb = path.split("/")
        found = getattr(self, kind, {}).get(name)
        if found is None:
            return _error(404, "invalid_request_error", f"No such {kind[:-1]}: '{name}'", code="resource_missing")
        if verb == ["pay"]:
            return self._paid(found)
        if method == "POST" and kind == "invoices":
            found["metadata"] = {"eventwright_run": parse_qs(raw)["metadata[eventwright_run]"][0]}
        elif method == "POST":
            fields = parse_qs(raw, keep_blank_values=True)
            behaviour = fields.get("pause_collection[behavior]")
            found["pause_collection"] = {"behavior": behaviour[0], "resumes_at": None} if behaviour else None
        return 200, found

    def _paid(self, invoice: dict[str, Any]) -> Answer:
        if invoice["status"] != "open":
            return _error(400, "invalid_request_error", "This invoice is not open")
        invoice["attempt_count"] += 1
        declined = self.cards.get(invoice["customer"])
        if declined:
            message = "Your card was declined."
            return _error(402, "card_error", message, code="card_declined", decline_code=declined)
        invoice |= {"status": "paid", "amount_remaining": 0}
        return 200, invoice


def _error(status: int, kind: str, message: str, **more: str) -> Answer:
    return status, {"error": {"type": kind, "message": message, **more}}


async def _send(
    writer: asyncio.StreamWriter, status: int, body: dict[str, Any], headers: dict[str, str] | None = None
) -> None:
    text = json.dumps(body).encode()
    lines = {"content-type": "application/json", "content-length": str(len(text)), "request-id": "req_1"}
    lines |= headers or {}
    head = f"HTTP/1.1 {status} X\r\n" + "".join(f"{name}: {value}\r\n" for name, value in lines.items())
    writer.write(head.encode() + b"\r\n" + text)
    await writer.drain()


@asynccontextmanager
async def stripe_server() -> AsyncIterator[StripeServer]:
    """An account without anything in it."""
    server = StripeServer()
    async with on_loopback(server.serve) as server.port:
        yield server


@asynccontextmanager
async def client_of(server: StripeServer, *, key: str = KEY, timeout: float = 20.0) -> AsyncIterator[StripeBilling]:
    """The real client of this account."""
    async with StripeBilling.open(key, api_base=f"http://127.0.0.1:{server.port}", timeout=timeout) as billing:
        yield billing


ANN = Customer(id="cus_a", name="Ann", email="ann@example.org")
OWED = Invoice(
    id="in_a",
    number="EW-0001",
    status="open",
    customer_id="cus_a",
    subscription_id="sub_a",
    due=Decimal("49.00"),
    currency="EUR",
    attempts=1,
)
