"""Workers that are killed, stopped, frozen and ended: their runs go on elsewhere, and nothing happens twice."""

from __future__ import annotations

import asyncio
import signal
import sqlite3
import subprocess
import sys
from collections.abc import Iterator
from contextlib import closing, contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
import sqlalchemy as sa

from eventwright.runs.records import Decision, DecisionType, ReviewKind, ReviewState
from eventwright.runs.states import RunState

#: A test runs on the store where it has more to say; on the other one when there is time.
ON_SQLITE = pytest.mark.parametrize(
    "database_url", ["sqlite", pytest.param("postgres", marks=pytest.mark.soak)], indirect=True
)
ON_POSTGRES = pytest.mark.parametrize(
    "database_url", ["postgres", pytest.param("sqlite", marks=pytest.mark.soak)], indirect=True
)
#: The promise is ten seconds; a busy machine gets twice as many.
TAKEN_OVER_WITHIN = 20.0


@contextmanager
def no_writer(database_url: str) -> Iterator[None]:
    """Nobody is writing: a process frozen in here holds no lock of SQLite's, which nobody could take from it."""
    url = sa.make_url(database_url)
    if url.get_backend_name() != "sqlite":
        yield
        return
    with closing(sqlite3.connect(str(url.database), isolation_level=None, timeout=30)) as connection:
        connection.execute("BEGIN IMMEDIATE")
        yield
        connection.execute("ROLLBACK")


async def takeovers(app: Any, run_ids: list[str]) -> list[datetime]:
    """When each of the runs that were taken over went on."""
    found = []
    for run_id in run_ids:
        entries = [entry for entry in await app.store.journal(run_id) if entry.data.get("taken_over")]
        found += [entry.at for entry in entries]
    return found


class TestAWorkerThatIsKilled:
    @ON_POSTGRES
    async def test_its_runs_go_on_elsewhere_within_ten_seconds_and_no_effect_is_lost_or_doubled(
        self, service: Any, tmp_path: Path
    ) -> None:
        go = tmp_path / "go"
        killed, heir = await asyncio.gather(service.start(), service.start(go=go))
        async with service.app() as app:
            ids = await service.send(app, "chores", 50, seconds=0.3)
            await service.eventually(lambda: len(service.ledger("shout")) >= 5)
            go.touch()
            killed.kill()
            died = datetime.now(UTC)
            await service.eventually(lambda: resting(service, app, ids))
            slowest = max(at - died for at in await takeovers(app, ids)).total_seconds()
            print(f"taken over after at most {slowest:.1f} s")  # noqa: T201 - worth reading with -s
            assert slowest < TAKEN_OVER_WITHIN

            doubts = await app.store.reviews(state=ReviewState.OPEN, limit=100)
            assert {review.kind for review in doubts} <= {ReviewKind.IN_DOUBT}
            runs = {run.id: run for run in await service.runs(app, ids)}
            assert {run.id for run in runs.values() if run.state is not RunState.COMPLETED} == {
                review.run_id for review in doubts
            }
            for review in doubts:
                happened = service.ledger("shout")[review.run_id] == 1
                answer = Decision(type=DecisionType.RESPOND, by="ann", response={"happened": happened})
                await app.engine.decide(review.id, answer)
            assert {run.state for run in await service.final(app, ids)} == {RunState.COMPLETED}
        for what in ("pay", "post", "shout"):
            assert service.ledger(what) == dict.fromkeys(ids, 1), what
        assert heir.returncode is None

    @ON_SQLITE
    async def test_what_it_heard_from_outside_stays_untrusted_elsewhere(self, service: Any, database_url: str) -> None:
        """It is in no channel: it was sent, and the checkpoint that would say so was not written any more."""
        killed = await service.start(**service.brisk)
        async with service.app(**service.brisk) as app:
            ids = await service.send(app, "gossiping", 3, seconds=1.0)
            await service.eventually(lambda: len(service.ledger("hear")) == len(service.ledger("doze")) == 3)
            await asyncio.sleep(0.3)
            killed.kill()
            async with service.working(**service.brisk):
                await service.eventually(lambda: resting(service, app, ids))
            asked = await app.store.reviews(state=ReviewState.OPEN, limit=100)
            assert [(review.rule or {})["stage"] for review in asked] == ["labels"] * 3
        assert service.ledger("pay") == {}

    @pytest.mark.soak
    @pytest.mark.parametrize("redis", ["shared", "none"])
    async def test_a_storm_of_kills_loses_and_doubles_nothing(self, service: Any, redis: str) -> None:
        settings = service.brisk | ({"redis_url": "none"} if redis == "none" else {})
        workers = [await service.start(**settings) for _ in range(3)]
        async with service.app(**settings) as app:
            ids = await service.send(app, "chores", 200, seconds=1.0)
            for _ in range(4):
                await asyncio.sleep(1)
                workers.pop(0).kill()
                workers.append(await service.start(**settings))
            await service.eventually(lambda: resting(service, app, ids))
            doubts = await app.store.reviews(state=ReviewState.OPEN, limit=1000)
            assert {review.kind for review in doubts} <= {ReviewKind.IN_DOUBT}
        for what in ("pay", "post"):
            assert service.ledger(what) == dict.fromkeys(ids, 1), what
        # Nobody has said yet whether the doubtful ones happened, so none of them was repeated.
        assert set(service.ledger("shout").values()) == {1}
        assert set(ids) - set(service.ledger("shout")) <= {review.run_id for review in doubts}


