"""The seven exceptions of the discounts: what happens in each, and who decides."""

from __future__ import annotations

import math
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack
from datetime import timedelta
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest
from tests.journeys.discounts_world import ADDRESS, Sales, request, sales
from tests.tools.model_provider import Reply, http, reset
from tests.tools.signature_provider import TOKEN, SignatureProvider, signature_provider
from tests.tools.vendors import Trouble

from eventwright.graphs.discounts import MOST_PERCENT, SALES_DESK, discounts
from eventwright.queue.intake import EventRefused
from eventwright.runs.errors import MayNotDecide
from eventwright.runs.event import Event
from eventwright.runs.records import EffectState, ReviewKind
from eventwright.runs.states import Outcome, Reason, RunState
from eventwright.tools.signatures import HttpSignatures

DAY = timedelta(days=1)


@pytest.fixture
async def office(tmp_path: Path, database_url: str) -> AsyncIterator[Sales]:
    async with sales(tmp_path, database_url) as it:
        yield it


@pytest.fixture
async def abroad(tmp_path: Path, database_url: str) -> AsyncIterator[tuple[Sales, SignatureProvider]]:
    """The same, with a signature system at a provider."""
    async with AsyncExitStack() as stack:
        provider = await stack.enter_async_context(signature_provider())
        system = await stack.enter_async_context(HttpSignatures.open(provider.url, token=TOKEN, seconds=5))
        yield await stack.enter_async_context(sales(tmp_path, database_url, system)), provider


def test_the_workflow_says_what_happens_in_each_of_the_seven() -> None:
    assert discounts.exceptions is not None
    assert discounts.exceptions.empty == ()


# -- missing data ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("email", [None, "", "ann at acme"])
async def test_missing_data_without_an_address_a_person_says_where_the_quote_goes(
    office: Sales, email: str | None
) -> None:
    await office.asks(lead={"company": "Acme", "email": email})
    [asked] = await office.reviews()
    assert (asked.kind, set(asked.allowed)) == (ReviewKind.MISSING_DATA, {"reject", "respond"})
    await office.decides("respond", response={"email": ADDRESS})
    assert (await office.envelope()).email == ADDRESS
    assert (await office.quote()).customer == ADDRESS


async def test_missing_data_to_an_address_that_nobody_knows_no_quote_goes_unseen(office: Sales) -> None:
    run = await office.asks(lead={"company": "Acme", "email": "mallory@evil.example"})
    assert run.state is RunState.PENDING_APPROVAL
    assert (await office.quotes(), office.subjects) == ([], [])
    await office.decides("reject")
    assert (await office.run()).state is RunState.COMPLETED
    assert (await office.quotes(), office.subjects) == ([], [])


async def test_missing_data_a_new_address_that_a_person_lets_pass_gets_its_quote(office: Sales) -> None:
    await office.asks(lead={"company": "Acme", "email": "new@acme.example.com"})
    await office.decides("approve")
    assert (await office.envelope()).email == "new@acme.example.com"


async def test_missing_data_an_article_without_a_price_asks_what_was_meant(office: Sales) -> None:
    await office.asks(items=[{"sku": "SEAT-GOLD", "quantity": 10}])
    [asked] = await office.reviews()
    assert "SEAT-GOLD" in asked.question
    await office.decides("respond", response={"items": [{"sku": "SEAT-BASIC", "quantity": 10}]})
    assert (await office.quote()).price.amount == Decimal("1140.00")


async def test_missing_data_what_is_not_sold_gets_no_quote(office: Sales) -> None:
    await office.asks(items=[{"sku": "SEAT-GOLD", "quantity": 10}])
    assert (await office.decides("reject")).state is RunState.COMPLETED
    assert await office.quotes() == []


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
    office: Sales, wrong: dict[str, Any]
) -> None:
    event = Event(id="1", source="/crm", type="quote.requested", data=request() | wrong)
    with pytest.raises(EventRefused):
        await office.engine.receive(event)


# -- low confidence ----------------------------------------------------------------------------------------------------


async def test_low_confidence_a_person_says_on_what_grounds_a_discount_is_wanted(office: Sales) -> None:
    await office.asks(percent="6", reason="please")
    [asked] = await office.reviews()
    assert (asked.kind, asked.node) == (ReviewKind.LOW_CONFIDENCE, "understand")
    await office.decides("respond", response="loyalty")
    assert (await office.quote()).grounds == "loyalty"
    assert (await office.run()).state is RunState.WAITING


