"""Changes in the user's databases become events.

A trigger writes each change into an inbox beside the table, in the user's own transaction: what was rolled back is not
there, what was committed stays until it is taken. A worker reads the inbox in its order, stores an event for each row
and removes the row. The row's id is the event's, so a row that is read twice, by whomever, is one event.
"""

from __future__ import annotations

import asyncio
import json
import logging
import math
import random
import re
import time
from abc import ABC, abstractmethod
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any
from urllib.parse import quote

from eventwright.queue.engine import Engine
from eventwright.queue.intake import CHANGES, EventConflict, EventRefused
from eventwright.runs.errors import EventwrightError, Overloaded, StoreUnavailable, storable
from eventwright.runs.event import LARGEST_INTEGER, Event

log = logging.getLogger(__name__)

#: The table that the triggers write to, and the channel on which PostgreSQL tells that they did.
INBOX = "eventwright_inbox"
#: Rows of one batch.
MOST = 100
#: Seconds that one batch may take before what was stored of it leaves the inbox.
LONGEST_BATCH = 5.0
#: Seconds after a batch that had to leave rows for later.
PAUSE = 2.0
#: Levels of lists and objects in a column, and characters of a subject, that an event carries.
DEEPEST, LONGEST_SUBJECT = 60, 500

_UNSTORABLE = re.compile("[\x00\ud800-\udfff]")


class BadDatabase(EventwrightError, ValueError):
    """An address names no database whose changes could start runs. It is not repeated: it may hold a password."""

    def __init__(self, name: str) -> None:
        self.name = name
        super().__init__(f"the database {name!r} needs an address that begins with postgresql:// or sqlite:///")


class InboxAway(EventwrightError, ConnectionError):
    """The user's database does not answer, or does not let us read its inbox. What is in there stays there."""

    def __init__(self, database: str, why: Exception) -> None:
        self.database = database
        super().__init__(f"the database {database!r} does not give its changes: {why}")


@dataclass(frozen=True, kw_only=True)
class Row:
    """A change, as it waits in an inbox. The last five are JSON texts; the time is one in SQLite."""

    position: int
    id: str
    changed_at: datetime | str
    source: str
    type: str
    operation: str
    key: str | None
    old: str | None
    new: str | None
    changed: str
    omitted: str


#: Stores events for rows, in their order. It may stop early; for each row that it came to, it says what is wrong with
#: it, None if nothing.
Judge = Callable[[Sequence[Row]], Awaitable[Sequence[str | None]]]


class Inbox(ABC):
    """The inbox of one database. Building it connects to nothing."""

    def __init__(self, database: str) -> None:
        self.database = database
        #: Set when there may be something to take, before anybody looks for it.
        self.news = asyncio.Event()

    @abstractmethod
    async def take(self, judge: Judge) -> bool:
        """Give the oldest rows to `judge`; take away those that are in order, put aside those that are not.

        Returns:
            Whether there may be more at once.

        Raises:
            InboxAway: what was judged may come again.
        """

    @abstractmethod
    async def close(self) -> None:
        """Let go of the database."""


def open_inbox(database: str, url: str) -> Inbox:
    """The inbox of the database of this name. Raises BadDatabase."""
    if url.startswith("sqlite"):
        from eventwright.queue.database_changes_sqlite import SqliteInbox

        return SqliteInbox(database, sqlite_path(database, url))
    from eventwright.queue.database_changes_postgres import PostgresInbox

    return PostgresInbox(database, postgres_address(database, url))


def sqlite_path(database: str, url: str) -> Path:
    """The file of `sqlite:///relative` or `sqlite:////absolute`. Raises BadDatabase."""
    scheme, _, rest = url.partition("://")
    path = rest.partition("?")[0].removeprefix("/")
    if scheme.partition("+")[0] != "sqlite" or not rest.startswith("/") or not path:
        raise BadDatabase(database)
    return Path(path)


def postgres_address(database: str, url: str) -> str:
    """The address as PostgreSQL's own tools have it, without the name of a driver. Raises BadDatabase."""
    scheme, _, rest = url.partition("://")
    if scheme.partition("+")[0] not in ("postgresql", "postgres") or not rest:
        raise BadDatabase(database)
    return f"postgresql://{rest}"


