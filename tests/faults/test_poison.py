"""A run that kills whichever worker takes it is put aside; those that were at work beside it come to their end."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from eventwright.runs.claims import MOST_CRASHES, SUSPECT
from eventwright.runs.states import Reason, RunState


@pytest.mark.soak
async def test_a_poisonous_run_among_many_is_the_only_one_that_is_put_aside(service: Any) -> None:
    async with service.app() as app:
        (poison,) = await service.send(app, "poison", 1)
        others = await service.send(app, "naps", 20, seconds=0.05)
        deaths = 0
        worker = await service.start(**service.brisk)
        while (await app.store.run(poison)).state is not RunState.FAILED:
            if worker.returncode is not None:
                # What a supervisor does.
                deaths += 1
                worker = await service.start(**service.brisk)
            await asyncio.sleep(0.05)
        runs = await service.final(app, others)
        put_aside = await app.store.run(poison)

    assert (put_aside.reason, deaths) == (Reason.QUARANTINED, MOST_CRASHES)
    assert "workers died" in (put_aside.error or "")
    assert {run.state for run in runs} == {RunState.COMPLETED}
    assert max(run.crashes for run in runs) <= SUSPECT
    # The one that is put aside does not take the worker with it.
    assert worker.returncode is None
