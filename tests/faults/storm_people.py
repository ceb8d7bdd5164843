"""Who lives through a storm outside: senders, reviewers and an operator, by HTTP, with books of their own.

Whoever got no answer asks again, for the same thing, until there is one.
"""

from __future__ import annotations

import asyncio
import random
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import httpx
from tests.faults.auditor import Outside, Told
from tests.faults.books import Book
from tests.faults.scenes import done_errands
from tests.faults.storm_world import World

#: Seconds that people wait for an answer; longer than a service waits for its database.
PATIENCE = 20.0
#: Seconds until they try again.
AGAIN = 0.3
TOO_BUSY = 429
#: Of so many events one is for the deadline to decide, and of so many one is sent a second time after it was taken.
HURRIED, TWICE = 8, 5

Answer = dict[str, Any]


@dataclass
class People:
    """Senders, reviewers and an operator of a world.

    Attributes:
        pace: events that are sent in a second, by all senders.
        under_way: how many requests wait for their answer, by the address.
        count: what they saw, for the table.
    """

    world: World
    pace: float
    under_way: Counter[str] = field(default_factory=Counter)
    count: Counter[str] = field(default_factory=Counter)

    def __post_init__(self) -> None:
        folder, clock = self.world.folder, self.world.clock.time
        self.sent, self.accepted = Book(folder / "sent", clock), Book(folder / "accepted", clock)
        self.deciding, self.decided = Book(folder / "deciding", clock), Book(folder / "decided", clock)
        self._client = httpx.AsyncClient(timeout=PATIENCE, limits=httpx.Limits(max_connections=100))
        self._numbers = iter(range(10**9))

    async def aclose(self) -> None:
        await self._client.aclose()

    def outside(self) -> Outside:
        """All that is known outside."""
        return Outside(
            accepted={(line["source"], line["id"]): Told(line["runs"], line["at"]) for line in self.accepted.lines()},
            # The first acknowledgement is the one that counts.
            decided={line["review"]: Told(line["type"], line["at"]) for line in reversed(self.decided.lines())},
            deeds=done_errands(self.world.folder),
        )

    # -- what they do ------------------------------------------------------------------------------------------------

    async def send(self, senders: int, over: asyncio.Event) -> None:
        """Send events until it is over; what was sent by then is sent until it was taken."""

        async def be_a_sender() -> None:
            while not over.is_set():
                await asyncio.sleep(random.expovariate(self.pace / senders))
                await self.send_one(next(self._numbers))

        async with asyncio.TaskGroup() as tasks:
            for _ in range(senders):
                tasks.create_task(be_a_sender())

    async def send_one(self, number: int) -> None:
        """Send an event until it is taken, and perhaps once more."""
        kind, data = ("hurry", {"price": "1"}) if number % HURRIED == 0 else ("errand", {"text": "hm"})
        event = {"specversion": "1.0", "id": f"{kind}-{number}", "source": "/storm", "type": kind, "data": data}
        self.sent.write(id=event["id"])
        runs = await self._deliver(event)
        if runs is None:
            return
        self.accepted.write(source=event["source"], id=event["id"], runs=runs)
        self.count["events taken"] += 1
        if number % TWICE == 0 and (again := await self._deliver(event)) != runs:
            self.world.findings.append(f"event {event['id']} was answered with runs {runs}, and again with {again}")

    async def _deliver(self, event: Answer) -> list[str] | None:
        headers = {"content-type": "application/cloudevents+json"}
        status, answer = await self._answer("POST", "/v1/events", json=event, headers=headers)
        if status != 202:
            self.world.findings.append(f"event {event['id']} was refused with {status}: {answer}")
            return None
        (taken,) = answer["events"]
        self.count["events told to be duplicates"] += taken["duplicate"]
        return [run["id"] for run in taken["runs"]]

    async def review(self, name: str) -> None:
        """Answer for ever what is asked, in a race with the other reviewers."""
        said: dict[str, Answer] = {}
        while True:
            _, page = await self._answer("GET", "/v1/reviews?state=open&limit=100")
            asked = [review for review in page["items"] if random.random() < 0.7]
            await asyncio.gather(*(self._decide(name, review, said) for review in asked))
            await asyncio.sleep(AGAIN)

    async def _decide(self, name: str, review: Answer, said: dict[str, Answer]) -> None:
        about = review["id"]
        answer = said.setdefault(about, self._opinion(review))
        self.deciding.write(review=about, by=name, **answer)
        headers = {"Eventwright-Actor": name}
        status, told = await self._answer("POST", f"/v1/reviews/{about}/decision", json=answer, headers=headers)
        match status:
            case 200 if told["decision"]["by"] == name:
                self.decided.write(review=about, by=name, type=answer["type"])
                self.count["decisions acknowledged"] += 1
            case 409 | 410 if (told.get("decision") or {}).get("by") != name:
                self.count["decisions too late"] += 1  # whoever comes too late is told so, and nothing was promised
            case _:
                self.world.findings.append(f"{name}'s decision about {about} was answered with {status}: {told}")

    def _opinion(self, review: Answer) -> Answer:
        """Yes, and what is true: whoever is asked whether a call happened looks into the provider's book."""
        if review["kind"] == "in_doubt":
            evidence = review["evidence"]
            happened = bool(self.world.provider.find(evidence["tool"], evidence["idempotency_key"]))
            return {"type": "respond", "response": {"happened": happened}, "digest": review["digest"]}
        return {"type": "approve", "digest": review["digest"]}

    async def operate(self, every: float) -> None:
        """Take dead letters up again, for ever."""
        while True:
            await asyncio.sleep(every)
            _, answer = await self._answer("POST", "/v1/runs/replay", json={})
            self.count["dead letters taken up again"] += len(answer["runs"])

    # -- how they ask ------------------------------------------------------------------------------------------------

    async def _answer(self, method: str, path: str, **request: Any) -> tuple[int, Answer]:
        """Ask until there is an answer that is not "later"; who it was asked of may change."""
        while True:
            address = await self._somebody()
            self.under_way[address] += 1
            try:
                response = await self._client.request(method, address + path, **request)
            except httpx.TransportError:
                self.count["requests without an answer"] += 1
                await asyncio.sleep(AGAIN)
                continue
            finally:
                self.under_way[address] -= 1
            if response.status_code < 500 and response.status_code != TOO_BUSY:
                return response.status_code, _document(response)
            self.count["requests put off"] += 1
            if "retry-after" not in response.headers:
                status = response.status_code
                self.world.findings.append(f"{method} {path} was answered with {status}: {response.text}")
            await asyncio.sleep(AGAIN)

    async def _somebody(self) -> str:
        while not (there := [slot.address for slot in self.world.slots if slot.address is not None]):
            await asyncio.sleep(AGAIN)
        return random.choice(there)


def _document(response: httpx.Response) -> Answer:
    found: Mapping[str, Any] = response.json()
    return dict(found)