class Drain:
    """Empties one inbox until it is stopped. Any number of them is safe, in any number of processes.

    Args:
        engine: takes the events in.
        inbox: where the changes wait.
    """

    def __init__(self, engine: Engine, inbox: Inbox) -> None:
        self._engine = engine
        self._inbox = inbox
        self._complaint = ""
        self._pause: float | None = None

    async def run(self, stopping: asyncio.Event) -> None:
        """Take what comes, as soon as it is told of or else with the sweep, until `stopping` is set."""
        try:
            while not stopping.is_set():
                pause = await self.once(stopping)
                waits = [stopping.wait()] if pause is not None else [stopping.wait(), self._inbox.news.wait()]
                sweep = random.uniform(0.75, 1.0) * self._engine.times.sweep
                await _first_of(waits, sweep if pause is None else pause)
        finally:
            await self._inbox.close()

    async def come_by(self, stopping: asyncio.Event) -> None:
        """Empty the inbox as far as that goes now."""
        try:
            await self.once(stopping)
        finally:
            await self._inbox.close()

    async def once(self, stopping: asyncio.Event | None = None) -> float | None:
        """Empty the inbox; if that has to wait, for how many seconds."""
        try:
            more, self._pause = True, None
            while more and self._pause is None and not (stopping is not None and stopping.is_set()):
                self._inbox.news.clear()
                more = await self._inbox.take(lambda rows: self._store(rows, stopping))
            self._complaint = ""
        except InboxAway as error:
            if str(error) != self._complaint:  # once, and not with every try
                self._complaint = str(error)
                log.warning("%s; it is tried again", error)
            return PAUSE
        return self._pause

    async def _store(self, rows: Sequence[Row], stopping: asyncio.Event | None) -> list[str | None]:
        """Store an event for each row, one after the other; what is wrong with each row that it came to."""
        judged: list[str | None] = []
        latest = time.monotonic() + LONGEST_BATCH
        for row in rows:
            if time.monotonic() > latest or (stopping is not None and stopping.is_set()):
                break
            try:
                judged.append(await self._receive(row))
            except (Overloaded, StoreUnavailable) as obstacle:
                self._pause = getattr(obstacle, "retry_after", PAUSE)
                log.warning("changes of the database %r wait: %s", self._inbox.database, obstacle)
                break
        return judged

    async def _receive(self, row: Row) -> str | None:
        """Store the event that the row is. What is wrong with it, if it can never be one."""
        where = f"the change {row.id} of {row.source} in the database {self._inbox.database!r}"
        try:
            await self._engine.fire(event_of(self._inbox.database, row))
        except (Overloaded, StoreUnavailable):
            raise
        except EventConflict:
            # Another release has read this row, and told it in other words.
            log.info("%s is stored already, in other words", where)
        except EventRefused as error:
            log.error("%s is refused, and kept: %s", where, error)
        except Exception as error:
            # Whatever it is, it must not stand in the way of all that comes after it.
            log.exception("%s is no event; it is put aside in the inbox", where)
            return storable(f"{type(error).__name__}: {error}")
        return None


async def _first_of(waits: Sequence[Awaitable[Any]], seconds: float) -> None:
    tasks = [asyncio.ensure_future(wait) for wait in waits]
    try:
        await asyncio.wait(tasks, timeout=seconds, return_when=asyncio.FIRST_COMPLETED)
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


# -- a row as an event -----------------------------------------------------------------------------------------------


def event_of(database: str, row: Row) -> Event:
    """The event that a change is; the same one whenever the row is read. Raises ValueError."""
    omitted = _loaded(row.omitted)
    old, new = (_columns(text, omitted) for text in (row.old, row.new))
    key = _columns(row.key, []) or None
    data = {
        "operation": row.operation,
        "key": key,
        "old": old,
        "new": new,
        "changed": _loaded(row.changed),
        "omitted": omitted,
    }
    return Event(
        id=row.id,
        source=f"{CHANGES}{database}/{row.source}",
        type=row.type,
        subject=_subject(key),
        time=_moment(row.changed_at),
        data=data,
    )


def _moment(at: datetime | str) -> datetime:
    return at if isinstance(at, datetime) else datetime.fromisoformat(at).astimezone(UTC)


def _subject(key: dict[str, Any] | None) -> str | None:
    """The primary key as text; several columns with commas between them. None where there is none."""
    values = list((key or {}).values())
    if not values or None in values:
        return None
    text = str(values[0]) if len(values) == 1 else ",".join(quote(str(value), safe="") for value in values)
    return text if 0 < len(text) <= LONGEST_SUBJECT else None


class _TooDeep(ValueError):
    pass


def _columns(text: str | None, omitted: list[str]) -> dict[str, Any] | None:
    """The columns of a row, without those that are nested too deeply, whose names go into `omitted`."""
    if text is None:
        return None
    columns = {}
    for name, value in _loaded(text).items():
        try:
            columns[name] = _plain(value, DEEPEST)
        except _TooDeep:
            omitted += [name] if name not in omitted else []
    return columns


def _loaded(text: str) -> Any:
    try:
        return json.loads(text, strict=False, parse_int=_whole, parse_float=_real)
    except RecursionError:
        raise ValueError("a column is nested too deeply to be read") from None


def _plain(value: Any, depth: int) -> Any:
    """The value as every database and every reader of JSON takes it."""
    if isinstance(value, str):
        return _UNSTORABLE.sub("\ufffd", value)
    if isinstance(value, dict | list) and depth == 0:
        raise _TooDeep
    if isinstance(value, dict):
        return {_UNSTORABLE.sub("\ufffd", name): _plain(inner, depth - 1) for name, inner in value.items()}
    return [_plain(inner, depth - 1) for inner in value] if isinstance(value, list) else value


def _whole(digits: str) -> int | str:
    """The number; its digits, where not every reader of JSON would keep them."""
    if len(digits) > len(str(-LARGEST_INTEGER)):
        return digits
    number = int(digits)
    return number if abs(number) <= LARGEST_INTEGER else digits


def _real(text: str) -> float | str:
    number = float(text)
    return number if math.isfinite(number) and abs(number) <= LARGEST_INTEGER else text
