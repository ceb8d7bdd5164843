"""The account book: who writes to us. Embedded, in a SQLite file of its own, filled from a packaged data set.

The accounts are the 500 original persons of `data/febrl1.csv` (`data/LICENSE.txt` says whose data that is).
Its other 500 rows are the same persons written down a second time with mistakes, no accounts of their own.
The data has no e-mail addresses, so each account gets one, made from its name and number:
`lachlan.berry.122@example.org`.
"""

from __future__ import annotations

import csv
import re
from collections.abc import Iterator
from importlib.resources import files
from string import capwords

from pydantic import BaseModel, ConfigDict

from eventwright.tools.contract import Call, tool
from eventwright.tools.sqlite_file import SqliteFile

ORIGINAL = re.compile(r"rec-(\d+)-org")


class Account(BaseModel):
    """A customer as the account book knows them. Fields that the book does not know are empty."""

    model_config = ConfigDict(frozen=True)

    id: str
    name: str
    email: str
    suburb: str
    #: The Australian state, in capitals, as somebody once typed it.
    state: str


class Crm(SqliteFile):
    """The account book. `async with Crm.open(path) as crm`."""

    async def prepare(self) -> None:
        if await self.execute("SELECT name FROM sqlite_master WHERE name = 'accounts'"):
            return
        await self._connection.execute(
            "CREATE TABLE accounts (id TEXT PRIMARY KEY, name TEXT NOT NULL,"
            " email TEXT NOT NULL UNIQUE COLLATE NOCASE, suburb TEXT NOT NULL, state TEXT NOT NULL)"
        )
        await self._connection.executemany(
            "INSERT INTO accounts VALUES (:id, :name, :email, :suburb, :state)",
            (account.model_dump() for account in packaged_accounts()),
        )

    async def by_email(self, email: str) -> Account | None:
        """The account with this address, in whatever case it is written.

        Raises:
            ToolError: the book cannot be read.
        """
        rows = await self.execute("SELECT * FROM accounts WHERE email = ?", (email.strip(),))
        return Account.model_validate(dict(rows[0])) if rows else None


def packaged_accounts() -> Iterator[Account]:
    """The accounts that every new book begins with, in the order of the data set."""
    source = files("eventwright.tools") / "data" / "febrl1.csv"
    with source.open(encoding="utf-8") as lines:
        for row in csv.DictReader(lines, skipinitialspace=True):
            number = ORIGINAL.fullmatch(row["rec_id"])
            if number is None:
                continue
            names = [name for name in (row["given_name"], row["surname"]) if name]
            local_part = [re.sub(r"[^a-z0-9]", "", name.lower()) for name in names]
            yield Account(
                id=row["rec_id"],
                name=capwords(" ".join(names)),
                email=".".join([*local_part, number[1]]) + "@example.org",
                suburb=capwords(row["suburb"]),
                state=row["state"].upper(),
            )


@tool(trusted=True, sensitive=True)
async def find_account(email: str, *, call: Call) -> Account | None:
    """Look up the account with this e-mail address."""
    return await call.use(Crm).by_email(email)
