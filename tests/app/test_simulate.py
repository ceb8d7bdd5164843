"""A workflow tried out in a notebook or a test: the same engine, a database and a clock of its own."""

from __future__ import annotations

import tempfile
from datetime import timedelta
from pathlib import Path
from typing import Any, TypedDict

import pytest
from langchain_core.language_models import BaseChatModel, FakeListChatModel
from langgraph.graph import END, START, StateGraph
from langgraph.types import interrupt
from pydantic import BaseModel

from eventwright.app.simulate import NothingToAnswer, simulate
from eventwright.queue.desk import AlreadyDecided, UnfitDecision
from eventwright.queue.intake import EventRefused
from eventwright.runs.records import Decision, DecisionType
from eventwright.sdk import Backoff, Call, Event, NotDone, On, Policy, Workflow, above, review, tool
from eventwright.tools.contract import ResourceMissing


class Bank:
    """A bank that honours idempotency keys, and is away as often as it is told."""

    def __init__(self, *, outages: int = 0) -> None:
        self.outages = outages
        self.paid: dict[str, int] = {}

    def pay(self, key: str, amount: int) -> None:
        if self.outages:
            self.outages -= 1
            raise NotDone("the bank is away")
        self.paid.setdefault(key, amount)


@tool(name="bank.pay", writes="keyed")
async def pay(amount: int, *, call: Call) -> int:
    """Pay."""
    call.use(Bank).pay(call.idempotency_key, amount)
    return amount


class Payment(BaseModel):
    amount: int


class State(TypedDict, total=False):
    amount: int
    paid: int
    said: str


async def settle(state: State) -> State:
    return {"paid": await pay(state["amount"])}


def graph_of(node: Any) -> StateGraph[Any, Any, Any, Any]:
    return StateGraph(State).add_node("settle", node).add_edge(START, "settle").add_edge("settle", END)


def payments(**policy: Any) -> Workflow:
    """Pays at once up to 100; above that a person is asked, for two days."""
    asks = {"approve_when": above("amount", 100), "approval": review("Pay?", deadline=timedelta(days=2))}
    return Workflow(
        "payments",
        version="1",
        graph=graph_of(settle),
        triggers=[On("payment.due", payload={"1": Payment}, trusted=True)],
        policies={"settle": Policy(**({"tools": [pay]} | asks | policy))},
    )


def folders() -> set[Path]:
    return set(Path(tempfile.gettempdir()).glob("eventwright-*"))


@pytest.fixture(autouse=True)
def own_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The simulations' databases of this test and no others."""
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))


# -- what can go wrong -----------------------------------------------------------------------------------------------


async def test_an_event_that_does_not_fit_is_refused_and_leaves_nothing_behind() -> None:
    with pytest.raises(EventRefused, match="amount"):
        await simulate(payments(), {"amount": "much"})
    assert folders() == set()


async def test_an_event_that_nobody_waits_for_says_so_and_leaves_nothing_behind() -> None:
    stray = Event(id="1", source="/shop", type="weather.changed", data={})
    with pytest.raises(LookupError, match=r"weather\.changed"):
        await simulate(payments(), stray)
    assert folders() == set()


async def test_a_failure_of_the_simulation_itself_leaves_nothing_behind(monkeypatch: pytest.MonkeyPatch) -> None:
    def broken_clock(*_: object) -> None:
        raise OverflowError("no later time exists")

    monkeypatch.setattr("eventwright.app.simulate.SimulatedClock.pass_until", broken_clock)
    with pytest.raises(OverflowError):
        await simulate(payments(retries=1), {"amount": 1}, resources=[Bank(outages=1)])
    assert folders() == set()


async def test_who_answers_where_nobody_asks_is_told_how_the_run_stands() -> None:
    async with simulate(payments(), {"amount": 1}, resources=[Bank()]) as run:
        with pytest.raises(NothingToAnswer, match="is completed and asks nobody"):
            await run.approve()


async def test_an_edit_that_does_not_fit_is_told_on_one_line_and_the_question_stays_open() -> None:
    bank = Bank()
    async with simulate(payments(), {"amount": 500}, resources=[bank]) as run:
        with pytest.raises(UnfitDecision) as refused:
            await run.edit({"amount": "a lot"})
        assert refused.value.problem == "amount: Input should be a valid integer"
        assert [question.state for question in await run.reviews()] == ["open"]
        assert (await run.edit({"amount": 60})).outcome == "edited"
    assert list(bank.paid.values()) == [60]


async def test_a_second_answer_to_one_question_is_told_who_was_first() -> None:
    async with simulate(payments(), {"amount": 500}, resources=[Bank()]) as run:
        [question] = await run.reviews()
        await run.approve(by="ann")
        with pytest.raises(AlreadyDecided, match="ann said approve"):
            await run.engine.decide(question.id, Decision(type=DecisionType.REJECT, by="ben"))


