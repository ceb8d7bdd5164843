"""The support workflow: a customer writes, the customer gets one answer, and a refund if one is due.

Read it from the top as the business does it. Models advise: what a ticket is about, how urgent it is, how the reply
reads. Code decides everything else, and a person decides wherever a policy or a question at the bottom says so.
"""

from __future__ import annotations

from datetime import timedelta
from decimal import Decimal
from typing import Any, Literal

from langgraph.graph import END, START, StateGraph
from langgraph.types import Command, interrupt

from eventwright.graphs import support_messages as incoming
from eventwright.graphs.exceptions import Exceptions
from eventwright.graphs.judgement import choose, classify, draft
from eventwright.graphs.research import MOST_CALLS, research
from eventwright.graphs.research import TOOLS as RESEARCH_TOOLS
from eventwright.graphs.support_messages import TicketState, amount_in
from eventwright.graphs.support_rules import an_address, an_amount, one_line, the_one_amount
from eventwright.graphs.waiting import wait_for
from eventwright.graphs.workflow import On, Workflow
from eventwright.guardrails.budgets import Budget
from eventwright.guardrails.policy import Backoff, Policy, review
from eventwright.guardrails.rules import Rule, always, equals, from_person, from_record
from eventwright.guardrails.verdicts import Rejected
from eventwright.tools import crm, mail, payments, slack

# -- what the business has decided ---------------------------------------------------------------------------------

#: Which team answers which type of ticket.
TEAMS = {
    "card_delivery": "cards",
    "card_problem": "cards",
    "payment_problem": "payments",
    "charges_and_fees": "payments",
    "refund_request": "payments",
    "identity_and_account": "accounts",
    "exchange_rates": "payments",
    "other": "front desk",
}
PRIORITIES = ("low", "normal", "high", "urgent")
#: Up to here a first refund needs nobody, by currency. In any other currency a person is asked.
REFUND_LIMITS = {"EUR": Decimal("100.00"), "GBP": Decimal("85.00"), "USD": Decimal("110.00")}
#: Who answers the questions of which node.
WHO_DECIDES = {
    "classify": "the front desk",
    "ask_sender": "the front desk",
    "ask_about_stranger": "the front desk",
    "refund": "the payments team",
    "repeat_refund": "the payments team",
    "ask_amount": "the payments team",
    "draft_reply": "the front desk",
    "send_reply": "the mail administrator",
}
#: Where customers may write to us in Slack; there, in the thread of their message, they are answered.
SLACK_CHANNEL = "#support"
#: Who is told of replies to tickets that are closed.
FRONT_DESK = "front-desk@example.org"
#: How long a customer has to answer a question of ours: until the reminder, and after it until the ticket is closed.
UNTIL_REMINDER, AFTER_REMINDER = timedelta(days=3), timedelta(days=7)
REPLIES = [trigger.type for trigger in incoming.ANSWERS]
REMINDER = """\
Hello,

we still need your answer to go on with your refund: which amount would you like back? If we do not hear from you, we
close your ticket in seven days. You can write to us again at any time.

Kind regards,
Your support team"""
NO_REFUND = "We are sorry: we have looked at your refund and cannot give it."
#: What is sent when no model can be reached, however often it is tried.
PREPARED_REPLY = """\
Hello,

thank you for your message. It has reached us, and a colleague will read it and answer you in person.

Kind regards,
Your support team"""


def over_limit(refund: Any) -> bool | str:
    """Whether the payments team must approve a refund, and why."""
    limit = REFUND_LIMITS.get(refund.currency)
    if limit is None:
        return f"there is no limit for refunds in {refund.currency}"
    return f"{refund.amount} {refund.currency} is above the limit of {limit}" if refund.amount > limit else False


# -- what happens, in this order -----------------------------------------------------------------------------------


def what_wrote(state: TicketState) -> Literal["classify", "set_aside", "tell_front_desk", "find_author"]:
    if state.get("robot"):
        return "set_aside"
    return "tell_front_desk" if "earlier" in state else where_written(state)


def where_written(state: TicketState) -> Literal["classify", "find_author"]:
    return "find_author" if "thread" in state else "classify"


async def set_aside(state: TicketState) -> None:
    """A program wrote: an absence notice, a newsletter, our own mail. Nobody is answered, so that no loop begins."""
    await mail.leave_unanswered(state["robot"] or "")


