"""What a `ToolNode` and its tools can do, they can do under a policy."""

from __future__ import annotations

import asyncio
from decimal import Decimal
from typing import Annotated, Any

import pytest
from langchain_core.messages import AIMessage, ToolMessage
from langchain_core.tools import BaseTool, InjectedToolCallId, StructuredTool, ToolException, tool
from langgraph.graph import START, MessagesState, StateGraph
from langgraph.prebuilt import InjectedState, ToolNode, ToolRuntime
from langgraph.types import Command, interrupt
from tests.outside import Trouble, World, ended, the_effect, the_review
from tests.outside import pay as pay_of_ours
from tests.scripted import calls
from tests.toolbox import Tools, answers, workflow

from eventwright.graphs.workflow import BadWorkflow, On, Workflow
from eventwright.guardrails.policy import Policy
from eventwright.guardrails.rules import above, always
from eventwright.runs.records import EffectState
from eventwright.runs.states import Outcome, Reason, RunState
from eventwright.tools.contract import Call, NotDone, Role
from eventwright.tools.langchain_tools import as_langchain, langchain_tool


@pytest.fixture
def tools() -> Tools:
    return Tools()


# -- what else an author's ToolNode can do -----------------------------------------------------------------------------


class TestAToolMay:
    async def test_get_the_graphs_state_which_is_not_recorded_and_which_no_model_can_forge(self, world: World) -> None:
        got: list[Any] = []

        @tool
        async def look(
            x: int,
            state: Annotated[dict[str, Any], InjectedState],
            turn: Annotated[int, InjectedState("turn")],
            call: Annotated[str, InjectedToolCallId],
            runtime: ToolRuntime,
        ) -> str:
            """Look."""
            got.append((x, len(state["messages"]), turn, call, runtime.tool_call_id))
            return "seen"

        forged = calls(("look", {"x": 1, "state": {"messages": []}, "turn": 99, "runtime": None}), ids=["c"])
        run = await world.start(workflow(forged, ToolNode([look]), langchain_tool(look, reads=True)))
        assert got == [(1, 1, 1, "c", "c")]
        assert the_effect(await run.effects(), "look").arguments == {"x": 1}

    async def test_answer_with_an_artifact(self, world: World) -> None:
        @tool(response_format="content_and_artifact")
        async def look(x: int) -> tuple[str, Any]:
            """Look."""
            return "seen", {"rows": [1, 2]} if x else object()

        job = workflow(
            calls(("look", {"x": 1}), ("look", {"x": 0})), ToolNode([look]), langchain_tool(look, reads=True)
        )
        run = await world.start(job)
        told = [m for m in (await run.values())["messages"] if isinstance(m, ToolMessage)]
        assert [(m.content, m.artifact) for m in told] == [("seen", {"rows": [1, 2]}), ("seen", None)]

    @pytest.mark.parametrize("many", [False, True], ids=["a command", "several"])
    async def test_steer_the_graph_and_does_so_again_after_a_crash(
        self, world: World, tools: Tools, many: bool
    ) -> None:
        @tool
        async def steer(x: int, call: Annotated[str, InjectedToolCallId]) -> Any:
            """Steer."""
            tools.ran.append("steer")
            command: Any = Command(update={"steps": [x], "messages": [ToolMessage("steered", tool_call_id=call)]})
            return [command, Command(update={"steps": [x + 1]})] if many else command

        runs: list[str] = []
        world.provider.troubles = [Trouble()]

        @tool
        async def look(x: int) -> str:
            """Look, once the other call is on record, and hang."""
            while not await world.store.effects(runs[0]):
                await asyncio.sleep(0.01)
            return await world.provider.do("look", str(x), Call(run_id="", node="", idempotency_key="k", attempt=1))

        node, named = ToolNode([steer, look]), [langchain_tool(one, reads=True) for one in (steer, look)]
        run = await world.send(workflow(calls(("steer", {"x": 5}), ("look", {"x": 1})), node, *named))
        runs.append(run.run_id)
        run = await world.crash(run)
        await world.due(run)
        assert (await run.go_on()).state is RunState.COMPLETED
        assert tools.ran == ["steer"]
        assert await answers(run) == [("success", "steered"), ("success", "look 1")]
        assert (await run.values())["steps"] == ([5, 6] if many else [5])

    @pytest.mark.parametrize("more", [{"turn": object()}, {"steps": {1, 2}}, {"steps": (1, 2)}], ids=range(3))
    async def test_not_steer_with_what_would_not_be_the_same_on_replay(self, world: World, more: Any) -> None:
        @tool
        async def steer(x: int, call: Annotated[str, InjectedToolCallId]) -> Any:
            """Steer."""
            return Command(update={**more, "messages": [ToolMessage("steered", tool_call_id=call)]})

        run = await world.start(
            workflow(calls(("steer", {"x": 5})), ToolNode([steer]), langchain_tool(steer, reads=True))
        )
        assert ended(await run.run()) == (RunState.FAILED, Reason.NOT_RETRYABLE)
        assert "cannot be recorded" in str((await run.run()).error)

    async def test_handle_its_own_errors(self, world: World) -> None:
        @tool
        async def look(x: int) -> str:
            """Look."""
            raise ToolException("nothing there")

        look.handle_tool_error = True
        run = await world.start(workflow(calls(("look", {"x": 1})), ToolNode([look]), langchain_tool(look, reads=True)))
        assert await answers(run) == [("error", "nothing there")]

    async def test_be_described_by_a_json_schema(self, world: World, tools: Tools) -> None:
        schema = {
            "type": "object",
            "properties": {"q": {"type": "string"}, "most": {"type": "integer"}, "kind": {"enum": ["a", "b"]}},
            "required": ["q"],
        }
        got: list[Any] = []

        async def run_it(**given: Any) -> str:
            got.append(given)
            return "found"

        remote = StructuredTool(name="remote", description="Remote.", args_schema=schema, coroutine=run_it)
        ours = langchain_tool(remote, writes="plain", roles={"q": Role.CONTENT})
        assert ours.roles == {"q": Role.CONTENT, "most": Role.DESTINATION}
        made = calls(
            ("remote", {"q": "x"}),
            ("remote", {"q": 1}),
            ("remote", {"q": "x", "kind": "c"}),
            ("remote", {"q": "x", "z": 1}),
        )
        told = await answers(await world.start(workflow(made, ToolNode([remote]), ours)))
        assert [status for status, _ in told] == ["success", "error", "error", "error"]
        assert got == [{"q": "x"}], "what the model left out is left out"


