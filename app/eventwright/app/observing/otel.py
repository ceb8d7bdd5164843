"""OpenTelemetry, by its own environment variables. Imported only where somebody asked for it.

Spans leave in batches, from a thread of their own, with a bounded queue: a collector that is away costs spans, and no
run notices.
"""

from __future__ import annotations

import os
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from contextvars import Token
from importlib.metadata import entry_points
from types import TracebackType
from typing import Self

from opentelemetry import context, trace
from opentelemetry.sdk.resources import SERVICE_NAME, Resource
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import BatchSpanProcessor, SpanExporter
from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator

from eventwright.app.observing.spans import TRACEPARENT, Kind, Span, Spans, Value
from eventwright.runs.errors import EventwrightError

#: Seconds that the last spans have to leave when the process ends.
FAREWELL = 3.0
_KINDS = {"internal": trace.SpanKind.INTERNAL, "client": trace.SpanKind.CLIENT, "consumer": trace.SpanKind.CONSUMER}
_PROPAGATOR = TraceContextTextMapPropagator()


class UnknownExporter(EventwrightError, ValueError):
    """OTEL_TRACES_EXPORTER names an exporter that is not installed."""

    def __init__(self, name: str, known: list[str]) -> None:
        self.name = name
        super().__init__(
            f"there is no trace exporter {name!r} here; set OTEL_TRACES_EXPORTER to one of {', '.join(known)} or none, "
            "or install the package that has it"
        )


class OtelSpans(Spans):
    """Spans through a tracer provider."""

    recording = True

    def __init__(self, provider: trace.TracerProvider) -> None:
        self._tracer = provider.get_tracer("eventwright")

    def open(
        self,
        name: str,
        *,
        kind: Kind = "internal",
        parent: str | None = None,
        attributes: Mapping[str, Value | None] | None = None,
    ) -> Span:
        """A span, to be entered."""
        given = {name: value for name, value in (attributes or {}).items() if value is not None}
        above = None if parent is None else _PROPAGATOR.extract({TRACEPARENT: parent}, context.Context())
        return OtelSpan(self._tracer.start_span(name, above, kind=_KINDS[kind], attributes=given), above)


class OtelSpan(Span):
    """A recorded span; spans that are opened inside are below it."""

    def __init__(self, span: trace.Span, above: context.Context | None) -> None:
        self._span, self._above = span, above
        self._token: Token[context.Context] | None = None

    @property
    def parent(self) -> str | None:  # type: ignore[override]  # known as soon as the span is there
        """The trace parent for what comes of it."""
        seen = self._span.get_span_context()
        return f"00-{seen.trace_id:032x}-{seen.span_id:016x}-{int(seen.trace_flags):02x}" if seen.is_valid else None

    def __enter__(self) -> Self:
        self._token = context.attach(trace.set_span_in_context(self._span, self._above))
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        if self._token is not None:
            context.detach(self._token)
        self._span.end()

    def set(self, attributes: Mapping[str, Value | None]) -> None:
        """Add attributes; those that are None are left out."""
        self._span.set_attributes({name: value for name, value in attributes.items() if value is not None})

    def fail(self, kind: str, words: str) -> None:
        """It is an error, of this kind, told in words that may leave."""
        self._span.set_attribute("error.type", kind)
        self._span.set_status(trace.StatusCode.ERROR, words)


@contextmanager
def exporting() -> Iterator[None]:
    """While the block is open, the spans of this process leave as its environment says; at the end the last ones have
    a few seconds. For the owner of a process: the provider is the process's own, for spans of anybody.

    A provider that is there already, set up by an instrumentation for example, is left alone.

    Raises:
        UnknownExporter: OTEL_TRACES_EXPORTER names one that is not installed.
    """
    exporters = [] if isinstance(trace.get_tracer_provider(), TracerProvider) else _exporters()
    if not exporters:
        yield
        return
    resource = Resource.create({} if os.environ.get("OTEL_SERVICE_NAME") else {SERVICE_NAME: "eventwright"})
    # Its own way to end at exit would wait half a minute for a collector that is away.
    provider = TracerProvider(resource=resource, shutdown_on_exit=False)
    for exporter in exporters:
        provider.add_span_processor(BatchSpanProcessor(exporter))
    trace.set_tracer_provider(provider)
    try:
        yield
    finally:
        thread = threading.Thread(target=provider.shutdown, name="last spans", daemon=True)
        thread.start()
        thread.join(FAREWELL)


def _exporters() -> list[SpanExporter]:
    """The exporters that OTEL_TRACES_EXPORTER names; OTLP where there is only an address."""
    if os.environ.get("OTEL_SDK_DISABLED", "").strip().lower() == "true":
        return []
    names = [name.strip() for name in os.environ.get("OTEL_TRACES_EXPORTER", "otlp").split(",") if name.strip()]
    known = {point.name: point for point in entry_points(group="opentelemetry_traces_exporter")}
    protocol = os.environ.get("OTEL_EXPORTER_OTLP_TRACES_PROTOCOL") or os.environ.get("OTEL_EXPORTER_OTLP_PROTOCOL")
    otlp = "otlp_proto_grpc" if protocol == "grpc" else "otlp_proto_http"
    exporters: list[SpanExporter] = []
    for name in names:
        if name == "none":
            continue
        point = known.get(otlp if name == "otlp" else name)
        if point is None:
            raise UnknownExporter(otlp if name == "otlp" else name, sorted(known))
        exporters.append(point.load()())
    return exporters
