"""A worker of several lanes: the most urgent work comes first, and no lane is worse kept than a worker's only one."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import sys
import uuid
from collections import Counter
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
from redis import Redis
from rq.suspension import resume, suspend
from tests.queue.carrier import Runs, eventually, serving, shown
from tests.queue.place import Crowd, Place, State, rested, send, workflow

from eventwright.app.commands.processes import burst
from eventwright.app.settings import Settings
from eventwright.queue.embedded import embedded_valkey
from eventwright.queue.lanes import Lanes
from eventwright.queue.wakeups import Bell, WakeUp, lane_queue

BOTH = ("urgent", "default")
BRISK = {"lane": "urgent,default", "lease_seconds": 1.5, "heartbeat_seconds": 0.5, "sweep_seconds": 0.5}

TAKES_AND_IS_KILLED = """
import os, signal, sys
from eventwright.queue.lanes import Lanes
from eventwright.queue.wakeups import connect, lane_queue
redis = connect(sys.argv[1])
assert Lanes([lane_queue("urgent", redis), lane_queue("default", redis)], redis).take(50)
os.kill(os.getpid(), signal.SIGKILL)
"""


def rows(lane: str, count: int) -> list[WakeUp]:
    return [(str(uuid.uuid4()), f"{lane}-{number}", lane) for number in range(count)]


class OneByOne:
    """A handle whose runs are let go one at a time."""

    def __init__(self) -> None:
        self.begun: list[str] = []
        self.go = asyncio.Semaphore(0)

    async def __call__(self, run_id: str) -> None:
        self.begun.append(run_id)
        await self.go.acquire()


async def take_and_be_killed(redis_url: str) -> None:
    dead = await asyncio.create_subprocess_exec(sys.executable, "-c", TAKES_AND_IS_KILLED, redis_url)
    assert await dead.wait() == -signal.SIGKILL


class TestAWorkerThatIsKilledBetweenTakingAndBeginning:
    @pytest.mark.parametrize("lane", BOTH)
    async def test_leaves_the_wake_up_in_a_list_until_somebody_clears_it_and_it_is_rung_again(
        self, redis: Redis, redis_url: str, bell: Bell, lane: str
    ) -> None:
        queue, (row,), handled = lane_queue(lane, redis), rows(lane, 1), []

        async def handle(run_id: str) -> None:
            handled.append(run_id)

        await bell.ring([row])
        await take_and_be_killed(redis_url)
        assert redis.lrange(queue.intermediate_queue_key, 0, -1) == [row[0].encode()]
        assert await bell.missing([row]) == []  # it may be about to begin
        async with serving(redis_url, handle, lanes=BOTH):
            await eventually(lambda: not redis.exists(queue.intermediate_queue_key))
            assert await bell.missing([row]) == [row]
            await bell.ring([row])
            await eventually(lambda: handled == [row[1]])

    async def test_delays_its_runs_and_loses_none(self, tmp_path: Path, sqlite_url: str, redis_url: str) -> None:
        crowd, place = Crowd(), Place(tmp_path, sqlite_url, redis_url)
        works = workflow("urgent", crowd.node, lane="urgent"), workflow("usual", crowd.node)
        async with place.process(*works) as app:
            ids = await send(app, "usual", 3) + await send(app, "urgent", 3)
        await take_and_be_killed(redis_url)
        async with place.worker(*works, **BRISK) as app:
            await rested(app, ids)
        assert crowd.visits == 6


class TestUrgency:
    async def test_what_waits_is_begun_lane_by_lane(self, redis_url: str, bell: Bell) -> None:
        usual, urgent, runs = rows("default", 3), rows("urgent", 3), OneByOne()
        runs.go.release()
        await bell.ring(usual)
        await bell.ring(urgent)
        async with serving(redis_url, runs, lanes=BOTH, concurrency=1):
            for _ in range(6):
                runs.go.release()
            await eventually(lambda: len(runs.begun) == 6)
        assert runs.begun == [run_id for _, run_id, _ in (*urgent, *usual)]

    async def test_a_flooded_lane_does_not_keep_the_next_free_place_from_a_more_urgent_one(
        self, redis_url: str, bell: Bell
    ) -> None:
        runs = OneByOne()
        await bell.ring(rows("default", 200))
        async with serving(redis_url, runs, lanes=BOTH, concurrency=3):
            await eventually(lambda: len(runs.begun) == 3)
            await bell.ring(rows("urgent", 2))
            for number in (4, 5, 6):
                runs.go.release()
                await eventually(lambda number=number: len(runs.begun) == number)
            assert runs.begun[3:] == ["urgent-0", "urgent-1", "default-3"]
            assert await bell.depth("default") == 196
            for _ in range(200):
                runs.go.release()
            await eventually(lambda: len(runs.begun) == 202)

    async def test_a_worker_that_waits_hears_every_one_of_its_lanes(
        self, redis: Redis, redis_url: str, bell: Bell
    ) -> None:
        handled: Counter[str] = Counter()

        async def handle(run_id: str) -> None:
            handled[run_id] += 1

        rung = rows("urgent", 5) + rows("default", 5) + rows("later", 5)
        async with serving(redis_url, handle, lanes=(*BOTH, "later"), concurrency=4):
            await eventually(lambda: redis.info("clients")["blocked_clients"] == 3)
            for row in rung[::-1]:
                await bell.ring([row])
                await eventually(lambda row=row: handled[row[1]])
            await eventually(lambda: shown(redis) == [("idle", 15, 0)])
        assert set(handled.values()) == {1}

    async def test_two_workers_of_the_same_lanes_share_them_and_begin_nothing_twice(
        self, redis: Redis, redis_url: str, bell: Bell
    ) -> None:
        handled: Counter[str] = Counter()

        async def handle(run_id: str) -> None:
            await asyncio.sleep(0.001)
            handled[run_id] += 1

        async with (
            serving(redis_url, handle, lanes=BOTH, concurrency=5),
            serving(redis_url, handle, lanes=BOTH[::-1], concurrency=5),
        ):
            for _ in range(10):
                await bell.ring([(str(uuid.uuid4()), str(uuid.uuid4()), lane) for lane in BOTH * 5])
            await eventually(lambda: len(handled) == 100)
        assert set(handled.values()) == {1}

    def test_a_take_brings_no_more_than_was_asked_for_and_a_look_takes_nothing(self, redis: Redis) -> None:
        lanes = Lanes([lane_queue(lane, redis) for lane in BOTH], redis)
        urgent, usual = lanes.all
        redis.rpush(urgent.queue.key, "urgent-0", "urgent-1")
        redis.rpush(usual.queue.key, "default-0", "default-1", "default-2")
        assert [lane.wait() for lane in (urgent, usual, urgent)] == [True] * 3
        assert redis.lrange(usual.queue.key, 0, -1) == [b"default-0", b"default-1", b"default-2"]
        assert lanes.take(3) == [(urgent, [b"urgent-0", b"urgent-1"]), (usual, [b"default-0"])]
        assert redis.lrange(usual.queue.intermediate_queue_key, 0, -1) == [b"default-0"]
        assert lanes.take(5) == [(usual, [b"default-1", b"default-2"])]
        assert lanes.take(5) == []
        assert not urgent.wait()


class TestRqsBooks:
    async def test_show_the_worker_and_its_jobs_on_each_lane(self, redis: Redis, redis_url: str, bell: Bell) -> None:
        async def rq_info() -> str:
            command = (str(Path(sys.executable).with_name("rq")), "info", "--raw", "--url", redis_url)
            process = await asyncio.create_subprocess_exec(*command, stdout=asyncio.subprocess.PIPE)
            return (await process.communicate())[0].decode()

        runs = Runs()
        await bell.ring(rows("urgent", 2) + rows("default", 1))
        async with serving(redis_url, runs, lanes=BOTH) as worker:
            await eventually(lambda: shown(redis) == [("busy", 0, 0)] and len(runs.begun) == 3)
            printed = await rq_info()
            assert "queue eventwright:urgent 0, 2 executing" in printed
            assert "queue eventwright:default 0, 1 executing" in printed
            assert "busy eventwright:urgent, eventwright:default" in printed.replace(",eventwright", ", eventwright")
            first = {lane: redis.zrange(f"rq:wip:eventwright:{lane}", 0, -1, withscores=True) for lane in BOTH}
            assert {lane: len(leases) for lane, leases in first.items()} == {"urgent": 2, "default": 1}

            def all_renewed() -> bool:
                return all(
                    (redis.zscore(f"rq:wip:eventwright:{lane}", entry) or 0) > lease
                    for lane, leases in first.items()
                    for entry, lease in leases
                )

            await eventually(all_renewed)
            runs.go.set()
            await eventually(lambda: shown(redis) == [("idle", 3, 0)])
            assert worker.executions == {}
        assert list(redis.scan_iter("rq:wip:*")) == list(redis.scan_iter("rq:job:*")) == []
        assert worker.name not in await rq_info()

    async def test_a_failure_is_shown_on_its_own_lane(self, redis: Redis, redis_url: str, bell: Bell) -> None:
        async def handle(run_id: str) -> None:
            raise ZeroDivisionError

        rung = rows("urgent", 1) + rows("default", 2)
        await bell.ring(rung)
        async with serving(redis_url, handle, lanes=BOTH):
            await eventually(lambda: shown(redis) == [("idle", 0, 3)])
        failed = {lane: set(lane_queue(lane, redis).failed_job_registry.get_job_ids()) for lane in BOTH}
        assert failed == {"urgent": {rung[0][0]}, "default": {rung[1][0], rung[2][0]}}

    async def test_a_dead_workers_jobs_are_cleared_on_each_lane(self, redis: Redis, redis_url: str) -> None:
        for lane in BOTH:
            redis.hset(f"rq:job:{lane}-left", mapping={"status": "started", "origin": f"eventwright:{lane}"})
            redis.zadd(f"rq:wip:eventwright:{lane}", {f"{lane}-left:execution": 1})
        async with serving(redis_url, Runs(), lanes=BOTH):
            await eventually(lambda: not redis.keys("rq:wip:*") and not redis.keys("rq:job:*"))

    async def test_a_suspended_worker_takes_from_no_lane_until_it_is_resumed(
        self, redis: Redis, redis_url: str, bell: Bell
    ) -> None:
        runs = Runs()
        runs.go.set()
        async with serving(redis_url, runs, lanes=BOTH):
            suspend(redis)
            await eventually(lambda: shown(redis) == [("suspended", 0, 0)])
            await bell.ring(rows("urgent", 1) + rows("default", 1))
            await asyncio.sleep(1)
            assert runs.begun == []
            resume(redis)
            await eventually(lambda: sorted(runs.ended) == ["default-0", "urgent-0"])

    async def test_a_worker_that_is_started_while_workers_are_suspended_takes_nothing(
        self, redis: Redis, redis_url: str, bell: Bell
    ) -> None:
        runs = Runs()
        runs.go.set()
        suspend(redis)
        await bell.ring(rows("default", 100))
        async with serving(redis_url, runs, lanes=BOTH, concurrency=1):
            await eventually(lambda: shown(redis) == [("suspended", 0, 0)])
            assert runs.begun == []
            assert await bell.depth("default") == 100
            resume(redis)
            await eventually(lambda: len(runs.ended) == 100)


class TestWhoeverWritesToRedis:
    async def test_gets_nothing_run_on_the_second_lane_either(
        self, redis: Redis, redis_url: str, bell: Bell, tmp_path: Path
    ) -> None:
        flag, handled = tmp_path / "flag", []

        async def handle(run_id: str) -> None:
            handled.append(run_id)

        data = json.dumps(["os.system", None, [f"touch {flag}"], {}])
        # A lie about where it comes from would put it into another lane's registry.
        redis.hset("rq:job:forged", mapping={"status": "queued", "origin": "eventwright:urgent", "data": data})
        redis.rpush("rq:queue:eventwright:default", "forged")
        await bell.ring(rows("default", 1))
        async with serving(redis_url, handle, lanes=BOTH):
            await eventually(lambda: handled == ["default-0"])
            await eventually(lambda: lane_queue("default", redis).failed_job_registry.get_job_ids() == ["forged"])
        assert not flag.exists()
        assert redis.hget("rq:job:forged", "status") == b"failed"

    async def test_and_spoils_one_lane_does_not_keep_the_others_from_being_served(
        self, redis: Redis, redis_url: str, bell: Bell, caplog: pytest.LogCaptureFixture
    ) -> None:
        handled: list[str] = []

        async def handle(run_id: str) -> None:
            handled.append(run_id)

        redis.set("rq:queue:eventwright:urgent", "no list")
        async with serving(redis_url, handle, lanes=(*BOTH, "later")):
            for row in rows("default", 2) + rows("later", 2):
                await bell.ring([row])
                await eventually(lambda row=row: row[1] in handled)
        assert any("WRONGTYPE" in message for message in caplog.messages)


class TestWithoutRedis:
    async def test_due_runs_are_taken_lane_by_lane(self, tmp_path: Path, sqlite_url: str) -> None:
        seen: list[str] = []

        def noting(name: str) -> Any:
            async def node(state: State) -> State:
                seen.append(name)
                return {"steps": [name]}

            return node

        place = Place(tmp_path, sqlite_url, "none")
        lanes = {"usual": "default", "urgent": "urgent", "elsewhere": "elsewhere"}
        works = [workflow(name, noting(name), lane=lane) for name, lane in lanes.items()]
        async with place.process(*works) as app:
            elsewhere = await send(app, "elsewhere", 5)
            ids = await send(app, "usual", 3) + await send(app, "urgent", 3)
        async with place.worker(*works, **BRISK, concurrency=1) as app:
            await rested(app, ids)
            assert {run.state for run in [await app.store.run(run_id) for run_id in elsewhere]} == {"received"}
        assert seen == ["urgent"] * 3 + ["usual"] * 3

    async def test_both_lanes_keep_together_to_the_workers_concurrency(self, tmp_path: Path, sqlite_url: str) -> None:
        crowd, place = Crowd(), Place(tmp_path, sqlite_url, "none")
        works = workflow("urgent", crowd.node, lane="urgent"), workflow("usual", crowd.node)
        async with place.worker(*works, **BRISK, concurrency=4) as app:
            await rested(app, await send(app, "usual", 15) + await send(app, "urgent", 15))
        assert crowd.most == 4

    async def test_both_lanes_go_on_while_redis_is_away_and_when_it_is_back(
        self, tmp_path: Path, sqlite_url: str
    ) -> None:
        crowd = Crowd()
        works = workflow("urgent", crowd.node, lane="urgent"), workflow("usual", crowd.node)

        async def all_done(app: Any) -> None:
            await rested(app, await send(app, "urgent", 5) + await send(app, "usual", 5))

        async with (
            embedded_valkey(tmp_path) as url,
            Place(tmp_path, sqlite_url, url).worker(*works, **BRISK) as app,
        ):
            await all_done(app)
            with Redis.from_url(url) as redis:
                os.kill(redis.info("server")["process_id"], signal.SIGKILL)
            await all_done(app)
            async with embedded_valkey(tmp_path):
                await all_done(app)
        assert crowd.visits == 30

    async def test_a_burst_finishes_every_lane_of_its_own_though_another_one_is_flooded(
        self, tmp_path: Path, sqlite_url: str, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        crowd, module = Crowd(), ModuleType("works_of_three_lanes")
        module.urgent = workflow("urgent", crowd.node, lane="urgent")  # type: ignore[attr-defined]
        module.usual = workflow("usual", crowd.node)  # type: ignore[attr-defined]
        elsewhere = workflow("elsewhere", crowd.node, lane="elsewhere")
        monkeypatch.setitem(sys.modules, module.__name__, module)
        where: dict[str, Any] = {"home": tmp_path, "database_url": sqlite_url, "redis_url": "none"}
        async with Place(**where).process(module.urgent, module.usual, elsewhere) as app:
            await send(app, "elsewhere", 20)
            ids = await send(app, "usual", 3) + await send(app, "urgent", 3)
        rest = await burst(Settings(**where, workflows=module.__name__, lane="urgent,default", concurrency=2))
        assert rest == dict.fromkeys([*ids[3:], *ids[:3]], "completed")
        assert set(list(rest)[:3]) == set(ids[3:])


class TestTheSetting:
    @pytest.mark.parametrize(
        ("lane", "advice"),
        [
            ("", "names no lane: write one, or several"),
            (" , ", "names no lane"),
            ("urgent,default,urgent", "urgent stands in 'urgent,default,urgent' more than once: leave it where it is"),
            ("Urgent", "'Urgent' can be no lane: its name is lower case letters"),
            ("urgent;default", "'urgent;default' can be no lane"),
        ],
    )
    def test_that_cannot_be_meant_is_refused_with_what_to_do(self, lane: str, advice: str) -> None:
        with pytest.raises(ValueError, match=advice.replace("(", r"\(")):
            Settings(lane=lane)

    def test_gives_the_lanes_in_their_order(self) -> None:
        assert Settings(lane="urgent, default").lanes == ("urgent", "default")
        assert Settings().lanes == ("default",)
