"""What a run waits for, as its gates see it: asked again at the same place, a wait says again how it ended.

A wait that is still open ends the segment, as a question to a person does. It is written with the state in which the
run rests; nothing is lost if the process dies before that, for then the node asks again.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from typing import TYPE_CHECKING

from eventwright.guardrails.text import clean_value
from eventwright.guardrails.verdicts import Postponed
from eventwright.runs.errors import EventwrightError
from eventwright.runs.event import Event, digest_of
from eventwright.runs.waits import PREFIX, Wait, WaitState

if TYPE_CHECKING:
    from eventwright.guardrails.gate import Gate


class BadWait(EventwrightError, ValueError):
    """A node waits for something that cannot come, or in a way that cannot be meant."""


class Awaiting(Postponed):
    """The run waits for an event, or for a time that is written with it. No node may swallow this; the node's wrapper
    turns it into LangGraph's own pause."""

    def __init__(self, wait: Wait) -> None:
        self.wait = wait
        BaseException.__init__(self, f"waits for {' or '.join(wait.types) or 'a time'}")


@dataclass(frozen=True, kw_only=True)
class Wanted:
    """What a node waits for.

    Attributes:
        types: of the events, sorted; none for a time alone.
        key: that the event must have.
        within: until when, counted from when it first waits there.
        until: until when.
    """

    types: tuple[str, ...] = ()
    key: str | None = None
    within: timedelta | None = None
    until: datetime | None = None

    @property
    def asked(self) -> str:
        """The deadline as it was put."""
        if self.within is not None:
            return f"within {self.within.total_seconds():g} s"
        return "" if self.until is None else f"until {self.until.isoformat()}"


