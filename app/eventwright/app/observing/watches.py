"""What is watched while it goes on: an event's intake, a segment, a node, a call. Each times itself, has a span, and
says in every line that is logged inside where that line comes from."""

from __future__ import annotations

import logging
import time
from collections.abc import Mapping
from contextvars import Token
from dataclasses import dataclass, field
from types import TracebackType
from typing import Any, Self

from structlog.contextvars import bind_contextvars, reset_contextvars

from eventwright.app.observing import spans as named
from eventwright.app.observing.metrics import Few, Metrics
from eventwright.app.observing.spans import Span, Spans
from eventwright.runs.batch import Redact
from eventwright.runs.event import Event
from eventwright.runs.records import Due, Effect, Run
from eventwright.runs.states import RunState
from eventwright.runs.telemetry import Watch
from eventwright.tools.asking import model_name
from eventwright.tools.building import Models
from eventwright.tools.contract import MODELS

log = logging.getLogger("eventwright.events")

#: LangChain's names of kinds of models, as the semantic conventions call their providers.
PROVIDERS = {"openai-chat": "openai", "azure-openai-chat": "azure.ai.openai", "anthropic-chat": "anthropic"}
#: Letters of what others say that a span bears, of an error say.
LONGEST_SAID = 300


@dataclass(frozen=True)
class ModelNames:
    """The chat models of this process, as their provider calls them."""

    primary: str | None = None
    cheaper: str | None = None
    provider: str | None = None

    @classmethod
    def of(cls, models: Models) -> Self:
        """The names of these models."""
        kind = models.primary._llm_type
        cheaper = None if models.cheaper is None else model_name(models.cheaper)
        return cls(model_name(models.primary), cheaper, PROVIDERS.get(kind, kind))


@dataclass
class Instruments:
    """What the watches of a process share.

    Attributes:
        worker: the name of the process.
        redact: (workflow, version, JSON) → the JSON without what is kept from those who read journals.
        spans: how spans are recorded.
        metrics: what is counted.
        tools: names of tools as a label's values; likewise `models`.
        named: the chat models that are asked here.
        due: why the running segments were taken up, until their first node runs; by run.
        began: when they began, by run, on the monotonic clock.
    """

    worker: str
    redact: Redact
    spans: Spans
    metrics: Metrics
    tools: Few
    models: Few = field(default_factory=Few)
    named: ModelNames = field(default_factory=ModelNames)
    due: dict[str, Due] = field(default_factory=dict)
    began: dict[str, float] = field(default_factory=dict)

    def words(self, run: Run, said: object) -> str:
        """What somebody says, without what is kept from those who read journals, and not too long."""
        return str(self.redact(run.workflow, run.version, str(said)))[:LONGEST_SAID]


class _Timed(Watch):
    """A watch with a span and with variables for the logs inside."""

    def __init__(self, instruments: Instruments, span: Span, **variables: str | None) -> None:
        self.instruments = instruments
        self.span = span
        self.began = 0.0
        self._variables = variables
        self._tokens: Mapping[str, Token[Any]] = {}

    def __enter__(self) -> Self:
        self.span.__enter__()
        self._tokens = bind_contextvars(**self._variables) if self._variables else {}
        self.began = time.monotonic()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.ended(time.monotonic() - self.began, error)
        if self._tokens:
            reset_contextvars(**self._tokens)
        self.span.__exit__(kind, error, traceback)

    def ended(self, seconds: float, error: BaseException | None) -> None:
        """It ended after so long, by this error if by one."""


