"""What the business workflows deal with outside: books, leads, quotes, signatures, billing, company data and Slack.

Each keeps a ledger of its own, in a file or in the stand-in's memory, and is read here past whoever wrote it.
"""

from __future__ import annotations

import json
import sqlite3
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager, closing
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tests.tools.vendors import Enricher, SlackWorkspace, on_http

from eventwright.tools.accounting import Books
from eventwright.tools.accounting_export import CsvExport
from eventwright.tools.billing_ledger import BillingLedger
from eventwright.tools.embedded_signatures import EmbeddedSignatures
from eventwright.tools.enrichment import Enrichment
from eventwright.tools.http_json import json_client
from eventwright.tools.leads_file import LeadsFile
from eventwright.tools.pricing import PriceList
from eventwright.tools.quotes import QuoteBook
from eventwright.tools.slack import Slack

#: The one company that the provider of company data knows: everybody whose address ends in this works there.
COMPANY = {"name": "Acme", "domain": "example.org", "industry": "anvils", "employees": 250, "country": "DE"}


@dataclass
class Trade:
    """The systems of the offices that buy, sell and collect."""

    folder: Path
    books: Books
    leads: LeadsFile
    quotes: QuoteBook
    signatures: EmbeddedSignatures
    billing: BillingLedger
    workspace: SlackWorkspace
    clients: list[object]

    @classmethod
    @asynccontextmanager
    async def open(cls, folder: Path) -> AsyncIterator[Trade]:
        async with AsyncExitStack() as stack:
            enter = stack.enter_async_context
            enricher, workspace = Enricher(), SlackWorkspace()
            enricher.companies = {COMPANY["domain"]: COMPANY}
            workspace.channels["quotes"] = "C0QUOTES001"
            enriching, slacking = await enter(on_http(enricher.answer)), await enter(on_http(workspace.answer))
            asking = await enter(json_client(f"http://127.0.0.1:{enriching}/v1", token="enrich-me"))
            books = await enter(Books.open(folder / "trade-books.db"))
            leads = await enter(LeadsFile.open(folder / "trade-leads.db"))
            quotes = await enter(QuoteBook.open(folder / "trade-quotes.db"))
            signatures = await enter(EmbeddedSignatures.open(folder / "trade-signatures.db"))
            billing = await enter(BillingLedger.open(folder / "trade-billing.db"))
            slack = Slack("xoxb-test", base_url=f"http://127.0.0.1:{slacking}/api/")
            clients = [books, CsvExport(folder / "entries.csv"), leads, quotes, signatures, billing]
            clients += [PriceList.packaged(), Enrichment(asking), slack]
            yield cls(folder, books, leads, quotes, signatures, billing, workspace, clients)

    def _rows(self, file: str, query: str, *parameters: str) -> list[dict[str, Any]]:
        with closing(sqlite3.connect(self.folder / f"trade-{file}.db")) as opened:
            opened.row_factory = sqlite3.Row
            return [dict(row) for row in opened.execute(query, parameters).fetchall()]

    # -- what the ledgers say ----------------------------------------------------------------------------------------

    def payments(self, supplier: str) -> list[dict[str, Any]]:
        """What is scheduled for a supplier: account, amount and currency."""
        query = "SELECT payments.* FROM payments JOIN bookings ON bookings.id = booking_id WHERE supplier_id = ?"
        return self._rows("books", query, supplier)

    def payments_to(self, account: str) -> list[dict[str, Any]]:
        """What is scheduled for a bank account, whoever it is said to be for."""
        return self._rows("books", "SELECT * FROM payments WHERE account = ?", account)

    def contact(self, email: str) -> dict[str, Any]:
        """The person in the book of leads who has this address."""
        [found] = self._rows("leads", "SELECT * FROM contacts WHERE email = ?", email)
        return found

    def forms_of(self, contact_id: str) -> int:
        """How many forms were added to a person."""
        return len(self._rows("leads", "SELECT 1 FROM submissions WHERE contact_id = ?", contact_id))

    def quotes_for(self, email: str) -> list[dict[str, Any]]:
        """The quotes that an address was given, as the book holds them."""
        found = [json.loads(row["quote"]) for row in self._rows("quotes", "SELECT quote FROM quotes ORDER BY rowid")]
        return [quote for quote in found if quote["customer"] == email]

    def endings(self, email: str) -> list[str]:
        """What became of them."""
        ids = {quote["id"] for quote in self.quotes_for(email)}
        return [row["ending"] for row in self._rows("quotes", "SELECT * FROM endings") if row["quote_id"] in ids]

    def envelopes_to(self, email: str) -> list[dict[str, Any]]:
        """What was sent to an address for signature."""
        return self._rows("signatures", "SELECT * FROM envelopes WHERE email = ? ORDER BY rowid", email)

    def charges(self, invoice_id: str) -> int:
        """How often a card was charged for an invoice."""
        return len(self._rows("billing", "SELECT 1 FROM charges WHERE invoice_id = ?", invoice_id))

    def paused(self, subscription_id: str) -> bool:
        """Whether a subscription was ever paused."""
        return bool(self._rows("billing", "SELECT 1 FROM pauses WHERE subscription_id = ? AND paused", subscription_id))

    def posts(self, part: str) -> list[str]:
        """The messages in Slack with this in them."""
        return [str(message["text"]) for message in self.workspace.messages if part in str(message["text"])]
