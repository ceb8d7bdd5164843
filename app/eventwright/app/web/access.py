"""Who may ask, and in whose name: the key, the browser's rules, the principal.

Without a key the service trusts whoever sits at its machine, so it listens on loopback alone, and refuses what a web
page in that person's browser could send: a foreign Host (DNS rebinding) and a foreign Origin.

With a key, the key proves that the caller may speak for others, not who the person is: a principal that the
`Eventwright-Actor` header names stays unverified, and one without a name is `api-key`, which is verified.
"""

from __future__ import annotations

import getpass
import hmac
import ipaddress
import os
import re
from dataclasses import dataclass
from typing import Annotated
from urllib.parse import urlsplit

from fastapi import Depends, Request
from starlette.datastructures import Headers
from starlette.types import ASGIApp, Receive, Scope, Send

from eventwright.app.settings import Settings
from eventwright.app.web.refusals import problem_response
from eventwright.app.wire.problems import Problem, ProblemType, Refused
from eventwright.queue.intake import DEAD_LETTER
from eventwright.runs.errors import EventwrightError
from eventwright.runs.records import person
from eventwright.runs.retention import RETENTION

ACTOR = "eventwright-actor"
#: Characters that a principal's name may have.
LONGEST_NAME = 200
#: Who holds the key, and says nothing more.
KEY_HOLDER = "api-key"
#: Names that stand in the journal for the service itself.
OURS = frozenset({KEY_HOLDER, DEAD_LETTER, RETENTION, "deadline", "gate", "graph", "intake", "workflow"})
#: Where providers post. What stands below, the log of what they posted, is for those who may ask.
_WEBHOOK = re.compile(r"/v1/webhooks/[^/]+")
#: Where forms of other sites post.
_FORMS = "/v1/forms/"
#: Where people sign in by themselves, and each page asks who they are.
_INBOX = re.compile(r"/inbox(/.*)?", re.DOTALL)
_SAFE = frozenset({"GET", "HEAD", "OPTIONS"})


class OpenToStrangers(EventwrightError, PermissionError):
    """The service would listen beyond this machine, and nobody would need a key."""

    def __init__(self, host: str) -> None:
        self.host = host
        super().__init__(
            f"EVENTWRIGHT_HOST is {host!r}, which other machines can reach, and there is no EVENTWRIGHT_API_KEY; "
            "set a key (`openssl rand -base64 32` makes one), or listen on 127.0.0.1"
        )


@dataclass(frozen=True)
class Principal:
    """In whose name a request is made, and whether that is proved."""

    name: str
    verified: bool


def key_of(settings: Settings) -> str | None:
    """The key that callers must bring; None when the service has none (an empty one is none)."""
    return settings.api_key.get_secret_value() if settings.api_key else None


def refuse_open_doors(settings: Settings) -> None:
    """Raise OpenToStrangers for a service without a key that listens beyond loopback."""
    if key_of(settings) is None and not _is_loopback(settings.host):
        raise OpenToStrangers(settings.host)


def local_user() -> str:
    """The principal of whoever works at this machine: `local:<os user>`."""
    try:
        return f"local:{getpass.getuser()}"
    except (KeyError, OSError):  # a container may run under a number that has no name
        return f"local:{os.getuid()}"


