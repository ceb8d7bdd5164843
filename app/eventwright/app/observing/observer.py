"""The observer: fills in what the rooms tell (`runs/telemetry.py`) with logs, metrics and traces.

What is logged and counted about calls, questions and states comes from the journal, once it is committed: a view of it,
redacted as it is. What only the process knows (how long it took, in which trace) comes from the watches.
"""

from __future__ import annotations

import logging
from collections.abc import Collection, Sequence

from eventwright.app.observing.entries import Entries
from eventwright.app.observing.metrics import UNKNOWN, Few, Metrics
from eventwright.app.observing.spans import Spans
from eventwright.app.observing.watches import (
    CallWatch,
    Instruments,
    IntakeWatch,
    ModelNames,
    NodeWatch,
    SegmentWatch,
)
from eventwright.graphs.workflow import Workflows
from eventwright.runs.batch import Redact
from eventwright.runs.event import Event
from eventwright.runs.records import Due, Effect, Run
from eventwright.runs.telemetry import Committed, Telemetry, Watch
from eventwright.tools.contract import MODELS

log = logging.getLogger(__name__)


def tools_of(workflows: Workflows) -> frozenset[str]:
    """The names of all tools that these workflows may call, the models' among them, and those that undo them."""
    tools = {
        tool for workflow in workflows.versions() for policy in workflow.policies.values() for tool in policy.tools
    }
    undoing = {tool.undo.tool for tool in tools if tool.undo is not None}
    return MODELS | {tool.name for tool in tools | undoing}


class Observer(Telemetry):
    """Watches a process.

    Args:
        worker: the name of the process.
        redact: (workflow, version, JSON) → the JSON without what is kept from those who read journals.
        tools: names of the tools that are deployed here.
        spans: how spans are recorded.
    """

    def __init__(self, *, worker: str, redact: Redact, tools: Collection[str] = (), spans: Spans | None = None) -> None:
        self.metrics = Metrics()
        self._instruments = Instruments(worker, redact, spans or Spans(), self.metrics, Few(tools))
        self._entries = Entries(self._instruments)

    def asks(self, models: ModelNames) -> None:
        """These models are asked here."""
        self._instruments.named = models

    def intake(self, event: Event) -> Watch:
        """An event comes in."""
        return IntakeWatch(self._instruments, event)

    def webhook_refused(self, source: str) -> None:
        """A webhook was not signed by its sender."""
        self.metrics.webhooks_refused.labels(source or UNKNOWN).inc()

    def segment(self, run: Run, due: Due | None) -> Watch:
        """A claimed run goes on until it rests."""
        return SegmentWatch(self._instruments, run, due)

    def node(self, run: Run, node: str) -> Watch:
        """A node of the graph runs."""
        return NodeWatch(self._instruments, run, node)

    def call(self, run: Run, effect: Effect, *, economy: bool = False) -> Watch:
        """A tool or a model is called."""
        return CallWatch(self._instruments, run, effect, economy=economy)

    def committed(self, entries: Sequence[Committed]) -> None:
        """Count and log what was committed."""
        try:
            for each in entries:
                self._entries.tell(each)
        except Exception:  # what is committed is committed, whether it can be told or not
            log.exception("what was journalled could not be logged or counted")

    def swept(self, seconds: float) -> None:
        """A round of the sweep was made."""
        self.metrics.sweeps.inc()
        self.metrics.sweep.observe(seconds)
