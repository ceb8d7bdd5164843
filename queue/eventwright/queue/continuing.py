"""Events that go on with runs: each is told to the runs that wait for it; one that comes too late starts its own path.

An event is too late for a run that has waited for it and is at its end. While that run is under way it may wait for it
again, so the event is kept until then; whoever ticks next sees to it.
"""

from __future__ import annotations

import logging
from collections.abc import Iterable, Sequence
from dataclasses import replace
from typing import Any

from eventwright.graphs.waiting import continuation
from eventwright.graphs.workflow import Workflow, Workflows
from eventwright.queue.pressure import Pressure
from eventwright.queue.starting import new_run
from eventwright.runs.correlating import Told
from eventwright.runs.errors import Overloaded, StoreUnavailable, storable
from eventwright.runs.event import Event, canonical
from eventwright.runs.late import Late, NotLate, late_events, next_to_wait
from eventwright.runs.records import Run
from eventwright.runs.store import Store
from eventwright.runs.transaction import Transaction

log = logging.getLogger(__name__)

#: Events that come too late and are seen to in one round.
MOST = 100
#: Who sees to them, in the journal.
LATE = "late"


class Continuing:
    """Tells events to runs.

    Args:
        store: where both are kept.
        workflows: whose triggers say which events go on with what.
        pressure: how many runs may wait to be begun.
    """

    def __init__(self, store: Store, workflows: Workflows, pressure: Pressure) -> None:
        self._store, self._workflows, self._pressure = store, workflows, pressure

    # -- at intake ---------------------------------------------------------------------------------------------------

    def listening(self, event: Event) -> dict[str, str]:
        """The workflows whose runs may wait for this event, each with the key that it has for them.

        Raises:
            UnknownPayloadVersion, InvalidPayload, BadKey: the event is refused.
        """
        found: dict[str, str | None] = {}
        # Runs of an earlier version go on with theirs; where both know the event, the newer trigger reads it.
        for workflow in reversed(list(self._workflows.versions())):
            trigger = continuation(workflow, event)
            if trigger is not None and workflow.name not in found:
                found[workflow.name] = trigger.key_of(event)
        return {name: key for name, key in found.items() if key is not None}

    def tell(self, tx: Transaction, event: Event, listening: dict[str, str], starts: Iterable[Run]) -> list[Told]:
        """Tell the event to these workflows in the transaction that stores it, with the runs that it starts."""
        started = {run.workflow for run in starts}
        return [
            tx.tell(event, workflow=name, key=key, starts=name in started) for name, key in sorted(listening.items())
        ]

    async def gone_on(self, event: Event, told: Sequence[Told], *, trace: str | None) -> list[Run]:
        """The runs that the event went on with; and those that it starts because it came too late."""
        runs = [await self._store.run(one.run_id) for one in told if one.run_id is not None]
        if any(one.late_for is not None for one in told):
            try:
                runs += await self.see_to_late(event.uid, trace=trace)
            except StoreUnavailable as obstacle:
                # The event is accepted: whoever ticks next sees to it.
                log.warning("event %s came too late, which is seen to later: %s", event.uid, obstacle)
        return runs

    # -- what comes too late -----------------------------------------------------------------------------------------

    async def see_to_late(self, event_uid: str | None = None, *, trace: str | None = None) -> list[Run]:
        """See to events (by default to all) that have come too late for a run that is at its end by now; the runs that
        are started for them. One for which there is no room, or that cannot be seen to, is left for the next time.

        Raises:
            StoreUnavailable: the rest is left for the next time.
        """
        loaded = {workflow.name for workflow in self._workflows}
        found = await late_events(self._store, loaded, event_uid=event_uid, limit=MOST) if loaded else []
        runs: list[Run] = []
        for late in found:
            try:
                run = await self._see_to(late, trace)
            except StoreUnavailable:
                raise
            except Overloaded as obstacle:
                log.warning("event %s came too late, which is seen to later: %s", late.event_uid, obstacle)
            except Exception:
                # It stands in the way of no other, nor of whoever ticks or has sent it: it is accepted.
                log.exception("event %s came too late for %s, and that cannot be seen to", late.event_uid, late.run_id)
            else:
                runs += [] if run is None else [run]
        return runs

    async def _see_to(self, late: Late, trace: str | None) -> Run | None:
        other = await next_to_wait(self._store, late)
        if other is not None:
            await self._leave(late, instead=other)
            return None
        event = (await self._store.event(late.event_uid)).event
        earlier = await self._store.run(late.run_id)
        workflow = self._workflows.get(late.workflow)
        note: dict[str, Any] = {"text": "came too late", "event": event.id, "source": event.source, "type": event.type}
        try:
            given = _input(workflow, event, earlier)
        except Exception as wrong:
            log.exception("what starts for the late event %s of %s failed", event.uid, workflow)
            problem = storable(f"late= of its trigger failed: {type(wrong).__name__}: {wrong}")
            given, note = None, note | {"problem": problem}
        run = None
        if given is not None:
            run = replace(new_run(workflow, event, await self._store.recent_now()), trace=trace)
            note |= {"run": run.id}
        return await self._leave(late, note=note, run=run, workflow=workflow, given=given)

    async def _leave(
        self,
        late: Late,
        *,
        instead: str | None = None,
        note: dict[str, Any] | None = None,
        run: Run | None = None,
        workflow: Workflow | None = None,
        given: dict[str, Any] | None = None,
    ) -> Run | None:
        """Write what becomes of it, unless somebody else did, or a run has taken the event; the run that is started."""
        try:
            async with self._pressure.room(0 if run is None else 1), self._store.write() as tx:
                tx.leave_late(late, instead=instead, given=given)
                if note is not None:
                    tx.note(late.run_id, actor=LATE, data=note)
                if run is not None and workflow is not None:
                    tx.keep_graph(workflow.fingerprint, workflow.name, workflow.version, workflow.structure)
                    tx.add_run(run)
                    tx.wake(run.id, lane=run.lane)
        except NotLate:
            return None
        return run


def _input(workflow: Workflow, event: Event, earlier: Run) -> dict[str, Any] | None:
    """What a run starts with for this event; None if none is started. Raises what the author's function does."""
    trigger = continuation(workflow, event)
    if trigger is None or event.expired_at is not None:
        return None
    given = trigger.late_input(event, earlier)
    if given is not None and not isinstance(given, dict):
        raise TypeError(f"it returns what the graph starts with, a dict, or None, not {type(given).__name__}")
    canonical(given)
    return given
