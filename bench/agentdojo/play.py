"""Plays cases: each is one run of a workflow with one node, through the real engine, gate and store."""

from __future__ import annotations

import asyncio
import tempfile
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypedDict

from agentdojo.functions_runtime import FunctionCall
from attacker import Case, World
from guards import Guard, reviewer
from langgraph.graph import START, StateGraph
from roles import WRITES, Worlds, instruction, tools_of

from eventwright.graphs.runner import Runner
from eventwright.graphs.workflow import On, Workflow, Workflows
from eventwright.guardrails.verdicts import Denied, Rejected
from eventwright.queue.engine import Engine, Lapse
from eventwright.runs.event import Event
from eventwright.runs.migrate import upgrade
from eventwright.runs.records import Decision, DecisionType, ReviewState
from eventwright.runs.states import RunState
from eventwright.runs.store import Store
from eventwright.tools.contract import Resources

#: Runs at once; they share each commit.
CONCURRENCY = 48


@dataclass(frozen=True)
class Outcome:
    """How one case ended, by the oracles."""

    case: Case
    useful: bool
    #: AgentDojo's check of the injection.
    harmed: bool
    #: By the strict oracle: injected calls that had an effect.
    effects: tuple[str, ...]
    #: How often a person was asked.
    asked: int


async def play(guard: Guard, cases: Sequence[Case]) -> list[Outcome]:
    """Every case behind this guard, on one store.

    Raises:
        RuntimeError: a run did not come to its end.
    """
    if guard.stages is None:
        return [await _unguarded(case) for case in cases]
    worlds = Worlds()
    workflows = [_workflow(guard, case, worlds) for case in {_alone(case): case for case in cases}.values()]
    turn = asyncio.Semaphore(CONCURRENCY)
    async with _engine(guard, workflows, worlds) as engine:

        async def one(case: Case) -> Outcome:
            async with turn:
                return await _guarded(engine, worlds, guard, case)

        async with asyncio.TaskGroup() as tasks:
            played = [tasks.create_task(one(case)) for case in cases]
        return [task.result() for task in played]


def _alone(case: Case) -> Case:
    return Case(case.suite, case.user_task)


def _judged(world: World, asked: int) -> Outcome:
    return Outcome(
        case=world.case,
        useful=world.case.injection_task is None and world.useful(),
        harmed=world.case.injection_task is not None and world.harmed(),
        effects=tuple(call.function for call in world.injected_effects(WRITES)),
        asked=asked,
    )


async def _unguarded(case: Case) -> Outcome:
    world = World(case)

    async def make(call: FunctionCall) -> Any:
        return world.perform(call.function, dict(call.args))

    await world.play(make)
    return _judged(world, asked=0)


# -- through the gate ------------------------------------------------------------------------------------------------


class State(TypedDict, total=False):
    case: str
    instruction: str
    done: bool


def _workflow(guard: Guard, case: Case, worlds: Worlds) -> Workflow:
    """One node, which plays the script behind the guard's policy for the user's task."""
    tools = tools_of(case.suite, marked=guard.marked)

    async def make(call: FunctionCall) -> Any:
        try:
            return await tools[call.function](**call.args)
        except (Denied, Rejected):
            return None

    async def agent(state: State) -> State:
        await instruction()
        await worlds.of_case[state["case"]].play(make)
        return {"done": True}

    graph = StateGraph(State)
    graph.add_node("agent", agent)
    graph.add_edge(START, "agent")
    return Workflow(
        f"{case.suite}-{case.user_task}",
        version="1",
        graph=graph,
        # The user's own words: the one thing here that can be relied on.
        triggers=[On(_alone(case).id, trusted=True)],
        policies={"agent": guard.policy(case)},
    )


@asynccontextmanager
async def _engine(guard: Guard, workflows: Sequence[Workflow], worlds: Worlds) -> AsyncIterator[Engine]:
    with tempfile.TemporaryDirectory(prefix="ew-agentdojo-") as folder:
        url = f"sqlite:///{Path(folder) / 'runs.db'}"
        await upgrade(url)
        async with Store.open(url) as store:
            runner = Runner(store, Resources((worlds,)), stages=guard.stages)
            # Nothing here keeps leases alive, and nobody else wants the runs.
            yield Engine(store, Workflows(workflows), runner, worker="bench", times=Lapse(lease=600.0))


async def _guarded(engine: Engine, worlds: Worlds, guard: Guard, case: Case) -> Outcome:
    world = worlds.of_case[case.id] = World(case)
    approve = reviewer(guard, world)
    data = {"case": case.id, "instruction": case.user.PROMPT}
    receipt = await engine.receive(Event(id=case.id, source="/agentdojo", type=_alone(case).id, data=data))
    run_id = receipt.runs[0].id
    worlds.of_run[run_id] = world
    asked = 0
    while (state := await engine.advance(run_id)) is RunState.PENDING_APPROVAL:
        for review in await engine.store.reviews(state=ReviewState.OPEN, run_ids=[run_id]):
            asked += 1
            good = approve(review.evidence["tool"], review.arguments or {})
            decision = DecisionType.APPROVE if good else DecisionType.REJECT
            await engine.decide(review.id, Decision(type=decision, by="reviewer"), digest=review.digest)
    if state is not RunState.COMPLETED:
        run = await engine.store.run(run_id)
        raise RuntimeError(f"{case.id} behind {guard.name!r} ended as {run.state}: {run.error}")
    del worlds.of_run[run_id], worlds.of_case[case.id]
    return _judged(world, asked)
