"""The lines between a worker and its database, and between a worker and Redis, are cut, go silent, or become slow."""

from __future__ import annotations

import asyncio
import random
from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager, suppress
from pathlib import Path
from typing import Any

import pytest
import sqlalchemy as sa
from tests.faults.auditor import audit
from tests.faults.play import Cast, play
from tests.faults.proxy import Proxy
from tests.faults.scenes import SCENES
from tests.faults.trials import TIMES

from eventwright.app.settings import Settings
from eventwright.queue import wakeups
from eventwright.runs.errors import StoreUnavailable
from eventwright.runs.records import Decision, DecisionType, ReviewState
from eventwright.runs.states import RunState

EFFECTS = ("pay", "post", "shout")
Line = Callable[[], AbstractAsyncContextManager[tuple[Proxy, str]]]

pytestmark = pytest.mark.parametrize("database_url", ["postgres"], indirect=True)


@pytest.fixture
def to_database(database_url: str) -> Line:
    """A line to the database with a proxy in it, and the database's URL there."""

    @asynccontextmanager
    async def line() -> AsyncIterator[tuple[Proxy, str]]:
        url = sa.make_url(database_url)
        async with Proxy(f"{url.query['host']}/.s.PGSQL.5432") as proxy:
            there = url.set(host="127.0.0.1", port=proxy.port, query={})
            yield proxy, there.render_as_string(hide_password=False)

    return line


@pytest.fixture
def to_redis(redis_url: str) -> Line:
    """The same for Redis."""

    @asynccontextmanager
    async def line() -> AsyncIterator[tuple[Proxy, str]]:
        async with Proxy(redis_url.removeprefix("unix://")) as proxy:
            yield proxy, f"redis://127.0.0.1:{proxy.port}"

    return line


class TestTheLineToTheDatabase:
    async def test_may_be_cut_again_and_again_and_nothing_is_lost_or_doubled(
        self, service: Any, to_database: Line
    ) -> None:
        async with to_database() as (proxy, url), service.app() as app:
            worker = await service.start(database_url=url, **service.brisk)
            ids = await service.send(app, "chores", 20, seconds=0.3)
            for what in ("doze", *EFFECTS):
                await service.eventually(lambda what=what: len(service.ledger(what)) >= 5)
                proxy.cut()
            proxy.refuse()
            proxy.cut()
            await asyncio.sleep(0.5)
            proxy.accept()
            await answered_doubts(service, app, ids)
            assert {run.state for run in await service.final(app, ids)} == {RunState.COMPLETED}
            for what in EFFECTS:
                assert service.ledger(what) == dict.fromkeys(ids, 1), what
            worker.terminate()
            assert await worker.wait() == 0

    @pytest.mark.soak
    async def test_may_be_cut_at_any_moment_and_every_promise_is_kept(
        self, to_database: Line, database_url: str, redis_url: str, tmp_path: Path
    ) -> None:
        """Also between a commit and its answer, when nobody here knows whether it was taken."""
        scene, over = SCENES["errand"], False
        async with to_database() as (proxy, url):
            settings = Settings(home=tmp_path, database_url=url, redis_url=redis_url, **TIMES)

            async def cut_again_and_again() -> None:
                while not over:
                    await asyncio.sleep(random.uniform(0.05, 0.3))
                    proxy.cut()

            cutting = asyncio.create_task(cut_again_and_again())
            while not over:
                with suppress(StoreUnavailable):  # cut while a process began
                    await play(scene, settings, lambda: None, events=10)
                    over = True
            await cutting
        cast = Cast(scene, tmp_path)
        assert await audit(database_url, cast.outside(), scene.expected) == []
        assert len(cast.outside().accepted) == 10

    @pytest.mark.soak
    async def test_may_be_silent_for_longer_than_the_lease_and_what_comes_late_is_refused(
        self, service: Any, to_database: Line
    ) -> None:
        async with to_database() as (proxy, url), service.app(**service.brisk) as app:
            silent = await service.start(database_url=url, **service.brisk)
            ids = await service.send(app, "chores", 5, seconds=0.5)
            await service.eventually(lambda: len(service.ledger("doze")) == 5)
            proxy.hold()
            async with service.working(**service.brisk):
                runs = await service.final(app, ids)
            assert {run.state for run in runs} == {RunState.COMPLETED}
            proxy.release()
            await service.eventually(lambda: service.log(silent).count("was taken over") >= 5)

            assert await service.runs(app, ids) == runs
            await service.eventually(
                lambda: journal_says(app, ids, "a write of a worker that had lost the run was refused")
            )
            (later,) = await service.send(app, "naps")
            await service.final(app, [later])
            silent.terminate()
            assert await silent.wait() == 0
        for what in EFFECTS:
            assert service.ledger(what) == dict.fromkeys(ids, 1), what
        assert service.ledger("doze") == {**dict.fromkeys(ids, 2), later: 3}, "a read is repeated"

    @pytest.mark.soak
    async def test_may_be_slow_and_nobody_takes_anything_over(self, service: Any, to_database: Line) -> None:
        async with to_database() as (proxy, url), service.app(**service.brisk) as app:
            proxy.delay(0.01)
            slow = await service.start(database_url=url, **service.brisk)
            ids = await service.send(app, "chores", 5, seconds=0.2)
            runs = await service.final(app, ids)
            assert {(run.state, run.crashes) for run in runs} == {(RunState.COMPLETED, 0)}
            assert {run.fence for run in runs} == {1}
            slow.terminate()
            assert await slow.wait() == 0
        for what in EFFECTS:
            assert service.ledger(what) == dict.fromkeys(ids, 1), what


