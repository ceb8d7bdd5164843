"""One segment: what the gates of one `advance` share. It lives in memory, under the run's lease, and ends with it."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from eventwright.runs.records import Effect, Lease, Review, ReviewState, Run, Visit
from eventwright.runs.store import History, Store
from eventwright.tools.contract import Resources

#: How long a write may go on when its node was stopped (its time was up, a node beside it failed), in seconds.
GRACE = 5.0
#: Reviews in these states say something, or may yet; the others are closed without an answer.
STANDING = (ReviewState.OPEN, ReviewState.DECIDED, ReviewState.EXPIRED)


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
    #: Which call, by its key, goes by which review: one decision serves one call, also of several made at once.
    taken: dict[str, str] = field(default_factory=dict)
    #: Reviews opened, or asked again, in this segment.
    asked: set[str] = field(default_factory=set)
    #: Nodes that were entered in this segment.
    entered: set[str] = field(default_factory=set)
    #: What the failed nodes raised, by place; a node that succeeds after all is taken out again.
    failures: dict[str, NodeFailure] = field(default_factory=dict)
    #: Calls that write and are being made.
    under_way: set[asyncio.Task[Any]] = field(default_factory=set)
    #: Commits that nobody waited for; the last of them is awaited when the segment ends.
    unwaited: list[asyncio.Future[None]] = field(default_factory=list)

    @classmethod
    def begin(
        cls, run: Run, lease: Lease, store: Store, resources: Resources, history: History, locate: Callable[[], str]
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

    def count_failure(self, failure: NodeFailure) -> Visit:
        """The failed visit, with one failure more."""
        visit = self.visit(failure.node, failure.place)
        visit = replace(visit, failures=visit.failures + 1)
        self.visits[visit.place] = visit
        return visit

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

    def give_calls_up(self) -> None:
        """Cut off what is still under way."""
        for task in self.under_way:
            task.cancel()

    def take_review(self, digest: str, key: str) -> Review | None:
        """The review about exactly this call, and from now on for this call alone: the one that it has already, else
        the oldest that is free, answered ones first."""
        about = [
            review
            for review in self.reviews.values()
            if review.digest == digest and review.interrupt_id is None and review.state in STANDING
        ]
        owners = {review.id: review.consumed_by or self.taken.get(review.id) for review in about}
        mine = [review for review in about if owners[review.id] == key]
        free = [review for review in about if owners[review.id] is None]
        found = next(iter(mine or sorted(free, key=lambda review: review.decision is None)), None)
        if found is not None:
            self.taken[found.id] = key
        return found

    def open_reviews(self) -> Sequence[Review]:
        """Reviews that wait for a person."""
        return [review for review in self.reviews.values() if review.state is ReviewState.OPEN]


@dataclass(frozen=True)
class NodeFailure:
    """What a node raised, and where."""

    node: str
    place: str
    #: CancelledError when LangGraph stopped the node: its time was up, or a node beside it failed.
    error: BaseException
