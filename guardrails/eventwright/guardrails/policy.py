"""Policies: what one node may do. Plain data and pure functions, written by the workflow's author.

Nothing is allowed by default: a tool that is not named may not be called, an argument that untrusted data chose needs
a rule or a person, a text that leaves may link nowhere.
"""

from __future__ import annotations

import math
import random
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import timedelta
from typing import Any, Literal

from eventwright.guardrails.budgets import Budget
from eventwright.guardrails.rules import ArgumentRule, Rule, Test, as_rule
from eventwright.guardrails.text import host_name
from eventwright.runs.records import DecisionType
from eventwright.runs.roles import role_names
from eventwright.runs.states import Documented
from eventwright.tools.contract import Role, Tool

#: No provider makes a run wait for longer before its next attempt, whatever it says; and the longest wait for one that
#: is down, unless a policy says otherwise.
A_DAY = timedelta(days=1)
#: The longest wait for a provider that is down where prepared content can stand in.
A_MINUTE = timedelta(minutes=1)
#: Beyond this every ceiling is reached.
MOST_DOUBLINGS = 60


@dataclass(frozen=True, kw_only=True)
class ReviewRequest:
    """How a person is asked. Made by `review()`."""

    question: str = ""
    deadline: timedelta | None = None
    #: What the deadline decides.
    default: Literal["approve", "reject"] = "reject"
    allowed: tuple[DecisionType, ...] = ()
    #: How many different people must agree.
    people: int = 1
    #: Who may decide; everybody if empty.
    approvers: tuple[str, ...] = ()
    #: The roles that whoever decides must have, every one.
    roles: tuple[str, ...] = ()
    #: Whether who asked for the call may not decide it, also where one person in no role is enough.
    by_another: bool = False


def review(
    question: str = "",
    *,
    deadline: timedelta | None = None,
    default: Literal["approve", "reject"] = "reject",
    allowed: Sequence[str] = (),
    people: int = 1,
    approvers: Sequence[str] = (),
    roles: Sequence[str] = (),
    by_another: bool = False,
) -> ReviewRequest:
    """How a person is asked, for a policy.

    Args:
        question: in the reader's words; a sensible one is made if empty.
        deadline: how long the question stands; without one it stands until somebody answers.
        default: what is decided when the deadline passes.
        allowed: which answers are offered (`approve edit reject respond`); by default those that make sense.
        people: how many different people must agree; with two or more, neither who asked for the call nor who edited
            it is one of them.
        approvers: who may decide, by the name of their principal; everybody if empty.
        roles: the roles that whoever decides must have, every one (EVENTWRIGHT_ROLES says who has them); then neither
            who asked for the call nor who edited it may approve it.
        by_another: whether that holds for who asked for the call also where one person in no role is enough.

    Raises:
        ValueError: nobody could ever give the answer that is asked for.
    """
    answers = tuple(DecisionType(answer) for answer in allowed)
    if people < 1:
        raise ValueError(f"people counts those who must agree, it cannot be {people!r}")
    if people > 1 and default == "approve" and deadline is not None:
        raise ValueError("a deadline is nobody: where several people must agree, it can only reject")
    if roles and default == "approve" and deadline is not None:
        raise ValueError("a deadline has no role: where one is asked for, it can only reject")
    return ReviewRequest(
        question=question,
        deadline=deadline,
        default=default,
        allowed=answers,
        people=people,
        approvers=tuple(approvers),
        roles=role_names(roles),
        by_another=by_another,
    )


class DeadLetter(Documented):
    """What happens when a run fails for good at a node."""

    OPERATOR = "operator", "the run waits for an operator, with what it has done"
    UNDO = "undo", "what the run has done is undone, where its tools can; then it waits for an operator"


@dataclass(frozen=True, kw_only=True)
class Backoff:
    """How long to wait before the next attempt: exponential, full jitter, capped. Seconds.

    Full jitter is a random wait between nothing and a ceiling that doubles with each failure, up to `most`: it spreads
    the attempts of many runs best. Where a provider named a wait (Retry-After), that comes before it.
    """

    first: float = 1.0
    most: float = 300.0

    def seconds(self, failures: int, *, at_least: float | None = None) -> float:
        """A random wait before attempt `failures + 1`; never less than the provider asked for."""
        ceiling = min(self.most, self.first * 2.0 ** min(failures - 1, MOST_DOUBLINGS))
        named = at_least if at_least is not None and math.isfinite(at_least) else 0.0
        # Jitter spreads the retries of many runs, also of those that were told the same time; it guards nothing.
        return min(max(named, 0.0), A_DAY.total_seconds()) + random.uniform(0.0, ceiling)


