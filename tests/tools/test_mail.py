"""Mail out: one message to one person, and nothing slips into a header. (The faults are in test_mail_faults.py.)"""

from __future__ import annotations

import asyncio
import re

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from eventwright.tools import mail
from eventwright.tools.contract import Call, OutsideGate, Permanent, Resources, ToolClass
from eventwright.tools.mail import Mailer, NoMailServer, Sent
from eventwright.tools.smtp_server import LocalSmtp, local_smtp

#: No server has this name: a message that got as far as a connection fails as NotDone, never as Permanent.
NOWHERE = "smtp://mail.invalid"


async def send(
    url: str,
    *,
    to: str = "ann@example.org",
    subject: str = "Your refund",
    body: str = "It is on its way.",
    key: str = "key-1",
) -> Sent:
    resources = Resources((Mailer(url),))
    call = Call(run_id="run_1", node="send_reply", idempotency_key=key, attempt=1, resources=resources)
    sent: Sent = await mail.send.perform(mail.send.arguments(to=to, subject=subject, body=body), call)
    return sent


async def test_without_a_mail_server_it_is_certain_that_nothing_was_sent_and_the_setting_is_named() -> None:
    call = Call(run_id="run_1", node="send_reply", idempotency_key="key-1", attempt=1, resources=Resources(()))
    with pytest.raises(NoMailServer, match="nothing was sent; EVENTWRIGHT_SMTP_URL") as refused:
        await mail.send.perform(mail.send.arguments(to="ann@example.org", subject="Hello", body="You"), call)
    assert isinstance(refused.value, Permanent)


async def test_outside_a_node_no_mail_is_sent() -> None:
    with pytest.raises(OutsideGate, match=r"mail\.send"):
        await mail.send("ann@example.org", "Your refund", "It is on its way.")


@pytest.mark.parametrize(
    "to",
    [
        "",
        "ann",
        "ann@",
        "@example.org",
        "ann@example.org\n",
        "ann@example.org\r\nBcc: eve@example.org",
        "ann@example.org,eve@example.org",
        "ann@example.org eve@example.org",
        "ann@example.org;eve@example.org",
        "Ann <ann@example.org>",
        "<ann@example.org>",
        '"ann eve"@example.org',
        "ann@example.org> SIZE=1",
        "ann@eve@example.org",
        "ann..lee@example.org",
        "ann@-example.org",
        "ann@example..org",
        "änn@example.org",
        "ann@exämple.org",
        "ann@example.org\u2028",
        "ann\0@example.org",
        "a" * 65 + "@example.org",
        "ann@" + "a" * 250 + ".org",
    ],
)
async def test_what_is_not_one_plain_address_is_refused_before_any_server_hears_of_it(to: str) -> None:
    with pytest.raises(Permanent, match="one plain e-mail address"):
        await send(NOWHERE, to=to)


@pytest.mark.parametrize("separator", ["\n", "\r", "\r\n", "\0", "\t", "\x0b", "\x85", "\u2028", "\u2029"])
async def test_a_subject_that_could_open_another_header_is_refused_before_any_server_hears_of_it(
    separator: str,
) -> None:
    with pytest.raises(Permanent, match="a subject is one line"):
        await send(NOWHERE, subject=f"Your refund{separator}Bcc: eve@example.org")


@pytest.mark.parametrize("part", ["to", "subject", "body"])
async def test_half_a_character_is_refused_before_any_server_hears_of_it(part: str) -> None:
    parts = {"to": "ann@example.org", "subject": "Your refund", "body": "It is on its way."}
    parts[part] += "\ud800"

    with pytest.raises(ValidationError, match="unicode"):
        mail.send.arguments(**parts)
    with pytest.raises(Permanent):
        await Mailer(NOWHERE).send(**parts, idempotency_key="key-1")


@pytest.mark.parametrize(
    "body",
    [
        ".",
        ".\n..\n.hidden\n",
        "Bcc: eve@example.org\n\nHello",
        "Hello\r\n.\r\nMAIL FROM:<eve@example.org>\r\nRCPT TO:<bob@example.org>\r\nDATA\r\nSurprise\r\n.\r\n",
        "Hello\n.\nMAIL FROM:<eve@example.org>\n",
        "Hello\r.\rMAIL FROM:<eve@example.org>\r",
        "Grüße, and a line " + "that goes on " * 200,
        "",
    ],
)
async def test_a_body_arrives_as_one_message_whatever_stands_in_it(body: str) -> None:
    async with local_smtp() as server:
        await send(server.url, body=body)

        [message] = server.messages

    assert message.to == "ann@example.org"
    assert message.body == "".join(f"{line}\n" for line in re.split(r"\r\n|\r|\n", body.rstrip("\r\n")))


@given(subject=st.text(max_size=200), body=st.text(max_size=400))
def test_any_text_is_refused_or_arrives_under_its_own_subject(subject: str, body: str) -> None:
    async def try_it() -> LocalSmtp:
        async with local_smtp() as server:
            try:
                await send(server.url, subject=subject, body=body)
            except Permanent:
                assert server.messages == []
            return server

    for message in asyncio.run(try_it()).messages:
        assert message.subject.split() == subject.split()
        assert message.to == "ann@example.org"


# What arrives


async def test_a_message_arrives_once_with_its_text_and_its_headers() -> None:
    async with local_smtp() as server:
        sent = await send(server.url, subject="Grüße – your refund of 12.50 €", body="Dear Ann,\n\nit is done. ✓\n")

        [message] = server.messages

    assert (message.sender, message.to) == ("support@example.org", "ann@example.org")
    assert message.subject == sent.subject == "Grüße – your refund of 12.50 €"
    assert message.body == "Dear Ann,\n\nit is done. ✓\n"
    assert message.message_id == sent.message_id


async def test_the_same_call_has_the_same_message_id_and_another_call_another() -> None:
    async with local_smtp() as server:
        for key in ("key-1", "key-1", "key-2"):
            await send(server.url, key=key)

        first, again, other = (message.message_id for message in server.messages)

    assert first == again
    assert first != other
    assert first.endswith("@example.org>")


async def test_a_mailer_serves_many_runs_at_once() -> None:
    async with local_smtp() as server:
        await asyncio.gather(*(send(server.url, to=f"ann{number}@example.org") for number in range(10)))

        assert {message.to for message in server.messages} == {f"ann{n}@example.org" for n in range(10)}


def test_sending_mail_is_a_plain_write() -> None:
    assert (mail.send.name, mail.send.tool_class) == ("mail.send", ToolClass.PLAIN)


async def test_a_letter_that_asks_names_its_conversation_in_its_message_id_and_no_other_letter_does() -> None:
    conversation = "abcdefghijklmnopabcdefghijklmnop"
    async with local_smtp() as smtp:
        call = Call(
            run_id="run_1", node="n", idempotency_key="key-1", attempt=1, resources=Resources((Mailer(smtp.url),))
        )
        asked = mail.ask.arguments(
            to="ann@example.org", subject="Your refund", body="How much?", conversation=conversation
        )
        sent: Sent = await mail.ask.perform(asked, call)
        other = await send(smtp.url)
        [first, _] = smtp.messages

    assert first.message_id == sent.message_id
    named = mail.CONVERSATION.fullmatch(sent.message_id)
    assert named is not None
    assert named["conversation"] == conversation
    assert mail.CONVERSATION.fullmatch(other.message_id) is None
    with pytest.raises(ValidationError):
        mail.ask.arguments(to="ann@example.org", subject="x", body="x", conversation="a@evil.example>\r\nBcc: eve")
