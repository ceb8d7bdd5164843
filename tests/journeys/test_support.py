"""The support workflow, exceptions first, on the real account book, the real ledger and a real mail server."""

from __future__ import annotations

import asyncio
import copy
import json
import math
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest
from langchain_core.language_models import BaseChatModel

from eventwright.app.simulate import Simulation, simulate, simulator
from eventwright.graphs.support import PREPARED_REPLY, REFUND_LIMITS, TEAMS, WHO_DECIDES, support
from eventwright.graphs.support_rules import one_line, the_one_amount
from eventwright.queue.desk import UnfitDecision
from eventwright.queue.intake import EventRefused
from eventwright.runs.event import Event, new_id
from eventwright.runs.records import Decision, DecisionType, EffectState, JournalKind, ReviewKind
from eventwright.runs.states import Outcome, Reason, RunState
from eventwright.tools.crm import Account, Crm, packaged_accounts
from eventwright.tools.mail import Mailer, Sent
from eventwright.tools.models import ModelSettings, build_model, close_model
from eventwright.tools.offline_model import OfflineModel
from eventwright.tools.payments import PaymentLedger, Refund
from eventwright.tools.smtp_server import LocalSmtp, local_smtp

ROOT = Path(__file__).parent.parent.parent
ANN = next(packaged_accounts())
CLEAR = "Can I track my card while it is in the process of delivery?"
UNCLEAR = "please set an alarm for seven"
REFUND = "I want to return an item for a refund can I do that?"


@dataclass
class Outside:
    """The systems outside."""

    crm: Crm
    ledger: PaymentLedger
    smtp: LocalSmtp

    @property
    def clients(self) -> list[object]:
        return [self.crm, self.ledger, Mailer(self.smtp.url)]

    async def refunds(self, account: Account = ANN) -> list[Refund]:
        return await self.ledger.refunds_of(account.id)


@pytest.fixture
async def outside(tmp_path: Path) -> AsyncIterator[Outside]:
    async with AsyncExitStack() as stack:
        yield Outside(
            crm=await stack.enter_async_context(Crm.open(tmp_path / "crm.db")),
            ledger=await stack.enter_async_context(PaymentLedger.open(tmp_path / "payments.db")),
            smtp=await stack.enter_async_context(local_smtp()),
        )


def ticket(text: str = CLEAR, sender: str | None = ANN.email, **more: Any) -> dict[str, Any]:
    return {"sender": sender, "subject": "My card", "text": text, **more}


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


# -- money -------------------------------------------------------------------------------------------------------------


async def test_a_refund_within_the_limit_is_given_once_and_told_to_the_customer(outside: Outside) -> None:
    event = ticket(REFUND, amount="20.50", currency="GBP")
    async with simulate(support, event, resources=outside.clients) as run:
        assert (await run.run()).outcome is Outcome.AUTO
        [refund] = await outside.refunds()
        assert (refund.amount, refund.currency) == (Decimal("20.50"), "GBP")
        assert "We have given you back 20.50 GBP" in outside.smtp.messages[0].body


@pytest.mark.parametrize(("amount", "currency"), [("85.01", "GBP"), ("100.01", "EUR"), ("110.01", "USD"), ("1", "CHF")])
async def test_nothing_moves_above_the_limit_before_a_person_approves_it(
    outside: Outside, amount: str, currency: str
) -> None:
    event = ticket(REFUND, amount=amount, currency=currency)
    async with simulate(support, event, resources=outside.clients) as run:
        [asked] = await run.reviews()
        assert (asked.kind, asked.node, asked.rule and asked.rule["rule"]) == (
            ReviewKind.APPROVAL,
            "refund",
            "refund_limit",
        )
        assert asked.arguments is not None
        assert (asked.arguments["amount"], asked.arguments["currency"]) == (amount, currency)
        assert await outside.refunds() == []
        assert outside.smtp.messages == []

        assert (await run.approve(by="dana")).outcome is Outcome.APPROVED

        assert [str(refund.amount) for refund in await outside.refunds()] == [amount]
        assert len(outside.smtp.messages) == 1


