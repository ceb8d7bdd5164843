"""The processes of a service: API, worker and scheduler, in one or apart; how they begin, and how they end warmly."""

from __future__ import annotations

import asyncio
import gc
import logging
import os
import signal
import sys
import threading
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AbstractContextManager, asynccontextmanager, nullcontext
from functools import partial

from rich.table import Table
from rich.text import Text

from eventwright.app.commands.console import console
from eventwright.app.commands.logs import log_to_stderr
from eventwright.app.commands.places import redis_place, without_password
from eventwright.app.composition import App, open_app
from eventwright.app.observing.spans import exporting_spans
from eventwright.app.settings import Settings
from eventwright.graphs.check import check
from eventwright.guardrails.redaction import Redaction
from eventwright.queue.scheduler import Scheduler
from eventwright.queue.stall import watchdog
from eventwright.runs.errors import EventwrightError
from eventwright.runs.heartbeats import heartbeats

logger = logging.getLogger(__name__)

#: Seconds that a second signal, or the end of everything else, leaves before the process ends whatever it does.
AT_ONCE = 1.0


@asynccontextmanager
async def stopped_by_signals() -> AsyncIterator[asyncio.Event]:
    """Set at the first SIGINT or SIGTERM, which is the wish for a warm end; the second one ends the process at once."""
    stopping = asyncio.Event()
    loop, main = asyncio.get_running_loop(), asyncio.current_task()

    def heard(number: signal.Signals) -> None:
        if not stopping.is_set():
            console(stderr=True).print("\nfinishing what is under way; once more to end at once", style="dim")
            stopping.set()
            return
        # What runs in threads cannot be cancelled, and must not keep us.
        loop.call_later(AT_ONCE, os._exit, 128 + number)
        if main is not None:
            main.cancel()

    for number in (signal.SIGINT, signal.SIGTERM):
        loop.add_signal_handler(number, heard, number)
    try:
        yield stopping
    finally:
        for number in (signal.SIGINT, signal.SIGTERM):
            loop.remove_signal_handler(number)
    if stopping.is_set():
        # Warmly ended but for a synchronous node that did not end in time: its run is given up, its thread is left.
        last = threading.Timer(AT_ONCE, os._exit, (0,))
        last.daemon = True
        last.start()


async def together(stopping: asyncio.Event, *works: Callable[[asyncio.Event], Awaitable[None]]) -> None:
    """Run these until `stopping` is set. If one fails, the others are ended warmly and its error is raised.

    An error that nobody foresaw is logged with its traceback: nobody may sit at this terminal.
    """

    async def watched(work: Callable[[asyncio.Event], Awaitable[None]]) -> None:
        try:
            await work(stopping)
        finally:
            stopping.set()

    ended = await asyncio.gather(*(watched(work) for work in works), return_exceptions=True)
    for outcome in ended:
        if isinstance(outcome, BaseException):
            if not isinstance(outcome, EventwrightError | OSError):
                logger.critical("this process ends, because something in it broke", exc_info=outcome)
            raise outcome


def log(settings: Settings, *, at_least: int = logging.NOTSET) -> None:
    """Let this process log as its settings want it, from a level on that is not below `at_least`."""
    level = max(at_least, logging.getLevelNamesMapping()[settings.log_level.upper()])
    log_to_stderr(level, redaction=Redaction(literals=settings.secrets.literals), format=settings.log_format)


def tune_interpreter() -> None:
    """Set Python up for a process that stays (figures of `make bench`).

    The garbage collector looks less often: what a run leaves behind is freed by counting references, and its usual
    haste takes a seventh of a worker's CPU. Threads take turns more often: the thread that writes to SQLite gives the
    interpreter away with every row, and would wait for up to five milliseconds to have it back.
    """
    gc.collect()
    gc.freeze()
    gc.set_threshold(20_000, 50, 100)
    sys.setswitchinterval(0.001)


@asynccontextmanager
async def opened(settings: Settings, *, works: bool = False, rings: bool = True) -> AsyncIterator[App]:
    """The App of a process, whose spans leave as its environment says."""
    with exporting_spans():
        async with open_app(settings, works=works, rings=rings) as app:
            with watched_for_stalls(app) if works and settings.stall_seconds else nullcontext():
                yield app


def watched_for_stalls(app: App) -> AbstractContextManager[None]:
    """A node that blocks the event loop of this worker is told, and at last ends the process."""
    settings, engine = app.settings, app.engine
    return watchdog(settings.database, engine.worker, engine.active, seconds=settings.stall_seconds)


# -- up, api, worker -------------------------------------------------------------------------------------------------


async def up(settings: Settings) -> None:
    """API, worker and scheduler in this process."""
    from eventwright.app.web.api import serve_api

    log(settings)
    async with stopped_by_signals() as stopping, opened(settings, works=True) as app:
        tune_interpreter()

        async def serve(stopping: asyncio.Event) -> None:
            await serve_api(app, stopping, on_ready=lambda address: greet(app, address))

        await together(stopping, serve, app.work)


