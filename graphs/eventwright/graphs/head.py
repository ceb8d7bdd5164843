"""Where a run's graph stands: what people were asked, what has been answered, and whether there is work."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from langgraph.types import Interrupt, StateSnapshot

from eventwright.graphs.handover import HandOver, is_mark
from eventwright.graphs.questions import resume_value
from eventwright.graphs.twin import is_wait, outage_of, postponed_until
from eventwright.graphs.workflow import Workflow
from eventwright.guardrails.segment import ANY, Segment
from eventwright.guardrails.verdicts import Outage
from eventwright.runs.records import ReviewState

#: Under this name the labels of a run's channels stand in a checkpoint's metadata.
LABELS = "labels"
#: Where data comes from that the event brought.
EVENT = "the event"


@dataclass(frozen=True)
class Head:
    """Where the graph stands: LangGraph's snapshot, and what is known of the state beside it."""

    snapshot: StateSnapshot
    #: What stood beside the checkpoint: which channels hold untrusted data. None for one of an earlier release.
    labels: Mapping[str, list[str]] | None = None
    #: Channels that finished tasks have written since.
    written: frozenset[str] = frozenset()

    @property
    def interrupts(self) -> dict[str, tuple[Interrupt[Any], str]]:
        """Pending questions by id, each with the node that asks."""
        tasks = self.snapshot.tasks
        return {i.id: (i, task.name) for task in tasks for i in task.interrupts if _asks(i)}

    @property
    def step(self) -> int:
        """The number of the superstep that is not finished."""
        return (self.snapshot.metadata or {}).get("step", -1) + 1

    @property
    def postponed(self) -> datetime | None:
        """The first time that a task waits for."""
        times = [postponed_until(item) for task in self.snapshot.tasks for item in task.interrupts]
        return min(filter(None, times), default=None)

    @property
    def outages(self) -> dict[str, list[Outage]]:
        """The providers that are down and waited for, by the node that waits."""
        found: dict[str, list[Outage]] = {}
        for task in self.snapshot.tasks:
            known = filter(None, map(outage_of, task.interrupts))
            found.setdefault(task.name, []).extend(known)
        return found


def _asks(interrupt: Interrupt[Any]) -> bool:
    return postponed_until(interrupt) is None and not is_mark(interrupt) and not is_wait(interrupt)


def relabel(segment: Segment, head: Head | None) -> None:
    """What is untrusted when the segment begins: what stood beside the checkpoint, and what tasks have written since
    that are not run again."""
    if head is None:
        return
    if head.labels is None:
        segment.label([ANY], [EVENT])
        return
    for channel, sources in head.labels.items():
        segment.label([channel], sources)
    segment.label(head.written, segment.sources(None) or segment.untrusted_results())


def answers(head: Head, segment: Segment) -> dict[str, Any]:
    """Decided answers to authors' questions that are pending, by LangGraph's id."""
    return {
        review.interrupt_id: resume_value(review, review.decision)
        for review in segment.reviews.values()
        if review.interrupt_id in head.interrupts and review.interrupt_id and review.decision is not None
    }


def hand_over_of(
    served: Collection[str] | None, head: Head | None, segment: Segment, workflow: Workflow, now: datetime | None
) -> HandOver | None:
    """Which tasks are left to workers of other lanes, and what stands at them; None if none is.

    Args:
        served: the lanes of this worker; None for all.
        now: the database's time, needed if a task waits for one.
    """
    if served is None or set(workflow.lanes) <= set(served):
        return None
    if head is None:
        return HandOver(served)
    elsewhere = [task for task in head.snapshot.tasks if workflow.lane_of(task.name) not in (None, *served)]
    pauses = {task.id: tuple(item for item in task.interrupts if not is_mark(item)) for task in elsewhere}
    silent = unanswered(head.interrupts, segment)
    resting = [task for task, standing in pauses.items() if _waits(standing, silent, segment, now)]
    return HandOver(served, pauses, resting)


def _waits(pauses: Collection[Interrupt[Any]], silent: Collection[str], segment: Segment, now: datetime | None) -> bool:
    """Whether nothing has come yet that a task with these pauses would go on with."""
    times = [until for item in pauses if (until := postponed_until(item)) is not None]
    due = [until for until in times if now is not None and until <= now]
    waits = [segment.waits.is_open(item.id) for item in pauses if is_wait(item)]
    return not due and all(waits) and (bool(times or waits) or any(item.id in silent for item in pauses))


def unanswered(pending: Collection[str], segment: Segment) -> set[str]:
    """The pending questions, by LangGraph's id, that nobody has answered; one without a review is news."""
    answered = {
        review.interrupt_id or review.id
        for review in segment.reviews.values()
        # What the gate asked may have been settled by something else: by another of several people, or by reading back.
        if review.decision is not None or (review.interrupt_id is None and review.state is ReviewState.SUPERSEDED)
    }
    return set(pending) - answered


def everybody_waits(head: Head, segment: Segment) -> bool:
    """Whether there is nothing to do: the graph is at its end, or only tasks are left that wait for a person who has
    not answered, or an event that has not come, and for nothing else. Tasks that are all done are not nothing: a worker
    died before the checkpoint that takes them in."""
    silent = unanswered(head.interrupts, segment)
    tasks = head.snapshot.tasks
    waiting = [
        task
        for task in tasks
        if not any(map(postponed_until, task.interrupts)) and _waits(task.interrupts, silent, segment, None)
    ]
    done = [task for task in tasks if not task.interrupts and task.result is not None]
    return not tasks or (bool(waiting) and len(waiting) + len(done) == len(tasks))
