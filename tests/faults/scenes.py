"""The scenes in which processes die: a workflow, what is sent to it, what is outside, and what must have happened."""

from __future__ import annotations

import asyncio
import hashlib
import sqlite3
from collections.abc import Callable, Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path

from aiosmtpd.smtp import SMTP, Envelope, Session
from tests.faults.auditor import Deed, Expected
from tests.faults.books import Book, Provider
from tests.faults.errand import errand, hurry, outage

from eventwright.graphs.support import support
from eventwright.graphs.workflow import Workflow
from eventwright.runs.event import Event
from eventwright.tools.crm import packaged_accounts
from eventwright.tools.smtp_server import LocalSmtp


@dataclass(frozen=True, kw_only=True)
class Scene:
    """A workflow and the world around it.

    Attributes:
        event: the n-th event that is sent.
        expected: what the auditor is told beforehand.
        deeds: what happened outside, from the providers' books in this folder.
        mail: whether it takes a mail server.
        people: whether anybody answers; nobody does, where deadlines shall.
        bells: whether there is a Redis.
    """

    workflow: Workflow
    event: Callable[[int], Event]
    expected: Expected
    deeds: Callable[[Path], Sequence[Deed]]
    mail: bool = False
    people: bool = True
    bells: bool = True

    def happened(self, folder: Path, tool: str, key: str) -> bool:
        """Whether a call of the tool under this key shows in the providers' books."""
        name = self.expected.known_as.get(tool, str)(key)
        return any((deed.tool, deed.key) == (tool, name) for deed in self.deeds(folder))


def provider(folder: Path) -> Provider:
    """The provider of errands whose ledger is in this folder."""
    return Provider(folder / "provider")


def an_errand(number: int) -> Event:
    return Event(id=f"errand-{number}", source="/test", type="errand", data={"text": "hm"})


def done_errands(folder: Path) -> list[Deed]:
    return [
        Deed(line["what"], line["key"], line["at"])
        for line in provider(folder).lines()
        if line["what"] not in ("errand.look", "errand.down")
    ]


# -- support: payments with a ledger of their own, and a real mail server ----------------------------------------------

CUSTOMERS = [account.email for account in packaged_accounts()]
REFUND = {"subject": "My card", "text": "I want to return an item for a refund can I do that?"}


def a_ticket(number: int) -> Event:
    """A refund above the limit, of a customer of its own: the payments team is asked, the customer gets one mail."""
    data = {"sender": CUSTOMERS[number % len(CUSTOMERS)], "amount": "250.00", "currency": "EUR", **REFUND}
    return Event(id=f"ticket-{number}", source="/test", type="ticket.created", version="2", data=data)


def answered_tickets(folder: Path) -> list[Deed]:
    return [*_refunds(folder / "payments.db"), *_mails(folder)]


def _refunds(ledger: Path) -> list[Deed]:
    if not ledger.exists():
        return []
    with closing(sqlite3.connect(ledger)) as connection:
        rows = connection.execute("SELECT idempotency_key, created_at FROM refunds").fetchall()
    return [Deed("payments.refund", key, datetime.fromisoformat(at).timestamp()) for key, at in rows]


def _mails(folder: Path) -> list[Deed]:
    return [Deed("mail.send", line["message_id"], line["at"]) for line in Book(folder / "mails").lines()]


def message_name(key: str) -> str:
    """The part of a mail's Message-ID that its idempotency key makes."""
    return hashlib.sha256(key.encode()).hexdigest()[:32]


class Postbox(LocalSmtp):
    """A mail server that writes down what it takes before it says so."""

    def __init__(self, folder: Path) -> None:
        super().__init__()
        self._book = Book(folder / "mails")

    async def handle_DATA(self, server: SMTP, session: Session, envelope: Envelope) -> str:  # noqa: N802
        answer = await super().handle_DATA(server, session, envelope)
        name = self.messages[-1].message_id.strip("<>").partition("@")[0]
        self._book.write(message_id=name, to=self.messages[-1].to)
        return answer


async def serve_mail(folder: Path) -> None:
    """Take mail until the process is killed; the URL is in `folder/smtp_url` as soon as it can be used."""
    loop, postbox = asyncio.get_running_loop(), Postbox(folder)
    server = await loop.create_server(lambda: SMTP(postbox, hostname="localhost", loop=loop), host="127.0.0.1", port=0)
    port = server.sockets[0].getsockname()[1]
    written = folder / "smtp_url.new"
    written.write_text(f"smtp://127.0.0.1:{port}?from=support@example.org")
    written.rename(folder / "smtp_url")
    await server.serve_forever()


SCENES: Mapping[str, Scene] = {
    "errand": Scene(
        workflow=errand,
        event=an_errand,
        expected=Expected(
            starts={"errand": frozenset({"errand"})},
            approved=frozenset({"errand.pay"}),
            does={"errand": {"errand.hold": 1, "errand.pay": 1, "errand.book": 1, "errand.tell": 1}},
        ),
        deeds=done_errands,
    ),
    "hurry": Scene(
        workflow=hurry,
        event=lambda number: Event(id=f"hurry-{number}", source="/test", type="hurry", data={"price": "1"}),
        expected=Expected(
            starts={"hurry": frozenset({"hurry"})},
            approved=frozenset({"errand.pay"}),
            does={"hurry": {"errand.pay": 1}},
        ),
        deeds=done_errands,
        people=False,
        bells=False,
    ),
    "outage": Scene(
        workflow=outage,
        event=lambda number: Event(id=f"outage-{number}", source="/test", type="outage", data={}),
        expected=Expected(starts={"outage": frozenset({"outage"})}, does={"outage": {"errand.order": 1}}),
        deeds=done_errands,
    ),
    "support": Scene(
        workflow=support,
        event=a_ticket,
        expected=Expected(
            starts={"ticket.created": frozenset({"support"})},
            approved=frozenset({"payments.refund"}),
            does={"support": {"payments.refund": 1, "mail.send": 1}},
            known_as={"mail.send": message_name},
        ),
        deeds=answered_tickets,
        mail=True,
    ),
}