@pytest.mark.parametrize("currency", REFUND_LIMITS)
async def test_a_refund_of_exactly_the_limit_needs_nobody(outside: Outside, currency: str) -> None:
    event = ticket(REFUND, amount=str(REFUND_LIMITS[currency]), currency=currency)
    async with simulate(support, event, resources=outside.clients) as run:
        assert (await run.run()).outcome is Outcome.AUTO


async def test_a_refused_refund_moves_nothing_and_the_customer_is_told_politely(outside: Outside) -> None:
    event = ticket(REFUND, amount="480.00", currency="GBP")
    async with simulate(support, event, resources=outside.clients) as run:
        done = await run.reject(by="dana", comment="the shop refunds this itself")

        assert (done.state, done.outcome) == (RunState.COMPLETED, Outcome.REJECTED)
        assert await outside.refunds() == []
        assert "We are sorry" in outside.smtp.messages[0].body
        assert "the shop refunds this itself" not in outside.smtp.messages[0].body


async def test_an_edited_amount_is_the_one_that_is_given_and_told(outside: Outside) -> None:
    event = ticket(REFUND, amount="480.00", currency="GBP")
    async with simulate(support, event, resources=outside.clients) as run:
        [asked] = await run.reviews()
        with pytest.raises(UnfitDecision):
            await run.edit({**(asked.arguments or {}), "amount": "-1"})

        done = await run.edit({**(asked.arguments or {}), "amount": "60.00"}, by="dana")

        assert done.outcome is Outcome.EDITED
        assert [refund.amount for refund in await outside.refunds()] == [Decimal("60.00")]
        assert "given you back 60.00 GBP" in outside.smtp.messages[0].body
        assert "480" not in outside.smtp.messages[0].body


async def test_a_second_refund_of_a_customer_is_approved_by_a_person_however_small(outside: Outside) -> None:
    event = ticket(REFUND, amount="5.00", currency="GBP")
    async with simulate(support, event, resources=outside.clients):
        pass
    async with simulate(support, event, resources=outside.clients) as run:
        [asked] = await run.reviews()
        assert asked.node == "repeat_refund"
        assert len(await outside.refunds()) == 1

        await run.approve()

        assert len(await outside.refunds()) == 2


async def test_a_refund_without_a_clear_amount_is_asked_back_to_the_customer(outside: Outside) -> None:
    async with simulate(support, ticket(REFUND), resources=outside.clients) as run:
        assert (await run.run()).outcome is Outcome.AUTO
        assert await outside.refunds() == []
        assert "which amount" in outside.smtp.messages[0].body


async def test_the_first_version_of_a_ticket_has_its_amount_in_the_text(outside: Outside) -> None:
    event = Event(
        id=new_id("t"), source="/t", type="ticket.created", version="1", data=ticket(f"{REFUND} It was £20.50.")
    )
    async with simulate(support, event, resources=outside.clients):
        assert [str(refund.amount) for refund in await outside.refunds()] == ["20.50"]


@pytest.mark.parametrize(
    ("text", "amount"),
    [
        ("I want £25 back", ("25", "GBP")),
        ("1,250.00 euros, please", ("1250.00", "EUR")),
        ("EUR 12.50.", ("12.50", "EUR")),
        ("£25, so 25 pounds", ("25", "GBP")),
        ("I paid three times", None),
        ("$40", None),
        ("25,50 EUR", None),
        ("1.234,56 eur", None),
        ("£1.5", None),
        ("£0", None),
        ("25 pounds and 30 GBP", None),
    ],
)
def test_only_one_clear_amount_counts(text: str, amount: tuple[str, str] | None) -> None:
    assert the_one_amount(text) == (amount and (Decimal(amount[0]), amount[1]))


@pytest.mark.parametrize(
    "payload",
    [
        {"text": ""},
        {"text": "x" * 10_001},
        {"sender": "a" * 255},
        {"amount": "20.00"},
        {"amount": "-1", "currency": "GBP"},
        {"amount": "NaN", "currency": "GBP"},
        {"amount": "1.001", "currency": "GBP"},
        {"amount": "1", "currency": "pounds"},
        {"unknown": True},
    ],
)
async def test_a_payload_that_does_not_fit_starts_nothing(outside: Outside, payload: dict[str, Any]) -> None:
    with pytest.raises(EventRefused):
        await simulate(support, {**ticket(), **payload}, resources=outside.clients)