# -- tool error --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("status", [500, 503, 429, 401, 0])
async def test_tool_error_without_company_data_no_discount_is_free(office: Sales, status: int) -> None:
    office.market.enricher.troubles = [Trouble(status)] * 2
    run = await office.asks(percent="1")
    [asked] = await office.reviews()
    assert (run.state, asked.node, asked.roles) == (RunState.PENDING_APPROVAL, "give", ("sales-manager",))
    assert "the company is not known" in asked.evidence["reason"]
    await office.decides(by="mona")
    assert (await office.quote()).price.percent == Decimal(1)


async def test_tool_error_a_provider_that_answers_the_second_time_is_believed(office: Sales) -> None:
    office.market.enricher.troubles = [Trouble(500)]
    assert (await office.asks()).state is RunState.WAITING
    assert len(office.market.enricher.requests) == 2


@pytest.mark.parametrize("happens", [True, False])
@pytest.mark.parametrize("reply", [reset, http({}, 500)])
async def test_tool_error_a_signature_system_that_breaks_off_gets_one_letter(
    abroad: tuple[Sales, SignatureProvider], reply: Reply, happens: bool
) -> None:
    office, provider = abroad
    provider.fails(reply, happens=happens)
    run = await office.asks()
    assert (run.state, run.attempts) == (RunState.WAITING, 2)
    assert len(provider.envelopes) == 1
    assert office.mails_to(ADDRESS)


async def test_tool_error_a_letter_that_nobody_takes_waits_for_an_operator(
    abroad: tuple[Sales, SignatureProvider],
) -> None:
    office, provider = abroad
    provider.fails(http({"errorCode": "ACCOUNT_LACKS_PERMISSIONS"}, 400))
    run = await office.asks()
    assert (run.state, run.reason) == (RunState.FAILED, Reason.NOT_RETRYABLE)
    await office.engine.replay(run.id, by="olga")
    assert (await office.simulation.go_on()).state is RunState.WAITING
    assert (len(provider.envelopes), len(await office.quotes())) == (1, 1)


async def test_tool_error_sales_is_told_by_mail_when_slack_is_away(office: Sales) -> None:
    await office.asks()
    office.market.workspace.troubles = [Trouble(429)]
    run = await office.signs()
    assert (run.state, run.outcome) == (RunState.COMPLETED, Outcome.PARTIAL)
    assert len(office.mails_to(SALES_DESK)) == 1


# -- duplicate event ---------------------------------------------------------------------------------------------------


async def test_duplicate_event_the_same_request_is_one_run_and_one_letter(office: Sales) -> None:
    first = await office.asks("q-1")
    assert (await office.asks("q-1")).id == first.id
    assert len(office.mails_to(ADDRESS)) == 1
    await office.envelope()


async def test_duplicate_event_a_signature_that_is_told_five_times_counts_once(office: Sales) -> None:
    await office.asks()
    await office.signatures.sign((await office.envelope()).id)
    for event_id in ("s-1", "s-1", "s-2", "s-3", "s-2"):
        await office.tells(id=event_id)
    assert (await office.quote()).ending == "signed"
    assert len(office.mails_to(SALES_DESK)) == 1
    for late in await office.engine.store.runs(limit=20):
        await office.engine.advance(late.id)
        assert (await office.engine.store.run(late.id)).state is RunState.COMPLETED
    assert await office.engine.store.reviews() == []
    assert len(office.mails_to(SALES_DESK)) == 1


async def test_duplicate_event_a_signature_that_is_told_before_we_wait_counts(office: Sales) -> None:
    office.market.smtp.refusing[ADDRESS] = 1
    event = Event(id="q", source="/crm", type="quote.requested", data=request())
    receipt = await office.engine.receive(event)
    await office.engine.advance(receipt.runs[0].id)
    envelope = await office.envelope()
    await office.signatures.sign(envelope.id)
    data = {"envelope_id": envelope.id}
    await office.engine.receive(Event(id="s", source="/sign", type="quote.signed", data=data))
    run = await office.asks("q")
    assert (run.state, (await office.quote()).ending) == (RunState.COMPLETED, "signed")


# -- timeout -----------------------------------------------------------------------------------------------------------


async def test_timeout_who_does_not_sign_is_reminded_twice_and_then_it_expires(office: Sales) -> None:
    await office.asks()
    mails = []
    for _ in range(15):
        await office.simulation.pass_time(DAY)
        mails.append(len(office.mails_to(ADDRESS)))
    assert [day for day in range(1, 15) if mails[day] > mails[day - 1]] == [2, 6]  # counted from 0
    assert mails[-1] == 3
    envelope, quote, run = await office.envelope(), await office.quote(), await office.run()
    assert (envelope.status, quote.ending, run.state) == ("voided", "expired", RunState.COMPLETED)
    assert len(office.mails_to(SALES_DESK)) == 1


