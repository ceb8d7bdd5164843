"""Canaries: what nobody may see comes in with a ticket, and is looked for in everything that a run leaves behind."""

from __future__ import annotations

import asyncio
import json
import logging
import re
import sys
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from io import StringIO
from pathlib import Path

import pytest
import sqlalchemy as sa
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from tests.app.observing.standins import LangSmith
from tests.journeys.support_world import ANN, Outside, ticket
from tests.loopback import on_loopback
from tests.tools.model_provider import Provider, called, completion, http

from eventwright.app.commands.logs import log_to_stderr
from eventwright.app.composition import App, open_app
from eventwright.app.observing.otel import OtelSpans
from eventwright.app.observing.spans import Spans
from eventwright.app.settings import Settings
from eventwright.graphs.support import support
from eventwright.graphs.workflow import Workflow
from eventwright.guardrails.redaction import Redaction
from eventwright.runs import schema
from eventwright.runs.event import Event, new_id
from eventwright.runs.records import Decision, DecisionType, Review, Run
from eventwright.runs.states import FINAL, Outcome, RunState

SECRET = "sk_live_canary_7f21"
API_KEY = "canary-of-the-api"
CANARIES = {
    "card": "4111 1111 1111 1111",
    "account": "DE89 3704 0044 0532 0130 00",
    "address": "canary.bird@example.org",
    "telephone": "+49 30 901820",
    "secret": SECRET,
    "key": API_KEY,
}
SONG = "; ".join(f"my {name} is {canary}" for name, canary in CANARIES.items())


def heard(text: str) -> list[str]:
    """The canaries that sing in this text, however their letters are grouped."""
    close = re.sub(r"[\s-]", "", text)
    return [name for name, canary in CANARIES.items() if canary in text or re.sub(r"[\s-]", "", canary) in close]


@pytest.fixture(autouse=True)
def environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("EVENTWRIGHT_SECRET_STRIPE_KEY", SECRET)
    monkeypatch.setenv("OPENAI_API_KEY", API_KEY)


@pytest.fixture
def stderr(monkeypatch: pytest.MonkeyPatch) -> Iterator[StringIO]:
    """What the process logs, from the finest level on; afterwards logging is as it was."""
    root = logging.getLogger()
    handlers, level = root.handlers, root.level
    monkeypatch.setattr(sys, "stderr", stream := StringIO())
    log_to_stderr(logging.DEBUG, redaction=Redaction(literals=Settings().secrets.literals))
    try:
        yield stream
    finally:
        root.handlers = handlers
        root.setLevel(level)


@pytest.fixture
async def provider() -> AsyncIterator[Provider]:
    """A provider of models that keeps what it was asked."""
    provider = Provider()
    async with on_loopback(provider.serve) as provider.port:
        yield provider


@asynccontextmanager
async def opened(
    home: Path, provider: Provider, outside: Outside, workflow: Workflow = support, spans: Spans | None = None
) -> AsyncIterator[App]:
    settings = Settings(
        home=home, redis_url="none", smtp_url=outside.smtp.url, openai_base_url=f"http://127.0.0.1:{provider.port}/v1"
    )
    async with open_app(settings, workflows=[workflow], works=True, spans=spans) as app:
        yield app


async def go_on(app: App, run_id: str) -> Run:
    while True:
        await app.engine.tick()
        await app.engine.advance(run_id)
        run = await app.store.run(run_id)
        if run.state in FINAL or run.state in (RunState.FAILED, RunState.PENDING_APPROVAL, RunState.RETRYING):
            return run


async def send(app: App, **more: str) -> Run:
    event = Event(id=new_id("e"), source="/test", type="ticket.created", data=ticket(**more))
    return await go_on(app, (await app.engine.receive(event)).runs[0].id)


async def answer(app: App, run: Run, kind: str, **more: str) -> tuple[Review, Run]:
    [asked] = await app.store.reviews(run_ids=[run.id], state="open")  # type: ignore[arg-type]
    await app.engine.decide(asked.id, Decision(type=DecisionType(kind), by="dana", **more))  # type: ignore[arg-type]
    return asked, await go_on(app, run.id)


async def left_behind(app: App) -> str:
    """Every row of the journal, and the words of every error."""
    runs, effects = schema.runs.c, schema.effects.c
    queries = [sa.select(schema.journal), sa.select(runs.id, runs.error), sa.select(effects.key, effects.error)]
    rows = [dict(row) for query in queries for row in await app.store.rows_of(query)]
    assert rows
    return json.dumps(rows, default=str, ensure_ascii=False)


def sings(provider: Provider, *, sure: float) -> None:
    """The model sings too: in its reasons, in what its agent notes, and in the reply that it drafts."""
    said = {
        "classify": {"value": "card_delivery", "confidence": sure, "reason": SONG},
        "choose": {"value": "normal", "confidence": 0.9, "reason": SONG},
        "draft": {"value": f"Dear customer, {SONG}.", "confidence": 0.9, "reason": SONG},
        "help_centre_search": {"query": "card delivery"},
        "Notes": {"articles": ["card-delivery"], "text": SONG},
    }

    async def answer(writer: asyncio.StreamWriter) -> None:
        request = provider.requests[-1]
        names = [tool["function"]["name"] for tool in request["tools"]]
        began = any(message["role"] == "tool" for message in request["messages"])
        [name] = [name for name in said if name in names and not (name == "help_centre_search" and began)][:1]
        await called(said[name], name=name)(writer)

    provider.script = [answer] * 12


