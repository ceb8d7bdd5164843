"""A worker outlives what goes wrong: a run, Redis, another worker."""

from __future__ import annotations

import asyncio
import logging
import os
import signal
import sys
from collections import Counter
from pathlib import Path

import pytest
from redis import Redis
from rq import Worker as RqWorker
from rq.job import JobStatus
from tests.queue.carrier import Runs, eventually, leftovers, serving, shown, wakeups

from eventwright.queue.embedded import embedded_valkey
from eventwright.queue.wakeups import LEASE_SECONDS, Bell, lane_queue
from eventwright.queue.worker import Worker

QUEUE = "rq:queue:eventwright:default"
WIP = "rq:wip:eventwright:default"


def server_pid(redis: Redis) -> int:
    return int(redis.info("server")["process_id"])


class TestARunThatGoesWrong:
    async def test_a_handle_that_raises_is_a_failed_job_and_ends_nothing_else(
        self, redis: Redis, redis_url: str, bell: Bell
    ) -> None:
        async def handle(run_id: str) -> None:
            if run_id == "run-0":
                raise ZeroDivisionError("our own fault")

        rows = wakeups(3)
        await bell.ring(rows)
        async with serving(redis_url, handle) as worker:
            await eventually(lambda: shown(redis) == [("idle", 2, 1)])
            assert worker.executions == {}
        queue = lane_queue("default", redis)
        job = queue.fetch_job(rows[0][0])
        assert job is not None
        assert job.get_status() == JobStatus.FAILED
        result = job.latest_result()
        assert result is not None
        assert "our own fault" in (result.exc_string or "")
        assert queue.failed_job_registry.get_job_ids() == [job.id]
        assert 0 < redis.ttl(job.key) <= 3600

    async def test_a_failed_wake_up_is_missing_and_not_failed_any_more_once_it_is_rung_again(
        self, redis: Redis, redis_url: str, bell: Bell
    ) -> None:
        calls: list[str] = []

        async def handle(run_id: str) -> None:
            calls.append(run_id)
            if len(calls) == 1:
                raise ZeroDivisionError

        rows = wakeups(1)
        registry = lane_queue("default", redis).failed_job_registry
        async with serving(redis_url, handle):
            await bell.ring(rows)
            await eventually(lambda: len(registry))
            assert await bell.missing(rows) == rows
            await bell.ring(rows)
            await eventually(lambda: not leftovers(redis) or len(calls) == 2)
        assert calls == ["run-0", "run-0"]
        assert len(registry) == 0

    async def test_a_run_that_outlasts_the_drain_is_cancelled_and_its_bell_is_missing(
        self, redis: Redis, redis_url: str, bell: Bell
    ) -> None:
        rows, runs = wakeups(2), Runs()
        await bell.ring(rows)
        async with serving(redis_url, runs, drain=0.1):
            await eventually(lambda: len(runs.begun) == 2)
        assert sorted(runs.cancelled) == ["run-0", "run-1"]
        assert leftovers(redis) == []
        assert await bell.missing(rows) == rows

    async def test_serving_that_is_cancelled_cancels_its_runs_and_signs_off(
        self, redis: Redis, redis_url: str, bell: Bell
    ) -> None:
        runs = Runs()
        await bell.ring(wakeups(1))
        served = asyncio.create_task(Worker(redis_url).serve(runs, asyncio.Event()))
        await eventually(lambda: runs.begun)
        served.cancel()
        with pytest.raises(asyncio.CancelledError):
            await served
        assert runs.cancelled == ["run-0"]
        assert RqWorker.all(connection=redis) == []


