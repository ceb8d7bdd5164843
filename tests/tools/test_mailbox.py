"""A mailbox on a real IMAP server, and what can be wrong with it."""

from __future__ import annotations

import asyncio
import ssl
from collections.abc import AsyncIterator
from contextlib import suppress
from pathlib import Path

import pytest
from imapclient import IMAPClient, SocketTimeout
from tests.imap_server import LocalImap, letter, local_imap
from tests.loopback import on_loopback

from eventwright.tools.mail import BadSmtpUrl, Mailer
from eventwright.tools.mail_reading import LONGEST_TEXT, read_mail
from eventwright.tools.mailbox import LARGEST, Address, BadImapUrl, Mailbox, MailboxAway, Mark


@pytest.fixture
async def imap() -> AsyncIterator[LocalImap]:
    async with local_imap() as server:
        yield server


@pytest.mark.parametrize(
    "url",
    [
        "",
        "imap.example.org",
        "https://u:p@imap.example.org",
        "imaps://",
        "imaps://imap.example.org",
        "imaps://u@imap.example.org",
        "imaps://u:p@imap.example.org:99999",
        "imaps://u:p@[::1",
        "imaps://u:p@imap.example.org?mark=flag",
        "imaps://u:p@imap.example.org?mark=seen&move=Done",
        "imaps://u:p@imap.example.org?move=",
        "imaps://u:p@imap.example.org?since=monday",
        "imaps://u:p@imap.example.org?folder=INBOX",
    ],
)
def test_a_url_that_cannot_be_used_is_refused_with_the_form_that_can(url: str) -> None:
    with pytest.raises(BadImapUrl, match="imaps://"):
        Address.from_url(url)


def test_a_url_says_everything_about_the_mailbox_and_its_password_is_repeated_nowhere() -> None:
    address = Address.from_url("imap+starttls://ann%40example.org:s%2Fcret@mail.example.org:1430/Tickets/New?move=Done")

    assert (address.username, address.password, address.port) == ("ann@example.org", "s/cret", 1430)
    assert (address.folder, address.mark, address.move) == ("Tickets/New", Mark.MOVE, "Done")
    assert address.name == "ann@example.org/Tickets/New"
    assert "cret" not in repr(address)
    with pytest.raises(BadImapUrl) as caught:
        Address.from_url("imaps://ann:cret@mail.example.org:99999")
    assert "cret" not in str(caught.value)


@pytest.mark.parametrize("password", ["cret/x", "cret#x", "cret?x", "[cret", "cret\u2100x"])
def test_a_password_that_is_not_escaped_is_not_repeated_either(password: str) -> None:
    with pytest.raises(BadImapUrl) as caught:
        Address.from_url(f"imaps://ann:{password}@mail.example.org")
    with pytest.raises(BadSmtpUrl) as refused:
        Mailer(f"smtps://ann:{password}@mail.example.org")
    for error in (caught.value, refused.value):
        assert "cret" not in str(error)
        assert error.__cause__ is None


async def test_who_is_not_let_in_is_told_so_without_the_password(imap: LocalImap) -> None:
    with pytest.raises(MailboxAway, match="does not let support@example") as caught:
        async with Mailbox.open(Address.from_url(imap.url.replace("word@", "wrod@"))):
            pass

    assert "wrod" not in str(caught.value)
    assert caught.value.__cause__ is None


