"""The discounts workflow: a lead gets a quote, and who may allow its discount has allowed it.

Read it from the top as the business does it. A model says on what grounds somebody wants a discount. Code prices it
and decides who must agree; a person with that role does. Then the quote is out of our hands until the signature system
says that it was signed: we remind, we let it expire, and we believe what the envelope holds, not what an event says.
"""

from __future__ import annotations

from contextlib import suppress
from datetime import datetime, timedelta
from decimal import Decimal
from typing import Any, Literal

from langgraph.graph import END, START, StateGraph
from langgraph.types import Command, interrupt

from eventwright.graphs.discount_answers import (
    DIRECTOR,
    ask_about_difference,
    ask_about_late_answer,
    look_at_late_answer,
    revive,
)
from eventwright.graphs.discount_rules import (
    ENDINGS,
    a_list_of_items,
    company_domain,
    differences,
    letter,
    off,
    priced,
    the_priced_items,
)
from eventwright.graphs.discount_state import MOST_PERCENT, Answered, QuoteRequest, QuoteState, came_late, requester
from eventwright.graphs.exceptions import Exceptions
from eventwright.graphs.judgement import classify
from eventwright.graphs.support_rules import an_address, one_line
from eventwright.graphs.waiting import Continues, wait_for
from eventwright.graphs.workflow import On, Workflow
from eventwright.guardrails.budgets import Budget
from eventwright.guardrails.policy import Backoff, Policy, review
from eventwright.guardrails.rules import Ask, Facts, Rule, at_most, equals, from_person, from_record
from eventwright.guardrails.verdicts import Rejected
from eventwright.tools import enrichment, leads_book, mail, pricing, quotes, signatures, slack
from eventwright.tools.contract import NotDone

# -- what the business has decided ---------------------------------------------------------------------------------

#: How many percent nobody need be asked about, by the grounds on which they are wanted.
FREE_PERCENT = {"volume": Decimal(10), "competition": Decimal(10), "loyalty": Decimal(7), "other": Decimal(3)}
#: What a discount may come to without anybody, and with the manager alone. In any other currency the director is asked.
FREE_AMOUNT = {"EUR": Decimal(2000), "GBP": Decimal(1700), "USD": Decimal(2200)}
MANAGER_AMOUNT = {"EUR": Decimal(10000), "GBP": Decimal(8500), "USD": Decimal(11000)}
MANAGER_PERCENT = Decimal(25)
#: So many quotes a day may go to one customer without a person: a large discount in small quotes is still a large one.
MOST_QUOTES = 5
#: Who may allow more than is free, beside the director (`DIRECTOR`); EVENTWRIGHT_ROLES says who they are.
MANAGER = "sales-manager"
#: Who is reminded when, after the quote was sent, and when it expires.
REMINDERS = (timedelta(days=3), timedelta(days=7))
EXPIRY = timedelta(days=14)
#: Where sales reads what became of its quotes.
SALES_DESK, SALES_CHANNEL = "sales@example.org", "#quotes"
#: How often a provider of company data is asked before we go on without.
ASKED = 2


def needs_a_person(call: Any, facts: Facts) -> Ask | None:
    """Who must allow a discount, and why."""
    free = FREE_PERCENT.get(call.grounds, Decimal(0)) if call.company_is_known else Decimal(0)
    price = priced(call.items, facts, at="price")
    if price is None:
        raise ValueError("the items were not priced")
    amount, currency = off(price, call.percent), call.currency
    if not call.percent or (call.percent <= free and amount <= FREE_AMOUNT.get(currency, -1)):
        return None
    whose = "" if call.company_is_known else ", the company is not known"
    reason = f"{call.percent} % ({amount:.2f} {currency}) for {call.grounds}{whose}; free are {free} %"
    manager = call.percent <= MANAGER_PERCENT and amount <= MANAGER_AMOUNT.get(currency, -1)
    return Ask(reason, role=MANAGER if manager else DIRECTOR)


# -- what happens, in this order -----------------------------------------------------------------------------------


def how_it_begins(state: QuoteState) -> Literal["find_lead", "look_at_late_answer"]:
    return "look_at_late_answer" if "late" in state else "find_lead"


async def find_lead(state: QuoteState) -> QuoteState:
    """Whose address is it? A quote goes to an address that the book of leads has, or that a person vouches for."""
    email = (state["lead"]["email"] or "").strip()
    contact = await leads_book.find_by_email(email) if mail.ADDRESS.fullmatch(email) else None
    return {"address": contact.email if contact else None}


def is_known(state: QuoteState) -> Literal["enrich", "ask_address"]:
    return "enrich" if state["address"] else "ask_address"


