"""Reviews: what people are asked, and their decisions."""

from __future__ import annotations

from typing import Annotated

from fastapi import APIRouter, Depends

from eventwright.app.composition import App
from eventwright.app.web.access import Who
from eventwright.app.web.bodies import body_of
from eventwright.app.web.document import operation_id, takes
from eventwright.app.web.models import DecisionBody, Review, ReviewPage
from eventwright.app.web.paging import Cursor, Eventwright, Id, Limit, Name, cut, problems
from eventwright.app.wire.problems import ProblemType
from eventwright.runs import records
from eventwright.runs.records import ReviewState

router = APIRouter(prefix="/v1", tags=["reviews"], generate_unique_id_function=operation_id)


@router.get("/reviews", responses=problems(ProblemType.BAD_REQUEST))
async def list_reviews(
    app: Eventwright,
    state: ReviewState | None = None,
    run_id: Name = None,
    limit: Limit = 50,
    cursor: Cursor = None,
) -> ReviewPage:
    """The reviews, oldest first; `state=open` are those that wait for a person."""
    run_ids = None if run_id is None else [run_id]
    found = await app.store.reviews(state=state, run_ids=run_ids, limit=limit + 1, after=cursor)
    items, last = cut(found, limit)
    agreed = await app.store.agreed(items)
    return ReviewPage(
        items=[Review.of(review, agreed.get(review.id, ())) for review in items], next=last.id if last else None
    )


@router.get("/reviews/{review_id}", responses=problems(ProblemType.NOT_FOUND))
async def show_review(review_id: Id, app: Eventwright) -> Review:
    """One review, with its decision once there is one."""
    return await _shown(app, await app.store.review(review_id))


@router.post(
    "/reviews/{review_id}/decision",
    responses=problems(
        ProblemType.BAD_JSON,
        ProblemType.FORBIDDEN,
        ProblemType.NOT_FOUND,
        ProblemType.DECIDED,
        ProblemType.STALE,
        ProblemType.REVIEW_CLOSED,
        ProblemType.UNFIT_DECISION,
    ),
    openapi_extra=takes(DecisionBody),
)
async def decide(
    review_id: Id,
    body: Annotated[DecisionBody, Depends(body_of(DecisionBody, ProblemType.UNFIT_DECISION))],
    app: Eventwright,
    who: Who,
) -> Review:
    """Answer a review. One decision wins; it is final.

    The same decision by the same principal again is a 200. Whoever comes second gets a 409 with the decision that won.
    Where several people must agree, each of them answers one of the reviews; a 403 says that it takes somebody else.
    """
    decision = body.decision(who.name, verified=who.verified)
    return await _shown(app, await app.engine.decide(review_id, decision, digest=body.digest))


async def _shown(app: App, review: records.Review) -> Review:
    return Review.of(review, (await app.store.agreed([review])).get(review.id, ()))