class Waits:
    """The waits of a run, in one segment of it.

    Args:
        waits: as they are stored.
        declared: the types of events that go on with runs of the workflow, and whether they are our own.
    """

    def __init__(self, waits: Iterable[Wait], declared: Mapping[str, bool] | None = None) -> None:
        self._known = {wait.id: wait for wait in waits}
        self._stored = dict(self._known)
        self._declared = declared or {}
        #: Asked for in this segment, and not over.
        self._reached: set[str] = set()
        #: Asked for since the node was last begun, by place.
        self._taken: dict[tuple[int, tuple[str, ...], str | None], set[str]] = {}

    def learn(self, waits: Iterable[Wait]) -> None:
        """These are stored otherwise by now."""
        self._stored = {wait.id: wait for wait in waits}
        self._known = dict(self._stored)

    def at(self, run_id: str, workflow: str, node: str, visit: int, number: int, wanted: Wanted) -> Wait:
        """The wait at this place, new or known. Of waits for the same thing the one that was put alike goes first, and
        so it does not matter in which order the node came to them.

        Args:
            number: how many waits for the same the node has come to before, since it was begun.
        """
        place = (visit, wanted.types, wanted.key)
        if number == 0:
            self._taken[place] = set()
        taken = self._taken.setdefault(place, set())
        alike = [wait for wait in self._known.values() if (wait.visit, wait.types, wait.key) == place]
        free = [wait for wait in alike if wait.id not in taken]
        free.sort(key=lambda wait: (wait.asked != wanted.asked, wait.number))
        found = free[0] if free else None
        if found is None:
            found = Wait(
                id=PREFIX + digest_of([run_id, visit, list(wanted.types), wanted.key, len(alike)])[:40],
                run_id=run_id,
                workflow=workflow,
                node=node,
                visit=visit,
                number=len(alike),
                types=wanted.types,
                key=wanted.key,
                asked=wanted.asked,
                deadline=wanted.until,
            )
            self._known[found.id] = found
        taken.add(found.id)
        return found

    def reach(self, wait: Wait) -> Awaiting:
        """The wait is, or is again, open."""
        wait = self._known[wait.id] = replace(wait, state=WaitState.OPEN)
        self._reached.add(wait.id)
        return Awaiting(wait)

    def check(self, wanted: Wanted) -> None:
        """Raises BadWait if no trigger of the workflow lets such events through."""
        strange = [name for name in wanted.types if name not in self._declared]
        if strange:
            known = ", ".join(sorted(self._declared)) or "none"
            raise BadWait(
                f"no event {strange[0]!r} can come: the workflow's triggers have no "
                f"Continues({strange[0]!r}, key=...); declared are: {known}"
            )

    def source_of(self, event: Event) -> str | None:
        """What an event is called among sources of untrusted data; None for one of our own."""
        return None if self._declared.get(event.type) else f"the event {event.type}"

    def heard(self, visits: Collection[int] | None = None) -> set[str]:
        """The events, of others, that the run or some of its visits have been told of."""
        told = (wait for wait in self._known.values() if visits is None or wait.visit in visits)
        return set(filter(None, (self.source_of(wait.event) for wait in told if wait.event is not None)))

    # -- how a segment leaves them -----------------------------------------------------------------------------------

    def is_open(self, wait_id: str) -> bool:
        """Whether nothing has come for it yet, as far as is known here."""
        wait = self._known.get(wait_id)
        return wait is not None and wait.state is WaitState.OPEN

    def at_visit(self, visit: int) -> list[Wait]:
        """Open waits that the code of this visit has come to."""
        return [wait for wait_id in self._reached if (wait := self._known[wait_id]).visit == visit]

    def dropped(self, entered: Collection[str]) -> list[str]:
        """Ids of open waits whose node was begun again in this segment and did not come to them."""
        return [
            wait.id
            for wait in self._stored.values()
            if wait.state is WaitState.OPEN and wait.node in entered and wait.id not in self._reached
        ]

    def standing(self, entered: Collection[str]) -> list[Wait]:
        """Waits that are open when the segment ends."""
        left = {wait_id for wait_id in self._stored if self.is_open(wait_id)} - set(self.dropped(entered))
        return [wait for wait in self._known.values() if wait.id in left | self._reached]

    @property
    def deadline(self) -> datetime | None:
        """When the time of the first open wait comes."""
        times = (wait.deadline for wait in self._known.values() if self.is_open(wait.id))
        return min(filter(None, times), default=None)

    @property
    def changed(self) -> bool:
        """Whether the segment has come to a wait that was not open before."""
        return any(self._stored.get(wait_id) != self._known[wait_id] for wait_id in self._reached)

    def __bool__(self) -> bool:
        return bool(self._known)


async def wait(gate: Gate, wanted: Wanted) -> Event | None:
    """The event that came first, without hidden characters; None if the time did.

    Raises:
        Awaiting: neither has; the segment ends here (no `except Exception` catches it).
        BadWait: no such event can come.
        OutsideGate: the node is over.
    """
    segment, waits = gate.segment, gate.segment.waits
    waits.check(wanted)
    with gate.counted():
        name = f"wait for {wanted.types} {wanted.key!r}"
        visit, ordinal = gate.enter(name)
        found = waits.at(segment.run.id, segment.run.workflow, gate.node, visit.visit, int(ordinal), wanted)
        if found.state is WaitState.TIMED_OUT:
            return None
        if found.event is not None:
            return _heard(gate, found.event)
        if wanted.within is not None and found.deadline is None:
            found = replace(found, deadline=await segment.store.now() + wanted.within)
        raise waits.reach(found)


def _heard(gate: Gate, event: Event) -> Event:
    source = gate.segment.waits.source_of(event)
    if source is not None:
        gate.tainted_by = list(dict.fromkeys((*gate.tainted_by, source)))
    return replace(event, data=clean_value(event.data), subject=clean_value(event.subject))


def told(standing: Sequence[Wait]) -> dict[str, list[dict[str, object]]]:
    """For the journal."""
    return {"waiting_for": [wait.as_json() for wait in standing]} if standing else {}
