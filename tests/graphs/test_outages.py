"""A provider is down: the runs that need it wait by themselves, spend no attempt, and go on when it is back. What must
not happen comes first."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from datetime import datetime, timedelta
from decimal import Decimal
from typing import Annotated, Any

import pytest
from tests.graphs.test_postponed import beside
from tests.outside import (
    Trouble,
    World,
    book,
    chain,
    ended,
    job,
    kinds,
    look,
    pay,
    post,
    says,
    the_effect,
    the_review,
)

from eventwright.app.simulate import Simulation
from eventwright.guardrails.budgets import Budget
from eventwright.guardrails.policy import Policy
from eventwright.guardrails.rules import always
from eventwright.guardrails.verdicts import Denied
from eventwright.runs.records import EffectState, JournalKind
from eventwright.runs.states import Outcome, Reason, RunState
from eventwright.tools.breaker import ProviderDown, Tolerance
from eventwright.tools.contract import Call, NotDone, Resources, Role, tool
from eventwright.tools.providers import Providers

HOST = "bank.example.com"
#: It is left alone for so long, and for twice as long after each look in vain.
FIRST = 8.0


@dataclass
class Bank:
    """A system outside, which is there or not."""

    away: bool = True
    asked: int = 0


async def through(call: Call, deed: Callable[[], Awaitable[Any]]) -> Any:
    """Do something at the bank."""
    async with call.use(Providers).asked(HOST):
        bank = call.use(Bank)
        bank.asked += 1
        if bank.away:
            raise NotDone("no connection")
        return await deed()


@tool(name="bank.rate", trusted=True)
async def rate(*, call: Call) -> str:
    """Look up the rate."""
    return str(await through(call, lambda: look.function("rate", call=call)))


@tool(writes="plain", name="bank.letter", trusted=True)
async def letter(text: str, *, call: Call) -> str:
    """Send a letter."""
    return str(await through(call, lambda: post.function(text, call=call)))


@tool(writes="keyed", name="bank.wire", trusted=True)
async def wire(amount: Annotated[Decimal, Role.AMOUNT], *, call: Call) -> str:
    """Wire money."""
    return str(await through(call, lambda: pay.function(amount, call=call)))


async def _reserved(text: str, *, call: Call) -> str | None:
    async def read_back() -> str | None:
        found: str | None = await book.verify_function(text, call=call)  # type: ignore[misc]
        return found

    found: str | None = await through(call, read_back)
    return found


@tool(writes="verifiable", name="bank.reserve", verify=_reserved, trusted=True)
async def reserve(text: str, *, call: Call) -> str:
    """Reserve a place, at a system of its own; whether it happened is read back at the bank."""
    return str(await book.function(text, call=call))


@pytest.fixture
def bank(world: World) -> Bank:
    bank = Bank()
    providers = Providers(Tolerance(failures=1, first=FIRST, most=3600), clock=lambda: world.clock().timestamp())
    world.resources = Resources((*world.resources.items, bank, providers))
    return bank


def calling(it: Any, *arguments: Any, **policy: Any) -> Any:
    async def node(state: Any) -> dict[str, Any]:
        return {"log": [await it(*arguments)]}

    return job(chain(node=node), {"node": Policy(tools=[it], **policy)})


async def advance(run: Simulation) -> RunState | None:
    """One segment: the state in which the run rests."""
    return await run.engine.advance(run.run_id)


async def waits(run: Simulation) -> datetime:
    """Let the run find the provider away; until when it waits."""
    assert await advance(run) is RunState.WAITING, (await run.run()).error
    due_at = (await run.run()).due_at
    assert due_at is not None
    return due_at


# When it is not waited for, or not for ever.


async def test_a_provider_that_stays_away_is_given_up_after_a_day(world: World, bank: Bank) -> None:
    run = await world.send(calling(rate))
    began = world.clock()
    done = await run.go_on()
    assert ended(done) == (RunState.FAILED, Reason.ATTEMPTS)
    assert f"{HOST} is down: no connection" in (done.error or "")
    assert timedelta(days=1) <= world.clock() - began < timedelta(days=1, minutes=11)
    assert done.attempts == 1


async def test_the_policy_says_how_much_patience_there_is(world: World, bank: Bank) -> None:
    run = await world.send(calling(rate, patience=timedelta(minutes=5)))
    began = world.clock()
    assert ended(await run.go_on()) == (RunState.FAILED, Reason.ATTEMPTS)
    assert timedelta(minutes=5) <= world.clock() - began < timedelta(minutes=6)


async def test_when_patience_is_over_the_attempts_are_made_and_patience_does_not_begin_anew(
    world: World, bank: Bank
) -> None:
    run = await world.send(calling(rate, patience=timedelta(minutes=5), retries=2))
    began = world.clock()
    done = await run.go_on()
    assert (*ended(done), done.attempts) == (RunState.FAILED, Reason.ATTEMPTS, 3)
    assert world.clock() - began < timedelta(minutes=40)


async def test_without_patience_each_refusal_is_an_attempt(world: World, bank: Bank) -> None:
    run = await world.send(calling(rate, patience=timedelta(0), retries={ProviderDown: 2}))
    assert await advance(run) is RunState.RETRYING
    done = await run.go_on()
    assert (*ended(done), done.attempts) == (RunState.FAILED, Reason.ATTEMPTS, 3)


def test_patience_is_not_negative() -> None:
    with pytest.raises(ValueError, match="patience is a length of time"):
        Policy(patience=timedelta(seconds=-1))


async def test_a_node_that_may_not_call_is_told_so_and_waits_for_nobody(world: World, bank: Bank) -> None:
    async def node(state: Any) -> dict[str, Any]:
        with pytest.raises(Denied):
            await rate()
        return {"log": ["denied"]}

    run = await world.start(job(chain(node=node)))
    assert (await run.run()).state is RunState.COMPLETED
    assert bank.asked == 0


async def test_an_operator_can_end_it(world: World, bank: Bank) -> None:
    run = await world.send(calling(rate))
    await waits(run)
    assert (await world.engine.cancel(run.run_id, by="olga")).state is RunState.CANCELLED


# While it is waited for.


async def test_a_waiting_run_says_for_whom_and_until_when_and_has_spent_nothing(world: World, bank: Bank) -> None:
    run = await world.send(calling(rate))
    began = world.clock()
    due_at = await waits(run)
    now = await run.run()
    assert now.error == f"{HOST} is down"
    assert timedelta(seconds=FIRST) <= due_at - began < timedelta(seconds=2 * FIRST + 1)
    assert now.attempts == 1
    assert await run.effects() == []
    journal = await run.journal()
    [note] = [entry for entry in journal if entry.kind is JournalKind.NOTE]
    assert (note.node, note.data["tool"], note.data["providers"]) == ("node", "bank.rate", [HOST])
    assert note.data["text"] == f"{HOST} is down: no connection"
    assert JournalKind.EFFECT_FAILED not in kinds(journal)


async def test_runs_that_come_while_it_is_down_wait_without_asking_it_and_come_back_one_after_the_other(
    world: World, bank: Bank
) -> None:
    first = await world.send(calling(rate))
    await waits(first)
    others = [await world.send(kind="job") for _ in range(30)]
    due = [await waits(run) for run in others]
    assert bank.asked == 1
    assert len(set(due)) == 30
    assert max(due) - min(due) > timedelta(seconds=1)


async def test_it_is_looked_for_less_and_less_often(world: World, bank: Bank) -> None:
    run = await world.send(calling(rate))
    lengths = []
    for _ in range(5):
        began = world.clock()
        due_at = await waits(run)
        lengths.append((due_at - began).total_seconds())
        world.clock.pass_until(due_at)
    for length, wait in zip(lengths, [8, 16, 32, 64, 128], strict=True):
        assert wait - 1 < length < wait + min(wait, 30) + 1
    assert bank.asked == 5


async def test_a_waiting_run_that_another_process_takes_up_pays_for_nothing_that_is_known(
    world: World, bank: Bank
) -> None:
    tolerant = Tolerance(failures=3, first=FIRST)
    run = await world.send(calling(rate))
    await waits(run)
    for _ in range(4):
        # A process that has asked nobody yet.
        fresh = Providers(tolerant, clock=lambda: world.clock().timestamp())
        world.resources = Resources((*world.resources.items, fresh))
        world.deploy(*world.engine.workflows)
        run = world.take(run.run_id)
        await world.due(run)
        await waits(run)
    assert ((await run.run()).attempts, bank.asked) == (1, 5)
    bank.away = False
    assert (await run.go_on()).state is RunState.COMPLETED


async def test_a_node_cannot_swallow_it(world: World, bank: Bank) -> None:
    async def node(state: Any) -> dict[str, Any]:
        try:
            return {"log": [await rate()]}
        except Exception:  # noqa: BLE001 - what this test is about
            return {"log": ["something else"]}

    run = await world.send(job(chain(node=node), {"node": Policy(tools=[rate])}))
    await waits(run)
    bank.away = False
    assert ended(await run.go_on()) == (RunState.COMPLETED, Outcome.AUTO)
    assert (await run.values())["log"] == ["look rate"]


async def test_nodes_beside_it_go_on_and_are_not_run_again(world: World, bank: Bank) -> None:
    async def asks(state: Any) -> dict[str, Any]:
        return {"log": [await rate()]}

    async def posts(state: Any) -> dict[str, Any]:
        return {"log": [await post("letter")]}

    graph = beside(asks=asks, posts=posts)
    run = await world.send(job(graph, {"asks": Policy(tools=[rate]), "posts": Policy(tools=[post])}))
    await waits(run)
    assert world.provider.done == [("post", "letter")]
    bank.away = False
    assert (await run.go_on()).state is RunState.COMPLETED
    assert world.provider.done == [("post", "letter"), ("look", "rate")]


async def test_of_two_calls_gathered_the_one_that_was_made_is_not_made_again(world: World, bank: Bank) -> None:
    async def node(state: Any) -> dict[str, Any]:
        return {"log": await asyncio.gather(rate(), pay(Decimal(1)))}

    run = await world.send(job(chain(node=node), {"node": Policy(tools=[rate, pay])}))
    await waits(run)
    bank.away = False
    assert (await run.go_on()).state is RunState.COMPLETED
    assert sorted(world.provider.done) == [("look", "rate"), ("pay", "1 ann")]


# When it is back.


async def test_a_run_whose_provider_is_back_goes_on_as_if_nothing_had_been(world: World, bank: Bank) -> None:
    run = await world.send(calling(rate))
    await waits(run)
    bank.away = False
    done = await run.go_on()
    assert (*ended(done), done.attempts, done.error) == (RunState.COMPLETED, Outcome.AUTO, 1, None)
    effect = the_effect(await run.effects(), "bank.rate")
    assert (effect.state, effect.attempt) == (EffectState.DONE, 1)


async def test_an_approved_call_keeps_its_approval_and_happens_once(world: World, bank: Bank) -> None:
    run = await world.start(calling(letter, "dear Ann", approve_when=always))
    await world.engine.decide((await the_review(run)).id, says("approve"))
    await waits(run)
    effect = the_effect(await run.effects(), "bank.letter")
    assert (effect.state, effect.attempt) == (EffectState.FAILED, 0)
    bank.away = False
    assert ended(await run.go_on()) == (RunState.COMPLETED, Outcome.APPROVED)
    assert world.provider.done == [("post", "dear Ann")]
    assert kinds(await run.journal()).count(JournalKind.REVIEW_OPENED) == 1
    assert the_effect(await run.effects(), "bank.letter").attempt == 1


async def test_what_it_would_have_taken_of_a_budget_is_given_back_meanwhile(world: World, bank: Bank) -> None:
    budgets = [Budget("amount", 5, per="day", of=wire)]
    first = await world.send(calling(wire, Decimal(5), budgets=budgets))
    await waits(first)
    second = await world.send(kind="job")
    await waits(second)
    bank.away = False
    assert (await first.go_on()).state is RunState.COMPLETED
    assert ended(await second.go_on()) == (RunState.FAILED, Reason.NOT_RETRYABLE)


async def test_a_call_that_was_cut_off_before_stays_begun_and_is_repeated_under_its_key(
    world: World, bank: Bank
) -> None:
    bank.away = False
    world.provider.troubles = [Trouble(happens=True)]
    run = await world.crash(await world.send(calling(wire, Decimal(5))))
    await world.due(run)
    bank.away = True
    await waits(run)
    effect = the_effect(await run.effects(), "bank.wire")
    assert (effect.state, effect.attempt) == (EffectState.INTENDED, 1)
    bank.away = False
    assert (await run.go_on()).state is RunState.COMPLETED
    assert world.provider.done == [("pay", "5 ann")]


async def test_a_call_that_has_to_be_read_back_waits_for_that(world: World, bank: Bank) -> None:
    world.provider.troubles = [Trouble(happens=True)]
    run = await world.crash(await world.send(calling(reserve, "a table")))
    await world.due(run)
    await waits(run)
    bank.away = False
    assert (await run.go_on()).state is RunState.COMPLETED
    assert world.provider.done == [("book", "a table")]
