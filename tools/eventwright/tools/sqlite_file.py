"""An outside system that fits one SQLite file: what the embedded account book and ledger share."""

from __future__ import annotations

import sqlite3
from abc import ABC, abstractmethod
from collections.abc import AsyncIterator, Iterable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any, Self

import aiosqlite

from eventwright.tools.contract import NotDone, ToolError

#: Seconds to wait for another process that writes to the same file.
PATIENCE = 10.0


class SqliteFile(ABC):
    """One SQLite file behind one connection. Subclasses make their tables in `prepare`.

    Tasks share the connection, so outside `prepare` everything is a single statement: it stands alone,
    and no two tasks can find themselves in one transaction.
    """

    def __init__(self, connection: aiosqlite.Connection) -> None:
        self._connection = connection

    @classmethod
    @asynccontextmanager
    async def open(cls, path: Path | str) -> AsyncIterator[Self]:
        """Open the file, making and filling it on first use, and close it at the end.

        Any number of processes may open the same new file at once: one fills it, the others wait.

        Raises:
            NotDone: another process held the file too long.
            ToolError: SQLite cannot open or read the file.
        """
        Path(path).parent.mkdir(parents=True, exist_ok=True)
        try:
            connection = await aiosqlite.connect(path, timeout=PATIENCE, isolation_level=None)
        except sqlite3.Error as error:
            raise fault(error, str(path)) from error
        try:
            connection.row_factory = sqlite3.Row
            file = cls(connection)
            await file._prepare_once(str(path))
            yield file
        finally:
            await connection.close()

    @abstractmethod
    async def prepare(self) -> None:
        """Make the tables if they are not there. Runs inside one exclusive transaction."""

    async def execute(self, statement: str, parameters: Iterable[Any] = ()) -> list[sqlite3.Row]:
        """Run one statement by itself: its rows.

        Raises:
            NotDone: another process held the file too long; nothing was changed.
            ToolError: SQLite failed in another way.
        """
        try:
            return list(await self._connection.execute_fetchall(statement, parameters))
        except sqlite3.Error as error:
            raise fault(error, statement) from error

    async def _prepare_once(self, path: str) -> None:
        try:
            # IMMEDIATE takes the write lock first: whoever comes second looks only after the first is done.
            await self._connection.execute("BEGIN IMMEDIATE")
            await self.prepare()
            await self._connection.commit()
        except sqlite3.Error as error:
            raise fault(error, path) from error


def fault(error: sqlite3.Error, what: str) -> ToolError:
    """What a failure of SQLite means to the caller: a busy file changed nothing, the rest is uncertain."""
    # The low byte is the primary code; the rest says which kind of busy it was.
    if getattr(error, "sqlite_errorcode", 0) & 0xFF in (sqlite3.SQLITE_BUSY, sqlite3.SQLITE_LOCKED):
        return NotDone(f"another process held the SQLite file for over {PATIENCE:g} s ({what})")
    return ToolError(f"SQLite failed ({what}): {error}")
