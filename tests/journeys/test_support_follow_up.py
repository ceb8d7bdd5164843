"""The support workflow asks a customer for something, and waits: for the reply, or for the time."""

from __future__ import annotations

from collections.abc import AsyncIterator
from datetime import timedelta

import pytest
from tests.journeys.support_desk import Desk, open_desk
from tests.journeys.support_world import ANN, CLEAR, REFUND, UNCLEAR, Outside

from eventwright.graphs.support import FRONT_DESK
from eventwright.queue.desk import UnfitDecision
from eventwright.runs.records import JournalKind, ReviewKind
from eventwright.runs.states import Outcome, RunState

DAY = timedelta(days=1)


@pytest.fixture
async def desk(outside: Outside, database_url: str) -> AsyncIterator[Desk]:
    async with open_desk(outside, database_url) as opened:
        yield opened


# -- nobody answers, or nobody who counts ------------------------------------------------------------------------------


async def test_who_does_not_answer_is_reminded_once_and_then_the_ticket_is_closed_with_a_note(desk: Desk) -> None:
    run = await desk.opens()
    assert (await run.run()).state is RunState.WAITING
    assert len(desk.letters) == 1

    await run.pass_time(3 * DAY)
    assert [letter[0] for letter in desk.letters] == [ANN.email] * 2
    assert "we still need your answer" in desk.outside.smtp.messages[1].body
    await run.pass_time(6 * DAY)
    assert (await run.run()).state is RunState.WAITING
    await run.pass_time(1 * DAY)

    assert (await run.run()).state is RunState.COMPLETED
    assert len(desk.letters) == 2
    assert await desk.refunded() == []
    noted = [entry for entry in await run.journal() if entry.node == "close_ticket" and "arguments" in entry.data]
    assert "has not answered in 10 days" in noted[0].data["arguments"]["because"]


async def test_an_automatic_reply_never_counts(desk: Desk) -> None:
    run = await desk.opens()
    asked = desk.outside.smtp.messages[0].message_id

    receipt = await desk.mails("I am away. 20.50 GBP", asked, automatic=True, automatic_because="auto-replied")

    assert (await run.run()).state is RunState.WAITING
    assert [one.event.id for one in receipt.runs] == [receipt.event.id], "it is noted in a run of its own"
    assert (await desk.of(receipt.runs[0]).run()).state is RunState.COMPLETED
    assert len(desk.letters) == 1
    assert await desk.refunded() == []


async def test_a_reply_that_does_not_say_it_either_goes_to_a_person_and_not_back_to_the_customer(desk: Desk) -> None:
    run = await desk.opens()
    await desk.replies("It was 20.50 GBP, or maybe 25.50 GBP")

    [asked] = await run.reviews()
    assert (asked.kind, asked.node) == (ReviewKind.MISSING_DATA, "ask_amount")
    for wrong in ({"amount": "0.00", "currency": "GBP"}, {"amount": "1e9", "currency": "GBP"}, {"amount": "5.00"}):
        with pytest.raises(UnfitDecision):
            await run.respond(wrong)
    assert len(desk.letters) == 1

    await run.respond({"amount": "25.50", "currency": "GBP"})

    assert await desk.refunded() == ["25.50 GBP"]
    assert len(desk.letters) == 2


async def test_a_person_may_say_no_to_an_unclear_reply_and_the_customer_is_told_politely(desk: Desk) -> None:
    run = await desk.opens()
    await desk.replies("I do not know")
    await run.reject()

    assert (await run.run()).outcome is Outcome.REJECTED
    assert await desk.refunded() == []
    assert "cannot give it" in desk.outside.smtp.messages[1].body


async def test_an_amount_above_the_limit_that_a_reply_names_is_approved_by_a_person(desk: Desk) -> None:
    run = await desk.opens()
    await desk.replies("480 GBP")

    [asked] = await run.reviews()
    assert (asked.kind, asked.node) == (ReviewKind.APPROVAL, "refund")
    assert await desk.refunded() == []


