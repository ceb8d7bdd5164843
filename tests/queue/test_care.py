"""What the engine does about workers that die or have to stop, and about runs that get nowhere."""

from __future__ import annotations

import asyncio
from typing import Any

from tests.outside import Trouble, World, chain, ended, job, look, post

from eventwright.graphs.runner import Runner
from eventwright.graphs.workflow import Workflows
from eventwright.guardrails.policy import Policy
from eventwright.queue.engine import Engine
from eventwright.queue.settle import MOST_IDLE
from eventwright.runs.claims import MOST_CRASHES
from eventwright.runs.records import JournalEntry, JournalKind
from eventwright.runs.states import Outcome, Reason, RunState


async def first(state: Any) -> dict[str, Any]:
    return {"log": [await post("first")]}


async def second(state: Any) -> dict[str, Any]:
    return {"log": ["second"]}


ONE = job(chain(first=first), {"first": Policy(tools=[post])})


def notes(journal: list[JournalEntry]) -> list[JournalEntry]:
    return [entry for entry in journal if entry.kind is JournalKind.NOTE]


class TestAWorkerThatLostItsRun:
    async def test_is_told_of_in_the_journal_once_though_several_of_its_writes_are_refused(self, world: World) -> None:
        graph = chain(first=first)
        graph.add_node("beside", first)
        graph.add_edge("__start__", "beside")
        workflow = job(graph, {name: Policy(tools=[post]) for name in ("first", "beside")})
        world.provider.troubles = [Trouble(happens=True), Trouble(happens=True)]
        run = await world.send(workflow)
        zombie = world.engine
        hanging = asyncio.create_task(zombie.advance(run.run_id))
        while len(world.provider.calls) < 2:
            await asyncio.sleep(0.01)
        world.deploy(workflow)
        await world.due(run)
        heir = world.engine
        assert await heir.advance(run.run_id) is RunState.PENDING_APPROVAL
        world.provider.go.set()
        assert await hanging is None

        (note,) = notes(await run.journal())
        assert note.actor == zombie.worker
        assert note.data == {
            "text": "a write of a worker that had lost the run was refused",
            "fence": 1,
            "current": 2,
        }

    async def test_says_nothing_where_it_wrote_nothing(self, world: World) -> None:
        world.provider.troubles = [Trouble()]
        run = await world.crash(await world.send(ONE))
        await run.go_on()
        assert notes(await run.journal()) == []


class TestAWorkerThatStops:
    async def test_gives_up_what_does_not_come_to_its_boundary_in_time_and_that_is_no_crash(self, world: World) -> None:
        async def looks(state: Any) -> dict[str, Any]:
            return {"log": [await look("at it")]}

        workflow = job(chain(looks=looks), {"looks": Policy(tools=[look])})
        world.provider.troubles = [Trouble() for _ in range(MOST_CRASHES + 1)]
        run = await world.send(workflow)
        for _ in range(MOST_CRASHES + 1):
            await world.due(run)
            segment = asyncio.create_task(world.engine.advance(run.run_id))
            await world.provider.reached.wait()
            world.provider.reached.clear()
            world.engine.drain()
            segment.cancel()
            await asyncio.gather(segment, return_exceptions=True)
            left = await run.run()
            assert (left.state, left.worker, left.crashes) == (RunState.PROCESSING, None, 0)
            world.deploy(workflow)
        assert ended(await world.take(run.run_id).go_on()) == (RunState.COMPLETED, Outcome.AUTO)


class TestARunThatGetsNowhere:
    def engine(self, world: World, *, serves: str, wants: str) -> Engine:
        """A process that serves one lane, of a deploy whose second node wants another."""
        workflow = job(chain(first=second, second=second), {"second": Policy(lane=wants)})
        runner = Runner(world.store, world.resources, lanes=[serves])
        return Engine(world.store, Workflows([workflow]), runner, worker=f"of {serves}")

    async def test_between_two_deploys_that_hand_it_to_each_other_is_put_aside_and_says_so(self, world: World) -> None:
        run = await world.send(job(chain(first=second, second=second)))
        engines = [self.engine(world, serves=a, wants=b) for a, b in (("default", "llm"), ("llm", "io"))]
        segments = 0
        while (state := await engines[segments % 2].advance(run.run_id)) is RunState.RECEIVED:
            segments += 1
        put_aside = await run.run()

        assert state is RunState.FAILED
        assert ended(put_aside) == (RunState.FAILED, Reason.QUARANTINED)
        assert f"{MOST_IDLE} times in a row" in (put_aside.error or "")
        assert segments == MOST_IDLE, "the first one did a step"
        await world.engine.replay(run.run_id, by="olga")
        assert ended(await run.go_on()) == (RunState.COMPLETED, Outcome.AUTO)

    async def test_is_not_held_against_it_once_it_gets_on(self, world: World) -> None:
        run = await world.send(job(chain(first=second, second=second)))
        wrong = [self.engine(world, serves=a, wants=b) for a, b in (("default", "llm"), ("llm", "io"))]
        for number in range(MOST_IDLE):
            assert await wrong[number % 2].advance(run.run_id) is RunState.RECEIVED
        assert (await run.run()).idle == MOST_IDLE - 1

        assert (await run.go_on()).state is RunState.COMPLETED
        assert (await run.run()).idle == 0

    async def test_a_run_that_is_drained_again_and_again_is_not_put_aside(self, world: World) -> None:
        run = await world.send(ONE)
        for _ in range(2 * MOST_IDLE):
            world.deploy(ONE)
            world.engine.drain()
            assert await world.engine.advance(run.run_id) is RunState.RECEIVED
        assert (await run.run()).idle == 0
        world.deploy(ONE)
        assert (await world.take(run.run_id).go_on()).state is RunState.COMPLETED

    async def test_hand_overs_that_get_on_are_never_too_many(self, world: World) -> None:
        names = [f"n{number}" for number in range(2 * MOST_IDLE)]
        graph = chain(**dict.fromkeys(names, second))
        workflow = job(graph, {name: Policy(lane="ab"[number % 2]) for number, name in enumerate(names)})
        run = await world.send(workflow)
        engines = {
            lane: Engine(
                world.store, Workflows([workflow]), Runner(world.store, world.resources, lanes=[lane]), worker="w"
            )
            for lane in ("default", "a", "b")
        }
        while (await run.run()).state is RunState.RECEIVED:
            await engines[(await run.run()).lane].advance(run.run_id)
        assert ended(await run.run()) == (RunState.COMPLETED, Outcome.AUTO)
