"""The systems outside that this process asks: which of them are away, and how much of each is in use.

A tool that asks one says so, and shares with all runs of the process what is known of it:

    @tool
    async def find(number: str, *, call: Call) -> Parcel:
        async with call.use(Providers).asked("parcels.example.com", limits=Limits(at_once=5)):
            ...
"""

from __future__ import annotations

import time
from collections.abc import AsyncIterator, Callable, Iterable
from contextlib import asynccontextmanager

import httpx

from eventwright.tools.breaker import Breaker, Tolerance
from eventwright.tools.contract import Permanent, Resources, ToolError, Unusable
from eventwright.tools.faults import PASSING_STATUSES
from eventwright.tools.limits import Limiter, Limits, Place

UNLIMITED = Limits()


def says_away(error: Exception) -> bool:
    """Whether an error says that the system outside is away, overloaded or broken, rather than anything about the call:
    a tool's own `NotDone` or `ToolError`, a connection that failed, a time that ran out, HTTP 429 or 5xx."""
    if isinstance(error, httpx.HTTPStatusError):
        status = error.response.status_code
        return status in PASSING_STATUSES or status >= 500
    if isinstance(error, Permanent | Unusable):
        return False
    return isinstance(error, ToolError | httpx.TransportError | ConnectionError | TimeoutError)


class Providers:
    """What this process knows of the systems that it asks. A resource for tools: `call.use(Providers)`.

    Each worker process finds out for itself, and each has the limits to itself.
    """

    def __init__(self, tolerance: Tolerance | None = None, *, clock: Callable[[], float] = time.monotonic) -> None:
        """Nobody is known yet.

        Args:
            tolerance: when a system counts as away, and for how long.
            clock: tells the time in seconds.
        """
        self._tolerance, self._clock = tolerance, clock
        self._breakers: dict[str, Breaker] = {}
        self._limiters: dict[tuple[str, Limits], Limiter] = {}

    @classmethod
    def of(cls, resources: Resources) -> Providers:
        """The one among the resources, the last one given; without one, one that knows nothing yet."""
        given = [item for item in resources.items if isinstance(item, cls)]
        return given[-1] if given else cls()

    @asynccontextmanager
    async def asked(
        self,
        host: str,
        *,
        part: str = "",
        limits: Limits = UNLIMITED,
        tokens: int = 0,
        is_away: Callable[[Exception], bool] = says_away,
    ) -> AsyncIterator[Place]:
        """Ask a system while the block is open, once there is a place among the calls to it.

        Args:
            host: which system; one of few names, for each is remembered.
            part: of the system, which may be away while the rest is not: one of its models.
            limits: of the system, all its parts together.
            tokens: how many the call takes at most; `took()` of what is yielded says how many it really took.
            is_away: which errors raised in the block say that the system is away.

        Raises:
            ProviderDown: the system is away, and is not asked; or it was asked in vain, and counts as away now.
        """
        name = f"{part} at {host}" if part else host
        breaker = self._breaker(name)
        breaker.check()
        async with self._limiter(host, limits).place(tokens) as place:
            with breaker.call(is_away):
                yield place

    def suspect(self, names: Iterable[str]) -> None:
        """These, by the names that ProviderDown gives them, were down when another process asked: here as well the next
        failure is one too many, so that no run pays for what is known of them."""
        for name in names:
            self._breaker(name).suspect()

    def _breaker(self, name: str) -> Breaker:
        found = self._breakers.get(name)
        if found is None:
            found = self._breakers[name] = Breaker(name, self._tolerance, clock=self._clock)
        return found

    def _limiter(self, host: str, limits: Limits) -> Limiter:
        found = self._limiters.get((host, limits))
        if found is None:
            found = self._limiters[host, limits] = Limiter(limits)
        return found
