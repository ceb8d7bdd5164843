"""The stall breaker: a node that blocks the event loop stops every run of its process, whose leases a thread goes on
renewing. A watchdog sees that the loop does not tick, says which node of which run it is in, and at last ends the
process, so that others take the runs over: all but the guilty one as if nothing had happened."""

from __future__ import annotations

import asyncio
import logging
import os
import sys
import threading
import time
import traceback
from collections.abc import Callable, Collection, Iterator
from contextlib import contextmanager
from contextvars import Context
from dataclasses import dataclass
from types import FrameType

from eventwright.graphs.twin import running_in
from eventwright.runs.store import Store

log = logging.getLogger(__name__)

#: A stall that lasts so many times as long as one that is told ends the process.
TIMES = 3
#: The longest step in which the watchdog waits, in seconds. Of a step that took much longer only twice as much counts:
#: the whole process stood still, and the loop with it.
STEP = 0.5
#: How long the last words may take, in seconds.
LAST_WORDS = 5.0
#: The exit code of a process that was ended: an error of its own (EX_SOFTWARE).
STALLED = 70


@dataclass(frozen=True)
class Blocked:
    """What the event loop's thread is doing instead of ticking."""

    run_id: str | None
    node: str | None
    stack: str

    @classmethod
    def now(cls, thread: int) -> Blocked:
        """What this thread does just now, and for which run."""
        frame = sys._current_frames().get(thread)
        stack = "".join(traceback.format_stack(frame)) if frame is not None else ""
        run_id, node = next((found for context in _contexts(frame) if (found := running_in(context))), (None, None))
        return cls(run_id, node, stack)

    def __str__(self) -> str:
        where = f"node {self.node!r} of run {self.run_id}" if self.node else f"run {self.run_id}, outside of a node"
        return where if self.run_id else "no run"


def _contexts(frame: FrameType | None) -> Iterator[Context]:
    """The contexts of what the event loop has called to come here, the last first."""
    while frame is not None:
        if frame.f_code is asyncio.Handle._run.__code__:
            yield frame.f_locals["self"]._context
        frame = frame.f_back


@contextmanager
def watchdog(
    database: str, worker: str, held: Collection[str], *, seconds: float, end: Callable[[int], object] = os._exit
) -> Iterator[None]:
    """While this is open, a node that blocks the running event loop is told, and then ends the process.

    Args:
        database: the database's URL.
        worker: the name under which runs were claimed.
        held: the ids of the runs that are at work here, now and later.
        seconds: how long a stall lasts before it is told; one of `TIMES` as long ends the process.
        end: ends the process at once, with this exit code.
    """
    watch = _Watch(asyncio.get_running_loop(), threading.get_ident(), database, worker, held, seconds, end)
    thread = threading.Thread(target=watch.watch, name="watchdog", daemon=True)
    thread.start()
    try:
        yield
    finally:
        watch.closing.set()
        thread.join()


class _Watch:
    def __init__(
        self,
        loop: asyncio.AbstractEventLoop,
        thread: int,
        database: str,
        worker: str,
        held: Collection[str],
        seconds: float,
        end: Callable[[int], object],
    ) -> None:
        self._loop, self._thread, self._database, self._worker = loop, thread, database, worker
        self._held, self._seconds, self._end = held, seconds, end
        self.closing = threading.Event()

    def watch(self) -> None:
        """Until `closing` is set, or the process is ended."""
        while not self.closing.wait(min(self._seconds / 2, STEP)):
            ticked = threading.Event()
            self._loop.call_soon_threadsafe(ticked.set)
            if self._ticks(ticked, self._seconds):
                continue
            log.error(
                "the event loop has been blocked for %g s by %s, and every run of this worker with it:\n%s",
                self._seconds,
                blocked := Blocked.now(self._thread),
                blocked.stack,
            )
            if self._ticks(ticked, self._seconds * (TIMES - 1)):
                log.warning("the event loop goes on; it was blocked by %s", blocked)
                continue
            return self._give_up(Blocked.now(self._thread))

    def _ticks(self, ticked: threading.Event, seconds: float) -> bool:
        """Whether the loop ticks within so much time, or is not to be watched any more."""
        while seconds > 0:
            step, before = min(seconds, STEP), time.monotonic()
            if ticked.wait(step) or self.closing.is_set():
                return True
            seconds -= min(time.monotonic() - before, 2 * step)
        return False

    def _give_up(self, blocked: Blocked) -> None:
        try:
            asyncio.run(self._last_words(blocked))
        except Exception:
            log.exception("what has blocked the event loop could not be written down")
        log.critical(
            "the event loop has been blocked for %g s by %s; this process ends, and its runs are taken over",
            self._seconds * TIMES,
            blocked,
        )
        self._end(STALLED)

    async def _last_words(self, blocked: Blocked) -> None:
        """Write down whose fault it is, on a connection of our own: no other run shall be blamed."""
        async with asyncio.timeout(LAST_WORDS), Store.open(self._database) as store, store.write() as tx:
            if blocked.run_id is not None:
                seconds = self._seconds * TIMES
                tx.blame(blocked.run_id, worker=self._worker, node=blocked.node or "", seconds=seconds)
            else:
                for run_id in tuple(self._held):
                    tx.give_up(run_id, worker=self._worker)
