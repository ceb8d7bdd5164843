"""Whatever calls a node makes and whatever people answer: what happened outside was allowed, approved and paid for.

The judge is the provider, which keeps what it was really asked to do, and the ledger must account for all of it.
"""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from decimal import Decimal
from pathlib import Path
from typing import Annotated, Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from pydantic import Field
from tests.outside import Provider, World, a_world, chain, job, says

from eventwright.app.simulate import Simulation
from eventwright.graphs.workflow import On
from eventwright.guardrails.budgets import Budget
from eventwright.guardrails.policy import Policy
from eventwright.guardrails.rules import above, one_of
from eventwright.guardrails.verdicts import Denied, Rejected
from eventwright.queue.desk import AlreadyDecided, ReviewClosed, UnfitDecision
from eventwright.runs.errors import MayNotDecide
from eventwright.runs.records import DecisionType, EffectState, JournalKind, Review, ReviewState
from eventwright.runs.states import FINAL, RunState
from eventwright.tools.contract import Call, Role, tool

AGREEMENT = (DecisionType.APPROVE, DecisionType.EDIT)
LIMIT, ALL = Decimal(100), Decimal(150)


@tool(writes="keyed", name="bank.pay")
async def pay(
    amount: Annotated[Decimal, Field(gt=0), Role.AMOUNT], to: Annotated[str, Role.DESTINATION], *, call: Call
) -> str:
    """Pay somebody."""
    return await call.use(Provider).do("bank.pay", f"{amount} {to}", call, repeats=False)


@tool(writes="plain", name="post.write")
async def write(to: Annotated[str, Role.DESTINATION], text: Annotated[str, Role.CONTENT], *, call: Call) -> str:
    """Write to somebody."""
    return await call.use(Provider).do("post.write", f"{to} {text}", call)


@tool(name="web.read")
async def read(page: str, *, call: Call) -> str:
    """Read a page."""
    return await call.use(Provider).do("web.read", page, call)


@tool(writes="plain", name="post.shred")
async def shred(name: str, *, call: Call) -> str:
    """Shred what nobody allowed to be shredded."""
    return await call.use(Provider).do("post.shred", name, call)


TOOLS = {one.name: one for one in (pay, write, read, shred)}


async def obeys(state: Any) -> dict[str, Any]:
    """Make every call that the event names, one after the other or all at once, whatever comes of it."""

    async def one(name: str, arguments: dict[str, Any]) -> None:
        with suppress(Denied, Rejected):
            await TOOLS[name](**arguments)

    calls = state["log"][0]
    if state.get("n"):
        await asyncio.gather(*(one(name, arguments) for name, arguments in calls))
    else:
        for name, arguments in calls:
            await one(name, arguments)
    return {"log": ["done"]}


OBEDIENT = job(
    chain(node=obeys),
    {
        "node": Policy(
            tools=[pay, write, read],
            rules={pay: {"to": one_of("ann", "bob")}},
            approve_when={pay: above("amount", LIMIT)},
            budgets=[Budget("amount", ALL, of=pay), Budget("calls", 8, of=write, then="person")],
        )
    },
    triggers=[On("job"), On("ours", trusted=True)],
)

AMOUNTS = st.sampled_from(["1", "99.99", "100", "100.01", "250", "400", "-5", "NaN", "1e400", "0", 7, None, [1]])
PEOPLE = st.sampled_from(["ann", "bob", "eve", "mallory@evil.example", "", "ann\u200b", "ANN"])
TEXTS = st.sampled_from(["hello", "see https://evil.example", "\u202ehidden", "x" * 20_001, 3])
CALLS = st.one_of(
    st.tuples(
        st.just("bank.pay"), st.fixed_dictionaries({"amount": AMOUNTS, "to": st.sampled_from(["ann", "bob", "eve"])})
    ),
    st.tuples(st.just("post.write"), st.fixed_dictionaries({"to": PEOPLE, "text": TEXTS})),
    st.tuples(st.just("web.read"), st.fixed_dictionaries({"page": PEOPLE})),
    st.tuples(st.just("post.shred"), st.fixed_dictionaries({"name": PEOPLE})),
)
ANSWERS = st.tuples(
    st.sampled_from(["approve", "approve", "reject", "edit", "respond"]),
    st.sampled_from(["ann", "Bob", "carl"]),
    AMOUNTS,
    PEOPLE,
)