async def tell_front_desk(state: TicketState) -> None:
    """A reply to a ticket that is closed is a ticket of its own: the front desk learns which one it belongs to."""
    earlier = state["earlier"]
    text = f"A customer has replied to the ticket {earlier['run']}, which has ended ({earlier['outcome']}).\n"
    await mail.send(FRONT_DESK, "A late reply", f"{text}The reply is answered as a new ticket.\n")


async def find_author(state: TicketState) -> Command[Literal["classify", "set_aside"]]:
    """Slack says whose message this is, and that it stands in the channel for customers: in others we are silent."""
    author = await slack.author(SLACK_CHANNEL, state["thread"])
    if author is None:
        return Command(goto="set_aside", update={"robot": f"no person wrote this in {SLACK_CHANNEL}"})
    return Command(goto="classify", update={"sender": author.email})


async def detect_type(state: TicketState) -> TicketState:
    """What is the ticket about? Below the policy's confidence a person says it."""
    material = f"subject: {one_line(state['subject'])}\nmessage: {state['text']}"
    judgement = await classify(material, list(TEAMS), instructions="What is this customer's message about?")
    return {"type": judgement.value}


async def assess(state: TicketState) -> TicketState:
    """Which team answers, by the table; how urgent it is, by the model."""
    question = "How urgent is this customer's message?"
    priority = await choose(f"message: {state['text']}", PRIORITIES, instructions=question)
    return {"team": TEAMS[state["type"]], "priority": priority.value}


def who_writes(state: TicketState) -> Literal["ask_sender", "look_up_account"]:
    return "look_up_account" if mail.ADDRESS.fullmatch(state["sender"] or "") else "ask_sender"


async def ask_sender(state: TicketState) -> Command[Literal["look_up_account", "__end__"]]:
    """Without an address nobody can be answered: a person finds it, or says that there is none."""
    answer = interrupt(
        {
            "kind": "missing_data",
            "question": "Who sent this ticket? It has no usable address. Reject it if that cannot be found out.",
            "arguments": {"sender": state["sender"]},
            "allowed": ["respond", "reject"],
        },
        response_schema=an_address("sender"),
    )
    if answer is False:
        return Command(goto="__end__")
    return Command(goto="look_up_account", update={"sender": answer["sender"].strip()})


async def look_up_account(state: TicketState) -> TicketState:
    """Whose address is it?"""
    account = await crm.find_account(state.get("known_as") or state["sender"])
    return {"account": account and account.model_dump()}


def whose_ticket(state: TicketState) -> Literal["ask_about_stranger", "check_refund", "research"]:
    if not state["account"]:
        return "ask_about_stranger"
    return "check_refund" if state["type"] == "refund_request" else "research"


async def ask_about_stranger(state: TicketState) -> Command[Literal["look_up_account", "research", "__end__"]]:
    """Nobody by this address is a customer: a person says who it is, or lets a stranger be answered, or does not."""
    address = state.get("known_as") or state["sender"]
    answer = interrupt(
        {
            "question": f"{address} is no customer's address. Approve: answer all the same. Respond: the address of "
            "the customer who this is. Reject: no answer.",
            "arguments": {"address": address},
            "allowed": ["approve", "respond", "reject"],
        },
        response_schema=an_address("email"),
    )
    if isinstance(answer, dict):
        return Command(goto="look_up_account", update={"known_as": answer["email"].strip()})
    return Command(goto="research") if answer else Command(goto="__end__")


async def check_refund(state: TicketState) -> Command[Literal["refund", "repeat_refund", "research", "ask_amount"]]:
    """Is it clear how much the customer wants back, and is it the first time?"""
    stated, currency = state.get("amount"), state.get("currency")
    wanted = (Decimal(stated), currency) if stated and currency else the_one_amount(state["text"])
    if wanted is None:
        if state.get("asks"):
            return Command(goto="ask_amount")  # the customer was asked, and the reply does not say it either
        question = "Please write to us which amount you would like back."
        return Command(goto="research", update={"refund": question, "asks": "conversation" in state})
    given = await payments.refunds_of((state["account"] or {})["id"])
    # One that was taken back is none that the customer has had.
    earlier = [refund for refund in given if refund.cancelled_at is None]
    amount, currency = wanted
    update = {"amount": str(amount), "currency": currency, "asks": False}
    return Command(goto="repeat_refund" if earlier else "refund", update=update)


