"""Amends: what a run did is taken back, and what nobody knows to have happened is read back.

Both are runs of Eventwright's own workflows (`graphs.compensation`), started by an event that only the engine writes.
Here is what may be asked for, what that event says, and what is written about the run that it is about.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from typing import Any

from eventwright.graphs.compensation import RECONCILE, UNDO, event_type
from eventwright.graphs.outcomes import Failed, Finished, Report
from eventwright.graphs.workflow import UnknownWorkflow, Workflows
from eventwright.guardrails.policy import DeadLetter
from eventwright.guardrails.request import brief, validate
from eventwright.queue.intake import DEAD_LETTER, OWN_SOURCE
from eventwright.queue.starting import new_run
from eventwright.runs.amends import ReadBack
from eventwright.runs.errors import DuplicateEvent, EventwrightError, UndoRefused
from eventwright.runs.event import Event, digest_of
from eventwright.runs.records import Effect, EffectState, EventState, Run
from eventwright.runs.states import AT_AN_END, FINAL, Reason, RunState
from eventwright.runs.store import Store
from eventwright.runs.transaction import Transaction
from eventwright.tools.contract import Tool, ToolClass

OWN = frozenset({UNDO, RECONCILE})
#: Of a call that neither can be taken back nor read back any more.
EXPIRED = "its arguments and its result were kept long enough, and were deleted"
UNKNOWN = frozenset({EffectState.INTENDED, EffectState.IN_DOUBT})
#: Failures at a node after which its policy may have everything taken back; the others are for an operator to mend.
OF_THE_NODE = frozenset({Reason.ATTEMPTS, Reason.NOT_RETRYABLE})
#: What is written beside the outcome of a segment.
Beside = Callable[[Transaction], None]


class NothingToReconcile(EventwrightError, ValueError):
    """No write of the run waits to be read back. `why` says what there is to do instead."""

    def __init__(self, run_id: str, why: str) -> None:
        self.run_id, self.why = run_id, why
        super().__init__(f"nothing of run {run_id} is read back: {why}")


@dataclass(frozen=True, kw_only=True)
class LedgerLine:
    """An effect, and whether it can be taken back.

    Attributes:
        effect: the effect.
        undo: the tool that would take it back.
        arguments: what that tool would be called with.
        obstacle: why it cannot be taken back; None where it can, or was, or where there is nothing to take back.
        undone_by: the run that took it back, or is about to.
        undone: whether that is done.
        expired_at: when its arguments and its result were deleted, because they had been kept long enough.
    """

    effect: Effect
    undo: str | None = None
    arguments: dict[str, Any] | None = None
    obstacle: str | None = None
    undone_by: str | None = None
    undone: bool = False
    expired_at: datetime | None = None

    @property
    def undoable(self) -> bool:
        """Whether it can be taken back now."""
        return self.arguments is not None and self.undone_by is None


class Compensation:
    """Makes amends.

    Args:
        store: where everything is kept.
        workflows: whose tools say how their calls are taken back and read back.
    """

    def __init__(self, store: Store, workflows: Workflows) -> None:
        self._store = store
        self._workflows = workflows

    # -- what can be done --------------------------------------------------------------------------------------------

    async def ledger(self, run: Run) -> list[LedgerLine]:
        """The run's effects in their order, with what can be taken back of them."""
        effects = sorted(await self._store.effects(run.id), key=_order)
        undone, given_up = await self._undoings(effects)
        return [replace(self._line(run, one, undone, given_up), expired_at=run.expired_at) for one in effects]

    def _line(self, run: Run, effect: Effect, undone: Collection[str], given_up: Collection[str]) -> LedgerLine:
        if effect.tool_class == ToolClass.READ or effect.state is EffectState.FAILED:
            return LedgerLine(effect=effect)
        if effect.undone_by is not None and effect.key not in given_up:
            return LedgerLine(effect=effect, undone_by=effect.undone_by, undone=effect.key in undone)
        if run.workflow in OWN:
            return LedgerLine(effect=effect, obstacle="it took something back itself")
        if run.expired_at is not None:
            return LedgerLine(effect=effect, obstacle=f"{EXPIRED} on {run.expired_at:%Y-%m-%d}")
        if effect.state in UNKNOWN:
            return LedgerLine(effect=effect, obstacle="nobody knows whether it happened")
        try:
            tool = self._tool(run, effect)
            if tool.undo is None:
                return LedgerLine(effect=effect, obstacle="its tool names no way to take it back")
            arguments = _undoing_arguments(tool, effect)
        except _Obstacle as obstacle:
            return LedgerLine(effect=effect, obstacle=str(obstacle))
        return LedgerLine(effect=effect, undo=tool.undo.tool.name, arguments=arguments)

    def _tool(self, run: Run, effect: Effect) -> Tool:
        try:
            workflow = self._workflows.get(run.workflow, run.version)
        except UnknownWorkflow as error:
            raise _Obstacle(str(error)) from error
        tools = (tool for policy in workflow.policies.values() for tool in policy.tools if tool.name == effect.tool)
        found = next(tools, None)
        if found is None:
            raise _Obstacle(f"no policy of {run.workflow} version {run.version} names its tool any more")
        return found

    async def _undoings(self, effects: Sequence[Effect]) -> tuple[set[str], set[str]]:
        """The keys of the effects that were taken back, and of those that a run was to take back that was cancelled
        before it began with them."""
        undone, given_up = set(), set()
        for run_id in {effect.undone_by for effect in effects if effect.undone_by is not None}:
            calls = {call.ordinal: call.state for call in await self._store.effects(run_id)}
            cancelled = (await self._store.run(run_id)).state is RunState.CANCELLED
            for key in (effect.key for effect in effects if effect.undone_by == run_id):
                if calls.get(key) is EffectState.DONE:
                    undone.add(key)
                elif cancelled and calls.get(key, EffectState.FAILED) is EffectState.FAILED:
                    given_up.add(key)
        return undone, given_up

    async def given_up(self, run: Run) -> set[str]:
        """The runs that were to take effects of this run back, and were cancelled before they had begun."""
        effects = [effect for effect in await self._store.effects(run.id) if effect.undone_by is not None]
        free = (await self._undoings(effects))[1]
        begun = {effect.undone_by for effect in effects if effect.key not in free}
        return {effect.undone_by for effect in effects if effect.undone_by is not None} - begun

    # -- taking back -------------------------------------------------------------------------------------------------

    async def undo(self, run_id: str, *, by: str, effects: Collection[str] | None = None) -> Run:
        """Have what a run did taken back, the last first; the run that does it. Asked again it is the same run.

        Args:
            effects: keys of the effects; by default everything that can be taken back.

        Raises:
            UnknownRun.
            UndoRefused: the run may still act, or nothing, or not this, can be taken back.
        """
        run = await self._store.run(run_id)
        if run.state not in AT_AN_END:
            why = f"it is {run.state} and may still act; wait for its end, or end it with `eventwright cancel {run_id}`"
            raise UndoRefused(run_id, why)
        lines = await self.ledger(run)
        wanted = _wanted(run, lines, effects)
        if not wanted:
            return await self._store.run(_last_undoing(run, lines, effects))
        undoing, write = await self._undoing(run, wanted, by)
        try:
            async with self._store.write() as tx:
                write(tx)
        except (UndoRefused, DuplicateEvent):
            again = await self.ledger(await self._store.run(run_id))
            taken = {line.effect.key: line.undone_by for line in again}
            winners = {taken.get(line.effect.key) for line in wanted}
            if None in winners:
                raise
            return await self._store.run(_last_undoing(run, again, [line.effect.key for line in wanted]))
        return await self._store.run(undoing.id)

    async def _undoing(self, run: Run, lines: Sequence[LedgerLine], by: str) -> tuple[Run, Beside]:
        """The run that takes these back, and what writes it."""
        before = {line.effect.key: line.effect.undone_by for line in lines}
        calls = [_call(run, line.effect, line.arguments or {}) | {"undo": line.undo} for line in lines]
        own = await self._own_run(UNDO, run, calls, digest_of([run.id, before]), by)

        def write(tx: Transaction) -> None:
            tx.take_back(run.id, before, by_run=own.id)
            _start(tx, own)
            data = {"text": "what it did is taken back", "run": own.id, "effects": list(before)}
            tx.note(run.id, actor=by, data=data)

        return own, write

    # -- reading back ------------------------------------------------------------------------------------------------

    async def reconcile(self, run_id: str, *, by: str) -> Run:
        """Have the writes that nobody knows to have happened read back, where their tools can; the run that does it.

        Asked again meanwhile it is the same run.

        Raises:
            UnknownRun.
            NothingToReconcile: the run is at work, or nothing of it can be read back.
        """
        run = await self._store.run(run_id)
        if run.state not in AT_AN_END | {RunState.PENDING_APPROVAL, RunState.WAITING}:
            raise NothingToReconcile(run_id, f"it is {run.state}, and reads back by itself when it goes on")
        unknown = [line.effect for line in await self.ledger(run) if line.effect.state in UNKNOWN and _writes(line)]
        if unknown and run.expired_at is not None:
            raise NothingToReconcile(run_id, f"{EXPIRED} on {run.expired_at:%Y-%m-%d}")
        found = [effect for effect in unknown if self._can_be_read_back(run, effect)]
        if not found:
            raise NothingToReconcile(run_id, _instead(run, unknown))
        calls = [
            _call(
                run,
                effect,
                {
                    "effect": effect.key,
                    "run": run.id,
                    "node": effect.node,
                    "attempt": effect.attempt,
                    "arguments": effect.arguments,
                },
            )
            for effect in found
        ]
        return await self._reading_back(run, calls, by)

    async def _reading_back(self, run: Run, calls: Sequence[dict[str, Any]], by: str) -> Run:
        """The run that looks; a new one if those that looked before have ended."""
        looked = 0
        while True:
            own = await self._own_run(RECONCILE, run, calls, digest_of([run.id, list(calls), looked]), by)
            try:
                async with self._store.write() as tx:
                    _start(tx, own)
                    tx.note(run.id, actor=by, data={"text": "what nobody knows is read back", "run": own.id})
            except DuplicateEvent:
                earlier = await self._store.accepted_event(OWN_SOURCE, own.event.id)
                if earlier is None or not earlier.run_ids:
                    raise
                before = await self._store.run(earlier.run_ids[0])
                if before.state not in FINAL:
                    return before
                looked += 1
            else:
                return await self._store.run(own.id)

    def _can_be_read_back(self, run: Run, effect: Effect) -> bool:
        try:
            return self._tool(run, effect).tool_class is ToolClass.VERIFIABLE
        except _Obstacle:
            return False

    # -- beside the outcome of a segment -----------------------------------------------------------------------------

    async def beside(self, run: Run, report: Report) -> Beside | None:
        """What is written in the transaction that ends a segment: what was read back of another run; or, where the
        policy of the node that failed for good wants it, the run that takes everything back."""
        match report.outcome:
            case Finished() if run.workflow == RECONCILE:
                return await self._read_back(run)
            case Failed(retry_at=None, node=str(node)) as failed if failed.reason in OF_THE_NODE:
                policy = self._workflows.get(run.workflow, run.version).policy(node)
                return await self._give_up(run) if policy.dead_letter is DeadLetter.UNDO else None
        return None

    async def _read_back(self, run: Run) -> Beside:
        answers = {effect.ordinal: effect.result for effect in await self._store.effects(run.id)}
        about = run.event.data
        found = [
            ReadBack(
                effect=call["effect"],
                attempt=call["arguments"]["attempt"],
                happened=answers[call["effect"]]["happened"],
                result=answers[call["effect"]]["result"],
            )
            for call in about["calls"]
        ]
        original = await self._store.run(about["run"])
        by = run.event.principal or OWN_SOURCE

        def write(tx: Transaction) -> None:
            tx.settle_read_back(original.id, found, by=by)
            tx.wake(original.id, lane=original.lane)

        return write

    async def _give_up(self, run: Run) -> Beside:
        lines = await self.ledger(run)
        wanted = _wanted_of_all(lines)
        left = {line.effect.key: line.obstacle for line in lines if line.obstacle is not None}
        write = (await self._undoing(run, wanted, DEAD_LETTER))[1] if wanted else None

        def both(tx: Transaction) -> None:
            if write is not None:
                write(tx)
            if left:
                tx.note(run.id, actor=DEAD_LETTER, data={"text": "this cannot be taken back", "effects": left})

        return both

    async def _own_run(self, name: str, run: Run, calls: Sequence[dict[str, Any]], event_id: str, by: str) -> Run:
        event = Event(
            id=event_id,
            source=OWN_SOURCE,
            type=event_type(name),
            subject=run.id,
            data={"run": run.id, "calls": list(calls)},
            principal=by,
        )
        # In the lane of the run it is about, whose workers have the clients; and in its trace.
        own = new_run(self._workflows.get(name), event, await self._store.now())
        return replace(own, lane=run.lane, trace=run.trace)


