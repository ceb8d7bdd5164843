"""Ringing: wake-up rows that the database holds are told to the workers through RQ.

A bell may be lost or rung twice; neither matters, because the database is the truth, the claim decides and the sweep
asks `missing` what has to be rung again.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from typing import Protocol, TypeAlias, TypeVar

from redis import Redis
from redis.backoff import NoBackoff
from redis.exceptions import RedisError
from redis.retry import Retry
from rq import Queue
from rq.serializers import JSONSerializer

from eventwright.queue.jobs import FAILURE_SECONDS, WAKE, WakeUpJob
from eventwright.runs.errors import EventwrightError

WakeUp: TypeAlias = tuple[str, str, str]
"""A wake-up row: its id (letters, digits, `_` and `-`), the run's id, the lane."""

ANSWER_SECONDS = 5.0
"""How long Redis may take to answer."""
LEASE_SECONDS = 6
"""A job whose worker has not written for this long has been abandoned."""

Answer = TypeVar("Answer")


class BellDown(EventwrightError, ConnectionError):
    """Redis did not answer, so nobody was woken. Nothing is lost: the sweep rings again."""

    def __init__(self, reason: Exception) -> None:
        self.reason = reason
        super().__init__(f"Redis did not answer ({reason}); the sweep rings again. Look at EVENTWRIGHT_REDIS_URL")


class Transport(Protocol):
    """How workers are told that runs may go on."""

    async def ring(self, wakeups: Sequence[WakeUp]) -> None:
        """Tell the workers of each lane. Ringing twice is harmless. Raises BellDown."""

    async def missing(self, wakeups: Sequence[WakeUp]) -> list[WakeUp]:
        """Those of these rows that no worker will hear or is at work on, in the given order. Raises BellDown."""

    async def depth(self, lane: str) -> int:
        """How many bells of this lane no worker has taken yet. Raises BellDown."""

    async def ping(self) -> None:
        """Return if the transport can be reached. Raises BellDown."""

    async def close(self) -> None:
        """Give the connections back."""


class SilentBell:
    """The transport of `EVENTWRIGHT_REDIS_URL=none`: nobody is told, the sweep finds everything."""

    async def ring(self, wakeups: Sequence[WakeUp]) -> None:
        """Do nothing."""

    async def missing(self, wakeups: Sequence[WakeUp]) -> list[WakeUp]:
        """All of them: no worker will ever hear one."""
        return list(wakeups)

    async def depth(self, lane: str) -> int:
        """0."""
        return 0

    async def ping(self) -> None:
        """Return: what is not there cannot be down."""

    async def close(self) -> None:
        """Do nothing."""


