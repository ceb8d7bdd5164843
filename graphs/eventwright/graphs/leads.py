"""The leads workflow: somebody fills in a form, and a colleague who can help knows of it. No lead is ever lost.

Read it from the top as the business does it. The book of leads has every person once: whoever certainly is in it gets
one more form, whoever is doubtful goes before a person. A model says what the message wants; points, owner and words
are code's. What can only make a lead better, and may fail, comes after it was written down.
"""

from __future__ import annotations

from dataclasses import replace
from datetime import timedelta
from typing import Any, Literal, Self, TypedDict

from langgraph.graph import END, START, StateGraph
from langgraph.types import Command, RetryPolicy, interrupt
from pydantic import model_validator

from eventwright.graphs import forms
from eventwright.graphs.exceptions import Exceptions
from eventwright.graphs.judgement import classify
from eventwright.graphs.lead_rules import (
    INTENT_POINTS,
    company_domain,
    plain,
    qualify,
    reachable,
    same_person,
    the_one_certain,
    told,
)
from eventwright.graphs.support_rules import an_address
from eventwright.graphs.workflow import On, Workflow
from eventwright.guardrails.budgets import Budget
from eventwright.guardrails.policy import Backoff, Policy, review
from eventwright.guardrails.rules import ArgumentRule, equals, from_record, one_of
from eventwright.tools import enrichment, leads_book, mail, slack
from eventwright.tools.contract import Permanent, ToolError
from eventwright.tools.leads_book import Lead

# -- what the business has decided ---------------------------------------------------------------------------------

#: Which territory a state belongs to; everywhere else is `elsewhere`.
TERRITORIES = {
    "nsw": "east",
    "act": "east",
    "qld": "east",
    "vic": "south",
    "tas": "south",
    "sa": "south",
    "wa": "west",
    "nt": "west",
}
#: Who sells where. Of several, the one with fewest leads of the last 30 days gets the next one.
OWNERS = {
    "east": ["ana@sales.example.com", "ben@sales.example.com"],
    "south": ["chloe@sales.example.com"],
    "west": ["dev@sales.example.com"],
    "elsewhere": ["eva@sales.example.com", "finn@sales.example.com"],
}
#: Where everybody in sales reads.
CHANNEL = "#leads"
#: What people want who fill in the form, and what of it is nothing for sales.
INTENTS = tuple(INTENT_POINTS)
NOT_FOR_SALES = ("advertising",)
#: How long an unsure reading of a message waits for a person, before the model's guess stands.
READING_WAITS = timedelta(hours=4)
#: Who answers the questions of which node.
WHO_DECIDES = {
    "ask_who": "sales operations",
    "ask_reach": "sales operations",
    "read_message": "sales operations",
    "tell_owner": "the mail administrator",
}


# -- what comes in -------------------------------------------------------------------------------------------------


class Form(Lead):
    """What a form sends. Version 1. Every field may be left empty, but not all that say who it is."""

    @model_validator(mode="after")
    def _somebody(self) -> Self:
        if not (self.name or self.email or self.phone):
            raise ValueError("Please write down a name, an e-mail address or a telephone number.")
        return self


#: The page on which people fill it in; forms of our own pages may send more.
PAGE = forms.Form(
    title="Talk to us",
    intro="Tell us what you need. A colleague who knows your region answers. Leave out what you do not want to say; "
    "we need one way to know who you are.",
    fields={
        "given_name": "First name",
        "surname": "Last name",
        "email": "E-mail address",
        "phone": "Telephone number",
        "state": "State or territory, as in NSW",
        "message": "What can we do for you?",
        "consent": "You may look my company up and write to me with offers",
    },
    leave_out=("street_number", "address_1", "address_2", "suburb", "date_of_birth"),
    thanks="Thank you. A colleague will answer you.",
)


