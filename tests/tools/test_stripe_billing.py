"""Billing: the vendor's library against a server with Stripe's habits, and the embedded ledger by the same promises."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack
from dataclasses import dataclass
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tests.tools.model_provider import cut_off, hang, reset
from tests.tools.stripe_server import ANN, OWED, Failure, StripeServer, client_of, stripe_server

from eventwright.tools import stripe_billing
from eventwright.tools.billing_ledger import BillingLedger
from eventwright.tools.breaker import ProviderDown, Tolerance
from eventwright.tools.contract import Call, NotDone, OutsideGate, Permanent, Resources, Tool, ToolClass, ToolError
from eventwright.tools.mail import Mailer
from eventwright.tools.providers import Providers
from eventwright.tools.reminders import remind
from eventwright.tools.smtp_server import local_smtp
from eventwright.tools.stripe_billing import Billing, Customer, Payment, in_units
from eventwright.tools.stripe_client import StripeAway, StripeBilling, invoice_of

#: Stripe's library hands httpx a form as text, which httpx would rather call `content`.
pytestmark = pytest.mark.filterwarnings("ignore:Use 'content=:DeprecationWarning")


@dataclass
class World:
    """A billing system, and the account behind it, where customers and banks do something."""

    billing: Billing
    account: BillingLedger | StripeServer

    async def perform(self, tool: Tool, key: str = "key-1", *, attempt: int = 1, **arguments: Any) -> Any:
        call = Call(
            run_id="run_1", node="n", idempotency_key=key, attempt=attempt, resources=Resources((self.billing,))
        )
        return await tool.perform(tool.arguments.model_validate_json(json.dumps(arguments)), call)

    async def pay(self, key: str = "key-1", *, attempt: int = 1) -> Payment:
        payment: Payment = await self.perform(stripe_billing.pay_invoice, key, attempt=attempt, invoice_id="in_a")
        return payment


@pytest.fixture(params=["ledger", "stripe"])
async def world(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[World]:
    """An invoice of 49 EUR whose card was declined once, in each of the two systems."""
    async with AsyncExitStack() as stack:
        if request.param == "ledger":
            ledger = await stack.enter_async_context(BillingLedger.open(tmp_path / "billing.db"))
            it = World(ledger, ledger)
        else:
            server = await stack.enter_async_context(stripe_server())
            it = World(await stack.enter_async_context(client_of(server)), server)
        await it.account.add(ANN, OWED)
        yield it


@pytest.fixture
async def server() -> AsyncIterator[StripeServer]:
    async with stripe_server() as it:
        await it.add(ANN, OWED)
        yield it


@pytest.fixture
async def stripe(server: StripeServer) -> AsyncIterator[World]:
    async with client_of(server) as billing:
        yield World(billing, server)


# -- what every billing system promises -----------------------------------------------------------------------------


async def test_what_is_owed_is_read_as_it_is_now(world: World) -> None:
    assert await world.perform(stripe_billing.find_invoice, invoice_id="in_a") == OWED
    await world.account.settle("in_a")
    paid = await world.perform(stripe_billing.find_invoice, invoice_id="in_a")
    assert (paid.status, paid.is_open, paid.due) == ("paid", False, 0)


async def test_who_owes_is_read_with_the_address_that_they_have(world: World) -> None:
    assert await world.perform(stripe_billing.find_customer, customer_id="cus_a") == ANN
    nameless = Customer(id="cus_b", name=None, email=None)
    await world.account.add(nameless, OWED.model_copy(update={"id": "in_b", "customer_id": "cus_b"}))
    assert await world.perform(stripe_billing.find_customer, customer_id="cus_b") == nameless


@pytest.mark.parametrize(
    ("tool", "argument"),
    [
        (stripe_billing.find_invoice, "invoice_id"),
        (stripe_billing.find_customer, "customer_id"),
        (stripe_billing.find_subscription, "subscription_id"),
        (stripe_billing.pay_invoice, "invoice_id"),
        (stripe_billing.pause_subscription, "invoice_id"),
        (stripe_billing.resume_subscription, "subscription_id"),
    ],
)
async def test_what_does_not_exist_is_refused_for_good(world: World, tool: Tool, argument: str) -> None:
    with pytest.raises(Permanent, match="nothing_like_it"):
        await world.perform(tool, **{argument: "nothing_like_it"})


async def test_a_declined_card_is_an_answer_with_the_bank_s_reason(world: World) -> None:
    payment = await world.pay()
    assert payment.declined is not None
    assert payment.declined.code == "insufficient_funds"
    assert (payment.invoice.is_open, payment.invoice.attempts) == (True, 2)


async def test_a_card_that_works_again_pays_the_invoice(world: World) -> None:
    await world.account.set_card("cus_a", None)
    payment = await world.pay()
    assert (payment.declined, payment.invoice.status, payment.invoice.due) == (None, "paid", 0)


async def test_the_same_key_again_is_the_same_attempt_whatever_has_changed_since(world: World) -> None:
    first = await world.pay()
    await world.account.set_card("cus_a", None)
    assert await world.pay() == first
    assert (await world.pay("key-2")).invoice.status == "paid"


async def test_attempts_under_one_key_at_the_same_moment_are_one(world: World) -> None:
    answers = await asyncio.gather(*(world.pay() for _ in range(5)))
    assert {answer.invoice.attempts for answer in answers} == {2}


@pytest.mark.parametrize("status", ["paid", "void", "uncollectible"])
async def test_what_is_settled_is_not_charged_again(world: World, status: str) -> None:
    await world.account.set_card("cus_a", None)
    await world.account.settle("in_a", status)
    payment = await world.pay()
    assert (payment.declined, payment.invoice.status, payment.invoice.attempts) == (None, status, 1)


async def test_a_key_for_another_request_is_refused_for_good(world: World) -> None:
    await world.account.add(ANN, OWED.model_copy(update={"id": "in_b"}))
    await world.pay()
    with pytest.raises(Permanent, match="idempotency key"):
        await world.perform(stripe_billing.pay_invoice, invoice_id="in_b")
    assert (await world.billing.invoice("in_b")).attempts == 1


async def test_of_runs_that_take_an_invoice_on_at_the_same_moment_one_has_it_for_good(world: World) -> None:
    owners = [f"run_{number}" for number in range(5)]
    claimed = await asyncio.gather(*(world.billing.claim("in_a", owner) for owner in owners))
    [owner] = {invoice.owner for invoice in claimed}
    assert owner in owners
    assert (await world.billing.claim("in_a", "run_of_next_week")).owner == owner
    assert (await world.perform(stripe_billing.claim_invoice, invoice_id="in_a")).is_ours == (owner == "run_1")


async def test_the_run_that_has_an_invoice_is_told_so_as_often_as_it_asks(world: World) -> None:
    for _ in range(2):
        claim = await world.perform(stripe_billing.claim_invoice, invoice_id="in_a")
        assert (claim.is_ours, claim.invoice.owner) == (True, "run_1")


async def test_a_mark_that_somebody_took_away_is_not_put_back_by_another_run_at_once(stripe: World) -> None:
    await stripe.billing.claim("in_a", "run_1")
    stripe.account.invoices["in_a"]["metadata"] = {}
    with pytest.raises(NotDone, match="took its mark away"):
        await stripe.billing.claim("in_a", "run_2")


async def test_a_subscription_is_paused_and_resumed_by_the_undo_that_it_names(world: World) -> None:
    tool = stripe_billing.pause_subscription
    for _ in range(2):
        pause = await world.perform(tool, invoice_id="in_a")
        assert pause.paused.is_paused
    assert tool.undo is not None
    await world.perform(tool.undo.tool, "key-2", **tool.undo.arguments({}, pause))
    assert not (await world.perform(stripe_billing.find_subscription, subscription_id="sub_a")).is_paused


async def test_nobody_is_paused_who_has_paid_while_it_was_decided(world: World) -> None:
    await world.account.settle("in_a")
    pause = await world.perform(stripe_billing.pause_subscription, invoice_id="in_a")
    assert (pause.invoice.status, pause.paused) == ("paid", None)
    assert not (await world.billing.subscription("sub_a")).is_paused


async def test_an_invoice_for_no_subscription_pauses_nothing(world: World) -> None:
    await world.account.add(ANN, OWED.model_copy(update={"id": "in_b", "subscription_id": None}))
    assert (await world.perform(stripe_billing.pause_subscription, invoice_id="in_b")).paused is None


@pytest.mark.parametrize(("currency", "due"), [("JPY", "4900"), ("KWD", "4.900"), ("USD", "49.00"), ("ISK", "4900.00")])
async def test_an_amount_is_what_the_customer_owes_in_every_currency(world: World, currency: str, due: str) -> None:
    owed = OWED.model_copy(update={"id": "in_b", "currency": currency, "due": Decimal(due)})
    await world.account.add(ANN, owed)
    assert str((await world.billing.invoice("in_b")).due) == due


async def test_a_reminder_leaves_while_the_invoice_is_open_and_not_after(world: World) -> None:
    async with local_smtp() as smtp:
        clients = Resources((world.billing, Mailer(smtp.url)))
        call = Call(run_id="r", node="n", idempotency_key="k", attempt=1, resources=clients)
        sent = await remind.function("in_a", "ann@example.org", "Your invoice", "Hello", call=call)
        await world.account.settle("in_a")
        kept = await remind.function("in_a", "ann@example.org", "Your invoice", "Hello", call=call)
        assert (sent.status, sent.sent.to) == ("open", "ann@example.org")
        assert (kept.status, kept.sent) == ("paid", None)
        assert len(smtp.messages) == 1


# -- Stripe's own habits -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("failure", "kind"),
    [
        (Failure(429, {"type": "invalid_request_error", "code": "lock_timeout"}), NotDone),
        (Failure(403, {"type": "invalid_request_error"}), Permanent),
        (Failure(400, {"type": "idempotency_error"}), Permanent),
    ],
)
async def test_a_refusal_says_that_nothing_was_done(stripe: World, failure: Failure, kind: type[NotDone]) -> None:
    stripe.account.failing.append(failure)
    with pytest.raises(kind) as raised:
        await stripe.pay()
    assert isinstance(raised.value, Permanent) == (kind is Permanent)


@pytest.mark.parametrize(
    "failure",
    [
        Failure(500),
        Failure(503),
        Failure(409, {"type": "idempotency_error", "code": "idempotency_key_in_use"}),
        Failure(broken=reset),
        Failure(broken=cut_off),
    ],
)
@pytest.mark.parametrize("after", [True, False])
async def test_a_payment_whose_answer_is_lost_is_taken_once_by_the_repeat(
    stripe: World, failure: Failure, after: bool
) -> None:
    await stripe.account.set_card("cus_a", None)
    stripe.account.failing.append(Failure(failure.status, failure.error, broken=failure.broken, after_the_work=after))
    with pytest.raises(ToolError) as raised:
        await stripe.pay()
    assert not isinstance(raised.value, NotDone)

    payment = await stripe.pay(attempt=2)
    assert (payment.invoice.status, payment.invoice.attempts) == ("paid", 2)


async def test_a_failure_of_stripe_s_that_it_repeats_does_not_hide_the_payment(stripe: World) -> None:
    await stripe.account.set_card("cus_a", None)
    stripe.account.failing.append(Failure(500, after_the_work=True, kept=True))
    with pytest.raises(ToolError):
        await stripe.pay()
    assert (await stripe.pay(attempt=2)).invoice.status == "paid"


async def test_an_answer_that_does_not_come_in_time_is_not_called_undone(server: StripeServer) -> None:
    server.failing.append(Failure(broken=hang))
    async with client_of(server, timeout=0.05) as billing:
        with pytest.raises(ToolError, match="unknown") as raised:
            await World(billing, server).pay()
        assert not isinstance(raised.value, NotDone)


async def test_a_stripe_that_nobody_reaches_was_sent_nothing() -> None:
    async with stripe_server() as gone:
        pass
    async with client_of(gone) as billing:
        with pytest.raises(StripeAway):
            await World(billing, gone).pay()


async def test_a_wait_that_stripe_names_is_kept(stripe: World) -> None:
    stripe.account.failing.append(Failure(429, headers={"retry-after": "7"}))
    with pytest.raises(NotDone) as raised:
        await stripe.pay()
    assert raised.value.retry_after == 7.0


async def test_a_key_that_is_not_accepted_is_named_and_not_repeated(server: StripeServer) -> None:
    async with client_of(server, key="rk_test_wrong") as billing:
        with pytest.raises(Permanent, match="EVENTWRIGHT_STRIPE_API_KEY") as raised:
            await billing.invoice("in_a")
    assert "rk_test_wrong" not in str(raised.value)


async def test_an_answer_in_another_shape_is_an_error_and_no_invoice(stripe: World) -> None:
    stripe.account.failing.append(Failure(200, {}))
    with pytest.raises(ToolError, match="not with what was asked for"):
        await stripe.billing.invoice("in_a")


async def test_the_library_itself_tries_nothing_twice_and_asks_for_one_version(stripe: World) -> None:
    stripe.account.failing.append(Failure(503))
    with pytest.raises(ToolError):
        await stripe.pay()
    assert stripe.account.writes() == ["/v1/invoices/in_a/pay"]
    assert len(stripe.account.versions) == 1


async def test_a_stripe_that_stays_away_is_left_alone(stripe: World) -> None:
    stripe.account.failing.extend([Failure(503)] * 2)
    clients = Resources((stripe.billing, Providers(Tolerance(failures=2))))
    call = Call(run_id="r", node="n", idempotency_key="k", attempt=1, resources=clients)
    for kind in (ToolError, ToolError, ProviderDown):
        with pytest.raises(kind):
            await stripe_billing.find_invoice.function("in_a", call=call)
    assert len(stripe.account.requests) == 2


async def test_a_reminder_whose_invoice_cannot_be_read_has_certainly_not_left(stripe: World) -> None:
    stripe.account.failing.append(Failure(500))
    with pytest.raises(NotDone, match="could not be read"):
        await stripe.perform(remind, invoice_id="in_a", to="ann@example.org", subject="s", body="b")


def test_an_invoice_of_an_old_version_of_the_api_is_read_as_well() -> None:
    found = {"id": "in_9", "customer": "cus_a", "amount_remaining": 500, "currency": "jpy", "attempt_count": 3}
    invoice = invoice_of(found | {"subscription": "sub_9", "status": "open"})
    assert (invoice.subscription_id, invoice.due, invoice.attempts) == ("sub_9", Decimal(500), 3)


async def test_a_customer_who_was_deleted_has_neither_name_nor_address(stripe: World) -> None:
    stripe.account.customers["cus_a"] = {"id": "cus_a", "object": "customer", "deleted": True}
    assert await stripe.billing.customer("cus_a") == Customer(id="cus_a", name=None, email=None)


# -- the tools ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("currency", "amount", "units"),
    [("eur", 1250, "12.50"), ("JPY", 1250, "1250"), ("kwd", 1250, "1.250"), ("UGX", 500, "5.00"), ("eur", -5, "-0.05")],
)
def test_the_smallest_unit_is_converted_by_stripe_s_list(currency: str, amount: int, units: str) -> None:
    assert str(in_units(amount, currency)) == units


@given(st.integers(-(2**63), 2**63), st.sampled_from(["EUR", "JPY", "KWD", "UGX", "ISK", "HUF"]))
def test_no_amount_is_rounded(amount: int, currency: str) -> None:
    assert in_units(amount, currency) * {"JPY": 1, "KWD": 1000}.get(currency, 100) == amount


async def test_outside_a_node_nobody_is_charged() -> None:
    with pytest.raises(OutsideGate):
        await stripe_billing.pay_invoice("in_a")


def test_each_tool_says_what_a_repeat_of_it_does() -> None:
    assert stripe_billing.find_invoice.tool_class is ToolClass.READ
    assert stripe_billing.pay_invoice.tool_class is ToolClass.KEYED
    assert stripe_billing.pause_subscription.tool_class is ToolClass.KEYED
    assert remind.tool_class is ToolClass.PLAIN


async def test_the_ledger_begins_with_an_invoice_for_every_account(tmp_path: Path) -> None:
    for _ in range(2):
        async with BillingLedger.open(tmp_path / "billing.db") as ledger:
            small, large = await ledger.invoice("in_122"), await ledger.invoice("in_120")
            assert (small.due, large.due, small.attempts) == (Decimal("49.00"), Decimal("4900.00"), 1)
            assert (await ledger.customer("cus_122")).email == "lachlan.berry.122@example.org"


def test_the_client_is_a_billing_system_as_the_ledger_is() -> None:
    assert issubclass(StripeBilling, Billing)
    assert issubclass(BillingLedger, Billing)
