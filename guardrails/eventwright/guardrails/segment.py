"""One segment: what the gates of one `advance` share. It lives in memory, under the run's lease, and ends with it."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace

from eventwright.runs.records import Effect, Lease, Review, Run, Visit
from eventwright.runs.store import History, Store
from eventwright.tools.contract import Resources


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
    #: Reviews opened, or asked again, in this segment.
    asked: set[str] = field(default_factory=set)
    #: Nodes that were entered in this segment.
    entered: set[str] = field(default_factory=set)
    #: What the failed nodes raised, by place; a node that succeeds after all is taken out again.
    failures: dict[str, NodeFailure] = field(default_factory=dict)
    #: Writes that nobody waited for; the last of them is awaited when the segment ends.
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

    def decided_for(self, digest: str, key: str) -> Review | None:
        """The review about exactly this call: used up by this effect, else open for use, newest last."""
        about = [review for review in self.reviews.values() if review.digest == digest and review.interrupt_id is None]
        for consumer in (key, None):
            for review in about:
                if review.consumed_by == consumer:
                    return review
        return None

    def open_reviews(self) -> Sequence[Review]:
        """Reviews that wait for a person."""
        return [review for review in self.reviews.values() if review.decision is None and review.state == "open"]


@dataclass(frozen=True)
class NodeFailure:
    """What a node raised, and where."""

    node: str
    place: str
    error: Exception
