"""The invoice workflow: a supplier's document comes in, is booked, and its payment scheduled; once, or a person says.

Read it from the top as the business does it. A model reads only what no program can, and decides nothing. Code checks
the standard's rules, our order and our record of the supplier. Every doubt is a finding, and with a finding nothing is
paid before people have approved it. Money goes to an account that purchasing keeps, not to one that a document names.
"""

from __future__ import annotations

import asyncio
import base64
import binascii
import hashlib
from datetime import timedelta
from decimal import Decimal
from typing import Any, Literal, Self, TypedDict

from langgraph.graph import END, START, StateGraph
from langgraph.types import Command, interrupt
from pydantic import BaseModel, ConfigDict, Field, model_validator

from eventwright.graphs.exceptions import Exceptions
from eventwright.graphs.invoicing.booking import an_answer, arguments_of, as_it_came, bookable, booking, short
from eventwright.graphs.invoicing.comparison import compare
from eventwright.graphs.invoicing.findings import Finding
from eventwright.graphs.invoicing.payments import findings_rule, payment_rule
from eventwright.graphs.invoicing.rules import findings
from eventwright.graphs.invoicing.texts import INSTRUCTIONS, SCHEMA, invoice_from, not_in_text
from eventwright.graphs.judgement import extract
from eventwright.graphs.starting import starting_event
from eventwright.graphs.workflow import On, Workflow
from eventwright.guardrails.budgets import Budget
from eventwright.guardrails.detectors import CARD, IBAN
from eventwright.guardrails.policy import Policy, review
from eventwright.guardrails.redaction import Redaction
from eventwright.guardrails.rules import from_person, from_record
from eventwright.guardrails.text import clean_value
from eventwright.runs.event import Event
from eventwright.tools import accounting, accounting_export
from eventwright.tools.accounting_records import Booking, PurchaseOrder, Supplier
from eventwright.tools.e_invoice import UnreadableDocument, read_pdf, read_xml
from eventwright.tools.e_invoice_fields import EInvoice

# -- what the business has decided ---------------------------------------------------------------------------------

#: Up to the first amount a payment without findings needs nobody, up to the second one person, above it two. In any
#: other currency two people are asked.
TIERS = {
    "EUR": (Decimal("1000.00"), Decimal("10000.00")),
    "GBP": (Decimal("850.00"), Decimal("8500.00")),
    "USD": (Decimal("1100.00"), Decimal("11000.00")),
}
#: So many payments a day may go to one supplier without a person, whatever their amounts: a large one cut into small
#: ones is still a large one.
MOST_PAYMENTS = 5
#: A payment that nobody approves within this time is not made.
PATIENCE = timedelta(days=14)
#: Who answers the questions of which node.
WHO_DECIDES = {
    "read_text": "accounts payable",
    "ask_for_document": "accounts payable",
    "ask_for_supplier": "purchasing",
    "ask_about_twin": "accounts payable",
    "ask_about_account": "purchasing, who calls the supplier under a number that they had before",
    "book_invoice": "whoever may approve the amount",
    "book_without_payment": "accounts payable",
}

# -- what comes in -------------------------------------------------------------------------------------------------


class ReceivedInvoice(BaseModel):
    """A document, from the mailbox or the portal. Version 1. Exactly one of `xml`, `pdf` and `text`."""

    model_config = ConfigDict(extra="forbid")

    #: Who sent it, as the mailbox or the portal knows them.
    sender: str = Field(max_length=254)
    #: The supplier's name, VAT number or number with us, as the sender says; a hint and nothing more.
    supplier: str | None = Field(None, max_length=200)
    xml: str | None = Field(None, min_length=1, max_length=900_000)
    #: The file in base64.
    pdf: str | None = Field(None, min_length=1, max_length=900_000)
    text: str | None = Field(None, min_length=1, max_length=20_000)

    @model_validator(mode="after")
    def _one_document(self) -> Self:
        if sum(document is not None for document in (self.xml, self.pdf, self.text)) != 1:
            raise ValueError("send exactly one of xml, pdf and text")
        return self


def begin(received: ReceivedInvoice, _event: Event) -> dict[str, Any]:
    """What the graph starts with. The document stays in the event, and the state knows it by its digest."""
    document = received.xml or received.pdf or received.text or ""
    sha256 = hashlib.sha256(document.encode()).hexdigest()
    return {"sender": received.sender, "hint": received.supplier, "sha256": sha256}


