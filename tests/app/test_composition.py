"""Opening Eventwright: clear words when it cannot be, everything there when it can, nothing left when it closes."""

from __future__ import annotations

import asyncio
import json
import os
import sys
import threading
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TypedDict

import pytest
import sqlalchemy as sa
from langgraph.graph import END, START, StateGraph
from pydantic import ValidationError
from redis import Redis

from eventwright.app.composition import App, open_app
from eventwright.app.loading import WorkflowsNotLoaded
from eventwright.app.settings import Settings
from eventwright.graphs.workflow import BadWorkflow, On, Workflow
from eventwright.queue.wakeups import Bell, SilentBell
from eventwright.runs.database import open_database
from eventwright.runs.event import Event, new_id
from eventwright.runs.states import RunState
from eventwright.tools.contract import ResourceMissing
from eventwright.tools.crm import Crm

OPENED_AND_CLOSED = """
import asyncio, sys
from pathlib import Path
from eventwright.app.composition import open_app
from eventwright.app.settings import Settings

async def main():
    async with open_app(Settings(), workflows=[], works=True) as app:
        print(app.redis_url, flush=True)
        await asyncio.to_thread(sys.stdin.readline)

asyncio.run(main())
"""


class State(TypedDict, total=False):
    seen: str


async def see(state: State) -> State:
    return {"seen": "yes"}


@pytest.fixture
def seeing() -> Workflow:
    graph = StateGraph(State)
    graph.add_node("see", see)
    graph.add_edge(START, "see")
    graph.add_edge("see", END)
    return Workflow("seeing", version="1", graph=graph, triggers=[On("seen", trusted=True)])


@pytest.fixture
def nothing_left(tmp_path: Path) -> Iterator[None]:
    """After the test there is no thread and no server that was not there before."""
    before = set(threading.enumerate())
    yield
    left = {thread.name for thread in set(threading.enumerate()) - before}
    assert not {name for name in left if not name.startswith(("asyncio_", "asyncio-"))}  # of the loop
    assert not list(tmp_path.rglob("server.json"))
    assert not list(tmp_path.rglob("*.sock"))


@asynccontextmanager
async def at_work(app: App) -> AsyncIterator[None]:
    stopping = asyncio.Event()
    work = asyncio.create_task(app.work(stopping))
    try:
        yield
    finally:
        stopping.set()
        await work


async def completed(app: App) -> None:
    """Wait until one event more has led to a completed run."""
    receipt = await app.engine.receive(Event(id=new_id("event"), source="/test", type="seen", data={}))
    while (await app.store.run(receipt.runs[0].id)).state is not RunState.COMPLETED:
        await asyncio.sleep(0.02)


class TestSettingsThatCannotBe:
    def test_a_lease_that_one_late_heartbeat_loses_is_refused_by_the_names_of_its_variables(self) -> None:
        with pytest.raises(ValidationError, match=r"EVENTWRIGHT_LEASE_SECONDS=3\.0 .*EVENTWRIGHT_HEARTBEAT_SECONDS=2"):
            Settings(lease_seconds=3)

    @pytest.mark.parametrize(
        ("name", "value"),
        [
            ("PORT", "99999"),
            ("PORT", "http"),
            ("CONCURRENCY", "0"),
            ("SWEEP_SECONDS", "-1"),
            ("DRAIN_SECONDS", "soon"),
        ],
    )
    def test_a_wrong_value_is_named_with_its_setting(
        self, monkeypatch: pytest.MonkeyPatch, name: str, value: str
    ) -> None:
        monkeypatch.setenv(f"EVENTWRIGHT_{name}", value)
        with pytest.raises(ValidationError) as raised:
            Settings()
        (fault,) = raised.value.errors()
        assert fault["loc"][-1] in (name.lower(), f"EVENTWRIGHT_{name}")
        assert str(fault["input"]) == value

    def test_settings_do_not_change_once_they_are_read(self) -> None:
        with pytest.raises(ValidationError, match="frozen"):
            Settings().port = 1


@pytest.mark.usefixtures("nothing_left")
class TestWhatCannotBeOpened:
    async def test_a_database_of_another_kind_is_refused_by_the_name_of_its_variable(self, tmp_path: Path) -> None:
        settings = Settings(home=tmp_path, database_url="mysql://somewhere/else", redis_url="none")
        with pytest.raises(ValueError, match=r"sqlite or postgresql, and not in 'mysql'; EVENTWRIGHT_DATABASE_URL"):
            async with open_app(settings, workflows=[]):
                pass

    async def test_a_module_that_is_not_there_is_named_and_nothing_stays_open(self, tmp_path: Path) -> None:
        settings = Settings(home=tmp_path, redis_url="none", workflows="no.such.module")
        with pytest.raises(WorkflowsNotLoaded, match=r"EVENTWRIGHT_WORKFLOWS names 'no\.such\.module'"):
            async with open_app(settings):
                pass

    async def test_one_name_and_version_for_two_workflows_is_refused(self, tmp_path: Path, seeing: Workflow) -> None:
        twin = Workflow("seeing", version="1", graph=seeing.graph, triggers=[On("other", trusted=True)])
        with pytest.raises(BadWorkflow, match="declared twice"):
            async with open_app(Settings(home=tmp_path, redis_url="none"), workflows=[seeing, twin]):
                pass

    async def test_an_error_inside_comes_out_as_it_is(self, tmp_path: Path) -> None:
        with pytest.raises(ZeroDivisionError):
            async with open_app(Settings(home=tmp_path), workflows=[], works=True):
                raise ZeroDivisionError

    async def test_a_worker_whose_tables_vanish_ends_loudly_instead_of_sweeping_in_vain(
        self, tmp_path: Path, postgres_url: str, seeing: Workflow
    ) -> None:
        settings = Settings(home=tmp_path, database_url=postgres_url, redis_url="none", sweep_seconds=0.1)
        async with open_app(settings, workflows=[seeing]) as app:
            work = asyncio.create_task(app.work(asyncio.Event()))
            async with open_database(postgres_url) as other:
                await other.write(lambda connection: connection.execute(sa.text("DROP TABLE runs CASCADE")))
            with pytest.raises(ExceptionGroup, match="unhandled errors") as raised:
                await work
            assert 'relation "runs" does not exist' in repr(raised.value.exceptions)


