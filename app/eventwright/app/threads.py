"""Threads for synchronous nodes and tools: as many as run at once, for a queue in front of them could never end."""

from __future__ import annotations

import asyncio
from concurrent.futures import ThreadPoolExecutor

#: Threads that one run may have at once: synchronous nodes side by side, and the synchronous tools they wait for.
THREADS_OF_A_RUN = 32


def make_room_for_threads(runs: int) -> None:
    """Let the running event loop start as many threads as so many runs at once may need; they start when needed.

    asyncio's own few are not enough: a synchronous node keeps its thread while it waits for a synchronous tool, which
    needs another one. The loop ends them when it is closed.
    """
    threads = ThreadPoolExecutor(runs * THREADS_OF_A_RUN, thread_name_prefix="eventwright-sync")
    asyncio.get_running_loop().set_default_executor(threads)
