"""What a call through the gate costs: without a database, and with one at concurrency 100, beside the bare function.

`make bench ARGS="--only gate"` runs this alone. Everything of a call is in it: the policy with a rule for every
argument, untrusted data, an approval rule, a budget where it says so, verdicts, journal, ledger.
"""

from __future__ import annotations

import asyncio
import statistics
import tempfile
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from decimal import Decimal
from pathlib import Path
from typing import Annotated, Any

from graphs import State
from langgraph.graph import START, StateGraph
from rich.console import Console
from rich.table import Table

from eventwright.app.commands.processes import tune_interpreter
from eventwright.graphs.runner import Runner
from eventwright.graphs.workflow import On, Workflow, Workflows
from eventwright.guardrails.budgets import Budget
from eventwright.guardrails.gate import Gate
from eventwright.guardrails.policy import Policy
from eventwright.guardrails.rules import above, one_of
from eventwright.guardrails.segment import Segment, Setting
from eventwright.queue.engine import Engine
from eventwright.runs.event import Event, new_id
from eventwright.runs.migrate import upgrade
from eventwright.runs.records import Lease, Run
from eventwright.runs.states import RunState
from eventwright.runs.store import History, Store
from eventwright.runs.telemetry import Telemetry
from eventwright.tools.contract import Resources, Role, Tool, tool

CALLS = 10
CONCURRENCY = 100


@tool(writes="keyed", trusted=True)
async def pay(amount: Annotated[Decimal, Role.AMOUNT], to: Annotated[str, Role.DESTINATION]) -> str:
    """Pay nobody, at once."""
    return f"{amount} {to}"


@tool(trusted=True)
async def look(name: str) -> str:
    """Look nowhere, at once."""
    return name


POLICY = Policy(tools=[pay, look], rules={pay: {"to": one_of("ann", "bob")}}, approve_when={pay: above("amount", 100)})
BUDGETED = Policy(
    tools=POLICY.tools,
    rules=POLICY.rules,
    approve_when=POLICY.approve_when,
    budgets=[Budget("amount", 1000, of=pay), Budget("calls", 1000)],
)


async def bare(state: State) -> dict[str, Any]:
    """The functions themselves, without a gate."""
    for number in range(CALLS):
        await pay.function(Decimal(number + 1), "ann")
    return {"log": ["done"]}


async def writing(state: State) -> dict[str, Any]:
    """Ten writes through the gate."""
    for number in range(CALLS):
        await pay(Decimal(number + 1), "ann")
    return {"log": ["done"]}


async def reading(state: State) -> dict[str, Any]:
    """Ten reads through the gate."""
    for number in range(CALLS):
        await look(str(number))
    return {"log": ["done"]}


def workflow(name: str, node: Any, policy: Policy) -> Workflow:
    """One node that calls."""
    graph = StateGraph(State)
    graph.add_node("node", node)
    graph.add_edge(START, "node")
    return Workflow(name, version="1", graph=graph, triggers=[On(name)], policies={"node": policy})


# -- without a database ----------------------------------------------------------------------------------------------


def _dropped(*_arguments: Any, **_more: Any) -> None:
    """What comes of every verb."""


class _Verbs:
    """A transaction that drops whatever it is told."""

    unit = None

    def __getattr__(self, verb: str) -> Any:
        return _dropped


class _Nothing:
    """A store that takes every write at once and keeps none: what is left is the gate."""

    committer: _Nothing

    def __init__(self) -> None:
        self.committer = self
        self.telemetry = Telemetry()

    def transaction(self, lease: Lease | None = None) -> _Verbs:
        return _Verbs()

    @asynccontextmanager
    async def write(self, lease: Lease | None = None) -> AsyncIterator[_Verbs]:
        yield self.transaction(lease)

    def post(self, unit: None, *, patience: float = 0.0) -> asyncio.Future[None]:
        future = asyncio.get_running_loop().create_future()
        future.set_result(None)
        return future

    async def now(self) -> Any:
        return datetime.now(UTC)


async def microseconds(one: Tool, arguments: dict[str, Any], policy: Policy, *, calls: int) -> float:
    """CPU time of one call, in microseconds."""
    event = Event(id="bench", source="/bench", type="bench", data={})
    times = dict.fromkeys(("created_at", "updated_at"), event.received_at)
    run = Run(id="run", workflow="w", version="1", state=RunState.PROCESSING, lane="default", event=event, **times)
    store: Any = _Nothing()
    segment = Segment.begin(
        run, Lease("run", 1, "bench"), store, Resources(), History({}, {}, ()), lambda: "here", Setting()
    )
    gate = Gate(segment, "node", "here", policy, asyncio.get_running_loop(), ["the event"])
    async with gate.opened():
        for _ in range(100):
            await gate.call(one, arguments)
        segment.effects.clear()
        began = time.process_time()
        for _ in range(calls):
            await gate.call(one, arguments)
        return 1e6 * (time.process_time() - began) / calls


