"""The graphs that runs began with: each structure is kept once, under its fingerprint, so that a later deploy can say
what it changed. And what an operator changes of a run that moves to another graph."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import TYPE_CHECKING, Any

import sqlalchemy as sa

from eventwright.runs import schema
from eventwright.runs.batch import Batch, Step, Unit
from eventwright.runs.errors import IllegalMove, RunMoved
from eventwright.runs.states import FINAL, RunState

if TYPE_CHECKING:
    from eventwright.runs.records import Run
    from eventwright.runs.store import Store

#: Runs in these states are in nobody's hands: an operator may change them.
AT_REST = frozenset(RunState) - FINAL - {RunState.PROCESSING}


class StructureVerbs:
    """The verbs about graphs, and about runs that move to another one, of `Transaction`."""

    unit: Unit

    def keep_graph(self, fingerprint: str, workflow: str, version: str, structure: Mapping[str, Any]) -> None:
        """Keep a graph's structure, unless it is kept already; `workflow` and `version` say where it was seen first."""
        row = {
            "fingerprint": fingerprint,
            "workflow": workflow,
            "version": version,
            "structure": dict(structure),
        }
        self.unit.steps.append(lambda batch: batch.insert(batch.statements.graph, row))

    def take_graph(self, run_id: str, fingerprint: str) -> None:
        """The run goes on in the graph of this fingerprint."""
        runs = schema.runs
        update = sa.update(runs).where(runs.c.id == run_id).values(fingerprint=fingerprint)
        self.unit.run_ids.add(run_id)
        self.unit.steps.append(lambda batch: batch.execute(update))

    def hold_still(self, run: Run) -> None:
        """End in IllegalMove if the run is in another state than when `run` was read, in a worker's hands or at its
        end; in RunMoved if it has gone on since: what is written about it was worked out from how it stood."""

        def step(batch: Batch) -> None:
            row = batch.run(run.id)
            state = RunState(row["state"])
            if state not in AT_REST or state is not run.state:
                raise IllegalMove(run.id, state, RunState.RECEIVED)
            if (row["fence"], row["generation"], row["version"]) != (run.fence, run.generation, run.version):
                raise RunMoved(run.id)

        self.unit.run_ids.add(run.id)
        self.unit.steps.append(step)

    def take_version(self, run_id: str, version: str) -> None:
        """The run belongs to this version of its workflow from now on."""
        self.unit.run_ids.add(run_id)
        self.unit.steps.append(lambda batch: batch.change(run_id, version=version))

    def forget_unfinished_step(self, thread_id: str, nodes: Collection[str] = ()) -> None:
        """Delete what the tasks of a thread's unfinished superstep have written, and where graphs inside these nodes
        stand. Those tasks run again; what they have done stands in the ledger."""
        writes, checkpoints = schema.checkpoint_writes, schema.checkpoints
        outer = sa.and_(writes.c.thread_id == thread_id, writes.c.ns == "")
        self.unit.steps.append(lambda batch: batch.execute(sa.delete(writes).where(outer)))
        for node in nodes:
            for table in (writes, checkpoints):
                inside = sa.and_(table.c.thread_id == thread_id, table.c.ns.startswith(f"{node}:", autoescape=True))
                self.unit.steps.append(_executing(sa.delete(table).where(inside)))


def _executing(statement: sa.Executable) -> Step:
    return lambda batch: batch.execute(statement)


async def kept_graph(store: Store, fingerprint: str | None) -> dict[str, Any] | None:
    """The structure of this fingerprint; None if it is not known: of a run of an earlier release, say."""
    if fingerprint is None:
        return None
    graphs = schema.graphs
    found = await store.rows_of(sa.select(graphs.c.structure).where(graphs.c.fingerprint == fingerprint))
    return found[0]["structure"] if found else None


async def counts_by_version(store: Store) -> dict[tuple[str, str, str], int]:
    """How many runs there are by (workflow, version, state)."""
    groups = (schema.runs.c.workflow, schema.runs.c.version, schema.runs.c.state)
    query = sa.select(*groups, sa.func.count().label("runs")).group_by(*groups)
    found = await store.rows_of(query)
    return {(row["workflow"], row["version"], row["state"]): row["runs"] for row in found}
