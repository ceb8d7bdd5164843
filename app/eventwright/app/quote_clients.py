"""The clients of the tools for quotes: price list, quote book, signature system. Which ones, the settings say."""

from __future__ import annotations

from contextlib import AsyncExitStack
from pathlib import Path

from eventwright.app.settings import Settings
from eventwright.tools.pricing import PriceList
from eventwright.tools.quotes import QuoteBook

#: The name of a secret: `EVENTWRIGHT_SECRET_SIGNATURES_TOKEN`.
SIGNATURES = "signatures_token"


async def quote_clients(settings: Settings, stack: AsyncExitStack) -> list[object]:
    """The price list (the packaged one, or one's own), the book, and the signature system, embedded without an address.

    Raises:
        PriceListUnusable: the settings name a list that cannot be used.
    """
    clients: list[object] = [
        PriceList.read(Path(settings.price_list)) if settings.price_list else PriceList.packaged(),
        await stack.enter_async_context(QuoteBook.open(settings.home / "quotes.db")),
    ]
    if settings.signatures_url:
        from eventwright.tools.signatures import HttpSignatures

        token = settings.secrets.named.get(SIGNATURES, "")
        opened = HttpSignatures.open(settings.signatures_url, token=token)
        return [*clients, await stack.enter_async_context(opened)]
    from eventwright.tools.embedded_signatures import EmbeddedSignatures

    return [*clients, await stack.enter_async_context(EmbeddedSignatures.open(settings.home / "signatures.db"))]
