"""Rules that authors write: which values an argument may have, and when a person must approve a call.

An argument rule is about one value and either holds or denies the call. An approval rule is about all arguments of a
call and says whether a person is asked. Both are pure, have a name and a version, and stand in the verdict.
"""

from __future__ import annotations

import hashlib
import inspect
import re
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from decimal import Decimal
from functools import cached_property
from types import CodeType
from typing import Any

from pydantic import BaseModel
from pydantic_core import to_jsonable_python

from eventwright.runs.roles import role_names
from eventwright.tools.contract import Tool

# -- argument rules --------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Record:
    """Something of this run that can be relied on: what a trusted tool returned, or what a person wrote or approved."""

    #: The tool's name; empty for a person's words.
    tool: str
    node: str
    value: Any


@dataclass(frozen=True)
class Facts:
    """What an argument rule may look at beside the value: the run's records, and the other arguments of the call."""

    #: Looked through anew each time, since most rules need none of them.
    records: Iterable[Record] = ()
    arguments: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class ArgumentRule:
    """Which values an argument may have. `a | b` allows what either of them allows.

    Attributes:
        name: for people: `one of EUR, GBP`.
        allows: whether the rule allows the value; what it raises denies the call.
        version: stands in the verdict beside the name.
        contains: the value can only be one that we know already, so that data which flows there stays with its owner.
        sources: where it compares with records of the run, whose: names of a tool (empty for a person) and of a node.
    """

    name: str
    allows: Callable[[Any, Facts], bool]
    version: str = "1"
    contains: bool = False
    sources: tuple[tuple[str, str], ...] = ()

    def __or__(self, other: ArgumentRule) -> ArgumentRule:
        return ArgumentRule(
            name=f"{self.name}, or {other.name}",
            allows=lambda value, facts: self.allows(value, facts) or other.allows(value, facts),
            version=self.version if self.version == other.version else f"{self.version}, {other.version}",
            contains=self.contains and other.contains,
            sources=(*self.sources, *other.sources),
        )


def equals(wanted: Any) -> ArgumentRule:
    """Only this value."""
    return ArgumentRule(f"equals {wanted}", lambda value, _facts: _same(value, wanted), contains=True)


def one_of(*wanted: Any) -> ArgumentRule:
    """Only these values."""
    if not wanted:
        raise ValueError("one_of() needs the values that are allowed; nothing is allowed by default")
    name = f"one of {', '.join(map(str, wanted))}"
    return ArgumentRule(name, lambda value, _facts: any(_same(value, one) for one in wanted), contains=True)


def at_most(limit: Limit, *, by: str | None = None) -> ArgumentRule:
    """Only numbers from 0 up to this limit; with `by`, limits by the value of another argument:
    `{"EUR": 100, "GBP": 85}`.

    Where `by` has no limit, nothing is allowed. What is below 0 would go the other way.
    """
    bounds = _Bounds.of(limit, by)

    def allows(value: Any, facts: Facts) -> bool:
        bound = bounds.for_call(facts.arguments)
        return bound is not None and 0 <= Decimal(value) <= bound

    return ArgumentRule(f"at most {bounds}", allows)


def at_least(limit: Decimal | int | str) -> ArgumentRule:
    """Only numbers from this limit on."""
    bound = Decimal(limit)
    return ArgumentRule(f"at least {bound}", lambda value, _facts: Decimal(value) >= bound)


def matches(pattern: str) -> ArgumentRule:
    """Only text that matches this regular expression as a whole. It bounds a value and does not tell whose it is."""
    compiled = re.compile(pattern)
    return ArgumentRule(f"matches {pattern}", lambda value, _facts: compiled.fullmatch(value) is not None)


def from_record(tool: Tool, path: str, *, at: str) -> ArgumentRule:
    """Only what this trusted tool returned in this run, at this node, in the field `path` (`email`, `owner.id`).

    Raises:
        ValueError: the tool is not trusted, so that what it returns proves nothing.
    """
    if not tool.trusted:
        raise ValueError(f"{tool.name} does not return records of our own; @tool(trusted=True) says that a tool does")
    return _recorded(tool.name, path, at, f"{path} of what {tool.name} returned at {at}")


def from_person(path: str, *, at: str) -> ArgumentRule:
    """Only what a person wrote in, or approved as shown, in the field `path` of a question that this node asked."""
    return _recorded("", path, at, f"{path} that a person gave or approved at {at}")


def _recorded(tool: str, path: str, at: str, name: str) -> ArgumentRule:
    def allows(value: Any, facts: Facts) -> bool:
        records = (record for record in facts.records if (record.tool, record.node) == (tool, at))
        return any(_same(value, found) for record in records for found in _at(record.value, path.split(".")))

    return ArgumentRule(name, allows, contains=True, sources=((tool, at),))


def _at(value: Any, path: Sequence[str]) -> Iterator[Any]:
    """What stands at the path, in every item where a list is on the way."""
    if isinstance(value, list):
        for item in value:
            yield from _at(item, path)
    elif not path:
        yield value
    elif isinstance(value, Mapping) and path[0] in value:
        yield from _at(value[path[0]], path[1:])


def _same(value: Any, wanted: Any) -> bool:
    """Whether two values are one as JSON; true is not 1, and nothing equals nothing."""
    first, second = to_jsonable_python(value), to_jsonable_python(wanted)
    return first is not None and type(first) is type(second) and bool(first == second)


