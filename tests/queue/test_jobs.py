"""Whoever can write to Redis can write jobs. None of them runs, and none of them stops the worker.

Each attack is written straight into Redis, as somebody else's program would write it. What it would do is to
make a file.
"""

from __future__ import annotations

import asyncio
import json
import pickle
import uuid
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import pytest
from redis import Redis
from rq import Queue, SimpleWorker
from rq.job import Job
from rq.serializers import JSONSerializer
from tests.loopback import on_loopback
from tests.queue.carrier import eventually, serving

from eventwright.queue.jobs import WAKE, ForeignJob, WakeUpJob, wake
from eventwright.queue.wakeups import Bell, lane_queue

QUEUE = "rq:queue:eventwright:default"
OURS = {"data": json.dumps([WAKE, None, ["run-1"], {}]).encode()}


def forge(redis: Redis, fields: dict[str, Any], job_id: str | bytes | None = None) -> str:
    """Put a job of these fields on the queue, the way RQ stores one."""
    key = job_id if job_id is not None else str(uuid.uuid4())
    name = key.encode() if isinstance(key, str) else key
    if fields:
        redis.hset(b"rq:job:" + name, mapping={"status": "queued", "origin": "eventwright:default"} | fields)
    redis.rpush(QUEUE, name)
    return name.decode(errors="replace")


def system(flag: Path) -> bytes:
    """The data of a JSON job that runs a shell command."""
    return json.dumps(["os.system", None, [f"touch {flag}"], {}]).encode()


def nothing_ran(flag: Path) -> None:
    assert not flag.exists()


class Touch:
    """Unpickling this runs a shell command."""

    def __init__(self, flag: Path) -> None:
        self.flag = flag

    def __reduce__(self) -> tuple[Any, ...]:
        import os

        return os.system, (f"touch {self.flag}",)


@pytest.fixture
def flag(tmp_path: Path) -> Path:
    return tmp_path / "it ran".replace(" ", "-")


def attacks(flag: Path) -> dict[str, dict[str, Any]]:
    # A callback gets the job and the connection; this one is importable and would call them.
    callback = "os.system"
    return {
        "another function": {"data": system(flag)},
        "a pickle": {"data": pickle.dumps(Touch(flag))},
        "a pickle in meta": OURS | {"meta": pickle.dumps(Touch(flag)), "data": system(flag)},
        "a method of an object": {"data": json.dumps([WAKE, "object", ["run-1"], {}]).encode()},
        "a success callback": OURS | {"success_callback_name": callback},
        "a failure callback": {"data": system(flag), "failure_callback_name": callback},
        "a failure callback on a wake-up": OURS | {"failure_callback_name": callback},
        "a stopped callback": OURS | {"stopped_callback_name": callback},
        "too many arguments": {"data": json.dumps([WAKE, None, ["run-1", "more"], {}]).encode()},
        "keywords": {"data": json.dumps([WAKE, None, ["run-1"], {"more": 1}]).encode()},
        "no run id": {"data": json.dumps([WAKE, None, [{"$": 1}], {}]).encode()},
        "data that is a number": {"data": b"7"},
        "retries without end": {"data": system(flag), "retries_left": 10**9},
        "repeats without end": {"data": system(flag), "repeats_left": 10**9, "repeat_intervals": "[0]"},
        "a rate limit": {"data": system(flag), "rate_limit_key": "x", "rate_limit_concurrency": 1},
        "a group": {"data": system(flag), "group_id": "nobody"},
        "a foreign origin": {"data": system(flag), "origin": "somewhere:else"},
    }


async def test_no_attack_runs_and_the_next_wake_up_is_served(
    redis: Redis, redis_url: str, bell: Bell, flag: Path
) -> None:
    ids = {name: forge(redis, fields) for name, fields in attacks(flag).items()}
    await bell.ring([(str(uuid.uuid4()), "run-good", "default")])
    handled: list[str] = []

    async def handle(run_id: str) -> None:
        handled.append(run_id)

    async with serving(redis_url, handle):
        await eventually(lambda: handled)
        await eventually(lambda: len(lane_queue("default", redis).failed_job_registry) == len(ids))
    assert handled == ["run-good"]
    nothing_ran(flag)
    assert {name: redis.hget(f"rq:job:{job_id}", "status") for name, job_id in ids.items()} == dict.fromkeys(
        ids, b"failed"
    )
    assert redis.llen(QUEUE) == redis.llen(f"{QUEUE}:intermediate") == redis.zcard("rq:wip:eventwright:default") == 0


