"""What is committed is rung; what cannot be rung waits in the outbox; what was lost is rung again."""

from __future__ import annotations

import asyncio
import os
import signal
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import timedelta
from pathlib import Path

import pytest
from redis import Redis

from eventwright.queue import bells
from eventwright.queue.bells import BellRinger
from eventwright.queue.embedded import embedded_valkey
from eventwright.queue.wakeups import Bell, BellDown
from eventwright.runs.records import WakeUp
from eventwright.runs.store import Store

AT_ONCE = timedelta(0)


@pytest.fixture
async def store(database_url: str) -> AsyncIterator[Store]:
    async with Store.open(database_url) as store:
        yield store


@pytest.fixture
async def lasting(sqlite_url: str) -> AsyncIterator[Store]:
    """A store for tests in which the database has no part."""
    async with Store.open(sqlite_url) as store:
        yield store


async def write(store: Store, count: int = 1, *, lane: str = "default") -> list[str]:
    """Bells in the outbox: their ids."""
    async with store.write() as tx:
        return [tx.wake(f"run-{number}", lane=lane) for number in range(count)]


async def outbox(store: Store, *, sent: bool) -> list[WakeUp]:
    return await store.wakeups(sent=sent, older_than=AT_ONCE, limit=10_000)


async def until_rung(store: Store) -> None:
    while await outbox(store, sent=False):
        await asyncio.sleep(0.01)


@asynccontextmanager
async def bell_of(url: str) -> AsyncIterator[Bell]:
    bell = Bell(url)
    try:
        yield bell
    finally:
        await bell.close()


class TestRedisIsAway:
    async def test_bells_wait_in_the_outbox_which_is_said_once_and_are_rung_when_it_is_back(
        self, lasting: Store, tmp_path: Path, caplog: pytest.LogCaptureFixture
    ) -> None:
        async with embedded_valkey(tmp_path) as url, bell_of(url) as bell:
            with Redis.from_url(url) as redis:
                os.kill(redis.info("server")["process_id"], signal.SIGKILL)
            ringer = BellRinger(lasting, bell)
            async with ringer.ringing():
                for _ in range(3):
                    await write(lasting)
                    ringer.nudge()
                    while "wait in the outbox" not in caplog.text:
                        await asyncio.sleep(0.01)
                    await asyncio.sleep(0.05)
                assert len(await outbox(lasting, sent=False)) == 3
                async with embedded_valkey(tmp_path):
                    ringer.nudge()
                    await until_rung(lasting)
                    assert await bell.depth("default") == 3
        assert caplog.text.count("wait in the outbox") == 1

    async def test_the_sweep_is_told_that_nobody_can_be_woken(self, lasting: Store, tmp_path: Path) -> None:
        async with bell_of(f"unix://{tmp_path}/nobody.sock") as bell:
            ringer = BellRinger(lasting, bell)
            with pytest.raises(BellDown):
                await ringer.ping()
            await write(lasting)
            with pytest.raises(BellDown):
                await ringer.ring_unsent(older_than=AT_ONCE)
            assert len(await outbox(lasting, sent=False)) == 1

    async def test_closing_does_not_wait_for_it(self, lasting: Store, tmp_path: Path) -> None:
        async with bell_of(f"unix://{tmp_path}/nobody.sock") as bell, BellRinger(lasting, bell).ringing():
            await write(lasting)
        assert len(await outbox(lasting, sent=False)) == 1


class TestLostBells:
    async def test_they_are_rung_again_after_redis_was_emptied_however_many_they_are(
        self, store: Store, bell: Bell, redis: Redis
    ) -> None:
        count = 2 * bells.MOST + 1
        await write(store, count)
        ringer = BellRinger(store, bell)
        await ringer.ring_unsent(older_than=AT_ONCE)
        assert await bell.depth("default") == count
        redis.flushall()
        await ringer.ring_lost(older_than=AT_ONCE)
        assert await bell.depth("default") >= count

    async def test_those_that_wait_for_a_worker_are_left_alone(self, lasting: Store, bell: Bell) -> None:
        await write(lasting, 5)
        ringer = BellRinger(lasting, bell)
        await ringer.ring_unsent(older_than=AT_ONCE)
        before = await outbox(lasting, sent=True)
        await ringer.ring_lost(older_than=AT_ONCE)
        assert await bell.depth("default") == 5
        assert await outbox(lasting, sent=True) == before

    async def test_only_the_lost_ones_among_many_are_rung(self, lasting: Store, bell: Bell, redis: Redis) -> None:
        ids = await write(lasting, 5)
        ringer = BellRinger(lasting, bell)
        await ringer.ring_unsent(older_than=AT_ONCE)
        redis.lrem("rq:queue:eventwright:default", 1, ids[2])
        await ringer.ring_lost(older_than=AT_ONCE)
        assert redis.lrange("rq:queue:eventwright:default", -1, -1) == [ids[2].encode()]
        assert await bell.depth("default") == 5

    async def test_one_is_rung_again_though_nobody_serves_another_lane_in_which_many_wait(
        self, lasting: Store, bell: Bell, redis: Redis
    ) -> None:
        """A worker died between taking it and claiming its run; for the other lane no worker was started."""
        await write(lasting, bells.MOST, lane="unserved")
        ringer = BellRinger(lasting, bell)
        await ringer.ring_unsent(older_than=AT_ONCE)
        ids = await write(lasting, 1)
        await ringer.ring_unsent(older_than=AT_ONCE)
        assert redis.lpop("rq:queue:eventwright:default") == ids[0].encode()
        await ringer.ring_lost(older_than=AT_ONCE)
        assert await bell.depth("default") == 1
        assert await bell.depth("unserved") == bells.MOST

    async def test_young_ones_are_in_somebodys_hands_still(self, lasting: Store, bell: Bell) -> None:
        await write(lasting)
        ringer = BellRinger(lasting, bell)
        await ringer.ring_unsent(older_than=timedelta(minutes=1))
        assert await bell.depth("default") == 0


class TestRinging:
    async def test_what_is_committed_is_rung_once_on_its_lane_and_marked(self, store: Store, bell: Bell) -> None:
        ringer = BellRinger(store, bell)
        async with ringer.ringing():
            await write(store, 3)
            await write(store, 2, lane="llm")
            ringer.nudge()
            await until_rung(store)
            assert (await bell.depth("default"), await bell.depth("llm")) == (3, 2)
            assert all(wakeup.sent_at for wakeup in await outbox(store, sent=True))

    async def test_a_bell_written_while_others_are_rung_is_not_forgotten(self, lasting: Store, bell: Bell) -> None:
        ringer = BellRinger(lasting, bell)
        async with ringer.ringing():
            for _ in range(100):
                await write(lasting)
                ringer.nudge()
            await until_rung(lasting)
            assert await bell.depth("default") == 100

    async def test_what_is_left_is_rung_at_the_end(self, lasting: Store, bell: Bell) -> None:
        async with BellRinger(lasting, bell).ringing():
            await write(lasting, 3)
        assert await bell.depth("default") == 3
        assert await outbox(lasting, sent=False) == []
