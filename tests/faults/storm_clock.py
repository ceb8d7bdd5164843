"""The clock of a machine, which somebody sets ahead while its processes run: all of them see it at once."""

from __future__ import annotations

import mmap
import struct
import time
from pathlib import Path

_SECONDS = struct.Struct("d")


class Clock:
    """The clock that the processes which open this file share.

    Args:
        path: the file; made when it is not there, with the clock as it is.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        #: What was set here: the time that it showed, and by how many seconds it was set ahead then.
        self.jumps: list[tuple[float, float]] = []
        if not path.exists():
            path.write_bytes(_SECONDS.pack(0.0))
        with path.open("r+b") as file:
            self._shared = mmap.mmap(file.fileno(), _SECONDS.size)

    def ahead(self) -> float:
        """How many seconds it was set ahead."""
        (seconds,) = _SECONDS.unpack(self._shared[:])
        return float(seconds)

    def time(self) -> float:
        """Seconds since 1970, by this clock; whatever the process that asks takes the time to be."""
        return time.clock_gettime(time.CLOCK_REALTIME) + self.ahead()

    def set_ahead(self, seconds: float) -> None:
        """Set it so many seconds further ahead."""
        self.jumps.append((self.time(), seconds))
        self._shared[:] = _SECONDS.pack(self.ahead() + seconds)

    def close(self) -> None:
        """Let go of the file."""
        self._shared.close()
