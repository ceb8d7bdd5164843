"""Mail out: one message to one person, over SMTP.

SMTP has no idempotency key, so `send` is a plain write and its faults are told apart with care. Up to the
moment in which the message itself leaves, a fault means that nothing was sent. After it, only the server's
answer tells; if the answer is lost, nobody knows, and `send` says so.
"""

from __future__ import annotations

import hashlib
import re
import unicodedata
from contextlib import suppress
from dataclasses import dataclass, field
from email.message import EmailMessage
from email.policy import SMTP as SMTP_POLICY
from email.utils import formatdate
from typing import Annotated
from urllib.parse import parse_qs, unquote, urlsplit

import aiosmtplib
from pydantic import BaseModel, ConfigDict, Field

from eventwright.runs.errors import EventwrightError
from eventwright.tools.contract import Call, NotDone, Permanent, ResourceMissing, Role, ToolError, tool
from eventwright.tools.providers import Providers

#: The plain form of RFC 5321, section 4.1.2. Quotes, comments, lists and angle brackets have no place in it.
ADDRESS = re.compile(
    r"(?P<local>[\w!#$%&'*+/=?^`{|}~-]+(?:\.[\w!#$%&'*+/=?^`{|}~-]+)*)"
    r"@(?P<domain>[a-z0-9](?:[a-z0-9-]*[a-z0-9])?(?:\.[a-z0-9](?:[a-z0-9-]*[a-z0-9])?)*)",
    re.ASCII | re.IGNORECASE,
)
#: The Message-ID of a letter that asks for something: its own name, and the conversation that it belongs to.
CONVERSATION = re.compile(r"<[0-9a-f]{32}\.(?P<conversation>[a-z]{32})\.asks@[^<>@\s]+>")
#: Control characters, line and paragraph separators, surrogates: what could end a header or not be encoded.
UNPRINTABLE = frozenset({"Cc", "Zl", "Zp", "Cs"})
#: Seconds for the goodbye, which can no longer change anything.
GOODBYE = 2.0


class BadSmtpUrl(EventwrightError, ValueError):
    """The address of the mail server cannot be used. The password in it is never repeated."""

    def __init__(self, reason: str) -> None:
        self.reason = reason
        super().__init__(
            f"{reason}; write smtp://, smtps:// or smtp+starttls:// and after it "
            "[user:password@]host[:port][?from=address]"
        )


class Sent(BaseModel):
    """A message that a mail server has taken over."""

    model_config = ConfigDict(frozen=True)

    to: str
    subject: str
    #: Made from the idempotency key: the same call has the same one, also when it is tried again.
    message_id: str
    #: What the server said when it took the message, often its own number for it.
    answer: str


@dataclass(frozen=True, kw_only=True)
class Server:
    """A mail server and how to talk to it, as its URL says."""

    host: str
    port: int | None
    tls: bool
    starttls: bool
    username: str | None = None
    password: str | None = field(default=None, repr=False)
    sender: str | None = None

    @classmethod
    def from_url(cls, url: str) -> Server:
        """Read `smtp://` (no encryption), `smtps://` (TLS at once) or `smtp+starttls://` (TLS or no mail).

        Raises:
            BadSmtpUrl: another scheme, no host, a port that is none.
        """
        try:
            parts = urlsplit(url)
            port = parts.port
        except ValueError:
            # Its words may hold the password: what stands before a `/` or `#` in it is taken for a port.
            raise BadSmtpUrl(
                "the mail server's URL cannot be read; the port is a number, and in a password / is written %2F, "
                "# %23, ? %3F, @ %40, [ %5B"
            ) from None
        if parts.scheme not in ("smtp", "smtps", "smtp+starttls"):
            raise BadSmtpUrl(f"{parts.scheme!r} is no scheme for mail")
        if not parts.hostname:
            raise BadSmtpUrl("the mail server's host is missing")
        return cls(
            host=parts.hostname,
            port=port,
            tls=parts.scheme == "smtps",
            starttls=parts.scheme == "smtp+starttls",
            username=unquote(parts.username) if parts.username else None,
            password=unquote(parts.password) if parts.password else None,
            sender=parse_qs(parts.query).get("from", [None])[0],
        )


class MailServerAway(NotDone):
    """No mail server answers, or it breaks off before the message has left; nothing was sent."""


