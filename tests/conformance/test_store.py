"""One suite for both stores: what SQLite and PostgreSQL must promise alike. Refusals first."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
import sqlalchemy as sa

from eventwright.runs import migrate
from eventwright.runs.committer import hash_of
from eventwright.runs.errors import (
    DecisionRefused,
    DuplicateEvent,
    IllegalMove,
    LeaseLost,
    StoreUnavailable,
    UnknownRun,
)
from eventwright.runs.event import Event, new_id
from eventwright.runs.records import (
    Decision,
    DecisionType,
    EventState,
    JournalEntry,
    JournalKind,
    Lease,
    Review,
    ReviewKind,
    ReviewState,
    Run,
    Visit,
)
from eventwright.runs.states import FINAL, MOVES, Outcome, Reason, RunState
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


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
async def store(database_url: str, clock: Clock) -> AsyncIterator[Store]:
    async with Store.open(database_url, clock=clock) as store:
        yield store


@pytest.fixture
async def other(database_url: str, clock: Clock) -> AsyncIterator[Store]:
    """The same database, as another process sees it."""
    async with Store.open(database_url, clock=clock) as store:
        yield store


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
    run = Run(
        id=new_id("run"),
        workflow="test",
        version="1",
        state=state,
        lane="default",
        event=event(),
        created_at=NOW,
        updated_at=NOW,
        **changes,
    )
    await store_new(store, run)
    return run


async def store_new(store: Store, run: Run) -> None:
    async with store.write() as tx:
        tx.add_event(run.event, EventState.ACCEPTED)
        tx.add_run(run)
        tx.wake(run.id, lane=run.lane, at=NOW)


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


class TestEvents:
    async def test_a_duplicate_in_one_batch_is_refused_and_its_neighbours_are_stored(self, store: Store) -> None:
        names = ["a", "b", "a", "c", "a"]

        async def add(name: str) -> None:
            async with store.write() as tx:
                tx.add_event(event(name), EventState.ACCEPTED)

        answers = await asyncio.gather(*(add(name) for name in names), return_exceptions=True)

        assert store.committer.commits == 1
        assert [type(answer) for answer in answers if answer is not None] == [DuplicateEvent, DuplicateEvent]
        assert sorted(stored.event.id for stored in await store.events()) == ["a", "b", "c"]

    async def test_a_duplicate_of_an_older_event_is_refused_with_its_run(self, store: Store) -> None:
        first = await begin(store)
        second = replace(first, id=new_id("run"), event=replace(first.event, uid=new_id("evt")))

        with pytest.raises(DuplicateEvent, match=first.event.id):
            await store_new(store, second)

        with pytest.raises(UnknownRun):
            await store.run(second.id)

    async def test_two_processes_that_get_one_event_at_once_store_it_once(self, store: Store, other: Store) -> None:
        async def add(store: Store, name: str) -> bool:
            try:
                async with store.write() as tx:
                    tx.add_event(event(name), EventState.ACCEPTED)
            except DuplicateEvent:
                return False
            return True

        for trial in range(25):
            names = [f"{trial}-{n}" for n in range(4)]
            answers = await asyncio.gather(*(add(s, n) for n in names for s in (store, other)))
            assert sum(answers) == len(names)

    async def test_a_refused_event_leaves_its_name_free(self, store: Store) -> None:
        async with store.write() as tx:
            tx.add_event(event("a"), EventState.REFUSED, {"title": "unknown version"})
            tx.add_event(event("a"), EventState.REFUSED, {"title": "unknown version"})
        assert await store.accepted_event("/tests", "a") is None

        async with store.write() as tx:
            tx.add_event(event("a"), EventState.ACCEPTED)

        assert await store.accepted_event("/tests", "a") is not None
        assert len(await store.events(state="refused")) == 2

    async def test_an_event_comes_back_as_it_was_stored_digest_and_all(self, store: Store) -> None:
        data = {
            "big": 2**53 - 1,
            "tiny": 5e-324,
            "huge": 1e22,
            "money": 1.10,
            "zero": -0.0,
            "text": "Žluťoučký 🐎 \u2028",
        }
        sent = event("a", data=[data, {"b": None, "a": []}], time=NOW, subject="s", extensions={"traceparent": "00"})
        async with store.write() as tx:
            tx.add_event(sent, EventState.ACCEPTED)

        stored = await store.accepted_event("/tests", "a")

        assert stored is not None
        assert stored.event == sent
        assert stored.event.digest == sent.digest


class TestMoves:
    async def test_every_move_outside_the_table_is_refused_and_every_move_in_it_is_made(self, store: Store) -> None:
        for origin in RunState:
            for target in RunState:
                run = await begin(store, origin)
                if target in MOVES[origin]:
                    async with store.write() as tx:
                        tx.move(run.id, target, actor="test")
                    assert (await store.run(run.id)).state is target
                else:
                    with pytest.raises(IllegalMove, match=f"is {origin} and cannot become {target}"):
                        async with store.write() as tx:
                            tx.move(run.id, target, actor="test")
                    assert (await store.run(run.id)).state is origin

    async def test_a_run_that_nobody_knows_cannot_be_moved_claimed_or_written_about(self, store: Store) -> None:
        with pytest.raises(UnknownRun):
            async with store.write() as tx:
                tx.move("run_x", RunState.CANCELLED, actor="test")
        with pytest.raises(UnknownRun):
            await claim(store, "run_x")
        with pytest.raises(UnknownRun):
            async with store.write() as tx:
                tx.note("run_x", actor="test", data={})
        with pytest.raises(UnknownRun):
            await store.journal("run_x")

    async def test_a_move_and_its_journal_entry_are_written_together(self, store: Store) -> None:
        run = await begin(store)
        lease = await leased(store, run.id)
        async with store.write(lease) as tx:
            tx.move(run.id, RunState.COMPLETED, actor="engine", outcome=Outcome.AUTO, data={"why": "done"})

        done = await store.run(run.id)
        last = (await store.journal(run.id))[-1]

        assert (done.state, done.outcome, done.worker, done.due_at) == (RunState.COMPLETED, Outcome.AUTO, None, None)
        assert last.data == {"from": "processing", "to": "completed", "outcome": "auto", "why": "done"}

    async def test_a_run_can_fail_with_words_that_no_database_takes(self, store: Store) -> None:
        run = await begin(store)
        lease = await leased(store, run.id)
        async with store.write(lease) as tx:
            tx.move(run.id, RunState.FAILED, actor="e", reason=Reason.NOT_RETRYABLE, error="nul \x00 half \ud800")

        assert (await store.run(run.id)).error == "nul \ufffd half ?"

    async def test_a_cancellation_that_came_meanwhile_wins_over_the_end_of_the_segment(self, store: Store) -> None:
        run = await begin(store)
        lease = await leased(store, run.id)
        review = question(run.id, deadline=NOW)
        async with store.write() as tx:
            tx.cancel(run.id, by="ann")
        async with store.write(lease) as tx:
            tx.open_review(review)
            tx.move(run.id, RunState.PENDING_APPROVAL, actor="engine", due_at=NOW, heed_cancel=True)

        ended = await store.run(run.id)

        assert (ended.state, ended.outcome, ended.due_at) == (RunState.CANCELLED, None, None)
        assert (await store.review(review.id)).state is ReviewState.CANCELLED
        assert await store.due_timers(limit=10) == []


class TestFence:
    async def test_a_zombie_worker_writes_nothing(self, store: Store, other: Store, clock: Clock) -> None:
        run = await begin(store)
        zombie = await leased(store, run.id, worker="zombie")
        clock.pass_seconds(7)
        heir = await leased(other, run.id, worker="heir")

        async def write_late() -> None:
            async with store.write(zombie) as tx:
                tx.put_visit(Visit(run_id=run.id, node="n", visit=1, place="p"))
                tx.wake(run.id, lane="default", at=NOW)
                tx.move(run.id, RunState.COMPLETED, actor="zombie")

        with pytest.raises(LeaseLost) as lost:
            await write_late()

        assert (lost.value.fence, lost.value.current) == (zombie.fence, heir.fence)
        assert (await store.run(run.id)).worker == "heir"
        assert (await store.history(run.id)).visits == {}
        assert await bells(store) == []

    async def test_a_zombies_refusal_does_not_disturb_its_neighbours_in_the_batch(self, store: Store) -> None:
        mine, theirs = await begin(store), await begin(store)
        lease = await leased(store, mine.id)

        async def note(lease: Lease, run: Run) -> None:
            async with store.write(lease) as tx:
                tx.note(run.id, actor="test", data={})

        forged = Lease(theirs.id, 7, "zombie")
        answers = await asyncio.gather(
            note(lease, mine), note(forged, theirs), note(lease, mine), return_exceptions=True
        )

        assert [type(answer) for answer in answers] == [type(None), LeaseLost, type(None)]
        assert len(await store.journal(mine.id)) == 4
        assert len(await store.journal(theirs.id)) == 1


class TestBatches:
    @pytest.mark.parametrize("before", ["event", "rows", "journal", "nothing"])
    async def test_nothing_of_a_refused_unit_is_written_and_all_of_its_neighbours_is(
        self, store: Store, before: str
    ) -> None:
        runs = [await begin(store) for _ in range(8)]
        done = await begin(store, RunState.COMPLETED)
        bells_before = await bells(store)

        async def fine(run: Run) -> None:
            async with store.write() as tx:
                tx.put_visit(Visit(run_id=run.id, node="n", visit=1, place="p"))
                tx.note(run.id, actor="test", data={})

        async def refused() -> None:
            async with store.write() as tx:
                if before == "event":
                    tx.add_event(event("refused"), EventState.ACCEPTED)
                if before == "rows":
                    tx.put_visit(Visit(run_id=done.id, node="n", visit=1, place="p"))
                    tx.wake(done.id, lane="default", at=NOW)
                if before == "journal":
                    tx.note(done.id, actor="test", data={})
                tx.move(done.id, RunState.PROCESSING, actor="test")
                tx.open_review(question(done.id, deadline=NOW))

        answers = await asyncio.gather(*map(fine, runs[:4]), refused(), *map(fine, runs[4:]), return_exceptions=True)

        assert [type(answer) for answer in answers if answer is not None] == [IllegalMove]
        for run in runs:
            assert len((await store.history(run.id)).visits) == 1
            assert len(await store.journal(run.id)) == 2
        past = await store.history(done.id)
        assert (past.visits, past.reviews) == ({}, ())
        assert len(await store.journal(done.id)) == 1
        assert await store.accepted_event("/tests", "refused") is None
        assert await store.due_timers(limit=10) == []
        assert await bells(store) == bells_before

    @pytest.mark.parametrize("value", [float("nan"), 2**53, "half a pair \ud800"])
    async def test_what_is_not_json_is_refused_alone(self, store: Store, value: Any) -> None:
        good, bad = await begin(store), await begin(store)

        async def note(run: Run, value: Any) -> None:
            async with store.write() as tx:
                tx.note(run.id, actor="test", data={"value": value})

        answers = await asyncio.gather(note(good, 1), note(bad, value), note(good, 2), return_exceptions=True)

        assert [answer is None for answer in answers] == [True, False, True]
        assert isinstance(answers[1], ValueError)
        assert len(await store.journal(good.id)) == 3
        assert len(await store.journal(bad.id)) == 1

    async def test_the_verbs_of_one_transaction_happen_in_their_order(self, store: Store) -> None:
        run = await begin(store)
        old, new = question(run.id), question(run.id)
        async with store.write() as tx:
            tx.open_review(old)
            tx.close_reviews(run.id, ReviewState.SUPERSEDED)
            tx.open_review(new)
            tx.put_visit(Visit(run_id=run.id, node="n", visit=1, place="p", failures=3))
            tx.reset_failures(run.id)

        past = await store.history(run.id)

        assert [review.state for review in past.reviews] == [ReviewState.SUPERSEDED, ReviewState.OPEN]
        assert past.visits["p"].failures == 0

    async def test_closing_writes_what_waits(self, database_url: str) -> None:
        async with Store.open(database_url) as store:
            run = await begin(store)
            for _ in range(600):
                transaction = store.transaction()
                transaction.note(run.id, actor="test", data={})
                store.committer.post(transaction.unit)

        async with Store.open(database_url) as store:
            assert len(await store.journal(run.id)) == 601

    async def test_a_closed_store_says_so(self, database_url: str) -> None:
        async with Store.open(database_url) as store:
            run = await begin(store)
        with pytest.raises(StoreUnavailable, match="closed"):
            async with store.write() as tx:
                tx.note(run.id, actor="test", data={})

    async def test_callers_that_give_up_do_not_hurt_the_others(self, store: Store) -> None:
        run = await begin(store)

        async def note(number: int) -> None:
            async with store.write() as tx:
                tx.note(run.id, actor="test", data={"number": number})

        for _ in range(10):
            tasks = [asyncio.create_task(note(number)) for number in range(20)]
            await asyncio.sleep(0)
            for task in tasks[::2]:
                task.cancel()
            answers = await asyncio.gather(*tasks, return_exceptions=True)
            assert [answer for answer in answers[1::2] if answer is not None] == []

        entries = await store.journal(run.id)
        assert_unbroken(entries)
        assert sum(entry.data.get("number", 0) % 2 for entry in entries) == 100


class TestClaim:
    async def test_a_due_run_is_claimed_once_and_its_bells_are_done_with(self, store: Store, other: Store) -> None:
        for _ in range(10):
            run = await begin(store)
            claims = await asyncio.gather(*(claim(s, run.id, worker=w) for s in (store, other) for w in ("a", "b")))
            (lease,) = [lease for lease in claims if lease is not None]
            held = await store.run(run.id)

            assert (held.state, held.worker, held.fence) == (RunState.PROCESSING, lease.worker, lease.fence)
            assert held.due_at == NOW + timedelta(seconds=6)
            assert await bells(store) == []

    async def test_a_run_that_is_not_due_is_not_claimed_and_a_bell_in_vain_is_silenced(self, store: Store) -> None:
        run = await begin(store)
        lease = await leased(store, run.id)
        async with store.write(lease) as tx:
            tx.move(run.id, RunState.RETRYING, actor="engine", due_at=NOW + timedelta(seconds=30))
            tx.wake(run.id, lane="default", at=NOW)

        assert await claim(store, run.id) is None
        assert (await store.run(run.id)).state is RunState.RETRYING
        assert await bells(store) == []
        assert await store.due_runs(limit=10) == []

    async def test_a_retry_is_claimed_when_its_time_has_come(self, store: Store, clock: Clock) -> None:
        run = await begin(store)
        lease = await leased(store, run.id)
        async with store.write(lease) as tx:
            tx.move(run.id, RunState.RETRYING, actor="engine", due_at=NOW + timedelta(seconds=30))
        clock.pass_seconds(30)

        assert [run_id for run_id, _ in await store.due_runs(limit=10)] == [run.id]
        again = await leased(store, run.id)
        assert (again.fence, (await store.run(run.id)).crashes) == (lease.fence + 1, 0)

    async def test_a_run_whose_worker_died_is_taken_over_and_the_crash_is_counted(
        self, store: Store, clock: Clock
    ) -> None:
        run = await begin(store)
        await leased(store, run.id, worker="dead")
        clock.pass_seconds(5)
        assert await claim(store, run.id, worker="heir") is None
        clock.pass_seconds(2)

        lease = await leased(store, run.id, worker="heir")

        taken = await store.run(run.id)
        assert (taken.worker, taken.fence, taken.crashes) == ("heir", lease.fence, 1)
        assert (await store.journal(run.id))[-1].data["taken_over"] is True

    @pytest.mark.parametrize("state", [*sorted(FINAL), RunState.FAILED])
    async def test_a_run_that_is_over_is_not_claimed(self, store: Store, state: RunState) -> None:
        run = await begin(store, state)

        assert await claim(store, run.id) is None
        assert (await store.run(run.id)).state is state

    async def test_a_run_that_waits_for_a_person_is_not_claimed_before_somebody_makes_it_due(
        self, store: Store
    ) -> None:
        run = await begin(store)
        await ask(store, run.id)
        assert await claim(store, run.id) is None
        async with store.write() as tx:
            tx.make_due(run.id)
        assert await claim(store, run.id) is not None


class TestReviews:
    async def test_of_many_decisions_in_one_batch_exactly_one_wins(self, store: Store, other: Store) -> None:
        async def decide(store: Store, review: Review, by: str) -> str | None:
            try:
                async with store.write() as tx:
                    tx.decide(review, Decision(type=DecisionType.APPROVE, by=by))
                    tx.make_due(review.run_id)
                    tx.wake(review.run_id, lane="default", at=NOW)
            except DecisionRefused:
                return None
            return by

        for _ in range(25):
            run = await begin(store)
            review = await ask(store, run.id, deadline=NOW + timedelta(days=1))
            people = [(store, "ann"), (store, "bob"), (other, "cem"), (other, "dan")]
            answers = await asyncio.gather(*(decide(s, review, by) for s, by in people))
            (winner,) = [by for by in answers if by is not None]
            decided = await store.review(review.id)

            assert decided.decision is not None
            assert (decided.state, decided.decision.by) == (ReviewState.DECIDED, winner)
            journal = await store.journal(run.id)
            assert [entry.actor for entry in journal if entry.kind is JournalKind.DECISION] == [winner]
            assert await bells(store) == [run.id]
            assert await claim(store, run.id) is not None

    async def test_a_review_of_a_run_that_is_over_takes_no_decision(self, store: Store) -> None:
        run = await begin(store)
        review = await ask(store, run.id)
        async with store.write() as tx:
            tx.move(run.id, RunState.CANCELLED, actor="ann")
        with pytest.raises(DecisionRefused):
            async with store.write() as tx:
                tx.decide(review, Decision(type=DecisionType.APPROVE, by="ann"))
        assert (await store.review(review.id)).decision is None

    async def test_a_decision_that_came_while_the_run_was_processing_makes_it_due(self, store: Store) -> None:
        run = await begin(store)
        lease = await leased(store, run.id)
        seen, unseen = question(run.id), question(run.id)
        async with store.write(lease) as tx:
            tx.open_review(seen)
            tx.open_review(unseen)
        async with store.write() as tx:
            tx.decide(seen, Decision(type=DecisionType.APPROVE, by="ann"))
            tx.make_due(run.id)
        async with store.write(lease) as tx:
            tx.move(run.id, RunState.PENDING_APPROVAL, actor="engine")
            tx.wake_if_decided_meanwhile(run.id, seen=[seen.id], lane="default")
        assert (await store.run(run.id)).due_at is None
        assert await bells(store) == []

        lease = await _segment_again(store, run.id)
        async with store.write() as tx:
            tx.decide(unseen, Decision(type=DecisionType.REJECT, by="bob"))
        async with store.write(lease) as tx:
            tx.move(run.id, RunState.PENDING_APPROVAL, actor="engine")
            tx.wake_if_decided_meanwhile(run.id, seen=[seen.id], lane="default")
        assert await bells(store) == [run.id]
        assert await claim(store, run.id) is not None

    async def test_a_decision_keeps_every_word(self, store: Store) -> None:
        run = await begin(store)
        review = await ask(store, run.id, deadline=NOW, evidence={"sum": 1e22, "größe": [1, None]})
        given = Decision(
            type=DecisionType.EDIT, by="ann", verified=True, arguments={"amount": "12.50"}, response=[0.1], comment="ok"
        )
        async with store.write() as tx:
            tx.decide(review, given)

        stored = await store.review(review.id)

        assert stored == replace(review, state=ReviewState.DECIDED, created_at=NOW, decision=replace(given, at=NOW))
        assert await store.due_timers(limit=10) == []


async def _segment_again(store: Store, run_id: str) -> Lease:
    async with store.write() as tx:
        tx.make_due(run_id)
    return await leased(store, run_id)


class TestJournal:
    async def test_the_chain_can_be_checked_from_what_the_database_gives_back(self, store: Store) -> None:
        run = await begin(store)
        bodies: list[dict[str, Any]] = [
            {"floats": [0.1, 1.0, 1e22, 1e-7, 5e-324, 1.7976931348623157e308, -0.0, 100.10]},
            {"integers": [0, -1, 2**53 - 1, 1 - 2**53]},
            {"text": 'Žluťoučký kůň 🐎 \u2028 \t " \\ \x7f', "ключ": "значение"},
            {"nested": {"z": [{"b": 1, "a": [None, True, {}]}], "a": {}}, "empty": [], "": None},
            {"at": datetime(2026, 1, 2, 3, 4, 5, 678901, tzinfo=UTC), "kind": JournalKind.NOTE, "tuple": (1, 2)},
        ]
        for body in bodies:
            async with store.write() as tx:
                tx.note(run.id, actor="tëst", data=body)

        entries = await store.journal(run.id)

        assert_unbroken(entries)
        assert entries[1].data == bodies[0]
        assert entries[3].data == bodies[2]

    async def test_a_changed_entry_is_noticed(self, store: Store, database_url: str) -> None:
        run = await begin(store)
        async with store.write() as tx:
            tx.note(run.id, actor="test", data={"amount": 10})
        entry = (await store.journal(run.id))[-1]
        for forged in (replace(entry, data={"amount": 11}), replace(entry, actor="x"), replace(entry, prev="x")):
            assert hash_of(forged) != entry.hash

    async def test_two_processes_that_write_about_one_run_keep_its_chain_whole(
        self, store: Store, other: Store
    ) -> None:
        runs = [await begin(store) for _ in range(3)]

        async def note(store: Store, run: Run, number: int) -> None:
            async with store.write() as tx:
                tx.note(run.id, actor="test", data={"number": number})

        await asyncio.gather(*(note(s, run, n) for n in range(30) for run in runs for s in (store, other)))

        for run in runs:
            entries = await store.journal(run.id)
            assert len(entries) == 61
            assert_unbroken(entries)

    async def test_times_come_back_aware_and_exact(self, store: Store, clock: Clock) -> None:
        clock.now = datetime(2026, 3, 1, 12, 0, 0, 123456, tzinfo=UTC)
        run = await begin(store)
        (entry,) = await store.journal(run.id)
        stored = await store.run(run.id)

        assert entry.at == clock.now
        assert entry.at.tzinfo is UTC
        assert (stored.created_at, stored.due_at) == (NOW, clock.now)
        assert stored.event.received_at == run.event.received_at
        assert await store.next_due() == clock.now


class TestAbsence:
    async def test_a_store_whose_database_is_not_there_yet_works_as_soon_as_it_is(self, tmp_path: Path) -> None:
        folder = tmp_path / "later"
        url = f"sqlite:///{folder / 'eventwright.db'}"
        async with Store.open(url) as store:
            with pytest.raises(StoreUnavailable):
                await store.ping()
            answers = await asyncio.gather(*(begin(store) for _ in range(20)), return_exceptions=True)
            assert {type(answer) for answer in answers} == {StoreUnavailable}
            folder.mkdir()
            await migrate.upgrade(url)

            run = await begin(store)
            assert (await store.run(run.id)).state is RunState.RECEIVED

    async def test_connections_that_the_server_dropped_cost_nobody_anything(
        self, postgres_url: str, postgres_server: Any
    ) -> None:
        async with Store.open(postgres_url) as store:
            run = await begin(store)
            await asyncio.gather(*(store.run(run.id) for _ in range(20)))
            await asyncio.to_thread(postgres_server.execute, _drop_connections(postgres_url))

            await asyncio.gather(*(store.run(run.id) for _ in range(20)))
            assert await claim(store, run.id) is not None

    async def test_a_server_that_is_away_is_said_so_and_found_again(
        self, postgres_url: str, postgres_server: Any
    ) -> None:
        database = sa.make_url(postgres_url).database
        async with Store.open(postgres_url) as store:
            run = await begin(store)
            closed = f"ALTER DATABASE {database} ALLOW_CONNECTIONS false"
            await asyncio.to_thread(postgres_server.execute, closed, _drop_connections(postgres_url))
            with pytest.raises(StoreUnavailable):
                await store.run(run.id)
            answers = await asyncio.gather(*(begin(store) for _ in range(20)), return_exceptions=True)
            assert {type(answer) for answer in answers} == {StoreUnavailable}
            await asyncio.to_thread(postgres_server.execute, f"ALTER DATABASE {database} ALLOW_CONNECTIONS true")

            assert await claim(store, run.id) is not None
            assert len(await store.events()) == 1


def _drop_connections(url: str) -> str:
    database = sa.make_url(url).database
    return f"SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = '{database}'"  # noqa: S608 - ours


async def test_the_database_is_asked_for_the_time(database_url: str) -> None:
    async with Store.open(database_url) as store:
        run = await begin(store)
        assert (await store.now()).tzinfo is UTC
        (entry,) = await store.journal(run.id)
        assert entry.at is not None
        assert entry.at.tzinfo is UTC


async def test_counts_and_pages_are_what_was_stored(store: Store) -> None:
    runs = [await begin(store) for _ in range(5)]
    await leased(store, runs[0].id)

    assert await store.counts() == {("test", "received"): 4, ("test", "processing"): 1}
    page = await store.runs(limit=2)
    assert [run.id for run in page] == [runs[4].id, runs[3].id]
    assert [run.id for run in await store.runs(before=page[-1].id)] == [runs[2].id, runs[1].id, runs[0].id]
    assert [run.id for run in await store.runs(states=[RunState.PROCESSING])] == [runs[0].id]
