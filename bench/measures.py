"""What the benchmark measures on real processes: waiting for models, intake, latencies, recovery."""

from __future__ import annotations

import asyncio
import json
import statistics
import time
from collections import Counter
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import urlsplit

from processes import Place, looking_on, place, running, until

from eventwright.app.composition import App
from eventwright.runs.event import Event, new_id
from eventwright.runs.records import ReviewState
from eventwright.runs.states import RunState


@dataclass
class Client:
    """One connection to the API that is kept open. Lean, because it shares the cores with what it measures."""

    reader: asyncio.StreamReader
    writer: asyncio.StreamWriter
    host: str

    @classmethod
    async def connect(cls, address: str) -> Client:
        parts = urlsplit(address)
        reader, writer = await asyncio.open_connection(parts.hostname, parts.port)
        return cls(reader, writer, parts.netloc)

    async def post(self, path: str, body: Any, kind: str = "application/json") -> int:
        """Post JSON; the status of the answer."""
        content = json.dumps(body).encode()
        head = [
            f"POST {path} HTTP/1.1",
            f"host: {self.host}",
            f"content-type: {kind}",
            f"content-length: {len(content)}",
        ]
        self.writer.write("\r\n".join((*head, "", "")).encode() + content)
        answer = (await self.reader.readuntil(b"\r\n\r\n")).decode().lower()
        length = next(line for line in answer.split("\r\n") if line.startswith("content-length:"))
        await self.reader.readexactly(int(length.split(":")[1]))
        return int(answer.split()[1])

    async def close(self) -> None:
        self.writer.close()
        await self.writer.wait_closed()


@asynccontextmanager
async def connected(address: str, clients: int) -> AsyncIterator[list[Client]]:
    """So many connections, for as long as they are used: the API closes those that are idle."""
    connections = [await Client.connect(address) for _ in range(clients)]
    try:
        yield connections
    finally:
        for connection in connections:
            await connection.close()


def cloud_event(kind: str, data: dict[str, Any]) -> dict[str, Any]:
    """One CloudEvent with a name of its own."""
    return {"specversion": "1.0", "id": new_id("bench"), "source": "/bench", "type": kind, "data": data}


def share(values: Sequence[float], part: float) -> float:
    """The value below which this part of them lies."""
    return sorted(values)[min(len(values) - 1, int(part * len(values)))]


async def store_runs(app: App, kind: str, data: Sequence[dict[str, Any]]) -> list[str]:
    """Store an event for each; the ids of the runs."""
    runs: list[str] = []
    for start in range(0, len(data), 200):
        events = [Event(id=new_id("bench"), source="/bench", type=kind, data=one) for one in data[start : start + 200]]
        receipts = await asyncio.gather(*(app.engine.receive(event) for event in events))
        runs += [receipt.runs[0].id for receipt in receipts]
    return runs


async def finished(app: App, workflow: str) -> int:
    """How many runs of the workflow are completed."""
    return (await app.store.counts()).get((workflow, str(RunState.COMPLETED)), 0)


# -- many runs that wait for a model ---------------------------------------------------------------------------------


@dataclass
class Waiting:
    """A thousand runs of one node that waits a second, in one worker."""

    seconds: float
    #: Of the worker's memory, the most; and before it had any run.
    peak: int
    idle: int


async def waiting(kind: str, *, runs: int = 1000) -> Waiting:
    """From the first moment that the worker is up until the last run is completed."""
    with place(kind) as where:
        async with looking_on(where) as app:
            await store_runs(app, "waiting", [{"seconds": 0.0}])  # it warms up the first of everything
            async with running("worker", where, EVENTWRIGHT_CONCURRENCY=str(runs)) as (worker, _):
                await until(lambda: _are_finished(app, "waiting", 1))
                idle = worker.peak_memory
                began = time.perf_counter()
                await store_runs(app, "waiting", [{"seconds": 1.0}] * runs)
                await until(lambda: _are_finished(app, "waiting", 1 + runs))
                return Waiting(time.perf_counter() - began, worker.peak_memory, idle)


async def _are_finished(app: App, workflow: str, runs: int) -> bool:
    return await finished(app, workflow) >= runs


# -- intake ----------------------------------------------------------------------------------------------------------


@dataclass
class Intake:
    """Events that one API process has accepted, and how long it took."""

    single: float
    batched: float
    #: Seconds from request to answer, at a steady hundred events a second.
    answers: list[float] = field(default_factory=list)


async def intake(kind: str, *, seconds: float = 5.0, clients: int = 16) -> Intake:
    """Singly, in batches of fifty, and at a steady pace; nothing takes the runs up meanwhile."""
    data = {"log": [], "payload": "x" * 4000}
    with place(kind) as where:
        async with running("api", where) as (_, address):
            async with connected(address, clients) as connections:
                single = await _accepted(connections, "application/cloudevents+json", 1, data, seconds)
            async with connected(address, 4) as connections:
                batch = await _accepted(connections, "application/cloudevents-batch+json", 50, data, seconds)
            async with connected(address, clients) as connections:
                answers = await _paced(connections, data, seconds)
    return Intake(single, batch, answers)


async def _accepted(clients: Sequence[Client], kind: str, size: int, data: dict[str, Any], seconds: float) -> float:
    """Events accepted a second."""
    end = time.perf_counter() + seconds

    async def post(client: Client) -> int:
        accepted = 0
        while time.perf_counter() < end:
            events = [cloud_event("five-nodes", data) for _ in range(size)]
            status = await client.post("/v1/events", events[0] if size == 1 else events, kind)
            if status != 202:
                raise RuntimeError(f"an event of the benchmark was answered with {status}")
            accepted += size
        return accepted

    began = time.perf_counter()
    accepted = sum(await asyncio.gather(*(post(client) for client in clients)))
    return accepted / (time.perf_counter() - began)


