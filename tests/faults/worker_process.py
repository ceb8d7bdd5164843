"""A worker to be killed: the real composition on `chores`, configured by the environment like any other.

    python -m tests.faults.worker_process LEDGER [GO]

It says "open" on standard output once it is; with GO, it begins to work when there is a file of that name.
"""

from __future__ import annotations

import asyncio
import logging
import signal
import sys
from pathlib import Path

from tests.faults.books import Provider
from tests.faults.chores import ALL

from eventwright.app.composition import open_app
from eventwright.app.settings import Settings


async def main(ledger: str, go: str | None = None) -> None:
    logging.basicConfig(level=logging.INFO)
    stopping = asyncio.Event()
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, stopping.set)
    async with open_app(Settings(), workflows=ALL, resources=[Provider(Path(ledger))], works=True) as app:
        print("open", flush=True)  # noqa: T201 - the test waits for it
        while go is not None and not Path(go).exists():
            await asyncio.sleep(0.01)
        await app.work(stopping)


asyncio.run(main(*sys.argv[1:]))
