"""Budgets: how much calls may use, and what becomes of the call that wants more than is left.

    Budget("amount", "500", per="day", of=payments.refund, by=("account", "currency"), then="tomorrow")

counts the refunds of one account in one currency on one day. A budget in a node's policy counts that node's calls, one
of a workflow the calls of all its nodes. What a call takes is reserved in the store before it is made:

    reservations(budgets, *, run, node, tool, arguments, estimate, now) -> list[tuple[Budget, Reservation]]
    actual(reserved, *, tokens, cost) -> dict[str, Decimal]
    midnight_after(now) -> datetime
    tx.reserve(run_id, effect_key, [reservation, ...], node=...)      raises BudgetExceeded at the commit
    tx.settle(run_id, effect_key, {reservation.budget: Decimal}, node=...)
    tx.release(run_id, effect_key, node=...)
"""

from __future__ import annotations

import unicodedata
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from decimal import ROUND_CEILING, Decimal, InvalidOperation
from functools import cached_property, lru_cache
from typing import Any, Literal, NamedTuple, assert_never

from pydantic import BaseModel
from pydantic_core import to_jsonable_python

from eventwright.guardrails.text import clean
from eventwright.runs.errors import EventwrightError
from eventwright.runs.event import canonical, digest_of
from eventwright.runs.records import SMALLEST, Reservation, Run, countable
from eventwright.tools.contract import Role, Tool
from eventwright.tools.models import Estimate

Period = Literal["run", "workflow", "day"]
Then = Literal["deny", "person", "tomorrow", "fallback", "cheaper"]

#: Since when a budget counts.
PERIODS: Mapping[Period, str] = {
    "run": "per run",
    "workflow": "over all runs of the workflow",
    "day": "per day (UTC)",
}
#: What becomes of the call that wants more than is left. Of several budgets the first in this order decides.
ENDS: Mapping[Then, str] = {
    "deny": "the call is denied",
    "person": "a person decides whether it may be exceeded",
    "tomorrow": "the run waits until the next day",
    "fallback": "prepared content stands in for the model",
    "cheaper": "a cheaper model is asked",
}
#: The place of each end in that order.
HARSHNESS: Mapping[Then, int] = {end: place for place, end in enumerate(ENDS)}
#: What every budget may count, beside the amounts of its tool.
COUNTED = ("calls", "tokens", "cost")
#: Characters of a value that stand in a label.
SHOWN = 60


class BadBudget(EventwrightError, ValueError):
    """A budget's declaration contradicts itself or its tool."""


class Uncountable(EventwrightError, ValueError):
    """Nobody can say how much of a budget a call would take, so it is not made."""


