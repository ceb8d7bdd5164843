"""Whether a run may go on in the graph that is deployed: looked at before anything of it runs.

A run whose graph is the one it ran in goes on. Otherwise the two are compared (`comparing`): where it is touched by
what has changed it stops, with what that is and how an operator moves it on; where it is not it goes on, and its
journal says what has changed. A run that has not begun just takes the graph that is there.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Sequence
from typing import Any

from langgraph.checkpoint.base import CheckpointTuple
from langgraph.constants import START

from eventwright.graphs.comparing import Change, ChangeKind, Stand, changes, heir_of, obstacles
from eventwright.graphs.fingerprint import Structure, join_channels
from eventwright.graphs.outcomes import Failed
from eventwright.graphs.workflow import Workflow
from eventwright.guardrails.segment import STANDING, Segment
from eventwright.runs.checkpoints import JOIN, TRIGGER, awaited_nodes
from eventwright.runs.records import Effect, EffectState, Review, Run
from eventwright.runs.states import Reason
from eventwright.runs.store import Store
from eventwright.runs.structures import kept_graph
from eventwright.tools.contract import ToolClass

#: Changes that an operator accepts by moving a run: nothing of the run is lost by them.
ACCEPTED = frozenset({ChangeKind.WAYS, ChangeKind.ROUTER, ChangeKind.QUESTIONS, ChangeKind.INSIDE, ChangeKind.WAITS})


async def fit(store: Store, segment: Segment, workflow: Workflow, saved: CheckpointTuple | None) -> Failed | None:
    """Why the run of this segment cannot go on in the workflow's graph; None if it can, and then it belongs to it.

    Args:
        saved: its newest checkpoint; None if it has none.

    Raises:
        LeaseLost, StoreUnavailable: nothing was written.
    """
    run, same = segment.run, segment.run.fingerprint == workflow.fingerprint
    began = workflow.structure if same else await kept_graph(store, run.fingerprint)
    found = misfits(run, workflow, began, saved, segment.reviews.values(), segment.effects.values())
    if found:
        return needs_migration(workflow, began, found)
    if not same:
        async with store.write(segment.lease) as tx:
            tx.keep_graph(workflow.fingerprint, workflow.name, workflow.version, workflow.structure)
            tx.take_graph(run.id, workflow.fingerprint)
            changed = [] if began is None or saved is None else list(changes(began, workflow.structure))
            if changed:
                told = {"text": "goes on in a changed graph", "changes": words_of(changed)}
                tx.note(run.id, actor=segment.lease.worker, data=told | fingerprints(run, workflow))
    return None


def misfits(
    run: Run,
    workflow: Workflow,
    began: Structure | None,
    saved: CheckpointTuple | None,
    reviews: Iterable[Review],
    effects: Iterable[Effect],
) -> list[Change]:
    """What of the graph's changes stops this run; empty if nothing does.

    Args:
        began: the structure of the graph that it ran in until now; None if that is not known.
    """
    if saved is None:
        # It is to begin, maybe anew. What it has done is known by where it was done, and that would be elsewhere now.
        moved = began is not None and began != workflow.structure
        return [_ANEW] if moved and any(map(has_written, effects)) else []
    return obstacles(stand_of(saved, workflow.structure), asked_nodes(reviews), began, workflow.structure)


_ANEW = Change(
    ChangeKind.WAYS,
    START,
    "it was to begin anew, but what it has done already would not be recognized in another graph, and be done again",
)


def has_written(effect: Effect) -> bool:
    """Whether something outside may be another since, by this call."""
    return effect.tool_class != ToolClass.READ and effect.state is not EffectState.FAILED


def stand_of(saved: CheckpointTuple, structure: Structure) -> Stand:
    """What a run has touched of its graph.

    Args:
        structure: of the graph that it is to go on in.
    """
    checkpoint = saved.checkpoint
    values, written = checkpoint["channel_values"], [channel for _, channel, _ in saved.pending_writes or ()]
    passed = (node for node in checkpoint["versions_seen"] if node == START or not node.startswith("__"))
    return Stand(
        standing=awaited_nodes(saved, join_channels(structure)),
        passed=frozenset(passed),
        fields=frozenset(channel for channel in (*values, *written) if is_field(channel)),
        joins=frozenset(channel for channel, held in values.items() if channel.startswith(JOIN) and _came(held)),
    )


def _came(held: Any) -> bool:
    """Whether somebody has come to a join; a deferred one holds beside it whether all others are done."""
    return bool(held[0] if isinstance(held, tuple | list) and held else held)


def is_field(channel: str) -> bool:
    """Whether a channel of a checkpoint is a field of the state, and none of LangGraph's own."""
    return channel == "__root__" or not channel.startswith(("__", TRIGGER, JOIN))


def asked_nodes(reviews: Iterable[Review]) -> set[str]:
    """The nodes about which people were asked, or have decided, and nothing came of it yet."""
    return {review.node for review in reviews if review.consumed_by is None and review.state in STANDING}


# -- words -------------------------------------------------------------------------------------------------------------


def needs_migration(workflow: Workflow, began: Structure | None, found: Sequence[Change]) -> Failed:
    """How a run stops before a graph that does not fit, with what to do."""
    nodes = [change.at for change in found if change.kind is ChangeKind.NODE_GONE]
    words = (
        f"the graph of {workflow.name} version {workflow.version} was changed where this run stands or has been: "
        f"{'; '.join(words_of(found))}. Nothing was run, and what was decided is kept. "
        f"{way_out(workflow, began, found)}"
    )
    return Failed(Reason.NEEDS_MIGRATION, words, node=nodes[0] if nodes else None)


def way_out(workflow: Workflow, began: Structure | None, found: Sequence[Change]) -> str:
    """What an operator does about these misfits."""
    if _ANEW in found:
        return "Deploy the earlier graph, or take back what it did: eventwright undo RUN"
    return f"Move it on: {command(workflow, began, found)}; or deploy the earlier graph beside this one, as a version"


def command(workflow: Workflow, began: Structure | None, found: Iterable[Change]) -> str:
    """What an operator types to move a run on, with what has to be filled in, in capitals."""
    found = list(found)
    lost = [change.at for change in found if change.kind is ChangeKind.NODE_GONE]
    names = [f"--rename {node}={heir_of(node, began, workflow.structure) or 'NEW_NAME'}" for node in lost]
    fields = {ChangeKind.FIELD_GONE, ChangeKind.FIELD_TYPE, ChangeKind.FIELD_NEEDED}
    state = ["--state MAPPING"] if any(change.kind in fields for change in found) else []
    return " ".join(["eventwright migrate RUN", *names, *state])


def words_of(found: Iterable[Change]) -> list[str]:
    """The changes in words, each once."""
    return list(dict.fromkeys(change.words for change in found))


def fingerprints(run: Run, workflow: Workflow) -> dict[str, Any]:
    """For the journal: from which graph to which."""
    return {"fingerprint": workflow.fingerprint, "fingerprint_before": run.fingerprint}


def not_accepted(found: Collection[Change]) -> list[Change]:
    """What an operator cannot just accept by moving the run: something of it would be lost."""
    return [change for change in found if change.kind not in ACCEPTED]
