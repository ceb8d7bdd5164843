"""Whether the database takes writes, going by the latest one: a disk that is full can still be read."""

from __future__ import annotations

import time

from eventwright.runs.errors import StoreUnavailable, Trouble

#: Seconds for which a write that was not taken counts. Then the next one is worth a try, though none came meanwhile.
MEMORY = 10.0


class Health:
    """What became of the latest write."""

    def __init__(self) -> None:
        self._trouble: Trouble | None = None
        self._until = 0.0

    def written(self) -> None:
        """A write was taken."""
        self._trouble = None

    def not_written(self, error: Exception) -> None:
        """A write failed; only a database that is to blame for it counts."""
        if isinstance(error, StoreUnavailable):
            self._trouble, self._until = error.trouble, time.monotonic() + MEMORY

    def check(self) -> None:
        """Raise StoreUnavailable if the latest write was not taken, and that is not long ago."""
        if self._trouble is not None and time.monotonic() < self._until:
            raise StoreUnavailable(f"the latest write was not taken: {self._trouble}", trouble=self._trouble)
