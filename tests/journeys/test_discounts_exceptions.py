"""The exceptions of the discounts that are not a person's approval: what happens in each, and who decides."""

from __future__ import annotations

import math
from datetime import timedelta
from decimal import Decimal
from typing import Any

import pytest
from tests.journeys.discounts_world import ADDRESS, Sales, request
from tests.journeys.stores import ON_ONE_STORE
from tests.tools.model_provider import Reply, http, reset
from tests.tools.signature_provider import SignatureProvider
from tests.tools.vendors import Trouble

from eventwright.graphs.discounts import MOST_PERCENT, SALES_DESK, discounts
from eventwright.queue.intake import EventRefused
from eventwright.runs.errors import MayNotDecide
from eventwright.runs.event import Event
from eventwright.runs.records import EffectState, ReviewKind
from eventwright.runs.states import Outcome, Reason, RunState

DAY = timedelta(days=1)


def test_the_workflow_says_what_happens_in_each_of_the_seven() -> None:
    assert discounts.exceptions is not None
    assert discounts.exceptions.empty == ()


# -- missing data ------------------------------------------------------------------------------------------------------


@ON_ONE_STORE
@pytest.mark.parametrize("email", [None, "", "ann at acme"])
async def test_missing_data_without_an_address_a_person_says_where_the_quote_goes(
    sales: Sales, email: str | None
) -> None:
    await sales.asks(lead={"company": "Acme", "email": email})
    [asked] = await sales.reviews()
    assert (asked.kind, set(asked.allowed)) == (ReviewKind.MISSING_DATA, {"reject", "respond"})
    await sales.decides("respond", response={"email": ADDRESS})
    assert (await sales.envelope()).email == ADDRESS
    assert (await sales.quote()).customer == ADDRESS


async def test_missing_data_to_an_address_that_nobody_knows_no_quote_goes_unseen(sales: Sales) -> None:
    run = await sales.asks(lead={"company": "Acme", "email": "mallory@evil.example"})
    assert run.state is RunState.PENDING_APPROVAL
    assert (await sales.quotes(), sales.subjects) == ([], [])
    await sales.decides("reject")
    assert (await sales.run()).state is RunState.COMPLETED
    assert (await sales.quotes(), sales.subjects) == ([], [])


async def test_missing_data_a_new_address_that_a_person_lets_pass_gets_its_quote(sales: Sales) -> None:
    await sales.asks(lead={"company": "Acme", "email": "new@acme.example.com"})
    await sales.decides("approve")
    assert (await sales.envelope()).email == "new@acme.example.com"


async def test_missing_data_an_article_without_a_price_asks_what_was_meant(sales: Sales) -> None:
    await sales.asks(items=[{"sku": "SEAT-GOLD", "quantity": 10}])
    [asked] = await sales.reviews()
    assert "SEAT-GOLD" in asked.question
    await sales.decides("respond", response={"items": [{"sku": "SEAT-BASIC", "quantity": 10}]})
    assert (await sales.quote()).price.amount == Decimal("1140.00")


async def test_missing_data_what_is_not_sold_gets_no_quote(sales: Sales) -> None:
    await sales.asks(items=[{"sku": "SEAT-GOLD", "quantity": 10}])
    assert (await sales.decides("reject")).state is RunState.COMPLETED
    assert await sales.quotes() == []


@ON_ONE_STORE
@pytest.mark.parametrize(
    "wrong",
    [
        {"items": []},
        {"items": [{"sku": "SEAT-PRO", "quantity": 0}]},
        {"discount": {"percent": str(MOST_PERCENT + 1), "reason": "we are friends"}},
        {"discount": {"percent": "-5", "reason": ""}},
        {"currency": "euro"},
        {"requested_by": ""},
    ],
)
async def test_missing_data_a_request_that_makes_no_sense_is_refused_at_the_door(
    sales: Sales, wrong: dict[str, Any]
) -> None:
    event = Event(id="1", source="/crm", type="quote.requested", data=request() | wrong)
    with pytest.raises(EventRefused):
        await sales.engine.receive(event)


# -- low confidence ----------------------------------------------------------------------------------------------------


async def test_low_confidence_a_person_says_on_what_grounds_a_discount_is_wanted(sales: Sales) -> None:
    await sales.asks(percent="6", reason="please")
    [asked] = await sales.reviews()
    assert (asked.kind, asked.node) == (ReviewKind.LOW_CONFIDENCE, "understand")
    await sales.decides("respond", response="loyalty")
    assert (await sales.quote()).grounds == "loyalty"
    assert (await sales.run()).state is RunState.WAITING


# -- tool error --------------------------------------------------------------------------------------------------------


