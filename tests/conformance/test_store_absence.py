"""A store whose database is away says so, and works again as soon as it is back."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

import pytest
import sqlalchemy as sa
from tests.conformance.world import begin, claim

from eventwright.runs import migrate
from eventwright.runs.errors import StoreUnavailable
from eventwright.runs.states import RunState
from eventwright.runs.store import Store


async def test_a_store_whose_database_is_not_there_yet_works_as_soon_as_it_is(tmp_path: Path) -> None:
    folder = tmp_path / "later"
    url = f"sqlite:///{folder / 'eventwright.db'}"
    async with Store.open(url) as store:
        with pytest.raises(StoreUnavailable):
            await store.ping()
        answers = await asyncio.gather(*(begin(store) for _ in range(20)), return_exceptions=True)
        assert {type(answer) for answer in answers} == {StoreUnavailable}
        folder.mkdir()
        await migrate.upgrade(url)

        run = await begin(store)
        assert (await store.run(run.id)).state is RunState.RECEIVED


async def test_connections_that_the_server_dropped_cost_nobody_anything(
    postgres_url: str, postgres_server: Any
) -> None:
    async with Store.open(postgres_url) as store:
        run = await begin(store)
        await asyncio.gather(*(store.run(run.id) for _ in range(20)))
        await asyncio.to_thread(postgres_server.execute, _drop_connections(postgres_url))

        await asyncio.gather(*(store.run(run.id) for _ in range(20)))
        assert await claim(store, run.id) is not None


async def test_a_server_that_is_away_is_said_so_and_found_again(postgres_url: str, postgres_server: Any) -> None:
    database = sa.make_url(postgres_url).database
    async with Store.open(postgres_url) as store:
        run = await begin(store)
        closed = f"ALTER DATABASE {database} ALLOW_CONNECTIONS false"
        await asyncio.to_thread(postgres_server.execute, closed, _drop_connections(postgres_url))
        with pytest.raises(StoreUnavailable):
            await store.run(run.id)
        answers = await asyncio.gather(*(begin(store) for _ in range(20)), return_exceptions=True)
        assert {type(answer) for answer in answers} == {StoreUnavailable}
        await asyncio.to_thread(postgres_server.execute, f"ALTER DATABASE {database} ALLOW_CONNECTIONS true")

        assert await claim(store, run.id) is not None
        assert len(await store.events()) == 1


def _drop_connections(url: str) -> str:
    database = sa.make_url(url).database
    return f"SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = '{database}'"  # noqa: S608 - ours
