"""Failed payments: a card was declined, the customer is reminded and the card tried again, until it is paid or over.

Read it from the top as the business does it. No model is asked. What is owed is read back from Stripe before anything
is done: a reminder leaves only while the invoice is open, and a payment ends everything.
"""

from __future__ import annotations

from datetime import timedelta
from decimal import Decimal
from typing import Any, Literal, TypedDict

from langgraph.graph import END, START, StateGraph
from langgraph.types import Command, interrupt

from eventwright.graphs.exceptions import Exceptions
from eventwright.graphs.failed_payment_rules import Card, EveryVersion, InvoiceEvent, Step, after_decline, large, letter
from eventwright.graphs.support_rules import an_address
from eventwright.graphs.waiting import Continues, wait_for
from eventwright.graphs.workflow import On, Workflow
from eventwright.guardrails.budgets import Budget
from eventwright.guardrails.policy import Backoff, Policy, review
from eventwright.guardrails.rules import Facts, Rule, from_person, from_record
from eventwright.guardrails.verdicts import Rejected
from eventwright.tools import mail, reminders, stripe_billing

# -- what the business has decided ---------------------------------------------------------------------------------

#: After each attempt that has failed: what the customer is told, and the time until the card is tried again. Attempts
#: are counted as Stripe counts them, so those that Stripe makes by itself are among them.
STEPS = {
    1: Step(
        time=timedelta(days=3),
        subject="Your payment did not go through",
        text="Hello {name},\n\nwe could not collect {due} for invoice {number}. We will try again in {days} days.",
    ),
    2: Step(
        time=timedelta(days=5),
        subject="Your payment did not go through again",
        text="Hello {name},\n\ninvoice {number} over {due} is still open. We will try again in {days} days.",
    ),
    3: Step(
        time=timedelta(days=7),
        subject="Please look at how you pay",
        text="Hello {name},\n\nthree times we could not collect {due} for invoice {number}. We will try a last time in "
        "{days} days.",
    ),
    4: Step(
        time=timedelta(days=7),
        subject="Your subscription is about to be paused",
        text="Hello {name},\n\nwe could not collect {due} for invoice {number}, and will not try again. If it is not "
        "paid within {days} days, your subscription will be paused.",
    ),
}
LAST = max(STEPS)
PAUSED = Step(
    time=timedelta(days=60),  # whoever pays within this time has the subscription back by themselves
    subject="Your subscription is paused",
    text="Hello {name},\n\ninvoice {number} over {due} was not paid, so your subscription is paused. It goes on as "
    "soon as you pay, within {days} days.",
)
#: Above this, an account has a person who looks after it, by currency. In any other currency a person is asked.
LARGE = {"EUR": Decimal("1000.00"), "GBP": Decimal("850.00"), "USD": Decimal("1100.00")}
#: How long the question stands whether a large account may be paused; then it is not.
TIME_TO_DECIDE = timedelta(days=7)
#: Who answers the questions of which node.
WHO_DECIDES = {
    "ask_address": "the front desk",
    "ask_about_account": "the account manager",
    "ask_about_card": "the payments team",
    "remind": "the mail administrator",
    "pause": "the account manager",
    "hand_over": "the payments team",
    "say_paused": "the mail administrator",
}
#: What ends it, whatever it was about to do.
SETTLED = ["invoice.paid", "invoice.payment_succeeded", "invoice.voided", "invoice.marked_uncollectible"]
#: Where links in a mail may lead: to the page on which Stripe shows an invoice.
LINKS = ["invoice.stripe.com"]


def large_account(_pause: Any, facts: Facts) -> str | bool:
    """Whether the account manager must agree before a subscription is paused, and why."""
    [invoice, *_] = [record.value for record in facts.records if record.tool == stripe_billing.find_invoice.name]
    return large(Decimal(invoice["due"]), invoice["currency"], LARGE) or False


class DunningState(TypedDict, total=False):
    """What is known of a failed payment so far."""

    invoice_id: str
    #: As it was when the run began.
    invoice: dict[str, Any]
    name: str | None
    email: str | None
    #: The attempt that the customer was reminded of last, 1 to 4; or that is under way, if it is `unanswered`.
    attempt: int
    #: Whether the bank has not said yet what became of that attempt.
    unanswered: bool
    card: Card
    #: Whether an event, and not the time, has ended the wait.
    heard: bool


