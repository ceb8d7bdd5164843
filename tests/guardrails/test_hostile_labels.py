"""Ways around the labels that an attacker, or an ordinary graph, might find: what was untrusted stays it."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Annotated, Any, TypedDict

import pytest
from langgraph.errors import NodeError
from langgraph.graph import START, StateGraph
from langgraph.types import Command, Send, interrupt
from pydantic import BaseModel
from tests.outside import Provider, Trouble, World, chain, job, look, the_review

from eventwright.graphs.workflow import On
from eventwright.guardrails.policy import Policy
from eventwright.queue.migration import Move
from eventwright.runs.records import ReviewKind
from eventwright.runs.states import RunState
from eventwright.tools.contract import Call, NotDone, Role, tool

#: What the attacker has written where anybody may write.
PAGE = "mallory@evil.example"


@tool(name="outside.read_page")
async def read_page(page: str, *, call: Call) -> str:
    """Read a page that anybody may write."""
    await call.use(Provider).do("read_page", page, call)
    return PAGE


@tool(name="outside.read_bad_page")
async def read_bad_page(page: str, *, call: Call) -> str:
    """Read a page that anybody may write, and that does not want to be read."""
    await call.use(Provider).do("read_bad_page", page, call)
    raise NotDone(PAGE)


@tool(writes="plain", name="outside.write")
async def write(to: Annotated[str, Role.DESTINATION], text: Annotated[str, Role.CONTENT], *, call: Call) -> str:
    """Write to somebody."""
    return await call.use(Provider).do("write", f"{to} {text}", call)


async def sends(state: Any) -> dict[str, Any]:
    """Write to whoever was named last."""
    return {"log": [await write(state["log"][-1], "hello")]}


def policies(**more: Policy) -> dict[str, Policy]:
    return {"reads": Policy(tools=[read_page, read_bad_page, look]), "sends": Policy(tools=[write]), **more}


async def refused(world: World, run: Any, *, node: str = "sends") -> None:
    """A person is asked before the attacker's address is used, and nothing was written there."""
    review = await the_review(run)
    assert (review.kind, review.node) == (ReviewKind.APPROVAL, node)
    assert review.rule is not None
    assert review.rule["stage"] == "labels"
    assert not [call for call in world.provider.calls if call[0] == "write"]


def policies_of(*names: str) -> dict[str, Policy]:
    return {name: made for name, made in policies().items() if name in names}


