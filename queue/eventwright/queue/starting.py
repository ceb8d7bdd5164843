"""How a run begins: as a value, before it is stored."""

from __future__ import annotations

from datetime import datetime

from eventwright.graphs.workflow import Workflow
from eventwright.runs.event import Event, new_id
from eventwright.runs.records import WAITS, Run
from eventwright.runs.states import RunState


def new_run(workflow: Workflow, event: Event, now: datetime, *, serial_key: str | None = None) -> Run:
    """The run that this event starts."""
    return Run(
        id=new_id("run"),
        workflow=workflow.name,
        version=workflow.version,
        state=RunState.RECEIVED,
        lane=workflow.lane,
        event=event,
        fingerprint=workflow.fingerprint,
        serial_key=serial_key,
        turn=None if serial_key is None else WAITS,
        created_at=now,
        updated_at=now,
        due_at=now,
    )
