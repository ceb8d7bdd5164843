"""The story of a failed payment: reminded, tried again, paused; and stopped the moment somebody pays."""

from __future__ import annotations

import copy
from collections.abc import AsyncIterator
from datetime import timedelta
from decimal import Decimal
from pathlib import Path

import pytest
from tests.journeys.dunning_world import ANN, DAY, FAILED, OWED, PAID, Dunning, dunning, stripe_event
from tests.journeys.stores import ON_ONE_STORE

from eventwright.graphs.check import check
from eventwright.graphs.failed_payment_rules import FINAL, PASSING, after_decline, large, letter
from eventwright.graphs.failed_payments import LARGE, LAST, PAUSED, SETTLED, STEPS, WHO_DECIDES, failed_payments
from eventwright.queue.intake import EventRefused
from eventwright.runs.states import RunState
from eventwright.tools.billing_ledger import BillingLedger
from eventwright.tools.stripe_billing import Customer, Payment

#: What a customer hears who never pays.
ALL_SUBJECTS = [*(step.subject for step in STEPS.values()), PAUSED.subject]


@pytest.fixture
async def world(tmp_path: Path, database_url: str) -> AsyncIterator[Dunning]:
    async with dunning(tmp_path, database_url=database_url) as it:
        yield it


# -- the schedule ------------------------------------------------------------------------------------------------------