async def test_no_canary_reaches_the_model_the_journal_an_error_or_a_log(
    tmp_path: Path, provider: Provider, outside: Outside, stderr: StringIO
) -> None:
    """The model sings too: in its reasons, in what its agent notes, and in its draft."""
    sings(provider, sure=0.1)
    async with opened(tmp_path, provider, outside) as app:
        run = await send(app, text=f"{SONG}. Where is it?", sender=ANN.email, subject=SONG[:80])
        asked, run = await answer(app, run, "respond", response="card_delivery", comment=SONG)
        while run.state is RunState.PENDING_APPROVAL:
            _, run = await answer(app, run, "approve", comment=SONG)
        assert run.state is RunState.COMPLETED
        logging.getLogger("canary").warning("the run %s had %s", run.id, SONG, extra={"song": SONG})

        assert len(provider.requests) == 5
        assert heard(json.dumps(provider.requests, ensure_ascii=False)) == []
        assert "[card 1]" in str(provider.requests)
        assert heard(await left_behind(app)) == []
        assert heard(stderr.getvalue()) == []
        assert run.id in stderr.getvalue()

        # The same search finds them where they belong: with the event, and before the person who decides.
        assert heard(json.dumps((await app.store.run(run.id)).event.data)) == list(CANARIES)
        assert heard(str(asked.evidence)) == list(CANARIES)


async def test_what_leaves_holds_an_address_at_most(tmp_path: Path, provider: Provider, outside: Outside) -> None:
    sings(provider, sure=0.99)
    async with opened(tmp_path, provider, outside) as app:
        run = await send(app, text="Where is it?")
        while run.state is RunState.PENDING_APPROVAL:
            _, run = await answer(app, run, "approve")
        assert (run.state, run.outcome) in [(RunState.COMPLETED, Outcome.AUTO), (RunState.COMPLETED, Outcome.APPROVED)]
    [message] = outside.smtp.messages
    assert heard(message.body) == ["address", "telephone"]


async def test_a_failure_that_sings_is_told_without_its_song(
    tmp_path: Path, provider: Provider, outside: Outside, stderr: StringIO
) -> None:
    """The provider repeats our key and the customer's words in what it refuses."""
    provider.script = [http({"error": {"message": f"Incorrect API key provided: {SONG}"}}, 401)]
    strict = support.with_policy("classify", fallback=None)
    async with opened(tmp_path, provider, outside, strict) as app:
        run = await send(app, text=f"{SONG}. Where is it?")
        assert run.state is RunState.FAILED
        try:
            raise ValueError(run.error, SONG)
        except ValueError:
            logging.getLogger("canary").exception("it failed: %s", SONG)

        assert "Incorrect API key provided" in str(run.error)
        assert heard(str(run.error)) == []
        assert heard(await left_behind(app)) == []
        assert heard(stderr.getvalue()) == []
        assert "it failed" in stderr.getvalue()


@pytest.fixture
def langsmith(monkeypatch: pytest.MonkeyPatch) -> Iterator[LangSmith]:
    """LangSmith's API, to which traces go."""
    service = LangSmith.ready()
    with service.serving(), service.chosen(monkeypatch):
        yield service


async def test_no_canary_is_in_a_span_or_a_metric_or_leaves_to_langsmith(
    tmp_path: Path, provider: Provider, outside: Outside, langsmith: LangSmith
) -> None:
    """The provider sings too, in the name of its model and in the words of a refusal."""
    body = completion({"content": None, "tool_calls": []}) | {"model": f"gpt {SECRET}"}
    arguments = json.dumps({"value": "card_delivery", "confidence": 0.1, "reason": SONG})
    function = {"name": "classify", "arguments": arguments}
    body["choices"][0]["message"]["tool_calls"] = [{"id": "c", "type": "function", "function": function}]
    provider.script = [http({"error": {"message": SONG}}, 500), http(body)]
    memory = InMemorySpanExporter()
    provider_of_spans = TracerProvider(shutdown_on_exit=False)
    provider_of_spans.add_span_processor(SimpleSpanProcessor(memory))
    text = f"{SONG}. Where is it?"
    async with opened(tmp_path, provider, outside, spans=OtelSpans(provider_of_spans)) as app:
        run = await send(app, text=text, sender=ANN.email, subject=SONG[:80])
        while run.state is RunState.RETRYING:
            await asyncio.sleep(0.05)
            run = await go_on(app, run.id)
        assert run.state is RunState.PENDING_APPROVAL
        metrics = (await app.exposition.all()).decode()
    provider_of_spans.shutdown()

    spans = "".join(span.to_json() for span in memory.get_finished_spans())
    assert heard(spans) == []
    assert "[email 1]" in spans
    assert "Where is it?" not in spans
    assert heard(metrics) == []
    assert 'model="gpt [secret 1]"' in metrics
    assert heard(langsmith.text) == []
    assert "Where is it?" in langsmith.text
