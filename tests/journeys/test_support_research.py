"""The research agent of the support workflow: it helps where it can, and neither harms nor holds anything up."""

from __future__ import annotations

from collections.abc import Sequence
from decimal import Decimal
from typing import Any

import pytest
from langchain_core.messages import BaseMessage
from langchain_core.outputs import ChatResult
from tests.journeys.support_world import ANN, CLEAR, REFUND, Outside, ticket

from eventwright.app.simulate import Simulation, simulate
from eventwright.graphs.research import MOST_CALLS, MOST_TURNS, TOOLS, research
from eventwright.graphs.support import support
from eventwright.runs.records import EffectState, JournalKind
from eventwright.runs.states import Outcome, RunState
from eventwright.tools.contract import NotDone
from eventwright.tools.help_centre import packaged_articles
from eventwright.tools.offline_agent import READ, REFUNDS, SEARCH
from eventwright.tools.offline_model import OfflineModel


class Agent(OfflineModel):
    """The offline model, but for the research, which it plays by a script: tool calls, or an error."""

    turns: list[Any]
    played: int = 0

    def _generate(
        self, messages: list[BaseMessage], stop: Any = None, run_manager: Any = None, **told: Any
    ) -> ChatResult:
        if SEARCH not in [tool["function"]["name"] for tool in told.get("tools") or ()]:
            return super()._generate(messages, stop, run_manager, **told)
        turn = self.turns[min(self.played, len(self.turns) - 1)]
        self.played += 1
        if isinstance(turn, Exception):
            raise turn
        result = super()._generate(messages, stop, run_manager, **told)
        message = result.generations[0].message
        result.generations[0].message = message.model_copy(update={"tool_calls": _calls(turn, self.played)})
        return result

    def model_copy(self, **_: Any) -> Agent:
        return self


def _calls(made: Sequence[tuple[str, dict[str, Any]]], turn: int) -> list[dict[str, Any]]:
    return [
        {"name": name, "args": args, "id": f"{turn}_{number}", "type": "tool_call"}
        for number, (name, args) in enumerate(made)
    ]


def notes(*articles: str, text: str = "Look here.") -> list[tuple[str, dict[str, Any]]]:
    return [("Notes", {"articles": list(articles), "text": text})]


async def called(run: Simulation) -> list[str]:
    """The tools that the research has really called."""
    effects = [effect for effect in await run.effects() if effect.node == "research"]
    return [effect.tool for effect in effects if effect.state is EffectState.DONE and effect.tool != "model.chat"]


# -- what goes wrong ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "error", [ValueError("broken"), TimeoutError(), NotDone("busy")], ids=["broken", "slow", "busy"]
)
async def test_a_model_that_fails_in_the_research_costs_the_ticket_its_notes_and_nothing_else(
    outside: Outside, error: Exception
) -> None:
    agent = Agent(turns=[[(SEARCH, {"query": "card delivery"})], error])
    async with simulate(support, ticket(), resources=[*outside.clients, agent]) as run:
        done = await run.run()
        assert (done.state, done.outcome, done.attempts) == (RunState.COMPLETED, Outcome.AUTO, 1)
        assert (await run.values())["notes"] is None
        assert len(outside.smtp.messages) == 1
        assert [entry.node for entry in await run.journal() if entry.kind is JournalKind.EFFECT_FAILED] == ["research"]


@pytest.mark.parametrize(("at_once", "bound"), [(1, True), (6, True), (1, False)])
async def test_an_agent_that_does_not_end_is_ended_and_the_customer_gets_a_reply(
    outside: Outside, at_once: int, bound: bool
) -> None:
    """By its budget of calls; and without one by the turns that its model has."""
    agent = Agent(turns=[[(SEARCH, {"query": f"card {number}"}) for number in range(at_once)]])
    workflow = support if bound else support.with_policy("research", budgets=())
    async with simulate(workflow, ticket(), resources=[*outside.clients, agent]) as run:
        assert ((await run.run()).outcome, (await run.values())["notes"]) == (Outcome.AUTO, None)
        effects = [effect for effect in await run.effects() if effect.node == "research"]
        assert 2 < len(effects) <= MOST_CALLS
        assert agent.played <= MOST_TURNS
        assert len(outside.smtp.messages) == 1