class InvoiceState(TypedDict, total=False):
    """What is known of a document so far."""

    sender: str
    hint: str | None
    sha256: str
    #: Why no program can read it, or what it lacks to be booked.
    problem: str
    #: Its words, where it is no e-invoice.
    text: str
    invoice: dict[str, Any]
    #: What a model read and code did not find in the words.
    doubts: list[dict[str, Any]]
    supplier: dict[str, Any] | None
    order: dict[str, Any] | None
    #: What is booked already and may be this very invoice.
    twins: list[dict[str, Any]]
    known_twin: bool
    findings: list[dict[str, Any]]
    #: Where the money goes.
    account: str
    booking: dict[str, Any]


# -- what happens, in this order -----------------------------------------------------------------------------------


async def read(state: InvoiceState) -> InvoiceState:
    """Read the document: an e-invoice, or only words."""
    received = ReceivedInvoice.model_validate(clean_value(starting_event().data))
    try:
        if received.xml is not None:
            return _read(await asyncio.to_thread(read_xml, received.xml))
        if received.pdf is not None:
            data = base64.b64decode(received.pdf, validate=True)
            content = await asyncio.to_thread(read_pdf, data)
            return _read(content.invoice) if content.invoice else {"text": content.text}
    except (UnreadableDocument, binascii.Error) as error:
        return {"problem": str(error)}
    return {"text": received.text or ""}


def _read(invoice: EInvoice) -> InvoiceState:
    return {"invoice": invoice.model_dump(mode="json")}


def how_it_came(state: InvoiceState) -> Literal["ask_for_document", "read_text", "identify"]:
    if "problem" in state:
        return "ask_for_document"
    return "read_text" if "text" in state else is_enough(state)


async def read_text(state: InvoiceState) -> InvoiceState:
    """A model copies what stands in the words; below the policy's confidence a person does. Code looks whether it
    stands there."""
    fields = (await extract(state["text"], SCHEMA, instructions=INSTRUCTIONS)).value
    doubts = [finding.model_dump() for finding in not_in_text(fields, state["text"])]
    return {**_read(invoice_from(fields, state["text"])), "doubts": doubts}


def is_enough(state: InvoiceState) -> Literal["ask_for_document", "identify"]:
    """Whether it says what nobody could guess."""
    return "identify" if bookable(EInvoice.model_validate(state["invoice"])) else "ask_for_document"


async def ask_for_document(state: InvoiceState) -> Command[Literal["read_text", "__end__"]]:
    """What cannot be read, or says too little, a person types in, or sends back."""
    problem = state.get("problem") or "It lacks a number, a date, a currency or the amount due."
    answer = interrupt(
        {
            "kind": "missing_data",
            "question": f"This document cannot be booked: {problem} Respond: what it says, in words. Reject: it is "
            "sent back.",
            "arguments": {"sender": state["sender"]},
            "allowed": ["respond", "reject"],
        },
        response_schema=an_answer("text", 20_000),
    )
    if answer is False:
        return Command(goto="__end__")
    return Command(goto="read_text", update={"text": answer["text"]})


async def identify(state: InvoiceState) -> InvoiceState:
    """Whose document is it? By the VAT number, else by the name, else by what the sender or a person says."""
    seller = EInvoice.model_validate(state["invoice"]).seller
    number = next(iter(seller.vat_ids), None) if seller else None
    found = await accounting.find_supplier(short(number), short(seller.name if seller else None), short(state["hint"]))
    return {"supplier": found and found.model_dump(mode="json")}


def whose(state: InvoiceState) -> Literal["ask_for_supplier", "look_up"]:
    return "look_up" if state["supplier"] else "ask_for_supplier"


async def ask_for_supplier(state: InvoiceState) -> Command[Literal["identify", "__end__"]]:
    """Nobody whom we buy from: purchasing says who it is, or that it is nobody."""
    seller = EInvoice.model_validate(state["invoice"]).seller
    answer = interrupt(
        {
            "kind": "missing_data",
            "question": "Which supplier is this? Respond: the number, name or VAT number in our records. Reject: none.",
            "arguments": {"seller": seller and seller.name, "sender": state["sender"]},
            "allowed": ["respond", "reject"],
        },
        response_schema=an_answer("supplier", 200),
    )
    if answer is False:
        return Command(goto="__end__")
    return Command(goto="identify", update={"hint": answer["supplier"]})


