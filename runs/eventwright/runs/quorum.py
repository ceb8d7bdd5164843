"""Several people about one call: who may decide a review, and what one decision means for the others of its digest.

Everything is looked at in the decision's own transaction, under the lock on its run, so that nobody counts twice.
"""

from __future__ import annotations

from collections.abc import Collection
from typing import Any

import sqlalchemy as sa

from eventwright.runs import schema
from eventwright.runs.batch import Batch
from eventwright.runs.errors import MayNotDecide
from eventwright.runs.records import Decision, DecisionType, Review, ReviewState, person

_THIS = schema.reviews.alias("this")
_OTHERS = schema.reviews.alias("others")
#: The reviews of one call. The digest is read here and not remembered: a migration may change it.
_SAME = sa.and_(_OTHERS.c.run_id == _THIS.c.run_id, _OTHERS.c.digest == _THIS.c.digest)
_IS_THIS = _THIS.c.id == sa.bindparam("b_id")
_AGREEING = [str(DecisionType.APPROVE), str(DecisionType.EDIT)]
#: Who has agreed. A decision that was used up was about an earlier call, unless both were used by the same one.
_AGREED = (
    sa.select(_THIS.c.id, schema.decisions.c.by)
    .join(_OTHERS, _SAME)
    .join(schema.decisions, schema.decisions.c.review_id == _OTHERS.c.id)
    .where(
        schema.decisions.c.type.in_(_AGREEING),
        _OTHERS.c.state == str(ReviewState.DECIDED),
        _OTHERS.c.consumed_by.is_not_distinct_from(_THIS.c.consumed_by),
    )
    .order_by(schema.decisions.c.at)
)
#: What stands beside a review about the same call: what is open, and what was agreed to and not used.
_BESIDE = (
    sa.select(_OTHERS.c.id)
    .select_from(_THIS)
    .join(_OTHERS, sa.and_(_SAME, _OTHERS.c.id != _THIS.c.id))
    .where(
        _OTHERS.c.state.in_([str(ReviewState.OPEN), str(ReviewState.DECIDED)]),
        _OTHERS.c.consumed_by.is_(None),
    )
)


def agreed(review_ids: Collection[str]) -> sa.Select[Any]:
    """The query for (id, by): who has agreed to what each of these reviews is about."""
    return _AGREED.where(_THIS.c.id.in_(sorted(review_ids)))


def check(batch: Batch, review: Review, decision: Decision) -> None:
    """Raise MayNotDecide if somebody else must decide this review."""
    who = person(decision.by)
    if review.approvers and who not in map(person, review.approvers):
        raise MayNotDecide(review.id, decision.by, f"only these people may: {', '.join(review.approvers)}")
    if who in map(person, review.barred):
        raise MayNotDecide(review.id, decision.by, "who asked for this call or changed it must not approve it as well")
    if review.people > 1 and who in _names(batch, review.id):
        reason = f"{decision.by} has decided about this call already, and {review.people} different people are needed"
        raise MayNotDecide(review.id, decision.by, reason)


def _names(batch: Batch, review_id: str) -> list[str]:
    return [person(row.by) for row in batch.execute(_AGREED.where(_IS_THIS), {"b_id": review_id})]


def settle(batch: Batch, review: Review, decision: Decision) -> None:
    """One no, or one edit, decides about a call for which several people are asked: the others need not answer, and
    what some have agreed to already is no part of an agreement to the next such call."""
    if review.people == 1 or decision.type is DecisionType.APPROVE:
        return
    others = list(batch.execute(_BESIDE.where(_IS_THIS), {"b_id": review.id}).scalars())
    if others:
        close = sa.update(schema.reviews).where(schema.reviews.c.id.in_(others))
        batch.execute(close.values(state=str(ReviewState.SUPERSEDED)))
        batch.execute(sa.delete(schema.timers).where(schema.timers.c.review_id.in_(others)))