async def api(settings: Settings) -> None:
    """The API alone; workers of the same database and Redis do the rest."""
    from eventwright.app.web.api import serve_api

    log(settings)
    async with stopped_by_signals() as stopping, opened(settings) as app:
        tune_interpreter()
        await serve_api(app, stopping, on_ready=lambda address: greet(app, address))


async def worker(settings: Settings) -> None:
    """A worker with its scheduler."""
    log(settings)
    from eventwright.app.web.metrics_server import serve_metrics

    async with stopped_by_signals() as stopping, opened(settings, works=True) as app:
        greet(app, None)
        tune_interpreter()
        shown = [] if settings.metrics_port is None else [partial(serve_metrics, app)]
        await together(stopping, app.work, *shown)


async def burst(settings: Settings) -> dict[str, str]:
    """Take up every run of our lanes that is due, until none is; for scripts and for whoever has no daemon.

    Returns:
        The state in which each run rests, by id.
    """
    log(settings, at_least=logging.WARNING)
    rings = settings.redis_url not in ("", "none")
    async with stopped_by_signals() as stopping, opened(settings, works=True, rings=rings) as app:
        engine = app.engine
        times = engine.times
        rested: dict[str, str] = {}
        beats = heartbeats(
            settings.database, engine.worker, engine.active, every=times.heartbeat, lease_seconds=times.lease
        )
        async with beats, _draining(app, stopping):
            await Scheduler(engine).once(stopping)
            for drain in app.drains():
                await drain.come_by(stopping)
            while due := await _due_here(app, stopping):
                async with asyncio.TaskGroup() as tasks:
                    advancing = {run_id: tasks.create_task(engine.advance(run_id)) for run_id in due}
                states = {run_id: task.result() for run_id, task in advancing.items()}
                rested |= {run_id: str(state) for run_id, state in states.items() if state is not None}
        return rested


async def _due_here(app: App, stopping: asyncio.Event) -> list[str]:
    """Due runs of the most urgent of our lanes that has any, as many as may run at once; none when we are to stop."""
    if stopping.is_set():
        return []
    await app.engine.tick()
    for lane in app.settings.lanes:
        if due := await app.store.due_runs(limit=app.settings.concurrency, lane=lane):
            return [run_id for run_id, _ in due]
    return []


@asynccontextmanager
async def _draining(app: App, stopping: asyncio.Event) -> AsyncIterator[None]:
    async def drain() -> None:
        await stopping.wait()
        app.engine.drain()

    task = asyncio.create_task(drain(), name="drain")
    try:
        yield
    finally:
        task.cancel()


# -- what is said at the beginning -----------------------------------------------------------------------------------


def greet(app: App, address: str | None) -> None:
    """Say on stderr that the process is there, with what it works, and what to type next."""
    out = console(stderr=True)
    head = Text(f"Eventwright is up at {address}" if address else "An Eventwright worker is up", style="bold")
    facts = Table.grid(padding=(0, 2))
    facts.add_column(style="dim")
    if address and app.settings.inbox:
        facts.add_row("inbox", f"{address}/inbox")
    for name, value in _facts(app):
        facts.add_row(name, value)
    commands = Table.grid(padding=(0, 3))
    commands.add_column(style="cyan", no_wrap=True)
    commands.add_column(style="dim")
    for command, use in NEXT:
        commands.add_row(command, use)
    out.print(Text(), head, Text(), facts, Text(), commands, Text(), sep="\n")
    for warning in _warnings(app):
        out.print(Text.assemble(("! ", "yellow"), warning))


#: What one does with a service that is up.
NEXT = [
    ("eventwright send event.json", "send an event (--help shows how to write one)"),
    ("eventwright runs --watch", "see the runs move"),
    ("eventwright reviews", "what waits for you"),
    ("eventwright doctor", "is everything well?"),
]


def _facts(app: App) -> list[tuple[str, str]]:
    settings = app.settings
    return [
        ("database", without_password(settings.database)),
        ("wake-ups", redis_place(settings)),
        ("model", settings.model or "the provider's usual one" if _has_model(settings) else "offline, by keywords"),
        ("mail", without_password(settings.smtp_url) or "none: set EVENTWRIGHT_SMTP_URL if a workflow mails"),
        (
            "workflows",
            ", ".join(f"{workflow.name} {workflow.version}" for workflow in app.workflows.versions()) or "none",
        ),
        ("lane" if len(settings.lanes) == 1 else "lanes", ", ".join(settings.lanes)),
    ]


def _has_model(settings: Settings) -> bool:
    return bool(settings.model_settings.api_key or settings.model_settings.base_url)


def _warnings(app: App) -> list[str]:
    """What this process will not do though somebody may expect it."""
    lanes = {lane for workflow in app.workflows.versions() for lane in workflow.lanes} - set(app.settings.lanes)
    alone = [
        f"runs of lane {lane} need a worker of their own: eventwright worker --lane {lane}" for lane in sorted(lanes)
    ]
    found = [(workflow, len(check(workflow))) for workflow in app.workflows]
    return alone + [
        f"{workflow.name} {workflow.version} is not well, the gate will ask or refuse: "
        f"eventwright check {workflow.name} ({number} finding{'' if number == 1 else 's'})"
        for workflow, number in found
        if number
    ]
