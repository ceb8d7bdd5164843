"""The inbox of the user's own SQLite file: read with every sweep, since nobody tells us anything.

No lock is held while events are stored: whoever uses the file must not wait for us. Two workers that read the same row
store it once.
"""

from __future__ import annotations

import asyncio
import sqlite3
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TypeVar

from eventwright.queue.database_changes import INBOX, MOST, Inbox, InboxAway, Judge, Row

Answer = TypeVar("Answer")

#: Seconds to wait for somebody who keeps the file's lock.
LOCK_SECONDS = 5.0

_THERE = "SELECT count(*) FROM sqlite_master WHERE type = 'table' AND name = ?"
_OLDEST = """
    SELECT position, id, changed_at, source, type, operation, key, old, new, changed, omitted
    FROM eventwright_inbox WHERE problem IS NULL ORDER BY position LIMIT ?
"""
_TAKE = "DELETE FROM eventwright_inbox WHERE position = ?"
_PUT_ASIDE = "UPDATE eventwright_inbox SET problem = ? WHERE position = ?"


@contextmanager
def connected(path: Path) -> Iterator[sqlite3.Connection]:
    """The user's file, which must be there. Text that is no UTF-8 comes with marks in place of what is not.

    Raises:
        sqlite3.Error: there is no such file, it is no database, or somebody keeps it locked.
    """
    connection = sqlite3.connect(
        f"{path.absolute().as_uri()}?mode=rw", uri=True, timeout=LOCK_SECONDS, isolation_level=None, cached_statements=0
    )
    try:
        connection.text_factory = lambda raw: raw.decode("utf-8", "replace")
        connection.row_factory = sqlite3.Row
        yield connection
    finally:
        connection.close()


@contextmanager
def transaction(connection: sqlite3.Connection) -> Iterator[None]:
    """Commits in the end; an error undoes everything."""
    connection.execute("BEGIN IMMEDIATE")
    try:
        yield
    except BaseException:
        if connection.in_transaction:
            connection.execute("ROLLBACK")
        raise
    connection.execute("COMMIT")


class SqliteInbox(Inbox):
    """See `Inbox`.

    Args:
        database: its name in the settings.
        path: the file.
    """

    def __init__(self, database: str, path: Path) -> None:
        super().__init__(database)
        self._path = path

    async def take(self, judge: Judge) -> bool:
        rows = await self._in_thread(self._oldest)
        if not rows:
            return False
        judged = await judge(rows)
        await self._in_thread(lambda: self._settle(rows, judged))
        return bool(judged) and (len(rows) == MOST or len(judged) < len(rows))

    async def close(self) -> None:
        """Nothing is held."""

    async def _in_thread(self, work: Callable[[], Answer]) -> Answer:
        try:
            return await asyncio.to_thread(work)
        except sqlite3.Error as error:
            raise InboxAway(self.database, error) from error

    def _oldest(self) -> list[Row]:
        with connected(self._path) as connection:
            if not connection.execute(_THERE, (INBOX,)).fetchone()[0]:
                return []  # no trigger is installed yet
            return [Row(**dict(found)) for found in connection.execute(_OLDEST, (MOST,))]

    def _settle(self, rows: Sequence[Row], judged: Sequence[str | None]) -> None:
        with connected(self._path) as connection, transaction(connection):
            for row, problem in zip(rows, judged, strict=False):
                if problem is None:
                    connection.execute(_TAKE, (row.position,))
                else:
                    connection.execute(_PUT_ASIDE, (problem, row.position))