# -- approval rules --------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Ask:
    """What an approval rule returns to have a call approved: why, by how many people, and in which role."""

    reason: str
    people: int = 1
    role: str | None = None

    def __post_init__(self) -> None:
        role_names([self.role] if self.role is not None else [])


#: A rule's test, of the validated arguments and, if it takes two, of the run's `Facts`: False when nobody need be
#: asked; True, the reason in words, or an `Ask`.
Test = Callable[..., "bool | str | Ask | None"]


@dataclass(frozen=True)
class Rule:
    """An approval rule: a pure function of the validated arguments and trusted records, with a name and a version.

    Attributes:
        name: for people.
        test: see `Test`.
        version: stands in the verdict and in the review.
        vouches_for: arguments that the rule bounds when it asks nobody: untrusted data may choose them up to there.
        always: whether it asks about every call, whatever its test says; `eventwright check` needs that for a proof.
        people: how many people it asks for at least, when it asks.
        roles: the roles that it may ask for, so that they are known before it asks; then it may ask for no other.
    """

    name: str
    test: Test
    version: str = "1"
    vouches_for: tuple[str, ...] = ()
    always: bool = False
    people: int = 1
    roles: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        role_names(self.roles)

    @cached_property
    def _takes_facts(self) -> bool:
        # A parameter with a default is the author's own: `lambda call, limit=limit: ...`.
        needed = [one for one in inspect.signature(self.test).parameters.values() if one.default is one.empty]
        return len(needed) > 1

    def asks(self, arguments: BaseModel, facts: Facts | None = None) -> Ask | None:
        """Why people must be asked and how many, or None. Raises ValueError for a role that it does not declare."""
        answer = self.test(arguments, facts or Facts()) if self._takes_facts else self.test(arguments)
        if answer is False or answer is None:
            return Ask(self.name, self.people) if self.always else None
        if isinstance(answer, Ask):
            if self.roles and answer.role is not None and answer.role not in self.roles:
                raise ValueError(f"it asks for the role {answer.role!r}, and declares {', '.join(self.roles)}")
            return replace(answer, people=max(self.people, answer.people))
        return Ask(answer if isinstance(answer, str) else self.name, self.people)


def as_rule(test: Rule | Test) -> Rule:
    """A rule from a plain function: its name, and a version that changes with its code."""
    if isinstance(test, Rule):
        return test
    code: CodeType | None = getattr(test, "__code__", None)
    fingerprint = b"" if code is None else code.co_code + repr(code.co_consts).encode()
    name = getattr(test, "__qualname__", type(test).__qualname__)
    return Rule(name, test, hashlib.sha256(fingerprint).hexdigest()[:12])


def above(argument: str, limit: Limit, *, by: str | None = None) -> Rule:
    """A person is asked when this argument is greater than the limit, or below 0; with `by`, limits by another
    argument's value.

    Where `by` has no limit, a person is always asked. Up to the limit the rule vouches for the argument, and for `by`.
    """
    bounds = _Bounds.of(limit, by)

    def test(arguments: Any) -> bool | str:
        value, bound = getattr(arguments, argument), bounds.for_call(arguments.__dict__)
        if bound is None:
            return f"there is no limit for {by} {getattr(arguments, by or '')}"
        if value < 0:
            return f"{argument} {value} is below 0"
        return f"{argument} {value} is above {bound}" if value > bound else False

    return Rule(f"{argument} above {bounds}", test, vouches_for=(argument, *([by] if by else ())))


def unless(argument: str, rule: ArgumentRule) -> Rule:
    """A person is asked when the argument rule does not allow this argument; in `Policy(rules=...)` it would deny."""

    def test(arguments: Any, facts: Facts) -> bool | str:
        known = rule.allows(getattr(arguments, argument), replace(facts, arguments=arguments.__dict__))
        return False if known is True else f"{argument} is not {rule.name}"

    return Rule(f"{argument} is not {rule.name}", test, rule.version, vouches_for=(argument,))


def two_people(rule: Rule | Test) -> Rule:
    """The same rule, but two people must approve: not the one who asked for the call, nor one who edited it."""
    single = as_rule(rule)
    return replace(single, name=f"{single.name}, by two people", people=max(2, single.people))


always = Rule("always", lambda _arguments: "every call of this tool is approved by a person", always=True)

# -- limits ----------------------------------------------------------------------------------------------------------

Number = Decimal | int | str
Limit = Number | Mapping[str, Number]


@dataclass(frozen=True)
class _Bounds:
    """One limit, or one by the value of another argument."""

    limits: Mapping[str | None, Decimal]
    by: str | None

    @classmethod
    def of(cls, limit: Limit, by: str | None) -> _Bounds:
        if isinstance(limit, Mapping) != (by is not None):
            raise ValueError(f"limits by another argument and `by` belong together, not {limit!r} and by={by!r}")
        if isinstance(limit, Mapping):
            return cls({key: Decimal(value) for key, value in limit.items()}, by)
        return cls({None: Decimal(limit)}, by)

    def for_call(self, arguments: Mapping[str, Any]) -> Decimal | None:
        return self.limits.get(None if self.by is None else arguments[self.by])

    def __str__(self) -> str:
        return ", ".join(f"{bound}" if key is None else f"{bound} {key}" for key, bound in self.limits.items())
