"""A button in Slack that answers a review: whoever clicks decides, in the name under which Slack signed the click.

The message with the button is somebody else's to post. The button's `action_id` is `eventwright.decision`, or begins so
with a point behind it, since Slack wants it to be unique in its block; its value is JSON, see `Button`.
"""

from __future__ import annotations

from typing import Any, Literal

from pydantic import Field, ValidationError

from eventwright.app.composition import App
from eventwright.app.web.models import Body
from eventwright.app.wire.problems import ProblemType, problem_of
from eventwright.app.wire.strict_json import parse
from eventwright.queue.webhook_providers import Click
from eventwright.runs.errors import EventwrightError
from eventwright.runs.records import Decision, DecisionType

#: Troubles of ours, after which the same click is worth another try: Slack itself says that it failed.
_OURS = frozenset({ProblemType.INTERNAL, ProblemType.UNAVAILABLE, ProblemType.TOO_BUSY})


class Button(Body):
    """The value of a button. An edit needs more than a click."""

    review: str = Field(max_length=64)
    type: Literal["approve", "reject", "respond"]
    #: Of what the message shows: when something else stands there by now, the click decides nothing.
    digest: str = Field(max_length=64)
    response: Any = None


async def decide_by_click(app: App, click: Click) -> str:
    """Decide the review that the button names, and say what became of it.

    Raises:
        EventwrightError: the trouble is ours; nothing was decided, as far as we know.
    """
    try:
        button = Button.model_validate(parse(click.value.encode()))
    except (EventwrightError, ValidationError):
        return "Nothing was decided: the button does not say what it decides, as {review, type, digest}."
    decision = Decision(type=DecisionType(button.type), by=click.by, verified=True, response=button.response)
    try:
        review = await app.engine.decide(button.review, decision, digest=button.digest)
    except EventwrightError as error:
        problem = problem_of(error)
        if problem.type in _OURS:
            raise
        return f"Nothing was decided: {problem.detail or problem.title}"
    return f"Noted: {button.type}, by {click.by}. The question was: {review.question}"
