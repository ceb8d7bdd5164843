"""Taking events in, one or several at a time: every item answers for itself."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence

from eventwright.app.composition import App
from eventwright.app.web.models import Accepted, AcceptedEvent, RefusedItem
from eventwright.app.web.refusals import logged_problem
from eventwright.app.wire.problems import Problem, ProblemType, Refused
from eventwright.queue.intake import Beside, Receipt
from eventwright.runs.event import Event

#: Our own troubles, for which nobody but time is needed.
_WORTH_ANOTHER_TRY = frozenset({ProblemType.INTERNAL, ProblemType.UNAVAILABLE, ProblemType.TOO_BUSY})


async def take_in_each(
    app: App, items: Sequence[Event | Problem], beside: Callable[[int], Beside] | None = None
) -> list[Receipt | Problem]:
    """What became of each item, in their order.

    Args:
        app: who takes them in.
        items: the events, and why others are none.
        beside: what else is written with the one at this place; see `Intake.receive`.
    """
    answers: dict[int, Receipt | Problem] = {}

    async def in_turn(positions: list[int]) -> None:
        for position in positions:
            with_it = None if beside is None else beside(position)
            answers[position] = await _take_in(app, items[position], with_it)

    # Items of one name are taken one after the other, so that the first is the one that counts.
    turns: dict[object, list[int]] = {}
    for position, item in enumerate(items):
        name = (item.source, item.id) if isinstance(item, Event) else position
        turns.setdefault(name, []).append(position)
    await asyncio.gather(*(in_turn(positions) for positions in turns.values()))
    return [answers[position] for position in range(len(items))]


def answer(
    items: Sequence[Event | Problem], answers: Sequence[Receipt | Problem], *, together: bool = False
) -> Accepted:
    """What the sender of several is told.

    Args:
        items: what it sent.
        answers: what became of each.
        together: the sender reads the status alone, and sends all again or none: our own trouble with one item is
            told for all. Those that are stored are duplicates then.

    Raises:
        Refused: none was accepted, or it is worth another try; with all the answers.
    """
    told = [_item(item, answer) for item, answer in zip(items, answers, strict=True)]
    problems = [answer for answer in answers if isinstance(answer, Problem)]
    trouble = together and any(problem.type in _WORTH_ANOTHER_TRY for problem in problems)
    if trouble or len(problems) == len(told):
        raise Refused(_all_refused(problems, [item for item in told if isinstance(item, RefusedItem)], len(told)))
    return Accepted(events=told)


async def _take_in(app: App, item: Event | Problem, beside: Beside | None) -> Receipt | Problem:
    if isinstance(item, Problem):
        return item
    try:
        return await app.engine.receive(item, beside=beside)
    except Exception as error:  # noqa: BLE001 - each item answers for itself, and a fault of ours is logged
        return logged_problem(error)


def _item(item: Event | Problem, answer: Receipt | Problem) -> AcceptedEvent | RefusedItem:
    if isinstance(answer, Receipt):
        return AcceptedEvent.of(answer)
    named = {"id": item.id, "source": item.source} if isinstance(item, Event) else {}
    return RefusedItem(**named, error=answer.document())


def _all_refused(problems: Sequence[Problem], refused: Sequence[RefusedItem], of: int) -> Problem:
    """The problem of a batch that is not accepted: our own trouble first, for it is worth another try."""
    if not problems:
        return Problem(type=ProblemType.BAD_EVENT, detail="the batch is empty")
    types = [problem.type for problem in problems]
    worst = next((own for own in types if own in _WORTH_ANOTHER_TRY), types[0])
    items = [item.model_dump(exclude_none=True) for item in refused]
    detail = f"{len(items)} of {of} events were not accepted; `events` says why for each"
    waits = [problem.extensions["retry_after"] for problem in problems if "retry_after" in problem.extensions]
    again = {"retry_after": max(waits)} if waits and worst in _WORTH_ANOTHER_TRY else {}
    return Problem(type=worst, detail=detail, extensions={"events": items} | again)
