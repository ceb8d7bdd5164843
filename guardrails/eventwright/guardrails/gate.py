"""The gate: the one way from a node to a tool or a model. It applies the policy, asks people, keeps the ledger.

A call passes its stages in order, and the first that does not allow it decides:
capability, schema, (the ledger's record of an earlier call,) approval, ledger. Whatever goes wrong means no.
"""

from __future__ import annotations

import asyncio
import threading
from collections.abc import AsyncIterator, Iterator, Mapping
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass, field, replace
from typing import Any

from pydantic import BaseModel, ValidationError
from pydantic_core import PydanticSerializationError, to_jsonable_python

from eventwright.guardrails import ledger
from eventwright.guardrails.approval import approval_review, low_confidence_review, wants_approval
from eventwright.guardrails.policy import Policy
from eventwright.guardrails.segment import Segment
from eventwright.guardrails.verdicts import (
    Denied,
    Nondeterministic,
    Paused,
    Rejected,
    Stage,
    Verdict,
    VerdictKind,
    allow,
)
from eventwright.runs.errors import in_one_line
from eventwright.runs.event import canonical, digest_of
from eventwright.runs.records import Decision, DecisionType, EffectState, JournalKind, Review, Visit
from eventwright.tools.contract import NotDone, OutsideGate, Permanent, Tool, current_gate
from eventwright.tools.model_tool import ask_model
from eventwright.tools.models import Answer, Question

#: The "model" of an answer that was prepared by the workflow's author.
FALLBACK = "fallback"
#: The "model" of an answer that a person gave.
PERSON = "person"


@dataclass(frozen=True, kw_only=True)
class Request:
    """One call on its way through the gate."""

    tool: Tool
    visit: Visit
    ordinal: str
    #: The effect's key: run, visit, tool, ordinal. It survives retries, crashes, renamed nodes and new threads.
    key: str
    #: Canonical arguments, as they were asked for or as a person edited them.
    arguments: dict[str, Any]
    validated: BaseModel
    #: What a person approves: workflow, version, run, node, tool and arguments.
    digest: str
    verdicts: tuple[Verdict, ...] = ()
    review: Review | None = None


