"""A small, real mail server for trying things out: it keeps what it is sent and delivers nothing.

How it treats a message depends on the name before the `@`:

| recipient | the server |
|---|---|
| `flaky+2@…` | refuses twice with 451, then takes it (any number) |
| `down@…` | always refuses with 451 |
| `refused@…` | always refuses with 550 |
| `lost@…` | takes the message and hangs up without an answer |
| anybody else | takes the message |

An address with another name can be given a fault too: `smtp.refusing["ann@example.org"] = 2`.
"""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from email import message_from_bytes
from email.policy import default as modern_policy

from aiosmtpd.smtp import SMTP, Envelope, Session


@dataclass(frozen=True, kw_only=True)
class Received:
    """A message that the server took."""

    sender: str
    to: str
    subject: str
    message_id: str
    #: With `\n` at the end of each line.
    body: str


@dataclass
class LocalSmtp:
    """A running local mail server.

    Attributes:
        url: where it listens, for a Mailer; it names a sender too.
        messages: what it took, oldest first. A message that was sent twice is here twice.
        refusing: how many more times an address is refused with 451, `math.inf` for as long as it stands here.
        losing: addresses whose messages are taken without an answer.
    """

    url: str = ""
    messages: list[Received] = field(default_factory=list)
    refusing: dict[str, float] = field(default_factory=dict)
    losing: set[str] = field(default_factory=set)
    _attempts: Counter[str] = field(default_factory=Counter)

    def refusal(self, recipient: str) -> str | None:
        """The reply with which this recipient is refused now, or None. Counts as an attempt."""
        name = recipient.partition("@")[0]
        self._attempts[recipient] += 1
        kind, _, times = name.partition("+")
        if name == "refused":
            return "550 5.1.1 no such mailbox"
        flaky = kind == "flaky" and times.isdecimal() and self._attempts[recipient] <= int(times)
        left = self.refusing.get(recipient, 0)
        if left > 0:
            self.refusing[recipient] = left - 1
        if name == "down" or flaky or left > 0:
            return "451 4.3.0 try again later"
        return None

    # aiosmtpd finds these two by their names.
    async def handle_RCPT(  # noqa: N802
        self, server: SMTP, session: Session, envelope: Envelope, address: str, options: list[str]
    ) -> str:
        refusal = self.refusal(address)
        if refusal is None:
            envelope.rcpt_tos.append(address)
        return refusal or "250 2.1.5 OK"

    async def handle_DATA(self, server: SMTP, session: Session, envelope: Envelope) -> str:  # noqa: N802
        message = message_from_bytes(envelope.original_content or b"", policy=modern_policy)
        body = message.get_body(("plain",))
        for recipient in envelope.rcpt_tos:
            self.messages.append(
                Received(
                    sender=envelope.mail_from or "",
                    to=recipient,
                    subject=message["Subject"] or "",
                    message_id=message["Message-ID"] or "",
                    body=body.get_content().replace("\r\n", "\n") if body else "",
                )
            )
            if recipient.startswith("lost@") or recipient in self.losing:
                # aiosmtpd hangs up on a client whose handler was cancelled, and says nothing.
                raise asyncio.CancelledError
        return "250 2.0.0 taken"


class _Conversation(SMTP):
    """One client's connection, kept in a set for as long as it lasts."""

    def __init__(self, handler: LocalSmtp, open_ones: set[_Conversation]) -> None:
        super().__init__(handler, hostname="localhost", loop=asyncio.get_running_loop())
        self._open_ones = open_ones
        self.gone = asyncio.Event()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._open_ones.add(self)
        super().connection_made(transport)

    def connection_lost(self, error: Exception | None) -> None:
        self._open_ones.discard(self)
        super().connection_lost(error)
        self.gone.set()


@asynccontextmanager
async def local_smtp() -> AsyncIterator[LocalSmtp]:
    """Run a mail server on a free port of the loopback address, in this event loop, until the block ends."""
    smtp = LocalSmtp()
    open_ones: set[_Conversation] = set()
    server = await asyncio.get_running_loop().create_server(
        lambda: _Conversation(smtp, open_ones), host="127.0.0.1", port=0
    )
    port = server.sockets[0].getsockname()[1]
    smtp.url = f"smtp://127.0.0.1:{port}?from=support@example.org"
    try:
        yield smtp
    finally:
        server.close()
        for conversation in list(open_ones):
            if conversation.transport is not None:
                conversation.transport.close()
            await conversation.gone.wait()
        await server.wait_closed()
