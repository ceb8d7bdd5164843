"""Judgements through the gate: the model answers once and for all; a person answers where it is unsure, and prepared
content stands in where it cannot be reached."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

from eventwright.guardrails.approval import low_confidence_review
from eventwright.guardrails.request import validate
from eventwright.guardrails.verdicts import OverBudget, Rejected, Stage, Verdict, VerdictKind
from eventwright.runs.event import digest_of
from eventwright.runs.records import DecisionType, Effect, EffectState, Run
from eventwright.tools.breaker import ProviderDown
from eventwright.tools.contract import NotDone, Permanent
from eventwright.tools.model_tool import ask_model
from eventwright.tools.models import Answer, Question

if TYPE_CHECKING:
    from eventwright.guardrails.gate import Gate

#: The "model" of an answer that was prepared by the workflow's author.
FALLBACK = "fallback"
#: The "model" of an answer that a person gave.
PERSON = "person"


def judgement_digest(run: Run, visit: int, ordinal: str) -> str:
    """By what a person's answer in the place of a model's is found."""
    return digest_of([run.workflow, run.version, run.id, visit, "judgement", ordinal])


async def judge(gate: Gate, question: Question) -> Answer:
    """The model's answer, or a person's below the policy's confidence. See `Gate.judge`."""
    segment = gate.segment
    visit = segment.visit(gate.node)
    ordinal = gate.next_ordinal(ask_model)
    answer = await _answered(gate, question, ordinal)
    floor = gate.policy.min_confidence
    if floor is None or answer.confidence >= floor or answer.model == FALLBACK:
        return answer
    run = segment.run
    digest = judgement_digest(run, visit.visit, ordinal)
    review = next(iter(segment.take_reviews(digest, digest)), None)
    if review is None:
        verdict = Verdict(
            kind=VerdictKind.ASK,
            stage=Stage.APPROVAL,
            rule="min_confidence",
            reason=f"confidence {answer.confidence:.2f} is below {floor:.2f}",
            inputs={"confidence": answer.confidence, "min_confidence": floor},
        )
        now = await segment.store.now()
        asked = low_confidence_review(run, gate.node, gate.policy, question, answer, digest, verdict, now)
        await gate.open_reviews([asked], [verdict], tool=None)
    if review is None or review.decision is None:
        raise gate.pause([review] if review else [])
    await gate.use_up(review, digest)
    if review.decision.type is DecisionType.REJECT:
        raise Rejected(review, review.decision)
    accepted = review.decision.type is DecisionType.APPROVE
    return replace(
        answer,
        # As it was shown: if its record was lost, the model has answered once more since.
        value=(review.arguments or {}).get("value") if accepted else review.decision.response,
        confidence=1.0,
        reason=review.decision.comment or f"{'confirmed' if accepted else 'answered'} by {review.decision.by}",
        model=PERSON,
    )


async def _answered(gate: Gate, question: Question, ordinal: str) -> Answer:
    try:
        answer: Answer = await gate.call(ask_model, {"question": question})
        return answer
    except (NotDone, OverBudget) as error:
        failures = gate.segment.visit(gate.node, gate.place).failures
        last = isinstance(error, Permanent | OverBudget | ProviderDown) or failures >= gate.policy.retries_for([error])
        if gate.policy.fallback is None or not last:
            raise
        return await _fall_back(gate, question, ordinal, error)


async def _fall_back(gate: Gate, question: Question, ordinal: str, error: Exception) -> Answer:
    """Put the prepared answer into the ledger in the model's place, so that it stays the answer."""
    segment, fallback = gate.segment, gate.policy.fallback
    answer = Answer(
        value=fallback(question.material) if callable(fallback) else fallback,
        confidence=0.0,
        reason=str(error),
        model=FALLBACK,
        input_tokens=0,
        output_tokens=0,
        seconds=0.0,
    )
    visit = segment.visit(gate.node)
    key = gate.key(visit, ask_model, ordinal)
    arguments = validate(ask_model, {"question": question}).values
    digest = digest_of(arguments)
    untried = Effect(
        key=key,
        run_id=segment.run.id,
        node=gate.node,
        visit=visit.visit,
        tool=ask_model.name,
        ordinal=ordinal,
        tool_class=ask_model.tool_class,
        state=EffectState.FAILED,
        requested_digest=digest,
        executed_digest=digest,
        arguments=arguments,
    )
    earlier = segment.effects.get(key)
    attempt = untried.attempt if earlier is None else earlier.attempt
    effect = replace(untried, state=EffectState.DONE, result=ask_model.dump(answer), attempt=attempt)
    async with segment.store.write(segment.lease) as tx:
        tx.put_visit(visit)
        tx.put_effect(effect)
        data = {"text": "the prepared answer stands in for the model", "effect": effect.key, "error": str(error)}
        tx.note(segment.run.id, actor="gate", node=gate.node, data=data)
    segment.effects[effect.key] = effect
    return answer