# -- with a database -------------------------------------------------------------------------------------------------


@dataclass
class Cost:
    """Of one call: milliseconds of CPU, and commits made while it and its neighbours were under way."""

    cpu: float
    commits: float
    #: Commits of one call when nothing else is going on.
    alone: float


async def cost(url: str, node: Any, policy: Policy, *, runs: int) -> Cost:
    """What ten calls in each of these runs cost, a hundred runs at once."""
    async with Store.open(url) as store:
        registry = Workflows([workflow("calls", node, policy)])
        engine = Engine(store, registry, Runner(store, Resources()), worker=new_id("bench"))
        events = [Event(id=new_id("bench"), source="/bench", type="calls", data={"log": []}) for _ in range(runs)]
        receipts = list(await asyncio.gather(*(engine.receive(event) for event in events)))
        alone = await _commits(store, engine, receipts.pop().runs[0].id)
        before, began = store.committer.commits, time.process_time()
        for start in range(0, len(receipts), CONCURRENCY):
            states = await asyncio.gather(
                *(engine.advance(receipt.runs[0].id) for receipt in receipts[start : start + CONCURRENCY])
            )
            if set(states) != {RunState.COMPLETED}:
                raise RuntimeError(f"the runs of the benchmark ended as {set(states)}")
        calls = len(receipts) * CALLS
        return Cost(1000 * (time.process_time() - began) / calls, (store.committer.commits - before) / calls, alone)


async def _commits(store: Store, engine: Engine, run_id: str) -> float:
    """How many commits this run makes for each of its calls, alone; those of the run itself are in it."""
    before = store.committer.commits
    await engine.advance(run_id)
    return (store.committer.commits - before) / CALLS


async def with_database(runs: int, rounds: int) -> dict[str, list[Cost]]:
    """Round by round in turn, each on a database of its own."""
    sides = {
        "bare": (bare, POLICY),
        "write": (writing, POLICY),
        "with budgets": (writing, BUDGETED),
        "read": (reading, POLICY),
    }
    figures: dict[str, list[Cost]] = {name: [] for name in sides}
    for _ in range(rounds):
        for name, (node, policy) in sides.items():
            with tempfile.TemporaryDirectory(prefix="ew-bench-") as folder:
                url = f"sqlite:///{Path(folder) / 'gate.db'}"
                await upgrade(url)
                figures[name].append(await cost(url, node, policy, runs=runs))
    return figures


def main(*, rounds: int = 3, runs: int = 200) -> None:
    """Measure and print; never fails on a figure."""
    tune_interpreter()  # as every worker does
    console = Console()
    sides = {
        "write": (pay, {"amount": Decimal(5), "to": "ann"}, POLICY),
        "with budgets": (pay, {"amount": Decimal("0.01"), "to": "ann"}, BUDGETED),
        "read": (look, {"name": "ann"}, POLICY),
    }
    alone = {
        name: statistics.median(asyncio.run(microseconds(one, given, policy, calls=1000)) for _ in range(rounds))
        for name, (one, given, policy) in sides.items()
    }
    figures = asyncio.run(with_database(runs, rounds))
    base = statistics.median(one.cpu for one in figures["bare"])
    table = Table(title=f"one call through the gate; medians of {rounds} rounds, SQLite, {CONCURRENCY} runs at once")
    for heading in (
        "call",
        "without database, µs",
        "with database, ms CPU",
        "commits waited for",
        "commits a call, shared",
    ):
        table.add_column(heading, justify="left" if heading == "call" else "right")
    bare_commits = statistics.median(one.alone for one in figures["bare"])
    for name in sides:
        cpu = statistics.median(one.cpu for one in figures[name]) - base
        commits = statistics.median(one.commits for one in figures[name])
        single = statistics.median(one.alone for one in figures[name]) - bare_commits
        table.add_row(name, f"{alone[name]:.0f}", f"{cpu:.2f}", f"{single:.1f}", f"{commits:.3f}")
    table.add_row("asked for", "200", "3.00", "2, reads 0", "", style="dim")
    console.print(table)
    console.print(
        f"The peer in the same run is the same graph calling the bare function: {base:.2f} ms CPU for each of its "
        f"{CALLS} calls, run and checkpoints included; that much is taken off the figures with a database."
    )


if __name__ == "__main__":
    main()
