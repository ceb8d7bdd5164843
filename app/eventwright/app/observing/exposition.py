"""/metrics: what this process counted, and what the database holds, in Prometheus' text format."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Iterable

from prometheus_client import CollectorRegistry, generate_latest
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

from eventwright.app.observing.metrics import Family, Metrics
from eventwright.runs.census import Census, Group, take_census
from eventwright.runs.errors import StoreUnavailable
from eventwright.runs.store import Store

#: Seconds for which a census is good; and the share of the time that may go into taking one, where that is longer.
FRESH, SHARE = 5.0, 0.02
#: Seconds that the database has to answer; then the metrics come without it.
PATIENCE = 3.0

COMMITS = Family("eventwright_commits_total", "counter", "Batches that this process committed.")
WRITES = Family("eventwright_writes_total", "counter", "Transactions in those batches.")
UP = Family("eventwright_database_up", "gauge", "Whether the database answered.")
RUNS = Family("eventwright_runs", "gauge", "Runs by workflow and state.", ("workflow", "state"))
RUNS_OLDEST = Family(
    "eventwright_runs_oldest_seconds", "gauge", "For how long the oldest is in its state.", ("workflow", "state")
)
REVIEWS = Family("eventwright_reviews_open", "gauge", "Reviews that wait for a person.", ("workflow",))
REVIEWS_OLDEST = Family(
    "eventwright_reviews_oldest_seconds", "gauge", "For how long the oldest review waits.", ("workflow",)
)
DUE = Family("eventwright_due_runs", "gauge", "Runs that wait for a worker, or whose worker died.", ("lane",))
DUE_OLDEST = Family("eventwright_due_oldest_seconds", "gauge", "For how long the oldest of them is due.", ("lane",))
WAKEUPS = Family(
    "eventwright_wakeups", "gauge", "Bells in the outbox: waiting, or rung and not answered.", ("lane", "state")
)
REFUSED = Family("eventwright_events_refused", "gauge", "Refused events that wait for an operator.")
#: What a process counts of its own commits, and what every API says of the database that all of them share.
OF_COMMITS, OF_DATABASE = (
    (COMMITS, WRITES),
    (
        UP,
        RUNS,
        RUNS_OLDEST,
        REVIEWS,
        REVIEWS_OLDEST,
        DUE,
        DUE_OLDEST,
        WAKEUPS,
        REFUSED,
    ),
)


class Exposition:
    """The metrics of a process as text.

    Args:
        metrics: what it counts.
        store: whose commits it counts, and where the runs are.
    """

    def __init__(self, metrics: Metrics, store: Store) -> None:
        self._store = store
        self._own = metrics.registry
        metrics.registry.register(_Of(self._committed))
        self._shared = CollectorRegistry()
        self._shared.register(_Of(self._counted))
        self._census: Census | None = None
        self._good_until = 0.0
        self._taking = asyncio.Lock()

    def own(self) -> bytes:
        """What this process counted."""
        return generate_latest(self._own)

    async def all(self) -> bytes:
        """The same, and what the database holds: of some seconds ago, so that nobody who looks often is a burden."""
        async with self._taking:
            if time.monotonic() >= self._good_until:
                await self._take()
        return self.own() + generate_latest(self._shared)

    async def _take(self) -> None:
        began = time.monotonic()
        try:
            async with asyncio.timeout(PATIENCE):
                self._census = await take_census(self._store)
        except (StoreUnavailable, TimeoutError):
            self._census = None
        now = time.monotonic()
        self._good_until = now + max(FRESH, (now - began) / SHARE)

    def _committed(self) -> Iterable[Metric]:
        committer = self._store.committer
        for family, value in ((COMMITS, committer.commits), (WRITES, committer.units)):
            yield CounterMetricFamily(family.name.removesuffix("_total"), family.words, value=value)

    def _counted(self) -> Iterable[Metric]:
        census = self._census
        up = [Group((), int(census is not None), None)]
        yield _gauge(UP, up)
        if census is None:
            return
        yield _gauge(RUNS, census.runs)
        yield _gauge(RUNS_OLDEST, census.runs, age=True)
        yield _gauge(REVIEWS, census.reviews)
        yield _gauge(REVIEWS_OLDEST, census.reviews, age=True)
        yield _gauge(DUE, census.due)
        yield _gauge(DUE_OLDEST, census.due, age=True)
        yield _gauge(WAKEUPS, census.wakeups)
        yield _gauge(REFUSED, [Group((), census.refused, None)])


class _Of(Collector):
    """A collector of what a function yields."""

    def __init__(self, families: Callable[[], Iterable[Metric]]) -> None:
        self._families = families

    def collect(self) -> Iterable[Metric]:
        return self._families()


def _gauge(family: Family, groups: Iterable[Group], *, age: bool = False) -> Metric:
    metric = GaugeMetricFamily(family.name, family.words, labels=family.labels)
    for group in groups:
        value = group.oldest if age else group.count
        if value is not None:
            metric.add_metric(group.names, value)
    return metric
