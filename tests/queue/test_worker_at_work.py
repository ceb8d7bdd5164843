"""A worker attends to many runs at once, shows RQ the truth about them, and obeys its commands."""

from __future__ import annotations

import asyncio
import os
import subprocess
import sys
from collections import Counter
from pathlib import Path

import pytest
from redis import Redis
from rq import Worker as RqWorker
from rq.command import send_shutdown_command, send_stop_job_command
from rq.job import JobStatus
from rq.suspension import resume, suspend
from tests.queue.carrier import Runs, eventually, leftovers, serving, shown, wakeups

from eventwright.queue.jobs import WakeUpJob
from eventwright.queue.wakeups import Bell, lane_queue
from eventwright.queue.worker import Worker

WIP = "rq:wip:eventwright:default"


class TestWhatRqShows:
    async def test_a_job_is_started_while_its_run_goes_on_and_gone_afterwards(
        self, redis: Redis, redis_url: str, bell: Bell
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
        self, redis: Redis, redis_url: str, bell: Bell
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

    async def test_two_workers_share_a_lane(self, redis: Redis, redis_url: str, bell: Bell) -> None:
        runs = Runs()
        async with serving(redis_url, runs, concurrency=3), serving(redis_url, runs, concurrency=3):
            await bell.ring(wakeups(6))
            await eventually(lambda: len(runs.begun) == 6)
            await eventually(lambda: shown(redis) == [("busy", 0, 0)] * 2)
            runs.go.set()
        assert sorted(runs.ended) == [f"run-{number}" for number in range(6)]


class TestRqsCommands:
    async def test_the_shutdown_command_drains_like_stopping_does(
        self, redis: Redis, redis_url: str, bell: Bell
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
        self, redis: Redis, redis_url: str, bell: Bell, caplog: pytest.LogCaptureFixture
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
        self, redis: Redis, redis_url: str, bell: Bell
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
        self, redis: Redis, redis_url: str, bell: Bell
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

    async def test_never_more_than_the_given_number_run_at_once(self, redis: Redis, redis_url: str, bell: Bell) -> None:
        runs = Runs()
        await bell.ring(wakeups(5))
        async with serving(redis_url, runs, concurrency=2):
            await eventually(lambda: len(runs.begun) == 2)
            await asyncio.sleep(0.5)
            assert len(runs.begun) == 2
            runs.go.set()
            await eventually(lambda: len(runs.ended) == 5)

    async def test_a_blocked_loop_keeps_its_leases(self, redis: Redis, redis_url: str, bell: Bell) -> None:
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
