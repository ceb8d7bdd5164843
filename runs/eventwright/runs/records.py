"""What the store keeps, as values: runs, reviews and decisions, effects, journal entries.

Nothing here knows a database.
"""

from __future__ import annotations

import unicodedata
from dataclasses import dataclass, field
from datetime import datetime
from decimal import Decimal
from typing import Any, NamedTuple

from eventwright.runs.event import Event
from eventwright.runs.states import Documented, Outcome, Reason, RunState


class EventState(Documented):
    ACCEPTED = "accepted", "answered with a 2xx; its (source, id) is taken"
    REFUSED = "refused", "kept for an operator; its (source, id) is still free, corrected it may come again"


class DeliveryOutcome(Documented):
    """What became of a delivery, or of one event of it."""

    RECEIVED = "received", "one of its events is being taken in; its sender has no answer yet"
    ACCEPTED = "accepted", "stored, with the runs that it started"
    DUPLICATE = "duplicate", "stored before; answered with the same runs"
    ANSWERED = "answered", "it holds no event: a challenge or a ping, answered as its sender wants it"
    REFUSED = "refused", "its data fits no payload model, or gives no key; the event is kept, and can be replayed"
    CONFLICT = "conflict", "its id is taken by other content"
    INVALID = "invalid", "rightly signed, but no event can be made of it"
    UNAUTHORISED = "unauthorised", "nobody we know has signed it; gathered"
    UNREAD = "unread", "its body was too long, or did not come in time; gathered"
    OVERLOADED = "overloaded", "more waited than is taken on; its sender is to come again; gathered"
    FAILED = "failed", "the trouble was ours; its sender is to come again; gathered"


class ReviewState(Documented):
    OPEN = "open", "waits for a person"
    DECIDED = "decided", "one decision won; it is final"
    EXPIRED = "expired", "the deadline passed and its default action was taken"
    SUPERSEDED = "superseded", "what it asked about is not going to happen any more"
    CANCELLED = "cancelled", "its run was ended by an operator"


class ReviewKind(Documented):
    APPROVAL = "approval", "a rule wants a person to approve this exact call"
    QUESTION = "question", "the workflow's author asks something"
    IN_DOUBT = "in_doubt", "nobody knows whether a call happened; a person must look"
    LOW_CONFIDENCE = "low_confidence", "the model is not sure enough"
    MISSING_DATA = "missing_data", "the event does not hold what the workflow needs"


class DecisionType(Documented):
    APPROVE = "approve", "yes, exactly as shown"
    EDIT = "edit", "yes, with these arguments instead"
    REJECT = "reject", "no"
    RESPOND = "respond", "here is the answer"


class JournalKind(Documented):
    TRANSITION = "transition", "the run moved from one state to another"
    VERDICT = "verdict", "a stage of the gate allowed, denied or asked"
    EFFECT_INTENDED = "effect_intended", "a write is about to be made"
    EFFECT_DONE = "effect_done", "a tool or model answered"
    EFFECT_FAILED = "effect_failed", "a tool or model call failed, certainly without effect or repeatable"
    EFFECT_IN_DOUBT = "effect_in_doubt", "a plain write was begun and nobody knows whether it happened"
    REVIEW_OPENED = "review_opened", "a person is asked"
    DECISION = "decision", "a person, or a deadline, decided"
    BUDGET = "budget", "something was reserved, spent or refused"
    NOTE = "note", "something worth knowing"


class EffectState(Documented):
    INTENDED = "intended", "about to happen, or interrupted while it happened"
    DONE = "done", "happened; the result is recorded"
    FAILED = "failed", "did not happen, or may be repeated without harm"
    IN_DOUBT = "in_doubt", "nobody knows; a person is asked"


def person(name: str) -> str:
    """A name as names are compared: neither letter case, spaces around it nor another spelling make another person."""
    return unicodedata.normalize("NFKC", unicodedata.normalize("NFKC", name).casefold()).strip()


class Due(NamedTuple):
    """Why a run was taken up: the state in which it rested, and for how many seconds it had been due in it."""

    rested: RunState
    seconds: float


@dataclass(frozen=True)
class Lease:
    """A worker's right to write for one run. Every write of a segment carries it; an older fence is refused."""

    run_id: str
    fence: int
    worker: str
    #: What it was taken for; None in a lease that no claim made.
    due: Due | None = field(default=None, compare=False)


