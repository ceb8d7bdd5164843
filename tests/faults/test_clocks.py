"""A worker whose own clock is hours wrong: leases, retries and deadlines go by the database's clock, and no step is
forgotten, whoever wrote it and whatever time they took it to be."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from eventwright.runs.failpoints import Failpoint
from eventwright.runs.records import Decision, DecisionType, ReviewState
from eventwright.runs.states import RunState

HOURS = 3 * 3600.0
#: SQLite's clock is that of its machine, which all its processes share.
pytestmark = pytest.mark.parametrize("database_url", ["postgres"], indirect=True)


@pytest.fixture(params=[HOURS, pytest.param(-HOURS, marks=pytest.mark.soak)], ids=["ahead", "behind"])
def wrong(request: pytest.FixtureRequest) -> dict[str, float]:
    """What is wrong with a worker: its clock."""
    return {"clock": request.param}


async def test_a_worker_with_a_wrong_clock_works_beside_another_and_neither_takes_anything_from_the_other(
    service: Any, wrong: Any
) -> None:
    """Each of their runs takes longer than a lease."""
    worker = await service.start(hurt=wrong, **service.brisk)
    async with service.working(**service.brisk) as app:
        ids = await service.send(app, "chores", 20, seconds=0.6)
        ids += await service.send(app, "tripping", 3)
        ids += await service.send(app, "hurrying", 3)
        runs = await service.final(app, ids)
        assert {run.state for run in runs} == {RunState.COMPLETED}
        entries = [entry for run_id in ids for entry in await app.store.journal(run_id)]
    assert [entry.data for entry in entries if entry.data.get("taken_over")] == []
    assert len({entry.actor for entry in entries if "fence" in entry.data}) == 2, "both have worked"
    for what in ("doze", "post", "shout"):
        assert service.ledger(what) == dict.fromkeys(ids[:20], 1), what
    worker.terminate()
    assert await worker.wait() == 0


@pytest.mark.soak
async def test_what_a_worker_with_a_wrong_clock_has_done_is_gone_on_from_by_others_and_by_itself(
    service: Any, wrong: Any
) -> None:
    """A question is answered once, and the next one is another."""
    async with service.app(**service.brisk) as app:
        (run_id,) = await service.send(app, "conversing", seconds=0.0)
        worker = await service.start(hurt=wrong, **service.brisk)
        first = await answered(service, app, run_id)
        worker.terminate()
        assert await worker.wait() == 0
        async with service.working(**service.brisk):
            second = await answered(service, app, run_id)
            await service.eventually(lambda: is_held_by_nobody(app, run_id))
        worker = await service.start(hurt=wrong, **service.brisk)
        (run,) = await service.final(app, [run_id])
        reviews = await app.store.reviews(run_ids=[run_id])
    assert run.state is RunState.COMPLETED
    assert (first, second) == ("Shall it go on after 0 steps?", "Shall it go on after 2 steps?")
    assert len(reviews) == 2
    assert service.ledger("pay") == service.ledger("shout") == {run_id: 1}


async def test_wake_ups_of_a_worker_that_died_with_a_wrong_clock_are_rung_again(
    service: Any, wrong: Any, tmp_path: Path
) -> None:
    """Redis keeps its books by the clocks of workers."""
    armed = tmp_path / "armed"
    armed.touch()
    worker = await service.start(hurt=wrong | {"kill": Failpoint.WORKER_BEGUN, "armed": str(armed)}, **service.brisk)
    async with service.app(**service.brisk) as app:
        ids = await service.send(app, "naps", 5)
        assert await worker.wait() == -9
        async with service.working(**service.brisk):
            runs = await service.final(app, ids)
    assert {(run.state, run.attempts) for run in runs} == {(RunState.COMPLETED, 1)}


async def answered(service: Any, app: Any, run_id: str) -> str:
    """Wait for a question of the run, and answer it: what was asked."""

    async def asks() -> bool:
        run = await app.store.run(run_id)
        assert run.state is not RunState.FAILED, run.error
        return bool(await app.store.reviews(run_ids=[run_id], state=ReviewState.OPEN))

    await service.eventually(asks)
    (review,) = await app.store.reviews(run_ids=[run_id], state=ReviewState.OPEN)
    await app.engine.decide(review.id, Decision(type=DecisionType.RESPOND, by="ann", response="yes"))
    return str(review.question)


async def is_held_by_nobody(app: Any, run_id: str) -> bool:
    return (await app.store.run(run_id)).state is not RunState.PROCESSING
