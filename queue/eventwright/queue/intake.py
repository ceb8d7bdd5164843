"""Intake: an event is stored with a run for every workflow it starts, in one transaction; then it is answered."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import Any

from eventwright.graphs.serial import BadKey
from eventwright.graphs.workflow import SCHEDULES, InvalidPayload, On, UnknownPayloadVersion, Workflow, Workflows
from eventwright.guardrails.text import hidden_in
from eventwright.queue.continuing import Continuing
from eventwright.queue.flow import keys_of, take_in
from eventwright.queue.pressure import Pressure
from eventwright.queue.starting import new_run
from eventwright.runs.errors import DuplicateEvent, EventExpired, EventwrightError, Overloaded
from eventwright.runs.event import Event, canonical
from eventwright.runs.failpoints import Failpoint, failpoint
from eventwright.runs.records import EventState, Run, StoredEvent, person
from eventwright.runs.store import Store
from eventwright.runs.transaction import Transaction

#: Writes something of a door's own in the transaction that stores an event in this state.
Beside = Callable[[Transaction, Event, EventState], None]
#: The name under which a policy that says so takes back what a failed run did.
DEAD_LETTER = "dead-letter"
#: What Eventwright sends to itself: types that begin so, from this source. No door takes such an event, nor one that
#: comes from a schedule, by its source.
OWN_TYPES, OWN_SOURCE = "eventwright.", "/eventwright"
#: How the sources of database changes begin, which no door takes either.
CHANGES = "/databases/"


class ReservedEvent(EventwrightError, PermissionError):
    """An event from outside bears a type, or a source, that is for Eventwright's own events."""

    def __init__(self, event: Event) -> None:
        self.event = event
        super().__init__(
            f"event {event.id!r} has the type {event.type!r} and the source {event.source!r}: types that begin with "
            f"{OWN_TYPES!r}, the source {OWN_SOURCE!r}, and those that begin with {SCHEDULES!r} or {CHANGES!r} are "
            "Eventwright's own; choose others "
            "(to take back what a run did, use `eventwright undo RUN` or POST /v1/runs/{id}/undo)"
        )


class EventConflict(EventwrightError, ValueError):
    """The same source sent other content under an id that is taken."""

    def __init__(self, event: Event) -> None:
        self.event = event
        super().__init__(
            f"event {event.id!r} from {event.source!r} is stored with other content; an event never changes, "
            "send the new fact under a new id"
        )


class EventRefused(EventwrightError, ValueError):
    """The event fits no payload model of its trigger, or gives no key. It is kept, and can be replayed."""

    def __init__(self, event: Event, cause: UnknownPayloadVersion | InvalidPayload | BadKey) -> None:
        self.event, self.cause = event, cause
        super().__init__(str(cause))


@dataclass(frozen=True)
class Receipt:
    """What became of an accepted event."""

    event: Event
    duplicate: bool
    runs: tuple[Run, ...]