class Claim:
    """The answer of `Transaction.claim`, filled in by the commit: the lease and the run under it, or None if the bell
    rang in vain."""

    lease: Lease | None = None
    run: Run | None = None


#: `Run.turn` of the run that goes and of those that wait for their turn, in the order of the index.
GOES, WAITS = 0, 1


@dataclass(frozen=True, kw_only=True)
class Run:
    """One execution of a workflow for one event."""

    id: str
    workflow: str
    version: str
    state: RunState
    lane: str
    event: Event
    created_at: datetime
    updated_at: datetime
    outcome: Outcome | None = None
    reason: Reason | None = None
    #: What went wrong last, in words.
    error: str | None = None
    #: How many attempts were made so far, the running one included: 1 + the durable retries.
    attempts: int = 1
    #: Which LangGraph thread it runs on; a replay from the start begins a new one.
    generation: int = 0
    fence: int = 0
    worker: str | None = None
    #: How many workers in a row died holding it at the same place, since its last good segment.
    crashes: int = 0
    #: That place: what it had done by then.
    stood_at: str | None = None
    #: Who asked for it to be cancelled while it was processing.
    cancel_requested_by: str | None = None
    #: When it may next be taken up: the end of the lease, the next attempt, a new day; None while a person is asked.
    due_at: datetime | None = None
    #: Runs of one workflow with the same key go one after the other.
    serial_key: str | None = None
    #: Whether it goes (0) or waits for its turn (1) among those; None if it stands in no line.
    turn: int | None = None
    #: Of the graph that it began with.
    fingerprint: str | None = None
    #: The W3C trace parent of all its spans, across pauses and workers.
    trace: str | None = None
    #: How many segments in a row brought it nowhere.
    idle: int = 0
    #: When its checkpoints were deleted, and when what it read and wrote was: its calls, its questions.
    pruned_at: datetime | None = None
    expired_at: datetime | None = None

    @property
    def thread_id(self) -> str:
        """LangGraph's thread: the run id, and the generation once it was replayed from the start."""
        return self.id if self.generation == 0 else f"{self.id}:{self.generation}"

    @property
    def in_line(self) -> bool:
        """Whether it waits for another run of the same key to end."""
        return self.turn == WAITS and self.due_at is None

    @property
    def asks(self) -> bool:
        """Whether it rests until a person decides, or until a later time. A run that got its answer asks no more, it is
        due since."""
        is_due = self.due_at is not None and self.due_at <= self.updated_at
        return self.state is RunState.PENDING_APPROVAL and not is_due


@dataclass(frozen=True, kw_only=True)
class Decision:
    """The answer to a review, by a principal; final."""

    type: DecisionType
    by: str
    at: datetime | None = None
    #: Whether the principal proved who they are; False for a name that was only claimed.
    verified: bool = False
    arguments: dict[str, Any] | None = None
    response: Any = None
    comment: str | None = None

    def same_answer(self, other: Decision) -> bool:
        """Whether the same principal said the same: a repeated request, not a second decision."""
        mine = (self.type, self.by, self.arguments, self.response)
        return mine == (other.type, other.by, other.arguments, other.response)


@dataclass(frozen=True, kw_only=True)
class Review:
    """A question to a person, with everything that was known when it was asked."""

    id: str
    run_id: str
    workflow: str
    node: str
    kind: ReviewKind
    question: str
    allowed: tuple[DecisionType, ...]
    digest: str
    state: ReviewState = ReviewState.OPEN
    arguments: dict[str, Any] | None = None
    evidence: dict[str, Any] = field(default_factory=dict)
    response_schema: dict[str, Any] | None = None
    deadline: datetime | None = None
    #: What the deadline decides, in the shape of a decision without `by`; None fails the run.
    default: dict[str, Any] | None = None
    #: The rule that asked, its version and its inputs, frozen: never evaluated again.
    rule: dict[str, Any] | None = None
    #: LangGraph's id of an author's interrupt; None when the gate asks.
    interrupt_id: str | None = None
    #: How many different people must approve this digest; so many reviews of it are opened together.
    people: int = 1
    #: Who may decide; everybody if empty.
    approvers: tuple[str, ...] = ()
    #: Who may not: who asked for the call, who edited it.
    barred: tuple[str, ...] = ()
    #: The effect that used the decision up; a second equal call needs a second decision.
    consumed_by: str | None = None
    created_at: datetime | None = None
    #: When its arguments and its evidence were deleted, because its run had ended long ago.
    expired_at: datetime | None = None
    decision: Decision | None = None

    @property
    def roles(self) -> tuple[str, ...]:
        """The roles that whoever decides must have, every one; they are frozen with the rule."""
        return tuple((self.rule or {}).get("roles", ()))


