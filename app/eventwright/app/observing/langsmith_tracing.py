"""LangSmith, by its usual environment variables: LANGSMITH_TRACING=true, LANGSMITH_API_KEY, LANGSMITH_ENDPOINT.

LangChain sends what goes into every node, model and tool, and what comes out: the state of the graph, with all that a
customer wrote. Here it leaves through a client of ours, without what the workflow keeps from models and journals, and
without the secrets of this process. It leaves from threads of its own, out of a queue that is bounded: a LangSmith that
is away, slow or broken costs traces, and no run notices.
"""

from __future__ import annotations

import asyncio
import logging
import os
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from queue import Empty
from threading import Thread
from typing import Any

import langsmith
from langsmith.utils import tracing_is_enabled

from eventwright.graphs.twin import current_segment
from eventwright.runs.batch import Redact

log = logging.getLogger(__name__)

#: Traces (a node's beginning or end is one) that wait to be sent at most; what is more is dropped.
MOST_WAITING = 2_000
#: Milliseconds to connect, and to hear something.
TIMEOUT = (2_000, 10_000)
#: Seconds that the last traces have to leave when the process ends.
FAREWELL = 3.0


@asynccontextmanager
async def tracing_to_langsmith(redact: Redact) -> AsyncIterator[None]:
    """While the block is open, what LangChain traces leaves redacted; where tracing is off, nothing changes.

    Args:
        redact: (workflow, version, JSON) → the JSON without what may not leave.
    """
    if not tracing_is_enabled():
        yield
        return
    # Its threads would keep a process that ends until a server that is away has refused every trace.
    os.environ.setdefault("LANGSMITH_USE_DAEMON", "true")

    def anonymize(value: dict[str, Any]) -> dict[str, Any]:
        segment = current_segment.get()
        workflow, version = ("", "") if segment is None else (segment.run.workflow, segment.run.version)
        return dict(redact(workflow, version, value))

    try:
        client = langsmith.Client(anonymizer=anonymize, timeout_ms=TIMEOUT)
    except Exception:  # whatever is wrong with its settings
        log.exception("LangSmith tracing is off: its settings cannot be used")
        langsmith.configure(enabled=False)
        try:
            yield
        finally:
            langsmith.configure(enabled=None)
        return
    if client.tracing_queue is not None:
        client.tracing_queue.maxsize = MOST_WAITING
    langsmith.configure(client=client)
    try:
        yield
    finally:
        langsmith.configure(client=None)
        await _farewell(client)


async def _farewell(client: langsmith.Client) -> None:
    """Let the last traces leave, for a few seconds; then forget those that are left."""

    def close() -> None:
        client.flush(timeout=FAREWELL)
        try:
            while client.tracing_queue is not None:
                client.tracing_queue.get_nowait()
        except Empty:
            pass
        client.close(timeout=0)

    thread = Thread(target=close, name="last traces", daemon=True)
    thread.start()
    await asyncio.to_thread(thread.join, FAREWELL + 1)
