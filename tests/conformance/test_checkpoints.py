"""The saver on both stores: LangGraph's own conformance suite, the fence, hostile rows, and kill -9. Refusals first."""

from __future__ import annotations

import asyncio
import copy
import operator
import os
import random
import signal
import sys
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Annotated, Any, TypedDict

import ormsgpack
import pytest
import sqlalchemy as sa
from langgraph.checkpoint.base import empty_checkpoint
from langgraph.checkpoint.conformance import checkpointer_test, validate
from langgraph.checkpoint.serde import jsonplus
from langgraph.graph import START, StateGraph

from eventwright.runs import schema
from eventwright.runs.checkpoints import CheckpointSaver, NotLeased
from eventwright.runs.committer import hash_of
from eventwright.runs.database import open_database
from eventwright.runs.errors import DecisionRefused, LeaseLost
from eventwright.runs.event import Event, new_id
from eventwright.runs.heartbeats import heartbeats
from eventwright.runs.records import Decision, DecisionType, EventState, Lease, ReviewState, Run
from eventwright.runs.states import RunState
from eventwright.runs.store import Store

WORKER = Path(__file__).with_name("crashing_worker.py")


class State(TypedDict, total=False):
    log: Annotated[list[str], operator.add]


@pytest.fixture
async def store(database_url: str) -> AsyncIterator[Store]:
    async with Store.open(database_url) as store:
        yield store


@pytest.fixture
def saver(store: Store) -> CheckpointSaver:
    """One that asks for no lease."""
    return CheckpointSaver(store, lease_of=lambda _thread: None)


def thread(name: str) -> Any:
    return {"configurable": {"thread_id": name, "checkpoint_ns": ""}}


async def begin(store: Store) -> Run:
    now = datetime.now(UTC)
    event = Event(id=new_id("test"), source="/tests", type="test.happened", data={})
    run = Run(
        id=new_id("run"),
        workflow="crash",
        version="1",
        state=RunState.RECEIVED,
        lane="default",
        event=event,
        created_at=now,
        updated_at=now,
    )
    async with store.write() as tx:
        tx.add_event(event, EventState.ACCEPTED)
        tx.add_run(run)
    return run


async def leased(store: Store, run: Run, worker: str, *, seconds: float = 6) -> Lease:
    async with store.write() as tx:
        claim = tx.claim(run.id, worker=worker, seconds=seconds)
    assert claim.lease is not None
    return claim.lease


async def pending_rows(store: Store) -> int:
    (row,) = await store.rows_of(sa.select(sa.func.count().label("rows")).select_from(schema.checkpoint_writes))
    return int(row["rows"])


async def test_a_thread_that_was_not_claimed_is_not_written(store: Store) -> None:
    saver = CheckpointSaver(store)
    run = await begin(store)
    saver.lease(run.id, await leased(store, run, "worker"))
    await saver.aput(thread(run.id), empty_checkpoint(), {}, {})
    saver.release(run.id)

    with pytest.raises(NotLeased, match=run.id):
        await saver.aput(thread(run.id), empty_checkpoint(), {}, {})
    with pytest.raises(NotLeased, match="run_other"):
        await saver.aput(thread("run_other"), empty_checkpoint(), {}, {})


async def test_a_zombies_checkpoints_and_writes_are_refused(store: Store) -> None:
    saver = CheckpointSaver(store)
    run = await begin(store)
    saver.lease(run.id, await leased(store, run, "zombie", seconds=0))
    config = await saver.aput(thread(run.id), empty_checkpoint(), {}, {})
    await leased(store, run, "heir")

    with pytest.raises(LeaseLost):
        await saver.aput(config, empty_checkpoint(), {}, {})
    with pytest.raises(LeaseLost):
        await saver.aput_writes(config, [("log", ["late"])], "task")
    saved = await saver.aget_tuple(thread(run.id))
    assert saved is not None
    assert (saved.config, saved.pending_writes) == (config, [])


