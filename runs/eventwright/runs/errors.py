"""What can go wrong between the engine and its store.

Each error is the builtin it is, carries the wrong value and says what to do.
"""

from __future__ import annotations

from collections.abc import Sequence
from decimal import Decimal
from enum import StrEnum

#: Characters of an error's words that are kept.
LONGEST_WORDS = 10_000
#: Faults of one message that are told one by one.
MOST_FAULTS = 20


def storable(words: str) -> str:
    """An error's words as every database takes them, and no longer than anybody reads."""
    kept = words if len(words) <= LONGEST_WORDS else f"{words[: LONGEST_WORDS - 1]}…"
    return kept.encode("utf-8", "replace").decode().replace("\x00", "\ufffd")


def in_one_line(faults: Sequence[str]) -> str:
    """Faults one after the other; of faults without number the first, and how many more there are."""
    more = [f"and {len(faults) - MOST_FAULTS} more"] if len(faults) > MOST_FAULTS else []
    return "; ".join([*faults[:MOST_FAULTS], *more])


class EventwrightError(Exception):
    """The root of every error that Eventwright raises."""


class UnknownRun(EventwrightError, LookupError):
    """No run has this id."""

    def __init__(self, run_id: str) -> None:
        self.run_id = run_id
        super().__init__(f"no run has the id {run_id!r}; `eventwright runs` lists the ones there are")


class UnknownReview(EventwrightError, LookupError):
    """No review has this id."""

    def __init__(self, review_id: str) -> None:
        self.review_id = review_id
        super().__init__(f"no review has the id {review_id!r}; `eventwright reviews` lists the open ones")


class UnknownEvent(EventwrightError, LookupError):
    """No stored event has this number."""

    def __init__(self, uid: str) -> None:
        self.uid = uid
        super().__init__(f"no stored event has the uid {uid!r}; `GET /v1/events` lists them")


class EventExpired(EventwrightError, LookupError):
    """A stored event cannot be taken in once more: its data was kept long enough, and is deleted."""

    def __init__(self, uid: str) -> None:
        self.uid = uid
        super().__init__(
            f"the data of event {uid} was kept as long as EVENTWRIGHT_KEEP_PAYLOADS says, and is deleted; "
            "let its source send the fact again, under a new id if this one was accepted"
        )


class Overloaded(EventwrightError, RuntimeError):
    """More waits than is taken on. The event was not stored; send it again after `retry_after` seconds."""

    def __init__(self, why: str, *, retry_after: float = 5.0) -> None:
        self.why, self.retry_after = why, retry_after
        super().__init__(f"{why}; nothing was stored, send it again in {retry_after:g} s")


class IllegalMove(EventwrightError, ValueError):
    """A run was asked to move where its present state does not lead."""

    def __init__(self, run_id: str, state: str, wanted: str) -> None:
        self.run_id, self.state, self.wanted = run_id, state, wanted
        super().__init__(f"run {run_id} is {state} and cannot become {wanted}")


class LeaseLost(EventwrightError, RuntimeError):
    """A worker wrote for a run that another worker has taken over since; the write was refused."""

    def __init__(self, run_id: str, fence: int, current: int | None) -> None:
        self.run_id, self.fence, self.current = run_id, fence, current
        super().__init__(
            f"run {run_id} was taken over: this worker holds fence {fence}, the run is at {current}; "
            "nothing was written"
        )


class DuplicateEvent(EventwrightError, ValueError):
    """An event with this source and id is stored already (found by the unique index, in the insert itself)."""

    def __init__(self, source: str, event_id: str) -> None:
        self.source, self.event_id = source, event_id
        super().__init__(f"event {event_id!r} from {source!r} is stored already")


class DecisionRefused(EventwrightError, ValueError):
    """A review took no decision from this caller: it was not open any more when the decision came to be written."""

    def __init__(self, review_id: str, state: str) -> None:
        self.review_id, self.state = review_id, state
        super().__init__(f"review {review_id} is {state}, not open")


