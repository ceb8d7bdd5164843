"""The runner: takes a claimed run from where its checkpoint stands to where the graph pauses, fails or ends.

One way for everything (start, resume, retry, recovery): read the graph's state, answer authors' questions strictly by
id, invoke, read the state again, and say how it ended. LangGraph's own word is never taken for it: `next == ()` does
not mean done, `not tasks` does.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import timedelta
from typing import Any

from langchain_core.runnables import RunnableConfig
from langgraph.errors import GraphDrained, GraphRecursionError, InvalidUpdateError
from langgraph.graph.state import CompiledStateGraph
from langgraph.runtime import RunControl
from langgraph.types import Command, Interrupt, StateSnapshot

from eventwright.graphs.outcomes import Asks, Failed, Finished, Report, SegmentOutcome, Yields
from eventwright.graphs.questions import resume_value, review_of
from eventwright.graphs.twin import ReplayDiffers, current_segment, guarded_twin, locate
from eventwright.graphs.workflow import Workflow
from eventwright.guardrails.gate import FALLBACK
from eventwright.guardrails.segment import Segment
from eventwright.guardrails.verdicts import Denied, Rejected
from eventwright.runs.checkpoints import CheckpointSaver
from eventwright.runs.errors import LeaseLost, StoreUnavailable
from eventwright.runs.records import DecisionType, EffectState, Lease, Review, ReviewKind, Run, Visit
from eventwright.runs.states import Outcome, Reason
from eventwright.runs.store import History, Store
from eventwright.tools.contract import NotDone, Permanent, Resources, ToolClass

#: Errors of the engine itself. They say nothing about the run, which is taken up again when its lease runs out.
OURS = (LeaseLost, StoreUnavailable)
#: The prefix of the channels by which LangGraph triggers a node.
TRIGGER = "branch:to:"
_NO_PAST = History(effects={}, visits={}, reviews=())


class Stop:
    """A way to end a segment at its next boundary: between two supersteps, never inside a node."""

    def __init__(self) -> None:
        self.control = RunControl()

    def request(self, why: str) -> None:
        """Let the segment end soon; `why` is shown in logs. Safe from any thread."""
        self.control.request_drain(why)


@dataclass(frozen=True)
class Head:
    """Where the graph stands: LangGraph's snapshot, and the nodes that its checkpoint is about to run."""

    snapshot: StateSnapshot
    triggered: frozenset[str]

    @property
    def interrupts(self) -> dict[str, tuple[Interrupt[Any], str]]:
        """Pending questions by id, each with the node that asks."""
        return {item.id: (item, task.name) for task in self.snapshot.tasks for item in task.interrupts}