async def ask_address(state: QuoteState) -> Command[Literal["enrich", "__end__"]]:
    """Nobody in the book has this address, or there is none: a person says where the quote goes, if anywhere."""
    email = (state["lead"]["email"] or "").strip()
    usable = mail.ADDRESS.fullmatch(email) is not None
    answer = interrupt(
        {
            "kind": "missing_data",
            "question": f"Where does this quote go? {email or 'Without an address, it'} is not in the book of leads. "
            "Approve: to the address shown. Respond: another one. Reject: no quote.",
            "arguments": {"email": email, **state["lead"]},
            "allowed": ["approve", "respond", "reject"] if usable else ["respond", "reject"],
        },
        response_schema=an_address("email"),
    )
    if answer is False:
        return Command(goto="__end__")
    return Command(goto="enrich", update={"address": answer["email"].strip() if isinstance(answer, dict) else email})


async def enrich(state: QuoteState) -> QuoteState:
    """What is known of the company. Without an answer we go on, and no discount is free."""
    domain, company = company_domain(state["address"] or ""), None
    for _ in range(ASKED if domain else 0):
        try:
            company = await enrichment.find_company(domain)
            break
        except NotDone:
            continue  # it stands in the journal; the quote does not wait for it
    if company is None:
        return {"company": f"{state['lead']['company']} (nothing found)", "company_is_known": False}
    known = [company.name, company.industry, company.country, f"{company.employees or 'unknown number of'} people"]
    return {"company": one_line(", ".join(filter(None, known))), "company_is_known": True}


def wants_discount(state: QuoteState) -> Literal["understand", "price"]:
    return "understand" if Decimal(state["discount"]["percent"]) else "price"


async def understand(state: QuoteState) -> QuoteState:
    """On what grounds is the discount wanted? Below the policy's confidence a person says it."""
    question = "On what grounds does this customer want a discount?"
    judgement = await classify(f"message: {state['discount']['reason']}", list(FREE_PERCENT), instructions=question)
    return {"grounds": judgement.value}


async def find_price(state: QuoteState) -> Command[Literal["give", "ask_items"]]:
    """What it costs by the price list, before the discount is allowed."""
    percent = Decimal(state["discount"]["percent"])
    try:
        await pricing.price(state["items"], state["currency"], percent)
    except pricing.NotForSale as error:
        return Command(goto="ask_items", update={"missing": error.items})
    return Command(goto="give")


async def ask_items(state: QuoteState) -> Command[Literal["price", "__end__"]]:
    """The list has no price for something: a person says what was meant, or that we do not sell it."""
    answer = interrupt(
        {
            "kind": "missing_data",
            "question": f"There is no price in {state['currency']} for {', '.join(state['missing'])}. "
            "Respond: the items as they shall be, all of them. Reject: no quote.",
            "arguments": {"items": state["items"]},
            "allowed": ["respond", "reject"],
        },
        response_schema=a_list_of_items(),
    )
    return Command(goto="__end__") if answer is False else Command(goto="price", update={"items": answer["items"]})


async def give(state: QuoteState) -> Command[Literal["send_for_signature", "tell_sales"]]:
    """Write the quote down at its price, as far as the policy of the node lets it."""
    try:
        quote = await quotes.give(
            customer=state["address"],
            items=state["items"],
            currency=state["currency"],
            percent=Decimal(state["discount"]["percent"]),
            reason=state["discount"]["reason"],
            grounds=state.get("grounds", "nothing"),
            company=state["company"],
            company_is_known=state["company_is_known"],
        )
    except Rejected as no:
        why = f": {one_line(no.decision.comment)}" if no.decision.comment else ""
        return Command(goto="tell_sales", update={"told": f"The discount was not allowed by {no.decision.by}{why}."})
    return Command(goto="send_for_signature", update={"quote": quote.model_dump(mode="json")})


async def send_for_signature(state: QuoteState) -> QuoteState:
    """The quote goes to the signature system, which brings it to the customer."""
    quote, price = state["quote"], state["quote"]["price"]
    envelope = await signatures.send(
        email=state["address"],
        name=one_line(state["lead"]["name"] or state["lead"]["company"]) or state["address"],
        reference=quote["id"],
        amount=Decimal(price["total"]),
        currency=price["currency"],
        subject=f"Your quote {quote['id'][-8:]}",
        document=letter(quote, EXPIRY.days),
    )
    return {"sent": envelope.model_dump(mode="json"), "passed": 0}


async def tell_lead(state: QuoteState) -> None:
    """One mail that says what is on its way."""
    text = "Hello,\n\nhere is your quote. You will get it for signature in a moment.\n\n"
    quote = state["quote"]
    await mail.send(state["address"], f"Your quote {quote['id'][-8:]}", text + letter(quote, EXPIRY.days))