async def ask_amount(state: TicketState) -> Command[Literal["check_refund", "research"]]:
    """The customer has answered, and it is still not clear how much it was: a person says it, or says no."""
    answer = interrupt(
        {
            "kind": "missing_data",
            "question": "How much does this customer want back? The reply does not say it clearly. Reject: no refund.",
            "arguments": {"ticket": state["text"]},
            "allowed": ["respond", "reject"],
        },
        response_schema=an_amount(),
    )
    if answer is False:
        return Command(goto="research", update={"refund": NO_REFUND, "asks": False})
    return Command(goto="check_refund", update={"amount": answer["amount"], "currency": answer["currency"]})


async def give_refund(state: TicketState) -> TicketState:
    """Give the money back, as far as the policy of the node lets it. A no is told politely."""
    account_id, amount = (state["account"] or {})["id"], Decimal(state["amount"] or 0)
    try:
        given = await payments.refund(account_id, amount, state["currency"], reason="asked for in a support ticket")
    except Rejected:
        return {"refund": NO_REFUND}
    return {"refund": f"We have given you back {given.amount} {given.currency} (number {given.id[-8:]})."}


async def draft_reply(state: TicketState) -> TicketState:
    """The model writes; what was done, and who has the ticket, is added by code."""
    name = (state["account"] or {}).get("name", "")
    notes = (state.get("notes") or {}).get("text", "")
    material = f"type: {state['type']}\ncustomer: {name}\nnotes: {notes}\nmessage: {state['text']}"
    written = await draft(material, instructions="Write a short, polite reply. Promise nothing.")
    facts = [state.get("refund"), f"Your message is with our {state['team']} team, priority {state['priority']}."]
    return {"reply": "\n\n".join([written.value, *filter(None, facts)])}


async def send_reply(state: TicketState) -> None:
    """One answer, once, where the customer wrote."""
    await _tell(state, state["reply"])


def is_asked(state: TicketState) -> Literal["await_reply", "__end__"]:
    return "await_reply" if state.get("asks") else "__end__"


async def await_reply(state: TicketState) -> Command[Literal["check_refund", "close_ticket"]]:
    """The ticket rests until the customer answers; after three days we remind, once."""
    event = await wait_for(REPLIES, key=state["conversation"], within=UNTIL_REMINDER)
    if event is None:
        await _tell(state, REMINDER)
        event = await wait_for(REPLIES, key=state["conversation"], within=AFTER_REMINDER)
    return Command(goto="close_ticket") if event is None else Command(goto="check_refund", update=amount_in(event))


async def close_ticket(state: TicketState) -> None:
    """Nobody has answered; the journal says so. A reply that comes after this begins another ticket."""
    days = (UNTIL_REMINDER + AFTER_REMINDER).days
    await mail.close_ticket(f"the customer was asked for the amount and reminded, and has not answered in {days} days")


async def _tell(state: TicketState, text: str) -> None:
    """In the thread in Slack; else by mail, to a customer at the address of the account book, whoever wrote."""
    if "thread" in state:
        await slack.reply(SLACK_CHANNEL, state["thread"], text[:4000])
        return
    to = (state["account"] or {}).get("email") or state.get("known_as") or state["sender"]
    subject = f"Re: {one_line(state['subject']) or 'your message'}"
    if state.get("asks"):
        await mail.ask(to, subject, text, state["conversation"])
    else:
        await mail.send(to, subject, text)


# -- the graph, and what each node may do ----------------------------------------------------------------------------

#: Money goes to the account that the account book names, a mail to its address or to one that a person let pass.
THE_CUSTOMER = {"account_id": from_record(crm.find_account, "id", at="look_up_account")}
THE_ADDRESS = {
    "to": from_record(crm.find_account, "email", at="look_up_account")
    | from_person("sender", at="ask_sender")
    | from_person("address", at="ask_about_stranger")
}
TO_THE_CUSTOMER = {mail.send: THE_ADDRESS, mail.ask: THE_ADDRESS, slack.reply: {"channel": equals(SLACK_CHANNEL)}}
LATER = Backoff(first=10.0, most=600.0)