class Runner:
    """Runs segments. One per process; it keeps the compiled twins.

    Args:
        store: the store.
        resources: the clients that tools use.
    """

    def __init__(self, store: Store, resources: Resources) -> None:
        self._store = store
        self._resources = resources
        self.saver = CheckpointSaver(store)
        self._twins: dict[Workflow, CompiledStateGraph[Any, Any, Any, Any]] = {}

    def graph(self, workflow: Workflow) -> CompiledStateGraph[Any, Any, Any, Any]:
        """The workflow's guarded twin, compiled once."""
        if workflow not in self._twins:
            self._twins[workflow] = guarded_twin(workflow, self.saver)
        return self._twins[workflow]

    async def segment(self, run: Run, workflow: Workflow, lease: Lease, stop: Stop) -> Report:
        """One segment of a claimed run.

        Raises:
            LeaseLost, StoreUnavailable: nothing is known of the run's end; it is taken up again.
        """
        fresh = lease.fence == 1
        history = _NO_PAST if fresh else await self._store.history(run.id)
        segment = Segment.begin(run, lease, self._store, self._resources, history, locate)
        graph, config = self.graph(workflow), _config(run, workflow)
        self.saver.lease(run.thread_id, lease)
        try:
            before = None if fresh else await self._head(graph, config)
            lost = _lost_nodes(before, segment, workflow)
            if lost:
                return Report(outcome=_needs_migration(lost, workflow), seen=_decided(segment))
            error = await self._go_on(graph, config, before, segment, workflow, stop)
            after = await self._head(graph, config)
        finally:
            self.saver.release(run.thread_id)
        for write in segment.unwaited:
            await write
        return await self._report(before, after, segment, workflow, error)

    async def _head(self, graph: CompiledStateGraph[Any, Any, Any, Any], config: RunnableConfig) -> Head | None:
        saved = await self.saver.aget_tuple(config)
        if saved is None:
            return None
        channels = saved.checkpoint["channel_values"]
        triggered = {name.removeprefix(TRIGGER) for name in channels if name.startswith(TRIGGER)}
        return Head(await graph.aget_state(config), frozenset(triggered))

    async def _go_on(
        self,
        graph: CompiledStateGraph[Any, Any, Any, Any],
        config: RunnableConfig,
        head: Head | None,
        segment: Segment,
        workflow: Workflow,
        stop: Stop,
    ) -> Exception | None:
        """Invoke the graph if there is anything to do; what it raised."""
        if head is None:
            trigger = workflow.trigger(segment.run.event)
            start: Any = {} if trigger is None else trigger.graph_input(segment.run.event)
        elif not head.snapshot.tasks:
            return None
        else:
            answers = _answers(head, segment)
            if not answers and _everybody_waits(head, segment):
                return None
            start = Command(resume=answers) if answers else None
        token = current_segment.set(segment)
        try:
            await graph.ainvoke(start, config, durability="sync", control=stop.control)
        except Exception as error:  # noqa: BLE001 - a node may raise anything; what it means is decided in one place
            return error
        finally:
            current_segment.reset(token)
        return None

    # -- how it ended ------------------------------------------------------------------------------------------------

    async def _report(
        self, before: Head | None, after: Head | None, segment: Segment, workflow: Workflow, error: Exception | None
    ) -> Report:
        if isinstance(error, OURS):
            raise error
        pending = {} if after is None else after.interrupts
        by_interrupt = {review.interrupt_id: review for review in segment.reviews.values() if review.interrupt_id}
        opened: list[Review] = []
        rebound: list[tuple[str, str]] = []
        for interrupt_id, (interrupt, node) in pending.items():
            if interrupt_id in by_interrupt or interrupt_id in segment.reviews:
                continue
            review = review_of(interrupt, segment.run, node)
            moved = _same_question(review, segment, pending)
            if moved is None:
                opened.append(review)
            else:
                rebound.append((moved.id, interrupt_id))
        taken = [r.id for key, r in by_interrupt.items() if r.decision and not r.consumed_by and key not in pending]
        applied = [review_id for review_id in taken if review_id not in {moved for moved, _ in rebound}]
        outcome, visits = await self._outcome(after, segment, workflow, error, bool(opened or pending))
        moved_ids = frozenset(review_id for review_id, _ in rebound)
        return Report(
            outcome=outcome,
            opened=opened,
            applied=applied,
            superseded=_superseded(segment, pending, moved_ids),
            rebound=rebound,
            visits=visits,
            seen=_decided(segment) - moved_ids,
        )

    async def _outcome(
        self, after: Head | None, segment: Segment, workflow: Workflow, error: Exception | None, asks: bool
    ) -> tuple[SegmentOutcome, list[Visit]]:
        if isinstance(error, GraphDrained):
            return Yields(segment.run.lane), []
        if isinstance(error, Rejected):
            return Finished(Outcome.REJECTED), []
        if error is not None:
            failed, visits = await self._failed(segment, workflow, error)
            # A person's answer may be all that is missing: a question outlives a failure that would be tried again.
            return (Asks() if asks and failed.retry_at is not None else failed), visits
        if after is not None and not after.snapshot.tasks:
            return Finished(finished_outcome(segment)), []
        return (Asks() if asks else Yields(segment.run.lane)), []

    async def _failed(self, segment: Segment, workflow: Workflow, error: Exception) -> tuple[Failed, list[Visit]]:
        words = f"{type(error).__name__}: {error}"
        failure = next((item for item in segment.failures.values() if item.error is error), None)
        if failure is None:
            # Not a node: a router, the state's reducers, LangGraph's own limits. The same would happen again.
            framework = isinstance(error, GraphRecursionError | InvalidUpdateError)
            return Failed(Reason.NOT_RETRYABLE, words if framework else f"outside of a node: {words}"), []
        if isinstance(error, ReplayDiffers):
            return Failed(Reason.NONDETERMINISTIC, words, node=failure.node), []
        visit = segment.count_failure(failure)
        if isinstance(error, Denied | Permanent):
            return Failed(Reason.NOT_RETRYABLE, words, node=failure.node), [visit]
        policy = workflow.policy(failure.node)
        if visit.failures > policy.retries:
            return Failed(Reason.ATTEMPTS, words, node=failure.node), [visit]
        at_least = error.retry_after if isinstance(error, NotDone) else None
        wait = timedelta(seconds=policy.backoff.seconds(visit.failures, at_least=at_least))
        return Failed(Reason.ATTEMPTS, words, await self._store.now() + wait, failure.node), [visit]


