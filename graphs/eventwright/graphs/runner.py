"""The runner: takes a claimed run from where its checkpoint stands to where the graph pauses, fails or ends.

One way for everything (start, resume, retry, recovery): read the graph's state, answer authors' questions strictly by
id, invoke, read the state again, and say how it ended. LangGraph's own word is never taken for it: `next == ()` does
not mean done, `not tasks` does.
"""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import replace
from datetime import timedelta
from typing import Any, cast

from langchain_core.runnables import RunnableConfig
from langgraph.checkpoint.base import CheckpointTuple
from langgraph.errors import GraphDrained, GraphRecursionError, InvalidUpdateError, NodeCancelledError, NodeTimeoutError
from langgraph.graph.state import CompiledStateGraph
from langgraph.runtime import RunControl
from langgraph.types import Command

from eventwright.graphs.asked import decided, moved_here, passed_over, superseded, taken_in
from eventwright.graphs.fitting import fit
from eventwright.graphs.handover import HandOver, handing_over
from eventwright.graphs.head import (
    EVENT,
    LABELS,
    Head,
    answers,
    everybody_waits,
    hand_over_of,
    relabel,
    unanswered,
)
from eventwright.graphs.labels import written
from eventwright.graphs.outcomes import Asks, Failed, Finished, Report, SegmentOutcome, Waiting, Waits, Yields
from eventwright.graphs.progress import got_on
from eventwright.graphs.questions import review_of
from eventwright.graphs.twin import ReplayDiffers, current_segment, guarded_twin, leaves, locate
from eventwright.graphs.waiting import Continues, continuation, declared_events
from eventwright.graphs.workflow import Workflow
from eventwright.guardrails.judging import FALLBACK
from eventwright.guardrails.segment import NodeFailure, Segment, Setting
from eventwright.guardrails.stages import ALL_STAGES
from eventwright.guardrails.verdicts import Denied, Rejected, Stage
from eventwright.runs.checkpoints import ERROR, CheckpointSaver
from eventwright.runs.errors import EventwrightError, LeaseLost, StoreUnavailable
from eventwright.runs.gathered import gathered
from eventwright.runs.records import DecisionType, EffectState, Lease, Review, ReviewKind, Run, Visit
from eventwright.runs.states import Outcome, Reason
from eventwright.runs.store import History, Store
from eventwright.runs.waits import late_input, waits_of
from eventwright.tools.contract import NotDone, Permanent, Resources, ToolClass, Unusable
from eventwright.tools.model_tool import ask_model
from eventwright.tools.secrets import Secrets

#: Errors of the engine itself. They say nothing about the run, which is taken up again when its lease runs out.
OURS = (LeaseLost, StoreUnavailable)
_NO_PAST = History(effects={}, visits={}, reviews=())


class Unreadable(EventwrightError, ValueError):
    """What is saved of a run makes no state of its graph: two nodes disagree, or the graph was changed since."""

    def __init__(self, error: Exception) -> None:
        super().__init__(f"the saved state does not fit the graph: {type(error).__name__}: {error}")


class Stop:
    """A way to end a segment at its next boundary: between two supersteps, never inside a node."""

    def __init__(self) -> None:
        self.control = RunControl()

    def request(self, why: str) -> None:
        """Let the segment end soon; `why` is shown in logs. Safe from any thread."""
        self.control.request_drain(why)

    @property
    def requested(self) -> bool:
        """Whether the segment was asked to end."""
        return self.control.drain_requested


