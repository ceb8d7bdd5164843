"""A process that something is wrong with: its clock, or that it is about to be killed.

    python -m tests.faults.hurt '{"clock": 7200, "kill": "intake.stored", "armed": "/tmp/now"}' MODULE [ARGUMENT ...]

runs MODULE as a program. With `clock` its own clock is so many seconds ahead, from before the first import; or it is
that of a machine, given by the path of a `storm_clock.Clock`. With `kill` it is killed at that failpoint, once there is
a file `armed`.
"""

from __future__ import annotations

import datetime
import json
import os
import runpy
import signal
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from tests.faults.storm_clock import Clock


def set_clock(ahead: Callable[[], float]) -> None:
    """From now on this process takes it to be so many seconds later than it is. Durations are measured as ever."""
    real_time, real_nanoseconds, real_datetime = time.time, time.time_ns, datetime.datetime

    class IsADatetime(type):
        def __instancecheck__(cls, value: object) -> bool:
            return isinstance(value, real_datetime)

    class Datetime(real_datetime, metaclass=IsADatetime):
        __slots__ = ()  # as large as a datetime, as what is written in C expects

        @classmethod
        def now(cls, tz: datetime.tzinfo | None = None) -> Any:
            return real_datetime.now(tz) + datetime.timedelta(seconds=ahead())

        @classmethod
        def utcnow(cls) -> Any:
            return cls.now(datetime.UTC).replace(tzinfo=None)

    time.time = lambda: real_time() + ahead()
    time.time_ns = lambda: real_nanoseconds() + int(ahead() * 1e9)
    datetime.datetime = Datetime  # type: ignore[misc]


def kill_at(point: str, armed: Path) -> None:
    """Be killed when the running code comes by this failpoint, once that file is there."""
    from eventwright.runs.failpoints import Failpoint, on_failpoint

    wanted = Failpoint(point)

    def hook(crossed: Failpoint) -> None:
        if crossed is wanted and armed.exists():
            os.kill(os.getpid(), signal.SIGKILL)

    on_failpoint(hook)


def main() -> None:
    hurt = json.loads(sys.argv[1])
    if "clock" in hurt:
        own = hurt["clock"]
        set_clock(Clock(Path(own)).ahead if isinstance(own, str) else lambda: own)
    if "kill" in hurt:
        kill_at(hurt["kill"], Path(hurt["armed"]))
    sys.argv = sys.argv[2:]
    runpy.run_module(sys.argv[0], run_name="__main__", alter_sys=True)


if __name__ == "__main__":
    main()