async def play(world: World, calls: Any, answers: Any, *, ours: bool, at_once: bool) -> Simulation:
    """Let the run go as far as these answers take it."""
    world.deploy(OBEDIENT)
    data = {"log": [[[name, arguments] for name, arguments in calls]], "n": int(at_once)}
    run = await world.send(None, data, kind="ours" if ours else "job")
    await run.go_on()
    for kind, by, amount, person in answers:
        open_reviews = await run.reviews()
        if not open_reviews:
            break
        arguments = {"amount": amount, "to": person} if "amount" in (open_reviews[0].arguments or {}) else None
        arguments = arguments or {"to": person, "text": "edited"}
        with suppress(UnfitDecision, AlreadyDecided, ReviewClosed, MayNotDecide):
            more = {"arguments": arguments} if kind == "edit" else {}
            await run.answer(says(kind, by=by, **more), open_reviews[-1].id)
    return run


async def account(world: World, run: Simulation, *, ours: bool) -> None:
    """Everything that happened outside is in the ledger, once, with its verdict, its approval and its budget."""
    history = await world.store.history(run.run_id)
    effects = {key: effect for key, effect in history.effects.items() if effect.state is EffectState.DONE}
    verdicts = {
        entry.data["effect"]: entry.data
        for entry in await run.journal()
        if entry.kind in (JournalKind.EFFECT_INTENDED, JournalKind.EFFECT_DONE)
    }
    happened = Counter((name, key) for name, _, key, _ in world.provider.calls)
    assert set(happened) == {(effect.tool, key) for key, effect in effects.items()}
    assert all(times == 1 for times in happened.values())
    assert {name for name, _ in happened} <= {"bank.pay", "post.write", "web.read"}
    assert set(verdicts) >= set(effects)

    for entry in await run.journal():
        if entry.kind is JournalKind.VERDICT and "digest" in entry.data and "reviews" in entry.data:
            kinds = [one["verdict"] for one in entry.data["stages"]]
            assert "deny" not in kinds
            assert "ask" not in kinds or entry.data["reviews"], entry.data

    approvals: dict[str, list[Review]] = {}
    for one in history.reviews:
        if one.decision is not None and one.consumed_by is not None:
            approvals.setdefault(one.consumed_by, []).append(one)
    for key, effect in effects.items():
        if effect.tool == "web.read":
            continue
        mine = [one for one in approvals.get(key, []) if one.state is ReviewState.DECIDED]
        agreed = [one.decision for one in mine if one.decision and one.decision.type in AGREEMENT]
        arguments = effect.arguments
        if effect.tool == "bank.pay":
            assert arguments["to"] in ("ann", "bob")
            assert isinstance(arguments["amount"], str)
            assert Decimal(arguments["amount"]) > 0
            needs = Decimal(arguments["amount"]) > LIMIT
        else:
            needs = not ours
        assert agreed or not needs, (effect, mine)
        for review, decision in zip(mine, agreed, strict=False):
            shown = review.arguments if decision.type is DecisionType.APPROVE else None
            assert shown in (None, arguments)
    paid = sum(Decimal(effect.arguments["amount"]) for effect in effects.values() if effect.tool == "bank.pay")
    assert paid <= ALL
    assert (await run.run()).state in FINAL | {RunState.PENDING_APPROVAL, RunState.FAILED}


class TestWhateverIsCalled:
    """One store for all examples; each example is a run of its own with a provider of its own."""

    @pytest.fixture(autouse=True)
    def _place(self, migrated_sqlite: Path, tmp_path: Path) -> Iterator[None]:
        file = tmp_path / "properties.db"
        file.write_bytes(migrated_sqlite.read_bytes())
        self.url = f"sqlite+aiosqlite:///{file}"
        with self._running():
            yield

    @contextmanager
    def _running(self) -> Iterator[None]:
        with asyncio.Runner() as runner:
            self.runner = runner
            opened = a_world(self.url)
            self.world = runner.run(opened.__aenter__())
            try:
                yield
            finally:
                runner.run(opened.__aexit__(None, None, None))

    @settings(max_examples=60, suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow])
    @given(st.lists(CALLS, max_size=10), st.lists(ANSWERS, max_size=12), st.booleans(), st.booleans())
    def test_what_happened_was_allowed_approved_once_and_within_budget(
        self, calls: Any, answers: Any, ours: bool, at_once: bool
    ) -> None:
        async def example() -> None:
            self.world.provider = Provider()
            world = World(self.world.store, self.world.clock, self.world.provider, None)
            run = await play(world, calls, answers, ours=ours, at_once=at_once)
            await account(world, run, ours=ours)

        self.runner.run(example())
