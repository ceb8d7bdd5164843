"""Events that came too late: a run has waited for them, and is at its end.

While a run that has waited for an event is under way, it may wait for it again. So a signal that nobody takes keeps the
name of that run, and is late as soon as it has ended.
"""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import sqlalchemy as sa

from eventwright.runs import schema
from eventwright.runs.database import padded
from eventwright.runs.errors import EventwrightError
from eventwright.runs.states import FINAL
from eventwright.runs.waits import awaits, signals, waits

if TYPE_CHECKING:
    from eventwright.runs.batch import Batch, Unit
    from eventwright.runs.store import Store


#: So many waits for a key are looked at, the last ones: whoever makes many runs wait there slows nobody else down.
MOST_WAITED = 200


class NotLate(EventwrightError, LookupError):
    """A wait has taken the event meanwhile, or somebody else has seen to it. Nothing was written."""

    def __init__(self, event_uid: str, workflow: str) -> None:
        self.event_uid, self.workflow = event_uid, workflow
        super().__init__(f"event {event_uid} is not late for a run of {workflow} any more")


@dataclass(frozen=True, kw_only=True)
class Late:
    """An event that is too late for a run of this workflow."""

    event_uid: str
    workflow: str
    type: str
    key: str
    run_id: str


class LateVerbs:
    """The verb about events that came too late, of `Transaction`."""

    unit: Unit

    def leave_late(self, late: Late, *, instead: str | None = None, given: dict[str, Any] | None = None) -> None:
        """It is seen to that the event was late. Ends in NotLate if a wait has taken it, or somebody else was faster.

        Args:
            instead: another run that has waited for it, and may do so again.
            given: what the run starts with that is started for it.
        """
        leave = _LEAVE.where(
            signals.c.event_uid == late.event_uid,
            signals.c.workflow == late.workflow,
            signals.c.late_for == late.run_id,
            signals.c.wait_id.is_(None),
        )

        def step(batch: Batch) -> None:
            if batch.execute(leave.values(late_for=instead, input=given)).rowcount == 0:
                raise NotLate(late.event_uid, late.workflow)

        self.unit.run_ids.add(late.run_id)
        self.unit.steps.append(step)


async def late_events(
    store: Store, workflows: Collection[str], *, event_uid: str | None = None, limit: int
) -> list[Late]:
    """Events that have come too late for a run that is at its end by now, the oldest first.

    Args:
        workflows: whose runs it may be.
        event_uid: only this one.

    Raises:
        StoreUnavailable.
    """
    query = _ENDED.where(signals.c.workflow.in_(padded(workflows))).limit(limit)
    if event_uid is not None:
        query = query.where(signals.c.event_uid == event_uid)
    return [Late(**row) for row in await store.rows_of(query)]


async def next_to_wait(store: Store, late: Late) -> str | None:
    """Another run that has waited for this event and is under way. Raises StoreUnavailable."""
    query = waited(late.workflow, late.key, late.type).where(_runs.state.not_in(_FINAL))
    rows = await store.rows_of(query)
    return rows[0]["run_id"] if rows else None


def waited(workflow: str, key: str, event_type: str) -> sa.Select[Any]:
    """The run that has waited for this last; one that may do so again before those that are at their end. Waits before
    the last `MOST_WAITED` of the key are not looked at."""
    newest_first = (waits.c.opened_at.desc(), waits.c.id.desc())
    last = (
        sa.select(waits.c.run_id, awaits(event_type).label("fits"), waits.c.opened_at, waits.c.id)
        .where(waits.c.workflow == workflow, waits.c.key == key)
        .order_by(*newest_first)
        .limit(MOST_WAITED)
        .subquery()
    )
    return (
        sa.select(last.c.run_id)
        .join(schema.runs, _runs.id == last.c.run_id)
        .where(last.c.fits)
        .order_by(sa.case((_runs.state.in_(_FINAL), 1), else_=0), last.c.opened_at.desc(), last.c.id.desc())
        .limit(1)
    )


_runs = schema.runs.c
_FINAL = [str(state) for state in sorted(FINAL)]
_LEAVE = sa.update(signals)
_ENDED = (
    sa.select(
        signals.c.event_uid, signals.c.workflow, signals.c.type, signals.c.key, signals.c.late_for.label("run_id")
    )
    .join(schema.runs, _runs.id == signals.c.late_for)
    .where(sa.text("late_for IS NOT NULL"), signals.c.wait_id.is_(None), _runs.state.in_(_FINAL))
    .order_by(signals.c.at)
)
