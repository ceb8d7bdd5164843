"""Who must approve a payment of the invoice workflow, and where its money may go."""

from __future__ import annotations

from decimal import Decimal
from typing import Any

import pytest
from tests.invoice_documents import TEXT, invoice
from tests.journeys.invoice_world import MILL, OURS, Office, order
from tests.journeys.stores import ON_ONE_STORE

from eventwright.graphs.invoices import MOST_PAYMENTS, TIERS
from eventwright.runs.errors import MayNotDecide
from eventwright.runs.states import Outcome, RunState

OTHER = "FR7630006000011234567890189"


# -- approvals ---------------------------------------------------------------------------------------------------------


def of(amount: Decimal, **more: Any) -> tuple[str, str]:
    """An invoice of this amount without VAT due beside it, and the price of its one box."""
    net = amount / Decimal("1.25")
    text = invoice(
        net=f"{net:.2f}", vat=f"{amount - net:.2f}", gross=f"{amount:.2f}", quantity="1", price=f"{net:.2f}", **more
    )
    return text, f"{net:.2f}"


@ON_ONE_STORE
@pytest.mark.parametrize(
    ("amount", "people"),
    [(TIERS["EUR"][0], 0), (TIERS["EUR"][0] + 5, 1), (TIERS["EUR"][1], 1), (TIERS["EUR"][1] + 5, 2)],
)
async def test_the_amount_says_how_many_people_approve_a_payment(office: Office, amount: Decimal, people: int) -> None:
    text, price = of(amount)
    await office.books.add_order(order(boxes="1", price=price))
    async with office.received(xml=text) as run:
        assert len(await run.reviews()) == people
        assert bool(await office.paid()) is (people == 0)
        for name in ("ann", "bob")[:people]:
            await run.approve(by=name)
        assert (await run.run()).state is RunState.COMPLETED
    assert await office.paid() == [(OURS, f"{amount:.2f}")]


async def test_one_person_alone_cannot_approve_what_needs_two(office: Office) -> None:
    text, price = of(TIERS["EUR"][1] + 5)
    await office.books.add_order(order(boxes="1", price=price))
    async with office.received(xml=text) as run:
        await run.approve(by="ann")
        with pytest.raises(MayNotDecide):
            await run.approve(by="Ann ")
        assert await office.paid() == []


@ON_ONE_STORE
async def test_who_brought_an_invoice_in_does_not_approve_its_payment(office: Office) -> None:
    async with office.received(xml=invoice(gross="125.01"), by="mallory") as run:
        with pytest.raises(MayNotDecide, match="who asked for this call"):
            await run.approve(by="Mallory")
        assert await office.paid() == []
        await run.approve(by="dana")
    assert len(await office.paid()) == 1


@ON_ONE_STORE
@pytest.mark.parametrize(
    ("change", "rule"),
    [
        ({"gross": "125.01"}, "BR-CO-15"),
        ({"vat": "27.00", "gross": "127.00"}, "BR-CO-17"),
        ({"order": "PO-8"}, "ORDER-UNKNOWN"),
        ({"quantity": "11"}, "ORDER-QUANTITY"),
        ({"quantity": "9"}, "ORDER-PRICE"),
        ({"net": "104.00", "vat": "26.00", "gross": "130.00"}, "ORDER-TOTAL"),
        ({"seller": "Paper Hill Ltd"}, "SUPPLIER-NAME"),
        ({"vat_id": "123456789", "seller": "Paper Mill Ltd"}, "BR-CO-09"),
    ],
)
async def test_a_mismatch_is_shown_with_rule_place_and_amounts_and_paid_only_by_a_persons_word(
    office: Office, change: dict[str, str], rule: str
) -> None:
    async with office.received(xml=invoice(**change)) as run:  # type: ignore[arg-type]
        [asked] = await run.reviews()
        assert (asked.node, asked.rule and asked.rule["rule"]) == ("book_invoice", "payment")
        assert asked.arguments is not None
        assert any(remark.startswith(f"{rule}, ") for remark in asked.arguments["remarks"])
        assert await office.paid() == []

        assert (await run.approve(by="dana")).outcome is Outcome.APPROVED
    [booked] = await office.books.entries()
    assert sum(one.debit for one in booked.postings) == sum(one.credit for one in booked.postings)
    assert len(await office.paid()) == 1


async def test_a_payment_in_a_currency_without_limits_needs_two_people(office: Office) -> None:
    await office.books.add_order(order(currency="NOK"))
    async with office.received(xml=invoice(currency="NOK")) as run:
        assert len(await run.reviews()) == 2


async def test_an_order_that_is_used_up_while_people_think_is_looked_at_again(office: Office) -> None:
    async with office.received(xml=invoice(number="A-1", seller="Paper Mill Limited")) as slow:
        assert [review.node for review in await slow.reviews()] == ["book_invoice"]
        async with office.received(xml=invoice(number="B-1", issued="2026-09-01")) as quick:
            assert (await quick.run()).outcome is Outcome.AUTO

        await slow.approve()

        [asked] = await slow.reviews()
        assert any(remark.startswith("ORDER-TOTAL") for remark in asked.arguments["remarks"])  # type: ignore[index]
    assert len(await office.paid()) == 1


async def test_many_small_payments_to_one_supplier_are_a_large_one(office: Office) -> None:
    await office.books.add_order(order(boxes="100"))
    for place in range(MOST_PAYMENTS + 1):
        async with office.received(xml=invoice(number=f"S-{place}", issued=f"2026-{place + 1:02}-01")) as run:
            asked = [review.node for review in await run.reviews()]
            assert asked == (["book_invoice"] if place == MOST_PAYMENTS else [])


# -- the account -------------------------------------------------------------------------------------------------------


async def test_another_account_goes_to_a_person_who_lets_the_money_go_to_the_known_one(office: Office) -> None:
    async with office.received(xml=invoice(account=OTHER)) as run:
        [asked] = await run.reviews()
        assert asked.node == "ask_about_account"
        assert asked.arguments == {"account": OURS, "named": [OTHER]}
        await run.approve(by="dana")
        assert (await run.run()).state is RunState.COMPLETED
    assert await office.paid() == [(OURS, "125.00")]


async def test_a_new_account_is_confirmed_by_a_person_and_its_first_payment_approved(office: Office) -> None:
    async with office.received(xml=invoice(account=OTHER)) as run:
        await run.respond({"account": OTHER}, by="dana")
        [asked] = await run.reviews()
        assert asked.node == "book_invoice"
        assert await office.paid() == []
        await run.approve(by="erik")
    assert await office.paid() == [(OTHER, "125.00")]


@pytest.mark.parametrize("text", [TEXT.replace("DE89 3704 0044 0532 0130 00", "FR76 3000 6000 0112 3456 7890 189")])
async def test_another_account_in_a_letter_is_found_too(office: Office, text: str) -> None:
    async with office.received(text=text) as run:
        assert [review.node for review in await run.reviews()] == ["ask_about_account"]
        await run.reject()
    assert await office.paid() == []


async def test_a_supplier_without_an_account_is_not_paid_before_a_person_names_one(office: Office) -> None:
    await office.books.add_supplier(MILL.model_copy(update={"accounts": ()}))
    async with office.received(xml=invoice()) as run:
        [asked] = await run.reviews()
        assert (asked.node, asked.allowed) == ("ask_about_account", ("respond", "reject"))
