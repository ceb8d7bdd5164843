"""Moving a run to another graph: to nodes that a deploy renamed, to another version of its workflow, with its state
mapped. Checkpoint, visits, effects, reviews and version change together, in one transaction, or not at all."""

from __future__ import annotations

import json
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from pydantic_core import to_jsonable_python

from eventwright.graphs.comparing import ChangeKind, changes, obstacles
from eventwright.graphs.fingerprint import Structure, join_channels
from eventwright.graphs.fitting import asked_nodes, fingerprints, has_written, misfits, not_accepted, stand_of, words_of
from eventwright.graphs.mapping import BadMapping, StateMapping
from eventwright.graphs.moving import Saved, moved, renamed, state_of, step_of, unfinished_questions
from eventwright.graphs.permits import withdrawn
from eventwright.graphs.questions import MOVED
from eventwright.graphs.runner import Runner
from eventwright.graphs.twin import rename_place
from eventwright.graphs.workflow import Workflow, Workflows
from eventwright.guardrails.judging import judgement_digest
from eventwright.guardrails.request import bound_to, call_digest
from eventwright.guardrails.segment import STANDING
from eventwright.runs.errors import EventwrightError, IllegalMove
from eventwright.runs.event import canonical
from eventwright.runs.records import Review, ReviewKind, Run
from eventwright.runs.states import RunState
from eventwright.runs.store import History, Store
from eventwright.runs.structures import AT_REST, kept_graph
from eventwright.runs.transaction import Transaction
from eventwright.tools.model_tool import ask_model


class BadMigration(EventwrightError, ValueError):
    """A run cannot be moved like this. Nothing was changed."""

    def __init__(self, run: Run, workflow: Workflow, why: str) -> None:
        self.run, self.workflow, self.why = run, workflow, why
        super().__init__(f"run {run.id} cannot be moved to {workflow.name} version {workflow.version}: {why}")


@dataclass(frozen=True, kw_only=True)
class Move:
    """How a run is moved.

    Args:
        to_version: of its workflow; by default the run's own, as it is deployed now.
        rename: of nodes, old name to new.
        state: what becomes of its state.
    """

    to_version: str | None = None
    rename: Mapping[str, str] = field(default_factory=dict)
    state: StateMapping | None = None

    def __bool__(self) -> bool:
        return self.to_version is not None or bool(self.rename) or self.state is not None


NO_MOVE = Move()


@dataclass(frozen=True, kw_only=True)
class Migration:
    """What moving a run would change, or has changed.

    Attributes:
        run: as it was before.
        version: that it belongs to afterwards.
        stands_at: the nodes that it goes on with; empty if it has not begun.
        changes: how the graph differs from the one that it ran in, in words; None if that one is not known.
        rename: of nodes, old name to new.
        before, after: the fields of its state.
        reviews: ids of what people were asked, or have decided, that is kept.
    """

    run: Run
    version: str
    stands_at: Sequence[str] = ()
    changes: Sequence[str] | None = ()
    rename: Mapping[str, str] = field(default_factory=dict)
    before: Mapping[str, Any] = field(default_factory=dict)
    after: Mapping[str, Any] = field(default_factory=dict)
    reviews: Sequence[str] = ()

    def as_json(self) -> dict[str, Any]:
        """For programs; of the state only the fields that are not as they were."""
        names = sorted(name for name in {*self.before, *self.after} if self.is_other(name))
        sides = {"before": self.before, "after": self.after}
        return {
            "id": self.run.id,
            "workflow": self.run.workflow,
            "version_before": self.run.version,
            "version": self.version,
            "stands_at": list(self.stands_at),
            "changes": self.changes,
            "rename": dict(self.rename),
            "state": {
                name: {
                    side: to_jsonable_python(held[name], fallback=str) for side, held in sides.items() if name in held
                }
                for name in names
            },
            "reviews": list(self.reviews),
        }

    def is_other(self, name: str) -> bool:
        """Whether a field is not as it was."""
        if (name in self.before) != (name in self.after):
            return True
        was, is_now = self.before[name], self.after[name]
        return type(was) is not type(is_now) or bool(was != is_now)


