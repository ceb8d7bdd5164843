"""Trials: the same scene over and over, each time with other deaths. `python -m tests.faults.trials < plan.json`

Everything is imported once, with no thread and no event loop running; then every process of every trial is a fork of
this one, and begins to work within milliseconds. The plan is {"at_once": n, "trials": [...]}; for each trial, one line
of JSON tells how it went.

A trial's processes come one after the other. Each but the last meets its fault at the n-th crossing of a failpoint, and
is killed or frozen there, all of it at once. The last one meets none, and goes on to the end; who was frozen wakes up
then, and does what it was about to do. Then comes the auditor.
"""

from __future__ import annotations

import asyncio
import ctypes
import gc
import json
import logging
import os
import shutil
import signal
import sqlite3
import sys
import threading
import time
import traceback
from collections import Counter
from collections.abc import Callable, Coroutine
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, NoReturn

import sqlalchemy as sa
from redis import Redis
from tests.faults.auditor import audit
from tests.faults.books import Book
from tests.faults.play import Cast, play
from tests.faults.scenes import SCENES, serve_mail

from eventwright.app.settings import Settings
from eventwright.runs import schema
from eventwright.runs.database import open_database
from eventwright.runs.failpoints import Failpoint, on_failpoint
from eventwright.runs.migrate import newest
from eventwright.tools.crm import Crm
from eventwright.tools.payments import PaymentLedger

#: Times for trials: a death costs the lease.
TIMES = {"lease_seconds": 1.0, "heartbeat_seconds": 0.3, "sweep_seconds": 0.25}
#: Seconds after which a process that has not come to its end is hanging.
PATIENCE = 30.0
#: Seconds for which a thread beside the event loop hangs before everything is killed, in the middle of SQLite's
#: transactions for example: the loop goes on meanwhile, and whoever does not wait for the commit is found out.
LATE = 0.1
#: A number of Linux's.
PR_SET_PDEATHSIG = 1
#: The folder, beside those of the trials, in which the embedded systems stand as they are at the beginning.
EMBEDDED = "embedded"


@dataclass(frozen=True)
class Fault:
    """What befalls a process when it crosses a failpoint for the n-th time."""

    point: str
    nth: int
    kind: Literal["kill", "stop"] = "kill"


@dataclass(frozen=True)
class Trial:
    """One scene, with its faults.

    Attributes:
        folder: where everything of it is kept.
        database: the URL of a migrated SQLite file that is copied, or that of migrated PostgreSQL databases, one for
            each place at which trials take place at once, with `{slot}` for its number; they are emptied.
        redis: the URL of a Redis without a database number, of which each place has one.
        faults: one for each process but the last.
        events: how many are sent.
    """

    scene: str
    folder: Path
    database: str
    redis: str
    faults: tuple[Fault, ...] = ()
    events: int = 1

    @classmethod
    def of(cls, plan: dict[str, Any]) -> Trial:
        faults = tuple(Fault(**fault) for fault in plan["faults"])
        return cls(**plan | {"folder": Path(plan["folder"]), "faults": faults})


class Doom:
    """Counts the crossings of failpoints, and brings the fault about.

    Args:
        fault: what befalls this process, and where.
        lock: the file of a SQLite database. Whoever is frozen while they write there freezes everybody, so a process
            is not frozen before none of its threads does.
    """

    def __init__(self, fault: Fault | None, lock: Path | None = None) -> None:
        self.crossed: Counter[str] = Counter()
        self._fault = fault
        self._lock = lock if lock is not None and lock.exists() else None
        self._counting = threading.Lock()

    def __call__(self, point: Failpoint) -> None:
        with self._counting:
            self.crossed[point] += 1
            meets = self._fault is not None and (point, self.crossed[point]) == (self._fault.point, self._fault.nth)
        if meets and self._fault is not None:
            if self._fault.kind == "kill":
                if threading.current_thread() is not threading.main_thread():
                    time.sleep(LATE)
                os.kill(os.getpid(), signal.SIGKILL)
            self._freeze()

    def _freeze(self) -> None:
        with closing(sqlite3.connect(self._lock or ":memory:", isolation_level=None, timeout=PATIENCE)) as connection:
            connection.execute("BEGIN IMMEDIATE")
            connection.execute("ROLLBACK")
            os.kill(os.getpid(), signal.SIGSTOP)
            time.sleep(0.05)  # another thread may be the one that the signal finds first


