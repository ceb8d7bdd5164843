"""The discounts workflow as it goes when all is well: a quote, a role, a signature."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import AsyncExitStack
from decimal import Decimal
from pathlib import Path

import pytest
from tests.journeys.discounts_world import ADDRESS, Sales, sales
from tests.tools.signature_provider import TOKEN, signature_provider

from eventwright.graphs.discounts import SALES_DESK
from eventwright.runs.states import Outcome, RunState
from eventwright.tools.pricing import RULES, PriceList
from eventwright.tools.signatures import HttpSignatures


@pytest.fixture
async def office(tmp_path: Path, database_url: str) -> AsyncIterator[Sales]:
    async with sales(tmp_path, database_url) as it:
        yield it


async def test_a_quote_within_the_free_discount_goes_out_by_itself_and_is_signed(office: Sales) -> None:
    run = await office.asks()
    assert run.state is RunState.WAITING
    quote, envelope = await office.quote(), await office.envelope()
    assert (quote.price.total, quote.grounds) == (Decimal("3182.88"), "loyalty")
    assert (envelope.amount, envelope.currency, envelope.reference) == (quote.price.total, "EUR", quote.id)
    assert (envelope.email, envelope.name) == (ADDRESS, "Ann Miller")

    run = await office.signs()

    assert (run.state, run.outcome) == (RunState.COMPLETED, Outcome.AUTO)
    assert (await office.quote()).ending == "signed"
    assert office.mails_to(ADDRESS) == [f"Your quote {quote.id[-8:]}"]
    assert len(office.mails_to(SALES_DESK)) == 1
    assert "was signed" in office.market.workspace.messages[0]["text"]


async def test_the_quote_says_by_which_rules_and_which_list_it_was_priced(office: Sales) -> None:
    await office.asks()
    price = (await office.quote()).price
    assert (price.rules, price.price_list) == (RULES, PriceList.packaged().label)
    [document] = await office.signatures.execute("SELECT document FROM envelopes")
    assert price.price_list in document["document"]


async def test_a_quote_without_a_discount_asks_no_model(office: Sales) -> None:
    await office.asks(discount={})
    assert (await office.quote()).price.discount == 0
    assert await office.effects("model.ask") == []


async def test_a_discount_that_the_manager_allows_is_signed_as_approved(office: Sales) -> None:
    await office.asks(percent="20")
    [asked] = await office.reviews()
    assert (asked.question, asked.roles) == ("May this discount be given?", ("sales-manager",))
    assert "20 % (670.08 EUR) for loyalty; free are 7 %" in asked.evidence["reason"]
    assert "Acme GmbH, anvils, DE, 250 people" in (asked.arguments or {})["company"]
    await office.decides(by="mona")
    assert (await office.signs()).outcome is Outcome.APPROVED
    assert (await office.quote()).price.percent == Decimal(20)


async def test_who_declines_is_not_reminded_and_sales_reads_why(office: Sales) -> None:
    await office.asks()
    await office.signatures.decline((await office.envelope()).id, "too expensive")
    run = await office.tells("quote.declined")
    assert (run.state, (await office.quote()).ending) == (RunState.COMPLETED, "declined")
    assert "was declined: too expensive" in office.market.smtp.messages[-1].body
    assert len(office.mails_to(ADDRESS)) == 1


async def test_a_letter_that_was_taken_back_at_the_provider_is_withdrawn(office: Sales) -> None:
    await office.asks()
    await office.signatures.void((await office.envelope()).id, "sent by mistake")
    await office.tells("quote.declined")
    assert (await office.quote()).ending == "withdrawn"


async def test_two_quotes_wait_side_by_side_and_each_gets_its_own_signature(office: Sales) -> None:
    first = await office.asks()
    second = await office.asks(percent="0")
    waiting, signed = await office.signatures.sent()
    await office.signatures.sign(signed.id)
    assert (await office.tells(envelope_id=signed.id)).id == second.id
    assert [quote.ending for quote in await office.quotes()] == [None, "signed"]
    assert (await office.engine.store.run(first.id)).state is RunState.WAITING
    assert (await office.signatures.read(waiting.id) or signed).status == "sent"


async def test_with_a_provider_of_signatures_it_goes_the_same_way(tmp_path: Path, database_url: str) -> None:
    async with AsyncExitStack() as stack:
        provider = await stack.enter_async_context(signature_provider())
        system = await stack.enter_async_context(HttpSignatures.open(provider.url, token=TOKEN, seconds=5))
        office = await stack.enter_async_context(sales(tmp_path, database_url, system))
        await office.asks()
        quote = await office.quote()
        assert quote.price.price_list in provider.envelopes["env-1"]["text"]
        await provider.sign("env-1")
        run = await office.tells(envelope_id="env-1")
        assert (run.state, (await office.quote()).ending) == (RunState.COMPLETED, "signed")
