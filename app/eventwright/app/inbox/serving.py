"""The inbox as a part of the HTTP API."""

from __future__ import annotations

from http import HTTPStatus

from fastapi import APIRouter, FastAPI
from starlette.responses import RedirectResponse, Response

from eventwright.app.inbox import pages, routes_reviews, routes_runs, routes_sign_in
from eventwright.app.inbox.door import InboxRoute, Who
from eventwright.app.inbox.pages import message
from eventwright.app.inbox.routes_sign_in import TRIES
from eventwright.app.inbox.sessions import Sessions
from eventwright.app.web.form_posts import Turnstile

#: Where the inbox is.
ADDRESS = "/inbox"

_rest = APIRouter(prefix=ADDRESS, include_in_schema=False, route_class=InboxRoute)


@_rest.get("/")
async def with_a_slash(who: Who) -> Response:
    """The list, for whoever writes its address like a folder's."""
    return RedirectResponse(ADDRESS, HTTPStatus.PERMANENT_REDIRECT)


@_rest.get("/{path:path}")
async def nothing_here(path: str, who: Who) -> Response:
    """Any other address below the inbox."""
    return message("There is no such page", "Please check the address.", HTTPStatus.NOT_FOUND, who)


def serve_inbox(api: FastAPI, key: str | None) -> None:
    """Let the API serve the inbox.

    Args:
        key: with which people sign in; None where nobody has to.
    """
    api.state.sessions = Sessions(key)
    api.state.sign_ins = Turnstile(TRIES)
    for routes in (pages, routes_sign_in, routes_reviews, routes_runs):
        api.routes.extend(routes.router.routes)
    api.routes.extend(_rest.routes)
