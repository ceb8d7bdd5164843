"""A process that works for long holds no more than one that has just begun: nothing grows by the run."""

from __future__ import annotations

import asyncio
import gc
import logging
from collections import deque
from collections.abc import Iterator
from itertools import pairwise
from pathlib import Path
from statistics import median
from typing import Any

import pytest

from eventwright.app.composition import App, open_app
from eventwright.app.settings import Settings
from eventwright.runs.event import Event
from eventwright.runs.states import RunState

#: Runs that fill the caches, and then rounds of so many more.
FIRST, ROUNDS, MORE = 1000, 3, 200


@pytest.fixture(autouse=True)
def nothing_logged() -> Iterator[None]:
    """pytest keeps every record of a log, which a test before this one may have turned up."""
    logging.disable()
    yield
    logging.disable(logging.NOTSET)


def held() -> tuple[int, int]:
    """How many objects there are, and how much the containers among them hold, those of plain values included."""
    gc.collect()
    tracked = gc.get_objects()
    # The collector does not look after a dictionary of plain strings, but whatever holds it leads there.
    plain = {id(one): one for one in gc.get_referents(*tracked) if type(one) is dict and not gc.is_tracked(one)}
    # By type: asked for their class, stand-ins of libraries would load what they stand for.
    containers = [one for one in tracked if issubclass(type(one), dict | list | set | deque)]
    return len(tracked), sum(map(len, [*containers, *plain.values()]))


async def end_some(app: App, begin: int, count: int) -> None:
    """Runs that read, write and end; their events say the same, so that no cache has more to keep."""
    data = {"account": "ann", "amount": "10"}
    events = [Event(id=str(begin + number), source="/t", type="refund.urgent", data=data) for number in range(count)]
    for first in range(0, count, 100):
        await asyncio.gather(*(app.engine.receive(event) for event in events[first : first + 100]))
    while (await app.store.counts()).get(("fragile", RunState.COMPLETED)) != begin + count:
        await asyncio.sleep(0.1)
    while app.engine.active:
        await asyncio.sleep(0.1)


@pytest.mark.soak
async def test_the_second_thousand_runs_leave_nothing_behind(
    tmp_path: Path, sqlite_url: str, redis_url: str, bank: Any, paying_workflow: Any
) -> None:
    settings = Settings(home=tmp_path, database_url=sqlite_url, redis_url=redis_url)
    workflow = paying_workflow("fragile", "refund.urgent")
    async with open_app(settings, workflows=[workflow], resources=[bank]) as app:
        stopping = asyncio.Event()
        work = asyncio.create_task(app.work(stopping))
        await end_some(app, 0, FIRST)
        bank.paid.clear()
        samples = [held()]
        for number in range(ROUNDS):
            await end_some(app, FIRST + number * MORE, MORE)
            bank.paid.clear()
            samples.append(held())
        stopping.set()
        await work
    # A statement of a new length, or a sweep under way, shows in one round; what each run leaves behind shows in all.
    objects, elements = (
        median(later - earlier for earlier, later in pairwise(counts)) for counts in zip(*samples, strict=True)
    )
    print(f"{objects} objects, {elements} elements more in each {MORE} runs")  # noqa: T201 - worth reading with -s
    assert objects < MORE // 2
    assert elements < MORE // 2