class TestTheLineToRedis:
    @pytest.fixture(autouse=True)
    def soon_away(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(wakeups, "ANSWER_SECONDS", 1.0)

    @pytest.mark.soak
    async def test_may_be_cut_again_and_again(self, service: Any, to_redis: Line) -> None:
        async with to_redis() as (proxy, url), service.working(redis_url=url, **service.brisk) as app:
            ids: list[str] = []
            for _ in range(10):
                ids += await service.send(app, "chores", 3, seconds=0.1)
                proxy.cut()
            runs = await service.final(app, ids)
        assert {(run.state, run.fence) for run in runs} == {(RunState.COMPLETED, 1)}
        for what in EFFECTS:
            assert service.ledger(what) == dict.fromkeys(ids, 1), what

    async def test_may_be_silent_and_runs_are_found_without_it(self, service: Any, to_redis: Line) -> None:
        async with to_redis() as (proxy, url), service.working(redis_url=url, **service.brisk) as app:
            (first,) = await service.send(app, "chores")
            await service.final(app, [first])
            proxy.hold()
            ids = await service.send(app, "chores", 10, seconds=0.1)
            assert {run.state for run in await service.final(app, ids)} == {RunState.COMPLETED}
            proxy.release()
            ids += [first, *await service.send(app, "chores", 10)]
            runs = await service.final(app, ids)
        assert {(run.state, run.fence) for run in runs} == {(RunState.COMPLETED, 1)}
        for what in EFFECTS:
            assert service.ledger(what) == dict.fromkeys(ids, 1), what

    @pytest.mark.soak
    async def test_may_be_slow(self, service: Any, to_redis: Line) -> None:
        async with to_redis() as (proxy, url), service.working(redis_url=url, **service.brisk) as app:
            proxy.delay(0.1)
            ids = await service.send(app, "chores", 10)
            runs = await service.final(app, ids)
        assert {(run.state, run.fence) for run in runs} == {(RunState.COMPLETED, 1)}
        for what in EFFECTS:
            assert service.ledger(what) == dict.fromkeys(ids, 1), what


async def answered_doubts(service: Any, app: Any, ids: list[str]) -> None:
    """Wait until every run is over or asks whether a plain call happened, and say what is true."""
    rest = {RunState.COMPLETED, RunState.PENDING_APPROVAL}

    async def resting() -> bool:
        return all(run.state in rest and run.due_at is None for run in await service.runs(app, ids))

    await service.eventually(resting)
    for review in await app.store.reviews(state=ReviewState.OPEN, limit=100):
        happened = service.ledger("shout")[review.run_id] == 1
        answer = Decision(type=DecisionType.RESPOND, by="ann", response={"happened": happened})
        await app.engine.decide(review.id, answer)


async def journal_says(app: Any, ids: list[str], text: str) -> bool:
    """Whether the journal of each run says this."""
    return all([any(entry.data.get("text") == text for entry in await app.store.journal(run_id)) for run_id in ids])
