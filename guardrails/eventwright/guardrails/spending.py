"""Stage 5, budgets: what a call takes is reserved with its intent, and a budget that has too little left ends the call
in the way that its author designed."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, assert_never

from eventwright.guardrails import ledger
from eventwright.guardrails.budgets import Uncountable, midnight_after, reservations
from eventwright.guardrails.plan import Plan
from eventwright.guardrails.request import Request
from eventwright.guardrails.verdicts import OverBudget, Postponed, Stage, Verdict, VerdictKind
from eventwright.runs.errors import BudgetExceeded
from eventwright.runs.failpoints import Failpoint, failpoint
from eventwright.runs.records import DecisionType
from eventwright.tools.building import Models
from eventwright.tools.chat_models import chat
from eventwright.tools.models import Estimate

if TYPE_CHECKING:
    from eventwright.guardrails.gate import Gate


async def spend(gate: Gate, request: Request, asked: Request) -> Any:
    """Make the call within its budgets. See `ledger.perform`.

    Raises:
        OverBudget: a budget has too little left, and ends in a refusal or in prepared content.
        Paused: a person is asked whether it may be exceeded.
        Postponed: the run waits until the budget's next day.
    """
    plan = await _planned(gate, request, Plan())
    while True:
        try:
            return await ledger.perform(gate.segment, request, asked, plan)
        except BudgetExceeded as exceeded:
            plan = await _planned(gate, request, await _beyond(gate, request, plan, exceeded))


async def _planned(gate: Gate, request: Request, plan: Plan) -> Plan:
    """What the call takes of every budget that counts it. A call that nobody can count is refused."""
    segment = gate.segment
    owners = {request.node: request.policy.budgets, None: segment.setting.budgets}
    if not any(owners.values()) or Stage.BUDGETS not in segment.setting.stages:
        return plan
    now, estimate = await segment.store.now(), _estimate(gate, request, economy=plan.economy)
    try:
        taken = [
            each
            for node, budgets in owners.items()
            for each in reservations(
                budgets,
                run=segment.run,
                node=node,
                tool=request.tool,
                arguments=request.validated,
                estimate=estimate,
                now=now,
            )
        ]
    except Uncountable as error:
        verdict = Verdict(kind=VerdictKind.DENY, stage=Stage.BUDGETS, rule="budgets", reason=str(error))
        raise await gate.denial(request.tool, verdict, OverBudget) from error
    failpoint(Failpoint.BUDGET_PLANNED)
    return plan.taking(taken)


async def _beyond(gate: Gate, request: Request, plan: Plan, exceeded: BudgetExceeded) -> Plan:
    """How the call goes on although a budget has too little left for it, or why it does not."""
    budget = plan.budget(exceeded.scope)
    verdict = Verdict(
        kind=VerdictKind.ASK if budget.then == "person" else VerdictKind.DENY,
        stage=Stage.BUDGETS,
        rule=budget.describe(),
        reason=f"{exceeded.wanted:f} more is above {exceeded.label}: {exceeded.used:f} of {exceeded.most:f} are used",
        inputs={"used": str(exceeded.used), "wanted": str(exceeded.wanted), "most": str(exceeded.most)},
    )
    match budget.then:
        case "deny" | "fallback":
            raise await gate.denial(request.tool, verdict, OverBudget) from exceeded
        case "tomorrow":
            await gate.denial(request.tool, verdict)
            raise Postponed(midnight_after(await gate.segment.store.now()))
        case "cheaper":
            return plan.beyond(exceeded.scope, economy=True)
        case "person":
            await _allowed(gate, request, verdict)
            return plan.beyond(exceeded.scope)
        case _:
            assert_never(budget.then)


async def _allowed(gate: Gate, request: Request, verdict: Verdict) -> None:
    """Wait for a person to let this exact call exceed the budget."""
    reviews = gate.segment.take_reviews(request.digest, request.key, stage=Stage.BUDGETS)
    if not reviews:
        for review in request.reviews:
            # Another question, though about the same call: who has answered the first may answer it as well.
            await gate.use_up(review, request.key)
        answers = [review.decision for review in request.reviews if review.decision is not None]
        editors = [answer.by for answer in answers if answer.type is DecisionType.EDIT]
        await gate.ask(request, [verdict], barred=editors, exact=True)
    await gate.agreed(request, reviews)
    for review in reviews:
        await gate.use_up(review, request.key)


def _estimate(gate: Gate, request: Request, *, economy: bool) -> Estimate | None:
    """The most that a model's answer can come to; None for any other tool, and for a question that nobody can weigh."""
    if not request.tool.advises:
        return None
    models, asked = Models.of(gate.segment.resources), request.validated
    if request.tool is chat:
        # What a model that the author brought along may answer, and costs, nobody here knows.
        return None if asked.own else models.estimate_chat(asked.size, economy=economy)  # type: ignore[attr-defined]
    return models.estimate(asked.question, economy=economy)  # type: ignore[attr-defined]
