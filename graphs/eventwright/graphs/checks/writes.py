"""Findings about writes: what untrusted data may choose, and the Rule of Two."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from langgraph.constants import START

from eventwright.graphs.checks.finding import Finding, Kind
from eventwright.graphs.checks.flow import Flow, Origin
from eventwright.graphs.checks.proof import asks_always
from eventwright.graphs.checks.ways import Exit, Path, Ways
from eventwright.graphs.workflow import Workflow
from eventwright.guardrails.policy import Policy
from eventwright.tools.contract import Role, Tool


def events_of(workflow: Workflow) -> list[str]:
    """What untrusted events bring; nothing if all of them are our own."""
    return [f"the event {trigger.type}" for trigger in workflow.triggers if not trigger.trusted]


def write_findings(workflow: Workflow, ways: Ways) -> Iterator[Finding]:
    """Writes that untrusted data may steer, and nodes where the three of the Rule of Two meet."""
    trusted = workflow.trusted_tools()
    untrusted = Flow(workflow, ways, lambda tool: not (tool.name in trusted or tool.advises), events_of(workflow))
    sensitive = Flow(workflow, ways, lambda tool: tool.sensitive)
    for node, policy in workflow.policies.items():
        for tool in policy.tools:
            if asks_always(policy, tool):
                continue
            if tool.writes and (free := policy.unruled(tool)):
                yield from _steered(ways, untrusted, node, tool, free)
            if open_to := _uncontained(policy, tool):
                yield from _two(ways, untrusted, sensitive, node, tool, open_to)


# -- what untrusted data may choose ------------------------------------------------------------------------------------


def _steered(ways: Ways, untrusted: Flow, node: str, tool: Tool, free: Sequence[str]) -> Iterator[Finding]:
    origins, decision = untrusted.of(node, beside=tool), _decision(ways, untrusted, node)
    if not origins and decision is None:
        return
    if origins:
        path = path_of(ways, origins[0], node)
        why = f"{told(origins)} may choose {_and(free)} of {tool.name}"
    else:
        path = path_by(ways, decision, node) if decision else ()
        why = f"untrusted data decides whether {tool.name} is called, and nothing bounds {_and(free)}"
    if decision is not None:
        why += f". {_branch(decision, untrusted.decided_on(decision))}"
    rules = ", ".join(f"{name!r}: …" for name in free)
    yield Finding(
        Kind.UNBOUNDED_WRITE,
        node,
        why,
        f"bound it with Policy(rules={{{tool.name}: {{{rules}}}}}) or an approval rule that vouches for it, or "
        "have every call approved: approve_when=always",
        path,
    )


def _decision(ways: Ways, untrusted: Flow, node: str) -> Exit | None:
    """A decision made on untrusted data on which it depends that the run comes to the node."""
    return next((way for way in ways.decisions if untrusted.decided_on(way) and ways.decides(way, node)), None)


def _branch(way: Exit, origins: Sequence[Origin]) -> str:
    who = way.by if way.source == START else f"{way.by} of {way.source}"
    return f"That a run comes here is decided by {who}, on {told(origins)}"


# -- the Rule of Two ---------------------------------------------------------------------------------------------------


def _uncontained(policy: Policy, tool: Tool) -> list[str]:
    """The arguments by which a call may reach somebody whom nobody knows beforehand."""
    rules = policy.rules.get(tool, {})
    return [
        name
        for name, role in tool.roles.items()
        if role is Role.DESTINATION and not (name in rules and rules[name].contains)
    ]


def _two(
    ways: Ways, untrusted: Flow, sensitive: Flow, node: str, tool: Tool, open_to: Sequence[str]
) -> Iterator[Finding]:
    origins, secrets = untrusted.of(node, beside=tool), sensitive.of(node, beside=tool)
    if not origins or not secrets:
        return
    approved = ", or have every call approved: approve_when=always" if tool.writes else ""
    yield Finding(
        Kind.RULE_OF_TWO,
        node,
        f"{told(origins)} is untrusted, {told(secrets)} is sensitive, and {tool.name} may carry it to anybody, by "
        f"{_and(open_to)}",
        f"two of the three may meet: give {_and(open_to)} a rule that contains it (equals, one_of, from_record, "
        f"from_person){approved}",
        path_of(ways, secrets[0], node),
    )


# -- telling -----------------------------------------------------------------------------------------------------------


def path_of(ways: Ways, origin: Origin, node: str) -> Path:
    """From START to where the data comes from, and from there to the node; where it comes from beside the node, the
    way to the node alone."""
    if origin.node in (START, node) or node not in ways.after(origin.node):
        return ways.through(START, node)
    return ways.through(START, origin.node, node)


def path_by(ways: Ways, way: Exit, node: str) -> Path:
    """From START over the decision to the node."""
    return ways.through(START, node) if way.source == START else ways.through(START, way.source, node)


def told(origins: Sequence[Origin], most: int = 3) -> str:
    """Where data comes from, in words."""
    words = [str(origin) for origin in origins]
    more = [f"{len(words) - most} more"] if len(words) > most else []
    return _and([*words[:most], *more])


def _and(words: Sequence[str]) -> str:
    return " and ".join(filter(None, (", ".join(words[:-1]), words[-1])))
