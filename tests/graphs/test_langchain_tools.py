"""LangChain's tools in a `ToolNode` go through the gate of their node, and the user's objects stay as they are."""

from __future__ import annotations

import asyncio
import operator
from collections.abc import AsyncIterator
from typing import Annotated, Any

import pytest
from langchain_core.messages import AIMessage, ToolMessage
from langchain_core.tools import BaseTool, InjectedToolCallId, StructuredTool, ToolException, tool
from langgraph.graph import END, START, MessagesState, StateGraph
from langgraph.prebuilt import InjectedState, ToolNode, ToolRuntime
from langgraph.types import Command
from tests.outside import Provider, Trouble, World, a_world, ended, says, the_effect, the_review
from tests.outside import pay as pay_of_ours
from tests.scripted import calls

from eventwright.graphs.workflow import BadWorkflow, On, Workflow
from eventwright.guardrails.policy import Policy
from eventwright.guardrails.rules import always
from eventwright.runs.records import EffectState, JournalKind, ReviewKind
from eventwright.runs.states import Outcome, Reason, RunState
from eventwright.tools.contract import Call, NotDone, OutsideGate, Role
from eventwright.tools.langchain_tools import as_langchain, langchain_tool


@pytest.fixture
async def world(sqlite_url: str) -> AsyncIterator[World]:
    async with a_world(sqlite_url) as world:
        yield world


class Tools:
    """LangChain tools that keep what they were called with, as an author has them."""

    def __init__(self) -> None:
        self.ran: list[Any] = []
        self.errors: list[Exception] = []

        @tool
        async def search(query: str) -> str:
            """Search."""
            return self._did("search", query)

        @tool
        def post(text: str, to: str = "ann") -> str:
            """Post a letter, and not quickly."""
            return self._did("post", f"{text} {to}")

        @tool
        def hidden(text: str) -> str:
            """No policy names this."""
            return self._did("hidden", text)

        self.search, self.post, self.hidden = search, post, hidden

    def _did(self, name: str, argument: Any) -> str:
        self.ran.append((name, argument))
        if self.errors:
            raise self.errors.pop(0)
        return f"{name} {argument}"


@pytest.fixture
def tools() -> Tools:
    return Tools()


def workflow(message: AIMessage | list[AIMessage], node: ToolNode, *named: Any, **policy: Any) -> Workflow:
    """A graph in which a model has said this (once, or turn by turn), and a `ToolNode` does it."""
    turns = message if isinstance(message, list) else [message]

    class State(MessagesState):
        turn: int
        steps: Annotated[list[int], operator.add]

    async def model(state: State) -> dict[str, Any]:
        turn = state.get("turn", 0)
        return {"messages": [turns[turn]], "turn": turn + 1}

    graph = StateGraph(State)
    graph.add_node("model", model)
    graph.add_node("tools", node)
    graph.add_edge(START, "model")
    graph.add_edge("model", "tools")
    graph.add_conditional_edges("tools", lambda state: "model" if state["turn"] < len(turns) else END)
    # What a person or a rule of ours sends: these tests are not about what untrusted data may choose.
    on = On("job", input=lambda payload, event: {"messages": []}, trusted=True)
    return Workflow("job", version="1", graph=graph, triggers=[on], policies={"tools": Policy(tools=named, **policy)})


async def answers(run: Any) -> list[tuple[str, str]]:
    """What the model is told: status and content of each tool message."""
    return [(m.status, m.content) for m in (await run.values())["messages"] if isinstance(m, ToolMessage)]


# -- what is not allowed does not happen -------------------------------------------------------------------------------


