"""A message is an event once, whoever reads it, and whenever they die: on a real IMAP server and both databases."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager, contextmanager
from pathlib import Path
from typing import Any

import pytest
from pydantic import BaseModel, field_validator
from tests.imap_server import PASSWORD, LocalImap, letter, local_imap
from tests.outside import chain

from eventwright.app.composition import open_app
from eventwright.app.settings import Settings
from eventwright.graphs.runner import Runner
from eventwright.graphs.workflow import On, Workflow, Workflows
from eventwright.queue import mail_source
from eventwright.queue.engine import Engine
from eventwright.queue.mail_source import MAIL_RECEIVED, MailSource
from eventwright.runs.errors import StoreUnavailable
from eventwright.runs.event import Event, new_id
from eventwright.runs.failpoints import Failpoint, on_failpoint
from eventwright.runs.records import EventState
from eventwright.runs.store import Store
from eventwright.tools.contract import Resources
from eventwright.tools.mail_reading import Letter, read_mail
from eventwright.tools.mailbox import Address, BadImapUrl, Mailbox


@pytest.fixture
async def imap() -> AsyncIterator[LocalImap]:
    async with local_imap() as server:
        yield server


@pytest.fixture
async def store(database_url: str) -> AsyncIterator[Store]:
    async with Store.open(database_url) as store:
        yield store


async def look(state: Any) -> dict[str, Any]:
    return {}


def inbox(**more: Any) -> Workflow:
    return Workflow("inbox", version="1", graph=chain(look=look), triggers=[On(MAIL_RECEIVED, **more)])


def source_on(store: Store, imap: LocalImap, **more: Any) -> MailSource:
    """One that has just begun."""
    engine = Engine(store, Workflows([inbox(**more)]), Runner(store, Resources()), worker=new_id("worker"))
    return MailSource(engine, Address.from_url(imap.url), own=["support@example.org"], poll=0.01)


async def read(source: MailSource, imap: LocalImap) -> int:
    async with Mailbox.open(Address.from_url(imap.url)) as mailbox:
        return await source.once(mailbox)


@asynccontextmanager
async def reading(*sources: MailSource) -> AsyncIterator[None]:
    stopping = asyncio.Event()
    async with asyncio.TaskGroup() as tasks:
        for source in sources:
            tasks.create_task(source.run(stopping))
        yield
        stopping.set()


async def events(store: Store) -> list[Event]:
    """Those with a run, in the order in which they came."""
    runs = await store.runs(limit=1000)
    assert len({run.event.uid for run in runs}) == len(runs)
    return [run.event for run in reversed(runs)]


async def until(store: Store, count: int) -> list[Event]:
    while len(found := await events(store)) < count:
        await asyncio.sleep(0.02)
    return found


@contextmanager
def at_failpoints(hook: Callable[[Failpoint], None]) -> Iterator[None]:
    on_failpoint(hook)
    try:
        yield
    finally:
        on_failpoint(None)


async def all_marked(imap: LocalImap) -> bool:
    return all(b"$Eventwright" in flags for flags in await imap.flags())


# -- a message is an event once ----------------------------------------------------------------------------------------


async def test_a_worker_that_dies_between_event_and_mark_leaves_one_event(store: Store, imap: LocalImap) -> None:
    await imap.deliver(letter(Message_ID="<1@a>"))

    class Killed(BaseException):
        pass

    def die(where: Failpoint) -> None:
        if where is Failpoint.INTAKE_STORED:
            raise Killed

    with at_failpoints(die), pytest.raises(Killed):
        await read(source_on(store, imap), imap)
    assert len(await events(store)) == 1
    assert await imap.flags() == [set()]

    assert await read(source_on(store, imap), imap) == 1
    assert await read(source_on(store, imap), imap) == 0

    assert len(await events(store)) == 1
    assert await all_marked(imap)


async def test_many_workers_at_one_mailbox_make_one_event_of_each_message(store: Store, imap: LocalImap) -> None:
    await imap.deliver(*(letter(f"number {number}", Message_ID=f"<{number}@a>") for number in range(12)))

    async with reading(*(source_on(store, imap) for _ in range(4))):
        await until(store, 12)
        while not await all_marked(imap):
            await asyncio.sleep(0.02)

    assert {event.id for event in await events(store)} == {f"<{number}@a>" for number in range(12)}


async def test_two_messages_under_one_id_are_two_events_and_two_copies_of_one_are_one(
    store: Store, imap: LocalImap
) -> None:
    first, copy, other = (letter(text, Message_ID="<1@a>") for text in ("my card", "my card", "my money"))
    copy["Received"] = "by another way"
    await imap.deliver(first, copy, other, other)

    assert await read(source_on(store, imap), imap) == 4

    assert [event.data["text"] for event in await events(store)] == ["my card", "my money"]


async def test_messages_without_an_id_are_told_apart_by_their_place_in_the_folder(
    store: Store, imap: LocalImap
) -> None:
    await imap.deliver(letter("the same"), letter("the same"))

    await read(source_on(store, imap), imap)

    first, second = await events(store)
    assert first.id != second.id
    assert first.id.partition(".")[0] == second.id.partition(".")[0]


async def test_messages_become_events_in_the_order_in_which_they_came(store: Store, imap: LocalImap) -> None:
    await imap.deliver(*(letter(f"{number}") for number in range(5)))

    await read(source_on(store, imap), imap)

    assert [event.data["text"] for event in await events(store)] == ["0", "1", "2", "3", "4"]


async def test_an_event_says_all_that_a_workflow_needs(store: Store, imap: LocalImap) -> None:
    await imap.deliver(letter("Hello", Message_ID="<2@a>", In_Reply_To="<1@b>", Auto_Submitted="auto-replied"))

    await read(source_on(store, imap), imap)

    [event] = await events(store)
    assert (event.type, event.source, event.id) == ("mail.received", "/mail/support@example.org", "<2@a>")
    assert event.time is not None
    assert event.data == {
        "message_id": "<2@a>",
        "sender": "ann@example.org",
        "subject": "My card",
        "text": "Hello",
        "in_reply_to": "<1@b>",
        "references": [],
        "date": None,
        "attachments": [],
        "automatic": True,
        "automatic_because": "Auto-Submitted: auto-replied",
        "truncated": False,
    }


# -- what goes wrong ---------------------------------------------------------------------------------------------------


async def test_a_database_that_is_away_loses_no_message_and_no_order(
    store: Store, imap: LocalImap, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(mail_source, "PAUSE", 0.01)
    await imap.deliver(letter("first"), letter("second"))
    failures = iter(range(3))

    def away(where: Failpoint) -> None:
        if where is Failpoint.INTAKE_STORING and next(failures, None) is not None:
            raise StoreUnavailable("it is away")

    with at_failpoints(away):
        assert await read(source_on(store, imap), imap) == 2

    assert [event.data["text"] for event in await events(store)] == ["first", "second"]


async def test_a_message_that_fits_no_payload_is_kept_and_holds_up_no_other(store: Store, imap: LocalImap) -> None:
    class Short(BaseModel):
        text: str
        sender: str

    await imap.deliver(letter("from nobody", sender="a@b, c@d"), letter("from Ann"))

    assert await read(source_on(store, imap, payload={"1": Short}), imap) == 2

    assert [event.data["text"] for event in await events(store)] == ["from Ann"]
    [refused] = await store.events(state=EventState.REFUSED)
    assert refused.event.data["text"] == "from nobody"


async def test_a_message_at_which_a_validator_breaks_is_kept_and_holds_up_no_other(
    store: Store, imap: LocalImap
) -> None:
    class Numbered(BaseModel):
        text: str

        @field_validator("text")
        @classmethod
        def second_word(cls, text: str) -> str:
            return text.split()[1]

    await imap.deliver(letter("one"), letter("two words"))

    assert await read(source_on(store, imap, payload={"1": Numbered}), imap) == 2

    assert [event.data["text"] for event in await events(store)] == ["two words"]
    [refused] = await store.events(state=EventState.REFUSED)
    assert refused.problem is not None
    assert "IndexError" in refused.problem["detail"]


async def test_a_message_on_which_our_own_code_fails_stays_in_the_mailbox_and_holds_up_no_other(
    store: Store, imap: LocalImap, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def breaks(raw: bytes, **more: Any) -> Letter:
        if b"poison" in raw:
            raise ZeroDivisionError
        return read_mail(raw, **more)

    await imap.deliver(letter("poison"), letter("from Ann"))
    with monkeypatch.context() as patch:
        patch.setattr(mail_source, "read_mail", breaks)
        assert await read(source_on(store, imap), imap) == 1

    assert [event.data["text"] for event in await events(store)] == ["from Ann"]
    assert "ZeroDivisionError" in caplog.text
    assert await read(source_on(store, imap), imap) == 1, "a release that can read it takes it in"
    assert len(await events(store)) == 2


async def test_a_message_that_comes_while_another_one_is_read_does_not_wait_for_the_next_look(
    store: Store, imap: LocalImap
) -> None:
    class Interrupted(Engine):
        async def receive(self, event: Event, *args: Any, **more: Any) -> Any:
            if event.data["text"].strip() == "first":
                await imap.deliver(letter("second"))
            return await super().receive(event, *args, **more)

    engine = Interrupted(store, Workflows([inbox()]), Runner(store, Resources()), worker=new_id("worker"))
    await imap.deliver(letter("first"))
    async with reading(MailSource(engine, Address.from_url(imap.url), poll=3600)):
        assert len(await until(store, 2)) == 2


async def test_a_connection_that_breaks_off_is_made_again(
    store: Store, imap: LocalImap, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(mail_source, "FIRST_PAUSE", 0.05)
    imap.away = True
    with caplog.at_level(logging.INFO):
        async with reading(source_on(store, imap)):
            while "waits where it is" not in caplog.text:
                await asyncio.sleep(0.02)
            imap.away = False
            await imap.deliver(letter("first"))
            await until(store, 1)
            imap.hang_up()
            await imap.deliver(letter("second"))
            await until(store, 2)

    assert [event.data["text"] for event in await events(store)] == ["first", "second"]
    assert PASSWORD not in caplog.text


async def test_what_nobody_can_read_is_an_event_all_the_same(store: Store, imap: LocalImap) -> None:
    await imap.deliver(
        b"\x00\xff\xfe",
        b"From: \xff\r\nContent-Type: text/html; charset=\x00\r\n\r\n<\xff>",
        b"Message-ID: <" + b"x" * 900 + b">\r\nSubject: =?x?q?=ff?=\r\n\r\n\xed\xa0\x80",
    )

    assert await read(source_on(store, imap), imap) == 3

    assert len(await events(store)) == 3


# -- the whole process -------------------------------------------------------------------------------------------------


async def test_a_worker_reads_the_mailbox_of_its_settings_and_marks_what_its_own_mail_server_sends(
    tmp_path: Path, sqlite_url: str, imap: LocalImap
) -> None:
    settings = Settings(
        home=tmp_path,
        database_url=sqlite_url,
        redis_url="none",
        imap_url=imap.url,
        smtp_url="smtp://mail.example.org?from=desk@example.org",
    )
    await imap.deliver(letter("from ourselves", sender="desk@example.org"), letter("from Ann"))
    async with open_app(settings, workflows=[inbox()], works=True) as app:
        stopping = asyncio.Event()
        work = asyncio.create_task(app.work(stopping))
        first, second = await until(app.store, 2)
        stopping.set()
        await work

    assert (first.data["automatic"], second.data["automatic"]) == (True, False)
    assert PASSWORD in settings.secrets.kept


async def test_a_mailbox_that_cannot_be_used_ends_the_worker_with_its_reason(tmp_path: Path, sqlite_url: str) -> None:
    settings = Settings(home=tmp_path, database_url=sqlite_url, redis_url="none", imap_url="pop3://u:p@example.org")
    async with open_app(settings, workflows=[inbox()], works=True) as app:
        with pytest.raises(BadImapUrl, match="imaps://"):
            await app.work(asyncio.Event())
