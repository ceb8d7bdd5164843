"""Retention, on SQLite and on PostgreSQL alike: what is deleted, what stays, and who may do it at the same time."""

from __future__ import annotations

import asyncio
from dataclasses import replace
from datetime import timedelta
from typing import Any

import pytest
import sqlalchemy as sa
from tests.conformance.world import NOW, Clock, assert_unbroken, begin, event, leased, question

from eventwright.runs import schema
from eventwright.runs.errors import EventExpired
from eventwright.runs.event import new_id
from eventwright.runs.records import Decision, DecisionType, Effect, EffectState, EventState, JournalKind, Run
from eventwright.runs.retention import MOST, Keep, Removed, removable, remove_some
from eventwright.runs.states import FINAL, Outcome, Reason, RunState
from eventwright.runs.store import Store

WEEK = timedelta(days=7).total_seconds()
ALL = Keep(checkpoints=timedelta(days=7), payloads=timedelta(days=7))
SECRET = "the secret of Ann"


async def checkpoint(store: Store, thread_id: str, number: int = 1) -> None:
    async with store.write() as tx:
        row = {"thread_id": thread_id, "ns": "", "id": str(number), "parent": None, "type": "msgpack"}
        tx.put_checkpoint(row | {"body": SECRET.encode(), "metadata": {}})
        write = {"thread_id": thread_id, "ns": "", "checkpoint_id": str(number), "task_id": "t", "idx": 0}
        tx.put_checkpoint_write(
            write | {"channel": "c", "type": "msgpack", "body": SECRET.encode(), "path": ""}, replace_earlier=False
        )


async def at_work(store: Store, **changes: Any) -> Run:
    """A run that has a checkpoint, has made a call and has asked a person, who agreed."""
    run = await begin(store, **{"event": event(data={"text": SECRET}, received_at=NOW)} | changes)
    lease, asked = await leased(store, run.id), question(run.id, arguments={"to": SECRET}, evidence={"text": SECRET})
    call = {"key": new_id("effect"), "run_id": run.id, "node": "send", "visit": 1, "tool": "mail.send", "ordinal": "0"}
    call |= {"tool_class": "plain", "requested_digest": "d", "executed_digest": "d"}
    async with store.write(lease) as tx:
        tx.put_effect(Effect(**call, state=EffectState.DONE, arguments={"to": SECRET}, result=SECRET))
        tx.open_review(asked)
    async with store.write() as tx:
        tx.decide(asked, Decision(type=DecisionType.APPROVE, by="ann"))
    await checkpoint(store, run.id)
    return run


async def ended(store: Store, state: RunState = RunState.COMPLETED, **changes: Any) -> Run:
    run = await at_work(store, **changes)
    async with store.write() as tx:
        if state is RunState.FAILED:
            tx.move(run.id, state, actor="engine", reason=Reason.ATTEMPTS)
        elif state is RunState.COMPLETED:
            tx.move(run.id, state, actor="engine", outcome=Outcome.AUTO)
        else:
            tx.move(run.id, state, actor="ann")
    return await store.run(run.id)


async def threads(store: Store) -> list[str]:
    """Threads with a checkpoint, or with a write that belongs to one."""
    queries = (sa.select(table.c.thread_id) for table in (schema.checkpoints, schema.checkpoint_writes))
    return sorted({row["thread_id"] for query in queries for row in await store.rows_of(query)})


async def told(store: Store, run: Run) -> str:
    """Everything that a reader of the store finds of this run, but for its journal."""
    reviews = await store.reviews(run_ids=[run.id])
    return repr((await store.run(run.id), await store.effects(run.id), reviews, await store.event(run.event.uid)))


async def test_nothing_of_a_run_that_may_go_on_is_deleted_however_old(store: Store, clock: Clock) -> None:
    runs = [await at_work(store), await ended(store, RunState.FAILED)]
    clock.pass_seconds(100 * WEEK)

    assert await removable(store, ALL) == await remove_some(store, ALL) == Removed()

    assert await threads(store) == sorted(run.id for run in runs)
    assert [(await told(store, run)).count(SECRET) for run in runs] == [6, 6]


async def test_whoever_deletes_by_hand_cannot_take_anything_from_a_run_that_may_go_on(store: Store) -> None:
    run = await ended(store, RunState.FAILED)

    async with store.write() as tx:
        pruned, expired = tx.prune([run.id]), tx.expire_runs([run.id])

    assert pruned == expired == Removed()
    assert await threads(store) == [run.id]
    assert (await told(store, run)).count(SECRET) == 6


async def test_a_run_that_ended_a_moment_too_late_keeps_everything(store: Store, clock: Clock) -> None:
    await ended(store)
    clock.pass_seconds(WEEK)

    assert not await remove_some(store, ALL)


async def test_what_is_kept_for_ever_is_never_deleted(store: Store, clock: Clock) -> None:
    await ended(store)
    clock.pass_seconds(1000 * WEEK)

    assert not await remove_some(store, Keep(checkpoints=None, payloads=None))


async def test_an_event_keeps_its_data_while_one_of_its_runs_is_not_at_its_end(store: Store, clock: Clock) -> None:
    run = await ended(store)
    sibling = replace(run, id=new_id("run"), workflow="other", state=RunState.RECEIVED)
    async with store.write() as tx:
        tx.add_run(sibling)
    clock.pass_seconds(2 * WEEK)

    assert await removable(store, ALL) == Removed(runs=1, checkpoints=1, payloads=1)
    await remove_some(store, ALL)

    assert (await store.run(sibling.id)).event.data == {"text": SECRET}
    assert (await store.run(run.id)).expired_at is not None


