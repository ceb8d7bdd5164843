"""The gate: the one way from a node to a tool or a model. It applies the policy, asks people, keeps the ledger.

A call passes its stages in their order (`Stage`), and the first that denies it decides: capability, schema, (the
ledger's record of an earlier call,) arguments, labels, budgets, approval, ledger. Whatever goes wrong means no.
"""

from __future__ import annotations

import asyncio
import threading
from collections.abc import AsyncIterator, Iterator, Mapping, Sequence
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass, field, replace
from typing import Any

from eventwright.guardrails import judging, ledger, spending, stages
from eventwright.guardrails.approval import approval_reviews, asked_again, said_no
from eventwright.guardrails.failures import again
from eventwright.guardrails.outages import or_wait
from eventwright.guardrails.policy import Policy
from eventwright.guardrails.request import Request, brief, outgoing, read, take_as_given, validate
from eventwright.guardrails.roles import counts_as_approved
from eventwright.guardrails.rules import Facts
from eventwright.guardrails.segment import Segment
from eventwright.guardrails.verdicts import (
    Denied,
    Nondeterministic,
    Paused,
    Postponed,
    Rejected,
    Stage,
    Verdict,
    VerdictKind,
    allow,
)
from eventwright.runs.errors import LeaseLost, StoreUnavailable
from eventwright.runs.event import canonical, digest_of
from eventwright.runs.failpoints import Failpoint, failpoint
from eventwright.runs.records import DecisionType, Effect, EffectState, JournalKind, Review, Visit
from eventwright.tools.contract import OutsideGate, Tool, current_gate
from eventwright.tools.models import Answer, Question