class IntakeWatch(_Timed):
    """An event comes in. One line, whatever becomes of it."""

    def __init__(self, instruments: Instruments, event: Event) -> None:
        given = named.valid_parent(event.extensions.get(named.TRACEPARENT))
        span = instruments.spans.open("receive event", kind="consumer", parent=given)
        super().__init__(instruments, span)
        self.trace = span.parent or given or named.new_parent()
        self._event = event
        self._outcome = "refused"
        self._runs: list[str] = []

    def tell(self, **facts: Any) -> None:
        """Told: runs, duplicate."""
        runs = facts["runs"]
        self._outcome = "duplicate" if facts["duplicate"] else "accepted" if runs else "unmatched"
        self._runs = [run.id for run in runs]

    def ended(self, seconds: float, error: BaseException | None) -> None:
        """One line, one count."""
        metrics = self.instruments.metrics
        metrics.events.labels(self._outcome).inc()
        metrics.intake.observe(seconds)
        event, redact = self._event, self.instruments.redact
        if self.instruments.spans.recording:
            self.span.set(
                {
                    named.EVENT_ID: redact("", "", event.id),
                    named.EVENT_SOURCE: redact("", "", event.source),
                    named.EVENT_TYPE: redact("", "", event.type),
                    "eventwright.outcome": self._outcome,
                    "eventwright.run.id": " ".join(self._runs) or None,
                }
            )
            if error is not None:
                self.span.fail(type(error).__name__, str(redact("", "", str(error)))[:LONGEST_SAID])
        level = logging.INFO if error is None else logging.WARNING
        if log.isEnabledFor(level):
            facts: dict[str, Any] = {
                "event_id": event.id,
                "source": event.source,
                "type": event.type,
                "payload_version": event.version,
                "runs": self._runs,
                "trace_id": named.trace_id(self.trace),
                "seconds": round(seconds, 4),
            }
            if error is not None:
                facts |= {"reason": type(error).__name__, "error": str(error)}
            log.log(level, "event %s", self._outcome, extra=facts)


class SegmentWatch(_Timed):
    """A claimed run goes on until it rests. Its line is logged with the journal's entry."""

    def __init__(self, instruments: Instruments, run: Run, due: Due | None) -> None:
        span = instruments.spans.open(
            f"invoke_workflow {run.workflow}",
            kind="consumer",
            parent=run.trace,
            attributes={
                named.OPERATION: "invoke_workflow",
                named.WORKFLOW_NAME: run.workflow,
                named.CONVERSATION: run.thread_id,
                "eventwright.run.id": run.id,
                "eventwright.workflow.version": run.version,
                "eventwright.worker": instruments.worker,
                "eventwright.attempt": run.attempts,
                "eventwright.lane": run.lane,
                "eventwright.rested": None if due is None else str(due.rested),
                "eventwright.waited_seconds": None if due is None else due.seconds,
            },
        )
        super().__init__(
            instruments,
            span,
            run=run.id,
            workflow=run.workflow,
            worker=instruments.worker,
            trace_id=named.trace_id(run.trace),
        )
        self._run, self._due = run, due
        self._state: RunState | None = None

    def __enter__(self) -> Self:
        super().__enter__()
        instruments = self.instruments
        instruments.metrics.active.inc()
        instruments.began[self._run.id] = self.began
        if self._due is not None:
            instruments.due[self._run.id] = self._due
            instruments.metrics.waited.labels(str(self._due.rested)).observe(self._due.seconds)
        return self

    def tell(self, **facts: Any) -> None:
        """Told: state; outcome; or reason, error, node."""
        self._state = facts["state"]
        outcome, reason = facts.get("outcome"), facts.get("reason")
        self.span.set(
            {
                "eventwright.state": str(self._state),
                "eventwright.outcome": outcome and str(outcome),
                "eventwright.reason": reason and str(reason),
                "eventwright.node": facts.get("node"),
            }
        )
        if reason is not None and self.instruments.spans.recording:
            self.span.fail(str(reason), self.instruments.words(self._run, facts["error"]))

    def ended(self, seconds: float, error: BaseException | None) -> None:
        """Timed by the state it ended in; one that was given up in none."""
        instruments, run = self.instruments, self._run
        instruments.metrics.active.dec()
        instruments.due.pop(run.id, None)
        instruments.began.pop(run.id, None)
        state = "given_up" if self._state is None else str(self._state)
        instruments.metrics.segment.labels(run.workflow, state).observe(seconds)
        if isinstance(error, Exception) and instruments.spans.recording:
            self.span.fail(type(error).__name__, instruments.words(run, error))