class TestARefusal:
    async def test_of_a_tool_that_the_policy_does_not_name_is_journalled_and_told_to_the_model(
        self, world: World, tools: Tools
    ) -> None:
        node = ToolNode([tools.search, tools.hidden])
        job = workflow(
            calls(("hidden", {"text": "x"}), ("search", {"query": "y"})), node, langchain_tool(tools.search, reads=True)
        )
        run = await world.start(job)

        (refused, why), found = await answers(run)
        assert (refused, found) == ("error", ("success", "search y"))
        assert "the policy of node 'tools' does not name this tool" in why
        assert tools.ran == [("search", "y")]
        denied = [e.data for e in await run.journal() if e.kind is JournalKind.VERDICT and e.data["tool"] == "hidden"]
        assert [(entry["stages"][0]["stage"], entry["stages"][0]["verdict"]) for entry in denied] == [
            ("capability", "deny")
        ]
        assert (await run.run()).state is RunState.COMPLETED

    async def test_without_a_policy_is_the_answer_to_every_call(self, world: World, tools: Tools) -> None:
        run = await world.start(workflow(calls(("search", {"query": "y"})), ToolNode([tools.search])))
        assert [status for status, _ in await answers(run)] == ["error"]
        assert tools.ran == []

    async def test_of_another_tool_of_the_same_name_does_not_depend_on_the_name(
        self, world: World, tools: Tools
    ) -> None:
        impostor = Tools().search
        job = workflow(
            calls(("search", {"query": "y"})), ToolNode([impostor]), langchain_tool(tools.search, reads=True)
        )
        assert [status for status, _ in await answers(await world.start(job))] == ["error"]

    @pytest.mark.parametrize("name", ["made_up", "model.ask", "x" * 100_000, "nul\x00 and half \ud83d"], ids=range(4))
    async def test_of_a_tool_that_the_model_made_up_is_journalled_too(
        self, world: World, tools: Tools, name: str
    ) -> None:
        job = workflow(calls((name, {})), ToolNode([tools.search]), langchain_tool(tools.search, reads=True))
        run = await world.start(job)
        assert [status for status, _ in await answers(run)] == ["error"]
        assert [e for e in await run.journal() if "no such tool" in str(e.data.get("tool"))]

    @pytest.mark.parametrize(
        "arguments",
        [{"query": 1}, {}, {"query": "x", "more": 1}, {"query": "x" * 20_001}, {"query": None}, {"query": "\ud83d"}],
        ids=range(6),
    )
    async def test_of_arguments_that_do_not_fit_says_what_is_wrong(
        self, world: World, tools: Tools, arguments: dict[str, Any]
    ) -> None:
        job = workflow(calls(("search", arguments)), ToolNode([tools.search]), langchain_tool(tools.search, reads=True))
        [(status, why)] = await answers(await world.start(job))
        assert (status, tools.ran) == ("error", [])
        assert "denied at the stage schema" in why

    async def test_by_a_person_is_told_to_the_model_and_nothing_was_done(self, world: World, tools: Tools) -> None:
        post = langchain_tool(tools.post, writes="plain")
        run = await world.start(
            workflow(calls(("post", {"text": "x"})), ToolNode([tools.post]), post, approve_when=always)
        )
        assert ended(await run.reject(by="dana", comment="not today")) == (RunState.COMPLETED, Outcome.REJECTED)
        [(status, why)] = await answers(run)
        assert (status, tools.ran) == ("error", [])
        assert "dana rejected" in why
        assert "not today" in why