async def resting(service: Any, app: Any, ids: list[str]) -> bool:
    rest = {RunState.COMPLETED, RunState.PENDING_APPROVAL}
    return all(run.state in rest and run.due_at is None for run in await service.runs(app, ids))


class TestAWorkerThatIsFrozen:
    @ON_SQLITE
    async def test_it_is_fenced_off_and_what_it_does_when_it_wakes_is_refused(
        self, service: Any, database_url: str
    ) -> None:
        frozen = await service.start(**service.brisk)
        async with service.app(**service.brisk) as app:
            ids = await service.send(app, "chores", 5, seconds=0.5)
            await service.eventually(lambda: len(service.ledger("doze")) == 5)
            with no_writer(database_url):
                frozen.send_signal(signal.SIGSTOP)
            async with service.working(**service.brisk):
                assert {run.state for run in await service.final(app, ids)} == {RunState.COMPLETED}
                runs = await service.runs(app, ids)
            frozen.send_signal(signal.SIGCONT)
            await service.eventually(lambda: service.log(frozen).count("was taken over") >= 5)

            assert await service.runs(app, ids) == runs
            (later,) = await service.send(app, "naps")
            await service.final(app, [later])
        for what in ("pay", "post", "shout"):
            assert service.ledger(what) == dict.fromkeys(ids, 1), what
        assert service.ledger("doze") == {**dict.fromkeys(ids, 2), later: 3}, "a read is repeated"
        frozen.terminate()
        assert await frozen.wait() == 0


class TestAWorkerThatIsBlocked:
    @ON_POSTGRES
    async def test_a_node_that_blocks_the_loop_past_the_lease_loses_no_run(self, service: Any, tmp_path: Path) -> None:
        blocked = await service.start(**service.brisk)
        async with service.app(**service.brisk) as app:
            ids = await service.send(app, "naps", 20, seconds=0.6)
            await service.eventually(lambda: len(service.ledger("doze")) == 20)
            hogs = await service.send(app, "hogging", seconds=2.5)
            await service.eventually(lambda: service.ledger("doze")[hogs[0]])
            async with service.working(**service.brisk):
                runs = await service.final(app, ids + hogs)
            assert {run.state for run in runs} == {RunState.COMPLETED}
            assert await takeovers(app, ids + hogs) == []
        blocked.terminate()
        assert await blocked.wait() == 0


class TestAWorkerThatIsEnded:
    @ON_SQLITE
    async def test_running_nodes_finish_and_runs_are_handed_back_without_an_attempt(self, service: Any) -> None:
        ended = await service.start()
        async with service.app() as app:
            ids = await service.send(app, "naps", 20, seconds=0.6)
            await service.eventually(lambda: len(service.ledger("doze")) == 20)
            ended.terminate()
            assert await asyncio.wait_for(ended.wait(), 25) == 0
            runs = await service.runs(app, ids)
            assert {(run.state, run.attempts, run.crashes) for run in runs} == {(RunState.RECEIVED, 1, 0)}
            assert service.ledger("doze") == service.ledger("woke")
        async with service.working() as app:
            runs = await service.final(app, ids)
            assert {(run.state, run.attempts) for run in runs} == {(RunState.COMPLETED, 1)}
        assert service.ledger("doze") == dict.fromkeys(ids, 3), "no node ran twice"


@pytest.mark.soak
class TestManyAtOnce:
    @ON_SQLITE
    async def test_one_worker_attends_to_two_hundred_runs_at_once_and_rq_info_shows_it(
        self, service: Any, redis_url: str
    ) -> None:
        await service.start(concurrency=200)
        async with service.app() as app:
            ids = await service.send(app, "naps", 200, seconds=0.2)
            await service.eventually(lambda: len(service.ledger("doze")) > 20)
            command = (str(Path(sys.executable).with_name("rq")), "info", "--raw", "--url", redis_url)
            info = await asyncio.create_subprocess_exec(*command, stdout=subprocess.PIPE)
            printed = (await info.communicate())[0].decode()
            assert {run.state for run in await service.final(app, ids)} == {RunState.COMPLETED}
        assert ") busy eventwright:default." in printed
        assert service.ledger("woke") == dict.fromkeys(ids, 3)
        assert service.together() > 20

    @ON_POSTGRES
    async def test_two_workers_and_two_senders_do_every_chore_once(self, service: Any) -> None:
        await service.start(**service.brisk)
        async with service.working(**service.brisk) as one, service.app(**service.brisk) as other:
            sent = await asyncio.gather(*(service.send(app, "chores", 30) for app in (one, other, one, other)))
            ids = [run_id for batch in sent for run_id in batch]
            runs = await service.final(one, ids)
            assert {(run.state, run.attempts, run.crashes) for run in runs} == {(RunState.COMPLETED, 1, 0)}
            workers = {
                entry.actor for run in runs for entry in await one.store.journal(run.id) if "fence" in entry.data
            }
            assert len(workers) == 2
        for what in ("doze", "pay", "post", "shout"):
            assert service.ledger(what) == dict.fromkeys(ids, 1), what