async def look_up(state: InvoiceState) -> InvoiceState:
    """What we ordered, and whether we have this invoice already."""
    invoice = EInvoice.model_validate(state["invoice"])
    order = await accounting.find_order(short(invoice.order)) if invoice.order else None
    twins = [] if state.get("known_twin") else await accounting.find_twins(booking(state))
    return {
        "order": order and order.model_dump(mode="json"),
        "twins": [twin.model_dump(mode="json") for twin in twins],
    }


def is_new(state: InvoiceState) -> Literal["ask_about_twin", "check", "__end__"]:
    """The same document once more is put aside; one that is only like another goes to a person."""
    this = booking(state)
    for twin in state["twins"]:
        if twin["sha256"] == this.sha256 or (twin["number"], Decimal(twin["owed"])) == (this.number, this.owed):
            return "__end__"
    return "ask_about_twin" if state["twins"] else "check"


async def ask_about_twin(state: InvoiceState) -> Command[Literal["look_up", "check", "__end__"]]:
    """One like it is booked already: a person says whether this is another one."""
    this, twins = booking(state), state["twins"]
    again = any(as_it_came(twin).number_key == this.number_key for twin in twins)
    how = "take that booking back first, then approve" if again else "approve: it is another one, go on"
    answer = interrupt(
        {
            "question": f"Is {this.number!r} booked already, as {', '.join(repr(twin['number']) for twin in twins)}? "
            f"If not, {how}. Reject: it is the same, it ends here.",
            "arguments": {"number": this.number, "owed": str(this.owed), "issued": str(this.issued)},
            "evidence": {"twins": twins},
            "allowed": ["approve", "reject"],
        }
    )
    if not answer:
        return Command(goto="__end__")
    return Command(goto="look_up") if again else Command(goto="check", update={"known_twin": True, "twins": []})


async def check(
    state: InvoiceState,
) -> Command[Literal["ask_about_account", "book_invoice", "book_without_payment"]]:
    """The standard's rules, the order, the supplier's record. Then: is there money to pay, and is the account known?"""
    invoice, supplier = EInvoice.model_validate(state["invoice"]), Supplier.model_validate(state["supplier"])
    order = PurchaseOrder.model_validate(state["order"]) if state["order"] else None
    doubts = [Finding.model_validate(doubt) for doubt in state.get("doubts", ())]
    wrong = await asyncio.to_thread(findings, invoice)  # a thousand lines take seconds, and others work here too
    found = [*wrong, *compare(invoice, supplier, order), *doubts]
    update = {"findings": [finding.model_dump() for finding in found]}
    if invoice.is_credit or (invoice.owed or 0) <= 0:
        return Command(goto="book_without_payment", update=update)
    if supplier.accounts and set(invoice.accounts) <= set(supplier.accounts):
        account = (*invoice.accounts, *supplier.accounts)[0]
        return Command(goto="book_invoice", update=update | {"account": account})
    return Command(goto="ask_about_account", update=update)


async def ask_about_account(state: InvoiceState) -> Command[Literal["book_invoice", "__end__"]]:
    """The account is not the one that purchasing keeps: a person says where the money goes."""
    invoice, supplier = EInvoice.model_validate(state["invoice"]), Supplier.model_validate(state["supplier"])
    ours = next(iter(supplier.accounts), None)
    answer = interrupt(
        {
            "question": f"{supplier.name} wants the money on another account than the one we know. Call them, under a "
            "number that you had before. Approve: pay to the account that we know. Respond: the account that they "
            "confirmed. Reject: pay nothing.",
            "arguments": {"account": ours, "named": invoice.accounts},
            "allowed": ["approve", "respond", "reject"] if ours else ["respond", "reject"],
        },
        response_schema=an_answer("account", 34, "^[A-Z0-9]{4,34}$"),
    )
    if answer is False:
        return Command(goto="__end__")
    account = answer["account"] if isinstance(answer, dict) else ours
    return Command(goto="book_invoice", update={"account": account})


async def book_invoice(state: InvoiceState) -> Command[Literal["look_up", "export"]]:
    """Book it and schedule its payment, as far as the policy of the node lets it."""
    given = arguments_of(booking(state), known_twin=state.get("known_twin", False))
    try:
        booked = await accounting.book_invoice(account=state["account"], **given)
    except accounting.BooksMoved:
        return Command(goto="look_up")  # while people thought about it, one like it was booked, or its order used up
    return Command(goto="export", update={"booking": booked.model_dump(mode="json")})


