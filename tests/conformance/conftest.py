"""Fixtures of the store's tests: a store on either database, seen by two processes, with a clock that stands."""

from __future__ import annotations

from collections.abc import AsyncIterator

import pytest
from tests.conformance.world import Clock

from eventwright.runs.store import Store


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
