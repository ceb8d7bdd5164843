"""The clients of the tools for invoices: the books, and where their entries go. Which, the secrets say."""

from __future__ import annotations

from contextlib import AsyncExitStack

from eventwright.app.settings import Settings
from eventwright.tools.accounting import Books
from eventwright.tools.accounting_export import CsvExport, open_http_export

#: Names of secrets: `EVENTWRIGHT_SECRET_ACCOUNTING_URL`, where entries are posted, and the token that goes with them.
URL, TOKEN = "accounting_url", "accounting_token"


async def invoice_clients(settings: Settings, stack: AsyncExitStack) -> list[object]:
    """The books, and a server that takes their entries; without an address a CSV file of the home."""
    secrets = settings.secrets.named
    books = await stack.enter_async_context(Books.open(settings.home / "accounting.db"))
    if URL in secrets:
        opened = open_http_export(secrets[URL], token=secrets.get(TOKEN))
        return [books, await stack.enter_async_context(opened)]
    return [books, CsvExport(settings.home / "entries.csv")]
