"""A node that blocks the event loop is told, and ends its process before it has stopped everybody's runs for ever."""

from __future__ import annotations

import asyncio
import logging
import threading
import time
from pathlib import Path
from typing import Any

import pytest
from tests.outside import chain, job

from eventwright.app.composition import App, open_app
from eventwright.app.settings import Settings
from eventwright.graphs.workflow import Workflow
from eventwright.queue import stall
from eventwright.queue.stall import STALLED, TIMES, watchdog
from eventwright.runs.claims import MOST_CRASHES, SUSPECT
from eventwright.runs.event import Event, new_id
from eventwright.runs.heartbeats import heartbeats
from eventwright.runs.states import Reason, RunState

SOON = 0.1


class Ended:
    """Stands for the end of the process: these tests have to go on, so it only lets the loop go."""

    def __init__(self) -> None:
        self.codes: list[int] = []
        self.happened = threading.Event()

    def __call__(self, code: int) -> None:
        self.codes.append(code)
        self.happened.set()


@pytest.fixture
def ended() -> Ended:
    return Ended()


@pytest.fixture
def process(tmp_path: Path, database_url: str) -> Any:
    def opened(*workflows: Workflow) -> Any:
        settings = Settings(
            home=tmp_path, database_url=database_url, redis_url="none", lease_seconds=0.6, heartbeat_seconds=0.2
        )
        return open_app(settings, workflows=workflows, works=True)

    return opened


def watching(app: App, ended: Ended) -> Any:
    engine = app.engine
    return watchdog(app.settings.database, engine.worker, engine.active, seconds=SOON, end=ended)


async def send(app: App, name: str) -> str:
    receipt = await app.engine.receive(Event(id=new_id("e"), source="/test", type=name, data={"log": []}))
    return receipt.runs[0].id


def hog(ended: Ended) -> Workflow:
    """A workflow with a node that blocks the loop until the process ends, after which nothing of it goes on."""

    async def hogs(state: Any) -> dict[str, Any]:
        ended.happened.wait()
        return await asyncio.get_running_loop().create_future()

    return job(chain(prepares=lambda state: {"log": ["prepared"]}, hogs=hogs), name="hog")


async def dies_of(app: App, run_id: str, ended: Ended) -> RunState | None:
    """Let the run go on until it rests, or has ended the process."""
    with watching(app, ended):
        segment = asyncio.create_task(app.engine.advance(run_id))
        while not segment.done() and not ended.codes:
            await asyncio.sleep(0.01)
    segment.cancel()
    [state] = await asyncio.gather(segment, return_exceptions=True)
    return state if isinstance(state, RunState) else None