class TestRedisThatGoesAway:
    async def test_a_worker_started_without_redis_serves_when_it_comes_and_says_once_that_it_waits(
        self, tmp_path: Path, caplog: pytest.LogCaptureFixture
    ) -> None:
        runs = Runs()
        runs.go.set()
        async with embedded_valkey(tmp_path) as url:
            pass
        async with serving(url, runs):
            await eventually(lambda: len(caplog.messages) >= 2)
            await asyncio.sleep(1.2)  # several attempts
            assert Counter("Redis is away" in message for message in caplog.messages) == {True: 2}
            async with embedded_valkey(tmp_path):
                bell = Bell(url)
                await bell.ring(wakeups(1))
                await eventually(lambda: runs.ended == ["run-0"])
                with Redis.from_url(url) as redis:
                    await eventually(lambda: shown(redis) == [("idle", 1, 0)])
                await bell.close()

    async def test_runs_go_on_while_redis_is_killed_and_the_worker_registers_again(
        self, tmp_path: Path, own_redis_url: str
    ) -> None:
        runs, bell = Runs(), Bell(own_redis_url)
        with Redis.from_url(own_redis_url) as redis:
            async with serving(own_redis_url, runs):
                await bell.ring(wakeups(3))
                await eventually(lambda: len(runs.begun) == 3)
                os.kill(server_pid(redis), signal.SIGKILL)
                runs.go.set()
                await eventually(lambda: len(runs.ended) == 3)
                async with embedded_valkey(tmp_path) as url:
                    assert url == own_redis_url
                    await bell.ring(wakeups(2))
                    await eventually(lambda: len(runs.ended) == 5)
                    await eventually(lambda: RqWorker.count(queue=lane_queue("default", redis)) == 1)
                    await eventually(lambda: leftovers(redis) == [])
        await bell.close()

    async def test_a_flushed_redis_shows_the_worker_again_and_the_runs_end(
        self, redis: Redis, redis_url: str, bell: Bell
    ) -> None:
        runs = Runs()
        await bell.ring(wakeups(2))
        async with serving(redis_url, runs):
            await eventually(lambda: len(runs.begun) == 2)
            redis.flushall()
            await eventually(lambda: shown(redis) == [("busy", 0, 0)])
            runs.go.set()
            await eventually(lambda: shown(redis) == [("idle", 2, 0)])
        assert len(runs.ended) == 2
        assert leftovers(redis) == []

    async def test_a_worker_whose_redis_is_gone_stops_all_the_same(self, tmp_path: Path) -> None:
        async with serving(f"unix://{tmp_path}/nobody.sock", Runs()):
            pass


class TestAWorkerThatWasKilled:
    async def test_what_it_left_is_removed_by_the_next_worker_and_can_be_rung_again(
        self, redis: Redis, redis_url: str, bell: Bell
    ) -> None:
        program = (
            "import asyncio, sys\n"
            "from eventwright.queue.worker import Worker\n"
            "async def handle(run_id): await asyncio.sleep(1000)\n"
            "asyncio.run(Worker(sys.argv[1]).serve(handle, asyncio.Event()))\n"
        )
        begun, on_its_way = wakeups(2)
        await bell.ring([begun])
        killed = await asyncio.create_subprocess_exec(sys.executable, "-c", program, redis_url)
        await eventually(lambda: redis.zcard(WIP) == 1)
        killed.kill()
        await killed.wait()
        await bell.ring([on_its_way])
        redis.lmove(QUEUE, f"{QUEUE}:intermediate")  # as if it had been killed a moment later
        assert await bell.missing([begun, on_its_way]) == []

        runs = Runs()
        runs.go.set()
        async with serving(redis_url, runs):
            await eventually(lambda: not list(redis.scan_iter("rq:job:*")))
            await eventually(lambda: redis.zcard(WIP) == redis.llen(f"{QUEUE}:intermediate") == 0)
            assert await bell.missing([begun, on_its_way]) == [begun, on_its_way]
            assert runs.begun == [], "the sweep rings, when the run's lease is free"
            await bell.ring([begun, on_its_way])
            await eventually(lambda: len(runs.ended) == 2)
        assert lane_queue("default", redis).failed_job_registry.count == 0

    async def test_the_leases_of_live_runs_are_renewed(self, redis: Redis, redis_url: str, bell: Bell) -> None:
        rows, runs = wakeups(1), Runs()
        await bell.ring(rows)
        async with serving(redis_url, runs):
            await eventually(lambda: runs.begun)
            ((entry, lease),) = redis.zrange(WIP, 0, -1, withscores=True)
            async with serving(redis_url, Runs()):  # another worker, which cleans up
                await eventually(lambda: redis.zscore(WIP, entry) >= lease + LEASE_SECONDS)
                assert await bell.missing(rows) == []
            runs.go.set()

    async def test_an_old_lease_is_removed_and_the_job_that_was_rung_again_is_kept(
        self, redis: Redis, redis_url: str, bell: Bell
    ) -> None:
        rows, runs = wakeups(2), Runs()
        await bell.ring(rows)
        redis.zadd(WIP, {f"{rows[1][0]}:dead": 1})
        async with serving(redis_url, runs, concurrency=1):  # takes the first and no more
            await eventually(lambda: redis.zscore(WIP, f"{rows[1][0]}:dead") is None)
            assert await bell.missing(rows) == []
            runs.go.set()
            await eventually(lambda: runs.ended == ["run-0", "run-1"])


async def test_building_a_worker_connects_to_nothing(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.DEBUG):
        Worker(f"unix://{tmp_path}/nobody.sock")
    assert caplog.messages == []