async def wait_for_signature(state: QuoteState) -> QuoteState:
    """Until somebody signs or declines, or it is time for a reminder or the end."""
    times = (*REMINDERS, EXPIRY)
    until = datetime.fromisoformat(state["sent"]["sent_at"]) + times[state["passed"]]
    event = await wait_for(["quote.signed", "quote.declined"], key=state["sent"]["id"], until=until)
    return {"passed": state["passed"] + (event is None), "time_came": event is None}


async def read_envelope(state: QuoteState) -> QuoteState:
    """What the envelope holds now, whatever the event has said; and before every reminder, should an event be lost."""
    envelope = await signatures.read(state["sent"]["id"])
    return {"envelope": envelope and envelope.model_dump(mode="json")}


def what_it_says(
    state: QuoteState,
) -> Literal["settle", "ask_about_difference", "expire", "remind", "wait_for_signature"]:
    envelope = state["envelope"]
    if envelope is None or envelope["status"] == "completed":
        return "ask_about_difference" if differences(state["quote"], envelope, state["address"] or "") else "settle"
    if envelope["status"] != "sent":
        return "settle"
    if not state["time_came"]:
        return "wait_for_signature"  # the event was not true
    return "expire" if state["passed"] > len(REMINDERS) else "remind"


async def remind(state: QuoteState) -> None:
    """A short mail while there is time."""
    number = state["quote"]["id"][-8:]
    text = f"Hello,\n\nyour quote {number} still waits for your signature. It stands for {EXPIRY.days} days.\n"
    await mail.send(state["address"], f"Your quote {number}: a reminder", text)


async def expire(state: QuoteState) -> Command[Literal["settle", "read_envelope"]]:
    """Take the letter back. Who signed in the last moment has signed."""
    try:
        voided = await signatures.void(state["sent"]["id"], f"expired after {EXPIRY.days} days")
    except signatures.EnvelopeEnded:
        return Command(goto="read_envelope")
    return Command(goto="settle", update={"envelope": voided.model_dump(mode="json"), "ending": "expired"})


async def settle(state: QuoteState) -> QuoteState:
    """The quote comes to its end in the book."""
    envelope = state["envelope"] or {"status": "voided", "reason": ""}
    quote = await quotes.end(state["quote"]["id"], state.get("ending") or ENDINGS[envelope["status"]])
    why = f": {one_line(envelope['reason'])}" if envelope["reason"] else ""
    return {"told": f"Quote {quote.id} over {quote.price.total} {quote.price.currency} was {quote.ending}{why}."}


async def tell_sales(state: QuoteState) -> None:
    """Sales reads what became of it: by mail, and in Slack if there is one."""
    whose = one_line(state["lead"]["company"]) if "lead" in state else ""
    if await slack.is_set_up():
        with suppress(NotDone):  # it stands in the journal, and the mail says the same
            await slack.post(SALES_CHANNEL, f"{whose}: {state['told']}" if whose else state["told"])
    asked = f"\n\nAsked for by {one_line(state['requested_by'])}." if "requested_by" in state else ""
    await mail.send(SALES_DESK, f"A quote for {whose or 'a customer'}", f"{state['told']}{asked}\n")


# -- the graph, and what each node may do ----------------------------------------------------------------------------

#: A quote goes to the address that the book of leads has, or to one that a person let pass.
THE_ADDRESS = from_record(leads_book.find_by_email, "email", at="find_lead") | from_person("email", at="ask_address")
#: What cannot be done now is tried again for a while.
SIGNING: dict[str, Any] = {"retries": 5, "backoff": Backoff(first=5.0, most=600.0)}
MAILING: dict[str, Any] = {"retries": 2, "backoff": Backoff(first=10.0, most=600.0), "timeout": 60}

graph = StateGraph(QuoteState)
graph.add_node("find_lead", find_lead)
graph.add_node("ask_address", ask_address)
graph.add_node("enrich", enrich)
graph.add_node("understand", understand)
graph.add_node("price", find_price)
graph.add_node("ask_items", ask_items)
graph.add_node("give", give)
graph.add_node("send_for_signature", send_for_signature)
graph.add_node("tell_lead", tell_lead)
graph.add_node("wait_for_signature", wait_for_signature)
graph.add_node("read_envelope", read_envelope)
graph.add_node("remind", remind)
graph.add_node("expire", expire)
graph.add_node("ask_about_difference", ask_about_difference)
graph.add_node("settle", settle)
graph.add_node("tell_sales", tell_sales)
graph.add_node("look_at_late_answer", look_at_late_answer)
graph.add_node("ask_about_late_answer", ask_about_late_answer)
graph.add_node("revive", revive)
graph.add_conditional_edges(START, how_it_begins)
graph.add_conditional_edges("find_lead", is_known)
graph.add_conditional_edges("enrich", wants_discount)
graph.add_edge("understand", "price")
graph.add_edge("send_for_signature", "tell_lead")
graph.add_edge("tell_lead", "wait_for_signature")
graph.add_edge("wait_for_signature", "read_envelope")
graph.add_conditional_edges("read_envelope", what_it_says)
graph.add_edge("remind", "wait_for_signature")
graph.add_edge("settle", "tell_sales")
graph.add_edge("revive", "tell_sales")
graph.add_edge("tell_sales", END)

