"""How people are asked: the reviews that the gate opens."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from datetime import datetime
from typing import Any

from eventwright.guardrails.policy import Policy, ReviewRequest
from eventwright.guardrails.request import Request
from eventwright.guardrails.roles import roles_for
from eventwright.guardrails.verdicts import Stage, Verdict
from eventwright.runs.event import new_id
from eventwright.runs.records import DecisionType, Review, ReviewKind, ReviewState, Run
from eventwright.tools.models import Answer, Question

_EXACT = (DecisionType.APPROVE, DecisionType.REJECT)


def approval_reviews(
    run: Run, request: Request, asks: Sequence[Verdict], now: datetime, *, barred: Sequence[str], exact: bool = False
) -> list[Review]:
    """The questions whether this exact call may be made: one for each person who must agree. What asks is frozen into
    them.

    Args:
        asks: the verdicts that ask; the first names the rule.
        barred: who may not be among several people, nor be the one in a role, nor the one who must be another.
        exact: whether the call can only be taken or left.
    """
    how = request.policy.approval
    roles = roles_for(request.policy, asks)
    if roles or any(verdict.stage is not Stage.APPROVAL for verdict in asks):
        # A deadline is nobody: it says yes to what the author's own rule asks of anybody at most.
        how = replace(how, default="reject")
    people = max(how.people, *(verdict.people for verdict in asks))
    reason = "; ".join(verdict.reason for verdict in asks)
    offered = how.allowed or (*_EXACT, DecisionType.EDIT)
    return [
        Review(
            **_asked(run, request.node, how, asks[0], now, roles),
            kind=ReviewKind.APPROVAL,
            question=how.question or f"{request.tool.description} Approve? ({reason})",
            allowed=tuple(answer for answer in DecisionType if answer in (_EXACT if exact else offered)),
            digest=request.digest,
            arguments=request.arguments,
            evidence={
                "tool": request.tool.name,
                "reason": reason,
                "event": run.event.data,
                "asks": [verdict.as_json() for verdict in asks],
            },
            response_schema=request.tool.arguments.model_json_schema(),
            people=people,
            approvers=how.approvers,
            barred=tuple(barred) if people > 1 or roles or how.by_another else (),
        )
        for _ in range(people)
    ]


def asked_again(review: Review) -> Review:
    """The same question to somebody else, until the same deadline."""
    return replace(review, id=new_id("rev"), state=ReviewState.OPEN, decision=None, consumed_by=None)


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
        **_asked(run, node, policy.otherwise, verdict, now, policy.otherwise.roles),
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
        approvers=policy.otherwise.approvers,
    )


def said_no(review: Review) -> bool:
    return review.decision is not None and review.decision.type is DecisionType.REJECT


def _asked(
    run: Run, node: str, request: ReviewRequest, verdict: Verdict, now: datetime, roles: Sequence[str]
) -> dict[str, Any]:
    deadline = None if request.deadline is None else now + request.deadline
    return {
        "id": new_id("rev"),
        "run_id": run.id,
        "workflow": run.workflow,
        "node": node,
        "deadline": deadline,
        "default": None if deadline is None else {"type": request.default},
        "rule": verdict.as_json() | ({"roles": list(roles)} if roles else {}),
    }
