"""A store to compare with the reference model: what is written to it, and everything that it answers."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator, Sequence
from contextlib import AsyncExitStack, contextmanager
from dataclasses import dataclass
from datetime import timedelta
from typing import Any

import sqlalchemy as sa
from tests.conformance.reference import Answer, Reference, Unit
from tests.conformance.reference_world import RUN_FACTS
from tests.conformance.world import Clock, assert_unbroken

from eventwright.runs import schema
from eventwright.runs.heartbeats import _beat
from eventwright.runs.records import Claim, Effect, Review, Run, StoredEvent
from eventwright.runs.retention import Keep, Removed, removable, remove_some
from eventwright.runs.store import Store
from eventwright.runs.turns import ahead

ALL = 10_000
AT_ONCE = timedelta(0)


@dataclass
class Place:
    """One database, seen by two processes that write by turns."""

    runner: asyncio.Runner
    stores: tuple[Store, Store]
    clock: Clock
    commits: int = 0

    def empty(self) -> None:
        """As if it were new."""

        def forget(connection: sa.Connection) -> None:
            for table in schema.metadata.sorted_tables:
                connection.execute(sa.delete(table))

        self.runner.run(self.stores[0]._database.write(forget))
        self.clock.__init__()  # type: ignore[misc]

    @property
    def writer(self) -> Store:
        return self.stores[self.commits % 2]

    @property
    def reader(self) -> Store:
        return self.stores[(self.commits + 1) % 2]

    def commit(self, units: Sequence[Unit]) -> tuple[list[Answer], bool]:
        """What became of each, and whether they were committed together."""
        return self.runner.run(self._commit(units))

    async def _commit(self, units: Sequence[Unit]) -> tuple[list[Answer], bool]:
        committer = self.writer.committer
        before = committer.commits, committer.units
        futures, values = [], []
        for unit in units:
            transaction = self.writer.transaction(unit.lease)
            values.append([getattr(transaction, name)(**given) for name, given in unit.verbs])
            futures.append(committer.post(transaction.unit))
        errors = await asyncio.gather(*futures, return_exceptions=True)
        commits, written = committer.commits - before[0], committer.units - before[1]
        together = commits == 1 and written == len(units)
        assert together or commits == written, "neither together nor one by one"
        self.commits += 1
        answers = []
        for error, answered in zip(errors, values, strict=True):
            refusals = () if error is None else (type(error).__name__,)
            answers.append(Answer(refusals, [] if refusals else [_plain(value) for value in answered]))
        return answers, together

    def beat(self, worker: str, held: Sequence[str], seconds: float) -> None:
        self.runner.run(_beat(self.writer._database, worker, held, seconds))

    def keep(self, keep: Keep) -> tuple[Removed, Removed]:
        """What was to be deleted, and what was."""

        async def until_nothing_is_left() -> tuple[Removed, Removed]:
            wanted, removed = await removable(self.reader, keep), Removed()
            while some := await remove_some(self.writer, keep):
                removed += some
            return wanted, removed

        return self.runner.run(until_nothing_is_left())

    def look(self) -> dict[str, Any]:
        """Everything that the store answers."""
        return self.runner.run(_look(self.reader))

    def read(self, run_id: str) -> Run:
        return self.runner.run(self.reader.run(run_id))


def _plain(value: Any) -> Any:
    """A verb's answer as the model gives it."""
    if isinstance(value, Claim):
        return value.lease and (value.lease, *(value.lease.due or ()))
    return value if isinstance(value, Removed) else None