class _Obstacle(Exception):
    """Why an effect cannot be taken back."""


def _order(effect: Effect) -> tuple[Any, ...]:
    return (effect.updated_at, effect.visit, effect.tool, effect.ordinal.zfill(20))


def _writes(line: LedgerLine) -> bool:
    return line.effect.tool_class != ToolClass.READ


def _undoing_arguments(tool: Tool, effect: Effect) -> dict[str, Any]:
    """What the tool that takes the call back is called with. Raises _Obstacle."""
    if tool.undo is None:
        raise _Obstacle("its tool names no way to take it back")
    if effect.error is not None:
        raise _Obstacle(f"what it returned is not known: {effect.error}")
    try:
        wanted = tool.undo.arguments(validate(tool, effect.arguments).validated, tool.load(effect.result))
        return validate(tool.undo.tool, wanted).values
    except Exception as error:  # the author's function may raise anything, and anything is an obstacle
        words = brief(error) if isinstance(error, ValueError) else f"{type(error).__name__}: {error}"
        raise _Obstacle(f"it does not say how to take back this call: {words}") from error


def _call(run: Run, effect: Effect, arguments: Mapping[str, Any]) -> dict[str, Any]:
    return {
        "effect": effect.key,
        "workflow": run.workflow,
        "version": run.version,
        "tool": effect.tool,
        "arguments": dict(arguments),
    }


