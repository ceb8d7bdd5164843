"""Taking back what a run did: once, the last first, as a run of its own; exceptions first."""

from __future__ import annotations

import asyncio
from decimal import Decimal
from typing import Any

import pytest
from tests.graphs.shop_tools import charge, gift, recall, refund, ship, stock
from tests.outside import Trouble, World, chain, ended, post, the_effect, the_review
from tests.outside import job as any_job

from eventwright.app.simulate import Simulation
from eventwright.graphs.compensation import own_workflows
from eventwright.graphs.runner import Stop
from eventwright.graphs.workflow import BadWorkflow, On, Workflows
from eventwright.guardrails.policy import Backoff, DeadLetter, Policy
from eventwright.queue.compensation import LedgerLine
from eventwright.queue.intake import ReservedEvent
from eventwright.runs.errors import AlreadyUndone, UndoRefused, UnknownRun
from eventwright.runs.event import Event, new_id
from eventwright.runs.records import EffectState, ReviewKind
from eventwright.runs.states import Outcome, Reason, RunState
from eventwright.tools.contract import NotDone, Permanent


def job(graph: Any, policies: Any = None, *, name: str = "job") -> Any:
    """A workflow whose events are our own: nobody need approve what it does."""
    return any_job(graph, policies, name=name, triggers=[On(name, trusted=True)])


async def charges(state: Any) -> dict[str, Any]:
    return {"log": [await charge(Decimal(5))]}


async def ships(state: Any) -> dict[str, Any]:
    return {"log": [await stock("book"), await ship("book")]}


async def fails(state: Any) -> dict[str, Any]:
    raise Permanent("no luck")


def order(ending: Any = fails, /, **policies: Any) -> Any:
    given = {"charges": Policy(tools=[charge]), "ships": Policy(tools=[stock, ship])}
    return job(chain(charges=charges, ships=ships, last=ending), given | policies)


async def lines(world: World, run: Simulation) -> dict[str, LedgerLine]:
    return {line.effect.tool: line for line in await world.engine.ledger(run.run_id)}


async def undone(world: World, run: Simulation, **how: Any) -> Simulation:
    """The run that takes it back, as far as it goes by itself."""
    undoing = world.take((await world.engine.undo(run.run_id, by="olga", **how)).id)
    await undoing.go_on()
    return undoing


DONE = [("charge", "5"), ("ship", "book")]
TAKEN_BACK = [*DONE, ("recall", "ship book"), ("refund", "5")]