@ON_ONE_STORE
@pytest.mark.parametrize("status", [500, 503, 429, 401, 0])
async def test_tool_error_without_company_data_no_discount_is_free(sales: Sales, status: int) -> None:
    sales.market.enricher_says(Trouble(status), 2)
    run = await sales.asks(percent="1")
    [asked] = await sales.reviews()
    assert (run.state, asked.node, asked.roles) == (RunState.PENDING_APPROVAL, "give", ("sales-manager",))
    assert "the company is not known" in asked.evidence["reason"]
    await sales.decides(by="mona")
    assert (await sales.quote()).price.percent == Decimal(1)


async def test_tool_error_a_provider_that_answers_the_second_time_is_believed(sales: Sales) -> None:
    sales.market.enricher.troubles = [Trouble(500)]
    assert (await sales.asks()).state is RunState.WAITING
    assert len(sales.market.enricher.requests) == 2


@ON_ONE_STORE
@pytest.mark.parametrize("happens", [True, False])
@pytest.mark.parametrize("reply", [reset, http({}, 500)])
async def test_tool_error_a_signature_system_that_breaks_off_gets_one_letter(
    abroad: tuple[Sales, SignatureProvider], reply: Reply, happens: bool
) -> None:
    sales, provider = abroad
    provider.fails(reply, happens=happens)
    run = await sales.asks()
    assert (run.state, run.attempts) == (RunState.WAITING, 2)
    assert len(provider.envelopes) == 1
    assert sales.mails_to(ADDRESS)


async def test_tool_error_a_letter_that_nobody_takes_waits_for_an_operator(
    abroad: tuple[Sales, SignatureProvider],
) -> None:
    sales, provider = abroad
    provider.fails(http({"errorCode": "ACCOUNT_LACKS_PERMISSIONS"}, 400))
    run = await sales.asks()
    assert (run.state, run.reason) == (RunState.FAILED, Reason.NOT_RETRYABLE)
    await sales.engine.replay(run.id, by="olga")
    assert (await sales.simulation.go_on()).state is RunState.WAITING
    assert (len(provider.envelopes), len(await sales.quotes())) == (1, 1)


async def test_tool_error_sales_is_told_by_mail_when_slack_is_away(sales: Sales) -> None:
    await sales.asks()
    sales.market.workspace.troubles = [Trouble(429)]
    run = await sales.signs()
    assert (run.state, run.outcome) == (RunState.COMPLETED, Outcome.PARTIAL)
    assert len(sales.mails_to(SALES_DESK)) == 1


# -- duplicate event ---------------------------------------------------------------------------------------------------


async def test_duplicate_event_the_same_request_is_one_run_and_one_letter(sales: Sales) -> None:
    first = await sales.asks("q-1")
    assert (await sales.asks("q-1")).id == first.id
    assert len(sales.mails_to(ADDRESS)) == 1
    await sales.envelope()


async def test_duplicate_event_a_signature_that_is_told_five_times_counts_once(sales: Sales) -> None:
    await sales.asks()
    await sales.signatures.sign((await sales.envelope()).id)
    for event_id in ("s-1", "s-1", "s-2", "s-3", "s-2"):
        await sales.tells(id=event_id)
    assert (await sales.quote()).ending == "signed"
    assert len(sales.mails_to(SALES_DESK)) == 1
    for late in await sales.engine.store.runs(limit=20):
        await sales.engine.advance(late.id)
        assert (await sales.engine.store.run(late.id)).state is RunState.COMPLETED
    assert await sales.engine.store.reviews() == []
    assert len(sales.mails_to(SALES_DESK)) == 1


async def test_duplicate_event_a_signature_that_is_told_before_we_wait_counts(sales: Sales) -> None:
    sales.market.smtp.refusing[ADDRESS] = 1
    event = Event(id="q", source="/crm", type="quote.requested", data=request())
    receipt = await sales.engine.receive(event)
    await sales.engine.advance(receipt.runs[0].id)
    envelope = await sales.envelope()
    await sales.signatures.sign(envelope.id)
    data = {"envelope_id": envelope.id}
    await sales.engine.receive(Event(id="s", source="/sign", type="quote.signed", data=data))
    run = await sales.asks("q")
    assert (run.state, (await sales.quote()).ending) == (RunState.COMPLETED, "signed")


# -- timeout -----------------------------------------------------------------------------------------------------------


async def test_timeout_who_does_not_sign_is_reminded_twice_and_then_it_expires(sales: Sales) -> None:
    await sales.asks()
    mails = []
    for _ in range(15):
        await sales.simulation.pass_time(DAY)
        mails.append(len(sales.mails_to(ADDRESS)))
    assert [day for day in range(1, 15) if mails[day] > mails[day - 1]] == [2, 6]  # counted from 0
    assert mails[-1] == 3
    envelope, quote, run = await sales.envelope(), await sales.quote(), await sales.run()
    assert (envelope.status, quote.ending, run.state) == ("voided", "expired", RunState.COMPLETED)
    assert len(sales.mails_to(SALES_DESK)) == 1