graph = StateGraph(TicketState)
graph.add_node("set_aside", set_aside)
graph.add_node("tell_front_desk", tell_front_desk)
graph.add_node("find_author", find_author)
graph.add_node("classify", detect_type)
graph.add_node("assess", assess)
graph.add_node("ask_sender", ask_sender)
graph.add_node("look_up_account", look_up_account)
graph.add_node("ask_about_stranger", ask_about_stranger)
graph.add_node("check_refund", check_refund)
graph.add_node("ask_amount", ask_amount)
graph.add_node("refund", give_refund)
graph.add_node("repeat_refund", give_refund)
graph.add_node("research", research)
graph.add_node("draft_reply", draft_reply)
graph.add_node("send_reply", send_reply)
graph.add_node("await_reply", await_reply)
graph.add_node("close_ticket", close_ticket)
graph.add_conditional_edges(START, what_wrote)
graph.add_edge("set_aside", END)
graph.add_conditional_edges("tell_front_desk", where_written)
graph.add_edge("classify", "assess")
graph.add_conditional_edges("assess", who_writes)
graph.add_conditional_edges("look_up_account", whose_ticket)
graph.add_edge("refund", "research")
graph.add_edge("repeat_refund", "research")
graph.add_edge("research", "draft_reply")
graph.add_edge("draft_reply", "send_reply")
graph.add_conditional_edges("send_reply", is_asked)
graph.add_edge("close_ticket", END)

support = Workflow(
    "support",
    version="1",
    graph=graph,
    description="answers customers' messages, and gives money back within limits",
    triggers=[
        On("ticket.created", payload={"1": incoming.Ticket, "2": incoming.TicketWithAmount}, input=incoming.ticket_in),
        On("mail.received", payload={"1": incoming.Letter}, input=incoming.ticket_of, only_if=incoming.is_no_reply),
        On(
            "message",
            payload={"1": incoming.SlackMessage},
            source=incoming.SLACK,
            input=incoming.ticket_said,
            only_if=incoming.starts_a_ticket,
        ),
        *incoming.ANSWERS,
    ],
    budgets=[Budget("calls", 60)],
    exceptions=Exceptions(
        missing_data="Without an address the front desk names the sender; without a clear amount the reply asks for "
        "it, and the payments team says it if the answer does not.",
        low_confidence="Below 0.80 the front desk says what the ticket is about, below 0.50 it reads the reply first.",
        tool_error="Three more attempts; then a prepared reply for a model, a dead letter for any other system.",
        duplicate_event="It is answered with the run that it started the first time; nothing is done again.",
        timeout="A customer who does not answer is reminded after 3 days, and 7 days later the ticket is closed; a "
        "slow system is tried again; a question to us waits until somebody answers it.",
        human_approval="The payments team sees refunds above their limit or after a first one; a no is told politely.",
        partial_completion="What was done stays done and is not repeated; a mail that may have left asks a person.",
    ),
    policies={
        "set_aside": Policy(tools=[mail.leave_unanswered]),
        "tell_front_desk": Policy(tools=[mail.send], rules={mail.send: {"to": equals(FRONT_DESK)}}, retries=3),
        "find_author": Policy(tools=[slack.author], retries=3, timeout=60),
        "classify": Policy(
            min_confidence=0.80, otherwise=review("Which kind of ticket is this?"), retries=3, fallback="other"
        ),
        "assess": Policy(retries=3, fallback="normal"),
        "look_up_account": Policy(tools=[crm.find_account], retries=3, timeout=10),
        "check_refund": Policy(tools=[payments.refunds_of], retries=3, timeout=10),
        "refund": Policy(
            tools=[payments.refund],
            rules={payments.refund: THE_CUSTOMER},
            approve_when=Rule("refund_limit", over_limit, version="1", vouches_for=("amount", "currency")),
            # Two tickets of one customer may be on their way at once; each would be the first to ask.
            budgets=[Budget("calls", 1, per="day", of=payments.refund, by="account_id", then="person")],
            approval=review("May this refund be given?"),
            retries=3,
        ),
        "repeat_refund": Policy(
            tools=[payments.refund],
            rules={payments.refund: THE_CUSTOMER},
            approve_when=always,
            approval=review("This customer had a refund before. May another one be given?"),
            retries=3,
        ),
        "research": Policy(
            tools=RESEARCH_TOOLS,
            rules={payments.refunds_of: THE_CUSTOMER},
            budgets=[Budget("calls", MOST_CALLS)],
            patience=timedelta(0),  # no reply waits for advice
        ),
        "draft_reply": Policy(
            min_confidence=0.50, otherwise=review("May this reply be sent?"), retries=3, fallback=PREPARED_REPLY
        ),
        "send_reply": Policy(
            tools=[mail.send, mail.ask, slack.reply], rules=TO_THE_CUSTOMER, retries=2, backoff=LATER, timeout=60
        ),
        "await_reply": Policy(
            tools=[mail.ask, slack.reply],
            rules={tool: rules for tool, rules in TO_THE_CUSTOMER.items() if tool is not mail.send},
            retries=2,
            backoff=LATER,
        ),
        "close_ticket": Policy(tools=[mail.close_ticket]),
    },
)
