"""Fixtures of the tools' tests."""

from __future__ import annotations

from collections.abc import AsyncIterator

import pytest
from tests.loopback import on_loopback
from tests.tools.model_provider import Provider


@pytest.fixture
async def provider() -> AsyncIterator[Provider]:
    it = Provider()
    async with on_loopback(it.serve) as it.port:
        yield it
