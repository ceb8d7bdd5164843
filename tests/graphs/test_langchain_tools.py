"""LangChain's tools in a `ToolNode` go through the gate of their node, and the user's objects stay as they are."""

from __future__ import annotations

from typing import Annotated, Any

import pytest
from langchain_core.messages import AIMessage
from langchain_core.tools import InjectedToolCallId, tool
from langgraph.graph import START, MessagesState, StateGraph
from langgraph.prebuilt import ToolNode
from tests.outside import Provider, Trouble, World, ended, says, the_effect, the_review
from tests.scripted import calls
from tests.toolbox import Tools, answers, workflow

from eventwright.graphs.workflow import On, Workflow
from eventwright.guardrails.policy import Policy
from eventwright.guardrails.rules import always
from eventwright.runs.records import JournalKind, ReviewKind
from eventwright.runs.states import Outcome, RunState
from eventwright.tools.contract import Call, NotDone, OutsideGate
from eventwright.tools.langchain_tools import as_langchain, langchain_tool


@pytest.fixture
def tools() -> Tools:
    return Tools()


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