async def test_timeout_nobody_is_reminded_of_what_is_signed_even_if_its_event_is_lost(office: Sales) -> None:
    await office.asks()
    await office.signatures.sign((await office.envelope()).id)
    await office.simulation.pass_time(4 * DAY)
    assert len(office.mails_to(ADDRESS)) == 1
    assert ((await office.run()).state, (await office.quote()).ending) == (RunState.COMPLETED, "signed")


async def test_timeout_who_signs_at_the_last_moment_has_signed(office: Sales) -> None:
    await office.asks()
    envelope = await office.envelope()
    read = office.signatures.read

    async def signed_just_after(envelope_id: str) -> Any:
        found = await read(envelope_id)
        if len(office.mails_to(ADDRESS)) == 3 and found is not None and found.status == "sent":
            await office.signatures.sign(envelope_id)
        return found

    office.signatures.read = signed_just_after  # type: ignore[method-assign] # a customer who is faster than we are
    await office.simulation.pass_time(15 * DAY)
    assert ((await read(envelope.id)) or envelope).status == "completed"
    assert (await office.quote()).ending == "signed"


async def expired_and_signed(office: Sales) -> str:
    """Paper was signed although the letter had been taken back; the signature system says so now."""
    await office.asks()
    await office.simulation.pass_time(15 * DAY)
    assert (await office.quote()).ending == "expired"
    envelope_id = (await office.envelope()).id
    await office.signatures.execute("UPDATE endings SET status = 'completed'")
    receipt = await office.engine.receive(
        Event(id="late", source="/sign", type="quote.signed", data={"envelope_id": envelope_id})
    )
    [late] = receipt.runs
    office.last = type(office.simulation)(office.engine, late.id, office.clock)
    await office.simulation.go_on()
    return envelope_id


async def test_timeout_who_signs_too_late_asks_the_director_and_nothing_is_revived_by_itself(office: Sales) -> None:
    await expired_and_signed(office)
    [asked] = await office.reviews()
    assert (asked.node, asked.roles) == ("ask_about_late_answer", ("sales-director",))
    quote = await office.quote()
    assert (quote.ending, quote.revived_at) == ("expired", None)
    with pytest.raises(MayNotDecide, match="dora, dan"):
        await office.decides(by="mona")
    await office.decides("reject", by="dora")
    assert (await office.quote()).revived_at is None
    assert "is not honoured" in office.market.smtp.messages[-1].body


async def test_timeout_a_late_signature_that_the_director_honours_counts(office: Sales) -> None:
    await expired_and_signed(office)
    await office.decides("approve", by="dora")
    quote = await office.quote()
    assert quote.ending == "expired"
    assert quote.revived_at is not None
    assert "is honoured" in office.market.smtp.messages[-1].body


async def test_timeout_a_late_event_about_a_letter_that_nobody_signed_asks_nobody(office: Sales) -> None:
    await office.asks()
    await office.simulation.pass_time(15 * DAY)
    data = {"envelope_id": (await office.envelope()).id}
    receipt = await office.engine.receive(Event(id="late", source="/sign", type="quote.signed", data=data))
    assert [await office.engine.advance(run.id) for run in receipt.runs] == [RunState.COMPLETED]
    assert await office.engine.store.reviews() == []


# -- human approval ----------------------------------------------------------------------------------------------------


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
    office: Sales, percent: str, quantity: int, role: str | None
) -> None:
    await office.asks(percent=percent, items=[{"sku": "SEAT-PRO", "quantity": quantity}])
    assert [review.roles for review in await office.reviews()] == ([(role,)] if role else [])
    assert len(await office.quotes()) == (role is None)


async def test_human_approval_in_a_currency_without_limits_the_director_is_asked(office: Sales) -> None:
    await office.asks(percent="1", currency="JPY")
    assert [review.roles for review in await office.reviews()] == [("sales-director",)]


async def test_human_approval_who_wanted_the_discount_does_not_allow_it(office: Sales) -> None:
    await office.asks(percent="15", requested_by="Rita")
    with pytest.raises(MayNotDecide, match="those who may: mona"):
        await office.decides(by="rita")
    with pytest.raises(MayNotDecide, match="those who may: mona"):
        await office.decides(by="eve")
    run = await office.decides(by="mona")
    assert run.state is RunState.WAITING
    assert (await office.signs()).outcome is Outcome.APPROVED


