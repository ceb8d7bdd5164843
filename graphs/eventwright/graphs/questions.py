"""An author's `interrupt(...)` as a review, and a decision as the value that the interrupt returns.

Three shapes are understood: any value with LangGraph's `response_schema`, LangChain's `HumanInTheLoopMiddleware`
(`action_requests`, `tool_approval`), and Agent Inbox (`action_request` with `config`). Everything else is a plain
question.
"""

from __future__ import annotations

from typing import Any

from langgraph.types import Interrupt
from pydantic_core import to_jsonable_python

from eventwright.guardrails.middleware import ANSWERS, Asked
from eventwright.runs.errors import storable
from eventwright.runs.event import digest_of, new_id
from eventwright.runs.records import Decision, DecisionType, Review, ReviewKind, Run
from eventwright.runs.roles import role_names

#: What begins the mark that stands in a review for the id of an interrupt that is asked anew: its run was moved to
#: another graph, in the middle of the superstep whose number ends the mark.
MOVED = "moved:"

#: Agent Inbox's words for the four answers, in its configuration and in its replies.
_INBOX = {
    DecisionType.APPROVE: ("allow_accept", "accept"),
    DecisionType.EDIT: ("allow_edit", "edit"),
    DecisionType.REJECT: ("allow_ignore", "ignore"),
    DecisionType.RESPOND: ("allow_respond", "response"),
}


def review_of(interrupt: Interrupt[Any], run: Run, node: str) -> Review:
    """The review that an author's interrupt asks for."""
    value = to_jsonable_python(interrupt.value, fallback=str)
    schema = interrupt.response_schema if isinstance(interrupt.response_schema, dict) else None
    fields = value if isinstance(value, dict) else {}
    inbox = _inbox_request(value)
    asked = Asked.read(value, schema)
    evidence: dict[str, Any] = {}
    if asked is not None:
        about: dict[str, Any] = {
            "question": "; ".join(action.description for action in asked.actions),
            "arguments": asked.arguments,
            "allowed": asked.allowed,
        }
        schema = asked.response_schema
        # By this name the desk finds the tool that checks edited arguments.
        evidence = {"tool": asked.actions[0].name} if len(asked.actions) == 1 else {}
    elif inbox is not None:
        request = inbox["action_request"]
        about = {
            "question": str(inbox.get("description") or request.get("action")),
            "arguments": request.get("args"),
            "allowed": tuple(answer for answer in ANSWERS if inbox.get("config", {}).get(_INBOX[answer][0])),
        }
    else:
        about = {
            "question": str(fields.get("question", value if isinstance(value, str) else "The workflow asks")),
            "arguments": fields.get("arguments"),
            "allowed": _plain_answers(fields, schema),
        }
    # Nobody's text is a reason for the database to refuse the question.
    about["question"] = storable(about["question"])
    kind = ReviewKind.MISSING_DATA if fields.get("kind") == "missing_data" else ReviewKind.QUESTION
    return Review(
        id=new_id("rev"),
        run_id=run.id,
        workflow=run.workflow,
        node=node,
        kind=kind,
        digest=digest_of([run.workflow, run.version, run.id, node, value]),
        # What the author shows may come from anybody; by the other names we find what was asked.
        evidence=dict(fields.get("evidence") or {}) | {"asked": value, "event": run.event.data} | evidence,
        response_schema=schema,
        rule={"roles": list(role_names(fields["roles"]))} if fields.get("roles") else None,
        interrupt_id=interrupt.id,
        **about,
    )


def resume_value(review: Review, decision: Decision) -> Any:
    """What the author's `interrupt(...)` returns for this decision."""
    asked = Asked.read(review.evidence.get("asked"))
    if asked is not None:
        return asked.answer(decision)
    inbox = _inbox_request(review.evidence.get("asked"))
    if inbox is not None:
        request = inbox["action_request"]
        match decision.type:
            case DecisionType.EDIT:
                answer: Any = {"action": request.get("action"), "args": decision.arguments}
            case DecisionType.RESPOND:
                answer = decision.response
            case _:
                answer = None
        return [{"type": _INBOX[decision.type][1], "args": answer}]
    match decision.type:
        case DecisionType.RESPOND:
            return decision.response
        case DecisionType.EDIT:
            return decision.arguments
        case DecisionType.APPROVE:
            return True
        case DecisionType.REJECT:
            return False


def _plain_answers(fields: dict[str, Any], schema: dict[str, Any] | None) -> tuple[DecisionType, ...]:
    if fields.get("allowed"):
        return tuple(DecisionType(answer) for answer in fields["allowed"])
    if schema is not None:
        return (DecisionType.RESPOND,)
    return (DecisionType.APPROVE, DecisionType.REJECT, DecisionType.RESPOND)


def _inbox_request(value: Any) -> dict[str, Any] | None:
    if isinstance(value, list) and len(value) == 1:
        value = value[0]
    return value if isinstance(value, dict) and isinstance(value.get("action_request"), dict) else None
