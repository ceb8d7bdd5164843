"""Flow control, declared on a trigger: when the runs of its events begin, and which of them make others needless.

On("order.changed", flow=Flow(key="order_id", debounce=timedelta(seconds=30), at_most=timedelta(minutes=5)))
On("contact.added", flow=Flow(throttle=Throttle(10, per=timedelta(minutes=1))))
On("line.scanned", flow=Flow(key="shelf", batch=Batch(size=50, within=timedelta(minutes=5))))
On("draft.wanted", flow=Flow(key="case", supersede=True))
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import timedelta

from eventwright.graphs.serial import SerialKey, key_words
from eventwright.runs.errors import EventwrightError

#: Runs that a throttle lets begin in its span, and events in a batch: what is kept of them stands in one row.
MOST = 1000
#: How long an event may be held back.
LONGEST = timedelta(days=366)


class BadFlow(EventwrightError, ValueError):
    """A flow's declaration contradicts itself."""


@dataclass(frozen=True)
class Throttle:
    """At most `runs` runs become due in any span `per`; the others wait for a place, in the order of their events.

    Raises:
        BadFlow: less than one run, too many, or no span.
    """

    runs: int
    per: timedelta

    def __post_init__(self) -> None:
        if type(self.runs) is not int or not 1 <= self.runs <= MOST:
            raise BadFlow(f"a throttle lets 1 to {MOST} runs begin in its span, not {self.runs!r}")
        _check_span("Throttle(per=...)", self.per)


@dataclass(frozen=True)
class Batch:
    """Events are gathered into one run, until there are `size` of them or the first has waited for `within`.

    Args:
        size: how many at most.
        within: how long the first one waits for others.
        into: the field of the graph's state that gets the list: of each event what the graph would start with alone.

    Raises:
        BadFlow: fewer than two events, too many, or no span.
    """

    size: int
    within: timedelta
    into: str = "events"

    def __post_init__(self) -> None:
        if type(self.size) is not int or not 2 <= self.size <= MOST:
            raise BadFlow(f"a batch has a size of 2 to {MOST} events, not {self.size!r}")
        if not isinstance(self.into, str) or not self.into:
            raise BadFlow(f"Batch(into=...) is the name of a field of the graph's state, not {self.into!r}")
        _check_span("Batch(within=...)", self.within)


@dataclass(frozen=True, kw_only=True)
class Flow:
    """When the runs of a trigger's events begin. One of debounce, throttle and batch; supersede goes with each of them.

    Args:
        key: what the flow is counted by: a field of the payload, or a function of the event; an event for which it
            returns None is not held. By default the trigger's own `key`; without any, all events of the trigger count
            together.
        debounce: an event waits until no other with its key has come for so long; only the last one starts a run.
        at_most: how long events may go on putting each other off, counted from the first.
        throttle: how many runs may begin in a span.
        batch: events with one key are gathered into one run.
        supersede: a new event closes the questions of the run before it with the same key, and that run, unless it has
            written something already.

    Raises:
        BadFlow: the parts do not go together.
    """

    key: SerialKey | None = None
    debounce: timedelta | None = None
    at_most: timedelta | None = None
    throttle: Throttle | None = None
    batch: Batch | None = None
    supersede: bool = False

    def __post_init__(self) -> None:
        holds = [part for part in (self.debounce, self.throttle, self.batch) if part is not None]
        if len(holds) > 1:
            raise BadFlow("a flow has one of debounce=, throttle= and batch=, not several")
        if not holds and not self.supersede:
            raise BadFlow("a flow says debounce=, throttle=, batch= or supersede=True")
        if self.debounce is not None:
            _check_span("debounce=", self.debounce)
        if self.at_most is not None:
            _check_span("at_most=", self.at_most)
            if self.debounce is None or self.at_most < self.debounce:
                raise BadFlow("at_most= bounds a debounce=, and is no shorter than it")

    def key_with(self, own: SerialKey | None) -> SerialKey | None:
        """The key that it goes by on a trigger with this key of its own.

        Raises:
            BadFlow: it needs one.
        """
        key = own if self.key is None else self.key
        if self.supersede and key is None:
            raise BadFlow("supersede=True needs a key=: which runs are about the same, those of one case say")
        return key

    def words(self, own: SerialKey | None) -> str:
        """What it does, in a line for people."""
        said = []
        if self.debounce is not None:
            bound = "" if self.at_most is None else f", at most {self.at_most} long"
            said.append(f"debounced for {self.debounce}{bound}")
        if self.throttle is not None:
            said.append(f"at most {self.throttle.runs} in {self.throttle.per}")
        if self.batch is not None:
            said.append(f"up to {self.batch.size} in one run, within {self.batch.within}")
        if self.supersede:
            said.append("superseding")
        key = self.key_with(own)
        return ", ".join(said) + ("" if key is None else f", by {key_words(key)}")


def _check_span(what: str, span: object) -> None:
    if not isinstance(span, timedelta) or not timedelta() < span <= LONGEST:
        raise BadFlow(f"{what} is a timedelta above zero, of at most {LONGEST.days} days, not {span!r}")