class Access:
    """ASGI middleware that lets nobody in who may not ask.

    Args:
        inner: what is guarded.
        key: the bearer token that callers must bring; None means loopback's own rules.
    """

    def __init__(self, inner: ASGIApp, key: str | None) -> None:
        self._inner = inner
        self._key = key

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        guarded = scope["type"] == "http" and not self._is_open(scope["method"], scope["path"])
        refusal = self._refusal(scope) if guarded else None
        answering = self._inner if refusal is None else problem_response(refusal, scope["path"])
        await answering(scope, receive, send)

    def _is_open(self, method: str, path: str) -> bool:
        """Whether anybody may ask here: probes need no key, webhooks bring a signature, forms are for everybody, the
        inbox has a door of its own.

        Without a key, forms and the inbox are for whoever sits at this machine, like all the rest.
        """
        if path == "/healthz" or (method == "POST" and _WEBHOOK.fullmatch(path) is not None):
            return True
        form = path.startswith("/forms/") or (method == "POST" and path.startswith(_FORMS))
        return self._key is not None and (form or _INBOX.fullmatch(path) is not None)

    def _refusal(self, scope: Scope) -> Problem | None:
        headers = Headers(scope=scope)
        if self._key is not None:
            return _key_refusal(headers, self._key)
        return _browser_refusal(headers, scope["method"])


async def principal_of(request: Request) -> Principal:
    """In whose name this request is made. Raises Refused for a name that cannot stand in a journal."""
    names = request.headers.getlist(ACTOR)
    if not names:
        keyed = key_of(request.app.state.eventwright.settings) is not None
        return Principal(KEY_HOLDER, verified=True) if keyed else Principal(local_user(), verified=False)
    try:
        # Headers come as Latin-1; whoever writes a name that is not ASCII means UTF-8.
        name = names[0].encode("latin-1").decode("utf-8").strip()
    except UnicodeDecodeError as error:
        raise _bad_actor("is not UTF-8") from error
    if len(names) > 1:
        raise _bad_actor("stands twice, so it names nobody")
    if fault := fault_of_name(name):
        raise _bad_actor(fault)
    return Principal(name, verified=False)


def fault_of_name(name: str) -> str:
    """Why a name cannot stand in a journal; empty if it can."""
    if not name or len(name) > LONGEST_NAME or not name.isprintable():
        return f"must be 1 to {LONGEST_NAME} printable characters"
    return f"{name!a} is a name of Eventwright itself" if person(name) in OURS else ""


#: The principal of a request, for a route's parameter.
Who = Annotated[Principal, Depends(principal_of)]


def _key_refusal(headers: Headers, key: str) -> Problem | None:
    given = headers.getlist("authorization")
    scheme, _, token = given[0].partition(" ") if len(given) == 1 else ("", "", "")
    if scheme.lower() == "bearer" and hmac.compare_digest(token.strip().encode("latin-1"), key.encode()):
        return None
    return Problem(type=ProblemType.UNAUTHENTICATED, detail="send `Authorization: Bearer <EVENTWRIGHT_API_KEY>`")


def _browser_refusal(headers: Headers, method: str) -> Problem | None:
    hosts = headers.getlist("host")
    if len(hosts) != 1 or not _is_loopback(_host_name(hosts[0])):
        detail = "without a key this service answers to localhost and 127.0.0.1 alone; set EVENTWRIGHT_API_KEY"
        return Problem(type=ProblemType.FORBIDDEN, detail=detail)
    foreign = any(authority(origin) != hosts[0] for origin in headers.getlist("origin"))
    foreign |= headers.get("sec-fetch-site", "none") not in {"none", "same-origin"}
    if method not in _SAFE and foreign:
        detail = "a page of another site may not act here"
        return Problem(type=ProblemType.FORBIDDEN, detail=detail)
    return None


def authority(origin: str) -> str:
    """Host and port in an Origin header; empty when there are none."""
    try:
        return urlsplit(origin).netloc
    except ValueError:
        return ""


def _host_name(host: str) -> str:
    """The name in a Host header, without its port; empty when it is none."""
    try:
        return urlsplit(f"//{host}").hostname or ""
    except ValueError:
        return ""


def _is_loopback(name: str) -> bool:
    if name == "localhost" or name.endswith(".localhost"):
        return True
    try:
        return ipaddress.ip_address(name).is_loopback
    except ValueError:
        return False


def _bad_actor(fault: str) -> Refused:
    return Refused(Problem(type=ProblemType.BAD_REQUEST, detail=f"the header Eventwright-Actor {fault}"))
