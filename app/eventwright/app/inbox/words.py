"""What the pages of the inbox show, in words: values made safe and short enough to be read, reviews, runs."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any

from eventwright.app import questions
from eventwright.app.commands.telling import compact, line, plain, when
from eventwright.runs.agenda import Item
from eventwright.runs.errors import MayNotDecide
from eventwright.runs.event import Event
from eventwright.runs.records import Decision, DecisionType, Review, ReviewState, person
from eventwright.runs.roles import Roles
from eventwright.runs.states import RunState

#: Characters of a value that a page shows; of what a person is asked to approve, as much as a tool takes.
SHORT, WHOLE_ARGUMENT = 3_000, 20_000
#: Members of an object that a page shows one by one.
MEMBERS = 200
#: Characters on one line, above which a text gets room of its own.
ONE_LINE = 90
#: What is left of a deadline that is near.
SOON = timedelta(hours=1)

#: What comes next for a run, by its state.
NEXT = {
    RunState.RECEIVED: "A worker takes it up as soon as one is free.",
    RunState.PROCESSING: "It goes on by itself; this page follows it.",
    RunState.PENDING_APPROVAL: "Once somebody has decided, it goes on from where it stands.",
    RunState.WAITING: "It goes on by itself when the event or the time comes.",
    RunState.RETRYING: "It is tried again by itself.",
    RunState.FAILED: "Nothing happens until somebody replays it or cancels it. What is done is not done again.",
    RunState.COMPLETED: "Nothing more happens.",
    RunState.CANCELLED: "Nothing more happens.",
}


# -- values ------------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Shown:
    """A value as a page shows it.

    Attributes:
        text: safe for the eye: what hides stands there as `⟦U+202E⟧`.
        block: whether it needs lines of its own.
        left_out: how many characters are not shown.
    """

    name: str
    text: str
    block: bool
    left_out: int = 0


def shown(name: object, value: Any, most: int | None = SHORT) -> Shown:
    """A JSON value, cut at so many characters if at all; a text with its lines as they are."""
    if isinstance(value, str):
        whole = value
    elif isinstance(value, Mapping | list):
        whole = json.dumps(value, ensure_ascii=False, indent=2)
    else:
        whole = json.dumps(value, ensure_ascii=False)
    text = plain(whole[:most])
    block = "\n" in text or len(text) > ONE_LINE
    return Shown(line(name, 200), text, block, len(whole) - len(whole[:most]))


def rows(value: Any, most: int = SHORT, *, name: str = "value") -> list[Shown]:
    """A JSON object as a table of its members, anything else as one row."""
    if not isinstance(value, Mapping):
        return [shown(name, value, most)]
    members = list(value.items())
    others = [shown(f"{len(members) - MEMBERS} more", dict(members[MEMBERS:]), 0)] if len(members) > MEMBERS else []
    return [shown(member, item, most) for member, item in members[:MEMBERS]] + others


def title_of(event: Event) -> str:
    """What an event is about, in a few words."""
    return line(event.subject or f"{event.type} {event.id}", 80)


# -- reviews -----------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Deadline:
    """A deadline in words, and how it looks: `late`, `soon` or `far`."""

    words: str
    tone: str
    at: datetime
    then: str


def deadline_of(review: Review, now: datetime) -> Deadline | None:
    """Until when a review can be decided, and what happens then."""
    if review.deadline is None:
        return None
    left = review.deadline - now
    tone = "late" if left <= timedelta() else "soon" if left < SOON else "far"
    default = (review.default or {}).get("type")
    then = f"then: {line(default)}" if default else "then the run fails"
    return Deadline(when(review.deadline, now), tone, review.deadline, then)


def obstacle(review: Review, name: str, roles: Roles, agreed: Sequence[str] = ()) -> str:
    """Why this person cannot decide it; empty if they can. The decision itself is checked where it is taken."""
    who = person(name)
    if review.approvers and who not in map(person, review.approvers):
        return f"only {_listed(review.approvers)} may decide it"
    try:
        roles.check(review, Decision(type=DecisionType.REJECT, by=name))
    except MayNotDecide as refused:
        return line(refused.why)
    if who in map(person, review.barred):
        return "you asked for it or changed it, so somebody else must decide it"
    if who in map(person, agreed):
        return f"you have agreed already, and {review.people} different people are needed"
    return ""


def asked(review: Review, agreed: Sequence[str] = ()) -> list[str]:
    """Who is asked: people, roles, how many."""
    told = [f"role {role}" for role in review.roles]
    if review.approvers:
        told.append(_listed(review.approvers))
    if review.people > 1:
        told.append(f"{len(agreed)} of {review.people} people have agreed")
    return told


@dataclass(frozen=True)
class Entry:
    """A line of the inbox."""

    item: Item
    about: str
    deadline: Deadline | None
    asked: list[str]
    obstacle: str

    @property
    def review(self) -> Review:
        return self.item.review


def entry(item: Item, now: datetime, name: str, roles: Roles, agreed: Sequence[str]) -> Entry:
    """The line for an open review, as this person sees it."""
    review = item.review
    about = line(item.subject or f"{item.event_type} {item.event_id}", 80)
    return Entry(
        item,
        about,
        deadline_of(review, now),
        asked(review, agreed),
        obstacle(review, name, roles, agreed),
    )


def tool_of(review: Review) -> str:
    """The tool whose call is asked about, for a page."""
    return line(questions.tool_of(review), 120)


def grounds(review: Review) -> list[Mapping[str, Any]]:
    """The verdicts that asked, the first of them the one that is frozen with the review; none where an author asks."""
    if questions.is_authored(review):
        return []
    asks = review.evidence.get("asks")
    found = asks if isinstance(asks, list) and asks else [review.rule] if review.rule else []
    return [verdict for verdict in found if isinstance(verdict, Mapping)]


def evidence(review: Review) -> list[Shown]:
    """What was known when it was asked, for a page."""
    return [shown(name, value) for name, value in questions.evidence(review).items()]


def asked_with(review: Review) -> list[Shown]:
    """What an author's `interrupt(...)` shows to people, for a page."""
    return rows(questions.asked_with(review), WHOLE_ARGUMENT)


def drafts(review: Review) -> Iterator[Shown]:
    """The text that is in question, in full."""
    material = None if questions.is_authored(review) else review.evidence.get("material")
    if material:
        yield shown("What the model read", material, WHOLE_ARGUMENT)


def outcome(review: Review, agreed: Sequence[str]) -> str:
    """What became of a review, in one sentence."""
    decision = review.decision
    if decision is None:
        return f"It is {review.state}: {review.state.meaning}."
    if review.state is ReviewState.EXPIRED:
        return f"The deadline decided: {decision.type}."
    said = {
        DecisionType.APPROVE: "approved",
        DecisionType.EDIT: "approved with changes",
        DecisionType.REJECT: "rejected",
        DecisionType.RESPOND: "answered",
    }[decision.type]
    more = f" {len(agreed)} of {review.people} people have agreed." if _counts(review, decision) else ""
    return f"{line(decision.by)} {said}.{more}"


def _counts(review: Review, decision: Decision) -> bool:
    return review.people > 1 and decision.type is DecisionType.APPROVE


def given(decision: Decision) -> Shown | None:
    """What a decision brought along."""
    value = decision.arguments if decision.type is DecisionType.EDIT else decision.response
    return None if value is None else shown("with", value)


def brief(value: Any) -> str:
    """A JSON value on one line."""
    return compact(value, 200)


def _listed(names: Sequence[str]) -> str:
    return line(", ".join(names), 200)
