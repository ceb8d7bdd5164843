"""A world whose model is a server with a script."""

from __future__ import annotations

from collections.abc import AsyncIterator

import pytest
from tests.outside import ModelServer, World, a_model, a_world


@pytest.fixture
async def model_world(sqlite_url: str) -> AsyncIterator[tuple[World, ModelServer]]:
    server = ModelServer()
    async with a_model(server) as model, a_world(sqlite_url, model) as world:
        yield world, server
