"""What an e-mail says, from its bytes: whatever a stranger sent, this gives an answer, and the same bytes the same one.

Nothing that is read here is trusted: everything is bounded, and free of what no database or terminal should see.
"""

from __future__ import annotations

import codecs
import itertools
import re
from collections.abc import Callable, Collection, Iterator
from dataclasses import dataclass, field
from datetime import UTC, datetime
from email import message_from_bytes
from email.errors import MessageError
from email.message import Message
from email.policy import Compat32
from email.policy import default as modern
from itertools import islice
from typing import Any, TypeVar

from eventwright.tools.mail import ADDRESS

#: Characters of a text that are kept; what is longer is cut, and says so.
LONGEST_TEXT = 100_000
#: Characters of HTML that are read, of all parts together: to lay a table out takes a time that grows with the square.
LONGEST_HTML = 300_000
#: Characters of one header that are looked at; Python takes a time for its parameters that grows with the square.
LONGEST_HEADER = 4_000
#: Parts that may hold others, inside one another or not: each line is looked at for the end of every one.
MOST_MULTIPARTS = 30
#: What is kept of lists that a sender can make as long as he likes.
MOST_ATTACHMENTS, MOST_REFERENCES = 50, 50
#: Levels of parts inside of parts.
DEEPEST = 20
#: A message that came so many servers long goes round in circles.
MOST_HOPS = 50
#: Names, before the @, of senders that are programs (RFC 3834, RFC 5230).
ROBOTS = re.compile(r"(?:mailer-daemon|postmaster|no-?reply|do-?not-?reply|owner-.+|.+-(?:request|bounces?))", re.I)
MESSAGE_ID = re.compile(r"<[^<>\s]{1,250}>")
#: They are text encodings to Python, and take a time that grows with the square of their input.
_SLOW_ENCODINGS = frozenset({"idna", "punycode"})
_NO_TEXT = re.compile(r"[\x00-\x08\x0b\x0c\x0e-\x1f\x7f-\x9f]")

Value = TypeVar("Value")


@dataclass(frozen=True)
class Attachment:
    """What came along, without its content."""

    name: str
    type: str
    size: int


@dataclass(frozen=True, kw_only=True)
class Letter:
    """An e-mail as a workflow reads it."""

    message_id: str | None
    #: The address in From, if that is one plain address. Anybody can write any.
    sender: str | None
    subject: str
    text: str
    #: Message ids, in their angle brackets.
    in_reply_to: str | None
    references: list[str] = field(default_factory=list)
    #: When its sender says that it was written.
    date: datetime | None = None
    attachments: list[Attachment] = field(default_factory=list)
    #: Why nobody sits at the other end; None where a person may.
    automatic: str | None = None
    #: Whether there was more than is kept.
    truncated: bool = False


def read_mail(raw: bytes, *, own: Collection[str] = (), whole: bool = True) -> Letter:
    """Read a message.

    Args:
        raw: as the server has it.
        own: addresses that we send from: what comes from them is our own.
        whole: whether `raw` is all of it.
    """
    message = _parsed(raw)
    heads = _Heads(message)
    body = _Body()
    attachments = list(islice(_leaves(message, body), MOST_ATTACHMENTS + 1))
    text = clean_text("\n\n".join(filter(None, (text.strip() for text in body.found))))
    much = body.cut or len(attachments) > MOST_ATTACHMENTS or len(text) > LONGEST_TEXT
    return Letter(
        message_id=heads.message_id("message-id"),
        sender=heads.sender(),
        subject=" ".join(clean_text(heads.text("subject")).split())[:500],
        text=text[:LONGEST_TEXT],
        in_reply_to=heads.message_id("in-reply-to"),
        references=_ends(MESSAGE_ID.findall(heads.raw("references"))),
        date=heads.date(),
        attachments=attachments[:MOST_ATTACHMENTS],
        automatic=_automatic(message, heads, own),
        truncated=much or not whole,
    )


def clean_text(text: str) -> str:
    """The text with `\\n` at the end of each line, and without control characters and halves of characters."""
    whole = text.encode("utf-8", "replace").decode().replace("\r\n", "\n").replace("\r", "\n")
    return _NO_TEXT.sub("", whole)


# -- heads -------------------------------------------------------------------------------------------------------------


