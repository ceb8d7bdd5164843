"""Fixtures of the tools' tests."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator

import pytest
from tests.tools.model_provider import Provider


@pytest.fixture
async def provider() -> AsyncIterator[Provider]:
    it = Provider()
    server = await asyncio.start_server(it.serve, "127.0.0.1", 0)
    it.port = server.sockets[0].getsockname()[1]
    yield it
    server.close()
    await server.wait_closed()
