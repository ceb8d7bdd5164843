"""What waits for a person, and their answers."""

from __future__ import annotations

import hashlib
from datetime import datetime
from http import HTTPStatus
from typing import Any
from urllib.parse import urlencode

from fastapi import APIRouter, Request
from starlette.responses import RedirectResponse, Response

from eventwright.app.composition import App
from eventwright.app.inbox import words
from eventwright.app.inbox.answers import PREFIX, Trouble, Unanswered, Written, fields_of, offered, trouble_of
from eventwright.app.inbox.door import Asker, Chosen, InboxRoute, Who, check_mark
from eventwright.app.inbox.pages import HEADERS, page
from eventwright.app.web.bodies import read_body
from eventwright.app.web.form_posts import TOKEN, read_post
from eventwright.app.web.paging import Cursor, Eventwright, Id, Name, cut
from eventwright.guardrails.concerns import concerns
from eventwright.runs.agenda import agenda
from eventwright.runs.errors import EventwrightError, UnknownReview
from eventwright.runs.gathered import gathered
from eventwright.runs.records import DecisionType, Review, ReviewState, Run

router = APIRouter(prefix="/inbox", include_in_schema=False, route_class=InboxRoute)

#: Questions on a page.
PAGE = 30
#: What stands in the form of a page that nobody has answered.
NOTHING = Written()


@router.get("")
async def show_inbox(
    app: Eventwright, who: Who, workflow: Chosen = None, after: Cursor = None, done: Name = None
) -> Response:
    """What waits for a person, the earliest deadline first."""
    workflow = workflow or None
    last = None if after is None else await app.store.review(after)
    found = await agenda(app.store, workflow=workflow, after=last, limit=PAGE + 1)
    items, more = cut(found, PAGE)
    reviews = [item.review for item in items]
    agreed, now = await app.store.agreed(reviews), await app.store.recent_now()
    roles = app.settings.who_has_which_role
    entries = [words.entry(item, now, who.name, roles, agreed.get(item.review.id, ())) for item in items]
    counts = await app.store.open_reviews()
    return page(
        "inbox.html",
        who,
        here="reviews",
        entries=entries,
        now=now,
        counts=dict(sorted(counts.items())),
        total=sum(counts.values()) if workflow is None else counts.get(workflow, 0),
        workflow=workflow,
        after=after,
        more=more.review.id if more else None,
        done=await _done(app, done, who),
        focus=done is not None,
        version=_version(
            [f"{one.review.id} {one.asked} {one.deadline and one.deadline.tone}" for one in entries], counts
        ),
    )


@router.get("/reviews/{review_id}")
async def show_review(review_id: Id, app: Eventwright, who: Who, workflow: Chosen = None) -> Response:
    """One question with everything that was known when it was asked, and the answers that it takes."""
    return await _shown(app, who, await app.store.review(review_id), workflow)


@router.get("/reviews/{review_id}/whole")
async def show_whole_review(review_id: Id, app: Eventwright, who: Who) -> Response:
    """The same, uncut."""
    review = await app.store.review(review_id)
    parts = {"question": review.question, "arguments": review.arguments, "evidence": review.evidence}
    shown = [words.shown(name, value, None) for name, value in parts.items()]
    back = {"Back to the question": f"/inbox/reviews/{review.id}"}
    return page("whole.html", who, here="reviews", title="Everything that was asked", parts=shown, links=back)


@router.post("/reviews/{review_id}/decision")
async def decide(review_id: Id, request: Request, app: Eventwright, who: Who) -> Response:
    """Answer a question: back to the inbox if it was taken, else the page again with what was written."""
    post = await read_post(await read_body(request), request.headers)
    written, review = Written.of(post), await app.store.review(review_id)
    kept = post.values.get("workflow")
    workflow = kept if isinstance(kept, str) and kept.isprintable() and len(kept) <= 64 else None
    try:
        check_mark(who, post.token)
        if post.faults:
            raise Unanswered({fault.at: fault.problem for fault in post.faults})
        decided = await app.engine.decide(review_id, written.decision(review, who.principal), digest=written.digest)
    except EventwrightError as error:
        now = await app.store.review(review_id)
        return await _shown(app, who, now, workflow, written, trouble_of(error, now, written))
    query = {"done": decided.id} | ({"workflow": workflow} if workflow else {})
    return RedirectResponse(f"/inbox?{urlencode(query)}", HTTPStatus.SEE_OTHER, headers=HEADERS)


async def _shown(
    app: App,
    who: Asker,
    review: Review,
    workflow: str | None,
    written: Written = NOTHING,
    trouble: Trouble | None = None,
) -> Response:
    run, now = await app.store.run(review.run_id), await app.store.recent_now()
    agreed = (await app.store.agreed([review])).get(review.id, [])
    beside = [one for one in await app.store.reviews(run_ids=[run.id], limit=20) if one.id != review.id]
    return page(
        "review.html",
        who,
        HTTPStatus(trouble.status if trouble else 200),
        here="reviews",
        review=review,
        run=run,
        now=now,
        agreed=agreed,
        beside=beside,
        others=len(await gathered(app.store, run.id)),
        workflow=workflow,
        trouble=trouble,
        written=written,
        changing=written.type is DecisionType.EDIT or written.has_written(review, DecisionType.EDIT),
        token_name=TOKEN,
        **_told(app, who, review, run, agreed, now),
    )


def _told(app: App, who: Asker, review: Review, run: Run, agreed: list[str], now: datetime) -> dict[str, Any]:
    """What the page says about a review, in words."""
    open_ = review.state is ReviewState.OPEN
    allowed = offered(review) if open_ else []
    warnings = concerns(review.arguments, question=review.question, evidence=review.evidence)
    return {
        "arguments": words.rows(review.arguments, words.WHOLE_ARGUMENT) if review.arguments is not None else [],
        "drafts": list(words.drafts(review)),
        "tool": words.tool_of(review),
        "asked_with": words.asked_with(review),
        "evidence": words.evidence(review),
        "grounds": words.grounds(review),
        "data": words.rows(run.event.data),
        "warnings": warnings,
        "brief": words.brief,
        "given": words.given(review.decision) if review.decision else None,
        "outcome": words.outcome(review, agreed),
        "asked": words.asked(review, agreed),
        "deadline": words.deadline_of(review, now),
        "obstacle": words.obstacle(review, who.name, app.settings.who_has_which_role, agreed) if open_ else "",
        "allowed": [str(answer) for answer in allowed],
        "fields": {str(answer): fields_of(review, answer) for answer in PREFIX if answer in allowed},
        "prefix": {str(answer): prefix for answer, prefix in PREFIX.items()},
    }


async def _done(app: App, review_id: str | None, who: Asker) -> tuple[str, Review] | None:
    """What this person has just decided, as the store has it; an address can say nothing else."""
    if review_id is None:
        return None
    try:
        review = await app.store.review(review_id)
    except UnknownReview:
        return None
    decision = review.decision
    if decision is None or decision.by != who.name:
        return None
    said = {
        DecisionType.APPROVE: "You approved",
        DecisionType.EDIT: "You approved, with your changes,",
        DecisionType.REJECT: "You rejected",
        DecisionType.RESPOND: "You answered",
    }
    return said[decision.type], review


def _version(lines: list[str], counts: dict[str, int]) -> str:
    """Changes when there is something new on the page, and not with the time."""
    return hashlib.sha256(f"{lines} {sorted(counts.items())}".encode()).hexdigest()[:16]