class _Heads:
    """The headers, read one by one and as far as they can be: a bad one spoils no other."""

    def __init__(self, message: Message) -> None:
        self._items = [(name.lower(), str(value)[:LONGEST_HEADER]) for name, value in message.raw_items()]

    def all(self, name: str) -> list[str]:
        """The values of all headers of this name, as they were sent."""
        return [clean_text(_unescaped(value)) for other, value in self._items if other == name]

    def raw(self, name: str) -> str:
        """The first header of this name, as it was sent; empty if there is none."""
        return next(iter(self.all(name)), "")

    def _read(self, name: str, of: Callable[[Any], Value], otherwise: Value) -> Value:
        """What `of` makes of the parsed header; `otherwise` if it is not there or cannot be parsed."""
        value = next((value for other, value in self._items if other == name), None)
        return otherwise if value is None else _heading(name, value, of, otherwise)

    def text(self, name: str) -> str:
        return self._read(name, str, self.raw(name))

    def message_id(self, name: str) -> str | None:
        return next(iter(MESSAGE_ID.findall(self.raw(name))), None)

    def sender(self) -> str | None:
        """The one plain address in From."""
        nobody: list[str] = []
        addresses = self._read("from", lambda head: [str(address.addr_spec) for address in head.addresses], nobody)
        if len(addresses) != 1 or len(addresses[0]) > 254 or not ADDRESS.fullmatch(addresses[0]):
            return None
        return addresses[0]

    def date(self) -> datetime | None:
        """In UTC; a time without a zone is none."""
        at: datetime | None = self._read("date", lambda head: head.datetime, None)
        if at is None or at.tzinfo is None:
            return None
        try:
            return at.astimezone(UTC)
        except (OverflowError, ValueError):
            return None


def _heading(name: str, value: str, of: Callable[[Any], Value], otherwise: Value) -> Value:
    try:
        return of(modern.header_factory(name, " ".join(_unescaped(value).splitlines())))
    except (MessageError, ValueError, LookupError, AttributeError, TypeError, AssertionError, RecursionError):
        # Python's parser of headers fails in many ways on those that are far enough from the standard.
        return otherwise


def _unescaped(value: str) -> str:
    """Bytes beyond ASCII, which the parser keeps as halves of characters, as the text that they most likely are."""
    raw = value.encode("utf-8", "surrogateescape")
    return _decoded(raw, None)


def _automatic(message: Message, heads: _Heads, own: Collection[str]) -> str | None:
    """Why this came from a program (RFC 3834 section 2, RFC 5230 section 4.6); None where a person may have sent it."""
    sender = heads.sender()
    said = heads.raw("auto-submitted").partition(";")[0].strip().lower()
    if said not in ("", "no"):
        return f"Auto-Submitted: {said[:50]}"
    precedence = heads.raw("precedence").strip().lower()
    if precedence in {"bulk", "junk", "list", "auto_reply"}:
        return f"Precedence: {precedence}"
    for name in ("list-id", "list-unsubscribe", "x-autoreply", "x-autorespond", "x-auto-reply"):
        if heads.all(name):
            return f"it has a header {name.title()}"
    suppressed = {word.strip().lower() for word in heads.raw("x-auto-response-suppress").split(",")}
    if suppressed & {"all", "oof", "autoreply"}:
        return "X-Auto-Response-Suppress"
    if any(path.strip() == "<>" for path in heads.all("return-path")):
        return "it has no address for answers"
    if message.get_content_type() == "multipart/report":
        return "it is a report"
    if sender is not None and sender.casefold() in {address.casefold() for address in own}:
        return "it comes from ourselves"
    if sender is not None and ROBOTS.fullmatch(sender.partition("@")[0]):
        return "its sender is no person"
    return "it has passed too many servers" if len(heads.all("received")) > MOST_HOPS else None


def _ends(items: list[str]) -> list[str]:
    """The first, which began the conversation, and the newest."""
    return items if len(items) <= MOST_REFERENCES else [items[0], *items[1 - MOST_REFERENCES :]]


# -- bodies ------------------------------------------------------------------------------------------------------------


@dataclass
class _Body:
    found: list[str] = field(default_factory=list)
    cut: bool = False
    #: Characters of HTML that have been read.
    html: int = 0


class _Bounded(Compat32):
    """The older policy, which parses no header before it is asked for and never fails on one, within bounds."""

    #: Counts the parts that may hold others.
    multiparts: Iterator[int]

    def __init__(self) -> None:
        super().__init__()
        object.__setattr__(self, "multiparts", itertools.count())  # a policy lets nobody change it

    def header_source_parse(self, sourcelines: list[str]) -> tuple[str, str]:
        name, value = super().header_source_parse(sourcelines)
        holds_others = name.lower() == "content-type" and value.lstrip().lower().startswith("multipart/")
        if holds_others and next(self.multiparts) >= MOST_MULTIPARTS:
            return name, "application/octet-stream"
        return name, value[:LONGEST_HEADER]


