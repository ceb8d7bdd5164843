"""Whatever is due is seen to: at its time, without Redis as with it, and whoever was at work on it before.

Most sweeps here come once in a quarter of an hour, so whatever ends at all was not found by waiting for one.
"""

from __future__ import annotations

import asyncio
import os
import signal
from collections import Counter
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
import sqlalchemy as sa
from langgraph.types import interrupt
from redis import Redis
from tests.queue.place import Crowd, Place, State, rested, send, workflow

from eventwright.guardrails.policy import Backoff, Policy, review
from eventwright.guardrails.rules import always
from eventwright.queue.embedded import embedded_valkey
from eventwright.queue.sweep import Sweep
from eventwright.queue.wakeups import lane_queue
from eventwright.runs.database import open_database
from eventwright.runs.records import Decision, DecisionType
from eventwright.runs.states import Reason, RunState
from eventwright.tools.contract import tool

RARELY, BRISK = {"sweep_seconds": 1000}, {"lease_seconds": 1.5, "heartbeat_seconds": 0.5, "sweep_seconds": 0.5}


@pytest.fixture
def place(tmp_path: Path, database_url: str, redis_url: str) -> Place:
    return Place(tmp_path, database_url, redis_url)


@pytest.fixture(params=["redis", "none"])
def either_way(request: pytest.FixtureRequest, tmp_path: Path, sqlite_url: str) -> Place:
    """With Redis and without; the database has no part in it."""
    redis_url = "none" if request.param == "none" else request.getfixturevalue("redis_url")
    return Place(tmp_path, sqlite_url, redis_url)


class TestSegmentsThatFail:
    async def test_a_workflow_that_cannot_even_be_compiled_ends_no_other_run_and_is_put_aside(
        self, either_way: Place
    ) -> None:
        crowd = Crowd()
        broken = workflow("broken", crowd.node)
        broken.graph.add_edge("node0", "nowhere")
        works = workflow("fine", crowd.node), broken
        async with either_way.worker(*works, **BRISK | {"lease_seconds": 0.5, "heartbeat_seconds": 0.2}) as app:
            (put_aside,), fine = await send(app, "broken"), await send(app, "fine", 5)
            assert {run.state for run in await rested(app, fine)} == {RunState.COMPLETED}
            (run,) = await rested(app, [put_aside], RunState.FAILED)
            assert run.reason is not None
            assert {run.state for run in await rested(app, await send(app, "fine", 5))} == {RunState.COMPLETED}

    async def test_connections_that_break_under_way_delay_runs_and_lose_none(
        self, tmp_path: Path, postgres_url: str, redis_url: str
    ) -> None:
        crowd, place = Crowd(), Place(tmp_path, postgres_url, redis_url)
        async with place.worker(workflow("crowd", *[crowd.node] * 5), **BRISK) as app:
            ids = await send(app, "crowd", 20)
            async with open_database(postgres_url) as other:
                for _ in range(5):
                    await asyncio.sleep(0.05)
                    await other.read(_break_all_other_connections)
            while True:
                try:
                    assert {run.state for run in await rested(app, ids)} == {RunState.COMPLETED}
                    break
                except ConnectionError:
                    continue  # one of ours was broken, too


class TestRedisThatVanishes:
    async def test_runs_are_finished_though_redis_is_emptied_again_and_again(
        self, place: Place, redis_url: str
    ) -> None:
        crowd = Crowd()
        async with place.worker(workflow("crowd", crowd.node, crowd.node), **BRISK, concurrency=10) as app:
            ids = await send(app, "crowd", 60)
            with Redis.from_url(redis_url) as redis:
                for _ in range(5):
                    await asyncio.sleep(0.05)
                    redis.flushall()
            runs = await rested(app, ids)
        assert {(run.state, run.crashes) for run in runs} == {(RunState.COMPLETED, 0)}
        assert crowd.visits == 120

    async def test_events_that_come_while_redis_is_away_are_stored_and_finished_and_bells_ring_when_it_is_back(
        self, tmp_path: Path, sqlite_url: str
    ) -> None:
        crowd = Crowd()
        async with embedded_valkey(tmp_path) as url:
            place = Place(tmp_path, sqlite_url, url)
            async with place.worker(workflow("crowd", crowd.node), **BRISK) as app, place.process() as idle:
                await rested(app, await send(app, "crowd", 5))
                with Redis.from_url(url) as redis:
                    os.kill(redis.info("server")["process_id"], signal.SIGKILL)
                away = await send(app, "crowd", 20)
                assert {run.state for run in await rested(app, away)} == {RunState.COMPLETED}
                async with embedded_valkey(tmp_path):
                    idle.ringer.nudge()
                    await rested(app, await send(app, "crowd", 20))
                    with Redis.from_url(url) as redis:
                        while not lane_queue("default", redis).connection.exists("rq:workers"):
                            await asyncio.sleep(0.02)
        assert crowd.visits == 45

    async def test_a_worker_keeps_to_its_concurrency_while_redis_is_away(self, tmp_path: Path, sqlite_url: str) -> None:
        crowd, place = Crowd(), Place(tmp_path, sqlite_url, f"unix://{tmp_path}/nobody.sock")
        async with place.worker(workflow("crowd", crowd.node), **BRISK, concurrency=4) as app:
            await rested(app, await send(app, "crowd", 30))
        assert crowd.most == 4


