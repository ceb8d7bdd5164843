"""PostgreSQL crashes and comes back, again and again, while events come in, runs are at work and people decide."""

from __future__ import annotations

import asyncio
import os
import signal
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest
import sqlalchemy as sa
from tests.faults.auditor import audit
from tests.faults.play import Cast, play
from tests.faults.scenes import SCENES
from tests.faults.trials import TIMES

from eventwright.app.settings import Settings
from eventwright.runs.errors import StoreUnavailable

#: How long the long form lasts.
SOAK_SECONDS = float(os.environ.get("SOAK_SECONDS", "600"))


def crash(server: Any) -> None:
    """Stop it as if it were killed, which it has to recover from, and start it again."""
    process = server.process.get_postmaster_info().process
    process.send_signal(signal.SIGQUIT)  # an "immediate" shutdown
    process.wait()
    server.process.ensure_postgres_running()


@pytest.fixture
def durable_url(postgres_url: str, postgres_server: Any) -> str:
    """A database whose commits outlive a crash; the others of the tests do not wait for the disk."""
    name = sa.make_url(postgres_url).database
    postgres_server.execute(f"ALTER DATABASE {name} SET synchronous_commit = on")
    return postgres_url


async def storm(server: Any, settings: Settings, *, crashes: int, every: float) -> None:
    """Play the errand again and again in one process after the other, until PostgreSQL has crashed so often.

    Args:
        every: seconds for which it is left alone in between.
    """
    scene, over, batch = SCENES["errand"], asyncio.Event(), 0

    async def crash_again_and_again() -> None:
        for _ in range(crashes):
            await asyncio.sleep(every)
            await asyncio.to_thread(crash, server)
        over.set()

    async with asyncio.TaskGroup() as tasks:
        tasks.create_task(crash_again_and_again())
        while not over.is_set():
            batch += 1
            with suppress(StoreUnavailable):  # it was down when a process began: the next one may have more luck
                await play(scene, settings, lambda: None, events=10 * batch)
    await play(scene, settings, lambda: None, events=10 * batch)
    cast = Cast(scene, settings.home)
    print("events", 10 * batch, "crashes", crashes)  # noqa: T201 - worth reading with -s
    assert await audit(settings.database, cast.outside(), scene.expected) == []
    assert len(cast.outside().accepted) == 10 * batch


@pytest.fixture
def settings(tmp_path: Path, durable_url: str, redis_url: str) -> Settings:
    return Settings(home=tmp_path, database_url=durable_url, redis_url=redis_url, **TIMES)


async def test_every_event_ends_and_nothing_happens_twice_though_postgresql_crashes_again_and_again(
    postgres_server: Any, settings: Settings
) -> None:
    await storm(postgres_server, settings, crashes=4, every=0.8)


@pytest.mark.soak
@pytest.mark.timeout(SOAK_SECONDS * 2 + 120)
async def test_the_same_holds_for_a_long_time(postgres_server: Any, settings: Settings) -> None:
    await storm(postgres_server, settings, crashes=round(SOAK_SECONDS / 6), every=5.0)
