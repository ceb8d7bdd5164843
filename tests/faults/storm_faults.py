"""The faults of a storm. Each comes, stays for some seconds, and is healed when its coroutine ends."""

from __future__ import annotations

import asyncio
import os
import signal
import sqlite3
from collections.abc import Awaitable, Callable, Mapping
from contextlib import closing, suppress
from dataclasses import dataclass
from random import Random

from tests.faults.storm_people import People
from tests.faults.storm_world import Slot, StoreKind, World

#: Seconds for which somebody waits until a fault finds whom it is meant for.
LOOK = 0.02
#: Seconds that a stranger, or a test that freezes a process, waits for SQLite's lock.
LOCK_SECONDS = 30.0


@dataclass
class Scene:
    """Where a fault comes about.

    Attributes:
        chance: what is not said is left to it.
        lease: seconds after which a process that says nothing has lost its runs.
    """

    world: World
    people: People
    chance: Random
    lease: float

    def seconds(self, leases_at_least: float, leases_at_most: float) -> float:
        """How long a fault lasts, in leases."""
        return self.lease * self.chance.uniform(leases_at_least, leases_at_most)

    async def one(self, slots: Callable[[], list[Slot]]) -> Slot:
        """One of them, as soon as there is one."""
        while not (there := slots()):
            await asyncio.sleep(LOOK)
        return self.chance.choice(there)


Fault = Callable[[Scene], Awaitable[None]]


# -- processes ---------------------------------------------------------------------------------------------------------


async def kill_worker(scene: Scene) -> None:
    """kill -9; its place is taken by another one."""
    slot = await scene.one(lambda: scene.world.up("worker"))
    slot.send(signal.SIGKILL)
    await slot.ended()


async def kill_api(scene: Scene) -> None:
    """kill -9 while requests are under way there."""

    def busy() -> list[Slot]:
        return [slot for slot in scene.world.up("api") if scene.people.under_way[slot.address or ""]]

    slot = await scene.one(busy)
    slot.send(signal.SIGKILL)
    await slot.ended()


async def deploy(scene: Scene) -> None:
    """SIGTERM: it drains, hands back what is left, and another one takes its place."""
    slot = await scene.one(lambda: scene.world.up("worker"))
    slot.send(signal.SIGTERM)
    await slot.ended()


async def deploy_api(scene: Scene) -> None:
    """SIGTERM: it answers what is under way, and another one takes its place."""
    slot = await scene.one(lambda: scene.world.up("api"))
    slot.send(signal.SIGTERM)
    await slot.ended()


async def freeze_worker(scene: Scene) -> None:
    """SIGSTOP for longer than the lease, then SIGCONT."""
    slot = await scene.one(lambda: scene.world.up("worker"))
    process = slot.process
    if process is None or process.returncode is not None:
        return
    slot.frozen = True
    try:
        if scene.world.store == "sqlite":
            await asyncio.to_thread(_stop_without_lock, scene.world, process.pid)
        else:
            os.kill(process.pid, signal.SIGSTOP)
        await asyncio.sleep(scene.seconds(1.2, 2.5))
    finally:
        slot.frozen = False
        with suppress(ProcessLookupError):
            process.send_signal(signal.SIGCONT)


def _stop_without_lock(world: World, process: int) -> None:
    """Stop it while nobody writes: frozen in a transaction it would keep SQLite's one lock from everybody."""
    with closing(_stranger(world)) as connection:
        connection.execute("BEGIN IMMEDIATE")
        with suppress(ProcessLookupError):
            os.kill(process, signal.SIGSTOP)
        connection.execute("ROLLBACK")


async def set_clock_of_machine(scene: Scene) -> None:
    """The machine's clock, which is SQLite's, is found to be late and set ahead by minutes or hours, for good."""
    scene.world.clock.set_ahead(60 * scene.chance.uniform(1, 180))


async def worker_of_another_time(scene: Scene) -> None:
    """One worker more, whose clock is hours late or ahead."""
    hours = scene.chance.choice([-1, 1]) * scene.chance.uniform(0.5, 30)
    slot = scene.world.add("worker", f"worker-off-{scene.chance.randrange(10**6)}", clock=3600 * hours)
    while not slot.is_up:
        await asyncio.sleep(LOOK)
    await asyncio.sleep(scene.seconds(1, 2))
    await scene.world.remove(slot)


# -- servers -----------------------------------------------------------------------------------------------------------


async def kill_redis(scene: Scene) -> None:
    """kill -9; it comes back after a while, empty."""
    await scene.world.valkey.kill()
    try:
        await asyncio.sleep(scene.seconds(0.2, 1.5))
    finally:
        await scene.world.valkey.start()


