"""Findings about what a declaration says: classes of tools, people who are asked, names of nodes and arguments."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from langgraph.constants import START

from eventwright.graphs.checks.code import raw_tools
from eventwright.graphs.checks.finding import Finding, Kind
from eventwright.graphs.checks.ways import Ways
from eventwright.graphs.workflow import Workflow
from eventwright.guardrails.budgets import Budget
from eventwright.guardrails.policy import Policy, ReviewRequest
from eventwright.guardrails.text import host_name
from eventwright.runs.records import DecisionType, person
from eventwright.tools.contract import Tool
from eventwright.tools.langchain_tools import LangChainTool

# -- tools without a class ---------------------------------------------------------------------------------------------


def class_findings(workflow: Workflow, ways: Ways) -> Iterator[Finding]:
    """LangChain tools in nodes, of which no policy says what they do."""
    for node, spec in workflow.graph.nodes.items():
        wrapped = [tool.wrapped for tool in workflow.policy(node).tools if isinstance(tool, LangChainTool)]
        for place, raw, reachable in raw_tools(node, spec.runnable):
            if reachable and any(raw is known for known in wrapped):
                continue
            how = f"langchain_tool({raw.name}, reads=True), or writes='keyed', 'verifiable' or 'plain'"
            if reachable:
                advice = f"Say it, and name that in the policy of {node}: {how}"
            else:
                advice = f"The node's own code calls it past the gate. Give it as_langchain() of a tool of ours: {how}"
            told = (
                f"nobody says whether the LangChain tool {raw.name!r} in {place} reads or writes: its calls are refused"
            )
            yield Finding(Kind.NO_CLASS, node, f"{told}. {advice}", ways.through(START, node))


# -- approvals that nobody can give ------------------------------------------------------------------------------------

_YES = {DecisionType.APPROVE, DecisionType.EDIT}
_ANSWERS = {DecisionType.APPROVE, DecisionType.RESPOND}


def people_findings(workflow: Workflow) -> Iterator[Finding]:
    """Questions to people that no answer can settle."""
    for node, policy in workflow.policies.items():
        asked = [(rule, tool) for tool in policy.tools if (rule := policy.rule_for(tool)) is not None]
        people = max([policy.approval.people, *(rule.people for rule, _ in asked)])
        problems = [*_problems(policy.approval, people, _YES), *_silence(policy.approval, people)]
        if people > 1 and policy.approval.allowed and DecisionType.APPROVE not in policy.approval.allowed:
            problems.append("of several people each must be able to approve, and allowed= does not offer it")
        otherwise = _problems(policy.otherwise, 1, _ANSWERS) if policy.min_confidence is not None else []
        yield from (_nobody(node, f"approval: {problem}") for problem in dict.fromkeys(problems))
        yield from (_nobody(node, f"otherwise: {problem}") for problem in otherwise)


def _nobody(node: str, problem: str) -> Finding:
    return Finding(Kind.NOBODY_CAN_APPROVE, node, problem)


def _problems(asked: ReviewRequest, people: int, yes: set[DecisionType]) -> list[str]:
    problems = []
    named = {person(name) for name in asked.approvers} - {""}
    if asked.approvers and len(named) < people:
        who = ", ".join(sorted(named)) or "nobody"
        problems.append(f"{people} different people must agree, and approvers= names {len(named)}: {who}. Name more")
    if asked.allowed and not yes & set(asked.allowed):
        offered, wanted = ", ".join(asked.allowed), " or ".join(sorted(yes))
        problems.append(f"allowed= offers {offered}, and none of them lets the run go on. Add {wanted}")
    return problems


def _silence(asked: ReviewRequest, people: int) -> list[str]:
    if people > 1 and asked.deadline is not None and asked.default == "approve":
        return [f"{people} people must agree, and a deadline that approves is none of them. Take default='reject'"]
    return []


# -- names of nothing --------------------------------------------------------------------------------------------------


def name_findings(workflow: Workflow, ways: Ways) -> Iterator[Finding]:
    """Rules and budgets that speak of nodes, tools or arguments that are not there."""
    for node, policy in workflow.policies.items():
        for problem in (*_sources(workflow, ways, node, policy), *_vouching(policy), *_links(policy)):
            yield Finding(Kind.NAMES_NOTHING, node, problem)
        yield from (Finding(Kind.NAMES_NOTHING, node, problem) for problem in _counting(policy.budgets, policy.tools))
    tools = [tool for policy in workflow.policies.values() for tool in policy.tools]
    yield from (Finding(Kind.NAMES_NOTHING, None, problem) for problem in _counting(workflow.budgets, tools))


def _sources(workflow: Workflow, ways: Ways, node: str, policy: Policy) -> Iterator[str]:
    for tool, rules in policy.rules.items():
        for argument, rule in rules.items():
            for source, at in rule.sources:
                problem = _missing(workflow, ways, node, source, at)
                if problem:
                    yield f"the rule for {argument} of {tool.name} ({rule.name}) can never be kept: {problem}"


def _missing(workflow: Workflow, ways: Ways, node: str, source: str, at: str) -> str | None:
    """Why nothing of this tool (of a person, if empty) can have come from that node before this one runs."""
    if at not in workflow.graph.nodes:
        return f"no node is called {at!r}; there are: {', '.join(workflow.graph.nodes)}"
    if source and all(tool.name != source for tool in workflow.policy(at).tools):
        return f"the policy of {at} does not name {source}"
    if at != node and at not in ways.before(node):
        return f"{at} never runs before {node}"
    return None


def _vouching(policy: Policy) -> Iterator[str]:
    for tool in policy.tools:
        rule = policy.rule_for(tool)
        strange = [] if rule is None else [name for name in rule.vouches_for if name not in tool.arguments.model_fields]
        if rule is not None and strange:
            known = ", ".join(tool.arguments.model_fields) or "none"
            yield (
                f"the approval rule {rule.name!r} vouches for {', '.join(strange)} of {tool.name}, which has: {known}. "
                "Give each tool a rule of its own: approve_when={tool: rule}"
            )


def _links(policy: Policy) -> Iterator[str]:
    for host in policy.links:
        if host_name(host) is None:
            yield f"links= takes hosts like 'example.org', and {host!r} is none: it allows no link"


def _counting(budgets: Sequence[Budget], tools: Sequence[Tool]) -> Iterator[str]:
    for budget in budgets:
        of = budget.of
        if of is not None and not of.advises and all(of is not tool for tool in tools):
            yield f"the budget of {budget.limit:f} {budget.what} of {of.name} counts nothing: no policy here names it"
