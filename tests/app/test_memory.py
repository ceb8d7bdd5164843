"""A process that works for long holds no more than one that has just begun: nothing grows by the run."""

from __future__ import annotations

import asyncio
import gc
from collections import deque
from pathlib import Path
from typing import Any

from eventwright.app.composition import App, open_app
from eventwright.app.settings import Settings
from eventwright.runs.event import Event
from eventwright.runs.states import RunState

#: Runs of each half.
HALF = 1000
#: What may be held more after the second half, counted in objects and in what containers hold: caches that were not
#: full yet, the loop's own books. One entry that is left behind by each run is twice as much.
SLACK = HALF // 2


def held() -> tuple[int, int]:
    """How many objects there are, and how much the containers among them hold, those of plain values included."""
    gc.collect()
    tracked = gc.get_objects()
    # The collector does not look after a dictionary of plain strings, but whatever holds it leads there.
    plain = {id(one): one for one in gc.get_referents(*tracked) if type(one) is dict and not gc.is_tracked(one)}
    # By type: asked for their class, stand-ins of libraries would load what they stand for.
    containers = [one for one in tracked if issubclass(type(one), dict | list | set | deque)]
    return len(tracked), sum(map(len, [*containers, *plain.values()]))


async def end_some(app: App, begin: int) -> None:
    """Runs that read, write and end; their events say the same, so that no cache has more to keep."""
    data = {"account": "ann", "amount": "10"}
    events = [Event(id=str(begin + number), source="/t", type="refund.urgent", data=data) for number in range(HALF)]
    for first in range(0, HALF, 100):
        await asyncio.gather(*(app.engine.receive(event) for event in events[first : first + 100]))
    while (await app.store.counts()).get(("fragile", RunState.COMPLETED)) != begin + HALF:
        await asyncio.sleep(0.2)
    while app.engine.active:
        await asyncio.sleep(0.2)


async def test_the_second_thousand_runs_leave_nothing_behind(
    tmp_path: Path, sqlite_url: str, redis_url: str, bank: Any, paying_workflow: Any
) -> None:
    settings = Settings(home=tmp_path, database_url=sqlite_url, redis_url=redis_url)
    workflow = paying_workflow("fragile", "refund.urgent")
    async with open_app(settings, workflows=[workflow], resources=[bank]) as app:
        stopping = asyncio.Event()
        work = asyncio.create_task(app.work(stopping))
        await end_some(app, 0)
        bank.paid.clear()
        before = held()
        await end_some(app, HALF)
        bank.paid.clear()
        after = held()
        stopping.set()
        await work
    objects, elements = (later - earlier for earlier, later in zip(before, after, strict=True))
    print(f"{objects} objects, {elements} elements more")  # noqa: T201 - worth reading with -s
    assert objects < SLACK, f"{objects} objects more"
    assert elements < SLACK, f"containers hold {elements} more"
