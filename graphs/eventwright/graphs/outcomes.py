"""How a segment ended: a value of a closed set, and what has to be written with it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import datetime

from eventwright.runs.records import Review, Visit
from eventwright.runs.states import Outcome, Reason
from eventwright.runs.waits import Wait


@dataclass(frozen=True)
class Finished:
    """The graph came to its end, or a person ended it by saying no."""

    outcome: Outcome


@dataclass(frozen=True)
class Asks:
    """One or more people are asked; the run rests until one of them answers.

    Beside them something else may wait for a time, or for a worker of another lane: then the run goes on without an
    answer, as far as it can; at once, in that lane.
    """

    until: datetime | None = None
    lane: str | None = None


@dataclass(frozen=True)
class Waits:
    """The run rests until an outside event or this time comes; the times of its waits are written with them.

    Where it is a provider that it waits for, `why` says so.
    """

    until: datetime | None
    why: str | None = None


@dataclass(frozen=True)
class Yields:
    """The run stopped at a boundary and goes on later in this lane: a hand-over, a shutdown, a cancellation."""

    lane: str


@dataclass(frozen=True)
class Failed:
    """A node failed: for now, with the time of the next attempt, or for good."""

    reason: Reason
    error: str
    retry_at: datetime | None = None
    node: str | None = None


SegmentOutcome = Finished | Asks | Waits | Yields | Failed


@dataclass(frozen=True)
class Waiting:
    """What the run waits for when a segment ends, new waits among it, and open waits that it does not come to any more,
    by id."""

    standing: Sequence[Wait] = ()
    dropped: Sequence[str] = ()


@dataclass(frozen=True, kw_only=True)
class Report:
    """The outcome of a segment and what it leaves to be written in the same transaction."""

    outcome: SegmentOutcome
    #: Questions of the workflow's author that have no review yet.
    opened: Sequence[Review] = ()
    #: Reviews whose answers the graph has taken in.
    applied: Sequence[str] = ()
    #: Open reviews about things that are not going to happen any more.
    superseded: Sequence[str] = ()
    #: (review, interrupt): a question that stands somewhere else after a migration.
    rebound: Sequence[tuple[str, str]] = ()
    #: None if it has never waited, or nothing is known of that.
    waiting: Waiting | None = None
    #: Visits whose count of failures changed, and those in which waits stand.
    visits: Sequence[Visit] = ()
    #: Effects, by key, that nodes have seen fail and that are tried anew.
    forgotten: Sequence[str] = ()
    #: Whether the segment brought the run any further, and how many in a row now did not.
    got_on: bool = True
    idle: int = 0
    #: Reviews whose decisions this segment knew; a newer decision means there is work left.
    seen: frozenset[str] = field(default_factory=frozenset)