# -- what happens, in this order -----------------------------------------------------------------------------------


async def look_up(state: DunningState) -> Command[Literal["ask_address", "ask_about_account", "remind", "__end__"]]:
    """What is owed, and by whom? The event may have come after the payment; and each attempt that fails brings another
    event, but one run sees to an invoice for good, the first."""
    invoice = await stripe_billing.find_invoice(state["invoice_id"])
    if not invoice.is_open or not (await stripe_billing.claim_invoice(invoice.id)).is_ours:
        return Command(goto="__end__")
    customer = await stripe_billing.find_customer(invoice.customer_id)
    attempt = min(max(invoice.attempts, 1), LAST)
    known: DunningState = {
        "invoice": invoice.model_dump(mode="json"),
        "name": customer.name,
        "email": customer.email,
        "attempt": attempt,
        "card": "again",
    }
    if not mail.ADDRESS.fullmatch(customer.email or ""):
        return Command(goto="ask_address", update=known)
    return Command(goto=who_looks_after(known), update=known)


def who_looks_after(state: DunningState) -> Literal["ask_about_account", "remind"]:
    invoice = state["invoice"]
    return "ask_about_account" if large(Decimal(invoice["due"]), invoice["currency"], LARGE) else "remind"


async def ask_address(state: DunningState) -> Command[Literal["ask_about_account", "remind", "__end__"]]:
    """Without an address nobody can be reminded, and nobody is paused who was not reminded."""
    answer = interrupt(
        {
            "kind": "missing_data",
            "question": f"Stripe has no usable address for customer {state['invoice']['customer_id']}. To whom do "
            "reminders go? Reject: nothing is sent, nothing is charged, and you take it over.",
            "arguments": {"email": state["email"]},
            "allowed": ["respond", "reject"],
        },
        response_schema=an_address("email"),
    )
    if answer is False:
        return Command(goto="__end__")
    return Command(goto=who_looks_after(state), update={"email": answer["email"].strip()})


async def ask_about_account(state: DunningState) -> Command[Literal["remind", "__end__"]]:
    """A large account is not written to by a machine before the person who looks after it says so."""
    invoice = state["invoice"]
    answer = interrupt(
        {
            "question": f"The payment of {invoice['due']} {invoice['currency']} by {state['name']} has failed "
            f"({large(Decimal(invoice['due']), invoice['currency'], LARGE)}). Approve: reminders and further attempts "
            "as for everybody. Reject: you take it over, and nothing is sent.",
            "arguments": {"invoice": invoice["number"] or invoice["id"], "customer": invoice["customer_id"]},
            "allowed": ["approve", "reject"],
        }
    )
    return Command(goto="remind" if answer else "__end__")


async def remind(state: DunningState) -> Command[Literal["wait", "__end__"]]:
    """One mail for each attempt that has failed, if the invoice is open at that moment."""
    reminded = await write_to_customer(state, STEPS[state["attempt"]])
    return Command(goto="wait" if reminded.status == "open" else "__end__")


async def write_to_customer(state: DunningState, step: Step) -> reminders.Reminder:
    body = letter(step.text, state["invoice"], state["name"], card=state["card"], days=step.time.days)
    reminder: reminders.Reminder = await reminders.remind(
        state["invoice"]["id"], state["email"] or "", step.subject, body
    )
    return reminder


async def wait(state: DunningState) -> DunningState:
    """Until it is settled, or the time of this step is over."""
    event = await wait_for(SETTLED, key=state["invoice_id"], within=STEPS[state["attempt"]].time)
    return {"heard": event is not None}


