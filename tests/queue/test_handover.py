"""Workers of different lanes, each woken for what is theirs: a run comes to the lane of its next node by a bell."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

import pytest
from tests.queue.place import Crowd, Place, rested, send, workflow

from eventwright.guardrails.policy import Policy
from eventwright.runs.records import JournalKind
from eventwright.runs.states import RunState

#: Sweeps come once in a quarter of an hour: whatever is taken up at once was rung for.
RARELY = {"sweep_seconds": 1000}
LLM = {"node1": Policy(lane="llm")}


@pytest.fixture
def place(tmp_path: Path, database_url: str, redis_url: str) -> Place:
    return Place(tmp_path, database_url, redis_url)


async def handed_over(app: Any, run_id: str) -> list[str]:
    journal = await app.store.journal(run_id)
    return [entry.data["lane"] for entry in journal if entry.kind is JournalKind.TRANSITION and "lane" in entry.data]


async def test_a_run_waits_in_its_lane_until_a_worker_of_it_comes_and_is_rung_for_on_the_way_back(place: Place) -> None:
    crowd = Crowd()
    work = workflow("work", *[crowd.node] * 3, policies=LLM)
    async with place.worker(work, **RARELY) as app:
        ids = await send(app, "work", 5)
        while {(await app.store.run(run_id)).lane for run_id in ids} != {"llm"}:
            await asyncio.sleep(0.02)
        runs = await rested(app, ids, RunState.RECEIVED)
        assert {(run.lane, run.attempts, run.crashes) for run in runs} == {("llm", 1, 0)}
        async with place.worker(work, **RARELY, lane="llm"):
            runs = await rested(app, ids)
        assert {run.state for run in runs} == {RunState.COMPLETED}
        assert [await handed_over(app, run_id) for run_id in ids] == [["llm", "default"]] * 5
    assert crowd.visits == 15


async def test_a_worker_of_both_lanes_keeps_its_runs(place: Place) -> None:
    crowd = Crowd()
    work = workflow("work", *[crowd.node] * 3, policies=LLM)
    async with place.worker(work, **RARELY, lane="llm,default") as app:
        ids = await send(app, "work", 5)
        await rested(app, ids)
        assert [await handed_over(app, run_id) for run_id in ids] == [[]] * 5


async def test_without_redis_the_sweep_of_the_other_lane_finds_it(tmp_path: Path, sqlite_url: str) -> None:
    crowd, place = Crowd(), Place(tmp_path, sqlite_url, "none")
    work = workflow("work", *[crowd.node] * 3, policies=LLM)
    brisk = {"sweep_seconds": 0.3}
    async with place.worker(work, **brisk) as app, place.worker(work, **brisk, lane="llm"):
        ids = await send(app, "work", 5)
        assert {run.state for run in await rested(app, ids)} == {RunState.COMPLETED}
        assert [await handed_over(app, run_id) for run_id in ids] == [["llm", "default"]] * 5
