"""The exceptions of the invoice workflow that are not a person's approval: what happens in each, and who decides."""

from __future__ import annotations

import asyncio
from datetime import timedelta
from typing import Any

import pytest
from langchain_core.messages import BaseMessage
from langchain_core.outputs import ChatResult
from tests.invoice_documents import TEXT, invoice
from tests.journeys.invoice_world import OURS, Office, order
from tests.journeys.stores import ON_ONE_STORE

from eventwright.graphs.invoices import PATIENCE
from eventwright.queue.desk import UnfitDecision
from eventwright.runs.records import Decision, DecisionType, ReviewKind
from eventwright.runs.states import Outcome, Reason, RunState
from eventwright.tools.accounting_export import EntryExport, Exported
from eventwright.tools.accounting_records import Entry
from eventwright.tools.contract import NotDone
from eventwright.tools.offline_model import OfflineModel

# -- missing data ------------------------------------------------------------------------------------------------------


@ON_ONE_STORE
@pytest.mark.parametrize(
    "document",
    [
        {"xml": "this is no XML"},
        {"xml": "<Order/>"},
        {"pdf": "bm90IGEgcGRm"},
        {"pdf": "***"},
        {"xml": invoice(number="")},
        {"xml": invoice(issued="tomorrow")},
        {"xml": invoice(currency="euro")},
        {"xml": invoice(gross="1e3")},
        {"xml": invoice(due="125.001")},
    ],
    ids=[
        "no-xml",
        "an-order",
        "no-pdf",
        "no-base64",
        "no-number",
        "no-day",
        "no-currency",
        "no-amount",
        "tenths-of-cents",
    ],
)
async def test_a_document_that_cannot_be_booked_is_typed_in_by_a_person(
    office: Office, document: dict[str, str]
) -> None:
    async with office.received(**document) as run:
        [asked] = await run.reviews()
        assert (asked.kind, asked.node) == (ReviewKind.MISSING_DATA, "ask_for_document")
        with pytest.raises(UnfitDecision):
            await run.respond({"text": ""})

        done = await run.respond({"text": TEXT})

        assert done.state is RunState.COMPLETED
        assert await office.paid() == [(OURS, "125.00")]


async def test_a_document_that_is_sent_back_is_not_booked(office: Office) -> None:
    async with office.received(xml="<Order/>") as run:
        assert (await run.reject()).outcome is Outcome.REJECTED
        assert await office.books.entries() == []


async def test_an_unknown_supplier_is_named_by_purchasing_or_gets_nothing(office: Office) -> None:
    stranger = invoice(seller="Somebody Else", vat_id="FR12345678901")
    async with office.received(xml=stranger) as run:
        [asked] = await run.reviews()
        assert (asked.kind, asked.node) == (ReviewKind.MISSING_DATA, "ask_for_supplier")
        await run.respond({"supplier": "nobody"})
        assert [review.node for review in await run.reviews()] == ["ask_for_supplier"]

        await run.respond({"supplier": "sup-1"})

        [asked] = await run.reviews()
        assert asked.node == "book_invoice"
        assert asked.arguments is not None
        assert [remark.split(",")[0] for remark in asked.arguments["remarks"]] == ["SUPPLIER-NAME", "SUPPLIER-VAT"]
        assert (await run.reject()).outcome is Outcome.REJECTED
    assert await office.paid() == []


# -- low confidence ----------------------------------------------------------------------------------------------------


class Overheard(OfflineModel):
    """Keeps what it was shown."""

    shown: list[str]

    def _generate(self, messages: list[BaseMessage], *args: Any, **kwargs: Any) -> ChatResult:
        self.shown += [message.text for message in messages]
        return super()._generate(messages, *args, **kwargs)


async def test_words_that_a_model_reads_with_certainty_are_booked_like_any_invoice(office: Office) -> None:
    model = Overheard(shown=[])
    async with office.received(model, text=TEXT) as run:
        assert (await run.run()).outcome is Outcome.AUTO
    assert await office.paid() == [(OURS, "125.00")]
    assert "[iban 1]" in model.shown[-1]
    assert OURS not in "".join(model.shown).replace(" ", "")


async def test_words_that_the_model_cannot_read_are_read_by_a_person(office: Office) -> None:
    async with office.received(text="You owe us 125 euros for the paper. The Paper Mill") as run:
        [asked] = await run.reviews()
        assert (asked.kind, asked.node) == (ReviewKind.LOW_CONFIDENCE, "read_text")
        assert (await run.reject()).outcome is Outcome.REJECTED
    assert await office.paid() == []


async def test_what_the_text_does_not_say_is_not_paid_without_a_person(office: Office) -> None:
    async with office.received(text="You owe us 125 euros for the paper. The Paper Mill") as run:
        [asked] = await run.reviews()
        fields = {**asked.arguments["value"], "number": "T-1", "issued": "2026-11-02", "currency": "EUR"}  # type: ignore[index]
        line = {"name": "Paper A4", "quantity": "10", "price": "9.00", "amount": "90.00"}
        sums = {"total_without_vat": "90.00", "total_vat": "22.50", "total_with_vat": "112.50", "amount_due": "112.50"}
        await run.respond({**fields, **sums, "lines": [line], "seller_name": "Paper Mill Ltd", "order": "PO-7"})

        [asked] = await run.reviews()
        assert asked.node == "book_invoice"
        assert any(remark.startswith("READING, amount_due") for remark in asked.arguments["remarks"])  # type: ignore[index]
    assert await office.paid() == []