def _parsed(raw: bytes) -> Message:
    try:
        return message_from_bytes(raw, policy=_Bounded())
    except RecursionError:
        # Parts inside of parts inside of parts: what is left are the headers, and a text that nobody wrote to be read.
        head, _, body = raw.replace(b"\r\n", b"\n").partition(b"\n\n")
        lines = [
            line for line in head.split(b"\n") if not line.lower().startswith((b"content-type:", b"mime-version:"))
        ]
        return message_from_bytes(b"\n".join(lines) + b"\n\n" + body[:LONGEST_TEXT], policy=_Bounded())


def _leaves(message: Message, body: _Body, depth: int = 0) -> Iterator[Attachment]:
    """The attachments in a part; the texts in it go to `body`."""
    if depth > DEEPEST:
        body.cut = True
        return
    content_type = message.get_content_type()
    if message.is_multipart() and content_type != "message/rfc822":
        parts = [part for part in message.get_payload() if isinstance(part, Message)]
        if content_type == "multipart/alternative":
            yield from _best(parts, body, depth)
            return
        for part in parts:
            yield from _leaves(part, body, depth + 1)
        return
    disposition = message.get_content_disposition()
    # Several parts that turn out to be none are what was written there.
    textual = content_type in ("text/plain", "text/html") or message.get_content_maintype() == "multipart"
    if textual and disposition != "attachment":
        body.found.append(_text_of(message, body))
    else:
        yield _attachment(message, content_type)


def _best(parts: list[Message], body: _Body, depth: int) -> Iterator[Attachment]:
    """Of several forms of one content the first with a text in it: the plain one, unless it is empty."""
    for part in parts:
        tried = _Body(cut=body.cut, html=body.html)
        attachments = list(_leaves(part, tried, depth + 1))
        body.html = tried.html
        if any(text.strip() for text in tried.found):
            body.found += tried.found
            body.cut = tried.cut
            yield from attachments
            return


def _text_of(part: Message, body: _Body) -> str:
    content = part.get_payload(decode=True)
    text = _decoded(content if isinstance(content, bytes) else b"", _charset(part))
    if part.get_content_type() != "text/html":
        return text
    room = LONGEST_HTML - body.html
    body.cut = body.cut or len(text) > room
    body.html += min(len(text), room)
    return _visible(text[:room])


def _visible(html: str) -> str:
    """The text of a page as a reader would see it."""
    # A tenth of a second, which is spared to processes that read no mail.
    from inscriptis import get_text
    from inscriptis.model.config import ParserConfig
    from lxml.etree import LxmlError

    # lxml takes no encoding declaration in a text, and no NUL.
    source = clean_text(re.sub(r"^\s*<\?xml[^>]*\?>", "", html))
    if not source.strip():
        return ""
    try:
        return str(get_text(source, ParserConfig()))
    except (LxmlError, ValueError, RecursionError, LookupError, AttributeError, TypeError):
        return re.sub(r"<[^>]*>", " ", source)


def _charset(part: Message) -> str | None:
    try:
        charset = part.get_content_charset()
    except (ValueError, LookupError, AttributeError):
        return None
    try:
        # By its own name: Python finds it under others as well, with a hyphen behind it say.
        return None if charset is None or codecs.lookup(charset).name in _SLOW_ENCODINGS else charset
    except (ValueError, LookupError):
        return None


def _decoded(content: bytes, charset: str | None) -> str:
    """The text, in the encoding that it says it has, or in the one that it most likely has."""
    for encoding in filter(None, (charset, "utf-8", "cp1252")):
        try:
            return content.decode(encoding)
        except (ValueError, LookupError):
            continue
    return content.decode("latin-1")


def _attachment(part: Message, content_type: str) -> Attachment:
    try:
        name = part.get_filename() or ""
    except (MessageError, ValueError, LookupError, AttributeError, TypeError):
        name = ""
    content = part.get_payload(decode=True)
    size = len(content) if isinstance(content, bytes) else sum(map(len, map(bytes, _nested(part))))
    # Not as the standard has it, but as mail programs do: encoded like a subject.
    name = _heading("subject", str(name)[:LONGEST_HEADER], str, str(name))
    return Attachment(name=" ".join(clean_text(name).split())[:255], type=clean_text(content_type)[:255], size=size)


def _nested(part: Message) -> list[Message]:
    payload = part.get_payload()
    return [inner for inner in payload if isinstance(inner, Message)] if isinstance(payload, list) else []
