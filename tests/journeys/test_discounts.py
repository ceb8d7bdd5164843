"""The discounts workflow as it goes when all is well: a quote, a role, a signature."""

from __future__ import annotations

from decimal import Decimal

from tests.journeys.discounts_world import ADDRESS, Sales
from tests.tools.signature_provider import SignatureProvider

from eventwright.graphs.discounts import SALES_DESK
from eventwright.runs.states import Outcome, RunState
from eventwright.tools.pricing import RULES, PriceList


async def test_a_quote_within_the_free_discount_goes_out_by_itself_and_is_signed(sales: Sales) -> None:
    run = await sales.asks()
    assert run.state is RunState.WAITING
    quote, envelope = await sales.quote(), await sales.envelope()
    assert (quote.price.total, quote.grounds) == (Decimal("3182.88"), "loyalty")
    assert (envelope.amount, envelope.currency, envelope.reference) == (quote.price.total, "EUR", quote.id)
    assert (envelope.email, envelope.name) == (ADDRESS, "Ann Miller")

    run = await sales.signs()

    assert (run.state, run.outcome) == (RunState.COMPLETED, Outcome.AUTO)
    assert (await sales.quote()).ending == "signed"
    assert sales.mails_to(ADDRESS) == [f"Your quote {quote.id[-8:]}"]
    assert len(sales.mails_to(SALES_DESK)) == 1
    assert "was signed" in sales.market.workspace.messages[0]["text"]


async def test_the_quote_says_by_which_rules_and_which_list_it_was_priced(sales: Sales) -> None:
    await sales.asks()
    price = (await sales.quote()).price
    assert (price.rules, price.price_list) == (RULES, PriceList.packaged().label)
    [document] = await sales.signatures.execute("SELECT document FROM envelopes")
    assert price.price_list in document["document"]


async def test_a_quote_without_a_discount_asks_no_model(sales: Sales) -> None:
    await sales.asks(discount={})
    assert (await sales.quote()).price.discount == 0
    assert await sales.effects("model.ask") == []


async def test_a_discount_that_the_manager_allows_is_signed_as_approved(sales: Sales) -> None:
    await sales.asks(percent="20")
    [asked] = await sales.reviews()
    assert (asked.question, asked.roles) == ("May this discount be given?", ("sales-manager",))
    assert "20 % (670.08 EUR) for loyalty; free are 7 %" in asked.evidence["reason"]
    assert "Acme GmbH, anvils, DE, 250 people" in (asked.arguments or {})["company"]
    await sales.decides(by="mona")
    assert (await sales.signs()).outcome is Outcome.APPROVED
    assert (await sales.quote()).price.percent == Decimal(20)


async def test_who_declines_is_not_reminded_and_sales_reads_why(sales: Sales) -> None:
    await sales.asks()
    await sales.signatures.decline((await sales.envelope()).id, "too expensive")
    run = await sales.tells("quote.declined")
    assert (run.state, (await sales.quote()).ending) == (RunState.COMPLETED, "declined")
    assert "was declined: too expensive" in sales.market.smtp.messages[-1].body
    assert len(sales.mails_to(ADDRESS)) == 1


async def test_a_letter_that_was_taken_back_at_the_provider_is_withdrawn(sales: Sales) -> None:
    await sales.asks()
    await sales.signatures.void((await sales.envelope()).id, "sent by mistake")
    await sales.tells("quote.declined")
    assert (await sales.quote()).ending == "withdrawn"


async def test_two_quotes_wait_side_by_side_and_each_gets_its_own_signature(sales: Sales) -> None:
    first = await sales.asks()
    second = await sales.asks(percent="0")
    waiting, signed = await sales.signatures.sent()
    await sales.signatures.sign(signed.id)
    assert (await sales.tells(envelope_id=signed.id)).id == second.id
    assert [quote.ending for quote in await sales.quotes()] == [None, "signed"]
    assert (await sales.engine.store.run(first.id)).state is RunState.WAITING
    assert (await sales.signatures.read(waiting.id) or signed).status == "sent"


async def test_with_a_provider_of_signatures_it_goes_the_same_way(abroad: tuple[Sales, SignatureProvider]) -> None:
    sales, provider = abroad
    await sales.asks()
    quote = await sales.quote()
    assert quote.price.price_list in provider.envelopes["env-1"]["text"]
    await provider.sign("env-1")
    run = await sales.tells(envelope_id="env-1")
    assert (run.state, (await sales.quote()).ending) == (RunState.COMPLETED, "signed")