async def test_a_zombies_graph_ends_at_its_next_step(store: Store) -> None:
    """The graph of the worker that stalled dies with LeaseLost; the other worker's goes on to the exact end."""
    run = await begin(store)
    entered, go = asyncio.Event(), asyncio.Event()

    async def stall(state: State) -> State:
        entered.set()
        await go.wait()
        return {"log": ["second"]}

    def compiled(saver: CheckpointSaver) -> Any:
        builder = StateGraph(State)
        builder.add_node("first", lambda state: {"log": ["first"]})
        builder.add_node("second", stall)
        builder.add_node("third", lambda state: {"log": ["third"]})
        builder.add_edge(START, "first")
        builder.add_edge("first", "second")
        builder.add_edge("second", "third")
        return builder.compile(checkpointer=saver)

    zombie, heir = CheckpointSaver(store), CheckpointSaver(store)
    zombie.lease(run.id, await leased(store, run, "zombie", seconds=0))
    stalled = asyncio.create_task(compiled(zombie).ainvoke({"log": []}, thread(run.id), durability="sync"))
    await entered.wait()
    heir.lease(run.id, await leased(store, run, "heir"))
    go.set()

    with pytest.raises(LeaseLost):
        await stalled
    done = await compiled(heir).ainvoke(None, thread(run.id), durability="sync")
    assert done["log"] == ["first", "second", "third"]


def forged(flag: Path) -> list[bytes]:
    """Bytes of LangGraph's msgpack extensions, each of which names `os.system` as what builds a value."""
    touch = f"touch {flag}"
    forms = [
        (jsonplus.EXT_CONSTRUCTOR_SINGLE_ARG, ("os", "system", touch)),
        (jsonplus.EXT_CONSTRUCTOR_POS_ARGS, ("os", "system", [touch])),
        (jsonplus.EXT_CONSTRUCTOR_KW_ARGS, ("os", "system", {"command": touch})),
        (jsonplus.EXT_METHOD_SINGLE_ARG, ("os", "path", touch, "system")),
        (jsonplus.EXT_PYDANTIC_V1, ("os", "system", {"command": touch}, "construct")),
        (jsonplus.EXT_PYDANTIC_V2, ("os", "system", {"command": touch}, "model_construct")),
    ]
    return [ormsgpack.packb(ormsgpack.Ext(code, ormsgpack.packb(form))) for code, form in forms]


async def test_a_forged_row_that_names_a_command_runs_nothing(
    database_url: str, saver: CheckpointSaver, tmp_path: Path
) -> None:
    flag = tmp_path / "it-ran"
    permissive = jsonplus.JsonPlusSerializer(allowed_msgpack_modules=True)
    for body in forged(flag):
        permissive.loads_typed(("msgpack", body))
    assert flag.exists(), "the forgeries are no danger at all, so this test proves nothing"
    flag.unlink()

    config = await saver.aput(thread("forged"), empty_checkpoint(), {}, {})
    await saver.aput_writes(config, [("log", n) for n in range(len(forged(flag)))], "task")
    kinds = {"type": "msgpack"}

    def forge(connection: sa.Connection) -> None:
        for index, body in enumerate(forged(flag)):
            write = sa.update(schema.checkpoint_writes).where(schema.checkpoint_writes.c.idx == index)
            connection.execute(write.values(body=body, **kinds))
        values = ormsgpack.packb({**empty_checkpoint(), "channel_values": {"log": _nested(forged(flag))}})
        connection.execute(sa.update(schema.checkpoints).values(body=values, **kinds))

    async with open_database(database_url) as database:
        await database.write(forge)
    saved = await saver.aget_tuple(thread("forged"))

    assert saved is not None
    assert len(saved.pending_writes or ()) == len(forged(flag))
    assert len(saved.checkpoint["channel_values"]["log"]) == len(forged(flag))
    assert not flag.exists()


def _nested(bodies: list[bytes]) -> list[Any]:
    return [ormsgpack.unpackb(body, ext_hook=ormsgpack.Ext) for body in bodies]


