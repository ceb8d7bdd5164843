"""What people send with forms: read within bounds, made an event, told back in words beside the fields."""

from __future__ import annotations

import ipaddress
import re
import secrets
import time
from collections import OrderedDict
from collections.abc import AsyncGenerator, Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import parse_qsl

from fastapi import Request
from pydantic import ValidationError
from starlette.datastructures import FormData, Headers, UploadFile
from starlette.formparsers import MultiPartException, MultiPartParser

from eventwright.app.web.bodies import read
from eventwright.app.wire.problems import Problem, ProblemType, Refused
from eventwright.app.wire.strict_json import parse
from eventwright.graphs.forms import Form, Input, Kind
from eventwright.graphs.workflow import InvalidPayload, On
from eventwright.runs.errors import MOST_FAULTS
from eventwright.runs.event import Event, digest_of
from eventwright.tools.mail_reading import clean_text

#: Fields of ours beside those of the model: what makes two posts one, and what only a program fills in.
TOKEN, TRAP = "form_token", "fax_number"
#: Fields that a post may have, unknown ones among them.
MOST_FIELDS = 200
#: Clients whose posts are counted; of more, the one that was away longest is forgotten.
MOST_CLIENTS = 10_000
_TOKEN = re.compile(r"[A-Za-z0-9_-]{16,64}")

#: What pydantic finds, in words for people; with what it was compared with.
_WORDS = {
    "missing": "Please fill this in.",
    "string_too_short": "Please write at least {min_length} characters.",
    "string_too_long": "Please write at most {max_length} characters.",
    "string_pattern_mismatch": "This does not have the form that is needed here.",
    "greater_than": "This must be more than {gt}.",
    "greater_than_equal": "This must be at least {ge}.",
    "less_than": "This must be less than {lt}.",
    "less_than_equal": "This must be at most {le}.",
    "literal_error": "Please choose one of the options.",
    "enum": "Please choose one of the options.",
    "bool_parsing": "Please say yes or no.",
    "int_parsing": "Please write a whole number.",
    "int_from_float": "Please write a whole number.",
    "float_parsing": "Please write a number.",
    "decimal_parsing": "Please write a number.",
    "decimal_max_digits": "Please write at most {max_digits} digits.",
    "decimal_max_places": "Please write at most {decimal_places} digits after the point.",
    "date_parsing": "Please write a day, as in 2026-11-23.",
    "date_from_datetime_parsing": "Please write a day, as in 2026-11-23.",
    "extra_forbidden": "This field is not part of the form.",
}


@dataclass(frozen=True)
class Fault:
    """Something that somebody has to change; `at` is the field's name, empty for the form as a whole."""

    at: str
    problem: str


@dataclass(frozen=True)
class Post:
    """What came in: texts by field, as they were written; values of JSON as they are."""

    values: Mapping[str, Any]
    token: str = ""
    trapped: bool = False
    faults: Sequence[Fault] = field(default=())


def new_token() -> str:
    """What makes two posts of one page one event."""
    return secrets.token_urlsafe(24)


async def read_post(body: bytes, headers: Headers) -> Post:
    """The fields in a body.

    Raises:
        Refused: another content type than a form's or JSON; parts that cannot be told apart; a file; no JSON object.
        BadJSON: it is no JSON that can be stored.
    """
    kind = headers.get("content-type", "").partition(";")[0].strip().lower()
    if kind == "application/json":
        value = await read(body, parse)
        if not isinstance(value, dict):
            raise _bad("the body is no JSON object; send one member for each field")
        return _post(list(value.items()))
    if kind == "application/x-www-form-urlencoded":
        try:
            return _post(await read(body, _pairs))
        except ValueError as error:
            raise _bad(f"the form has more than {MOST_FIELDS} fields") from error
    if kind == "multipart/form-data":
        return _post(await _parts(body, headers))
    raise Refused(
        Problem(
            type=ProblemType.UNSUPPORTED_MEDIA_TYPE,
            detail="send application/x-www-form-urlencoded, multipart/form-data or application/json",
        )
    )


def _pairs(body: bytes) -> list[tuple[str, str]]:
    pairs = parse_qsl(body.decode("latin-1"), keep_blank_values=True, encoding="latin-1", max_num_fields=MOST_FIELDS)
    return [(_text(name), _text(value)) for name, value in pairs]


async def _parts(body: bytes, headers: Headers) -> list[tuple[str, Any]]:
    async def stream() -> AsyncGenerator[bytes, None]:
        yield body

    try:
        parser = MultiPartParser(headers, stream(), max_files=0, max_fields=MOST_FIELDS, max_part_size=len(body) + 1)
        found: FormData = await parser.parse()
    except (MultiPartException, KeyError, ValueError, LookupError, AssertionError) as error:
        raise _bad(f"the form cannot be read: {getattr(error, 'message', 'its parts cannot be told apart')}") from error
    return [(name, value) for name, value in found.multi_items() if not isinstance(value, UploadFile)]


