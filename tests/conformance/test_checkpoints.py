"""The saver on both stores: LangGraph's own conformance suite, the fence, and hostile rows. Refusals first."""

from __future__ import annotations

import asyncio
import copy
import operator
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Annotated, Any, TypedDict

import ormsgpack
import pytest
import sqlalchemy as sa
from langgraph.checkpoint.base import empty_checkpoint
from langgraph.checkpoint.conformance import checkpointer_test, validate
from langgraph.checkpoint.serde import jsonplus
from langgraph.graph import START, StateGraph
from tests.conformance.world import begin, leased, thread

from eventwright.runs import schema
from eventwright.runs.checkpoints import CheckpointSaver, NotLeased
from eventwright.runs.database import open_database
from eventwright.runs.errors import LeaseLost
from eventwright.runs.store import Store


class State(TypedDict, total=False):
    log: Annotated[list[str], operator.add]


@pytest.fixture
async def store(database_url: str) -> AsyncIterator[Store]:
    """By the database's own clock, which heeds no test."""
    async with Store.open(database_url) as store:
        yield store


@pytest.fixture
def saver(store: Store) -> CheckpointSaver:
    """One that asks for no lease."""
    return CheckpointSaver(store, lease_of=lambda _thread: None)


async def pending_rows(store: Store) -> int:
    (row,) = await store.rows_of(sa.select(sa.func.count().label("rows")).select_from(schema.checkpoint_writes))
    return int(row["rows"])


async def test_a_thread_that_was_not_claimed_is_not_written(store: Store) -> None:
    saver = CheckpointSaver(store)
    run = await begin(store)
    saver.lease(run.id, await leased(store, run.id, worker="worker"))
    await saver.aput(thread(run.id), empty_checkpoint(), {}, {})
    saver.release(run.id)

    with pytest.raises(NotLeased, match=run.id):
        await saver.aput(thread(run.id), empty_checkpoint(), {}, {})
    with pytest.raises(NotLeased, match="run_other"):
        await saver.aput(thread("run_other"), empty_checkpoint(), {}, {})


async def test_a_zombies_checkpoints_and_writes_are_refused(store: Store) -> None:
    saver = CheckpointSaver(store)
    run = await begin(store)
    saver.lease(run.id, await leased(store, run.id, worker="zombie", seconds=0))
    config = await saver.aput(thread(run.id), empty_checkpoint(), {}, {})
    await leased(store, run.id, worker="heir")

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
    zombie.lease(run.id, await leased(store, run.id, worker="zombie", seconds=0))
    stalled = asyncio.create_task(compiled(zombie).ainvoke({"log": []}, thread(run.id), durability="sync"))
    await entered.wait()
    heir.lease(run.id, await leased(store, run.id, worker="heir"))
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
    saver.lease(run.id, await leased(store, run.id, worker="worker"))
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
