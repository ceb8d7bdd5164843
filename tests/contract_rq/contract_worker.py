"""Our worker as RQ's tests build and run one.

What is changed is the door, not what is behind it: RQ's tests give queues and a connection where ours are named lanes
of an address, they enqueue functions where ours carry wake-ups, and they run a worker by a call that returns.
"""

from __future__ import annotations

import asyncio
import signal
from typing import Any

from redis.client import Pipeline
from rq.defaults import DEFAULT_RESULT_TTL
from rq.job import Job
from rq.suspension import is_suspended
from rq.worker.base import BaseWorker

from eventwright.queue.jobs import WakeUpJob
from eventwright.queue.lanes import Lanes
from eventwright.queue.worker import Attended, Worker

LOOK_SECONDS = 0.02
MOST_SECONDS = 30.0
"""A worker that is still at work then was not told to stop, or did not hear it."""


class AnyJob(WakeUpJob):
    """A job of any function, which leaves its result as RQ's own does; it stands for its run's id."""

    run_id = property(lambda self: self)
    done = False
    func, restore = Job.func, Job.restore
    success_callback, failure_callback = Job.success_callback, Job.failure_callback
    stopped_callback = Job.stopped_callback

    def perform(self) -> Any:
        """Call the function."""
        result = super().perform()
        self.done = True
        return result

    def forget(self, pipeline: Pipeline) -> None:
        """Keep the result for as long as the job says."""
        seconds = self.get_result_ttl(DEFAULT_RESULT_TTL)
        if self.done and seconds:
            self._handle_success(seconds, pipeline, worker_name=self.worker_name or "")
        self.cleanup(seconds, pipeline=pipeline, remove_from_queue=False)


class ContractWorker(Worker):
    """Our worker, with the constructor and the `work` of RQ's."""

    job_class = Job
    worked = False
    """Whether one of them was at work."""
    _taking = False

    def __init__(self, *args: Any, **options: Any) -> None:
        super().__init__("redis://not-used", lanes=[], concurrency=1)
        BaseWorker.__init__(self, *args, **options)
        self._lanes = Lanes(self.queues, self.connection)
        for lane in self._lanes.all:
            lane.job_class = AnyJob

    def work(self, burst: bool = False, *, max_jobs: int | None = None, **unknown: Any) -> bool:
        """Serve until told to stop by a signal or a command, until all is done (`burst`), or for so many jobs."""
        if unknown:
            raise NotImplementedError(f"our worker has no {', '.join(unknown)}")
        ContractWorker.worked = True
        self.register_birth()
        self._closing.clear()
        self._waits.clear()
        return asyncio.run(self._work(burst, max_jobs))

    async def _work(self, burst: bool, max_jobs: int | None) -> bool:
        stopping, done = asyncio.Event(), 0

        async def handle(job: AnyJob) -> None:
            nonlocal done
            try:
                await asyncio.to_thread(job.perform)
            finally:
                done += 1
                if done == max_jobs:
                    stopping.set()

        async def watch() -> None:
            while not stopping.is_set():
                await asyncio.sleep(LOOK_SECONDS)
                if burst and (is_suspended(self.connection) or await asyncio.to_thread(self._all_done)):
                    stopping.set()

        loop = asyncio.get_running_loop()
        for number in (signal.SIGINT, signal.SIGTERM):
            loop.add_signal_handler(number, stopping.set)
        async with asyncio.timeout(MOST_SECONDS), asyncio.TaskGroup() as tasks:
            tasks.create_task(watch())
            tasks.create_task(self.serve(handle, stopping))  # type: ignore[arg-type]
        return bool(done)

    def _all_done(self) -> bool:
        def idle() -> bool:
            return not self._taking and not self._running and not self.executions

        # Before and after, since a job may go from a queue to the worker, or back for a retry, between two looks.
        return idle() and not any(queue.count for queue in self.queues) and idle()

    def _take(self, most: int) -> list[Attended] | None:
        self._taking = True
        try:
            return super()._take(most)
        finally:
            self._taking = False