class Runner:
    """Runs segments. One per process; it keeps the compiled twins.

    Args:
        store: the store.
        resources: the clients that tools use.
        stages: of the gate; one is left out only to show in a test what it holds back.
        lanes: those that this process serves; None for all. Before a node of another lane the run is handed over.
    """

    def __init__(
        self,
        store: Store,
        resources: Resources,
        *,
        stages: frozenset[Stage] = ALL_STAGES,
        lanes: Collection[str] | None = None,
    ) -> None:
        self._store = store
        self._resources = resources
        self._stages = stages
        self._served = lanes
        self.saver = CheckpointSaver(store)
        self._twins: dict[Workflow, CompiledStateGraph[Any, Any, Any, Any]] = {}

    def graph(self, workflow: Workflow) -> CompiledStateGraph[Any, Any, Any, Any]:
        """The workflow's guarded twin, compiled once."""
        if workflow not in self._twins:
            self._twins[workflow] = guarded_twin(workflow, self.saver)
        return self._twins[workflow]

    def saver_of(self, workflow: Workflow) -> CheckpointSaver:
        """The saver that knows the types in the workflow's state."""
        return cast(CheckpointSaver, self.graph(workflow).checkpointer)

    async def segment(self, run: Run, workflow: Workflow, lease: Lease, stop: Stop) -> Report:
        """One segment of a claimed run.

        Raises:
            LeaseLost, StoreUnavailable: nothing is known of the run's end; it is taken up again.
        """
        fresh = lease.fence == 1
        history = _NO_PAST if fresh else await self._store.history(run.id)
        try:
            setting = _setting(workflow, run, self._stages, Secrets.of(self._resources))
        except Exception as wrong:  # noqa: BLE001 - the author's function may raise anything about an event from outside
            words = f"the trigger's requester failed: {type(wrong).__name__}: {wrong}"
            return Report(outcome=Failed(Reason.NOT_RETRYABLE, words))
        segment = Segment.begin(run, lease, self._store, self._resources, history, locate, setting)
        await self._time_out(segment)
        graph, config = self.graph(workflow), _config(run, workflow)
        self.saver.lease(run.thread_id, lease, fresh=fresh, beside={LABELS: segment.labels})
        try:
            saved = None if fresh else await self.saver.aget_tuple(config)
            lost = await fit(self._store, segment, workflow, saved)
            if lost is not None:
                return Report(outcome=lost, seen=decided(segment))
            before = await self._head(graph, config, saved)
            relabel(segment, before)
            segment.outages = {} if before is None else before.outages
            hand_over = await self._hand_over(before, segment, workflow)
            error = await self._go_on(graph, config, before, segment, workflow, stop, hand_over)
            await segment.calls_end()
            if segment.lost is not None:
                raise segment.lost
            if isinstance(error, OURS):
                raise error
            after = await self._look(graph, config)
        except Unreadable as unreadable:
            return Report(outcome=Failed(Reason.NOT_RETRYABLE, str(unreadable)), seen=decided(segment))
        finally:
            segment.give_calls_up()
            self.saver.release(run.thread_id)
        for write in segment.unwaited:
            await write
        handed_to = next(iter(hand_over.wanted), None) if hand_over is not None else None
        report = await self._report(after, segment, workflow, error, handed_to)
        return replace(report, got_on=got_on(before, after, history, segment))

    async def _time_out(self, segment: Segment) -> None:
        """End the waits whose time has come, unless an event was faster."""
        deadline = segment.waits.deadline
        if deadline is not None and deadline <= await self._store.now():
            async with self._store.write(segment.lease) as tx:
                tx.time_out_waits(segment.run.id, actor=segment.lease.worker)
            segment.waits.learn(await waits_of(self._store, segment.run.id))

    async def _head(
        self, graph: CompiledStateGraph[Any, Any, Any, Any], config: RunnableConfig, saved: CheckpointTuple | None
    ) -> Head | None:
        """Where the graph stands before the segment, with what stood beside its newest checkpoint."""
        if saved is None:
            return None
        head = await self._look(graph, config)
        since = {channel for _, channel, _ in saved.pending_writes or () if channel in (*graph.channels, ERROR)}
        return head and replace(head, labels=cast(Any, saved.metadata).get(LABELS), written=frozenset(since))

    async def _look(self, graph: CompiledStateGraph[Any, Any, Any, Any], config: RunnableConfig) -> Head | None:
        """Where the graph stands; None if it has no checkpoint yet."""
        try:
            snapshot = await graph.aget_state(config)
        except OURS:
            raise
        except Exception as error:
            raise Unreadable(error) from error
        return None if snapshot.created_at is None else Head(snapshot)

    async def _hand_over(self, head: Head | None, segment: Segment, workflow: Workflow) -> HandOver | None:
        """Which tasks are left to workers of other lanes; None if none is."""
        waits = head is not None and head.postponed is not None
        return hand_over_of(self._served, head, segment, workflow, await self._store.now() if waits else None)

    async def _go_on(
        self,
        graph: CompiledStateGraph[Any, Any, Any, Any],
        config: RunnableConfig,
        head: Head | None,
        segment: Segment,
        workflow: Workflow,
        stop: Stop,
        hand_over: HandOver | None,
    ) -> Exception | None:
        """Invoke the graph if there is anything to do; what it raised."""
        given = {} if head is None else answers(head, segment)
        if head is not None and not given and everybody_waits(head, segment):
            return None
        token = current_segment.set(segment)
        try:
            resume: Command[Any] | None = Command(resume=given) if given else None
            start: Any = await self._input(workflow, segment) if head is None else resume
            with handing_over(hand_over):
                await graph.ainvoke(start, config, durability="sync", control=stop.control)
        except Exception as error:  # noqa: BLE001 - a node may raise anything; what it means is decided in one place
            return error
        finally:
            current_segment.reset(token)
        return None

    async def _input(self, workflow: Workflow, segment: Segment) -> dict[str, Any]:
        """What the graph starts with. It is untrusted, unless the trigger says that its events are our own."""
        event = segment.run.event
        trigger = workflow.trigger(event) or continuation(workflow, event)
        given: dict[str, Any] | None = None
        if isinstance(trigger, Continues):
            given = await late_input(self._store, event.uid, workflow.name)
        elif trigger is not None and trigger.flow is not None and trigger.flow.batch is not None:
            events = [event, *await gathered(self._store, segment.run.id)]
            given = {trigger.flow.batch.into: [trigger.graph_input(event) for event in events]}
        elif trigger is not None:
            given = trigger.graph_input(event)
        if trigger is None or given is None:
            raise LookupError(f"no trigger of {workflow!r} is meant for {event.type!r} any more")
        segment.label(written(given, frozenset(workflow.graph.channels)), [] if trigger.trusted else [EVENT])
        return given

    # -- how it ended ------------------------------------------------------------------------------------------------

    async def _report(
        self,
        after: Head | None,
        segment: Segment,
        workflow: Workflow,
        error: Exception | None,
        lane: str | None,
    ) -> Report:
        pending = {} if after is None else after.interrupts
        step = 0 if after is None else after.step
        by_interrupt = {review.interrupt_id: review for review in segment.reviews.values() if review.interrupt_id}
        opened: list[Review] = []
        rebound: dict[str, str] = {}
        for interrupt_id, (interrupt, node) in pending.items():
            if interrupt_id in by_interrupt or interrupt_id in segment.reviews:
                continue
            review = review_of(interrupt, segment.run, node)
            moved = moved_here(review, segment, rebound, step)
            if moved is None:
                opened.append(review)
            else:
                rebound[moved.id] = interrupt_id
        asks = bool(opened or rebound or unanswered(pending, segment))
        waiting = Waiting(segment.waits.standing(segment.entered), segment.waits.dropped(segment.entered))
        outcome, visits = await self._outcome(after, segment, workflow, error, asks, lane, waiting)
        ended = isinstance(outcome, Finished)
        return Report(
            outcome=outcome,
            opened=() if ended else opened,
            applied=[*taken_in(by_interrupt, pending), *passed_over(segment, step)],
            superseded=superseded(segment, pending, rebound, ended),
            rebound=tuple(rebound.items()),
            waiting=waiting if segment.waits else None,
            visits=[*visits, *segment.visits_with(waiting.standing)],
            forgotten=[key for key in segment.forgotten if not segment.effects[key].failures],
            seen=decided(segment) - set(rebound),
        )

    async def _outcome(
        self,
        after: Head | None,
        segment: Segment,
        workflow: Workflow,
        error: Exception | None,
        asks: bool,
        lane: str | None,
        waiting: Waiting,
    ) -> tuple[SegmentOutcome, list[Visit]]:
        until = None if after is None else after.postponed
        if isinstance(error, GraphDrained):
            return Yields(segment.run.lane), []
        if error is not None and any(isinstance(leaf, Rejected) for leaf in leaves(error)):
            return Finished(Outcome.REJECTED), []
        if error is not None:
            failed, visits = await self._failed(segment, workflow, error)
            # A person's answer may be all that is missing: a question outlives a failure that would be tried again.
            return (Asks(until) if asks and failed.retry_at is not None else failed), visits
        if after is not None and not after.snapshot.tasks:
            return Finished(finished_outcome(segment)), []
        # Of several calls that one node gathered, LangGraph sees how the first one ended.
        if asks or any(review.id in segment.asked for review in segment.open_reviews()):
            return Asks(until, lane), []
        # Somewhere else it can go on at once, whatever else is waited for.
        if not (until or waiting.standing) or lane is not None or after is None:
            return Yields(lane or segment.run.lane), []
        outages = [outage for of_node in after.outages.values() for outage in of_node]
        down = " and ".join(sorted({name for outage in outages for name in outage.providers}))
        return Waits(until, f"{down} is down" if down else None), []

    async def _failed(self, segment: Segment, workflow: Workflow, error: Exception) -> tuple[Failed, list[Visit]]:
        parts = list(leaves(error))
        words = "; ".join(f"{type(part).__name__}: {part}" for part in parts)
        failure = _where(error, segment)
        if failure is None:
            # Not a node: a router, the state's reducers, LangGraph's own limits. The same would happen again.
            framework = isinstance(error, GraphRecursionError | InvalidUpdateError)
            return Failed(Reason.NOT_RETRYABLE, words if framework else f"outside of a node: {words}"), []
        if isinstance(error, ReplayDiffers):
            return Failed(Reason.NONDETERMINISTIC, words, node=failure.node), []
        visit = segment.count_failure(failure)
        if any(isinstance(part, Denied | Permanent | Unusable) for part in parts):
            return Failed(Reason.NOT_RETRYABLE, words, node=failure.node), [visit]
        policy = workflow.policy(failure.node)
        if visit.failures > policy.retries_for(parts):
            return Failed(Reason.ATTEMPTS, words, node=failure.node), [visit]
        at_least = max((part.retry_after or 0.0 for part in parts if isinstance(part, NotDone)), default=None)
        wait = timedelta(seconds=policy.backoff.seconds(visit.failures, at_least=at_least))
        return Failed(Reason.ATTEMPTS, words, await self._store.now() + wait, failure.node), [visit]


