"""A storm: everything at once that goes wrong in a year, over a deployment of real processes, for some minutes.

    python -m tests.faults.storm --minutes 30 --store both --seed 7        (make soak)

API processes, workers, a Valkey and a database are up; senders send events by HTTP, reviewers answer what is asked, the
provider does what it is told, and all of them keep books. Meanwhile faults come about, two at a time, drawn by a seed:
the seed draws the faults, but at which instruction of which process they strike, nobody can draw twice. At the end it
is calm, everything has to come to rest, and the auditor compares the database with the books. It prints a table; the
exit code is 1 if there is any contradiction, and then the folder with books, logs and database stays.
"""

from __future__ import annotations

import argparse
import asyncio
import os
import random
import shutil
import sys
import tempfile
import time
from collections import Counter
from collections.abc import AsyncIterator, Callable, Iterable, Mapping, Sequence
from contextlib import aclosing, asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path

import sqlalchemy as sa
from rich.console import Console
from tests.faults.auditor import Expected, Outside, audit
from tests.faults.books import Book
from tests.faults.scenes import SCENES
from tests.faults.storm_faults import FAULTS, Scene
from tests.faults.storm_people import People
from tests.faults.storm_table import Jumps, Report, facts
from tests.faults.storm_world import StoreKind, World, a_world

from eventwright.runs import schema
from eventwright.runs.database import Database, is_away, open_database
from eventwright.runs.states import FINAL

#: How many faults there may be at the same time.
AT_ONCE = 2
#: Seconds for which it may take until everything rests, once it is calm, beside what leases cost.
PATIENCE = 180.0
#: Of a storm's time, what is left for the calm after it, and for the auditor.
CALM = 0.08
#: Seconds between two lines that say how it goes.
TELL = 30.0
REVIEWERS = ("ann", "bob")

EXPECTED = Expected(
    starts=SCENES["errand"].expected.starts | SCENES["hurry"].expected.starts,
    approved=SCENES["errand"].expected.approved,
    does={**SCENES["errand"].expected.does, **SCENES["hurry"].expected.does},
)


@dataclass(frozen=True, kw_only=True)
class Storm:
    """How hard it blows.

    Attributes:
        seconds: for which faults come about; or until the plan is through.
        plan: the names of the faults, one after the other; by default they are drawn.
        pace: events in a second.
        times: settings of the processes, in seconds, that are not the usual ones.
    """

    store: StoreKind
    seed: int
    seconds: float
    plan: Sequence[str] = ()
    pace: float = 3.0
    senders: int = 6
    apis: int = 2
    workers: int = 3
    times: Mapping[str, float] = field(default_factory=dict)
    tell: Callable[[str], object] = print

    async def rage(self, folder: Path) -> Report:
        """Let it happen, in this folder, and say what came of it."""
        began = time.monotonic()
        with tempfile.TemporaryDirectory(prefix="ew-") as servers:
            async with a_world(
                folder, Path(servers), self.store, apis=self.apis, workers=self.workers, times=self.times
            ) as world:
                weather = Weather(self, world)
                async with aclosing(weather.people), weather.lived_through():
                    await weather.blow()
                await _all_end_warmly(world)
                if world.postgres is not None:
                    await asyncio.to_thread(world.postgres.dump, folder / "eventwright.sql")
                return await judge(
                    store=self.store,
                    seed=self.seed,
                    seconds=time.monotonic() - began,
                    world=world,
                    people=weather.people,
                    faults=weather.faults,
                )


