"""Stage 6: whether a person must approve, and how that person is asked."""

from __future__ import annotations

from datetime import datetime
from typing import TYPE_CHECKING, Any

from pydantic import BaseModel

from eventwright.guardrails.policy import Policy, ReviewRequest
from eventwright.guardrails.verdicts import Stage, Verdict, VerdictKind, allow
from eventwright.runs.event import new_id
from eventwright.runs.records import DecisionType, Review, ReviewKind, Run
from eventwright.tools.contract import Tool
from eventwright.tools.models import Answer, Question

if TYPE_CHECKING:
    from eventwright.guardrails.gate import Request


def wants_approval(policy: Policy, tool: Tool, arguments: BaseModel) -> Verdict:
    """What the approval rule says about these arguments. A rule that fails denies."""
    rule = policy.rule_for(tool)
    if rule is None:
        return allow(Stage.APPROVAL, "none", "no rule asks for a person")
    inputs = arguments.model_dump(mode="json")
    try:
        reason = rule.asks(arguments)
    except Exception as error:  # noqa: BLE001 - the author's rule may raise anything, and anything means no
        reason = f"the rule failed: {type(error).__name__}: {error}"
        kind = VerdictKind.DENY
    else:
        kind = VerdictKind.ALLOW if reason is None else VerdictKind.ASK
    return Verdict(
        kind=kind, stage=Stage.APPROVAL, rule=rule.name, version=rule.version, reason=reason or "", inputs=inputs
    )


def approval_review(run: Run, node: str, policy: Policy, request: Request, verdict: Verdict, now: datetime) -> Review:
    """The question whether this exact call may be made. The verdict is frozen into it."""
    return Review(
        **_asked(run, node, policy.approval, verdict, now),
        kind=ReviewKind.APPROVAL,
        question=policy.approval.question or f"{request.tool.description} Approve? ({verdict.reason})",
        allowed=policy.approval.allowed or (DecisionType.APPROVE, DecisionType.EDIT, DecisionType.REJECT),
        digest=request.digest,
        arguments=request.arguments,
        evidence={"tool": request.tool.name, "reason": verdict.reason, "event": run.event.data},
        response_schema=request.tool.arguments.model_json_schema(),
    )


def low_confidence_review(
    run: Run,
    node: str,
    policy: Policy,
    question: Question,
    answer: Answer,
    digest: str,
    verdict: Verdict,
    now: datetime,
) -> Review:
    """The question that the model could not answer well enough, with its guess."""
    return Review(
        **_asked(run, node, policy.otherwise, verdict, now),
        kind=ReviewKind.LOW_CONFIDENCE,
        question=policy.otherwise.question or f"{question.instructions} ({verdict.reason})",
        allowed=policy.otherwise.allowed or (DecisionType.APPROVE, DecisionType.RESPOND, DecisionType.REJECT),
        digest=digest,
        arguments={"value": answer.value},
        evidence={
            "material": question.material,
            "confidence": answer.confidence,
            "reason": answer.reason,
            "model": answer.model,
        },
        response_schema=question.schema,
    )


def _asked(run: Run, node: str, request: ReviewRequest, verdict: Verdict, now: datetime) -> dict[str, Any]:
    deadline = None if request.deadline is None else now + request.deadline
    return {
        "id": new_id("rev"),
        "run_id": run.id,
        "workflow": run.workflow,
        "node": node,
        "deadline": deadline,
        "default": None if deadline is None else {"type": request.default},
        "rule": verdict.as_json(),
    }
