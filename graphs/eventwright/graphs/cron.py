"""Cron lines in a time zone: when they come due. The only module that knows the library behind them."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from itertools import islice, takewhile
from zoneinfo import ZoneInfo

from cronsim import CronSim, CronSimError

from eventwright.runs.errors import EventwrightError

#: Any time: it is only asked whether there is a tick after it.
_SOME_TIME = datetime(2024, 1, 1, tzinfo=UTC)
_SECOND = timedelta(seconds=1)


class BadCron(EventwrightError, ValueError):
    """A cron line, or its time zone, says nothing that could come due."""

    def __init__(self, text: str, zone: str, problem: str) -> None:
        self.text, self.zone, self.problem = text, zone, problem
        super().__init__(f"cron {text!r} in zone {zone!r}: {problem}")


@dataclass(frozen=True)
class Cron:
    """A cron line of five fields: minute, hour, day of the month, month, day of the week.

    A tick is a time at which it comes due, in UTC. Where a change to or from daylight saving time skips the time it
    names, it comes due when the clocks have been changed; where it repeats that time, the first time alone. A line
    whose minute or hour begins with `*` goes by the time that passes instead.

    Raises:
        BadCron: a field is not understood, there is no such zone, or no day fits in fifty years.
    """

    text: str
    zone: str = "UTC"

    def __post_init__(self) -> None:
        try:
            ZoneInfo(self.zone)
        except (LookupError, ValueError, OSError) as error:
            raise self._bad("there is no such time zone; one is named like 'Europe/Berlin' or 'UTC'") from error
        if len(self.text.split()) != 5:
            raise self._bad(
                "a line has five fields: minute, hour, day of the month, month, day of the week. "
                "'0 9 * * MON-FRI' is nine o'clock on working days"
            )
        try:
            found = next(self._walk(_SOME_TIME), None)
        except CronSimError as error:
            raise self._bad(f"{str(error)[:1].lower()}{str(error)[1:]}") from error
        if found is None:
            raise self._bad("no day fits it in the next fifty years")

    def _bad(self, problem: str) -> BadCron:
        return BadCron(self.text, self.zone, problem)

    def next_after(self, time: datetime) -> datetime | None:
        """The first tick after that time; None if there is none in fifty years."""
        return next(self._after(time), None)

    def ticks(self, *, after: datetime, until: datetime, most: int) -> list[datetime]:
        """The newest ticks in (after, until], oldest first, `most` of them at most."""
        if until <= after:
            return []
        # Backwards, the walk may miss a tick where clocks are changed, and never invents one: it finds where to begin.
        back = islice(self._walk(until + _SECOND, back=True), most)
        earliest = deque(takewhile(lambda tick: tick > after, back), maxlen=1)
        begin = max(after, earliest[0] - _SECOND) if earliest else after
        return list(deque(takewhile(lambda tick: tick <= until, self._after(begin)), maxlen=most))

    def words(self) -> str:
        """What it means, in English, without its zone."""
        return CronSim(self.text, _SOME_TIME).explain()

    def _after(self, time: datetime) -> Iterator[datetime]:
        """The ticks after that time, each once."""
        last = time
        for tick in self._walk(time):
            # Times that are skipped are moved to one and the same; of an hour that comes twice, the walk knows one.
            if tick > last:
                last = tick
                yield tick

    def _walk(self, time: datetime, *, back: bool = False) -> Iterator[datetime]:
        local = time.astimezone(ZoneInfo(self.zone))
        return (tick.astimezone(UTC) for tick in CronSim(self.text, local, reverse=back))
