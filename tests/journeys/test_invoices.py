"""The invoice workflow where nothing stands in its way, on real books and both stores."""

from __future__ import annotations

import base64
import csv
from decimal import Decimal
from pathlib import Path

import pytest
from tests.invoice_documents import EXAMPLES, TEXT, invoice, letter
from tests.journeys.invoice_world import OURS, Office
from tests.journeys.stores import ON_ONE_STORE

from eventwright.graphs.invoices import WHO_DECIDES, invoices
from eventwright.runs.records import EffectState, JournalKind
from eventwright.runs.states import Outcome, RunState
from eventwright.tools.e_invoice import read_xml


@ON_ONE_STORE
@pytest.mark.parametrize("amount", ["125.00", "-125.00"])
async def test_a_credit_note_lessens_what_we_owe_and_is_never_paid_out(office: Office, amount: str) -> None:
    net, vat = ("100.00", "25.00") if amount[0] != "-" else ("-100.00", "-25.00")
    quantity = "10" if amount[0] != "-" else "-10"
    async with office.received(xml=invoice(net=net, vat=vat, gross=amount, credit=True, quantity=quantity)) as run:
        for _ in await run.reviews():
            await run.approve()
        assert (await run.run()).state is RunState.COMPLETED
    assert await office.paid() == []
    [entry] = await office.books.entries()
    [owed] = [one.debit - one.credit for one in entry.postings if one.account == "2000 payables"]
    assert owed == Decimal(amount)


@ON_ONE_STORE
@pytest.mark.parametrize("file", EXAMPLES, ids=lambda file: file.name)
async def test_the_valid_examples_go_through_without_a_rule_fired(office: Office, file: Path) -> None:
    read = read_xml(file.read_bytes())
    supplier = await office.knows(read)
    async with office.received(xml=file.read_text(encoding="utf-8")) as run:
        rules = [finding["rule"] for finding in (await run.values())["findings"]]
        # Some examples name no order; who pays them is asked, and the document itself is right.
        assert set(rules) <= {"ORDER-MISSING"}
        for name in ("ann", "bob")[: len(await run.reviews())]:
            await run.approve(by=name)
        assert (await run.run()).state is RunState.COMPLETED
    owed = read.owed or Decimal(0)
    assert await office.paid() == ([] if owed <= 0 else [(supplier.accounts[0], f"{owed:.2f}")])


async def test_a_pdf_with_words_is_read_like_a_letter(office: Office) -> None:
    async with office.received(pdf=base64.b64encode(letter(TEXT)).decode()) as run:
        assert (await run.run()).outcome is Outcome.AUTO
    assert await office.paid() == [(OURS, "125.00")]


async def test_the_record_of_a_run_says_what_was_read_found_decided_and_booked(office: Office) -> None:
    async with office.received(xml=invoice(gross="125.01")) as run:
        await run.approve(by="dana")
        entries = await run.journal()
        done = [(entry.node, entry.data["tool"]) for entry in entries if entry.kind is JournalKind.EFFECT_DONE]
        assert done == [
            ("identify", "accounting.find_supplier"),
            ("look_up", "accounting.find_order"),
            ("look_up", "accounting.find_twins"),
            ("book_invoice", "accounting.book_invoice"),
            ("export", "accounting_export.export_entry"),
        ]
        assert [entry.actor for entry in entries if entry.kind is JournalKind.DECISION] == ["dana"]
        assert {effect.state for effect in await run.effects()} == {EffectState.DONE}
        assert "xml" not in await run.values()
    [entry] = await office.books.entries()
    rows = list(csv.DictReader(office.export.path.read_text(encoding="utf-8").splitlines()))
    assert [row["account"] for row in rows] == [one.account for one in entry.postings]
    assert "5990 differences" in {row["account"] for row in rows}


def test_each_question_of_the_workflow_has_somebody_who_answers_it() -> None:
    assert set(WHO_DECIDES) < set(invoices.graph.nodes)
    asking = {node for node, policy in invoices.policies.items() if policy.min_confidence or policy.approve_when}
    assert asking <= set(WHO_DECIDES)