def _config(run: Run, workflow: Workflow) -> RunnableConfig:
    return {
        "configurable": {"thread_id": run.thread_id, "__pregel_strict_resume": True},
        # LangGraph resumes instead of starting again when the head checkpoint bears the same run id.
        "metadata": {"run_id": run.thread_id, "workflow": run.workflow, "workflow_version": run.version},
        "recursion_limit": workflow.recursion_limit,
    }


def _setting(workflow: Workflow, run: Run, stages: frozenset[Stage], secrets: Secrets) -> Setting:
    trigger = workflow.trigger(run.event)
    named = trigger.requester(run.event) if trigger is not None and trigger.requester is not None else None
    return Setting(
        trusted_tools=workflow.trusted_tools(),
        budgets=workflow.budgets,
        redaction=workflow.redaction.knowing(secrets.literals),
        requesters=tuple(dict.fromkeys(name for name in (run.event.principal, named) if name)),
        stages=stages,
        continues=declared_events(workflow),
    )


def _where(error: Exception, segment: Segment) -> NodeFailure | None:
    """The node that raised the error, or that LangGraph stopped with it."""
    failures = list(segment.failures.values())
    if isinstance(error, NodeTimeoutError | NodeCancelledError):
        failures = [NodeFailure(item.node, item.place, error) for item in failures if item.node == error.node]
    return next((item for item in failures if item.error is error), None)


def finished_outcome(segment: Segment) -> Outcome:
    """How a run that came to its end is called; see `Outcome`."""
    decisions = [(review.kind, review.decision) for review in segment.reviews.values() if review.decision is not None]
    types = {decision.type for kind, decision in decisions if kind is not ReviewKind.IN_DOUBT}
    effects = segment.effects.values()
    edited = DecisionType.EDIT in types or any(
        kind is ReviewKind.LOW_CONFIDENCE and decision.type is DecisionType.RESPOND for kind, decision in decisions
    )
    given_up = any(e.state is not EffectState.DONE and e.tool_class != ToolClass.READ for e in effects)
    if DecisionType.REJECT in types:
        return Outcome.REJECTED
    if given_up:
        return Outcome.PARTIAL
    judged = [effect.result for effect in effects if effect.tool == ask_model.name]
    if any(answer and answer["model"] == FALLBACK for answer in judged):
        return Outcome.FALLBACK
    if edited:
        return Outcome.EDITED
    return Outcome.APPROVED if types else Outcome.AUTO
