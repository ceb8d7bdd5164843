"""The engine's verbs: a run moves on exactly once at a time, survives its workers, and loses no word of a person."""

from __future__ import annotations

import asyncio
from datetime import timedelta
from decimal import Decimal
from typing import Any

import pytest
from langgraph.types import interrupt
from tests.outside import Trouble, World, chain, ended, job, pay, post, says, the_review

from eventwright.app.simulate import Simulation
from eventwright.graphs.runner import Stop
from eventwright.guardrails.policy import Backoff, Policy, review
from eventwright.guardrails.rules import always
from eventwright.queue.desk import AlreadyDecided, ReviewClosed
from eventwright.queue.engine import MOST_CRASHES
from eventwright.runs.checkpoints import CheckpointSaver
from eventwright.runs.errors import IllegalMove, UnknownReview, UnknownRun
from eventwright.runs.records import JournalKind, ReviewState
from eventwright.runs.states import Outcome, Reason, RunState
from eventwright.tools.contract import NotDone


async def first(state: Any) -> dict[str, Any]:
    return {"log": [await post("first")]}


async def second(state: Any) -> dict[str, Any]:
    return {"log": [await post("second")]}


async def asks(state: Any) -> dict[str, Any]:
    return {"log": [interrupt("go on?")]}


async def pays(state: Any) -> dict[str, Any]:
    return {"log": [await pay(Decimal(5))]}


TWO = job(chain(first=first, second=second), {name: Policy(tools=[post]) for name in ("first", "second")})


def approving(**approval: Any) -> Any:
    return job(
        chain(first=first, pays=pays),
        {
            "first": Policy(tools=[post]),
            "pays": Policy(tools=[pay], approve_when=always, approval=review(**approval)),
        },
    )


async def segment(world: World, run: Simulation) -> None:
    """One segment, whose worker dies before it has written how the segment ended."""
    engine = world.engine
    await world.due(run)
    lease = (await engine._claim(run.run_id)).lease
    assert lease is not None
    stored = await run.run()
    await engine.runner.segment(stored, engine.workflows.get(stored.workflow, stored.version), lease, Stop())


class Dying(CheckpointSaver):
    """The saver of a worker that dies before the checkpoint of a superstep, once the writes before it are stored."""

    def __init__(self, world: World, step: int) -> None:
        super().__init__(world.store)
        self._world, self._step = world, step

    async def aput(self, config: Any, checkpoint: Any, metadata: Any, new_versions: Any) -> Any:
        if metadata["step"] == self._step:
            while not (saved := await self.aget_tuple(config)) or not saved.pending_writes:
                await asyncio.sleep(0.01)
            self._world.provider.reached.set()
            await self._world.provider.go.wait()
        return await super().aput(config, checkpoint, metadata, new_versions)


