"""Mail in: the messages of one IMAP folder that nobody has dealt with yet, each until it is marked.

The mark is all that is written: `$Eventwright`, a flag of ours that mail programs do not show; or, where the URL says
so, the flag that says a message was read, or another folder.
"""

from __future__ import annotations

import asyncio
import ssl
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field
from datetime import UTC, date, datetime
from enum import StrEnum
from typing import Any, TypeVar
from urllib.parse import parse_qs, quote, unquote, urlsplit

from imapclient import IMAPClient, SocketTimeout
from imapclient.exceptions import IMAPClientError, LoginError

from eventwright.runs.errors import EventwrightError
from eventwright.tools.mail import ADDRESS

#: The flag of a message that was dealt with.
KEYWORD = b"$Eventwright"
#: Bytes of one message that are fetched.
LARGEST = 8 * 1024 * 1024
#: Seconds for a connection, and for each answer.
PATIENCE = SocketTimeout(connect=20, read=60)
#: Seconds between two looks whether an idle server has said something: a shutdown waits that long.
LOOK = 0.5
#: Seconds for the goodbye, which changes nothing.
GOODBYE = 2.0
_SCHEMES = ("imap", "imaps", "imap+starttls")

Value = TypeVar("Value")


class BadImapUrl(EventwrightError, ValueError):
    """The address of the mailbox cannot be used. The password in it is never repeated."""

    def __init__(self, reason: str) -> None:
        self.reason = reason
        super().__init__(
            f"{reason}; write imaps:// or imap+starttls:// and after it user:password@host[:port][/FOLDER]"
            "[?mark=keyword|seen][&move=FOLDER][&since=YYYY-MM-DD]"
        )


class MailboxAway(EventwrightError, ConnectionError):
    """The mailbox cannot be read for now; nothing is lost, its messages stay where they are."""


class Mark(StrEnum):
    """How a message that was dealt with is known."""

    KEYWORD = "keyword"
    SEEN = "seen"
    MOVE = "move"


@dataclass(frozen=True, kw_only=True)
class Address:
    """A folder of a mail server and how to get there, as its URL says."""

    host: str
    port: int | None
    tls: bool
    starttls: bool
    username: str
    password: str = field(repr=False)
    folder: str = "INBOX"
    mark: Mark = Mark.KEYWORD
    #: Where messages go that were dealt with.
    move: str | None = None
    #: Messages that the server had before this day are left alone.
    since: date | None = None

    @classmethod
    def from_url(cls, url: str) -> Address:
        """Read `imaps://` (TLS at once), `imap+starttls://` (TLS or nothing) or `imap://` (no encryption).

        Raises:
            BadImapUrl: another scheme, no host, nobody to log in as, an option that is none.
        """
        try:
            parts = urlsplit(url)
            port = parts.port
        except ValueError:
            # Its words may hold the password: what stands before a `/` or `#` in it is taken for a port.
            raise BadImapUrl(
                "the mailbox's URL cannot be read; the port is a number, and in a password / is written %2F, # %23, "
                "? %3F, @ %40, [ %5B"
            ) from None
        if parts.scheme not in _SCHEMES:
            raise BadImapUrl(f"{parts.scheme!r} is no scheme for a mailbox")
        if not parts.hostname:
            raise BadImapUrl("the mail server's host is missing")
        if not parts.username or not parts.password:
            raise BadImapUrl("the mailbox's URL names no user and password")
        options = _options(parts.query)
        return cls(
            host=parts.hostname,
            port=port,
            tls=parts.scheme == "imaps",
            starttls=parts.scheme == "imap+starttls",
            username=unquote(parts.username),
            password=unquote(parts.password),
            folder=unquote(parts.path).strip("/") or "INBOX",
            mark=_mark(options),
            move=options.get("move"),
            since=_day(options.get("since")),
        )

    @property
    def name(self) -> str:
        """The mailbox as events name it: `support@example.org`, and the folder if it is another than INBOX."""
        user = self.username if ADDRESS.fullmatch(self.username) else f"{self.username}@{self.host}"
        folder = "" if self.folder.upper() == "INBOX" else f"/{self.folder}"
        return quote(user + folder, safe="/@")

    @property
    def own(self) -> str | None:
        """The address that is read here, if the user is one."""
        return self.username if ADDRESS.fullmatch(self.username) else None


