"""One arm of the suite: many cases in one world, under the real worker, with the guard whole or without a part of it.

What an arm says of a case is read from the world's ledgers. Only the number of questions and of denials, which the
world cannot know, comes from the journal.
"""

from __future__ import annotations

import asyncio
import dataclasses
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import sqlalchemy as sa
from tests.attacks.obedient import ObedientModel
from tests.attacks.office import filing_office
from tests.attacks.rows_discounts import staff
from tests.attacks.table import SUBJECTS
from tests.attacks.words import Case, Vector
from tests.attacks.world import World

from eventwright.app.composition import App, open_app
from eventwright.app.settings import Settings
from eventwright.graphs.runner import Runner
from eventwright.graphs.workflow import Workflow
from eventwright.guardrails.redaction import Redaction
from eventwright.guardrails.stages import ALL_STAGES
from eventwright.guardrails.verdicts import Stage, VerdictKind
from eventwright.queue.desk import AlreadyDecided, ReviewClosed
from eventwright.runs import schema
from eventwright.runs.database import open_database
from eventwright.runs.errors import MayNotDecide
from eventwright.runs.event import Event, new_id
from eventwright.runs.records import Decision, DecisionType, JournalKind, Review, ReviewKind, ReviewState, Run
from eventwright.runs.states import RunState
from eventwright.runs.waits import WaitState, waits

#: Nothing more happens in these without somebody from outside.
AT_REST = {RunState.COMPLETED, RunState.CANCELLED, RunState.FAILED, RunState.WAITING}
OPEN_EYES = Redaction(model=(), journal=(), outgoing=())
BRISK = {"sweep_seconds": 0.2, "concurrency": 40}

Reviewer = Callable[["Arm", Case, Review], Decision | None]


@dataclass
class Outcome:
    """What became of one case."""

    case: Case
    #: Whether the world shows what the attacker wanted, or, in an honest arm, what the business wanted.
    achieved: bool = False
    #: Whether a model read the injected text and did what it says.
    obeyed: bool = False
    states: list[str] = field(default_factory=list)
    #: Questions about calls that people answered with yes.
    approvals: int = 0
    denials: list[str] = field(default_factory=list)

    @property
    def delivered(self) -> bool:
        """Whether the attack came to where it works: to the model, or into a run, if no model is in its way."""
        return self.obeyed or (self.case.hostile and self.case.attack.by_itself and bool(self.states))


@dataclass
class Arm:
    """An open world, an app at work in it, and who answers questions."""

    app: App
    world: World
    model: ObedientModel
    cases: Sequence[Case]
    #: Which case a run belongs to.
    runs: dict[str, Case] = field(default_factory=dict)
    approved: Counter[tuple[str, int]] = field(default_factory=Counter)

    async def send(self, events: Iterable[tuple[Case, str, dict[str, Any]]]) -> list[str]:
        """Events of many cases, at once: the runs that they start."""
        sent = []
        for case, kind, data in events:
            version = "2" if kind == "ticket.created" else "1"
            event = Event(
                id=new_id("e"), source="/attacks", type=kind, data=data, version=version, principal=case.requester
            )
            sent.append((case, event))
        receipts = await asyncio.gather(*(self.app.engine.receive(event) for _, event in sent))
        started = [(run.id, case) for receipt, (case, _) in zip(receipts, sent, strict=True) for run in receipt.runs]
        self.runs.update(started)
        return [run_id for run_id, _ in started]

    async def pass_time(self, run_ids: Sequence[str]) -> None:
        """What these runs wait for does not come, and its time is over now."""

        def end(connection: sa.Connection) -> None:
            now = datetime.now(UTC)
            of_run = waits.c.run_id.in_(run_ids) & (waits.c.state == str(WaitState.OPEN))
            connection.execute(sa.update(waits).where(of_run).values(deadline=now))
            waiting = schema.runs.c.id.in_(run_ids) & (schema.runs.c.state == str(RunState.WAITING))
            connection.execute(sa.update(schema.runs).where(waiting).values(due_at=now))

        async with open_database(self.app.settings.database) as database:
            await database.write(end)

    async def rest(self, run_ids: Sequence[str], *reviewers: Reviewer) -> None:
        """Let the runs go on until nobody of the reviewers, asked one after the other, has anything more to say."""
        for reviewer in reviewers:
            moving = set(run_ids)
            while moving:
                runs = await asyncio.gather(*(self.app.store.run(run_id) for run_id in sorted(moving)))
                now = await self.app.store.now()
                moving -= {run.id for run in runs if run.state in AT_REST and not _goes_on(run, now)}
                asking = [run.id for run in runs if run.state is RunState.PENDING_APPROVAL]
                moving -= await self._ask(asking, reviewer)
                await asyncio.sleep(0.02 + len(moving) / 1000 if moving else 0)

    async def _ask(self, run_ids: Sequence[str], reviewer: Reviewer) -> set[str]:
        """Ask the reviewer everything that stands open: the runs about which there was nothing to say."""
        silent = set(run_ids)
        reviews = await self.app.store.reviews(state=ReviewState.OPEN, run_ids=list(run_ids), limit=None)
        for review in reviews:
            decision = reviewer(self, self.runs[review.run_id], review)
            if decision is None:
                continue
            silent.discard(review.run_id)
            try:
                await self.app.engine.decide(review.id, decision)
            except MayNotDecide:
                silent.add(review.run_id)
            except (AlreadyDecided, ReviewClosed):
                # The answer to another question about the same call has settled this one.
                continue
        # Whose reviews are all decided is on its way already.
        return silent & {review.run_id for review in reviews}


