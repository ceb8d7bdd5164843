"""Judgements: a model's answers as values. One call each, structured, recorded; a person answers when it is unsure.

Deterministic code does the rest. A judgement is advice, never a decision.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from decimal import Decimal
from typing import Any, Protocol, cast

from eventwright.tools.contract import GateProtocol, gate_for
from eventwright.tools.models import Answer, Question


@dataclass(frozen=True)
class Judgement:
    """What a model, or the person in its place, answered.

    Attributes:
        value: the answer.
        confidence: 0 to 1; 1.0 when a person answered, 0.0 for a prepared fallback.
        reason: why, in words.
        model: which model; `person` or `fallback` when it was none.
        tokens: read and written together.
        cost: of the model's call, in `currency`; None if its price or its tokens are not known.
    """

    value: Any
    confidence: float
    reason: str
    model: str
    tokens: int = 0
    cost: Decimal | None = None
    currency: str | None = None


class _Judge(GateProtocol, Protocol):
    async def judge(self, question: Question) -> Answer: ...


async def ask(question: Question) -> Judgement:
    """Ask any question. Works inside a running node.

    Raises:
        OutsideGate: no node is running here.
        eventwright.guardrails.verdicts.Rejected: the person who was asked instead would not answer.
        ToolError: the model failed.
    """
    answer = await cast(_Judge, gate_for("model.ask")).judge(question)
    return Judgement(
        value=answer.value,
        confidence=answer.confidence,
        reason=answer.reason,
        model=answer.model,
        tokens=answer.input_tokens + answer.output_tokens,
        cost=answer.cost,
        currency=answer.currency,
    )


async def classify(
    text: str, categories: Sequence[str], *, instructions: str = "Which category fits the text?"
) -> Judgement:
    """Which of the categories fits the text. The value is one of them, whatever the model says."""
    return await _pick("classify", text, categories, instructions)


async def choose(text: str, options: Sequence[str], *, instructions: str = "Which option fits best?") -> Judgement:
    """Which of the options is best, for instance a priority. The value is one of them."""
    return await _pick("choose", text, options, instructions)


async def draft(material: str, *, instructions: str = "Write a short, polite reply.") -> Judgement:
    """A text. The value is a string of at most 5,000 characters."""
    schema = {"type": "string", "minLength": 1, "maxLength": 5000}
    return await ask(Question(purpose="draft", instructions=instructions, material=material, schema=schema))


async def extract(text: str, schema: dict[str, Any], *, instructions: str = "What does the text say?") -> Judgement:
    """Fields that stand in a text. The value fits the JSON schema; whether it is true is for code to check."""
    return await ask(Question(purpose="extract", instructions=instructions, material=text, schema=schema))


async def _pick(purpose: str, text: str, options: Sequence[str], instructions: str) -> Judgement:
    if not options:
        raise ValueError(f"{purpose} needs at least one option")
    schema = {"type": "string", "enum": list(options)}
    return await ask(Question(purpose=purpose, instructions=instructions, material=text, schema=schema))
