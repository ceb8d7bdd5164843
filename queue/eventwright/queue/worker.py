"""An RQ worker that attends to many runs at once in one process.

The event loop runs the handles and nothing else. Threads talk to Redis: one waits at each lane (lanes.py), one takes
wake-ups, one keeps the books (heartbeats, what has ended, commands, leftovers of dead workers), in batches. No step
waits for the books, so runs go on and end while Redis is away.

Every write to the books may be lost or done twice: a run is claimed in the database, and what was left there rings
again.
"""

from __future__ import annotations

import asyncio
import logging
import os
import secrets
import socket
import threading
import time
from collections.abc import Awaitable, Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing, suppress
from datetime import timedelta
from functools import partial
from queue import Empty, SimpleQueue
from typing import Any, NamedTuple

from redis.client import PubSub
from redis.exceptions import RedisError
from rq.command import parse_payload
from rq.executions import Execution
from rq.job_lifecycle import format_exc_info
from rq.serializers import JSONSerializer
from rq.suspension import WORKERS_SUSPENDED
from rq.utils import now
from rq.worker.base import BaseWorker, WorkerStatus
from rq.worker_registration import register

from eventwright.queue.jobs import WakeUpJob
from eventwright.queue.lanes import Lane, Lanes
from eventwright.queue.wakeups import ANSWER_SECONDS, LEASE_SECONDS, connect, lane_queue
from eventwright.runs.failpoints import Failpoint, failpoint

BEAT_SECONDS = 2
SHOWN_SECONDS = 60
"""How long `rq info` shows a worker that was killed."""
POLL_SECONDS = 0.5
"""How soon a worker that takes nothing, because it is full or suspended, looks again."""
LONGEST_PAUSE_SECONDS = 5.0
"""How long at most to wait before Redis is tried again."""
LOOK_SECONDS = 0.1
"""How often the books look for a command or the end."""
MOST_AT_ONCE = 50
"""Wake-ups taken in one batch."""

logger = logging.getLogger(__name__)

Handle = Callable[[str], Awaitable[object]]


class Attended(NamedTuple):
    """A wake-up that this worker has begun with, and RQ's record of it."""

    lane: Lane
    job: WakeUpJob
    execution: Execution


class Ended(NamedTuple):
    """How a wake-up ended: `error` is None, what the handle raised, or a CancelledError."""

    attended: Attended
    error: BaseException | None


