"""What goes over the wire: the answers of the API, and the bodies that it takes, as strict models.

The names of the fields are a contract: they may grow in number, none changes.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from datetime import datetime
from typing import Annotated, Any, Self

from pydantic import BaseModel, ConfigDict, Field, model_validator

from eventwright.app.web import examples
from eventwright.guardrails.concerns import ConcernKind, concerns
from eventwright.queue.intake import Receipt
from eventwright.runs import event as events
from eventwright.runs import records
from eventwright.runs.records import DecisionType, EventState, JournalKind, ReviewKind, ReviewState
from eventwright.runs.states import Outcome, Reason, RunState
from eventwright.runs.waits import WaitingFor


def example(*values: Any) -> dict[str, Any]:
    """The part of a JSON schema that shows these examples."""
    return {"examples": list(values)}


class Answer(BaseModel):
    """What the API answers; read from the attributes of a record of the same shape."""

    model_config = ConfigDict(from_attributes=True, frozen=True)


class Body(BaseModel):
    """What the API takes: no other members than these, and no value turned into another type."""

    model_config = ConfigDict(extra="forbid", strict=True, frozen=True)


# -- events ------------------------------------------------------------------------------------------------------------


class Event(Answer):
    """An event as it came in; `uid` is ours, the rest is the sender's."""

    uid: str
    id: str
    source: str
    type: str
    subject: str | None
    time: datetime | None
    version: str = Field(description="the version of the payload in `data`")
    data: Any
    extensions: dict[str, str]
    received_at: datetime
    principal: str | None = Field(None, description="in whose name it was sent, where that is known")
    expired_at: datetime | None = Field(None, description="when `data` was deleted, kept long enough; then it is null")


class StoredEvent(Event):
    """An event with what became of it."""

    model_config = ConfigDict(json_schema_extra=example(examples.REFUSED_EVENT))

    state: EventState
    problem: dict[str, Any] | None = Field(description="why it was refused")
    runs: list[str] = Field(description="the ids of the runs that it started")

    @classmethod
    def of(cls, stored: records.StoredEvent) -> Self:
        return cls(**vars(stored.event), state=stored.state, problem=stored.problem, runs=list(stored.run_ids))


class EventPage(Answer):
    """Events, newest first; `next` is the cursor of the next page."""

    model_config = ConfigDict(json_schema_extra=example(examples.EVENTS))

    items: list[StoredEvent]
    next: str | None


class StartedRun(Answer):
    """A run that an event started, now or when it first came."""

    id: str
    workflow: str
    state: RunState


class AcceptedEvent(Answer):
    """An event that is stored, with its runs; a duplicate has the runs of the first time."""

    id: str
    source: str
    duplicate: bool
    runs: list[StartedRun]

    @classmethod
    def of(cls, receipt: Receipt) -> Self:
        runs = [StartedRun.model_validate(run) for run in receipt.runs]
        return cls(id=receipt.event.id, source=receipt.event.source, duplicate=receipt.duplicate, runs=runs)


class RefusedItem(Answer):
    """An item of a batch that was not accepted, and why."""

    id: str | None = None
    source: str | None = None
    error: dict[str, Any] = Field(description="a problem document")


class Accepted(Answer):
    """What became of each event of a request, in the order of the request."""

    model_config = ConfigDict(json_schema_extra=example(examples.ACCEPTED))

    events: list[AcceptedEvent | RefusedItem]


# -- runs --------------------------------------------------------------------------------------------------------------


class Run(Answer):
    """One execution of a workflow for one event."""

    model_config = ConfigDict(json_schema_extra=example(examples.RUN))

    id: str
    workflow: str
    version: str
    state: RunState
    outcome: Outcome | None = Field(description="how a completed run came to its end")
    reason: Reason | None = Field(description="why a failed run is a dead letter")
    error: str | None = Field(description="what went wrong last, in words")
    attempts: int
    lane: str
    event: Event
    created_at: datetime
    updated_at: datetime
    reviews: list[str] = Field(description="the ids of its reviews, oldest first")
    serial_key: str | None = Field(None, description="runs of its workflow with the same key go one after the other")
    waits_for: str | None = Field(None, description="the run that goes before it, while it waits for its turn")
    waiting_for: list[WaitingFor] = Field([], description="the events from outside, and the times, that it waits for")
    gathered: list[Event] = Field([], description="events that were gathered into it, after `event`; told of one run")

    @classmethod
    def of(
        cls,
        run: records.Run,
        reviews: list[str],
        waits_for: str | None = None,
        waiting: Sequence[WaitingFor] = (),
        gathered: Sequence[events.Event] = (),
    ) -> Self:
        more = {"reviews": reviews, "waits_for": waits_for, "waiting_for": waiting, "gathered": gathered}
        return cls.model_validate(vars(run) | more)


class RunPage(Answer):
    """Runs, newest first; `next` is the cursor of the next page."""

    model_config = ConfigDict(json_schema_extra=example(examples.RUNS))

    items: list[Run]
    next: str | None


