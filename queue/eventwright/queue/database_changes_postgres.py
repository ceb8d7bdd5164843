"""The inbox of a PostgreSQL database: read when its NOTIFY is heard, when we connect, and now and then.

The connection is used for nothing else. LISTEN belongs to a session: an address that leads through a pool of
transactions hears nothing, and what waits is found by the sweep.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import asyncpg

from eventwright.queue.database_changes import INBOX, MOST, Inbox, InboxAway, Judge, Row

#: Seconds after which a server that does not answer counts as away.
CONNECT_SECONDS, STATEMENT_SECONDS = 5.0, 10.0
#: Seconds after which the server takes the inbox from a reader that is frozen; longer than one takes for a batch.
LONGEST_SILENCE = 30

#: What the driver raises when the server is away, or does not do what was asked.
AWAY = (asyncpg.PostgresError, asyncpg.InterfaceError, asyncpg.InternalClientError, OSError, TimeoutError)

_ANY = "SELECT EXISTS (SELECT FROM eventwright_inbox WHERE problem IS NULL)"
# Held by a transaction, so nobody can keep it for longer than the server lets a transaction rest.
_LOCK = """
    SELECT pg_try_advisory_xact_lock(hashtextextended('eventwright_inbox', 'eventwright_inbox'::regclass::oid::bigint))
"""
_OLDEST = """
    SELECT position, id::text, changed_at, source, type, operation, key::text, old::text, new::text,
           changed::text, omitted::text
    FROM eventwright_inbox WHERE problem IS NULL ORDER BY position LIMIT $1
"""
_TAKE = "DELETE FROM eventwright_inbox WHERE position = ANY ($1::bigint[])"
_PUT_ASIDE = "UPDATE eventwright_inbox SET problem = $2 WHERE position = $1"


class PostgresInbox(Inbox):
    """See `Inbox`.

    Args:
        database: its name in the settings.
        address: `postgresql://…`
    """

    def __init__(self, database: str, address: str) -> None:
        super().__init__(database)
        self._address = address
        self._open: Any = None

    async def take(self, judge: Judge) -> bool:
        with self._away_as_ours():
            connection = await self._connection()
            try:
                if not await connection.fetchval(_ANY):
                    return False
                async with connection.transaction():
                    return await self._take(connection, judge)
            except asyncpg.UndefinedTableError:
                return False  # no trigger is installed yet

    async def _take(self, connection: Any, judge: Judge) -> bool:
        await connection.execute(f"SET LOCAL idle_in_transaction_session_timeout = '{LONGEST_SILENCE}s'")
        if not await connection.fetchval(_LOCK):
            return False  # another worker is at it, hears what we hear, and keeps the order
        rows = [Row(**dict(found)) for found in await connection.fetch(_OLDEST, MOST)]
        judged = await judge(rows)
        problems = [(row.position, problem) for row, problem in zip(rows, judged, strict=False) if problem is not None]
        taken = [row.position for row, problem in zip(rows, judged, strict=False) if problem is None]
        if problems:
            await connection.executemany(_PUT_ASIDE, problems)
        await connection.execute(_TAKE, taken)
        return bool(judged) and (len(rows) == MOST or len(judged) < len(rows))

    async def close(self) -> None:
        if self._open is not None:
            connection, self._open = self._open, None
            try:
                await connection.close(timeout=CONNECT_SECONDS)
            except AWAY:
                connection.terminate()

    async def _connection(self) -> Any:
        """The one connection, which listens; a new one, if it was cut."""
        if self._open is None or self._open.is_closed():
            self._open = await asyncpg.connect(
                self._address,
                timeout=CONNECT_SECONDS,
                command_timeout=STATEMENT_SECONDS,
                # A pool in front of the server knows no prepared statements.
                statement_cache_size=0,
                server_settings={"application_name": "eventwright"},
            )
            self._open.add_termination_listener(self._heard)
            await self._open.add_listener(INBOX, self._heard)
        return self._open

    def _heard(self, *_of: object) -> None:
        self.news.set()

    @contextmanager
    def _away_as_ours(self) -> Iterator[None]:
        try:
            yield
        except AWAY as error:
            if self._open is not None:
                # Whatever state it is in: the next one is a new one.
                self._open.terminate()
                self._open = None
            raise InboxAway(self.database, error) from error
