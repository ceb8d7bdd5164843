"""The engine: the few verbs that everybody calls, and `advance`, the one way in which a run moves on.

receive   an event comes in                      decide    a person answers
advance   a run goes on until it rests           cancel    an operator ends a run
tick      whatever is due is seen to             replay    an operator takes a dead letter up again
undo      what a run did is taken back           reconcile what nobody knows is read back
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass
from datetime import datetime

from eventwright.graphs.compensation import own_workflows
from eventwright.graphs.outcomes import Failed, Report, Yields
from eventwright.graphs.runner import Runner, Stop
from eventwright.graphs.workflow import UnknownWorkflow, Workflows
from eventwright.queue import settle
from eventwright.queue.compensation import Compensation, LedgerLine
from eventwright.queue.desk import Desk
from eventwright.queue.intake import Intake, Receipt
from eventwright.queue.migration import migrate
from eventwright.runs.errors import IllegalMove, LeaseLost, StoreUnavailable, UnknownRun
from eventwright.runs.event import Event
from eventwright.runs.records import Decision, EventState, Lease, Review, Run
from eventwright.runs.states import Reason, RunState
from eventwright.runs.store import Store

log = logging.getLogger(__name__)

#: A run that was in the hands of this many workers when they died is taken out of the queue.
MOST_CRASHES = 5


@dataclass(frozen=True, kw_only=True)
class Lapse:
    """The times of the engine, in seconds. A killed worker's runs go on elsewhere within lease + sweep."""

    lease: float = 6.0
    heartbeat: float = 2.0
    sweep: float = 2.0