class JournalEntry(Answer):
    """One line of a run's append-only record; `hash` covers the line and `prev`, the hash of the line before."""

    seq: int
    at: datetime
    kind: JournalKind
    actor: str
    node: str | None
    data: dict[str, Any]
    version: int
    prev: str
    hash: str


class Journal(Answer):
    """Everything that happened to a run, oldest first."""

    model_config = ConfigDict(json_schema_extra=example(examples.JOURNAL))

    items: list[JournalEntry]

    @classmethod
    def of(cls, entries: Iterable[records.JournalEntry]) -> Self:
        return cls(items=[JournalEntry.model_validate(entry) for entry in entries])


# -- reviews -----------------------------------------------------------------------------------------------------------


class Decision(Answer):
    """The answer to a review; final. `verified` says whether `by` was proved or only claimed."""

    type: DecisionType
    by: str
    at: datetime
    verified: bool
    arguments: dict[str, Any] | None
    response: Any
    comment: str | None


class Warned(Answer):
    """Something that a person should look at twice; `arguments` themselves stay exact, what hides in them too."""

    path: str = Field(description="where: `arguments.body`")
    kind: ConcernKind
    text: str = Field(description="what, safe to show")


class Review(Answer):
    """A question to a person, with everything that was known when it was asked."""

    model_config = ConfigDict(json_schema_extra=example(examples.REVIEW, examples.DECIDED))

    id: str
    run_id: str
    workflow: str
    node: str
    kind: ReviewKind
    question: str
    arguments: Any = Field(description="what would be done, exactly")
    evidence: dict[str, Any]
    response_schema: dict[str, Any] | None = Field(description="what edited arguments or a response must fit")
    allowed: list[DecisionType]
    digest: str = Field(description="what is decided about; send it along, and a stale page cannot decide")
    deadline: datetime | None
    default: dict[str, Any] | None = Field(description="what the deadline decides")
    rule: dict[str, Any] | None = Field(description="the rule that asked, frozen with its version and inputs")
    state: ReviewState
    created_at: datetime | None
    decision: Decision | None
    people: int = Field(1, description="how many different people must agree; so many reviews have this digest")
    approvers: list[str] = Field([], description="who may decide; everybody if empty")
    roles: list[str] = Field([], description="the roles that whoever decides must have, every one")
    barred: list[str] = Field([], description="who may not: who asked for the call, who edited it")
    agreed: list[str] = Field([], description="who has agreed so far, where several people must")
    expired_at: datetime | None = Field(None, description="when `arguments` and `evidence` were deleted")
    warnings: list[Warned] = Field([], description="what to look at twice: hidden characters, look-alikes, links")

    @classmethod
    def of(cls, review: records.Review, agreed: Sequence[str] = ()) -> Self:
        warnings = concerns(review.arguments, question=review.question, evidence=review.evidence)
        told = {"agreed": list(agreed), "roles": list(review.roles), "warnings": warnings}
        return cls.model_validate(vars(review) | told)


class ReviewPage(Answer):
    """Reviews, oldest first; `next` is the cursor of the next page."""

    model_config = ConfigDict(json_schema_extra=example(examples.REVIEWS))

    items: list[Review]
    next: str | None


class DecisionBody(Body):
    """A person's answer. `edit` brings all arguments as they shall be, `respond` brings a response."""

    model_config = ConfigDict(
        json_schema_extra=example(examples.APPROVE, examples.EDIT, examples.REJECT, examples.RESPOND)
    )

    type: Annotated[DecisionType, Field(strict=False)]
    arguments: dict[str, Any] | None = None
    response: Any = None
    comment: Annotated[str, Field(max_length=10_000)] | None = None
    digest: str | None = Field(
        None, max_length=64, description="the digest of what was shown; another one now is a 409"
    )

    @model_validator(mode="after")
    def _says_one_thing(self) -> Self:
        """An approval beside other arguments could be read as either; it is refused."""
        if self.arguments is not None and self.type is not DecisionType.EDIT:
            raise ValueError(f"{self.type} takes no `arguments`; to change them, send `edit`")
        if self.response is not None and self.type is not DecisionType.RESPOND:
            raise ValueError(f"{self.type} takes no `response`; to answer, send `respond`")
        if self.type is DecisionType.RESPOND and "response" not in self.model_fields_set:
            raise ValueError("respond needs a `response`")
        return self

    def decision(self, by: str, *, verified: bool) -> records.Decision:
        """What this says, in the name of whoever says it."""
        return records.Decision(
            type=self.type,
            by=by,
            verified=verified,
            arguments=self.arguments,
            response=self.response,
            comment=self.comment,
        )


# -- the service -------------------------------------------------------------------------------------------------------


class Health(Answer):
    """The process lives, or is ready."""

    model_config = ConfigDict(json_schema_extra=example({"status": "ok"}))

    status: str = "ok"


class Index(Answer):
    """Where everything is."""

    model_config = ConfigDict(
        json_schema_extra=example({"name": "Eventwright", "version": "0.1.0", "links": {"runs": "/v1/runs"}})
    )

    name: str
    version: str
    links: dict[str, str]