class Bell:
    """The transport over Redis: each wake-up is one RQ job, whose id is the row's id.

    `url` is a `redis://`, `rediss://` or `unix://` address. Nothing is connected before the first call.
    """

    def __init__(self, url: str) -> None:
        self._redis = connect(url)
        self._queues: dict[str, Queue] = {}
        # Threads of its own: tools that fill asyncio's shared pool must not hold up a bell.
        self._threads = ThreadPoolExecutor(max_workers=2, thread_name_prefix="eventwright-bell")

    async def ring(self, wakeups: Sequence[WakeUp]) -> None:
        """Enqueue one job per row, all of them in one transaction.

        Raises:
            BellDown: Redis did not answer; some or none of the bells were rung.
        """
        if wakeups:
            await self._call(lambda: self._enqueue(wakeups))

    async def missing(self, wakeups: Sequence[WakeUp]) -> list[WakeUp]:
        """The rows without a live job: it is gone, it failed, it is in no list, or its worker's lease ran out.

        Raises:
            BellDown: Redis did not answer.
        """
        return await self._call(lambda: self._missing(wakeups)) if wakeups else []

    async def depth(self, lane: str) -> int:
        """The length of the lane's queue.

        Raises:
            BellDown: Redis did not answer.
        """
        return await self._call(lambda: self._queue(lane).count)

    async def ping(self) -> None:
        """Ask Redis for an answer.

        Raises:
            BellDown: There was none.
        """
        await self._call(self._redis.ping)

    async def close(self) -> None:
        """Close the connections, after the calls under way."""
        await asyncio.to_thread(self._threads.shutdown)
        self._redis.close()

    async def _call(self, work: Callable[[], Answer]) -> Answer:
        with _down_as_ours():
            return await asyncio.get_running_loop().run_in_executor(self._threads, work)

    def _queue(self, lane: str) -> Queue:
        # Kept, because RQ asks for the server's version once per queue object.
        if lane not in self._queues:
            self._queues[lane] = lane_queue(lane, self._redis)
        return self._queues[lane]

    def _enqueue(self, wakeups: Sequence[WakeUp]) -> None:
        by_lane: dict[str, dict[str, str]] = {}
        for wakeup_id, run_id, lane in wakeups:
            by_lane.setdefault(lane, {})[wakeup_id] = run_id
        with self._redis.pipeline() as pipe:
            for lane, run_ids in by_lane.items():
                queue = self._queue(lane)
                queue.enqueue_many(
                    [
                        Queue.prepare_data(
                            WAKE,
                            args=[run_id],
                            job_id=wakeup_id,
                            timeout=-1,
                            result_ttl=0,
                            failure_ttl=FAILURE_SECONDS,
                            description=f"run {run_id}",
                        )
                        for wakeup_id, run_id in run_ids.items()
                    ],
                    pipeline=pipe,
                )
                # A bell that is rung again has not failed any more.
                pipe.zrem(queue.failed_job_registry.key, *run_ids)
            pipe.execute()

    def _missing(self, wakeups: Sequence[WakeUp]) -> list[WakeUp]:
        live = {lane: self._live(lane) for lane in {lane for _, _, lane in wakeups}}
        with self._redis.pipeline(transaction=False) as pipe:
            for wakeup_id, _, _ in wakeups:
                pipe.exists(WakeUpJob.key_for(wakeup_id))  # an id in a list without its job is dropped by RQ
            exist = pipe.execute()
        return [
            wakeup
            for wakeup, exists in zip(wakeups, exist, strict=True)
            if not exists or wakeup[0] not in live[wakeup[2]]
        ]

    def _live(self, lane: str) -> set[str]:
        """The ids that wait in the lane's queue, are on their way to a worker, or are at work under a lease."""
        queue, now = self._queue(lane), time.time()
        # Leases end by the clocks of those who took them. One that lasts for longer than leases do was taken by a clock
        # that is ahead, and would be believed for hours; that of a worker which lives is rung for once more, no harm.
        latest = now + 2 * LEASE_SECONDS
        with self._redis.pipeline() as pipe:  # a transaction: no job may slip from one list to the next meanwhile
            pipe.lrange(queue.key, 0, -1)
            pipe.lrange(queue.intermediate_queue_key, 0, -1)
            pipe.zrangebyscore(queue.started_job_registry.key, now, latest)
            queued, on_their_way, started = pipe.execute()
        return {entry.decode(errors="replace").partition(":")[0] for entry in (*queued, *on_their_way, *started)}


def connect(url: str) -> Redis:
    """A client that opens its first connection when it is first used, and tries once again on a stale one."""
    return Redis.from_url(url, socket_connect_timeout=3, socket_timeout=ANSWER_SECONDS, retry=Retry(NoBackoff(), 1))


def lane_queue(lane: str, connection: Redis) -> Queue:
    """The RQ queue of a lane; `rq info` shows it as `eventwright:<lane>`."""
    return Queue(f"eventwright:{lane}", connection=connection, job_class=WakeUpJob, serializer=JSONSerializer)


@contextmanager
def _down_as_ours() -> Iterator[None]:
    try:
        yield
    except (RedisError, OSError) as error:
        raise BellDown(error) from error
