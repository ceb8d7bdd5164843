"""`simulate`: a workflow runs in place, on a store of its own, pauses, is answered, goes on. No server, no Redis.

async with simulate(support, {"sender": "ann@example.org", "text": "..."}) as run:
    await run.approve()
"""

from __future__ import annotations

import tempfile
from collections.abc import AsyncIterator, Generator, Mapping, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

from eventwright.app.observing.langsmith_tracing import tracing_to_langsmith
from eventwright.app.pictures import Picture, graph_picture, timeline_picture
from eventwright.app.redacting import journal_redaction, leaving_redaction
from eventwright.app.threads import make_room_for_threads
from eventwright.graphs.recorded_models import recorded_models
from eventwright.graphs.runner import Runner
from eventwright.graphs.schedules import Every
from eventwright.graphs.waiting import Continues
from eventwright.graphs.workflow import Workflow, Workflows
from eventwright.queue.engine import Engine
from eventwright.runs.errors import EventwrightError
from eventwright.runs.event import Event, new_id
from eventwright.runs.migrate import upgrade
from eventwright.runs.records import Decision, DecisionType, Effect, JournalEntry, Review, ReviewState, Run
from eventwright.runs.roles import Roles
from eventwright.runs.states import FINAL, RunState
from eventwright.runs.store import Store
from eventwright.runs.waits import WaitingFor, waiting_for
from eventwright.tools.contract import Resources
from eventwright.tools.offline_model import OfflineModel
from eventwright.tools.providers import Providers
from eventwright.tools.secrets import Secrets


class NothingToAnswer(EventwrightError, LookupError):
    """No review of this run is open."""