async def flush_redis(scene: Scene) -> None:
    """FLUSHALL, some times."""
    for _ in range(scene.chance.randint(1, 5)):
        with suppress(OSError, EOFError):  # it may be away just now: then it is empty anyway
            reader, writer = await asyncio.open_unix_connection(str(scene.world.valkey.socket))
            writer.write(b"FLUSHALL\r\n")
            await writer.drain()
            await reader.readline()
            writer.close()
            await writer.wait_closed()
        await asyncio.sleep(scene.seconds(0.02, 0.2))


async def crash_postgres(scene: Scene) -> None:
    """An immediate stop, which PostgreSQL has to recover from."""
    assert scene.world.postgres is not None
    await asyncio.to_thread(scene.world.postgres.crash)
    try:
        await asyncio.sleep(scene.seconds(0.05, 1.0))
    finally:
        await asyncio.to_thread(scene.world.postgres.start)


async def kill_backend(scene: Scene) -> None:
    """kill -9 of one of PostgreSQL's processes: it ends all others, and recovers by itself."""
    postgres = scene.world.postgres
    assert postgres is not None
    while not (there := await postgres.backends()):
        await asyncio.sleep(LOOK)
    with suppress(ProcessLookupError):
        os.kill(scene.chance.choice(there), signal.SIGKILL)
    await asyncio.sleep(scene.seconds(0.3, 0.6))


async def lock_sqlite(scene: Scene) -> None:
    """A stranger takes SQLite's lock, and keeps it for a while."""
    with closing(await asyncio.to_thread(_stranger, scene.world)) as connection:
        await asyncio.to_thread(connection.execute, "BEGIN IMMEDIATE")
        await asyncio.sleep(scene.seconds(0.2, 1.2))
        connection.execute("ROLLBACK")


def _stranger(world: World) -> sqlite3.Connection:
    return sqlite3.connect(
        world.folder / "eventwright.db", isolation_level=None, timeout=LOCK_SECONDS, check_same_thread=False
    )


# -- lines -------------------------------------------------------------------------------------------------------------


def cut(server: str) -> Fault:
    async def fault(scene: Scene) -> None:
        for _ in range(scene.chance.randint(1, 4)):
            scene.world.lines[server].cut()
            await asyncio.sleep(scene.seconds(0.02, 0.2))

    return fault


def hold(server: str) -> Fault:
    async def fault(scene: Scene) -> None:
        line = scene.world.lines[server]
        line.hold()
        try:
            await asyncio.sleep(scene.seconds(0.2, 2.2))
            if scene.chance.random() < 0.5:
                line.cut()  # what was said into the void never arrives
        finally:
            line.release()

    return fault


def delay(server: str) -> Fault:
    async def fault(scene: Scene) -> None:
        line = scene.world.lines[server]
        line.delay(scene.lease * scene.chance.choice([0.005, 0.02, 0.05, 0.1]))
        try:
            await asyncio.sleep(scene.seconds(0.5, 2.0))
        finally:
            line.delay(0)

    return fault


def refuse(server: str) -> Fault:
    async def fault(scene: Scene) -> None:
        line = scene.world.lines[server]
        line.refuse()
        line.cut()
        try:
            await asyncio.sleep(scene.seconds(0.2, 1.5))
        finally:
            line.accept()

    return fault


def _on(server: str) -> dict[str, Fault]:
    return {
        f"lines to {server} cut": cut(server),
        f"lines to {server} silent, nothing closed": hold(server),
        f"lines to {server} slow": delay(server),
        f"{server} not to be reached": refuse(server),
    }


_ANYWHERE: Mapping[str, Fault] = {
    "kill -9 of a worker": kill_worker,
    "kill -9 of an API under requests": kill_api,
    "worker replaced (SIGTERM)": deploy,
    "API replaced (SIGTERM)": deploy_api,
    "worker frozen for longer than its lease": freeze_worker,
    "Redis killed, back and empty": kill_redis,
    "FLUSHALL": flush_redis,
    **_on("Redis"),
}

#: By store, what may happen to it.
FAULTS: Mapping[StoreKind, Mapping[str, Fault]] = {
    "sqlite": {
        **_ANYWHERE,
        "SQLite locked by a stranger": lock_sqlite,
        "the machine's clock set ahead": set_clock_of_machine,
    },
    "postgres": {
        **_ANYWHERE,
        "PostgreSQL crashed, and recovers": crash_postgres,
        "kill -9 of a PostgreSQL backend": kill_backend,
        **_on("PostgreSQL"),
        "a worker whose clock is hours off": worker_of_another_time,
    },
}