@dataclass
class Gate:
    """The gate of one node in one segment. Open it with `opened()`; a task that outlives its node finds it closed."""

    segment: Segment
    node: str
    #: Where the node stands; code in a graph inside the node stands deeper.
    place: str
    policy: Policy
    loop: asyncio.AbstractEventLoop
    #: Where the untrusted data that the node has read came from.
    tainted_by: list[str] = field(default_factory=list)
    thread: threading.Thread = field(default_factory=threading.current_thread)
    closed: bool = False
    #: What ended the segment in a call. The node may catch it (a bare `except`, `gather(return_exceptions=True)`, and
    #: LangChain makes an ordinary error of it); the node is over all the same.
    ended: BaseException | None = None
    #: The tasks that have seen that, and call nothing more; those beside them do.
    _stopped: set[asyncio.Task[Any] | None] = field(default_factory=set)
    #: The same, if it was a model that was called: LangChain may ask it in any task. Nothing more is called.
    ended_by_model: BaseException | None = None
    #: The task that the node itself runs in.
    _task: asyncio.Task[Any] | None = None
    _ordinals: dict[tuple[int, str], int] = field(default_factory=dict)
    #: How each call failed before this gate was opened, as far as the node has not seen it again.
    _past: dict[str, Iterator[Mapping[str, Any]]] = field(default_factory=dict)
    #: Calls that are under way, and whether there are none.
    _under_way: int = 0
    _quiet: asyncio.Event = field(default_factory=asyncio.Event)

    @asynccontextmanager
    async def opened(self) -> AsyncIterator[Gate]:
        """Let the code inside call tools through this gate.

        When one of several gathered calls pauses or fails, the node is over while the others are still being made:
        they are waited for, so that no call of a segment outlives it. A cancelled node waits for nothing.
        """
        token = current_gate.set(self)
        self._task = asyncio.current_task()
        waits = True
        try:
            yield self
        except asyncio.CancelledError:
            waits = False
            raise
        except Exception:
            if self.ended is not None:
                raise self.ended from None
            raise
        else:
            if self.ended is not None:
                raise self.ended
        finally:
            self.closed = True
            current_gate.reset(token)
            if waits and self._under_way:
                await self._quiet.wait()

    @contextmanager
    def counted(self) -> Iterator[None]:
        """A call is under way while the block is open; what ends the segment there ends the node."""
        if self.segment.lost is not None:
            raise self.segment.lost
        if self.ended is not None and asyncio.current_task() in self._stopped:
            raise self.ended
        self._under_way += 1
        self._quiet.clear()
        try:
            yield
        except (Paused, Postponed, Nondeterministic) as signal:
            self.ended = signal
            self._stopped |= {asyncio.current_task(), self._task}
            raise
        except (LeaseLost, StoreUnavailable) as error:
            # It is not known what is on record, perhaps not even that a call was made: that is no failure of the call.
            self.ended = self.segment.lost = error
            raise
        finally:
            self._under_way -= 1
            if not self._under_way:
                self._quiet.set()

    # -- the way of a call -------------------------------------------------------------------------------------------

    async def call(self, tool: Tool, arguments: Mapping[str, Any], *, ordinal: str | None = None) -> Any:
        """Call the tool if the policy allows it; the recorded result if it was called before.

        Args:
            ordinal: tells this call from others of the same tool in this visit, where their order may change on
                replay; by default they are counted.

        Raises:
            Denied, Rejected: the policy, or a person, says no.
            Paused, Postponed, Nondeterministic: the segment ends here (no `except Exception` catches them).
            ToolError: the tool failed.
        """
        if self.ended_by_model is not None:
            raise self.ended_by_model
        try:
            with self.counted():
                result = await self._called(tool, arguments, ordinal)
        except (Paused, Postponed, Nondeterministic) as signal:
            if tool.advises:
                self.ended_by_model = signal
            raise
        except (Denied, Rejected):
            raise
        except Exception:
            # Whoever writes what a tool returns may write what it fails with.
            self._hear(tool)
            raise
        self._hear(tool)
        return result

    def _hear(self, tool: Tool) -> None:
        """The node has heard what the tool said."""
        if not (tool.trusted or tool.advises):
            self.tainted_by = list(dict.fromkeys((*self.tainted_by, tool.name)))

    async def judge(self, question: Question) -> Answer:
        """Ask the model, once and for all; below the policy's confidence a person answers in its place.

        Raises:
            Paused: a person is asked.
            Rejected: the person would not answer.
            ToolError: the model failed and no fallback is due.
        """
        with self.counted():
            return await judging.judge(self, question)

    def for_model(self, value: Any) -> Any:
        """A text, or JSON, as a model may read it: without what the workflow keeps from models."""
        return self.segment.setting.redaction.for_model(value)

    def here(self) -> str:
        """Where the running code stands in the graph: another place for every visit of a node."""
        return self.segment.visit(self.node).place

    async def _called(self, tool: Tool, raw: Mapping[str, Any], ordinal: str | None) -> Any:
        visit, ordinal = self.enter(tool.name, ordinal)
        if self._on(Stage.CAPABILITY):
            await self._heed(tool, stages.capability(self.policy, self.node, tool))
        request = await self._validated(tool, raw, visit, ordinal)
        earlier = self.segment.effects.get(request.key)
        failure = next(self._past.setdefault(request.key, iter(earlier.failures if earlier else ())), None)
        if failure is not None and earlier is not None and earlier.requested_digest == request.arguments_digest:
            raise again(failure)
        return await or_wait(self, self._made(request, earlier))

    async def _made(self, request: Request, earlier: Effect | None) -> Any:
        """What the call returns, now or on record."""
        tool = request.tool
        if not self._on(Stage.LEDGER):
            request = await self._permitted(request)
            return await tool.perform(request.validated, ledger.unrecorded(self.segment, request))
        if earlier is not None and earlier.state is not EffectState.FAILED:
            if earlier.requested_digest != request.arguments_digest:
                raise Nondeterministic(tool.name, request.key)
            approved = ledger.begun(request, earlier)
            settled = await ledger.settle_earlier(self.segment, approved, earlier)
            if settled is not ledger.AGAIN:
                return settled
        else:
            approved = await self._as_shown(await self._permitted(request))
        call = spending.spend(self, approved, request)
        return await (self.segment.make(call) if tool.writes else call)

    async def _as_shown(self, request: Request) -> Request:
        """The write with its arguments read anew from those that were looked at and shown. Raises Denied if they are
        not the same: an author's rule changed them since, or one of their types loses something in JSON."""
        if not (request.tool.writes and self._on(Stage.SCHEMA)):
            return request
        validated = read(request.tool, request.text)
        if validated != request.validated:
            reason = "read again, the arguments are others: a rule has changed them, or a type does not keep them"
            verdict = Verdict(kind=VerdictKind.DENY, stage=Stage.SCHEMA, rule="arguments", reason=reason)
            raise await self.denial(request.tool, verdict)
        request.validated = validated
        return request

    def enter(self, name: str, ordinal: str | None = None) -> tuple[Visit, str]:
        """The visit in which a call of this name is about to be made, and its ordinal there. Raises OutsideGate."""
        if self.closed:
            raise OutsideGate(name)
        visit = self.segment.visit(self.node)
        if ordinal is None:
            ordinal = str(self._ordinals.get((visit.visit, name), -1) + 1)
            self._ordinals[visit.visit, name] = int(ordinal)
        return visit, ordinal

    def count_anew(self) -> None:
        """The code of this visit runs from its beginning: its calls are counted as they were before."""
        visit = self.segment.visits.get(self.segment.locate())
        self._ordinals = {of: made for of, made in self._ordinals.items() if visit is None or of[0] != visit.visit}

    def next_ordinal(self, tool: Tool) -> str:
        """The ordinal that the next call of the tool gets in this visit."""
        return str(self._ordinals.get((self.segment.visit(self.node).visit, tool.name), -1) + 1)

    def _on(self, stage: Stage) -> bool:
        return stage in self.segment.setting.stages

    async def _validated(self, tool: Tool, raw: Mapping[str, Any], visit: Visit, ordinal: str) -> Request:
        """The request with canonical, strictly validated arguments; what leaves is clean."""
        check = validate if self._on(Stage.SCHEMA) else take_as_given
        try:
            leaving = outgoing(tool, raw, self.segment.setting.redaction) if self._on(Stage.LABELS) else raw
            arguments = check(tool, leaving)
        except ValueError as error:
            await self._heed(
                tool, Verdict(kind=VerdictKind.DENY, stage=Stage.SCHEMA, rule="arguments", reason=brief(error))
            )
            raise
        return Request(
            tool=tool,
            node=self.node,
            policy=self.policy,
            visit=visit,
            ordinal=ordinal,
            key=self.key(visit, tool, ordinal),
            arguments=arguments.values,
            text=arguments.text,
            validated=arguments.validated,
            digest=self.segment.digest(self.node, tool.name, arguments.text),
            facts=Facts(records=self.segment.records(), arguments=arguments.validated.__dict__),
            tainted_by=tuple(self.tainted_by),
            verdicts=[allow(Stage.CAPABILITY, "tools"), allow(Stage.SCHEMA, "arguments")],
        )

    def key(self, visit: Visit, tool: Tool, ordinal: str) -> str:
        """The key of an effect."""
        return digest_of([self.segment.run.id, visit.visit, tool.name, ordinal])

    # -- whether it may be made --------------------------------------------------------------------------------------

    async def _permitted(self, request: Request, *, editors: Sequence[str] = (), held: Sequence[str] = ()) -> Request:
        """The request as every stage, and every person who was asked, lets it pass; raises Denied, Paused or Rejected.

        Reviews about this very call decide, whatever the approval rule would say by now: it is not looked at again.
        Only a denial by another stage still holds.
        """
        reviews = self.segment.take_reviews(request.digest, request.key)
        verdicts = [
            stages.look(stage, request)
            for stage in stages.LOOKING
            if self._on(stage) and not (reviews and stage is Stage.APPROVAL)
        ]
        for verdict in verdicts:
            await self._heed(request.tool, verdict)
        request.verdicts.extend(verdicts)
        if reviews:
            return await self._decided(request, reviews, editors)
        asks = [verdict for verdict in verdicts if verdict.kind is VerdictKind.ASK]
        if editors and counts_as_approved(request.policy, asks, held):
            return request
        if asks and not (counts_as_approved(request.policy, asks) and self.segment.approved_by_middleware(request)):
            await self.ask(request, asks, barred=editors)
        return request

    async def _decided(self, request: Request, reviews: Sequence[Review], editors: Sequence[str]) -> Request:
        """What the people who were asked about this call say together."""
        edits = [
            (review, review.decision.by)
            for review in reviews
            if review.decision is not None and review.decision.type is DecisionType.EDIT
        ]
        if not edits or any(said_no(review) for review in reviews):
            by = await self.agreed(request, reviews)
            request.verdicts.append(allow(Stage.APPROVAL, "decision", f"approved by {by}"))
            return replace(request, reviews=(*request.reviews, *reviews))
        review, editor = edits[0]
        return await self._edited(request, review, [*editors, editor])

    async def agreed(self, request: Request, reviews: Sequence[Review]) -> str:
        """Who has approved the call, as many people as must.

        Raises:
            Rejected: somebody said something else than yes.
            Paused: somebody has not answered yet, or is not asked any more: then somebody is asked again.
        """
        for review in reviews:
            if review.decision is not None and review.decision.type is not DecisionType.APPROVE:
                await self.use_up(review, request.key)
                raise Rejected(review, review.decision)
        waiting = [review for review in reviews if review.decision is None]
        missing = max(review.people for review in reviews) - len(reviews)
        if missing:
            # The node once ran without making this call, and the question was withdrawn.
            self.pause(waiting or reviews)
            await self.open_reviews([asked_again(reviews[0]) for _ in range(missing)], [], tool=request.tool.name)
        if waiting:
            raise self.pause(waiting)
        return " and ".join(review.decision.by for review in reviews if review.decision is not None)

    async def _edited(self, request: Request, review: Review, editors: Sequence[str]) -> Request:
        """An edit is a new call: it passes the stages again, and counts as approved by its editor unless the rule wants
        several people."""
        edit = review.decision.arguments if review.decision and review.decision.arguments else {}
        edited = await self._validated(request.tool, edit, request.visit, request.ordinal)
        if edited.digest == request.digest:
            text = canonical([edited.arguments, "edited", review.id])
            edited = replace(edited, digest=self.segment.digest(self.node, request.tool.name, text))
        permitted = await self._permitted(edited, editors=editors, held=review.roles)
        permitted.verdicts.append(allow(Stage.APPROVAL, "decision", f"edited by {editors[-1]}"))
        return replace(permitted, reviews=(review, *permitted.reviews))

    # -- asking and refusing -----------------------------------------------------------------------------------------

    async def ask(
        self, request: Request, asks: Sequence[Verdict], *, barred: Sequence[str] = (), exact: bool = False
    ) -> None:
        """Commit the reviews of this call, and end the segment."""
        segment = self.segment
        now, barred = await segment.store.now(), [*segment.setting.requesters, *barred]
        reviews = approval_reviews(segment.run, request, asks, now, barred=barred, exact=exact)
        await self.open_reviews(reviews, [*asks], tool=request.tool.name)

    async def open_reviews(self, reviews: Sequence[Review], asks: Sequence[Verdict], *, tool: str | None) -> None:
        """Commit the reviews and why they are asked, then end the segment."""
        segment = self.segment
        failpoint(Failpoint.GATE_ASKING)
        data = {"tool": tool, "digest": reviews[0].digest, "stages": [verdict.as_json() for verdict in asks]}
        async with segment.store.write(segment.lease) as tx:
            tx.put_visit(segment.visit(self.node))
            tx.journal(segment.run.id, JournalKind.VERDICT, actor="gate", node=self.node, data=data)
            for review in reviews:
                tx.open_review(review)
        failpoint(Failpoint.GATE_ASKED)
        segment.reviews.update((review.id, review) for review in reviews)
        raise self.pause(reviews)

    def pause(self, reviews: Sequence[Review]) -> Paused:
        """What ends the segment until these reviews are answered."""
        self.segment.asked.update(review.id for review in reviews)
        return Paused(reviews[0])

    async def use_up(self, review: Review, key: str) -> None:
        """Let the decision serve this call alone."""
        if review.consumed_by is not None:
            return
        failpoint(Failpoint.GATE_USING_UP)
        async with self.segment.store.write(self.segment.lease) as tx:
            tx.consume_review(review.id, key)
        failpoint(Failpoint.GATE_USED_UP)
        self.segment.reviews[review.id] = replace(review, consumed_by=key)

    async def _heed(self, tool: Tool, verdict: Verdict) -> None:
        """End the call if the verdict is a denial."""
        if verdict.kind is VerdictKind.DENY:
            raise await self.denial(tool, verdict)

    async def denial(self, tool: Tool, verdict: Verdict, kind: type[Denied] = Denied) -> Denied:
        """The refusal of a call, on record."""
        segment, data = self.segment, {"tool": tool.name, "stages": [verdict.as_json()]}
        async with segment.store.write(segment.lease) as tx:
            tx.journal(segment.run.id, JournalKind.VERDICT, actor="gate", node=self.node, data=data)
        return kind(tool.name, verdict)
