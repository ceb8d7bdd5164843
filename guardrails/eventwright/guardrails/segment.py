"""One segment: what the gates of one `advance` share. It lives in memory, under the run's lease, and ends with it."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Collection, Coroutine, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from eventwright.guardrails.budgets import Budget
from eventwright.guardrails.middleware import approvals
from eventwright.guardrails.redaction import Redaction
from eventwright.guardrails.request import Request, bound_to, call_digest
from eventwright.guardrails.rules import Record
from eventwright.guardrails.verdicts import Outage, Stage
from eventwright.guardrails.waiting import Waits
from eventwright.runs.event import digest_of
from eventwright.runs.records import (
    Decision,
    DecisionType,
    Effect,
    EffectState,
    Lease,
    Review,
    ReviewState,
    Run,
    Visit,
    person,
)
from eventwright.runs.store import History, Store
from eventwright.runs.waits import Wait
from eventwright.tools.contract import MODELS, Resources

#: How long a write may go on when its node was stopped (its time was up, a node beside it failed), in seconds.
GRACE = 5.0
#: Reviews in these states say something, or may yet; the others are closed without an answer.
STANDING = (ReviewState.OPEN, ReviewState.DECIDED, ReviewState.EXPIRED)

#: Stands for every channel, where it is not known which.
ANY = "*"
#: So many sources of untrusted data are told apart.
MOST_SOURCES = 8


@dataclass
class Segment:
    """The run, its past, and what this segment has done so far."""

    run: Run
    lease: Lease
    store: Store
    resources: Resources
    effects: dict[str, Effect]
    #: By place: where LangGraph put the task.
    visits: dict[str, Visit]
    reviews: dict[str, Review]
    #: Where the code that runs right now stands in the graph, as a place. Given by the runner, which knows LangGraph.
    locate: Callable[[], str]
    #: What of the workflow concerns every gate.
    setting: Setting = field(default_factory=lambda: Setting())
    #: What it waits for, or has waited for.
    waits: Waits = field(default_factory=lambda: Waits(()))
    #: The channels of the graph that hold untrusted data, each with where that came from; ANY stands for all of them.
    #: They only become more. Our saver keeps them beside every checkpoint.
    labels: dict[str, list[str]] = field(default_factory=dict)
    #: Which call, by its key, goes by which review: one decision serves one call, also of several made at once.
    taken: dict[str, str] = field(default_factory=dict)
    #: Which calls, by their keys, go by an approval of LangChain's middleware: by tool, node and arguments.
    claimed: dict[tuple[str, str, str], set[str]] = field(default_factory=dict)
    #: Reviews opened, or asked again, in this segment.
    asked: set[str] = field(default_factory=set)
    #: Nodes that were entered in this segment.
    entered: set[str] = field(default_factory=set)
    #: What the failed nodes raised, by place; a node that succeeds after all is taken out again.
    failures: dict[str, NodeFailure] = field(default_factory=dict)
    #: Calls that write and are being made.
    under_way: set[asyncio.Task[Any]] = field(default_factory=set)
    #: The providers that nodes waited for when the segment began, by node.
    outages: dict[str, list[Outage]] = field(default_factory=dict)
    #: Effects, by key, that are tried anew: the node that has seen them fail begins a new attempt.
    forgotten: set[str] = field(default_factory=set)
    #: The error by which the store, or the lease, was lost in a call: nothing more is called, the segment is given up.
    lost: Exception | None = None
    #: Commits that nobody waited for; all of them are awaited when the segment ends.
    unwaited: list[asyncio.Future[None]] = field(default_factory=list)
    #: By node and tool: what an approval is bound to besides the arguments.
    _bound: dict[tuple[str, str], bytes] = field(default_factory=dict)

    @classmethod
    def begin(
        cls,
        run: Run,
        lease: Lease,
        store: Store,
        resources: Resources,
        history: History,
        locate: Callable[[], str],
        setting: Setting,
    ) -> Segment:
        return cls(
            run=run,
            lease=lease,
            store=store,
            resources=resources,
            effects=dict(history.effects),
            visits=dict(history.visits),
            reviews={review.id: review for review in history.reviews},
            locate=locate,
            setting=setting,
            waits=Waits(history.waits, setting.continues),
        )

    def visit(self, node: str, place: str | None = None) -> Visit:
        """The visit at this place, numbered when it is first seen."""
        place = place or self.locate()
        visit = self.visits.get(place)
        if visit is None:
            number = 1 + max((known.visit for known in self.visits.values()), default=0)
            visit = Visit(run_id=self.run.id, node=node, visit=number, place=place)
            self.visits[place] = visit
        return visit

    def visits_with(self, waits: Iterable[Wait]) -> list[Visit]:
        """The visits in which these waits stand."""
        numbers = {wait.visit for wait in waits}
        return [visit for visit in self.visits.values() if visit.visit in numbers]

    def digest(self, node: str, tool: str, arguments: bytes) -> str:
        """What an approval of a call with these arguments (canonical JSON) is bound to."""
        bound = self._bound.get((node, tool))
        if bound is None:
            bound = self._bound[node, tool] = bound_to(self.run, node, tool)
        return call_digest(bound, arguments)

    def count_failure(self, failure: NodeFailure) -> Visit:
        """The failed visit, with one failure more."""
        self.forget_failures(failure.place)
        visit = self.visit(failure.node, failure.place)
        visit = replace(visit, failures=visit.failures + 1)
        self.visits[visit.place] = visit
        return visit

    def forget_failures(self, place: str) -> None:
        """The node at this place has failed: what it has seen fail, also in a graph inside it, is tried anew."""
        seen = [effect for effect in self.effects.values() if effect.failures]
        here = place.removesuffix("]")
        visits = {visit.visit for visit in self.visits.values() if visit.place.startswith(here)} if seen else ()
        for effect in seen:
            if effect.visit in visits:
                self.effects[effect.key] = replace(effect, failures=())
                self.forgotten.add(effect.key)

    async def make(self, call: Coroutine[Any, Any, Any]) -> Any:
        """Make a call that writes, to its end: who stops the node meanwhile does not leave the call in doubt."""
        task = asyncio.create_task(call)
        self.under_way.add(task)
        task.add_done_callback(self.under_way.discard)
        return await asyncio.shield(task)

    async def calls_end(self) -> None:
        """Wait for the calls of nodes that were stopped; what hangs is given up after a while, and is in doubt."""
        if self.under_way:
            await asyncio.wait(self.under_way, timeout=GRACE)
        self.give_calls_up()

    def check_records(self) -> None:
        """Raise what kept a record of a read from being written: nothing is called on its word any more. Once a later
        commit is done, all that were posted before it are."""
        for write in self.unwaited:
            if write.done():
                write.result()
        self.unwaited = [write for write in self.unwaited if not write.done()]

    async def check_lease(self) -> None:
        """Raise LeaseLost if another worker has taken the run over."""
        async with self.store.write(self.lease):
            pass  # an empty write is refused like any other

    def give_calls_up(self) -> None:
        """Cut off what is still under way."""
        for task in self.under_way:
            task.cancel()

    def take_reviews(self, digest: str, key: str, *, stage: Stage | None = None) -> list[Review]:
        """The reviews about exactly this call, and from now on for this call alone: those that it has already, else
        the oldest that are free, answered ones first; as many as people must agree.

        Args:
            stage: only those that this stage asked for, or that no stage claims.
        """
        if not self.reviews:
            return []
        about = [
            review
            for review in self.reviews.values()
            if review.digest == digest
            and review.interrupt_id is None
            and review.state in STANDING
            and (stage is Stage.BUDGETS) == ((review.rule or {}).get("stage") == Stage.BUDGETS)
        ]
        owners = {review.id: review.consumed_by or self.taken.get(review.id) for review in about}
        mine = [review for review in about if owners[review.id] == key]
        if any(review.decision is not None and review.decision.type is not DecisionType.APPROVE for review in mine):
            # A no, or an edit, was all that this call needed; the others are about the next one like it.
            return mine
        free = [review for review in about if owners[review.id] is None]
        found = [*mine, *sorted(free, key=lambda review: review.decision is None)]
        found = found[: max((review.people for review in found), default=0)]
        self.taken.update((review.id, key) for review in found)
        return found

    def approved_by_middleware(self, request: Request) -> bool:
        """Whether one person, who may, approved exactly this call where LangChain's middleware asked, and that approval
        was not used yet."""
        may = {person(name) for name in request.policy.approval.approvers}
        here = [
            one
            for one in self.reviews.values()
            if (one.node, one.state) == (request.node, ReviewState.DECIDED)
            and one.decision is not None
            and (not may or person(one.decision.by) in may)
        ]
        call = (request.tool.name, request.node, digest_of(request.arguments))
        made = self.claimed.setdefault(call, set())
        made |= {
            effect.key for effect in self.effects.values() if (effect.tool, effect.node, effect.executed_digest) == call
        }
        if approvals(here, request.tool, request.arguments) <= len(made - {request.key}):
            return False
        made.add(request.key)
        return True

    # -- labels ------------------------------------------------------------------------------------------------------

    def sources(self, channels: Collection[str] | None) -> list[str]:
        """Where the untrusted data in these channels (all of them, if None) came from."""
        found = [source for channel, named in self.labels.items() if _among(channel, channels) for source in named]
        return list(dict.fromkeys(found))

    def label(self, channels: Collection[str], sources: Sequence[str]) -> None:
        """These channels hold something untrusted from now on."""
        for channel in channels if sources else ():
            self.labels[channel] = list(dict.fromkeys((*self.labels.get(channel, ()), *sources)))[:MOST_SOURCES]

    def untrusted_results(self, visits: Collection[int] | None = None) -> list[str]:
        """The tools whose untrusted results, or errors, the run or some of its visits have seen; the events too."""
        effects = [effect for effect in self.effects.values() if visits is None or effect.visit in visits]
        tools = {effect.tool for effect in effects if effect.tool not in MODELS}
        return sorted(tools - self.setting.trusted_tools | self.waits.heard(visits))

    def records(self) -> Iterable[Record]:
        """What argument rules may rely on: what trusted tools returned, and what people wrote or approved."""
        return _Records(self)

    def open_reviews(self) -> Sequence[Review]:
        """Reviews that wait for a person."""
        return [review for review in self.reviews.values() if review.state is ReviewState.OPEN]


@dataclass(frozen=True)
class _Records:
    """The records of a segment, as they are when somebody looks."""

    segment: Segment

    def __iter__(self) -> Iterator[Record]:
        segment = self.segment
        return records_of(segment.effects.values(), segment.reviews.values(), segment.setting.trusted_tools)


def records_of(
    effects: Iterable[Effect], reviews: Iterable[Review], trusted_tools: Collection[str]
) -> Iterator[Record]:
    """What of a run's past argument rules may rely on."""
    for effect in effects:
        if effect.state is EffectState.DONE and effect.tool in trusted_tools:
            yield Record(effect.tool, effect.node, effect.result)
    for review in reviews:
        if review.state is ReviewState.DECIDED and review.decision is not None:
            yield Record("", review.node, _said(review, review.decision))


