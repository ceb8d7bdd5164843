"""Where trials are held: from a scene to the trials of every boundary that it crosses, and to their results."""

from __future__ import annotations

import asyncio
import json
import sys
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import count
from pathlib import Path
from typing import Any

from tests.faults.trials import Fault

ROOT = Path(__file__).parents[2]
#: Failpoints that time brings about; how often depends on how long it takes. Their first crossings stand for all.
TIMED = ("heart", "sweep")
MOST_TIMED = 2


@dataclass(frozen=True)
class Result:
    """How a trial went.

    Attributes:
        fates: what befell its processes, in order; where some were frozen, their ends come after, and one process more.
        met: whether every fault came about.
        seconds: from the first process to the end of the last, without those that were frozen.
        doubts: how often a person was asked whether a call happened.
        crossed: how often the last process crossed each failpoint.
    """

    trial: str
    fates: Sequence[str]
    met: bool
    doubts: int
    seconds: float
    crossed: Mapping[str, int]
    violations: Sequence[str]


@dataclass
class Theatre:
    """Holds trials in processes of its own.

    Args:
        folder: for everything that they write.
        database: see `trials.Trial`.
        redis: the same.
        at_once: how many take place at once.
    """

    folder: Path
    database: str
    redis: str
    at_once: int = 6
    _plans: count[int] = field(default_factory=count)

    async def crossings(self, scene: str) -> list[tuple[str, int]]:
        """Every boundary that the scene crosses when nothing goes wrong: the failpoint, and the how-manieth time."""
        [clean] = await self.hold([(scene, ())])
        assert clean.violations == []
        return [
            (point, nth)
            for point, times in clean.crossed.items()
            for nth in range(1, 1 + (min(times, MOST_TIMED) if point.startswith(TIMED) else times))
        ]

    async def hold(self, plans: Iterable[tuple[str, Sequence[Fault]]], *, events: int = 1) -> list[Result]:
        """Hold one trial for each scene with its faults."""
        stage = self.folder / f"trials-{next(self._plans)}"
        trials = [
            {
                "scene": scene,
                "folder": str(stage / _name(number, scene, faults)),
                "database": self.database,
                "redis": self.redis,
                "faults": [vars(fault) for fault in faults],
                "events": events,
            }
            for number, (scene, faults) in enumerate(plans)
        ]
        pipe = asyncio.subprocess.PIPE
        server = await asyncio.create_subprocess_exec(
            *(sys.executable, "-m", "tests.faults.trials"), stdin=pipe, stdout=pipe, stderr=pipe, cwd=ROOT
        )
        plan = json.dumps({"at_once": self.at_once, "trials": trials}).encode()
        lines, errors = await server.communicate(plan)
        assert server.returncode == 0, errors.decode()
        return [Result(**json.loads(line)) for line in lines.splitlines()]


def _name(number: int, scene: str, faults: Sequence[Fault]) -> str:
    return "-".join([str(number), scene, *(f"{fault.kind}.{fault.point}.{fault.nth}" for fault in faults)])


def told(results: Sequence[Result]) -> dict[str, Any]:
    """The figures of many trials, for people."""
    seconds = sorted(result.seconds for result in results)
    return {
        "trials": len(results),
        "met their faults": sum(result.met for result in results),
        "asked whether a call happened": sum(result.doubts for result in results),
        "violations": sum(len(result.violations) for result in results),
        "median seconds": seconds[len(seconds) // 2],
        "most seconds": seconds[-1],
    }


def crossed(results: Iterable[Result]) -> Counter[str]:
    """How often the last processes of these trials crossed each failpoint."""
    return sum((Counter(result.crossed) for result in results), Counter())
