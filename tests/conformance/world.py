"""What the tests of the store and of the saver do all the time: runs that begin, are claimed, and ask people."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any

from eventwright.runs.chain import hash_of
from eventwright.runs.event import Event, new_id
from eventwright.runs.records import DecisionType, EventState, JournalEntry, Lease, Review, ReviewKind, Run
from eventwright.runs.states import RunState
from eventwright.runs.store import Store

NOW = datetime(2026, 3, 1, 12, 0, tzinfo=UTC)


class Clock:
    """A clock that a test moves."""

    def __init__(self) -> None:
        self.now = NOW

    def __call__(self) -> datetime:
        return self.now

    def pass_seconds(self, seconds: float) -> None:
        self.now += timedelta(seconds=seconds)


def event(name: str | None = None, **changes: Any) -> Event:
    given: dict[str, Any] = {
        "id": name or new_id("test"),
        "source": "/tests",
        "type": "test.happened",
        "data": {"n": 1},
    }
    return Event(**given | changes)


async def begin(store: Store, state: RunState = RunState.RECEIVED, **changes: Any) -> Run:
    """A new run with its bell."""
    given: dict[str, Any] = {
        "id": new_id("run"),
        "workflow": "test",
        "version": "1",
        "state": state,
        "lane": "default",
        "event": event(),
        "created_at": NOW,
        "updated_at": NOW,
    }
    run = Run(**given | changes)
    await store_new(store, run)
    return run


async def store_new(store: Store, run: Run) -> None:
    async with store.write() as tx:
        tx.add_event(run.event, EventState.ACCEPTED)
        tx.add_run(run)
        tx.wake(run.id, lane=run.lane)


async def claim(store: Store, run_id: str, *, worker: str = "worker-1", seconds: float = 6) -> Lease | None:
    async with store.write() as tx:
        claim = tx.claim(run_id, worker=worker, seconds=seconds)
    return claim.lease


async def leased(store: Store, run_id: str, **how: Any) -> Lease:
    lease = await claim(store, run_id, **how)
    assert lease is not None
    return lease


def question(run_id: str, **changes: Any) -> Review:
    given: dict[str, Any] = {
        "id": new_id("review"),
        "run_id": run_id,
        "workflow": "test",
        "node": "ask",
        "kind": ReviewKind.APPROVAL,
        "question": "May it?",
        "allowed": (DecisionType.APPROVE, DecisionType.REJECT),
        "digest": "0" * 64,
    }
    return Review(**given | changes)


async def ask(store: Store, run_id: str, **changes: Any) -> Review:
    """An open review, of a run that waits for it."""
    review = question(run_id, **changes)
    lease = await leased(store, run_id)
    async with store.write(lease) as tx:
        tx.open_review(review)
        tx.move(run_id, RunState.PENDING_APPROVAL, actor="engine")
    return review


async def bells(store: Store) -> list[str]:
    return [bell.run_id for bell in await store.wakeups(sent=False, older_than=timedelta(0), limit=1000)]


def assert_unbroken(entries: list[JournalEntry]) -> None:
    assert [entry.seq for entry in entries] == list(range(1, len(entries) + 1))
    previous = ""
    for entry in entries:
        assert entry.prev == previous
        assert entry.hash == hash_of(entry)
        previous = entry.hash


def thread(name: str) -> Any:
    """LangGraph's way to say which thread is meant."""
    return {"configurable": {"thread_id": name, "checkpoint_ns": ""}}