@dataclass(frozen=True)
class Plan:
    """How a run is moved, worked out from how it stood."""

    run: Run
    workflow: Workflow
    move: Move
    history: History
    #: The graph that it ran in until now; None if that is not known.
    began: Structure | None
    #: Its newest checkpoint, and what becomes of it; None of a run that is to begin.
    saved: Saved | None = None
    after: Saved | None = None

    @classmethod
    def of(
        cls, run: Run, workflow: Workflow, move: Move, history: History, began: Structure | None, saved: Saved
    ) -> Plan:
        """Raises BadMigration: it cannot be done."""
        try:
            after = moved(saved, workflow, began, move.rename, move.state)
        except BadMapping as error:
            raise BadMigration(run, workflow, str(error)) from error
        plan = cls(run, workflow, move, history, began, saved, after)
        lost = [*plan._lost(after), *withdrawn(workflow, saved, history, move.rename)]
        if lost:
            raise BadMigration(run, workflow, "; ".join(lost))
        return plan

    @property
    def renamed(self) -> Structure | None:
        """The graph that it ran in, as if it had always had the new names."""
        return None if self.began is None else renamed(self.began, self.move.rename)

    def _lost(self, after: Saved) -> Iterator[str]:
        """What would be lost, in words; it cannot be accepted."""
        now, names, mapping = self.workflow.structure, self.move.rename, self.move.state
        stand = stand_of(after, now)
        asked = {names.get(node, node) for node in asked_nodes(self.history.reviews)}
        for change in not_accepted(obstacles(stand, asked, self.renamed, now)):
            if change.kind is ChangeKind.NODE_GONE:
                if change.at in stand.standing | asked:
                    yield f"{change.words}; say what it is called now: --rename {change.at}=NEW_NAME"
            elif mapping is None or not mapping.settles(change.at) or change.kind is not ChangeKind.FIELD_TYPE:
                yield f"{change.words}; say what becomes of it: --state MAPPING"
        yield from self._done_inside(stand.standing)
        for join in sorted(stand.joins - join_channels(now)):
            starts, _, end = join.removeprefix("join:").rpartition(":")
            yield f"{end!r} waits for {starts.replace('+', ' and ')}, some of which have come, and would never run"

    def _done_inside(self, standing: Collection[str]) -> Iterator[str]:
        """Graphs inside nodes that would begin anew though they have written: what they did is known by where."""
        was, now = self.renamed, self.workflow.structure
        if self.saved is None or was is None:
            return
        others = {change.at for change in changes(was, now) if change.kind is ChangeKind.INSIDE}
        step, names = step_of(self.saved), self.move.rename
        inside = {
            visit.visit
            for visit in self.history.visits.values()
            if len(place := json.loads(visit.place)) > 1 and place[0][1] == step
        }
        written = {e.node for e in self.history.effects.values() if e.visit in inside and has_written(e)}
        for node in sorted(others & set(standing) & {names.get(node, node) for node in written}):
            yield f"the graph inside {node!r} is another, and what it has written there would be written again"

    # -- what is written ---------------------------------------------------------------------------------------------

    def rebound(self) -> Iterator[tuple[str, dict[str, Any]]]:
        """What changes of the run's reviews, by id: what finds them is made of the version, the node, and where the
        question stood."""
        if self.saved is None:
            return
        questions = unfinished_questions(self.saved, self.began or self.workflow.structure)
        for review in self.history.reviews:
            if review.interrupt_id is not None:
                if review.interrupt_id in questions:
                    # It is asked anew, and gets the same answer again.
                    yield review.id, {"interrupt_id": f"{MOVED}{step_of(self.saved)}", "consumed_by": None}
            elif review.kind is ReviewKind.APPROVAL:
                yield from self._approval(review)
            elif review.kind is ReviewKind.LOW_CONFIDENCE:
                yield from self._judgement(review)

    def _approval(self, review: Review) -> Iterator[tuple[str, dict[str, Any]]]:
        node = self.move.rename.get(review.node, review.node)
        bound = bound_to(self._run_after, node, review.evidence["tool"])
        digest = call_digest(bound, canonical(review.arguments))
        if digest != review.digest:
            yield review.id, {"digest": digest}

    def _judgement(self, review: Review) -> Iterator[tuple[str, dict[str, Any]]]:
        asked = [effect for effect in self.history.effects.values() if effect.tool == ask_model.name]
        for effect in asked:
            if judgement_digest(self.run, effect.visit, effect.ordinal) == review.digest:
                digest = judgement_digest(self._run_after, effect.visit, effect.ordinal)
                if digest != review.digest:
                    used = {"consumed_by": digest} if review.consumed_by == review.digest else {}
                    yield review.id, {"digest": digest} | used

    @property
    def _run_after(self) -> Run:
        return replace(self.run, version=self.workflow.version)

    def begun_anew(self) -> set[str]:
        """The nodes, by their old names, the graphs inside which begin anew: they are others, or stand elsewhere."""
        was, now = self.renamed, self.workflow.structure
        kinds = {ChangeKind.INSIDE, ChangeKind.WAITS}
        changed = set() if was is None else {change.at for change in changes(was, now) if change.kind in kinds}
        return set(self.move.rename) | changed

    def told(self) -> Migration:
        """For people."""
        was, now = self.renamed, self.workflow.structure
        kept = [review.id for review in self.history.reviews if _is_kept(review)]
        return Migration(
            run=self.run,
            version=self.workflow.version,
            stands_at=() if self.after is None else sorted(stand_of(self.after, now).standing),
            changes=None if was is None else words_of(changes(was, now)),
            rename=dict(self.move.rename),
            before={} if self.saved is None else state_of(self.saved),
            after={} if self.after is None else state_of(self.after),
            reviews=kept,
        )