class Engine:
    """One per process. It holds no truth: everything that lasts is in the store.

    Args:
        store: the truth.
        workflows: what is deployed here.
        runner: runs segments.
        worker: the name under which this process claims runs.
        times: lease, heartbeat and sweep.
    """

    def __init__(
        self, store: Store, workflows: Workflows, runner: Runner, *, worker: str, times: Lapse | None = None
    ) -> None:
        self.store = store
        self.workflows = workflows.with_own(own_workflows(workflows.versions()))
        self.runner = runner
        self.worker = worker
        self.times = times or Lapse()
        #: Segments that run in this process, by run.
        self.active: dict[str, Stop] = {}
        #: Called after a commit that left something to be rung, or due at a time.
        self.on_news: list[Callable[[], None]] = []
        self._intake = Intake(store, self.workflows)
        self._desk = Desk(store, self.workflows)
        self._compensation = Compensation(store, self.workflows)
        self._draining = False

    # -- events and people -------------------------------------------------------------------------------------------

    async def receive(self, event: Event) -> Receipt:
        """Store an event and the runs it starts; see `Intake.receive` for what may be wrong with it."""
        receipt = await self._intake.receive(event)
        self._news()
        return receipt

    async def receive_again(self, uid: str) -> Receipt:
        """Take a refused event in once more, as the code is now. Raises UnknownEvent and what `receive` raises."""
        stored = await self.store.event(uid)
        receipt = await self._intake.receive(stored.event, refused=stored.state is EventState.REFUSED)
        self._news()
        return receipt

    async def decide(self, review_id: str, decision: Decision, *, digest: str | None = None) -> Review:
        """Commit a person's answer; see `Desk.decide` for what may be wrong with it."""
        review = await self._desk.decide(review_id, decision, digest=digest)
        self._news()
        return review

    # -- the way of a run --------------------------------------------------------------------------------------------

    async def advance(self, run_id: str) -> RunState | None:
        """Take the run from where it stands to where it rests. Safe to call at any time, any number of times, anywhere.

        Returns:
            The state in which it rests, or None if there was nothing to do here: not due, or in other hands.
        """
        if run_id in self.active:
            # Even if its lease ran out unnoticed: two segments of one process would share the newer one's lease.
            return None
        stop = self.active[run_id] = Stop()
        if self._draining:
            stop.request("shutdown")
        try:
            lease = await self._claim(run_id)
            if lease is None:
                return None
            run = await self.store.run(run_id)
            report = await self._segment(run, lease, stop)
            return await self._settle(run, lease, report)
        except (LeaseLost, StoreUnavailable) as error:
            # Whoever holds the run now goes on with it; nothing of what we did not commit has happened.
            log.warning("segment of %s given up: %s", run_id, error)
            return None
        finally:
            del self.active[run_id]

    async def _claim(self, run_id: str) -> Lease | None:
        try:
            async with self.store.write() as tx:
                claim = tx.claim(run_id, worker=self.worker, seconds=self.times.lease)
        except UnknownRun:
            log.warning("a bell rang for run %s, which is not in this database", run_id)
            return None
        return claim.lease

    async def _segment(self, run: Run, lease: Lease, stop: Stop) -> Report:
        if run.crashes >= MOST_CRASHES:
            words = f"{run.crashes} workers died while they held this run; replay it once the cause is mended"
            return Report(outcome=Failed(Reason.QUARANTINED, words))
        if run.cancel_requested_by is not None:
            return Report(outcome=Yields(run.lane))
        try:
            workflow = self.workflows.get(run.workflow, run.version)
        except UnknownWorkflow as error:
            return Report(outcome=Failed(Reason.NEEDS_MIGRATION, str(error)))
        return await self.runner.segment(run, workflow, lease, stop)

    async def _settle(self, run: Run, lease: Lease, report: Report) -> RunState:
        """Write how the segment ended: the state, the journal, what people are asked and the next bell, all in one."""
        beside = await self._compensation.beside(run, report)
        async with self.store.write(lease) as tx:
            settle.reviews(tx, run, report)
            state = settle.rest(tx, run, report, actor=self.worker)
            if beside is not None:
                beside(tx)
        if state is not RunState.COMPLETED or beside is not None:
            self._news()
        return state

    # -- operators ---------------------------------------------------------------------------------------------------

    async def cancel(self, run_id: str, *, by: str) -> Run:
        """End the run; one that is processing ends at its next boundary.

        Raises:
            UnknownRun.
            IllegalMove: it is final already.
        """
        async with self.store.write() as tx:
            tx.cancel(run_id, by=by)
        if run_id in self.active:
            self.active[run_id].request("cancel")
        self._news()
        return await self.store.run(run_id)

    async def replay(
        self, run_id: str, *, by: str, from_start: bool = False, rename: Mapping[str, str] | None = None
    ) -> Run:
        """Take a dead letter up again, on from its last checkpoint, with its attempts given back.

        Args:
            from_start: begin the graph anew; effects that are done stay done and are not repeated.
            rename: nodes that a deploy renamed, old name to new: the run, its decisions and effects move over.

        Raises:
            UnknownRun.
            IllegalMove: the run is not failed.
            UnknownWorkflow, BadMigration: it cannot be moved on like this.
            AlreadyUndone: what it did was taken back.
        """
        run = await self.store.run(run_id)
        if run.state is not RunState.FAILED:
            raise IllegalMove(run_id, run.state, RunState.RECEIVED)
        given_up = await self._compensation.given_up(run)
        async with self.store.write() as tx:
            tx.refuse_undone(run_id, given_up=given_up)
            if rename:
                await migrate(tx, run, rename, self.workflows, self.store, self.runner.saver, by=by)
            tx.move(
                run_id,
                RunState.RECEIVED,
                actor=by,
                data={"replay": "from the start" if from_start else "from the last checkpoint"},
                # Somebody else may have replayed it since, and a worker may have it: that one keeps it.
                only_from=RunState.FAILED,
                attempts=run.attempts + 1,
                crashes=0,
                generation=run.generation + from_start,
            )
            tx.reset_failures(run_id)
            tx.wake(run_id, lane=run.lane)
        self._news()
        return await self.store.run(run_id)

    async def ledger(self, run_id: str) -> list[LedgerLine]:
        """What the run did, in order, with what of it can be taken back. Raises UnknownRun."""
        return await self._compensation.ledger(await self.store.run(run_id))

    async def undo(self, run_id: str, *, by: str, effects: Collection[str] | None = None) -> Run:
        """Have what a run did taken back, by a run of its own; see `Compensation.undo` for what may be wrong."""
        run = await self._compensation.undo(run_id, by=by, effects=effects)
        self._news()
        return run

    async def reconcile(self, run_id: str, *, by: str) -> Run:
        """Have the writes that nobody knows to have happened read back, by a run of its own; see
        `Compensation.reconcile` for what may be wrong."""
        run = await self._compensation.reconcile(run_id, by=by)
        self._news()
        return run

    # -- time --------------------------------------------------------------------------------------------------------

    async def tick(self, now: datetime | None = None) -> None:
        """See to the deadlines that have passed, and to segments of this process that an operator cancelled."""
        for timer in await self.store.due_timers(limit=200):
            await self._desk.expire(timer.review_id)
            self._news()
        for run_id in await self.store.cancel_requests(self.active):
            if run_id in self.active:
                self.active[run_id].request("cancel")

    def drain(self) -> None:
        """Let every segment of this process stop at its next boundary and hand its run back."""
        self._draining = True
        for stop in self.active.values():
            stop.request("shutdown")

    def _news(self) -> None:
        for bell in self.on_news:
            bell()
