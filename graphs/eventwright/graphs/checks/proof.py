"""The proof that a tool is called with an approval of that very call, or not at all.

It rests on nothing but the policies: the gate lets a node call what its policy names, and a rule that always asks lets
no call pass that no person has approved. Where a node stands in the graph is of no account, because a Command may lead
anywhere. So the proof holds for whatever the nodes' code does, as long as it goes through the gate.
"""

from __future__ import annotations

from collections.abc import Iterator

from langgraph.constants import START

from eventwright.graphs.checks.finding import Finding, Kind
from eventwright.graphs.checks.ways import Ways
from eventwright.graphs.described import length
from eventwright.graphs.workflow import Workflow
from eventwright.guardrails.policy import DeadLetter, Policy
from eventwright.tools.contract import Tool


def asks_always(policy: Policy, tool: Tool) -> bool:
    """Whether every call of the tool at this node needs a person who said yes to it."""
    return unasked(policy, tool) is None


def unasked(policy: Policy, tool: Tool) -> tuple[str, str] | None:
    """When a call of the tool is made without a person's yes, and what to do about it; None if never."""
    rule, how = policy.rule_for(tool), policy.approval
    advice = "have every call approved: approve_when=always"
    if not tool.writes:
        return "always: it reads, and nobody is asked about a read", "take it out of the policy"
    if rule is None:
        return "whenever no other stage asks: the policy has no approval rule for it", advice
    if not rule.always:
        return f"whenever the rule {rule.name!r} (version {rule.version}) does not ask", advice
    if how.deadline is not None and how.default == "approve":
        return f"when nobody answers within {length(how.deadline)}: the deadline approves", "let it reject"
    return None


def unproved(workflow: Workflow, ways: Ways, tool: str) -> Iterator[Finding]:
    """Where the tool of this name may be called without an approval; nothing if that cannot be."""
    for node, policy in workflow.policies.items():
        for named in policy.tools:
            found = unasked(policy, named) if named.name == tool else None
            if found is not None:
                when, advice = found
                unled = "; no edge leads there, but a Command may" if node in ways.strangers else ""
                message = f"{tool} is called without approval {when}{unled}"
                yield Finding(Kind.NOT_PROVED, node, message, advice, ways.through(START, node))
    yield from _by_undoing(workflow, ways, tool)


def _by_undoing(workflow: Workflow, ways: Ways, tool: str) -> Iterator[Finding]:
    """The tool may be what takes another call back, and nobody is asked about that when a run fails for good."""
    undoes = {
        other.name
        for policy in workflow.policies.values()
        for other in policy.tools
        if other.undo is not None and other.undo.tool.name == tool
    }
    for node, policy in workflow.policies.items():
        if undoes and policy.dead_letter is DeadLetter.UNDO:
            message = (
                f"{tool} takes back {' and '.join(sorted(undoes))}, and when a run fails for good here, what it has "
                "done is taken back without asking"
            )
            advice = "let an operator decide: dead_letter=DeadLetter.OPERATOR"
            yield Finding(Kind.NOT_PROVED, node, message, advice, ways.through(START, node))


def tool_names(workflow: Workflow) -> list[str]:
    """The names of all tools that the workflow's policies name, and of those that take their calls back."""
    tools: list[Tool] = [tool for policy in workflow.policies.values() for tool in policy.tools]
    undos = [tool.undo.tool for tool in tools if tool.undo is not None]
    return sorted({tool.name for tool in (*tools, *undos)})