class TestWithoutRedis:
    async def test_the_sweep_alone_finishes_everything_and_keeps_to_its_concurrency(
        self, tmp_path: Path, database_url: str
    ) -> None:
        crowd, place = Crowd(), Place(tmp_path, database_url, "none")
        async with place.worker(workflow("crowd", *[crowd.node] * 3), **RARELY, concurrency=5) as app:
            runs = await rested(app, await send(app, "crowd", 40))
        assert {(run.state, run.attempts, run.crashes) for run in runs} == {(RunState.COMPLETED, 1, 0)}
        assert (crowd.visits, crowd.most) == (120, 5)

    async def test_events_that_come_one_by_one_are_never_overlooked(self, tmp_path: Path, sqlite_url: str) -> None:
        crowd, place = Crowd(), Place(tmp_path, sqlite_url, "none")
        async with place.worker(workflow("crowd", crowd.node), **RARELY) as app:
            ids = []
            for number in range(100):
                ids += await send(app, "crowd")
                await asyncio.sleep(number / 10_000)
            await rested(app, ids)

    async def test_what_another_process_stored_is_found(self, tmp_path: Path, sqlite_url: str) -> None:
        crowd, place = Crowd(), Place(tmp_path, sqlite_url, "none")
        work = workflow("crowd", crowd.node)
        async with place.worker(work, **BRISK), place.process(work) as sender:
            await rested(sender, await send(sender, "crowd", 10))

    async def test_runs_of_another_lane_are_left_to_its_workers(self, tmp_path: Path, sqlite_url: str) -> None:
        crowd, place = Crowd(), Place(tmp_path, sqlite_url, "none")
        works = workflow("here", crowd.node), workflow("there", crowd.node, lane="there")
        async with place.worker(*works, **RARELY) as app:
            there, here = await send(app, "there", 3), await send(app, "here", 3)
            await rested(app, here)
            assert {run.state for run in await rested(app, there, RunState.RECEIVED)} == {RunState.RECEIVED}
            async with place.worker(*works, **RARELY, lane="there"):
                await rested(app, there)


class Counted(Sweep):
    """A sweep that counts its rounds."""

    rounds = 0

    async def once(self) -> None:
        self.rounds += 1
        await super().once()


class TestRounds:
    async def test_what_is_stored_in_the_middle_of_a_round_is_not_overlooked(
        self, tmp_path: Path, sqlite_url: str
    ) -> None:
        place = Place(tmp_path, sqlite_url, "none")
        async with place.worker(workflow("crowd", Crowd().node), **RARELY) as app:
            for _ in range(40):
                sending = asyncio.create_task(send(app, "crowd"))
                while not sending.done():  # round follows upon round
                    for nudge in app.engine.on_news:
                        nudge()
                    await asyncio.sleep(0.001)
                await rested(app, await sending)

    async def test_a_run_that_is_due_and_that_nobody_here_takes_does_not_make_it_spin(self, either_way: Place) -> None:
        async with either_way.process(workflow("there", Crowd().node, lane="there"), **RARELY) as app:
            await send(app, "there")
            sweep, stopping = Counted(app.engine, app.ringer), asyncio.Event()
            sweeping = asyncio.create_task(sweep.run(stopping))
            await asyncio.sleep(0.5)
            stopping.set()
            await sweeping
        assert sweep.rounds <= 2


