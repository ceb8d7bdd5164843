"""The support workflow when its mail server, its model or its own process fails."""

from __future__ import annotations

import asyncio
import json
import math
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import pytest
from langchain_core.language_models import BaseChatModel
from tests.journeys.support_world import ANN, Outside, ticket
from tests.loopback import on_loopback

from eventwright.app.simulate import Simulation, simulate, simulator
from eventwright.graphs.support import PREPARED_REPLY, support
from eventwright.graphs.support_rules import one_line
from eventwright.runs.event import Event, new_id
from eventwright.runs.records import JournalKind, ReviewKind
from eventwright.runs.states import Outcome, Reason, RunState
from eventwright.tools.building import ModelSettings, build_model, close_model
from eventwright.tools.mail import Mailer, Sent
from eventwright.tools.offline_model import OfflineModel

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
        arguments = json.dumps({"value": good.get(name), "confidence": 0.95, "reason": "clear"})
        call = {"id": "1", "type": "function", "function": {"name": name, "arguments": arguments}}
        # The research agent, whose tools it has, is told that there is nothing to find.
        spoken = {"content": None, "tool_calls": [call]} if name in good else {"content": "There is nothing."}
        message = {"role": "assistant", **spoken}
        choice = {"index": 0, "message": message, "finish_reason": "tool_calls"}
        completion = {"id": "1", "object": "chat.completion", "created": 1, "model": "served", "choices": [choice]}
        status, body = (503, {"error": {"message": "overloaded"}}) if left >= 0 else (200, completion)
        text = json.dumps(body).encode()
        lines = f"HTTP/1.1 {status} X\r\ncontent-type: application/json\r\ncontent-length: {len(text)}\r\n"
        writer.write(lines.encode() + b"connection: close\r\n\r\n" + text)
        await writer.drain()

    async with on_loopback(serve) as port:
        model = build_model(ModelSettings(base_url=f"http://127.0.0.1:{port}/v1"))
        try:
            yield model
        finally:
            await close_model(model)


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