# -- the mail server ---------------------------------------------------------------------------------------------------


async def test_a_mail_server_that_fails_twice_delays_the_reply_and_doubles_nothing(outside: Outside) -> None:
    outside.smtp.refusing[ANN.email] = 2
    async with simulate(support, ticket(), resources=outside.clients) as run:
        done = await run.run()
        assert (done.outcome, done.attempts) == (Outcome.AUTO, 3)
        assert len(outside.smtp.messages) == 1
        states = [entry.data.get("to") for entry in await run.journal() if entry.kind is JournalKind.TRANSITION]
        assert states.count("retrying") == 2
        models = [effect for effect in await run.effects() if effect.tool == "model.ask"]
        assert [effect.attempt for effect in models] == [1, 1, 1]


async def test_a_mail_server_that_stays_down_leaves_a_dead_letter_that_a_replay_sends(outside: Outside) -> None:
    outside.smtp.refusing[ANN.email] = math.inf
    async with simulate(support, ticket(), resources=outside.clients) as run:
        dead = await run.run()
        assert (dead.state, dead.reason) == (RunState.FAILED, Reason.ATTEMPTS)
        assert "451" in (dead.error or "")

        outside.smtp.refusing.clear()
        await run.engine.replay(run.run_id, by="dana")
        done = await run.go_on()

        assert done.state is RunState.COMPLETED
        assert len(outside.smtp.messages) == 1


async def test_a_reply_that_may_or_may_not_have_left_is_sent_again_only_when_a_person_says_so(outside: Outside) -> None:
    outside.smtp.losing.add(ANN.email)
    for happened, mails in ((True, 1), (False, 2)):
        outside.smtp.messages.clear()
        async with simulate(support, ticket(), resources=outside.clients) as run:
            [asked] = await run.reviews()
            assert (asked.kind, asked.node) == (ReviewKind.IN_DOUBT, "send_reply")
            outside.smtp.losing.clear()

            done = await run.respond({"happened": happened})

            assert done.state is RunState.COMPLETED
            assert len(outside.smtp.messages) == mails
        outside.smtp.losing.add(ANN.email)


class PowerCut(BaseException):
    """The process ends here, without a word."""


class MailerCutOff(Mailer):
    """Sends one message, and then the lights go out; after that it works."""

    cut = False

    async def send(self, to: str, subject: str, body: str, *, idempotency_key: str) -> Sent:
        sent = await super().send(to, subject, body, idempotency_key=idempotency_key)
        if not self.cut:
            self.cut = True
            raise PowerCut
        return sent


class ModelCutOff(OfflineModel):
    """The lights go out while the given question is asked."""

    cuts: list[str]

    async def ainvoke(self, *args: Any, **kwargs: Any) -> Any:
        if self.cuts and kwargs["tools"][0]["function"]["name"] == self.cuts[0]:
            raise PowerCut(self.cuts.pop())
        return await super().ainvoke(*args, **kwargs)


@asynccontextmanager
async def begun(outside: Outside, *extra: object) -> AsyncIterator[Simulation]:
    """A run that is received and not yet begun."""
    async with simulator(support, resources=[*outside.clients, *extra]) as (engine, clock):
        event = Event(id=new_id("t"), source="/t", type="ticket.created", version="2", data=ticket())
        receipt = await engine.receive(event)
        yield Simulation(engine, receipt.runs[0].id, clock)


@pytest.mark.parametrize("question", ["classify", "choose", "draft"])
async def test_a_crash_before_the_mail_sends_it_once(outside: Outside, question: str) -> None:
    async with begun(outside, ModelCutOff(cuts=[question])) as run:
        with pytest.raises(PowerCut):
            await run.go_on()
        assert (await run.run()).state is RunState.PROCESSING

        done = await run.go_on()

        assert (done.state, done.outcome) == (RunState.COMPLETED, Outcome.AUTO)
        assert len(outside.smtp.messages) == 1