async def look_again(
    state: DunningState,
) -> Command[Literal["remind", "wait", "charge", "ask_about_card", "pause", "hand_over", "__end__"]]:
    """What is due next? Whatever an event says, the invoice itself says whether it is over."""
    invoice = await stripe_billing.find_invoice(state["invoice"]["id"])
    if not invoice.is_open:
        return Command(goto="__end__")
    if state["heard"]:
        return Command(goto="wait")
    tried = min(invoice.attempts, LAST)
    if tried > state["attempt"] or state.get("unanswered"):
        # Stripe has tried by itself meanwhile, or what was under way has not arrived: nobody was told of that attempt.
        return Command(goto="remind", update={"attempt": max(tried, state["attempt"]), "unanswered": False})
    if state["attempt"] == LAST:
        return Command(goto="pause" if invoice.subscription_id else "hand_over")
    match state["card"]:
        case "never":
            return Command(goto="remind", update={"attempt": state["attempt"] + 1})
        case "unclear":
            return Command(goto="ask_about_card")
    return Command(goto="charge")


async def ask_about_card(state: DunningState) -> Command[Literal["charge", "remind"]]:
    """A bank's reason that stands in no table is not guessed at."""
    answer = interrupt(
        {
            "question": f"The card for invoice {state['invoice']['number']} was declined for a reason that is not in "
            "the tables. Approve: it is charged again. Reject: only reminders go on.",
            "arguments": {"invoice": state["invoice"]["id"], "customer": state["invoice"]["customer_id"]},
            "allowed": ["approve", "reject"],
        }
    )
    if answer:
        return Command(goto="charge", update={"card": "again"})
    return Command(goto="remind", update={"attempt": state["attempt"] + 1, "card": "never"})


async def charge(state: DunningState) -> Command[Literal["remind", "wait", "__end__"]]:
    """Try the card once more. A card that is declined is an answer, and the customer is told."""
    payment = await stripe_billing.pay_invoice(state["invoice"]["id"])
    if not payment.invoice.is_open:
        return Command(goto="__end__")
    attempt = {"attempt": state["attempt"] + 1}
    if payment.declined is None:
        # The bank takes its time: a transfer is under way, and nobody is reminded of it as long as it may arrive.
        return Command(goto="wait", update=attempt | {"unanswered": True})
    return Command(goto="remind", update=attempt | {"card": after_decline(payment.declined.code)})


async def hand_over(state: DunningState) -> None:
    """All attempts have failed, and there is no subscription to pause."""
    interrupt(
        {
            "question": f"Invoice {state['invoice']['number']} stays open after {LAST} attempts and as many reminders, "
            "and belongs to no subscription that could be paused. Approve when you have taken it over.",
            "arguments": {"invoice": state["invoice"]["id"], "customer": state["invoice"]["customer_id"]},
            "allowed": ["approve"],
        }
    )


async def pause(state: DunningState) -> Command[Literal["say_paused", "__end__"]]:
    """Nothing more is collected. Of a large account only if its manager agrees; a no leaves it to them."""
    try:
        pause = await stripe_billing.pause_subscription(state["invoice"]["id"])
    except Rejected:
        return Command(goto="__end__")
    return Command(goto="say_paused" if pause.paused else "__end__")


async def say_paused(state: DunningState) -> Command[Literal["wait_paused", "resume"]]:
    """Tell the customer; whoever has paid in the last moment is not told, and goes on."""
    reminded = await write_to_customer(state, PAUSED)
    return Command(goto="wait_paused" if reminded.status == "open" else "resume")


async def wait_paused(state: DunningState) -> DunningState:
    """Who pays now has the subscription back."""
    event = await wait_for(SETTLED, key=state["invoice_id"], within=PAUSED.time)
    return {"heard": event is not None}


async def resume(state: DunningState) -> Command[Literal["wait_paused", "__end__"]]:
    """A pause of ours ends with the payment, and with nothing else: what was written off is for a person."""
    invoice = await stripe_billing.find_invoice(state["invoice"]["id"])
    if invoice.is_open and state["heard"]:
        return Command(goto="wait_paused")  # the event was not true
    if invoice.status == "paid":
        await stripe_billing.resume_subscription(state["invoice"]["subscription_id"])
    return Command(goto="__end__")


# -- the graph, and what each node may do ----------------------------------------------------------------------------

