"""What the gate may answer, and how a refusal, a pause or a rejection travels through a node."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from functools import lru_cache
from typing import Any

from eventwright.runs.errors import EventwrightError
from eventwright.runs.records import Decision, Review
from eventwright.runs.states import Documented


class VerdictKind(Documented):
    ALLOW = "allow", "the call may happen"
    DENY = "deny", "the call does not happen"
    ASK = "ask", "a person decides about this exact call"


class Stage(Documented):
    """The stages of the gate, in their order; the first that does not allow decides."""

    CAPABILITY = "capability", "the node's policy names this tool, exactly"
    SCHEMA = "schema", "the arguments are valid, finite, bounded, with nothing extra"
    ARGUMENTS = "arguments", "every value is one that its rule allows"
    LABELS = "labels", "what untrusted data chose is bounded by a rule, and what leaves links to allowed hosts"
    BUDGETS = "budgets", "there is enough left, and it is reserved for this call"
    APPROVAL = "approval", "a rule asks for a person, and a decision for this digest exists"
    LEDGER = "ledger", "the same call was not made before, or may be made again"


@dataclass(frozen=True, kw_only=True)
class Verdict:
    """What one stage says, with the rule and its version that said so."""

    kind: VerdictKind
    stage: Stage
    rule: str
    version: str = "1"
    reason: str = ""
    #: What the rule looked at.
    inputs: Mapping[str, Any] = field(default_factory=dict)
    #: How many people it asks for, if it asks.
    people: int = 1
    #: The role that they must have, if it asks for one.
    role: str | None = None

    def as_json(self) -> dict[str, Any]:
        """The verdict as the journal keeps it."""
        role = {} if self.role is None else {"role": self.role}
        return {
            "stage": self.stage,
            "verdict": self.kind,
            "rule": self.rule,
            "version": self.version,
            "reason": self.reason,
            "inputs": dict(self.inputs),
            **role,
        }


@lru_cache(maxsize=1024)
def allow(stage: Stage, rule: str, reason: str = "") -> Verdict:
    """The verdict of a stage that has nothing against the call."""
    return Verdict(kind=VerdictKind.ALLOW, stage=stage, rule=rule, reason=reason)


class Denied(EventwrightError, PermissionError):
    """The policy does not allow this call. It did not happen, and would not on a retry."""

    def __init__(self, tool: str, verdict: Verdict) -> None:
        self.tool, self.verdict = tool, verdict
        super().__init__(f"{tool} was denied at the stage {verdict.stage} by {verdict.rule}: {verdict.reason}")


class OverBudget(Denied):
    """The call would use more than a budget has left. It did not happen."""


class Rejected(EventwrightError, PermissionError):
    """A person said no. A node may catch this and go another way; uncaught, it ends the run as rejected."""

    def __init__(self, review: Review, decision: Decision) -> None:
        self.review, self.decision = review, decision
        why = f": {decision.comment}" if decision.comment else ""
        super().__init__(f"{decision.by} rejected {review.question!r}{why}")


class Paused(BaseException):
    """The run waits for a person. No node may swallow this, hence a BaseException; the node's wrapper turns it into
    LangGraph's own pause."""

    def __init__(self, review: Review) -> None:
        self.review = review
        super().__init__(f"waits for review {review.id}")


@dataclass(frozen=True)
class Outage:
    """Providers that are down, any of which would do, and since when a node waits for them."""

    providers: tuple[str, ...]
    since: datetime


class Postponed(BaseException):
    """The run waits for a time: a budget has nothing left until then, or a provider is down. No node may swallow this;
    the node's wrapper turns it into LangGraph's own pause, and when the time has come the node runs again."""

    def __init__(self, until: datetime, outage: Outage | None = None) -> None:
        self.until, self.outage = until, outage
        super().__init__(f"waits until {until.isoformat()}")


class Nondeterministic(BaseException):
    """A replayed node asked for another call than the first time, in the same place, or the record of it does not fit
    the tool any more: nothing is called. No node may swallow this."""

    def __init__(self, tool: str, key: str, why: str | None = None) -> None:
        self.tool, self.key = tool, key
        why = why or f"on replay the node called {tool} with other arguments than before"
        super().__init__(f"{why}; nothing was called, the record stays")