# -- tool errors, partial completion -----------------------------------------------------------------------------------


class Away(EntryExport):
    """An accounting system that is away for its first calls."""

    def __init__(self, fails: int) -> None:
        self.left, self.taken = fails, []  # type: ignore[var-annotated]

    async def send(self, entry: Entry, *, idempotency_key: str) -> Exported:
        self.left -= 1
        if self.left >= 0:
            raise NotDone("the accounting system is away")
        self.taken.append(entry)
        return Exported(entry=entry.id, to="http")


async def test_an_accounting_system_that_is_away_is_asked_again_and_nothing_is_booked_twice(office: Office) -> None:
    away = Away(3)
    async with office.received(away, xml=invoice()) as run:
        done = await run.run()
        assert (done.outcome, done.attempts) == (Outcome.AUTO, 4)
    assert len(away.taken) == len(await office.books.entries()) == len(await office.paid()) == 1


async def test_a_booking_that_cannot_be_exported_stands_and_waits_for_an_operator(
    office: Office,
) -> None:
    away = Away(6)
    async with office.received(away, xml=invoice()) as run:
        dead = await run.run()
        assert (dead.state, dead.reason) == (RunState.FAILED, Reason.ATTEMPTS)
        assert await office.paid() == [(OURS, "125.00")]

        await run.engine.replay(run.run_id, by="dana")
        done = await run.go_on()

        assert done.state is RunState.COMPLETED
    assert len(away.taken) == len(await office.books.entries()) == len(await office.paid()) == 1


async def test_a_booking_can_be_taken_back_with_its_payment(office: Office) -> None:
    async with office.received(xml=invoice()) as run:
        undoing = await run.engine.undo(run.run_id, by="olga")
        other = type(run)(run.engine, undoing.id, run.clock)
        done = await other.go_on()
        while done.state is RunState.PENDING_APPROVAL:
            done = await other.answer(Decision(type=DecisionType.APPROVE, by="olga"))
        assert done.state is RunState.COMPLETED
    first, second = await office.books.entries()
    assert [(one.debit, one.credit) for one in first.postings] == [(one.credit, one.debit) for one in second.postings]
    assert await office.paid() == []
    # What was taken back may come again.
    async with office.received(xml=invoice()) as run:
        assert (await run.run()).outcome is Outcome.AUTO


# -- duplicates --------------------------------------------------------------------------------------------------------


async def test_the_same_event_twice_is_one_run(office: Office) -> None:
    for _ in range(2):
        async with office.received(at="mail-1", xml=invoice()) as run:
            first = run.run_id
    async with office.received(at="mail-1", xml=invoice()) as run:
        assert run.run_id == first
    assert await office.paid() == [(OURS, "125.00")]


@ON_ONE_STORE
@pytest.mark.parametrize("number", ["A-1", "a1", "A 1", "A/1"])
async def test_an_invoice_that_comes_again_is_put_aside_or_asked_about_and_never_paid_twice(
    office: Office, number: str
) -> None:
    async with office.received(xml=invoice()):
        pass
    async with office.received(xml=invoice(number=number)) as run:
        done = await run.run()
        if number == "A-1":
            assert (done.state, done.outcome) == (RunState.COMPLETED, Outcome.AUTO)
        else:
            assert [review.node for review in await run.reviews()] == ["ask_about_twin"]
            await run.approve()  # an approval alone books nothing a second time: the first has to be taken back
            assert [review.node for review in await run.reviews()] == ["ask_about_twin"]
    assert await office.paid() == [(OURS, "125.00")]


async def test_the_same_invoice_under_another_number_goes_to_a_person(office: Office) -> None:
    await office.books.add_order(order(boxes="30"))
    async with office.received(xml=invoice()):
        pass
    for answer, paid in (("reject", 1), ("approve", 2)):
        async with office.received(xml=invoice(number="B-9", issued="2026-11-09")) as run:
            [asked] = await run.reviews()
            assert asked.node == "ask_about_twin"
            assert "'A-1'" in asked.question
            await run.answer(Decision(type=DecisionType(answer), by="dana"))
            while reviews := await run.reviews():  # what was ordered is used up by the first
                assert reviews[0].node == "book_invoice"
                await run.approve()
            assert len(await office.paid()) == paid


async def test_what_comes_every_month_is_no_duplicate(office: Office) -> None:
    await office.books.add_order(order(boxes="30"))
    for month in ("09", "10", "11"):
        async with office.received(xml=invoice(number=f"M-{month}", issued=f"2026-{month}-02")) as run:
            assert (await run.run()).outcome is Outcome.AUTO
    assert len(await office.paid()) == 3


async def test_two_copies_at_the_same_moment_are_paid_once(office: Office) -> None:
    async with (
        office.received(xml=invoice(price="9.00")) as first,
        office.received(xml=invoice(number="Z-9")) as second,
    ):
        for run in (first, second):
            for review in await run.reviews():
                await run.engine.decide(review.id, Decision(type=DecisionType.REJECT, by="dana"))
        await asyncio.gather(first.go_on(), second.go_on())
    assert len(await office.paid()) == 1


# -- time --------------------------------------------------------------------------------------------------------------


async def test_a_payment_that_nobody_approves_in_time_is_not_made(office: Office) -> None:
    async with office.received(xml=invoice(gross="125.01")) as run:
        done = await run.pass_time(PATIENCE + timedelta(minutes=1))
        assert (done.state, done.outcome) == (RunState.COMPLETED, Outcome.REJECTED)
    assert await office.paid() == []
    assert await office.books.entries() == []
