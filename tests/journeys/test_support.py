"""The support workflow, exceptions first, on the real account book, the real ledger and a real mail server."""

from __future__ import annotations

import copy
from pathlib import Path

import pytest
from tests.journeys.support_world import ANN, REFUND, UNCLEAR, Outside, ticket

from eventwright.app.simulate import simulate
from eventwright.graphs.support import REFUND_LIMITS, TEAMS, WHO_DECIDES, support
from eventwright.queue.desk import UnfitDecision
from eventwright.runs.records import Decision, DecisionType, EffectState, JournalKind, ReviewKind
from eventwright.runs.states import Outcome, RunState

ROOT = Path(__file__).parent.parent.parent


# -- what is not clear goes to a person --------------------------------------------------------------------------------


async def test_a_ticket_that_nobody_can_classify_is_classified_by_a_person(outside: Outside) -> None:
    async with simulate(support, ticket(UNCLEAR), resources=outside.clients) as run:
        [asked] = await run.reviews()
        assert (asked.kind, asked.node) == (ReviewKind.LOW_CONFIDENCE, "classify")
        assert asked.evidence["confidence"] < 0.80
        assert outside.smtp.messages == []

        with pytest.raises(UnfitDecision):
            await run.respond("astrology")
        done = await run.respond("exchange_rates", by="dana")

        assert (done.state, done.outcome) == (RunState.COMPLETED, Outcome.EDITED)
        assert (await run.values())["team"] == TEAMS["exchange_rates"]
        assert "exchanging money" in outside.smtp.messages[0].body


async def test_what_a_person_calls_no_ticket_is_not_answered(outside: Outside) -> None:
    async with simulate(support, ticket(UNCLEAR), resources=outside.clients) as run:
        done = await run.reject(comment="advertising")

        assert (done.state, done.outcome) == (RunState.COMPLETED, Outcome.REJECTED)
        assert outside.smtp.messages == []


@pytest.mark.parametrize(
    "sender", [None, "", "Ann Waller", "ann@example.org, bob@example.org", "ann@example.org\nBcc: x"]
)
async def test_a_ticket_without_a_usable_sender_waits_until_a_person_names_one(
    outside: Outside, sender: str | None
) -> None:
    async with simulate(support, ticket(sender=sender), resources=outside.clients) as run:
        [asked] = await run.reviews()
        assert (asked.kind, asked.node) == (ReviewKind.MISSING_DATA, "ask_sender")
        assert asked.response_schema is not None
        with pytest.raises(UnfitDecision):
            await run.respond({"sender": "no address"})

        done = await run.respond({"sender": ANN.email})

        assert done.outcome is Outcome.APPROVED
        assert [message.to for message in outside.smtp.messages] == [ANN.email]


async def test_a_ticket_whose_sender_cannot_be_found_out_ends_without_a_reply(outside: Outside) -> None:
    async with simulate(support, ticket(sender=None), resources=outside.clients) as run:
        assert (await run.reject()).outcome is Outcome.REJECTED
        assert outside.smtp.messages == []


async def test_a_stranger_is_answered_only_when_a_person_says_so(outside: Outside) -> None:
    for answer, addressees in (("approve", ["stranger@example.com"]), ("reject", [])):
        outside.smtp.messages.clear()
        async with simulate(support, ticket(sender="stranger@example.com"), resources=outside.clients) as run:
            [asked] = await run.reviews()
            assert (asked.kind, asked.node) == (ReviewKind.QUESTION, "ask_about_stranger")
            assert "stranger@example.com" in asked.question

            await run.answer(Decision(type=DecisionType(answer), by="dana"))

            assert [message.to for message in outside.smtp.messages] == addressees


async def test_a_stranger_whom_a_person_knows_is_answered_at_the_address_in_the_account_book(outside: Outside) -> None:
    async with simulate(support, ticket(sender="stranger@example.com"), resources=outside.clients) as run:
        await run.respond({"email": "nobody.either@example.com"})
        [asked] = await run.reviews()
        assert "nobody.either@example.com" in asked.question

        await run.respond({"email": ANN.email})

        assert [message.to for message in outside.smtp.messages] == [ANN.email]
        assert f"Dear {ANN.name}," in outside.smtp.messages[0].body


async def test_a_stranger_gets_no_refund(outside: Outside) -> None:
    event = ticket(REFUND, sender="stranger@example.com", amount="20.00", currency="GBP")
    async with simulate(support, event, resources=outside.clients) as run:
        done = await run.approve()

        assert done.state is RunState.COMPLETED
        assert "payments.refund" not in [effect.tool for effect in await run.effects()]


# -- the plain case, and what is written down --------------------------------------------------------------------------


async def test_a_clear_ticket_of_a_customer_is_answered_without_anybody(outside: Outside) -> None:
    async with simulate(support, ticket(), resources=outside.clients) as run:
        assert (await run.run()).outcome is Outcome.AUTO
        [message] = outside.smtp.messages
        assert (message.to, message.subject) == (ANN.email, "Re: My card")
        assert f"Dear {ANN.name}," in message.body
        assert "with our cards team" in message.body


async def test_every_judgement_rule_and_call_stands_in_the_journal(outside: Outside) -> None:
    event = ticket(REFUND, amount="480.00", currency="GBP")
    async with simulate(support, event, resources=outside.clients) as run:
        await run.approve(by="dana")
        entries = await run.journal()

        done = [(entry.node, entry.data["tool"]) for entry in entries if entry.kind is JournalKind.EFFECT_DONE]
        assert done == [
            ("classify", "model.ask"),
            ("assess", "model.ask"),
            ("look_up_account", "crm.find_account"),
            ("check_refund", "payments.refunds_of"),
            ("refund", "payments.refund"),
            ("research", "model.chat"),
            ("research", "help_centre.search"),
            ("research", "payments.refunds_of"),
            ("research", "model.chat"),
            ("research", "help_centre.read"),
            ("research", "model.chat"),
            ("draft_reply", "model.ask"),
            ("send_reply", "mail.send"),
        ]
        judged = next(entry for entry in entries if entry.kind is JournalKind.EFFECT_DONE)
        assert judged.data["result"]["confidence"] >= 0.80
        assert judged.data["result"]["reason"]
        [decision] = [entry for entry in entries if entry.kind is JournalKind.DECISION]
        assert decision.actor == "dana"
        assert {effect.state for effect in await run.effects()} == {EffectState.DONE}


def test_each_question_of_the_workflow_has_somebody_who_answers_it() -> None:
    assert set(WHO_DECIDES) < set(support.graph.nodes)
    asking = {node for node, policy in support.policies.items() if policy.min_confidence or policy.approve_when}
    assert asking | {"ask_sender", "ask_about_stranger", "ask_amount", "send_reply"} == set(WHO_DECIDES)


def test_the_page_about_the_workflow_shows_the_graph_as_it_is() -> None:
    page = (ROOT / "docs" / "support.md").read_text()
    mermaid = copy.copy(support.graph).compile().get_graph().draw_mermaid()
    drawn = page.partition("```mermaid\n")[2].partition("```")[0]
    assert drawn.split() == mermaid.split()
    for node in support.graph.nodes:
        assert f"| `{node}` |" in page, f"docs/support.md does not explain the node {node}"
    for node, who in WHO_DECIDES.items():
        row = next(line for line in page.splitlines() if line.startswith(f"| `{node}` |"))
        assert who in row, f"docs/support.md does not say that {who} decides at {node}"
    assert f"confidence below {support.policy('classify').min_confidence:.2f}" in page
    for currency, limit in REFUND_LIMITS.items():
        assert f"{limit} {currency}" in page