async def test_who_never_pays_is_reminded_four_times_charged_three_times_more_and_then_paused(world: Dunning) -> None:
    began = world.clock()
    await world.happens(FAILED)
    assert world.subjects == ALL_SUBJECTS[:1]
    await world.pass_time(sum((step.time for step in STEPS.values()), DAY))

    assert world.subjects == ALL_SUBJECTS
    assert (await world.ledger.invoice("in_a")).attempts == LAST
    assert (await world.ledger.subscription("sub_a")).is_paused
    days = [(at - began) // DAY for at, _, _ in world.mailer.sent]
    assert days == [0, 3, 8, 15, 22]
    assert {to for _, to, _ in world.mailer.sent} == {ANN.email}


async def test_who_pays_after_the_pause_has_the_subscription_back(world: Dunning) -> None:
    await world.happens(FAILED)
    await world.pass_time(30 * DAY)
    await world.ledger.settle("in_a")
    await world.happens(PAID, status="paid")

    assert not (await world.ledger.subscription("sub_a")).is_paused
    assert (await world.run()).state is RunState.COMPLETED
    assert world.subjects == ALL_SUBJECTS


async def test_who_never_comes_back_stays_paused_and_the_run_ends(world: Dunning) -> None:
    await world.happens(FAILED)
    await world.pass_time(30 * DAY + PAUSED.time)
    assert (await world.ledger.subscription("sub_a")).is_paused
    assert (await world.run()).state is RunState.COMPLETED


async def test_who_pays_after_the_pause_and_no_event_tells_of_it_has_the_subscription_back_in_the_end(
    world: Dunning,
) -> None:
    await world.happens(FAILED)
    await world.pass_time(30 * DAY)
    await world.ledger.settle("in_a")
    await world.pass_time(PAUSED.time)
    assert not (await world.ledger.subscription("sub_a")).is_paused
    assert (await world.run()).state is RunState.COMPLETED


async def test_what_is_written_off_after_the_pause_stays_paused(world: Dunning) -> None:
    await world.happens(FAILED)
    await world.pass_time(30 * DAY)
    await world.ledger.settle("in_a", "uncollectible")
    await world.happens("invoice.marked_uncollectible", status="uncollectible")
    assert (await world.ledger.subscription("sub_a")).is_paused
    assert (await world.run()).state is RunState.COMPLETED


async def test_a_card_that_works_again_is_charged_by_schedule_and_nothing_more_is_said(world: Dunning) -> None:
    await world.happens(FAILED)
    await world.ledger.set_card("cus_a", None)
    await world.pass_time(30 * DAY)
    assert (await world.ledger.invoice("in_a")).status == "paid"
    assert world.subjects == ALL_SUBJECTS[:1]
    assert (await world.run()).state is RunState.COMPLETED


async def test_attempts_that_stripe_makes_by_itself_count_and_are_not_made_twice(world: Dunning) -> None:
    await world.happens(FAILED)
    await world.ledger.pay("in_a", idempotency_key="stripe's own")
    await world.happens(FAILED, attempt_count=2)
    await world.pass_time(4 * DAY)
    assert world.subjects == ALL_SUBJECTS[:2]
    assert (await world.ledger.invoice("in_a")).attempts == 2


async def test_a_card_that_will_never_work_again_is_not_charged_and_the_customer_is_told(world: Dunning) -> None:
    await world.ledger.set_card("cus_a", "stolen_card")
    await world.happens(FAILED)
    await world.pass_time(30 * DAY)
    assert (await world.ledger.invoice("in_a")).attempts == 2
    assert world.subjects == ALL_SUBJECTS
    assert "give us another one" in world.smtp.messages[1].body
    assert "give us another one" not in world.smtp.messages[0].body


# -- paid --------------------------------------------------------------------------------------------------------------


@ON_ONE_STORE
@pytest.mark.parametrize("kind", SETTLED)
async def test_a_payment_ends_it_at_once_by_whichever_event_it_is_told(world: Dunning, kind: str) -> None:
    await world.happens(FAILED)
    await world.pass_time(DAY)
    await world.ledger.settle("in_a")
    await world.happens(kind, status="paid")
    assert (await world.run()).state is RunState.COMPLETED
    await world.pass_time(90 * DAY)
    assert world.subjects == ALL_SUBJECTS[:1]


async def test_a_failure_that_arrives_after_its_payment_is_answered_by_nothing(world: Dunning) -> None:
    await world.ledger.settle("in_a")
    await world.happens(PAID, status="paid")
    assert world.runs == []
    await world.happens(FAILED)
    assert (await world.run()).state is RunState.COMPLETED
    assert world.subjects == []


async def test_a_payment_of_which_no_event_tells_is_found_before_the_next_reminder(world: Dunning) -> None:
    await world.happens(FAILED)
    await world.ledger.settle("in_a")
    await world.pass_time(90 * DAY)
    assert world.subjects == ALL_SUBJECTS[:1]
    assert (await world.ledger.invoice("in_a")).attempts == 1


async def test_an_event_that_says_paid_of_an_invoice_that_is_not_changes_nothing(world: Dunning) -> None:
    await world.happens(FAILED)
    await world.pass_time(DAY)
    await world.happens(PAID, status="paid")
    assert (await world.run()).state is RunState.WAITING
    assert (await world.ledger.invoice("in_a")).attempts == 1
    await world.pass_time(4 * DAY)
    assert world.subjects == ALL_SUBJECTS[:2]


async def test_an_event_that_is_not_true_does_not_end_the_way_back_after_the_pause(world: Dunning) -> None:
    await world.happens(FAILED)
    await world.pass_time(30 * DAY)
    await world.happens(PAID, status="paid")  # nothing was paid
    assert (await world.run()).state is RunState.WAITING
    await world.ledger.settle("in_a")
    await world.happens(PAID, status="paid")

    assert not (await world.ledger.subscription("sub_a")).is_paused
    assert (await world.run()).state is RunState.COMPLETED


class SlowBank(BillingLedger):
    """Charges by transfers that do not arrive."""

    async def pay(self, invoice_id: str, *, idempotency_key: str) -> Payment:
        return Payment(invoice=await self.invoice(invoice_id))


async def test_nobody_is_paused_without_the_last_warning_because_a_transfer_was_under_way(
    tmp_path: Path, database_url: str
) -> None:
    async with dunning(tmp_path, database_url=database_url, kind=SlowBank) as world:
        await world.happens(FAILED)
        await world.pass_time(STEPS[1].time)
        assert world.subjects == ALL_SUBJECTS[:1]  # it may arrive yet
        await world.pass_time(60 * DAY)
        assert world.subjects == ALL_SUBJECTS


async def test_events_about_other_invoices_are_other_people_s(world: Dunning) -> None:
    await world.ledger.add(ANN, OWED.model_copy(update={"id": "in_b"}))
    await world.happens(FAILED)
    await world.happens(FAILED, invoice_id="in_b")
    await world.ledger.settle("in_b")
    await world.happens(PAID, invoice_id="in_b", status="paid")
    states = [(await world.run(number)).state for number in range(2)]
    assert states == [RunState.WAITING, RunState.COMPLETED]


# -- what comes in -----------------------------------------------------------------------------------------------------


async def test_every_version_of_stripe_s_api_is_understood(world: Dunning) -> None:
    assert stripe_event(FAILED).version == "2026-10-28.endive"
    await world.happens(FAILED)
    assert (await world.run()).state is RunState.WAITING


async def test_an_event_that_is_about_no_invoice_is_refused_and_kept(world: Dunning) -> None:
    with pytest.raises(EventRefused):
        await world.happens(FAILED, object="charge")
    assert world.runs == []


async def test_an_invoice_that_stripe_does_not_know_is_a_dead_letter(world: Dunning) -> None:
    await world.happens(FAILED, invoice_id="in_of_somebody_else")
    run = await world.run()
    assert (run.state, world.subjects) == (RunState.FAILED, [])
    assert "in_of_somebody_else" in (run.error or "")


# -- the rules ---------------------------------------------------------------------------------------------------------


def test_the_declaration_has_no_findings() -> None:
    assert check(failed_payments) == []


def test_everybody_who_may_be_asked_is_named() -> None:
    assert set(WHO_DECIDES) < set(failed_payments.graph.nodes)


def test_the_page_about_the_workflow_shows_it_as_it_is() -> None:
    page = (Path(__file__).parents[2] / "docs" / "failed-payments.md").read_text()
    mermaid = copy.copy(failed_payments.graph).compile().get_graph().draw_mermaid()
    assert page.partition("```mermaid\n")[2].partition("```")[0].split() == mermaid.split()
    for node in failed_payments.graph.nodes:
        row = next(line for line in page.splitlines() if line.startswith(f"| `{node}` | ") and line.count("|") == 5)
        assert WHO_DECIDES.get(node, "") in row
    for attempt, step in STEPS.items():
        assert f"| {attempt} | “{step.subject}” | {step.time.days} days |" in page
    for kind, sentence in failed_payments.exceptions or ():
        assert f"| {kind.replace('_', ' ')} | {sentence} |" in page
    for currency, limit in LARGE.items():
        assert f"{limit} {currency}" in page


def test_the_steps_are_all_attempts_and_none_takes_no_time() -> None:
    assert list(STEPS) == [1, 2, 3, 4]
    assert all(step.time >= timedelta(days=1) for step in STEPS.values())


def test_no_reason_of_a_bank_s_is_both_passing_and_final() -> None:
    assert not PASSING & FINAL
    assert [after_decline(code) for code in ("insufficient_funds", "lost_card", "a_new_word")] == [
        "again",
        "never",
        "unclear",
    ]


def test_a_large_account_is_one_above_the_limit_or_in_a_currency_without_one() -> None:
    assert large(Decimal("1000.00"), "EUR", LARGE) is None
    assert "above the limit" in (large(Decimal("1000.01"), "EUR", LARGE) or "")
    assert "no limit for JPY" in (large(Decimal(1), "JPY", LARGE) or "")


def test_a_letter_says_the_amount_in_the_currency_s_own_unit_and_breaks_no_line_for_a_name() -> None:
    invoice = {
        "number": None,
        "id": "in_a",
        "due": "1.250",
        "currency": "KWD",
        "pay_url": "https://invoice.stripe.com/i/1",
    }
    customer = Customer(id="cus_a", name="Ann\n\nYour account is closed", email=None)
    text = letter(STEPS[1].text, invoice, customer.name, card="again", days=3)
    assert "1.250 KWD for invoice in_a" in text
    assert "Hello Ann Your account is closed," in text
    assert "https://invoice.stripe.com/i/1" in text
