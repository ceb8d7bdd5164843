"""The mail server that a URL names: who it is, how it is encrypted, who logs in."""

from __future__ import annotations

import asyncio
import socket
import ssl
from pathlib import Path
from typing import Any

import pytest
from aiosmtpd.smtp import SMTP, AuthResult

from eventwright.tools.contract import NotDone
from eventwright.tools.mail import BadSmtpUrl, Mailer, Sent, Server
from eventwright.tools.smtp_server import LocalSmtp


async def send(url: str) -> Sent:
    return await Mailer(url).send("ann@example.org", "Hello", "Hello Ann", idempotency_key="key-1")


@pytest.mark.parametrize(
    "url",
    [
        "",
        "mail.example.org",
        "http://mail.example.org",
        "smtp://",
        "smtp://:25",
        "smtp://mail.example.org:twentyfive",
        "smtp://mail.example.org:70000",
        "smtp://mail.example.org?from=support",
        "smtp://mail.example.org?from=a@example.org%0d%0aBcc:eve@example.org",
    ],
)
def test_a_url_that_cannot_be_used_is_refused_with_the_form_that_can(url: str) -> None:
    with pytest.raises(BadSmtpUrl, match="smtps://"):
        Mailer(url)


def test_a_password_is_repeated_neither_in_an_error_nor_on_the_screen() -> None:
    with pytest.raises(BadSmtpUrl) as caught:
        Mailer("smtp://ann:secret@mail.example.org:70000")

    assert "secret" not in str(caught.value)
    assert "secret" not in repr(Server.from_url("smtp://ann:secret@mail.example.org"))


def test_a_url_says_server_encryption_login_and_sender() -> None:
    assert Server.from_url("smtp+starttls://ann%40example.org:p%2Fw@mail.example.org:2525") == Server(
        host="mail.example.org",
        port=2525,
        tls=False,
        starttls=True,
        username="ann@example.org",
        password="p/w",
    )
    assert Server.from_url("smtps://mail.example.org").tls


def test_the_sender_is_the_one_named_else_the_user_else_this_machine_s() -> None:
    url = "smtp://ann%40example.org:pw@localhost"

    assert Mailer(url + "?from=desk@example.org", sender="boss@example.org").sender == "boss@example.org"
    assert Mailer(url + "?from=desk@example.org").sender == "desk@example.org"
    assert Mailer(url).sender == "ann@example.org"
    assert Mailer("smtp://apikey:pw@localhost").sender == "eventwright@localhost"


@pytest.mark.parametrize("trusted", [True, False])
async def test_mail_over_tls_reaches_a_server_that_proves_who_it_is_and_no_other(
    certificate: Path, monkeypatch: pytest.MonkeyPatch, trusted: bool
) -> None:
    if trusted:
        monkeypatch.setenv("SSL_CERT_FILE", str(certificate))
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    context.load_cert_chain(certificate)
    mailbox = LocalSmtp()

    def conversation() -> SMTP:
        return SMTP(mailbox, hostname="localhost", loop=asyncio.get_running_loop())

    server = await asyncio.get_running_loop().create_server(
        conversation, "localhost", 0, family=socket.AF_INET, ssl=context
    )
    url = f"smtps://localhost:{server.sockets[0].getsockname()[1]}"

    async with server:
        if trusted:
            await send(url)
        else:
            with pytest.raises(NotDone, match="certificate"):
                await send(url)

    assert len(mailbox.messages) == trusted


async def test_mail_over_starttls_logs_in_behind_the_encryption_and_arrives(
    certificate: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SSL_CERT_FILE", str(certificate))
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    context.load_cert_chain(certificate)
    mailbox, logins = LocalSmtp(), []

    def authenticate(server: SMTP, session: object, envelope: object, mechanism: str, login: Any) -> AuthResult:
        logins.append((login.login, login.password))
        return AuthResult(success=True)

    def conversation() -> SMTP:
        return SMTP(
            mailbox,
            hostname="localhost",
            tls_context=context,
            require_starttls=True,
            auth_required=True,
            authenticator=authenticate,
            loop=asyncio.get_running_loop(),
        )

    server = await asyncio.get_running_loop().create_server(conversation, "localhost", 0, family=socket.AF_INET)
    async with server:
        port = server.sockets[0].getsockname()[1]
        await send(f"smtp+starttls://ann%40example.org:p%2Fw@localhost:{port}")

    assert logins == [(b"ann@example.org", b"p/w")]
    assert [message.sender for message in mailbox.messages] == ["ann@example.org"]
