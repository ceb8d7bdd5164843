"""The local mail server keeps what it takes, and fails as the recipient's name tells it to."""

from __future__ import annotations

import asyncio
import math

import pytest

from eventwright.tools.contract import NotDone, Permanent, ToolError
from eventwright.tools.mail import Mailer
from eventwright.tools.smtp_server import LocalSmtp, local_smtp


async def send(server: LocalSmtp, to: str) -> None:
    await Mailer(server.url).send(to, "Hello", "Hello Ann", idempotency_key="key-1")


async def test_the_local_server_refuses_and_loses_mail_when_the_recipient_s_name_says_so() -> None:
    async with local_smtp() as server:
        for _ in range(2):
            with pytest.raises(NotDone, match="451"):
                await send(server, "flaky+2@example.org")
        await send(server, "flaky+2@example.org")
        with pytest.raises(NotDone, match="451"):
            await send(server, "down@example.org")
        with pytest.raises(Permanent, match="550"):
            await send(server, "refused@example.org")
        with pytest.raises(ToolError, match="unknown"):
            await send(server, "lost@example.org")

        assert [message.to for message in server.messages] == ["flaky+2@example.org", "lost@example.org"]


async def test_the_local_server_fails_for_any_address_until_it_is_mended() -> None:
    async with local_smtp() as server:
        server.refusing = {"ann@example.org": 1, "bob@example.org": math.inf}
        server.losing = {"cy@example.org"}
        with pytest.raises(NotDone, match="451"):
            await send(server, "ann@example.org")
        await send(server, "ann@example.org")
        with pytest.raises(ToolError, match="unknown"):
            await send(server, "cy@example.org")
        for _ in range(3):
            with pytest.raises(NotDone, match="451"):
                await send(server, "bob@example.org")
        server.refusing.clear()
        await send(server, "bob@example.org")

        assert [message.to for message in server.messages] == ["ann@example.org", "cy@example.org", "bob@example.org"]


async def test_the_local_server_ends_though_a_client_is_still_connected() -> None:
    async with local_smtp() as server:
        port = int(server.url.partition("127.0.0.1:")[2].partition("?")[0])
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        assert (await reader.readline()).startswith(b"220")

    assert await reader.read() == b""
    writer.close()
    await writer.wait_closed()
