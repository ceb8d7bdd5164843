"""Events come in here: CloudEvents, and refused events once more. Webhooks are in `routes_webhooks`."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from fastapi import APIRouter, Request

from eventwright.app.composition import App
from eventwright.app.observing.spans import TRACEPARENT, valid_parent
from eventwright.app.web import examples
from eventwright.app.web.access import Who
from eventwright.app.web.bodies import read, read_body
from eventwright.app.web.document import operation_id
from eventwright.app.web.models import Accepted, AcceptedEvent, EventPage, StoredEvent
from eventwright.app.web.paging import Cursor, Eventwright, Id, Limit, cut, problems
from eventwright.app.web.taking_in import answer, take_in_each
from eventwright.app.wire.envelopes import BATCH, STRUCTURED, read_events
from eventwright.app.wire.problems import Problem, ProblemType, Refused
from eventwright.runs.event import Event
from eventwright.runs.records import EventState

router = APIRouter(prefix="/v1", tags=["events"], generate_unique_id_function=operation_id)

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
#: What may be wrong with an event, or with what brings it.
INTAKE = problems(
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
    responses=INTAKE | problems(ProblemType.UNSUPPORTED_MEDIA_TYPE),
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
        return answer(items, await take_in_each(app, items))
    (item,) = items
    return await _receive(app, _event(item))


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
    "/events/{uid}/replay", status_code=202, responses=INTAKE | problems(ProblemType.NOT_FOUND, ProblemType.EXPIRED)
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
