"""How an event goes into a run as its trigger's flow says."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from eventwright.graphs.serial import serial_key
from eventwright.graphs.workflow import On
from eventwright.runs.event import Event
from eventwright.runs.flows import Flowed, Terms
from eventwright.runs.records import Run
from eventwright.runs.transaction import Transaction

#: What a flow without a key counts by: all events of its trigger together.
TOGETHER = ""


def keys_of(trigger: On, event: Event) -> tuple[str | None, Terms | None]:
    """The serial key of the run that the event starts, and what the trigger's flow means for it.

    Raises:
        UnknownPayloadVersion, InvalidPayload, BadKey: the event is refused.
    """
    payload = trigger.parse(event)
    serial = None if trigger.key is None else serial_key(trigger.key, event, payload)
    flow = trigger.flow
    if flow is None:
        return serial, None
    wanted = flow.key_with(trigger.key)
    key = TOGETHER if wanted is None else serial_key(wanted, event, payload)
    if key is None:
        return serial, None
    terms = Terms(
        key=key,
        debounce=flow.debounce,
        at_most=flow.at_most,
        throttle=None if flow.throttle is None else (flow.throttle.runs, flow.throttle.per),
        gather=None if flow.batch is None else (flow.batch.size, flow.batch.within),
        supersede=flow.supersede,
    )
    return serial, terms


def take_in(tx: Transaction, run: Run, terms: Terms | None, note: Mapping[str, Any] | None) -> Flowed:
    """Store the run, as the flow says; the one that its event has gone into.

    Args:
        note: on that run.
    """
    if terms is not None:
        return tx.flow_in(run, terms, note)
    tx.add_run(run)
    if note is not None:
        tx.note(run.id, actor="intake", data=note)
    tx.wake(run.id, lane=run.lane)
    return Flowed(run.id)
