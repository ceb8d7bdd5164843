"""Several keys for one provider: when one is refused the next is taken, in the same call."""

from __future__ import annotations

import logging
import time
from collections.abc import AsyncGenerator, Callable, Sequence

import httpx2

log = logging.getLogger(__name__)

#: How long a refused key is not tried again, in seconds.
REST = 600.0

#: HTTP statuses that refuse the key, whatever the request.
REFUSED = (401, 403)

#: How providers call it, in a 429, that a key has used up what was paid for; asking more slowly would not help.
USED_UP = ("insufficient_quota", "billing_hard_limit_reached", "quota_exceeded", "billing_not_active")


class KeyRing(httpx2.Auth):
    """The keys of one provider, for its HTTP client. The first that is not resting is used.

    Where all are refused the provider's refusal stands, as it would with one key. While all rest, the one that has
    rested longest is tried.
    """

    def __init__(self, keys: Sequence[str], *, rest: float = REST, clock: Callable[[], float] = time.monotonic) -> None:
        """A ring of at least one key.

        Args:
            rest: seconds for which a refused key is not tried.
        """
        self._keys = tuple(keys)
        self._rest, self._clock = rest, clock
        self._rests_until: dict[str, float] = {}

    async def async_auth_flow(self, request: httpx2.Request) -> AsyncGenerator[httpx2.Request, httpx2.Response]:
        """The request with one key after the other, until one is not refused."""
        for key in self._to_try():
            request.headers["Authorization"] = f"Bearer {key}"
            response = yield request
            if not await _refuses(response):
                self._rests_until.pop(key, None)
                return
            self._rests_until[key] = self._clock() + self._rest
            log.warning(
                "key %d of %d for %s was refused (%d); it is not tried again for %d s",
                *(self._keys.index(key) + 1, len(self._keys), request.url.host, response.status_code, self._rest),
            )

    def _to_try(self) -> list[str]:
        now = self._clock()
        fresh = [key for key in self._keys if self._rests_until.get(key, now) <= now]
        return fresh or [min(self._keys, key=self._rests_until.__getitem__)]


async def _refuses(response: httpx2.Response) -> bool:
    """Whether it is the key that is refused, and not the request or its pace."""
    if response.status_code != 429:
        return response.status_code in REFUSED
    await response.aread()
    try:
        error = response.json()["error"]
    except (ValueError, LookupError, TypeError):
        return False
    return isinstance(error, dict) and any(error.get(name) in USED_UP for name in ("code", "type"))