class MayNotDecide(EventwrightError, PermissionError):
    """Somebody else must decide this review. It stays open."""

    def __init__(self, review_id: str, by: str, why: str) -> None:
        self.review_id, self.by, self.why = review_id, by, why
        super().__init__(f"{by} may not decide review {review_id}: {why}; ask somebody else to decide it")


class DecisionUsedUp(EventwrightError, ValueError):
    """A decision serves one call alone, and this one has served another. Nothing was written."""

    def __init__(self, review_id: str, by: str) -> None:
        self.review_id, self.by = review_id, by
        super().__init__(f"the decision of review {review_id} has served another call than {by}; ask for one more")


class UndoRefused(EventwrightError, ValueError):
    """What a run did is not taken back. Nothing was written."""

    def __init__(self, run_id: str, why: str) -> None:
        self.run_id, self.why = run_id, why
        super().__init__(f"nothing of run {run_id} is undone: {why}")


class AlreadyUndone(EventwrightError, ValueError):
    """A run cannot go on: what it did was taken back, or is being."""

    def __init__(self, run_id: str, by_run: str) -> None:
        self.run_id, self.by_run = run_id, by_run
        super().__init__(
            f"run {run_id} cannot go on as if what it did had lasted: run {by_run} takes it back, or has done so; "
            "send its event again under a new id, or cancel that run if it has done nothing yet"
        )


class RunMoved(EventwrightError, ValueError):
    """What was to be written about a run was worked out from how it stood before. Nothing was written."""

    def __init__(self, run_id: str) -> None:
        self.run_id = run_id
        super().__init__(f"run {run_id} has gone on meanwhile; look at it again")


class BudgetExceeded(EventwrightError, ArithmeticError):
    """A call would use more than a budget has left. Nothing was reserved, nothing else of the transaction written."""

    def __init__(self, scope: str, label: str, *, most: Decimal, used: Decimal, wanted: Decimal) -> None:
        self.scope, self.label, self.most, self.used, self.wanted = scope, label, most, used, wanted
        super().__init__(
            f"{wanted:f} more is above the budget {label!r}, of which {used:f} of {most:f} are used; "
            "give the budget a higher most=, or another end with then="
        )


class Trouble(StrEnum):
    """What keeps a database from serving, in words that hold nothing of ours and may be told to anybody."""

    AWAY = "the database does not answer"
    FULL = "there is no room left where the database is"
    UNWRITABLE = "the database cannot be written"
    LOCKED = "another process keeps the database locked"
    CROWDED = "more waits to be written than the database takes"


class StoreUnavailable(EventwrightError, ConnectionError):
    """The database did not answer. A write was not stored, unless only its confirmation got lost. Try again."""

    def __init__(self, words: str, *, trouble: Trouble = Trouble.AWAY) -> None:
        self.trouble = trouble
        super().__init__(words)


class NoDatabase(EventwrightError, ValueError):
    """The address of the database is none, or what is there is no database. The address is not repeated: it may hold
    a password."""

    def __init__(self, problem: str) -> None:
        self.problem = problem
        super().__init__(
            f"{problem}; EVENTWRIGHT_DATABASE_URL is sqlite:///file or postgresql://user:password@host/database"
        )


class SchemaOutdated(EventwrightError, RuntimeError):
    """The database is at another schema revision than this code."""

    def __init__(self, found: str | None, wanted: str) -> None:
        self.found, self.wanted = found, wanted
        super().__init__(
            f"the database is at revision {found!r}, this code wants {wanted!r}; run `eventwright db upgrade`"
        )


class SchemaNewer(EventwrightError, RuntimeError):
    """A newer release has upgraded the database; this code does not know what it finds there."""

    def __init__(self, found: str, newest: str) -> None:
        self.found, self.newest = found, newest
        super().__init__(
            f"the database is at revision {found!r}, which this code does not know: its newest is {newest!r}. A newer "
            "release has upgraded it; start that one here too. Processes that run already may go on"
        )
