"""Stage 7, the ledger: intent committed, call made, result committed; and what becomes of a call that was cut off.

The class of the tool decides about a call whose result is missing: a read or a keyed write is made again, a
verifiable one is read back, a plain one is in doubt, and a person says whether it happened.
"""

from __future__ import annotations

import time
from dataclasses import replace
from typing import Any, Final

from pydantic import BaseModel
from pydantic_core import to_json

from eventwright.guardrails.failures import kept
from eventwright.guardrails.outages import waiting
from eventwright.guardrails.plan import Plan
from eventwright.guardrails.request import Request, validate
from eventwright.guardrails.segment import Segment
from eventwright.guardrails.verdicts import Nondeterministic, Paused, Stage, allow
from eventwright.runs.errors import storable
from eventwright.runs.event import digest_of, new_id
from eventwright.runs.failpoints import Failpoint, failpoint
from eventwright.runs.records import (
    DecisionType,
    Effect,
    EffectState,
    JournalKind,
    Review,
    ReviewKind,
)
from eventwright.runs.transaction import Transaction
from eventwright.tools.breaker import ProviderDown
from eventwright.tools.contract import Call, NotDone, Permanent, ToolClass, Unusable
from eventwright.tools.models import ModelAnswerInvalid, ModelRefused, Question

#: The call may, or must, be made again.
AGAIN: Final = object()
#: Where each stage stands in the order.
_ORDER = {stage: number for number, stage in enumerate(Stage)}
#: How long the record of a read waits for a commit that is due anyway, in seconds: its node's checkpoint follows soon.
PATIENCE = 0.05
#: Who stood still for more seconds than this after an intent asks whether the run is still ours, and then calls. Nobody
#: else could have taken it sooner than a lease less a heartbeat after the last sign of life, which is longer.
STANDSTILL = 1.0
#: Arguments and results up to this size stand in the journal too, in bytes of JSON; the ledger keeps all of them.
JOURNALLED = 4096


def begun(request: Request, earlier: Effect) -> Request:
    """The call as it was begun earlier in this place, perhaps as a person edited it. It was approved then, and that
    approval holds for a repeat. Raises Nondeterministic if the tool does not take that any more."""
    if earlier.state is EffectState.DONE:
        return request
    try:
        arguments = validate(request.tool, earlier.arguments)
    except ValueError as error:
        why = f"{earlier.tool} does not take the arguments of its recorded call any more: {error}"
        raise Nondeterministic(earlier.tool, earlier.key, why) from error
    return replace(request, arguments=arguments.values, text=arguments.text, validated=arguments.validated)


async def settle_earlier(segment: Segment, request: Request, earlier: Effect) -> Any:
    """What an earlier call in this place means now: its result, or AGAIN.

    Raises:
        Paused: only a person can tell.
        Nondeterministic: the tool returns something else now than what is on record.
    """
    if earlier.state is EffectState.DONE:
        try:
            return request.tool.load(earlier.result) if earlier.error is None else None
        except ValueError as error:
            why = f"{earlier.tool} does not return what is on record any more: {error}"
            raise Nondeterministic(earlier.tool, earlier.key, why) from error
    if earlier.state is EffectState.IN_DOUBT:
        return await _resolve_doubt(segment, request, earlier)
    match request.tool.tool_class:
        case ToolClass.READ | ToolClass.KEYED:
            return AGAIN
        case ToolClass.VERIFIABLE:
            return await _read_back(segment, request, earlier)
        case ToolClass.PLAIN:
            raise Paused(await _doubt(segment, request, earlier, "the worker stopped between the call and its result"))


