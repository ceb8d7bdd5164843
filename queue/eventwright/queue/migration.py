"""Moving a paused run over to nodes that a deploy renamed: checkpoint, visits, effects, reviews, in one transaction."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

from eventwright.graphs.twin import rename_place
from eventwright.graphs.workflow import Workflows
from eventwright.guardrails.gate import call_digest
from eventwright.runs.checkpoints import CheckpointSaver
from eventwright.runs.errors import EventwrightError
from eventwright.runs.records import Review, ReviewKind, Run
from eventwright.runs.store import Store
from eventwright.runs.transaction import Transaction


class BadMigration(EventwrightError, ValueError):
    """A run cannot be moved to a node that its workflow does not have."""

    def __init__(self, run: Run, new: str, known: list[str]) -> None:
        self.run, self.new, self.known = run, new, known
        super().__init__(f"{run.workflow} version {run.version} has no node {new!r}; its nodes are: {', '.join(known)}")


async def migrate(
    tx: Transaction,
    run: Run,
    rename: Mapping[str, str],
    workflows: Workflows,
    store: Store,
    saver: CheckpointSaver,
    *,
    by: str,
) -> None:
    """Collect everything that moves `run` from old node names to new ones.

    Decided reviews stay decided: the digest that an approval is bound to names the node, so it is made anew, and the
    journal says so.

    Raises:
        BadMigration: a new name is no node of the deployed workflow.
        UnknownWorkflow: the workflow is not deployed here.
    """
    known = sorted(workflows.get(run.workflow, run.version).graph.nodes)
    history = await store.history(run.id)
    for old, new in rename.items():
        if new not in known:
            raise BadMigration(run, new, known)
        tx.rename_node(run.id, old, new)
        for visit in history.visits.values():
            if visit.node == old or f'"{old}"' in visit.place:
                node = new if visit.node == old else visit.node
                tx.put_visit(replace(visit, node=node, place=rename_place(visit.place, old, new)))
        moved = [review for review in history.reviews if review.node == old]
        for review in moved:
            digest = _new_digest(run, review, new)
            if digest is not None:
                tx.rebind_review(review.id, digest=digest)
        await saver.rename_node(run.thread_id, old, new, tx)
        tx.note(
            run.id,
            actor=by,
            node=new,
            data={
                "text": "moved to a renamed node",
                "from": old,
                "to": new,
                "reviews": [review.id for review in moved],
            },
        )


def _new_digest(run: Run, review: Review, node: str) -> str | None:
    if review.kind is not ReviewKind.APPROVAL:
        return None
    return call_digest(run.workflow, run.version, run.id, node, review.evidence["tool"], review.arguments)