def run(trial: Trial, slot: int) -> dict[str, Any]:
    """How the trial went: what befell its processes, what the auditor found, what it took."""
    settings = _prepared(trial, slot)
    scene = SCENES[trial.scene]
    mail = fork(lambda: serve_mail(trial.folder), trial.folder / "mail.log") if scene.mail else None
    if mail is not None:
        settings = settings.model_copy(update={"smtp_url": _once_there(trial.folder / "smtp_url")})
    fates, frozen = [], []
    began = time.monotonic()
    for number, fault in enumerate((*trial.faults, None)):
        process = fork(lambda fault=fault: _act(trial, settings, fault), trial.folder / f"{number}.log")
        fate = await_fate(process)
        fates.append(fate)
        if fate == "stopped":
            frozen.append(process)
        if fate == "ended":
            break
    met = len(fates) > len(trial.faults)
    took = time.monotonic() - began
    for process in frozen:
        os.kill(process, signal.SIGCONT)
        fates.append(await_fate(process))
    if frozen:
        # Who woke up may have rung for a run that is over by now; whoever hears that bell takes it down.
        after = fork(lambda: _act(trial, settings, None), trial.folder / "after.log")
        fates.append(await_fate(after))
    found = trial.folder / "violations.json"
    audited = await_fate(fork(lambda: _audit(trial, settings, found), trial.folder / "audit.log"))
    if mail is not None:
        os.kill(mail, signal.SIGKILL)
        os.waitpid(mail, 0)
    violations = json.loads(found.read_text()) if audited == "ended" else [f"the auditor has {audited}"]
    violations += [f"a process has {fate}" for fate in fates if fate in ("failed", "hung")]
    crossed = trial.folder / "crossed.json"
    counts = json.loads(crossed.read_text()) if crossed.exists() else {}
    doubts = sum(line["type"] == "respond" for line in Book(trial.folder / "deciding").lines())
    facts = {"fates": fates, "met": met, "doubts": doubts, "seconds": round(took, 2), "crossed": counts}
    return facts | {"violations": violations}


def _prepared(trial: Trial, slot: int) -> Settings:
    """A database, a Redis and embedded systems of the trial's own."""
    database = trial.database
    shutil.copytree(trial.folder.parent / EMBEDDED, trial.folder)
    if database.startswith("sqlite"):
        template = database.partition("///")[2]
        database = f"sqlite:///{trial.folder / 'eventwright.db'}"
        shutil.copy(template, trial.folder / "eventwright.db")
    else:
        database = database.replace("{slot}", str(slot))
        emptied = await_fate(fork(lambda: _empty(database), trial.folder / "emptied.log"))
        assert emptied == "ended", (trial.folder / "emptied.log").read_text()
    redis = "none"
    if SCENES[trial.scene].bells:
        redis = f"{trial.redis}?db={slot}"
        with Redis.from_url(redis) as client:
            client.flushdb()
    return Settings(home=trial.folder, database_url=database, redis_url=redis, **TIMES)


async def _act(trial: Trial, settings: Settings, fault: Fault | None) -> None:
    doom = Doom(fault, trial.folder / "eventwright.db")
    on_failpoint(doom)

    def over() -> NoReturn:
        if fault is None:
            (trial.folder / "crossed.json").write_text(json.dumps(doom.crossed))
        os._exit(0)  # without a goodbye: it may not be needed, and would take half a second

    await play(SCENES[trial.scene], settings, over, events=trial.events)


