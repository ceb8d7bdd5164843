"""What the failed payments deal with outside, for their tests: a ledger, a mail server, and time that passes."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from pathlib import Path
from typing import Any

from tests.tools.stripe_server import OBJECTS

from eventwright.app.simulate import SimulatedClock, simulator
from eventwright.graphs.failed_payments import failed_payments
from eventwright.graphs.workflow import Workflow
from eventwright.queue.engine import Engine
from eventwright.queue.intake import Receipt
from eventwright.queue.webhook_providers import Delivery, provider_of
from eventwright.queue.webhooks import Verified
from eventwright.runs.event import Event, new_id
from eventwright.runs.records import Decision, DecisionType, Review, ReviewState, Run
from eventwright.tools.billing_ledger import BillingLedger
from eventwright.tools.mail import Mailer, Sent
from eventwright.tools.smtp_server import LocalSmtp, local_smtp
from eventwright.tools.stripe_billing import Customer, Invoice

FAILED, PAID = "invoice.payment_failed", "invoice.paid"
ANN = Customer(id="cus_a", name="Ann", email="ann@example.org")
OWED = Invoice(
    id="in_a",
    number="EW-0001",
    status="open",
    customer_id=ANN.id,
    subscription_id="sub_a",
    due=Decimal("49.00"),
    currency="EUR",
    attempts=1,
)
DAY = timedelta(days=1)


def stripe_event(kind: str, event_id: str | None = None, *, invoice_id: str = OWED.id, **about: Any) -> Event:
    """An event as the webhook door makes it of what Stripe sends."""
    invoice = OBJECTS["invoice"] | {"id": invoice_id, "status": "open", "attempt_count": 1} | about
    body = OBJECTS["event"] | {"id": event_id or new_id("evt"), "type": kind, "api_version": "2026-10-28.endive"}
    verified = Verified(message_id=None, timestamp=datetime.now(UTC))
    raw = json.dumps(body | {"data": {"object": invoice}}).encode()
    delivery = Delivery(source="stripe", raw=raw, headers={}, verified=verified, parse=json.loads)
    [event] = provider_of("stripe").tell(delivery).events
    assert isinstance(event, Event)
    return event


class TimedMailer(Mailer):
    """Keeps when each mail was handed over, by the simulated clock."""

    clock: Callable[[], datetime]

    def __init__(self, url: str) -> None:
        super().__init__(url)
        self.sent: list[tuple[datetime, str, str]] = []

    async def send(self, to: str, subject: str, body: str, *, idempotency_key: str) -> Sent:
        sent = await super().send(to, subject, body, idempotency_key=idempotency_key)
        self.sent.append((self.clock(), to, subject))
        return sent


@dataclass
class Dunning:
    """Everything that is outside, and the engine inside."""

    engine: Engine
    clock: SimulatedClock
    ledger: BillingLedger
    smtp: LocalSmtp
    mailer: TimedMailer
    runs: list[str] = field(default_factory=list)

    async def receive(self, event: Event) -> Receipt:
        """The event comes in; nothing is worked on yet."""
        receipt = await self.engine.receive(event)
        self.runs.extend(run.id for run in receipt.runs if run.id not in self.runs)
        return receipt

    async def happens(self, kind: str, event_id: str | None = None, **about: Any) -> Receipt:
        """Stripe tells of it, and everything that is due is done."""
        receipt = await self.receive(stripe_event(kind, event_id, **about))
        await self.work()
        return receipt

    async def work(self) -> None:
        """Do everything that is due now."""
        while True:
            await self.engine.tick()
            due = await self.engine.store.due_runs(limit=100)
            if not due:
                return
            for run_id, _ in due:
                await self.engine.advance(run_id)

    async def pass_time(self, span: timedelta) -> None:
        """Let time pass, and do everything when it is due."""
        end = self.clock() + span
        while (moment := await self.engine.store.next_due()) is not None and moment <= end:
            self.clock.pass_until(moment)
            await self.work()
        self.clock.pass_until(end)
        await self.work()

    async def run(self, number: int = 0) -> Run:
        return await self.engine.store.run(self.runs[number])

    async def reviews(self) -> list[Review]:
        return await self.engine.store.reviews(state=ReviewState.OPEN, run_ids=self.runs)

    async def decide(self, answer: str, response: Any = None, *, by: str = "dana") -> None:
        """Decide the one review that is open."""
        [review] = await self.reviews()
        await self.engine.decide(review.id, Decision(type=DecisionType(answer), by=by, response=response))
        await self.work()

    @property
    def subjects(self) -> list[str]:
        """Of the mails that were sent, in their order."""
        return [subject for _, _, subject in self.mailer.sent]


@asynccontextmanager
async def dunning(
    folder: Path,
    *,
    database_url: str | None = None,
    customer: Customer = ANN,
    invoice: Invoice = OWED,
    card: str | None = "insufficient_funds",
    workflow: Workflow = failed_payments,
    resources: tuple[object, ...] = (),
    kind: type[BillingLedger] = BillingLedger,
) -> AsyncIterator[Dunning]:
    """A customer whose payment failed once.

    Args:
        resources: further clients for the tools; of one class the last one counts.
        kind: of ledger.
    """
    async with AsyncExitStack() as stack:
        ledger = await stack.enter_async_context(kind.open(folder / f"{new_id('billing')}.db"))
        smtp = await stack.enter_async_context(local_smtp())
        mailer = TimedMailer(smtp.url)
        engine, clock = await stack.enter_async_context(
            simulator(workflow, resources=(ledger, mailer, *resources), database_url=database_url)
        )
        ledger.clock = mailer.clock = clock
        await ledger.add(customer, invoice, card=card)
        yield Dunning(engine, clock, ledger, smtp, mailer)
