"""Traces: one per run, across pauses and workers; a pause is no error; a collector that is away disturbs nobody."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from opentelemetry import trace
from opentelemetry.sdk.trace import ReadableSpan, TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from opentelemetry.semconv._incubating.attributes import cloudevents_attributes, gen_ai_attributes
from opentelemetry.semconv.attributes import error_attributes
from opentelemetry.trace import StatusCode
from tests.app.observing.office import approve, go_on, opened, send

from eventwright.app.observing import spans as named
from eventwright.app.observing.otel import OtelSpans
from eventwright.runs.states import RunState

TRACE, PARENT = "0af7651916cd43dd8448eb211c80319c", "b7ad6b7169203331"


@pytest.fixture
def memory() -> InMemorySpanExporter:
    return InMemorySpanExporter()


@pytest.fixture
def spans(memory: InMemorySpanExporter) -> Iterator[OtelSpans]:
    provider = TracerProvider(shutdown_on_exit=False)
    provider.add_span_processor(SimpleSpanProcessor(memory))
    yield OtelSpans(provider)
    provider.shutdown()


def by_name(memory: InMemorySpanExporter) -> dict[str, ReadableSpan]:
    return {span.name: span for span in memory.get_finished_spans()}


def trace_of(span: ReadableSpan) -> str:
    assert span.context is not None
    return f"{span.context.trace_id:032x}"


# -- what a stranger sends ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "given",
    [
        "",
        "garbage",
        f"00-{'0' * 32}-{PARENT}-01",
        f"00-{TRACE}-{'0' * 16}-01",
        f"ff-{TRACE}-{PARENT}-01",
        f"00-{TRACE.upper()}-{PARENT}-01",
        f"00-{TRACE}-{PARENT}-01\n",
        f"00-{TRACE}-{PARENT}",
        f"00-{TRACE}-{PARENT}-01" + "-x" * 1000,
    ],
)
def test_a_trace_parent_that_is_none_is_not_taken_over(given: str) -> None:
    assert named.valid_parent(given) is None


async def test_an_event_with_a_broken_trace_parent_is_taken_in_and_begins_a_trace(
    tmp_path: Path, spans: OtelSpans, memory: InMemorySpanExporter
) -> None:
    async with opened(tmp_path, spans=spans) as app:
        run = await send(app, trace="00-drop table runs-01")
    (received,) = memory.get_finished_spans()
    assert received.parent is None
    assert named.trace_id(run.trace) == trace_of(received)


async def test_a_failure_is_an_error_in_words_that_may_leave(
    tmp_path: Path, spans: OtelSpans, memory: InMemorySpanExporter
) -> None:
    async with opened(tmp_path, spans=spans) as app:
        run = await send(app, account="closed", amount="20.00")
        assert (await go_on(app, run)).state is RunState.FAILED
    found = by_name(memory)
    failed = {name for name, span in found.items() if span.status.status_code is StatusCode.ERROR}
    assert failed == {"execute_tool bank.pay", "node settle", "invoke_workflow office"}
    for name in failed:
        assert "[email 1]" in str(found[name].status.description)
    call = found["execute_tool bank.pay"].attributes or {}
    assert call[named.ERROR_TYPE] == "Permanent"
    assert not any(span.events for span in found.values())


# -- one trace per run -------------------------------------------------------------------------------------------------


async def test_a_pause_is_no_error_and_what_follows_it_is_in_the_same_trace(
    tmp_path: Path, spans: OtelSpans, memory: InMemorySpanExporter
) -> None:
    async with opened(tmp_path, spans=spans) as app:
        run = await go_on(app, await send(app, "it is urgent, says ann@example.org"))
        assert run.state is RunState.PENDING_APPROVAL
        assert all(span.status.status_code is StatusCode.UNSET for span in memory.get_finished_spans())
        await approve(app, run)
    async with opened(tmp_path, spans=spans) as app:
        assert (await go_on(app, run)).state is RunState.COMPLETED

    found = memory.get_finished_spans()
    assert {trace_of(span) for span in found} == {named.trace_id(run.trace)}
    (received,) = [span for span in found if span.name == "receive event"]
    segments = [span for span in found if span.name == "invoke_workflow office"]
    states = [(span.attributes or {})["eventwright.state"] for span in segments]
    assert states == ["pending_approval", "completed"]
    for segment in segments:
        assert segment.parent is not None
        assert segment.parent.span_id == received.context.span_id  # type: ignore[union-attr]
    call = by_name(memory)["execute_tool bank.pay"]
    settles = [span for span in found if span.name == "node settle"]
    assert call.parent.span_id == settles[-1].context.span_id  # type: ignore[union-attr]
    told = str([(span.name, dict(span.attributes or {})) for span in found])
    assert "ann@example.org" not in told
    assert "it is urgent" not in told


async def test_a_model_call_bears_the_names_of_the_genai_conventions(
    tmp_path: Path, spans: OtelSpans, memory: InMemorySpanExporter
) -> None:
    async with opened(tmp_path, spans=spans) as app:
        await go_on(app, await send(app))
    about = dict(by_name(memory)["chat offline-rules"].attributes or {})
    assert (about[named.OPERATION], about[named.REQUEST_MODEL], about[named.RESPONSE_MODEL]) == (
        "chat",
        "offline-rules",
        "offline-rules",
    )
    assert about[named.INPUT_TOKENS] > 0  # type: ignore[operator]
    assert about[named.OUTPUT_TOKENS] > 0  # type: ignore[operator]
    segment = dict(by_name(memory)["invoke_workflow office"].attributes or {})
    assert segment[named.WORKFLOW_NAME] == "office"
    assert segment["eventwright.waited_seconds"] >= 0  # type: ignore[operator]


def test_the_names_of_attributes_are_those_of_the_semantic_conventions() -> None:
    conventions = vars(gen_ai_attributes) | vars(cloudevents_attributes) | vars(error_attributes)
    known = {value for name, value in conventions.items() if name.isupper() and isinstance(value, str)}
    ours = {value for name, value in vars(named).items() if name.isupper() and isinstance(value, str) and "." in value}
    assert ours - known == set()
    operations = {one.value for one in gen_ai_attributes.GenAiOperationNameValues}
    assert {"chat", "execute_tool", "invoke_workflow"} <= operations


async def test_the_trace_of_whoever_sent_the_event_goes_on(
    tmp_path: Path, spans: OtelSpans, memory: InMemorySpanExporter
) -> None:
    async with opened(tmp_path, spans=spans) as app:
        run = await go_on(app, await send(app, trace=f"00-{TRACE}-{PARENT}-01"))
    assert {trace_of(span) for span in memory.get_finished_spans()} == {TRACE}
    received = by_name(memory)["receive event"]
    assert received.parent is not None
    assert f"{received.parent.span_id:016x}" == PARENT
    assert named.trace_id(run.trace) == TRACE


async def test_without_opentelemetry_a_run_has_a_trace_id_all_the_same(tmp_path: Path) -> None:
    async with opened(tmp_path) as app:
        fresh = await send(app)
        given = await send(app, trace=f"00-{TRACE}-{PARENT}-01")
        broken = await send(app, trace="00-drop table runs-01" * 20)
    assert named.valid_parent(fresh.trace) == fresh.trace
    assert named.valid_parent(broken.trace) == broken.trace
    assert given.trace == f"00-{TRACE}-{PARENT}-01"


async def test_the_header_of_a_request_says_in_whose_trace_an_event_was_sent(tmp_path: Path) -> None:
    import httpx

    from eventwright.app.web.api import create_api

    event = {"specversion": "1.0", "id": "1", "source": "/test", "type": "claim.made", "data": {"text": "x"}}
    headers = {"content-type": "application/cloudevents+json", "traceparent": f"00-{TRACE}-{PARENT}-01"}
    async with opened(tmp_path) as app:
        transport = httpx.ASGITransport(create_api(app))
        async with httpx.AsyncClient(transport=transport, base_url="http://localhost") as client:
            answer = await client.post("/v1/events", json=event, headers=headers)
        (accepted,) = answer.json()["events"]
        run = await app.store.run(accepted["runs"][0]["id"])
    assert named.trace_id(run.trace) == TRACE


# -- where it is off ---------------------------------------------------------------------------------------------------


def test_nothing_is_exported_unless_a_variable_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in named.SWITCHES:
        monkeypatch.delenv(name, raising=False)
    with named.exporting_spans():
        assert not isinstance(trace.get_tracer_provider(), TracerProvider)
        assert not named.spans_here().recording


def test_who_wants_traces_without_the_packages_is_told_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OTEL_TRACES_EXPORTER", "otlp")
    monkeypatch.setitem(sys.modules, "eventwright.app.observing.otel", None)
    with pytest.raises(named.NoOpenTelemetry, match=r"eventwright\[otel\]"), named.exporting_spans():
        pass


async def test_every_span_and_every_attribute_is_in_the_documentation(
    tmp_path: Path, spans: OtelSpans, memory: InMemorySpanExporter
) -> None:
    page = (Path(__file__).parents[3] / "docs" / "observability.md").read_text()
    async with opened(tmp_path, spans=spans) as app:
        await go_on(app, await send(app, amount="20.00"))
        await go_on(app, await send(app, account="closed", amount="20.00"))
    for span in memory.get_finished_spans():
        assert f"`{span.name.split()[0]} " in page, span.name
        for name in span.attributes or {}:
            assert f"`{name}`" in page or f"`{name.removeprefix('eventwright')}`" in page, name
