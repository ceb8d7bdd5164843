"""A worker attends to many runs at once, shows RQ the truth about them, and outlives Redis."""

from __future__ import annotations

import asyncio
import logging
import os
import signal
import subprocess
import sys
import uuid
from collections import Counter
from pathlib import Path
from typing import Any

import pytest
from redis import Redis
from rq import Worker as RqWorker
from rq.command import send_shutdown_command, send_stop_job_command
from rq.job import JobStatus
from rq.suspension import resume, suspend

from eventwright.queue.embedded import embedded_valkey
from eventwright.queue.jobs import WakeUpJob
from eventwright.queue.wakeups import Bell, WakeUp, lane_queue
from eventwright.queue.worker import LEASE_SECONDS, Worker

QUEUE = "rq:queue:eventwright:default"
WIP = "rq:wip:eventwright:default"


def wakeups(count: int) -> list[WakeUp]:
    return [(str(uuid.uuid4()), f"run-{number}", "default") for number in range(count)]


class Runs:
    """A handle whose runs go on until they are let go."""

    def __init__(self) -> None:
        self.begun: list[str] = []
        self.ended: list[str] = []
        self.cancelled: list[str] = []
        self.go = asyncio.Event()

    async def __call__(self, run_id: str) -> None:
        self.begun.append(run_id)
        try:
            await self.go.wait()
        except asyncio.CancelledError:
            self.cancelled.append(run_id)
            raise
        self.ended.append(run_id)


def server_pid(redis: Redis) -> int:
    return int(redis.info("server")["process_id"])


def shown(redis: Redis) -> list[tuple[str, int, int]]:
    """State, finished and failed of each worker, as RQ reads them."""
    workers = RqWorker.all(connection=redis)
    return [(worker.get_state(), worker.successful_job_count, worker.failed_job_count) for worker in workers]


def leftovers(redis: Redis) -> list[bytes]:
    """Every key of a job, a list or a registry."""
    kinds = ("rq:job:*", "rq:execution*", "rq:wip:*", f"{QUEUE}*", "rq:results:*")
    return [key for kind in kinds for key in redis.scan_iter(kind)]


class TestARunThatGoesWrong:
    async def test_a_handle_that_raises_is_a_failed_job_and_ends_nothing_else(
        self, redis: Redis, redis_url: str, bell: Bell, serving: Any, eventually: Any
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
        self, redis: Redis, redis_url: str, bell: Bell, serving: Any, eventually: Any
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
        self, redis: Redis, redis_url: str, bell: Bell, serving: Any, eventually: Any
    ) -> None:
        rows, runs = wakeups(2), Runs()
        await bell.ring(rows)
        async with serving(redis_url, runs, drain=0.1):
            await eventually(lambda: len(runs.begun) == 2)
        assert sorted(runs.cancelled) == ["run-0", "run-1"]
        assert leftovers(redis) == []
        assert await bell.missing(rows) == rows

    async def test_serving_that_is_cancelled_cancels_its_runs_and_signs_off(
        self, redis: Redis, redis_url: str, bell: Bell, eventually: Any
    ) -> None:
        runs = Runs()
        await bell.ring(wakeups(1))
        serving = asyncio.create_task(Worker(redis_url).serve(runs, asyncio.Event()))
        await eventually(lambda: runs.begun)
        serving.cancel()
        with pytest.raises(asyncio.CancelledError):
            await serving
        assert runs.cancelled == ["run-0"]
        assert RqWorker.all(connection=redis) == []