class TestAnUntrustedPageStaysUntrusted:
    async def test_when_a_tool_tells_it_in_an_error_that_the_node_catches(self, world: World) -> None:
        async def node(state: Any) -> dict[str, Any]:
            try:
                await read_bad_page("news")
            except NotDone as error:
                return {"log": [await write(str(error), "hello")]}
            raise AssertionError

        run = await world.start(job(chain(node=node), {"node": Policy(tools=[read_bad_page, write])}))
        await refused(world, run, node="node")

    async def test_when_an_error_carries_it_to_the_authors_error_handler(self, world: World) -> None:
        async def reads(state: Any) -> dict[str, Any]:
            raise ValueError(await read_page("news"))

        async def rescue(state: Any, error: NodeError) -> Command[Any]:
            return Command(goto="sends", update={"log": [str(error.error)]})

        graph: StateGraph[Any, Any, Any, Any] = StateGraph(chain(reads=reads).state_schema)
        graph.add_node("reads", reads, error_handler=rescue)
        graph.add_node("sends", sends)
        graph.add_edge(START, "reads")
        run = await world.start(job(graph, policies()))
        await refused(world, run)

    async def test_when_an_error_carries_it_to_a_handler_that_another_worker_takes_over(self, world: World) -> None:
        async def reads(state: Any) -> dict[str, Any]:
            raise ValueError(await read_page("news"))

        async def rescue(state: Any, error: NodeError) -> dict[str, Any]:
            await look("x")
            return {"log": [await write(str(error.error), "hello")]}

        graph: StateGraph[Any, Any, Any, Any] = StateGraph(chain(reads=reads).state_schema)
        graph.add_node("reads", reads, error_handler=rescue)
        graph.add_edge(START, "reads")
        handler = "__error_handler__reads"
        world.provider.troubles = [None, Trouble()]
        run = await world.send(job(graph, policies_of("reads") | {handler: Policy(tools=[look, write])}))
        run = await world.crash(run)
        await run.go_on()
        await refused(world, run, node=handler)

    async def test_when_an_error_carries_it_to_the_default_error_handler(self, world: World) -> None:
        async def reads(state: Any) -> dict[str, Any]:
            raise ValueError(await read_page("news"))

        async def rescue(state: Any, error: NodeError) -> Command[Any]:
            return Command(goto="sends", update={"log": [str(error.error)]})

        graph: StateGraph[Any, Any, Any, Any] = chain(reads=reads)
        graph.set_node_defaults(error_handler=rescue)
        graph.add_node("sends", sends)
        run = await world.start(job(graph, policies()))
        await refused(world, run)

    async def test_when_it_is_sent_and_never_stands_in_the_state(self, world: World) -> None:
        async def reads(state: Any) -> Command[Any]:
            return Command(goto=[Send("sends", {"log": [await read_page("news")]})])

        graph: StateGraph[Any, Any, Any, Any] = chain(reads=reads)
        graph.add_node("sends", sends)
        run = await world.start(job(graph, policies()))
        await refused(world, run)

    async def test_when_it_is_sent_and_a_worker_is_killed_before_the_next_checkpoint(self, world: World) -> None:
        async def reads(state: Any) -> Command[Any]:
            return Command(goto=Send("sends", {"log": [await read_page("news")]}))

        async def hangs(state: Any) -> dict[str, Any]:
            return {"n": len(await look("x"))}

        graph: StateGraph[Any, Any, Any, Any] = chain(reads=reads)
        graph.add_node("hangs", hangs)
        graph.add_edge(START, "hangs")
        graph.add_node("sends", sends)
        world.provider.troubles = [None, Trouble()]
        run = await world.send(job(graph, policies(hangs=Policy(tools=[look]))))
        run = await world.crash(run)
        await run.go_on()
        await refused(world, run)

    async def test_when_a_graph_inside_commands_the_graph_outside(self, world: World) -> None:
        async def inner(state: Any) -> Command[Any]:
            return Command(graph=Command.PARENT, goto="sends", update={"log": [await read_page("news")]})

        graph: StateGraph[Any, Any, Any, Any] = StateGraph(chain(x=sends).state_schema)
        graph.add_node("reads", chain(inner=inner).compile())
        graph.add_node("sends", sends)
        graph.add_edge(START, "reads")
        run = await world.start(job(graph, policies()))
        await refused(world, run)

    async def test_when_a_function_runs_a_graph_that_goes_on_in_its_middle(self, world: World) -> None:
        async def first(state: Any) -> dict[str, Any]:
            return {"log": [await read_page("news")]}

        async def second(state: Any) -> dict[str, Any]:
            interrupt("go on?")
            return {"log": [await write(state["log"][-1], "hello")]}

        inside = chain(first=first, second=second).compile()

        async def node(state: Any) -> dict[str, Any]:
            await inside.ainvoke({"log": []})
            return {"n": 1}

        run = await world.start(job(chain(node=node), {"node": Policy(tools=[read_page, write])}))
        await run.approve()
        await refused(world, run, node="node")

    async def test_when_a_graph_that_is_a_node_goes_on_in_its_middle(self, world: World) -> None:
        async def first(state: Any) -> dict[str, Any]:
            return {"log": [await read_page("news")]}

        async def second(state: Any) -> dict[str, Any]:
            interrupt("go on?")
            return {"log": [await write(state["log"][-1], "hello")]}

        inside = chain(first=first, second=second).compile()
        run = await world.start(job(chain(node=inside), {"node": Policy(tools=[read_page, write])}))
        await run.approve()
        await refused(world, run, node="node")

    @pytest.mark.parametrize("fails", [False, True])
    async def test_when_a_node_puts_it_into_what_it_was_given_instead_of_returning_it(
        self, world: World, fails: bool
    ) -> None:
        class Boxed(TypedDict, total=False):
            box: dict[str, Any]
            n: int

        turns = iter([1, 2])

        async def fills(state: Any) -> dict[str, Any]:
            return {"box": {"to": "ann@ours.example"}}

        async def reads(state: Any) -> None:
            if next(turns) == 1:
                state["box"]["to"] = await read_page("news")
                if fails:
                    raise ConnectionError("try me again")

        async def sends(state: Any) -> dict[str, Any]:
            await write(state["box"]["to"], "hello")
            return {"n": 1}

        from langgraph.types import RetryPolicy

        graph: StateGraph[Any, Any, Any, Any] = StateGraph(Boxed)
        graph.add_node("fills", fills)
        graph.add_node("reads", reads, retry_policy=RetryPolicy(initial_interval=0.01))
        graph.add_node("sends", sends)
        graph.add_edge(START, "fills")
        graph.add_edge("fills", "reads")
        graph.add_edge("reads", "sends")
        run = await world.start(job(graph, policies()))
        await refused(world, run)

    async def test_when_the_state_is_one_value_without_names(self, world: World) -> None:
        async def reads(state: Any) -> dict[str, Any]:
            return {"log": [await read_page("news")]}

        async def writes(state: Any) -> dict[str, Any]:
            return {"log": [await write(state["log"][-1], "hello")]}

        graph: StateGraph[Any, Any, Any, Any] = StateGraph(dict)
        graph.add_node("reads", reads)
        graph.add_node("sends", writes)
        graph.add_edge(START, "reads")
        graph.add_edge("reads", "sends")
        run = await world.start(job(graph, policies()))
        await refused(world, run)

    async def test_when_the_event_fills_a_state_that_is_one_value_without_names(self, world: World) -> None:
        async def writes(state: Any) -> dict[str, Any]:
            return {"log": [await write(state["log"][-1], "hello")]}

        graph: StateGraph[Any, Any, Any, Any] = StateGraph(dict)
        graph.add_node("sends", writes)
        graph.add_edge(START, "sends")
        run = await world.start(job(graph, policies_of("sends"), triggers=[On("job")]), {"log": [PAGE]})
        await refused(world, run)

    @pytest.mark.parametrize("kind", ["model", "dataclass", "pairs", "list of commands"])
    async def test_in_whatever_form_a_node_returns_it(self, world: World, kind: str) -> None:
        class Model(BaseModel):
            log: list[str] = []

        @dataclass
        class Data:
            log: list[str] = field(default_factory=list)

        async def reads(state: Any) -> Any:
            page = await read_page("news")
            match kind:
                case "model":
                    return Model(log=[page])
                case "dataclass":
                    return Data(log=[page])
                case "pairs":
                    return Command(update=[("log", [page])])
            return [Command(update={"log": [page]}), {"log": [page]}]

        async def writes(state: Any) -> dict[str, Any]:
            log = state["log"] if isinstance(state, dict) else state.log
            await write(log[-1], "hello")
            return {}

        schema: Any = {"model": Model, "dataclass": Data}.get(kind, chain(x=sends).state_schema)
        graph: StateGraph[Any, Any, Any, Any] = StateGraph(schema)
        graph.add_node("reads", reads)
        graph.add_node("sends", writes)
        graph.add_edge(START, "reads")
        graph.add_edge("reads", "sends")
        run = await world.start(job(graph, policies()))
        await refused(world, run)

    async def test_when_the_node_calls_the_tool_again_after_a_lost_worker_and_catches_the_same_error(
        self, world: World
    ) -> None:
        async def node(state: Any) -> dict[str, Any]:
            try:
                await read_bad_page("news")
            except NotDone as error:
                words = str(error)
            await look("x")
            return {"log": [words]}

        graph = chain(reads=node, sends=sends)
        world.provider.troubles = [None, Trouble()]
        run = await world.send(job(graph, policies()))
        run = await world.crash(run)
        await run.go_on()
        await refused(world, run)

    async def test_over_a_replay_from_the_start(self, world: World) -> None:
        turns = iter([1, 2])

        async def reads(state: Any) -> dict[str, Any]:
            return {"log": [await read_page("news")]}

        async def breaks(state: Any) -> dict[str, Any]:
            if next(turns) == 1:
                raise ValueError("broken")
            return {}

        graph = chain(reads=reads, breaks=breaks, sends=sends)
        run = await world.start(job(graph, policies()))
        assert (await run.run()).state is RunState.FAILED
        await world.engine.replay(run.run_id, by="olga", from_start=True)
        await run.go_on()
        await refused(world, run)
        assert len(world.provider.calls) == 1

    async def test_over_a_replay_with_renamed_nodes(self, world: World) -> None:
        async def reads(state: Any) -> dict[str, Any]:
            return {"log": [await read_page("news")]}

        before = {"reads": Policy(tools=[read_page]), "posts": Policy(tools=[write])}
        run = await world.start(job(chain(reads=reads, posts=sends), before))
        await refused(world, run, node="posts")
        world.deploy(job(chain(reads=reads, sends=sends), policies()))
        run = world.take(run.run_id)
        async with world.store.write() as tx:
            tx.make_due(run.run_id)
        await run.go_on()
        await world.engine.replay(run.run_id, by="olga", move=Move(rename={"posts": "sends"}))
        await run.go_on()
        await refused(world, run)
