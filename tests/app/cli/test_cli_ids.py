"""A long id is named by its end or its beginning, on both databases alike."""

from __future__ import annotations

from collections.abc import AsyncIterator

import pytest

from eventwright.app.commands.console import NotOne
from eventwright.app.commands.session import whole_id
from eventwright.runs.event import Event
from eventwright.runs.records import EventState
from eventwright.runs.store import Store

UIDS = ["evt_0001aa", "evt_0002bb", "evtX0003cc"]


@pytest.fixture
async def store(database_url: str) -> AsyncIterator[Store]:
    async with Store.open(database_url) as store:
        async with store.write() as tx:
            for uid in UIDS:
                tx.add_event(Event(id=uid, source="/test", type="t", data={}, uid=uid), EventState.ACCEPTED)
        yield store


@pytest.mark.parametrize("part", ["", "zz", "%", "001", "evt_0001aaa"])
async def test_a_part_that_fits_nothing_says_where_ids_are_listed(store: Store, part: str) -> None:
    with pytest.raises(NotOne, match="eventwright events"):
        await whole_id(store, "event", part)


async def test_a_part_that_fits_several_names_them_and_no_other(store: Store) -> None:
    with pytest.raises(NotOne) as told:
        await whole_id(store, "event", "evt_")
    assert told.value.candidates == ["evt_0002bb", "evt_0001aa"]


@pytest.mark.parametrize("part", ["aa", "01aa", "evt_0001", "evt_0001aa"])
async def test_the_end_the_beginning_and_the_whole_id_find_the_same(store: Store, part: str) -> None:
    assert await whole_id(store, "event", part) == "evt_0001aa"
