"""Schedules: a trigger by the clock, declared on a workflow beside `On`.

triggers=[Every("0 9 * * MON-FRI", zone="Europe/Berlin", type="report.due", data={"team": "sales"})]

A tick becomes an ordinary event. Its source names the schedule and its id the tick, so that it is stored once, however
many processes see that it is due.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any

from eventwright.graphs.cron import BadCron, Cron
from eventwright.graphs.serial import BadKey, SerialKey, serial_key
from eventwright.graphs.workflow import (
    NAME,
    SCHEDULES,
    BadWorkflow,
    InvalidPayload,
    On,
    PayloadModel,
    UnknownPayloadVersion,
    Workflow,
)
from eventwright.runs.event import Event, canonical
from eventwright.runs.states import Documented

#: What a firing carries beside the schedule's own data: the tick, as ISO text in UTC.
SCHEDULED_FOR = "scheduled_for"
#: A cron line, and a zone's name, as they are stored.
LONGEST = 256


class Missed(Documented):
    """What becomes of ticks that came due while no worker was there."""

    SKIP = "skip", "they are left out; the next one fires"
    ONE = "one", "the newest fires, and stands for all of them"
    ALL = "all", "each fires, the oldest first, the newest thousand at most"


@dataclass(frozen=True, kw_only=True)
class Every(On):
    """Starts the workflow by the clock.

    Args:
        cron: five fields: minute, hour, day of the month, month, day of the week.
        type: the type of the events that it makes.
        zone: the time zone in which the cron line is meant.
        name: of the schedule, unique in its workflow; by default the type, with - for each dot.
        missed: what becomes of ticks that came due while no worker was there: skip, one or all.
        data: the events' payload, to which the tick is added as `scheduled_for`.
        version: of the payload.
        payload, input, key: as of `On`.
        source: given by its workflow: `/schedules/WORKFLOW/NAME`. No door takes an event from such a source.
        trusted: what a schedule carries was written by whoever wrote the workflow.

    Raises:
        BadWorkflow: the line, the zone, the name or the policy is none; the data is no JSON or does not fit the
            payload's model.
    """

    cron: str = field(kw_only=False)
    type: str
    zone: str = "UTC"
    name: str = ""
    missed: Missed | str = Missed.ONE
    data: Mapping[str, Any] = field(default_factory=dict)
    version: str = "1"
    payload: Mapping[str, PayloadModel] = field(default_factory=dict)
    input: Callable[[Any, Event], dict[str, Any]] | None = None
    source: str | None = None
    trusted: bool = True
    requester: Callable[[Event], str | None] | None = None
    key: SerialKey | None = None

    def __post_init__(self) -> None:
        super().__post_init__()
        object.__setattr__(self, "name", self.name or self.type.replace(".", "-").lower())
        if not NAME.fullmatch(self.name):
            raise self._bad(
                f"a schedule's name is lower case letters, digits, - and _: {self.name!r} is not; give name="
            )
        if self.type.startswith("eventwright."):
            raise self._bad("types that begin with 'eventwright.' are Eventwright's own")
        if self.missed not in list(Missed):
            raise self._bad(f"missed={self.missed!r} is none of {', '.join(Missed)}")
        object.__setattr__(self, "missed", Missed(self.missed))
        if max(len(self.cron), len(self.zone)) > LONGEST:
            raise self._bad(f"a cron line has {LONGEST} letters at most")
        try:
            self.when()
        except BadCron as error:
            raise BadWorkflow(f"Every({self.cron!r}, zone={self.zone!r}): {error.problem}") from error
        self._try_out()

    def _try_out(self) -> None:
        event = self._event(datetime(2024, 1, 1, tzinfo=UTC), SCHEDULES)
        try:
            canonical(event.data)
            payload = self.parse(event)
            if isinstance(self.key, str):
                serial_key(self.key, event, payload)
        except (InvalidPayload, UnknownPayloadVersion, BadKey, ValueError) as error:
            raise self._bad(f"its own data would be refused: {error}") from error

    def _bad(self, problem: str) -> BadWorkflow:
        return BadWorkflow(f"Every({self.cron!r}, type={self.type!r}): {problem}")

    def bound(self, workflow: str) -> On:
        """This schedule as one of that workflow."""
        return dataclasses.replace(self, source=f"{SCHEDULES}{workflow}/{self.name}")

    def when(self) -> Cron:
        """When it comes due."""
        return Cron(self.cron, self.zone)

    def firing(self, tick: datetime) -> Event:
        """The event that this tick is.

        Raises:
            ValueError: the schedule is not one of a workflow yet.
        """
        if self.source is None:
            raise ValueError(f"the schedule {self.name!r} belongs to no workflow yet; take it from Workflow.triggers")
        return self._event(tick, self.source)

    def _event(self, tick: datetime, source: str) -> Event:
        at = tick_id(tick)
        data = {**self.data, SCHEDULED_FOR: at}
        return Event(id=at, source=source, type=self.type, data=data, time=tick, version=self.version)


def tick_id(tick: datetime) -> str:
    """The tick as its event's id: ISO text in UTC, which sorts by time."""
    return tick.astimezone(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


def schedules_of(workflow: Workflow) -> list[Every]:
    """The schedules of a workflow."""
    return [trigger for trigger in workflow.triggers if isinstance(trigger, Every)]