class LeadState(TypedDict, total=False):
    """What is known of a lead so far."""

    lead: dict[str, Any]
    #: Contacts who are, or may be, this person, and all that were compared with it.
    found: dict[str, Any]
    #: The contact that the lead was written to, and whether the book had it before.
    contact_id: str
    known: bool
    #: Whether there is an address or a telephone number, in the form or in the book.
    reachable: bool
    company: dict[str, Any] | None
    intent: str
    qualification: dict[str, Any]
    territory: str
    owner: str


def lead_of(state: LeadState) -> Lead:
    return Lead.model_validate(state["lead"])


# -- what happens, in this order -----------------------------------------------------------------------------------


async def find_matches(state: LeadState) -> LeadState:
    """Is this person in the book?"""
    found = await leads_book.find_matches(lead_of(state))
    return {"found": found.model_dump(mode="json")}


def whose_lead(state: LeadState) -> Literal["add", "merge", "ask_who"]:
    matches = state["found"]["matches"]
    if not matches:
        return "add"
    return "merge" if the_one_certain(matches) else "ask_who"


async def ask_who(state: LeadState) -> Command[Literal["add", "merge", "__end__"]]:
    """Somebody in the book may be this person: a person looks at both."""
    matches = state["found"]["matches"]
    ids = [match["contact"]["id"] for match in matches]
    answer = interrupt(
        {
            "question": "Is this one of these people? Respond: which. Approve: none, it is somebody new. "
            "Reject: it is no lead at all.",
            "arguments": {"lead": state["lead"], "may_be": matches},
            "allowed": ["respond", "approve", "reject"],
        },
        response_schema={
            "type": "object",
            "properties": {"contact_id": {"type": "string", "enum": ids}},
            "required": ["contact_id"],
            "additionalProperties": False,
        },
    )
    if isinstance(answer, dict):
        return Command(goto="merge", update={"contact_id": answer["contact_id"]})
    return Command(goto="add") if answer else Command(goto="__end__")


async def add(state: LeadState) -> Command[Literal["ask_reach", "enrich", "find_matches"]]:
    """Somebody new; unless a look-alike was written down while we looked: then look again."""
    contact = await leads_book.add(lead_of(state), knowing=state["found"]["compared"])
    if contact is None:
        return Command(goto="find_matches")
    update: LeadState = {"contact_id": contact.id, "known": False, "reachable": reachable(contact)}
    return Command(goto=whether_reachable(update), update=update)


async def merge(state: LeadState) -> LeadState:
    """One more form of somebody whom the book knows. It fills what was empty, and changes nothing else."""
    contact_id = state.get("contact_id") or the_one_certain(state["found"]["matches"])
    contact = await leads_book.amend(contact_id, lead_of(state))
    return {"contact_id": contact.id, "known": True, "reachable": reachable(contact)}


def whether_reachable(state: LeadState) -> Literal["ask_reach", "enrich"]:
    """Can anybody answer this person?"""
    return "enrich" if state["reachable"] else "ask_reach"


async def ask_reach(state: LeadState) -> Command[Literal["complete", "__end__"]]:
    """Without an address and a telephone nobody can be answered: a person finds one, or says that there is none."""
    answer = interrupt(
        {
            "kind": "missing_data",
            "question": "How can this person be reached? The form has no usable address and no telephone number. "
            "Reject it if that cannot be found out; the lead stays in the book.",
            "arguments": {"lead": state["lead"]},
            "allowed": ["respond", "reject"],
        },
        response_schema=an_address("email"),
    )
    if answer is False:
        return Command(goto="__end__")
    return Command(goto="complete", update={"lead": {**state["lead"], "email": answer["email"].strip()}})


async def complete(state: LeadState) -> None:
    """The address that a person found goes into the book."""
    await leads_book.amend(state["contact_id"], lead_of(state))


async def enrich(state: LeadState) -> LeadState:
    """What is known of the company? Nobody is asked about somebody who did not agree to it."""
    lead = lead_of(state)
    domain = company_domain(lead)
    if domain is None or not lead.consent:
        return {"company": None}
    company = await enrichment.find_company(domain)
    return {"company": company and company.model_dump()}


