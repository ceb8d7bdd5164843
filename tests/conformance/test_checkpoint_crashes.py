"""The saver on both stores while its workers are killed with kill -9, one after the other, or block their loop."""

from __future__ import annotations

import asyncio
import os
import random
import signal
import sys
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import timedelta
from pathlib import Path

import pytest
from tests.conformance.world import begin, leased, thread

from eventwright.runs.chain import hash_of
from eventwright.runs.checkpoints import CheckpointSaver
from eventwright.runs.database import open_database
from eventwright.runs.errors import DecisionRefused
from eventwright.runs.heartbeats import heartbeats
from eventwright.runs.records import Decision, DecisionType, ReviewState, Run
from eventwright.runs.store import Store

WORKER = Path(__file__).with_name("crashing_worker.py")


class Workers:
    """The process that forks workers which are there to be killed."""

    def __init__(self, process: asyncio.subprocess.Process) -> None:
        self._process = process

    async def answer(self) -> str:
        assert self._process.stdout is not None
        return (await self._process.stdout.readline()).decode().strip()

    async def start(self) -> int:
        assert self._process.stdin is not None
        self._process.stdin.write(b"another\n")
        return int(await self.answer())


@asynccontextmanager
async def workers(url: str) -> AsyncIterator[Workers]:
    pipe = asyncio.subprocess.PIPE
    process = await asyncio.create_subprocess_exec(sys.executable, str(WORKER), url, stdin=pipe, stdout=pipe)
    try:
        found = Workers(process)
        assert await found.answer() == "ready"
        yield found
    finally:
        assert process.stdin is not None
        process.stdin.close()
        await process.wait()


async def answer_open_reviews(store: Store) -> None:
    """What people do: they answer whatever is open."""
    for review in await store.reviews(state=ReviewState.OPEN):
        try:
            async with store.write() as tx:
                tx.decide(review, Decision(type=DecisionType.RESPOND, by="ann", response="yes"))
                tx.make_due(review.run_id)
                tx.wake(review.run_id, lane="default")
        except DecisionRefused as refused:
            raise AssertionError(f"two people decided {review.id}, but there is one") from refused


async def crash(url: str, *, kills: int, runs_a_kill: int) -> None:
    """Kill one worker after the other while runs come in, then let the last one finish and look at every run."""
    begun: list[Run] = []
    async with Store.open(url) as store, workers(url) as made:
        for _ in range(kills):
            begun += [await begin(store, workflow="crash") for _ in range(runs_a_kill)]
            worker = await made.start()
            until = time.monotonic() + random.uniform(0.05, 0.6)
            while time.monotonic() < until:
                await answer_open_reviews(store)
                await asyncio.sleep(0.01)
            os.kill(worker, signal.SIGKILL)
        worker = await made.start()
        async with asyncio.timeout(30 + len(begun)):
            while set(await store.counts()) != {("crash", "completed")}:
                await answer_open_reviews(store)
                await asyncio.sleep(0.02)
        os.kill(worker, signal.SIGKILL)
        taken_over = await verify(store, begun)
        assert taken_over > kills / 2, "most workers were killed while they held no run"


async def verify(store: Store, runs: list[Run]) -> int:
    """Every run came to its exact end, with one answer a question, and its journal is whole.

    Returns:
        How often a run was taken over from a worker that was killed.
    """
    saver, taken_over = CheckpointSaver(store), 0
    for run in runs:
        saved = await saver.aget_tuple(thread(run.id))
        assert saved is not None
        assert sorted(saved.checkpoint["channel_values"]["log"]) == ["ask yes yes", "begin", "end", "left", "right"]
        reviews = (await store.history(run.id)).reviews
        assert [review.state for review in reviews] == [ReviewState.DECIDED] * 2
        previous = ""
        for seq, entry in enumerate(await store.journal(run.id), start=1):
            assert (entry.seq, entry.prev, entry.hash) == (seq, previous, hash_of(entry))
            previous = entry.hash
            taken_over += "taken_over" in entry.data
    return taken_over


async def test_runs_survive_workers_that_are_killed_on_sqlite(sqlite_url: str) -> None:
    await crash(sqlite_url, kills=10, runs_a_kill=4)


@pytest.mark.soak
async def test_runs_survive_workers_that_are_killed_on_postgres(postgres_url: str) -> None:
    await crash(postgres_url, kills=5, runs_a_kill=4)


@pytest.mark.soak
@pytest.mark.timeout(1800)
async def test_a_thousand_runs_survive_hundreds_of_kills(database_url: str) -> None:
    await crash(database_url, kills=300, runs_a_kill=4)


async def test_a_worker_that_blocks_its_loop_keeps_its_runs(database_url: str) -> None:
    async with Store.open(database_url) as store, open_database(database_url) as database:
        run = await begin(store)
        async with heartbeats(database_url, "busy", [run.id], every=0.1, lease_seconds=30):
            await leased(store, run.id, worker="busy", seconds=0.5)
            time.sleep(1.5)
            async with store.write() as tx:
                stolen = tx.claim(run.id, worker="thief", seconds=6)
        assert stolen.lease is None
        due = (await store.run(run.id)).due_at
        assert due is not None
        assert due > await database.read(database.now) + timedelta(seconds=10)