async def test_timeout_nobody_is_reminded_of_what_is_signed_even_if_its_event_is_lost(sales: Sales) -> None:
    await sales.asks()
    await sales.signatures.sign((await sales.envelope()).id)
    await sales.simulation.pass_time(4 * DAY)
    assert len(sales.mails_to(ADDRESS)) == 1
    assert ((await sales.run()).state, (await sales.quote()).ending) == (RunState.COMPLETED, "signed")


async def test_timeout_who_signs_at_the_last_moment_has_signed(sales: Sales) -> None:
    await sales.asks()
    envelope = await sales.envelope()
    read = sales.signatures.read

    async def signed_just_after(envelope_id: str) -> Any:
        found = await read(envelope_id)
        if len(sales.mails_to(ADDRESS)) == 3 and found is not None and found.status == "sent":
            await sales.signatures.sign(envelope_id)
        return found

    sales.signatures.read = signed_just_after  # type: ignore[method-assign] # a customer who is faster than we are
    await sales.simulation.pass_time(15 * DAY)
    assert ((await read(envelope.id)) or envelope).status == "completed"
    assert (await sales.quote()).ending == "signed"


async def expired_and_signed(sales: Sales) -> str:
    """Paper was signed although the letter had been taken back; the signature system says so now."""
    await sales.asks()
    await sales.simulation.pass_time(15 * DAY)
    assert (await sales.quote()).ending == "expired"
    envelope_id = (await sales.envelope()).id
    await sales.signatures.execute("UPDATE endings SET status = 'completed'")
    receipt = await sales.engine.receive(
        Event(id="late", source="/sign", type="quote.signed", data={"envelope_id": envelope_id})
    )
    [late] = receipt.runs
    sales.last = type(sales.simulation)(sales.engine, late.id, sales.clock)
    await sales.simulation.go_on()
    return envelope_id


async def test_timeout_who_signs_too_late_asks_the_director_and_nothing_is_revived_by_itself(sales: Sales) -> None:
    await expired_and_signed(sales)
    [asked] = await sales.reviews()
    assert (asked.node, asked.roles) == ("ask_about_late_answer", ("sales-director",))
    quote = await sales.quote()
    assert (quote.ending, quote.revived_at) == ("expired", None)
    with pytest.raises(MayNotDecide, match="dora, dan"):
        await sales.decides(by="mona")
    await sales.decides("reject", by="dora")
    assert (await sales.quote()).revived_at is None
    assert "is not honoured" in sales.market.smtp.messages[-1].body


async def test_timeout_a_late_signature_that_the_director_honours_counts(sales: Sales) -> None:
    await expired_and_signed(sales)
    await sales.decides("approve", by="dora")
    quote = await sales.quote()
    assert quote.ending == "expired"
    assert quote.revived_at is not None
    assert "is honoured" in sales.market.smtp.messages[-1].body


async def test_timeout_a_late_event_about_a_letter_that_nobody_signed_asks_nobody(sales: Sales) -> None:
    await sales.asks()
    await sales.simulation.pass_time(15 * DAY)
    data = {"envelope_id": (await sales.envelope()).id}
    receipt = await sales.engine.receive(Event(id="late", source="/sign", type="quote.signed", data=data))
    assert [await sales.engine.advance(run.id) for run in receipt.runs] == [RunState.COMPLETED]
    assert await sales.engine.store.reviews() == []


# -- partial completion ------------------------------------------------------------------------------------------------


async def test_partial_completion_when_the_mail_fails_the_letter_is_not_sent_again(sales: Sales) -> None:
    sales.market.smtp.refusing[ADDRESS] = math.inf
    run = await sales.asks()
    assert (run.state, run.reason) == (RunState.FAILED, Reason.ATTEMPTS)
    sales.market.smtp.refusing.clear()
    await sales.engine.replay(run.id, by="olga")
    assert (await sales.simulation.go_on()).state is RunState.WAITING
    assert len(sales.mails_to(ADDRESS)) == len(await sales.quotes()) == 1
    assert (await sales.envelope()).status == "sent"


async def test_partial_completion_a_quote_given_by_a_run_that_failed_can_be_taken_back(sales: Sales) -> None:
    sales.market.smtp.refusing[ADDRESS] = math.inf
    run = await sales.asks()
    undoing = await sales.engine.undo(run.id, by="olga")
    await type(sales.simulation)(sales.engine, undoing.id, sales.clock).go_on()
    assert ((await sales.envelope()).status, (await sales.quote()).ending) == ("voided", "withdrawn")


async def test_partial_completion_a_mail_that_may_have_left_asks_a_person(sales: Sales) -> None:
    sales.market.smtp.losing.add(ADDRESS)
    await sales.asks()
    [asked] = await sales.reviews()
    assert (asked.kind, asked.node) == (ReviewKind.IN_DOUBT, "tell_lead")
    sales.market.smtp.losing.clear()
    run = await sales.decides("respond", response={"happened": True})
    assert run.state is RunState.WAITING
    assert [effect.state for effect in await sales.effects("mail.send")] == [EffectState.DONE]
