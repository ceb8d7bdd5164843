"""A circuit breaker: who asks a system that is away is told so at once, until one call has found it back."""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass

from eventwright.tools.contract import NotDone

#: A system may ask for a longer wait than this; after an hour one call looks whether it is back all the same.
LONGEST = 3600.0
#: Characters of its last error that are repeated.
LONGEST_REASON = 300


class ProviderDown(NotDone):
    """The system has failed again and again, and nobody asks it for now. Nothing was done.

    A run waits until it may be asked again, and spends no attempt (`Policy.patience`).

    Attributes:
        providers: which system; or which systems, where each could have stood in for the other.
        retry_after: seconds until the first of them may be asked again.
    """

    retry_after: float

    def __init__(self, message: str, *, providers: tuple[str, ...], retry_after: float) -> None:
        self.providers = providers
        super().__init__(message, retry_after=retry_after)


@dataclass(frozen=True, kw_only=True)
class Tolerance:
    """When a system counts as away, and for how long nobody asks it then. Seconds.

    Attributes:
        failures: so many in a row, without an answer between them, are enough.
        window: they count for so long.
        first: nobody asks for so long; each call that then looks in vain doubles it. Never less than the system itself
            asked for (Retry-After).
        most: but not beyond this.
    """

    failures: int = 3
    window: float = 60.0
    first: float = 5.0
    most: float = 300.0


class Breaker:
    """Stands before one system, in one process.

    Closed, it counts failures in a row. Open, it refuses every call. When its time is up one call is let through to
    look, the probe: an answer closes it, a failure opens it again for longer. It is used by one thread.
    """

    def __init__(
        self, name: str, tolerance: Tolerance | None = None, *, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self.name = name
        self._tolerance, self._clock = tolerance or Tolerance(), clock
        self._failed_at: deque[float] = deque()
        #: When it may be asked again; None while it is closed.
        self._asks_again_at: float | None = None
        self._probe_since: float | None = None
        self._opened = 0
        self._why = ""
        #: Counts its changes: what a call says that began before one is news no more.
        self._era = 0

    @property
    def is_open(self) -> bool:
        """Whether calls are refused, but for a probe."""
        return self._asks_again_at is not None

    def suspect(self) -> None:
        """It was down for somebody else, who knows: the next failure is one too many."""
        if not self.is_open:
            missing = self._tolerance.failures - 1 - len(self._failed_at)
            self._failed_at.extend([self._clock()] * missing)

    def check(self) -> None:
        """Raises ProviderDown if a call would be refused now."""
        if self._asks_again_at is None:
            return
        wait = self._asks_again_at - self._clock()
        if self._probe_since is not None and self._clock() < self._probe_since + self._tolerance.window:
            wait = max(wait, self._tolerance.first)
        if wait > 0:
            raise self._down(wait)

    @contextmanager
    def call(self, is_away: Callable[[Exception], bool]) -> Iterator[None]:
        """Make a call while the block is open.

        Args:
            is_away: which errors of the call speak against the system. With any other it has answered.

        Raises:
            ProviderDown: the call is refused; or it came to nothing, and nobody asks there any more.
        """
        self.check()
        if self.is_open:
            self._era += 1
            self._probe_since = self._clock()
        era = self._era
        try:
            yield
        except Exception as error:
            if not is_away(error):
                self._answered(era)
                raise
            self._failed(era, error)
            # What may have been done after all is not called undone.
            if self._asks_again_at is None or not isinstance(error, NotDone):
                raise
            raise self._down(max(self._asks_again_at - self._clock(), 0.0)) from error
        except BaseException:
            if era == self._era:
                self._probe_since = None  # it saw nothing; the next one looks
            raise
        self._answered(era)

    def _answered(self, era: int) -> None:
        if era != self._era:
            return
        self._failed_at.clear()
        if self.is_open:
            self._era += 1
            self._asks_again_at = self._probe_since = None
            self._opened = 0

    def _failed(self, era: int, error: Exception) -> None:
        if era != self._era:
            return
        now, tolerance = self._clock(), self._tolerance
        self._failed_at.append(now)
        while self._failed_at[0] < now - tolerance.window:
            self._failed_at.popleft()
        if not self.is_open and len(self._failed_at) < tolerance.failures:
            return
        wait = min(tolerance.first * 2.0**self._opened, tolerance.most)
        wanted = min(getattr(error, "retry_after", None) or 0.0, LONGEST)
        self._era += 1
        self._opened += 1
        self._asks_again_at, self._probe_since = now + max(wait, wanted), None
        self._failed_at.clear()
        self._why = (str(error) or type(error).__name__)[:LONGEST_REASON]

    def _down(self, wait: float) -> ProviderDown:
        return ProviderDown(f"{self.name} is down: {self._why}", providers=(self.name,), retry_after=wait)
