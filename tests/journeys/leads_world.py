"""What the leads workflow deals with outside, for its tests: a book, a mail server, an enrichment provider and a Slack
that speak their vendors' API on the loopback, and can be made to fail."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
from tests.tools.vendors import Enricher, SlackWorkspace, Trouble, on_http

from eventwright.runs.event import Event, new_id
from eventwright.tools.enrichment import Enrichment
from eventwright.tools.http_json import SECONDS, json_client
from eventwright.tools.leads_file import LeadsFile
from eventwright.tools.mail import Mailer
from eventwright.tools.slack import Slack
from eventwright.tools.smtp_server import LocalSmtp, local_smtp


@dataclass
class Market:
    """The systems outside."""

    book: LeadsFile
    smtp: LocalSmtp
    enricher: Enricher
    enrichment: Enrichment
    #: What `enrichment` asks with.
    enriching: httpx.AsyncClient
    workspace: SlackWorkspace
    slack: Slack

    @property
    def clients(self) -> list[object]:
        return [self.book, Mailer(self.smtp.url), self.enrichment, self.slack]

    def enricher_says(self, trouble: Trouble, times: int) -> None:
        """The provider meets this so often. Silence is not waited for long; a connection is, as it is by itself."""
        self.enricher.troubles = [trouble] * times
        if not trouble.status:
            self.enriching.timeout = httpx.Timeout(SECONDS, read=0.2)

    async def contacts(self) -> int:
        [row] = await self.book.execute("SELECT count(*) FROM contacts")
        return int(row[0])


@asynccontextmanager
async def a_market(folder: Path) -> AsyncIterator[Market]:
    async with AsyncExitStack() as stack:
        enricher, workspace = Enricher(), SlackWorkspace()
        enriching = await stack.enter_async_context(on_http(enricher.answer))
        slacking = await stack.enter_async_context(on_http(workspace.answer))
        # All wait as long as in earnest: a machine that stands still for a moment is none of the troubles.
        client = await stack.enter_async_context(json_client(f"http://127.0.0.1:{enriching}/v1", token="enrich-me"))
        yield Market(
            book=await stack.enter_async_context(LeadsFile.open(folder / "leads.db")),
            smtp=await stack.enter_async_context(local_smtp()),
            enricher=enricher,
            enrichment=Enrichment(client),
            enriching=client,
            workspace=workspace,
            slack=Slack("xoxb-test", base_url=f"http://127.0.0.1:{slacking}/api/"),
        )


def form(**changed: Any) -> dict[str, Any]:
    """What Lena writes."""
    return {
        "given_name": "Lena",
        "surname": "Harrington",
        "email": "lena@initech.example.com",
        "phone": "+61 2 5550 1234",
        "company": "Initech",
        "postcode": "2000",
        "state": "NSW",
        "message": "Please send us a quote for 50 licences.",
        "consent": True,
    } | changed


def submitted(**changed: Any) -> Event:
    return Event(id=new_id("form"), source="/form", type="lead.submitted", data=form(**changed))
