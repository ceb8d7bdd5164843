"""Intake: an event is stored with a run for every workflow it starts, in one transaction; then it is answered."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from eventwright.graphs.workflow import InvalidPayload, On, UnknownPayloadVersion, Workflow, Workflows
from eventwright.runs.errors import DuplicateEvent, EventwrightError
from eventwright.runs.event import Event, canonical, new_id
from eventwright.runs.records import EventState, Run, StoredEvent
from eventwright.runs.states import RunState
from eventwright.runs.store import Store


class EventConflict(EventwrightError, ValueError):
    """The same source sent other content under an id that is taken."""

    def __init__(self, event: Event) -> None:
        self.event = event
        super().__init__(
            f"event {event.id!r} from {event.source!r} is stored with other content; an event never changes, "
            "send the new fact under a new id"
        )


class EventRefused(EventwrightError, ValueError):
    """The event fits no payload model of its trigger. It is kept, and can be replayed."""

    def __init__(self, event: Event, cause: UnknownPayloadVersion | InvalidPayload) -> None:
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
    """

    def __init__(self, store: Store, workflows: Workflows) -> None:
        self._store = store
        self._workflows = workflows

    async def receive(self, event: Event, *, refused: bool = False) -> Receipt:
        """Store the event and its runs; the same event again gets the same runs.

        Args:
            refused: it is stored already, as refused, and comes in once more.

        Raises:
            EventConflict: the id is taken by other content.
            EventRefused: unknown payload version or invalid payload; the event is kept as refused.
            ValueError: the data is no canonical JSON; nothing is stored.
            StoreUnavailable: nothing is stored, send it again.
        """
        canonical(event.data)
        earlier = await self._store.accepted_event(event.source, event.id)
        if earlier is not None:
            return await self._again(event, earlier)
        matching = self._matching(event)
        await self._check_payload(event, matching, keep=not refused)
        now = await self._store.now()
        runs = tuple(_new_run(workflow, event, now) for workflow, _ in matching)
        try:
            async with self._store.write() as tx:
                if refused:
                    tx.accept_event(event)
                else:
                    tx.add_event(event, EventState.ACCEPTED)
                for run in runs:
                    tx.add_run(run)
                    tx.wake(run.id, lane=run.lane)
        except DuplicateEvent:
            winner = await self._store.accepted_event(event.source, event.id)
            if winner is None:
                raise
            return await self._again(event, winner)
        return Receipt(event, False, runs)

    def _matching(self, event: Event) -> list[tuple[Workflow, On]]:
        found = [(workflow, workflow.trigger(event)) for workflow in self._workflows]
        return [(workflow, trigger) for workflow, trigger in found if trigger is not None]

    async def _check_payload(self, event: Event, matching: list[tuple[Workflow, On]], *, keep: bool) -> None:
        for _, trigger in matching:
            try:
                trigger.parse(event)
            except (UnknownPayloadVersion, InvalidPayload) as cause:
                if keep:
                    async with self._store.write() as tx:
                        tx.add_event(event, EventState.REFUSED, problem_of(cause))
                raise EventRefused(event, cause) from cause

    async def _again(self, event: Event, earlier: StoredEvent) -> Receipt:
        if earlier.event.digest != event.digest:
            raise EventConflict(event)
        runs = [await self._store.run(run_id) for run_id in earlier.run_ids]
        return Receipt(earlier.event, True, tuple(runs))


def problem_of(cause: UnknownPayloadVersion | InvalidPayload) -> dict[str, Any]:
    """Why an event was refused, as it is kept."""
    faults = cause.faults if isinstance(cause, InvalidPayload) else []
    return {"title": type(cause).__name__, "detail": str(cause), "errors": faults}


def _new_run(workflow: Workflow, event: Event, now: Any) -> Run:
    return Run(
        id=new_id("run"),
        workflow=workflow.name,
        version=workflow.version,
        state=RunState.RECEIVED,
        lane=workflow.lane,
        event=event,
        created_at=now,
        updated_at=now,
        due_at=now,
    )
