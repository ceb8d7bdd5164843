"""The peer DBOS: a queued workflow of the same five steps with the same state, in one process.

Its own settings: a queue that lets as many workflows run at once as we do, asynchronous steps, and a queue that is
looked at every tenth of a second (its default is a second).
"""

from __future__ import annotations

import asyncio
import time
from typing import Any

from dbos import DBOS, DBOSClient, EnqueueOptions
from graphs import PAYLOAD

QUEUE = "bench"


@DBOS.step()
async def step(state: dict[str, Any]) -> dict[str, Any]:
    """What a node of the graph does: one word more in the log, and the state is kept."""
    return {**state, "log": [*state["log"], "step"]}


@DBOS.workflow()
async def five_steps(state: dict[str, Any]) -> dict[str, Any]:
    """Five steps, one after the other."""
    for _ in range(5):
        state = await step(state)
    return state


async def _finished(client: DBOSClient) -> int:
    return len(await client.list_workflows_async(status="SUCCESS", load_input=False, load_output=False))


async def runs_per_second(url: str, *, runs: int, concurrency: int) -> float:
    """Finished workflows a second of a process that finds `runs` of them in its queue."""
    DBOS(config={"name": "bench", "system_database_url": url, "run_admin_server": False, "log_level": "ERROR"})
    DBOS.launch()
    try:
        client = DBOSClient(system_database_url=url)
        options: EnqueueOptions = {"queue_name": QUEUE, "workflow_name": five_steps.__qualname__}
        for _ in range(runs):
            await client.enqueue_async(options, {"log": [], "payload": PAYLOAD})
        began = time.perf_counter()
        # Only from here on is there somebody who looks at the queue.
        await DBOS.register_queue_async(QUEUE, worker_concurrency=concurrency, polling_interval_sec=0.1)
        while await _finished(client) < runs:  # noqa: ASYNC110 - as others see it
            await asyncio.sleep(0.2)
        taken = time.perf_counter() - began
        client.destroy()
    finally:
        DBOS.destroy()
    return runs / taken
