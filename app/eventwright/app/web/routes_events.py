"""Events come in here: CloudEvents, webhooks, and refused events once more."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from dataclasses import replace
from datetime import UTC, datetime
from typing import Any

from fastapi import APIRouter, Request
from fastapi.responses import PlainTextResponse
from starlette.datastructures import Headers

from eventwright.app.composition import App
from eventwright.app.observing.spans import TRACEPARENT, valid_parent
from eventwright.app.web import examples
from eventwright.app.web.access import Who
from eventwright.app.web.bodies import read, read_body
from eventwright.app.web.models import Accepted, AcceptedEvent, EventPage, RefusedItem, StoredEvent
from eventwright.app.web.paging import Cursor, Eventwright, Id, Limit, cut, problems
from eventwright.app.web.refusals import logged_problem
from eventwright.app.wire.envelopes import BATCH, STRUCTURED, read_events
from eventwright.app.wire.problems import Problem, ProblemType, Refused, problem_of
from eventwright.app.wire.strict_json import parse
from eventwright.queue.webhook_providers import Delivery, Options, Told, provider_of
from eventwright.queue.webhooks import BadWebhook, SignatureRefused, single_headers, verify
from eventwright.runs.event import Event
from eventwright.runs.records import EventState

router = APIRouter(prefix="/v1", tags=["events"])

_EVENT_SCHEMA: dict[str, Any] = {
    "type": "object",
    "required": ["specversion", "id", "source", "type"],
    "properties": {
        "specversion": {"const": "1.0"},
        "id": {"type": "string", "description": "unique for its source; sent again, it is a duplicate"},
        "source": {"type": "string", "format": "uri-reference"},
        "type": {"type": "string"},
        "subject": {"type": "string"},
        "time": {"type": "string", "format": "date-time"},
        "payloadversion": {"type": "string", "default": "1"},
        "data": {"description": "any JSON"},
    },
    "additionalProperties": {"type": ["string", "integer", "boolean"]},
}
_EVENT_BODY: dict[str, Any] = {
    "required": True,
    "content": {
        STRUCTURED: {"schema": _EVENT_SCHEMA, "example": examples.CLOUD_EVENT},
        BATCH: {
            "schema": {"type": "array", "minItems": 1, "items": _EVENT_SCHEMA},
            "example": [examples.CLOUD_EVENT],
        },
        "application/json": {
            "schema": {"description": "the data alone; the attributes are in `ce-` headers"},
            "example": examples.CLOUD_EVENT["data"],
        },
    },
}
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
#: Our own troubles, for which nobody but time is needed.
_WORTH_ANOTHER_TRY = frozenset({ProblemType.INTERNAL, ProblemType.UNAVAILABLE, ProblemType.TOO_BUSY})
_INTAKE = problems(
    ProblemType.BAD_JSON,
    ProblemType.BAD_EVENT,
    ProblemType.FORBIDDEN,
    ProblemType.EVENT_CONFLICT,
    ProblemType.TOO_LARGE,
    ProblemType.UNKNOWN_VERSION,
    ProblemType.INVALID_PAYLOAD,
    ProblemType.TOO_BUSY,
    ProblemType.UNAVAILABLE,
)


@router.post(
    "/events",
    status_code=202,
    response_model_exclude_none=True,
    responses=_INTAKE | problems(ProblemType.UNSUPPORTED_MEDIA_TYPE),
    openapi_extra={"requestBody": _EVENT_BODY},
)
async def receive_events(request: Request, app: Eventwright, who: Who) -> Accepted:
    """Take in one CloudEvent, or a batch.

    It is answered once the event and its runs are committed. The same event again is answered with the same runs.
    In a batch every item answers for itself; the status is 202 if any was accepted.
    """
    body = await read_body(request)
    delivery = await read(body, lambda raw: read_events(request.headers, raw))
    trace = valid_parent(request.headers.get(TRACEPARENT))
    items = [item if isinstance(item, Problem) else _as_sent(item, who.name, trace) for item in delivery.items]
    if delivery.batch:
        return await _receive_batch(app, items)
    (item,) = items
    return await _receive(app, _event(item))


@router.post(
    "/webhooks/{source}",
    status_code=202,
    response_model=Accepted,
    response_model_exclude_none=True,
    responses=_INTAKE | problems(ProblemType.BAD_SIGNATURE) | {200: _WANTED_OTHERWISE},
    openapi_extra={"requestBody": _WEBHOOK_BODY, "parameters": _SIGNED, "security": []},
)
async def receive_webhook(source: str, request: Request, app: Eventwright) -> Accepted | PlainTextResponse:
    """Take in a provider's own body, signed as the provider signs.

    A source that is called `stripe`, `hubspot`, `slack`, `github` or `shopify`, or whose
    `EVENTWRIGHT_WEBHOOK_<SOURCE>_SCHEME` is one of these or `hmac`, is read as such; any other by Standard Webhooks.
    The secrets are in `EVENTWRIGHT_WEBHOOK_<SOURCE>_SECRET`; a source without one is answered like a bad signature.
    `My_Shop` and `my-shop` are one source, and its events come from `/webhooks/my-shop`.
    """
    body = await read_body(request)
    # One spelling: a signed request that is sent again to another spelling must be found to be the same event.
    name = source.lower().replace("_", "-")
    told = await _told(app, name, body, request.headers)
    accepted = await _receive_told(app, told)
    return accepted if told.answer is None else PlainTextResponse(told.answer)


@router.get("/events", responses=problems(ProblemType.BAD_REQUEST))
async def list_events(
    app: Eventwright, state: EventState | None = None, limit: Limit = 50, cursor: Cursor = None
) -> EventPage:
    """The stored events, newest first; `state=refused` are those that wait for a correction."""
    items, last = cut(await app.store.events(state=state, limit=limit + 1, before=cursor), limit)
    return EventPage(items=[StoredEvent.of(item) for item in items], next=last.event.uid if last else None)


@router.get("/events/{uid}", responses=problems(ProblemType.NOT_FOUND))
async def show_event(uid: Id, app: Eventwright) -> StoredEvent:
    """One stored event, with why it was refused or which runs it started."""
    return StoredEvent.of(await app.store.event(uid))


@router.post(
    "/events/{uid}/replay", status_code=202, responses=_INTAKE | problems(ProblemType.NOT_FOUND, ProblemType.EXPIRED)
)
async def replay_event(uid: Id, app: Eventwright) -> Accepted:
    """Take a refused event in once more, after a deploy that understands it."""
    return Accepted(events=[AcceptedEvent.of(await app.engine.receive_again(uid))])


def _as_sent(event: Event, principal: str, trace: str | None) -> Event:
    """The event in the name of whoever sent it; in the trace of the request, if it names none itself."""
    extensions = event.extensions if trace is None else {TRACEPARENT: trace} | event.extensions
    return replace(event, principal=principal, extensions=extensions)


def _event(item: Event | Problem) -> Event:
    if isinstance(item, Problem):
        raise Refused(item)
    return item


async def _receive(app: App, event: Event) -> Accepted:
    return Accepted(events=[AcceptedEvent.of(await app.engine.receive(event))])


async def _told(app: App, source: str, body: bytes, headers: Headers) -> Told:
    """What a signed request tells. Raises SignatureRefused, which is counted, and what is wrong with its body."""
    settings = app.settings
    secrets = settings.webhook_secrets(source)
    provider = provider_of(source, settings.webhook_setting(source, "SCHEME"))
    options = Options(url=settings.webhook_setting(source, "URL"), header=settings.webhook_setting(source, "HEADER"))
    try:
        verified = verify(body, headers, secrets, datetime.now(UTC), scheme=provider.scheme(options))
    except SignatureRefused:
        app.store.telemetry.webhook_refused(source if secrets else "")
        raise
    once = single_headers(headers)

    def tell(raw: bytes) -> Told:
        return provider.tell(Delivery(source=source, raw=raw, headers=once, verified=verified, parse=parse))

    return await read(body, tell)


async def _receive_told(app: App, told: Told) -> Accepted:
    """Take in the events of one webhook: all or, when we are in trouble, the provider is to send them again."""
    match told.events:
        case ():
            return Accepted(events=[])
        case (BadWebhook() as fault,):
            raise fault
        case (Event() as event,):
            return await _receive(app, event)
    items = [problem_of(item) if isinstance(item, BadWebhook) else item for item in told.events]
    return await _receive_batch(app, items, together=True)


async def _receive_batch(app: App, items: Sequence[Event | Problem], *, together: bool = False) -> Accepted:
    """Every item's own answer, in their order.

    Args:
        app: who takes them in.
        items: the events, and why others are none.
        together: the sender reads the status alone, and sends all again or none: our own trouble with one item is
            told for all. Those that are stored are duplicates then.

    Raises:
        Refused: none was accepted, or it is worth another try; with all the answers.
    """
    answers: dict[int, AcceptedEvent | RefusedItem] = {}

    async def in_turn(positions: list[int]) -> None:
        for position in positions:
            answers[position] = await _answer(app, items[position])

    # Items of one name are taken one after the other, so that the first is the one that counts.
    turns: dict[object, list[int]] = {}
    for position, item in enumerate(items):
        name = (item.source, item.id) if isinstance(item, Event) else position
        turns.setdefault(name, []).append(position)
    await asyncio.gather(*(in_turn(positions) for positions in turns.values()))
    ordered = [answers[position] for position in range(len(items))]
    refused = [answer for answer in ordered if isinstance(answer, RefusedItem)]
    trouble = together and any(item.error["type"] in _WORTH_ANOTHER_TRY for item in refused)
    if trouble or len(refused) == len(ordered):
        raise Refused(_all_refused(refused, len(ordered)))
    return Accepted(events=ordered)


async def _answer(app: App, item: Event | Problem) -> AcceptedEvent | RefusedItem:
    if isinstance(item, Problem):
        return RefusedItem(error=item.document())
    try:
        return AcceptedEvent.of(await app.engine.receive(item))
    except Exception as error:  # noqa: BLE001 - each item answers for itself, and a fault of ours is logged
        return RefusedItem(id=item.id, source=item.source, error=logged_problem(error).document())


def _all_refused(refused: Sequence[RefusedItem], of: int) -> Problem:
    """The problem of a batch that is not accepted: our own trouble first, for it is worth another try."""
    by_name = {str(member): member for member in ProblemType}
    types = [by_name[item.error["type"]] for item in refused]
    if not types:
        return Problem(type=ProblemType.BAD_EVENT, detail="the batch is empty")
    worst = next((own for own in types if own in _WORTH_ANOTHER_TRY), types[0])
    items = [item.model_dump(exclude_none=True) for item in refused]
    detail = f"{len(items)} of {of} events were not accepted; `events` says why for each"
    waits = [item.error["retry_after"] for item in refused if "retry_after" in item.error]
    again = {"retry_after": max(waits)} if waits and worst in _WORTH_ANOTHER_TRY else {}
    return Problem(type=worst, detail=detail, extensions={"events": items} | again)
