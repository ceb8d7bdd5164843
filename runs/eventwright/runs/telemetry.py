"""Telemetry: what the rooms tell about their work while it goes on, to whoever watches. Here nobody does.

The store carries it, since every room has the store. `app` fills it in (logs, metrics, traces); a room calls

    with store.telemetry.node(run, "classify") as watch:
        ...
        watch.failed(error)

and knows nothing of who listens. A watcher never raises and never waits: nothing in a run depends on it.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from types import TracebackType
from typing import Any, NamedTuple, Self

from eventwright.runs.event import Event
from eventwright.runs.records import Due, Effect, JournalEntry, Run


class Committed(NamedTuple):
    """An entry that stands in the journal by now, and its run as it was stored with it (a row of the table)."""

    entry: JournalEntry
    run: Mapping[str, Any]


class Watch:
    """Something that goes on while the block is open."""

    #: The W3C trace parent for what comes of it; None when nobody traces.
    trace: str | None = None

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        return None

    def tell(self, **facts: Any) -> None:
        """What is known of it by now; which facts, each method of `Telemetry` says."""

    def failed(self, error: BaseException) -> None:
        """It failed. What merely passes through, as a pause does, is not told."""


_NOBODY = Watch()


class Telemetry:
    """Nobody watches."""

    def intake(self, event: Event) -> Watch:
        """An event comes in. Its runs take over `trace`. Told: runs (a sequence of Run), duplicate (bool)."""
        return _NOBODY

    def webhook_refused(self, source: str) -> None:
        """A webhook was not signed by its sender. `source` is a name that the settings know, or empty."""

    def segment(self, run: Run, due: Due | None) -> Watch:
        """A claimed run goes on until it rests. Told: state (RunState), and what `settle.told` says of the outcome."""
        return _NOBODY

    def node(self, run: Run, node: str) -> Watch:
        """A node of the graph runs."""
        return _NOBODY

    def call(self, run: Run, effect: Effect, *, economy: bool = False) -> Watch:
        """A tool or a model is called, a cheaper one with `economy`. Told: result, as the tool returns it."""
        return _NOBODY

    def committed(self, entries: Sequence[Committed]) -> None:
        """These entries were committed, redacted as they are."""

    def swept(self, seconds: float) -> None:
        """A round of the sweep was made in so many seconds."""
