"""A bell that is rung is heard or known to be missing, with Redis and without."""

from __future__ import annotations

import asyncio
import os
import signal
import time
import uuid
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from redis import Redis

from eventwright.queue.embedded import embedded_valkey
from eventwright.queue.wakeups import LEASE_SECONDS, Bell, BellDown, SilentBell, Transport, WakeUp, lane_queue


def wakeup(run_id: str = "run-1", lane: str = "default") -> WakeUp:
    return str(uuid.uuid4()), run_id, lane


@pytest.fixture(params=["redis", "none"])
async def transport(request: pytest.FixtureRequest) -> AsyncIterator[Transport]:
    transport: Transport = Bell(request.getfixturevalue("redis_url")) if request.param == "redis" else SilentBell()
    yield transport
    await transport.close()


class TestEveryTransport:
    async def test_what_was_never_rung_is_missing_in_the_given_order(self, transport: Transport) -> None:
        rows = [wakeup("run-2"), wakeup("run-1", "llm"), wakeup("run-3")]
        assert await transport.missing(rows) == rows

    async def test_nothing_rung_is_nothing_done(self, transport: Transport) -> None:
        await transport.ring([])
        assert await transport.missing([]) == []
        assert await transport.depth("default") == 0

    async def test_ringing_twice_is_harmless(self, transport: Transport) -> None:
        row = wakeup()
        await transport.ring([row, row])
        await transport.ring([row])

    async def test_it_can_be_reached(self, transport: Transport) -> None:
        await transport.ping()


class TestARedisThatIsDown:
    async def test_every_call_says_so_in_words_of_ours(self, tmp_path: Path) -> None:
        bell = Bell(f"unix://{tmp_path}/nobody.sock")
        for call in (bell.ping(), bell.ring([wakeup()]), bell.missing([wakeup()]), bell.depth("default")):
            with pytest.raises(BellDown, match="EVENTWRIGHT_REDIS_URL") as raised:
                await call
            assert isinstance(raised.value, ConnectionError)
        await bell.close()

    async def test_a_bell_works_again_when_redis_is_back_and_knows_what_it_forgot(self, tmp_path: Path) -> None:
        row = wakeup()
        async with embedded_valkey(tmp_path) as url:
            bell = Bell(url)
            await bell.ring([row])
            with Redis.from_url(url) as client:
                os.kill(client.info("server")["process_id"], signal.SIGKILL)
            with pytest.raises(BellDown):
                await bell.ping()
            async with embedded_valkey(tmp_path):
                assert await bell.missing([row]) == [row]
                await bell.ring([row])
                assert await bell.missing([row]) == []
            await bell.close()


class TestMissing:
    async def test_a_job_that_is_gone_is_missing_though_its_id_waits(self, bell: Bell, redis: Redis) -> None:
        row = wakeup()
        await bell.ring([row])
        redis.delete(f"rq:job:{row[0]}")
        assert await bell.missing([row]) == [row]

    async def test_a_job_that_is_queued_in_no_list_is_missing(self, bell: Bell, redis: Redis) -> None:
        lost, kept = wakeup("run-1"), wakeup("run-2")
        await bell.ring([lost, kept])
        redis.lrem("rq:queue:eventwright:default", 1, lost[0])
        assert await bell.missing([lost, kept]) == [lost]

    async def test_a_job_whose_worker_stopped_renewing_its_lease_is_missing(self, bell: Bell, redis: Redis) -> None:
        dead, alive = wakeup("run-1"), wakeup("run-2")
        await bell.ring([dead, alive])
        redis.delete("rq:queue:eventwright:default")
        leases = {f"{dead[0]}:a": time.time() - 1, f"{alive[0]}:b": time.time() + LEASE_SECONDS}
        redis.zadd("rq:wip:eventwright:default", leases)
        assert await bell.missing([dead, alive]) == [dead]

    async def test_a_job_whose_lease_is_longer_than_leases_are_is_missing(self, bell: Bell, redis: Redis) -> None:
        """The clock of the worker that took it is wrong, and nobody knows whether it lives."""
        row = wakeup()
        await bell.ring([row])
        redis.delete("rq:queue:eventwright:default")
        redis.zadd("rq:wip:eventwright:default", {f"{row[0]}:a": time.time() + 3600})
        assert await bell.missing([row]) == [row]

    async def test_a_job_on_its_way_to_a_worker_is_not_missing(self, bell: Bell, redis: Redis) -> None:
        row = wakeup()
        await bell.ring([row])
        redis.lmove("rq:queue:eventwright:default", "rq:queue:eventwright:default:intermediate")
        assert await bell.missing([row]) == []

    async def test_a_forged_list_entry_does_not_stop_the_sweep(self, bell: Bell, redis: Redis) -> None:
        row = wakeup()
        await bell.ring([row])
        redis.rpush("rq:queue:eventwright:default", b"\xff\xfe")
        assert await bell.missing([row]) == []


class TestRinging:
    async def test_each_row_is_one_small_job_on_the_queue_of_its_lane(self, bell: Bell, redis: Redis) -> None:
        rows = [wakeup("run-1"), wakeup("run-2", "llm"), wakeup("run-3", "llm")]
        await bell.ring(rows)
        assert (await bell.depth("default"), await bell.depth("llm")) == (1, 2)
        job = lane_queue("llm", redis).jobs[0]
        assert (job.id, job.args, job.description) == (rows[1][0], ["run-2"], "run run-2")
        assert (job.result_ttl, job.retries_left, job.kwargs) == (0, None, {})

    async def test_many_at_once_from_many_tasks_all_arrive(self, bell: Bell) -> None:
        batches = [[wakeup(f"run-{batch}-{number}") for number in range(20)] for batch in range(10)]
        await asyncio.gather(*(bell.ring(batch) for batch in batches))
        assert await bell.depth("default") == 200
        assert await bell.missing([row for batch in batches for row in batch]) == []
