"""What comes in to the support workflow: tickets of the help desk, e-mails, messages in Slack, and replies.

Which event starts a ticket and which one answers a question of ours is said here, by the event alone. Each ticket has
a conversation: a word made of where it came from, which its replies lead back to.
"""

from __future__ import annotations

import hashlib
from decimal import Decimal
from typing import Any, Self, TypedDict

from pydantic import BaseModel, ConfigDict, Field, model_validator

from eventwright.graphs.support_rules import the_one_amount, unquoted
from eventwright.graphs.waiting import Continues
from eventwright.runs.event import Event
from eventwright.runs.records import Run
from eventwright.tools.mail import CONVERSATION

SLACK = "/webhooks/slack"
#: Letters of a message that are read.
LONGEST = 10_000
#: What Slack writes instead of three signs.
ESCAPED = (("&lt;", "<"), ("&gt;", ">"), ("&amp;", "&"))
#: Kinds of messages in Slack that a person writes; others tell of edits, of who came, or are a program's.
WRITTEN = (None, "file_share")


class Amount(BaseModel):
    """An amount and its currency, which come together."""

    amount: Decimal | None = Field(None, gt=0, max_digits=14, decimal_places=2)
    currency: str | None = Field(None, pattern=r"^[A-Z]{3}$")

    @model_validator(mode="after")
    def _both_or_none(self) -> Self:
        if (self.amount is None) != (self.currency is None):
            raise ValueError("amount and currency come together")
        return self


class Ticket(BaseModel):
    """A message from a customer, as the help desk's webhook brings it. Version 1."""

    model_config = ConfigDict(extra="forbid")

    #: An e-mail address; the web form lets customers leave it out.
    sender: str | None = Field(None, max_length=254)
    subject: str = Field("", max_length=500)
    text: str = Field(min_length=1, max_length=10_000)


class TicketWithAmount(Ticket, Amount):
    """Version 2: the form asks those who want money back how much it was."""


class Reply(Amount):
    """What a customer answers through the help desk. Version 1."""

    model_config = ConfigDict(extra="forbid")

    #: The id of the event that brought the ticket.
    ticket: str = Field(min_length=1, max_length=256)
    sender: str | None = Field(None, max_length=254)
    text: str = Field(min_length=1, max_length=LONGEST)


class Letter(BaseModel):
    """An e-mail to the support address, as the mail source brings it. Version 1."""

    #: What it says beside this is not needed here.
    model_config = ConfigDict(extra="ignore")

    sender: str | None = None
    subject: str = ""
    text: str = ""
    automatic: bool = False
    automatic_because: str | None = None
    in_reply_to: str | None = None
    references: list[str] = []


class Said(BaseModel):
    """A message in Slack that a person wrote."""

    model_config = ConfigDict(extra="ignore")

    channel: str = Field(min_length=1)
    user: str = Field(min_length=1)
    text: str
    #: Its name in the channel, and that of the message whose thread it is in.
    ts: str = Field(pattern=r"^\d{1,12}\.\d{1,6}$")
    thread_ts: str | None = Field(None, pattern=r"^\d{1,12}\.\d{1,6}$")

    @property
    def words(self) -> str:
        text = self.text
        for escape, sign in ESCAPED:
            text = text.replace(escape, sign)
        return text.strip()[:LONGEST] or "(no text)"


class SlackMessage(BaseModel):
    """One event of Slack's Events API, as `/v1/webhooks/slack` takes it in. Version 1."""

    model_config = ConfigDict(extra="ignore")

    event: Said


# -- what is known of it ----------------------------------------------------------------------------------------------


class TicketState(TypedDict, total=False):
    """What is known of a ticket so far."""

    sender: str | None
    subject: str
    text: str
    #: Why this comes from a program, if it does.
    robot: str | None
    #: What its replies lead back to.
    conversation: str
    #: The message in Slack below which it is answered, if it came from there.
    thread: str
    #: The ticket that was closed before this came, as a reply to it: its run, and how that ended.
    earlier: dict[str, str]
    amount: str | None
    currency: str | None
    type: str
    team: str
    priority: str
    #: The address under which a person knows a sender whom the account book does not.
    known_as: str
    account: dict[str, Any] | None
    #: What the customer is told about the refund.
    refund: str
    #: Whether the reply asks the customer for something.
    asks: bool
    #: What an agent has found for the reply: ids of articles of the help centre, and a short text.
    notes: dict[str, Any] | None
    reply: str


# -- what starts a ticket ----------------------------------------------------------------------------------------------


def conversation(*parts: str) -> str:
    """A word for what a ticket came from; without digits, so that nothing takes it for a card's number."""
    digest = hashlib.sha256("\n".join(parts).encode()).hexdigest()[:32]
    return "".join("abcdefghijklmnop"[int(digit, 16)] for digit in digest)


def ticket_in(ticket: BaseModel, event: Event) -> dict[str, Any]:
    """The help desk's ticket, as it is."""
    return ticket.model_dump(mode="json") | {"conversation": conversation(event.source, event.id)}


