"""The discounts workflow when the customer's answer is not as it should be: something else was signed than what was
approved, or too late. A person decides, and nothing is revived silently."""

from __future__ import annotations

from typing import Literal

from langgraph.types import Command, interrupt

from eventwright.graphs.discount_rules import differences
from eventwright.graphs.discount_state import QuoteState
from eventwright.tools import quotes, signatures

#: Who decides about such an answer.
DIRECTOR = "sales-director"


async def ask_about_difference(state: QuoteState) -> Command[Literal["settle"]]:
    """What was signed is not what was approved: a person says whether it holds."""
    answer = interrupt(
        {
            "question": "What was signed is not what was approved. Approve: it holds all the same. Reject: it "
            "does not.",
            "arguments": {
                "quote": state["quote"]["id"],
                "differences": differences(state["quote"], state["envelope"], state["address"] or ""),
                "signed": state["envelope"],
            },
            "allowed": ["approve", "reject"],
            "roles": [DIRECTOR],
        }
    )
    return Command(goto="settle", update={"ending": "signed" if answer else "disputed"})


async def look_at_late_answer(state: QuoteState) -> Command[Literal["ask_about_late_answer", "__end__"]]:
    """Was something really signed, and did its quote come to another end? Then a person is asked, else there is nothing
    to do."""
    envelope = await signatures.read(state["late"])
    if envelope is None or envelope.status != "completed":
        return Command(goto="__end__")
    quote = await quotes.find(envelope.reference)
    if quote is None or quote.ending not in quotes.REVIVABLE or quote.revived_at is not None:
        return Command(goto="__end__")
    known = {"envelope": envelope.model_dump(mode="json"), "quote": quote.model_dump(mode="json")}
    return Command(goto="ask_about_late_answer", update=known)


async def ask_about_late_answer(state: QuoteState) -> Command[Literal["revive", "tell_sales"]]:
    """Signed, but too late: a person decides whether we stand by the quote."""
    quote, envelope = state["quote"], state["envelope"] or {}
    answer = interrupt(
        {
            "question": f"Quote {quote['id']} was {quote['ending']}, and was signed all the same. "
            "Approve: we honour it. Reject: we do not.",
            "arguments": {"quote": quote["id"], "ended_at": quote["ended_at"], "signed": envelope},
            "allowed": ["approve", "reject"],
            "roles": [DIRECTOR],
        }
    )
    told = f"Quote {quote['id']} was signed after it was {quote['ending']}, and is not honoured."
    return Command(goto="revive") if answer else Command(goto="tell_sales", update={"told": told})


async def revive(state: QuoteState) -> QuoteState:
    """The quote counts as signed from now on."""
    quote = await quotes.revive(state["quote"]["id"])
    return {"told": f"Quote {quote.id} was signed after it was {quote.ending}, and is honoured."}
