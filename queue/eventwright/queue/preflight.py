"""Before a deploy: every unfinished run that this code would break, why, and the way out. It only reads.

What is found here is found again when such a run is taken up: it stops as `needs_migration`, or fails at the gate. The
difference is that nobody waits for it yet.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Collection
from dataclasses import dataclass, field

from eventwright.graphs.compensation import own_workflows
from eventwright.graphs.fingerprint import Structure
from eventwright.graphs.fitting import misfits, way_out, words_of
from eventwright.graphs.permits import withdrawn
from eventwright.graphs.runner import Runner
from eventwright.graphs.waiting import continuation
from eventwright.graphs.workflow import InvalidPayload, UnknownPayloadVersion, UnknownWorkflow, Workflow, Workflows
from eventwright.runs.records import Run
from eventwright.runs.states import FINAL, Documented, RunState
from eventwright.runs.store import Store
from eventwright.runs.structures import kept_graph
from eventwright.tools.contract import Resources

#: Runs that are on their way, or will be without anybody's doing. A dead letter waits for an operator anyway.
UNFINISHED = tuple(state for state in RunState if state not in FINAL and state is not RunState.FAILED)
#: Runs that are read at a time.
PAGE = 200


class Break(Documented):
    """Why a run would break."""

    NOT_LOADED = "not_loaded", "its workflow, or the version that it belongs to, is not loaded"
    GRAPH = "graph", "the graph was changed where it stands or has been"
    POLICY = "policy", "a policy does not name a tool any more that it has begun with, or was asked about"
    EVENT = "event", "it has not begun, and no trigger takes its event any more"


@dataclass(frozen=True, kw_only=True)
class Broken:
    """A run that this code would break."""

    run: Run
    kind: Break
    why: str
    way_out: str


@dataclass(kw_only=True)
class Preflight:
    """What became of every unfinished run: how many are fine, and the others."""

    fine: int = 0
    broken: list[Broken] = field(default_factory=list)


async def preflight(store: Store, workflows: Workflows, *, only: Collection[str] = ()) -> Preflight:
    """Look at every unfinished run of a database with the workflows of this code.

    Args:
        only: runs of these workflows; by default all.
    """
    checking = _Checking(store, workflows.with_own(own_workflows(workflows.versions())))
    found = Preflight()
    async for run in _unfinished(store):
        if only and run.workflow not in only:
            continue
        broken = await checking.look(run)
        if broken is None:
            found.fine += 1
        else:
            found.broken.append(broken)
    return found


async def _unfinished(store: Store) -> AsyncIterator[Run]:
    before = None
    while page := await store.runs(states=UNFINISHED, limit=PAGE, before=before):
        for run in page:
            yield run
        before = page[-1].id


class _Checking:
    def __init__(self, store: Store, workflows: Workflows) -> None:
        self._store, self._workflows = store, workflows
        # It runs nothing, so that no tool needs its client.
        self._runner = Runner(store, Resources())
        self._kept: dict[str | None, Structure | None] = {}

    async def look(self, run: Run) -> Broken | None:
        try:
            workflow = self._workflows.get(run.workflow, run.version)
        except UnknownWorkflow as error:
            return Broken(run=run, kind=Break.NOT_LOADED, why=str(error), way_out=_version_out(error))
        saver = self._runner.saver_of(workflow)
        saved = await saver.aget_tuple({"configurable": {"thread_id": run.thread_id}})
        history, began = await self._store.history(run.id), await self._graph_of(run, workflow)
        lost = misfits(run, workflow, began, saved, history.reviews, history.effects.values())
        if lost:
            words = "; ".join(words_of(lost))
            return Broken(run=run, kind=Break.GRAPH, why=words, way_out=way_out(workflow, began, lost))
        if saved is None:
            return _event_break(run, workflow)
        words = "; ".join(withdrawn(workflow, saved, history))
        if words:
            return Broken(run=run, kind=Break.POLICY, why=words, way_out=_POLICY_OUT)
        return None

    async def _graph_of(self, run: Run, workflow: Workflow) -> Structure | None:
        """The graph that the run is in; few runs are in graphs of their own."""
        if run.fingerprint == workflow.fingerprint:
            return workflow.structure
        if run.fingerprint not in self._kept:
            self._kept[run.fingerprint] = await kept_graph(self._store, run.fingerprint)
        return self._kept[run.fingerprint]


def _event_break(run: Run, workflow: Workflow) -> Broken | None:
    """Of a run that has not begun: whether its graph would be given its input."""
    trigger = workflow.trigger(run.event) or continuation(workflow, run.event)
    if trigger is None:
        why = f"no trigger of {workflow.name} version {workflow.version} is meant for {run.event.type!r} any more"
        return Broken(run=run, kind=Break.EVENT, why=why, way_out=_EVENT_OUT)
    try:
        trigger.parse(run.event)
    except (UnknownPayloadVersion, InvalidPayload) as error:
        return Broken(run=run, kind=Break.EVENT, why=str(error), way_out=_EVENT_OUT)
    return None


def _version_out(error: UnknownWorkflow) -> str:
    earlier = f"Deploy version {error.version} beside the others" if error.loaded else "Load the workflow"
    moved = f", or move the run on: eventwright migrate RUN --to {error.loaded[-1]}" if error.loaded else ""
    return f"{earlier}{moved}; or end the run: eventwright cancel RUN"


_POLICY_OUT = "Keep the tool in the policy of this version, and leave it out of a new one; or end the run"
_EVENT_OUT = "Keep the trigger in this version, and change it in a new one; or let the runs begin before the deploy"