class NodeWatch(_Timed):
    """A node runs. A pause passes through it and is no error."""

    def __init__(self, instruments: Instruments, run: Run, node: str) -> None:
        span = instruments.spans.open(
            f"node {node}",
            attributes={"eventwright.node": node, "eventwright.run.id": run.id, named.WORKFLOW_NAME: run.workflow},
        )
        super().__init__(instruments, span, node=node)
        self._run, self._node = run, node

    def __enter__(self) -> Self:
        super().__enter__()
        run, instruments = self._run, self.instruments
        due = instruments.due.pop(run.id, None)
        if due is not None:
            waited = due.seconds + self.began - instruments.began.get(run.id, self.began)
            instruments.metrics.first_node.labels(str(due.rested)).observe(waited)
        return self

    def failed(self, error: BaseException) -> None:
        """The node raised it, or was stopped with it."""
        if self.instruments.spans.recording:
            self.span.fail(type(error).__name__, self.instruments.words(self._run, error))

    def ended(self, seconds: float, error: BaseException | None) -> None:
        """Timed, however it ended."""
        self.instruments.metrics.node.labels(self._run.workflow, self._node).observe(seconds)


class CallWatch(_Timed):
    """A tool or a model is called."""

    def __init__(self, instruments: Instruments, run: Run, effect: Effect, *, economy: bool) -> None:
        self._run, self._effect = run, effect
        self._is_model = effect.tool in MODELS
        name, about = _chat(instruments.named, effect, economy) if self._is_model else _tool(effect)
        about |= {
            "eventwright.node": effect.node,
            "eventwright.run.id": run.id,
            "eventwright.effect": effect.key,
            "eventwright.attempt": effect.attempt,
        }
        kind: named.Kind = "client" if self._is_model else "internal"
        super().__init__(instruments, instruments.spans.open(name, kind=kind, attributes=about))

    def tell(self, **facts: Any) -> None:
        """Told: result."""
        if self._is_model:
            self._answered(facts["result"])

    def _answered(self, answer: Any) -> None:
        counted = answer.counted
        # A provider may call its model anything.
        name = self.instruments.words(self._run, answer.model)
        self.span.set(
            {
                named.RESPONSE_MODEL: name or None,
                named.INPUT_TOKENS: answer.input_tokens if counted else None,
                named.OUTPUT_TOKENS: answer.output_tokens if counted else None,
            }
        )
        metrics, model = self.instruments.metrics, self.instruments.models(name)
        if counted:
            metrics.tokens.labels(model, "input").inc(answer.input_tokens)
            metrics.tokens.labels(model, "output").inc(answer.output_tokens)
        if answer.cost is not None:
            metrics.cost.labels(model, answer.currency or "").inc(float(answer.cost))

    def ended(self, seconds: float, error: BaseException | None) -> None:
        """Timed; what it raised is a failure of the call."""
        instruments = self.instruments
        instruments.metrics.call.labels(instruments.tools(self._effect.tool)).observe(seconds)
        if isinstance(error, Exception) and instruments.spans.recording:
            self.span.fail(type(error).__name__, instruments.words(self._run, error))


def _tool(effect: Effect) -> tuple[str, dict[str, named.Value | None]]:
    about: dict[str, named.Value | None] = {
        named.OPERATION: "execute_tool",
        named.TOOL_NAME: effect.tool,
        named.TOOL_TYPE: "function",
        named.TOOL_CALL_ID: effect.key,
        "eventwright.tool.class": effect.tool_class,
    }
    return f"execute_tool {effect.tool}", about


def _chat(models: ModelNames, effect: Effect, economy: bool) -> tuple[str, dict[str, named.Value | None]]:
    """What is known before the answer. Of a model that an author brought along, that is not even its name."""
    arguments = effect.arguments if isinstance(effect.arguments, dict) else {}
    prompt, question = arguments.get("prompt"), arguments.get("question")
    own = isinstance(prompt, dict) and bool(prompt.get("own"))
    asked = None if own else models.cheaper if economy and models.cheaper else models.primary
    about: dict[str, named.Value | None] = {
        named.OPERATION: "chat",
        named.PROVIDER: None if own else models.provider,
        named.REQUEST_MODEL: asked,
        "eventwright.purpose": question.get("purpose") if isinstance(question, dict) else None,
    }
    return f"chat {asked}" if asked else "chat", about
