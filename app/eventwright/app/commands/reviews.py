"""The command line about questions to people: `reviews`, `decide`."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from eventwright.app.commands.console import AsJson, By, Yes, perform, show, show_json, sure
from eventwright.app.commands.runs import LOOK
from eventwright.app.commands.session import opened, whoami, whole_id
from eventwright.runs.records import Decision, DecisionType, Review, ReviewState

if TYPE_CHECKING:
    from eventwright.app.composition import App

app = typer.Typer()


@app.command(rich_help_panel=LOOK)
def reviews(
    state: Annotated[ReviewState, typer.Option(help="Questions in this state.")] = ReviewState.OPEN,
    limit: Annotated[int, typer.Option(min=1, max=1000, help="How many, the oldest first.")] = 20,
    as_json: AsJson = False,
) -> None:
    """List what people are asked.

    The oldest first, each question with the exact commands that answer it.

      [cyan]eventwright reviews[/]
      [cyan]eventwright reviews --state decided --json[/]

    Next: [cyan]eventwright decide REVIEW approve[/].
    """

    async def work() -> None:
        async with opened() as app:
            found = await app.store.reviews(state=state, limit=limit + 1)
            await _show_reviews(app, found, limit, as_json=as_json)

    perform(work(), as_json=as_json)


async def _show_reviews(app: App, found: list[Review], limit: int, *, as_json: bool) -> None:
    from eventwright.app.commands.screens import reviews_screen
    from eventwright.app.web.models import Review as Answer
    from eventwright.app.web.models import ReviewPage

    page = found[:limit]
    agreed = await app.store.agreed(page)
    if as_json:
        items = [Answer.of(review, agreed.get(review.id, ())) for review in page]
        show_json(ReviewPage(items=items, next=page[-1].id if len(found) > limit else None))
    else:
        show(reviews_screen(page, await app.store.now(), more=len(found) > limit, agreed=agreed))


@app.command(rich_help_panel=LOOK)
def decide(
    review: Annotated[str, typer.Argument(metavar="REVIEW", help="A review's id, or its beginning or end.")],
    answer: Annotated[
        DecisionType, typer.Argument(metavar="ANSWER", help="What you say; the review tells what it allows.")
    ],
    arguments: Annotated[
        str | None, typer.Option(metavar="JSON", help="With edit: all arguments as they shall be, or @FILE.")
    ] = None,
    response: Annotated[str | None, typer.Option(metavar="JSON", help="With respond: the answer, or @FILE.")] = None,
    comment: Annotated[str | None, typer.Option(help="Why, for whoever reads the record.")] = None,
    by: By = None,
    yes: Yes = False,
    as_json: AsJson = False,
) -> None:
    """Answer a question.

    One answer wins and is final. On a terminal you see what it is about and
    are asked back. Where several people must agree, each of them answers one
    of the questions about the call; one no is enough.

      [cyan]eventwright decide 8b21d0aa approve[/]
      [cyan]eventwright decide 8b21d0aa reject --comment "not within 30 days"[/]
      [cyan]eventwright decide 8b21d0aa edit --arguments @arguments.json[/]
      [cyan]eventwright decide 8b21d0aa respond --response refund --by ann --yes[/]

    Next: [cyan]eventwright run RUN[/] shows the run go on.
    """
    _fits(answer, DecisionType.EDIT, "--arguments", arguments)
    _fits(answer, DecisionType.RESPOND, "--response", response)

    async def work() -> None:
        async with opened() as app:
            asked = await app.store.review(await whole_id(app.store, "review", review))
            given: dict[str, Any] = {"type": answer, "comment": comment}
            if arguments is not None:
                given["arguments"] = _json("--arguments", _text(arguments))
            if response is not None:
                given["response"] = _response(_text(response), asked.response_schema)
            decision = _decision(given, whoami(by))
            if asked.state is ReviewState.OPEN and not (yes or as_json):
                await _ask_back(app, asked, decision)
            # What was shown is what is decided about: if it changed meanwhile, the digest gives it away.
            decided = await app.engine.decide(asked.id, decision, digest=asked.digest)
            agreed = (await app.store.agreed([decided])).get(decided.id, ())
            _show_decided(decided, agreed, as_json=as_json)

    perform(work(), as_json=as_json)


async def _ask_back(app: App, asked: Review, decision: Decision) -> None:
    from eventwright.app.commands.screens import review_screen
    from eventwright.app.commands.telling import compact

    if not (sys.stdin.isatty() and sys.stdout.isatty()):
        return
    agreed = (await app.store.agreed([asked])).get(asked.id, ())
    show(review_screen(asked, await app.store.now(), with_answers=False, agreed=agreed))
    given = decision.arguments if decision.type is DecisionType.EDIT else decision.response
    said = "" if given is None else f" {compact(given)}"
    sure(f"\n{decision.type}{said}, as {decision.by}?", yes=False)


def _show_decided(decided: Review, agreed: Sequence[str], *, as_json: bool) -> None:
    from eventwright.app.commands.screens import decided_screen
    from eventwright.app.web.models import Review as Answer

    if as_json:
        show_json(Answer.of(decided, agreed))
    else:
        show(decided_screen(decided, agreed))


def _fits(answer: DecisionType, kind: DecisionType, option: str, given: str | None) -> None:
    """An option goes with one kind of answer, which cannot do without it."""
    if (answer is kind) != (given is not None):
        needs = f"{kind} needs {option}" if given is None else f"{option} goes with {kind}, not with {answer}"
        raise typer.BadParameter(needs, param_hint=option)


def _text(given: str) -> str:
    """The option's text, or that of the file it names."""
    if not given.startswith("@"):
        return given
    try:
        return Path(given[1:]).read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise typer.BadParameter(f"{given[1:]} cannot be read: {error}") from error


def _decision(given: dict[str, Any], by: str) -> Decision:
    """The decision, held to what the API takes."""
    from pydantic import ValidationError

    from eventwright.app.web.models import DecisionBody

    try:
        body = DecisionBody.model_validate(given)
    except ValidationError as error:
        first = error.errors(include_url=False, include_input=False)[0]
        where = f"--{first['loc'][0]}" if first["loc"] else None
        raise typer.BadParameter(first["msg"], param_hint=where) from error
    return Decision(type=body.type, by=by, arguments=body.arguments, response=body.response, comment=body.comment)


def _response(text: str, schema: dict[str, Any] | None) -> Any:
    """The answer as JSON. Where a text is wanted, it needs no quotes."""
    stripped = text.strip()
    if (schema or {}).get("type") == "string" and not stripped.startswith('"'):
        return stripped
    if schema is None and not stripped.startswith(('"', "{", "[")):
        try:
            return _json("--response", stripped)
        except typer.BadParameter:
            return stripped
    return _json("--response", stripped)


def _json(option: str, text: str) -> Any:
    from eventwright.app.wire.strict_json import BadJSON, parse

    try:
        return parse(text.encode())
    except (BadJSON, UnicodeEncodeError) as error:
        raise typer.BadParameter(str(error), param_hint=option) from error
