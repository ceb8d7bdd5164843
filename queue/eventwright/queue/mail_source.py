"""The mail source: in every worker that has a mailbox, makes an event of each message that comes in.

Any number of workers may read one mailbox. A message is marked once its event is committed, and the database keeps one
event of a name: what is read twice, because a worker died in between or two were equally quick, is one event.
"""

from __future__ import annotations

import asyncio
import hashlib
import logging
import random
from collections.abc import Collection
from contextlib import suppress
from dataclasses import asdict, replace
from typing import Any

from eventwright.queue.engine import Engine
from eventwright.queue.intake import EventConflict, EventRefused
from eventwright.runs.errors import Overloaded, StoreUnavailable
from eventwright.runs.event import Event
from eventwright.tools.mail_reading import Letter, read_mail
from eventwright.tools.mailbox import Address, Fetched, Mailbox, MailboxAway

log = logging.getLogger(__name__)

#: What a message's event is called.
MAIL_RECEIVED = "mail.received"
#: How the source of a mailbox's events begins; its name follows.
MAIL = "/mail/"
#: Seconds between two looks at the mailbox; a server that can tells sooner.
POLL = 30.0
#: Seconds until the next try, at first and at most: each failure doubles them.
FIRST_PAUSE, LONGEST_PAUSE = 2.0, 300.0
#: Seconds until a message is tried again that could not be stored for now.
PAUSE = 2.0


class MailSource:
    """Reads one mailbox until it is stopped.

    Args:
        engine: takes the events.
        address: of the mailbox.
        own: addresses that we send from, beside the mailbox's own: what they send is automatic.
        poll: seconds between two looks.
    """

    def __init__(
        self,
        engine: Engine,
        address: Address,
        *,
        own: Collection[str] = (),
        poll: float = POLL,
    ) -> None:
        self._engine = engine
        self._address = address
        self._own = frozenset(filter(None, (address.own, *own)))
        self._poll = poll

    async def run(self, stopping: asyncio.Event) -> None:
        """Take in whatever comes, until `stopping` is set."""
        pause = FIRST_PAUSE
        while not stopping.is_set():
            try:
                async with Mailbox.open(self._address) as mailbox:
                    log.info("reading the mailbox %s", self._address.name)
                    while not stopping.is_set():
                        taken = await self.once(mailbox, stopping)
                        pause = FIRST_PAUSE
                        # Of what came meanwhile the server has spoken with another answer, and says nothing any more.
                        if not taken:
                            await mailbox.wait(stopping, self._poll)
            except MailboxAway as error:
                log.warning("mail waits where it is: %s", error)
                await _paused(stopping, random.uniform(0.5, 1.0) * pause)
                pause = min(2 * pause, LONGEST_PAUSE)

    async def once(self, mailbox: Mailbox, stopping: asyncio.Event | None = None) -> int:
        """Take in what is there, the oldest first, and say how many messages that were. Raises MailboxAway."""
        stopping = stopping or asyncio.Event()
        taken = 0
        for uid in await mailbox.new():
            message = None if stopping.is_set() else await mailbox.fetch(uid)
            if message is None:
                continue
            try:
                letter = await asyncio.to_thread(read_mail, message.raw, own=self._own, whole=message.whole)
                stored = await self._store(event_of(self._address, message, letter), message, stopping)
            except Exception:
                # Whatever it is, it must not stand in the way of all that comes after it.
                log.exception("the message %s is no event; it stays where it is, and is tried again", message.name)
                continue
            if not stored:
                break
            await mailbox.mark(uid)
            taken += 1
        return taken

    async def _store(self, event: Event, message: Fetched, stopping: asyncio.Event) -> bool:
        """Whether the message is dealt with. One that cannot be stored for now keeps its place before the others."""
        unique = f"{event.id}#{hashlib.sha256(message.raw).hexdigest()}"
        while True:
            try:
                receipt = await self._engine.receive(event)
            except EventConflict:
                if event.id == unique:
                    log.info("the message %s is an event already, as another release read it", event.id)
                    return True
                # Another message under an id that is taken: senders reuse them, and lists add to what they pass on.
                event = replace(event, id=unique)
            except EventRefused as error:
                log.error("the message %s is refused, and kept: %s", event.id, error)
                return True
            except (Overloaded, StoreUnavailable) as error:
                log.warning("the message %s waits: %s", event.id, error)
                if await _paused(stopping, PAUSE):
                    return False
            else:
                log.info("the message %s is event %s", event.id, receipt.event.uid)
                return True


def event_of(address: Address, message: Fetched, letter: Letter) -> Event:
    """The event that a message is."""
    source = f"{MAIL}{address.name}"
    data = data_of(letter)
    name = letter.message_id or message.name
    return Event(id=name, source=source, type=MAIL_RECEIVED, data=data, time=message.received_at)


def data_of(letter: Letter) -> dict[str, Any]:
    """A letter as the payload of its event, version 1."""
    data = asdict(letter)
    why = data.pop("automatic")
    return {
        **data,
        "date": letter.date and letter.date.isoformat(),
        "automatic": why is not None,
        "automatic_because": why,
    }


async def _paused(stopping: asyncio.Event, seconds: float) -> bool:
    """Wait so long, or until it is set; whether it is."""
    with suppress(TimeoutError):
        await asyncio.wait_for(stopping.wait(), seconds)
    return stopping.is_set()
