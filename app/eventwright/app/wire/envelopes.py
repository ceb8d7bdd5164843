"""CloudEvents 1.0 over HTTP: a request becomes events, an event becomes a request.

The content type alone chooses how a request is read: `application/cloudevents+json` (structured),
`application/cloudevents-batch+json` (batch), any other JSON type (binary: attributes in `ce-` headers, the
body is the data). Headers never override what stands in a structured body. The CloudEvents library writes; it
does not read, because it would invent an id for an event that has none (which defeats deduplication), take
NaN and keys that stand twice, and let a header choose the mode.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any
from urllib.parse import unquote

from cloudevents.core.bindings.http import to_structured_event
from cloudevents.core.v1.event import CloudEvent

from eventwright.app.wire.problems import Problem, ProblemType, Refused, problem_of
from eventwright.app.wire.strict_json import LIMIT, BadJSON, check, load, parse
from eventwright.queue.attributes import read_time, source_fault, text_fault, version_fault
from eventwright.runs.errors import MOST_FAULTS, in_one_line
from eventwright.runs.event import Event

STRUCTURED = "application/cloudevents+json"
BATCH = "application/cloudevents-batch+json"
#: Events that one batch may hold.
MOST = 1000

_JSON = re.compile(r"(?:application|text)/(?:[a-z0-9.\-]+\+)?json")
_CHARSET = re.compile(r';\s*charset\s*=\s*"?([^\s";]+)', re.IGNORECASE)
_ATTRIBUTE_NAME = re.compile(r"[a-z0-9]{1,64}")
#: What is read into a field of Event, or says how to read the data. Everything else is an extension.
_OWN = frozenset({"specversion", "id", "source", "type", "subject", "time", "payloadversion", "datacontenttype"})


@dataclass(frozen=True)
class Delivery:
    """What one request brought: for each event in turn, the event or the problem with it."""

    items: tuple[Event | Problem, ...]
    #: Whether it came as a batch, in which every item answers for itself.
    batch: bool


def read_events(headers: Mapping[str, str], body: bytes, *, limit: int = LIMIT) -> Delivery:
    """The events of one HTTP request.

    Args:
        headers: the request's headers, in any case.
        body: the body as it came.
        limit: bytes that the body may have.

    Raises:
        TooLarge: the body is longer than `limit`.
        BadJSON: the body as a whole is not JSON. (A fault inside one item is that item's problem.)
        Refused: the content type is none that is read here, a header stands twice, or the batch is no array
            of at most 1000 items.
    """
    lowered = _lowered(headers)
    media_type = _media_type(lowered.get("content-type", ""))
    if media_type == STRUCTURED:
        return Delivery((_structured(load(body, limit=limit), "$"),), batch=False)
    if media_type == BATCH:
        items = load(body, limit=limit)
        if not isinstance(items, list):
            raise _refused(ProblemType.BAD_EVENT, "a batch is a JSON array of events")
        if len(items) > MOST:
            raise _refused(
                ProblemType.TOO_LARGE, f"the batch has {len(items)} events, {MOST} are allowed; send several"
            )
        return Delivery(tuple(_structured(item, f"$[{n}]") for n, item in enumerate(items)), batch=True)
    return Delivery((_binary(lowered, media_type, body, limit),), batch=False)


def to_structured(event: Event) -> tuple[dict[str, str], bytes]:
    """The headers and the body that carry an event in structured mode.

    CloudEvents' `time` is when it happened, or for an event that does not say, when it came to be here.

    Raises:
        BadJSON: the data could not be read by a door like ours (NaN, a number beyond 2**53, NUL).
        ValueError: an attribute is not what CloudEvents allows, or the data holds a value that is not JSON.
    """
    attributes: dict[str, Any] = {
        **event.extensions,
        "specversion": "1.0",
        "id": event.id,
        "source": event.source,
        "type": event.type,
        "time": event.time or event.received_at,
        "datacontenttype": "application/json",
        "payloadversion": event.version,
    }
    if event.subject is not None:
        attributes["subject"] = event.subject
    faults = _faults(attributes | {"time": attributes["time"].isoformat()})
    if faults:
        raise ValueError(f"the event cannot be sent: {_sentence(faults)}")
    try:
        message = to_structured_event(CloudEvent(attributes, event.data))
    except TypeError as error:
        raise ValueError(f"the data of event {event.id!r} is not JSON: {error}") from error
    parse(message.body, limit=max(LIMIT, len(message.body)))
    return dict(message.headers), message.body


def _lowered(headers: Mapping[str, str]) -> dict[str, str]:
    """The headers that matter here, by lower-case name."""
    mattering = [
        (name.lower(), value)
        for name, value in headers.items()
        if name.lower() == "content-type" or name.lower().startswith("ce-")
    ]
    twice = sorted(name for name, times in Counter(name for name, _ in mattering).items() if times > 1)
    if twice:
        raise _refused(ProblemType.BAD_EVENT, f"these headers stand twice, so they say nothing: {', '.join(twice)}")
    return dict(mattering)


def _media_type(content_type: str) -> str:
    """The media type without its parameters, in lower case; empty when there is none.

    Raises:
        Refused: the type is not JSON, or a charset is not UTF-8.
    """
    media_type = content_type.partition(";")[0].strip().lower()
    other_format = media_type.startswith("application/cloudevents") and media_type not in {STRUCTURED, BATCH}
    if other_format or (media_type and not _JSON.fullmatch(media_type)):
        raise _refused(
            ProblemType.UNSUPPORTED_MEDIA_TYPE,
            f"{media_type[:64]!a} is not read; send {STRUCTURED}, {BATCH}, or JSON with ce- headers",
        )
    for charset in _CHARSET.findall(content_type):
        if charset.lower() not in {"utf-8", "utf8", "us-ascii"}:
            raise _refused(
                ProblemType.UNSUPPORTED_MEDIA_TYPE,
                f"the charset {charset[:64]!a} is not read; send UTF-8",
            )
    return media_type


def _structured(item: Any, where: str) -> Event | Problem:
    """The event of one JSON object, `data` and attributes side by side."""
    try:
        check(item, where)
    except BadJSON as error:
        return problem_of(error)
    if not isinstance(item, dict):
        return Problem(type=ProblemType.BAD_EVENT, detail=f"an event is a JSON object (at {where})")
    # To CloudEvents an attribute that is null is an attribute that is not there.
    attributes = {name: value for name, value in item.items() if value is not None and name != "data"}
    if "data_base64" in attributes:
        detail = "data_base64 is not read; send `data` as JSON, and a binary document by reference"
        return Problem(type=ProblemType.UNSUPPORTED_MEDIA_TYPE, detail=detail)
    data_type = attributes.get("datacontenttype", "application/json")
    if not isinstance(data_type, str) or not _JSON.fullmatch(data_type.partition(";")[0].strip().lower()):
        detail = f"the data must be JSON, not of datacontenttype {ascii(data_type)[:64]}"
        return Problem(type=ProblemType.UNSUPPORTED_MEDIA_TYPE, detail=detail)
    return _event(attributes, item.get("data"))


def _binary(lowered: Mapping[str, str], media_type: str, body: bytes, limit: int) -> Event | Problem:
    """The event whose attributes are headers and whose data is the body."""
    encoded = {name.removeprefix("ce-"): value for name, value in lowered.items() if name.startswith("ce-")}
    if not encoded:
        detail = f"there are no ce- headers; a body that is the whole event has the content type {STRUCTURED}"
        return Problem(type=ProblemType.UNSUPPORTED_MEDIA_TYPE, detail=detail)
    if body and not media_type:
        return Problem(
            type=ProblemType.UNSUPPORTED_MEDIA_TYPE,
            detail="the body has no content type; send application/json",
        )
    data = parse(body, limit=limit) if body else None
    attributes: dict[str, Any] = {}
    for name, value in encoded.items():
        try:
            # Strictly: were bad bytes replaced, two ids could become one.
            attributes[name] = unquote(value.encode("ascii").decode("ascii"), errors="strict")
        except UnicodeError:
            return _bad_event([_fault(name, "must be ASCII, other characters percent-encoded as UTF-8")])
    return _event(attributes, data)


def _event(attributes: Mapping[str, Any], data: Any) -> Event | Problem:
    faults = _faults(attributes)
    if faults:
        return _bad_event(faults)
    return Event(
        id=attributes["id"],
        source=attributes["source"],
        type=attributes["type"],
        subject=attributes.get("subject"),
        time=read_time(attributes["time"]) if "time" in attributes else None,
        version=_as_text(attributes.get("payloadversion", "1")),
        extensions={name: _as_text(value) for name, value in attributes.items() if name not in _OWN},
        data=data,
    )


def _faults(attributes: Mapping[str, Any]) -> list[dict[str, str]]:
    """All that is wrong with these attributes, one entry per attribute."""
    faults = {name: "is missing" for name in ("specversion", "id", "source", "type") if name not in attributes}
    for name, value in attributes.items():
        fault = _attribute_fault(name, value)
        if fault is not None:
            faults[name] = fault
    return [_fault(name, fault) for name, fault in faults.items()]


def _attribute_fault(name: str, value: Any) -> str | None:
    match name:
        case "id" | "type" | "subject":
            return text_fault(value)
        case "source":
            return source_fault(value)
        case "specversion":
            return None if value == "1.0" else 'must be "1.0"'
        case "time":
            return text_fault(value) or _time_fault(value)
        case "payloadversion":
            return version_fault(value if isinstance(value, bool) else _as_text(value))
        case "datacontenttype":
            return None
    if name == "data" or not _ATTRIBUTE_NAME.fullmatch(name):
        return "is no name for an attribute; use lower-case letters and digits"
    # Tracing libraries send extensions that are empty.
    return None if value == "" else text_fault(_as_text(value))


def _time_fault(value: str) -> str | None:
    try:
        read_time(value)
    except ValueError as error:
        return str(error)
    return None


def _as_text(value: Any) -> Any:
    """The CloudEvents spelling of a boolean or a whole number; anything else as it is."""
    if isinstance(value, bool):
        return str(value).lower()
    return str(value) if isinstance(value, int) else value


def _fault(name: str, fault: str) -> dict[str, str]:
    return {"attribute": name[:64], "detail": fault}


def _sentence(faults: list[dict[str, str]]) -> str:
    return in_one_line([f"{fault['attribute']} {fault['detail']}" for fault in faults])


def _bad_event(faults: list[dict[str, str]]) -> Problem:
    return Problem(type=ProblemType.BAD_EVENT, detail=_sentence(faults), extensions={"errors": faults[:MOST_FAULTS]})


def _refused(problem_type: ProblemType, detail: str) -> Refused:
    return Refused(Problem(type=problem_type, detail=detail))