@pytest.mark.parametrize("way", ["ToolNode", "by name", "in a thread"])
class TestAToolThatPauses:
    """It runs again from its beginning when there is an answer, as everywhere in LangGraph, and is not in doubt."""

    async def test_to_ask_a_question_of_its_own_gets_the_answer(self, world: World, tools: Tools, way: str) -> None:
        @tool
        async def book(text: str) -> str:
            """Book a place."""
            colour = interrupt(f"which colour for {text}?")
            return tools._did("book", f"{text} in {colour}")

        run = await world.start(self.job(way, book, langchain_tool(book, writes="plain")))
        assert (await the_review(run)).question == "which colour for x?"
        assert ended(await run.respond("blue")) == (RunState.COMPLETED, Outcome.APPROVED)
        assert tools.ran == [("book", "x in blue")]

    async def test_because_a_call_within_it_is_approved_by_a_person_makes_that_call_once(
        self, world: World, tools: Tools, way: str
    ) -> None:
        @tool
        async def book(text: str) -> str:
            """Book a place, and pay for it twice."""
            paid = [await pay_of_ours(Decimal(amount)) for amount in (1, 2)]
            return f"{text}: {paid}"

        ours = langchain_tool(book, writes="plain")
        run = await world.start(self.job(way, book, ours, pay_of_ours, approve_when={pay_of_ours: always}))
        await run.approve()
        assert world.provider.done == [("pay", "1 ann")]
        assert ended(await run.approve()) == (RunState.COMPLETED, Outcome.APPROVED)
        assert world.provider.done == [("pay", "1 ann"), ("pay", "2 ann")]

    @staticmethod
    def job(way: str, raw: BaseTool, ours: Any, *more: Any, **policy: Any) -> Workflow:
        if way == "ToolNode":
            return workflow(calls((raw.name, {"text": "x"})), ToolNode([raw]), ours, *more, **policy)

        async def by_name(state: MessagesState) -> dict[str, Any]:
            return {"messages": [AIMessage((await ours(text="x")).content)]}

        def in_a_thread(state: MessagesState) -> dict[str, Any]:
            return {"messages": [AIMessage(ours.from_thread(text="x").content)]}

        graph = StateGraph(MessagesState)
        graph.add_node("tools", by_name if way == "by name" else in_a_thread)
        graph.add_edge(START, "tools")
        on = On("job", input=lambda payload, event: {"messages": []}, trusted=True)
        policies = {"tools": Policy(tools=[ours, *more], **policy)}
        return Workflow("job", version="1", graph=graph, triggers=[on], policies=policies)