async def test_a_crash_after_the_mail_asks_a_person_instead_of_sending_it_again(outside: Outside) -> None:
    async with begun(outside, MailerCutOff(outside.smtp.url)) as run:
        with pytest.raises(PowerCut):
            await run.go_on()
        await run.go_on()

        [asked] = await run.reviews()
        assert asked.kind is ReviewKind.IN_DOUBT
        done = await run.respond({"happened": True})

        assert done.state is RunState.COMPLETED
        assert len(outside.smtp.messages) == 1


async def test_a_subject_cannot_write_lines_into_the_head_of_the_mail(outside: Outside) -> None:
    event = ticket() | {"subject": "Hi\r\nBcc: everybody@example.com\u2028\x00x"}
    async with simulate(support, event, resources=outside.clients):
        [message] = outside.smtp.messages
        assert message.subject == "Re: Hi Bcc: everybody@example.com x"
        assert [message.to] == [ANN.email]
    assert len(one_line("long " * 500)) <= 200


# -- the model ---------------------------------------------------------------------------------------------------------


@asynccontextmanager
async def model_server(fails: float) -> AsyncIterator[BaseChatModel]:
    """The real client of a provider that is overloaded for its first `fails` requests, and then answers well."""
    left = fails
    good = {"classify": "card_delivery", "choose": "high", "draft": "Dear Ann, it is on its way."}

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        nonlocal left
        head = (await reader.readuntil(b"\r\n\r\n")).decode().lower()
        length = int(head.partition("content-length: ")[2].partition("\r\n")[0])
        name = json.loads(await reader.readexactly(length))["tools"][0]["function"]["name"]
        left -= 1
        arguments = json.dumps({"value": good[name], "confidence": 0.95, "reason": "clear"})
        call = {"id": "1", "type": "function", "function": {"name": name, "arguments": arguments}}
        message = {"role": "assistant", "content": None, "tool_calls": [call]}
        choice = {"index": 0, "message": message, "finish_reason": "tool_calls"}
        completion = {"id": "1", "object": "chat.completion", "created": 1, "model": "served", "choices": [choice]}
        status, body = (503, {"error": {"message": "overloaded"}}) if left >= 0 else (200, completion)
        text = json.dumps(body).encode()
        lines = f"HTTP/1.1 {status} X\r\ncontent-type: application/json\r\ncontent-length: {len(text)}\r\n"
        writer.write(lines.encode() + b"connection: close\r\n\r\n" + text)
        await writer.drain()
        writer.close()
        await writer.wait_closed()

    server = await asyncio.start_server(serve, "127.0.0.1", 0)
    port = server.sockets[0].getsockname()[1]
    model = build_model(ModelSettings(base_url=f"http://127.0.0.1:{port}/v1"))
    try:
        yield model
    finally:
        await close_model(model)
        server.close()
        await server.wait_closed()


async def test_a_model_that_stumbles_is_asked_again(outside: Outside) -> None:
    async with (
        model_server(fails=2) as model,
        simulate(support, ticket(), resources=[*outside.clients, model]) as run,
    ):
        done = await run.run()
        assert (done.outcome, done.attempts) == (Outcome.AUTO, 3)
        assert "it is on its way" in outside.smtp.messages[0].body
        assert "priority high" in outside.smtp.messages[0].body


async def test_a_model_that_is_down_for_good_is_stood_in_for_by_the_prepared_reply(outside: Outside) -> None:
    async with (
        model_server(fails=math.inf) as model,
        simulate(support, ticket(), resources=[*outside.clients, model]) as run,
    ):
        done = await run.run()
        assert (done.state, done.outcome) == (RunState.COMPLETED, Outcome.FALLBACK)
        [message] = outside.smtp.messages
        assert message.body.startswith(PREPARED_REPLY)
        assert "front desk" in message.body


async def test_an_unsure_draft_is_read_by_a_person_before_it_is_sent(outside: Outside) -> None:
    strict = support.with_policy("draft_reply", min_confidence=0.95)
    async with simulate(strict, ticket(), resources=outside.clients) as run:
        [asked] = await run.reviews()
        assert asked.node == "draft_reply"

        await run.respond("Dear Ann, it left today.")

        assert "it left today" in outside.smtp.messages[0].body


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
    assert asking | {"ask_sender", "ask_about_stranger", "send_reply"} == set(WHO_DECIDES)


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
