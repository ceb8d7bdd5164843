"""Each fault of a mail server is called what it is: nothing sent, refused for good, or nobody knows.

The faults come from a real server on a real socket that follows a script.
"""

from __future__ import annotations

import asyncio
import socket
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field

import pytest
from tests.loopback import on_loopback

from eventwright.tools import mail
from eventwright.tools.breaker import ProviderDown, Tolerance
from eventwright.tools.contract import Call, NotDone, Permanent, Resources, ToolError
from eventwright.tools.mail import Mailer, MailServerAway, Sent
from eventwright.tools.providers import Providers

#: What a scripted server may do instead of replying.
HANGS, DROPS = "hangs", "drops"


@dataclass
class Scripted:
    """A mail server that follows a script: at a step, reply this, hang, or drop the connection."""

    script: dict[str, str]
    port: int = 0
    steps: list[str] = field(default_factory=list)
    message: bytes = b""

    @property
    def url(self) -> str:
        return f"smtp://127.0.0.1:{self.port}?from=support@example.org"

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        if not await self.act("greeting", "220 scripted", reader, writer):
            return
        while line := await reader.readline():
            step = line.split()[0].decode("latin-1").upper()
            usual = {"DATA": "354 go on", "QUIT": "221 bye"}.get(step, "250 fine")
            if not await self.act(step, usual, reader, writer):
                return
            if step == "DATA" and self.script.get("DATA", usual).startswith("354"):
                self.message = await reader.readuntil(b"\r\n.\r\n")
                if not await self.act("message", "250 taken", reader, writer):
                    return

    async def act(self, step: str, usual: str, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> bool:
        """Do what the script says at this step; whether the conversation goes on."""
        self.steps.append(step)
        reply = self.script.get(step, usual)
        if reply == HANGS:
            await reader.read()  # until the client has gone
        if reply in (HANGS, DROPS):
            return False
        writer.write(reply.encode("latin-1") + b"\r\n")
        await writer.drain()
        return True


@asynccontextmanager
async def scripted(**script: str) -> AsyncIterator[Scripted]:
    """A scripted server on a free port."""
    behaviour = Scripted(script)
    async with on_loopback(behaviour.serve) as behaviour.port:
        yield behaviour


async def send(url: str, *, timeout: float = 5.0) -> Sent:
    resources = Resources((Mailer(url, timeout=timeout),))
    call = Call(run_id="run_1", node="send_reply", idempotency_key="key-1", attempt=1, resources=resources)
    arguments = mail.send.arguments(to="ann@example.org", subject="Your refund", body="It is on its way.")
    sent: Sent = await mail.send.perform(arguments, call)
    return sent


# Faults before the message has left


async def test_a_server_that_is_not_there_has_sent_nothing() -> None:
    with socket.create_server(("127.0.0.1", 0)) as closed:
        port = closed.getsockname()[1]

    with pytest.raises(NotDone, match=f"127.0.0.1:{port}") as caught:
        await send(f"smtp://127.0.0.1:{port}")

    assert not isinstance(caught.value, Permanent)


async def test_a_server_without_an_address_has_sent_nothing() -> None:
    with pytest.raises(NotDone, match=r"mail\.invalid") as caught:
        await send("smtp://mail.invalid:25")

    assert not isinstance(caught.value, Permanent)


@pytest.mark.parametrize(
    ("step", "behaviour"),
    [
        ("greeting", "554 no service here today"),
        ("greeting", "421 too many connections"),
        ("greeting", "is there anybody out there"),
        ("greeting", DROPS),
        ("greeting", HANGS),
        ("EHLO", "421 closing"),
        ("EHLO", DROPS),
        ("EHLO", HANGS),
        ("MAIL", "451 try later"),
        ("MAIL", DROPS),
        ("MAIL", HANGS),
        ("RCPT", "450 greylisted"),
        ("RCPT", "421 closing"),
        ("RCPT", DROPS),
        ("RCPT", HANGS),
        ("DATA", "451 try later"),
        ("DATA", "nonsense"),
        ("DATA", DROPS),
        ("DATA", HANGS),
        ("message", "452 disk full"),
        ("message", "421 closing"),
    ],
)
async def test_a_fault_before_the_server_has_the_message_has_sent_nothing_and_may_be_tried_again(
    step: str, behaviour: str
) -> None:
    async with scripted(**{step: behaviour}) as server:
        with pytest.raises(NotDone) as caught:
            await send(server.url, timeout=0.3 if behaviour == HANGS else 5)

    assert not isinstance(caught.value, Permanent)


@pytest.mark.parametrize(
    ("step", "reply"),
    [
        ("MAIL", "553 sender not allowed"),
        ("RCPT", "550 no such mailbox"),
        ("DATA", "554 no valid recipients"),
        ("message", "554 looks like spam"),
    ],
)
async def test_a_refusal_for_good_is_not_tried_again(step: str, reply: str) -> None:
    async with scripted(**{step: reply}) as server:
        with pytest.raises(Permanent, match=reply):
            await send(server.url)


async def test_an_answer_that_is_no_utf_8_is_an_answer_all_the_same() -> None:
    async with scripted(message="250 a été pris") as server:
        assert (await send(server.url)).answer == "a ?t? pris"
    async with scripted(RCPT="550 boîte inconnue") as server:
        with pytest.raises(Permanent, match=r"550 bo\?te inconnue"):
            await send(server.url)


async def test_encryption_that_was_asked_for_and_cannot_be_had_sends_nothing_in_the_clear() -> None:
    async with scripted() as server:
        with pytest.raises(Permanent, match="STARTTLS"):
            await send(server.url.replace("smtp:", "smtp+starttls:"))
        with pytest.raises(NotDone):
            await send(server.url.replace("smtp:", "smtps:"), timeout=1)

        assert "MAIL" not in server.steps


async def test_a_login_that_the_server_does_not_know_or_does_not_accept_is_not_tried_again() -> None:
    async with scripted() as server:
        with pytest.raises(Permanent, match="AUTH"):
            await send(server.url.replace("//", "//ann:secret@"))
    async with scripted(EHLO="250-scripted\r\n250 AUTH PLAIN", AUTH="535 wrong password") as server:
        with pytest.raises(Permanent, match="535") as caught:
            await send(server.url.replace("//", "//ann:secret@"))

    assert "secret" not in str(caught.value)


# Faults after the message has left


@pytest.mark.parametrize("behaviour", [DROPS, HANGS, "nonsense", "354 still listening"])
async def test_an_answer_lost_after_the_message_left_is_not_called_a_success_nor_a_failure(
    behaviour: str,
) -> None:
    async with scripted(message=behaviour) as server:
        with pytest.raises(ToolError, match="unknown") as caught:
            await send(server.url, timeout=0.3)

        assert b"It is on its way." in server.message
    assert not isinstance(caught.value, NotDone)


@pytest.mark.parametrize("behaviour", [DROPS, HANGS, "500 never heard of it"])
async def test_a_server_that_parts_badly_has_taken_the_message_all_the_same(
    behaviour: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(mail, "GOODBYE", 0.1)
    async with scripted(QUIT=behaviour) as server:
        sent = await send(server.url)

    assert sent.answer == "taken"


# What the server sees


async def test_a_message_says_that_a_machine_wrote_it() -> None:
    async with scripted() as server:
        await send(server.url)

    assert b"\r\nAuto-Submitted: auto-generated\r\n" in server.message


# A mail server that stays away


async def send_through(providers: Providers, url: str) -> None:
    resources = Resources((Mailer(url, timeout=0.5), providers))
    call = Call(run_id="run_1", node="send_reply", idempotency_key="key-1", attempt=1, resources=resources)
    arguments = mail.send.arguments(to="ann@example.org", subject="Your refund", body="It is on its way.")
    await mail.send.perform(arguments, call)


@pytest.mark.parametrize(
    ("step", "behaviour"),
    [("greeting", "421 too many connections"), ("greeting", DROPS), ("MAIL", "421 closing"), ("RCPT", HANGS)],
)
async def test_a_server_that_is_away_is_left_alone_after_some_faults_in_a_row(step: str, behaviour: str) -> None:
    providers = Providers(Tolerance(failures=2))
    async with scripted(**{step: behaviour}) as server:
        with pytest.raises(MailServerAway):
            await send_through(providers, server.url)
        with pytest.raises(ProviderDown, match=r"^127\.0\.0\.1 is down: "):
            await send_through(providers, server.url)
        steps = len(server.steps)
        with pytest.raises(ProviderDown):
            await send_through(providers, server.url)
        assert len(server.steps) == steps


@pytest.mark.parametrize(
    ("step", "answer", "error"),
    [
        ("RCPT", "450 greylisted", NotDone),
        ("RCPT", "550 no such person", Permanent),
        ("message", DROPS, ToolError),
    ],
)
async def test_a_server_that_is_there_is_asked_again_whatever_it_says_of_one_message(
    step: str, answer: str, error: type[Exception]
) -> None:
    providers = Providers(Tolerance(failures=2))
    async with scripted(**{step: answer}) as server:
        for _ in range(4):
            with pytest.raises(error) as caught:
                await send_through(providers, server.url)
            assert not isinstance(caught.value, ProviderDown)
