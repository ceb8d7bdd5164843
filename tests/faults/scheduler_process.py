"""A scheduler to be killed: it makes up for every minute that was missed, by a database clock that stands still.

    python -m tests.faults.scheduler_process DATABASE_URL TIME GO

It begins when there is a file GO, and goes on until SIGTERM.
"""

from __future__ import annotations

import asyncio
import signal
import sys
from datetime import datetime
from pathlib import Path
from typing import Any, TypedDict

from langgraph.graph import START, StateGraph

from eventwright.graphs.runner import Runner
from eventwright.graphs.schedules import Every
from eventwright.graphs.workflow import Workflow, Workflows
from eventwright.queue.engine import Engine
from eventwright.queue.scheduler import Scheduler
from eventwright.runs.event import new_id
from eventwright.runs.store import Store
from eventwright.tools.contract import Resources


class State(TypedDict, total=False):
    scheduled_for: str


async def look(state: State) -> dict[str, Any]:
    return {}


graph = StateGraph(State)
graph.add_node("look", look)
graph.add_edge(START, "look")
minutely = Workflow(
    "minutely", version="1", graph=graph, triggers=[Every("* * * * *", type="minute.come", missed="all")]
)


def scheduler_on(store: Store) -> Scheduler:
    return Scheduler(Engine(store, Workflows([minutely]), Runner(store, Resources()), worker=new_id("worker")))


async def main(database_url: str, time: str, go: str) -> None:
    stopping = asyncio.Event()
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, stopping.set)
    # How many minutes were missed does not depend on how long the test takes.
    async with Store.open(database_url, clock=lambda: datetime.fromisoformat(time)) as store:
        while not Path(go).exists():
            await asyncio.sleep(0.01)
        await scheduler_on(store).run(stopping)


if __name__ == "__main__":
    asyncio.run(main(*sys.argv[1:]))
