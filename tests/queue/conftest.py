"""What the tests of the carrier share: a client to look with, workers that are stopped again, and waiting."""

from __future__ import annotations

import asyncio
import uuid
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Sequence
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from pathlib import Path

import pytest
from redis import Redis
from rq import Worker as RqWorker
from tests.conftest import PostgresServer
from tests.outside import Provider, World
from tests.queue.shops import ORDERS, PostgresShop, Shop, SqliteShop
from tests.queue.waiting_world import StillClock

from eventwright.queue.embedded import embedded_valkey
from eventwright.queue.wakeups import Bell, WakeUp
from eventwright.queue.worker import Handle, Worker
from eventwright.runs.store import Store

Wakeups = Callable[[int], list[WakeUp]]
Serving = Callable[..., AbstractAsyncContextManager[Worker]]
Eventually = Callable[[Callable[[], object]], Awaitable[None]]


@pytest.fixture
async def still(database_url: str) -> AsyncIterator[World]:
    """A world whose clock stands still."""
    clock = StillClock()
    async with Store.open(database_url, clock=clock) as store:
        yield World(store, clock, Provider(), None)


@pytest.fixture
async def own_redis_url(tmp_path: Path) -> AsyncIterator[str]:
    """A server for this test alone, which it may kill; its home is `tmp_path`."""
    async with embedded_valkey(tmp_path) as url:
        yield url


@pytest.fixture
def redis(redis_url: str) -> Iterator[Redis]:
    with Redis.from_url(redis_url) as client:
        yield client


@pytest.fixture
async def bell(redis_url: str) -> AsyncIterator[Bell]:
    bell = Bell(redis_url)
    yield bell
    await bell.close()


@pytest.fixture
def serving() -> Serving:
    """A worker at work; leaving the block drains it and raises what it raised."""

    @asynccontextmanager
    async def serve(
        url: str,
        handle: Handle,
        stopping: asyncio.Event | None = None,
        *,
        lanes: Sequence[str] = ("default",),
        concurrency: int = 100,
        drain: float = 30.0,
    ) -> AsyncIterator[Worker]:
        worker = Worker(url, lanes=lanes, concurrency=concurrency, drain_seconds=drain)
        stopping = stopping or asyncio.Event()
        served = asyncio.create_task(worker.serve(handle, stopping))
        try:
            yield worker
        finally:
            stopping.set()
            await served

    return serve


@pytest.fixture
def eventually() -> Eventually:
    """Wait until something holds; pytest's timeout is the only limit."""

    async def wait(holds: Callable[[], object]) -> None:
        while not await asyncio.to_thread(holds):
            await asyncio.sleep(0.02)

    return wait


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


@pytest.fixture
def new_runs() -> type[Runs]:
    return Runs


@pytest.fixture
def wakeups() -> Wakeups:
    """Rows of the outbox, for run-0, run-1, ..."""
    return lambda count: [(str(uuid.uuid4()), f"run-{number}", "default") for number in range(count)]


@pytest.fixture
def shown() -> Callable[[Redis], list[tuple[str, int, int]]]:
    """State, finished and failed of each worker, as RQ reads them."""

    def of(redis: Redis) -> list[tuple[str, int, int]]:
        workers = RqWorker.all(connection=redis)
        return [(worker.get_state(), worker.successful_job_count, worker.failed_job_count) for worker in workers]

    return of


@pytest.fixture
def leftovers() -> Callable[[Redis], list[bytes]]:
    """Every key of a job, a list or a registry."""
    kinds = ("rq:job:*", "rq:execution*", "rq:wip:*", "rq:queue:eventwright:default*", "rq:results:*")
    return lambda redis: [key for kind in kinds for key in redis.scan_iter(kind)]


@pytest.fixture
def postgres_shop_url(postgres_server: PostgresServer) -> Iterator[str]:
    with postgres_server.database() as url:
        yield url


@pytest.fixture(params=["sqlite", "postgres"])
async def shop(request: pytest.FixtureRequest, tmp_path: Path) -> Shop:
    """A database with a table of orders."""
    if request.param == "sqlite":
        (tmp_path / "shop.db").touch()
        shop: Shop = SqliteShop(f"sqlite:///{tmp_path / 'shop.db'}")
    else:
        shop = PostgresShop(request.getfixturevalue("postgres_shop_url"))
    await shop.run(ORDERS)
    return shop
