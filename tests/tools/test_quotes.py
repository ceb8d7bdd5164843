"""The quote book: one quote for one key, at the price of its day, with one ending."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest

from eventwright.tools import quotes
from eventwright.tools.contract import Call, OutsideGate, Permanent, Resources, ToolClass
from eventwright.tools.pricing import Item, PriceList
from eventwright.tools.quotes import Quote, QuoteBook

LIST = PriceList.packaged()
WANTED: dict[str, Any] = {
    "customer": "ann@example.org",
    "items": [Item(sku="SEAT-PRO", quantity=10)],
    "currency": "EUR",
    "percent": Decimal(10),
    "reason": "ten years with us",
    "grounds": "loyalty",
    "company": "Acme, 250 people",
    "company_is_known": True,
}


@pytest.fixture
async def book(tmp_path: Path) -> AsyncIterator[QuoteBook]:
    async with QuoteBook.open(tmp_path / "quotes.db") as book:
        yield book


async def give(book: QuoteBook, key: str = "key-1", prices: PriceList = LIST, **changes: Any) -> Quote:
    call = Call(run_id="run_1", node="give", idempotency_key=key, attempt=1, resources=Resources((book, prices)))
    quote: Quote = await quotes.give.perform(quotes.give.arguments.model_validate(WANTED | changes), call)
    return quote


async def test_outside_a_node_nothing_is_quoted() -> None:
    with pytest.raises(OutsideGate, match=r"quotes\.give"):
        await quotes.give(**WANTED)


async def test_the_same_key_again_is_the_first_quote_at_the_first_price(book: QuoteBook) -> None:
    first = await give(book)
    assert first.price.total == Decimal("3015.36")
    half_price = LIST.model_copy(
        update={
            "version": "later",
            "products": tuple(
                one.model_copy(update={"prices": {name: price / 2 for name, price in one.prices.items()}})
                for one in LIST.products
            ),
        }
    )
    assert await give(book, prices=half_price) == first
    assert (await give(book, key="key-2", prices=half_price)).price.total < first.price.total


@pytest.mark.parametrize(
    "change",
    [
        {"customer": "bob@example.org"},
        {"items": [Item(sku="SEAT-PRO", quantity=11)]},
        {"currency": "USD"},
        {"percent": Decimal(11)},
        {"reason": "because"},
        {"grounds": "other"},
    ],
)
async def test_the_same_key_for_another_quote_is_refused_for_good(book: QuoteBook, change: dict[str, Any]) -> None:
    await give(book)
    with pytest.raises(Permanent, match="something else"):
        await give(book, **change)


async def test_calls_with_one_key_at_the_same_moment_make_one_quote(book: QuoteBook) -> None:
    found = await asyncio.gather(*(give(book) for _ in range(8)))
    assert len({quote.id for quote in found}) == 1


async def test_a_quote_comes_to_one_end(book: QuoteBook) -> None:
    quote = await give(book)
    assert (quote.ending, quote.ended_at) == (None, None)
    signed = await book.end(quote.id, "signed")
    assert signed.ending == "signed"
    assert signed.ended_at is not None
    assert await book.end(quote.id, "signed") == signed == await book.find(quote.id)
    with pytest.raises(Permanent, match="was signed"):
        await book.end(quote.id, "expired")


async def test_of_a_quote_that_never_was_nothing_becomes(book: QuoteBook) -> None:
    assert await book.find("quo_none") is None
    with pytest.raises(Permanent, match="no quote"):
        await book.end("quo_none", "signed")


async def test_what_was_said_of_the_company_is_no_part_of_the_quote(book: QuoteBook) -> None:
    first = await give(book)
    assert await give(book, company="unknown", company_is_known=False, percent=Decimal("10.00")) == first


@pytest.mark.parametrize("ending", ["expired", "withdrawn", "disputed"])
async def test_a_quote_that_came_to_an_end_is_honoured_once_and_keeps_its_ending(
    book: QuoteBook, ending: quotes.Ending
) -> None:
    quote = await give(book)
    await book.end(quote.id, ending)
    revived = await book.revive(quote.id)
    assert (revived.ending, revived.revived_at is not None) == (ending, True)
    assert await book.revive(quote.id) == revived == await book.find(quote.id)


async def test_an_open_a_signed_or_a_declined_quote_is_not_revived(book: QuoteBook) -> None:
    with pytest.raises(Permanent, match="not in the book"):
        await book.revive("quo_none")
    for ending in (None, "signed", "declined"):
        quote = await give(book, key=f"key-{ending}")
        if ending:
            await book.end(quote.id, ending)
        with pytest.raises(Permanent, match=ending or "open"):
            await book.revive(quote.id)


def test_giving_and_ending_a_quote_are_keyed_writes() -> None:
    classes = [tool.tool_class for tool in (quotes.give, quotes.end, quotes.revive, quotes.find)]
    assert classes == [ToolClass.KEYED, ToolClass.KEYED, ToolClass.KEYED, ToolClass.READ]
    assert quotes.give.undo is not None
