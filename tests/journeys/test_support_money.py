"""Refunds of the support workflow: none too many, none twice, none behind somebody's back."""

from __future__ import annotations

from decimal import Decimal
from typing import Any

import pytest
from tests.journeys.support_world import REFUND, Outside, ticket

from eventwright.app.simulate import Simulation, simulate
from eventwright.graphs.support import REFUND_LIMITS, support
from eventwright.graphs.support_rules import the_one_amount
from eventwright.queue.desk import UnfitDecision
from eventwright.queue.intake import EventRefused
from eventwright.runs.event import Event, new_id
from eventwright.runs.records import ReviewKind
from eventwright.runs.states import Outcome, RunState


async def test_a_refund_within_the_limit_is_given_once_and_told_to_the_customer(outside: Outside) -> None:
    event = ticket(REFUND, amount="20.50", currency="GBP")
    async with simulate(support, event, resources=outside.clients) as run:
        assert (await run.run()).outcome is Outcome.AUTO
        [refund] = await outside.refunds()
        assert (refund.amount, refund.currency) == (Decimal("20.50"), "GBP")
        assert "We have given you back 20.50 GBP" in outside.smtp.messages[0].body


@pytest.mark.parametrize(("amount", "currency"), [("85.01", "GBP"), ("100.01", "EUR"), ("110.01", "USD"), ("1", "CHF")])
async def test_nothing_moves_above_the_limit_before_a_person_approves_it(
    outside: Outside, amount: str, currency: str
) -> None:
    event = ticket(REFUND, amount=amount, currency=currency)
    async with simulate(support, event, resources=outside.clients) as run:
        [asked] = await run.reviews()
        assert (asked.kind, asked.node, asked.rule and asked.rule["rule"]) == (
            ReviewKind.APPROVAL,
            "refund",
            "refund_limit",
        )
        assert asked.arguments is not None
        assert (asked.arguments["amount"], asked.arguments["currency"]) == (amount, currency)
        assert await outside.refunds() == []
        assert outside.smtp.messages == []

        assert (await run.approve(by="dana")).outcome is Outcome.APPROVED

        assert [str(refund.amount) for refund in await outside.refunds()] == [amount]
        assert len(outside.smtp.messages) == 1


@pytest.mark.parametrize("currency", REFUND_LIMITS)
async def test_a_refund_of_exactly_the_limit_needs_nobody(outside: Outside, currency: str) -> None:
    event = ticket(REFUND, amount=str(REFUND_LIMITS[currency]), currency=currency)
    async with simulate(support, event, resources=outside.clients) as run:
        assert (await run.run()).outcome is Outcome.AUTO


async def test_a_refused_refund_moves_nothing_and_the_customer_is_told_politely(outside: Outside) -> None:
    event = ticket(REFUND, amount="480.00", currency="GBP")
    async with simulate(support, event, resources=outside.clients) as run:
        done = await run.reject(by="dana", comment="the shop refunds this itself")

        assert (done.state, done.outcome) == (RunState.COMPLETED, Outcome.REJECTED)
        assert await outside.refunds() == []
        assert "We are sorry" in outside.smtp.messages[0].body
        assert "the shop refunds this itself" not in outside.smtp.messages[0].body


async def test_an_edited_amount_is_the_one_that_is_given_and_told(outside: Outside) -> None:
    event = ticket(REFUND, amount="480.00", currency="GBP")
    async with simulate(support, event, resources=outside.clients) as run:
        [asked] = await run.reviews()
        with pytest.raises(UnfitDecision):
            await run.edit({**(asked.arguments or {}), "amount": "-1"})

        done = await run.edit({**(asked.arguments or {}), "amount": "60.00"}, by="dana")

        assert done.outcome is Outcome.EDITED
        assert [refund.amount for refund in await outside.refunds()] == [Decimal("60.00")]
        assert "given you back 60.00 GBP" in outside.smtp.messages[0].body
        assert "480" not in outside.smtp.messages[0].body


async def test_a_second_refund_of_a_customer_is_approved_by_a_person_however_small(outside: Outside) -> None:
    event = ticket(REFUND, amount="5.00", currency="GBP")
    async with simulate(support, event, resources=outside.clients):
        pass
    async with simulate(support, event, resources=outside.clients) as run:
        [asked] = await run.reviews()
        assert asked.node == "repeat_refund"
        assert len(await outside.refunds()) == 1

        await run.approve()

        assert len(await outside.refunds()) == 2


async def test_a_refund_that_was_taken_back_is_none_that_the_customer_had(outside: Outside) -> None:
    event = ticket(REFUND, amount="5.00", currency="GBP")
    async with simulate(support, event, resources=outside.clients) as run:
        undoing = await run.engine.undo(run.run_id, by="olga")
        assert (await Simulation(run.engine, undoing.id, run.clock).go_on()).state is RunState.COMPLETED
    [cancelled] = await outside.refunds()
    assert cancelled.cancelled_at is not None
    async with simulate(support, event, resources=outside.clients) as run:
        assert "repeat_refund" not in {effect.node for effect in await run.effects()}
        assert (await run.run()).state is RunState.COMPLETED
    assert [refund.cancelled_at is None for refund in await outside.refunds()] == [False, True]


async def test_a_refund_without_a_clear_amount_is_asked_back_to_the_customer(outside: Outside) -> None:
    async with simulate(support, ticket(REFUND), resources=outside.clients) as run:
        assert (await run.run()).state is RunState.WAITING
        assert await outside.refunds() == []
        assert "which amount" in outside.smtp.messages[0].body


async def test_the_first_version_of_a_ticket_has_its_amount_in_the_text(outside: Outside) -> None:
    event = Event(
        id=new_id("t"), source="/t", type="ticket.created", version="1", data=ticket(f"{REFUND} It was £20.50.")
    )
    async with simulate(support, event, resources=outside.clients):
        assert [str(refund.amount) for refund in await outside.refunds()] == ["20.50"]


@pytest.mark.parametrize(
    ("text", "amount"),
    [
        ("I want £25 back", ("25", "GBP")),
        ("1,250.00 euros, please", ("1250.00", "EUR")),
        ("EUR 12.50.", ("12.50", "EUR")),
        ("£25, so 25 pounds", ("25", "GBP")),
        ("I paid three times", None),
        ("$40", None),
        ("25,50 EUR", None),
        ("1.234,56 eur", None),
        ("£1.5", None),
        ("£0", None),
        ("£" + "9" * 13, None),
        ("25 pound\u017f", ("25", "GBP")),
        ("25 pounds and 30 GBP", None),
    ],
)
def test_only_one_clear_amount_counts(text: str, amount: tuple[str, str] | None) -> None:
    assert the_one_amount(text) == (amount and (Decimal(amount[0]), amount[1]))


@pytest.mark.parametrize(
    "payload",
    [
        {"text": ""},
        {"text": "x" * 10_001},
        {"sender": "a" * 255},
        {"amount": "20.00"},
        {"amount": "-1", "currency": "GBP"},
        {"amount": "NaN", "currency": "GBP"},
        {"amount": "1.001", "currency": "GBP"},
        {"amount": "1", "currency": "pounds"},
        {"unknown": True},
    ],
)
async def test_a_payload_that_does_not_fit_starts_nothing(outside: Outside, payload: dict[str, Any]) -> None:
    with pytest.raises(EventRefused):
        await simulate(support, {**ticket(), **payload}, resources=outside.clients)