class Worker(BaseWorker):
    """A worker, seen by `rq info` like any other. Building it connects to nothing.

    - `url`: Redis' address;
    - `lanes`: whose wake-ups it takes, the most urgent lane first: while that one has any, the next one waits;
    - `concurrency`: how many handles run at once;
    - `drain_seconds`: how long a warm shutdown waits for those that run; then they are cancelled.
    """

    job_class = WakeUpJob

    def __init__(
        self, url: str, *, lanes: Sequence[str] = ("default",), concurrency: int = 100, drain_seconds: float = 30.0
    ) -> None:
        host, pid = socket.gethostname(), os.getpid()
        redis = connect(url)
        super().__init__(
            [lane_queue(lane, redis) for lane in lanes],
            name=f"{host}.{pid}.{secrets.token_hex(4)}",
            connection=redis,
            serializer=JSONSerializer,
            worker_ttl=SHOWN_SECONDS,
            prepare_for_work=False,  # else it connects here
        )
        self.hostname, self.pid = host, pid
        self.birth_date = self.last_heartbeat = now()
        self._lanes = Lanes(self.queues, redis)
        self.concurrency, self.drain_seconds = concurrency, drain_seconds
        self._running: set[asyncio.Task[None]] = set()
        self._ended: SimpleQueue[Ended] = SimpleQueue()
        self._closing = threading.Event()
        self._suspended = False
        self._troubled: set[str] = set()
        self._waits: dict[Lane, asyncio.Future[bool]] = {}

    @property
    def connection_timeout(self) -> int:
        """Seconds without an answer after which Redis counts as away. RQ's own is longer, for its longer pops."""
        return int(ANSWER_SECONDS)

    async def serve(self, handle: Handle, stopping: asyncio.Event) -> None:
        """Call `handle` with the run id of each wake-up, until `stopping` is set; then drain and return.

        RQ's own shutdown command sets `stopping` too. A handle that raises is a failed job in RQ and ends nothing
        else. A worker serves once.
        """
        loop = asyncio.get_running_loop()
        stop = loop.create_task(stopping.wait())
        with (
            closing(self.connection),  # after the threads that use it
            ThreadPoolExecutor(max_workers=len(self.queues) + 2, thread_name_prefix="eventwright-rq") as threads,
        ):
            books = loop.run_in_executor(threads, self._keep_books, partial(loop.call_soon_threadsafe, stopping.set))
            try:
                await self._attend_all(handle, stop, books, threads)
                await asyncio.wait([stop, *self._running], timeout=self.drain_seconds)
            finally:
                await self._close([stop, *self._running], books)

    # On the event loop

    async def _attend_all(
        self, handle: Handle, stop: asyncio.Task[bool], books: asyncio.Future[None], threads: ThreadPoolExecutor
    ) -> None:
        pause = POLL_SECONDS
        while not stop.done():
            if books.done():
                books.result()  # they ended before they were closed: raise why
            free = self.concurrency - len(self._running)
            if not free or self._suspended:
                await _first_of(stop, books, *self._running, timeout=POLL_SECONDS)
                continue
            take = partial(self._take, min(free, MOST_AT_ONCE))
            try:
                taken = await asyncio.get_running_loop().run_in_executor(threads, take)
                if taken is None:
                    self._suspended = True  # the books see when it is over
                elif not taken:
                    await self._wait_at_lanes(threads, stop, books)
            except (RedisError, OSError) as error:
                self._note_redis("taking wake-ups", error)
                await _first_of(stop, books, timeout=pause)
                pause = min(2 * pause, LONGEST_PAUSE_SECONDS)
                continue
            self._note_redis("taking wake-ups", None)
            pause = POLL_SECONDS
            for attended in taken or ():
                self._begin(handle, attended)

    async def _wait_at_lanes(self, threads: ThreadPoolExecutor, *ends: asyncio.Future[Any]) -> None:
        """Wait until a lane may have something, or one of `ends`. Raises RedisError or OSError.

        The waits at the other lanes go on meanwhile, and are found again the next time.
        """
        for lane in self._lanes.all:
            if lane not in self._waits:
                self._waits[lane] = asyncio.get_running_loop().run_in_executor(threads, lane.wait)
        await asyncio.wait([*self._waits.values(), *ends], return_when=asyncio.FIRST_COMPLETED)
        over = [self._waits.pop(lane) for lane, wait in list(self._waits.items()) if wait.done()]
        for error in [wait.exception() for wait in over]:
            if error is not None:
                raise error

    def _begin(self, handle: Handle, attended: Attended) -> None:
        async def attend() -> None:
            await handle(attended.job.run_id)

        task = asyncio.get_running_loop().create_task(attend(), name=f"wake-up {attended.job.id}")
        self._running.add(task)
        task.add_done_callback(partial(self._end, attended))

    def _end(self, attended: Attended, task: asyncio.Task[None]) -> None:
        # A callback, because a task that is cancelled before its first step never enters a try of its own.
        self._running.discard(task)
        attended.job.ended_at = now()
        error = asyncio.CancelledError() if task.cancelled() else task.exception()
        self._ended.put(Ended(attended, error))

    async def _close(self, tasks: list[asyncio.Task[Any]], books: asyncio.Future[None]) -> None:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        self._closing.set()
        await asyncio.gather(books, *self._waits.values(), return_exceptions=True)
        books.result()

    def _note_redis(self, doing: str, error: Exception | None) -> None:
        """Say once that Redis went away, and once that it is back."""
        if error and doing not in self._troubled:
            self._troubled.add(doing)
            logger.warning("%s: Redis is away (%s); runs are found by the sweep until it is back", doing, error)
        elif not error and doing in self._troubled:
            self._troubled.remove(doing)
            logger.warning("%s: Redis is back", doing)

    # On the thread that takes

    def _take(self, most: int) -> list[Attended] | None:
        """Take up to `most` wake-ups, the most urgent first, and begin their books; None while suspended."""
        taken = self._lanes.take(most)
        if not taken:
            return None if taken is None else []
        failpoint(Failpoint.WORKER_TAKEN)
        jobs = [(lane, job) for lane, job_ids in taken for job in lane.read(job_ids)]
        begun = []
        with self.connection.pipeline() as pipe:
            for lane, job in jobs:
                execution = Execution.create(job, LEASE_SECONDS, pipeline=pipe, worker_name=self.name)
                self.executions[execution.id] = execution
                job.prepare_for_execution(self.name, pipeline=pipe)
                begun.append(Attended(lane, job, execution))
            for lane, job_ids in taken:
                for job_id in job_ids:
                    pipe.lrem(lane.queue.intermediate_queue_key, 1, job_id)  # type: ignore[arg-type]
            try:
                pipe.execute()
            except (RedisError, OSError):
                for attended in begun:
                    self.executions.pop(attended.execution.id, None)
                raise
        failpoint(Failpoint.WORKER_BEGUN)
        return begun

    # On the thread that keeps the books

    def _keep_books(self, stop: Callable[[], object]) -> None:
        ended: list[Ended] = []
        next_beat = 0.0
        with self.connection.pubsub(ignore_subscribe_messages=True) as commands:  # type: ignore[no-untyped-call]
            while not self._closing.is_set():
                try:
                    self._record(ended)
                    ended = []
                    if time.monotonic() >= next_beat:
                        self._beat()
                        for lane in self._lanes.all:
                            lane.clean()
                        next_beat = time.monotonic() + BEAT_SECONDS
                    self._show_state()
                    self._obey(commands, stop)
                    self._note_redis("keeping the books", None)
                except (RedisError, OSError) as error:
                    self._note_redis("keeping the books", error)
                    self._closing.wait(POLL_SECONDS)
                ended += self._wait_for_ended()
        self._sign_off(ended)

    def _wait_for_ended(self) -> list[Ended]:
        """All that have ended by now; waits shortly for the first."""
        ended: list[Ended] = []
        with suppress(Empty):
            ended.append(self._ended.get(timeout=LOOK_SECONDS))
            while True:
                ended.append(self._ended.get_nowait())
        return ended

    def _record(self, ended: list[Ended]) -> None:
        """Take what has ended out of RQ's books. Raises RedisError or OSError with the finished ones still in."""
        if not ended:
            return
        failpoint(Failpoint.WORKER_ENDED)
        with self.connection.pipeline() as pipe:
            for (_, job, execution), error in ended:
                if error is None:
                    self.increment_successful_job_count(pipe)
                    self.increment_total_working_time(_working_time(job), pipe)
                if error is None or isinstance(error, asyncio.CancelledError):
                    # A cancelled one is not rung again from here: the sweep does, when its lease is free.
                    self.executions.pop(execution.id, None)
                    execution.delete(job, pipe)
                    job.forget(pipe)
            pipe.execute()
        for attended, error in ended:
            if error is not None and not isinstance(error, asyncio.CancelledError):
                self._record_failure(attended, error)

    def _record_failure(self, attended: Attended, error: BaseException) -> None:
        lane, job, execution = attended
        logger.error("wake-up %s failed", job.id, exc_info=error)
        reason = format_exc_info((type(error), error, error.__traceback__))
        try:
            self.handle_job_failure(job, lane.queue, exc_string=reason, execution=execution)
        except Exception:  # a forged job must not end the worker, whatever RQ makes of its fields
            logger.exception("RQ could not record the failure of %s; it will be removed as abandoned", job.id)
        finally:
            self.executions.pop(execution.id, None)

    def _beat(self) -> None:
        """Say that this worker lives, all of it each time, since Redis may have forgotten; renew the leases."""
        registries = {lane.queue.name: lane.queue.started_job_registry for lane in self._lanes.all}
        with self.connection.pipeline() as pipe:
            pipe.hset(self.key, mapping=self.serialize())
            register(self, pipe)
            self.heartbeat(SHOWN_SECONDS, pipeline=pipe)
            self.set_state(self._present_state(), pipeline=pipe)
            for execution in list(self.executions.values()):
                execution.heartbeat(registries[execution.job.origin], LEASE_SECONDS, pipeline=pipe)
            pipe.exists(WORKERS_SUSPENDED)
            self._suspended = bool(pipe.execute()[-1])

    def _show_state(self) -> None:
        # This thread alone writes the state: two writers would overtake each other.
        state = self._present_state()
        if state != self.get_state():
            self.set_state(state)

    def _present_state(self) -> WorkerStatus:
        if self.executions:
            return WorkerStatus.BUSY
        return WorkerStatus.SUSPENDED if self._suspended else WorkerStatus.IDLE

    def _obey(self, commands: PubSub, stop: Callable[[], object]) -> None:
        if not commands.subscribed:
            commands.subscribe(self.pubsub_channel_name)
        while message := commands.get_message():
            try:
                payload: Any = parse_payload(message)
            except ValueError:
                payload = message["data"]
            if isinstance(payload, dict) and payload.get("command") == "shutdown":
                stop()
            else:
                logger.warning("ignored the RQ command %r: runs are ended with `eventwright cancel`", payload)

    def _sign_off(self, ended: list[Ended]) -> None:
        try:
            self._record(ended + self._wait_for_ended())
            self.register_death()  # type: ignore[no-untyped-call]
        except (RedisError, OSError) as error:
            logger.warning("could not sign off (%s); `rq info` shows this worker for %s s", error, SHOWN_SECONDS)


async def _first_of(*futures: asyncio.Future[Any], timeout: float) -> None:
    await asyncio.wait(futures, timeout=timeout, return_when=asyncio.FIRST_COMPLETED)


def _working_time(job: WakeUpJob) -> timedelta:
    return job.ended_at - job.started_at if job.ended_at and job.started_at else timedelta()
