"""LangChain's `HumanInTheLoopMiddleware`: what it asks, what a decision answers to it, and which calls that approves.

It asks about the calls of one message at once (`action_requests`), or about each by itself (`tool_approval`). Answers
go by position: two calls may bear one name.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from eventwright.guardrails.request import validate
from eventwright.runs.records import Decision, DecisionType, Review
from eventwright.tools.contract import Tool

ANSWERS = (DecisionType.APPROVE, DecisionType.EDIT, DecisionType.REJECT, DecisionType.RESPOND)


@dataclass(frozen=True)
class Action:
    """One call that the middleware asks about."""

    name: str
    arguments: dict[str, Any]
    description: str
    allowed: tuple[DecisionType, ...]


@dataclass(frozen=True)
class Asked:
    """What the middleware asks.

    Attributes:
        at_once: whether it asks about all calls of a message and wants an answer for each.
    """

    actions: tuple[Action, ...]
    at_once: bool

    @classmethod
    def read(cls, value: Any, schema: Mapping[str, Any] | None = None) -> Asked | None:
        """What an interrupt's value asks; None if it is not the middleware's.

        Args:
            schema: of the answer, from which one can tell what a `tool_approval` allows.
        """
        if not isinstance(value, dict):
            return None
        if value.get("type") == "tool_approval":
            return cls((_action(value, _types(schema)),), at_once=False)
        requests = value.get("action_requests")
        if not isinstance(requests, list) or not requests:
            return None
        configs = value.get("review_configs") or []
        allowed = [
            configs[number].get("allowed_decisions") if number < len(configs) else None
            for number in range(len(requests))
        ]
        return cls(
            tuple(_action(request, types) for request, types in zip(requests, allowed, strict=True)), at_once=True
        )

    @property
    def arguments(self) -> Any:
        """What a person sees and may edit: the arguments of the one call, or of all in their order."""
        if len(self.actions) == 1:
            return self.actions[0].arguments
        return {"actions": [{"name": action.name, "args": action.arguments} for action in self.actions]}

    @property
    def allowed(self) -> tuple[DecisionType, ...]:
        """The answers that every call allows; several calls may always be answered one by one."""
        common = [answer for answer in ANSWERS if all(answer in action.allowed for action in self.actions)]
        if len(self.actions) > 1:
            return (*(answer for answer in common if answer is not DecisionType.RESPOND), DecisionType.RESPOND)
        return tuple(common)

    @property
    def response_schema(self) -> dict[str, Any] | None:
        """The form of a response: the words that stand for the tool's, or a decision for each of several calls."""
        if len(self.actions) == 1:
            return {"type": "string", "minLength": 1} if DecisionType.RESPOND in self.allowed else None
        decisions = [{"oneOf": [_form(action, answer) for answer in action.allowed]} for action in self.actions]
        return {
            "type": "object",
            "properties": {
                "decisions": {
                    "type": "array",
                    "prefixItems": decisions,
                    "minItems": len(decisions),
                    "maxItems": len(decisions),
                }
            },
            "required": ["decisions"],
            "additionalProperties": False,
        }

    def misfit(self, arguments: Any) -> str | None:
        """Why an edit of several calls is none of exactly these, if it is not."""
        if len(self.actions) == 1:
            return None
        edited = arguments.get("actions") if isinstance(arguments, dict) else None
        wanted = [action.name for action in self.actions]
        fits = isinstance(edited, list) and all(
            isinstance(one, dict) and one.keys() == {"name", "args"} and isinstance(one["args"], dict) for one in edited
        )
        if not fits or [one["name"] for one in edited or ()] != wanted:
            form = '{"actions": [{"name": ..., "args": {...}}, ...]}'
            return f"`arguments` is {form} with these calls in this order: {', '.join(wanted)}"
        return None

    def answer(self, decision: Decision) -> Any:
        """What the middleware's interrupt returns for a decision."""
        decisions = self.decisions(decision)
        return {"decisions": decisions} if self.at_once else decisions[0]

    def decisions(self, decision: Decision) -> list[dict[str, Any]]:
        """One decision for each call, as LangChain writes them."""
        if decision.type is DecisionType.RESPOND and len(self.actions) > 1:
            return list(decision.response["decisions"])
        edited = self._edited(decision.arguments)
        return [_decision(action, arguments, decision) for action, arguments in zip(self.actions, edited, strict=True)]

    def _edited(self, arguments: Any) -> Sequence[dict[str, Any]]:
        if arguments is None:
            return [action.arguments for action in self.actions]
        return [arguments] if len(self.actions) == 1 else [one["args"] for one in arguments["actions"]]

    def approved(self, decision: Decision) -> list[tuple[str, dict[str, Any]]]:
        """The calls, by name and arguments, that the decision lets happen."""
        found = []
        for action, said in zip(self.actions, self.decisions(decision), strict=True):
            if said["type"] == "approve":
                found.append((action.name, action.arguments))
            elif said["type"] == "edit":
                found.append((said["edited_action"]["name"], said["edited_action"]["args"]))
        return found


