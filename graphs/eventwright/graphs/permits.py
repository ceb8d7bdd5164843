"""What a changed policy does to a run that is under way: calls that it has begun with, and questions about calls, that
no policy allows any more."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping

from langgraph.checkpoint.base import CheckpointTuple

from eventwright.graphs.moving import step_of
from eventwright.graphs.workflow import Workflow
from eventwright.guardrails.segment import STANDING
from eventwright.runs.records import Review, ReviewKind
from eventwright.runs.store import History
from eventwright.tools.contract import MODELS


def withdrawn(
    workflow: Workflow, saved: CheckpointTuple, history: History, names: Mapping[str, str] | None = None
) -> Iterator[str]:
    """What the workflow's policies take away from under a run, in words.

    Args:
        saved: its newest checkpoint.
        names: new names of nodes, for what was done at old ones.
    """
    new = names or {}
    here = {visit.visit for visit in history.visits.values() if json.loads(visit.place)[0][1] == step_of(saved)}
    # A node that goes on makes its calls again, and gets back what is recorded: if it may still make them.
    begun = {(new.get(e.node, e.node), e.tool) for e in history.effects.values() if e.visit in here}
    for node, tool in sorted(begun):
        if tool not in MODELS | _allowed(workflow, node):
            yield f"{node!r} has begun with {tool}, and its policy does not name that tool any more"
    for review in _about_calls(history.reviews):
        tool, node = str(review.evidence.get("tool")), new.get(review.node, review.node)
        if node in workflow.graph.nodes and (node, tool) not in begun and tool not in _allowed(workflow, node):
            answered = "has decided" if review.decision is not None else "is asked"
            yield f"somebody {answered} about {tool} at {node!r}, whose policy does not name that tool any more"


def _about_calls(reviews: Iterable[Review]) -> Iterator[Review]:
    """What the gate has asked about calls that were not made yet."""
    for review in reviews:
        stands = review.consumed_by is None and review.state in STANDING
        if stands and review.kind is ReviewKind.APPROVAL and review.interrupt_id is None:
            yield review


def _allowed(workflow: Workflow, node: str) -> frozenset[str]:
    tools = workflow.policy(node).tools
    return frozenset(name for tool in tools for name in (tool.name, *tool.also_called))
