"""Workers at work and what RQ shows of them: what the tests of the carrier share."""

from __future__ import annotations

import asyncio
import uuid
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager

from redis import Redis
from rq import Worker as RqWorker

from eventwright.queue.wakeups import WakeUp
from eventwright.queue.worker import Handle, Worker


@asynccontextmanager
async def serving(
    url: str,
    handle: Handle,
    stopping: asyncio.Event | None = None,
    *,
    lanes: Sequence[str] = ("default",),
    concurrency: int = 100,
    drain: float = 30.0,
) -> AsyncIterator[Worker]:
    """A worker at work; leaving the block drains it and raises what it raised."""
    worker = Worker(url, lanes=lanes, concurrency=concurrency, drain_seconds=drain)
    stopping = stopping or asyncio.Event()
    served = asyncio.create_task(worker.serve(handle, stopping))
    try:
        yield worker
    finally:
        stopping.set()
        await served


async def eventually(holds: Callable[[], object]) -> None:
    """Wait until something holds; pytest's timeout is the only limit."""
    while not await asyncio.to_thread(holds):
        await asyncio.sleep(0.02)


class Runs:
    """A handle whose runs go on until they are let go."""

    def __init__(self) -> None:
        self.begun: list[str] = []
        self.ended: list[str] = []
        self.cancelled: list[str] = []
        self.go = asyncio.Event()

    async def __call__(self, run_id: str) -> None:
        self.begun.append(run_id)
        try:
            await self.go.wait()
        except asyncio.CancelledError:
            self.cancelled.append(run_id)
            raise
        self.ended.append(run_id)


def wakeups(count: int) -> list[WakeUp]:
    """Rows of the outbox, for run-0, run-1, ..."""
    return [(str(uuid.uuid4()), f"run-{number}", "default") for number in range(count)]


def shown(redis: Redis) -> list[tuple[str, int, int]]:
    """State, finished and failed of each worker, as RQ reads them."""
    workers = RqWorker.all(connection=redis)
    return [(worker.get_state(), worker.successful_job_count, worker.failed_job_count) for worker in workers]


def leftovers(redis: Redis) -> list[bytes]:
    """Every key of a job, a list or a registry."""
    kinds = ("rq:job:*", "rq:execution*", "rq:wip:*", "rq:queue:eventwright:default*", "rq:results:*")
    return [key for kind in kinds for key in redis.scan_iter(kind)]