async def test_langgraphs_own_suite_passes(database_url: str) -> None:
    @checkpointer_test(name=f"CheckpointSaver on {database_url}")
    async def fresh() -> AsyncIterator[CheckpointSaver]:
        async with Store.open(database_url) as store:
            yield CheckpointSaver(store, lease_of=lambda _thread: None)

    report = await validate(fresh)

    failures = [failure for result in report.results.values() for failure in result.failures or ()]
    assert report.passed_all_base(), failures
    assert failures == []


async def test_a_copy_of_the_saver_shares_its_leases_and_held_writes(store: Store) -> None:
    """LangGraph's compile() works on a copy: a lease given to the original must hold for it."""
    saver = CheckpointSaver(store)
    twin = copy.copy(saver)
    run = await begin(store)
    saver.lease(run.id, await leased(store, run, "worker"))
    config = await twin.aput(thread(run.id), empty_checkpoint(), {}, {})

    held = asyncio.create_task(twin.aput_writes(config, [("log", ["x"])], "task"))
    await asyncio.sleep(0)
    await saver.aput(config, empty_checkpoint(), {}, {})
    await held

    assert await pending_rows(store) == 0


async def test_a_graph_of_single_steps_stores_no_writes_beside_its_checkpoints(
    store: Store, saver: CheckpointSaver
) -> None:
    builder = StateGraph(State)
    before = START
    for name in ("a", "b", "c", "d", "e"):
        builder.add_node(name, lambda state: {"log": ["x"]})
        builder.add_edge(before, name)
        before = name
    compiled = builder.compile(checkpointer=saver)
    await compiled.ainvoke({"log": []}, thread("warm"), durability="sync")
    rows, commits = await pending_rows(store), store.committer.commits
    await compiled.ainvoke({"log": []}, thread("plain"), durability="sync")

    assert await pending_rows(store) == rows
    assert store.committer.commits == commits + 7
    assert len([saved async for saved in saver.alist(thread("plain"))]) == 7


async def test_what_one_of_two_parallel_steps_finished_is_not_done_again_after_a_crash(
    store: Store, saver: CheckpointSaver
) -> None:
    done: list[str] = []
    crashed = asyncio.Event()

    async def left(state: State) -> State:
        done.append("left")
        return {"log": ["left"]}

    async def right(state: State) -> State:
        if not crashed.is_set():
            await asyncio.Event().wait()
        done.append("right")
        return {"log": ["right"]}

    builder = StateGraph(State)
    for name, node in (("left", left), ("right", right)):
        builder.add_node(name, node)
        builder.add_edge(START, name)
    compiled = builder.compile(checkpointer=saver)

    hanging = asyncio.create_task(compiled.ainvoke({"log": []}, thread("crash"), durability="sync"))
    while await pending_rows(store) == 0:
        await asyncio.sleep(0.01)
    hanging.cancel()
    await asyncio.gather(hanging, return_exceptions=True)
    crashed.set()
    end = await compiled.ainvoke(None, thread("crash"), durability="sync")

    assert sorted(end["log"]) == ["left", "right"]
    assert done == ["left", "right"]


async def test_a_listing_is_newest_first_filtered_and_limited(saver: CheckpointSaver) -> None:
    config: Any = thread("listed")
    for number in range(6):
        config = await saver.aput(config, empty_checkpoint(), {"step": number, "source": "loop"}, {})
        config["configurable"]["checkpoint_ns"] = ""

    steps = [saved.metadata["step"] async for saved in saver.alist(thread("listed"), limit=2)]
    assert steps == [5, 4]
    (third,) = [saved async for saved in saver.alist(thread("listed"), filter={"step": 3})]
    older = [saved.metadata["step"] async for saved in saver.alist(thread("listed"), before=third.config)]
    assert older == [2, 1, 0]
    assert [saved async for saved in saver.alist(thread("listed"), limit=0)] == []


class Workers:
    """The process that forks workers which are there to be killed."""

    def __init__(self, process: asyncio.subprocess.Process) -> None:
        self._process = process

    async def answer(self) -> str:
        assert self._process.stdout is not None
        return (await self._process.stdout.readline()).decode().strip()

    async def start(self) -> int:
        assert self._process.stdin is not None
        self._process.stdin.write(b"another\n")
        return int(await self.answer())