@dataclass(frozen=True, kw_only=True)
class Setting:
    """What of the workflow concerns every gate of a segment.

    Attributes:
        trusted_tools: names of the tools that return records of our own.
        budgets: budgets of the whole workflow.
        redaction: what is taken out of texts.
        requesters: who asked for what the run does; never among several people who approve it.
        stages: those that are on; all of them, except in tests.
        continues: the types of events that go on with runs of the workflow, and whether they are our own.
    """

    trusted_tools: frozenset[str] = frozenset()
    budgets: Sequence[Budget] = ()
    redaction: Redaction = field(default_factory=Redaction)
    requesters: tuple[str, ...] = ()
    stages: frozenset[Stage] = frozenset(Stage)
    continues: Mapping[str, bool] = field(default_factory=dict)


def _among(channel: str, channels: Collection[str] | None) -> bool:
    return channels is None or channel in (ANY, *channels)


def _said(review: Review, decision: Decision) -> Any:
    """What a person vouches for by a decision."""
    match decision.type:
        case DecisionType.APPROVE:
            return review.arguments
        case DecisionType.EDIT:
            return decision.arguments
        case DecisionType.RESPOND:
            return decision.response
        case DecisionType.REJECT:
            return None


@dataclass(frozen=True)
class NodeFailure:
    """What a node raised, and where."""

    node: str
    place: str
    #: CancelledError when LangGraph stopped the node: its time was up, or a node beside it failed.
    error: BaseException