def ticket_of(letter: Letter, event: Event) -> dict[str, Any]:
    """The ticket that an e-mail is. One without a word is about its subject."""
    robot = (letter.automatic_because or "it says so") if letter.automatic else None
    text = letter.text.strip() or letter.subject or "(no text)"
    return {
        "sender": letter.sender,
        "subject": letter.subject,
        "text": text[:LONGEST],
        "robot": robot,
        "conversation": conversation(event.source, event.id),
    }


def ticket_said(message: SlackMessage, event: Event) -> dict[str, Any]:
    """The ticket that a message in Slack is. Who wrote it is asked of Slack."""
    said = message.event
    return {"sender": None, "subject": "", "text": said.words, "thread": said.ts, "conversation": thread_of(event)}


def starts_a_ticket(event: Event) -> bool:
    """A person wrote in Slack, and in no thread. Not a bot, we least of all; no edit, nobody who came or went."""
    said = _said(event)
    return said is not None and said.get("thread_ts") in (None, said.get("ts"))


def is_no_reply(event: Event) -> bool:
    """An e-mail that answers no question of ours; or a program does."""
    return not answers_us(event)


# -- what goes on with one ---------------------------------------------------------------------------------------------


def answers_us(event: Event) -> bool:
    """A person answers an e-mail in which we asked for something. What a program answers is no reply."""
    return asked_in(event) is not None and not event.data.get("automatic")


def asked_in(event: Event) -> str | None:
    """The conversation of the e-mail that this one answers, if we asked for something in it."""
    data = event.data if isinstance(event.data, dict) else {}
    references = data.get("references")
    earlier = [*(references if isinstance(references, list) else ()), data.get("in_reply_to")]
    found = (CONVERSATION.fullmatch(name) for name in earlier if isinstance(name, str))
    return next((match["conversation"] for match in reversed([one for one in found if one])), None)


def ticket_answered(event: Event) -> str:
    """The conversation of the ticket that the help desk names."""
    return conversation(event.source, event.data["ticket"])


def answers_in_thread(event: Event) -> bool:
    """A person wrote in a thread."""
    said = _said(event)
    return said is not None and said.get("thread_ts") not in (None, said.get("ts"))


def thread_of(event: Event) -> str:
    """The conversation of one person in one thread: what others write there is no answer of theirs."""
    said = event.data["event"]
    return conversation(event.source, said["channel"], said.get("thread_ts") or said["ts"], said["user"])


def _said(event: Event) -> dict[str, Any] | None:
    """The message of a person in Slack."""
    said = event.data.get("event") if isinstance(event.data, dict) else None
    if not isinstance(said, dict) or said.get("subtype") not in WRITTEN or said.get("bot_id") or said.get("app_id"):
        return None
    named = (said.get(name) for name in ("channel", "user", "ts", "text"))
    return said if all(isinstance(value, str) for value in named) else None


def amount_in(event: Event) -> dict[str, Any]:
    """The amount that a reply speaks of, if it is exactly one. What it quotes of earlier letters does not count."""
    if event.type == "ticket.replied":
        reply = Reply.model_validate(event.data)
        stated = (reply.amount, reply.currency) if reply.amount is not None else the_one_amount(reply.text)
    elif event.type == "mail.received":
        stated = the_one_amount(unquoted(Letter.model_validate(event.data).text))
    else:
        stated = the_one_amount(SlackMessage.model_validate(event.data).event.words)
    return {} if stated is None else {"amount": str(stated[0]), "currency": stated[1]}


# -- what comes when the ticket is closed ------------------------------------------------------------------------------


def late_ticket(reply: Reply, event: Event, earlier: Run) -> dict[str, Any]:
    """A reply through the help desk to a ticket that is closed begins another one."""
    before = earlier.event.data if isinstance(earlier.event.data, dict) else {}
    sender = reply.sender or before.get("sender")
    ticket = {"sender": sender, "subject": "", "text": reply.text, "conversation": ticket_answered(event)}
    return ticket | amount_in(event) | _history(earlier)


def late_letter(letter: Letter, event: Event, earlier: Run) -> dict[str, Any]:
    """An e-mail that answers a question in a ticket that is closed."""
    return ticket_of(letter, event) | {"conversation": asked_in(event)} | amount_in(event) | _history(earlier)


def late_in_thread(message: SlackMessage, event: Event, earlier: Run) -> dict[str, Any]:
    """A message in Slack that answers a question in a ticket that is closed."""
    thread = {"thread": message.event.thread_ts}
    return ticket_said(message, event) | thread | amount_in(event) | _history(earlier)


def _history(earlier: Run) -> dict[str, Any]:
    ended = earlier.outcome or earlier.state
    return {"earlier": {"run": earlier.id, "outcome": ended.value}}


#: What goes on with a ticket that has asked its customer for something.
ANSWERS = (
    Continues("ticket.replied", payload={"1": Reply}, key=ticket_answered, late=late_ticket),
    Continues("mail.received", payload={"1": Letter}, key=asked_in, only_if=answers_us, late=late_letter),
    Continues(
        "message",
        payload={"1": SlackMessage},
        source=SLACK,
        key=thread_of,
        only_if=answers_in_thread,
        late=late_in_thread,
    ),
)