@pytest.mark.parametrize(
    ("fields", "job_id"),
    [
        ({}, "gone"),
        ({"description": "no data"}, "no-data"),
        (OURS | {"status": "bogus"}, "bogus-status"),
        (OURS | {"timeout": "soon"}, "bogus-timeout"),
        (OURS, "../../etc/passwd"),
        (OURS, b"\xff\xfe"),
        (OURS, ""),
    ],
)
async def test_a_job_that_cannot_be_read_is_removed_and_the_next_one_is_served(
    redis: Redis, redis_url: str, bell: Bell, fields: dict[str, Any], job_id: str | bytes
) -> None:
    forge(redis, fields, job_id)
    await bell.ring([(str(uuid.uuid4()), "run-good", "default")])
    handled: list[str] = []

    async def handle(run_id: str) -> None:
        handled.append(run_id)

    async with serving(redis_url, handle):
        await eventually(lambda: handled)
    assert handled == ["run-good"]
    assert redis.llen(QUEUE) == redis.llen(f"{QUEUE}:intermediate") == 0
    assert list(redis.scan_iter("rq:job:*")) == []


async def test_a_key_of_the_wrong_kind_stops_no_worker(redis: Redis, redis_url: str, bell: Bell) -> None:
    redis.set("rq:job:string", "not a hash")
    redis.rpush(QUEUE, "string")
    await bell.ring([(str(uuid.uuid4()), "run-good", "default")])
    handled: list[str] = []

    async def handle(run_id: str) -> None:
        handled.append(run_id)

    async with serving(redis_url, handle):
        await eventually(lambda: handled)
    assert handled == ["run-good"]
    assert not redis.exists("rq:job:string")


async def test_a_webhook_in_a_job_is_never_called(redis: Redis, redis_url: str) -> None:
    called = asyncio.Event()

    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        called.set()

    async def handle(run_id: str) -> None:
        raise ZeroDivisionError

    async with on_loopback(answer) as port:
        webhook = {"url": f"http://127.0.0.1:{port}/", "method": "GET", "status": "failed", "timeout": 5}
        forge(redis, OURS | {"webhooks": json.dumps([webhook])})
        async with serving(redis_url, handle):
            await eventually(lambda: len(lane_queue("default", redis).failed_job_registry))
    assert not called.is_set()


class TestAnRqWorkerThatReadsWithOurClass:
    """RQ's own code resolves the names here, so the refusal does not hang on our worker."""

    def burst(self, redis: Redis, job_class: type[Job]) -> None:
        queue = Queue("eventwright:default", connection=redis, job_class=job_class, serializer=JSONSerializer)
        SimpleWorker([queue], connection=redis, job_class=job_class, serializer=JSONSerializer).work(burst=True)

    def test_the_attack_is_real_where_our_class_is_not_used(self, redis: Redis, flag: Path) -> None:
        forge(redis, {"data": system(flag)})
        self.burst(redis, Job)
        assert flag.exists()

    @pytest.mark.parametrize("name", list(attacks(Path())))
    def test_every_attack_fails_and_ends_no_worker(self, redis: Redis, flag: Path, name: str) -> None:
        forge(redis, attacks(flag)[name] | {"origin": "eventwright:default"})
        last = forge(redis, {"data": system(flag)})
        self.burst(redis, WakeUpJob)
        nothing_ran(flag)
        assert redis.llen(QUEUE) == 0
        assert redis.hget(f"rq:job:{last}", "status") == b"failed"


class TestWakeUpJob:
    def job(self, redis: Redis, fields: dict[str, Any]) -> WakeUpJob:
        job = WakeUpJob("job-1", connection=redis, serializer=JSONSerializer)
        job.restore(
            {key.encode(): str(value).encode() if isinstance(value, int) else value for key, value in fields.items()}
        )
        return job

    def test_a_wake_up_gives_its_run_id_and_our_function(self, redis: Redis) -> None:
        job = self.job(redis, OURS)
        assert (job.run_id, job.func) == ("run-1", wake)
        assert (job.success_callback, job.failure_callback, job.stopped_callback) == (None, None, None)

    @pytest.mark.parametrize("kind", ["success", "failure", "stopped"])
    def test_a_callback_is_refused_where_it_is_resolved(self, redis: Redis, kind: str) -> None:
        job = self.job(redis, OURS | {f"{kind}_callback_name": b"os.system"})
        with pytest.raises(ForeignJob, match=r"os\.system"):
            getattr(job, f"{kind}_callback")
        with pytest.raises(ForeignJob, match=r"os\.system"):
            _ = job.run_id

    def test_the_name_of_a_foreign_function_can_still_be_read(self, redis: Redis, flag: Path) -> None:
        job = self.job(redis, {"data": system(flag)})
        assert job.func_name == "os.system"
        resolve: list[Callable[[], Awaitable[None] | object]] = [lambda: job.func, lambda: job.run_id, job.perform]
        for attempt in resolve:
            with pytest.raises(ForeignJob) as raised:
                attempt()
            assert isinstance(raised.value, PermissionError)
            assert (raised.value.job_id, raised.value.found) == ("job-1", "os.system")

    def test_a_plain_rq_worker_is_told_which_worker_to_start(self) -> None:
        with pytest.raises(RuntimeError, match="eventwright worker"):
            wake("run-1")
