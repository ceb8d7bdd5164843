"""Calls within a call: what runs inside a tool that is an effect as a whole."""

from __future__ import annotations

from contextvars import ContextVar
from dataclasses import dataclass


@dataclass
class Inside:
    """The effect that the running code is part of.

    On replay its recorded result comes back and it does not run; so the calls that it makes are counted by themselves
    and use up none of the node's own ordinals.
    """

    key: str
    made: int = 0

    def next_ordinal(self) -> str:
        """The ordinal of the next call within."""
        self.made += 1
        return f"{self.key}.{self.made}"


#: Set while a LangChain tool runs that came through the gate.
inside: ContextVar[Inside | None] = ContextVar("eventwright_inside", default=None)


def ordinal_within() -> str | None:
    """The ordinal of a call that is made now; None where the gate counts."""
    around = inside.get()
    return None if around is None else around.next_ordinal()