class TestIsRefused:
    async def test_while_the_run_may_still_act(self, world: World) -> None:
        run = await world.send(order())
        with pytest.raises(UndoRefused, match=r"received and may still act.*eventwright cancel"):
            await world.engine.undo(run.run_id, by="olga")
        lease = (await world.engine._claim(run.run_id)).lease
        assert lease is not None
        with pytest.raises(UndoRefused, match="processing"):
            await world.engine.undo(run.run_id, by="olga")
        with pytest.raises(UnknownRun):
            await world.engine.undo("run_nowhere", by="olga")

    async def test_while_somebody_takes_the_run_up_again(self, racing: tuple[World, World]) -> None:
        """Undo and replay race for a dead letter: one of them wins, and never are both true."""
        world, other = racing
        other.deploy(order())
        for _ in range(10):
            run = await world.start(order())
            await asyncio.gather(
                world.engine.undo(run.run_id, by="olga"),
                other.engine.replay(run.run_id, by="bob"),
                return_exceptions=True,
            )
            stored = await run.run()
            charged = (await lines(world, run))["shop.charge"]
            assert (stored.state is RunState.RECEIVED) != (charged.undone_by is not None)

    async def test_of_a_run_that_did_nothing_or_nothing_that_can_be_taken_back(self, world: World) -> None:
        async def posts(state: Any) -> dict[str, Any]:
            return {"log": [await post("hello")]}

        idle = await world.start(job(chain(fails=fails)))
        with pytest.raises(UndoRefused, match="it has done nothing outside"):
            await world.engine.undo(idle.run_id, by="olga")
        plain = await world.start(job(chain(posts=posts), {"posts": Policy(tools=[post])}))
        with pytest.raises(UndoRefused, match=r"outside\.post: its tool names no way to take it back"):
            await world.engine.undo(plain.run_id, by="olga")

    async def test_of_a_workflow_that_is_not_loaded_here(self, world: World) -> None:
        run = await world.start(order())
        world.deploy()
        with pytest.raises(UndoRefused, match="no workflow job version 1 is loaded"):
            await world.engine.undo(run.run_id, by="olga")
        assert (await lines(world, run))["shop.charge"].undo is None

    async def test_of_a_call_whose_author_cannot_say_how(self, world: World) -> None:
        async def gives(state: Any) -> dict[str, Any]:
            return {"log": [await gift("flowers")]}

        run = await world.start(job(chain(gives=gives, last=fails), {"gives": Policy(tools=[gift])}))
        with pytest.raises(UndoRefused, match="AttributeError"):
            await world.engine.undo(run.run_id, by="olga")

    async def test_of_an_effect_that_is_not_there_or_of_which_nobody_knows(self, world: World) -> None:
        world.provider.troubles = [Trouble(happens=True)]
        run = await world.crash(await world.send(order()))
        await world.engine.cancel(run.run_id, by="olga")
        await run.go_on()
        charged = the_effect(await run.effects(), "shop.charge")
        assert charged.state is EffectState.INTENDED
        with pytest.raises(UndoRefused, match="nobody knows whether it happened"):
            await world.engine.undo(run.run_id, by="olga", effects=[charged.key])
        with pytest.raises(UndoRefused, match="it has no effect 'x'"):
            await world.engine.undo(run.run_id, by="olga", effects=["x"])

    async def test_of_what_took_something_back_itself(self, world: World) -> None:
        undoing = await undone(world, await world.start(order()))
        with pytest.raises(UndoRefused, match="itself"):
            await world.engine.undo(undoing.run_id, by="olga")

    @pytest.mark.parametrize("kind", ["eventwright.undo", "Eventwright.Undo", "eventwright.anything"])
    async def test_when_a_stranger_sends_the_event_that_asks_for_it(self, world: World, kind: str) -> None:
        world.deploy(order())
        forged = {"run": "run_1", "calls": [{"tool": "shop.charge"}]}
        with pytest.raises(ReservedEvent, match="Eventwright's own"):
            await world.engine.receive(Event(id=new_id("e"), source="/test", type=kind, data=forged))
        with pytest.raises(ReservedEvent):
            await world.engine.receive(Event(id=new_id("e"), source="/eventwright", type="job", data={}))
        assert await world.store.runs() == []
        assert await world.store.events() == []

    def test_its_name_to_other_workflows(self) -> None:
        mine = Workflows([job(chain(fails=fails), name="undo")])
        with pytest.raises(BadWorkflow, match="'undo' is the name"):
            mine.with_own(own_workflows(mine.versions()))


class TestThatFails:
    async def test_stops_there_and_goes_on_when_it_is_replayed(self, world: World) -> None:
        run = await world.start(order())
        world.provider.troubles = [Trouble(error=Permanent("the parcel is lost"))]
        undoing = await undone(world, run)
        assert ended(await undoing.run()) == (RunState.FAILED, Reason.NOT_RETRYABLE)
        assert world.provider.done == DONE
        left = await lines(world, run)
        assert [left[name].undone for name in ("shop.charge", "shop.ship")] == [False, False]

        await world.engine.replay(undoing.run_id, by="olga")
        assert (await undoing.go_on()).state is RunState.COMPLETED
        assert world.provider.done == TAKEN_BACK

    async def test_for_a_moment_is_tried_again_by_itself(self, world: World) -> None:
        run = await world.start(order())
        world.provider.troubles = [None, Trouble(error=NotDone("busy")), Trouble(error=NotDone("busy"))]
        assert ended(await (await undone(world, run)).run()) == (RunState.COMPLETED, Outcome.AUTO)
        assert world.provider.done == TAKEN_BACK

    @pytest.mark.parametrize("happened", [True, False])
    async def test_in_the_middle_of_a_call_asks_a_person_and_repeats_nothing(
        self, world: World, happened: bool
    ) -> None:
        run = await world.start(order())
        world.provider.troubles = [Trouble(happens=happened)]
        undoing = await world.crash(world.take((await world.engine.undo(run.run_id, by="olga")).id))
        assert (await undoing.go_on()).state is RunState.PENDING_APPROVAL
        assert (await the_review(undoing)).kind is ReviewKind.IN_DOUBT
        assert not (await lines(world, run))["shop.ship"].undone
        done = await undoing.respond({"happened": happened})
        assert done.state is RunState.COMPLETED
        assert world.provider.done == TAKEN_BACK

    async def test_since_its_tool_is_not_loaded_any_more_waits_for_a_deploy(self, world: World) -> None:
        run = await world.start(order())
        undoing = world.take((await world.engine.undo(run.run_id, by="olga")).id)
        world.deploy()
        undoing = world.take(undoing.run_id)
        await undoing.go_on()
        stored = await undoing.run()
        assert ended(stored) == (RunState.FAILED, Reason.NOT_RETRYABLE)
        assert "load it and replay this run" in str(stored.error)
        world.deploy(order())
        await world.engine.replay(undoing.run_id, by="olga")
        assert (await world.take(undoing.run_id).go_on()).state is RunState.COMPLETED
        assert world.provider.done == TAKEN_BACK