async def book_without_payment(state: InvoiceState) -> Command[Literal["look_up", "export"]]:
    """Book a credit note, or an invoice with nothing due. Nothing is paid."""
    given = arguments_of(booking(state), known_twin=state.get("known_twin", False))
    try:
        booked = await accounting.book_without_payment(**given)
    except accounting.BooksMoved:
        return Command(goto="look_up")
    return Command(goto="export", update={"booking": booked.model_dump(mode="json")})


async def export(state: InvoiceState) -> None:
    """The entry goes to the accounting system, once."""
    booked = Booking.model_validate(state["booking"])
    await accounting_export.export_entry(booked.entry)


# -- the graph, and what each node may do ----------------------------------------------------------------------------

THE_SUPPLIER = {"supplier_id": from_record(accounting.find_supplier, "id", at="identify")}
#: Money goes to the account that purchasing keeps, or to one that a person has confirmed.
THE_ACCOUNT = {
    "account": from_record(accounting.find_supplier, "accounts", at="identify")
    | from_person("account", at="ask_about_account")
}

graph = StateGraph(InvoiceState)
graph.add_node("read", read)
graph.add_node("read_text", read_text)
graph.add_node("ask_for_document", ask_for_document)
graph.add_node("identify", identify)
graph.add_node("ask_for_supplier", ask_for_supplier)
graph.add_node("look_up", look_up)
graph.add_node("ask_about_twin", ask_about_twin)
graph.add_node("check", check)
graph.add_node("ask_about_account", ask_about_account)
graph.add_node("book_invoice", book_invoice)
graph.add_node("book_without_payment", book_without_payment)
graph.add_node("export", export)
graph.add_edge(START, "read")
graph.add_conditional_edges("read", how_it_came)
graph.add_conditional_edges("read_text", is_enough)
graph.add_conditional_edges("identify", whose)
graph.add_conditional_edges("look_up", is_new)
graph.add_edge("export", END)

invoices = Workflow(
    "invoices",
    version="1",
    graph=graph,
    description="books suppliers' invoices and credit notes, and schedules payments within limits",
    triggers=[On("invoice.received", payload={"1": ReceivedInvoice}, input=begin)],
    budgets=[Budget("calls", 40)],
    exceptions=Exceptions(
        missing_data="Accounts payable types in what cannot be read or says too little; purchasing names an unknown "
        "supplier. Or they send it back, and nothing is booked.",
        low_confidence="A person reads the words where the model is not sure. What it says and the words do not is a "
        "finding, and a finding needs an approval.",
        tool_error="Three more attempts for the books, five for the accounting system; then an operator replays it.",
        duplicate_event="The same event is the same run. The same invoice ends there; one like another that is booked, "
        "under another number, goes to accounts payable.",
        timeout="A payment that nobody has approved after 14 days is not made, and the run ends as rejected.",
        human_approval="By amount one person or two approve a payment, and always one with a finding, without an order "
        "of ours, or to a new account. A no books nothing.",
        partial_completion="Booking and payment are one transaction. What is booked and not exported stays booked, and "
        "a replay exports it; an operator can take both back.",
    ),
    # An invoice is full of long numbers, and its books are our own: nothing in them leaves the house.
    redaction=Redaction(model=(CARD, IBAN), outgoing=()),
    policies={
        "read_text": Policy(
            min_confidence=0.80, otherwise=review("What does this invoice say?", deadline=PATIENCE), retries=3
        ),
        "identify": Policy(tools=[accounting.find_supplier], retries=3, timeout=10),
        "look_up": Policy(tools=[accounting.find_order, accounting.find_twins], retries=3, timeout=10),
        "book_invoice": Policy(
            tools=[accounting.book_invoice],
            rules={accounting.book_invoice: THE_SUPPLIER | THE_ACCOUNT},
            approve_when=payment_rule(TIERS),
            approval=review("May this invoice be paid?", deadline=PATIENCE, by_another=True),
            budgets=[
                Budget("calls", MOST_PAYMENTS, per="day", of=accounting.book_invoice, by="supplier_id", then="person")
            ],
            retries=3,
            timeout=30,
        ),
        "book_without_payment": Policy(
            tools=[accounting.book_without_payment],
            rules={accounting.book_without_payment: THE_SUPPLIER},
            approve_when=findings_rule,
            approval=review("May this be booked?", deadline=PATIENCE, by_another=True),
            retries=3,
            timeout=30,
        ),
        "export": Policy(tools=[accounting_export.export_entry], retries=5, timeout=30),
    },
)