@dataclass(frozen=True)
class Budget:
    """How much calls may use.

    Args:
        what: `calls` (a call counts once, also when it fails or is repeated; a model each time that it is asked),
            `tokens` or `cost` of models, or the name of an argument of `of` that is an amount.
        most: what all of it together may come to; a Decimal or a string where it is not whole.
        per: since when it is counted: for each `run`, for all runs of the `workflow`, or for each `day` (UTC).
        of: the only tool that is counted; by default every tool, for tokens and cost every model.
        by: arguments of `of`, each of whose values has a budget of its own; texts that differ only in case, spaces or
            invisible characters are one value.
        then: what becomes of the call that wants more than is left, one of `ENDS`. `fallback` is for judgements
            (`classify`, `choose`, `draft`), whose node has a `Policy(fallback=...)`; any other call is denied.

    Raises:
        BadBudget: it could not be kept, or not be understood.
    """

    what: str
    most: Decimal | int | str
    per: Period = "run"
    of: Tool | None = None
    by: str | Sequence[str] = ()
    then: Then = "deny"

    def __post_init__(self) -> None:
        object.__setattr__(self, "by", (self.by,) if isinstance(self.by, str) else tuple(self.by))
        object.__setattr__(self, "most", self._most())
        problem = next(self._problems(), None)
        if problem is not None:
            raise BadBudget(f"Budget({self.what!r}, ...): {problem}")

    @cached_property
    def limit(self) -> Decimal:
        """What all of it together may come to."""
        return Decimal(self.most)

    @cached_property
    def argument(self) -> str | None:
        """The argument of `of` that is added up, if it counts an amount."""
        tool = self.of
        counts_model = tool is None or tool.advises
        return None if self.what == "calls" or (self.what in COUNTED and counts_model) else self.what

    @property
    def counts_models(self) -> bool:
        """Whether it counts calls of models alone."""
        return self.argument is None and (self.what in ("tokens", "cost") or (self.of is not None and self.of.advises))

    def _most(self) -> Decimal:
        if isinstance(self.most, bool) or not isinstance(self.most, Decimal | int | str):
            raise BadBudget(
                f"Budget({self.what!r}, ...): most is a whole number, a Decimal or a string like '12.50', "
                f"not {self.most!r}"
            )
        try:
            return countable(Decimal(self.most))
        except InvalidOperation:
            raise BadBudget(f"Budget({self.what!r}, ...): most={self.most!r} is no number") from None
        except ValueError as error:
            raise BadBudget(f"Budget({self.what!r}, ...): most={self.most!r}: {error}") from None

    def _problems(self) -> Iterator[str]:
        if self.per not in PERIODS:
            yield f"per= is one of {', '.join(PERIODS)}, not {self.per!r}"
        if self.then not in ENDS:
            yield f"then= is one of {', '.join(ENDS)}, not {self.then!r}"
        if self.limit == 0:
            yield "most is above 0; what may never happen is left out of the policy's tools"
        if self.of is not None and not isinstance(self.of, Tool):
            yield f"of= is a tool made by @tool, not {self.of!r}"
        yield from self._problems_of_what()
        if self.then in ("fallback", "cheaper") and not self.counts_models:
            yield f"then={self.then!r} is for budgets that count models: tokens, cost, or calls of=ask_model"
        if self.then == "tomorrow" and self.per != "day":
            yield "then='tomorrow' needs per='day': tomorrow there would not be more left"
        known = () if self.of is None else self.of.arguments.model_fields
        for name in self.by:
            if name not in known:
                has = f"{self.of.name} has: {', '.join(known)}" if self.of else "say which tool's with of="
                yield f"by= names arguments of the tool, {name!r} is none; {has}"

    def _problems_of_what(self) -> Iterator[str]:
        if self.argument is None:
            if self.what in ("calls", "tokens") and self.limit % 1:
                yield f"{self.what} are whole, most={self.limit:f} is not"
            return
        roles = {} if self.of is None else self.of.roles
        amounts = [name for name, role in roles.items() if role is Role.AMOUNT]
        if self.argument not in amounts:
            kinds = ", ".join(COUNTED)
            if self.of is None:
                yield f"it counts {kinds}, or an amount of a tool, which of= must name"
            else:
                has = f"{self.of.name} has: {', '.join(amounts) or 'none'}"
                yield f"it counts {kinds}, or an argument marked Role.AMOUNT; {has}"

    def describe(self) -> str:
        """What it allows, and what comes then, in words."""
        by = f", for each {' and '.join(self.by)}" if self.by else ""
        return f"at most {self.limit:f} {self._counted()} {PERIODS[self.per]}{by}; then {ENDS[self.then]}"

    def _counted(self) -> str:
        return self.what if self.of is None else f"{self.of.name} {self.what}"

    def counts(self, tool: Tool) -> bool:
        """Whether it counts calls of this tool."""
        if self.of is not None:
            return self.of is tool
        return tool.advises or not self.counts_models


def reservations(
    budgets: Sequence[Budget],
    *,
    run: Run,
    node: str | None,
    tool: Tool,
    arguments: BaseModel,
    estimate: Estimate | None,
    now: datetime,
) -> list[tuple[Budget, Reservation]]:
    """What a call takes of each of these budgets.

    Args:
        node: the node in whose policy the budgets are; None for those of the whole workflow.
        arguments: of the call, validated.
        estimate: what a model takes at most; None where no model is called.
        now: the store's time.

    Raises:
        Uncountable: a price is missing, an amount is not given, or it is none that can be added up.
    """
    return [
        (budget, _reservation(budget, run, node, arguments, estimate, now)) for budget in budgets if budget.counts(tool)
    ]


def _reservation(
    budget: Budget, run: Run, node: str | None, arguments: BaseModel, estimate: Estimate | None, now: datetime
) -> Reservation:
    period, tool = _period(budget.per, run, now), budget.of and budget.of.name
    try:
        by, shown = _apart(budget, arguments) if budget.by else ((), "")
        names = _names(period, run.workflow, node, budget.what, budget.per, tool, budget.then, by, shown)
        return Reservation(
            scope=names.scope,
            budget=names.budget,
            label=names.label,
            amount=_amount(budget, arguments, estimate),
            most=budget.limit,
            # Who tries again and again does not get more calls by failing.
            spent=budget.what == "calls",
        )
    except Uncountable:
        raise
    except ValueError as error:
        raise Uncountable(f"{budget._counted()} cannot be counted: {error}") from error


