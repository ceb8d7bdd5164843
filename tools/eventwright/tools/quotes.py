"""The quote book: which quotes we have given, at which price, and what became of each. Embedded, a SQLite file.

A quote is priced when it is written down and never again: later prices do not change it. What became of it is said
once; whoever says something else afterwards is told what stands there. Only a person brings one back.
"""

from __future__ import annotations

import json
from datetime import UTC, datetime
from typing import Annotated, Literal

from pydantic import AwareDatetime, BaseModel, ConfigDict, Field

from eventwright.runs.event import digest_of, new_id
from eventwright.tools.contract import Call, Permanent, Role, Undo, tool
from eventwright.tools.pricing import Currency, Items, Percent, Price, PriceList
from eventwright.tools.sqlite_file import SqliteFile

#: What becomes of a quote.
Ending = Literal["signed", "declined", "expired", "disputed", "withdrawn"]
#: Endings after which a quote may be honoured all the same.
REVIVABLE = ("expired", "disputed", "withdrawn")
Named = Annotated[str, Field(min_length=1, max_length=254)]
Words = Annotated[str, Field(max_length=2000)]


class Quote(BaseModel):
    """A quote, as the book holds it. `ending` is None while it stands; `revived_at` is when it was honoured although it
    had come to another end than a signature."""

    model_config = ConfigDict(frozen=True)

    id: str
    customer: str
    price: Price
    #: Why there is a discount: in the words of who wanted it, and as that was understood.
    reason: str
    grounds: str
    created_at: AwareDatetime
    ending: Ending | None = None
    ended_at: AwareDatetime | None = None
    revived_at: AwareDatetime | None = None


class QuoteBook(SqliteFile):
    """The book of quotes. `async with QuoteBook.open(path) as book`."""

    async def prepare(self) -> None:
        await self._connection.execute(
            "CREATE TABLE IF NOT EXISTS quotes (idempotency_key TEXT PRIMARY KEY NOT NULL, asked TEXT NOT NULL,"
            " quote_id TEXT NOT NULL UNIQUE, quote TEXT NOT NULL)"
        )
        # A quote is never changed: it was given, and it came to an end.
        await self._connection.execute(
            "CREATE TABLE IF NOT EXISTS endings (quote_id TEXT PRIMARY KEY NOT NULL REFERENCES quotes (quote_id),"
            " ending TEXT NOT NULL, ended_at TEXT NOT NULL)"
        )
        await self._connection.execute(
            "CREATE TABLE IF NOT EXISTS revivals (quote_id TEXT PRIMARY KEY NOT NULL, revived_at TEXT NOT NULL)"
        )

    async def write_down(self, quote: Quote, *, asked: str, idempotency_key: str) -> Quote:
        """Write a quote down, once per key: the same key again answers with the first quote, at its price.

        Args:
            asked: a digest of what was asked for, by which a key that serves another quote is found out.

        Raises:
            Permanent: the key was used for another quote.
            ToolError: the book cannot be written.
        """
        await self.execute(
            "INSERT INTO quotes VALUES (?, ?, ?, ?) ON CONFLICT (idempotency_key) DO NOTHING",
            (idempotency_key, asked, quote.id, quote.model_dump_json()),
        )
        [row] = await self.execute("SELECT asked, quote FROM quotes WHERE idempotency_key = ?", (idempotency_key,))
        kept = Quote.model_validate_json(row["quote"])
        if row["asked"] != asked:
            raise Permanent(f"the idempotency key {idempotency_key!r} belongs to quote {kept.id}, about something else")
        return kept

    async def end(self, quote_id: str, ending: Ending) -> Quote:
        """Say what became of a quote; the same again changes nothing.

        Raises:
            Permanent: there is no such quote, or something else became of it.
            ToolError: the book cannot be written.
        """
        await self.execute(
            "INSERT INTO endings SELECT quote_id, ?, ? FROM quotes WHERE quote_id = ?"
            " ON CONFLICT (quote_id) DO NOTHING",
            (ending, datetime.now(UTC).isoformat(), quote_id),
        )
        quote = await self.find(quote_id)
        if quote is None:
            raise Permanent(f"there is no quote {quote_id!r} in the book")
        if quote.ending != ending:
            raise Permanent(f"quote {quote_id} was {quote.ending} at {quote.ended_at}, and cannot be {ending} any more")
        return quote

    async def revive(self, quote_id: str) -> Quote:
        """Honour a quote although it has come to an end; the same again changes nothing.

        Raises:
            Permanent: there is no such quote, or it is none that could be honoured.
            ToolError: the book cannot be written.
        """
        await self.execute(
            "INSERT INTO revivals SELECT quote_id, ? FROM endings WHERE quote_id = ?"
            " AND ending IN (SELECT value FROM json_each(?)) ON CONFLICT (quote_id) DO NOTHING",
            (datetime.now(UTC).isoformat(), quote_id, json.dumps(REVIVABLE)),
        )
        quote = await self.find(quote_id)
        if quote is None or quote.revived_at is None:
            stands = "not in the book" if quote is None else quote.ending or "open"
            raise Permanent(f"quote {quote_id!r} is {stands}; only one that was {', '.join(REVIVABLE)} can be revived")
        return quote

    async def find(self, quote_id: str) -> Quote | None:
        """The quote, with what became of it.

        Raises:
            ToolError: the book cannot be read.
        """
        rows = await self.execute(
            "SELECT quote, ending, ended_at, revived_at FROM quotes LEFT JOIN endings USING (quote_id)"
            " LEFT JOIN revivals USING (quote_id) WHERE quote_id = ?",
            (quote_id,),
        )
        if not rows:
            return None
        quote = Quote.model_validate_json(rows[0]["quote"])
        known = {name: rows[0][name] for name in ("ending", "ended_at", "revived_at")}
        return Quote.model_validate(quote.model_dump() | known)


