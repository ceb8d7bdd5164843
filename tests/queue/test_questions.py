"""What an author asks reaches a person, whatever stands in it."""

from __future__ import annotations

from typing import Any

import pytest
from langgraph.types import interrupt
from tests.outside import World, chain, job, says

from eventwright.runs.states import RunState


@pytest.mark.parametrize(
    "asked",
    ["go\x00on?", {"question": "go\x00on?", "evidence": {"letter": "a\x00b"}}],
    ids=["a text", "a form"],
)
async def test_a_question_that_a_database_could_not_hold_is_asked_without_what_is_wrong(
    world: World, asked: Any
) -> None:
    async def works(state: Any) -> dict[str, Any]:
        return {"log": [interrupt(asked)]}

    run = await world.start(job(chain(works=works), {}))
    (review,) = await run.reviews()
    assert review.question == "go\ufffdon?"
    await world.engine.decide(review.id, says("approve"))
    assert (await run.go_on()).state is RunState.COMPLETED
