"""A person's answer on its way: from what stands in the form to a decision, or back to the form with what is wrong."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import unquote

from pydantic import ValidationError

from eventwright.app.inbox.fields import WHOLE, Fields, fields_for_edit, fields_for_response
from eventwright.app.inbox.words import outcome
from eventwright.app.questions import proposed
from eventwright.app.web.access import Principal
from eventwright.app.web.form_posts import Post, in_words
from eventwright.app.web.models import DecisionBody
from eventwright.app.web.refusals import logged_problem
from eventwright.app.wire.strict_json import LIMIT
from eventwright.queue.desk import AlreadyDecided, ReviewClosed, StaleDecision, UnfitDecision
from eventwright.runs.errors import EventwrightError, MayNotDecide
from eventwright.runs.records import Decision, DecisionType, Review

#: What begins the names of the fields of each kind of answer.
PREFIX = {DecisionType.EDIT: "edit:", DecisionType.RESPOND: "respond:"}
#: Where faults go that belong to no field.
ELSEWHERE = ""
_FIRST_WORD = re.compile(r"[^\s:.\[]+")


class Unanswered(EventwrightError, ValueError):
    """What stands in the form is no answer yet: `faults` by field."""

    def __init__(self, faults: Mapping[str, str]) -> None:
        self.faults = faults
        super().__init__("something has to be changed in the form")


@dataclass(frozen=True)
class Written:
    """What stands in the forms of a review's page.

    Attributes:
        type: the answer that was chosen; None on a page that nobody has answered.
        digest: of what the page showed.
        texts: what is written in the fields, by answer and name.
    """

    type: DecisionType | None = None
    digest: str = ""
    comment: str = ""
    texts: Mapping[DecisionType, Mapping[str, str]] = field(default_factory=dict)

    @classmethod
    def of(cls, post: Post) -> Written:
        """From what came in. Another type than there is is none."""
        known = {each.value: each for each in DecisionType}
        values = {name: text for name, text in post.values.items() if isinstance(text, str)}
        texts = {
            answer: {
                unquote(name.removeprefix(prefix)): text for name, text in values.items() if name.startswith(prefix)
            }
            for answer, prefix in PREFIX.items()
        }
        return cls(known.get(values.get("type", "")), values.get("digest", ""), values.get("comment", ""), texts)

    def decision(self, review: Review, by: Principal) -> Decision:
        """The decision that it says. Raises Unanswered."""
        if self.type is None:
            raise Unanswered({ELSEWHERE: "Please choose an answer."})
        if self.type is not DecisionType.RESPOND and self.has_written(review, DecisionType.RESPOND):
            raise Unanswered({ELSEWHERE: f"You wrote an answer. Send it, or empty its fields to {self.type}."})
        if self.type not in (DecisionType.EDIT, DecisionType.REJECT) and self.has_written(review, DecisionType.EDIT):
            told = "You changed what is proposed. Approve with these changes, or put it back as it was"
            raise Unanswered({ELSEWHERE: f"{told} to {self.type}."})
        body: dict[str, Any] = {"type": self.type, "comment": self.comment.strip() or None, "digest": self.digest}
        if self.type in PREFIX:
            value, faults = fields_of(review, self.type).read(self.texts.get(self.type, {}))
            if faults:
                raise Unanswered(faults)
            body["arguments" if self.type is DecisionType.EDIT else "response"] = value
        try:
            said = DecisionBody.model_validate(body)
        except ValidationError as error:
            found = error.errors(include_url=False, include_input=False)
            raise Unanswered(
                {ELSEWHERE: f"{found[0]['loc'][0] if found[0]['loc'] else 'answer'}: {in_words(found[0])}"}
            ) from error
        return said.decision(by.name, verified=by.verified)

    def has_written(self, review: Review, answer: DecisionType) -> bool:
        """Whether something else stands in the fields of this answer than what stood there at first."""
        fields = fields_of(review, answer) if answer in review.allowed else Fields(())
        proposed = {one.name: one.text for one in fields.items}
        empty_counts = answer is DecisionType.EDIT
        return any(
            (empty_counts or text.strip()) and text != proposed.get(name, text)
            for name, text in self.texts.get(answer, {}).items()
        )


def offered(review: Review) -> list[DecisionType]:
    """The answers that the page takes. An edit is one where what is proposed fits into a post: the page sends it along
    with every answer."""
    size = sum(len(one.text) for one in fields_of(review, DecisionType.EDIT).items)
    return [answer for answer in review.allowed if answer is not DecisionType.EDIT or size <= LIMIT // 4]


def fields_of(review: Review, answer: DecisionType) -> Fields:
    """The fields of an answer to this review; none for a plain yes or no."""
    if answer is DecisionType.EDIT:
        return fields_for_edit(review.arguments, review.response_schema)
    if answer is DecisionType.RESPOND:
        return fields_for_response(review.response_schema, proposed(review))
    return Fields(())


@dataclass(frozen=True)
class Trouble:
    """Why an answer was not taken, as the page says it.

    Attributes:
        faults: what has to be changed, by field.
        links: where to go on, addresses by words.
    """

    status: int
    title: str
    text: str
    faults: Mapping[str, str] = field(default_factory=dict)
    links: Mapping[str, str] = field(default_factory=dict)


def trouble_of(error: EventwrightError, review: Review, written: Written) -> Trouble:
    """Why an answer was not taken. Nothing was decided in any of these."""
    if isinstance(error, Unanswered):
        return Trouble(422, "Please look at this again", "", error.faults)
    problem = logged_problem(error)
    match error:
        case UnfitDecision():
            return Trouble(422, "Please look at this again", "", _faults(error, review, written))
        case AlreadyDecided():
            links = {"The next person is asked here": _address(error.open)} if error.open else {}
            return Trouble(
                409, "Somebody was faster", f"Your answer was not taken. {outcome(error.review, ())}", links=links
            )
        case StaleDecision():
            text = "What it asks has changed since you opened this page. Please read it again before you answer."
            return Trouble(409, "This has changed", text)
        case ReviewClosed():
            return Trouble(410, "It takes no answer any more", _closed(error), links=_newer(error))
        case MayNotDecide():
            return Trouble(403, "Somebody else must decide this", f"You are {error.by}: {error.why}.")
    text = f"Nothing was decided: {problem.detail or problem.title}"
    return Trouble(problem.status, "This did not work", text)


def _closed(error: ReviewClosed) -> str:
    taken = " Newer input came, and another run has taken the place of this one." if error.newer else ""
    return f"Your answer was not taken. {outcome(error.review, ())}{taken}"


def _newer(error: ReviewClosed) -> dict[str, str]:
    links = {"The newer run": f"/inbox/runs/{error.newer}"} if error.newer else {}
    return links | {f"It asks: {review.question[:80]}": _address(review) for review in error.open[:5]}


def _address(review: Review) -> str:
    return f"/inbox/reviews/{review.id}"


def _faults(error: UnfitDecision, review: Review, written: Written) -> dict[str, str]:
    """What is wrong with an answer, beside the fields that it is about."""
    fields = fields_of(review, written.type) if written.type else Fields(())
    names = {one.name for one in fields.items}
    faults: dict[str, list[str]] = {}
    for name, words in _found(error):
        at = WHOLE if fields.alone else name if name in names else ELSEWHERE
        faults.setdefault(at, []).append(words if at == name else f"{name}: {words}" if name else words)
    return {name: " ".join(words) for name, words in faults.items()}


def _found(error: UnfitDecision) -> list[tuple[str, str]]:
    cause = error.__cause__
    if isinstance(cause, ValidationError):
        found = cause.errors(include_url=False, include_input=False)[:20]
        return [(str(one["loc"][0]) if one["loc"] else "", in_words(one)) for one in found]
    where, colon, words = error.problem.partition(": ")
    first = _FIRST_WORD.match(where if colon else error.problem)
    told = words if colon else error.problem
    return [(first[0] if first else "", told[:1].upper() + told[1:])]