async def perform(segment: Segment, request: Request, asked: Request, plan: Plan) -> Any:
    """Make the call, between two commits; a read that no budget counts and no person approved makes do with one that
    nobody waits for.

    Args:
        request: what is executed, perhaps as a person edited it.
        asked: what the node asked for.
        plan: what is reserved for it.

    Raises:
        BudgetExceeded: a budget has too little left; nothing was called, nothing written.
        Postponed: the provider is down, and the run waits for it.
    """
    earlier = segment.effects.get(request.key)
    effect = Effect(
        key=request.key,
        run_id=segment.run.id,
        node=asked.visit.node,
        visit=asked.visit.visit,
        tool=request.tool.name,
        ordinal=request.ordinal,
        tool_class=request.tool.tool_class,
        state=EffectState.INTENDED,
        requested_digest=(requested := asked.arguments_digest),
        executed_digest=requested if request.text == asked.text else request.arguments_digest,
        arguments=request.arguments,
        attempt=1 if earlier is None else earlier.attempt + 1,
        failures=() if earlier is None else earlier.failures,
    )
    segment.check_records()
    announced = request.tool.writes or bool(plan.reservations) or bool(request.reviews)
    if announced:
        posted = time.monotonic()
        await _intend(segment, request, effect, plan)
        if time.monotonic() - posted > STANDSTILL:
            await segment.check_lease()
        segment.check_records()
    began = time.monotonic()
    try:
        call = _call(segment, effect, economy=plan.economy)
        with segment.store.telemetry.call(segment.run, effect, economy=plan.economy) as watch:
            result = await request.tool.perform(_as_it_leaves(segment, request), call)
            watch.tell(result=result)
    except ProviderDown as down:
        end = await waiting(segment, request.node, request.policy, down)
        seen = kept(end) if isinstance(end, ProviderDown) else ()
        await _put_off(segment, request, effect, earlier, down, plan, announced=announced, seen=seen)
        raise end from down
    except Exception as error:
        # Of a keyed write that was begun before nobody knows what became of it, whatever its repeat is answered.
        begun_before = earlier is not None and earlier.state is EffectState.INTENDED
        keyed = request.tool.tool_class is ToolClass.KEYED
        await _failed(segment, request, effect, error, plan, unsure=keyed and begun_before)
        raise
    failpoint(Failpoint.LEDGER_ANSWERED)
    return await _done(segment, request, effect, result, time.monotonic() - began, plan, announced=announced)


def _as_it_leaves(segment: Segment, request: Request) -> BaseModel:
    """The arguments as they are handed over: a model reads its material redacted. The ledger keeps what was asked, so
    that a replay is the same question even if more is taken out by then."""
    question = getattr(request.validated, "question", None) if request.tool.advises else None
    if not isinstance(question, Question):
        return request.validated
    material = segment.setting.redaction.for_model(question.material)
    return request.validated.model_copy(update={"question": replace(question, material=material)})


def unrecorded(segment: Segment, request: Request) -> Call:
    """What a tool is told by a gate that keeps no ledger: nothing about this call is the same the next time."""
    return Call(
        run_id=segment.run.id,
        node=request.node,
        idempotency_key=new_id("call"),
        attempt=1,
        resources=segment.resources,
    )


def _call(segment: Segment, effect: Effect, *, economy: bool = False) -> Call:
    return Call(
        run_id=segment.run.id,
        node=effect.node,
        idempotency_key=effect.key,
        attempt=effect.attempt,
        resources=segment.resources,
        economy=economy,
    )


async def _intend(segment: Segment, request: Request, effect: Effect, plan: Plan) -> None:
    failpoint(Failpoint.LEDGER_INTENDING)
    async with segment.store.write(segment.lease) as tx:
        plan.reserve(tx, effect)
        tx.put_visit(request.visit)
        tx.put_effect(effect)
        for review in request.reviews:
            if review.consumed_by is None:
                tx.consume_review(review.id, effect.key)
        _journal_verdicts(tx, request, effect, plan)
        data = _about(effect) | _if_short("arguments", effect.arguments)
        tx.journal(effect.run_id, JournalKind.EFFECT_INTENDED, actor="gate", node=effect.node, data=data)
    failpoint(Failpoint.LEDGER_INTENDED)
    segment.effects[effect.key] = effect
    for review in request.reviews:
        segment.reviews[review.id] = replace(review, consumed_by=effect.key)


def _journal_verdicts(tx: Transaction, request: Request, effect: Effect, plan: Plan) -> None:
    last = allow(Stage.LEDGER, "first" if effect.attempt == 1 else "again")
    verdicts = sorted((*request.verdicts, plan.verdict, last), key=lambda verdict: _ORDER[verdict.stage])
    data = {
        "tool": effect.tool,
        "digest": request.digest,
        "stages": [verdict.as_json() for verdict in verdicts],
        "reviews": [review.id for review in request.reviews],
    }
    tx.journal(effect.run_id, JournalKind.VERDICT, actor="gate", node=effect.node, data=data)