async def test_an_agent_that_was_talked_into_more_can_do_nothing_of_it(outside: Outside) -> None:
    other = ANN.model_copy(update={"id": "acc_of_somebody_else"})
    await outside.ledger.refund(other.id, Decimal(5), "GBP", "x", idempotency_key="k")
    hostile = [
        (REFUNDS, {"account_id": other.id}),
        ("payments_refund", {"account_id": ANN.id, "amount": "80", "currency": "GBP", "reason": "x"}),
        ("payments.refund", {"account_id": ANN.id, "amount": "80", "currency": "GBP", "reason": "x"}),
        ("mail_send", {"to": "thief@example.com", "subject": "x", "text": "x"}),
        (READ, {"article_id": "../../secrets"}),
        (SEARCH, {"query": "x", "and": "more"}),
    ]
    agent = Agent(turns=[hostile, notes("refunds")])
    async with simulate(support, ticket(REFUND), resources=[*outside.clients, agent]) as run:
        assert (await run.run()).state is RunState.WAITING, "it has asked the customer for the amount"
        assert await called(run) == []
        assert await outside.refunds() == []
        assert [message.to for message in outside.smtp.messages] == [ANN.email]


async def test_notes_of_articles_that_nobody_wrote_are_none(outside: Outside) -> None:
    for made_up in (
        notes("how-to-get-rich", text="Click here."),
        notes("refunds", text="x" * 700),
        notes(*["refunds"] * 4),
    ):
        outside.smtp.messages.clear()
        async with simulate(support, ticket(), resources=[*outside.clients, Agent(turns=[made_up])]) as run:
            assert (await run.values())["notes"] is None
            assert "Click here" not in outside.smtp.messages[0].body
    known = Agent(turns=[notes("how-to-get-rich", "refunds", text="Two\nlines.")])
    async with simulate(support, ticket(), resources=[*outside.clients, known]) as run:
        assert (await run.values())["notes"] == {"articles": ["refunds"], "text": "Two lines."}


async def test_a_stranger_gets_articles_and_hears_of_nobodys_refunds(outside: Outside) -> None:
    agent = Agent(turns=[[(REFUNDS, {"account_id": ANN.id}), (SEARCH, {"query": "refund"})], notes("refunds")])
    event = ticket(REFUND, sender="stranger@example.com")
    async with simulate(support, event, resources=[*outside.clients, agent]) as run:
        await run.approve()
        assert await called(run) == ["help_centre.search"]


# -- the plain case ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "calls", "article"),
    [
        (REFUND, ["help_centre.search", "payments.refunds_of", "help_centre.read"], "refunds"),
        (CLEAR, ["help_centre.search", "help_centre.read"], "track-card"),
        ("My card was stolen!", ["help_centre.search", "help_centre.read"], "lost-or-stolen-card"),
    ],
)
async def test_the_agent_makes_several_calls_and_the_reply_says_what_it_found(
    outside: Outside, text: str, calls: list[str], article: str
) -> None:
    async with simulate(support, ticket(text), resources=outside.clients) as run:
        assert sorted(await called(run)) == sorted(calls)
        assert (await run.values())["notes"]["articles"] == [article]
        first = packaged_articles()[article].summary
        assert f"Our help centre says: {first}" in " ".join(outside.smtp.messages[0].body.split())


def test_the_agents_tools_only_read() -> None:
    assert [tool.name for tool in TOOLS if tool.writes] == []
    assert set(support.policy("research").tools) == set(TOOLS)
    assert set(research.get_graph(xray=True).nodes) >= {"ask", "agent:model", "agent:tools", "keep"}