discounts = Workflow(
    "discounts",
    version="1",
    graph=graph,
    description="gives quotes, lets whoever may allow a discount allow it, and waits for the signature",
    triggers=[
        On("quote.requested", payload={"1": QuoteRequest}, requester=requester),
        Continues("quote.signed", payload={"1": Answered}, key="envelope_id", late=came_late),
        Continues("quote.declined", payload={"1": Answered}, key="envelope_id"),
    ],
    budgets=[Budget("calls", 60)],
    exceptions=Exceptions(
        missing_data="An address that the book of leads does not have, or an article without a price, asks the sales "
        "desk; what cannot be found out gets no quote.",
        low_confidence="If it is not clear on what grounds a discount is wanted, a person says so.",
        tool_error="Without company data no discount is free; signatures and mail are tried again, then an operator is "
        "asked; a quote does without Slack.",
        duplicate_event="The same request is one run; a second signature event, or an untrue one, changes nothing.",
        timeout="Who does not sign is reminded after 3 and 7 days; after 14 the letter is taken back. Who signs after "
        "that asks the sales director.",
        human_approval="A discount above the free one asks the sales manager, a large one the director, never who "
        "wanted it; after a no there is no quote.",
        partial_completion="A letter that may have gone is read back, a mail that may have left asks a person; nothing "
        "is sent twice.",
    ),
    policies={
        "find_lead": Policy(tools=[leads_book.find_by_email], retries=3, timeout=10),
        "enrich": Policy(tools=[enrichment.find_company], patience=timedelta(0), timeout=60, retries=1),
        "understand": Policy(
            min_confidence=0.80, otherwise=review("On what grounds is it wanted?"), retries=3, fallback="other"
        ),
        "price": Policy(tools=[pricing.price]),
        "give": Policy(
            tools=[quotes.give],
            rules={
                quotes.give: {
                    "customer": THE_ADDRESS,
                    "items": the_priced_items("price"),
                    "currency": from_record(pricing.price, "currency", at="price"),
                    "percent": at_most(MOST_PERCENT),
                }
            },
            approve_when=Rule(
                "discount policy", needs_a_person, version="1", vouches_for=("percent",), roles=(MANAGER, DIRECTOR)
            ),
            approval=review("May this discount be given?", by_another=True),
            budgets=[Budget("calls", MOST_QUOTES, per="day", of=quotes.give, by="customer", then="person")],
            retries=3,
        ),
        "send_for_signature": Policy(
            tools=[signatures.send],
            rules={
                signatures.send: {
                    "email": THE_ADDRESS,
                    "amount": from_record(quotes.give, "price.total", at="give"),
                    "currency": from_record(quotes.give, "price.currency", at="give"),
                }
            },
            **SIGNING,
        ),
        "tell_lead": Policy(tools=[mail.send], rules={mail.send: {"to": THE_ADDRESS}}, **MAILING),
        "read_envelope": Policy(tools=[signatures.read], **SIGNING),
        "remind": Policy(tools=[mail.send], rules={mail.send: {"to": THE_ADDRESS}}, **MAILING),
        "expire": Policy(
            tools=[signatures.void],
            rules={signatures.void: {"envelope_id": from_record(signatures.send, "id", at="send_for_signature")}},
            **SIGNING,
        ),
        "settle": Policy(
            tools=[quotes.end], rules={quotes.end: {"quote_id": from_record(quotes.give, "id", at="give")}}, retries=3
        ),
        "tell_sales": Policy(
            tools=[mail.send, slack.is_set_up, slack.post],
            rules={mail.send: {"to": equals(SALES_DESK)}, slack.post: {"channel": equals(SALES_CHANNEL)}},
            patience=timedelta(hours=1),
            **MAILING,
        ),
        "look_at_late_answer": Policy(tools=[signatures.read, quotes.find], retries=5),
        "revive": Policy(
            tools=[quotes.revive],
            rules={quotes.revive: {"quote_id": from_person("quote", at="ask_about_late_answer")}},
            retries=3,
        ),
    },
)