def approvals(reviews: Sequence[Review], tool: Tool, arguments: Mapping[str, Any]) -> int:
    """How often people have approved exactly this call of the tool where the middleware asked."""
    return sum(
        _same(tool, name, given, arguments)
        for review in reviews
        if review.decision is not None and (asked := Asked.read(review.evidence.get("asked"))) is not None
        for name, given in asked.approved(review.decision)
    )


def _same(tool: Tool, name: str, given: Any, arguments: Mapping[str, Any]) -> bool:
    if name != tool.name and name not in tool.also_called:
        return False
    try:
        return validate(tool, given).values == arguments
    except ValueError:
        return False


def _action(request: Mapping[str, Any], types: Sequence[str] | None) -> Action:
    given = request.get("arguments", request.get("args"))
    allowed = tuple(answer for answer in ANSWERS if types is None or str(answer) in types)
    description = str(request.get("description") or request.get("name"))
    return Action(str(request.get("name")), given if isinstance(given, dict) else {}, description, allowed)


def _types(schema: Mapping[str, Any] | None) -> list[str] | None:
    """The types of decisions that a `tool_approval` takes, by the schema of its answer."""
    if not schema:
        return None
    mapping = (schema.get("discriminator") or {}).get("mapping")
    if mapping:
        return list(mapping)
    only = ((schema.get("properties") or {}).get("type") or {}).get("const")
    return None if only is None else [only]


def _decision(action: Action, arguments: dict[str, Any], decision: Decision) -> dict[str, Any]:
    match decision.type:
        case DecisionType.EDIT if arguments == action.arguments and DecisionType.APPROVE in action.allowed:
            return {"type": "approve"}
        case DecisionType.EDIT:
            return {"type": "edit", "edited_action": {"name": action.name, "args": arguments}}
        case DecisionType.REJECT:
            return {"type": "reject", "message": decision.comment or f"rejected by {decision.by}"}
        case DecisionType.RESPOND:
            return {"type": "respond", "message": str(decision.response)}
        case DecisionType.APPROVE:
            return {"type": "approve"}


def _form(action: Action, answer: DecisionType) -> dict[str, Any]:
    """The form of one answer to one call."""
    properties: dict[str, Any] = {"type": {"const": str(answer)}}
    required = ["type"]
    if answer is DecisionType.EDIT:
        call = {"name": {"const": action.name}, "args": {"type": "object"}}
        properties["edited_action"] = {
            "type": "object",
            "properties": call,
            "required": list(call),
            "additionalProperties": False,
        }
        required.append("edited_action")
    if answer in (DecisionType.REJECT, DecisionType.RESPOND):
        properties["message"] = {"type": "string"}
    if answer is DecisionType.RESPOND:
        required.append("message")
    return {"type": "object", "properties": properties, "required": required, "additionalProperties": False}