class TestAdvance:
    async def test_of_a_run_that_is_not_here_or_not_due_does_nothing(self, world: World) -> None:
        assert await world.engine.advance("run_nowhere") is None
        run = await world.start(approving())
        journal = await run.journal()
        assert await world.engine.advance(run.run_id) is None
        assert await run.journal() == journal

    async def test_at_once_in_many_processes_is_one_segment(self, world: World) -> None:
        for _ in range(10):
            world.provider.done.clear()
            run = await world.send(TWO)
            processes = [world.process(TWO) for _ in range(4)]
            states = await asyncio.gather(*(process.advance(run.run_id) for process in processes for _ in range(2)))
            assert sorted(map(str, states)) == ["None"] * 7 + ["completed"]
            assert world.provider.done == [("post", "first"), ("post", "second")]

    async def test_goes_on_after_a_worker_that_died_before_its_first_checkpoint(self, world: World) -> None:
        run = await world.send(TWO)
        assert (await world.engine._claim(run.run_id)).lease is not None
        world.deploy(TWO)
        done = await world.take(run.run_id).go_on()
        assert ended(done) == (RunState.COMPLETED, Outcome.AUTO)
        assert world.provider.done == [("post", "first"), ("post", "second")]

    async def test_goes_on_from_the_last_checkpoint_and_repeats_no_node_before_it(self, world: World) -> None:
        world.provider.troubles = [None, Trouble()]
        entered = []

        async def before(state: Any) -> dict[str, Any]:
            entered.append(1)
            return await first(state)

        workflow = job(chain(first=before, pays=pays), {"first": Policy(tools=[post]), "pays": Policy(tools=[pay])})
        run = await world.crash(await world.send(workflow))
        assert ended(await run.go_on()) == (RunState.COMPLETED, Outcome.AUTO)
        assert entered == [1]
        assert world.provider.done == [("post", "first"), ("pay", "5 ann")]

    @pytest.mark.parametrize("step", [0, 1])
    async def test_goes_on_after_a_worker_that_died_between_a_nodes_writes_and_its_checkpoint(
        self, world: World, step: int
    ) -> None:
        """LangGraph then says of the only task that it is done, which is not that nothing is left to do."""
        run = await world.send(TWO)
        world.engine.runner.saver = Dying(world, step)
        run = await world.crash(run)
        await world.due(run)
        assert await world.engine.advance(run.run_id) is RunState.COMPLETED
        assert len(world.provider.calls) == 2

    async def test_only_settles_what_a_worker_left_after_the_last_checkpoint(self, world: World) -> None:
        run = await world.send(TWO)
        await segment(world, run)
        world.deploy(TWO)
        done = await world.take(run.run_id).go_on()
        assert ended(done) == (RunState.COMPLETED, Outcome.AUTO)
        assert len(world.provider.calls) == 2

    async def test_asks_once_though_the_worker_died_between_pause_and_settling(self, world: World) -> None:
        for workflow in (approving(), job(chain(asks=asks))):
            run = await world.send(workflow)
            await segment(world, run)
            world.deploy(workflow)
            run = world.take(run.run_id)
            assert (await run.go_on()).state is RunState.PENDING_APPROVAL
            assert (await the_review(run)).state is ReviewState.OPEN
            assert ended(await run.approve()) == (RunState.COMPLETED, Outcome.APPROVED)

    async def test_of_a_worker_that_lost_its_lease_writes_nothing_more(self, world: World) -> None:
        world.provider.troubles = [Trouble(happens=True)]
        run = await world.send(TWO)
        zombie = world.engine
        hanging = asyncio.create_task(zombie.advance(run.run_id))
        await world.provider.reached.wait()
        world.deploy(TWO)
        await world.due(run)
        taken_over = world.take(run.run_id)
        # The plain write is in doubt, for the zombie has not said how it ended.
        assert (await taken_over.go_on()).state is RunState.PENDING_APPROVAL
        world.provider.go.set()
        assert await hanging is None
        assert (await taken_over.run()).state is RunState.PENDING_APPROVAL
        done = await taken_over.respond({"happened": True})
        assert done.state is RunState.COMPLETED
        assert world.provider.done == [("post", "first"), ("post", "second")]

    async def test_puts_a_run_that_kills_its_workers_out_of_the_way(self, world: World) -> None:
        run = await world.send(TWO)
        for _ in range(MOST_CRASHES + 1):
            await world.due(run)
            assert (await world.engine._claim(run.run_id)).lease is not None
        assert (await run.run()).crashes == MOST_CRASHES
        assert ended(await run.go_on()) == (RunState.FAILED, Reason.QUARANTINED)
        assert world.provider.calls == []
        await world.engine.replay(run.run_id, by="olga")
        assert ended(await run.go_on()) == (RunState.COMPLETED, Outcome.AUTO)

    async def test_stops_at_a_boundary_when_its_process_shuts_down(self, world: World) -> None:
        world.provider.troubles = [Trouble()]
        run = await world.send(TWO)
        going = asyncio.create_task(world.engine.advance(run.run_id))
        await world.provider.reached.wait()
        world.engine.drain()
        world.provider.go.set()
        assert await going is RunState.RECEIVED
        assert world.provider.done == [("post", "first")]
        world.deploy(TWO)
        assert (await world.take(run.run_id).go_on()).state is RunState.COMPLETED
        assert len(world.provider.calls) == 2


