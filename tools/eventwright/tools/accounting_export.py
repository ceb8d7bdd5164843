"""Accounting elsewhere: entries of the ledger go to a CSV file, or to a server over HTTP, each once."""

from __future__ import annotations

import asyncio
import csv
from abc import ABC, abstractmethod
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Annotated, Literal

import httpx
from pydantic import BaseModel, ConfigDict

from eventwright.tools.accounting_records import Entry
from eventwright.tools.contract import Call, NotDone, Permanent, Role, ToolError, tool

COLUMNS = ("entry", "booking", "day", "text", "currency", "account", "debit", "credit")
#: Statuses with which a server says: later.
LATER = frozenset({408, 425, 429, 500, 502, 503, 504})
#: No server is waited for longer than so many seconds, whatever it says.
LONGEST_WAIT = 3600.0


class Exported(BaseModel):
    """An entry that stands elsewhere."""

    model_config = ConfigDict(frozen=True)

    entry: str
    to: Literal["csv", "http"]


class EntryExport(ABC):
    """Where entries go."""

    @abstractmethod
    async def send(self, entry: Entry, *, idempotency_key: str) -> Exported:
        """Bring the entry there, once however often it is sent.

        Raises:
            NotDone: not now.
            Permanent: it will not be taken.
            ToolError: nobody knows whether it was taken.
        """


class CsvExport(EntryExport):
    """A CSV file with one row a posting. An entry that stands in it is not written again."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._writing = asyncio.Lock()

    async def send(self, entry: Entry, *, idempotency_key: str) -> Exported:
        async with self._writing:
            try:
                await asyncio.to_thread(self._append, entry)
            except OSError as error:
                raise ToolError(f"the file {self.path.name} cannot be written: {error.strerror}") from error
        return Exported(entry=entry.id, to="csv")

    def _append(self, entry: Entry) -> None:
        self.path.parent.mkdir(parents=True, exist_ok=True)
        with self.path.open("a+", encoding="utf-8", newline="") as file:
            file.seek(0)
            known = {row[0] for row in csv.reader(file) if row}
            if entry.id in known:
                return
            rows = [] if known else [COLUMNS]
            rows += [
                (
                    entry.id,
                    entry.booking_id,
                    str(entry.day),
                    harmless(entry.text),
                    entry.currency,
                    posting.account,
                    f"{posting.debit:f}",
                    f"{posting.credit:f}",
                )
                for posting in entry.postings
            ]
            csv.writer(file).writerows(rows)


def harmless(text: str) -> str:
    """A text that no spreadsheet takes for a formula."""
    return f"'{text}" if text.startswith(("=", "+", "-", "@", "\t", "\r")) else text


class HttpExport(EntryExport):
    """A server that takes an entry as JSON and honours the header `Idempotency-Key`.

    Args:
        client: the connection; its owner closes it.
        url: where entries are posted.
        token: sent as `Authorization: Bearer`.
        timeout: seconds for one attempt.
    """

    def __init__(self, client: httpx.AsyncClient, url: str, *, token: str | None = None, timeout: float = 10.0) -> None:
        self._client, self._url, self._timeout = client, url, timeout
        self._headers = {} if token is None else {"Authorization": f"Bearer {token}"}

    async def send(self, entry: Entry, *, idempotency_key: str) -> Exported:
        try:
            answer = await self._client.post(
                self._url,
                json=entry.model_dump(mode="json"),
                headers={**self._headers, "Idempotency-Key": idempotency_key},
                timeout=self._timeout,
                follow_redirects=False,
            )
        except (httpx.ConnectError, httpx.ConnectTimeout, httpx.PoolTimeout) as error:
            raise NotDone(f"the accounting server does not answer: {type(error).__name__}") from error
        except httpx.HTTPError as error:
            raise ToolError(f"the accounting server broke off: {type(error).__name__}") from error
        if answer.is_success:
            return Exported(entry=entry.id, to="http")
        words = f"the accounting server answered {answer.status_code} to entry {entry.id}"
        if answer.status_code in LATER:
            raise NotDone(words, retry_after=_wait(answer.headers.get("Retry-After")))
        raise Permanent(f"{words}; correct its address, its key or the entry's accounts, and replay the run")


@asynccontextmanager
async def open_http_export(url: str, *, token: str | None = None) -> AsyncIterator[HttpExport]:
    """A server that takes entries, with a connection of its own."""
    async with httpx.AsyncClient() as client:
        yield HttpExport(client, url, token=token)


def _wait(header: str | None) -> float | None:
    return min(float(header), LONGEST_WAIT) if header and header.isascii() and header.isdecimal() else None


@tool(writes="keyed")
async def export_entry(entry: Annotated[Entry, Role.CONTENT], *, call: Call) -> Exported:
    """Bring an entry of the ledger to the accounting system."""
    return await call.use(EntryExport).send(entry, idempotency_key=call.idempotency_key)  # type: ignore[type-abstract]