@pytest.mark.usefixtures("nothing_left")
class TestWhatIsOpened:
    async def test_an_empty_home_becomes_a_service_with_a_redis_of_its_own(
        self, tmp_path: Path, seeing: Workflow
    ) -> None:
        async with open_app(Settings(home=tmp_path / "new" / "home"), workflows=[seeing], works=True) as app:
            assert app.redis_url is not None
            with Redis.from_url(app.redis_url) as redis:
                assert redis.ping()
            assert isinstance(app.transport, Bell)
            async with at_work(app):
                await completed(app)
            assert not app.engine.active

    async def test_without_redis_none_is_started_and_runs_are_finished_all_the_same(
        self, tmp_path: Path, seeing: Workflow
    ) -> None:
        async with open_app(Settings(home=tmp_path, redis_url="none"), workflows=[seeing], works=True) as app:
            assert (app.redis_url, app.ringer) == (None, None)
            assert isinstance(app.transport, SilentBell)
            async with at_work(app):
                await completed(app)
        assert not (tmp_path / "valkey").exists()

    async def test_a_process_that_only_looks_starts_no_redis_and_makes_no_clients(self, tmp_path: Path) -> None:
        async with open_app(Settings(home=tmp_path), workflows=[], rings=False) as app:
            assert app.redis_url is None
            with pytest.raises(ResourceMissing):
                app.resources.use(Crm)
        assert [path.name for path in tmp_path.iterdir() if not path.name.startswith("eventwright.db")] == []

    async def test_the_database_is_brought_to_the_newest_schema(
        self, tmp_path: Path, empty_database_url: str, redis_url: str, seeing: Workflow
    ) -> None:
        settings = Settings(home=tmp_path, database_url=empty_database_url, redis_url=redis_url)
        async with open_app(settings, workflows=[seeing]) as app, at_work(app):
            await completed(app)

    async def test_a_client_that_is_given_stands_in_for_the_shipped_one(self, tmp_path: Path) -> None:
        @dataclass
        class Mine:
            name: str

        settings = Settings(home=tmp_path, redis_url="none")
        async with (
            Crm.open(tmp_path / "other.db") as other,
            open_app(settings, workflows=[], resources=[Mine("a"), Mine("b"), other], works=True) as app,
        ):
            assert app.resources.use(Mine).name == "b"
            assert app.resources.use(Crm) is other

    async def test_the_shipped_workflows_are_loaded_unless_others_are_named(self, tmp_path: Path) -> None:
        async with open_app(Settings(home=tmp_path, redis_url="none")) as app:
            assert {workflow.name for workflow in app.workflows} >= {"support"}

    async def test_each_process_claims_under_a_name_of_its_own(self, tmp_path: Path) -> None:
        settings = Settings(home=tmp_path, redis_url="none")
        async with open_app(settings, workflows=[]) as one, open_app(settings, workflows=[]) as other:
            assert one.engine.worker != other.engine.worker


@pytest.mark.usefixtures("nothing_left")
@pytest.mark.soak
async def test_two_processes_that_open_an_empty_home_at_once_share_one_redis_and_leave_none(tmp_path: Path) -> None:
    environment = os.environ | {"EVENTWRIGHT_HOME": str(tmp_path)}
    pipes = {"stdin": asyncio.subprocess.PIPE, "stdout": asyncio.subprocess.PIPE, "stderr": asyncio.subprocess.PIPE}
    command = (sys.executable, "-W", "error", "-c", OPENED_AND_CLOSED)
    both = [await asyncio.create_subprocess_exec(*command, env=environment, **pipes) for _ in range(2)]
    urls = [await process.stdout.readline() for process in both if process.stdout is not None]
    note = json.loads((tmp_path / "valkey" / "server.json").read_text())
    for process in both:
        _, errors = await process.communicate(b"\n")
        assert (process.returncode, errors.decode()) == (0, "")
    assert urls[0] == urls[1]
    assert urls[0].startswith(b"unix://")
    while _runs(note["pid"]):
        await asyncio.sleep(0.02)


def _runs(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    # In a container without an init, a daemon that has ended stays in the table until somebody asks for it.
    return "State:\tZ" not in Path(f"/proc/{pid}/status").read_text() if Path("/proc").is_dir() else True
