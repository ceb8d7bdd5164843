"""The world of the engine's tests: a provider outside that keeps what it was asked, tools of every class, deployments.

The provider is a real resource behind real tools; it may be told to be in trouble for its next calls.
"""

from __future__ import annotations

import asyncio
import json
import operator
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from decimal import Decimal
from typing import Annotated, Any, TypedDict

from langchain_core.language_models import BaseChatModel
from langgraph.graph import START, StateGraph
from tests.loopback import on_loopback

from eventwright.app.simulate import SimulatedClock, Simulation
from eventwright.graphs.runner import Runner
from eventwright.graphs.workflow import On, Workflow, Workflows
from eventwright.guardrails.policy import Policy
from eventwright.queue.engine import Engine
from eventwright.runs.event import Event, new_id
from eventwright.runs.records import Decision, DecisionType, Effect, JournalEntry, JournalKind, Review, Run
from eventwright.runs.states import RunState
from eventwright.runs.store import Store
from eventwright.tools.building import ModelSettings, build_model, close_model
from eventwright.tools.contract import Call, Resources, tool
from eventwright.tools.offline_model import OfflineModel


@dataclass
class Trouble:
    """What befalls one call: an error, or a stop until the caller is cut off; before or after it took effect."""

    error: Exception | None = None
    happens: bool = False


@dataclass
class Provider:
    """A system outside. It honours idempotency keys for `pay`, can be read back for `book`, and neither for `post`."""

    #: Every call that took effect: (tool, argument).
    done: list[tuple[str, str]] = field(default_factory=list)
    #: Every call that arrived: (tool, argument, key, attempt).
    calls: list[tuple[str, str, str, int]] = field(default_factory=list)
    troubles: list[Trouble | None] = field(default_factory=list)
    kept: dict[str, str] = field(default_factory=dict)
    #: Set when a call hangs.
    reached: asyncio.Event = field(default_factory=asyncio.Event)
    #: Lets hanging calls go on.
    go: asyncio.Event = field(default_factory=asyncio.Event)

    async def do(self, name: str, argument: str, call: Call, *, repeats: bool = True) -> str:
        self.calls.append((name, argument, call.idempotency_key, call.attempt))
        trouble = self.troubles.pop(0) if self.troubles else None
        if trouble is None or trouble.happens:
            self._happen(name, argument, call.idempotency_key, repeats)
        if trouble is not None and trouble.error is not None:
            raise trouble.error
        if trouble is not None:
            self.reached.set()
            await self.go.wait()
            if not trouble.happens:
                self._happen(name, argument, call.idempotency_key, repeats)
        return f"{name} {argument}"

    def _happen(self, name: str, argument: str, key: str, repeats: bool) -> None:
        if repeats or key not in self.kept:
            self.done.append((name, argument))
            self.kept[key] = f"{name} {argument}"


@tool(writes="keyed", name="outside.pay", trusted=True)
async def pay(amount: Decimal, to: str = "ann", *, call: Call) -> str:
    """Pay somebody."""
    return await call.use(Provider).do("pay", f"{amount} {to}", call, repeats=False)


@tool(writes="plain", name="outside.post", trusted=True)
async def post(text: str, *, call: Call) -> str:
    """Post a letter."""
    return await call.use(Provider).do("post", text, call)


async def _booked(text: str, *, call: Call) -> str | None:
    return call.use(Provider).kept.get(call.idempotency_key)


@tool(writes="verifiable", name="outside.book", verify=_booked, trusted=True)
async def book(text: str, *, call: Call) -> str:
    """Book a place."""
    return await call.use(Provider).do("book", text, call)


@tool(name="outside.look", trusted=True)
async def look(text: str, *, call: Call) -> str:
    """Look something up."""
    return await call.use(Provider).do("look", text, call)


class State(TypedDict, total=False):
    log: Annotated[list[Any], operator.add]
    n: int


def chain(**nodes: Any) -> StateGraph[Any, Any, Any, Any]:
    """A graph of these nodes, one after the other."""
    graph: StateGraph[Any, Any, Any, Any] = StateGraph(State)
    before = START
    for name, node in nodes.items():
        graph.add_node(name, node)
        graph.add_edge(before, name)
        before = name
    return graph


def job(
    graph: StateGraph[Any, Any, Any, Any],
    policies: Mapping[str, Policy] | None = None,
    *,
    name: str = "job",
    version: str = "1",
    **more: Any,
) -> Workflow:
    # What these tests send is their own: data that others chose have tests of their own.
    more.setdefault("triggers", [On(name, trusted=True)])
    return Workflow(name, version=version, graph=graph, policies=policies or {}, **more)


