"""Whether a segment brought its run any further: one that is taken up and handed back for ever must be noticed."""

from __future__ import annotations

from typing import Any

from eventwright.graphs.head import Head
from eventwright.guardrails.segment import Segment
from eventwright.runs.store import History


def got_on(before: Head | None, after: Head | None, history: History, segment: Segment) -> bool:
    """Whether the graph stands elsewhere than before, something was called, or somebody was asked or heard."""
    return (
        _stands(before) != _stands(after)
        or segment.effects != history.effects
        or list(segment.reviews.values()) != list(history.reviews)
        or segment.waits.changed
    )


def _stands(head: Head | None) -> Any:
    """The checkpoint, and which of the tasks after it are done already."""
    if head is None:
        return None
    done = {task.id for task in head.snapshot.tasks if task.result is not None}
    return head.snapshot.config["configurable"]["checkpoint_id"], done
