"""Findings about what a declaration says: classes of tools, people who are asked, names of nodes and arguments."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import chain

from langgraph.constants import START

from eventwright.graphs.checks.code import raw_tools
from eventwright.graphs.checks.finding import Finding, Kind
from eventwright.graphs.checks.ways import Ways
from eventwright.graphs.exceptions import QUESTIONS
from eventwright.graphs.workflow import Workflow
from eventwright.guardrails.budgets import Budget
from eventwright.guardrails.policy import Policy, ReviewRequest
from eventwright.runs.records import DecisionType, person
from eventwright.tools.contract import Tool
from eventwright.tools.langchain_tools import LangChainTool

# -- exceptions of which nothing is said -------------------------------------------------------------------------------


def exception_findings(workflow: Workflow) -> Iterator[Finding]:
    """Empty cells in the table of exceptions of a workflow that has one."""
    for kind in workflow.exceptions.empty if workflow.exceptions is not None else ():
        why = f"nothing is said about {kind.replace('_', ' ')}: {QUESTIONS[kind]}"
        yield Finding(Kind.EMPTY_CELL, None, why, f"say it in Exceptions({kind}=...), and prove it with a test")


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
                why = f"nobody says whether the LangChain tool {raw.name!r} in {place} reads or writes: it is refused"
                advice = f"say it, and name that tool in the policy of {node}: {how}"
            else:
                why = f"the code of {place} calls the LangChain tool {raw.name!r} past the gate: it is refused"
                advice = f"call it through as_langchain() of a tool that the policy of {node} names: {how}"
            yield Finding(Kind.NO_CLASS, node, why, advice, ways.through(START, node))


# -- approvals that nobody can give ------------------------------------------------------------------------------------

_YES = {DecisionType.APPROVE, DecisionType.EDIT}
_ANSWERS = {DecisionType.APPROVE, DecisionType.RESPOND}


def people_findings(workflow: Workflow) -> Iterator[Finding]:
    """Questions to people that no answer can settle."""
    for node, policy in workflow.policies.items():
        rules = [rule for tool in policy.tools if (rule := policy.rule_for(tool)) is not None]
        people = max([policy.approval.people, *(rule.people for rule in rules)])
        yes = _YES if people == 1 else {DecisionType.APPROVE}
        problems = [*_too_few(policy.approval, people), *_no_answer(policy.approval, yes)]
        if people > 1 and policy.approval.deadline is not None and policy.approval.default == "approve":
            problems.append((f"{_people(people)} must agree, and a deadline that approves is none", "let it reject"))
        if policy.min_confidence is not None:
            problems += [*_too_few(policy.otherwise, 1), *_no_answer(policy.otherwise, _ANSWERS)]
        yield from (Finding(Kind.NOBODY_CAN_APPROVE, node, what, advice) for what, advice in problems)


def _too_few(asked: ReviewRequest, people: int) -> Iterator[tuple[str, str]]:
    named = sorted({person(name) for name in asked.approvers} - {""})
    if asked.approvers and len(named) < people:
        who = ", ".join(named) or "nobody"
        yield f"{_people(people)} must agree, and approvers= names {len(named)}: {who}", "name more people"


def _no_answer(asked: ReviewRequest, yes: set[DecisionType]) -> Iterator[tuple[str, str]]:
    if asked.allowed and not yes & set(asked.allowed):
        offered = " and ".join(asked.allowed)
        yield f"allowed= offers {offered}, by which nothing is ever allowed", f"add {' or '.join(sorted(yes))}"


def _people(number: int) -> str:
    return "one person" if number == 1 else f"{number} different people"


# -- names of nothing --------------------------------------------------------------------------------------------------


def name_findings(workflow: Workflow, ways: Ways) -> Iterator[Finding]:
    """Rules and budgets that speak of nodes, tools or arguments that are not there."""
    for node, policy in workflow.policies.items():
        counted = _counting(policy.budgets, policy.tools)
        said = (_sources(workflow, ways, node, policy), _vouching(policy), counted, _prepared(policy))
        for what, advice in chain(*said):
            yield Finding(Kind.NAMES_NOTHING, node, what, advice)
    tools = [tool for policy in workflow.policies.values() for tool in policy.tools]
    for what, advice in _counting(workflow.budgets, tools):
        yield Finding(Kind.NAMES_NOTHING, None, what, advice)


def _sources(workflow: Workflow, ways: Ways, node: str, policy: Policy) -> Iterator[tuple[str, str]]:
    for tool, rules in policy.rules.items():
        for argument, rule in rules.items():
            for source, at in rule.sources:
                why, advice = _missing(workflow, ways, node, source, at)
                if why:
                    yield f"the rule for {argument} of {tool.name} ({rule.name}) is never kept: {why}", advice


def _missing(workflow: Workflow, ways: Ways, node: str, source: str, at: str) -> tuple[str, str]:
    """Why nothing of this tool (of a person, if empty) can have come from that node before this one runs; empty words
    if it can."""
    if at not in workflow.graph.nodes:
        return f"no node is called {at!r}", f"at= names one of {', '.join(workflow.graph.nodes)}"
    if source and all(tool.name != source for tool in workflow.policy(at).tools):
        return (
            f"the policy of {at} does not name {source}",
            f"name it there, or let at= name a node that calls {source}",
        )
    if at != node and at not in ways.before(node):
        return f"{at} never runs before {node}", "let at= name a node that does"
    return "", ""


def _vouching(policy: Policy) -> Iterator[tuple[str, str]]:
    for tool in policy.tools:
        rule = policy.rule_for(tool)
        strange = [] if rule is None else [name for name in rule.vouches_for if name not in tool.arguments.model_fields]
        if rule is not None and strange:
            known = ", ".join(tool.arguments.model_fields) or "none"
            yield (
                f"the approval rule {rule.name!r} vouches for {', '.join(strange)} of {tool.name}, which has: {known}",
                "give each tool a rule of its own: approve_when={tool: rule}",
            )


def _counting(budgets: Sequence[Budget], tools: Sequence[Tool]) -> Iterator[tuple[str, str]]:
    for budget in budgets:
        of = budget.of
        if of is not None and not of.advises and all(of is not tool for tool in tools):
            yield (
                f"the budget of {budget.limit:f} {budget.what} of {of.name} counts nothing: no policy here names it",
                "let of= name a tool that is called here, or take the budget out",
            )


def _prepared(policy: Policy) -> Iterator[tuple[str, str]]:
    for budget in policy.budgets:
        if budget.then == "fallback" and policy.fallback is None:
            yield (
                f"the budget of {budget.limit:f} {budget.what} ends in prepared content, and the policy has none",
                "give it: Policy(fallback=...), or let the budget end otherwise",
            )
