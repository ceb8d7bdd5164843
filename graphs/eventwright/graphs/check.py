"""What is wrong with a workflow before it runs: `eventwright check`.

    assert check(support) == []

Read off the declaration alone: the graph, the policies, the type hints and the names in the nodes' code. Nothing is
run. What is found would be stopped by the gate as well, by asking a person or by a refusal: but late, and every time.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass

from eventwright.graphs.checks.declarations import class_findings, exception_findings, name_findings, people_findings
from eventwright.graphs.checks.finding import Finding
from eventwright.graphs.checks.loops import loop_findings
from eventwright.graphs.checks.proof import asks_always, tool_names, unproved
from eventwright.graphs.checks.ways import Ways
from eventwright.graphs.checks.writes import write_findings
from eventwright.graphs.workflow import Workflow
from eventwright.guardrails.policy import Policy
from eventwright.runs.errors import EventwrightError
from eventwright.tools.contract import Tool


class UnknownTool(EventwrightError, LookupError):
    """No policy names a tool of this name, so that nothing would be proved about it."""

    def __init__(self, tool: str, workflows: Sequence[Workflow]) -> None:
        self.tool, self.workflows = tool, workflows
        known = ", ".join(sorted({name for workflow in workflows for name in tool_names(workflow)})) or "none"
        where = ", ".join(workflow.name for workflow in workflows)
        super().__init__(f"no policy of {where} names a tool {tool!r}; they name: {known}")


def check(workflow: Workflow, *, approved: Collection[str] = ()) -> list[Finding]:
    """Everything that is wrong with a workflow; empty if nothing is.

    Args:
        approved: names of tools that must not be called without an approval, beside those of `must_approve`.

    Raises:
        UnknownTool: nothing could be proved about one of `approved`.
    """
    return checked(workflow, approved=approved).findings


@dataclass(frozen=True, kw_only=True)
class Write:
    """A write that a policy allows, and what bounds it: `rules`, `a person`, or `trusted data` alone."""

    node: str
    tool: str
    bounded_by: str


@dataclass(frozen=True, kw_only=True)
class Checked:
    """A workflow and what was found in it.

    Attributes:
        approved: names of the tools about which it was asked whether a call needs an approval.
    """

    workflow: Workflow
    findings: list[Finding]
    approved: tuple[str, ...]

    @property
    def writes(self) -> list[Write]:
        """Every write that the workflow's policies allow."""
        return [
            Write(node=node, tool=tool.name, bounded_by=_bounded_by(policy, tool))
            for node, policy in self.workflow.policies.items()
            for tool in policy.tools
            if tool.writes
        ]

    @property
    def summary(self) -> str:
        """What is well with a workflow in which nothing was found, on one line."""
        by_tool: dict[str, list[str]] = {}
        for write in self.writes:
            by_tool.setdefault(write.tool, []).append(f"at {write.node} by {write.bounded_by}")
        told = [f"{_count(len(self.workflow.graph.nodes), 'node')}, {_count(len(self.writes), 'write')}"]
        bounded = "; ".join(f"{tool} {', '.join(places)}" for tool, places in by_tool.items())
        told += [f"each bounded: {bounded}"] if bounded else []
        told += [f"proved: {' and '.join(self.approved)} never without an approval"] if self.approved else []
        return ". ".join(told).replace(". each", ", each", 1)


def checked(workflow: Workflow, *, approved: Collection[str] = ()) -> Checked:
    """A workflow with everything that is wrong with it. See `check`."""
    for tool in approved:
        if tool not in tool_names(workflow):
            raise UnknownTool(tool, [workflow])
    ways = Ways.of(workflow.graph)
    proofs = dict.fromkeys((*(tool.name for tool in workflow.must_approve), *approved))
    findings = [
        *write_findings(workflow, ways),
        *class_findings(workflow, ways),
        *exception_findings(workflow),
        *people_findings(workflow),
        *loop_findings(workflow, ways),
        *name_findings(workflow, ways),
        *(finding for tool in proofs for finding in unproved(workflow, ways, tool)),
    ]
    return Checked(workflow=workflow, findings=findings, approved=tuple(proofs))


def _bounded_by(policy: Policy, tool: Tool) -> str:
    if asks_always(policy, tool):
        return "a person"
    return "trusted data" if policy.unruled(tool) else "rules"


def _count(number: int, what: str) -> str:
    return f"{number} {what}{'' if number == 1 else 's'}"