class TestRedisThatGoesAway:
    async def test_a_worker_started_without_redis_serves_when_it_comes_and_says_once_that_it_waits(
        self, tmp_path: Path, caplog: pytest.LogCaptureFixture, serving: Any, eventually: Any
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
        self, tmp_path: Path, own_redis_url: str, serving: Any, eventually: Any
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
        self, redis: Redis, redis_url: str, bell: Bell, serving: Any, eventually: Any
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

    async def test_a_worker_whose_redis_is_gone_stops_all_the_same(self, tmp_path: Path, serving: Any) -> None:
        async with serving(f"unix://{tmp_path}/nobody.sock", Runs()):
            pass


class TestAWorkerThatWasKilled:
    async def test_what_it_left_is_removed_by_the_next_worker_and_can_be_rung_again(
        self, redis: Redis, redis_url: str, bell: Bell, serving: Any, eventually: Any
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

    async def test_the_leases_of_live_runs_are_renewed(
        self, redis: Redis, redis_url: str, bell: Bell, serving: Any, eventually: Any
    ) -> None:
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
        self, redis: Redis, redis_url: str, bell: Bell, serving: Any, eventually: Any
    ) -> None:
        rows, runs = wakeups(2), Runs()
        await bell.ring(rows)
        redis.zadd(WIP, {f"{rows[1][0]}:dead": 1})
        async with serving(redis_url, runs, concurrency=1):  # takes the first and no more
            await eventually(lambda: redis.zscore(WIP, f"{rows[1][0]}:dead") is None)
            assert await bell.missing(rows) == []
            runs.go.set()
            await eventually(lambda: runs.ended == ["run-0", "run-1"])


class TestWhatRqShows:
    async def test_a_job_is_started_while_its_run_goes_on_and_gone_afterwards(
        self, redis: Redis, redis_url: str, bell: Bell, serving: Any, eventually: Any
    ) -> None:
        (row,), runs = wakeups(1), Runs()
        await bell.ring([row])
        async with serving(redis_url, runs) as worker:
            await eventually(lambda: runs.begun)
            job = WakeUpJob.fetch(row[0], connection=redis, serializer=worker.serializer)
            assert (job.get_status(), job.worker_name) == (JobStatus.STARTED, worker.name)
            await eventually(lambda: shown(redis) == [("busy", 0, 0)])
            (as_rq_sees_it,) = RqWorker.all(connection=redis)
            assert [execution.job_id for execution in as_rq_sees_it.get_current_executions()] == [row[0]]
            assert lane_queue("default", redis).started_job_registry.get_job_ids() == [row[0]]
            runs.go.set()
            await eventually(lambda: leftovers(redis) == [])
            assert shown(redis) == [("idle", 1, 0)]
            as_rq_sees_it.refresh()
            assert as_rq_sees_it.total_working_time > 0

    async def test_rq_info_prints_the_worker_and_its_queue_as_busy(
        self, redis: Redis, redis_url: str, bell: Bell, serving: Any, eventually: Any
    ) -> None:
        async def rq_info() -> str:
            command = (str(Path(sys.executable).with_name("rq")), "info", "--raw", "--url", redis_url)
            process = await asyncio.create_subprocess_exec(*command, stdout=subprocess.PIPE)
            return (await process.communicate())[0].decode()

        runs = Runs()
        await bell.ring(wakeups(3))
        async with serving(redis_url, runs, concurrency=2) as worker:
            await eventually(lambda: shown(redis) == [("busy", 0, 0)] and len(runs.begun) == 2)
            printed = await rq_info()
            assert "queue eventwright:default 1, 2 executing, 0 finished, 0 failed" in printed
            assert f"worker {worker.name} (" in printed
            assert f"{os.getpid()}) busy eventwright:default. jobs: 0 finished, 0 failed" in printed
            runs.go.set()
            await eventually(lambda: shown(redis) == [("idle", 3, 0)])
            assert ") idle eventwright:default. jobs: 3 finished, 0 failed" in await rq_info()
        assert worker.name not in await rq_info()

    async def test_two_workers_share_a_lane(
        self, redis: Redis, redis_url: str, bell: Bell, serving: Any, eventually: Any
    ) -> None:
        runs = Runs()
        async with serving(redis_url, runs, concurrency=3), serving(redis_url, runs, concurrency=3):
            await bell.ring(wakeups(6))
            await eventually(lambda: len(runs.begun) == 6)
            await eventually(lambda: shown(redis) == [("busy", 0, 0)] * 2)
            runs.go.set()
        assert sorted(runs.ended) == [f"run-{number}" for number in range(6)]


class TestRqsCommands:
    async def test_the_shutdown_command_drains_like_stopping_does(
        self, redis: Redis, redis_url: str, bell: Bell, eventually: Any
    ) -> None:
        runs, stopping = Runs(), asyncio.Event()
        first, later = wakeups(2)
        await bell.ring([first])
        worker = Worker(redis_url)
        served = asyncio.create_task(worker.serve(runs, stopping))
        await eventually(lambda: runs.begun and worker.pubsub_channel_name.encode() in redis.pubsub_channels())
        send_shutdown_command(redis, worker.name)
        await stopping.wait()
        await asyncio.sleep(1)  # a pop that was under way has ended
        await bell.ring([later])
        assert not served.done()
        runs.go.set()
        await served
        assert runs.ended == ["run-0"]
        assert await bell.depth("default") == 1
        assert RqWorker.all(connection=redis) == []

    async def test_other_commands_and_noise_are_ignored_with_a_word_of_advice(
        self, redis: Redis, redis_url: str, bell: Bell, caplog: pytest.LogCaptureFixture, serving: Any, eventually: Any
    ) -> None:
        runs = Runs()
        (row,) = wakeups(1)
        await bell.ring([row])
        async with serving(redis_url, runs) as worker:
            channel = worker.pubsub_channel_name
            await eventually(lambda: runs.begun and channel.encode() in redis.pubsub_channels())
            send_stop_job_command(redis, row[0], serializer=worker.serializer)
            for noise in (b"\xff", b"{", b"[]", b"7", b"{}"):
                redis.publish(channel, noise)
            await eventually(lambda: len([text for text in caplog.messages if "eventwright cancel" in text]) == 6)
            runs.go.set()
        assert runs.ended == ["run-0"]

    async def test_a_suspended_worker_takes_nothing_until_it_is_resumed(
        self, redis: Redis, redis_url: str, bell: Bell, serving: Any, eventually: Any
    ) -> None:
        runs = Runs()
        runs.go.set()
        async with serving(redis_url, runs):
            suspend(redis)
            await eventually(lambda: shown(redis) == [("suspended", 0, 0)])
            await asyncio.sleep(1)  # a pop that was under way has ended
            await bell.ring(wakeups(1))
            await asyncio.sleep(1)
            assert runs.begun == []
            resume(redis)
            await eventually(lambda: runs.ended == ["run-0"])


class TestManyAtOnce:
    async def test_a_thousand_wake_ups_are_handled_once_each_and_leave_nothing(
        self, redis: Redis, redis_url: str, bell: Bell, serving: Any, eventually: Any
    ) -> None:
        handled: Counter[str] = Counter()
        together = most = 0

        async def handle(run_id: str) -> None:
            nonlocal together, most
            together += 1
            most = max(most, together)
            await asyncio.sleep(0.01)
            together -= 1
            handled[run_id] += 1

        await bell.ring(wakeups(1000))
        async with serving(redis_url, handle, concurrency=50):
            await eventually(lambda: len(handled) == 1000)
            await eventually(lambda: shown(redis) == [("idle", 1000, 0)])
        assert set(handled.values()) == {1}
        assert 1 < most <= 50
        assert leftovers(redis) == []

    async def test_never_more_than_the_given_number_run_at_once(
        self, redis: Redis, redis_url: str, bell: Bell, serving: Any, eventually: Any
    ) -> None:
        runs = Runs()
        await bell.ring(wakeups(5))
        async with serving(redis_url, runs, concurrency=2):
            await eventually(lambda: len(runs.begun) == 2)
            await asyncio.sleep(0.5)
            assert len(runs.begun) == 2
            runs.go.set()
            await eventually(lambda: len(runs.ended) == 5)

    async def test_a_blocked_loop_keeps_its_leases(
        self, redis: Redis, redis_url: str, bell: Bell, serving: Any, eventually: Any
    ) -> None:
        leases: list[float] = []

        async def handle(run_id: str) -> None:
            ((entry, first),) = redis.zrange(WIP, 0, -1, withscores=True)
            while not leases:  # blocks the loop, as a careless node would
                lease = redis.zscore(WIP, entry)
                assert lease is not None
                if lease > first:
                    leases.append(lease)

        await bell.ring(wakeups(1))
        async with serving(redis_url, handle):
            await eventually(lambda: leases)
        assert leftovers(redis) == []


async def test_building_a_worker_connects_to_nothing(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.DEBUG):
        Worker(f"unix://{tmp_path}/nobody.sock")
    assert caplog.messages == []
