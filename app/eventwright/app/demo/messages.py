"""The demo's messages: real tickets of real data sets, and among them, on purpose, everything that can go wrong."""

from __future__ import annotations

import csv
import json
import math
from collections.abc import Sequence
from dataclasses import dataclass
from importlib.resources import files
from typing import Any

from eventwright.runs.states import Documented
from eventwright.tools.crm import Account, packaged_accounts
from eventwright.tools.smtp_server import LocalSmtp

#: The name of the sender in `POST /v1/webhooks/{source}`.
SOURCE = "helpdesk"
#: Every tenth account writes; nobody writes twice.
EVERY = 10


class Case(Documented):
    """What is special about a message."""

    PLAIN = "", "an ordinary ticket"
    TWICE = "twice", "the same event, delivered twice"
    NO_SENDER = "no_sender", "a ticket without a sender"
    UNCLEAR = "unclear", "a ticket that nobody can classify"
    STRANGER = "stranger", "a ticket from an address that is no customer's"
    REFUND = "refund_within_limit", "a refund within the limit"
    REFUND_TO_APPROVE = "refund_above_limit_1", "a refund above the limit"
    REFUND_TO_REJECT = "refund_above_limit_2", "a refund above the limit"
    REFUND_TO_EDIT = "refund_above_limit_3", "a refund above the limit"
    FLAKY_MAIL = "flaky_mail", "a mail server that refuses twice, then takes the reply"
    DEAD_MAIL = "dead_mail", "a mail server that refuses for good"
    LOST_ANSWER = "lost_answer", "a mail server that takes the reply and hangs up without a word"
    UNKNOWN_VERSION = "unknown_version", "a payload of an unknown version"


#: What the web form (version 2 of the payload) says about refunds: amount and currency.
AMOUNTS = {
    Case.REFUND: ("20.50", "GBP"),
    Case.REFUND_TO_APPROVE: ("480.00", "GBP"),
    Case.REFUND_TO_REJECT: ("1250.00", "EUR"),
    Case.REFUND_TO_EDIT: ("160.00", "USD"),
}


@dataclass(frozen=True, kw_only=True)
class Message:
    """One webhook of the help desk."""

    number: int
    case: Case
    subject: str
    text: str
    #: The customer who writes. Not everybody's address is in the message.
    account: Account

    @property
    def id(self) -> str:
        """The help desk's id of the message; a second delivery has the same one."""
        return f"msg_{self.number:02}"

    @property
    def sender(self) -> str | None:
        """The address in the message."""
        match self.case:
            case Case.NO_SENDER:
                return None
            case Case.STRANGER:
                return "someone@elsewhere.example"
            case _:
                return self.account.email

    @property
    def body(self) -> bytes:
        """The webhook's body, in the envelope of Standard Webhooks."""
        data: dict[str, Any] = {"sender": self.sender, "subject": self.subject, "text": self.text}
        version = "1"
        if self.case in AMOUNTS:
            data["amount"], data["currency"] = AMOUNTS[self.case]
            version = "2"
        if self.case is Case.UNKNOWN_VERSION:
            version = "7"
        return json.dumps({"type": "ticket.created", "version": version, "data": data}).encode()


def messages() -> list[Message]:
    """The tickets, in the order in which they come."""
    source = files("eventwright.app.demo") / "data" / "tickets.csv"
    accounts = list(packaged_accounts())[::EVERY]
    with source.open(encoding="utf-8") as lines:
        return [
            Message(
                number=number,
                case=Case(row["case"]),
                subject=row["intent"].strip("?").replace("_", " ").capitalize(),
                text=row["text"],
                account=accounts[number],
            )
            for number, row in enumerate(csv.DictReader(lines), start=1)
        ]


def break_mail(smtp: LocalSmtp, sent: Sequence[Message]) -> None:
    """Let the mail server fail for the customers whose case it is."""
    addresses = {message.case: message.account.email for message in sent}
    smtp.refusing = {addresses[Case.FLAKY_MAIL]: 2, addresses[Case.DEAD_MAIL]: math.inf}
    smtp.losing = {addresses[Case.LOST_ANSWER]}


def mend_mail(smtp: LocalSmtp) -> None:
    """Let the mail server work."""
    smtp.refusing.clear()
    smtp.losing.clear()
