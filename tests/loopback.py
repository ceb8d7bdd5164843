"""Servers of tests on the loopback. None of their conversations outlives them."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager

Conversation = Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]]


@asynccontextmanager
async def on_loopback(converse: Conversation) -> AsyncIterator[int]:
    """Let a server hold a conversation with everybody who connects, while the block is open.

    A conversation that ends closes its connection. In the end those that still go on are broken off and waited for:
    asyncio's own server leaves them to whoever collects the garbage.

    Yields:
        The port.

    Raises:
        Exception: what a conversation failed with, but for a client that has gone.
    """
    conversations: set[asyncio.Task[None]] = set()

    async def to_the_end(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            await converse(reader, writer)
            writer.close()
            await writer.wait_closed()
        except (ConnectionError, asyncio.IncompleteReadError):
            return  # the client has gone, as clients do
        finally:
            writer.transport.abort()

    def connected(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        conversations.add(asyncio.create_task(to_the_end(reader, writer)))

    server = await asyncio.start_server(connected, "127.0.0.1", 0)
    try:
        yield server.sockets[0].getsockname()[1]
    finally:
        server.close()
        await server.wait_closed()
        for conversation in conversations:
            conversation.cancel()
        ended = await asyncio.gather(*conversations, return_exceptions=True)
    for error in ended:
        if isinstance(error, Exception):
            raise error
