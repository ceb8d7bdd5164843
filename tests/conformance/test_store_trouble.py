"""A database without room, without its lock, or shut down: nothing is half stored, and it goes on by itself."""

from __future__ import annotations

import asyncio
import json
import resource
import signal
import sqlite3
import subprocess
import sys
from collections.abc import Awaitable
from contextlib import closing
from typing import Any

import pytest
import sqlalchemy as sa
from tests.conformance.world import assert_unbroken, begin, claim, event

from eventwright.runs import database, health, schema
from eventwright.runs.errors import StoreUnavailable, Trouble
from eventwright.runs.states import RunState
from eventwright.runs.store import Store

#: More than the pages that a database has to spare.
LARGE = {"text": "x" * 200_000}


async def trouble(work: Awaitable[Any]) -> Trouble:
    with pytest.raises(StoreUnavailable) as caught:
        await work
    return caught.value.trouble


async def rows(store: Store) -> dict[str, int]:
    tables = (schema.events, schema.runs, schema.journal, schema.wakeups)
    counts = {
        table.name: await store.rows_of(sa.select(sa.func.count().label("n")).select_from(table)) for table in tables
    }
    return {name: found[0]["n"] for name, found in counts.items()}


async def let_grow(store: Store, pages: int) -> None:
    """So many pages may the database have, not one more; less than it has are as many as it has."""
    await store._database.write(lambda connection: connection.exec_driver_sql(f"PRAGMA max_page_count={pages}"))


async def test_a_full_sqlite_says_so_stores_nothing_by_halves_and_goes_on_when_there_is_room(sqlite_url: str) -> None:
    async with Store.open(sqlite_url) as store:
        run = await begin(store)
        before = await rows(store)
        await let_grow(store, 1)
        many = (trouble(begin(store, event=event(data=LARGE))) for _ in range(20))
        assert set(await asyncio.gather(*many)) == {Trouble.FULL}
        assert await rows(store) == before
        assert await trouble(store.ping()) is Trouble.FULL, "it can be read, and is not ready"
        assert (await store.run(run.id)).state is RunState.RECEIVED

        await let_grow(store, 1_000_000)
        later = await begin(store, event=event(data=LARGE))
        await store.ping()
        assert (await store.run(later.id)).event.data == LARGE
        assert_unbroken(await store.journal(later.id))


async def test_a_trouble_that_nobody_ran_into_again_is_forgotten(
    sqlite_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Else a service that nobody sends to, because it is not ready, would never be ready again."""
    monkeypatch.setattr(health, "MEMORY", 0.0)
    async with Store.open(sqlite_url) as store:
        await let_grow(store, 1)
        await trouble(begin(store, event=event(data=LARGE)))
        await store.ping()


def test_a_disk_without_room_is_survived_by_the_process_that_ran_into_it(sqlite_url: str) -> None:
    """The limit on the size of files stands for a full disk; the child lifts it, as if somebody had made room."""
    code = (
        "import asyncio, sys; from tests.conformance.test_store_trouble import in_a_small_world;"
        "asyncio.run(in_a_small_world(sys.argv[1]))"
    )
    child = subprocess.run([sys.executable, "-c", code, sqlite_url], capture_output=True, text=True, check=False)

    assert child.returncode == 0, child.stderr
    told = json.loads(child.stdout)
    assert told["trouble"] in (Trouble.FULL, Trouble.UNWRITABLE)
    assert told["stored"] == told["accepted"] > 0
    assert told["refused"] > 0
    assert told["not ready"] == told["trouble"]


async def in_a_small_world(url: str) -> None:
    """What the child does."""
    signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    _, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    told: dict[str, Any] = {"accepted": 0, "refused": 0}
    async with Store.open(url) as store:
        resource.setrlimit(resource.RLIMIT_FSIZE, (2_000_000, hard))
        while not told["refused"]:
            try:
                await begin(store, event=event(data=LARGE))
                told["accepted"] += 1
            except StoreUnavailable as error:
                told["refused"] += 1
                told["trouble"] = error.trouble
        told["not ready"] = await trouble(store.ping())
        resource.setrlimit(resource.RLIMIT_FSIZE, (hard, hard))
        await begin(store, event=event(data=LARGE))
        told["accepted"] += 1
        await store.ping()
        counted = await rows(store)
        assert counted["events"] == counted["runs"] == counted["journal"] == counted["wakeups"], counted
        told["stored"] = counted["runs"]
    print(json.dumps(told))  # noqa: T201 - to the parent


async def test_who_waits_for_a_lock_is_told_so_in_time_and_goes_on_once_it_is_free(
    sqlite_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(database, "LOCK_SECONDS", 0.2)
    async with Store.open(sqlite_url) as store:
        run = await begin(store)
        with closing(sqlite3.connect(str(sa.make_url(sqlite_url).database), isolation_level=None)) as other:
            other.execute("BEGIN IMMEDIATE")
            assert await trouble(claim(store, run.id)) is Trouble.LOCKED
            assert (await store.run(run.id)).state is RunState.RECEIVED
            other.execute("ROLLBACK")
        assert await claim(store, run.id) is not None
        await store.ping()


async def test_a_postgresql_that_is_shut_down_is_away_until_it_runs_again(
    postgres_url: str, postgres_server: Any
) -> None:
    async with Store.open(postgres_url) as store:
        run = await begin(store)
        with postgres_server.stopped():
            assert await trouble(store.run(run.id)) is Trouble.AWAY
            assert await trouble(claim(store, run.id)) is Trouble.AWAY
            assert await trouble(store.ping()) is Trouble.AWAY
        assert await claim(store, run.id) is not None
        await store.ping()
        assert await rows(store) == {"events": 1, "runs": 1, "journal": 2, "wakeups": 0}
