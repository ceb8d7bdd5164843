"""Secrets are references: a tool asks for one by its name when it needs it, and hands it to nobody else.

    @tool(writes="keyed")
    async def charge(amount: Decimal, *, call: Call) -> str:
        client = Client(call.secret("stripe_key"))      # EVENTWRIGHT_SECRET_STRIPE_KEY

The composition root reads them from the environment, and every value that this process must not show is hidden in
what models read, in journals, in errors and in logs.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from eventwright.runs.errors import EventwrightError

if TYPE_CHECKING:
    from eventwright.tools.contract import Resources

#: `stripe_key` is the environment's `EVENTWRIGHT_SECRET_STRIPE_KEY`.
VARIABLE = "EVENTWRIGHT_SECRET_"
#: A shorter value could not be told from ordinary words, and would stay where it is shown.
SHORTEST = 8

_NAME = re.compile(r"[a-z][a-z0-9_]*", re.ASCII)


class SecretMissing(EventwrightError, LookupError):
    """A tool asks for a secret that this process was not given."""

    def __init__(self, name: str) -> None:
        self.name = name
        super().__init__(
            f"there is no secret {name!r}: set {VARIABLE}{name.upper()}, "
            f'or give resources=[Secrets({{"{name}": "..."}})] to open_app or simulate'
        )


class BadSecret(EventwrightError, ValueError):
    """A secret's name or value cannot be used. The value is not repeated."""


@dataclass(frozen=True)
class Secrets:
    """The secrets of this process.

    Args:
        named: what tools may ask for, by name (lower case, as in `call.secret("stripe_key")`).
        kept: what no tool gets and nobody may see either: the process's own keys and passwords.

    Raises:
        BadSecret: a name is none, or a named value is too short to be hidden wherever it stands.
    """

    named: Mapping[str, str] = field(default_factory=dict, repr=False)
    kept: tuple[str, ...] = field(default=(), repr=False)

    def __post_init__(self) -> None:
        for name, value in self.named.items():
            if not _NAME.fullmatch(name):
                raise BadSecret(f"a secret's name is lower-case letters, digits and _; {name!r} is not")
            if len(value) < SHORTEST:
                raise BadSecret(
                    f"the secret {name!r} has {len(value)} characters; with fewer than {SHORTEST} it could not be "
                    "told from ordinary words, and not be hidden"
                )

    @classmethod
    def of(cls, resources: Resources) -> Secrets:
        """All secrets among a process's clients; of two with one name the last one counts."""
        found = [item for item in resources.items if isinstance(item, cls)]
        named = {name: value for secrets in found for name, value in secrets.named.items()}
        return cls(named, tuple(dict.fromkeys(literal for secrets in found for literal in secrets.literals)))

    def value(self, name: str) -> str:
        """The value. Raises SecretMissing."""
        try:
            return self.named[name]
        except KeyError:
            raise SecretMissing(name) from None

    @property
    def literals(self) -> tuple[str, ...]:
        """Every value that must not be shown."""
        return (*self.named.values(), *self.kept)
