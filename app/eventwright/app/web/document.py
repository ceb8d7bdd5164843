"""The API's own description, OpenAPI 3.1: what FastAPI finds out by itself, and what it cannot know."""

from __future__ import annotations

from typing import Any

from fastapi import FastAPI
from fastapi.openapi.utils import get_openapi
from fastapi.routing import APIRoute

from eventwright.app.web import examples
from eventwright.app.web.models import Body
from eventwright.app.wire.problems import ProblemType
from eventwright.runs.records import DecisionType, DeliveryOutcome, EventState, JournalKind, ReviewKind, ReviewState
from eventwright.runs.states import Documented, Outcome, Reason, RunState

DESCRIPTION = """Events start workflows, workflows ask people, people decide.

- Everything that is answered with a 2xx is committed.
- Every error is an RFC 9457 problem document.
- `Eventwright-Actor` names the person who acts. It is recorded as claimed, not as proved.
"""
TAGS = [
    {"name": "events", "description": "Facts from outside come in, once each."},
    {"name": "webhooks", "description": "Events come in from providers, signed by them; what was delivered is listed."},
    {"name": "runs", "description": "What the workflows are at; cancel and replay."},
    {"name": "reviews", "description": "What people are asked, and their decisions."},
    {"name": "workflows", "description": "What is deployed."},
    {"name": "service", "description": "Whether the service lives, and what it counts."},
]
_CLOSED_SETS: tuple[type[Documented], ...] = (
    RunState,
    Reason,
    Outcome,
    EventState,
    DeliveryOutcome,
    ReviewState,
    ReviewKind,
    DecisionType,
    JournalKind,
)
_PROBLEM: dict[str, Any] = {
    "type": "object",
    "description": "What went wrong (RFC 9457). Some types have further members.",
    "required": ["type", "title", "status"],
    "properties": {
        "type": {"type": "string", "enum": [str(member) for member in ProblemType]},
        "title": {"type": "string"},
        "status": {"type": "integer"},
        "detail": {"type": "string", "description": "what happened this time, and what to do about it"},
        "instance": {"type": "string"},
    },
    "examples": [examples.PROBLEM],
}
_ACTOR: dict[str, Any] = {
    "name": "Eventwright-Actor",
    "in": "header",
    "required": False,
    "description": "the person in whose name this is done",
    "schema": {"type": "string", "maxLength": 200},
    "example": "ann",
}


def operation_id(route: APIRoute) -> str:
    """The name of an operation in the document: its function's."""
    return route.name


def takes(model: type[Body], *, required: bool = True) -> dict[str, Any]:
    """The part of a route's description that says which body it reads."""
    schema = model.model_json_schema(ref_template="#/components/schemas/{model}")
    # The enums that it refers to stand among the components already, because answers have them too.
    schema.pop("$defs", None)
    return {"requestBody": {"required": required, "content": {"application/json": {"schema": schema}}}}


def describe(api: FastAPI) -> dict[str, Any]:
    """The description of this API."""
    document = get_openapi(
        title=api.title,
        version=api.version,
        description=DESCRIPTION,
        routes=api.routes,
        tags=TAGS,
        openapi_version="3.1.0",
    )
    components = document["components"]
    schemas = components["schemas"]
    schemas["Problem"] = _PROBLEM
    for closed_set in _CLOSED_SETS:
        schemas[closed_set.__name__]["description"] = meanings(closed_set)
    components["securitySchemes"] = {"key": {"type": "http", "scheme": "bearer", "description": "EVENTWRIGHT_API_KEY"}}
    document["security"] = [{"key": []}, {}]
    for path, operations in document["paths"].items():
        for verb, operation in operations.items():
            if verb == "post" and not path.startswith("/v1/events") and path != "/v1/webhooks/{source}":
                operation.setdefault("parameters", []).append(_ACTOR)
    return document


def meanings(closed_set: type[Documented]) -> str:
    """The members of a closed set with their sentences, as a list."""
    return "\n".join(f"- `{member}`: {member.meaning}" for member in closed_set)