async def test_an_event_that_comes_too_late_for_its_data_is_not_accepted(store: Store, clock: Clock) -> None:
    refused = event("late", received_at=NOW)
    async with store.write() as tx:
        tx.add_event(refused, EventState.REFUSED, {"title": "InvalidPayload", "detail": SECRET})
    clock.pass_seconds(100 * WEEK)
    assert (await remove_some(store, ALL)).events == 1

    with pytest.raises(EventExpired, match=refused.uid) as caught:
        async with store.write() as tx:
            tx.accept_event(refused)

    assert isinstance(caught.value, LookupError)
    kept = await store.event(refused.uid)
    assert (kept.state, kept.event.data, kept.problem) == (EventState.REFUSED, None, {"title": "InvalidPayload"})


@pytest.mark.parametrize("state", sorted(FINAL))
async def test_checkpoints_go_and_everything_else_stays(store: Store, clock: Clock, state: RunState) -> None:
    run = await ended(store, state)
    async with store.write() as tx:
        tx.unit.run_ids.add(run.id)
        tx.unit.steps.append(lambda batch: batch.change(run.id, generation=2))
    for number in (1, 2):
        await checkpoint(store, f"{run.id}:{number}", number)
    other = await ended(store, id=f"{run.id}0")
    before = await told(store, run), await store.journal(run.id)
    clock.pass_seconds(2 * WEEK)
    async with store.write() as tx:  # it has just ended
        tx.unit.run_ids.add(other.id)
        tx.unit.steps.append(lambda batch: batch.change(other.id))

    keep = Keep(checkpoints=timedelta(days=7))
    assert await removable(store, keep) == Removed(runs=1, checkpoints=3)
    assert await remove_some(store, keep) == Removed(runs=1, checkpoints=3)
    assert await removable(store, keep) == await remove_some(store, keep) == Removed()

    assert await threads(store) == [other.id]
    pruned = await store.run(run.id)
    assert pruned.pruned_at == clock.now
    assert replace(pruned, pruned_at=None, updated_at=run.updated_at, generation=0) == run
    assert (await told(store, run)).count(SECRET) == before[0].count(SECRET)
    assert await store.journal(run.id) == before[1]


async def test_payloads_go_and_what_names_and_proves_stays(store: Store, clock: Clock) -> None:
    run = await ended(store)
    effects, (asked,), journal = (
        await store.effects(run.id),
        await store.reviews(run_ids=[run.id]),
        await store.journal(run.id),
    )
    clock.pass_seconds(2 * WEEK)

    assert await removable(store, ALL) == Removed(runs=1, checkpoints=1, payloads=1, events=1)
    assert await remove_some(store, Keep(checkpoints=None, payloads=timedelta(days=7)))

    assert SECRET not in await told(store, run)
    assert await threads(store) == []
    expired = await store.run(run.id)
    assert expired.expired_at == expired.pruned_at == expired.event.expired_at == clock.now
    assert await store.effects(run.id) == [replace(effects[0], arguments=None, result=None)]
    assert await store.reviews(run_ids=[run.id]) == [replace(asked, arguments=None, evidence={}, expired_at=clock.now)]
    stored = await store.accepted_event(run.event.source, run.event.id)
    assert stored is not None
    assert (stored.digest, stored.run_ids) == (run.event.digest, (run.id,))
    entries = await store.journal(run.id)
    assert_unbroken(entries)
    assert entries[:-1] == journal
    assert (entries[-1].kind, entries[-1].actor) == (JournalKind.NOTE, "retention")


async def test_an_event_that_started_nothing_loses_its_data_too(store: Store, clock: Clock) -> None:
    lonely = event("lonely", data=SECRET, received_at=NOW)
    async with store.write() as tx:
        tx.add_event(lonely, EventState.ACCEPTED)
    clock.pass_seconds(2 * WEEK)

    assert await removable(store, ALL) == await remove_some(store, ALL) == Removed(events=1)

    assert (await store.event(lonely.uid)).event == replace(lonely, data=None, expired_at=clock.now)


async def test_what_two_of_one_process_delete_at_once_is_deleted_and_told_once(store: Store) -> None:
    run = await ended(store, RunState.CANCELLED)

    async def forget() -> Removed:
        async with store.write() as tx:
            removed = tx.expire_runs([run.id])
        return removed

    assert await asyncio.gather(forget(), forget()) == [Removed(runs=1, checkpoints=1, payloads=1), Removed()]
    assert [entry.actor for entry in await store.journal(run.id)].count("retention") == 1


async def test_two_that_delete_at_once_delete_everything_once_in_small_batches(
    store: Store, other: Store, clock: Clock
) -> None:
    count = 2 * MOST + 5
    runs = await asyncio.gather(*(begin(store, event=event(received_at=NOW)) for _ in range(count)))
    async with store.write() as tx:
        for run in runs:
            tx.cancel(run.id, by="ann")
    await asyncio.gather(*(checkpoint(store, run.id) for run in runs))
    clock.pass_seconds(2 * WEEK)

    async def work(store: Store) -> Removed:
        removed = Removed()
        while some := await remove_some(store, ALL):
            assert max(some.runs / 2, some.payloads, some.events) <= MOST
            removed += some
        return removed

    mine, theirs = await asyncio.gather(work(store), work(other))

    mine += theirs
    assert mine == Removed(runs=count, checkpoints=count, payloads=count, events=count)
    assert await threads(store) == []
