"""`Workflow(lifespan=...)`: the clients that a workflow brings along, in every process that runs it and in no other."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Iterable
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
from tests.outside import State, chain, job

from eventwright.app.composition import App, open_app
from eventwright.app.lifespans import LifespanFailed
from eventwright.app.settings import Settings
from eventwright.app.simulate import simulate
from eventwright.graphs.workflow import BadWorkflow, Workflow
from eventwright.guardrails.policy import Policy
from eventwright.runs.event import Event, new_id
from eventwright.runs.states import RunState
from eventwright.tools.contract import Call, ResourceMissing, tool


class Helpdesk:
    """A client with a connection that is open, or is not."""

    def __init__(self, name: str = "desk") -> None:
        self.name, self.open = name, True

    async def find(self, text: str) -> str:
        assert self.open
        return f"{text} at {self.name}"


class Directory(Helpdesk):
    pass


@tool(name="desk.find", trusted=True)
async def find(text: str, *, call: Call) -> str:
    """Find something."""
    return await call.use(Helpdesk).find(text)


class Pools:
    """A lifespan that keeps what it opened."""

    def __init__(self, *kinds: Callable[[], object]) -> None:
        self.kinds = kinds or (Helpdesk,)
        self.times = 0
        self.clients: list[Any] = []

    def lifespan(self) -> AbstractAsyncContextManager[Iterable[object]]:
        return self._opened()

    @asynccontextmanager
    async def _opened(self) -> AsyncIterator[list[object]]:
        self.times += 1
        self.clients = [kind() for kind in self.kinds]
        try:
            yield self.clients
        finally:
            for client in self.clients:
                client.open = False


async def looks(state: State) -> dict[str, Any]:
    return {"log": [await find("a lamp")]}


def searching(name: str = "search", **more: Any) -> Workflow:
    return job(chain(looks=looks), {"looks": Policy(tools=[find])}, name=name, **more)


@pytest.fixture
def opened(tmp_path: Path) -> Any:
    @asynccontextmanager
    async def process(*workflows: Workflow, lane: str = "default", **more: Any) -> AsyncIterator[App]:
        settings = Settings(home=tmp_path, redis_url="none", lane=lane)
        async with open_app(settings, workflows=workflows, **{"works": True, **more}) as app:
            yield app

    return process


async def found(app: App, name: str = "search") -> Any:
    """What a run of the workflow finds."""
    receipt = await app.engine.receive(Event(id=new_id("e"), source="/test", type=name, data={"log": []}))
    [run] = receipt.runs
    assert await app.engine.advance(run.id) is RunState.COMPLETED
    graph = app.engine.runner.graph(app.workflows.get(name))
    return (await graph.aget_state({"configurable": {"thread_id": run.id}})).values["log"]


class TestALifespanThatCannotBeUsed:
    async def test_ends_the_start_with_the_name_of_its_workflow_and_closes_what_was_opened(self, opened: Any) -> None:
        pools = Pools()

        @asynccontextmanager
        async def fails() -> AsyncIterator[list[object]]:
            raise ConnectionError("the desk is closed")
            yield []

        with pytest.raises(LifespanFailed, match=r"'orders' version '2': .*ConnectionError: the desk is closed"):
            async with opened(searching(lifespan=pools.lifespan), searching("orders", version="2", lifespan=fails)):
                pass
        assert [client.open for client in pools.clients] == [False]

    async def test_that_yields_a_client_instead_of_a_list_is_told_so(self, opened: Any) -> None:
        @asynccontextmanager
        async def one() -> AsyncIterator[Any]:
            yield Helpdesk()

        with pytest.raises(LifespanFailed, match="yields Helpdesk; let it yield a list"):
            async with opened(searching(lifespan=one)):
                pass

    async def test_that_yields_what_another_one_yields_ends_the_start_for_tools_could_not_tell_them_apart(
        self, opened: Any
    ) -> None:
        with pytest.raises(LifespanFailed, match=r"'orders'.* Helpdesk, and so does that of 'search'"):
            async with opened(searching(lifespan=Pools().lifespan), searching("orders", lifespan=Pools().lifespan)):
                pass
        with pytest.raises(LifespanFailed, match="a Helpdesk, and so does this one"):
            async with opened(searching(lifespan=Pools(Helpdesk, Helpdesk).lifespan)):
                pass

    def test_that_is_no_context_manager_is_refused_where_it_is_written(self) -> None:
        async def bare() -> AsyncIterator[list[object]]:
            yield []

        with pytest.raises(BadWorkflow, match="@asynccontextmanager"):
            searching(lifespan=bare)
        with pytest.raises(BadWorkflow, match="lifespan"):
            searching(lifespan=Helpdesk())

    async def test_that_is_not_opened_leaves_a_tool_that_says_where_its_client_comes_from(self) -> None:
        pools = Pools()
        async with simulate(searching(lifespan=pools.lifespan), {"log": []}) as run:
            assert (await run.run()).state is RunState.FAILED
            assert str(ResourceMissing(Helpdesk)) in str((await run.run()).error)
        assert "Workflow(lifespan=...)" in str(ResourceMissing(Helpdesk))
        assert pools.times == 0, "a simulation has the clients it is given"


class TestALifespan:
    async def test_is_open_while_the_process_is_and_gives_tools_their_clients(self, opened: Any) -> None:
        pools = Pools()
        async with opened(searching(lifespan=pools.lifespan)) as app:
            assert await found(app) == ["a lamp at desk"]
            assert [client.open for client in pools.clients] == [True]
        assert [client.open for client in pools.clients] == [False]

    async def test_is_opened_once_for_all_workflows_and_versions_that_share_it(self, opened: Any) -> None:
        pools = Pools()
        works = [searching(lifespan=pools.lifespan, version=version) for version in ("1", "2")]
        async with opened(*works, searching("other", lifespan=pools.lifespan)) as app:
            assert await found(app, "other") == ["a lamp at desk"]
        assert pools.times == 1

    async def test_gives_way_to_a_client_that_the_process_was_given(self, opened: Any) -> None:
        async with opened(searching(lifespan=Pools().lifespan), resources=[Helpdesk("a stand-in")]) as app:
            assert await found(app) == ["a lamp at a stand-in"]

    async def test_is_not_opened_where_nothing_runs(self, opened: Any) -> None:
        pools = Pools()
        async with opened(searching(lifespan=pools.lifespan), works=False):
            pass
        async with opened(searching(lifespan=pools.lifespan), lane="llm"):
            pass
        assert pools.times == 0

    async def test_is_opened_by_the_workers_of_its_nodes_lanes_too(self, opened: Any) -> None:
        pools = Pools()
        narrow = searching(lifespan=pools.lifespan).with_policy("looks", lane="llm")
        async with opened(narrow, lane="llm"):
            assert pools.times == 1