class TestALoopThatTicks:
    async def test_is_left_alone(self, sqlite_url: str, ended: Ended, caplog: pytest.LogCaptureFixture) -> None:
        with watchdog(sqlite_url, "worker", [], seconds=5.0, end=ended):
            for _ in range(20):
                await asyncio.sleep(0.01)
        assert (ended.codes, caplog.messages) == ([], [])

    async def test_keeps_no_thread_of_a_watchdog_that_is_gone(self, sqlite_url: str) -> None:
        with watchdog(sqlite_url, "worker", [], seconds=1000):
            assert "watchdog" in [thread.name for thread in threading.enumerate()]
        assert "watchdog" not in [thread.name for thread in threading.enumerate()]

    async def test_is_not_called_blocked_when_the_whole_process_stood_still(
        self, sqlite_url: str, ended: Ended, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """As after a SIGSTOP, or when a machine slept: the watchdog's own clock has jumped as well."""

        class Jumping:
            ahead = 0.0

            def monotonic(self) -> float:
                self.ahead += 1000.0
                return time.monotonic() + self.ahead

        monkeypatch.setattr(stall, "STEP", 0.02)
        monkeypatch.setattr(stall, "time", Jumping())
        with watchdog(sqlite_url, "worker", [], seconds=1000.0, end=ended):
            await asyncio.sleep(0.05)
            time.sleep(0.3)  # many steps, each of which took ages by that clock
        assert (ended.codes, caplog.messages) == ([], [])


class TestANodeThatBlocks:
    async def test_for_a_while_is_told_with_its_run_its_place_in_the_code_and_that_it_is_over(
        self, process: Any, ended: Ended, caplog: pytest.LogCaptureFixture
    ) -> None:
        told = threading.Event()

        class Told(logging.Handler):
            def emit(self, record: logging.LogRecord) -> None:
                told.set()

        async def naps(state: Any) -> dict[str, Any]:
            told.wait()
            return {"log": []}

        stall.log.addHandler(handler := Told())
        try:
            async with process(job(chain(naps=naps))) as app:
                with watching(app, ended):
                    run_id = await send(app, "job")
                    assert await app.engine.advance(run_id) is RunState.COMPLETED
                    while "goes on" not in caplog.text:
                        await asyncio.sleep(0.01)
        finally:
            stall.log.removeHandler(handler)
        blocked, over = [record.getMessage() for record in caplog.records if record.name == stall.log.name]
        assert f"by node 'naps' of run {run_id}" in blocked
        assert "told.wait()" in blocked
        assert f"it was blocked by node 'naps' of run {run_id}" in over
        assert ended.codes == []

    async def test_in_a_task_of_its_own_is_found_too(
        self, process: Any, ended: Ended, caplog: pytest.LogCaptureFixture
    ) -> None:
        async def blocks() -> None:
            ended.happened.wait()

        async def careless(state: Any) -> dict[str, Any]:
            await asyncio.create_task(blocks())
            return {"log": []}

        async with process(job(chain(careless=careless))) as app:
            run_id = await send(app, "job")
            await dies_of(app, run_id, ended)
        assert f"by node 'careless' of run {run_id}" in caplog.text

    async def test_for_long_ends_the_process_and_alone_is_suspect_whoever_else_was_at_work_there(
        self, process: Any, ended: Ended, caplog: pytest.LogCaptureFixture
    ) -> None:
        begun = asyncio.Event()

        async def waits(state: Any) -> dict[str, Any]:
            begun.set()
            return await asyncio.get_running_loop().create_future()

        async with process(hog(ended), job(chain(waits=waits), name="bystander")) as app:
            times = {"every": 0.05, "lease_seconds": 0.6}
            async with heartbeats(app.settings.database, app.engine.worker, app.engine.active, **times):
                other, guilty = await send(app, "bystander"), await send(app, "hog")
                waiting = asyncio.create_task(app.engine.advance(other))
                await begun.wait()
                await dies_of(app, guilty, ended)
            waiting.cancel()
            await asyncio.gather(waiting, return_exceptions=True)
            assert ended.codes == [STALLED]
            assert "this process ends, and its runs are taken over" in caplog.text
            runs = {run_id: await app.store.run(run_id) for run_id in (guilty, other)}
            assert (runs[guilty].crashes, runs[other].crashes) == (SUSPECT, 0)
            assert {run.worker for run in runs.values()} == {None}, "nobody who takes them over counts a crash"
            [note] = [entry for entry in await app.store.journal(guilty) if "blocked" in str(entry.data.get("text"))]
            assert (note.node, note.data["seconds"]) == ("hogs", round(SOON * TIMES, 1))

    async def test_wherever_it_is_taken_over_is_quarantined_after_few_workers(self, process: Any) -> None:
        deaths, run_id, state = 0, "", None
        while state is not RunState.FAILED:
            ended = Ended()
            async with process(hog(ended)) as app:
                run_id = run_id or await send(app, "hog")
                while run_id not in dict(await app.store.due_runs(limit=1)):
                    await asyncio.sleep(0.02)
                state = await dies_of(app, run_id, ended)
                deaths += len(ended.codes)
                run = await app.store.run(run_id)
        assert run.reason is Reason.QUARANTINED
        assert deaths == MOST_CRASHES - SUSPECT + 1

    async def test_though_it_is_no_run_ends_the_process_and_no_run_is_blamed(
        self, process: Any, ended: Ended, caplog: pytest.LogCaptureFixture
    ) -> None:
        begun = asyncio.Event()

        async def waits(state: Any) -> dict[str, Any]:
            begun.set()
            return await asyncio.get_running_loop().create_future()

        async with process(job(chain(waits=waits))) as app:
            run_id = await send(app, "job")
            waiting = asyncio.create_task(app.engine.advance(run_id))
            await begun.wait()
            with watching(app, ended):
                ended.happened.wait()
            waiting.cancel()
            await asyncio.gather(waiting, return_exceptions=True)
            assert ended.codes == [STALLED]
            assert "blocked for 0.3 s by no run" in caplog.text
            run = await app.store.run(run_id)
            assert (run.crashes, run.worker) == (0, None)

    async def test_while_the_database_is_away_ends_the_process_all_the_same(
        self, tmp_path: Path, ended: Ended, caplog: pytest.LogCaptureFixture
    ) -> None:
        nowhere = f"sqlite:///{tmp_path}/not/there.db"
        with watchdog(nowhere, "worker", ["run"], seconds=SOON, end=ended):
            ended.happened.wait()
        assert ended.codes == [STALLED]
        assert "could not be written down" in caplog.text
