"""The stages of the gate that look and do not write: each a small function from a call to a verdict.

A stage that has nothing against the call allows it, one that fails denies it, and one that wants a person asks. The
first denial ends the call; what is asked by several stages is asked at once.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from pydantic import BaseModel

from eventwright.guardrails.policy import Policy
from eventwright.guardrails.request import Request
from eventwright.guardrails.rules import Facts
from eventwright.guardrails.text import foreign_links
from eventwright.guardrails.verdicts import Stage, Verdict, VerdictKind, allow
from eventwright.tools.contract import Role, Tool

#: Every stage; a gate that lacks one exists in tests only, to show that each of them holds something back.
ALL_STAGES = frozenset(Stage)


def capability(policy: Policy, node: str, tool: Tool) -> Verdict:
    """Stage 1: the policy names this very tool. A model may be asked by every node: it only advises."""
    if policy.allows(tool) or tool.advises:
        return allow(Stage.CAPABILITY, "tools")
    reason = f"the policy of node {node!r} does not name this tool; add it to Policy(tools=[...])"
    return Verdict(kind=VerdictKind.DENY, stage=Stage.CAPABILITY, rule="tools", reason=reason)


def unfit_argument(policy: Policy, tool: Tool, validated: BaseModel, facts: Facts) -> str | None:
    """The first argument that its rule does not allow, with the rule, in words; None if there is none. A rule that
    fails allows nothing."""
    for name, rule in policy.rules.get(tool, {}).items():
        try:
            allowed = rule.allows(getattr(validated, name), facts)
        except Exception:  # noqa: BLE001 - the author's rule may raise anything, and anything means no
            allowed = False
        if allowed is not True:
            return f"{name} is not {rule.name}"
    return None


def arguments(request: Request) -> Verdict:
    """Stage 3: every value is one that its rule allows. A rule that fails denies."""
    rules = request.policy.rules.get(request.tool, {})
    for name, rule in rules.items():
        value = getattr(request.validated, name)
        inputs = {name: request.arguments[name]}
        try:
            allowed = rule.allows(value, request.facts)
            reason = f"{name} is not {rule.name}"
        except Exception as error:  # noqa: BLE001 - the author's rule may raise anything, and anything means no
            allowed, reason = False, f"the rule for {name} failed: {type(error).__name__}: {error}"
        if allowed is not True:
            return Verdict(
                kind=VerdictKind.DENY,
                stage=Stage.ARGUMENTS,
                rule=rule.name,
                version=rule.version,
                reason=reason,
                inputs=inputs,
            )
    return allow(Stage.ARGUMENTS, "; ".join(f"{name}: {rule.name}" for name, rule in rules.items()) or "none")


def labels(request: Request) -> Verdict:
    """Stage 4: what untrusted data chose is bounded by a rule, and what leaves links to hosts that are allowed.

    A read counts as well, as far as its arguments are marked: the address of a page tells its server what is in it.
    """
    if not request.tool.roles or not request.tainted_by:
        return allow(Stage.LABELS, "trusted" if not request.tainted_by else "reads")
    free = [name for name in request.policy.unruled(request.tool) if request.arguments[name] is not None]
    abroad = [
        f"{name} links to {', '.join(foreign)}"
        for name, role in request.tool.roles.items()
        if role is Role.CONTENT and (foreign := foreign_links(_words(request.arguments[name]), request.policy.links))
    ]
    if not free and not abroad:
        return allow(Stage.LABELS, "bounded", f"untrusted: {', '.join(request.tainted_by)}")
    chosen = [f"untrusted data may have chosen {', '.join(free)}"] if free else []
    return Verdict(
        kind=VerdictKind.ASK,
        stage=Stage.LABELS,
        rule="untrusted",
        reason="; ".join((*chosen, *abroad)),
        inputs={"untrusted": list(request.tainted_by), "arguments": {name: request.arguments[name] for name in free}},
    )


def _words(value: Any) -> str:
    """Every text in a value, for a look at its links."""
    if isinstance(value, str):
        return value
    parts = (*value, *value.values()) if isinstance(value, Mapping) else value if isinstance(value, list) else ()
    return "\n".join(_words(part) for part in parts)


def approval(request: Request) -> Verdict:
    """Stage 6: whether the approval rule wants people. A rule that fails denies."""
    rule = request.policy.rule_for(request.tool)
    if rule is None:
        return allow(Stage.APPROVAL, "none", "no rule asks for a person")
    people, role = 1, None
    try:
        ask = rule.asks(request.validated, request.facts)
    except Exception as error:  # noqa: BLE001 - the author's rule may raise anything, and anything means no
        kind, reason = VerdictKind.DENY, f"the rule failed: {type(error).__name__}: {error}"
    else:
        kind = VerdictKind.ALLOW if ask is None else VerdictKind.ASK
        reason, people, role = ("", 1, None) if ask is None else (ask.reason, ask.people, ask.role)
    return Verdict(
        kind=kind,
        stage=Stage.APPROVAL,
        rule=rule.name,
        version=rule.version,
        reason=reason,
        inputs=request.arguments,
        people=people,
        role=role,
    )


def look(stage: Stage, request: Request) -> Verdict:
    """What a stage says. One that fails denies."""
    try:
        return LOOKING[stage](request)
    except Exception as error:  # noqa: BLE001 - whatever goes wrong, it is no permission
        reason = f"the stage failed: {type(error).__name__}: {error}"
        return Verdict(kind=VerdictKind.DENY, stage=stage, rule="failed", reason=reason)


#: The stages that a validated call passes before the ledger, in their order.
LOOKING: Mapping[Stage, Callable[[Request], Verdict]] = {
    Stage.ARGUMENTS: arguments,
    Stage.LABELS: labels,
    Stage.APPROVAL: approval,
}