class Simulation:
    """A run of a workflow in this process, on a clock of its own: retries and deadlines come as soon as nothing else is
    left to do."""

    def __init__(
        self, engine: Engine, run_id: str, clock: SimulatedClock, opened: AsyncExitStack | None = None
    ) -> None:
        self.engine = engine
        self.clock = clock
        self.run_id = run_id
        self._opened = opened or AsyncExitStack()

    async def close(self) -> None:
        """Give back what the simulation opened; its database is gone then."""
        await self._opened.aclose()

    async def run(self) -> Run:
        """The run as it stands."""
        return await self.engine.store.run(self.run_id)

    async def reviews(self) -> list[Review]:
        """What people are asked, oldest first."""
        return await self.engine.store.reviews(state=ReviewState.OPEN, run_ids=[self.run_id])

    async def waiting_for(self) -> list[WaitingFor]:
        """What the run waits for: events from outside, times."""
        return (await waiting_for(self.engine.store, [self.run_id]))[self.run_id]

    async def journal(self) -> list[JournalEntry]:
        """Everything that happened."""
        return await self.engine.store.journal(self.run_id)

    async def effects(self) -> list[Effect]:
        """Every tool and model call."""
        return await self.engine.store.effects(self.run_id)

    async def values(self) -> dict[str, Any]:
        """The graph's state."""
        run = await self.run()
        graph = self.engine.runner.graph(self.engine.workflows.get(run.workflow, run.version))
        state = await graph.aget_state({"configurable": {"thread_id": run.thread_id}})
        return dict(state.values)

    async def picture(self) -> Picture:
        """The workflow's graph; nodes at which a person is asked just now are marked."""
        run = await self.run()
        workflow = self.engine.workflows.get(run.workflow, run.version)
        return graph_picture(workflow, asking={review.node for review in await self.reviews()})

    async def timeline(self) -> Picture:
        """How the run went until now: its states, its calls, its questions and who answered them."""
        history = await self.engine.store.history(self.run_id)
        return timeline_picture(await self.run(), await self.journal(), await self.effects(), history.reviews)

    async def approve(self, *, by: str = "you", comment: str | None = None) -> Run:
        """Approve the oldest open review, and let the run go on."""
        return await self.answer(Decision(type=DecisionType.APPROVE, by=by, comment=comment))

    async def reject(self, *, by: str = "you", comment: str | None = None) -> Run:
        """Reject the oldest open review, and let the run go on."""
        return await self.answer(Decision(type=DecisionType.REJECT, by=by, comment=comment))

    async def edit(self, arguments: dict[str, Any], *, by: str = "you") -> Run:
        """Approve the oldest open review with these arguments, and let the run go on."""
        return await self.answer(Decision(type=DecisionType.EDIT, by=by, arguments=arguments))

    async def respond(self, response: Any, *, by: str = "you") -> Run:
        """Answer the oldest open review, and let the run go on."""
        return await self.answer(Decision(type=DecisionType.RESPOND, by=by, response=response))

    async def answer(self, decision: Decision, review_id: str | None = None) -> Run:
        """Decide a review (the oldest open one by default), and let the run go on.

        Raises:
            NothingToAnswer: none is open.
            UnfitDecision: the answer does not fit.
        """
        if review_id is None:
            reviews = await self.reviews()
            if not reviews:
                run = await self.run()
                raise NothingToAnswer(f"run {run.id} is {run.state} and asks nobody")
            review_id = reviews[0].id
        await self.engine.decide(review_id, decision)
        return await self.go_on()

    async def send(self, type: str, data: Any, **attributes: Any) -> Run:
        """Let an event come in that the run may wait for, and let the run go on.

        Args:
            type: of the event.
            data: its payload, in the newest version that the workflow's triggers know.
            attributes: others of `Event`: `id`, `source`, `subject`, ...

        Raises:
            EventRefused: the payload does not fit.
        """
        run = await self.run()
        workflow = self.engine.workflows.get(run.workflow, run.version)
        known = [list(trigger.payload)[-1] for trigger in workflow.triggers if trigger.type == type and trigger.payload]
        given = {"id": new_id("simulated"), "source": "/simulation", "version": known[0] if known else "1"}
        await self.engine.receive(Event(**given | attributes, type=type, data=data))
        return await self.go_on()

    async def go_on(self) -> Run:
        """Let the run go on until it ends, fails, or only a person or an event from outside can help; time passes by
        itself while it waits for nothing else."""
        while True:
            await self.engine.tick()
            await self.engine.advance(self.run_id)
            run = await self.run()
            # A run that asks may go on without an answer when a time comes, but that time shall not pass by itself.
            if run.state in FINAL or run.state is RunState.FAILED or run.due_at is None or run.asks:
                return run
            # Nor shall that of one that waits for an event, which may still be sent.
            if run.due_at > self.clock() and any(waits.types for waits in await self.waiting_for()):
                return run
            self.clock.pass_until(run.due_at)

    async def pass_time(self, span: timedelta | None = None) -> Run:
        """Let time pass, with whatever comes due in it, one after the other; by default until the next thing does."""
        end = None if span is None else self.clock() + span
        run = await self.run()
        while (due := await self._next_due(run)) is not None and (end is None or due <= end):
            self.clock.pass_until(due)
            run = await self.go_on()
            if end is None:
                return run
        if end is not None:
            self.clock.pass_until(end)
        return await self.go_on()

    async def _next_due(self, run: Run) -> datetime | None:
        """When the run goes on by itself, or the time to answer one of its questions is over."""
        times = [run.due_at, *(review.deadline for review in await self.reviews())]
        return min((time for time in times if time is not None and time > self.clock()), default=None)


class SimulatedClock:
    """A clock that goes as the real one does, and can be put forward."""

    def __init__(self) -> None:
        self._ahead = timedelta(0)

    def __call__(self) -> datetime:
        return datetime.now(UTC) + self._ahead

    def pass_until(self, moment: datetime) -> None:
        """Put the clock forward to this time, if it is ahead."""
        self._ahead += max(moment - self(), timedelta(0))