class TestALangChainToolCalledByANodeItself:
    @pytest.mark.parametrize("named", [True, False], ids=["named in the policy", "not named"])
    @pytest.mark.parametrize("kind", ["async", "thread", "agent in a function"])
    async def test_is_refused_and_the_error_says_what_to_do(
        self, world: World, tools: Tools, named: bool, kind: str
    ) -> None:
        async def node(state: MessagesState) -> dict[str, Any]:
            if kind == "async":
                await tools.search.ainvoke({"query": "x"}, {"callbacks": []})
            inner = StateGraph(MessagesState)
            inner.add_node("tools", ToolNode([tools.search], handle_tool_errors=False))
            inner.add_edge(START, "tools")
            await inner.compile().ainvoke({"messages": [calls(("search", {"query": "x"}))]})
            return {}

        def in_a_thread(state: MessagesState) -> dict[str, Any]:
            tools.post.invoke({"text": "x"})
            return {}

        graph = StateGraph(MessagesState)
        graph.add_node("node", in_a_thread if kind == "thread" else node)
        graph.add_edge(START, "node")
        both = [langchain_tool(tools.search, reads=True), langchain_tool(tools.post, writes="plain")]
        policies = {"node": Policy(tools=both if named else [])}
        job = Workflow("job", version="1", graph=graph, triggers=[On("job", input=lambda p, e: {})], policies=policies)
        run = await (await world.start(job)).run()
        assert (run.state, tools.ran) == (RunState.FAILED, [])
        assert "langchain_tool()" in str(run.error)

    async def test_works_through_what_langchain_tool_returns(self, world: World, tools: Tools) -> None:
        search = langchain_tool(tools.search, reads=True, trusted=True)
        post = langchain_tool(tools.post, writes="plain")

        async def node(state: MessagesState) -> dict[str, Any]:
            found = await search(query="x")
            again = await as_langchain(search).ainvoke({"query": "y"})
            only = await as_langchain(search).ainvoke("z")
            return {"messages": [AIMessage(f"{found.content}, {again}, {only}")]}

        def in_a_thread(state: MessagesState) -> dict[str, Any]:
            return {"messages": [AIMessage(as_langchain(post).invoke({"text": "x"}))]}

        graph = StateGraph(MessagesState)
        graph.add_node("node", node)
        graph.add_node("thread", in_a_thread)
        graph.add_edge(START, "node")
        graph.add_edge("node", "thread")
        policies = {"node": Policy(tools=[search]), "thread": Policy(tools=[post])}
        on = On("job", input=lambda p, e: {}, trusted=True)
        run = await world.start(Workflow("job", version="1", graph=graph, triggers=[on], policies=policies))
        said = [message.content for message in (await run.values())["messages"]]
        assert said == ["search x, search y, search z", "post x ann"]
        assert [effect.tool for effect in await run.effects()] == ["search", "search", "search", "post"]

    async def test_outside_of_a_run_works_as_ever_but_not_what_is_gated(self, tools: Tools) -> None:
        assert await tools.search.ainvoke({"query": "x"}) == "search x"
        with pytest.raises(OutsideGate):
            await as_langchain(langchain_tool(tools.search, reads=True)).ainvoke({"query": "x"})


# -- the same call once ------------------------------------------------------------------------------------------------


class TestCallsMadeAtOnce:
    async def test_with_one_id_for_all_are_told_apart_also_after_a_pause(self, world: World, tools: Tools) -> None:
        """A hostile model gives the id of a call that was approved to another one."""
        post = langchain_tool(tools.post, writes="plain")
        search = langchain_tool(tools.search, reads=True)
        made = calls(
            ("search", {"query": "a"}),
            ("post", {"text": "1"}),
            ("search", {"query": "b"}),
            ("post", {"text": "1000"}),
            ids=["same"] * 4,
        )
        job = workflow([made, made], ToolNode([tools.search, tools.post]), search, post, approve_when=always)
        run = await world.start(job)
        one, thousand = await run.reviews()
        assert (one.arguments["text"], thousand.arguments["text"]) == ("1", "1000")
        await run.answer(says("approve"), one.id)
        await run.answer(says("reject", comment="too much"), thousand.id)

        statuses = [("success", "search a"), ("success", "post 1 ann"), ("success", "search b")]
        told = await answers(run)
        assert told[:3] == statuses
        assert told[3][0] == "error"
        again = [review.arguments["text"] for review in await run.reviews()]
        assert again == ["1", "1000"], "the second message asks for calls of its own"
        await run.reject()
        await run.reject()
        assert tools.ran.count(("post", "1 ann")) == [name for name, _ in tools.ran].count("post") == 1
        assert [name for name, _ in tools.ran].count("search") == 4

    @pytest.mark.parametrize("id_", ["x" * 100_000, "", "nul \x00", "half \ud83d", "a.0"], ids=range(5))
    async def test_may_have_any_id(self, world: World, tools: Tools, id_: str) -> None:
        job = workflow(
            calls(("search", {"query": "a"}), ("search", {"query": "b"}), ids=[id_, id_]),
            ToolNode([tools.search]),
            langchain_tool(tools.search, reads=True),
        )
        run = await world.start(job)
        assert await answers(run) == [("success", "search a"), ("success", "search b")]
        assert len({effect.ordinal for effect in await run.effects()}) == 2

    async def test_are_not_repeated_when_one_of_them_fails(self, world: World, tools: Tools) -> None:
        tools.errors = [NotDone("busy")]
        post, search = langchain_tool(tools.post, writes="plain"), langchain_tool(tools.search, reads=True)
        made = calls(("search", {"query": "a"}), ("post", {"text": "b"}), ("search", {"query": "c"}))
        run = await world.start(workflow(made, ToolNode([tools.search, tools.post]), search, post, retries=1))
        assert ended(await run.run()) == (RunState.COMPLETED, Outcome.AUTO)
        assert [status for status, _ in await answers(run)] == ["success"] * 3
        assert len(tools.ran) == 4, "only the one that failed was made twice"

    async def test_of_a_synchronous_tool_pause_and_go_on_too(self, world: World, tools: Tools) -> None:
        post = langchain_tool(tools.post, writes="plain")
        made = calls(*[("post", {"text": str(number)}) for number in range(3)])
        node = ToolNode([tools.post], handle_tool_errors=True)
        run = await world.start(workflow(made, node, post, approve_when=always))
        for number in range(3):
            assert len(tools.ran) == number
            await run.approve()
        assert ended(await run.run()) == (RunState.COMPLETED, Outcome.APPROVED)
        assert await answers(run) == [("success", f"post {number} ann") for number in range(3)]


