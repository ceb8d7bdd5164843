"""The metrics of this process, for Prometheus. Each is declared here, with its labels; each label has few values.

What a stranger may choose (a tool that a model made up, the name that a provider gives its model) is a label only while
there are few of it: see `Few`.
"""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass
from importlib.metadata import version

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, disable_created_metrics
from prometheus_client.process_collector import ProcessCollector

#: Seconds, from what is quick to what a model takes.
QUICK = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0)
SLOW = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0, 300.0)
#: The value of a label that stands for all that are one too many.
OTHER = "other"
#: The value of a label for what the settings do not know.
UNKNOWN = "unknown"
#: Different values that a label gets at most from outside, and letters that each may have.
MOST_VALUES, LONGEST_VALUE = 50, 80


@dataclass(frozen=True)
class Family:
    """A metric as it is declared.

    Attributes:
        name: as it is printed, with the `_total` of a counter.
        kind: counter, gauge or histogram.
        words: what it says.
        labels: what it is counted by.
    """

    name: str
    kind: str
    words: str
    labels: tuple[str, ...] = ()


class Few:
    """The values of a label that come from outside: the first few, and `other`.

    Args:
        known: values that always count.
        most: how many others do.
    """

    def __init__(self, known: Collection[str] = (), *, most: int = MOST_VALUES) -> None:
        self._known = set(known)
        self._room = most

    def __call__(self, value: str) -> str:
        """The value, or `other`."""
        value = value or OTHER
        if value in self._known:
            return value
        if self._room <= 0 or len(value) > LONGEST_VALUE or not value.isprintable():
            return OTHER
        self._room -= 1
        self._known.add(value)
        return value


class Metrics:
    """All metrics that this process counts itself. What the database knows is added when somebody looks."""

    def __init__(self) -> None:
        registry = self.registry = CollectorRegistry()
        #: Those that are declared here.
        self.families: list[Family] = []
        disable_created_metrics()  # type: ignore[no-untyped-call]  # a series more for each, which nobody asks for

        def declared(name: str, kind: str, words: str, labels: tuple[str, ...]) -> str:
            full = f"eventwright_{name}"
            self.families.append(Family(f"{full}_total" if kind == "counter" else full, kind, words, labels))
            return full

        def counter(name: str, words: str, *labels: str) -> Counter:
            return Counter(declared(name, "counter", words, labels), words, labels, registry=registry)

        def histogram(name: str, words: str, *labels: str, buckets: tuple[float, ...] = QUICK) -> Histogram:
            full = declared(name, "histogram", words, labels)
            return Histogram(full, words, labels, buckets=buckets, registry=registry)

        def gauge(name: str, words: str, *labels: str) -> Gauge:
            return Gauge(declared(name, "gauge", words, labels), words, labels, registry=registry)

        self.events = counter(
            "events", "Events that came in: accepted, duplicate, unmatched (no workflow) or refused.", "outcome"
        )
        self.webhooks_refused = counter("webhooks_refused", "Webhooks whose signature was not accepted.", "source")
        self.intake = histogram("intake_seconds", "From an event's arrival in the engine to its commit.")
        self.transitions = counter("transitions", "Runs that came into a state.", "workflow", "state")
        self.outcomes = counter("outcomes", "Runs that completed, by how.", "workflow", "outcome")
        self.failures = counter("failures", "Runs that failed for good, by why.", "workflow", "reason")
        self.retries = counter("retries", "Attempts that failed and are made again.", "workflow")
        self.takeovers = counter("takeovers", "Runs taken over from a worker that had died.", "workflow")
        self.waited = histogram(
            "claim_wait_seconds", "From a run's being due to its claim by a worker, by where it rested.", "rested"
        )
        self.first_node = histogram(
            "first_node_seconds",
            "From a run's being due to its first running node: of received, from the accepted event; "
            "of pending_approval, from the decision.",
            "rested",
        )
        self.segment = histogram(
            "segment_seconds", "One segment of a run, by the state it ended in.", "workflow", "state", buckets=SLOW
        )
        self.node = histogram("node_seconds", "One run of a node.", "workflow", "node", buckets=SLOW)
        self.effects = counter(
            "effects", "Calls of tools and models: done, failed, in_doubt, denied or asked.", "tool", "outcome"
        )
        self.call = histogram("call_seconds", "One call of a tool or a model.", "tool", buckets=SLOW)
        self.reviews = counter("reviews_opened", "Questions put to people.", "workflow", "kind")
        self.decisions = counter("decisions", "Questions answered, by people or by their deadline.", "workflow", "type")
        self.tokens = counter(
            "model_tokens", "Tokens as providers count them, read (input) or written (output).", "model", "direction"
        )
        self.cost = counter("model_cost", "What models cost, by the price table.", "model", "currency")
        self.sweeps = counter("sweeps", "Rounds of the sweep.")
        self.sweep = histogram("sweep_seconds", "One round of the sweep.")
        self.active = gauge("active_segments", "Segments that run in this process.")
        gauge("info", "The version of this process.", "version").labels(version("eventwright")).set(1)
        ProcessCollector(registry=registry)
