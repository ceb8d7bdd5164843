"""What one node may do: its policy, as an operator can read it. Nothing is allowed that is not named."""

from __future__ import annotations

import hashlib
import random
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import timedelta
from decimal import Decimal
from types import CodeType
from typing import Any, Literal

from pydantic import BaseModel

from eventwright.runs.records import DecisionType
from eventwright.tools.contract import Tool

Test = Callable[[Any], "bool | str"]


@dataclass(frozen=True)
class Rule:
    """An approval rule: a pure function of the validated arguments, with a name and a version.

    `test(arguments)` returns False when nobody need be asked; True, or the reason in words, when a person must.
    """

    name: str
    test: Test
    version: str = "1"

    def asks(self, arguments: BaseModel) -> str | None:
        """Why a person must be asked, or None."""
        answer = self.test(arguments)
        if answer is False or answer is None:
            return None
        return answer if isinstance(answer, str) else self.name


def as_rule(test: Rule | Test) -> Rule:
    """A rule from a plain function: its name, and a version that changes with its code."""
    if isinstance(test, Rule):
        return test
    code: CodeType | None = getattr(test, "__code__", None)
    fingerprint = b"" if code is None else code.co_code + repr(code.co_consts).encode()
    name = getattr(test, "__qualname__", type(test).__qualname__)
    return Rule(name, test, hashlib.sha256(fingerprint).hexdigest()[:12])


def above(argument: str, limit: Decimal | int | str) -> Rule:
    """A person is asked when this argument is greater than the limit."""
    bound = Decimal(limit)

    def test(arguments: Any) -> bool | str:
        value = getattr(arguments, argument)
        return f"{argument} {value} is above {bound}" if value > bound else False

    return Rule(f"{argument} above {bound}", test)


always = Rule("always", lambda _arguments: "every call of this tool is approved by a person")


@dataclass(frozen=True, kw_only=True)
class ReviewRequest:
    """How a person is asked. Made by `review()`."""

    question: str = ""
    deadline: timedelta | None = None
    #: What the deadline decides.
    default: Literal["approve", "reject"] = "reject"
    allowed: tuple[DecisionType, ...] = ()


def review(
    question: str = "",
    *,
    deadline: timedelta | None = None,
    default: Literal["approve", "reject"] = "reject",
    allowed: Sequence[str] = (),
) -> ReviewRequest:
    """How a person is asked, for a policy.

    Args:
        question: in the reader's words; a sensible one is made if empty.
        deadline: how long the question stands; without one it stands until somebody answers.
        default: what is decided when the deadline passes.
        allowed: which answers are offered (`approve edit reject respond`); by default those that make sense.
    """
    answers = tuple(DecisionType(answer) for answer in allowed)
    return ReviewRequest(question=question, deadline=deadline, default=default, allowed=answers)


@dataclass(frozen=True, kw_only=True)
class Backoff:
    """How long to wait before the next attempt: exponential, full jitter, capped. Seconds."""

    first: float = 1.0
    most: float = 300.0

    def seconds(self, failures: int, *, at_least: float | None = None) -> float:
        """A random wait before attempt `failures + 1`; never less than the provider asked for."""
        ceiling = min(self.most, self.first * 2.0 ** (failures - 1))
        # Jitter spreads the retries of many runs; it guards nothing.
        return max(random.uniform(ceiling / 2, ceiling), at_least or 0.0)


@dataclass(frozen=True, kw_only=True)
class Policy:
    """What one node may do.

    Attributes:
        tools: the tools it may call, by object; their exact names count.
        approve_when: when a person must approve a write: one rule for every write of the node, or one per tool.
        approval: how that person is asked.
        min_confidence: below this a model's answer goes to a person, 0 to 1.
        otherwise: how that person is asked.
        retries: how many more attempts a failure gets, each a durable one of the run, visible as retrying.
        backoff: how long they wait.
        timeout: seconds the node may take; asynchronous nodes only.
        fallback: prepared content that stands in for the model once its attempts are used up: a value, or a function
            of the question's material.
    """

    tools: Sequence[Tool] = ()
    approve_when: Rule | Test | Mapping[Tool, Rule | Test] | None = None
    approval: ReviewRequest = field(default_factory=ReviewRequest)
    min_confidence: float | None = None
    otherwise: ReviewRequest = field(default_factory=ReviewRequest)
    retries: int = 0
    backoff: Backoff = field(default_factory=Backoff)
    timeout: float | None = None
    fallback: Any = None

    def __post_init__(self) -> None:
        strangers = [tool for tool in self.tools if not isinstance(tool, Tool)]
        if strangers:
            raise TypeError(f"Policy(tools=...) takes tools made by @tool, not {strangers[0]!r}")
        if self.min_confidence is not None and not 0 <= self.min_confidence <= 1:
            raise ValueError(f"min_confidence is a share from 0 to 1, not {self.min_confidence!r}")
        if self.retries < 0:
            raise ValueError(f"retries counts the attempts after the first, it cannot be {self.retries!r}")
        if self.timeout is not None and self.timeout <= 0:
            raise ValueError(f"timeout is in seconds and above 0, not {self.timeout!r}")
        if isinstance(self.approve_when, Mapping):
            unknown = [tool for tool in self.approve_when if tool not in self.tools]
            if unknown:
                raise ValueError(f"approve_when speaks of {unknown[0]!r}, which is not among the policy's tools")

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
