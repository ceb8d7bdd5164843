"""Roles: who has which, and whether somebody has those that a review asks for.

A review keeps the names of the roles from the moment it is opened; who has them is looked up when somebody decides.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Self

from eventwright.runs.errors import EventwrightError, MayNotDecide
from eventwright.runs.records import Decision, Review, person

#: The name of a role.
ROLE = re.compile(r"[a-z][a-z0-9_-]{0,63}")


class BadRoles(EventwrightError, ValueError):
    """Roles are not written as they should be."""

    def __init__(self, written: str, problem: str) -> None:
        self.written = written
        super().__init__(f"{problem}; write them like sales-manager=ann,bo@example.org;sales-director=cleo")


def role_names(roles: Iterable[str]) -> tuple[str, ...]:
    """Names of roles, each once. Raises BadRoles."""
    names = tuple(dict.fromkeys(roles))
    strange = next((name for name in names if not ROLE.fullmatch(name)), None)
    if strange is not None:
        raise BadRoles(strange, f"{strange!r} is no role: its name is lower case letters, digits, - and _")
    return names


@dataclass(frozen=True)
class Roles:
    """Who has which role: names of principals, as they are written, by role."""

    people: Mapping[str, tuple[str, ...]] = field(default_factory=dict)

    @classmethod
    def of(cls, people: Mapping[str, Sequence[str]]) -> Self:
        """From names by role. Raises BadRoles."""
        role_names(people)
        return cls({role: tuple(dict.fromkeys(names)) for role, names in people.items()})

    @classmethod
    def parse(cls, written: str) -> Self:
        """From one line, `sales-manager=ann,bo;sales-director=cleo`. Raises BadRoles."""
        people: dict[str, list[str]] = {}
        for part in filter(str.strip, written.split(";")):
            role, equals, names = part.partition("=")
            found = [name.strip() for name in names.split(",") if name.strip()]
            if not equals or not found:
                raise BadRoles(part, f"{part.strip()!r} does not say who has the role")
            people.setdefault(role.strip(), []).extend(found)
        return cls.of(people)

    def holders(self, roles: Collection[str]) -> list[str]:
        """Who has every one of these roles."""
        first, *others = [self.people.get(role, ()) for role in roles] or [()]
        return [name for name in first if all(person(name) in map(person, more) for more in others)]

    def who_may(self, review: Review) -> list[str]:
        """Who has the roles that the review asks for, and is not barred from it."""
        barred = {person(name) for name in review.barred}
        return [name for name in self.holders(review.roles) if person(name) not in barred]

    def check(self, review: Review, decision: Decision) -> None:
        """Raise MayNotDecide if the review asks for roles and who decides lacks one of them."""
        if not review.roles:
            return
        holders = self.who_may(review)
        if person(decision.by) in map(person, holders):
            return
        wanted = f"the role {' and the role '.join(review.roles)}"
        if person(decision.by) in map(person, review.barred):
            why = "who asked for this call or changed it must not approve it as well"
        else:
            why = f"it takes {wanted}"
        may = (
            f"those who may: {', '.join(holders)}"
            if holders
            else f"nobody else has {wanted}, EVENTWRIGHT_ROLES gives it"
        )
        raise MayNotDecide(review.id, decision.by, f"{why} ({may})")


#: Nobody has any role.
NO_ROLES = Roles()