async def _done(
    segment: Segment, request: Request, effect: Effect, result: Any, seconds: float, plan: Plan, *, announced: bool
) -> Any:
    problem = None
    try:
        recorded = request.tool.dump(result)
    except ValueError as error:
        # It happened. To forget that would be to do it again.
        recorded, problem = None, f"the result is not what the tool declares: {error}"
    if problem is not None and not request.tool.writes:
        # A read may be made again; then it gets another chance.
        unfit = Permanent(f"{effect.tool}: {problem}")
        await _failed(segment, request, effect, unfit, plan)
        raise unfit
    effect = replace(effect, state=EffectState.DONE, result=recorded, error=problem)
    data = _about(effect) | {"seconds": round(seconds, 4)} | _if_short("result", recorded)
    tx = segment.store.transaction(segment.lease)
    if not announced:
        tx.put_visit(request.visit)
        _journal_verdicts(tx, request, effect, plan)
        data |= _if_short("arguments", effect.arguments)
    plan.settle(tx, effect, result)
    tx.put_effect(effect)
    tx.journal(effect.run_id, JournalKind.EFFECT_DONE, actor="gate", node=effect.node, data=data)
    committed = segment.store.committer.post(tx.unit, patience=0.0 if announced else PATIENCE)
    segment.effects[effect.key] = effect
    if request.tool.writes:
        await committed
        failpoint(Failpoint.LEDGER_RECORDED)
    else:
        segment.unwaited.append(committed)
    if problem is not None:
        raise Unusable(f"{effect.tool} was called, but {problem}")
    return request.tool.load(recorded)


async def _failed(
    segment: Segment, request: Request, effect: Effect, error: Exception, plan: Plan, *, unsure: bool = False
) -> None:
    """Record the failure. A plain write that cannot say whether it happened ends the segment with a question; another
    one stays intended, so that the next attempt repeats it with its key, or reads it back."""
    failpoint(Failpoint.LEDGER_FAILING)
    words = storable(f"{type(error).__name__}: {error}")
    certain = (isinstance(error, NotDone) and not unsure) or not request.tool.writes
    if not certain and request.tool.tool_class is ToolClass.PLAIN:
        raise Paused(await _doubt(segment, request, effect, words)) from error
    state = EffectState.FAILED if certain else EffectState.INTENDED
    effect = replace(effect, state=state, error=words, failures=(*effect.failures, *kept(error)))
    async with segment.store.write(segment.lease) as tx:
        if certain and not isinstance(error, ModelAnswerInvalid | ModelRefused):
            # What a model answers badly, or refuses, is paid for all the same.
            plan.release(tx, effect)
        tx.put_visit(request.visit)
        tx.put_effect(effect)
        data = _about(effect) | {"error": effect.error, "permanent": isinstance(error, Permanent)}
        tx.journal(effect.run_id, JournalKind.EFFECT_FAILED, actor="gate", node=effect.node, data=data)
    failpoint(Failpoint.LEDGER_FAILED)
    segment.effects[effect.key] = effect


async def _put_off(
    segment: Segment,
    request: Request,
    effect: Effect,
    earlier: Effect | None,
    down: ProviderDown,
    plan: Plan,
    *,
    announced: bool,
    seen: tuple[dict[str, Any], ...],
) -> None:
    """Nothing was done, for the provider is down: the ledger is as it was before the call, which spends no attempt.
    Only what the node sees of that is kept."""
    words = storable(str(down))
    before = earlier or replace(effect, state=EffectState.FAILED, attempt=0, error=words)
    before = replace(before, failures=(*before.failures, *seen))
    failpoint(Failpoint.LEDGER_PUTTING_OFF)
    async with segment.store.write(segment.lease) as tx:
        tx.put_visit(request.visit)
        if announced and before.state is EffectState.FAILED:
            plan.release(tx, effect)
        if announced or seen:
            tx.put_effect(before)
        data = {"text": words, "tool": effect.tool, "providers": down.providers}
        tx.note(effect.run_id, actor="gate", node=effect.node, data=data)
    failpoint(Failpoint.LEDGER_PUT_OFF)
    if announced or seen:
        segment.effects[effect.key] = before