@asynccontextmanager
async def workers(url: str) -> AsyncIterator[Workers]:
    pipe = asyncio.subprocess.PIPE
    process = await asyncio.create_subprocess_exec(sys.executable, str(WORKER), url, stdin=pipe, stdout=pipe)
    try:
        found = Workers(process)
        assert await found.answer() == "ready"
        yield found
    finally:
        assert process.stdin is not None
        process.stdin.close()
        await process.wait()


async def answer_open_reviews(store: Store) -> None:
    """What people do: they answer whatever is open."""
    for review in await store.reviews(state=ReviewState.OPEN):
        try:
            async with store.write() as tx:
                tx.decide(review, Decision(type=DecisionType.RESPOND, by="ann", response="yes"))
                tx.make_due(review.run_id)
                tx.wake(review.run_id, lane="default", at=datetime.now(UTC))
        except DecisionRefused as refused:
            raise AssertionError(f"two people decided {review.id}, but there is one") from refused


async def crash(url: str, *, kills: int, runs_a_kill: int) -> None:
    """Kill one worker after the other while runs come in, then let the last one finish and look at every run."""
    begun: list[Run] = []
    async with Store.open(url) as store, workers(url) as made:
        for _ in range(kills):
            begun += [await begin(store) for _ in range(runs_a_kill)]
            worker = await made.start()
            until = time.monotonic() + random.uniform(0.05, 0.6)
            while time.monotonic() < until:
                await answer_open_reviews(store)
                await asyncio.sleep(0.01)
            os.kill(worker, signal.SIGKILL)
        worker = await made.start()
        async with asyncio.timeout(30 + len(begun)):
            while set(await store.counts()) != {("crash", "completed")}:
                await answer_open_reviews(store)
                await asyncio.sleep(0.02)
        os.kill(worker, signal.SIGKILL)
        await verify(store, begun)
        assert any([(await store.run(run.id)).crashes for run in begun]), "no worker was killed while it held a run"


async def verify(store: Store, runs: list[Run]) -> None:
    """Every run came to its exact end, with one answer a question, and its journal is whole."""
    saver = CheckpointSaver(store)
    for run in runs:
        saved = await saver.aget_tuple(thread(run.id))
        assert saved is not None
        assert sorted(saved.checkpoint["channel_values"]["log"]) == ["ask yes yes", "begin", "end", "left", "right"]
        reviews = (await store.history(run.id)).reviews
        assert [review.state for review in reviews] == [ReviewState.DECIDED] * 2
        previous = ""
        for seq, entry in enumerate(await store.journal(run.id), start=1):
            assert (entry.seq, entry.prev, entry.hash) == (seq, previous, hash_of(entry))
            previous = entry.hash


async def test_runs_survive_workers_that_are_killed_on_sqlite(sqlite_url: str) -> None:
    await crash(sqlite_url, kills=10, runs_a_kill=4)


async def test_runs_survive_workers_that_are_killed_on_postgres(postgres_url: str) -> None:
    await crash(postgres_url, kills=5, runs_a_kill=4)


@pytest.mark.soak
@pytest.mark.timeout(1800)
async def test_a_thousand_runs_survive_a_hundred_kills(database_url: str) -> None:
    await crash(database_url, kills=100, runs_a_kill=10)


async def test_a_worker_that_blocks_its_loop_keeps_its_runs(database_url: str) -> None:
    async with Store.open(database_url) as store, open_database(database_url) as database:
        run = await begin(store)
        async with heartbeats(database_url, "busy", [run.id], every=0.1, lease_seconds=30):
            await leased(store, run, "busy", seconds=0.5)
            time.sleep(1.5)
            async with store.write() as tx:
                stolen = tx.claim(run.id, worker="thief", seconds=6)
        assert stolen.lease is None
        due = (await store.run(run.id)).due_at
        assert due is not None
        assert due > await database.read(database.now) + timedelta(seconds=10)