async def go_on_without(state: LeadState) -> Command[Literal["read_message"]]:
    """The provider failed: the lead is scored by what the form says, and its owner is told so."""
    return Command(goto="read_message", update={"company": None})


async def read_message(state: LeadState) -> LeadState:
    """What does this person want? Below the policy's confidence a person says it, or the guess stands in the end."""
    lead = lead_of(state)
    if not lead.message.strip():
        return {"intent": "other"}
    judgement = await classify(f"message: {lead.message}", INTENTS, instructions="What does this person want from us?")
    return {"intent": judgement.value}


async def score(state: LeadState) -> LeadState:
    """Points, each with its reason."""
    worth = qualify(lead_of(state), state["intent"], state.get("company"), known=state["known"])
    await leads_book.qualify(state["contact_id"], worth)
    return {"qualification": worth.model_dump(mode="json")}


def for_sales(state: LeadState) -> Literal["assign", "__end__"]:
    return "__end__" if state["intent"] in NOT_FOR_SALES else "assign"


async def assign(state: LeadState) -> LeadState:
    """Whose lead is it? By territory, and there by load; who has it keeps it."""
    territory = TERRITORIES.get(lead_of(state).state.strip().casefold(), "elsewhere")
    contact = await leads_book.assign(state["contact_id"], OWNERS[territory])
    return {"territory": territory, "owner": contact.owner}


def _words(state: LeadState) -> str:
    return told(lead_of(state), {"id": state["contact_id"]}, state["qualification"], state["territory"])


async def tell_channel(state: LeadState) -> None:
    """Everybody in sales reads it, where there is a Slack."""
    if await slack.is_set_up():
        await slack.post(CHANNEL, f"{_words(state)}\n\nOwner: {plain(state['owner'].partition('@')[0])}")


async def without_channel(state: LeadState) -> Command[Literal["tell_owner"]]:
    """Slack failed: the owner still gets the mail, and the run says that it is partial."""
    return Command(goto="tell_owner")


async def tell_owner(state: LeadState) -> None:
    """One mail, once, to whose lead it is."""
    grade, name = state["qualification"]["grade"], plain(lead_of(state).name) or "somebody without a name"
    await mail.send(state["owner"], f"New lead ({grade}): {name}", _words(state))


# -- the graph, and what each node may do ----------------------------------------------------------------------------


def may_pass(error: Exception) -> bool:
    """Whether the same call may succeed in a moment."""
    return isinstance(error, ToolError) and not isinstance(error, Permanent)


#: A form goes into the book as it is. The book is ours, and where what is personal here comes from: what flows into it
#: stays with us, so the rule contains it.
INTO_THE_BOOK = ArgumentRule("anything; it stays in our own book", lambda _value, _facts: True, contains=True)
THE_MATCH = from_record(leads_book.find_matches, "matches.contact.id", at="find_matches")
THE_CONTACT = from_record(leads_book.add, "id", at="add") | from_record(leads_book.amend, "id", at="merge")
AT_ONCE_AGAIN = RetryPolicy(max_attempts=3, initial_interval=0.2, retry_on=may_pass)
#: The book matters most: whatever keeps it away, the lead waits for it.
TO_THE_BOOK = Policy(retries=8, backoff=Backoff(first=1.0, most=600.0), timeout=60)