@dataclass(frozen=True, kw_only=True)
class Effect:
    """One tool or model call of one run, in the ledger."""

    key: str
    run_id: str
    node: str
    visit: int
    tool: str
    ordinal: str
    tool_class: str
    state: EffectState
    requested_digest: str
    executed_digest: str
    arguments: Any
    result: Any = None
    error: str | None = None
    attempt: int = 1
    updated_at: datetime | None = None
    #: The run that takes it back, or has done so.
    undone_by: str | None = None
    #: How it failed, time after time, in the node's present attempt: what the node sees again when it runs again.
    failures: tuple[dict[str, Any], ...] = ()


@dataclass(frozen=True, kw_only=True)
class Visit:
    """One coming of a run to a node, under a number of ours that counts over the whole run.

    `place` is where LangGraph put the task: JSON of its namespace without ids, its superstep and its path.
    """

    run_id: str
    node: str
    visit: int
    place: str
    failures: int = 0


@dataclass(frozen=True, kw_only=True)
class Reservation:
    """What one call takes of one budget before it is made.

    Raises:
        ValueError: the amount or the limit is no exact number that a budget can hold (see `countable`).
    """

    #: What is counted, for whom, and on which day, as a digest: the key of what is used of it.
    scope: str
    #: The same whatever the day. A call takes of it once, on the day on which it was first begun.
    budget: str
    #: The scope for people.
    label: str
    amount: Decimal
    #: What the budget may come to; None where a person allowed this call whatever it comes to.
    most: Decimal | None
    #: Spent as soon as it is reserved: nothing gives it back.
    spent: bool = False

    def __post_init__(self) -> None:
        countable(self.amount)
        if self.most is not None:
            countable(self.most)


@dataclass(frozen=True, kw_only=True)
class BudgetUse:
    """How much of a budget is used: reserved by calls that are under way, or spent."""

    scope: str
    label: str
    used: Decimal
    #: The limit that was last kept to.
    most: Decimal | None
    opened_at: datetime


#: Budgets count below this, in steps of `SMALLEST`: more digits than that would not be kept alike by every database.
LARGEST, SMALLEST = Decimal(10) ** 15, Decimal(10) ** -10


def countable(number: Decimal) -> Decimal:
    """The number, if budgets can add it up exactly.

    Raises:
        ValueError: it is negative (it would make room for others), too large, too fine, or no finite Decimal.
    """
    if not isinstance(number, Decimal) or not number.is_finite() or not 0 <= number < LARGEST:
        raise ValueError(f"a budget counts Decimals from 0 to below {LARGEST:,f}, not {number!r}")
    if number % SMALLEST:
        raise ValueError(f"a budget counts in steps of {SMALLEST:f}; {number} is finer")
    return number


@dataclass(frozen=True, kw_only=True)
class JournalEntry:
    """One line of a run's append-only record."""

    run_id: str
    kind: JournalKind
    actor: str
    data: dict[str, Any]
    node: str | None = None
    seq: int = 0
    at: datetime | None = None
    #: The version of `data`'s shape for this kind.
    version: int = 1
    prev: str = ""
    hash: str = ""


@dataclass(frozen=True, kw_only=True)
class WakeUp:
    """A bell to ring: run `run_id` may go on. The RQ job's id is `id`."""

    id: str
    run_id: str
    lane: str
    created_at: datetime | None = None
    sent_at: datetime | None = None


@dataclass(frozen=True, kw_only=True)
class Timer:
    """A time at which something happens by itself: a review's deadline."""

    id: str
    run_id: str
    review_id: str
    due_at: datetime


@dataclass(frozen=True, kw_only=True)
class StoredEvent:
    """An event as the store keeps it, with what became of it."""

    event: Event
    state: EventState
    #: Of the event as it came in; one whose payload expired has no other.
    digest: str
    problem: dict[str, Any] | None = None
    run_ids: tuple[str, ...] = ()
