"""The journal and its times in the store, on SQLite and on PostgreSQL alike."""

from __future__ import annotations

import asyncio
from dataclasses import replace
from datetime import UTC, datetime
from typing import Any

from tests.conformance.world import NOW, Clock, assert_unbroken, begin

from eventwright.runs.chain import hash_of
from eventwright.runs.records import JournalKind, Run
from eventwright.runs.store import Store


async def test_the_chain_can_be_checked_from_what_the_database_gives_back(store: Store) -> None:
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


async def test_a_changed_entry_is_noticed(store: Store, database_url: str) -> None:
    run = await begin(store)
    async with store.write() as tx:
        tx.note(run.id, actor="test", data={"amount": 10})
    entry = (await store.journal(run.id))[-1]
    for forged in (replace(entry, data={"amount": 11}), replace(entry, actor="x"), replace(entry, prev="x")):
        assert hash_of(forged) != entry.hash


async def test_two_processes_that_write_about_one_run_keep_its_chain_whole(store: Store, other: Store) -> None:
    runs = [await begin(store) for _ in range(3)]

    async def note(store: Store, run: Run, number: int) -> None:
        async with store.write() as tx:
            tx.note(run.id, actor="test", data={"number": number})

    await asyncio.gather(*(note(s, run, n) for n in range(30) for run in runs for s in (store, other)))

    for run in runs:
        entries = await store.journal(run.id)
        assert len(entries) == 61
        assert_unbroken(entries)


async def test_times_come_back_aware_and_exact(store: Store, clock: Clock) -> None:
    clock.now = datetime(2026, 3, 1, 12, 0, 0, 123456, tzinfo=UTC)
    run = await begin(store)
    (entry,) = await store.journal(run.id)
    stored = await store.run(run.id)

    assert entry.at == clock.now
    assert entry.at.tzinfo is UTC
    assert (stored.created_at, stored.due_at) == (NOW, clock.now)
    assert stored.event.received_at == run.event.received_at
    assert await store.next_due() == clock.now


async def test_the_database_is_asked_for_the_time(database_url: str) -> None:
    async with Store.open(database_url) as store:
        run = await begin(store)
        assert (await store.now()).tzinfo is UTC
        (entry,) = await store.journal(run.id)
        assert entry.at is not None
        assert entry.at.tzinfo is UTC
