"""What a workflow does when something is not as it should be: one sentence for each of the seven kinds of exception.

    Workflow("refunds", ..., exceptions=Exceptions(missing_data="The front desk is asked who wrote.", ...))

They are written before the graph is, stand in the workflow's page (`eventwright policy show`), and `eventwright check`
fails where one is left empty.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, fields

#: What each kind asks, in the order in which they are told.
QUESTIONS = {
    "missing_data": "What becomes of an event that says too little?",
    "low_confidence": "What if a model is not sure, or answers nonsense?",
    "tool_error": "What if a system outside answers with an error?",
    "duplicate_event": "What if the same thing comes in twice?",
    "timeout": "What if somebody, or something, does not answer in time?",
    "human_approval": "Who is asked, about what, and what does a no mean?",
    "partial_completion": "What if it breaks off when half is done?",
}


@dataclass(frozen=True, kw_only=True)
class Exceptions:
    """One plain sentence each: what happens then, and who decides."""

    missing_data: str = ""
    low_confidence: str = ""
    tool_error: str = ""
    duplicate_event: str = ""
    timeout: str = ""
    human_approval: str = ""
    partial_completion: str = ""

    def __iter__(self) -> Iterator[tuple[str, str]]:
        """(kind, sentence) of each, in the order of the questions."""
        return ((field.name, getattr(self, field.name)) for field in fields(self))

    @property
    def empty(self) -> tuple[str, ...]:
        """The kinds of which nothing is said."""
        return tuple(kind for kind, sentence in self if not sentence.strip())