class World:
    """A store, a clock, a provider, and one process at a time that has some workflows deployed."""

    def __init__(self, store: Store, clock: SimulatedClock, provider: Provider, model: BaseChatModel | None) -> None:
        self.store, self.clock, self.provider = store, clock, provider
        self.resources = Resources((model or OfflineModel(), provider))
        self.engine = self.process()

    def process(self, *workflows: Workflow, name: str = "") -> Engine:
        """A process of its own that has these workflows."""
        return Engine(
            self.store, Workflows(workflows), Runner(self.store, self.resources), worker=name or new_id("worker")
        )

    def deploy(self, *workflows: Workflow) -> None:
        """From now on the process is a new one, and has these workflows."""
        self.engine = self.process(*workflows)

    async def start(self, workflow: Workflow | None = None, data: Any = None, *, kind: str = "job") -> Simulation:
        """Deploy the workflow, send it an event, and let its run go on until it rests."""
        run = await self.send(workflow, data, kind=kind)
        await run.go_on()
        return run

    async def send(self, workflow: Workflow | None = None, data: Any = None, *, kind: str = "job") -> Simulation:
        """Deploy the workflow and send it an event."""
        if workflow is not None:
            self.deploy(workflow)
            kind = workflow.triggers[0].type
        receipt = await self.engine.receive(Event(id=new_id("e"), source="/test", type=kind, data=data or {"log": []}))
        return self.take(receipt.runs[0].id)

    def take(self, run_id: str) -> Simulation:
        """The run, in the hands of whatever process is there now."""
        return Simulation(self.engine, run_id, self.clock)

    async def crash(self, run: Simulation) -> Simulation:
        """Let the run go on until a call hangs, kill the process there, and start another with the same workflows."""
        process = self.engine
        segment = asyncio.create_task(process.advance(run.run_id))
        await self.provider.reached.wait()
        segment.cancel()
        await asyncio.gather(segment, return_exceptions=True)
        self.provider.reached.clear()
        self.deploy(*process.workflows)
        assert (await run.run()).state is RunState.PROCESSING
        return self.take(run.run_id)

    async def due(self, run: Simulation) -> None:
        """Let the time pass until the run may be taken up."""
        due_at = (await run.run()).due_at
        if due_at is not None:
            self.clock.pass_until(due_at)


@asynccontextmanager
async def a_world(database_url: str, model: BaseChatModel | None = None) -> AsyncIterator[World]:
    clock = SimulatedClock()
    async with Store.open(database_url, clock=clock) as store:
        yield World(store, clock, Provider(), model)


def says(kind: str, by: str = "ann", **more: Any) -> Decision:
    return Decision(type=DecisionType(kind), by=by, **more)


async def the_review(run: Simulation) -> Review:
    [review] = await run.reviews()
    return review


def kinds(journal: list[JournalEntry]) -> list[JournalKind]:
    return [entry.kind for entry in journal]


def ended(run: Run) -> tuple[Any, Any]:
    """State, and outcome or reason."""
    return run.state, run.outcome or run.reason


def the_effect(effects: list[Effect], name: str) -> Effect:
    [effect] = [effect for effect in effects if effect.tool == name]
    return effect


class ModelServer:
    """A server that speaks OpenAI's protocol and answers each question with what comes next in its script."""

    def __init__(self) -> None:
        self.script: list[dict[str, Any] | int] = []
        self.asked = 0
        self.port = 0

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while head := await reader.readuntil(b"\r\n\r\n"):
            length = next(int(line[15:]) for line in head.split(b"\r\n") if line.lower().startswith(b"content-length"))
            question = json.loads(await reader.readexactly(length))
            self.asked += 1
            reply = self.script.pop(0)
            status = reply if isinstance(reply, int) else 200
            body = json.dumps({} if isinstance(reply, int) else _completion(question, reply)).encode()
            writer.write(
                f"HTTP/1.1 {status} x\r\ncontent-type: application/json\r\ncontent-length: {len(body)}\r\n"
                "connection: close\r\n\r\n".encode()
                + body
            )
            await writer.drain()
            break


def _completion(question: Mapping[str, Any], arguments: Mapping[str, Any]) -> dict[str, Any]:
    function = {"name": question["tools"][0]["function"]["name"], "arguments": json.dumps(arguments)}
    call = {"id": "c", "type": "function", "function": function}
    message = {"role": "assistant", "content": None, "tool_calls": [call]}
    return {
        "id": "x",
        "object": "chat.completion",
        "created": 0,
        "model": "scripted",
        "choices": [{"index": 0, "finish_reason": "tool_calls", "message": message}],
        "usage": {"prompt_tokens": 1, "completion_tokens": 1, "total_tokens": 2},
    }


def answer(value: Any, confidence: float = 1.0) -> dict[str, Any]:
    return {"value": value, "confidence": confidence, "reason": "so it seems"}


@asynccontextmanager
async def a_model(server: ModelServer) -> AsyncIterator[BaseChatModel]:
    """The real client, connected to the server."""
    async with on_loopback(server.serve) as server.port:
        model = build_model(ModelSettings(api_key="made-up", base_url=f"http://127.0.0.1:{server.port}/v1"))
        try:
            yield model
        finally:
            await close_model(model)