class NoMailServer(Permanent):
    """No mail server is set up, so nothing was sent."""


class Mailer:
    """Sends mail through one server. Holds no connection between messages.

    The sender is `sender`, else the URL's `?from=`, else the URL's user if that is an address, else
    `eventwright@localhost`.
    """

    def __init__(self, url: str, *, sender: str | None = None, timeout: float = 20.0) -> None:
        """Make a mailer; nothing is connected yet.

        Args:
            url: see `Server.from_url`.
            sender: the address that answers go to.
            timeout: seconds that each step of the conversation may take.

        Raises:
            BadSmtpUrl: the URL cannot be used, or what it names to send from is no address.
        """
        self.server = Server.from_url(url)
        self.timeout = timeout
        self.sender = sender or self.server.sender or _own_address(self.server.username)
        address = ADDRESS.fullmatch(self.sender)
        if address is None:
            raise BadSmtpUrl(f"{self.sender!r} is no e-mail address to send from")
        self._domain = address["domain"]

    async def send(
        self, to: str, subject: str, body: str, *, idempotency_key: str, conversation: str | None = None
    ) -> Sent:
        """Send one plain-text message to one address.

        Args:
            to: the address.
            subject: one line.
            body: plain text.
            idempotency_key: what the Message-ID is made from.
            conversation: what the Message-ID also says, for whoever reads the replies; 32 small letters.

        Raises:
            Permanent: the address or the subject is impossible, or the server refused for good (5xx).
            MailServerAway: no connection, or it broke off before the message left.
            NotDone: the server refused for now (4xx).
            ToolError: the message left, and the connection was lost before the server answered.
        """
        message = self._compose(to, subject, body, idempotency_key, conversation)
        server = self.server
        client = aiosmtplib.SMTP(
            hostname=server.host,
            port=server.port,
            use_tls=server.tls,
            start_tls=server.starttls,
            username=server.username,
            password=server.password,
            # The library would ask DNS for this machine's name, for every message.
            local_hostname=self._domain,
            timeout=self.timeout,
        )
        try:
            await self._offer(client, to)
            answer = await self._hand_over(client, message, to)
        finally:
            await _leave(client)
        return Sent(to=to, subject=subject, message_id=message["Message-ID"], answer=answer)

    def _compose(
        self, to: str, subject: str, body: str, idempotency_key: str, conversation: str | None
    ) -> EmailMessage:
        address = ADDRESS.fullmatch(to)
        if address is None or len(to) > 254 or len(address["local"]) > 64:
            raise Permanent(f"{to!r} is not one plain e-mail address")
        if any(unicodedata.category(character) in UNPRINTABLE for character in subject):
            raise Permanent(f"a subject is one line without control characters, {subject!r} is not")
        message = EmailMessage(policy=SMTP_POLICY.clone(cte_type="7bit"))
        message["From"], message["To"], message["Subject"] = self.sender, to, subject
        message["Date"] = formatdate()
        name = hashlib.sha256(idempotency_key.encode()).hexdigest()[:32]
        asks = f".{conversation}.asks" if conversation else ""
        message["Message-ID"] = f"<{name}{asks}@{self._domain}>"
        # Keeps absence notices from answering, and so from becoming the next event (RFC 3834).
        message["Auto-Submitted"] = "auto-generated"
        try:
            message.set_content(body)
        except UnicodeEncodeError as error:
            raise Permanent(f"the body cannot be encoded: {error}") from error
        return message

    async def _offer(self, client: aiosmtplib.SMTP, to: str) -> None:
        """Everything until the server waits for the message itself. A fault here has sent nothing."""
        where = f"{self.server.host}:{client.port or 'default port'}"
        try:
            await client.connect()
            await client.mail(self.sender)
            await client.rcpt(to)
            response = await client.execute_command(b"DATA")
        except aiosmtplib.SMTPConnectError as error:
            raise MailServerAway(f"no mail server answers at {where}: {error}") from error
        except aiosmtplib.SMTPResponseException as error:
            raise _refusal(error.code, error.message, to) from error
        # Before the next clause: these two are SMTPExceptions as well.
        except (aiosmtplib.SMTPServerDisconnected, aiosmtplib.SMTPTimeoutError, OSError) as error:
            raise MailServerAway(f"lost the mail server at {where} before the message left: {error}") from error
        except aiosmtplib.SMTPException as error:
            raise Permanent(f"the mail server at {where} cannot do what the URL asks: {error}") from error
        if response.code != aiosmtplib.SMTPStatus.start_input:
            raise _refusal(response.code, response.message, to)

    async def _hand_over(self, client: aiosmtplib.SMTP, message: EmailMessage, to: str) -> str:
        """The message itself. The library's own DATA hides on which side of this line a fault fell."""
        if client.protocol is None or not client.is_connected:
            raise MailServerAway("lost the mail server just before the message left")
        # A line that begins with a dot would end the message (RFC 5321, section 4.5.2).
        content = re.sub(rb"(?m)^\.", b"..", message.as_bytes()) + b".\r\n"
        try:
            client.protocol.write(content)
            response = await client.protocol.read_response(timeout=self.timeout)
        except (aiosmtplib.SMTPException, OSError) as error:
            # An answer that comes late must not pass for the answer to a goodbye.
            client.close()
            raise _unknown(to, str(error)) from error
        if 200 <= response.code < 300:
            return _readable(response.message)
        if 400 <= response.code < 600:
            raise _refusal(response.code, response.message, to)
        raise _unknown(to, f"it answered {response.code} {_readable(response.message)}")


