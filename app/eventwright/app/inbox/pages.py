"""Pages of the inbox: templates, the headers that keep them to themselves, the two files that they load."""

from __future__ import annotations

import hashlib
from datetime import UTC, datetime
from functools import cache
from http import HTTPStatus
from importlib.resources import files
from typing import TYPE_CHECKING, Any

from fastapi import APIRouter, Request
from jinja2 import Environment, FileSystemLoader, StrictUndefined
from starlette.responses import HTMLResponse, Response

from eventwright.app.commands.telling import line, plain, short, when

if TYPE_CHECKING:
    from eventwright.app.inbox.door import Asker

router = APIRouter(prefix="/inbox", include_in_schema=False)

#: Nothing from elsewhere, no frame around it, and no copy left behind. The script asks for the same page again, hence
#: `connect-src`. Without any referrer a browser would send our own posts from the origin `null`.
HEADERS = {
    "Content-Security-Policy": "default-src 'none'; style-src 'self'; script-src 'self'; connect-src 'self'; "
    "img-src 'self' data:; form-action 'self'; frame-ancestors 'none'; base-uri 'none'",
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "same-origin",
    "Cache-Control": "no-store",
}
_FILES = {"style.css": "text/css", "keys.js": "text/javascript"}


@router.get("/files/{name}")
async def show_file(name: str, request: Request) -> Response:
    """The style sheet and the script, whose addresses change with what is in them. Who asks for another one than there
    is here, while a new version comes process by process, must not keep this one under its name."""
    if name not in _FILES:
        return Response(status_code=HTTPStatus.NOT_FOUND)
    is_this = f"{request.url.path}?{request.url.query}" == address(name)
    kept = "public, max-age=31536000, immutable" if is_this else "no-store"
    headers = {"X-Content-Type-Options": "nosniff", "Cache-Control": kept}
    return Response(_file(name), media_type=_FILES[name], headers=headers)


def page(
    template: str, asker: Asker | None, status: HTTPStatus = HTTPStatus.OK, *, here: str = "", **values: Any
) -> HTMLResponse:
    """A page.

    Args:
        asker: who looks at it; None for a page that anybody may see.
        here: the part of the inbox that it belongs to, `reviews` or `runs`.
    """
    html = _templates().get_template(template).render(asker=asker, here=here, **values)
    return HTMLResponse(html, status, headers=HEADERS)


def message(
    title: str,
    text: str,
    status: HTTPStatus,
    asker: Asker | None = None,
    *,
    links: dict[str, str] | None = None,
) -> HTMLResponse:
    """A page that says one thing; `links` are addresses by their words."""
    return page("message.html", asker, status, title=title, text=text, links=links or {"Back to the inbox": "/inbox"})


@cache
def _templates() -> Environment:
    environment = Environment(
        loader=FileSystemLoader(str(files("eventwright.app.inbox") / "pages")),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters |= {"plain": plain, "line": line, "short": short, "when": when, "utc": utc, "spoken": spoken}
    environment.globals["file"] = address
    return environment


def utc(moment: datetime | None) -> str:
    """`2026-11-23 08:31:04 UTC`."""
    return "" if moment is None else f"{moment.astimezone(UTC):%Y-%m-%d %H:%M:%S} UTC"


def spoken(word: object) -> str:
    """A word of ours as people say it: `pending approval`."""
    return str(word).replace("_", " ")


@cache
def address(name: str) -> str:
    """Where the style sheet or the script is."""
    return f"/inbox/files/{name}?{hashlib.sha256(_file(name)).hexdigest()[:16]}"


@cache
def _file(name: str) -> bytes:
    return (files("eventwright.app.inbox") / "pages" / name).read_bytes()
