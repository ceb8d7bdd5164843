"""What became of the questions of a run in a segment: which were taken in, asked again elsewhere, or dropped."""

from __future__ import annotations

from collections.abc import Collection, Mapping

from eventwright.graphs.questions import MOVED
from eventwright.guardrails.segment import STANDING, Segment
from eventwright.runs.records import Review


def moved_here(review: Review, segment: Segment, rebound: Collection[str], step: int) -> Review | None:
    """The review that asked the same in this superstep before an operator moved the run to another graph; the oldest
    that is left."""
    return next(
        (
            old
            for old in segment.reviews.values()
            if old.interrupt_id == f"{MOVED}{step}"
            and old.id not in rebound
            and old.state in STANDING
            and old.node == review.node
            and old.evidence.get("asked") == review.evidence.get("asked")
        ),
        None,
    )


def taken_in(by_interrupt: Mapping[str, Review], pending: Collection[str]) -> list[str]:
    """Decided questions that do not stand any more: the graph has their answers in its checkpoint."""
    return [
        review.id
        for interrupt_id, review in by_interrupt.items()
        if review.decision is not None
        and review.consumed_by is None
        and interrupt_id not in pending
        and not interrupt_id.startswith(MOVED)
    ]


def passed_over(segment: Segment, step: int) -> list[str]:
    """Answers that a run took along to another graph, to questions that it did not ask again in the superstep in which
    it was moved: they are not for a later question of the same words."""
    return [
        review.id
        for review in segment.reviews.values()
        if review.interrupt_id is not None
        and review.interrupt_id.startswith(MOVED)
        and review.interrupt_id != f"{MOVED}{step}"
        and review.decision is not None
        and review.consumed_by is None
    ]


def superseded(segment: Segment, pending: Collection[str], rebound: Collection[str], ended: bool) -> list[str]:
    """Open reviews whose node ran again and did not ask for them again; all of them, once the run has ended."""
    if ended:
        return [review.id for review in segment.open_reviews()]
    standing = {*pending, *segment.asked, *rebound}
    return [
        review.id
        for review in segment.open_reviews()
        if review.node in segment.entered and not {review.id, review.interrupt_id} & standing
    ]


def decided(segment: Segment) -> frozenset[str]:
    """What people have decided."""
    return frozenset(review.id for review in segment.reviews.values() if review.decision is not None)
