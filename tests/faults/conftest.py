"""What the tests of faults share: a service of several processes, some of which are about to be killed."""

from __future__ import annotations

import asyncio
import json
import os
import re
import signal
import sys
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from contextlib import asynccontextmanager, suppress
from itertools import count
from pathlib import Path
from typing import Any, ClassVar

import pytest
from tests.faults.books import Provider
from tests.faults.chores import ALL

from eventwright.app.composition import App, open_app
from eventwright.app.settings import Settings
from eventwright.runs.event import Event, new_id
from eventwright.runs.records import Run
from eventwright.runs.states import FINAL

ROOT = Path(__file__).parents[2]


class Service:
    """A database, a Redis and a provider, and the processes that share them."""

    #: Times for tests that are not about the usual ones.
    brisk: ClassVar = {"lease_seconds": 1.5, "heartbeat_seconds": 0.5, "sweep_seconds": 0.5}

    def __init__(self, folder: Path, database_url: str, redis_url: str) -> None:
        self.folder = folder
        self.urls = {"database_url": database_url, "redis_url": redis_url}
        self.provider = Provider(folder / "ledger")
        self._processes: dict[asyncio.subprocess.Process, Path] = {}
        self._numbers = count()

    def settings(self, **changes: Any) -> Settings:
        return Settings(**{"home": self.folder, **self.urls, **changes})

    def environment(self, **changes: Any) -> dict[str, str]:
        """What a process of the service finds in its environment."""
        settings = self.settings(**changes).model_dump(exclude_none=True, exclude_unset=True)
        return {**os.environ} | {f"EVENTWRIGHT_{name.upper()}": str(value) for name, value in settings.items()}

    # -- processes ---------------------------------------------------------------------------------------------------

    async def start(
        self, *, go: Path | None = None, hurt: Mapping[str, Any] | None = None, **changes: Any
    ) -> asyncio.subprocess.Process:
        """A worker in a process of its own, open; with `go`, it begins to work when that file is there.

        Args:
            hurt: what is wrong with it; see `hurt.py`.
            changes: to the settings.
        """
        words = ("tests.faults.worker_process", str(self.provider.path), *([str(go)] if go else []))
        process = await self._run(words, hurt, **changes)
        assert process.stdout is not None
        assert await process.stdout.readline() == b"open\n", self.log(process)
        return process

    async def serve(
        self, *, hurt: Mapping[str, Any] | None = None, **changes: Any
    ) -> tuple[asyncio.subprocess.Process, str]:
        """`eventwright api` in a process of its own, once it answers, and its URL; see `start`."""
        own = {"host": "127.0.0.1", "port": 0, "workflows": "tests.faults.chores"}
        process = await self._run(("eventwright.app.cli", "api"), hurt, **own | changes)
        while not (found := re.search(r"is up at (http://\S+)", self.log(process))):
            assert process.returncode is None, self.log(process)
            await asyncio.sleep(0.05)
        return process, found[1]

    async def _run(
        self, words: Sequence[str], hurt: Mapping[str, Any] | None, **changes: Any
    ) -> asyncio.subprocess.Process:
        log = self.folder / f"process-{next(self._numbers)}.log"
        program = () if hurt is None else ("tests.faults.hurt", json.dumps(hurt))
        with log.open("w") as errors:
            process = await asyncio.create_subprocess_exec(
                *(sys.executable, "-W", "error", "-m", *program, *words),
                stdout=asyncio.subprocess.PIPE,
                stderr=errors,
                cwd=ROOT,
                env=self.environment(**changes),
            )
        self._processes[process] = log
        return process

    def log(self, process: asyncio.subprocess.Process) -> str:
        """What the process has logged so far."""
        return self._processes[process].read_text()

    async def end_all(self) -> None:
        for process, log in self._processes.items():
            with suppress(ProcessLookupError):
                process.send_signal(signal.SIGKILL)
            await process.communicate()
            print(f"--- {log.name}, exit code {process.returncode}\n{log.read_text()[-4000:]}")  # noqa: T201

    @asynccontextmanager
    async def app(self, **changes: Any) -> AsyncIterator[App]:
        """A process that sends and asks; this one."""
        settings = self.settings(**changes)
        async with open_app(settings, workflows=ALL, resources=[self.provider]) as app:
            yield app

    @asynccontextmanager
    async def working(self, **changes: Any) -> AsyncIterator[App]:
        """The same, at work; drained at the end."""
        async with self.app(**changes) as app:
            stopping = asyncio.Event()
            work = asyncio.create_task(app.work(stopping))
            try:
                yield app
            finally:
                stopping.set()
                await work

    # -- what is done and waited for ----------------------------------------------------------------------------------

    async def send(self, app: App, workflow: str, count: int = 1, *, seconds: float = 0.0) -> list[str]:
        """Events that start runs of the workflow: the runs' ids."""
        events = [
            Event(id=new_id("event"), source="/test", type=workflow, data={"seconds": seconds}) for _ in range(count)
        ]
        receipts = await asyncio.gather(*(app.engine.receive(event) for event in events))
        return [receipt.runs[0].id for receipt in receipts]

    async def runs(self, app: App, ids: Sequence[str]) -> list[Run]:
        return list(await asyncio.gather(*(app.store.run(run_id) for run_id in ids)))

    async def final(self, app: App, ids: Sequence[str]) -> list[Run]:
        """The runs, once all of them are final; pytest's timeout is the only limit."""
        waiting = set(ids)
        while waiting:
            waiting -= {run.id for run in await self.runs(app, sorted(waiting)) if run.state in FINAL}
            await asyncio.sleep(0.05)
        return await self.runs(app, ids)

    async def eventually(self, holds: Callable[[], Awaitable[object]] | Callable[[], object]) -> None:
        """Wait until something holds; pytest's timeout is the only limit."""
        while True:
            answer = holds()
            if await answer if asyncio.iscoroutine(answer) else answer:
                return
            await asyncio.sleep(0.02)

    # -- what happened -----------------------------------------------------------------------------------------------

    def ledger(self, what: str) -> Counter[str]:
        """How often this happened at the provider, by run."""
        return Counter(line["run"] for line in self.provider.find(what))

    def together(self) -> int:
        """How many naps were taken at the same time, at most."""
        asleep = most = 0
        for line in self.provider.lines():
            asleep += {"doze": 1, "woke": -1}.get(line["what"], 0)
            most = max(most, asleep)
        return most


@pytest.fixture
async def service(tmp_path: Path, database_url: str, redis_url: str) -> AsyncIterator[Service]:
    service = Service(tmp_path, database_url, redis_url)
    yield service
    await service.end_all()