def _is_kept(review: Review) -> bool:
    return review.consumed_by is None and review.state in STANDING


def _check_names(names: Mapping[str, str], workflow: Workflow, history: History, began: Structure | None) -> None:
    """Raises BadMapping: an old name is none, a new one is no node of the graph, or two nodes would become one."""
    known = workflow.structure["nodes"].keys() - {"__start__"}
    strangers = [] if began is None else sorted(names.keys() - began["nodes"].keys())
    if strangers:
        raise BadMapping(f"it has been in no node {strangers[0]!r}; its graph had: {_listed(began)}")
    new = set(names.values())
    if not new <= known or len(new) < len(names) or new & names.keys():
        raise BadMapping(
            f"nodes cannot be renamed by {dict(names)}: each old name needs another, new one that is there; "
            f"the nodes are: {', '.join(sorted(known))}"
        )
    if len({rename_place(place, names) for place in history.visits}) < len(history.visits):
        raise BadMapping(f"two nodes that ran side by side cannot become one: {dict(names)}")


def _listed(structure: Structure | None) -> str:
    return ", ".join(sorted((structure or {"nodes": {}})["nodes"].keys() - {"__start__"}))


class Mover:
    """Works out how runs move, and writes it.

    Args:
        store: where they are.
        workflows: what is deployed here.
        runner: whose graphs and checkpoints they are.
    """

    def __init__(self, store: Store, workflows: Workflows, runner: Runner) -> None:
        self._store, self._workflows, self._runner = store, workflows, runner

    async def plan(self, run: Run, move: Move, *, anew: bool = False) -> Plan:
        """How this run would be moved.

        Args:
            anew: it is to begin its graph anew.

        Raises:
            IllegalMove: it is in a worker's hands, or at its end.
            UnknownWorkflow: the version is not deployed here.
            BadMigration: it cannot be moved like this.
        """
        workflow = self._workflows.get(run.workflow, move.to_version or run.version)
        if run.state not in AT_REST:
            raise IllegalMove(run.id, run.state, RunState.RECEIVED)
        began, saver = await kept_graph(self._store, run.fingerprint), self._runner.saver_of(workflow)
        saved = None if anew else await saver.aget_tuple({"configurable": {"thread_id": run.thread_id}})
        history = await self._store.history(run.id)
        try:
            _check_names(move.rename, workflow, history, began)
        except BadMapping as error:
            raise BadMigration(run, workflow, str(error)) from error
        if saved is None:
            lost = misfits(run, workflow, began, None, history.reviews, history.effects.values())
            if lost:
                raise BadMigration(run, workflow, "; ".join(words_of(lost)))
            return Plan(run, workflow, move, history, began)
        return Plan.of(run, workflow, move, history, began, saved)

    def write(self, tx: Transaction, plan: Plan, *, by: str) -> None:
        """Collect everything that moves the run."""
        run, workflow = plan.run, plan.workflow
        tx.hold_still(run)
        tx.keep_graph(workflow.fingerprint, workflow.name, workflow.version, workflow.structure)
        tx.take_graph(run.id, workflow.fingerprint)
        if workflow.version != run.version:
            tx.take_version(run.id, workflow.version)
        if plan.after is not None:
            self._write_stand(tx, plan, plan.after)
        told = plan.told()
        data = {
            "text": "moved to another graph",
            "version": told.version,
            "version_before": run.version,
            "changes": told.changes,
            "names": told.rename,
            "state": {} if plan.move.state is None else plan.move.state.as_json(),
            "reviews": told.reviews,
        }
        tx.note(run.id, actor=by, data=data | fingerprints(run, workflow))

    def _write_stand(self, tx: Transaction, plan: Plan, after: Saved) -> None:
        """Where the run stands, and everything that is known by where it stands."""
        run, names = plan.run, plan.move.rename
        if names:
            tx.rename_nodes(run.id, names)
        for visit in plan.history.visits.values():
            place = rename_place(visit.place, names)
            node = names.get(visit.node, visit.node)
            if (node, place) != (visit.node, visit.place):
                tx.put_visit(replace(visit, node=node, place=place))
        for review_id, columns in plan.rebound():
            tx.rebind_review(review_id, **columns)
        tx.forget_unfinished_step(run.thread_id, plan.begun_anew())
        self._runner.saver_of(plan.workflow).replace_newest(after, after.checkpoint, tx)
