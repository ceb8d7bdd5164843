"""Before a deploy: which runs this code would break, and why; and looking changes nothing."""

from __future__ import annotations

from decimal import Decimal
from typing import Any

import pytest
from langgraph.types import interrupt
from pydantic import BaseModel
from tests.outside import World, chain, job, pay, post

from eventwright.graphs.workflow import On, Workflow, Workflows
from eventwright.guardrails.policy import Policy
from eventwright.guardrails.rules import above
from eventwright.queue.preflight import Break, Preflight, preflight
from eventwright.runs.states import RunState


async def asks(state: Any) -> dict[str, Any]:
    await post("notice")
    return {"log": [interrupt("sure?")]}


async def pays(state: Any) -> dict[str, Any]:
    return {"log": [await pay(Decimal("500"))]}


class Payload(BaseModel):
    number: int


def usual(**more: Any) -> Workflow:
    return job(chain(asks=asks), {"asks": Policy(tools=[post])}, **more)


def approving(**more: Any) -> Workflow:
    return job(chain(pays=pays), {"pays": Policy(tools=[pay], approve_when=above("amount", "100"))}, **more)


async def look(world: World, *workflows: Workflow) -> Preflight:
    return await preflight(world.store, Workflows(workflows))


@pytest.mark.parametrize(
    ("before", "after", "kind", "why", "way_out"),
    [
        (usual(), [], Break.NOT_LOADED, "no workflow job version 1 is loaded", "Load the workflow"),
        (usual(), [usual(version="2")], Break.NOT_LOADED, "loaded: version 2", "eventwright migrate RUN --to 2"),
        (
            usual(),
            [job(chain(paying=asks), {"paying": Policy(tools=[post])})],
            Break.GRAPH,
            "node 'asks' is gone",
            "eventwright migrate RUN --rename asks=paying",
        ),
        (
            usual(),
            [job(chain(asks=asks))],
            Break.POLICY,
            "'asks' has begun with outside.post",
            "Keep the tool in the policy",
        ),
        (
            approving(),
            [job(chain(pays=pays))],
            Break.POLICY,
            "somebody is asked about outside.pay at 'pays'",
            "Keep the tool in the policy",
        ),
    ],
    ids=["the workflow is gone", "the version is gone", "the node is gone", "a tool of a call", "a tool of a question"],
)
async def test_a_run_that_waits_and_would_break_is_named_with_the_reason_and_the_way_out(
    world: World, before: Workflow, after: list[Workflow], kind: Break, why: str, way_out: str
) -> None:
    run = await world.start(before)
    assert (await run.run()).state is RunState.PENDING_APPROVAL
    found = await look(world, *after)

    (broken,) = found.broken
    assert (broken.run.id, broken.kind, found.fine) == (run.run_id, kind, 0)
    assert why in broken.why
    assert way_out in broken.way_out


@pytest.mark.parametrize(
    ("trigger", "why"),
    [
        (On("other"), "no trigger of job version 1 is meant for 'job'"),
        (On("job", payload={"1": Payload}), "the payload of 'job' is not valid"),
        (On("job", payload={"2": Payload}), "payload version '1' of 'job' is not known"),
    ],
)
async def test_a_run_that_has_not_begun_would_break_if_its_event_is_not_taken_any_more(
    world: World, trigger: On, why: str
) -> None:
    await world.send(usual())
    (broken,) = (await look(world, usual(triggers=[trigger]))).broken

    assert broken.kind is Break.EVENT
    assert why in broken.why


async def test_runs_that_are_over_or_are_dead_letters_are_not_looked_at(world: World) -> None:
    async def fails(state: Any) -> dict[str, Any]:
        raise ValueError("no")

    await world.start(job(chain(fails=fails)))
    done = await world.start(usual())
    await done.respond("yes")
    await world.engine.cancel((await world.start(usual())).run_id, by="olga")

    found = await look(world)
    assert (found.broken, found.fine) == ([], 0)


async def test_what_is_fine_is_counted(world: World) -> None:
    for _ in range(3):
        await world.start(usual())
    await world.send(usual())
    found = await look(world, usual(description="another text, and the same graph"))

    assert (found.broken, found.fine) == ([], 4)


async def test_looking_writes_nothing(world: World) -> None:
    run = await world.start(usual())
    stood, record, commits = await run.run(), await run.journal(), world.store.committer.commits
    await look(world, job(chain(paying=asks)))

    assert (await run.run(), await run.journal(), world.store.committer.commits) == (stood, record, commits)


async def test_what_it_says_is_what_happens(world: World) -> None:
    after = [job(chain(paying=asks), {"paying": Policy(tools=[post])})]
    broken, fine = await world.start(usual()), await world.start(usual(name="fine"), kind="fine")
    world.deploy(*after, usual(name="fine"))
    found = await look(world, *after, usual(name="fine"))
    rests = [await world.take(run.run_id).respond("yes") for run in (broken, fine)]

    assert [one.run.id for one in found.broken] == [broken.run_id]
    assert found.broken[0].why in str(rests[0].error)
    assert [run.state for run in rests] == [RunState.FAILED, RunState.COMPLETED]
