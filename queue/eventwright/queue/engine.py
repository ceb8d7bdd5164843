"""The engine: the few verbs that everybody calls, and `advance`, the one way in which a run moves on.

receive   an event comes in                      decide    a person answers
advance   a run goes on until it rests           cancel    an operator ends a run
tick      whatever is due is seen to             replay    an operator takes a dead letter up again
undo      what a run did is taken back           reconcile what nobody knows is read back
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Collection
from dataclasses import dataclass
from datetime import datetime

from eventwright.graphs.compensation import own_workflows
from eventwright.graphs.outcomes import Failed, Report, Yields
from eventwright.graphs.runner import Runner, Stop
from eventwright.graphs.workflow import UnknownWorkflow, Workflows
from eventwright.queue import settle
from eventwright.queue.compensation import Compensation, LedgerLine
from eventwright.queue.continuing import Continuing
from eventwright.queue.desk import Desk
from eventwright.queue.intake import Beside, Intake, Receipt
from eventwright.queue.migration import NO_MOVE, Migration, Move, Mover, Plan
from eventwright.queue.pressure import MOST_BACKLOG, Pressure
from eventwright.runs.claims import MOST_CRASHES, SUSPECT
from eventwright.runs.errors import IllegalMove, LeaseLost, StoreUnavailable, UnknownRun
from eventwright.runs.event import Event
from eventwright.runs.failpoints import Failpoint, failpoint
from eventwright.runs.records import Claim, Decision, EventState, Lease, Review, Run
from eventwright.runs.roles import NO_ROLES, Roles
from eventwright.runs.states import Reason, RunState
from eventwright.runs.store import Store
from eventwright.runs.transaction import Transaction

log = logging.getLogger(__name__)


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
        most_backlog: how many runs may wait to be begun before no event is taken in that would start one more.
        roles: who has which, for reviews that ask for one.
    """

    def __init__(
        self,
        store: Store,
        workflows: Workflows,
        runner: Runner,
        *,
        worker: str,
        times: Lapse | None = None,
        most_backlog: int = MOST_BACKLOG,
        roles: Roles = NO_ROLES,
    ) -> None:
        self.store = store
        self.workflows = workflows.with_own(own_workflows(workflows.versions()))
        self.runner = runner
        self.worker = worker
        self.times = times or Lapse()
        #: Segments that run in this process, by run.
        self.active: dict[str, Stop] = {}
        #: Runs that were let go here because the database was away, which it does not know yet.
        self.dropped: set[str] = set()
        #: Called after a commit that left something to be rung, or due at a time.
        self.on_news: list[Callable[[], None]] = []
        pressure = Pressure(store, most_backlog=most_backlog)
        self._intake = Intake(store, self.workflows, pressure)
        self._continuing = Continuing(store, self.workflows, pressure)
        self._desk = Desk(store, self.workflows, roles)
        self._compensation = Compensation(store, self.workflows)
        self._mover = Mover(store, self.workflows, runner)
        self._draining = False

    # -- events and people -------------------------------------------------------------------------------------------

    async def receive(self, event: Event, *, beside: Beside | None = None) -> Receipt:
        """Store an event and the runs it starts; see `Intake.receive` for what may be wrong with it."""
        return await self._take_in(event, beside=beside)

    async def receive_again(self, uid: str) -> Receipt:
        """Take a refused event in once more, as the code is now. Raises UnknownEvent and what `receive` raises."""
        stored = await self.store.event(uid)
        return await self._take_in(stored.event, refused=stored.state is EventState.REFUSED, scheduled=True)

    async def fire(self, tick: Event) -> Receipt:
        """Store the event that a schedule's tick or a database's change is, once whoever else does; it raises what
        `receive` does."""
        return await self._take_in(tick, scheduled=True)

    async def _take_in(
        self, event: Event, *, refused: bool = False, scheduled: bool = False, beside: Beside | None = None
    ) -> Receipt:
        with self.store.telemetry.intake(event) as watch:
            receipt = await self._intake.receive(
                event, refused=refused, scheduled=scheduled, trace=watch.trace, beside=beside
            )
            watch.tell(runs=receipt.runs, duplicate=receipt.duplicate)
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
        lease: Lease | None = None
        try:
            claim = await self._claim(run_id)
            if claim.lease is None or claim.run is None:
                return None
            run, lease = claim.run, claim.lease
            with self.store.telemetry.segment(run, lease.due) as watch:
                report = await self._segment(run, lease, stop)
                state = await self._settle(run, lease, report)
                watch.tell(state=state, **settle.told(report.outcome))
            return state
        except (LeaseLost, StoreUnavailable) as error:
            # Whoever holds the run now goes on with it; nothing of what we did not commit has happened.
            log.warning("segment of %s given up: %s", run_id, error)
            if isinstance(error, LeaseLost):
                await self._tell_refusal(error)
            elif lease is not None:
                self.dropped.add(run_id)
            return None
        except asyncio.CancelledError:
            if self._draining and lease is not None:
                await self._give_up(lease)
            raise
        finally:
            del self.active[run_id]

    async def _claim(self, run_id: str) -> Claim:
        failpoint(Failpoint.ENGINE_CLAIMING)
        try:
            async with self.store.write() as tx:
                claim = tx.claim(run_id, worker=self.worker, seconds=self.times.lease)
        except UnknownRun:
            log.warning("a bell rang for run %s, which is not in this database", run_id)
            return Claim()
        failpoint(Failpoint.ENGINE_CLAIMED)
        return claim

    async def _segment(self, run: Run, lease: Lease, stop: Stop) -> Report:
        if run.crashes >= MOST_CRASHES:
            words = (
                f"{run.crashes} workers died, or were blocked, while this run stood at one place, the last "
                f"{run.crashes - SUSPECT} of them with no other suspect in their hands; mend the node, then replay it"
            )
            return Report(outcome=Failed(Reason.QUARANTINED, words))
        if run.cancel_requested_by is not None:
            return Report(outcome=Yields(run.lane))
        try:
            workflow = self.workflows.get(run.workflow, run.version)
        except UnknownWorkflow as error:
            way_out = f". Or move it on: eventwright migrate RUN --to {error.loaded[-1]}" if error.loaded else ""
            return Report(outcome=Failed(Reason.NEEDS_MIGRATION, f"{error}{way_out}"))
        report = await self.runner.segment(run, workflow, lease, stop)
        return settle.unless_idle(report, run.idle + (not stop.requested))

    async def _settle(self, run: Run, lease: Lease, report: Report) -> RunState:
        """Write how the segment ended: the state, the journal, what people are asked and the next bell, all in one."""
        beside = await self._compensation.beside(run, report)
        failpoint(Failpoint.ENGINE_SETTLING)
        async with self.store.write(lease) as tx:
            settle.reviews(tx, run, report)
            state = settle.rest(tx, run, report, actor=self.worker)
            if report.idle != run.idle:
                tx.count_idle(run.id, report.idle)
            if run.crashes >= SUSPECT:
                tx.wake_next_suspect()
            if beside is not None:
                beside(tx)
        failpoint(Failpoint.ENGINE_SETTLED)
        if state is not RunState.COMPLETED or beside is not None or run.serial_key is not None or run.crashes:
            self._news()
        return state

    async def _tell_refusal(self, lost: LeaseLost) -> None:
        """Put into the journal that this worker came too late: once for each lease that it has lost."""
        data = {
            "text": "a write of a worker that had lost the run was refused",
            "fence": lost.fence,
            "current": lost.current,
        }
        await self._write_if_possible(lost.run_id, lambda tx: tx.note(lost.run_id, actor=self.worker, data=data))

    async def after_outage(self) -> None:
        """The database answers again: what workers lost by its absence is nobody's crash. Raises StoreUnavailable."""
        dropped = set(self.dropped)
        async with self.store.write() as tx:
            tx.excuse(dropped - self.active.keys(), worker=self.worker)
        self.dropped -= dropped

    async def _give_up(self, lease: Lease) -> None:
        """The process ends before the segment does: another worker goes on when the lease is over."""
        await self._write_if_possible(lease.run_id, lambda tx: tx.give_up(lease.run_id, worker=self.worker), lease)

    async def _write_if_possible(
        self, run_id: str, write: Callable[[Transaction], None], lease: Lease | None = None
    ) -> None:
        """Write what nothing depends on."""
        try:
            async with self.store.write(lease) as tx:
                write(tx)
        except (LeaseLost, StoreUnavailable, UnknownRun) as error:
            log.warning("the journal of %s does not say how its worker lost it: %s", run_id, error)

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

    async def replay(self, run_id: str, *, by: str, from_start: bool = False, move: Move = NO_MOVE) -> Run:
        """Take a dead letter up again, on from its last checkpoint, with its attempts given back.

        Args:
            move: to another graph, before it goes on; see `migrate`.
            from_start: begin the graph anew; effects that are done stay done and are not repeated.

        Raises:
            UnknownRun.
            IllegalMove: the run is not failed.
            UnknownWorkflow, BadMigration: it cannot be moved on like this.
            AlreadyUndone: what it did was taken back.
        """
        run = await self.store.run(run_id)
        if run.state is not RunState.FAILED:
            raise IllegalMove(run_id, run.state, RunState.RECEIVED)
        plan = await self._mover.plan(run, move, anew=from_start) if move or from_start else None
        await self._take_up(run, plan, by=by, from_start=from_start)
        return await self.store.run(run_id)

    async def migrate(self, run_id: str, move: Move, *, by: str, dry_run: bool = False) -> Migration:
        """Move a run that nobody works on to another graph: one that waits goes on waiting there, a dead letter is
        taken up again.

        Args:
            dry_run: change nothing.

        Raises:
            UnknownRun.
            IllegalMove: a worker has it, or it is at its end.
            RunMoved: it went on meanwhile.
            UnknownWorkflow, BadMigration: it cannot be moved like this.
            AlreadyUndone: what it did was taken back.
        """
        run = await self.store.run(run_id)
        plan = await self._mover.plan(run, move)
        if not dry_run:
            await self._take_up(run, plan, by=by)
        return plan.told()

    async def _take_up(self, run: Run, plan: Plan | None, *, by: str, from_start: bool = False) -> None:
        failed = run.state is RunState.FAILED
        given_up = await self._compensation.given_up(run) if failed else ()
        async with self.store.write() as tx:
            if failed:
                tx.refuse_undone(run.id, given_up=given_up)
            if plan is not None:
                self._mover.write(tx, plan, by=by)
            if failed:
                tx.move(
                    run.id,
                    RunState.RECEIVED,
                    actor=by,
                    data={"replay": "from the start" if from_start else "from the last checkpoint"},
                    # Somebody else may have replayed it since, and a worker may have it: that one keeps it.
                    only_from=RunState.FAILED,
                    attempts=run.attempts + 1,
                    crashes=0,
                    idle=0,
                    generation=run.generation + from_start,
                )
                tx.reset_failures(run.id)
            elif run.state is RunState.PENDING_APPROVAL:
                tx.make_due(run.id)  # its questions are asked anew there, and keep their reviews
            if failed or run.state is RunState.PENDING_APPROVAL:
                tx.wake(run.id, lane=run.lane)
        self._news()

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
        """See to the deadlines that have passed, to events that came too late, and to segments of this process that an
        operator cancelled."""
        for timer in await self.store.due_timers(limit=200):
            await self._desk.expire(timer.review_id)
            self._news()
        if await self._continuing.see_to_late():
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
