"""A real IMAP server for tests: pymap's, in memory, on the loopback. It can be hung up on, and told what to be like."""

from __future__ import annotations

import asyncio
import ssl
from argparse import Namespace
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from email.message import EmailMessage
from typing import Any
from urllib.parse import quote

import pytest
from imapclient import IMAPClient
from proxyprotocol.sock import SocketInfo
from pymap.backend.dict import Config, DictBackend
from pymap.backend.dict.mailbox import MailboxData
from pymap.config import BackendCapability
from pymap.imap import IMAPServer
from pymap.parsing.specials.flag import Flag
from pysasl.hashing import BuiltinHash
from tests.loopback import on_loopback

USER, PASSWORD = "support@example.org", "pa/ss:word"


class LocalImap:
    """A running server with one user.

    Attributes:
        url: of the user's INBOX.
        connections: how many there have been.
        away: whether it hangs up on everybody who comes.
    """

    def __init__(self, serve: IMAPServer) -> None:
        self.url, self.port = "", 0
        self.connections = 0
        self._serve = serve
        self._open: set[asyncio.StreamWriter] = set()
        self.away = False

    async def converse(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        if self.away:
            return
        self.connections += 1
        self._open.add(writer)
        try:
            await self._serve(reader, writer, SocketInfo.get(writer, None))
            await writer.wait_closed()
        except ssl.SSLError as error:
            raise ConnectionError("the client does not believe the certificate") from error
        finally:
            self._open.discard(writer)

    def hang_up(self) -> None:
        """Break every connection off."""
        for writer in self._open:
            writer.transport.abort()

    async def do(self, work: Any) -> Any:
        """What another client, one of a person, does here."""

        def converse() -> Any:
            with IMAPClient("127.0.0.1", self.port, ssl=False, timeout=10) as client:
                client.login(USER, PASSWORD)
                return work(client)

        return await asyncio.to_thread(converse)

    async def deliver(self, *messages: bytes | EmailMessage) -> None:
        """Put messages into the INBOX."""

        def append(client: IMAPClient) -> None:
            for message in messages:
                client.append("INBOX", bytes(message))

        await self.do(append)

    async def flags(self, folder: str = "INBOX") -> list[set[bytes]]:
        """The flags of each message."""

        def look(client: IMAPClient) -> list[set[bytes]]:
            client.select_folder(folder, readonly=True)
            found = client.search()
            flags = client.get_flags(found) if found else {}
            return [set(flags[uid]) - {b"\\Recent"} for uid in sorted(flags)]

        found: list[set[bytes]] = await self.do(look)
        return found


@asynccontextmanager
async def local_imap(
    *, idles: bool = True, keeps_flags: bool = True, tls: ssl.SSLContext | None = None
) -> AsyncIterator[LocalImap]:
    """A running server.

    Args:
        idles: whether it says by itself that something came in.
        keeps_flags: whether it keeps flags that it does not know, as most servers do.
        tls: with which it lets itself be talked to securely (STARTTLS).
    """
    arguments = Namespace(
        debug=False, tls=tls is not None, cert=None, key=None, host=None, port=None, proxy_protocol=None,
        passlib_cfg=None, demo_data=False, demo_user=USER, demo_password=PASSWORD,
    )  # fmt: skip
    with pytest.MonkeyPatch.context() as environment:
        # It would ask DNS for its own name.
        environment.setenv("FQDN", "localhost")
        able = BackendCapability(idle=idles, object_id=True, multi_append=True)
        environment.setattr(Config, "backend_capability", able)
        if keeps_flags:
            known = (b"\\Seen", b"\\Deleted", b"$Eventwright", b"\\*")
            environment.setattr(MailboxData, "permanent_flags", frozenset(map(Flag, known)))
        backend, settings = await DictBackend.init(arguments, ssl_context=tls, hash_context=BuiltinHash(rounds=1))
        settings.apply_context()
        server = LocalImap(IMAPServer(backend.login, settings))
        async with on_loopback(server.converse) as server.port:
            login = f"{quote(USER)}:{quote(PASSWORD, safe='')}"
            server.url = f"imap://{login}@127.0.0.1:{server.port}/INBOX"
            yield server


def letter(text: str = "Where is my card?", *, sender: str = "ann@example.org", **headers: str) -> EmailMessage:
    """A message of a person."""
    message = EmailMessage()
    message["From"], message["To"], message["Subject"] = sender, USER, "My card"
    for name, value in headers.items():
        message[name.replace("_", "-")] = value
    message.set_content(text)
    return message
