"""A failed payment as Stripe tells of it: a signed request at the HTTP door begins the run, anything else nothing."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import AsyncExitStack
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

import httpx
import pytest
from tests.journeys.dunning_world import ANN, OWED
from tests.senders import PAYMENT_FAILED, STRIPE

from eventwright.app.composition import App, open_app
from eventwright.app.settings import Settings
from eventwright.app.web.api import create_api
from eventwright.graphs.failed_payments import STEPS, failed_payments
from eventwright.runs.states import RunState
from eventwright.tools.billing_ledger import BillingLedger
from eventwright.tools.mail import Mailer
from eventwright.tools.smtp_server import LocalSmtp, local_smtp

INVOICE_ID = PAYMENT_FAILED["data"]["object"]["id"]


@dataclass
class Door:
    """An App with the workflow, Stripe before it, and the customers' mailboxes behind it."""

    app: App
    client: httpx.AsyncClient
    smtp: LocalSmtp

    async def stripe_tells(self, secret: str = STRIPE.secret) -> httpx.Response:
        headers = STRIPE.headers(datetime.now(UTC), secret)
        return await self.client.post("/v1/webhooks/stripe", content=STRIPE.body, headers=headers)


@pytest.fixture
async def door(tmp_path: Path, sqlite_url: str, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Door]:
    monkeypatch.setenv("EVENTWRIGHT_WEBHOOK_STRIPE_SECRET", STRIPE.secret)
    settings = Settings(home=tmp_path, database_url=sqlite_url, redis_url="none")
    async with AsyncExitStack() as stack:
        ledger = await stack.enter_async_context(BillingLedger.open(tmp_path / "billing.db"))
        await ledger.add(ANN, OWED.model_copy(update={"id": INVOICE_ID}), card="insufficient_funds")
        smtp = await stack.enter_async_context(local_smtp())
        clients = (ledger, Mailer(smtp.url))
        app = await stack.enter_async_context(
            open_app(settings, workflows=[failed_payments], resources=clients, rings=False)
        )
        transport = httpx.ASGITransport(app=create_api(app))
        client = await stack.enter_async_context(httpx.AsyncClient(transport=transport, base_url="http://localhost"))
        yield Door(app, client, smtp)


async def test_a_failed_payment_that_stripe_has_not_signed_begins_nothing(door: Door) -> None:
    assert (await door.stripe_tells(secret="whsec_somebody_else")).status_code == 401
    assert await door.app.store.runs(limit=1) == []


async def test_a_failed_payment_that_stripe_tells_twice_begins_one_run_which_reminds_the_customer_and_waits(
    door: Door,
) -> None:
    answers = [await door.stripe_tells() for _ in range(2)]
    assert [answer.status_code for answer in answers] == [202, 202]
    [run] = await door.app.store.runs(limit=2)
    assert {answer.json()["events"][0]["runs"][0]["id"] for answer in answers} == {run.id}
    assert run.workflow == failed_payments.name

    assert await door.app.engine.advance(run.id) is RunState.WAITING
    [mail] = door.smtp.messages
    assert (mail.to, mail.subject) == (ANN.email, STEPS[1].subject)
