"""The one job that our queues carry: "run R may go on". It holds a run id and can do nothing else.

Whoever can write to Redis can write a job, and RQ imports and calls whatever name a job gives it. `WakeUpJob` is the
class our worker reads jobs with: it resolves one function of ours and refuses every other name.

Pinned: `rq>=3.0,<3.1`. All the names of RQ that are private or undocumented, so that an upgrade knows where to look:
- here: `Job._success_callback_name`, `_failure_callback_name`, `_stopped_callback_name`, `Job.restore`;
- in wakeups.py: `Queue.intermediate_queue_key`;
- in lanes.py: the same, `validate_job_id`, `worker_registration`, `WORKERS_SUSPENDED`;
- in worker.py: `BaseWorker(prepare_for_work=False)`, `.connection_timeout`, `.executions`, `.serialize`,
  `.handle_job_failure`, `.set_state`, `Execution.create`, `.delete`, `.heartbeat`, `Job.prepare_for_execution`,
  `format_exc_info`, `worker_registration`, `parse_payload`, `WORKERS_SUSPENDED`.
`make contract-rq` runs RQ's own tests against the worker that is built on them.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NoReturn

from redis.client import Pipeline
from rq.exceptions import DeserializationError
from rq.job import Job

from eventwright.runs.errors import EventwrightError

WAKE = "eventwright.queue.jobs.wake"
FAILURE_SECONDS = 3600
"""How long RQ shows a failed wake-up. What matters about a run is in the database; this is a hint for `rq info`."""


class ForeignJob(EventwrightError, PermissionError):
    """A job in one of our queues is not a wake-up; it was not run. Find out who else can write to this Redis."""

    def __init__(self, job_id: str, found: object) -> None:
        self.job_id, self.found = job_id, found
        super().__init__(
            f"job {job_id} asks for {found!r}, but this queue carries wake-ups only; nothing was run. "
            "Find out who else can write to this Redis"
        )


def wake(run_id: str) -> NoReturn:
    """What a wake-up names. Our worker takes the run id and never calls this; another RQ worker would.

    Raises:
        RuntimeError: Always.
    """
    raise RuntimeError(f"run {run_id} cannot go on in a plain RQ worker; start `eventwright worker` instead")


class WakeUpJob(Job):
    """A job that can only be a wake-up.

    It refuses where RQ resolves a name (`func`, the callbacks). `func_name` stays readable, because RQ's own way of
    failing a job reads it, and refusing there would end the worker.
    """

    @property
    def run_id(self) -> str:
        """The run that may go on.

        Raises:
            ForeignJob: This is not a wake-up: another function, a callback, other arguments, or unreadable.
        """
        for callback in (self._success_callback_name, self._failure_callback_name, self._stopped_callback_name):
            self._refuse_callback(callback)
        _ = self.func
        match self.args, self.kwargs:
            case [str(run_id)], {**rest} if not rest:
                return run_id
        raise ForeignJob(self.id, {"args": self.args, "kwargs": self.kwargs})

    @property
    def func(self) -> Callable[[str], NoReturn]:
        """`wake`, and nothing else.

        Raises:
            ForeignJob: The job names another function, a method, or cannot be read.
        """
        try:
            name, instance = self.func_name, self.instance
        except DeserializationError as error:
            raise ForeignJob(self.id, "unreadable data") from error
        if name != WAKE or instance is not None:
            raise ForeignJob(self.id, name)
        return wake

    @property
    def success_callback(self) -> None:
        """None. Raises ForeignJob if the job names one."""
        self._refuse_callback(self._success_callback_name)

    @property
    def failure_callback(self) -> None:
        """None. Raises ForeignJob if the job names one."""
        self._refuse_callback(self._failure_callback_name)

    @property
    def stopped_callback(self) -> None:
        """None. Raises ForeignJob if the job names one."""
        self._refuse_callback(self._stopped_callback_name)

    def restore(self, raw_data: dict[Any, Any]) -> None:
        """Read the job as Redis has it, and forget what no wake-up has: RQ would act on these when a job fails."""
        super().restore(raw_data)
        self.webhooks = []
        self.retries_left = self.repeats_left = self.group_id = None
        self.rate_limit_key = self.rate_limit_concurrency = None
        self.failure_ttl = FAILURE_SECONDS

    def forget(self, pipeline: Pipeline) -> None:
        """Leave nothing in Redis, in this transaction: what came of the run is in the database."""
        pipeline.delete(self.key)

    def _refuse_callback(self, name: str | None) -> None:
        if name:
            raise ForeignJob(self.id, name)
