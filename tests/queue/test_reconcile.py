"""Reading back what nobody knows: the ledger and the question are settled by what the system outside says."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest
from tests.outside import (
    Provider,
    Trouble,
    World,
    a_world,
    chain,
    ended,
    pay,
    post,
    says,
    the_effect,
    the_review,
)
from tests.outside import job as any_job

from eventwright.app.simulate import Simulation
from eventwright.graphs.workflow import On
from eventwright.guardrails.policy import Policy
from eventwright.queue.compensation import NothingToReconcile
from eventwright.queue.desk import ReviewClosed
from eventwright.runs.errors import UnknownRun
from eventwright.runs.records import EffectState, JournalKind, Review, ReviewState
from eventwright.runs.states import Outcome, Reason, RunState
from eventwright.runs.store import Store
from eventwright.tools.contract import Call, Permanent, ToolError, Undo, tool


async def _wired(text: str, *, call: Call) -> str | None:
    provider = call.use(Provider)
    if provider.troubles:
        trouble = provider.troubles.pop(0)
        if trouble is not None and trouble.error is not None:
            raise trouble.error
    return provider.kept.get(call.idempotency_key)


@tool(writes="plain", name="bank.withdraw")
async def withdraw(text: str, *, call: Call) -> str:
    """Get a transfer back."""
    return await call.use(Provider).do("withdraw", text, call)


@tool(writes="verifiable", name="bank.wire", verify=_wired, undo=Undo(withdraw, lambda asked, _: {"text": asked.text}))
async def wire(text: str, *, call: Call) -> str:
    """Wire money."""
    return await call.use(Provider).do("wire", text, call)


#: The same tool before its bank offered to look a transfer up.
@tool(writes="plain", name="bank.wire")
async def blind_wire(text: str, *, call: Call) -> str:
    """Wire money."""
    return await call.use(Provider).do("wire", text, call)


def wiring(*tools: Any, **policy: Any) -> Any:
    async def node(state: Any) -> dict[str, Any]:
        return {"log": [await one("5" if one is pay else f"text {number}") for number, one in enumerate(tools)]}

    given = Policy(tools=list(tools), **policy)
    return any_job(chain(node=node), {"node": given}, triggers=[On("job", trusted=True)])


async def failed(world: World, *, happened: bool) -> Simulation:
    """A dead letter whose transfer nobody knows about: the bank answered nonsense."""
    world.provider.troubles = [Trouble(error=ToolError("the line broke"), happens=happened)]
    run = await world.start(wiring(wire))
    assert ended(await run.run()) == (RunState.FAILED, Reason.ATTEMPTS)
    assert the_effect(await run.effects(), "bank.wire").state is EffectState.INTENDED
    return run


async def doubted(world: World, *, happened: bool) -> tuple[Simulation, Review]:
    """A run that asks whether its transfer happened, by a tool that since then can be read back."""
    world.provider.troubles = [Trouble(happens=happened)]
    run = await world.crash(await world.send(wiring(blind_wire)))
    await run.go_on()
    review = await the_review(run)
    world.deploy(wiring(wire))
    return world.take(run.run_id), review


async def reconciled(world: World, run: Simulation) -> Simulation:
    looking = world.take((await world.engine.reconcile(run.run_id, by="olga")).id)
    await looking.go_on()
    return looking


class TestIsRefused:
    async def test_while_the_run_is_at_work_or_about_to_be(self, world: World) -> None:
        run = await world.send(wiring(wire))
        with pytest.raises(NothingToReconcile, match="received, and reads back by itself"):
            await world.engine.reconcile(run.run_id, by="olga")
        await world.engine._claim(run.run_id)
        with pytest.raises(NothingToReconcile, match="processing"):
            await world.engine.reconcile(run.run_id, by="olga")
        with pytest.raises(UnknownRun):
            await world.engine.reconcile("run_nowhere", by="olga")

    async def test_where_everything_is_known(self, world: World) -> None:
        run = await world.start(wiring(wire))
        with pytest.raises(NothingToReconcile, match="it is known of every write"):
            await world.engine.reconcile(run.run_id, by="olga")

    async def test_for_tools_that_cannot_be_read_back_with_what_to_do_instead(self, world: World) -> None:
        world.provider.troubles = [Trouble(error=ToolError("?"))]
        run = await world.start(wiring(pay))
        with pytest.raises(NothingToReconcile, match=r"outside\.pay is keyed.*eventwright replay"):
            await world.engine.reconcile(run.run_id, by="olga")
        world.provider.troubles = [Trouble(error=ToolError("?"))]
        asks = await world.start(wiring(post))
        with pytest.raises(NothingToReconcile, match=r"outside\.post is plain.*eventwright reviews"):
            await world.engine.reconcile(asks.run_id, by="olga")

    async def test_where_the_workflow_is_not_loaded(self, world: World) -> None:
        run = await failed(world, happened=True)
        world.deploy()
        with pytest.raises(NothingToReconcile, match="not loaded here"):
            await world.engine.reconcile(run.run_id, by="olga")


class TestABankThatDoesNotAnswer:
    async def test_is_asked_again_by_itself_and_nothing_is_settled_meanwhile(self, world: World) -> None:
        run = await failed(world, happened=True)
        world.provider.troubles = [Trouble(error=ToolError("busy")), Trouble(error=ToolError("busy"))]
        looking = world.take((await world.engine.reconcile(run.run_id, by="olga")).id)
        await world.engine.advance(looking.run_id)
        assert (await looking.run()).state is RunState.RETRYING
        assert the_effect(await run.effects(), "bank.wire").state is EffectState.INTENDED
        assert (await looking.go_on()).state is RunState.COMPLETED
        assert the_effect(await run.effects(), "bank.wire").state is EffectState.DONE

    async def test_for_good_leaves_a_dead_letter_and_the_doubt(self, world: World) -> None:
        run, review = await doubted(world, happened=True)
        world.provider.troubles = [Trouble(error=Permanent("no such bank"))]
        looking = await reconciled(world, run)
        assert (await looking.run()).state is RunState.FAILED
        assert (await world.store.review(review.id)).state is ReviewState.OPEN
        assert (await run.respond({"happened": True})).state is RunState.COMPLETED


class TestADoubt:
    @pytest.mark.parametrize("happened", [True, False])
    async def test_is_settled_by_what_the_system_outside_says_and_the_run_goes_on(
        self, world: World, happened: bool
    ) -> None:
        run, review = await doubted(world, happened=happened)
        await reconciled(world, run)

        assert (await world.store.review(review.id)).state is ReviewState.SUPERSEDED
        with pytest.raises(ReviewClosed):
            await world.engine.decide(review.id, says("respond", response={"happened": not happened}))
        assert ended(await run.go_on()) == (RunState.COMPLETED, Outcome.AUTO)
        assert world.provider.done == [("wire", "text 0")]
        assert (await run.values())["log"] == ["wire text 0"]
        [entry] = [entry for entry in await run.journal() if entry.data.get("read_back")]
        kind = JournalKind.EFFECT_DONE if happened else JournalKind.EFFECT_FAILED
        assert (entry.kind, entry.actor) == (kind, "olga")

    async def test_that_a_person_settled_meanwhile_stays_as_the_person_said(self, world: World) -> None:
        run, _ = await doubted(world, happened=False)
        looking = world.take((await world.engine.reconcile(run.run_id, by="olga")).id)
        assert (await run.respond({"happened": True})).state is RunState.COMPLETED
        await looking.go_on()
        effect = the_effect(await run.effects(), "bank.wire")
        assert effect.state is EffectState.DONE
        assert str(effect.error).startswith("you says")
        assert world.provider.done == []

    async def test_is_not_settled_behind_the_back_of_a_worker(self, world: World) -> None:
        run, review = await doubted(world, happened=True)
        looking = world.take((await world.engine.reconcile(run.run_id, by="olga")).id)
        await world.engine.decide(review.id, says("respond", response={"happened": True}))
        assert (await world.engine._claim(run.run_id)).lease is not None
        await looking.go_on()
        assert the_effect(await run.effects(), "bank.wire").state is EffectState.IN_DOUBT


class TestADeadLetter:
    async def test_that_happened_is_not_repeated_and_can_be_undone(self, world: World) -> None:
        run = await failed(world, happened=True)
        await reconciled(world, run)
        effect = the_effect(await run.effects(), "bank.wire")
        assert (effect.state, effect.result, effect.error) == (EffectState.DONE, "wire text 0", None)
        assert (await run.run()).state is RunState.FAILED
        await world.take((await world.engine.undo(run.run_id, by="olga")).id).go_on()
        assert world.provider.done == [("wire", "text 0"), ("withdraw", "text 0")]

    async def test_that_did_not_happen_is_done_when_it_is_replayed(self, world: World) -> None:
        run = await failed(world, happened=False)
        await reconciled(world, run)
        assert the_effect(await run.effects(), "bank.wire").state is EffectState.FAILED
        await world.engine.replay(run.run_id, by="olga")
        assert (await run.go_on()).state is RunState.COMPLETED
        assert world.provider.done == [("wire", "text 0")]


class TestAskedTwice:
    async def test_at_once_is_one_run_and_later_it_looks_again(self, database_url: str) -> None:
        async with a_world(database_url) as world, Store.open(database_url, clock=world.clock) as store:
            other = World(store, world.clock, world.provider, None)
            other.deploy(wiring(wire))
            for _ in range(5):
                run = await failed(world, happened=True)
                engines = (world.engine, other.engine, world.engine)
                runs = await asyncio.gather(*(engine.reconcile(run.run_id, by="olga") for engine in engines))
                assert len({looking.id for looking in runs}) == 1
                await world.engine.cancel(runs[0].id, by="olga")
                looking = await reconciled(world, run)
                assert looking.run_id != runs[0].id
                assert the_effect(await run.effects(), "bank.wire").state is EffectState.DONE