async def test_what_a_tool_calls_does_not_shift_what_the_node_calls_after_it(world: World) -> None:
    """On replay the tool's recorded answer comes back, and nothing within it is called."""

    @tool
    async def book(text: str) -> str:
        """Book a place, and pay for it."""
        return str(await pay_of_ours(Decimal(1)))

    ours = langchain_tool(book, writes="plain")

    async def node(state: MessagesState) -> dict[str, Any]:
        return {"messages": [AIMessage(f"{(await ours(text='x')).content}, {await pay_of_ours(Decimal(2))}")]}

    graph = StateGraph(MessagesState)
    graph.add_node("node", node)
    graph.add_edge(START, "node")
    on = On("job", input=lambda payload, event: {"messages": []}, trusted=True)
    policy = Policy(tools=[ours, pay_of_ours], approve_when={pay_of_ours: above("amount", 1)})
    run = await world.start(Workflow("job", version="1", graph=graph, triggers=[on], policies={"node": policy}))
    assert ended(await run.approve()) == (RunState.COMPLETED, Outcome.APPROVED)
    assert world.provider.done == [("pay", "1 ann"), ("pay", "2 ann")]


class TestWhatAnAuthorPutsAroundToolCalls:
    @pytest.mark.parametrize("kind", ["async", "sync"])
    async def test_stays_around_them_and_leads_nowhere_past_the_gate(
        self, world: World, tools: Tools, kind: str
    ) -> None:
        around: list[str] = []

        async def awrap(request: Any, execute: Any) -> Any:
            around.append(request.tool_call["name"])
            if request.tool_call["name"] == "hidden":
                return ToolMessage(await request.tool.ainvoke(request.tool_call["args"]), tool_call_id="x")
            return await execute(request.override(tool_call={**request.tool_call, "args": {"query": "edited"}}))

        def wrap(request: Any, execute: Any) -> Any:
            around.append(request.tool_call["name"])
            if request.tool_call["name"] == "hidden":
                return ToolMessage(request.tool.invoke(request.tool_call["args"]), tool_call_id="x")
            return execute(request.override(tool_call={**request.tool_call, "args": {"query": "edited"}}))

        wrapper: dict[str, Any] = {"awrap_tool_call": awrap} if kind == "async" else {"wrap_tool_call": wrap}
        node = ToolNode([tools.search, tools.hidden], handle_tool_errors=True, **wrapper)
        job = workflow(
            calls(("search", {"query": "x"}), ("hidden", {"text": "y"})), node, langchain_tool(tools.search, reads=True)
        )
        told = await answers(await world.start(job))
        assert sorted(around) == ["hidden", "search"]
        assert told[0] == ("success", "search edited")
        assert told[1][0] == "error"
        assert tools.ran == [("search", "edited")]

    async def test_may_try_again_and_the_call_is_one_effect(self, world: World, tools: Tools) -> None:
        tools.errors = [NotDone("busy"), NotDone("busy")]

        async def persistent(request: Any, execute: Any) -> Any:
            for _ in range(2):
                try:
                    return await execute(request)
                except NotDone:
                    continue
            return await execute(request)

        post = langchain_tool(tools.post, writes="plain", trusted=True)
        run = await world.start(
            workflow(calls(("post", {"text": "x"})), ToolNode([tools.post], awrap_tool_call=persistent), post)
        )
        effect = the_effect(await run.effects(), "post")
        assert (effect.state, effect.attempt) == (EffectState.DONE, 3)