class TestAskedTwice:
    async def test_is_one_run_also_when_both_ask_at_once(self, racing: tuple[World, World]) -> None:
        world, other = racing
        other.deploy(order())
        for _ in range(10):
            world.provider.done.clear()
            run = await world.start(order())
            engines = (world.engine, other.engine, world.engine)
            runs = await asyncio.gather(*(engine.undo(run.run_id, by="olga") for engine in engines))
            assert len({undoing.id for undoing in runs}) == 1
            await world.take(runs[0].id).go_on()
            assert (await world.engine.undo(run.run_id, by="bob")).id == runs[0].id
            assert world.provider.done == TAKEN_BACK

    async def test_for_one_effect_and_for_all_takes_none_back_twice(self, racing: tuple[World, World]) -> None:
        world, other = racing
        other.deploy(order())
        for _ in range(5):
            world.provider.done.clear()
            run = await world.start(order())
            charged = (await lines(world, run))["shop.charge"].effect.key
            asked = await asyncio.gather(
                world.engine.undo(run.run_id, by="olga", effects=[charged]),
                other.engine.undo(run.run_id, by="bob"),
                return_exceptions=True,
            )
            for undoing in asked:
                if not isinstance(undoing, BaseException):
                    await world.take(undoing.id).go_on()
            await undone(world, run)
            assert sorted(world.provider.done) == sorted(TAKEN_BACK)

    async def test_after_the_first_was_cancelled_in_time_begins_anew(self, world: World) -> None:
        run = await world.start(order())
        first = await world.engine.undo(run.run_id, by="olga")
        await world.engine.cancel(first.id, by="olga")
        undoing = await undone(world, run)
        assert undoing.run_id != first.id
        assert world.provider.done == TAKEN_BACK


class TestARunThatWasUndone:
    async def test_does_not_go_on_as_if_nothing_were(self, world: World) -> None:
        run = await world.start(order())
        undoing = await undone(world, run)
        for again in (False, True):
            with pytest.raises(AlreadyUndone, match=undoing.run_id):
                await world.engine.replay(run.run_id, by="olga", from_start=again)
        assert (await run.run()).state is RunState.FAILED

    async def test_goes_on_when_the_undo_was_cancelled_before_it_began(self, world: World) -> None:
        run = await world.start(order())
        await world.engine.cancel((await world.engine.undo(run.run_id, by="olga")).id, by="olga")
        assert (await world.engine.replay(run.run_id, by="olga")).state is RunState.RECEIVED
        assert world.provider.done == DONE


