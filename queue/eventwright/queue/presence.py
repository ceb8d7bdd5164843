"""Who is at work: the workers that RQ knows of, by lane."""

from __future__ import annotations

import asyncio
from contextlib import closing

from redis.exceptions import RedisError
from rq.worker_registration import clean_worker_registry, get_keys

from eventwright.queue.wakeups import BellDown, connect, lane_queue


async def workers_of(url: str, lane: str) -> list[str]:
    """The names of the workers that listen to this lane; one that was killed is gone after a minute.

    Raises:
        BellDown: Redis did not answer.
    """
    return await asyncio.to_thread(_workers_of, url, lane)


def _workers_of(url: str, lane: str) -> list[str]:
    try:
        with closing(connect(url)) as redis:
            queue = lane_queue(lane, redis)
            clean_worker_registry(queue)
            return sorted(str(key).removeprefix("rq:worker:") for key in get_keys(queue))
    except (RedisError, OSError) as error:
        raise BellDown(error) from error
