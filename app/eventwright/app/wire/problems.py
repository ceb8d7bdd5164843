"""What went wrong, as the sender is told: RFC 9457 problem documents of a closed set of types."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from http import HTTPStatus
from types import MappingProxyType
from typing import Any

from pydantic_core import to_jsonable_python

from eventwright.app.wire.strict_json import BadJSON, TooLarge
from eventwright.graphs.mapping import BadMapping
from eventwright.graphs.serial import BadKey
from eventwright.graphs.workflow import InvalidPayload, UnknownWorkflow
from eventwright.queue.compensation import NothingToReconcile
from eventwright.queue.desk import AlreadyDecided, ReviewClosed, StaleDecision, UnfitDecision
from eventwright.queue.intake import EventConflict, EventRefused, ReservedEvent
from eventwright.queue.migration import BadMigration
from eventwright.queue.webhooks import BadWebhook, SignatureRefused
from eventwright.runs.deliveries import NothingToReplay, UnknownDelivery
from eventwright.runs.errors import (
    AlreadyUndone,
    DecisionRefused,
    DuplicateEvent,
    EventExpired,
    EventwrightError,
    IllegalMove,
    MayNotDecide,
    Overloaded,
    RunMoved,
    StoreUnavailable,
    UndoRefused,
    UnknownEvent,
    UnknownReview,
    UnknownRun,
)
from eventwright.runs.records import ReviewState

MEDIA_TYPE = "application/problem+json"
#: Seconds after which a database that was away is worth another try.
RETRY_AFTER = 2
_RESERVED = frozenset({"type", "title", "status", "detail", "instance"})


class ProblemType(StrEnum):
    """Every problem there is. The value is the document's `type`, the sentence its `title`."""

    status: HTTPStatus
    meaning: str

    def __new__(cls, name: str, status: HTTPStatus, meaning: str) -> ProblemType:
        value = f"urn:eventwright:problem:{name}"
        member = str.__new__(cls, value)
        member._value_ = value
        member.status = status
        member.meaning = meaning
        return member

    BAD_REQUEST = (
        "bad-request",
        HTTPStatus.BAD_REQUEST,
        "The request does not have the form that this address takes.",
    )
    BAD_JSON = "bad-json", HTTPStatus.BAD_REQUEST, "The body is not JSON that can be stored unchanged."
    BAD_EVENT = "bad-event", HTTPStatus.BAD_REQUEST, "The event's envelope does not say who sent what."
    BAD_SIGNATURE = "bad-signature", HTTPStatus.UNAUTHORIZED, "The signature was not accepted."
    UNAUTHENTICATED = "unauthenticated", HTTPStatus.UNAUTHORIZED, "This address wants to know who is asking."
    FORBIDDEN = "forbidden", HTTPStatus.FORBIDDEN, "The one who asks may not do this."
    NOT_FOUND = "not-found", HTTPStatus.NOT_FOUND, "There is nothing by this name."
    METHOD_NOT_ALLOWED = "method-not-allowed", HTTPStatus.METHOD_NOT_ALLOWED, "This address does not know that method."
    TOO_SLOW = "too-slow", HTTPStatus.REQUEST_TIMEOUT, "The body did not arrive in time."
    EVENT_CONFLICT = (
        "event-conflict",
        HTTPStatus.CONFLICT,
        "An event with this source and id is stored with other content.",
    )
    ILLEGAL_MOVE = "illegal-move", HTTPStatus.CONFLICT, "The run is in a state that does not lead there."
    DECIDED = "decided", HTTPStatus.CONFLICT, "Another decision on this review was first."
    STALE = (
        "stale",
        HTTPStatus.CONFLICT,
        "The review asks for something else than what was shown to the decider.",
    )
    REVIEW_CLOSED = (
        "review-closed",
        HTTPStatus.GONE,
        "The review expired, was cancelled or was superseded, and takes no decision any more.",
    )
    TOO_LARGE = (
        "too-large",
        HTTPStatus.REQUEST_ENTITY_TOO_LARGE,
        "The body is larger than this address takes.",
    )
    UNSUPPORTED_MEDIA_TYPE = (
        "unsupported-media-type",
        HTTPStatus.UNSUPPORTED_MEDIA_TYPE,
        "The content type is none that this address reads.",
    )
    UNKNOWN_VERSION = (
        "unknown-version",
        HTTPStatus.UNPROCESSABLE_ENTITY,
        "No workflow knows this version of the event's payload.",
    )
    INVALID_PAYLOAD = (
        "invalid-payload",
        HTTPStatus.UNPROCESSABLE_ENTITY,
        "The event's data does not fit the schema of its type and version.",
    )
    UNFIT_DECISION = (
        "unfit-decision",
        HTTPStatus.UNPROCESSABLE_ENTITY,
        "The decision is not among the allowed ones, or does not fit the review's schema.",
    )
    NOTHING_TO_REPLAY = (
        "nothing-to-replay",
        HTTPStatus.CONFLICT,
        "Of this delivery nothing is kept that could be taken in again.",
    )
    EXPIRED = "expired", HTTPStatus.GONE, "What this needs was kept long enough, and is deleted."
    TOO_BUSY = (
        "too-busy",
        HTTPStatus.TOO_MANY_REQUESTS,
        "More waits than the service takes on. Nothing was stored; try again later.",
    )
    INTERNAL = "internal", HTTPStatus.INTERNAL_SERVER_ERROR, "A fault of ours; the log has it."
    UNAVAILABLE = "unavailable", HTTPStatus.SERVICE_UNAVAILABLE, "Nothing was stored; try again in a moment."
    CUT_OFF = (
        "cut-off",
        HTTPStatus.SERVICE_UNAVAILABLE,
        "The process ended before it had an answer. Ask again: what was stored is answered as it would have been.",
    )


