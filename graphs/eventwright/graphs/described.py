"""A policy in words: the same for `eventwright policy show`, the drawn graph of a workflow, and the documentation."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import timedelta

from eventwright.graphs.waiting import Continues
from eventwright.graphs.workflow import On, Workflow
from eventwright.guardrails.detectors import Detector
from eventwright.guardrails.policy import DeadLetter, Policy, ReviewRequest
from eventwright.runs.errors import EventwrightError
from eventwright.runs.states import Documented
from eventwright.tools.contract import Role, Tool


class UnknownNode(EventwrightError, LookupError):
    """The workflow has no node of this name."""

    def __init__(self, node: str, workflow: Workflow) -> None:
        self.node, self.workflow = node, workflow
        super().__init__(f"{workflow.name} has no node {node!r}; its nodes are: {', '.join(workflow.graph.nodes)}")


class Facet(Documented):
    """What a policy, or a whole workflow, says something about; its meaning is how a table calls it."""

    TOOLS = "tools", "may call"
    ARGUMENTS = "arguments", "with"
    PEOPLE = "people", "people"
    CONFIDENCE = "confidence", "unsure"
    FALLBACK = "fallback", "instead"
    RETRIES = "retries", "failing"
    TIMEOUT = "timeout", "time"
    PATIENCE = "patience", "waits"
    BUDGETS = "budgets", "budget"
    LINKS = "links", "links"
    DEAD_LETTER = "dead_letter", "gives up"
    LANE = "lane", "runs in"
    EVENTS = "events", "events"
    REDACTION = "redaction", "hides"
    MUST_APPROVE = "must_approve", "approved"


@dataclass(frozen=True)
class Line:
    """One thing that is said."""

    facet: Facet
    words: str


def described(policy: Policy) -> list[Line]:
    """Everything that a policy says, in words; what it does not mention is not allowed, or does not happen."""
    return [Line(facet, words) for facet, tell in _TELLING.items() for words in tell(policy)]


def described_whole(workflow: Workflow) -> list[Line]:
    """What holds for all nodes of a workflow."""
    redaction = workflow.redaction
    hidden = {
        "from models": redaction.model,
        "from the journal and logs": redaction.journal,
        "in what leaves": redaction.outgoing,
    }
    return [
        *(Line(Facet.EVENTS, _event(trigger)) for trigger in workflow.triggers),
        *([Line(Facet.LANE, lane_words(workflow.lane))] if workflow.lane != "default" else ()),
        *(Line(Facet.BUDGETS, budget.describe()) for budget in workflow.budgets),
        *(Line(Facet.REDACTION, f"{where}: {_kinds(what)}") for where, what in hidden.items()),
        *(
            Line(Facet.MUST_APPROVE, f"every call of {tool.name}; eventwright check proves it")
            for tool in workflow.must_approve
        ),
    ]


def by_facet(lines: Sequence[Line]) -> dict[str, list[str]]:
    """The lines for programs."""
    found: dict[str, list[str]] = {}
    for line in lines:
        found.setdefault(str(line.facet), []).append(line.words)
    return found


# -- tools and people --------------------------------------------------------------------------------------------------


def tool_words(tool: Tool) -> str:
    """A tool with what its calls are: `payments.refund (keyed write)`."""
    marks = [f"{tool.tool_class} write" if tool.writes else "read"]
    marks += ["trusted"] if tool.trusted else []
    marks += ["sensitive"] if tool.sensitive else []
    marks += [f"undone by {tool.undo.tool.name}"] if tool.undo is not None else []
    return f"{tool.name} ({', '.join(marks)})"


def _arguments(policy: Policy) -> Iterator[str]:
    """What bounds the arguments, tool by tool, and which ones only a person may let untrusted data choose."""
    for tool in policy.tools:
        rules, rule, free = policy.rules.get(tool, {}), policy.rule_for(tool), policy.unruled(tool)
        whose = f" of {tool.name}" if len(policy.tools) > 1 else ""
        for name, bound in rules.items():
            yield f"{name}{whose}: {bound.name}"
        vouched = [name for name in (rule.vouches_for if rule else ()) if name not in rules]
        if rule is not None and vouched:
            yield f"{', '.join(vouched)}{whose}: free unless {rule.name!r} asks"
        if tool.writes and free and not (rule and rule.always):
            yield f"{', '.join(free)}{whose}: free, but what untrusted data chose needs a person"


def _people(policy: Policy) -> Iterator[str]:
    """When people are asked about a call, and how."""
    asking = {tool: rule for tool in policy.tools if (rule := policy.rule_for(tool)) is not None}
    writes = [tool for tool in policy.tools if tool.writes]
    for tool, rule in asking.items():
        whose = f" of {tool.name}" if len(policy.tools) > 1 else ""
        when = "every call" if rule.always else f"when {rule.name!r} asks (version {rule.version})"
        people = max(policy.approval.people, rule.people)
        roles = f", in the role {' or '.join(rule.roles)}" if rule.roles else ""
        yield f"approve {when}{whose}{f', {people} of them' if people > 1 else ''}{roles}"
    if any(_may_ask(policy, tool) for tool in writes):
        yield from _how(policy.approval)


def _may_ask(policy: Policy, tool: Tool) -> bool:
    content = any(role is Role.CONTENT for role in tool.roles.values())
    exceeding = any(budget.then == "person" and budget.counts(tool) for budget in policy.budgets)
    return policy.rule_for(tool) is not None or bool(policy.unruled(tool)) or content or exceeding


def _how(asked: ReviewRequest) -> Iterator[str]:
    if asked.question:
        yield f"asked: {asked.question}"
    if asked.approvers:
        yield f"only {', '.join(asked.approvers)}"
    if asked.roles:
        yield f"only in the role {' and '.join(asked.roles)}"
    if asked.by_another:
        yield "not by who asked for it"
    if asked.allowed:
        yield f"may {', '.join(asked.allowed)}"
    if asked.deadline is not None:
        outcome = "approved" if asked.default == "approve" else "rejected"
        yield f"within {length(asked.deadline)}, else it is {outcome}"


def asked_about(policy: Policy, tool: Tool) -> str | None:
    """Which approval rule asks about a tool, on one line; None if none does."""
    rule = policy.rule_for(tool)
    return None if rule is None else f"a person approves: {rule.name}"


def unsure(policy: Policy) -> str | None:
    """What happens to an answer of which the model is not sure."""
    if policy.min_confidence is None:
        return None
    return f"a person answers below {policy.min_confidence:.0%} confidence"


def _confidence(policy: Policy) -> Iterator[str]:
    words = unsure(policy)
    if words is not None:
        yield words
        yield from _how(policy.otherwise)


# -- when something fails ----------------------------------------------------------------------------------------------


def retries(policy: Policy) -> str | None:
    """How often a failure is tried again."""
    if isinstance(policy.retries, Mapping):
        each = [f"{_times(count)} on {kind.__name__}" for kind, count in policy.retries.items()]
        return ", ".join([*each, "else none"]) if each else None
    return _times(policy.retries) if policy.retries else None


def _times(count: int) -> str:
    return "1 retry" if count == 1 else f"{count} retries"


def _retries(policy: Policy) -> Iterator[str]:
    words = retries(policy)
    if words is not None:
        yield f"{words}; up to {policy.backoff.first:g}, later {policy.backoff.most:g} s apart"


def longest(policy: Policy) -> str | None:
    """How long a node may take."""
    return None if policy.timeout is None else f"{policy.timeout:g} s at most"


def _timeout(policy: Policy) -> Iterator[str]:
    yield from filter(None, [longest(policy)])


def _patience(policy: Policy) -> Iterator[str]:
    if policy.patience is not None:
        yield f"{length(policy.patience)} for a provider that is down" if policy.patience else "for no provider"


def _budgets(policy: Policy) -> Iterator[str]:
    yield from (budget.describe() for budget in policy.budgets)


def _links(policy: Policy) -> Iterator[str]:
    sends = any(role is Role.CONTENT for tool in policy.tools if tool.writes for role in tool.roles.values())
    if policy.links:
        yield f"in what leaves: {', '.join(policy.links)}; others need a person"
    elif sends:
        yield "in what leaves need a person"


def _fallback(policy: Policy) -> Iterator[str]:
    if callable(policy.fallback):
        yield f"what {getattr(policy.fallback, '__name__', 'a function')}() makes, if the model is away"
    elif policy.fallback is not None:
        first, *more = str(policy.fallback).strip().splitlines() or [""]
        yield f"“{first}{' …' if more else ''}”, if the model is away"


def _dead_letter(policy: Policy) -> Iterator[str]:
    if policy.dead_letter is not DeadLetter.OPERATOR:
        yield policy.dead_letter.meaning


def lane_words(lane: str) -> str:
    """Whose workers run something."""
    return f"lane {lane}"


def _lane(policy: Policy) -> Iterator[str]:
    if policy.lane is not None:
        yield lane_words(policy.lane)


_TELLING: Mapping[Facet, Callable[[Policy], Iterator[str]]] = {
    Facet.TOOLS: lambda policy: map(tool_words, policy.tools),
    Facet.ARGUMENTS: _arguments,
    Facet.PEOPLE: _people,
    Facet.CONFIDENCE: _confidence,
    Facet.FALLBACK: _fallback,
    Facet.RETRIES: _retries,
    Facet.TIMEOUT: _timeout,
    Facet.PATIENCE: _patience,
    Facet.BUDGETS: _budgets,
    Facet.LINKS: _links,
    Facet.DEAD_LETTER: _dead_letter,
    Facet.LANE: _lane,
}

# -- the whole workflow ------------------------------------------------------------------------------------------------


def _event(trigger: On) -> str:
    whose = "our own, trusted" if trigger.trusted else "untrusted"
    return f"{trigger.type}{' (goes on with a run)' if isinstance(trigger, Continues) else ''}: {whose}"


def _kinds(detectors: Sequence[Detector]) -> str:
    return ", ".join(dict.fromkeys(detector.name for detector in detectors)) or "nothing but secrets"


def length(span: timedelta) -> str:
    """A length of time as people say it."""
    seconds = span.total_seconds()
    for unit, size in (("day", 86_400), ("hour", 3_600), ("minute", 60)):
        if seconds >= size and seconds % size == 0:
            count = int(seconds // size)
            return f"{count} {unit}{'' if count == 1 else 's'}"
    return f"{seconds:g} s"
