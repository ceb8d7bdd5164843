"""What time it is says the database, and it is not asked again and again."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

import pytest
import sqlalchemy as sa
from tests.conformance.world import NOW, Clock, begin

from eventwright.runs import database
from eventwright.runs.store import Store


async def test_the_recent_time_is_the_databases_and_never_ahead_of_it(database_url: str) -> None:
    async with Store.open(database_url) as store:
        for _ in range(3):
            before, recent, after = await store.now(), await store.recent_now(), await store.now()
            assert before - timedelta(seconds=1) < recent <= after
            await begin(store)


async def test_whoever_has_just_written_knows_the_time_without_asking(postgres_url: str) -> None:
    asked: list[str] = []

    def hear(_connection: Any, _cursor: Any, statement: str, *_: Any) -> None:
        asked.append(statement)

    async with Store.open(postgres_url) as store:
        await begin(store)
        reading = store._database._reading.sync_engine  # type: ignore[attr-defined]
        sa.event.listen(reading, "before_cursor_execute", hear)
        recent = await store.recent_now()
        assert asked == []
        assert recent <= await store.now()


async def test_a_time_that_was_heard_long_ago_is_asked_for_again(
    postgres_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with Store.open(postgres_url) as store:
        await begin(store)
        store._database._heard = (NOW, store._database._heard[1])  # type: ignore[index]
        assert (await store.recent_now()).date() == NOW.date()
        monkeypatch.setattr(database, "HEARD_SECONDS", -1.0)
        assert await store.recent_now() > NOW + timedelta(days=100)


async def test_a_clock_that_replaces_the_databases_has_the_last_word(database_url: str) -> None:
    clock = Clock()
    async with Store.open(database_url, clock=clock) as store:
        await begin(store)
        clock.pass_seconds(3600)
        assert await store.recent_now() == NOW + timedelta(hours=1)