class TestDecide:
    async def test_while_the_run_is_at_work_is_not_lost(self, world: World) -> None:
        """Two questions at once; the second is answered while the answer to the first is being worked on."""

        async def other(state: Any) -> dict[str, Any]:
            return {"log": [interrupt("the other?")]}

        async def works(state: Any) -> dict[str, Any]:
            interrupt("one?")
            return {"log": [await post("worked")]}

        graph = chain(works=works)
        graph.add_node("other", other)
        graph.add_edge("__start__", "other")
        run = await world.start(job(graph, {"works": Policy(tools=[post])}))
        reviews = {review.node: review for review in await run.reviews()}
        await world.engine.decide(reviews["works"].id, says("approve"))
        world.provider.troubles = [Trouble()]
        going = asyncio.create_task(world.engine.advance(run.run_id))
        await world.provider.reached.wait()
        await world.engine.decide(reviews["other"].id, says("approve"))
        world.provider.go.set()

        assert await going is RunState.PENDING_APPROVAL
        assert (await run.run()).due_at is not None
        assert [run_id for run_id, _ in await world.store.due_runs(limit=9)] == [run.run_id]
        assert ended(await run.go_on()) == (RunState.COMPLETED, Outcome.APPROVED)

    async def test_twice_by_the_same_person_is_one_decision_and_by_another_is_told(self, world: World) -> None:
        run = await world.start(approving())
        asked = await the_review(run)
        once = await world.engine.decide(asked.id, says("approve", by="ann"))
        assert await world.engine.decide(asked.id, says("approve", by="ann")) == once
        for other in (says("reject", by="ann"), says("approve", by="bob")):
            with pytest.raises(AlreadyDecided, match="ann said approve"):
                await world.engine.decide(asked.id, other)
        with pytest.raises(UnknownReview):
            await world.engine.decide("rev_nowhere", says("approve"))

    async def test_of_a_run_that_has_ended_is_refused(self, world: World) -> None:
        run = await world.start(approving())
        asked = await the_review(run)
        await world.engine.cancel(run.run_id, by="olga")
        with pytest.raises(ReviewClosed):
            await world.engine.decide(asked.id, says("approve"))
        assert world.provider.done == [("post", "first")]

    @pytest.mark.parametrize(
        ("default", "outcome", "paid"), [("reject", Outcome.REJECTED, 0), ("approve", Outcome.APPROVED, 1)]
    )
    async def test_is_done_by_the_deadline_when_nobody_does(
        self, world: World, default: Any, outcome: Outcome, paid: int
    ) -> None:
        run = await world.start(approving(deadline=timedelta(hours=1), default=default))
        await run.pass_time(timedelta(minutes=59))
        asked = await the_review(run)
        done = await run.pass_time(timedelta(minutes=2))

        assert ended(done) == (RunState.COMPLETED, outcome)
        assert world.provider.done.count(("pay", "5 ann")) == paid
        expired = await world.store.review(asked.id)
        assert expired.state is ReviewState.EXPIRED
        assert expired.decision is not None
        assert expired.decision.by == "deadline"
        with pytest.raises(ReviewClosed):
            await world.engine.decide(asked.id, says("approve"))

    async def test_before_the_deadline_keeps_the_deadline_from_deciding(self, world: World) -> None:
        run = await world.start(approving(deadline=timedelta(hours=1), default="reject"))
        asked = await the_review(run)
        await world.engine.decide(asked.id, says("approve"))
        assert (await run.pass_time(timedelta(hours=2))).outcome is Outcome.APPROVED
        assert (await world.store.review(asked.id)).state is ReviewState.DECIDED


