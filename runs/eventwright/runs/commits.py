"""Whether a commit has happened of which no answer came.

A line may break after a transaction was told to commit and before anybody heard that it did. Whoever does it again then
does it twice, or is refused by what he wrote himself. So each transaction of a process writes its number as well; done
again, it finds the number of the first time, if that one was committed, and waits if that is still being decided.

SQLite answers in any case: its commit is a call in the same process.
"""

from __future__ import annotations

from datetime import datetime

import sqlalchemy as sa
from sqlalchemy.dialects import postgresql

from eventwright.runs import schema
from eventwright.runs.database import Database
from eventwright.runs.event import new_id

commits = sa.Table(
    "commits",
    schema.metadata,
    # One process; as one that opens the store again is another.
    sa.Column("writer", sa.String(64), primary_key=True),
    # Of its last transaction that was committed, and when that began.
    sa.Column("number", sa.BigInteger, nullable=False),
    sa.Column("at", schema.UtcDateTime, nullable=False),
)

_INSERT = postgresql.insert(commits).values(
    writer=sa.bindparam("writer"), number=sa.bindparam("number"), at=sa.func.clock_timestamp()
)
#: Answers with the database's time, and with nothing if this very number stands there.
_MARK = _INSERT.on_conflict_do_update(
    index_elements=["writer"],
    set_={"number": _INSERT.excluded.number, "at": sa.func.clock_timestamp()},
    where=commits.c.number != _INSERT.excluded.number,
).returning(commits.c.at)


class Commits:
    """The transactions of one process, in their order."""

    def __init__(self, database: Database) -> None:
        self._database = database
        self._writer = new_id("writer")
        self._number = 0

    def next(self) -> int:
        """The number of a transaction that is to come."""
        self._number += 1
        return self._number

    def begin(self, connection: sa.Connection, number: int) -> datetime | None:
        """Begin the transaction of this number: the database's time, or None if it is committed already."""
        if self._database.dialect == "sqlite":
            return self._database.now(connection)
        at = connection.execute(_MARK, {"writer": self._writer, "number": number}).scalar_one_or_none()
        return None if at is None else self._database.told(at)
