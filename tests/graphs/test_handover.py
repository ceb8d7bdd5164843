"""Narrow workers: a node that names a lane runs on a worker of that lane, and the run comes there by itself."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from datetime import timedelta
from typing import Any

import pytest
from langchain_core.messages import AIMessage
from langchain_core.tools import tool as langchain_tool_of
from langgraph.graph import START, MessagesState, StateGraph
from langgraph.prebuilt import ToolNode
from langgraph.types import Command, Send, interrupt
from tests.graphs.lane_floor import IO, LLM, Floor, beside, handed_over
from tests.outside import State, World, a_world, chain, job, says

from eventwright.graphs.runner import Stop
from eventwright.graphs.workflow import BadWorkflow, On
from eventwright.guardrails.policy import Policy
from eventwright.runs.records import JournalKind
from eventwright.runs.states import Outcome, RunState
from eventwright.tools.langchain_tools import langchain_tool


@pytest.fixture
async def floor(world: World) -> Floor:
    return Floor(world)


class TestALane:
    @pytest.mark.parametrize("lane", ["", "LLM", "two words", "llm,io"])
    def test_of_a_node_has_a_name_that_a_queue_can_bear(self, lane: str) -> None:
        with pytest.raises(BadWorkflow, match="lane"):
            job(chain(a=lambda state: {}), {"a": Policy(lane=lane)})

    async def test_that_nobody_serves_keeps_the_run_in_sight_and_counts_nothing_against_it(self, floor: Floor) -> None:
        run = await floor.send(job(chain(a=floor.node("a"), b=floor.node("b")), {"b": LLM}))
        assert await floor.step(run) is RunState.RECEIVED
        found = await run.run()
        assert (found.lane, found.attempts, found.crashes, found.due_at) == ("llm", 1, 0, found.updated_at)
        assert await floor.world.store.due_runs(limit=9, lane="default") == []
        assert await floor.world.store.due_runs(limit=9, lane="llm") == [(run.run_id, "llm")]
        assert floor.done == [("a", "default")]

    async def test_of_a_workflow_without_narrow_nodes_is_left_by_nobody(self, floor: Floor) -> None:
        workflow = job(chain(a=floor.node("a")), lane="orders")
        run = await floor.world.send(workflow)
        assert await floor.worker("default", workflow=workflow).advance(run.run_id) is RunState.COMPLETED


class TestAHandOver:
    @pytest.fixture(params=["sqlite", "postgres"])
    async def floor(self, request: pytest.FixtureRequest) -> AsyncIterator[Floor]:
        async with a_world(request.getfixturevalue(f"{request.param}_url")) as world:
            yield Floor(world)

    async def test_brings_the_run_to_the_nodes_lane_and_back_and_repeats_nothing(self, floor: Floor) -> None:
        nodes = {name: floor.node(name) for name in "abcd"}
        run = await floor.send(job(chain(**nodes), {"b": LLM, "c": LLM}))
        assert await floor.go_on(run) is RunState.COMPLETED
        assert floor.way == ["default", "llm", "default"]
        assert floor.where() == {"a": "default", "b": "llm", "c": "llm", "d": "default"}
        found = await run.run()
        assert (found.attempts, found.crashes, found.outcome) == (1, 0, Outcome.AUTO)
        assert handed_over(await run.journal()) == ["llm", "default"]

    async def test_leaves_a_bell_in_the_outbox_for_the_other_lane(self, floor: Floor) -> None:
        run = await floor.send(job(chain(a=floor.node("a"), b=floor.node("b")), {"b": LLM}))
        await floor.step(run)
        bells = await floor.world.store.wakeups(sent=False, older_than=timedelta(0), limit=9)
        assert [(bell.run_id, bell.lane) for bell in bells] == [(run.run_id, "llm")]

    async def test_comes_before_the_first_node_too(self, floor: Floor) -> None:
        run = await floor.send(job(chain(a=floor.node("a")), {"a": LLM}))
        assert await floor.go_on(run) is RunState.COMPLETED
        assert floor.way == ["default", "llm"]

    async def test_is_none_where_one_worker_serves_both_lanes(self, floor: Floor) -> None:
        workflow = job(chain(a=floor.node("a"), b=floor.node("b"), c=floor.node("c")), {"b": LLM})
        run = await floor.world.send(workflow)
        assert await floor.worker("default", "llm", workflow=workflow).advance(run.run_id) is RunState.COMPLETED
        moves = [entry.data["to"] for entry in await run.journal() if entry.kind is JournalKind.TRANSITION]
        assert moves == ["received", "processing", "completed"]

    async def test_of_one_node_does_not_keep_those_beside_it_nor_repeat_them(self, floor: Floor) -> None:
        nodes = {name: floor.node(name) for name in ("a", "b", "c", "d")}
        run = await floor.send(job(beside(**nodes), {"b": LLM, "c": IO}))
        assert await floor.go_on(run) is RunState.COMPLETED
        assert floor.way == ["default", "llm", "io", "default"]
        assert floor.where() == {"a": "default", "b": "llm", "c": "io", "d": "default"}
        assert (await run.values())["n"] == 4


class TestNodesOfEveryKind:
    async def test_tasks_that_were_sent_are_all_done_there_each_once(self, floor: Floor) -> None:
        async def one(state: Any) -> dict[str, Any]:
            floor.done.append((f"one {state['n']}", floor.lane))
            return {"log": [state["n"]]}

        graph = chain(first=floor.node("first"))
        graph.add_node("one", one)
        graph.add_node("other", floor.node("other"))
        graph.add_conditional_edges("first", lambda state: ["other", *(Send("one", {"n": n}) for n in range(3))])
        run = await floor.send(job(graph, {"one": LLM}))
        assert await floor.go_on(run) is RunState.COMPLETED
        assert floor.way == ["default", "llm"]
        assert floor.where() == {
            "first": "default",
            "other": "default",
            **{f"one {n}": "llm" for n in range(3)},
        }

    async def test_a_synchronous_node_and_a_command_that_goes_there(self, floor: Floor) -> None:
        def sync(state: Any) -> dict[str, Any]:
            floor.done.append(("sync", floor.lane))
            return {"log": ["sync"]}

        async def goes(state: Any) -> Command[str]:
            return Command(goto="sync", update={"log": ["goes"]})

        graph: StateGraph[Any, Any, Any, Any] = StateGraph(State)
        graph.add_node("goes", goes, destinations=("sync",))
        graph.add_node("sync", sync)
        graph.add_edge(START, "goes")
        run = await floor.send(job(graph, {"sync": LLM}))
        assert await floor.go_on(run) is RunState.COMPLETED
        assert floor.where() == {"sync": "llm"}
        assert (await run.values())["log"] == ["goes", "sync"]

    async def test_a_tool_node(self, floor: Floor) -> None:
        @langchain_tool_of
        async def search(query: str) -> str:
            """Search."""
            floor.done.append(("search", floor.lane))
            return query

        async def model(state: Any) -> dict[str, Any]:
            calls = [{"name": "search", "args": {"query": "cats"}, "id": "1"}]
            return {"messages": [AIMessage("", tool_calls=calls)]}

        graph: StateGraph[Any, Any, Any, Any] = StateGraph(MessagesState)
        graph.add_node("model", model)
        graph.add_node("tools", ToolNode([search]))
        graph.add_edge(START, "model")
        graph.add_edge("model", "tools")
        on = On("job", input=lambda payload, event: {"messages": []}, trusted=True)
        tools = Policy(tools=[langchain_tool(search, reads=True)], lane="io")
        run = await floor.send(job(graph, {"tools": tools}, triggers=[on]))
        assert await floor.go_on(run) is RunState.COMPLETED
        assert floor.where() == {"search": "io"}

    async def test_a_graph_that_is_a_node_and_asks_inside(self, floor: Floor) -> None:
        async def asks(state: Any) -> dict[str, Any]:
            floor.done.append(("asks", floor.lane))
            return {"log": [interrupt("Which one?")]}

        inner = chain(before=floor.node("before"), asks=asks).compile()
        run = await floor.send(job(chain(a=floor.node("a"), inner=inner, z=floor.node("z")), {"inner": LLM}))
        assert await floor.go_on(run) is RunState.PENDING_APPROVAL
        assert (await run.run()).lane == "llm"
        [review] = await run.reviews()
        await floor.world.engine.decide(review.id, says("respond", response="this one"))
        assert await floor.go_on(run) is RunState.COMPLETED
        assert floor.done == [
            ("a", "default"),
            ("before", "llm"),
            ("asks", "llm"),
            ("asks", "llm"),
            ("z", "default"),
        ]

    async def test_what_handles_its_errors_runs_with_it(self, floor: Floor) -> None:
        async def fails(state: Any) -> dict[str, Any]:
            raise ValueError("no")

        async def handles(state: Any) -> Command[str]:
            floor.done.append(("handles", floor.lane))
            return Command(goto="z")

        graph: StateGraph[Any, Any, Any, Any] = StateGraph(State)
        graph.add_node("fails", fails, error_handler=handles)
        graph.add_node("z", floor.node("z"))
        graph.add_edge(START, "fails")
        run = await floor.send(job(graph, {"fails": LLM}))
        assert await floor.go_on(run) is RunState.COMPLETED
        assert floor.where() == {"handles": "llm", "z": "default"}


class TestAWorkerThatDies:
    async def test_in_a_narrow_node_is_followed_by_one_of_that_lane(self, floor: Floor) -> None:
        workflow = job(chain(a=floor.node("a"), b=floor.node("b"), c=floor.node("c")), {"b": LLM})
        run = await floor.send(workflow)
        await floor.step(run)
        async with floor.world.store.write() as tx:
            tx.claim(run.run_id, worker="dies", seconds=6)
        assert await floor.world.store.due_runs(limit=9) == []
        await floor.world.due(run)
        assert await floor.world.store.due_runs(limit=9, lane="default") == []
        assert await floor.go_on(run) is RunState.COMPLETED
        assert floor.where() == {"a": "default", "b": "llm", "c": "default"}

    async def test_before_it_could_hand_over_is_followed_by_one_that_does(self, floor: Floor) -> None:
        workflow = job(beside(a=floor.node("a"), b=floor.node("b")), {"b": LLM})
        run = await floor.send(workflow)
        async with floor.world.store.write() as tx:
            claim = tx.claim(run.run_id, worker="dies", seconds=6)
        assert claim.lease is not None
        dying = floor.worker("default", workflow=workflow)
        floor.lane = "default"
        await dying.runner.segment(await run.run(), workflow, claim.lease, Stop())
        await floor.world.due(run)
        assert await floor.go_on(run) is RunState.COMPLETED
        assert floor.where() == {"a": "default", "b": "llm"}

    async def test_is_taken_over_by_one_of_both_lanes_without_another_hand_over(self, floor: Floor) -> None:
        workflow = job(beside(a=floor.node("a"), b=floor.node("b")), {"b": LLM})
        run = await floor.send(workflow)
        await floor.step(run)
        assert await floor.worker("llm", "default", workflow=workflow).advance(run.run_id) is RunState.COMPLETED


class TestAnOperator:
    async def test_cancels_a_run_that_waits_for_its_lane(self, floor: Floor) -> None:
        run = await floor.send(job(chain(a=floor.node("a"), b=floor.node("b")), {"b": LLM}))
        await floor.step(run)
        assert (await floor.world.engine.cancel(run.run_id, by="olga")).state is RunState.CANCELLED
        assert await floor.go_on(run) is RunState.CANCELLED
        assert floor.where() == {"a": "default"}

    async def test_cancels_a_run_that_is_just_being_handed_over(self, floor: Floor) -> None:
        async def cancels(state: Any) -> dict[str, Any]:
            await floor.world.engine.cancel(run.run_id, by="olga")
            return {"log": []}

        run = await floor.send(job(chain(a=cancels, b=floor.node("b")), {"b": LLM}))
        await floor.step(run)
        assert await floor.go_on(run) is RunState.CANCELLED
        assert floor.done == []

    async def test_replays_from_the_start_and_the_run_comes_back_to_its_first_lane(self, floor: Floor) -> None:
        left = [1]

        async def fails(state: Any) -> dict[str, Any]:
            if left[0]:
                left[0] -= 1
                raise ValueError("no")
            return {"log": []}

        run = await floor.send(job(chain(a=floor.node("a"), b=fails), {"b": LLM}))
        assert await floor.go_on(run) is RunState.FAILED
        await floor.world.engine.replay(run.run_id, by="olga", from_start=True)
        assert await floor.go_on(run) is RunState.COMPLETED
        assert floor.done == [("a", "default"), ("a", "default")]

    async def test_drains_a_worker_and_the_run_stays_in_the_lane_it_is_in(self, floor: Floor) -> None:
        async def drains(state: Any) -> dict[str, Any]:
            floor._workers["llm"].drain()
            return {"log": []}

        run = await floor.send(job(chain(a=drains, b=floor.node("b")), {"a": LLM, "b": LLM}))
        await floor.step(run)
        await floor.step(run)
        assert ((await run.run()).state, (await run.run()).lane) == (RunState.RECEIVED, "llm")


async def test_many_runs_are_handed_over_at_once(floor: Floor) -> None:
    workflow = job(chain(a=floor.node("a"), b=floor.node("b"), c=floor.node("c")), {"b": LLM})
    runs = [await floor.send(workflow) for _ in range(20)]
    workers = {lane: floor.worker(lane, workflow=workflow) for lane in workflow.lanes}
    while due := await floor.world.store.due_runs(limit=100):
        await asyncio.gather(*(workers[lane].advance(run_id) for run_id, lane in due))
    assert {(await run.run()).state for run in runs} == {RunState.COMPLETED}
    assert len(floor.done) == 60
