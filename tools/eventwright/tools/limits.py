"""How much of a system outside may be used at a time: calls at once, requests and tokens a minute. For one process."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager, suppress
from dataclasses import dataclass, fields

MINUTE = 60.0
#: What is missing of a bucket by a rounding error is not missing.
NOTHING = 1e-6


@dataclass(frozen=True, kw_only=True)
class Limits:
    """How much of a system this process uses at a time; None is as much as it likes.

    Attributes:
        at_once: calls under way.
        requests_per_minute: calls begun. A minute's worth may come in one burst, then they come evenly.
        tokens_per_minute: tokens read and written by models, likewise.

    Raises:
        ValueError: a limit is below 1; nothing would ever be called.
    """

    at_once: int | None = None
    requests_per_minute: int | None = None
    tokens_per_minute: int | None = None

    def __post_init__(self) -> None:
        for each in fields(self):
            most = getattr(self, each.name)
            if most is not None and most < 1:
                raise ValueError(f"{each.name}={most!r} would let nothing through; leave it out for no limit")


class Bucket:
    """So much a minute: full at first, refilled evenly. Who comes first is served first, however much they want."""

    def __init__(self, per_minute: int) -> None:
        self._most = float(per_minute)
        self._left = self._most
        self._filled_at: float | None = None
        self._turn = asyncio.Lock()  # wakes those who wait in their order
        self._refunded = asyncio.Event()

    async def take(self, amount: float) -> float:
        """Wait until so much is there, and take it. Whoever wants more than the bucket holds gets all that it holds.

        Returns:
            What was taken.
        """
        amount = min(amount, self._most)
        async with self._turn:
            while (missing := amount - self._now_left()) > NOTHING:
                self._refunded.clear()
                with suppress(TimeoutError):
                    async with asyncio.timeout(missing * MINUTE / self._most):
                        await self._refunded.wait()
            self._left -= amount
        return amount

    def give_back(self, amount: float) -> None:
        """Put back what was taken and not used; a negative amount is what was used beyond it."""
        self._left = min(self._now_left() + amount, self._most)
        self._refunded.set()

    def _now_left(self) -> float:
        now = asyncio.get_running_loop().time()
        if self._filled_at is not None:
            self._left = min(self._left + (now - self._filled_at) * self._most / MINUTE, self._most)
        self._filled_at = now
        return self._left


class Place:
    """A call's place among those that a limit lets through."""

    def __init__(self, bucket: Bucket | None = None, tokens: float = 0.0) -> None:
        self._bucket, self._tokens = bucket, tokens

    def took(self, tokens: int) -> None:
        """How many tokens the call really took. Say it once; unsaid, it took what was set aside for it."""
        if self._bucket is not None:
            self._bucket.give_back(self._tokens - tokens)


class Limiter:
    """Lets calls through as its limits say. One per system and process, used by one event loop."""

    def __init__(self, limits: Limits) -> None:
        self._at_once = None if limits.at_once is None else asyncio.Semaphore(limits.at_once)
        self._requests = None if limits.requests_per_minute is None else Bucket(limits.requests_per_minute)
        self._tokens = None if limits.tokens_per_minute is None else Bucket(limits.tokens_per_minute)

    @asynccontextmanager
    async def place(self, tokens: int = 0) -> AsyncIterator[Place]:
        """Wait for a place, and hold it while the block is open. Who is cancelled while waiting leaves nothing behind.

        Args:
            tokens: how many the call will take at most.
        """
        async with AsyncExitStack() as held:
            if self._at_once is not None:
                await held.enter_async_context(self._at_once)
            if self._requests is not None:
                await self._requests.take(1)
            yield Place(self._tokens, await self._set_aside(tokens))

    async def _set_aside(self, tokens: int) -> float:
        if self._tokens is None:
            return 0.0
        try:
            return await self._tokens.take(tokens)
        except asyncio.CancelledError:
            if self._requests is not None:
                self._requests.give_back(1)  # it was never made
            raise