def _text(latin: str) -> str:
    """What was sent as UTF-8, as a form should be; else as an old browser does it."""
    raw = latin.encode("latin-1")
    try:
        return raw.decode()
    except UnicodeDecodeError:
        return raw.decode("cp1252", "replace")


def _post(pairs: Sequence[tuple[str, Any]]) -> Post:
    values: dict[str, Any] = {}
    twice: dict[str, None] = {}
    for name, value in pairs:
        if name in values:
            twice[name] = None
        values.setdefault(name, clean_text(value) if isinstance(value, str) else value)
    token, trap = values.pop(TOKEN, ""), values.pop(TRAP, "")
    faults = [Fault(name[:100], "This came more than once. Please check it and send it again.") for name in twice]
    return Post(
        values,
        token if isinstance(token, str) and _TOKEN.fullmatch(token) else "",
        bool(trap),
        faults[:MOST_FAULTS],
    )


def _bad(detail: str) -> Refused:
    return Refused(Problem(type=ProblemType.BAD_REQUEST, detail=detail))


def event_of(workflow: str, trigger: On, form: Form, inputs: Sequence[Input], post: Post) -> Event:
    """The event that a post is: the same page sent twice is one, and changed in between another one."""
    data = _data(inputs, post.values)
    token = post.token or new_token()
    return Event(
        id=f"{token}.{digest_of(data)[:16]}",
        source=trigger.source or f"/forms/{workflow}/{trigger.type}",
        type=trigger.type,
        data=data,
        version=form.version_of(trigger.payload),
    )


def _data(inputs: Sequence[Input], values: Mapping[str, Any]) -> dict[str, Any]:
    """The payload: what was left empty is left out, and a box that was not ticked is a no."""
    known = {each.name: each for each in inputs}
    data = {name: value for name, value in values.items() if name not in known}
    for name, each in known.items():
        value = values.get(name, "")
        if each.kind is Kind.CHECKBOX and isinstance(value, str):
            data[name] = value.lower() in ("true", "on", "yes", "1")
        elif (
            each.kind is Kind.INTEGER
            and isinstance(value, str)
            and re.fullmatch(r"\s*[+-]?\d{1,15}\s*", value, re.ASCII)
        ):
            data[name] = int(value)
        elif not isinstance(value, str) or value.strip():
            data[name] = value
    return data


def faults_of(inputs: Sequence[Input], post: Post, parsing: Callable[[], object]) -> list[Fault]:
    """What has to be changed before this can be taken in; nothing if `parsing` raises nothing."""
    faults = list(post.faults)
    if post.trapped:
        faults.append(Fault(TRAP, "Please leave this field empty, and send the form again."))
    try:
        parsing()
    except InvalidPayload as error:
        cause = error.__cause__
        if isinstance(cause, ValidationError):
            kinds = {each.name: each.kind for each in inputs}
            faults += [
                _told(found, kinds) for found in cause.errors(include_url=False, include_input=False)[:MOST_FAULTS]
            ]
        else:
            faults.append(Fault("", str(error)))
    return faults


def _told(found: Mapping[str, Any], kinds: Mapping[str, Kind]) -> Fault:
    at = str(found["loc"][0]) if found["loc"] else ""
    problem = in_words(found)
    if found["type"] == "string_pattern_mismatch" and kinds.get(at) is Kind.EMAIL:
        problem = "Please write an e-mail address, as in ann@example.org."
    return Fault(at, problem) if at in kinds else Fault("", f"{at[:100]}: {problem}" if at else problem)


def in_words(found: Mapping[str, Any]) -> str:
    """An error that pydantic found, as people are told."""
    words = _WORDS.get(found["type"])
    return words.format(**found.get("ctx", {})) if words else str(found["msg"]).removeprefix("Value error, ")


class Turnstile:
    """So many posts a minute from one client, in this process: some at once, then evenly.

    Args:
        per_minute: how many.
        clock: seconds that never go back.
    """

    def __init__(self, per_minute: int, clock: Callable[[], float] = time.monotonic) -> None:
        self._per_minute = per_minute
        self._clock = clock
        #: When each client has paid for what it sent.
        self._paid_at: OrderedDict[str, float] = OrderedDict()

    def wait_of(self, client: str) -> float:
        """Seconds until this client may post; 0 if it may now, and then it has."""
        now, price = self._clock(), 60 / self._per_minute
        paid_at = max(self._paid_at.pop(client, now), now)
        wait = paid_at + price - 60 - now
        self._paid_at[client] = paid_at if wait > 0 else paid_at + price
        while len(self._paid_at) > MOST_CLIENTS:
            self._paid_at.popitem(last=False)
        return max(wait, 0.0)


def client_of(request: Request) -> str:
    """Who posts: an address, or the network that one household has of the newer ones."""
    host = request.client.host if request.client else ""
    try:
        address = ipaddress.ip_address(host)
    except ValueError:
        return host
    return host if address.version == 4 else str(ipaddress.ip_network((address, 64), strict=False))