async def _read_back(segment: Segment, request: Request, earlier: Effect) -> Any:
    result = await request.tool.verify(request.validated, _call(segment, earlier))
    failpoint(Failpoint.LEDGER_READ_BACK)
    if result is None:
        return AGAIN
    return await _done(segment, request, earlier, result, 0.0, Plan(), announced=True)


async def _doubt(segment: Segment, request: Request, effect: Effect, why: str) -> Review:
    """Mark the effect as in doubt and ask whether it happened."""
    effect = replace(effect, state=EffectState.IN_DOUBT, error=why)
    run = segment.run
    review = Review(
        id=new_id("rev"),
        run_id=run.id,
        workflow=run.workflow,
        node=effect.node,
        kind=ReviewKind.IN_DOUBT,
        question=f"Did this call of {effect.tool} happen? {why}",
        allowed=(DecisionType.RESPOND,),
        digest=_doubt_digest(effect),
        arguments=effect.arguments,
        evidence={"tool": effect.tool, "idempotency_key": effect.key, "error": why, "attempt": effect.attempt},
        response_schema={
            "type": "object",
            "properties": {
                "happened": {
                    "type": "boolean",
                    "description": "true: go on without repeating it; false: do it now",
                }
            },
            "required": ["happened"],
            "additionalProperties": False,
        },
    )
    failpoint(Failpoint.LEDGER_DOUBTING)
    async with segment.store.write(segment.lease) as tx:
        tx.put_effect(effect)
        tx.journal(
            run.id, JournalKind.EFFECT_IN_DOUBT, actor="gate", node=effect.node, data=_about(effect) | {"error": why}
        )
        tx.open_review(review)
    failpoint(Failpoint.LEDGER_DOUBTED)
    segment.effects[effect.key] = effect
    segment.reviews[review.id] = review
    segment.asked.add(review.id)
    return review


async def _resolve_doubt(segment: Segment, request: Request, effect: Effect) -> Any:
    reviews = segment.take_reviews(_doubt_digest(effect), effect.key)
    if not reviews:
        raise Paused(await _doubt(segment, request, effect, effect.error or "nobody knows"))
    [review] = reviews
    if review.decision is None:
        segment.asked.add(review.id)
        raise Paused(review)
    happened = bool(review.decision.response["happened"])
    effect = replace(
        effect,
        state=EffectState.DONE if happened else EffectState.FAILED,
        error=f"{review.decision.by} says that it {'happened' if happened else 'did not happen'}",
    )
    kind = JournalKind.EFFECT_DONE if happened else JournalKind.EFFECT_FAILED
    failpoint(Failpoint.LEDGER_RESOLVING)
    async with segment.store.write(segment.lease) as tx:
        if not happened:
            tx.release(effect.run_id, effect.key, node=effect.node)
        tx.put_effect(effect)
        tx.consume_review(review.id, effect.key)
        data = _about(effect) | {"review": review.id, "error": effect.error}
        tx.journal(effect.run_id, kind, actor=review.decision.by, node=effect.node, data=data)
    failpoint(Failpoint.LEDGER_RESOLVED)
    segment.effects[effect.key] = effect
    segment.reviews[review.id] = replace(review, consumed_by=effect.key)
    # Nobody can make up the provider's answer: a write that a person vouched for returns None.
    return None if happened else AGAIN


def _doubt_digest(effect: Effect) -> str:
    return digest_of(["in doubt", effect.key, effect.attempt])


def _about(effect: Effect) -> dict[str, Any]:
    return {
        "tool": effect.tool,
        "class": effect.tool_class,
        "effect": effect.key,
        "attempt": effect.attempt,
        "requested": effect.requested_digest,
        "executed": effect.executed_digest,
    }


def _if_short(name: str, value: Any) -> dict[str, Any]:
    return {name: value} if len(to_json(value)) <= JOURNALLED else {f"{name}_left_out": True}
