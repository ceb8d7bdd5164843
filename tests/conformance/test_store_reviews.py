"""Reviews and their decisions in the store, on SQLite and on PostgreSQL alike. Races first."""

from __future__ import annotations

import asyncio
from dataclasses import replace
from datetime import timedelta

import pytest
from tests.conformance.world import NOW, ask, begin, bells, claim, leased, question

from eventwright.runs.errors import DecisionRefused, DecisionUsedUp, MayNotDecide
from eventwright.runs.records import Decision, DecisionType, JournalKind, Lease, Review, ReviewState
from eventwright.runs.states import RunState
from eventwright.runs.store import Store


async def test_of_many_decisions_in_one_batch_exactly_one_wins(store: Store, other: Store) -> None:
    async def decide(store: Store, review: Review, by: str) -> str | None:
        try:
            async with store.write() as tx:
                tx.decide(review, Decision(type=DecisionType.APPROVE, by=by))
                tx.make_due(review.run_id)
                tx.wake(review.run_id, lane="default")
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


async def test_a_review_of_a_run_that_is_over_takes_no_decision(store: Store) -> None:
    run = await begin(store)
    review = await ask(store, run.id)
    async with store.write() as tx:
        tx.move(run.id, RunState.CANCELLED, actor="ann")
    with pytest.raises(DecisionRefused):
        async with store.write() as tx:
            tx.decide(review, Decision(type=DecisionType.APPROVE, by="ann"))
    assert (await store.review(review.id)).decision is None


async def test_who_may_not_decide_is_told_so_also_where_something_was_written_before(store: Store) -> None:
    run = await begin(store)
    review = await ask(store, run.id, approvers=("bob",))

    async def try_to() -> None:
        async with store.write() as tx:
            tx.note(run.id, actor="ann", data={"text": "she tries"})
            tx.decide(review, Decision(type=DecisionType.APPROVE, by="ann"))

    with pytest.raises(MayNotDecide):
        await try_to()
    assert (await store.review(review.id)).state is ReviewState.OPEN
    assert [entry.actor for entry in await store.journal(run.id)].count("ann") == 0


async def test_a_decision_serves_one_call_alone(store: Store) -> None:
    run = await begin(store)
    review = await ask(store, run.id)
    async with store.write() as tx:
        tx.decide(review, Decision(type=DecisionType.APPROVE, by="ann"))
    for _ in range(2):
        async with store.write() as tx:
            tx.consume_review(review.id, "the call")

    with pytest.raises(DecisionUsedUp, match="has served another call"):
        async with store.write() as tx:
            tx.consume_review(review.id, "another call")
    assert (await store.review(review.id)).consumed_by == "the call"


async def test_a_decision_that_came_while_the_run_was_processing_makes_it_due(store: Store) -> None:
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


async def test_a_decision_keeps_every_word(store: Store) -> None:
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
