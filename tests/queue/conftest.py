"""What the tests of the room share: worlds, a Redis and a bell, shops whose changes start runs."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest
from redis import Redis
from tests.conftest import PostgresServer
from tests.outside import Provider, World, a_world
from tests.queue.shops import ORDERS, PostgresShop, Shop, SqliteShop
from tests.queue.waiting_world import StillClock

from eventwright.queue.embedded import embedded_valkey
from eventwright.queue.wakeups import Bell
from eventwright.runs.store import Store


@pytest.fixture
async def world(database_url: str) -> AsyncIterator[World]:
    """A store, a clock, a provider and a process, on each of the two databases."""
    async with a_world(database_url) as world:
        yield world


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