class TestACrash:
    @staticmethod
    def keyed(writes: str) -> tuple[ToolNode, Any]:
        """A LangChain tool that hands our key to the provider outside."""

        @tool
        async def pay(amount: int, key: str, call: Annotated[str, InjectedToolCallId]) -> str:
            """Pay somebody."""
            provider, key_or_call = PROVIDER[0], key or call
            return await provider.do(
                "pay", str(amount), Call(run_id="", node="", idempotency_key=key_or_call, attempt=1), repeats=False
            )

        async def found(amount: int, key: str = "", *, call: Call) -> str | None:
            return PROVIDER[0].kept.get(call.idempotency_key)

        more = {"key": "key"} if writes == "keyed" else {}
        return ToolNode([pay]), langchain_tool(pay, writes=writes, **more)

    async def test_in_a_keyed_call_repeats_it_with_the_same_key(self, world: World) -> None:
        PROVIDER[:] = [world.provider]
        world.provider.troubles = [Trouble(happens=True)]
        node, pay = self.keyed("keyed")
        run = await world.send(workflow(calls(("pay", {"amount": 5})), node, pay))
        run = await world.crash(run)
        await world.due(run)
        assert (await run.go_on()).state is RunState.COMPLETED
        assert world.provider.done == [("pay", "5")]
        first, second = world.provider.calls
        assert first[2] == second[2]
        assert "key" not in the_effect(await run.effects(), "pay").arguments

    async def test_in_a_plain_call_leaves_it_in_doubt_and_a_person_knows(self, world: World) -> None:
        PROVIDER[:] = [world.provider]
        world.provider.troubles = [Trouble(happens=True)]
        node, pay = self.keyed("plain")
        run = await world.send(workflow(calls(("pay", {"amount": 5, "key": "k"})), node, pay))
        run = await world.crash(run)
        await world.due(run)
        await run.go_on()
        assert (await the_review(run)).kind is ReviewKind.IN_DOUBT
        await run.respond({"happened": True})
        assert (await run.run()).state is RunState.COMPLETED
        assert len(world.provider.calls) == 1
        [(status, words)] = await answers(run)
        assert (status, words) == ("success", "It was done.")


PROVIDER: list[Provider] = []


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

    async def test_not_steer_with_what_cannot_be_recorded(self, world: World) -> None:
        @tool
        async def steer(x: int, call: Annotated[str, InjectedToolCallId]) -> Any:
            """Steer."""
            return Command(update={"turn": object(), "messages": [ToolMessage("steered", tool_call_id=call)]})

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

        post = langchain_tool(tools.post, writes="plain")
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