@asynccontextmanager
async def simulator(
    *workflows: Workflow,
    resources: Sequence[object] = (),
    database_url: str | None = None,
    roles: Mapping[str, Sequence[str]] | None = None,
) -> AsyncIterator[tuple[Engine, SimulatedClock]]:
    """An engine for simulations, on a database of its own that is gone afterwards.

    Args:
        workflows: what may be started.
        resources: clients for tools; without a chat model (or `Models`) among them the offline model answers.
        database_url: an empty or migrated database to use instead; it is kept.
        roles: who has which role, by role.
    """
    async with AsyncExitStack() as stack:
        if database_url is None:
            folder = stack.enter_context(tempfile.TemporaryDirectory(prefix="eventwright-"))
            database_url = f"sqlite:///{Path(folder) / 'simulation.db'}"
        await upgrade(database_url)
        stack.enter_context(recorded_models())
        make_room_for_threads(runs=1)
        clock = SimulatedClock()
        # Of two clients of one class the last is used: a chat model among the resources goes before the offline one.
        # Providers that are down are back by the simulated clock, as everything else goes by it.
        clients = Resources((OfflineModel(), Providers(clock=lambda: clock().timestamp()), *resources))
        declared = Workflows(workflows)
        secrets = Secrets.of(clients)
        await stack.enter_async_context(tracing_to_langsmith(leaving_redaction(declared, secrets)))
        redact = journal_redaction(declared, secrets)
        store = await stack.enter_async_context(Store.open(database_url, clock=clock, redact=redact))
        held = Roles.of(roles or {})
        yield Engine(store, declared, Runner(store, clients), worker="simulation", roles=held), clock


class Simulating:
    """A simulation that is about to begin: `await` it, or enter it with `async with` to have it closed at the end."""

    def __init__(
        self, workflow: Workflow, event: Event, resources: Sequence[object], roles: Mapping[str, Sequence[str]] | None
    ) -> None:
        self._workflow, self._event, self._resources, self._roles = workflow, event, resources, roles
        self._simulation: Simulation | None = None

    def __await__(self) -> Generator[Any, None, Simulation]:
        return self._begin().__await__()

    async def __aenter__(self) -> Simulation:
        self._simulation = await self._begin()
        return self._simulation

    async def __aexit__(self, *_: object) -> None:
        if self._simulation is not None:
            await self._simulation.close()

    async def _begin(self) -> Simulation:
        async with AsyncExitStack() as stack:
            simulating = simulator(self._workflow, resources=self._resources, roles=self._roles)
            engine, clock = await stack.enter_async_context(simulating)
            receipt = await engine.fire(self._event)
            if not receipt.runs:
                raise LookupError(f"no trigger of {self._workflow!r} is meant for events of type {self._event.type!r}")
            simulation = Simulation(engine, receipt.runs[0].id, clock)
            await simulation.go_on()
            simulation._opened = stack.pop_all()
        return simulation


def simulate(
    workflow: Workflow,
    event: Event | Mapping[str, Any],
    *,
    resources: Sequence[object] = (),
    roles: Mapping[str, Sequence[str]] | None = None,
) -> Simulating:
    """Start a run of `workflow` for `event` here, and let it go on until it ends or asks.

    Args:
        workflow: what to run; unchanged, the same object that is deployed.
        event: an Event, or just its payload, for the first trigger that starts the workflow and the newest payload
            version.
        resources: clients for tools, for example `Mailer(url)`; without a chat model the offline model answers.
        roles: who has which role, where a review asks for one: `{"sales-manager": ["mona"]}`.

    Returns:
        `await` it for a `Simulation` (close it when you are done), or use it as `async with simulate(...) as run`.

    Raises:
        EventRefused: the payload does not fit.
        LookupError: no trigger of the workflow is meant for this event.
    """
    if not isinstance(event, Event):
        trigger = next((one for one in workflow.triggers if not isinstance(one, Continues)), None)
        if trigger is None:
            raise LookupError(f"no trigger of {workflow!r} starts a run; it has none but Continues")
        tick = trigger.firing(datetime.now(UTC)).data if isinstance(trigger, Every) else {}
        event = Event(
            id=new_id("simulated"),
            source=trigger.source or "/simulation",
            type=trigger.type,
            data={**tick, **event},
            version=list(trigger.payload)[-1] if trigger.payload else "1",
        )
    return Simulating(workflow, event, resources, roles)
