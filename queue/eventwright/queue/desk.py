"""The desk: a person's answer is checked against what was asked, and exactly one answer wins."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

from jsonschema import Draft202012Validator

from eventwright.graphs.workflow import UnknownWorkflow, Workflows
from eventwright.guardrails.middleware import Asked
from eventwright.guardrails.request import brief, validate
from eventwright.guardrails.rules import Facts
from eventwright.guardrails.segment import records_of
from eventwright.guardrails.stages import unfit_argument
from eventwright.runs.errors import DecisionRefused, EventwrightError, MayNotDecide
from eventwright.runs.event import canonical
from eventwright.runs.failpoints import Failpoint, failpoint
from eventwright.runs.flows import taken_by
from eventwright.runs.records import Decision, DecisionType, Review, ReviewKind, ReviewState, Run
from eventwright.runs.roles import NO_ROLES, Roles
from eventwright.runs.store import Store
from eventwright.tools.contract import Tool


class AlreadyDecided(EventwrightError, ValueError):
    """Somebody else was first. `review.decision` says who, and what; `open` is the review that asks the next person."""

    def __init__(self, review: Review, open: Review | None = None) -> None:
        self.review, self.open = review, open
        by = review.decision.by if review.decision else "somebody"
        what = review.decision.type if review.decision else "decided"
        more = f"; of {review.people} people the next one is asked by review {open.id}, decide that" if open else ""
        super().__init__(f"review {review.id} was decided already: {by} said {what}{more}")


class StaleDecision(EventwrightError, ValueError):
    """The answer was given to something else than what stands there now."""

    def __init__(self, review: Review, digest: str) -> None:
        self.review, self.digest = review, digest
        super().__init__(
            f"the answer is about {digest}, but review {review.id} is about {review.digest}; look at it again"
        )


class ReviewClosed(EventwrightError, ValueError):
    """The review expired, was superseded, or its run was cancelled. Where a newer run has taken the place of its own,
    `newer` is that run's id, and `open` its open reviews."""

    def __init__(self, review: Review, newer: str | None = None, open: Sequence[Review] = ()) -> None:
        self.review, self.newer, self.open = review, newer, tuple(open)
        more = (
            "" if newer is None else f"; newer input came, and run {newer} has taken the place of run {review.run_id}"
        )
        asks = f": it asks by review {', '.join(one.id for one in open)}" if open else ""
        super().__init__(f"review {review.id} is {review.state}: {review.state.meaning}{more}{asks}")


class UnfitDecision(EventwrightError, ValueError):
    """The answer does not fit the question: a type that is not offered, arguments or a response that are not valid."""

    def __init__(self, review: Review, problem: str) -> None:
        self.review, self.problem = review, problem
        super().__init__(f"the answer does not fit review {review.id}: {problem}")