@tool(writes="keyed", trusted=True)
async def end(quote_id: Annotated[Named, Role.DESTINATION], ending: Ending, *, call: Call) -> Quote:
    """Say what became of a quote."""
    return await call.use(QuoteBook).end(quote_id, ending)


@tool(
    writes="keyed",
    trusted=True,
    undo=Undo(end, lambda _asked, given: {"quote_id": given.id, "ending": "withdrawn"}),
)
async def give(
    customer: Annotated[Named, Role.DESTINATION],
    items: Annotated[Items, Role.AMOUNT],
    currency: Annotated[Currency, Role.AMOUNT],
    percent: Annotated[Percent, Role.AMOUNT],
    reason: Annotated[Words, Role.CONTENT],
    grounds: Annotated[Words, Role.CONTENT],
    company: Annotated[Words, Role.CONTENT],
    company_is_known: bool,
    *,
    call: Call,
) -> Quote:
    """Give a customer these items at this discount: the quote is priced and written down.

    `company` is what was found out about it, for whoever approves the discount.
    """
    quote = Quote(
        id=new_id("quo"),
        customer=customer,
        price=call.use(PriceList).price(items, currency, percent),
        reason=reason,
        grounds=grounds,
        created_at=datetime.now(UTC),
    )
    asked = digest_of([customer, [item.model_dump() for item in items], currency, f"{percent:.2f}", reason, grounds])
    return await call.use(QuoteBook).write_down(quote, asked=asked, idempotency_key=call.idempotency_key)


@tool(writes="keyed", trusted=True)
async def revive(quote_id: Annotated[Named, Role.DESTINATION], *, call: Call) -> Quote:
    """Honour a quote although it has come to an end."""
    return await call.use(QuoteBook).revive(quote_id)


@tool(trusted=True)
async def find(quote_id: str, *, call: Call) -> Quote | None:
    """Look up a quote, with what became of it."""
    return await call.use(QuoteBook).find(quote_id)
