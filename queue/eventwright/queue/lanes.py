"""The lanes of one worker in Redis, the most urgent first: wake-ups waited for, taken, and cleared of dead workers'.

Waiting and taking are two steps. A wait takes nothing, so a worker waits on all its lanes at once, is never sent more
than it has room for, and finds the most urgent wake-up when it has room again. Taking moves ids in one step from a
lane's queue to the queue that RQ calls intermediate, so that at every moment an id is in one of them: a worker that
is killed there leaves it where every other finds it. (RQ's own worker pops when it attends to several queues, and what
it has popped when it is killed is gone.)
"""

from __future__ import annotations

import logging
import time
from collections.abc import Sequence

from redis import Redis
from redis.exceptions import RedisError
from rq import Queue
from rq.job import JobStatus, validate_job_id
from rq.suspension import WORKERS_SUSPENDED
from rq.worker_registration import clean_worker_registry

from eventwright.queue.jobs import WakeUpJob

WAIT_SECONDS = 0.5
"""How long one wait lasts, and so how soon an idle worker ends when it shall."""

# A lane whose key is no list gives nothing here and keeps no other from being served; its own wait says what is wrong.
_TAKE = """
if redis.call('EXISTS', KEYS[1]) == 1 then return false end
local left, taken = tonumber(ARGV[1]), {}
for lane = 1, (#KEYS - 1) / 2 do
    taken[lane] = {}
    while left > 0 do
        local id = redis.pcall('LMOVE', KEYS[2 * lane], KEYS[2 * lane + 1], 'LEFT', 'RIGHT')
        if type(id) ~= 'string' then break end
        table.insert(taken[lane], id)
        left = left - 1
    end
end
return taken
"""

logger = logging.getLogger(__name__)


class Lane:
    """One lane. Building it connects to nothing."""

    job_class = WakeUpJob

    def __init__(self, queue: Queue) -> None:
        self.queue = queue
        self._redis = queue.connection
        self._seen_on_their_way: set[bytes] = set()

    def wait(self) -> bool:
        """Whether a wake-up is there; waits shortly for one. It stays where it is: it is moved to its own place.

        Raises:
            RedisError, OSError.
        """
        key = self.queue.key
        return self._redis.blmove(key, key, WAIT_SECONDS, "LEFT", "LEFT") is not None  # type: ignore[arg-type]

    def read(self, job_ids: list[bytes]) -> list[WakeUpJob]:
        """The jobs of these ids, without those that are gone or that nobody can read; the latter are removed.

        Raises:
            RedisError, OSError.
        """
        with self._redis.pipeline(transaction=False) as pipe:
            for job_id in job_ids:
                pipe.hgetall(_job_key(job_id))
            hashes = pipe.execute(raise_on_error=False)
        jobs = []
        for job_id, fields in zip(job_ids, hashes, strict=True):
            if not fields:
                continue  # the job is gone: it was rung twice, or Redis forgot it
            if isinstance(fields, RedisError) and "WRONGTYPE" not in str(fields):
                raise fields
            try:
                validate_job_id(job_id.decode())
                job = self.job_class(job_id.decode(), connection=self._redis, serializer=self.queue.serializer)
                job.restore(fields)
            except Exception:  # anybody's bytes: RQ raises a dozen kinds
                logger.exception("job %r is no wake-up and cannot be read; it was removed", job_id)
                self._redis.delete(_job_key(job_id))
                continue
            job.origin = self.queue.name  # RQ finds its registries by this, and a forged job may say otherwise
            jobs.append(job)
        return jobs

    def clean(self) -> None:
        """Remove the jobs that dead workers left, begun or on their way; the sweep rings for their runs again.

        To be called at each beat of the worker. Raises RedisError or OSError.
        """
        started, on_their_way = self.queue.started_job_registry.key, self.queue.intermediate_queue_key
        with self._redis.pipeline(transaction=False) as pipe:
            pipe.zrangebyscore(started, "-inf", int(time.time()) - 1)
            pipe.lrange(on_their_way, 0, -1)
            abandoned, waiting = pipe.execute()
            # From list to start takes milliseconds, so whoever is there at two beats was forgotten.
            stuck = self._seen_on_their_way.intersection(waiting)
            self._seen_on_their_way = set(waiting)
            for entry in abandoned:
                pipe.hget(_job_key(entry.partition(b":")[0]), "status")
            for entry, status in zip(abandoned, pipe.execute(), strict=True):
                pipe.zrem(started, entry)
                if status == JobStatus.STARTED.encode():  # else it has been rung again
                    pipe.delete(_job_key(entry.partition(b":")[0]))
            for job_id in stuck:
                pipe.lrem(on_their_way, 0, job_id)  # type: ignore[arg-type]
                pipe.delete(_job_key(job_id))
            pipe.execute()
        self.queue.failed_job_registry.cleanup()
        clean_worker_registry(self.queue)


class Lanes:
    """The lanes of a worker, in order of urgency."""

    def __init__(self, queues: Sequence[Queue], redis: Redis) -> None:
        self.all = tuple(Lane(queue) for queue in queues)
        lists = [key for lane in self.all for key in (lane.queue.key, lane.queue.intermediate_queue_key)]
        self._keys = [WORKERS_SUSPENDED, *lists]
        self._take = redis.register_script(_TAKE)

    def take(self, most: int) -> list[tuple[Lane, list[bytes]]] | None:
        """Up to `most` ids by lane, those of an urgent lane before any of the next; now on their way to this worker.

        None if RQ's workers are suspended.

        Raises:
            RedisError, OSError.
        """
        taken = self._take(keys=self._keys, args=[most])
        if taken is None:
            return None
        return [(lane, job_ids) for lane, job_ids in zip(self.all, taken, strict=True) if job_ids]


def _job_key(job_id: bytes) -> bytes:
    # Not `Job.key_for`: an id that somebody else wrote need not be text.
    return WakeUpJob.redis_job_namespace_prefix.encode() + job_id