class Weather:
    """A storm while it rages."""

    def __init__(self, storm: Storm, world: World) -> None:
        self.storm, self.world = storm, world
        self.people = People(world, storm.pace)
        self.faults: Counter[str] = Counter()
        self._book = Book(world.folder / "faults", world.clock.time)
        self.now: Counter[str] = Counter()
        self._began = time.monotonic()
        self._lease = storm.times.get("lease_seconds", 6.0)

    @asynccontextmanager
    async def lived_through(self) -> AsyncIterator[None]:
        """Events are sent and people decide, in here; afterwards, until everything has come to rest."""
        over = asyncio.Event()
        async with asyncio.TaskGroup() as tasks:
            sending = tasks.create_task(self.people.send(self.storm.senders, over))
            for_ever = [tasks.create_task(self.people.review(name)) for name in REVIEWERS]
            for_ever.append(tasks.create_task(self.people.operate(self._lease)))
            for_ever.append(tasks.create_task(self._tell_how_it_goes()))
            yield
            over.set()
            self.storm.tell(f"{self._clock()}  calm; waiting until everything rests")
            await self._come_to_rest(sending)
            for task in (sending, *for_ever):
                task.cancel()

    async def blow(self) -> None:
        """Let faults come about."""
        if self.storm.plan:
            scene = Scene(self.world, self.people, random.Random(self.storm.seed), self._lease)
            for name in self.storm.plan:
                # Everybody is there and at work: a fault that strikes nobody proves nothing.
                await self.world.all_up()
                await asyncio.sleep(self._lease)
                await self._befall(name, scene)
            return
        until = time.monotonic() + self.storm.seconds
        async with asyncio.TaskGroup() as tasks:
            for lane in range(AT_ONCE):
                tasks.create_task(self._blow_until(until, random.Random(f"{self.storm.seed}-{lane}")))

    async def _blow_until(self, until: float, chance: random.Random) -> None:
        scene = Scene(self.world, self.people, chance, self._lease)
        while time.monotonic() < until:
            name = chance.choice([name for name in FAULTS[self.storm.store] if not self.now[name]])
            await self._befall(name, scene)
            await asyncio.sleep(chance.expovariate(2 / self._lease))

    async def _befall(self, name: str, scene: Scene) -> None:
        self.faults[name] += 1
        self.now[name] += 1
        self._book.write(fault=name, is_over=False)
        try:
            await FAULTS[self.storm.store][name](scene)
        finally:
            self.now[name] -= 1
            self._book.write(fault=name, is_over=True)

    async def _come_to_rest(self, sending: asyncio.Task[None]) -> None:
        try:
            async with asyncio.timeout(PATIENCE + 10 * self._lease), open_database(self.world.url) as database:
                await asyncio.wait([sending])
                while await _busy(database):
                    await asyncio.sleep(0.2)
        except TimeoutError:
            async with open_database(self.world.url) as database:
                left = await _busy(database)
            self.world.findings.append(f"it has not come to rest: {left}")

    async def _tell_how_it_goes(self) -> None:
        async with open_database(self.world.url) as database:
            while True:
                await asyncio.sleep(TELL)
                try:
                    left = await _busy(database)
                except Exception as error:
                    if not is_away(error):
                        raise
                    left = {"the database is away": 0}
                self.storm.tell(self._line(left))

    def _line(self, left: Mapping[str, int]) -> str:
        count, now = self.people.count, ", ".join(+self.now) or "none"
        waiting = ", ".join(f"{state} {times}" for state, times in left.items()) or "nothing"
        findings = f"  FINDINGS {len(self.world.findings)}" if self.world.findings else ""
        return (
            f"{self._clock()}  faults {self.faults.total()}, now: {now};  events {count['events taken']};  "
            f"decisions {count['decisions acknowledged']};  open: {waiting}{findings}"
        )

    def _clock(self) -> str:
        minutes, seconds = divmod(int(time.monotonic() - self._began), 60)
        return f"{self.storm.store:8} {minutes:02}:{seconds:02}"


async def _busy(database: Database) -> dict[str, int]:
    """What does not rest: runs by state that are not final, and bells that are not heard."""
    state, wakeups = schema.runs.c.state, sa.select(sa.func.count()).select_from(schema.wakeups)
    query = (
        sa.select(state, sa.func.count().label("runs")).where(state.not_in([str(one) for one in FINAL])).group_by(state)
    )

    def read(connection: sa.Connection) -> dict[str, int]:
        found: dict[str, int] = {row.state: row.runs for row in connection.execute(query)}
        bells = connection.execute(wakeups).scalar_one()
        return found | ({"wake-ups": bells} if bells else {})

    return await database.read(read)