class Desk:
    """Takes decisions.

    Args:
        store: where they are kept.
        workflows: whose tools check edited arguments.
        roles: who has which.
    """

    def __init__(self, store: Store, workflows: Workflows, roles: Roles = NO_ROLES) -> None:
        self._store = store
        self._workflows = workflows
        self._roles = roles

    async def decide(self, review_id: str, decision: Decision, *, digest: str | None = None) -> Review:
        """Commit the decision and make the run due. The same answer by the same principal again changes nothing.

        Raises:
            UnknownReview, AlreadyDecided, StaleDecision, ReviewClosed, UnfitDecision.
            MayNotDecide: it takes somebody else; the review stays open.
            StoreUnavailable: nothing was decided.
        """
        review = await self._store.review(review_id)
        if digest is not None and digest != review.digest:
            raise StaleDecision(review, digest)
        if review.state is not ReviewState.OPEN:
            return await self._answer_again(review, decision)
        self._roles.check(review, decision)
        run = await self._store.run(review.run_id)
        self._check(review, decision, run.version)
        if decision.type is DecisionType.EDIT:
            await self._check_rules(review, decision.arguments or {}, run)
        failpoint(Failpoint.DESK_DECIDING)
        try:
            async with self._store.write() as tx:
                tx.decide(review, decision)
                tx.make_due(review.run_id)
                tx.wake(review.run_id, lane=run.lane)
        except DecisionRefused:
            return await self._answer_again(await self._closed(review_id), decision)
        except MayNotDecide:
            # Of several people one may send the same answer twice at once: the second comes upon their own vote.
            now = await self._store.review(review_id)
            if now.state is ReviewState.OPEN:
                raise
            return await self._answer_again(now, decision)
        failpoint(Failpoint.DESK_DECIDED)
        return await self._store.review(review_id)

    async def expire(self, review_id: str) -> None:
        """The deadline passed: its default action is the decision, in the deadline's name.

        A deadline is none of several people: where they must agree, it can only reject.
        """
        review = await self._store.review(review_id)
        default = (review.default or {"type": DecisionType.REJECT})["type"]
        decision = Decision(
            type=DecisionType(default) if review.people == 1 else DecisionType.REJECT,
            by="deadline",
            verified=True,
            comment=f"nobody answered by {review.deadline:%Y-%m-%d %H:%M} UTC" if review.deadline else None,
        )
        run = await self._store.run(review.run_id)
        failpoint(Failpoint.DESK_EXPIRING)
        try:
            async with self._store.write() as tx:
                tx.decide(review, decision, state=ReviewState.EXPIRED)
                tx.make_due(review.run_id)
                tx.wake(review.run_id, lane=run.lane)
        except DecisionRefused:
            # A person was faster, or the run has ended: the timer has nothing left to do.
            async with self._store.write() as tx:
                tx.delete_timers(review_id)
        failpoint(Failpoint.DESK_EXPIRED)

    async def _answer_again(self, review: Review, decision: Decision) -> Review:
        """What a decision about a closed review gets: the review if it repeats itself, else the reason why not."""
        if review.decision is None and review.state is ReviewState.SUPERSEDED:
            newer = await taken_by(self._store, review.run_id)
            asks = await self._store.reviews(state=ReviewState.OPEN, run_ids=[newer]) if newer is not None else []
            raise ReviewClosed(review, newer, asks)
        return _answer_again(review, decision, await self._next(review))

    async def _next(self, review: Review) -> Review | None:
        """Of several reviews about the same call the one that is still open."""
        if review.people == 1:
            return None
        asked = await self._store.reviews(state=ReviewState.OPEN, run_ids=[review.run_id])
        return next((other for other in asked if other.digest == review.digest), None)

    async def _closed(self, review_id: str) -> Review:
        """The review after somebody else was faster. A run that ended leaves its reviews cancelled."""
        review = await self._store.review(review_id)
        return replace(review, state=ReviewState.CANCELLED) if review.state is ReviewState.OPEN else review

    def _check(self, review: Review, decision: Decision, version: str) -> None:
        if decision.type not in review.allowed:
            offered = ", ".join(review.allowed)
            raise UnfitDecision(review, f"{decision.type} is not offered; offered: {offered}")
        try:
            canonical({"arguments": decision.arguments, "response": decision.response})
        except ValueError as error:
            raise UnfitDecision(review, str(error)) from error
        if decision.type is DecisionType.EDIT:
            self._check_arguments(review, decision.arguments, version)
        if decision.type is DecisionType.RESPOND and review.response_schema is not None:
            _check_schema(review, decision.response, review.response_schema)

    def _check_arguments(self, review: Review, arguments: dict[str, Any] | None, version: str) -> None:
        if arguments is None:
            raise UnfitDecision(review, "edit needs `arguments`, all of them as they shall be")
        asked = Asked.read(review.evidence.get("asked"))
        problem = None if asked is None else asked.misfit(arguments)
        if problem is not None:
            raise UnfitDecision(review, problem)
        tool = self._tool(review, version)
        if tool is not None:
            try:
                validate(tool, arguments)
            except ValueError as error:
                raise UnfitDecision(review, brief(error)) from error
        elif review.response_schema is not None and review.kind is ReviewKind.APPROVAL:
            _check_schema(review, arguments, review.response_schema)

    async def _check_rules(self, review: Review, arguments: dict[str, Any], run: Run) -> None:
        """An edit that the gate would deny is refused while its editor can still mend it."""
        tool = self._tool(review, run.version)
        if tool is None:
            return
        workflow, history = self._workflows.get(run.workflow, run.version), await self._store.history(run.id)
        validated = validate(tool, arguments).validated
        records = list(records_of(history.effects.values(), history.reviews, workflow.trusted_tools()))
        facts = Facts(records=records, arguments=validated.__dict__)
        problem = unfit_argument(workflow.policy(review.node), tool, validated, facts)
        if problem is not None:
            raise UnfitDecision(review, problem)

    def _tool(self, review: Review, version: str) -> Tool | None:
        """The tool that an approval is about, in the code that is deployed now."""
        try:
            policy = self._workflows.get(review.workflow, version).policy(review.node)
        except UnknownWorkflow:
            return None
        named = review.evidence.get("tool")
        return next((tool for tool in policy.tools if tool.name == named or named in tool.also_called), None)


def _answer_again(review: Review, decision: Decision, open: Review | None) -> Review:
    """What a decision about a closed review gets: the review if it repeats itself, else the reason why not."""
    if review.decision is None:
        raise ReviewClosed(review)
    if review.state is ReviewState.EXPIRED:
        raise ReviewClosed(review)
    if review.decision.same_answer(decision):
        return review
    if review.state is ReviewState.SUPERSEDED:
        raise ReviewClosed(review)
    raise AlreadyDecided(review, open)


def _check_schema(review: Review, value: Any, schema: dict[str, Any]) -> None:
    for error in Draft202012Validator(schema).iter_errors(value):
        where = ".".join(str(part) for part in error.absolute_path) or "the response"
        raise UnfitDecision(review, f"{where}: {error.message}")