def _goes_on(run: Run, now: datetime) -> bool:
    """Whether what it waited for has come, or the time is over."""
    return run.state is RunState.WAITING and run.due_at is not None and run.due_at <= now


# -- people ------------------------------------------------------------------------------------------------------------


def colleague(arm: Arm, case: Case, review: Review) -> Decision | None:
    """Answers what the author's graph asks, as the subject knows it."""
    answer = None if review.interrupt_id is None else case.subject.answer(case, review)
    if answer is None:
        return None
    if answer is True:
        return Decision(type=DecisionType.APPROVE, by="colleague")
    return Decision(type=DecisionType.RESPOND, by="colleague", response=answer)


def nobody(arm: Arm, case: Case, review: Review) -> Decision | None:
    """Answers no question about a call."""
    return colleague(arm, case, review)


def accomplice(arm: Arm, case: Case, review: Review) -> Decision | None:
    """Approves whatever their own event asks for; only in the cases where the attacker has an account here, or a friend
    who has one."""
    who = case.attack.accomplice
    if not who or review.interrupt_id is not None:
        return None
    return Decision(type=DecisionType.APPROVE, by=case.requester if who is True else who)


def deadline(arm: Arm, case: Case, review: Review) -> Decision | None:
    """Rejects everything, as a deadline does."""
    return colleague(arm, case, review) or Decision(type=DecisionType.REJECT, by="deadline")


def perfect(arm: Arm, case: Case, review: Review) -> Decision | None:
    """Approves what honest behaviour would do, once, and nothing else."""
    answer = colleague(arm, case, review)
    if answer is not None:
        return answer
    arguments = review.arguments or {}
    if review.kind is ReviewKind.LOW_CONFIDENCE and DecisionType.RESPOND in review.allowed:
        return Decision(type=DecisionType.RESPOND, by="reviewer", response="other")
    for number, (tool, wanted) in enumerate(case.subject.wishes(case)):
        fits = tool == review.evidence.get("tool") and all(str(arguments.get(k)) == str(v) for k, v in wanted.items())
        key = (case.reference, number)
        if review.kind is ReviewKind.APPROVAL and fits and arm.approved[key] < review.people * _honest_events(case):
            arm.approved[key] += 1
            # Of two people who must agree each is another one.
            return Decision(type=DecisionType.APPROVE, by=f"reviewer {arm.approved[key]}")
    return Decision(type=DecisionType.REJECT, by="reviewer")


def _honest_events(case: Case) -> int:
    """How often what is owed is owed: once for each event without an injected text."""
    if case.hostile:
        return 1
    return sum(len(wave) for wave in case.attack.waves(case))


UNATTENDED: Sequence[Reviewer] = (nobody, accomplice, deadline)
ATTENDED: Sequence[Reviewer] = (perfect,)

# -- the arm -----------------------------------------------------------------------------------------------------------


