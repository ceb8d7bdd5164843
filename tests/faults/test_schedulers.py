"""Schedulers that are killed while others fire the same ticks: every tick fires, and none twice."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from tests.faults.scheduler_process import scheduler_on

from eventwright.runs.store import Store

ROOT = Path(__file__).parents[2]
MINUTES = 20


@contextmanager
def processes(
    database_url: str, at: datetime, hurts: Sequence[tuple[dict[str, Any], Path]]
) -> Iterator[list[subprocess.Popen[bytes]]]:
    """Schedulers in processes of their own, at that time by the database; they are gone at the end.

    Args:
        hurts: for each what is wrong with it, and the file that lets it begin.
    """
    started = []
    try:
        for hurt, go in hurts:
            command = [sys.executable, "-m", "tests.faults.hurt", json.dumps(hurt)]
            command += ["tests.faults.scheduler_process", database_url, at.isoformat(), str(go)]
            started.append(subprocess.Popen(command, cwd=ROOT, env=os.environ | {"PYTHONPATH": str(ROOT)}))
        yield started
    finally:
        for process in started:
            process.kill()
            process.wait()


@pytest.mark.parametrize("database_url", ["postgres", pytest.param("sqlite", marks=pytest.mark.soak)], indirect=True)
@pytest.mark.parametrize(
    "point",
    [
        "intake.stored",
        pytest.param("intake.storing", marks=pytest.mark.soak),
        pytest.param("commit.applied", marks=pytest.mark.soak),
    ],
)
async def test_two_schedulers_are_killed_at_their_ticks_and_each_tick_fires_once(
    database_url: str, tmp_path: Path, point: str
) -> None:
    """Both begin at once and die at a boundary of a tick, before or after it fires; a third goes on, until SIGTERM."""
    begin = datetime.now(UTC).replace(second=30, microsecond=0)
    wanted = [begin + timedelta(minutes=number, seconds=30) for number in range(MINUTES)]
    now, later = tmp_path / "now", tmp_path / "later"
    killed = {"kill": point, "armed": str(now)}
    async with Store.open(database_url, clock=lambda: begin) as store:
        await scheduler_on(store).once()
        hurts = [(killed, now), (killed, now), ({}, later)]
        with processes(database_url, begin + timedelta(minutes=MINUTES), hurts) as (first, second, last):
            now.touch()
            assert await asyncio.to_thread(first.wait) == await asyncio.to_thread(second.wait) == -signal.SIGKILL
            assert len(await store.events()) <= 2
            later.touch()
            while len(await store.events(limit=100)) < MINUTES:
                assert last.poll() is None
                await asyncio.sleep(0.02)
            last.terminate()
            assert await asyncio.to_thread(last.wait) == 0
        events, runs = await store.events(limit=100), await store.runs(limit=100)
    assert [one.event.time for one in reversed(events)] == wanted
    assert sorted(run.event.uid for run in runs) == sorted(one.event.uid for one in events)
