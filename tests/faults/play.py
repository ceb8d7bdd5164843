"""What a process of a trial does: it takes events in, works, and lets people decide, until everything has come to rest.

Senders and people keep books of their own. Whoever was not told that something was taken says it again, to the next
process: the same event, the same answer.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

import sqlalchemy as sa
from tests.faults.auditor import Outside, Told
from tests.faults.books import Book
from tests.faults.scenes import Scene, provider

from eventwright.app.composition import App, open_app
from eventwright.app.settings import Settings
from eventwright.queue.desk import AlreadyDecided, ReviewClosed
from eventwright.runs import schema
from eventwright.runs.errors import StoreUnavailable
from eventwright.runs.records import Decision, DecisionType, Review, ReviewKind, ReviewState
from eventwright.runs.states import FINAL

#: How often people look whether they are asked, and the sender whether all is done, in seconds.
LOOK = 0.02


class Cast:
    """Senders and people of a scene, with what they have written down in this folder."""

    def __init__(self, scene: Scene, folder: Path) -> None:
        self.scene, self.folder = scene, folder
        self._accepted, self._decided = Book(folder / "accepted"), Book(folder / "decided")
        self._deciding = Book(folder / "deciding")

    def outside(self) -> Outside:
        """All that is known outside."""
        return Outside(
            accepted={(line["source"], line["id"]): Told(line["runs"], line["at"]) for line in self._accepted.lines()},
            # Of a decision that somebody had to make twice, the first acknowledgement is the one that counts.
            decided={line["review"]: Told(line["type"], line["at"]) for line in reversed(self._decided.lines())},
            deeds=self.scene.deeds(self.folder),
        )

    async def send(self, app: App, count: int) -> None:
        """Send every event until it is acknowledged."""
        known = {line["id"] for line in self._accepted.lines()}
        for event in (self.scene.event(number) for number in range(count)):
            while event.id not in known:
                with suppress(StoreUnavailable):
                    receipt = await app.engine.receive(event)
                    self._accepted.write(source=event.source, id=event.id, runs=[run.id for run in receipt.runs])
                    known.add(event.id)

    async def decide(self, app: App) -> None:
        """Answer for ever whatever is asked; first, what was answered and not acknowledged."""
        if not self.scene.people:
            return
        acknowledged = {line["review"] for line in self._decided.lines()}
        for line in self._deciding.lines():
            if line["review"] not in acknowledged:
                await self._say(app, line["review"], line)
        while True:
            with suppress(StoreUnavailable):
                for review in await app.store.reviews(state=ReviewState.OPEN, limit=100):
                    said = self._answer(review)
                    self._deciding.write(review=review.id, **said)
                    await self._say(app, review.id, said)
            await asyncio.sleep(LOOK)

    async def _say(self, app: App, review_id: str, said: Mapping[str, Any]) -> None:
        decision = Decision(type=DecisionType(said["type"]), by="ann", response=said["response"])
        # Whoever comes too late is told so, and nothing was promised.
        with suppress(AlreadyDecided, ReviewClosed):
            await app.engine.decide(review_id, decision)
            self._decided.write(review=review_id, type=said["type"])

    def _answer(self, review: Review) -> dict[str, Any]:
        """Yes, and what is true: whoever is asked whether a call happened looks into the provider's books."""
        if review.kind is ReviewKind.IN_DOUBT:
            key, tool = review.evidence["idempotency_key"], review.evidence["tool"]
            return {"type": "respond", "response": {"happened": self.scene.happened(self.folder, tool, key)}}
        return {"type": "approve", "response": None}


async def play(scene: Scene, settings: Settings, over: Callable[[], object], *, events: int = 1) -> None:
    """Be one process of the scene; call `over` once all that was sent is over and nothing is left to be rung."""
    folder = settings.home
    cast = Cast(scene, folder)
    async with open_app(settings, workflows=[scene.workflow], resources=[provider(folder)], works=True) as app:
        stopping = asyncio.Event()
        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(app.work(stopping))
            people = tasks.create_task(cast.decide(app))
            await cast.send(app, events)
            while not await _is_over(app, events):
                await asyncio.sleep(LOOK)
            over()
            people.cancel()
            stopping.set()


async def _is_over(app: App, events: int) -> bool:
    with suppress(StoreUnavailable):
        runs = await app.store.runs(limit=events + 1)
        over = len(runs) >= events and all(run.state in FINAL for run in runs)
        return over and not await app.store.rows_of(sa.select(schema.wakeups.c.id).limit(1))
    return False