async def _all_end_warmly(world: World) -> None:
    await asyncio.gather(*(slot.close() for slot in world.slots))
    world.slots.clear()


async def judge(
    *, store: StoreKind, seed: int, seconds: float, world: World, people: People, faults: Mapping[str, int]
) -> Report:
    """Compare the database with everybody's books."""
    outside = people.outside()
    violations = [
        *world.findings,
        *_lost(people, outside),
        *await audit(world.url, outside, EXPECTED),
    ]
    told = await facts(
        world.url,
        outside,
        count=people.count,
        repeats=world.provider.repeats(),
        jumps=Jumps(world.clock.jumps),
    )
    named = {name: faults.get(name, 0) for name in FAULTS[store]}
    return Report(store=store, seed=seed, seconds=seconds, faults=named, facts=told, violations=violations)


def _lost(people: People, outside: Outside) -> Iterable[str]:
    """What senders and reviewers know among themselves, without asking any database."""
    taken = {event_id for _, event_id in outside.accepted}
    for line in people.sent.lines():
        if line["id"] not in taken:
            yield f"event {line['id']} was never taken"
    deciders: dict[str, set[str]] = {}
    for line in people.decided.lines():
        deciders.setdefault(line["review"], set()).add(line["by"])
    for review, names in deciders.items():
        if len(names) > 1:
            yield f"the decisions of {sorted(names)} about review {review} were all acknowledged"


def main(arguments: Sequence[str] | None = None) -> int:
    """Rage as the command line says; the exit code."""
    parser = argparse.ArgumentParser(prog="python -m tests.faults.storm", description="a storm of random faults")
    parser.add_argument("--minutes", type=float, default=30.0, help="in all, whatever the number of stores")
    parser.add_argument("--store", choices=["both", "sqlite", "postgres"], default="both")
    parser.add_argument("--seed", type=int, default=None, help="draws the faults; printed if it is not given")
    parser.add_argument("--pace", type=float, default=Storm.pace, help="events in a second")
    parser.add_argument("--keep", action="store_true", help="keep books, logs and database also if all is well")
    chosen = parser.parse_args(arguments)
    seed = random.randrange(2**32) if chosen.seed is None else chosen.seed
    stores: Sequence[StoreKind] = ("sqlite", "postgres") if chosen.store == "both" else (chosen.store,)
    seconds = chosen.minutes * 60 * (1 - CALM) / len(stores)
    folder = Path(tempfile.mkdtemp(prefix="eventwright-storm-"))
    # In a pipe, lines are cut by whoever reads them.
    console = Console(width=None if sys.stdout.isatty() else 160, markup=False, highlight=False)
    console.print(f"seed {seed}, books and logs in {folder}")
    reports = []
    for store in stores:
        storm = Storm(store=store, seed=seed, seconds=seconds, pace=chosen.pace, tell=console.print)
        (folder / store).mkdir()
        reports.append(asyncio.run(storm.rage(folder / store)))
        reports[-1].show(console)
    return concluded(reports, folder, console, keep=chosen.keep)


def concluded(reports: Iterable[Report], folder: Path, console: Console, *, keep: bool = False) -> int:
    """The exit code; the folder is gone when nothing was found, and nobody wants to keep it."""
    found = sum(len(report.violations) for report in reports)
    if found or keep:
        console.print(f"{found} violations; everything is kept in {folder}")
    else:
        shutil.rmtree(folder)
    return 1 if found else 0


if __name__ == "__main__":
    # A developer's own settings and keys must not reach the processes.
    for name in list(os.environ):
        if name.startswith(("EVENTWRIGHT_", "OPENAI_", "LANGCHAIN_", "LANGSMITH_")):
            del os.environ[name]
    os.environ["LANGGRAPH_STRICT_MSGPACK"] = "true"
    sys.exit(main())