def _options(query: str) -> dict[str, str]:
    options = {name: values[-1] for name, values in parse_qs(query, keep_blank_values=True).items()}
    if unknown := sorted(options.keys() - {"mark", "move", "since"}):
        raise BadImapUrl(f"{unknown[0]!r} is no option of a mailbox's URL")
    if options.get("move") == "":
        raise BadImapUrl("move names no folder")
    return options


def _mark(options: dict[str, str]) -> Mark:
    named = options.get("mark")
    if "move" in options:
        if named is not None:
            raise BadImapUrl("a message is either marked or moved, not both")
        return Mark.MOVE
    if named not in (None, "keyword", "seen"):
        raise BadImapUrl(f"mark={named!r} is neither keyword nor seen")
    return Mark(named or Mark.KEYWORD)


def _day(written: str | None) -> date | None:
    if written is None:
        return None
    try:
        return date.fromisoformat(written)
    except ValueError as error:
        raise BadImapUrl(f"since={written!r} is no day") from error


@dataclass(frozen=True)
class Fetched:
    """One message as the server has it."""

    #: `UIDVALIDITY.UID`: names the message for as long as the folder is there.
    name: str
    raw: bytes
    #: Whether `raw` is all of it.
    whole: bool
    #: When the server got it.
    received_at: datetime | None


class Mailbox:
    """One folder, connected. Its conversation is held in a thread of its own."""

    def __init__(self, address: Address, client: IMAPClient, thread: ThreadPoolExecutor) -> None:
        self._address = address
        self._client = client
        self._thread = thread
        self._validity = 0
        self._idles = self._idling = False
        self._marked: set[int] = set()

    @classmethod
    @asynccontextmanager
    async def open(cls, address: Address, *, patience: SocketTimeout = PATIENCE) -> AsyncIterator[Mailbox]:
        """Connect, log in, choose the folder.

        Args:
            address: whose.
            patience: seconds for a connection, and for each answer.

        Raises:
            MailboxAway: no connection, no login, no such folder, or one in which messages cannot be marked.
        """
        thread = ThreadPoolExecutor(max_workers=1, thread_name_prefix="mailbox")
        connecting = thread.submit(_connected, address, patience)
        try:
            box = cls(address, await _told(asyncio.wrap_future(connecting), address), thread)
            try:
                await box._do(box._choose)
                yield box
            finally:
                await box._close()
        except asyncio.CancelledError:
            connecting.add_done_callback(_cut)
            raise
        finally:
            thread.shutdown(wait=False)

    async def new(self) -> list[int]:
        """The UIDs of messages that bear no mark, the oldest first. Raises MailboxAway."""
        return await self._do(self._new)

    async def fetch(self, uid: int) -> Fetched | None:
        """A message; None if somebody has taken it away. Raises MailboxAway."""
        return await self._do(lambda: self._fetch(uid))

    async def mark(self, uid: int) -> None:
        """Note on the server that a message was dealt with. Raises MailboxAway."""
        await self._do(lambda: self._mark(uid))

    async def wait(self, stopping: asyncio.Event, seconds: float) -> None:
        """Until there may be news, so long at most; a server that can (IDLE) says so at once. Raises MailboxAway."""
        if not self._idles:
            with suppress(TimeoutError):
                await asyncio.wait_for(stopping.wait(), seconds)
            return
        self._idling = True
        await self._do(self._client.idle)
        deadline = time.monotonic() + seconds
        while time.monotonic() < deadline and not stopping.is_set() and not await self._do(self._heard):
            pass
        await self._do(self._client.idle_done)
        self._idling = False

    # In the thread

    def _choose(self) -> None:
        chosen = self._client.select_folder(self._address.folder)
        self._validity = int(chosen.get(b"UIDVALIDITY", 0))
        self._idles = bool(self._client.has_capability("IDLE"))
        if b"READ-ONLY" in chosen:
            raise MailboxAway(f"the folder {self._address.folder!r} can only be read: messages cannot be marked in it")
        kept = chosen.get(b"PERMANENTFLAGS", ())
        if self._address.mark is Mark.KEYWORD and not {b"\\*", KEYWORD} & set(kept):
            raise MailboxAway(
                f"the mail server at {self._address.host} keeps no flags of others; "
                "add ?move=FOLDER to the mailbox's URL, or ?mark=seen if nobody else reads it"
            )

    def _new(self) -> list[int]:
        unmarked: dict[Mark, list[Any]] = {
            Mark.KEYWORD: ["UNKEYWORD", KEYWORD],
            Mark.SEEN: ["UNSEEN"],
            Mark.MOVE: ["ALL"],
        }
        criteria = [*unmarked[self._address.mark], "UNDELETED"]
        if self._address.since is not None:
            criteria += ["SINCE", self._address.since]
        found = sorted(self._client.search(criteria))
        again, self._marked = self._marked & set(found), set()
        if again:
            raise MailboxAway(f"the mail server does not keep the mark on messages, as on {min(again)}")
        return found

    def _fetch(self, uid: int) -> Fetched | None:
        answer = self._client.fetch([uid], [b"RFC822.SIZE", b"INTERNALDATE", f"BODY.PEEK[]<0.{LARGEST}>"]).get(uid)
        raw = _body(answer or {})
        if answer is None or raw is None:
            return None
        received = answer.get(b"INTERNALDATE")
        return Fetched(
            name=f"{self._validity}.{uid}",
            raw=raw,
            # Some servers are wrong about the size by an end of a line or two.
            whole=len(raw) < LARGEST,
            received_at=received.astimezone(UTC) if isinstance(received, datetime) else None,
        )

    def _mark(self, uid: int) -> None:
        match self._address.mark:
            case Mark.MOVE:
                self._move(uid, str(self._address.move))
            case Mark.KEYWORD:
                self._client.add_flags([uid], [KEYWORD], silent=True)
            case Mark.SEEN:
                self._client.add_flags([uid], [b"\\Seen"], silent=True)
        self._marked.add(uid)

    def _move(self, uid: int, folder: str) -> None:
        if not self._client.has_capability("MOVE"):
            self._client.copy([uid], folder)
            # Without UIDPLUS it cannot be removed alone; it is not looked at again.
            self._client.delete_messages([uid], silent=True)
            if self._client.has_capability("UIDPLUS"):
                self._client.uid_expunge([uid])
            return
        self._client.move([uid], folder)

    def _heard(self) -> bool:
        """Whether the server has said anything within a moment; one that has gone says nothing, at once."""
        asked = time.monotonic()
        return bool(self._client.idle_check(timeout=LOOK)) or time.monotonic() - asked < LOOK / 2

    # Around it

    async def _do(self, work: Callable[[], Value]) -> Value:
        return await _told(asyncio.wrap_future(self._thread.submit(work)), self._address)

    async def _close(self) -> None:
        """Say goodbye, if nothing is under way; then cut the line, whatever is."""
        if not self._idling:
            with suppress(MailboxAway, TimeoutError):
                await asyncio.wait_for(self._do(self._client.logout), GOODBYE)
        _shut(self._client)