class TestUndo:
    async def test_takes_everything_back_the_last_first_and_says_so_in_both_records(self, world: World) -> None:
        run = await world.start(order())
        undoing = await undone(world, run)

        assert ended(await undoing.run()) == (RunState.COMPLETED, Outcome.AUTO)
        assert world.provider.done == TAKEN_BACK
        left = await lines(world, run)
        for name, by in (("shop.charge", "shop.refund"), ("shop.ship", "shop.recall")):
            assert (left[name].undone_by, left[name].undone) == (undoing.run_id, True)
            assert the_effect(await undoing.effects(), by).ordinal == left[name].effect.key
        assert left["shop.stock"] == LedgerLine(effect=left["shop.stock"].effect)
        event = (await undoing.run()).event
        assert (event.principal, event.data["run"]) == ("olga", run.run_id)
        note = (await run.journal())[-1]
        assert (note.actor, note.data["run"]) == ("olga", undoing.run_id)

    @pytest.mark.parametrize("state", [RunState.COMPLETED, RunState.CANCELLED])
    async def test_is_for_runs_that_completed_or_were_cancelled_as_well(self, world: World, state: RunState) -> None:
        async def ends(state: Any) -> dict[str, Any]:
            return {}

        run = await world.start(order(ends if state is RunState.COMPLETED else fails))
        if state is RunState.CANCELLED:
            await world.engine.cancel(run.run_id, by="olga")
        assert (await run.run()).state is state
        assert (await (await undone(world, run)).run()).state is RunState.COMPLETED
        assert world.provider.done == TAKEN_BACK

    async def test_of_one_effect_leaves_the_others(self, world: World) -> None:
        run = await world.start(order())
        key = (await lines(world, run))["shop.ship"].effect.key
        await undone(world, run, effects=[key])
        assert world.provider.done == TAKEN_BACK[:3]
        assert (await lines(world, run))["shop.charge"].undoable

    async def test_of_many_equal_calls_takes_each_back_once(self, world: World) -> None:
        async def often(state: Any) -> dict[str, Any]:
            return {"log": list(await asyncio.gather(*(charge(Decimal(5)) for _ in range(12))))}

        run = await world.start(job(chain(often=often, last=fails), {"often": Policy(tools=[charge])}))
        await undone(world, run)
        assert world.provider.done == [("charge", "5")] * 12 + [("refund", "5")] * 12

    async def test_may_call_the_tools_that_undo_and_no_others(self) -> None:
        undo, _ = own_workflows([order()])
        assert list(undo.policy("undo").tools) == [refund, recall]


class TestADeadLetter:
    async def test_is_undone_by_itself_where_its_node_says_so(self, world: World) -> None:
        run = await world.start(order(last=Policy(dead_letter=DeadLetter.UNDO)))
        assert ended(await run.run()) == (RunState.FAILED, Reason.NOT_RETRYABLE)
        undoing = (await lines(world, run))["shop.charge"].undone_by
        assert undoing is not None
        assert (await world.take(undoing).go_on()).state is RunState.COMPLETED
        assert world.provider.done == TAKEN_BACK
        assert (await world.store.run(undoing)).event.principal == "dead-letter"

    async def test_is_not_undone_while_it_is_still_tried_again(self, world: World) -> None:
        left = [2]

        async def fails_twice(state: Any) -> dict[str, Any]:
            left[0] -= 1
            if left[0] >= 0:
                raise NotDone("busy")
            return {}

        policy = Policy(dead_letter=DeadLetter.UNDO, retries=2, backoff=Backoff(first=1))
        run = await world.start(order(fails_twice, last=policy))
        assert (await run.run()).state is RunState.COMPLETED
        assert world.provider.done == DONE

    async def test_names_what_cannot_be_taken_back(self, world: World) -> None:
        async def posts(state: Any) -> dict[str, Any]:
            await post("hello")
            raise Permanent("no luck")

        run = await world.start(order(posts, last=Policy(tools=[post], dead_letter=DeadLetter.UNDO)))
        posted = the_effect(await run.effects(), "outside.post")
        note = (await run.journal())[-1]
        assert (note.actor, set(note.data["effects"])) == ("dead-letter", {posted.key})

    async def test_whose_worker_died_before_it_could_say_so_is_undone_all_the_same(self, world: World) -> None:
        """The undo is written in the transaction that makes the dead letter: there is no moment between the two."""
        workflow = order(last=Policy(dead_letter=DeadLetter.UNDO))
        run = await world.send(workflow)
        lease = (await world.engine._claim(run.run_id)).lease
        assert lease is not None
        stored = await run.run()
        await world.engine._segment(stored, lease, Stop())
        assert (await world.store.runs()) == [await run.run()]
        world.deploy(workflow)
        await world.due(run)
        await world.take(run.run_id).go_on()
        undoing = (await lines(world, run))["shop.charge"].undone_by
        assert undoing is not None
        await world.take(undoing).go_on()
        assert world.provider.done == TAKEN_BACK