class TestCancel:
    async def test_ends_a_run_wherever_it_rests_and_its_questions_with_it(self, world: World) -> None:
        async def fails(state: Any) -> dict[str, Any]:
            raise NotDone("busy")

        received = await world.send(TWO)
        pending = await world.start(approving())
        retrying = await world.send(job(chain(fails=fails), {"fails": Policy(retries=3, backoff=Backoff(first=60))}))
        await world.engine.advance(retrying.run_id)
        failed = await world.start(job(chain(fails=fails)))
        states = (RunState.RECEIVED, RunState.PENDING_APPROVAL, RunState.RETRYING, RunState.FAILED)
        for run, state in zip((received, pending, retrying, failed), states, strict=True):
            assert (await run.run()).state is state
            assert (await world.engine.cancel(run.run_id, by="olga")).state is RunState.CANCELLED
            assert await run.reviews() == []
            assert await world.engine.advance(run.run_id) is None
            with pytest.raises(IllegalMove):
                await world.engine.cancel(run.run_id, by="olga")
        with pytest.raises(UnknownRun):
            await world.engine.cancel("run_nowhere", by="olga")

    @pytest.mark.parametrize("elsewhere", [False, True], ids=["in this process", "in another process"])
    async def test_ends_a_run_that_is_at_work_at_its_next_boundary(self, world: World, elsewhere: bool) -> None:
        world.provider.troubles = [Trouble()]
        run = await world.send(TWO)
        at_work = world.engine
        going = asyncio.create_task(at_work.advance(run.run_id))
        await world.provider.reached.wait()
        operators = world.process(TWO) if elsewhere else at_work
        assert (await operators.cancel(run.run_id, by="olga")).state is RunState.PROCESSING
        await at_work.tick()
        world.provider.go.set()
        await going

        assert (await run.run()).state is RunState.CANCELLED
        assert world.provider.done == [("post", "first")]

    async def test_of_a_run_whose_worker_died_is_done_by_the_next_one(self, world: World) -> None:
        run = await world.send(TWO)
        await world.engine._claim(run.run_id)
        await world.engine.cancel(run.run_id, by="olga")
        assert (await run.go_on()).state is RunState.CANCELLED
        assert world.provider.calls == []

    async def test_of_a_run_that_begins_at_that_moment_waits_for_its_boundary(self, world: World) -> None:
        """Cancelled behind the back of its worker, it would go on to make effects under the name of a cancelled run."""
        for _ in range(10):
            world.provider.done.clear()
            run = await world.send(TWO)
            going = asyncio.create_task(world.engine.advance(run.run_id))
            others = world.process(TWO)
            await asyncio.gather(
                going, *(others.cancel(run.run_id, by="olga") for _ in range(1)), return_exceptions=True
            )
            assert going.exception() is None
            stored = await run.run()
            assert stored.state in (RunState.CANCELLED, RunState.COMPLETED)
            last = [entry for entry in await run.journal() if entry.kind is not JournalKind.NOTE][-1]
            assert last.data["to"] == str(stored.state)


class TestReplay:
    async def test_is_for_dead_letters_alone(self, world: World) -> None:
        run = await world.start(approving())
        with pytest.raises(IllegalMove):
            await world.engine.replay(run.run_id, by="olga")

    async def test_from_the_start_repeats_no_effect_that_is_done_and_no_approval_that_was_used(
        self, world: World
    ) -> None:
        left = [1]
        seen = []

        async def fails_once(state: Any) -> dict[str, Any]:
            seen.append(list(state["log"]))
            if left[0]:
                left[0] -= 1
                raise ValueError
            return {"log": [await post("last")]}

        workflow = job(
            chain(first=first, pays=pays, last=fails_once),
            {
                "first": Policy(tools=[post]),
                "pays": Policy(tools=[pay], approve_when=always),
                "last": Policy(tools=[post]),
            },
        )
        run = await world.start(workflow)
        assert ended(await run.approve()) == (RunState.FAILED, Reason.ATTEMPTS)
        await world.engine.replay(run.run_id, by="olga", from_start=True)
        done = await run.go_on()

        assert ended(done) == (RunState.COMPLETED, Outcome.APPROVED)
        assert world.provider.done == [("post", "first"), ("pay", "5 ann"), ("post", "last")]
        assert seen == [["post first", "pay 5 ann"]] * 2
        assert (done.generation, done.attempts) == (1, 2)

    async def test_of_loops_and_inner_graphs_from_the_start_repeats_nothing_either(self, world: World) -> None:
        left = [1]

        async def fails_once(state: Any) -> dict[str, Any]:
            if left[0]:
                left[0] -= 1
                raise ValueError
            return {}

        async def counts(state: Any) -> dict[str, Any]:
            return {"n": state.get("n", 0) + 1}

        graph = chain(sub=chain(a=first, b=second).compile(), counts=counts)
        graph.add_node("last", fails_once)
        graph.add_conditional_edges("counts", lambda state: "sub" if state["n"] < 3 else "last", ["sub", "last"])
        run = await world.start(job(graph, {"sub": Policy(tools=[post])}))
        assert (await run.run()).state is RunState.FAILED
        await world.engine.replay(run.run_id, by="olga", from_start=True)
        assert (await run.go_on()).state is RunState.COMPLETED
        assert len(world.provider.calls) == 6
