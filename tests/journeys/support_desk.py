"""A support desk for tests of what goes back and forth: customers write, answer, or do not, and time passes."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any

from tests.journeys.support_world import ANN, REFUND, Outside, ticket
from tests.tools.vendors import SlackWorkspace, on_http

from eventwright.app.simulate import SimulatedClock, Simulation, simulator
from eventwright.graphs.support import support
from eventwright.queue.engine import Engine
from eventwright.queue.intake import Receipt
from eventwright.runs.event import Event, new_id
from eventwright.runs.records import Run
from eventwright.runs.states import FINAL
from eventwright.tools.slack import Slack

HELP_DESK, MAILBOX, SLACK = "/help-desk", "/mail/support@example.org", "/webhooks/slack"
CHANNEL, USER = "C0SUPPORT01", "U0ANN00001"


@dataclass
class Desk:
    """The workflow on a store and a clock of its own, and what it deals with outside."""

    outside: Outside
    workspace: SlackWorkspace
    engine: Engine
    clock: SimulatedClock

    # -- what comes in -----------------------------------------------------------------------------------------------

    async def receive(self, type: str, data: dict[str, Any], source: str, id: str | None = None) -> Receipt:
        """One event, and whatever it brings on its way goes as far as it gets."""
        version = "2" if type == "ticket.created" else "1"
        event = Event(id=id or new_id("event"), source=source, type=type, data=data, version=version)
        receipt = await self.engine.receive(event)
        for run in receipt.runs:
            await self.of(run).go_on()
        return receipt

    async def opens(self, text: str = REFUND, id: str = "t-1", **more: Any) -> Simulation:
        """A customer writes to the help desk."""
        receipt = await self.receive("ticket.created", ticket(text, **more), HELP_DESK, id)
        return self.of(receipt.runs[0])

    async def replies(self, text: str, ticket: str = "t-1", id: str | None = None, **more: Any) -> Receipt:
        """A customer answers through the help desk."""
        return await self.receive("ticket.replied", {"ticket": ticket, "text": text, **more}, HELP_DESK, id)

    async def mails(self, text: str, answers: str | None = None, id: str | None = None, **more: Any) -> Receipt:
        """A letter comes in, in answer to another one or not."""
        about = {"in_reply_to": answers, "references": [answers] if answers else []}
        data = {"sender": ANN.email, "subject": "Re: My card", "text": text, **about, **more}
        return await self.receive("mail.received", data, MAILBOX, id)

    async def says(self, text: str, ts: str = "1700000000.000100", id: str | None = None, **more: Any) -> Receipt:
        """Somebody writes in Slack, which tells us."""
        message = {"type": "message", "channel": CHANNEL, "user": USER, "text": text, "ts": ts, **more}
        self.workspace.messages.append(message)
        data = {"type": "event_callback", "team_id": "T1", "event": message}
        return await self.receive("message", data, SLACK, id)

    # -- what is there -----------------------------------------------------------------------------------------------

    def of(self, run: Run) -> Simulation:
        return Simulation(self.engine, run.id, self.clock)

    async def runs(self) -> list[Run]:
        return await self.engine.store.runs()

    async def over(self) -> bool:
        return all(run.state in FINAL for run in await self.runs())

    @property
    def letters(self) -> list[tuple[str, str]]:
        """Whom we wrote to, and how each letter begins."""
        return [(mail.to, mail.body.partition("\n")[0]) for mail in self.outside.smtp.messages]

    @property
    def answers(self) -> list[tuple[str, str]]:
        """What we wrote in Slack: the channel, and below which message."""
        ours = (message for message in self.workspace.messages if "user" not in message)
        return [(message["channel"], message["thread_ts"]) for message in ours]

    async def refunded(self) -> list[str]:
        return [f"{refund.amount} {refund.currency}" for refund in await self.outside.refunds()]


@asynccontextmanager
async def open_desk(outside: Outside, database_url: str) -> AsyncIterator[Desk]:
    workspace = SlackWorkspace()
    workspace.users[USER] = {"id": USER, "is_bot": False, "profile": {"email": ANN.email}}
    async with on_http(workspace.answer) as port:
        slack = Slack("xoxb-test", base_url=f"http://127.0.0.1:{port}/api/", timeout=5)
        clients = [*outside.clients, slack]
        async with simulator(support, resources=clients, database_url=database_url) as (engine, clock):
            yield Desk(outside, workspace, engine, clock)