class Intake:
    """Turns events into runs.

    Args:
        store: where they are kept.
        workflows: what they may start.
        pressure: how much may wait; by default as much as the settings' defaults say.
    """

    def __init__(self, store: Store, workflows: Workflows, pressure: Pressure | None = None) -> None:
        self._store = store
        self._workflows = workflows
        self._pressure = pressure or Pressure(store)
        self._continuing = Continuing(store, workflows, self._pressure)
        #: Fingerprints of graphs that this process has seen to be kept.
        self._kept: set[str] = set()

    async def receive(
        self,
        event: Event,
        *,
        refused: bool = False,
        scheduled: bool = False,
        trace: str | None = None,
        beside: Beside | None = None,
    ) -> Receipt:
        """Store the event and its runs; the same event again gets the same runs.

        Args:
            refused: it is stored already, as refused, and comes in once more.
            scheduled: it may come from a schedule or from a database: our own doing, or one that is stored.
            trace: the W3C trace parent of its runs.
            beside: what else is written with it, when it is stored; a duplicate is not, nor is a conflict.

        Raises:
            ReservedEvent: only Eventwright itself sends such events; nothing is stored.
            EventConflict: the id is taken by other content.
            EventRefused: unknown payload version, invalid payload, or no usable key; the event is kept as refused.
            EventExpired: it came in long ago, and its data is not here any more.
            ValueError: the data is no canonical JSON; nothing is stored.
            Overloaded: more waits than is taken on; nothing is stored, send it again later. A duplicate is always
                answered.
            StoreUnavailable: nothing is stored, send it again.
        """
        if event.expired_at is not None:
            raise EventExpired(event.uid)
        canonical(event.data)
        if person(event.type).startswith(OWN_TYPES) or event.source == OWN_SOURCE:
            raise ReservedEvent(event)
        if person(event.source).startswith((SCHEDULES, CHANGES)) and not scheduled:
            raise ReservedEvent(event)
        with self._pressure.under_way():
            return await self._receive(event, refused=refused, trace=trace, beside=beside)

    async def _receive(self, event: Event, *, refused: bool, trace: str | None, beside: Beside | None) -> Receipt:
        try:
            return Receipt(event, False, await self._store_new(event, refused=refused, trace=trace, beside=beside))
        except (DuplicateEvent, EventRefused, Overloaded) as obstacle:
            # Most events are new. Only one that is not taken is looked up: a duplicate is answered, whatever stands
            # against an event of its kind by now.
            earlier = await self._store.accepted_event(event.source, event.id)
            if earlier is not None:
                return await self._again(event, earlier)
            if isinstance(obstacle, EventRefused) and not refused:
                async with self._store.write() as tx:
                    tx.add_event(event, EventState.REFUSED, problem_of(obstacle.cause))
                    if beside is not None:
                        beside(tx, event, EventState.REFUSED)
            raise

    async def _store_new(
        self, event: Event, *, refused: bool, trace: str | None, beside: Beside | None
    ) -> tuple[Run, ...]:
        """Store the event, if it is new, with the runs that it starts; those, and the ones that it went on."""
        with _refusing(event):
            matching = self._matching(event)
            keys = [keys_of(trigger, event) for _, trigger in matching]
            listening = self._continuing.listening(event)
        now = await self._store.recent_now()
        runs = tuple(
            replace(new_run(workflow, event, now, serial_key=key), trace=trace, lane=trigger.lane or workflow.lane)
            for (workflow, trigger), (key, _) in zip(matching, keys, strict=True)
        )
        removed = hidden_in({"data": event.data, "subject": event.subject})
        note = {"text": "hidden characters are left out of what the graph reads", "removed": removed}
        fresh = [workflow for workflow, _ in matching if workflow.fingerprint not in self._kept]
        failpoint(Failpoint.INTAKE_STORING)
        async with self._pressure.room(len(runs)), self._store.write() as tx:
            if refused:
                tx.accept_event(event)
            else:
                tx.add_event(event, EventState.ACCEPTED)
            for workflow in fresh:
                tx.keep_graph(workflow.fingerprint, workflow.name, workflow.version, workflow.structure)
            flowed = [
                take_in(tx, run, terms, note if removed else None) for run, (_, terms) in zip(runs, keys, strict=True)
            ]
            told = self._continuing.tell(tx, event, listening, runs)
            if beside is not None:
                beside(tx, event, EventState.ACCEPTED)
        failpoint(Failpoint.INTAKE_STORED)
        self._kept.update(workflow.fingerprint for workflow in fresh)
        if any(terms for _, terms in keys):
            runs = tuple([await self._store.run(one.run_id) for one in flowed])
        return (*runs, *await self._continuing.gone_on(event, told, trace=trace))

    def _matching(self, event: Event) -> list[tuple[Workflow, On]]:
        found = [(workflow, workflow.trigger(event)) for workflow in self._workflows]
        return [(workflow, trigger) for workflow, trigger in found if trigger is not None]

    async def _again(self, event: Event, earlier: StoredEvent) -> Receipt:
        if earlier.digest != event.digest:
            raise EventConflict(event)
        runs = [await self._store.run(run_id) for run_id in earlier.run_ids]
        return Receipt(earlier.event, True, tuple(runs))


@contextmanager
def _refusing(event: Event) -> Iterator[None]:
    """What its triggers have against the event, inside, refuses it."""
    try:
        yield
    except (UnknownPayloadVersion, InvalidPayload, BadKey) as cause:
        raise EventRefused(event, cause) from cause


def problem_of(cause: UnknownPayloadVersion | InvalidPayload | BadKey) -> dict[str, Any]:
    """Why an event was refused, as it is kept."""
    faults = [] if isinstance(cause, UnknownPayloadVersion) else cause.faults
    return {"title": type(cause).__name__, "detail": str(cause), "errors": faults}
