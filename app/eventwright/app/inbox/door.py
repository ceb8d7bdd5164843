"""The door of the inbox: who is asking, that their own browser sends what they send, and what they are told instead.

Every route behind it takes an `Asker`, which nobody gets who may not ask.
"""

from __future__ import annotations

import hmac
import re
from collections.abc import Callable, Coroutine
from dataclasses import dataclass
from http import HTTPStatus
from typing import Annotated, Any
from urllib.parse import quote

from fastapi import Depends, Query, Request
from fastapi.exceptions import RequestValidationError
from fastapi.routing import APIRoute
from starlette.datastructures import Headers
from starlette.responses import RedirectResponse, Response

from eventwright.app.inbox.pages import HEADERS, message, page
from eventwright.app.inbox.sessions import LASTS, Sessions
from eventwright.app.web.access import Principal, authority, principal_of
from eventwright.app.web.refusals import logged_problem
from eventwright.app.wire.problems import Problem, ProblemType, Refused
from eventwright.runs.errors import EventwrightError

COOKIE = "eventwright_inbox"
SIGN_IN = "/inbox/sign-in"
#: Addresses that one may be led to after signing in: pages of ours, with a plain query.
_OURS = re.compile(r"/inbox(?:/[A-Za-z0-9_:.\-]+)*(?:\?[A-Za-z0-9_:.\-=&%]*)?")
_LONGEST_ADDRESS = 500
#: Troubles after which the same is worth another try.
_LATER = frozenset({ProblemType.UNAVAILABLE, ProblemType.TOO_BUSY, ProblemType.INTERNAL})


@dataclass(frozen=True)
class Asker:
    """Who is asking.

    Attributes:
        mark: what each of their forms carries.
        signed_in: whether they have a session that they can end.
    """

    principal: Principal
    mark: str
    signed_in: bool

    @property
    def name(self) -> str:
        return self.principal.name


class SignInNeeded(EventwrightError, PermissionError):
    """Nobody has signed in here, or not lately."""

    def __init__(self) -> None:
        super().__init__("sign in to the inbox")


class FormTooOld(Refused):
    """A form does not carry the mark of this session: it was made in another one, or by somebody else."""

    def __init__(self) -> None:
        detail = "this page was made before you signed in, or before the service started; please send it once more"
        super().__init__(Problem(type=ProblemType.FORBIDDEN, detail=detail))


async def asker_of(request: Request) -> Asker:
    """Who is asking. Raises SignInNeeded; Refused for what a page of another site sends."""
    sessions = sessions_of(request)
    if request.method not in ("GET", "HEAD"):
        refuse_strangers(request.headers)
    if sessions.key is None:
        principal = await principal_of(request)
        return Asker(principal, sessions.mark(principal.name), signed_in=False)
    token = request.cookies.get(COOKIE, "")
    signed_in = sessions.read(token)
    if signed_in is None:
        raise SignInNeeded
    return Asker(signed_in, sessions.mark(token), signed_in=True)


#: Who is asking, for a route's parameter.
Who = Annotated[Asker, Depends(asker_of)]
#: A name that was chosen from a list, or nothing.
Chosen = Annotated[str | None, Query(pattern=r"^[A-Za-z0-9_:.\-]*$", max_length=128)]


def sessions_of(request: Request) -> Sessions:
    """The sessions of this service."""
    sessions: Sessions = request.app.state.sessions
    return sessions


def refuse_strangers(headers: Headers) -> None:
    """Raise Refused for a post that a page of another site sends.

    A browser says so itself. One that does not, on a page without TLS, says where the page came from.
    """
    site = headers.get("sec-fetch-site")
    foreign = any(authority(origin) != headers.get("host") for origin in headers.getlist("origin"))
    if site not in ("same-origin", "none") if site is not None else foreign:
        raise Refused(Problem(type=ProblemType.FORBIDDEN, detail="a page of another site may not act here"))


def check_mark(asker: Asker, given: str) -> None:
    """Raise FormTooOld unless a form of this session carried this."""
    if not hmac.compare_digest(given.encode(), asker.mark.encode()):
        raise FormTooOld


def way_back(given: str) -> str:
    """Where to go after signing in: a page of the inbox, whatever was asked for."""
    fits = len(given) <= _LONGEST_ADDRESS and _OURS.fullmatch(given) and ".." not in given
    return given if fits and not given.startswith(SIGN_IN) else "/inbox"


def let_in(response: Response, request: Request, principal: Principal) -> Response:
    """The answer with a session in it. The browser's own word for where it is says whether there is TLS, because a
    proxy may stand between."""
    secure = request.url.scheme == "https" or request.headers.get("origin", "").startswith("https://")
    _set_cookie(response, sessions_of(request).token(principal), LASTS, secure=secure)
    return response


def let_out(response: Response) -> Response:
    """The answer that ends the session."""
    _set_cookie(response, "", 0, secure=False)
    return response


def _set_cookie(response: Response, value: str, seconds: int, *, secure: bool) -> None:
    response.set_cookie(COOKIE, value, max_age=seconds, path="/inbox", secure=secure, httponly=True, samesite="strict")


class InboxRoute(APIRoute):
    """A route whose errors are pages."""

    def get_route_handler(self) -> Callable[[Request], Coroutine[Any, Any, Response]]:
        handle = super().get_route_handler()

        async def handled(request: Request) -> Response:
            try:
                return await handle(request)
            except SignInNeeded:
                return _led_to_sign_in(request)
            except RequestValidationError:
                return message("There is no such page", "Please check the address.", HTTPStatus.NOT_FOUND)
            except EventwrightError as error:
                return _told(logged_problem(error), await _asker_if_any(request), posted=request.method == "POST")

        return handled


def _told(problem: Problem, asker: Asker | None, *, posted: bool) -> Response:
    """An error as a page. What was posted is with the browser still."""
    again = posted and problem.type in _LATER
    text = f"{problem.detail or ''}{' Load this page again, and what you wrote is sent once more.' if again else ''}"
    response = message(problem.title, text, HTTPStatus(problem.status), asker)
    if "retry_after" in problem.extensions:
        response.headers["Retry-After"] = str(problem.extensions["retry_after"])
    return response


async def _asker_if_any(request: Request) -> Asker | None:
    try:
        return await asker_of(request)
    except EventwrightError:
        return None


def _led_to_sign_in(request: Request) -> Response:
    """To the page where one signs in, and back afterwards. What was written on a page whose session is over is not
    lost: the browser has it, and sends it again."""
    if request.method != "GET":
        return page("signed_out.html", None, HTTPStatus.UNAUTHORIZED, sign_in=SIGN_IN)
    here = way_back(request.url.path + (f"?{request.url.query}" if request.url.query else ""))
    if request.headers.get("sec-fetch-site") == "cross-site":
        # Who follows a link in a mail has left the cookie at home, because another site sent them. From here they go
        # on by themselves, and bring it.
        return page("on.html", None, here=here)
    return RedirectResponse(f"{SIGN_IN}?next={quote(here, safe='')}", HTTPStatus.SEE_OTHER, headers=HEADERS)
