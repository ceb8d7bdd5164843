"""Signing in with the API key, and out again."""

from __future__ import annotations

import math
from http import HTTPStatus

from fastapi import APIRouter, Request
from starlette.responses import RedirectResponse, Response

from eventwright.app.inbox.door import (
    SIGN_IN,
    InboxRoute,
    Who,
    check_mark,
    let_in,
    let_out,
    refuse_strangers,
    sessions_of,
    way_back,
)
from eventwright.app.inbox.pages import HEADERS, page
from eventwright.app.web.access import KEY_HOLDER, Principal, fault_of_name
from eventwright.app.web.bodies import read_body
from eventwright.app.web.form_posts import Turnstile, client_of, read_post

router = APIRouter(prefix="/inbox", include_in_schema=False, route_class=InboxRoute)

#: Tries to sign in that one address has in a minute.
TRIES = 20


@router.get("/sign-in")
async def ask_for_key(request: Request, next: str = "/inbox") -> Response:
    """The page where one signs in."""
    if sessions_of(request).key is None:
        return _on(way_back(next))
    return _asked(next)


@router.post("/sign-in")
async def sign_in(request: Request) -> Response:
    """Begin a session for whoever has the key."""
    refuse_strangers(request.headers)
    post = await read_post(await read_body(request), request.headers)
    written = {name: text.strip() for name, text in post.values.items() if isinstance(text, str)}
    next, name = written.get("next", ""), written.get("name", "")
    if wait := _turnstile(request).wait_of(client_of(request)):
        told = "There were many tries from your address. Please wait a minute."
        response = _asked(next, name, {"key": told}, HTTPStatus.TOO_MANY_REQUESTS)
        response.headers["Retry-After"] = str(math.ceil(wait))
        return response
    if not sessions_of(request).is_key(written.get("key", "")):
        return _asked(next, name, {"key": "This is not the key."}, HTTPStatus.UNAUTHORIZED)
    if name and name != KEY_HOLDER and (fault := fault_of_name(name)):
        return _asked(next, name, {"name": f"A name {fault}."}, HTTPStatus.UNPROCESSABLE_ENTITY)
    principal = Principal(name or KEY_HOLDER, verified=name in ("", KEY_HOLDER))
    return let_in(_on(way_back(next)), request, principal)


@router.post("/sign-out")
async def sign_out(request: Request, who: Who) -> Response:
    """End the session."""
    check_mark(who, (await read_post(await read_body(request), request.headers)).token)
    return let_out(_on(SIGN_IN))


def _asked(
    next: str, name: str = "", faults: dict[str, str] | None = None, status: HTTPStatus = HTTPStatus.OK
) -> Response:
    return page("sign_in.html", None, status, next=way_back(next), name=name, faults=faults or {}, action=SIGN_IN)


def _on(address: str) -> Response:
    return RedirectResponse(address, HTTPStatus.SEE_OTHER, headers=HEADERS)


def _turnstile(request: Request) -> Turnstile:
    turnstile: Turnstile = request.app.state.sign_ins
    return turnstile
