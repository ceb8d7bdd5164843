"""What the discounts workflow deals with outside, for its tests: books in files, a mail server, a signature system in a
file or at a provider on the loopback, company data and Slack that can be made to fail."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tests.journeys.leads_world import Market, a_market
from tests.outside import says

from eventwright.app.simulate import SimulatedClock, Simulation, simulator
from eventwright.graphs.discounts import discounts
from eventwright.queue.engine import Engine
from eventwright.runs.event import Event, new_id
from eventwright.runs.records import Effect, Review, Run
from eventwright.tools.embedded_signatures import EmbeddedSignatures
from eventwright.tools.leads_book import Lead
from eventwright.tools.pricing import PriceList
from eventwright.tools.quotes import Quote, QuoteBook
from eventwright.tools.signatures import Envelope

STAFF = {"sales-manager": ["mona", "rita"], "sales-director": ["dora", "dan"]}
ADDRESS = "ann@acme.example.com"
ANN = Lead(given_name="Ann", surname="Miller", email=ADDRESS, company="Acme")


@dataclass
class Sales:
    """The systems outside, and the run that the tests are about."""

    market: Market
    book: QuoteBook
    signatures: EmbeddedSignatures
    engine: Engine
    clock: SimulatedClock
    last: Simulation | None = None

    @property
    def simulation(self) -> Simulation:
        assert self.last is not None
        return self.last

    # -- what happens ------------------------------------------------------------------------------------------------

    async def asks(self, event_id: str | None = None, **changes: Any) -> Run:
        """A colleague asks for a quote, and the run goes as far as it gets."""
        event = Event(id=event_id or new_id("q"), source="/crm", type="quote.requested", data=request(**changes))
        receipt = await self.engine.receive(event)
        self.last = Simulation(self.engine, receipt.runs[0].id, self.clock)
        return await self.simulation.go_on()

    async def decides(self, kind: str = "approve", by: str = "mona", **more: Any) -> Run:
        [asked] = await self.reviews()
        await self.engine.decide(asked.id, says(kind, by=by, **more))
        return await self.simulation.go_on()

    async def tells(self, type: str = "quote.signed", envelope_id: str | None = None, **attributes: Any) -> Run:
        """The signature system sends an event."""
        data = {"envelope_id": envelope_id or (await self.envelope()).id}
        return await self.simulation.send(type, data, **attributes)

    async def signs(self) -> Run:
        await self.signatures.sign((await self.envelope()).id)
        return await self.tells()

    async def at_the_provider(self, **changes: str) -> None:
        """Somebody changes the envelope in the signature system."""
        for name, value in changes.items():
            await self.signatures.execute(f"UPDATE envelopes SET {name} = ?", (value,))  # noqa: S608 - our own names

    # -- what is there -----------------------------------------------------------------------------------------------

    async def reviews(self) -> list[Review]:
        return await self.simulation.reviews()

    async def run(self) -> Run:
        return await self.simulation.run()

    async def envelope(self) -> Envelope:
        [envelope] = await self.signatures.sent()
        return envelope

    async def quotes(self) -> list[Quote]:
        rows = await self.book.execute("SELECT quote_id FROM quotes ORDER BY rowid")
        found = [await self.book.find(row["quote_id"]) for row in rows]
        return [quote for quote in found if quote is not None]

    async def quote(self) -> Quote:
        [quote] = await self.quotes()
        return quote

    async def effects(self, tool: str) -> list[Effect]:
        return [effect for effect in await self.simulation.effects() if effect.tool == tool]

    @property
    def subjects(self) -> list[tuple[str, str]]:
        """Whom we wrote to, and about what, without numbers of quotes."""
        return [(mail.to, mail.subject.partition(" quo")[0]) for mail in self.market.smtp.messages]

    def mails_to(self, address: str) -> list[str]:
        return [mail.subject for mail in self.market.smtp.messages if mail.to == address]


def request(
    percent: str = "5", reason: str = "They renew every year, a loyal customer since 2011", **changes: Any
) -> dict[str, Any]:
    return {
        "lead": {"company": "Acme", "name": "Ann Miller", "email": ADDRESS},
        "items": [{"sku": "SEAT-PRO", "quantity": 10}],
        "currency": "EUR",
        "discount": {"percent": percent, "reason": reason},
        "requested_by": "rita",
        **changes,
    }


@asynccontextmanager
async def open_sales(folder: Path, database_url: str, *extra: object) -> AsyncIterator[Sales]:
    async with AsyncExitStack() as stack:
        market = await stack.enter_async_context(a_market(folder))
        market.workspace.channels["quotes"] = "C0QUOTES001"
        market.enricher.companies["acme.example.com"] = {
            "name": "Acme GmbH", "domain": "acme.example.com", "industry": "anvils", "employees": 250, "country": "DE"
        }  # fmt: skip
        await market.book.add(ANN, knowing=[], idempotency_key="ann")
        book = await stack.enter_async_context(QuoteBook.open(folder / "quotes.db"))
        signatures = await stack.enter_async_context(EmbeddedSignatures.open(folder / "signatures.db"))
        clients = [*market.clients, book, signatures, PriceList.packaged(), *extra]
        simulating = simulator(discounts, resources=clients, database_url=database_url, roles=STAFF)
        engine, clock = await stack.enter_async_context(simulating)
        yield Sales(market, book, signatures, engine, clock)
