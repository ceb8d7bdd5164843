"""A deploy changes the graph under a run that waits: it goes on, and says so, or it stops before anything runs."""

from __future__ import annotations

from typing import Any

import pytest
from tests.letters import (
    LOG,
    STOPPED,
    Graph,
    answered,
    asks,
    asks_in_other_words,
    asks_more,
    asks_nothing,
    demanding,
    extra,
    first,
    last,
    letters,
    routed,
    stated,
    usual,
    workflow,
)
from tests.outside import World, chain, ended, job, pay, post

from eventwright.graphs.comparing import ChangeKind, Touch
from eventwright.graphs.workflow import Workflow
from eventwright.guardrails.policy import Policy
from eventwright.queue.migration import BadMigration
from eventwright.runs.records import ReviewState
from eventwright.runs.states import Outcome, RunState
from eventwright.runs.structures import kept_graph

#: What a deploy changes while a run waits at `asks`; and of what stops it, the words. None if it goes on.
DEPLOYS: dict[str, tuple[Workflow, Workflow, str | None]] = {
    "the node where it stands is gone": (usual(), letters(first=first, last=last), "node 'asks' is gone"),
    "it has another name": (usual(), letters(first=first, paying=asks, last=last), "is it 'paying' now?"),
    "a node that it has left is gone": (usual(), letters(asks=asks, last=last), "node 'first' is gone"),
    "a node comes in between, before it": (
        usual(),
        letters(first=first, extra=extra, asks=asks, last=last),
        "after 'first' always comes extra, it was asks",
    ),
    "the nodes come in another order": (
        usual(),
        letters(first=first, last=last, asks=asks),
        "after 'first' always comes last, it was asks",
    ),
    "the node where it stands asks something more, first": (
        usual(),
        letters(first=first, asks=asks_more, last=last),
        "asks 2 questions, it was 1",
    ),
    "it asks nothing any more": (
        usual(),
        letters(first=first, asks=asks_nothing, last=last),
        "asks 0 questions, it was 1",
    ),
    "a router that it has passed leads elsewhere": (
        routed("asks", "last"),
        routed("last"),
        "router 'route' of 'first' leads to last",
    ),
    "a field that it carries is gone": (stated({"log": LOG, "n": int}), stated({"n": int}), "field 'log' is gone"),
    "a field that it carries has another type": (
        stated({"log": LOG}),
        stated({"log": str}),
        "field 'log' is str, it was list",
    ),
    "a field becomes indispensable": (usual(), demanding(), "field 'amount' is demanded"),
    "nothing but code and prompts": (usual(), letters(first=first, asks=asks_in_other_words, last=last), None),
    "nothing but policies": (
        usual(),
        job(chain(first=first, asks=asks, last=last), {"asks": Policy(tools=[post]), "last": Policy(tools=[pay])}),
        None,
    ),
    "a node comes in between, after it": (usual(), letters(first=first, asks=asks, extra=extra, last=last), None),
    "the last node, which it has not reached, is gone": (usual(), letters(first=first, asks=asks), None),
    "a router that it has passed leads to one place more": (routed("asks"), routed("asks", "extra"), None),
    "a field is new": (stated({"log": LOG}), stated({"log": LOG, "note": str}), None),
    "a field that it does not carry is gone": (stated({"log": LOG, "note": str}), stated({"log": LOG}), None),
}


@pytest.mark.parametrize("name", DEPLOYS)
async def test_when_a_deploy_changes_a_graph_under_a_run_it_stops_loudly_or_goes_on_and_says_so(
    world: World, name: str
) -> None:
    before, after, words = DEPLOYS[name]
    run = await answered(world, before, after)
    rests = await run.run()

    if words is not None:
        assert ended(rests) == STOPPED
        assert rests.error is not None
        assert words in rests.error
        assert "eventwright migrate RUN" in rests.error
        assert world.provider.done == [("post", "welcome"), ("post", "notice")], "nothing ran in the changed graph"
        (review,) = await world.store.reviews(run_ids=[run.run_id])
        assert review.state is ReviewState.DECIDED
    else:
        assert ended(rests) == (RunState.COMPLETED, Outcome.APPROVED)
        assert rests.fingerprint == after.fingerprint
        told = [entry.data for entry in await run.journal() if entry.data.get("text") == "goes on in a changed graph"]
        assert len(told) == (before.fingerprint != after.fingerprint)
        assert all(note["changes"] for note in told)


@pytest.mark.parametrize("name", [name for name, (_, _, words) in DEPLOYS.items() if words is not None])
async def test_a_run_that_stopped_goes_on_when_the_deploy_is_rolled_back(world: World, name: str) -> None:
    before, after, _ = DEPLOYS[name]
    run = await answered(world, before, after)
    world.deploy(before)
    await world.engine.replay(run.run_id, by="olga")

    assert ended(await world.take(run.run_id).go_on()) == (RunState.COMPLETED, Outcome.APPROVED)
    assert world.provider.done.count(("post", "notice")) == 1