async def _empty(database_url: str) -> None:
    tables = ", ".join(table.name for table in schema.metadata.sorted_tables)
    async with open_database(database_url) as database:
        await database.write(lambda connection: connection.execute(sa.text(f"TRUNCATE {tables}")))


async def _fill(folder: Path) -> None:
    async with Crm.open(folder / "crm.db"), PaymentLedger.open(folder / "payments.db"):
        pass


async def _audit(trial: Trial, settings: Settings, found: Path) -> None:
    scene = SCENES[trial.scene]
    violations = await audit(settings.database, Cast(scene, trial.folder).outside(), scene.expected)
    found.write_text(json.dumps(violations))


# -- processes ---------------------------------------------------------------------------------------------------------


def fork(work: Callable[[], Coroutine[Any, Any, None]], log: Path) -> int:
    """A process that does this and ends, with what it says in `log`; its id."""
    process = os.fork()
    if process == 0:
        _be(work, log)
    return process


def die_with_parent() -> None:
    """Be killed, also if frozen, when the process that made this one is gone: a test that is cut off leaves nobody."""
    ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGKILL)


def _be(work: Callable[[], Coroutine[Any, Any, None]], log: Path) -> NoReturn:
    die_with_parent()
    file = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
    os.dup2(file, 1)
    os.dup2(file, 2)
    logging.basicConfig(level=logging.INFO)
    try:
        asyncio.run(work())
    except BaseException:  # noqa: BLE001 - whatever it was, the process ends here
        traceback.print_exc()
        os._exit(1)
    os._exit(0)


def await_fate(process: int) -> str:
    """What becomes of a process: killed, stopped, ended, failed, or hung, which it is killed for."""
    until = time.monotonic() + PATIENCE
    while time.monotonic() < until:
        changed, status = os.waitpid(process, os.WNOHANG | os.WUNTRACED)
        if changed and os.WIFSTOPPED(status):
            return "stopped"
        if changed and os.WIFSIGNALED(status):
            return "killed"
        if changed:
            return "ended" if os.waitstatus_to_exitcode(status) == 0 else "failed"
        time.sleep(0.002)
    os.kill(process, signal.SIGKILL)
    os.waitpid(process, 0)
    return "hung"


def _once_there(file: Path) -> str:
    until = time.monotonic() + PATIENCE
    while not file.exists():
        if time.monotonic() > until:
            raise TimeoutError(f"nobody has written {file}")
        time.sleep(0.002)
    return file.read_text()


def main() -> None:
    die_with_parent()
    plan = json.load(sys.stdin)
    trials = [Trial.of(trial) for trial in plan["trials"]]
    newest()  # the migrations are modules too
    for folder in {trial.folder.parent / EMBEDDED for trial in trials}:
        folder.mkdir(parents=True)
        await_fate(fork(lambda folder=folder: _fill(folder), folder.with_suffix(".log")))
    gc.freeze()
    slots = set(range(plan["at_once"]))
    running: dict[int, tuple[int, Trial]] = {}

    def reap() -> None:
        process, _ = os.wait()
        slot, trial = running.pop(process)
        slots.add(slot)
        print((trial.folder / "result.json").read_text(), flush=True)  # noqa: T201 - the test reads it

    for trial in trials:
        if not slots:
            reap()
        slot = slots.pop()
        process = os.fork()
        if process == 0:
            _be_trial(trial, slot)
        running[process] = (slot, trial)
    while running:
        reap()


def _be_trial(trial: Trial, slot: int) -> NoReturn:
    die_with_parent()
    try:
        result = run(trial, slot)
    except BaseException:  # noqa: BLE001 - the process ends here, and its result says why
        result = {"fates": [], "met": False, "doubts": 0, "seconds": 0.0, "crossed": {}}
        result |= {"violations": [traceback.format_exc()]}
    (trial.folder / "result.json").write_text(json.dumps(result | {"trial": trial.folder.name}))
    os._exit(0)


if __name__ == "__main__":
    main()