def _own_address(username: str | None) -> str:
    return username if username and ADDRESS.fullmatch(username) else "eventwright@localhost"


def _refusal(code: int, message: str, to: str) -> NotDone:
    kind = Permanent if 500 <= code < 600 else NotDone
    if code == aiosmtplib.SMTPStatus.domain_unavailable:
        kind = MailServerAway
    return kind(f"the mail server refused the message to {to}: {code} {_readable(message)}")


def _readable(answer: str) -> str:
    """What a server said. Bytes that are no UTF-8 come from the library as surrogates, which nothing can store."""
    return answer.encode("utf-8", "replace").decode()


def _unknown(to: str, why: str) -> ToolError:
    return ToolError(f"the message to {to} left, but whether the mail server took it is unknown: {why}")


async def _leave(client: aiosmtplib.SMTP) -> None:
    """Say goodbye. The answer is in, so a server that is gone or slow to part changes nothing any more."""
    try:
        if client.is_connected:
            with suppress(aiosmtplib.SMTPException):
                await client.quit(timeout=GOODBYE)
    finally:
        client.close()


@tool(writes="plain")
async def send(
    to: Annotated[str, Role.DESTINATION],
    subject: Annotated[str, Role.CONTENT],
    body: Annotated[str, Role.CONTENT],
    *,
    call: Call,
) -> Sent:
    """Send a plain-text e-mail to one address."""
    mailer = _mailer(call)
    async with Providers.of(call.resources).asked(mailer.server.host, is_away=_is_away):
        return await mailer.send(to, subject, body, idempotency_key=call.idempotency_key)


@tool(writes="plain")
async def ask(
    to: Annotated[str, Role.DESTINATION],
    subject: Annotated[str, Role.CONTENT],
    body: Annotated[str, Role.CONTENT],
    conversation: Annotated[str, Field(pattern=r"^[a-z]{32}$"), Role.CONTENT],
    *,
    call: Call,
) -> Sent:
    """Send an e-mail that asks for something. What answers it names its Message-ID, and so this conversation."""
    mailer = _mailer(call)
    async with Providers.of(call.resources).asked(mailer.server.host, is_away=_is_away):
        return await mailer.send(to, subject, body, idempotency_key=call.idempotency_key, conversation=conversation)


@tool()
async def close_ticket(because: str) -> None:
    """Note in the journal that a ticket is closed, and why. Nothing else happens."""


@tool()
async def leave_unanswered(because: str) -> None:
    """Note in the journal that a message gets no answer, and why. Nothing else happens."""


def _mailer(call: Call) -> Mailer:
    try:
        return call.use(Mailer)
    except ResourceMissing as missing:
        told = "no mail server is set up, and nothing was sent; EVENTWRIGHT_SMTP_URL names one"
        raise NoMailServer(f"{told}, and `simulate` takes a Mailer") from missing


def _is_away(error: Exception) -> bool:
    return isinstance(error, MailServerAway)
