"""Waiting for the outside: a node lets its run rest until an event comes, or a time.

    event = await wait_for("payment.succeeded", key=state["invoice_id"], within=timedelta(days=3))
    if event is None:
        ...  # nobody paid in three days

The workflow says which events go on with its runs, beside those that start one:

    triggers=[On("invoice.sent"), Continues("payment.succeeded", payload={"1": Paid}, key="invoice_id")]

The node runs again from its top when the run goes on; what it did through tools, and what it waited for before, is
given back to it.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any, TypeAlias

from eventwright.graphs.serial import LONGEST, serial_key, visible
from eventwright.graphs.workflow import BadWorkflow, On, Workflow
from eventwright.guardrails.gate import Gate
from eventwright.guardrails.waiting import BadWait, Wanted, wait
from eventwright.runs.errors import storable
from eventwright.runs.event import Event
from eventwright.runs.records import Run
from eventwright.tools.contract import gate_for

#: (payload, event, the run that had waited for it) → what a new run of the workflow starts with; None starts none.
Late: TypeAlias = Callable[[Any, Event, Run], dict[str, Any] | None]


@dataclass(frozen=True)
class Continues(On):
    """Which events go on with runs of the workflow that wait for them. It starts a run for none, unless `late` says so.

    Args:
        type: the event's type, exactly.
        payload: a pydantic model per payload version; without any, every payload is taken as it is.
        key: what the event is about: a field of the payload, or a function of the event that returns it, None for
            nothing that anybody waits for. It must be the key that the run waits for, compared as text.
        late: what a new run of the workflow starts with, made of the payload, the event and the run that had waited for
            it and has ended since; None starts none. Without it such an event is kept and noted, and starts nothing.
        source: only events of this source.
        only_if: only events of which this is true; see `On`.
        trusted: who sends these events is ourselves; by default what an event carries is untrusted.
    """

    late: Late | None = None

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.key is None:
            raise BadWorkflow(f"Continues({self.type!r}) needs a key=: what the event is about, an invoice say")
        if self.input is not None or self.requester is not None or self.flow is not None:
            raise BadWorkflow(f"Continues({self.type!r}) starts no run and takes no input=, requester= or flow=")
        if not _is_type(self.type) or self.type.startswith("eventwright."):
            raise BadWorkflow(f"Continues({self.type!r}): nobody can send events of this type")

    def matches(self, event: Event) -> bool:
        """It starts nothing."""
        return False

    def continues(self, event: Event) -> bool:
        """Whether this trigger is meant for the event."""
        return super().matches(event)

    def key_of(self, event: Event) -> str | None:
        """What the event is about.

        Raises:
            UnknownPayloadVersion, InvalidPayload, BadKey: the event is refused, and kept.
        """
        payload = self.parse(event)
        return None if self.key is None else serial_key(self.key, event, payload)

    def late_input(self, event: Event, earlier: Run) -> dict[str, Any] | None:
        """What a run starts with for an event that came too late; None if none is started. Raises what `late` does."""
        if self.late is None:
            return None
        return self.late(self.parse(event), visible(event), earlier)


def continuation(workflow: Workflow, event: Event) -> Continues | None:
    """The workflow's trigger that goes on with its runs for this event."""
    declared = (trigger for trigger in workflow.triggers if isinstance(trigger, Continues))
    return next((trigger for trigger in declared if trigger.continues(event)), None)


def declared_events(workflow: Workflow) -> dict[str, bool]:
    """The types of events that go on with runs of the workflow, and whether all of them are our own."""
    found: dict[str, bool] = {}
    for trigger in workflow.triggers:
        if isinstance(trigger, Continues):
            found[trigger.type] = trigger.trusted and found.get(trigger.type, True)
    return found


async def wait_for(
    types: str | Sequence[str], *, key: str | int, within: timedelta | None = None, until: datetime | None = None
) -> Event | None:
    """Let the run rest until an event comes of one of these types and with this key, or the time does.

    An event that came before counts, if the run was there already. Asked again, as when its node runs again, it returns
    the same again.

    Args:
        types: of the events; the workflow's triggers hold a `Continues` for each.
        key: that the event must have.
        within: until when, counted from when the node first waits there.
        until: until when. Without any the run waits for as long as it takes.

    Returns:
        The event, without hidden characters in its data; None if the time came first.

    Raises:
        BadWait: no such event can come, or the key or the time is none.
        OutsideGate: no node of a workflow is running here.
    """
    names = (types,) if isinstance(types, str) else tuple(types)
    if not names or not all(isinstance(name, str) and _is_type(name) for name in names):
        raise BadWait(f"wait_for() takes the type of an event, or several, not {types!r}")
    key = str(key) if type(key) is int else key  # as the keys of events are compared
    if not isinstance(key, str) or not 0 < len(key) <= LONGEST or storable(key) != key:
        raise BadWait(f"a key is a text of 1 to {LONGEST} letters, not {key!r}")
    if within is not None and until is not None:
        raise BadWait("wait_for() takes within= or until=, not both")
    return await _through_the_gate(Wanted(types=tuple(sorted(set(names))), key=key, within=within, until=_aware(until)))


async def sleep(span: timedelta) -> None:
    """Let the run rest for so long, counted from when the node first comes here. Raises OutsideGate."""
    if not isinstance(span, timedelta):
        raise BadWait(f"sleep() takes a timedelta, not {span!r}")
    await _through_the_gate(Wanted(within=span))


async def sleep_until(moment: datetime) -> None:
    """Let the run rest until then. Raises OutsideGate; BadWait: the time has no zone."""
    await _through_the_gate(Wanted(until=_aware(moment)))


async def _through_the_gate(wanted: Wanted) -> Event | None:
    name = "wait_for" if wanted.types else "sleep"
    gate = gate_for(name)
    if not isinstance(gate, Gate):
        raise BadWait(f"{name}() works in a node of a workflow, behind its gate, not behind {gate!r}")
    if asyncio.get_running_loop() is gate.loop:
        return await wait(gate, wanted)
    # A synchronous node that runs a loop of its own: the store belongs to the gate's.
    return await asyncio.wrap_future(asyncio.run_coroutine_threadsafe(wait(gate, wanted), gate.loop))


def _aware(moment: datetime | None) -> datetime | None:
    if moment is not None and (not isinstance(moment, datetime) or moment.tzinfo is None):
        raise BadWait(f"a time needs its zone, {moment!r} has none; use datetime.now(UTC)")
    return moment


def _is_type(name: str) -> bool:
    return bool(name) and "\n" not in name