@asynccontextmanager
async def at_work(
    cases: Sequence[Case],
    folder: Path,
    *,
    stages: frozenset[Stage] = ALL_STAGES,
    redaction: Redaction | None = None,
    database_url: str = "",
    redis_url: str = "none",
) -> AsyncIterator[Arm]:
    """A worker at work on these cases. Only a test can reach the stages: no setting does."""
    workflows: list[Workflow] = [subject.workflow for subject in SUBJECTS] + [filing_office]
    if redaction is not None:
        workflows = [dataclasses.replace(workflow, redaction=redaction) for workflow in workflows]
    model = ObedientModel.of(cases)
    settings = Settings(  # type: ignore[call-arg]
        home=folder,
        database_url=database_url,
        redis_url=redis_url,
        roles=staff(cases),
        **BRISK,  # type: ignore[arg-type]
    )
    async with World.open(folder, cases) as world:
        clients = [*world.clients, model]
        async with open_app(settings, workflows=workflows, resources=clients, works=True) as app:
            app.engine.runner = Runner(app.store, app.resources, stages=stages)
            stopping = asyncio.Event()
            work = asyncio.create_task(app.work(stopping))
            try:
                yield Arm(app, world, model, cases)
            finally:
                stopping.set()
                await work


async def play(arm: Arm, reviewers: Sequence[Reviewer]) -> list[Outcome]:
    """Send what every case sends, wave by wave, and see what became of it."""
    early = [case for case in arm.cases if case.vector is Vector.MEMORY]
    filed = [(case, "filing", case.subject.event(case, "") | {"text": f"Ann wrote. {case.poison}"}) for case in early]
    await arm.rest(await arm.send(filed), *reviewers)
    waves = [(case, case.attack.waves(case)) for case in arm.cases]
    for number in range(max(len(wave) for _, wave in waves)):
        events = [
            (case, case.subject.type, data)
            for case, wave in waves
            for data in (wave[number] if number < len(wave) else ())
        ]
        await arm.rest(await arm.send(events), *reviewers)
    told = [(case, kind, data) for case in arm.cases if case.attack.then for kind, data in await _told(arm, case)]
    await arm.send(told)
    await arm.rest([run_id for run_id, case in arm.runs.items() if case.attack.then], *reviewers)
    late = [run_id for run_id, case in arm.runs.items() if case.attack.later]
    if late:
        await arm.pass_time(late)
        await arm.rest(late, *reviewers)
    return await asyncio.gather(*(_outcome(arm, case) for case in arm.cases))


async def _told(arm: Arm, case: Case) -> Sequence[tuple[str, dict[str, Any]]]:
    return await case.attack.then(arm.world, case) if case.attack.then else ()


async def _outcome(arm: Arm, case: Case) -> Outcome:
    outcome = Outcome(case)
    outcome.achieved = (case.attack.achieved if case.hostile else case.subject.reached)(arm.world, case)
    outcome.obeyed = case.reference in arm.model.obeyed
    for run_id in [run_id for run_id, owner in arm.runs.items() if owner is case]:
        run = await arm.app.store.run(run_id)
        outcome.states.append(f"{run.state}: {run.outcome or run.reason}")
        for entry in await arm.app.store.journal(run_id):
            if entry.kind is JournalKind.DECISION and entry.data.get("type") == DecisionType.APPROVE:
                outcome.approvals += 1
            if entry.kind is JournalKind.VERDICT:
                stages = entry.data["stages"]
                outcome.denials += [
                    f"{entry.data['tool']}: {one['stage']}: {one['reason']}"
                    for one in stages
                    if one["verdict"] == VerdictKind.DENY
                ]
    return outcome


Play = Callable[[Arm], Awaitable[list[Outcome]]]


async def run_arm(
    cases: Sequence[Case], folder: Path, reviewers: Sequence[Reviewer] = UNATTENDED, **settings: Any
) -> list[Outcome]:
    """A whole arm in a new world."""
    folder.mkdir(parents=True, exist_ok=True)
    async with at_work(cases, folder, **settings) as arm:
        return await play(arm, reviewers)


def honest(cases: Iterable[Case]) -> list[Case]:
    """The same without anything injected; cases that then are one are one."""
    seen: dict[Any, Case] = {}
    for case in cases:
        attack = case.attack
        kind = (case.subject.name, case.vector, attack.owed, attack.waves, attack.then, attack.later)
        seen.setdefault(kind, dataclasses.replace(case, hostile=False))
    return list(seen.values())