@dataclass
class Gate:
    """The gate of one node in one segment. Open it with `opened()`; a task that outlives its node finds it closed."""

    segment: Segment
    node: str
    #: Where the node stands; code in a graph inside the node stands deeper.
    place: str
    policy: Policy
    loop: asyncio.AbstractEventLoop
    thread: threading.Thread = field(default_factory=threading.current_thread)
    closed: bool = False
    _ordinals: dict[tuple[int, str], int] = field(default_factory=dict)
    #: Calls that are under way, and whether there are none.
    _under_way: int = 0
    _quiet: asyncio.Event = field(default_factory=asyncio.Event)

    @asynccontextmanager
    async def opened(self) -> AsyncIterator[Gate]:
        """Let the code inside call tools through this gate.

        When one of several gathered calls pauses or fails, the node is over while the others are still being made:
        they are waited for, so that no call of a segment outlives it. A cancelled node waits for nothing.
        """
        token = current_gate.set(self)
        waits = True
        try:
            yield self
        except asyncio.CancelledError:
            waits = False
            raise
        finally:
            self.closed = True
            current_gate.reset(token)
            if waits and self._under_way:
                await self._quiet.wait()

    @contextmanager
    def _counted(self) -> Iterator[None]:
        self._under_way += 1
        self._quiet.clear()
        try:
            yield
        finally:
            self._under_way -= 1
            if not self._under_way:
                self._quiet.set()

    # -- the way of a call -------------------------------------------------------------------------------------------

    async def call(self, tool: Tool, arguments: Mapping[str, Any]) -> Any:
        """Call the tool if the policy allows it; the recorded result if it was called before.

        Raises:
            Denied, Rejected: the policy, or a person, says no.
            Paused, Nondeterministic: the segment ends here (no `except Exception` catches them).
            ToolError: the tool failed.
        """
        with self._counted():
            return await self._called(tool, arguments)

    async def _called(self, tool: Tool, arguments: Mapping[str, Any]) -> Any:
        visit, ordinal = self._enter(tool)
        await self._capable(tool)
        request = await self._validated(tool, arguments, visit, ordinal)
        earlier = self.segment.effects.get(request.key)
        if earlier is not None and earlier.state is not EffectState.FAILED:
            if earlier.requested_digest != digest_of(request.arguments):
                raise Nondeterministic(tool.name, request.key)
            settled = await ledger.settle_earlier(self.segment, request, earlier)
            if settled is not ledger.AGAIN:
                return settled
            # It was approved when it was first begun; that approval holds for the repeat.
            approved = replace(request, **_executed(tool, earlier.arguments))
        else:
            approved = await self._approved(request)
        call = ledger.perform(self.segment, approved, request)
        return await (self.segment.make(call) if tool.writes else call)

    def _enter(self, tool: Tool) -> tuple[Visit, str]:
        if self.closed:
            raise OutsideGate(tool.name)
        visit = self.segment.visit(self.node)
        counter = (visit.visit, tool.name)
        self._ordinals[counter] = ordinal = self._ordinals.get(counter, -1) + 1
        return visit, str(ordinal)

    async def _capable(self, tool: Tool) -> None:
        if not (self.policy.allows(tool) or tool is ask_model):
            reason = f"the policy of node {self.node!r} does not name this tool; add it to Policy(tools=[...])"
            await self._deny(tool, Verdict(kind=VerdictKind.DENY, stage=Stage.CAPABILITY, rule="tools", reason=reason))

    async def _validated(self, tool: Tool, raw: Mapping[str, Any], visit: Visit, ordinal: str) -> Request:
        """The request with canonical, strictly validated arguments."""
        try:
            arguments, validated = validate(tool, raw)
        except ValueError as error:
            await self._deny(
                tool, Verdict(kind=VerdictKind.DENY, stage=Stage.SCHEMA, rule="arguments", reason=brief(error))
            )
            raise
        return Request(
            tool=tool,
            visit=visit,
            ordinal=ordinal,
            key=self._key(visit, tool, ordinal),
            arguments=arguments,
            validated=validated,
            digest=self.digest(tool.name, arguments),
            verdicts=(allow(Stage.CAPABILITY, "tools"), allow(Stage.SCHEMA, "arguments")),
        )

    def _key(self, visit: Visit, tool: Tool, ordinal: str) -> str:
        return digest_of([self.segment.run.id, visit.visit, tool.name, ordinal])

    def digest(self, tool: str, arguments: Any) -> str:
        """What an approval is bound to."""
        run = self.segment.run
        return call_digest(run.workflow, run.version, run.id, self.node, tool, arguments)

    async def _approved(self, request: Request) -> Request:
        """The request a person agreed to, or nobody had to; raises Paused or Rejected.

        A review about this very call decides, whatever the rule says by now: what was asked is not asked away.
        """
        review = self.segment.take_review(request.digest, request.key)
        if review is None:
            verdict = wants_approval(self.policy, request.tool, request.validated)
            if verdict.kind is VerdictKind.ALLOW:
                return replace(request, verdicts=(*request.verdicts, verdict))
            if verdict.kind is VerdictKind.DENY:
                await self._deny(request.tool, verdict)
            now = await self.segment.store.now()
            asked = approval_review(self.segment.run, self.node, self.policy, request, verdict, now)
            await self._ask(asked, verdict)
        if review is None or review.decision is None:
            raise self._pause(review)
        match review.decision.type:
            case DecisionType.REJECT:
                await self._use_up(review, request.key)
                raise Rejected(review, review.decision)
            case DecisionType.EDIT:
                return await self._edited(request, review, review.decision)
            case _:
                verdict = allow(Stage.APPROVAL, "decision", f"approved by {review.decision.by}")
                return replace(request, verdicts=(*request.verdicts, verdict), review=review)

    async def _edited(self, request: Request, review: Review, decision: Decision) -> Request:
        """An edit is a new call: it is validated again, and counts as approved by its editor."""
        edited = await self._validated(request.tool, decision.arguments or {}, request.visit, request.ordinal)
        verdict = allow(Stage.APPROVAL, "decision", f"edited by {decision.by}")
        return replace(edited, verdicts=(*edited.verdicts, verdict), review=review)

    # -- judgements --------------------------------------------------------------------------------------------------

    async def judge(self, question: Question) -> Answer:
        """Ask the model, once and for all; below the policy's confidence a person answers in its place.

        Raises:
            Paused: a person is asked.
            Rejected: the person would not answer.
            ToolError: the model failed and no fallback is due.
        """
        with self._counted():
            return await self._judged(question)

    async def _judged(self, question: Question) -> Answer:
        visit = self.segment.visit(self.node)
        ordinal = str(self._ordinals.get((visit.visit, ask_model.name), -1) + 1)
        answer = await self._answered(question, ordinal)
        floor = self.policy.min_confidence
        if floor is None or answer.confidence >= floor or answer.model == FALLBACK:
            return answer
        run = self.segment.run
        digest = digest_of([run.workflow, run.version, run.id, visit.visit, "judgement", ordinal])
        review = self.segment.take_review(digest, digest)
        if review is None:
            verdict = Verdict(
                kind=VerdictKind.ASK,
                stage=Stage.APPROVAL,
                rule="min_confidence",
                reason=f"confidence {answer.confidence:.2f} is below {floor:.2f}",
                inputs={"confidence": answer.confidence, "min_confidence": floor},
            )
            now = await self.segment.store.now()
            asked = low_confidence_review(run, self.node, self.policy, question, answer, digest, verdict, now)
            await self._ask(asked, verdict)
        if review is None or review.decision is None:
            raise self._pause(review)
        await self._use_up(review, digest)
        if review.decision.type is DecisionType.REJECT:
            raise Rejected(review, review.decision)
        accepted = review.decision.type is DecisionType.APPROVE
        return replace(
            answer,
            value=answer.value if accepted else review.decision.response,
            confidence=1.0,
            reason=review.decision.comment or f"{'confirmed' if accepted else 'answered'} by {review.decision.by}",
            model=PERSON,
        )

    async def _answered(self, question: Question, ordinal: str) -> Answer:
        try:
            answer: Answer = await self.call(ask_model, {"question": question})
            return answer
        except NotDone as error:
            failures = self.segment.visit(self.node, self.place).failures
            last = isinstance(error, Permanent) or failures >= self.policy.retries
            if self.policy.fallback is None or not last:
                raise
            return await self._fall_back(question, ordinal, error)

    async def _fall_back(self, question: Question, ordinal: str, error: NotDone) -> Answer:
        """Put the prepared answer into the ledger in the model's place, so that it stays the answer."""
        segment, fallback = self.segment, self.policy.fallback
        answer = Answer(
            value=fallback(question.material) if callable(fallback) else fallback,
            confidence=0.0,
            reason=str(error),
            model=FALLBACK,
            input_tokens=0,
            output_tokens=0,
            seconds=0.0,
        )
        failed = segment.effects[self._key(segment.visit(self.node), ask_model, ordinal)]
        effect = replace(failed, state=EffectState.DONE, result=ask_model.dump(answer), error=None)
        async with segment.store.write(segment.lease) as tx:
            tx.put_effect(effect)
            data = {"text": "the prepared answer stands in for the model", "effect": effect.key, "error": str(error)}
            tx.note(segment.run.id, actor="gate", node=self.node, data=data)
        segment.effects[effect.key] = effect
        return answer

    # -- asking and refusing -----------------------------------------------------------------------------------------

    async def _ask(self, review: Review, verdict: Verdict) -> None:
        """Commit the review, then end the segment."""
        segment = self.segment
        async with segment.store.write(segment.lease) as tx:
            tx.put_visit(segment.visit(self.node))
            tx.journal(
                segment.run.id,
                JournalKind.VERDICT,
                actor="gate",
                node=self.node,
                data={"tool": review.evidence.get("tool"), "digest": review.digest, "stages": [verdict.as_json()]},
            )
            tx.open_review(review)
        segment.reviews[review.id] = review
        raise self._pause(review)

    def _pause(self, review: Review | None) -> Paused:
        if review is None:
            raise LookupError("a review is asked for before it is waited for")
        self.segment.asked.add(review.id)
        return Paused(review)

    async def _use_up(self, review: Review, key: str) -> None:
        if review.consumed_by is not None:
            return
        async with self.segment.store.write(self.segment.lease) as tx:
            tx.consume_review(review.id, key)
        self.segment.reviews[review.id] = replace(review, consumed_by=key)

    async def _deny(self, tool: Tool, verdict: Verdict) -> None:
        segment = self.segment
        async with segment.store.write(segment.lease) as tx:
            tx.journal(
                segment.run.id,
                JournalKind.VERDICT,
                actor="gate",
                node=self.node,
                data={"tool": tool.name, "stages": [verdict.as_json()]},
            )
        raise Denied(tool.name, verdict)