graph = StateGraph(LeadState)
graph.add_node("find_matches", find_matches)
graph.add_node("ask_who", ask_who)
graph.add_node("add", add)
graph.add_node("merge", merge)
graph.add_node("ask_reach", ask_reach)
graph.add_node("complete", complete)
graph.add_node("enrich", enrich, retry_policy=AT_ONCE_AGAIN, error_handler=go_on_without)
graph.add_node("read_message", read_message)
graph.add_node("score", score)
graph.add_node("assign", assign)
graph.add_node("tell_channel", tell_channel, retry_policy=AT_ONCE_AGAIN, error_handler=without_channel)
graph.add_node("tell_owner", tell_owner)
graph.add_edge(START, "find_matches")
graph.add_conditional_edges("find_matches", whose_lead)
graph.add_conditional_edges("merge", whether_reachable)
graph.add_edge("complete", "enrich")
graph.add_edge("enrich", "read_message")
graph.add_edge("read_message", "score")
graph.add_conditional_edges("score", for_sales)
graph.add_edge("assign", "tell_channel")
graph.add_edge("tell_channel", "tell_owner")
graph.add_edge("tell_owner", END)

leads = Workflow(
    "leads",
    version="1",
    graph=graph,
    description="writes each lead down once, finds out what it is worth, and tells the colleague whose it is",
    triggers=[
        On(
            "lead.submitted",
            payload={"1": Form},
            key=same_person,
            form=PAGE,
            input=lambda form, _event: {"lead": form.model_dump(mode="json")},
        )
    ],
    budgets=[Budget("calls", 60)],
    exceptions=Exceptions(
        missing_data="A lead whom nobody can reach is written down, and sales operations finds an address; a form that "
        "says nobody is refused and kept.",
        low_confidence="Sales operations reads the message that the model cannot read surely.",
        tool_error="The provider is asked three times, then the lead goes on without it and its owner is told so; the "
        "book is waited for, up to a day, then the run waits for an operator, and nothing is lost.",
        duplicate_event="The same delivery is the same run; another form of the same person is added to the one lead.",
        timeout="A silent provider counts as one that failed; an unread message waits four hours for sales operations, "
        "then the model's guess stands.",
        human_approval="Sales operations says whether somebody who may be in the book is: which, somebody new, or no "
        "lead at all.",
        partial_completion="Slack that refuses leaves the mail, and the run says that it is partial; a mail server "
        "that stays down leaves a run that an operator replays, which sends the mail and repeats nothing.",
    ),
    policies={
        "find_matches": replace(TO_THE_BOOK, tools=[leads_book.find_matches]),
        "add": replace(
            TO_THE_BOOK,
            tools=[leads_book.add],
            rules={leads_book.add: {"lead": INTO_THE_BOOK, "knowing": INTO_THE_BOOK}},
        ),
        "merge": replace(
            TO_THE_BOOK,
            tools=[leads_book.amend],
            rules={leads_book.amend: {"contact_id": THE_MATCH, "lead": INTO_THE_BOOK}},
        ),
        "complete": replace(
            TO_THE_BOOK,
            tools=[leads_book.amend],
            rules={leads_book.amend: {"contact_id": THE_CONTACT, "lead": INTO_THE_BOOK}},
        ),
        "enrich": Policy(tools=[enrichment.find_company], patience=timedelta(0), timeout=40),
        "read_message": Policy(
            min_confidence=0.70,
            otherwise=review("What does this person want?", deadline=READING_WAITS, default="approve"),
            retries=3,
            fallback="other",
        ),
        "score": replace(
            TO_THE_BOOK,
            tools=[leads_book.qualify],
            rules={leads_book.qualify: {"contact_id": THE_CONTACT, "qualification": INTO_THE_BOOK}},
        ),
        "assign": replace(
            TO_THE_BOOK,
            tools=[leads_book.assign],
            rules={leads_book.assign: {"contact_id": THE_CONTACT, "among": one_of(*OWNERS.values())}},
        ),
        "tell_channel": Policy(
            tools=[slack.is_set_up, slack.post],
            rules={slack.post: {"channel": equals(CHANNEL)}},
            patience=timedelta(0),  # the mail is what counts
            timeout=90,
        ),
        "tell_owner": Policy(
            tools=[mail.send],
            rules={mail.send: {"to": from_record(leads_book.assign, "owner", at="assign")}},
            retries=4,
            backoff=Backoff(first=10.0, most=600.0),
            timeout=60,
        ),
    },
)