class TestWhatComesDue:
    async def test_a_retry_is_taken_up_at_its_time(self, either_way: Place) -> None:
        tries: Counter[int] = Counter()

        async def stumble(state: State) -> State:
            tries[0] += 1
            if tries[0] <= 2:
                raise ConnectionError("not yet")
            return {"steps": ["through"]}

        policy = Policy(retries=2, backoff=Backoff(first=0.2, most=0.2))
        async with either_way.worker(workflow("stumble", stumble, policies={"node0": policy}), **RARELY) as app:
            (run,) = await rested(app, await send(app, "stumble"))
        assert (run.state, run.attempts) == (RunState.COMPLETED, 3)

    async def test_a_retry_is_taken_up_at_its_time_though_others_are_due_and_wait(
        self, tmp_path: Path, sqlite_url: str, redis_url: str
    ) -> None:
        tries: Counter[int] = Counter()

        async def stumble(state: State) -> State:
            tries[0] += 1
            if tries[0] == 1:
                raise ConnectionError("not yet")
            return {"steps": ["through"]}

        place, policy = Place(tmp_path, sqlite_url, redis_url), Policy(retries=1, backoff=Backoff(first=0.2, most=0.2))
        works = workflow("stumble", stumble, policies={"node0": policy}), workflow("other", stumble, lane="nobody")
        async with place.worker(*works, **RARELY) as app:
            await send(app, "other", 3)
            (run,) = await rested(app, await send(app, "stumble"))
        assert (run.state, run.attempts) == (RunState.COMPLETED, 2)

    @pytest.mark.parametrize(("default", "outcome"), [("approve", "approved"), ("reject", "rejected")])
    async def test_a_deadline_decides_at_its_time(self, either_way: Place, default: Any, outcome: str) -> None:
        @tool(writes="keyed", name="test.pay")
        async def pay() -> str:
            """Pay."""
            return "paid"

        async def buy(state: State) -> State:
            return {"steps": [await pay()]}

        asks = review(deadline=timedelta(seconds=0.4), default=default)
        policy = Policy(tools=[pay], approve_when=always, approval=asks)
        async with either_way.worker(workflow("buy", buy, policies={"node0": policy}), **RARELY) as app:
            (run,) = await rested(app, await send(app, "buy"))
            (asked,) = await app.store.reviews(run_ids=[run.id])
        assert run.outcome == outcome
        assert asked.decision is not None
        assert asked.decision.by == "deadline"

    async def test_a_dead_workers_run_is_taken_up_when_its_lease_runs_out(self, either_way: Place) -> None:
        crowd = Crowd()
        work = workflow("crowd", crowd.node)
        async with either_way.process(work) as dead:
            ids = await send(dead, "crowd", 3)
            for run_id in ids:
                async with dead.store.write() as tx:
                    tx.claim(run_id, worker="dead", seconds=0.5)
        async with either_way.worker(work, **RARELY) as app:
            runs = await rested(app, ids)
        assert {(run.state, run.fence) for run in runs} == {(RunState.COMPLETED, 2)}

    async def test_what_was_decided_while_nobody_worked_is_done_by_whoever_comes(self, place: Place) -> None:
        async def ask(state: State) -> State:
            return {"steps": [interrupt("How are you?")]}

        work = workflow("ask", ask)
        async with place.worker(work) as app:
            ids = await send(app, "ask", 3)
            await rested(app, ids, RunState.PENDING_APPROVAL)
        async with place.process(work) as desk:
            for asked in await desk.store.reviews(run_ids=ids):
                await desk.engine.decide(asked.id, Decision(type=DecisionType.RESPOND, by="ann", response="fine"))
        async with place.worker(work) as app:
            assert {run.state for run in await rested(app, ids)} == {RunState.COMPLETED}


class TestOperators:
    async def test_a_cancellation_from_another_process_ends_the_run_at_its_next_boundary(self, place: Place) -> None:
        holding, nodes = asyncio.Event(), []

        async def hold(state: State) -> State:
            nodes.append("hold")
            holding.set()
            while not any(stop.control.drain_requested for stop in app.engine.active.values()):
                await asyncio.sleep(0.01)
            return {"steps": ["held"]}

        async def never(state: State) -> State:
            nodes.append("never")
            return {"steps": ["reached"]}

        work = workflow("hold", hold, never)
        async with place.worker(work, **BRISK) as app, place.process(work) as desk:
            (run_id,) = await send(desk, "hold")
            await holding.wait()
            assert (await desk.engine.cancel(run_id, by="ann")).state is RunState.PROCESSING
            (run,) = await rested(desk, [run_id])
        assert run.state is RunState.CANCELLED
        assert nodes == ["hold"]

    async def test_a_run_that_takes_its_workers_down_is_put_aside(self, place: Place) -> None:
        work = workflow("crowd", Crowd().node)
        async with place.process(work) as dying:
            (run_id,) = await send(dying, "crowd")
            for _ in range(6):
                async with dying.store.write() as tx:
                    tx.claim(run_id, worker="dying", seconds=0.0)
        async with place.worker(work, **RARELY) as app:
            (run,) = await rested(app, [run_id], RunState.FAILED)
        assert run.reason is Reason.QUARANTINED


class TestOneRunInOneProcess:
    async def test_a_run_is_not_begun_twice_in_a_process_though_its_lease_ran_out(
        self, tmp_path: Path, sqlite_url: str
    ) -> None:
        go, visits = asyncio.Event(), []

        async def wait(state: State) -> State:
            visits.append("wait")
            await go.wait()
            return {"steps": ["waited"]}

        # Nobody renews the lease: only `work` has a heart.
        place = Place(tmp_path, sqlite_url, "none")
        async with place.process(workflow("wait", wait), lease_seconds=0.1, heartbeat_seconds=0.05) as app:
            (run_id,) = await send(app, "wait")
            first = asyncio.create_task(app.engine.advance(run_id))
            while not visits or (await app.store.due_runs(limit=1)) == []:
                await asyncio.sleep(0.01)
            assert await app.engine.advance(run_id) is None
            go.set()
            assert await first is RunState.COMPLETED
        assert visits == ["wait"]


def _break_all_other_connections(connection: sa.Connection) -> None:
    connection.execute(
        sa.text(
            "SELECT pg_terminate_backend(pid) FROM pg_stat_activity "
            "WHERE datname = current_database() AND pid <> pg_backend_pid()"
        )
    )