def validate(tool: Tool, raw: Mapping[str, Any]) -> tuple[dict[str, Any], BaseModel]:
    """The canonical arguments and the strictly validated model.

    Validated from JSON, so that strict mode accepts `"12.50"` for a Decimal and an ISO time for a time, and nothing
    that is merely convertible.

    Raises:
        ValueError: the arguments are not canonical JSON, or not valid (pydantic's ValidationError is one).
    """
    try:
        jsonable = to_jsonable_python(dict(raw), inf_nan_mode="constants")
    except PydanticSerializationError as error:
        raise ValueError(f"not JSON: {error}") from error
    validated = tool.arguments.model_validate_json(canonical(jsonable), strict=True, extra="forbid")
    return to_jsonable_python(validated), validated


def call_digest(workflow: str, version: str, run_id: str, node: str, tool: str, arguments: Any) -> str:
    """SHA-256 over everything an approval is bound to."""
    return digest_of(
        {
            "workflow": workflow,
            "version": version,
            "run": run_id,
            "node": node,
            "tool": tool,
            "arguments": arguments,
        }
    )


def _executed(tool: Tool, arguments: Any) -> dict[str, Any]:
    canonical_arguments, validated = validate(tool, arguments)
    return {"arguments": canonical_arguments, "validated": validated}


def brief(error: ValueError) -> str:
    """What is wrong with arguments, on one line, for the person who gave them."""
    if isinstance(error, ValidationError):
        return in_one_line(
            [f"{'.'.join(map(str, item['loc'])) or 'arguments'}: {item['msg']}" for item in error.errors()]
        )
    return str(error)
