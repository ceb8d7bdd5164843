"""Traces: the spans that an observer opens, and the trace parents by which a run's spans are one trace everywhere.

Without OpenTelemetry nothing is recorded, and runs have trace parents all the same: the logs of all workers that had a
run bear one trace id, which is the caller's if the event brought one along.
"""

from __future__ import annotations

import os
import re
import secrets
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from types import TracebackType
from typing import Literal, Self

from eventwright.runs.errors import EventwrightError

Value = str | int | float | bool
Kind = Literal["internal", "client", "consumer"]

#: Any of them turns tracing on.
SWITCHES = ("OTEL_TRACES_EXPORTER", "OTEL_EXPORTER_OTLP_ENDPOINT", "OTEL_EXPORTER_OTLP_TRACES_ENDPOINT")
#: The CloudEvents extension, and the HTTP header, that say in whose trace an event was sent.
TRACEPARENT = "traceparent"
_TRACEPARENT = re.compile(r"(?!ff)[0-9a-f]{2}-(?!0{32})([0-9a-f]{32})-(?!0{16})([0-9a-f]{16})-([0-9a-f]{2})(?:-.*)?")

# Names of the semantic conventions (a test compares them with the installed ones).
OPERATION = "gen_ai.operation.name"
PROVIDER = "gen_ai.provider.name"
REQUEST_MODEL = "gen_ai.request.model"
RESPONSE_MODEL = "gen_ai.response.model"
INPUT_TOKENS = "gen_ai.usage.input_tokens"
OUTPUT_TOKENS = "gen_ai.usage.output_tokens"
TOOL_NAME = "gen_ai.tool.name"
TOOL_TYPE = "gen_ai.tool.type"
TOOL_CALL_ID = "gen_ai.tool.call.id"
WORKFLOW_NAME = "gen_ai.workflow.name"
CONVERSATION = "gen_ai.conversation.id"
EVENT_ID = "cloudevents.event_id"
EVENT_SOURCE = "cloudevents.event_source"
EVENT_TYPE = "cloudevents.event_type"
ERROR_TYPE = "error.type"


class NoOpenTelemetry(EventwrightError, ModuleNotFoundError):
    """The environment asks for traces, and OpenTelemetry is not installed."""

    def __init__(self) -> None:
        super().__init__(
            f"the environment asks for traces ({', '.join(name for name in SWITCHES if os.environ.get(name))}), and "
            "OpenTelemetry is not installed here: pip install 'eventwright[otel]'"
        )


def valid_parent(given: str | None) -> str | None:
    """The W3C trace parent that somebody sent, in the form that we know; None if it is none."""
    found = _TRACEPARENT.fullmatch(given) if given is not None and len(given) < 256 else None
    return None if found is None else f"00-{found[1]}-{found[2]}-{found[3]}"


def new_parent() -> str:
    """A trace parent of a new trace; whoever records shall do so."""
    return f"00-{secrets.token_hex(16)}-{secrets.token_hex(8)}-01"


def trace_id(parent: str | None) -> str | None:
    """The trace's id in a trace parent."""
    return None if parent is None else parent.split("-")[1]


class Span:
    """A span that is open while the block is; this one is not recorded."""

    #: The trace parent for what comes of it.
    parent: str | None = None

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        return None

    def set(self, attributes: Mapping[str, Value | None]) -> None:
        """Add attributes; those that are None are left out."""

    def fail(self, kind: str, words: str) -> None:
        """It is an error, of this kind, told in words that may leave."""


_NONE = Span()


class Spans:
    """Nothing is recorded."""

    #: Whether it is worth finding out what a span should say.
    recording = False

    def open(
        self,
        name: str,
        *,
        kind: Kind = "internal",
        parent: str | None = None,
        attributes: Mapping[str, Value | None] | None = None,
    ) -> Span:
        """A span, to be entered. Below `parent` if there is one, else below the one that is open here."""
        return _NONE


def spans_here() -> Spans:
    """The spans of this process: recorded if OpenTelemetry was set up in it, by us or by whoever embeds us."""
    if "opentelemetry.sdk.trace" not in sys.modules:
        return Spans()
    from opentelemetry import trace
    from opentelemetry.sdk.trace import TracerProvider

    from eventwright.app.observing.otel import OtelSpans

    there = trace.get_tracer_provider()
    return OtelSpans(there) if isinstance(there, TracerProvider) else Spans()


@contextmanager
def exporting_spans() -> Iterator[None]:
    """The spans of this process leave while the block is open, if its environment says so by OpenTelemetry's variables:
    OTEL_EXPORTER_OTLP_ENDPOINT, or OTEL_TRACES_EXPORTER. See `otel.exporting`.

    Raises:
        NoOpenTelemetry: it says so, and the packages are not installed.
    """
    if not any(os.environ.get(name) for name in SWITCHES):
        yield
        return
    try:
        from eventwright.app.observing.otel import exporting
    except ImportError as error:
        raise NoOpenTelemetry() from error
    with exporting():
        yield
