"""Webhooks come in here, and their log is read here; `delivering` does the work."""

from __future__ import annotations

from typing import Annotated, Any

from fastapi import APIRouter, Query, Request
from fastapi.responses import PlainTextResponse
from starlette.background import BackgroundTask

from eventwright.app.composition import App
from eventwright.app.web import delivering, examples
from eventwright.app.web.access import Who
from eventwright.app.web.bodies import read_body
from eventwright.app.web.clicks import decide_by_click
from eventwright.app.web.document import operation_id
from eventwright.app.web.models import Accepted
from eventwright.app.web.models_webhooks import Delivery, DeliveryPage, ShownDelivery
from eventwright.app.web.paging import Cursor, Eventwright, Id, Limit, cut, problems
from eventwright.app.web.routes_events import INTAKE
from eventwright.app.wire.problems import ProblemType
from eventwright.queue.webhook_providers import Told
from eventwright.runs import deliveries
from eventwright.runs.errors import EventwrightError
from eventwright.runs.records import DeliveryOutcome
from eventwright.tools.slack_answers import SlackAnswers

router = APIRouter(prefix="/v1", tags=["webhooks"], generate_unique_id_function=operation_id)

_WEBHOOK_BODY: dict[str, Any] = {
    "required": True,
    "content": {
        "application/json": {"schema": {"type": ["object", "array"]}, "example": examples.WEBHOOK},
        "application/x-www-form-urlencoded": {"schema": {"type": "object"}, "example": examples.FORM},
    },
}
_SIGNED: list[dict[str, Any]] = [
    {
        "name": name,
        "in": "header",
        "required": False,
        "description": "of Standard Webhooks; each provider has headers of its own",
        "schema": {"type": "string"},
    }
    for name in ("webhook-id", "webhook-timestamp", "webhook-signature")
]
_WANTED_OTHERWISE: dict[str, Any] = {
    "description": "Accepted, and answered as the provider wants it: Slack's challenge and buttons, GitHub's ping.",
    "content": {"text/plain": {"schema": {"type": "string"}, "example": "pong"}},
}
Outcome = Annotated[DeliveryOutcome | None, Query(description="only those of which this became")]


@router.post(
    "/webhooks/{source}",
    status_code=202,
    response_model=Accepted,
    response_model_exclude_none=True,
    responses=INTAKE | problems(ProblemType.BAD_SIGNATURE) | {200: _WANTED_OTHERWISE},
    openapi_extra={"requestBody": _WEBHOOK_BODY, "parameters": _SIGNED, "security": []},
)
async def receive_webhook(source: str, request: Request, app: Eventwright) -> Accepted | PlainTextResponse:
    """Take in a provider's own body, signed as the provider signs.

    A source that is called `stripe`, `hubspot`, `slack`, `github` or `shopify`, or whose
    `EVENTWRIGHT_WEBHOOK_<SOURCE>_SCHEME` is one of these or `hmac`, is read as such; any other by Standard Webhooks.
    The secrets are in `EVENTWRIGHT_WEBHOOK_<SOURCE>_SECRET`; a source without one is answered like a bad signature.
    `My_Shop` and `my-shop` are one source, and its events come from `/webhooks/my-shop`.
    """
    # One spelling: a signed request that is sent again to another spelling must be found to be the same event.
    name = source.lower().replace("_", "-")
    try:
        body = await read_body(request)
    except EventwrightError as error:
        delivering.not_read(app, name, error)
        raise
    told, accepted = await delivering.deliver(app, name, body, request.headers)
    if told.answer is None:
        return accepted
    return PlainTextResponse(told.answer, background=await _clicked(request, app, told))


async def _clicked(request: Request, app: App, told: Told) -> BackgroundTask | None:
    """What is still to be said, after the answer, to somebody who has decided a review with this."""
    if told.click is None:
        return None
    words = await decide_by_click(app, told.click)
    slack: SlackAnswers = request.app.state.slack
    return None if told.click.answer_to is None else BackgroundTask(slack.tell, told.click.answer_to, words)


@router.get("/webhooks/deliveries", responses=problems(ProblemType.BAD_REQUEST))
async def list_deliveries(
    app: Eventwright, outcome: Outcome = None, limit: Limit = 50, cursor: Cursor = None
) -> DeliveryPage:
    """What was delivered to any source, newest first."""
    return await page(app, outcome=outcome, limit=limit, before=cursor)


@router.get("/webhooks/{source}/deliveries", responses=problems(ProblemType.BAD_REQUEST))
async def list_deliveries_of_source(
    source: str, app: Eventwright, outcome: Outcome = None, limit: Limit = 50, cursor: Cursor = None
) -> DeliveryPage:
    """What was delivered to one source, newest first; `unknown` are those that the settings do not know."""
    name = source.lower().replace("_", "-")
    return await page(app, source=name, outcome=outcome, limit=limit, before=cursor)


@router.get("/webhooks/deliveries/{delivery_id}", responses=problems(ProblemType.NOT_FOUND))
async def show_delivery(delivery_id: Id, app: Eventwright) -> ShownDelivery:
    """One delivery, with its body where no event holds what it says."""
    return ShownDelivery.of(await deliveries.get(app.store, delivery_id))


@router.post(
    "/webhooks/deliveries/{delivery_id}/replay",
    status_code=202,
    responses=INTAKE | problems(ProblemType.NOT_FOUND, ProblemType.NOTHING_TO_REPLAY, ProblemType.EXPIRED),
)
async def replay_delivery(delivery_id: Id, app: Eventwright, who: Who) -> Accepted:
    """Take in once more what a delivery brought, as the code is now.

    What was accepted is answered with the same runs; what was refused starts its runs once the model fits. The
    signature is not checked again: it was when the delivery came.
    """
    return await delivering.replay(app, delivery_id, by=who.name)


async def page(
    app: App,
    *,
    source: str | None = None,
    outcome: DeliveryOutcome | None = None,
    limit: int = 50,
    before: str | None = None,
) -> DeliveryPage:
    """A page of the log, with what this process has counted so far."""
    await app.gatherer.flush()
    found = await deliveries.find(app.store, source=source, outcome=outcome, limit=limit + 1, before=before)
    items, last = cut(found, limit)
    return DeliveryPage(items=[Delivery.of(item) for item in items], next=last.id if last else None)
