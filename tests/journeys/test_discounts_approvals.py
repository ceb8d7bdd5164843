"""Who must allow a discount, and who is asked when what was signed is not what was approved."""

from __future__ import annotations

from datetime import timedelta
from decimal import Decimal
from typing import Any

import pytest
from tests.journeys.discounts_world import ADDRESS, Sales
from tests.journeys.stores import ON_ONE_STORE

from eventwright.graphs.discounts import MOST_QUOTES
from eventwright.runs.errors import MayNotDecide
from eventwright.runs.states import Outcome, RunState

DAY = timedelta(days=1)


@ON_ONE_STORE
@pytest.mark.parametrize(
    ("percent", "quantity", "role"),
    [
        ("7", 10, None),
        ("7.01", 10, "sales-manager"),
        ("25", 10, "sales-manager"),
        ("25.01", 10, "sales-director"),
        ("40", 10, "sales-director"),
        # 89 × 319.34 × 7 % is just below what is free, 90 just above; 7 % of half a million asks the director.
        ("7", 89, None),
        ("7", 90, "sales-manager"),
        ("7", 500, "sales-director"),
    ],
)
async def test_human_approval_the_discount_and_what_it_comes_to_say_who_is_asked(
    sales: Sales, percent: str, quantity: int, role: str | None
) -> None:
    await sales.asks(percent=percent, items=[{"sku": "SEAT-PRO", "quantity": quantity}])
    assert [review.roles for review in await sales.reviews()] == ([(role,)] if role else [])
    assert len(await sales.quotes()) == (role is None)


@ON_ONE_STORE
async def test_human_approval_many_small_quotes_to_one_customer_are_a_large_one(sales: Sales) -> None:
    for place in range(MOST_QUOTES + 1):
        await sales.asks(percent="7", items=[{"sku": "SEAT-PRO", "quantity": 10 + place}])
        assert [review.node for review in await sales.reviews()] == (["give"] if place == MOST_QUOTES else [])
    with pytest.raises(MayNotDecide, match="who asked for this call"):
        await sales.decides(by="rita")
    assert len(await sales.quotes()) == MOST_QUOTES
    await sales.decides(by="eve")
    assert len(await sales.quotes()) == MOST_QUOTES + 1


async def test_human_approval_in_a_currency_without_limits_the_director_is_asked(sales: Sales) -> None:
    await sales.asks(percent="1", currency="JPY")
    assert [review.roles for review in await sales.reviews()] == [("sales-director",)]


async def test_human_approval_who_wanted_the_discount_does_not_allow_it(sales: Sales) -> None:
    await sales.asks(percent="15", requested_by="Rita")
    with pytest.raises(MayNotDecide, match="those who may: mona"):
        await sales.decides(by="rita")
    with pytest.raises(MayNotDecide, match="those who may: mona"):
        await sales.decides(by="eve")
    run = await sales.decides(by="mona")
    assert run.state is RunState.WAITING
    assert (await sales.signs()).outcome is Outcome.APPROVED


async def test_human_approval_after_a_no_there_is_no_quote_and_sales_reads_why(sales: Sales) -> None:
    await sales.asks(percent="15")
    await sales.decides("reject", by="mona", comment="last month already")
    assert (await sales.quotes(), await sales.signatures.sent(), sales.mails_to(ADDRESS)) == ([], [], [])
    assert "not allowed by mona: last month already" in sales.market.smtp.messages[-1].body


async def test_human_approval_another_discount_is_priced_anew_and_beyond_the_role_asked_again(sales: Sales) -> None:
    await sales.asks(percent="15")
    [asked] = await sales.reviews()
    await sales.decides("edit", by="mona", arguments={**(asked.arguments or {}), "percent": "30"})
    [again] = await sales.reviews()
    assert again.roles == ("sales-director",)
    await sales.decides(by="dora")
    assert (await sales.envelope()).amount == (await sales.quote()).price.total == Decimal("2345.28")


@ON_ONE_STORE
@pytest.mark.parametrize(
    "change",
    [
        {"items": [{"sku": "SEAT-BASIC", "quantity": 1}]},
        {"customer": "mallory@evil.example"},
        {"currency": "USD"},
        {"percent": "41"},
    ],
)
async def test_human_approval_an_edit_cannot_change_what_was_priced_or_for_whom(
    sales: Sales, change: dict[str, Any]
) -> None:
    await sales.asks(percent="15")
    [asked] = await sales.reviews()
    with pytest.raises(ValueError, match="does not fit"):
        await sales.decides("edit", by="mona", arguments={**(asked.arguments or {}), **change})


@ON_ONE_STORE
@pytest.mark.parametrize("changed", [{"amount": "1.00"}, {"email": "mallory@evil.example"}, {"currency": "JPY"}])
@pytest.mark.parametrize(("answer", "ending"), [("approve", "signed"), ("reject", "disputed")])
async def test_human_approval_what_was_signed_otherwise_than_approved_asks_the_director(
    sales: Sales, changed: dict[str, str], answer: str, ending: str
) -> None:
    await sales.asks()
    await sales.at_the_provider(**changed)
    await sales.signs()
    [asked] = await sales.reviews()
    assert (asked.node, asked.roles) == ("ask_about_difference", ("sales-director",))
    assert next(iter(changed)) in str((asked.arguments or {})["differences"])
    await sales.decides(answer, by="dan")
    assert (await sales.quote()).ending == ending


async def test_human_approval_a_letter_that_the_signature_system_has_lost_asks_the_director(sales: Sales) -> None:
    await sales.asks()
    envelope_id = (await sales.envelope()).id
    await sales.signatures.execute("DELETE FROM envelopes")
    await sales.tells(envelope_id=envelope_id)
    [asked] = await sales.reviews()
    assert (asked.arguments or {})["differences"] == ["the signature system does not know it"]
    await sales.decides("reject", by="dan")
    assert (await sales.quote()).ending == "disputed"


async def test_human_approval_an_event_that_is_not_true_signs_nothing(sales: Sales) -> None:
    await sales.asks()
    for number in range(3):
        run = await sales.tells(id=f"forged-{number}")
        assert run.state is RunState.WAITING
    assert (await sales.quote()).ending is None
    await sales.simulation.pass_time(15 * DAY)
    assert (await sales.quote()).ending == "expired"
    assert len(sales.mails_to(ADDRESS)) == 3