@dataclass(frozen=True, kw_only=True)
class Policy:
    """What one node may do.

    Attributes:
        tools: the tools it may call, by object; their exact names count.
        rules: which values their arguments may have: by tool, by argument.
        approve_when: when a person must approve a write: one rule for every write of the node, or one per tool.
        approval: how that person is asked, also when untrusted data chose a destination or an amount without a rule.
        min_confidence: below this a model's answer goes to a person, 0 to 1.
        otherwise: how that person is asked.
        retries: how many more attempts a failure gets, each a durable one of the run, visible as retrying; a number, or
            one by class of error, of which the first that fits counts (none fits: no retry).
        backoff: how long they wait.
        timeout: seconds the node may take; asynchronous nodes only.
        patience: how long the run waits in this node for a provider that is down, without spending attempts; then it
            fails as if it had been asked. By default a day, and a minute where a `fallback` is prepared.
        budgets: how much its calls may use.
        links: the hosts to which text that leaves may link; a link elsewhere needs a person.
        fallback: prepared content that stands in for the model once its attempts are used up, or patience with a
            provider that is down: a value, or a function of the question's material.
        dead_letter: what happens when the run fails for good here.
        lane: whose workers run the node; None for those of the workflow's lane. A worker that does not serve it hands
            the run over before the node begins.
    """

    tools: Sequence[Tool] = ()
    rules: Mapping[Tool, Mapping[str, ArgumentRule]] = field(default_factory=dict)
    approve_when: Rule | Test | Mapping[Tool, Rule | Test] | None = None
    approval: ReviewRequest = field(default_factory=ReviewRequest)
    min_confidence: float | None = None
    otherwise: ReviewRequest = field(default_factory=ReviewRequest)
    retries: int | Mapping[type[Exception], int] = 0
    backoff: Backoff = field(default_factory=Backoff)
    timeout: float | None = None
    patience: timedelta | None = None
    budgets: Sequence[Budget] = ()
    links: Sequence[str] = ()
    fallback: Any = None
    dead_letter: DeadLetter = DeadLetter.OPERATOR
    lane: str | None = None

    def __post_init__(self) -> None:
        strangers = [tool for tool in self.tools if not isinstance(tool, Tool)]
        if strangers:
            raise TypeError(f"Policy(tools=...) takes tools made by @tool or langchain_tool(), not {strangers[0]!r}")
        if DecisionType.RESPOND in self.approval.allowed:
            raise ValueError("approval: a call is approved, edited or rejected; respond would be none of these")
        if DecisionType.EDIT in self.otherwise.allowed:
            raise ValueError("otherwise: a judgement is approved, rejected or answered with respond; it has no edit")
        if self.otherwise.people > 1:
            raise ValueError("otherwise: a judgement is answered by one person; people= is for approval")
        if self.min_confidence is not None and not 0 <= self.min_confidence <= 1:
            raise ValueError(f"min_confidence is a share from 0 to 1, not {self.min_confidence!r}")
        counts = self.retries.values() if isinstance(self.retries, Mapping) else [self.retries]
        if any(count < 0 for count in counts):
            raise ValueError(f"retries counts the attempts after the first, it cannot be {self.retries!r}")
        if self.timeout is not None and self.timeout <= 0:
            raise ValueError(f"timeout is in seconds and above 0, not {self.timeout!r}")
        if self.patience is not None and self.patience < timedelta(0):
            raise ValueError(f"patience is a length of time, it cannot be {self.patience!r}")
        if isinstance(self.links, str):
            raise TypeError(f"links is a list of hosts, not one text: [{self.links!r}]")
        for link in self.links:
            if host_name(link) is None:
                raise ValueError(f"links takes names of hosts such as help.example.org, not {link!r}")
        for name in ("approve_when", "rules"):
            named = getattr(self, name)
            unknown = [tool for tool in named if tool not in self.tools] if isinstance(named, Mapping) else []
            if unknown:
                raise ValueError(f"{name} speaks of {unknown[0]!r}, which is not among the policy's tools")
        for tool, rules in self.rules.items():
            strange = sorted(set(rules) - set(tool.arguments.model_fields))
            if strange:
                known = ", ".join(tool.arguments.model_fields)
                raise ValueError(f"{tool.name} has no argument {strange[0]!r} to write a rule for; it has: {known}")

    def allows(self, tool: Tool) -> bool:
        """Whether the node may call exactly this tool: the same object, not one that merely bears its name."""
        return any(named is tool for named in self.tools)

    def rule_for(self, tool: Tool) -> Rule | None:
        """The approval rule for a tool; reads never ask."""
        if not tool.writes or self.approve_when is None:
            return None
        if isinstance(self.approve_when, Mapping):
            test = self.approve_when.get(tool)
            return None if test is None else as_rule(test)
        return as_rule(self.approve_when)

    def unruled(self, tool: Tool) -> list[str]:
        """The arguments of a write that choose something and that neither an argument rule nor an approval rule
        bounds: untrusted data may not choose them unless a person approves the call."""
        rule = self.rule_for(tool)
        bounded = {*self.rules.get(tool, ()), *(rule.vouches_for if rule else ())}
        return [name for name, role in tool.roles.items() if role is not Role.CONTENT and name not in bounded]

    @property
    def waits_for_providers(self) -> timedelta:
        """How long the run waits in this node for a provider that is down."""
        if self.patience is not None:
            return self.patience
        return A_DAY if self.fallback is None else A_MINUTE

    @property
    def most_retries(self) -> int:
        """How many more attempts a failure gets at most."""
        return self.retries if isinstance(self.retries, int) else max(self.retries.values(), default=0)

    def retries_for(self, errors: Sequence[BaseException]) -> int:
        """How many more attempts these errors get: the least of what each of them gets."""
        retries = self.retries
        if isinstance(retries, int):
            return retries
        fitting = [next((count for kind, count in retries.items() if isinstance(error, kind)), 0) for error in errors]
        return min(fitting, default=0)