async def test_a_client_that_was_not_given_is_named_in_the_failure() -> None:
    async with simulate(payments(), {"amount": 1}) as run:
        failed = await run.run()
    assert failed.state == "failed"
    assert ResourceMissing.__name__ in str(failed.error)
    assert "Bank" in str(failed.error)


# -- people ----------------------------------------------------------------------------------------------------------


async def test_nothing_is_paid_before_a_person_approves_and_once_afterwards() -> None:
    bank = Bank()
    async with simulate(payments(), {"amount": 500}, resources=[bank]) as run:
        assert (await run.run()).state == "pending_approval"
        assert bank.paid == {}
        approved = await run.approve(by="ann", comment="as agreed")
        await run.go_on()
        assert (approved.state, approved.outcome) == ("completed", "approved")
        assert (await run.values())["paid"] == 500
    assert list(bank.paid.values()) == [500]


async def test_a_rejection_ends_the_run_and_nothing_is_paid() -> None:
    bank = Bank()
    async with simulate(payments(), {"amount": 500}, resources=[bank]) as run:
        rejected = await run.reject(by="ben")
    assert (rejected.state, rejected.outcome, bank.paid) == ("completed", "rejected", {})


async def test_an_authors_own_question_gets_its_answer() -> None:
    async def ask(state: State) -> State:
        return {"said": interrupt("How much?")}

    workflow = Workflow("asking", version="1", graph=graph_of(ask), triggers=[On("question.came", trusted=True)])
    async with simulate(workflow, {}) as run:
        assert [question.question for question in await run.reviews()] == ["How much?"]
        await run.respond("a little")
        assert (await run.values())["said"] == "a little"


# -- time ------------------------------------------------------------------------------------------------------------


async def test_the_waits_before_new_attempts_pass_by_themselves() -> None:
    bank = Bank(outages=3)
    patient = payments(retries=3, backoff=Backoff(first=864_000, most=864_000))
    async with simulate(patient, {"amount": 1}, resources=[bank]) as run:
        done = await run.run()
        times = [entry.at for entry in await run.journal() if entry.at is not None]
    assert (done.state, done.attempts) == ("completed", 4)
    assert times[-1] - times[0] >= timedelta(hours=3)
    assert list(bank.paid.values()) == [1]


async def test_a_deadline_decides_when_its_time_has_passed_and_not_before() -> None:
    bank = Bank()
    async with simulate(payments(), {"amount": 500}, resources=[bank]) as run:
        assert (await run.pass_time(timedelta(days=1))).state == "pending_approval"
        late = await run.pass_time(timedelta(days=1, minutes=1))
        [decision] = [entry for entry in await run.journal() if entry.kind == "decision"]
    assert (late.state, late.outcome) == ("completed", "rejected")
    assert (decision.actor, bank.paid) == ("deadline", {})


async def test_a_deadline_counts_from_the_question_and_not_from_before_the_waits() -> None:
    async def fetch_then_settle(state: State) -> State:
        await pay(1)
        return await settle(state)

    late_asker = Workflow(
        "late",
        version="1",
        graph=graph_of(fetch_then_settle),
        triggers=[On("payment.due", trusted=True)],
        policies={"settle": payments(retries=3, backoff=Backoff(first=864_000, most=864_000)).policy("settle")},
    )
    async with simulate(late_asker, {"amount": 500}, resources=[Bank(outages=3)]) as run:
        assert (await run.run()).state == "pending_approval"
        assert (await run.pass_time(timedelta(days=1))).state == "pending_approval"


# -- its own world ---------------------------------------------------------------------------------------------------


async def test_two_simulations_know_nothing_of_each_other_and_their_databases_go_with_them() -> None:
    bank = Bank()
    one = await simulate(payments(), {"amount": 500}, resources=[bank])
    other = await simulate(payments(), {"amount": 500}, resources=[bank])
    assert len(folders()) == 2
    await one.approve()
    assert (await other.run()).state == "pending_approval"
    await one.close()
    await other.close()
    assert folders() == set()


async def test_a_chat_model_of_ones_own_goes_before_the_offline_one() -> None:
    own = FakeListChatModel(responses=["never asked"])
    async with simulate(payments(), {"amount": 1}, resources=[own, Bank()]) as run:
        clients = run.engine.runner._resources
        assert clients.use(BaseChatModel) is own  # type: ignore[type-abstract]


async def test_the_workflow_that_was_simulated_is_still_the_one_that_is_deployed() -> None:
    workflow = payments()
    before = dict(workflow.graph.nodes), workflow.graph.compiled
    async with simulate(workflow, {"amount": 1}, resources=[Bank()]) as run:
        await run.picture()
    assert (dict(workflow.graph.nodes), workflow.graph.compiled) == before