#: Everything is about the invoice, the subscription and the customer that Stripe itself named.
THE_INVOICE = from_record(stripe_billing.find_invoice, "id", at="look_up")
THE_SUBSCRIPTION = from_record(stripe_billing.find_invoice, "subscription_id", at="look_up")
THE_CUSTOMER = from_record(stripe_billing.find_customer, "email", at="look_up") | from_person("email", at="ask_address")
A_REMINDER = Policy(
    tools=[reminders.remind],
    rules={reminders.remind: {"invoice_id": THE_INVOICE, "to": THE_CUSTOMER}},
    links=LINKS,
    retries=5,
    backoff=Backoff(first=60.0, most=3600.0),
)
A_LOOK = Policy(tools=[stripe_billing.find_invoice], retries=5, timeout=60)


def about(payload: InvoiceEvent, _event: Any) -> dict[str, Any]:
    return {"invoice_id": payload.data.object.id}


graph = StateGraph(DunningState)
graph.add_node("look_up", look_up)
graph.add_node("ask_address", ask_address)
graph.add_node("ask_about_account", ask_about_account)
graph.add_node("remind", remind)
graph.add_node("wait", wait)
graph.add_node("look_again", look_again)
graph.add_node("ask_about_card", ask_about_card)
graph.add_node("charge", charge)
graph.add_node("hand_over", hand_over)
graph.add_node("pause", pause)
graph.add_node("say_paused", say_paused)
graph.add_node("wait_paused", wait_paused)
graph.add_node("resume", resume)
graph.add_edge(START, "look_up")
graph.add_edge("wait", "look_again")
graph.add_edge("hand_over", END)
graph.add_edge("wait_paused", "resume")

failed_payments = Workflow(
    "failed_payments",
    version="1",
    graph=graph,
    description="reminds customers whose payment failed, tries again, and pauses what stays unpaid",
    triggers=[
        On("invoice.payment_failed", payload=EveryVersion(InvoiceEvent), input=about),
        *(Continues(type_, payload=EveryVersion(InvoiceEvent), key="data.object.id") for type_ in SETTLED),
    ],
    exceptions=Exceptions(
        missing_data="A customer without a usable address: the front desk names one, or takes the case over; nobody is "
        "charged or paused meanwhile.",
        low_confidence="No model judges here. A bank's reason that is in no table: the payments team says whether the "
        "card is charged again.",
        tool_error="Stripe or the mail server is away: tried again later, under the same key; after that a dead "
        "letter, which an operator replays.",
        duplicate_event="The same event again is answered with its run. Another event about the same invoice finds it "
        "taken on by that run, and does nothing.",
        timeout="Nobody pays in time: the next step of the schedule comes. A pause that nobody approves in a week does "
        "not happen.",
        human_approval="A large account: its manager decides before anybody is written to, and again before the "
        "subscription is paused.",
        partial_completion="The subscription is paused and the mail about it cannot leave: a dead letter says so; a "
        "replay sends the mail and pauses nothing twice.",
    ),
    budgets=[Budget("calls", 100)],
    policies={
        "look_up": Policy(
            tools=[stripe_billing.find_invoice, stripe_billing.find_customer, stripe_billing.claim_invoice],
            rules={stripe_billing.claim_invoice: {"invoice_id": THE_INVOICE}},
            retries=5,
            timeout=60,
        ),
        "remind": A_REMINDER,
        "look_again": A_LOOK,
        "charge": Policy(
            tools=[stripe_billing.pay_invoice],
            rules={stripe_billing.pay_invoice: {"invoice_id": THE_INVOICE}},
            budgets=[Budget("calls", LAST - 1, of=stripe_billing.pay_invoice)],
            retries=5,
            backoff=Backoff(first=60.0, most=3600.0),
        ),
        "pause": Policy(
            tools=[stripe_billing.pause_subscription],
            rules={stripe_billing.pause_subscription: {"invoice_id": THE_INVOICE}},
            approve_when=Rule("large_account", large_account, version="1"),
            approval=review("May this subscription be paused?", deadline=TIME_TO_DECIDE, by_another=True),
            retries=5,
        ),
        "say_paused": A_REMINDER,
        "resume": Policy(
            tools=[stripe_billing.find_invoice, stripe_billing.resume_subscription],
            rules={stripe_billing.resume_subscription: {"subscription_id": THE_SUBSCRIPTION}},
            retries=5,
        ),
    },
)
