"""What `eventwright check` finds: the kinds of findings, and how one is told."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from langgraph.constants import END, START

from eventwright.graphs.checks.ways import Path
from eventwright.runs.states import Documented


class Kind(Documented):
    """What can be wrong with a declaration."""

    UNBOUNDED_WRITE = (
        "unbounded_write",
        "untrusted data may choose what a write does, and no rule and no person bounds it",
    )
    RULE_OF_TWO = "rule_of_two", "untrusted input, sensitive data and a way out to anybody meet in one node"
    NO_CLASS = "no_class", "a LangChain tool of which nobody says whether it reads or writes"
    NOBODY_CAN_APPROVE = "nobody_can_approve", "a person is asked in a way that no answer can satisfy"
    ENDLESS_LOOP = "endless_loop", "a loop calls tools or models, and no budget ends it"
    NAMES_NOTHING = "names_nothing", "a rule or a budget speaks of something that is not there"
    EMPTY_CELL = "empty_cell", "nothing is said about one of the seven exceptions"
    NOT_PROVED = "not_proved", "a call that must be approved may be made without"


@dataclass(frozen=True)
class Finding:
    """One thing that is wrong, and what to do about it.

    Attributes:
        kind: what is wrong.
        node: where; None if it concerns the whole workflow.
        message: the details.
        advice: what to do.
        path: how a run gets there, where that matters.
    """

    kind: Kind
    node: str | None
    message: str
    advice: str
    path: Path = ()

    @property
    def drawn(self) -> str:
        """The path in one line: `START → classify → ?refund`, a question mark where a decision leads."""
        return draw(self.path)

    def as_json(self) -> dict[str, Any]:
        """The finding for programs."""
        return {
            "kind": self.kind,
            "node": self.node,
            "message": self.message,
            "advice": self.advice,
            "path": [stop.node for stop in self.path],
            "drawn": self.drawn,
        }


def draw(path: Path) -> str:
    """A path in one line."""
    return " → ".join(("?" if stop.exit and stop.exit.by else "") + _NAMES.get(stop.node, stop.node) for stop in path)


_NAMES = {START: "START", END: "END"}
