"""Moving a paused run over to nodes that a deploy renamed: checkpoint, visits, effects, reviews, in one transaction."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import replace

from eventwright.graphs.questions import MOVED
from eventwright.graphs.twin import rename_place
from eventwright.graphs.workflow import Workflows
from eventwright.guardrails.request import bound_to, call_digest
from eventwright.runs.checkpoints import CheckpointSaver
from eventwright.runs.errors import EventwrightError
from eventwright.runs.event import canonical
from eventwright.runs.records import Review, ReviewKind, Run
from eventwright.runs.store import Store
from eventwright.runs.transaction import Transaction


class BadMigration(EventwrightError, ValueError):
    """A run cannot be moved like this: a new name is no node of its workflow, or two nodes would become one."""

    def __init__(self, run: Run, names: Mapping[str, str], known: Collection[str]) -> None:
        self.run, self.names, self.known = run, dict(names), sorted(known)
        super().__init__(
            f"run {run.id} cannot be moved by {self.names}: each old name needs another, new one that "
            f"{run.workflow} version {run.version} has; its nodes are: {', '.join(self.known)}"
        )


async def migrate(
    tx: Transaction,
    run: Run,
    names: Mapping[str, str],
    workflows: Workflows,
    store: Store,
    saver: CheckpointSaver,
    *,
    by: str,
) -> None:
    """Collect everything that moves `run` from old node names to new ones (`names`: old to new).

    Decided reviews stay decided: the digest that an approval is bound to names the node, so it is made anew, and the
    journal says so. An author's question that stands is asked under a new id, and keeps its review by `MOVED`.

    Raises:
        BadMigration: a new name is no node of the deployed workflow, or is given twice, or is an old one too.
        UnknownWorkflow: the workflow is not deployed here.
    """
    known = workflows.get(run.workflow, run.version).graph.nodes
    new_names = set(names.values())
    if not new_names <= set(known) or len(new_names) < len(names) or new_names & set(names):
        raise BadMigration(run, names, known)
    history = await store.history(run.id)
    tx.rename_nodes(run.id, names)
    for visit in history.visits.values():
        moved = replace(visit, node=names.get(visit.node, visit.node), place=rename_place(visit.place, names))
        if moved != visit:
            tx.put_visit(moved)
    reviews = [review for review in history.reviews if review.node in names]
    for review in reviews:
        if review.kind is ReviewKind.APPROVAL:
            tx.rebind_review(review.id, digest=_new_digest(run, review, names[review.node]))
        elif review.interrupt_id is not None and review.consumed_by is None:
            tx.rebind_review(review.id, interrupt_id=MOVED)
    await saver.rename_nodes(run.thread_id, names, tx)
    data = {
        "text": "moved to renamed nodes",
        "names": dict(names),
        "reviews": [review.id for review in reviews],
    }
    tx.note(run.id, actor=by, data=data)


def _new_digest(run: Run, review: Review, node: str) -> str:
    return call_digest(bound_to(run, node, review.evidence["tool"]), canonical(review.arguments))
