"""A deploy renames nodes around one that waits: the run stops or goes on, and what was done stays done."""

from __future__ import annotations

from typing import Any

import pytest
from langgraph.types import Send, interrupt
from tests.outside import (
    World,
    chain,
    ended,
    job,
    post,
    says,
    the_review,
)

from eventwright.guardrails.policy import Policy
from eventwright.queue.migration import Move
from eventwright.runs.states import Outcome, Reason, RunState


def forked(names: dict[str, str]) -> Any:
    """`one` and `two` side by side, then `both`: one is done, two asks."""
    named = {name: names.get(name, name) for name in ("start", "one", "two", "both")}

    async def start(state: Any) -> dict[str, Any]:
        return {"log": [await post("start")]}

    async def one(state: Any) -> dict[str, Any]:
        return {"log": [await post("one")]}

    async def two(state: Any) -> dict[str, Any]:
        return {"log": [interrupt("two?"), await post("two")]}

    async def both(state: Any) -> dict[str, Any]:
        return {"log": [await post("both")]}

    graph = chain(**{named["start"]: start})
    for name, node in (("one", one), ("two", two), ("both", both)):
        graph.add_node(named[name], node)
    for name in ("one", "two"):
        graph.add_edge(named["start"], named[name])
    graph.add_edge([named["one"], named["two"]], named["both"])
    return job(graph, {name: Policy(tools=[post]) for name in named.values()})


@pytest.mark.parametrize(
    "names",
    [
        {"two": "zwei"},
        {"one": "eins"},
        {"one": "eins", "two": "zwei"},
        {"both": "beide"},
        {"start": "anfang", "one": "eins", "two": "zwei", "both": "beide"},
    ],
    ids=["the one that asks", "its finished neighbour", "both", "the join after them", "everything"],
)
async def test_a_fork_survives_the_renaming_of(world: World, names: dict[str, str]) -> None:
    run = await world.start(forked({}))
    review = await the_review(run)
    world.deploy(forked(names))
    await world.engine.decide(review.id, says("respond", response="yes"))
    run = world.take(run.run_id)
    rests = await run.go_on()
    if rests.state is RunState.FAILED:
        assert rests.reason is Reason.NEEDS_MIGRATION
        await world.engine.replay(run.run_id, by="olga", move=Move(rename=names))
        rests = await run.go_on()

    assert ended(rests) == (RunState.COMPLETED, Outcome.APPROVED)
    assert sorted(text for _, text in world.provider.done) == ["both", "one", "start", "two"]


async def test_a_renamed_node_that_tasks_were_sent_to_stops_the_run_and_can_be_moved(world: World) -> None:
    def fans(leaf_name: str) -> Any:
        async def fan(state: Any) -> dict[str, Any]:
            return {}

        async def leaf(state: Any) -> dict[str, Any]:
            return {"log": [await post(f"{state['n']}"), interrupt("same question?")]}

        graph = chain(fan=fan)
        graph.add_node(leaf_name, leaf)
        graph.add_conditional_edges("fan", lambda state: [Send(leaf_name, {"n": n}) for n in range(2)], [leaf_name])
        return job(graph, {leaf_name: Policy(tools=[post])})

    run = await world.start(fans("leaf"))
    world.deploy(fans("blatt"))
    for review, answer in zip(await run.reviews(), ("a", "b"), strict=True):
        await world.engine.decide(review.id, says("respond", response=answer))
    run = world.take(run.run_id)
    assert ended(await run.go_on()) == (RunState.FAILED, Reason.NEEDS_MIGRATION)
    await world.engine.replay(run.run_id, by="olga", move=Move(rename={"leaf": "blatt"}))
    assert (await run.go_on()).state is RunState.COMPLETED
    assert (await run.values())["log"] == ["post 0", "a", "post 1", "b"]
    assert sorted(world.provider.done) == [("post", "0"), ("post", "1")]