def _apart(budget: Budget, arguments: BaseModel) -> tuple[tuple[tuple[str, bytes], ...], str]:
    """The values that have a budget each: as they are told apart, and for people. Raises ValueError."""
    given = {name: getattr(arguments, name, None) for name in budget.by}
    told = tuple((name, canonical(_folded(to_jsonable_python(value)))) for name, value in given.items())
    return told, " ".join(f"{name}={_shown(value)}" for name, value in given.items())


def _period(per: Period, run: Run, now: datetime) -> str:
    match per:
        case "run":
            return run.id
        case "workflow":
            return "all runs"
        case "day":
            return f"day {now.astimezone(UTC):%Y-%m-%d}"
        case _:
            assert_never(per)


class _Names(NamedTuple):
    """How the store knows a budget, and its count since the period began; and how people do."""

    budget: str
    scope: str
    label: str


@lru_cache(maxsize=4096)
def _names(
    period: str,
    workflow: str,
    node: str | None,
    what: str,
    per: Period,
    tool: str | None,
    # Two limits with different ends, one to ask at and one to stop at, are counted each by itself.
    then: Then,
    by: tuple[tuple[str, bytes], ...],
    shown: str,
) -> _Names:
    """Most calls take from a budget that others took from: its names are the same."""
    budget = digest_of([workflow, node, what, per, tool, then, [[name, value.decode()] for name, value in by]])
    place = workflow if node is None else f"{workflow} / {node}"
    counted = what if tool is None else f"{tool} {what}"
    return _Names(budget, digest_of([budget, period]), " · ".join(filter(None, (period, place, counted, shown))))


def _amount(budget: Budget, arguments: BaseModel, estimate: Estimate | None) -> Decimal:
    """What the call takes. Raises Uncountable."""
    if budget.argument is not None:
        return _number(budget, getattr(arguments, budget.argument, None))
    if budget.what == "calls":
        return Decimal(1)
    if estimate is None:
        raise Uncountable(f"nobody can say how many {budget.what} the call takes, and a budget counts them")
    if budget.what == "tokens":
        return Decimal(estimate.tokens)
    if estimate.cost is None:
        raise Uncountable(f"there is no price for {estimate.model}, and a budget counts its cost; add it to the prices")
    return estimate.cost.quantize(SMALLEST, ROUND_CEILING)


def _number(budget: Budget, value: Any) -> Decimal:
    """An amount as it was given. Raises Uncountable."""
    if isinstance(value, float):
        value = Decimal(repr(value))
    if isinstance(value, bool) or not isinstance(value, Decimal | int):
        raise Uncountable(f"{budget._counted()} is counted, and this call gives {value!r} for it")
    return Decimal(value)


def _folded(value: Any) -> Any:
    """The value by which a budget is told from another: who writes a name differently does not get a second one."""
    return " ".join(unicodedata.normalize("NFKC", clean(value)).casefold().split()) if isinstance(value, str) else value


def _shown(value: Any) -> str:
    text = " ".join(clean(str(to_jsonable_python(value))).split())
    return text if len(text) <= SHOWN else f"{text[: SHOWN - 1]}…"


def actual(
    reserved: Sequence[tuple[Budget, Reservation]], *, tokens: int | None, cost: Decimal | None
) -> dict[str, Decimal]:
    """What a model's answer really took, by `Reservation.budget`, for `tx.settle`.

    Args:
        reserved: what was reserved for the call.
        tokens: read and written; None or 0 where the provider does not say, then all is spent as reserved.
        cost: None where nobody knows.
    """
    if not tokens:
        return {}
    spent = {"tokens": Decimal(tokens)} | ({} if cost is None else {"cost": cost.quantize(SMALLEST, ROUND_CEILING)})
    return {
        reservation.budget: spent[budget.what]
        for budget, reservation in reserved
        if budget.argument is None and budget.what in spent
    }


def midnight_after(now: datetime) -> datetime:
    """When the budgets of the day after `now` begin, in UTC."""
    return datetime.combine(now.astimezone(UTC).date() + timedelta(days=1), datetime.min.time(), UTC)