async def test_a_server_that_repeats_the_password_in_its_refusal_is_not_repeated() -> None:
    async def repeats(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(b"* OK hello\r\n")
        while line := await reader.readline():
            tag, *command = line.split()
            known = command == [b"CAPABILITY"]
            writer.write(b"* CAPABILITY IMAP4rev1\r\n" if known else b"")
            writer.write(tag + (b" OK done" if known else b" NO not " + b" ".join(command)) + b"\r\n")

    async with on_loopback(repeats) as port:
        with pytest.raises(MailboxAway, match=r"not LOGIN ann .*\*\*\*") as caught:
            async with Mailbox.open(Address.from_url(f"imap://ann:hunter2@127.0.0.1:{port}")):
                pass

    assert "hunter2" not in str(caught.value)


async def test_a_server_that_loses_marks_is_not_read_in_circles(imap: LocalImap) -> None:
    await imap.deliver(letter())
    async with Mailbox.open(Address.from_url(imap.url)) as mailbox:
        [uid] = await mailbox.new()
        await mailbox.mark(uid)

        def unmark(client: IMAPClient) -> None:
            client.select_folder("INBOX")
            client.remove_flags([uid], [b"$Eventwright"])

        await imap.do(unmark)

        with pytest.raises(MailboxAway, match="does not keep the mark"):
            await mailbox.new()


async def test_a_folder_that_is_not_there_is_said_to_be_missing(imap: LocalImap) -> None:
    with pytest.raises(MailboxAway, match="cannot be read"):
        async with Mailbox.open(Address.from_url(imap.url.replace("INBOX", "Nowhere"))):
            pass


async def test_a_server_that_keeps_no_flags_of_others_is_named_with_the_ways_out() -> None:
    async with local_imap(keeps_flags=False) as imap:
        with pytest.raises(MailboxAway, match=r"\?move=FOLDER.*\?mark=seen"):
            async with Mailbox.open(Address.from_url(imap.url)):
                pass
        await imap.do(lambda client: client.create_folder("Done"))
        await imap.deliver(letter("first"))
        for option in ("?mark=seen", "?move=Done"):
            async with Mailbox.open(Address.from_url(imap.url + option)) as mailbox:
                for uid in await mailbox.new():
                    await mailbox.mark(uid)
                assert await mailbox.new() == []
        assert await imap.flags("Done") == [{b"\\Seen"}]


async def test_a_marked_message_is_not_new_and_reading_one_marks_nothing(imap: LocalImap) -> None:
    await imap.deliver(letter("first"), letter("second"))
    async with Mailbox.open(Address.from_url(imap.url)) as mailbox:
        first, second = await mailbox.new()
        message = await mailbox.fetch(first)
        assert message is not None
        assert message.whole
        assert "first" in read_mail(message.raw).text
        assert await imap.flags() == [set(), set()]

        await mailbox.mark(first)

        assert await mailbox.new() == [second]
        assert await imap.flags() == [{b"$Eventwright"}, set()]


async def test_a_message_that_somebody_takes_away_is_no_longer_there(imap: LocalImap) -> None:
    await imap.deliver(letter("first"), letter("second"))
    async with Mailbox.open(Address.from_url(imap.url)) as mailbox:
        first, _ = await mailbox.new()

        def take(client: IMAPClient) -> None:
            client.select_folder("INBOX")
            client.delete_messages([first])
            client.expunge()

        await imap.do(take)
        await mailbox.new()

        assert await mailbox.fetch(first) is None
        await mailbox.mark(first)


async def test_messages_from_before_a_day_are_left_alone(imap: LocalImap) -> None:
    await imap.deliver(letter())
    async with Mailbox.open(Address.from_url(imap.url + "?since=2999-01-01")) as mailbox:
        assert await mailbox.new() == []


async def test_of_a_huge_message_only_the_beginning_is_fetched(imap: LocalImap) -> None:
    await imap.deliver(letter("word " * (LARGEST // 5 + 1000)))
    async with Mailbox.open(Address.from_url(imap.url)) as mailbox:
        [uid] = await mailbox.new()
        message = await mailbox.fetch(uid)

    assert message is not None
    assert (len(message.raw), message.whole) == (LARGEST, False)
    read = read_mail(message.raw, whole=message.whole)
    assert (read.truncated, len(read.text), read.sender) == (True, LONGEST_TEXT, "ann@example.org")


async def test_an_idle_server_tells_at_once_and_another_one_is_asked_again(imap: LocalImap) -> None:
    never = asyncio.Event()
    heard = False
    while not heard:
        # The library gives up on a line that comes in two packets, now and then; whoever reads opens the mailbox again.
        with suppress(MailboxAway):
            async with Mailbox.open(Address.from_url(imap.url)) as mailbox:
                waiting = asyncio.create_task(mailbox.wait(never, 3600))
                await asyncio.sleep(0.1)
                await imap.deliver(letter())
                await waiting
                assert len(await mailbox.new()) >= 1
                heard = True
    async with local_imap(idles=False) as other, Mailbox.open(Address.from_url(other.url)) as mailbox:
        await mailbox.wait(never, 0.01)
        assert await mailbox.new() == []


async def test_a_wait_ends_when_the_process_is_to_stop(imap: LocalImap) -> None:
    stopping = asyncio.Event()
    async with Mailbox.open(Address.from_url(imap.url)) as mailbox:
        waiting = asyncio.create_task(mailbox.wait(stopping, 3600))
        stopping.set()
        await waiting
        assert await mailbox.new() == []


async def test_a_server_that_hangs_up_is_away_also_in_the_middle_of_a_wait(imap: LocalImap) -> None:
    async with Mailbox.open(Address.from_url(imap.url)) as mailbox:
        waiting = asyncio.create_task(mailbox.wait(asyncio.Event(), 3600))
        await asyncio.sleep(0.1)
        imap.hang_up()
        with pytest.raises(MailboxAway, match="cannot be read"):
            await waiting


@pytest.mark.parametrize(
    "says", [b"", b"* OK hello\r\n", b"HTTP/1.1 400 Bad Request\r\n\r\n", b"* BYE no\r\n", b"\xff" * 99]
)
async def test_what_is_no_mail_server_is_away(says: bytes) -> None:
    async def converse(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(says)
        await writer.drain()

    async with on_loopback(converse) as port:
        with pytest.raises(MailboxAway):
            async with Mailbox.open(Address.from_url(f"imap://u:p@127.0.0.1:{port}")):
                pass


async def test_a_server_that_says_nothing_is_waited_for_no_longer_than_the_patience() -> None:
    async def silent(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.read()

    async with on_loopback(silent) as port:
        address = Address.from_url(f"imap://u:p@127.0.0.1:{port}")
        with pytest.raises(MailboxAway, match="does not answer"):
            async with Mailbox.open(address, patience=SocketTimeout(connect=0.2, read=0.2)):
                pass


async def test_a_password_is_said_to_no_server_that_cannot_prove_its_name(
    certificate: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    serving = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    serving.load_cert_chain(certificate)
    async with local_imap(tls=serving) as imap:
        url = imap.url.replace("imap://", "imap+starttls://").replace("127.0.0.1", "localhost")
        with pytest.raises(MailboxAway, match="certificate"):
            async with Mailbox.open(Address.from_url(url)):
                pass
        monkeypatch.setenv("SSL_CERT_FILE", str(certificate))
        async with Mailbox.open(Address.from_url(url)) as mailbox:
            assert await mailbox.new() == []
