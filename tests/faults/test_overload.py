"""A service that is sent more than it can do, for long: what it takes it has, the rest is told when to come again."""

from __future__ import annotations

import asyncio
import os
import time
from collections import Counter
from contextlib import suppress
from dataclasses import dataclass, field
from itertools import count
from pathlib import Path
from typing import Any

import httpx
import pytest

from eventwright.runs.states import RunState

#: How long the long form lasts.
SOAK_SECONDS = float(os.environ.get("SOAK_SECONDS", "600"))
MEGABYTE = 1 << 20
#: What a process may grow by while it is sent too much.
MOST_GROWTH = 64 * MEGABYTE
JSON = {"content-type": "application/cloudevents+json"}


@dataclass
class Crowd:
    """Senders that send one event after the other, as fast as they are answered, and note what they were told."""

    url: str
    senders: int = 40
    #: How long each of the events' runs naps, three times.
    nap: float = 0.0
    numbers: count[int] = field(default_factory=count)
    accepted: dict[str, str] = field(default_factory=dict)
    refused: list[str] = field(default_factory=list)
    #: Every other answer, by status.
    others: Counter[int] = field(default_factory=Counter)
    seconds: list[float] = field(default_factory=list)

    async def send_for(self, seconds: float) -> None:
        until = time.monotonic() + seconds
        limits = httpx.Limits(max_connections=self.senders)
        async with httpx.AsyncClient(base_url=self.url, headers=JSON, timeout=60, limits=limits) as client:
            await asyncio.gather(*(self._send(client, until) for _ in range(self.senders)))

    async def _send(self, client: httpx.AsyncClient, until: float) -> None:
        while time.monotonic() < until:
            await self.send(client, str(next(self.numbers)))

    async def send(self, client: httpx.AsyncClient, name: str) -> None:
        event = {"specversion": "1.0", "id": name, "source": "/crowd", "type": "naps", "data": {"seconds": self.nap}}
        began, answer = time.monotonic(), None
        while answer is None:
            with suppress(httpx.TransportError):  # whoever was not told anything says it again
                answer = await client.post("/v1/events", json=event)
        match answer.status_code:
            case 202:
                self.accepted[name] = answer.json()["events"][0]["runs"][0]["id"]
                self.seconds.append(time.monotonic() - began)
            case 429 if int(answer.headers["retry-after"]) > 0:
                self.refused.append(name)
            case other:
                self.others[other] += 1

    def told(self) -> str:
        ordered = sorted(self.seconds)
        return (
            f"accepted {len(self.accepted)}, refused {len(self.refused)}, "
            f"99th percentile of the accepted {ordered[len(ordered) * 99 // 100] * 1000:.0f} ms"
        )


def memory(process: asyncio.subprocess.Process) -> int:
    """Bytes of memory that the process has at present."""
    pages = int(Path(f"/proc/{process.pid}/statm").read_text().split()[1])
    return pages * os.sysconf("SC_PAGE_SIZE")


async def stored(app: Any, most: int) -> dict[str, str]:
    """The runs in the database, by the ids of their events."""
    return {run.event.id: run.id for run in await app.store.runs(limit=most)}


@pytest.mark.soak
async def test_what_is_accepted_is_stored_and_everything_else_is_a_429(service: Any) -> None:
    most = 200
    api, url = await service.serve(max_backlog=most)
    crowd = Crowd(url)
    await crowd.send_for(1.0)
    before = memory(api)
    await crowd.send_for(3.0)
    print(crowd.told())  # noqa: T201 - worth reading with -s
    assert crowd.others == {}
    assert len(crowd.accepted) == most
    assert crowd.refused
    assert memory(api) - before < MOST_GROWTH

    async with service.working(concurrency=50) as app:
        assert await stored(app, 10 * most) == crowd.accepted
        runs = await service.final(app, list(crowd.accepted.values()))
        assert {run.state for run in runs} == {RunState.COMPLETED}
        async with httpx.AsyncClient(base_url=url, headers=JSON, timeout=60) as client:
            again = crowd.refused.pop()
            while again not in crowd.accepted:  # it counts the runs that wait once a second
                await asyncio.sleep(0.1)
                await crowd.send(client, again)
        await service.final(app, [crowd.accepted[again]])
    assert service.ledger("woke") == dict.fromkeys(crowd.accepted.values(), 3)


@pytest.mark.soak
@pytest.mark.timeout(2 * SOAK_SECONDS + 300)
async def test_the_same_holds_for_a_long_time_with_workers_behind_it(service: Any) -> None:
    """Memory is looked at when the first tenth of the time is over, and when all of it is."""
    most = 100
    (api, url), worker = await asyncio.gather(service.serve(max_backlog=most), service.start(concurrency=20))
    crowd = Crowd(url, nap=0.3)
    await crowd.send_for(SOAK_SECONDS / 10)
    before = memory(api), memory(worker)
    await crowd.send_for(SOAK_SECONDS * 9 / 10)
    growth = memory(api) - before[0], memory(worker) - before[1]
    print(crowd.told(), f"growth of API and worker {[size // MEGABYTE for size in growth]} MB")  # noqa: T201
    assert crowd.others == {}
    assert crowd.accepted
    assert crowd.refused
    async with service.app() as app:
        while await app.store.backlog(most=most):
            await asyncio.sleep(0.5)
        assert len(await stored(app, 100_000_000)) == len(crowd.accepted)
        for some in range(0, len(crowd.accepted), 500):
            runs = await service.final(app, list(crowd.accepted.values())[some : some + 500])
            assert {run.state for run in runs} == {RunState.COMPLETED}
    assert max(growth) < MOST_GROWTH