def _config(run: Run, workflow: Workflow) -> RunnableConfig:
    return {
        "configurable": {"thread_id": run.thread_id, "__pregel_strict_resume": True},
        # LangGraph resumes instead of starting again when the head checkpoint bears the same run id.
        "metadata": {"run_id": run.thread_id, "workflow": run.workflow, "workflow_version": run.version},
        "recursion_limit": workflow.recursion_limit,
    }


def _lost_nodes(head: Head | None, segment: Segment, workflow: Workflow) -> list[str]:
    """Nodes at which the run stands, or about which people were asked, that the graph does not have (any more)."""
    if head is None:
        return []
    asked = {
        review.node
        for review in segment.reviews.values()
        if review.consumed_by is None and review.state != "superseded"
    }
    return sorted((head.triggered | asked) - set(workflow.graph.nodes))


def _needs_migration(lost: list[str], workflow: Workflow) -> Failed:
    known = ", ".join(sorted(workflow.graph.nodes))
    return Failed(
        Reason.NEEDS_MIGRATION,
        f"the run stands at {', '.join(lost)}, which {workflow.name} version {workflow.version} does not have "
        f"(it has {known}). What was decided is kept. Move it on: eventwright replay RUN --rename {lost[0]}=NEW_NAME",
        node=lost[0],
    )


def _answers(head: Head, segment: Segment) -> dict[str, Any]:
    """Decided answers to authors' questions that are pending, by LangGraph's id."""
    return {
        review.interrupt_id: resume_value(review, review.decision)
        for review in segment.reviews.values()
        if review.interrupt_id in head.interrupts and review.interrupt_id and review.decision is not None
    }


def _everybody_waits(head: Head, segment: Segment) -> bool:
    """Whether each task that is left waits for a person who has not answered."""
    undecided = {review.id for review in segment.reviews.values() if review.decision is None}
    undecided |= {r.interrupt_id for r in segment.reviews.values() if r.interrupt_id and r.decision is None}
    known = {review.id for review in segment.reviews.values()} | {r.interrupt_id for r in segment.reviews.values()}

    def waits(interrupts: tuple[Interrupt[Any], ...]) -> bool:
        return any(item.id in undecided or item.id not in known for item in interrupts)

    return all(
        waits(task.interrupts) or (not task.interrupts and task.result is not None) for task in head.snapshot.tasks
    )


def _same_question(review: Review, segment: Segment, pending: dict[str, Any]) -> Review | None:
    """The unused review that asked the same at the same node under an id that is gone: a migration moved it."""
    return next(
        (
            old
            for old in segment.reviews.values()
            if old.interrupt_id
            and old.interrupt_id not in pending
            and old.consumed_by is None
            and old.state in ("open", "decided", "expired")
            and old.node == review.node
            and old.evidence.get("asked") == review.evidence.get("asked")
        ),
        None,
    )


def _superseded(segment: Segment, pending: dict[str, Any], moved: frozenset[str]) -> list[str]:
    """Open reviews whose node ran again and did not ask for them again."""
    stale = []
    for review in segment.open_reviews():
        if review.interrupt_id:
            gone = review.interrupt_id not in pending and review.node in segment.entered
        else:
            gone = review.node in segment.entered and review.id not in segment.asked
        if gone and review.id not in moved:
            stale.append(review.id)
    return stale


def _decided(segment: Segment) -> frozenset[str]:
    return frozenset(review.id for review in segment.reviews.values() if review.decision is not None)


def finished_outcome(segment: Segment) -> Outcome:
    """How a run that came to its end is called; see `Outcome`."""
    decisions = [(review.kind, review.decision) for review in segment.reviews.values() if review.decision is not None]
    types = {decision.type for kind, decision in decisions if kind is not ReviewKind.IN_DOUBT}
    effects = segment.effects.values()
    edited = DecisionType.EDIT in types or any(
        kind is ReviewKind.LOW_CONFIDENCE and decision.type is DecisionType.RESPOND for kind, decision in decisions
    )
    given_up = any(e.state is EffectState.FAILED and e.tool_class != ToolClass.READ for e in effects)
    if DecisionType.REJECT in types:
        return Outcome.REJECTED
    if given_up:
        return Outcome.PARTIAL
    if any(isinstance(effect.result, dict) and effect.result.get("model") == FALLBACK for effect in effects):
        return Outcome.FALLBACK
    if edited:
        return Outcome.EDITED
    return Outcome.APPROVED if types else Outcome.AUTO