async def test_tools_of_ours_work_in_a_tool_node(world: World) -> None:
    node = ToolNode([as_langchain(pay_of_ours)])
    made = calls(("outside_pay", {"amount": "12.50"}), ("outside_pay", {"amount": 1, "to": "bob", "more": 1}))
    run = await world.start(workflow(made, node, pay_of_ours, approve_when=always))
    assert await run.reviews()
    done = await run.edit({"amount": "10.00", "to": "ann"})
    assert done.state is RunState.COMPLETED
    assert world.provider.done == [("pay", "10.00 ann")]
    told = await answers(run)
    assert told[0] == ("success", "pay 10.00 ann")
    assert told[1][0] == "error"


async def test_the_authors_objects_are_not_changed(world: World, tools: Tools) -> None:
    node = ToolNode([tools.search])
    before = dict(node.__dict__)
    job = workflow(calls(("search", {"query": "x"})), node, langchain_tool(tools.search, reads=True))
    await world.start(job)
    assert node.__dict__ == before
    assert node.tools_by_name == {"search": tools.search}
    await job.graph.compile().ainvoke({"messages": []})
    assert tools.ran == [("search", "x")] * 2, "outside of Eventwright the graph is what it was"


class TestADeclaration:
    def test_says_whether_a_tool_reads_or_writes_and_what_its_class_needs(self, tools: Tools) -> None:
        for wrong in (
            {},
            {"reads": True, "writes": "plain"},
            {"writes": "keyed"},
            {"writes": "verifiable"},
            {"writes": "keyed", "key": "nowhere"},
            {"writes": "plain", "roles": {"nobody": Role.CONTENT}},
        ):
            with pytest.raises(TypeError):
                langchain_tool(tools.post, **wrong)
        with pytest.raises(TypeError, match="policy"):
            langchain_tool(as_langchain(pay_of_ours), reads=True)

    def test_of_a_tool_whose_arguments_could_not_be_checked_is_refused(self) -> None:
        class Loose(BaseTool):
            name: str = "loose"
            description: str = "Takes anything."

            def _run(self, **kwargs: Any) -> str:
                return "done"

        with pytest.raises(TypeError, match="unchecked"):
            langchain_tool(Loose(), reads=True)

    async def test_of_two_tools_for_one_is_refused(self, world: World, tools: Tools) -> None:
        both = [langchain_tool(tools.search, reads=True), langchain_tool(tools.search, reads=True)]
        job = workflow(calls(("search", {"query": "x"})), ToolNode([tools.search]), *both)
        with pytest.raises(BadWorkflow, match="two tools"):
            world.engine.runner.graph(job)

    def test_cannot_take_the_name_of_our_own_models(self) -> None:
        @tool("model.ask")
        def impostor(x: int) -> str:
            """Would be allowed everywhere."""
            return ""

        with pytest.raises(TypeError, match="taken"):
            langchain_tool(impostor, reads=True)
