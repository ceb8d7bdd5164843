"""The support workflow, started by e-mail: from a real mailbox to a real mail server."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest
from tests.imap_server import letter, local_imap
from tests.journeys.support_world import ANN, CLEAR, Outside

from eventwright.app.composition import open_app
from eventwright.app.settings import Settings
from eventwright.app.simulate import simulate
from eventwright.graphs.support import support
from eventwright.runs.event import Event
from eventwright.runs.records import JournalKind, ReviewKind
from eventwright.runs.states import FINAL, Outcome, RunState


def mail(text: str = CLEAR, **more: object) -> Event:
    data = {"sender": ANN.email, "subject": "My card", "text": text, **more}
    return Event(id="<1@a>", source="/mail/support@example.org", type="mail.received", data=data)


async def test_an_absence_notice_is_not_answered_and_the_journal_says_why(outside: Outside) -> None:
    event = mail(automatic=True, automatic_because="Auto-Submitted: auto-replied")
    async with simulate(support, event, resources=outside.clients) as run:
        done = await run.run()

        assert (done.state, done.outcome) == (RunState.COMPLETED, Outcome.AUTO)
        assert outside.smtp.messages == []
        calls = [entry for entry in await run.journal() if entry.kind == JournalKind.EFFECT_INTENDED]
        assert [(call.node, call.data["arguments"]) for call in calls] == [
            ("set_aside", {"because": "Auto-Submitted: auto-replied"})
        ]


@pytest.mark.parametrize("text", ["", "  \n", CLEAR * 1000])
async def test_a_letter_without_a_word_or_without_an_end_is_a_ticket_too(outside: Outside, text: str) -> None:
    async with simulate(support, mail(text, subject=CLEAR), resources=outside.clients) as run:
        done = await run.run()

        assert done.state is RunState.COMPLETED
        assert [message.to for message in outside.smtp.messages] == [ANN.email]


async def test_a_letter_of_nobody_waits_until_a_person_says_who_wrote_it(outside: Outside) -> None:
    async with simulate(support, mail(sender=None), resources=outside.clients) as run:
        [asked] = await run.reviews()
        assert (asked.kind, asked.node) == (ReviewKind.MISSING_DATA, "ask_sender")


async def test_a_letter_is_answered_once_however_often_it_is_delivered(
    tmp_path: Path, database_url: str, outside: Outside
) -> None:
    written = letter(CLEAR, sender=ANN.email, Message_ID="<1@a>")
    away = letter("I am away", sender=ANN.email, Message_ID="<2@a>", Auto_Submitted="auto-replied")
    async with local_imap() as imap:
        await imap.deliver(written, away, written)
        settings = Settings(home=tmp_path, database_url=database_url, redis_url="none", imap_url=imap.url)
        async with open_app(settings, workflows=[support], resources=outside.clients, works=True) as app:
            stopping = asyncio.Event()
            work = asyncio.create_task(app.work(stopping))
            while not all(await imap.flags()) or len(await imap.flags()) < 3:
                await asyncio.sleep(0.05)
            while any(run.state not in FINAL for run in await app.store.runs()):
                await asyncio.sleep(0.05)
            stopping.set()
            await work

            assert len(await app.store.runs()) == 2
    assert [message.to for message in outside.smtp.messages] == [ANN.email]
