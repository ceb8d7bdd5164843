"""Forms: a page for people, and the address for one's own page. Only triggers that declare a form have one."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from http import HTTPStatus
from importlib.resources import files
from typing import Any

from fastapi import APIRouter, Request
from jinja2 import Environment, FileSystemLoader, StrictUndefined
from starlette.responses import HTMLResponse, JSONResponse, RedirectResponse, Response

from eventwright.app.composition import App
from eventwright.app.web import examples
from eventwright.app.web.bodies import read, read_body
from eventwright.app.web.document import operation_id
from eventwright.app.web.form_posts import (
    TOKEN,
    TRAP,
    Fault,
    Post,
    Turnstile,
    client_of,
    event_of,
    faults_of,
    new_token,
    read_post,
)
from eventwright.app.web.paging import Eventwright, problems
from eventwright.app.web.refusals import logged_problem, problem_response
from eventwright.app.wire.problems import Problem, ProblemType, Refused
from eventwright.graphs.forms import Form, Input
from eventwright.graphs.workflow import On, UnknownWorkflow
from eventwright.runs.errors import EventwrightError
from eventwright.runs.event import Event

router = APIRouter(tags=["events"], generate_unique_id_function=operation_id)

#: Nothing from elsewhere, no scripts, and no frame around it. A page without any referrer would have its own posts come
#: from the origin `null`, as a browser sends them, which is nobody's: they would be refused.
_HEADERS = {
    "Content-Security-Policy": "default-src 'none'; style-src 'self'; form-action 'self'; frame-ancestors 'none'; "
    "base-uri 'none'",
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "same-origin",
    "Cache-Control": "no-store",
}
_FIELDS: dict[str, Any] = {"schema": {"type": "object"}, "example": examples.FORM_FIELDS}
_BODY: dict[str, Any] = {
    "required": True,
    "content": {
        "application/x-www-form-urlencoded": _FIELDS,
        "multipart/form-data": _FIELDS,
        "application/json": _FIELDS,
    },
}
_ANSWER: dict[int | str, dict[str, Any]] = {
    202: {
        "description": "Accepted: the id of the event, and whether it was there already.",
        "content": {"application/json": {"schema": {"type": "object"}, "example": examples.FORM_ANSWER}},
    }
}


@dataclass(frozen=True)
class Page:
    """A form with its place."""

    workflow: str
    trigger: On
    form: Form
    inputs: Sequence[Input]

    @property
    def path(self) -> str:
        return f"/forms/{self.workflow}/{self.trigger.type}"


@router.get("/forms/style.css", include_in_schema=False)
async def style() -> Response:
    """How the pages look."""
    return Response(_style(), media_type="text/css", headers={"X-Content-Type-Options": "nosniff"})


@router.get("/forms/{workflow}/{type}", include_in_schema=False)
async def show_form(workflow: str, type: str, app: Eventwright) -> Response:
    """The page on which the form is filled in."""
    page = _page_of(app, workflow, type)
    return _nothing_here() if page is None else _shown(page, Post({}))


@router.get("/forms/{workflow}/{type}/thanks", include_in_schema=False)
async def thank(workflow: str, type: str, app: Eventwright) -> Response:
    """The page after it: to come back to it, or to load it again, sends nothing."""
    page = _page_of(app, workflow, type)
    if page is None:
        return _nothing_here()
    return _message(page.form.title, page.form.thanks, HTTPStatus.OK)


@router.post("/forms/{workflow}/{type}", include_in_schema=False)
async def take_form(workflow: str, type: str, request: Request, app: Eventwright) -> Response:
    """What our own page sends: answered with the page again, with what was written, or with thanks."""
    page = _page_of(app, workflow, type)
    if page is None:
        return _nothing_here()
    if request.headers.get("sec-fetch-site", "same-origin") not in ("same-origin", "none"):
        return _message(
            page.form.title, "Please fill the form in on its own page.", HTTPStatus.FORBIDDEN, back=page.path
        )
    return await _taken(page, request, app)


@router.post(
    "/v1/forms/{workflow}/{type}",
    status_code=202,
    response_model=None,
    responses=_ANSWER
    | problems(
        ProblemType.NOT_FOUND,
        ProblemType.BAD_REQUEST,
        ProblemType.TOO_LARGE,
        ProblemType.UNSUPPORTED_MEDIA_TYPE,
        ProblemType.INVALID_PAYLOAD,
        ProblemType.TOO_BUSY,
    ),
    openapi_extra={"security": [], "requestBody": _BODY},
)
async def receive_form(workflow: str, type: str, request: Request, app: Eventwright) -> Response:
    """Take in what a form of one's own sends: urlencoded, multipart or JSON.

    A browser (one that accepts HTML) is answered with pages, any other caller with JSON. `form_token`, 16 characters or
    more, makes two posts of the same content one event.
    """
    page = _page_of(app, workflow, type)
    browser = "text/html" in request.headers.get("accept", "")
    if page is None:
        nothing = Problem(type=ProblemType.NOT_FOUND, detail="there is no form by this name")
        return _nothing_here() if browser else problem_response(nothing, request.url.path)
    if browser:
        return await _taken(page, request, app)
    if wait := _turnstile(request).wait_of(client_of(request)):
        busy = "this address has sent too many forms; nothing was stored"
        raise Refused(Problem(type=ProblemType.TOO_BUSY, detail=busy, extensions={"retry_after": math.ceil(wait)}))
    body = await read_body(request)
    event, faults = await _judged(page, body, await read_post(body, request.headers))
    if faults:
        errors = [{"at": fault.at, "problem": fault.problem} for fault in faults]
        detail = f"{len(faults)} fields have to be changed" if len(faults) > 1 else faults[0].problem
        raise Refused(Problem(type=ProblemType.INVALID_PAYLOAD, detail=detail, extensions={"errors": errors}))
    receipt = await app.engine.receive(event)
    return JSONResponse({"id": event.id, "duplicate": receipt.duplicate}, status_code=202)


async def _taken(page: Page, request: Request, app: App) -> Response:
    """Take a post in, and answer with a page whatever happens: what was written is in it."""
    post = Post({})
    try:
        body = await read_body(request)
        post = await read_post(body, request.headers)
        if wait := _turnstile(request).wait_of(client_of(request)):
            told = "You have sent many forms in a short time. Please wait a minute, and send this one again."
            response = _shown(page, post, [Fault("", told)], HTTPStatus.TOO_MANY_REQUESTS)
            response.headers["Retry-After"] = str(math.ceil(wait))
            return response
        event, faults = await _judged(page, body, post)
        if faults:
            return _shown(page, post, faults, HTTPStatus.UNPROCESSABLE_ENTITY)
        await app.engine.receive(event)
    except EventwrightError as error:
        problem = logged_problem(error)
        return _shown(page, post, [Fault("", _in_words(problem))], HTTPStatus(problem.status))
    return RedirectResponse(f"{page.path}/thanks", HTTPStatus.SEE_OTHER, headers=_HEADERS)


async def _judged(page: Page, body: bytes, post: Post) -> tuple[Event, list[Fault]]:
    """The event that a post is, and what has to be changed in it; one with a heavy body is looked at in a thread."""

    def judge(_: bytes) -> tuple[Event, list[Fault]]:
        event = event_of(page.workflow, page.trigger, page.form, page.inputs, post)
        return event, faults_of(page.inputs, post, lambda: page.trigger.parse(event))

    return await read(body, judge)


def _in_words(problem: Problem) -> str:
    if problem.status >= HTTPStatus.INTERNAL_SERVER_ERROR or problem.type is ProblemType.TOO_BUSY:
        return "We could not store this just now. Nothing is lost: please send it again in a moment."
    return f"This could not be taken: {problem.detail or problem.title}"


def _page_of(app: App, workflow: str, type: str) -> Page | None:
    try:
        found = app.workflows.get(workflow)
    except UnknownWorkflow:
        return None
    for trigger in found.triggers:
        if trigger.type == type and trigger.form is not None:
            return Page(workflow, trigger, trigger.form, trigger.form.inputs(trigger.payload))
    return None


def _turnstile(request: Request) -> Turnstile:
    turnstile: Turnstile = request.app.state.turnstile
    return turnstile


# -- pages -------------------------------------------------------------------------------------------------------------


def _shown(page: Page, post: Post, faults: Sequence[Fault] = (), status: HTTPStatus = HTTPStatus.OK) -> HTMLResponse:
    at: dict[str, list[str]] = {}
    for fault in faults:
        at.setdefault(fault.at, []).append(fault.problem)
    values = {
        each.name: _written(post.values.get(each.name, "" if post.values else each.default)) for each in page.inputs
    }
    return _rendered(
        "form.html",
        status,
        form=page.form,
        inputs=page.inputs,
        values=values,
        faults=at,
        trapped=post.trapped,
        labels={each.name: each.label for each in page.inputs},
        # The one page's token stays: what was taken in the moment before an answer got lost is not taken in twice.
        token=post.token or new_token(),
        token_name=TOKEN,
        trap_name=TRAP,
        action=page.path,
    )


def _written(value: Any) -> str:
    if isinstance(value, bool):
        return "true" if value else "false"
    return value if isinstance(value, str) else str(value)


def _nothing_here() -> HTMLResponse:
    return _message("There is no such form", "Please check the address.", HTTPStatus.NOT_FOUND)


def _message(title: str, text: str, status: HTTPStatus, *, back: str | None = None) -> HTMLResponse:
    return _rendered("message.html", status, title=title, text=text, back=back)


def _rendered(template: str, status: HTTPStatus, **values: Any) -> HTMLResponse:
    return HTMLResponse(_templates().get_template(template).render(values), status, headers=_HEADERS)


@cache
def _templates() -> Environment:
    folder = str(files("eventwright.app.web") / "pages")
    return Environment(
        loader=FileSystemLoader(folder),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )


@cache
def _style() -> str:
    return (files("eventwright.app.web") / "pages" / "style.css").read_text(encoding="utf-8")
