"""Events in the store, on SQLite and on PostgreSQL alike. Refusals first."""

from __future__ import annotations

import asyncio
from dataclasses import replace

import pytest
from tests.conformance.world import NOW, begin, event, store_new

from eventwright.runs.errors import DuplicateEvent, UnknownRun
from eventwright.runs.event import new_id
from eventwright.runs.records import EventState
from eventwright.runs.store import Store


async def test_a_duplicate_in_one_batch_is_refused_and_its_neighbours_are_stored(store: Store) -> None:
    names = ["a", "b", "a", "c", "a"]

    async def add(name: str) -> None:
        async with store.write() as tx:
            tx.add_event(event(name), EventState.ACCEPTED)

    answers = await asyncio.gather(*(add(name) for name in names), return_exceptions=True)

    assert store.committer.commits == 1
    assert [type(answer) for answer in answers if answer is not None] == [DuplicateEvent, DuplicateEvent]
    assert sorted(stored.event.id for stored in await store.events()) == ["a", "b", "c"]


async def test_a_duplicate_of_an_older_event_is_refused_with_its_run(store: Store) -> None:
    first = await begin(store)
    second = replace(first, id=new_id("run"), event=replace(first.event, uid=new_id("evt")))

    with pytest.raises(DuplicateEvent, match=first.event.id):
        await store_new(store, second)

    with pytest.raises(UnknownRun):
        await store.run(second.id)


async def test_two_processes_that_get_one_event_at_once_store_it_once(store: Store, other: Store) -> None:
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


async def test_a_refused_event_leaves_its_name_free(store: Store) -> None:
    async with store.write() as tx:
        tx.add_event(event("a"), EventState.REFUSED, {"title": "unknown version"})
        tx.add_event(event("a"), EventState.REFUSED, {"title": "unknown version"})
    assert await store.accepted_event("/tests", "a") is None

    async with store.write() as tx:
        tx.add_event(event("a"), EventState.ACCEPTED)

    assert await store.accepted_event("/tests", "a") is not None
    assert len(await store.events(state="refused")) == 2


async def test_an_event_comes_back_as_it_was_stored_digest_and_all(store: Store) -> None:
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