async def _paced(clients: Sequence[Client], data: dict[str, Any], seconds: float, rate: int = 100) -> list[float]:
    """Seconds to each answer. An event that finds all connections busy waits, and that counts."""
    free: asyncio.Queue[Client] = asyncio.Queue()
    for client in clients:
        free.put_nowait(client)

    async def post(due: float) -> float:
        await asyncio.sleep(max(0.0, due - time.perf_counter()))
        client = await free.get()
        try:
            await client.post("/v1/events", cloud_event("five-nodes", data), "application/cloudevents+json")
        finally:
            free.put_nowait(client)
        return time.perf_counter() - due

    began = time.perf_counter() + 0.1
    return await asyncio.gather(*(post(began + number / rate) for number in range(int(seconds * rate))))


# -- latencies of an idle service ------------------------------------------------------------------------------------


async def to_first_node(kind: str, *, events: int = 100) -> list[float]:
    """Seconds from the answer to an event until its first node runs, one at a time; API and worker apart."""
    with place(kind) as where:
        async with running("api", where) as (_, address), running("worker", where), looking_on(where) as app:
            client = await Client.connect(address)
            waits = []
            for number in range(events + 5):
                await client.post("/v1/events", cloud_event("noted", {}), "application/cloudevents+json")
                answered = time.time()
                await until(lambda seen=number + 1: _are_finished(app, "noted", seen), every=0.01)
                [run] = await app.store.runs(limit=1)
                waits.append(await _noted(app, run.id) - answered)
            await client.close()
    return waits[5:]


async def to_resumed_node(kind: str, *, reviews: int = 100) -> list[float]:
    """Seconds from the answer to a decision until its node goes on, one at a time; API and worker apart."""
    with place(kind) as where:
        async with running("api", where) as (_, address), running("worker", where), looking_on(where) as app:
            await store_runs(app, "one-question", [{}] * (reviews + 5))
            await until(lambda: _are_open(app, reviews + 5))
            client = await Client.connect(address)
            waits = []
            asked = await app.store.reviews(state=ReviewState.OPEN, limit=reviews + 5)
            for number, review in enumerate(asked, 1):
                await client.post(f"/v1/reviews/{review.id}/decision", {"type": "approve"})
                answered = time.time()
                await until(lambda seen=number: _are_finished(app, "one-question", seen), every=0.01)
                waits.append(await _noted(app, review.run_id) - answered)
            await client.close()
    return waits[5:]


async def _are_open(app: App, reviews: int) -> bool:
    return len(await app.store.reviews(state=ReviewState.OPEN, limit=reviews)) == reviews


async def _noted(app: App, run_id: str) -> float:
    run = await app.store.run(run_id)
    graph = app.engine.runner.graph(app.engine.workflows.get(run.workflow, run.version))
    state = await graph.aget_state({"configurable": {"thread_id": run.thread_id}})
    return float(state.values["at"])


# -- recovery --------------------------------------------------------------------------------------------------------


@dataclass
class Recovery:
    """What became of the runs of a killed worker."""

    #: Seconds from the kill until another worker has the first, half, and the last of them.
    first: float
    median: float
    last: float
    lost: int
    #: Writes that reached the provider twice under different keys.
    doubled: int
    #: Writes that were repeated under the same key, which a provider takes for one.
    repeated: int


async def recovery(kind: str, *, runs: int = 200) -> Recovery:
    """Kill a worker that has this many runs in the middle of a node, with default settings; another one stands by."""
    with place(kind) as where:
        async with looking_on(where) as app:
            # Long enough that none is over when the worker dies.
            ids = await store_runs(
                app, "charging", [{"account": f"run {number}", "seconds": 5.0} for number in range(runs)]
            )
            async with running("worker", where, EVENTWRIGHT_CONCURRENCY=str(runs)) as (doomed, _):
                await until(lambda: _have_charged(where, runs), every=0.02)
                async with running("worker", where, EVENTWRIGHT_CONCURRENCY=str(runs)):
                    fences = {run.id: run.fence for run in await _all(app, ids)}
                    doomed.kill()
                    killed = time.perf_counter()
                    taken: dict[str, float] = {}
                    while len(taken) < runs:
                        for run in await _all(app, ids):
                            if run.id not in taken and (run.fence > fences[run.id] or run.state is RunState.COMPLETED):
                                taken[run.id] = time.perf_counter() - killed
                        await asyncio.sleep(0.05)
                    await until(lambda: _are_finished(app, "charging", runs))
            lines = (where.home / "provider.txt").read_text().splitlines()
    by_write = Counter(account for _, account in {tuple(line.split(" ", 1)) for line in lines})
    times = sorted(taken.values())
    return Recovery(
        first=times[0],
        median=statistics.median(times),
        last=times[-1],
        lost=2 * runs - len(by_write),
        doubled=sum(count - 1 for count in by_write.values()),
        repeated=len(lines) - len(set(lines)),
    )


async def _have_charged(where: Place, runs: int) -> bool:
    book = where.home / "provider.txt"
    return book.exists() and len(book.read_text().splitlines()) >= runs


async def _all(app: App, ids: Sequence[str]) -> list[Any]:
    found = await app.store.runs(workflow="charging", limit=len(ids) + 1)
    return [run for run in found if run.id in set(ids)]