async def test_human_approval_after_a_no_there_is_no_quote_and_sales_reads_why(office: Sales) -> None:
    await office.asks(percent="15")
    await office.decides("reject", by="mona", comment="last month already")
    assert (await office.quotes(), await office.signatures.sent(), office.mails_to(ADDRESS)) == ([], [], [])
    assert "not allowed by mona: last month already" in office.market.smtp.messages[-1].body


async def test_human_approval_another_discount_is_priced_anew_and_beyond_the_role_asked_again(office: Sales) -> None:
    await office.asks(percent="15")
    [asked] = await office.reviews()
    await office.decides("edit", by="mona", arguments={**(asked.arguments or {}), "percent": "30"})
    [again] = await office.reviews()
    assert again.roles == ("sales-director",)
    await office.decides(by="dora")
    assert (await office.envelope()).amount == (await office.quote()).price.total == Decimal("2345.28")


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
    office: Sales, change: dict[str, Any]
) -> None:
    await office.asks(percent="15")
    [asked] = await office.reviews()
    with pytest.raises(ValueError, match="does not fit"):
        await office.decides("edit", by="mona", arguments={**(asked.arguments or {}), **change})


@pytest.mark.parametrize("changed", [{"amount": "1.00"}, {"email": "mallory@evil.example"}, {"currency": "JPY"}])
@pytest.mark.parametrize(("answer", "ending"), [("approve", "signed"), ("reject", "disputed")])
async def test_human_approval_what_was_signed_otherwise_than_approved_asks_the_director(
    office: Sales, changed: dict[str, str], answer: str, ending: str
) -> None:
    await office.asks()
    await office.at_the_provider(**changed)
    await office.signs()
    [asked] = await office.reviews()
    assert (asked.node, asked.roles) == ("ask_about_difference", ("sales-director",))
    assert next(iter(changed)) in str((asked.arguments or {})["differences"])
    await office.decides(answer, by="dan")
    assert (await office.quote()).ending == ending


async def test_human_approval_a_letter_that_the_signature_system_has_lost_asks_the_director(office: Sales) -> None:
    await office.asks()
    envelope_id = (await office.envelope()).id
    await office.signatures.execute("DELETE FROM envelopes")
    await office.tells(envelope_id=envelope_id)
    [asked] = await office.reviews()
    assert (asked.arguments or {})["differences"] == ["the signature system does not know it"]
    await office.decides("reject", by="dan")
    assert (await office.quote()).ending == "disputed"


async def test_human_approval_an_event_that_is_not_true_signs_nothing(office: Sales) -> None:
    await office.asks()
    for number in range(3):
        run = await office.tells(id=f"forged-{number}")
        assert run.state is RunState.WAITING
    assert (await office.quote()).ending is None
    await office.simulation.pass_time(15 * DAY)
    assert (await office.quote()).ending == "expired"
    assert len(office.mails_to(ADDRESS)) == 3


# -- partial completion ------------------------------------------------------------------------------------------------


async def test_partial_completion_when_the_mail_fails_the_letter_is_not_sent_again(office: Sales) -> None:
    office.market.smtp.refusing[ADDRESS] = math.inf
    run = await office.asks()
    assert (run.state, run.reason) == (RunState.FAILED, Reason.ATTEMPTS)
    office.market.smtp.refusing.clear()
    await office.engine.replay(run.id, by="olga")
    assert (await office.simulation.go_on()).state is RunState.WAITING
    assert len(office.mails_to(ADDRESS)) == len(await office.quotes()) == 1
    assert (await office.envelope()).status == "sent"


async def test_partial_completion_a_quote_given_by_a_run_that_failed_can_be_taken_back(office: Sales) -> None:
    office.market.smtp.refusing[ADDRESS] = math.inf
    run = await office.asks()
    undoing = await office.engine.undo(run.id, by="olga")
    await type(office.simulation)(office.engine, undoing.id, office.clock).go_on()
    assert ((await office.envelope()).status, (await office.quote()).ending) == ("voided", "withdrawn")


async def test_partial_completion_a_mail_that_may_have_left_asks_a_person(office: Sales) -> None:
    office.market.smtp.losing.add(ADDRESS)
    await office.asks()
    [asked] = await office.reviews()
    assert (asked.kind, asked.node) == (ReviewKind.IN_DOUBT, "tell_lead")
    office.market.smtp.losing.clear()
    run = await office.decides("respond", response={"happened": True})
    assert run.state is RunState.WAITING
    assert [effect.state for effect in await office.effects("mail.send")] == [EffectState.DONE]