async def _look(store: Store) -> dict[str, Any]:
    runs = await store.runs(limit=ALL)
    reviews = await store.reviews(limit=ALL)
    names = [run.id for run in runs]
    due, unrung = await store.due_runs(limit=ALL), await store.wakeups(sent=False, older_than=AT_ONCE, limit=ALL)
    bells = [*unrung, *await store.wakeups(sent=True, older_than=AT_ONCE, limit=ALL)]
    times = {run.id: run.due_at for run in runs}
    assert [times[name] for name, _ in due] == sorted(times[name] for name, _ in due), "not the longest due first"
    histories = dict(zip(names, await asyncio.gather(*map(store.history, names)), strict=True))
    journals = dict(zip(names, await asyncio.gather(*map(store.journal, names)), strict=True))
    for entries in journals.values():
        assert_unbroken(entries)
    threads = await store.rows_of(sa.select(schema.checkpoints.c.thread_id, schema.checkpoints.c.id))
    return {
        "events": {event.event.uid: _event(event) for event in await store.events(limit=ALL)},
        "runs": {run.id: {name: getattr(run, name) for name in RUN_FACTS} for run in runs},
        "reviews": {review.id: _review(review) for review in reviews},
        "effects": {key: effect for past in histories.values() for key, effect in past.effects.items()},
        "visits": {(one.run_id, one.visit): vars(one) for past in histories.values() for one in past.visits.values()},
        "journals": {
            name: [(str(entry.kind), entry.actor, entry.at, entry.data) for entry in entries]
            for name, entries in journals.items()
        },
        "bells": [{name: fact for name, fact in vars(bell).items() if name != "lane"} for bell in bells],
        "checkpoints": {(row["thread_id"], row["id"]) for row in threads},
        "due": {name for name, _ in due},
        "next due": await store.next_due(),
        "timers": {timer.review_id: (timer.run_id, timer.due_at) for timer in await store.due_timers(limit=ALL)},
        "counts": await store.counts(),
        "backlog": await store.backlog(most=ALL),
        "cancel requests": sorted(await store.cancel_requests(names)),
        "ahead": await ahead(store, runs),
        "agreed": await store.agreed(reviews),
        "open reviews": await store.open_reviews(),
        "budgets": {
            one.scope: (one.label, one.used, one.most, one.opened_at) for one in await store.budgets(limit=ALL)
        },
    }  # fmt: skip


def _event(stored: StoredEvent) -> tuple[Any, ...]:
    return stored.state, stored.event.data, stored.event.expired_at, stored.digest, stored.problem, stored.run_ids


def _review(review: Review) -> dict[str, Any]:
    decision = review.decision and (review.decision.type, review.decision.by, review.decision.at)
    return vars(review) | {"decision": decision}


def expected(model: Reference) -> dict[str, Any]:
    """What the store should answer, in the shape of `Place.look`; for journals see `assert_told`, for bells `hear`."""
    runs, reviews = model.runs, model.reviews
    states = [(run["workflow"], str(run["state"])) for run in runs.values()]
    asking = [review["workflow"] for review in reviews.values() if review["state"] == "open"]
    by_workflow = sorted(runs, key=lambda name: runs[name]["workflow"])
    started = {uid: tuple(name for name in by_workflow if runs[name]["event"] == uid) for uid in model.events}
    return {
        "events": {
            uid: (one["state"], one["data"], one["expired_at"], one["digest"], one["problem"], started[uid])
            for uid, one in model.events.items()
        },
        "runs": {name: {fact: run[fact] for fact in RUN_FACTS} for name, run in runs.items()},
        "reviews": {
            name: review | {"expired_at": runs[review["run_id"]]["expired_at"]} for name, review in reviews.items()
        },
        "effects": {key: Effect(**effect) for key, effect in model.effects.items()},
        "visits": model.visits,
        "checkpoints": {(thread, name) for thread, names in model.checkpoints.items() for name in names},
        "due": set(model.due()),
        "next due": model.next_due(),
        "timers": {name: timer for name, timer in model.timers.items() if timer[1] <= model.now},
        "counts": {group: states.count(group) for group in set(states)},
        "backlog": sum(run["state"] == "received" for run in runs.values()),
        "cancel requests": sorted(name for name, run in runs.items() if run["cancel_requested_by"]),
        "ahead": model.ahead(),
        "agreed": {name: model.agreed(name) for name, review in reviews.items() if review["people"] > 1},
        "open reviews": {workflow: asking.count(workflow) for workflow in set(asking)},
        "budgets": {
            scope: (one["label"], one["used"], one["most"], one["opened_at"]) for scope, one in model.budgets.items()
        },
    }  # fmt: skip


def assert_told(model: Reference, journals: dict[str, list[tuple[Any, ...]]]) -> None:
    """The record of every run tells what happened, in its order, with these facts among others."""
    assert journals.keys() == model.journals.keys()
    for name, entries in journals.items():
        lines = model.journals[name]
        expected = [(line["kind"], line["actor"], line["at"]) for line in lines]
        assert [entry[:3] for entry in entries] == expected, name
        for (*_, data), line in zip(entries, lines, strict=True):
            assert {fact: data.get(fact) for fact in line["facts"]} == line["facts"], name


@contextmanager
def opened(url: str) -> Iterator[Place]:
    """A place on a migrated database, on an event loop of its own."""
    clock = Clock()

    async def open_stores(stack: AsyncExitStack) -> tuple[Store, Store]:
        first = await stack.enter_async_context(Store.open(url, clock=clock))
        return first, await stack.enter_async_context(Store.open(url, clock=clock))

    with asyncio.Runner() as runner:
        stack = AsyncExitStack()
        try:
            yield Place(runner, runner.run(open_stores(stack)), clock)
        finally:
            runner.run(stack.aclose())