def _connected(address: Address, patience: SocketTimeout) -> IMAPClient:
    context = ssl.create_default_context()
    client = IMAPClient(
        address.host,
        address.port,
        ssl=address.tls,
        ssl_context=context if address.tls else None,
        timeout=patience,
    )
    # Times as the server has them, with their zone.
    client.normalise_times = False
    try:
        if address.starttls:
            client.starttls(context)
        client.login(address.username, address.password)
    except BaseException:
        _shut(client)
        raise
    return client


async def _told(answer: Awaitable[Value], address: Address) -> Value:
    """The answer, or what is wrong with the mailbox: whatever a server says, it can do no more than be away."""
    try:
        return await answer
    except EventwrightError:
        raise
    except TimeoutError:
        raise MailboxAway(f"the mail server at {address.host} does not answer") from None
    except LoginError as error:
        why = _without_password(error, address)
        raise MailboxAway(f"the mail server at {address.host} does not let {address.username} in: {why}") from None
    except (IMAPClientError, OSError, ValueError, LookupError, TypeError, AttributeError, AssertionError) as error:
        # The library fails in as many ways as a server can be wrong. Its errors may hold what was sent.
        why = _without_password(error, address)
        raise MailboxAway(f"the mailbox at {address.host} cannot be read: {type(error).__name__}: {why}") from None


def _without_password(error: Exception, address: Address) -> str:
    return str(error).replace(address.password, "***")[:500]


def _cut(connecting: Future[IMAPClient]) -> None:
    """Nobody waits for this connection any more."""
    if not connecting.cancelled() and connecting.exception() is None:
        _shut(connecting.result())


def _shut(client: IMAPClient) -> None:
    with suppress(OSError, IMAPClientError):
        client.shutdown()


def _body(answer: Mapping[bytes, Any]) -> bytes | None:
    """The content in an answer, under whatever name the server gives it back: `BODY[]<0>`."""
    return next((value for name, value in answer.items() if name.upper().startswith(b"BODY[]")), None)