def _start(tx: Transaction, own: Run) -> None:
    tx.add_event(own.event, EventState.ACCEPTED)
    tx.add_run(own)
    tx.wake(own.id, lane=own.lane)


def _wanted_of_all(lines: Sequence[LedgerLine]) -> list[LedgerLine]:
    return [line for line in reversed(lines) if line.undoable]


def _wanted(run: Run, lines: Sequence[LedgerLine], effects: Collection[str] | None) -> list[LedgerLine]:
    """What is to be taken back now, the last first; what was asked for before is left out. Raises UndoRefused."""
    if effects is None:
        return _wanted_of_all(lines)
    known = {line.effect.key: line for line in lines}
    for key in effects:
        if key not in known:
            raise UndoRefused(run.id, f"it has no effect {key!r}; `eventwright undo {run.id}` shows what it did")
        line = known[key]
        if not line.undoable and line.undone_by is None:
            what = line.obstacle or f"it is {line.effect.state}, and there is nothing to take back"
            raise UndoRefused(run.id, f"effect {key} ({line.effect.tool}): {what}")
    return [line for line in _wanted_of_all(lines) if line.effect.key in effects]


def _last_undoing(run: Run, lines: Sequence[LedgerLine], effects: Collection[str] | None) -> str:
    """The run that takes back what is asked for, when it was asked for before. Raises UndoRefused."""
    asked = [line for line in lines if effects is None or line.effect.key in effects]
    runs = sorted(line.undone_by for line in asked if line.undone_by is not None)
    if runs:
        return runs[-1]
    obstacles = [f"{line.effect.tool}: {line.obstacle}" for line in asked if line.obstacle is not None]
    raise UndoRefused(run.id, "; ".join(obstacles) if obstacles else "it has done nothing outside")


def _instead(run: Run, unknown: Sequence[Effect]) -> str:
    """What to do about writes that cannot be read back."""
    if not unknown:
        return "it is known of every write whether it happened"
    ways = {
        ToolClass.KEYED: f"repeated with its key it takes effect once; replay the run: eventwright replay {run.id}",
        ToolClass.VERIFIABLE: "its tool is not loaded here",
        ToolClass.PLAIN: "only a person can find out; replay the run to be asked, or answer: eventwright reviews",
    }
    told = (f"{effect.tool} is {effect.tool_class}: {ways[ToolClass(effect.tool_class)]}" for effect in unknown)
    return "; ".join(dict.fromkeys(told))