@dataclass(frozen=True, kw_only=True)
class Problem:
    """One problem document.

    Raises:
        ValueError: an extension member has the name of one of RFC 9457's own.
    """

    type: ProblemType
    #: What happened this time and what to do about it.
    detail: str | None = None
    #: A URI reference of this one occurrence.
    instance: str | None = None
    #: Further members, such as `errors`, or `decision` for the one that won. JSON values.
    extensions: Mapping[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if taken := sorted(_RESERVED & self.extensions.keys()):
            raise ValueError(f"{taken} are members of every problem document; name the extension otherwise")

    @property
    def title(self) -> str:
        """The sentence of the type."""
        return self.type.meaning

    @property
    def status(self) -> int:
        """The HTTP status of the type."""
        return self.type.status.value

    def document(self) -> dict[str, Any]:
        """The members, absent ones left out."""
        own = {
            "type": self.type.value,
            "title": self.title,
            "status": self.status,
            "detail": self.detail,
            "instance": self.instance,
        }
        return {name: value for name, value in own.items() if value is not None} | dict(self.extensions)

    def body(self) -> bytes:
        """The document as `application/problem+json`."""
        return json.dumps(self.document(), allow_nan=False).encode("ascii")


class Refused(EventwrightError, ValueError):
    """A request was refused, and the sender is told why by `problem`."""

    def __init__(self, problem: Problem) -> None:
        self.problem = problem
        super().__init__(problem.detail or problem.title)


#: Errors whose message is meant for the one who asked.
_TOLD: Mapping[type[EventwrightError], ProblemType] = MappingProxyType(
    {
        TooLarge: ProblemType.TOO_LARGE,
        BadJSON: ProblemType.BAD_JSON,
        BadWebhook: ProblemType.BAD_EVENT,
        UnknownRun: ProblemType.NOT_FOUND,
        UnknownReview: ProblemType.NOT_FOUND,
        UnknownEvent: ProblemType.NOT_FOUND,
        UnknownDelivery: ProblemType.NOT_FOUND,
        NothingToReplay: ProblemType.NOTHING_TO_REPLAY,
        EventExpired: ProblemType.EXPIRED,
        UnknownWorkflow: ProblemType.NOT_FOUND,
        DuplicateEvent: ProblemType.EVENT_CONFLICT,
        EventConflict: ProblemType.EVENT_CONFLICT,
        IllegalMove: ProblemType.ILLEGAL_MOVE,
        BadMigration: ProblemType.BAD_REQUEST,
        BadMapping: ProblemType.BAD_REQUEST,
        RunMoved: ProblemType.ILLEGAL_MOVE,
        UnfitDecision: ProblemType.UNFIT_DECISION,
        MayNotDecide: ProblemType.FORBIDDEN,
        ReservedEvent: ProblemType.FORBIDDEN,
        UndoRefused: ProblemType.ILLEGAL_MOVE,
        AlreadyUndone: ProblemType.ILLEGAL_MOVE,
        NothingToReconcile: ProblemType.ILLEGAL_MOVE,
    }
)


def problem_of(error: Exception) -> Problem:
    """The problem that an error is for the one who asked.

    A refused signature is told without a reason. An error that has no place here is a fault of ours, told
    without its text, which may hold what a stranger must not read.
    """
    match error:
        case Refused():
            return error.problem
        case SignatureRefused():
            return Problem(type=ProblemType.BAD_SIGNATURE)
        case StoreUnavailable():
            # What the driver says may name hosts and people; the kind of trouble does not.
            return Problem(type=ProblemType.UNAVAILABLE, detail=error.trouble, extensions={"retry_after": RETRY_AFTER})
        case Overloaded():
            seconds = math.ceil(error.retry_after)
            return Problem(type=ProblemType.TOO_BUSY, detail=str(error), extensions={"retry_after": seconds})
        case DecisionRefused():
            decided = error.state == ReviewState.DECIDED
            return Problem(type=ProblemType.DECIDED if decided else ProblemType.REVIEW_CLOSED, detail=str(error))
        case AlreadyDecided() | StaleDecision() | ReviewClosed():
            return _undecidable(error)
        case EventRefused():
            return _refused_event(error)
        case EventwrightError() if type(error) in _TOLD:
            return Problem(type=_TOLD[type(error)], detail=str(error))
    return Problem(type=ProblemType.INTERNAL)


def _undecidable(error: AlreadyDecided | StaleDecision | ReviewClosed) -> Problem:
    """Why a review takes no decision, with what stands there now: whoever lost learns who won."""
    types = {
        AlreadyDecided: ProblemType.DECIDED,
        StaleDecision: ProblemType.STALE,
        ReviewClosed: ProblemType.REVIEW_CLOSED,
    }
    review = error.review
    stands: dict[str, Any] = {"review": review.id, "state": review.state, "digest": review.digest}
    stands["decision"] = review.decision
    if isinstance(error, ReviewClosed) and error.newer is not None:
        stands |= {"newer_run": error.newer, "newer_reviews": [one.id for one in error.open]}
    return Problem(type=types[type(error)], detail=str(error), extensions=to_jsonable_python(stands))


def _refused_event(error: EventRefused) -> Problem:
    """Why an event was refused, and under which uid it is kept until it can be replayed."""
    cause = error.cause
    if isinstance(cause, InvalidPayload | BadKey):
        extensions = {"uid": error.event.uid, "errors": cause.faults}
        return Problem(type=ProblemType.INVALID_PAYLOAD, detail=str(cause), extensions=extensions)
    return Problem(type=ProblemType.UNKNOWN_VERSION, detail=str(cause), extensions={"uid": error.event.uid})