# -- when a reply comes ------------------------------------------------------------------------------------------------


async def test_the_same_reply_twice_gives_one_refund_and_one_answer(desk: Desk) -> None:
    run = await desk.opens()
    first = await desk.replies("20.50 GBP", id="r-1")
    again = await desk.replies("20.50 GBP", id="r-1")

    assert again.duplicate
    assert [one.id for one in again.runs] == [one.id for one in first.runs] == [run.run_id]
    assert await desk.refunded() == ["20.50 GBP"]
    assert len(desk.letters) == 2


async def test_two_replies_give_one_refund(desk: Desk) -> None:
    await desk.opens()
    await desk.replies("20.50 GBP")
    await desk.replies("20.50 GBP")

    assert await desk.refunded() == ["20.50 GBP"]


async def test_a_reply_that_comes_before_we_ask_counts(desk: Desk) -> None:
    run = await desk.opens(UNCLEAR)
    assert (await run.run()).state is RunState.PENDING_APPROVAL
    await desk.replies("I want 20.50 GBP back")
    done = await run.respond("refund_request")

    assert done.state is RunState.COMPLETED
    assert await desk.refunded() == ["20.50 GBP"]


async def test_a_reply_by_mail_to_the_question_or_to_the_reminder_goes_on_with_the_ticket(desk: Desk) -> None:
    for number, days in enumerate((0, 4)):
        run = await desk.opens(id=f"t-{number}")
        await run.pass_time(days * DAY)
        asked = desk.outside.smtp.messages[-1].message_id
        receipt = await desk.mails("It was 20.50 GBP.\n\n> or 99.00 GBP, as you wrote", asked)

        assert [one.id for one in receipt.runs] == [run.run_id], "it starts no other ticket"
        if number == 0:
            assert (await run.run()).state is RunState.COMPLETED
            assert await desk.refunded() == ["20.50 GBP"]
        else:
            [review] = await run.reviews()
            assert review.node == "repeat_refund"


async def test_a_reply_through_the_help_desk_may_name_the_amount_in_its_form(desk: Desk) -> None:
    run = await desk.opens()
    await desk.replies("Here it is", amount="20.50", currency="GBP")

    assert (await run.run()).outcome is Outcome.AUTO
    assert await desk.refunded() == ["20.50 GBP"]


async def test_a_letter_in_answer_to_one_that_asked_nothing_is_a_ticket_of_its_own(desk: Desk) -> None:
    await desk.opens(CLEAR)
    await desk.mails(CLEAR, desk.outside.smtp.messages[0].message_id)

    assert len(await desk.runs()) == 2
    assert await desk.over()
    assert len(desk.letters) == 2


@pytest.mark.parametrize("way", ["mail", "help desk"])
async def test_a_late_reply_starts_a_ticket_that_knows_the_earlier_one_and_the_front_desk_is_told(
    desk: Desk, way: str
) -> None:
    run = await desk.opens()
    await run.pass_time(11 * DAY)
    asked = desk.outside.smtp.messages[0].message_id
    text = f"{REFUND} It was £20.50"

    receipt = await (desk.mails(text, asked) if way == "mail" else desk.replies(text))

    [late] = receipt.runs
    assert late.id != run.run_id
    values = await desk.of(late).values()
    assert values["earlier"] == {"run": run.run_id, "outcome": "auto"}
    assert await desk.refunded() == ["20.50 GBP"]
    assert [to for to, _ in desk.letters] == [ANN.email, ANN.email, FRONT_DESK, ANN.email]
    assert run.run_id in desk.outside.smtp.messages[2].body
    notes = [entry.data for entry in await run.journal() if entry.kind is JournalKind.NOTE]
    assert notes[-1]["text"] == "came too late"
    assert notes[-1]["run"] == late.id
