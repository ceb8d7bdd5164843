"""Narrow workers: a node may name a lane; a worker that does not serve it hands the run over before the node begins.

What stands beside such a node in the same superstep is done where its lane is served, and is not done again. The task
that is not begun leaves a mark in LangGraph's own way, as a pause that is resumed with nothing.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass, field
from typing import Any

from langgraph.config import get_config
from langgraph.errors import GraphInterrupt
from langgraph.types import Interrupt

from eventwright.runs.event import new_id

#: What begins the id of a mark. LangGraph's own ids are digests.
HANDED_OVER = "handed_over"


@dataclass(frozen=True)
class HandOver:
    """Which tasks a segment leaves to workers of other lanes.

    Args:
        served: the lanes of this worker.
        pauses: by task of another lane, what stood at it before: it still stands when the task is not begun here.
        resting: those of these tasks that would only go on waiting for it; nobody needs to take them over.
    """

    served: Collection[str]
    pauses: Mapping[str, tuple[Interrupt[Any], ...]] = field(default_factory=dict)
    resting: Collection[str] = ()
    #: The lanes that tasks were left to in this segment.
    wanted: list[str] = field(default_factory=list)

    def unless_served(self, lane: str) -> None:
        """Leave the running task to a worker of this lane, unless we serve it. Raises GraphInterrupt."""
        if lane in self.served:
            return
        task = str(get_config()["configurable"]["__pregel_task_id"])
        if task in self.resting:
            raise GraphInterrupt(self.pauses[task])
        self.wanted.append(lane)
        mark = Interrupt(value={HANDED_OVER: lane}, id=new_id(HANDED_OVER))
        raise GraphInterrupt((*self.pauses.get(task, ()), mark))


_hand_over: ContextVar[HandOver | None] = ContextVar("eventwright_hand_over", default=None)


@contextmanager
def handing_over(hand_over: HandOver | None) -> Iterator[None]:
    """Tasks that begin inside are left to others where this says so; None: all of them run."""
    token = _hand_over.set(hand_over)
    try:
        yield
    finally:
        _hand_over.reset(token)


def stay_in(lane: str | None) -> None:
    """A node is about to begin, which wants this lane (None: any). Raises GraphInterrupt if it is not served here."""
    hand_over = _hand_over.get()
    if lane is not None and hand_over is not None:
        hand_over.unless_served(lane)


def is_mark(interrupt: Interrupt[Any]) -> bool:
    """Whether this only says that a task was left to another worker."""
    return interrupt.id.startswith(f"{HANDED_OVER}_")
