"""Where a run's graph stands: what its checkpoint waits for, what people were asked, and whether there is work."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from langgraph.types import Interrupt, StateSnapshot

from eventwright.graphs.outcomes import Failed
from eventwright.graphs.questions import resume_value
from eventwright.graphs.twin import postponed_until
from eventwright.graphs.workflow import Workflow
from eventwright.guardrails.segment import ANY, STANDING, Segment
from eventwright.runs.records import ReviewState
from eventwright.runs.states import Reason

#: Under this name the labels of a run's channels stand in a checkpoint's metadata.
LABELS = "labels"
#: Where data comes from that the event brought.
EVENT = "the event"


@dataclass(frozen=True)
class Head:
    """Where the graph stands: LangGraph's snapshot, and the nodes that its checkpoint speaks of as still to come."""

    snapshot: StateSnapshot
    awaited: frozenset[str] = frozenset()
    #: What stood beside the checkpoint: which channels hold untrusted data. None for one of an earlier release.
    labels: Mapping[str, list[str]] | None = None
    #: Channels that finished tasks have written since.
    written: frozenset[str] = frozenset()

    @property
    def interrupts(self) -> dict[str, tuple[Interrupt[Any], str]]:
        """Pending questions by id, each with the node that asks."""
        tasks = self.snapshot.tasks
        return {i.id: (i, task.name) for task in tasks for i in task.interrupts if postponed_until(i) is None}

    @property
    def postponed(self) -> datetime | None:
        """The first time that a task waits for."""
        times = [postponed_until(item) for task in self.snapshot.tasks for item in task.interrupts]
        return min(filter(None, times), default=None)


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


def misfit(head: Head | None, segment: Segment, workflow: Workflow) -> Failed | None:
    """Why the run cannot go on in the graph as it is now: it stands at nodes, or people were asked about nodes, that
    are not there."""
    if head is None:
        return None
    asked = {
        review.node for review in segment.reviews.values() if review.consumed_by is None and review.state in STANDING
    }
    lost = sorted((head.awaited | asked) - set(workflow.graph.nodes))
    if not lost:
        return None
    known = ", ".join(sorted(workflow.graph.nodes))
    return Failed(
        Reason.NEEDS_MIGRATION,
        f"the run stands at {', '.join(lost)}, which {workflow.name} version {workflow.version} does not have "
        f"(it has {known}). What was decided is kept. Move it on: eventwright replay RUN --rename {lost[0]}=NEW_NAME",
        node=lost[0],
    )


def answers(head: Head, segment: Segment) -> dict[str, Any]:
    """Decided answers to authors' questions that are pending, by LangGraph's id."""
    return {
        review.interrupt_id: resume_value(review, review.decision)
        for review in segment.reviews.values()
        if review.interrupt_id in head.interrupts and review.interrupt_id and review.decision is not None
    }


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
    not answered, and for nothing else. Tasks that are all done are not nothing: a worker died before the checkpoint
    that takes them in."""
    silent = unanswered(head.interrupts, segment)
    tasks = head.snapshot.tasks
    asking = [task for task in tasks if any(item.id in silent for item in task.interrupts)]
    waiting = [task for task in asking if not any(map(postponed_until, task.interrupts))]
    done = [task for task in tasks if not task.interrupts and task.result is not None]
    return not tasks or (bool(waiting) and len(waiting) + len(done) == len(tasks))