def test_every_kind_of_change_that_stops_a_run_is_among_these() -> None:
    shown = " ".join(words for _, _, words in DEPLOYS.values() if words)
    marks = {
        ChangeKind.NODE_GONE: "is gone",
        ChangeKind.QUESTIONS: "questions",
        ChangeKind.WAYS: "always comes",
        ChangeKind.ROUTER: "router",
        ChangeKind.FIELD_GONE: "field",
        ChangeKind.FIELD_TYPE: "it was list",
        ChangeKind.FIELD_NEEDED: "demanded",
    }
    # What comes together before a node, and the graph inside one, have tests of their own below.
    stopping = {kind for kind in ChangeKind if kind.touch is not Touch.NONE}
    assert stopping - marks.keys() == {ChangeKind.INSIDE, ChangeKind.WAITS}
    assert all(mark in shown for mark in marks.values())


async def test_a_run_that_has_not_begun_takes_the_graph_that_is_there(world: World) -> None:
    run = await world.send(usual())
    after = letters(first=first, extra=extra)
    world.deploy(after)

    done = await world.take(run.run_id).go_on()

    assert ended(done) == (RunState.COMPLETED, Outcome.AUTO)
    assert done.fingerprint == after.fingerprint
    assert world.provider.done == [("post", "welcome"), ("post", "extra")]


async def test_the_graph_that_a_run_began_with_is_kept_once_for_all_runs(world: World) -> None:
    runs = [await world.start(usual()) for _ in range(3)]
    began = {(await run.run()).fingerprint for run in runs}

    assert began == {usual().fingerprint}
    assert await kept_graph(world.store, began.pop()) == usual().structure


async def test_what_comes_together_before_a_waiting_node_must_be_the_same(world: World) -> None:
    def graph(*, waits: bool) -> Workflow:
        made: Graph = chain(first=first, asks=asks)
        made.add_node("extra", extra)
        made.add_node("last", last)
        made.add_edge(["extra", "last"] if waits else "extra", "asks")
        return workflow(made)

    run = await answered(world, graph(waits=False), graph(waits=True))
    stopped = await run.run()
    assert ended(stopped) == STOPPED
    assert "'asks' waits for extra and last, it was nobody" in str(stopped.error)


async def test_a_graph_inside_the_node_where_it_stands_must_be_the_same(world: World) -> None:
    def outer(**inner: Any) -> Workflow:
        return letters(first=first, agent=chain(**inner).compile(), last=last)

    run = await answered(world, outer(asks=asks), outer(asks=asks, extra=extra))
    stopped = await run.run()
    assert ended(stopped) == STOPPED
    assert "the graph inside 'agent' is another" in str(stopped.error)


async def test_a_run_does_not_begin_anew_in_another_graph_where_its_calls_would_be_made_again(world: World) -> None:
    run = await answered(world, usual(), letters(extra=extra, first=first, asks=asks, last=last))
    with pytest.raises(BadMigration, match="be done again"):
        await world.engine.replay(run.run_id, by="olga", from_start=True)
    assert ended(await run.run()) == STOPPED

    # Nor if the deploy comes between the wish and the worker.
    world.deploy(usual())
    await world.engine.replay(run.run_id, by="olga", from_start=True)
    world.deploy(letters(extra=extra, first=first, asks=asks, last=last))
    stopped = await world.take(run.run_id).go_on()
    assert ended(stopped) == STOPPED
    assert "undo RUN" in str(stopped.error)
    assert ("post", "extra") not in world.provider.done


class TestTwoVersionsSideBySide:
    async def test_old_runs_go_on_in_theirs_and_new_events_start_the_newest(self, world: World) -> None:
        old = usual(version="1")
        new = workflow(chain(first=first, extra=extra), version="2")
        waiting = await world.start(old)
        world.deploy(old, new)
        later = await world.send()
        waiting = world.take(waiting.run_id)
        await waiting.respond("yes")
        await later.go_on()

        assert ((await waiting.run()).version, (await later.run()).version) == ("1", "2")
        assert ended(await waiting.run()) == (RunState.COMPLETED, Outcome.APPROVED)
        assert ended(await later.run()) == (RunState.COMPLETED, Outcome.AUTO)
        assert sorted(text for _, text in world.provider.done) == ["5 ann", "extra", "notice", "welcome", "welcome"]

    async def test_a_run_of_a_version_that_is_not_there_any_more_stops_and_says_where_to(self, world: World) -> None:
        waiting = await world.start(usual(version="1"))
        world.deploy(usual(version="2"))
        stopped = await world.take(waiting.run_id).respond("yes")

        assert ended(stopped) == STOPPED
        assert stopped.error is not None
        assert "no workflow job version 1 is loaded (loaded: version 2)" in stopped.error
        assert "eventwright migrate RUN --to 2" in stopped.error
