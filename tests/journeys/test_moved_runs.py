"""An operator moves a run to another graph: what was done stays done, what was decided stays decided."""

from __future__ import annotations

from decimal import Decimal
from typing import Any

import pytest
from langgraph.types import interrupt
from tests.letters import (
    LOG,
    STOPPED,
    Graph,
    answered,
    asks,
    asks_more,
    asks_nothing,
    extra,
    first,
    last,
    letters,
    stated,
    untrusted,
    usual,
    workflow,
)
from tests.outside import World, chain, ended, job, pay, post, the_review

from eventwright.graphs.judgement import classify
from eventwright.graphs.mapping import StateMapping
from eventwright.graphs.workflow import Workflow
from eventwright.guardrails.policy import Policy
from eventwright.guardrails.rules import above, always
from eventwright.queue.migration import BadMigration, Move
from eventwright.runs.records import JournalKind, ReviewKind
from eventwright.runs.states import Outcome, RunState


def approving(**more: Any) -> Workflow:
    policies = {"first": Policy(tools=[post]), "pay": Policy(tools=[pay], approve_when=above("amount", "100"))}
    return job(chain(first=first, pay=pays), policies, **more)


async def pays(state: Any) -> dict[str, Any]:
    return {"log": [await pay(Decimal("500"))]}


@pytest.mark.parametrize("decided_first", [True, False], ids=["decided", "still open"])
async def test_an_approval_of_a_call_goes_along(world: World, decided_first: bool) -> None:
    run = await world.start(approving(version="1"))
    asked = await the_review(run)
    world.deploy(approving(version="2"))
    run = world.take(run.run_id)
    if decided_first:
        assert ended(await run.approve()) == STOPPED
    moved = await world.engine.migrate(run.run_id, Move(to_version="2"), by="olga")
    rests = await run.go_on()
    if not decided_first:
        assert rests.state is RunState.PENDING_APPROVAL
        assert (await the_review(run)).id == asked.id
        rests = await run.approve()

    assert (moved.version, moved.run.version, moved.reviews) == ("2", "1", [asked.id])
    assert ended(rests) == (RunState.COMPLETED, Outcome.APPROVED)
    assert rests.version == "2"
    assert len(await world.store.reviews(run_ids=[run.run_id])) == 1
    assert world.provider.done == [("post", "welcome"), ("pay", "500 ann")]


async def test_a_new_question_before_an_answered_one_does_not_get_its_answer(world: World) -> None:
    run = await answered(world, usual(), letters(first=first, asks=asks_more, last=last))
    await world.engine.migrate(run.run_id, Move(), by="olga")
    rests = await run.go_on()

    assert rests.state is RunState.PENDING_APPROVAL
    assert (await the_review(run)).question == "sure?"
    assert ended(await run.respond("sure")) == (RunState.COMPLETED, Outcome.APPROVED)
    assert (await run.values())["log"][1:3] == ["sure", "yes"]
    assert world.provider.done.count(("post", "notice")) == 1


async def test_answers_that_a_node_has_taken_in_already_are_not_asked_again(world: World) -> None:
    run = await world.start(letters(first=first, asks=asks_more, last=last))
    await run.respond("sure")
    world.deploy(letters(first=first, paying=asks_more, last=last))
    run = world.take(run.run_id)
    assert ended(await run.respond("yes")) == STOPPED
    await world.engine.migrate(run.run_id, Move(rename={"asks": "paying"}), by="olga")

    assert ended(await run.go_on()) == (RunState.COMPLETED, Outcome.APPROVED)
    assert (await run.values())["log"][1:3] == ["sure", "yes"]
    assert len(await world.store.reviews(run_ids=[run.run_id])) == 2


async def test_an_answer_is_not_kept_for_a_later_question_of_the_same_words(world: World) -> None:
    async def asks_later(state: Any) -> dict[str, Any]:
        return {"log": [interrupt("pay?")]} if "nobody was asked" in state["log"] else await asks_nothing(state)

    def again(state: Any) -> str:
        return "paying" if state["log"][-1] == "nobody was asked" else "last"

    def looping() -> Workflow:
        graph: Graph = chain(first=first)
        graph.add_node("paying", asks_later)
        graph.add_node("last", last)
        graph.add_edge("first", "paying")
        graph.add_conditional_edges("paying", again, ["paying", "last"])
        return workflow(graph)

    run = await answered(world, usual(), looping())
    assert ended(await run.run()) == STOPPED
    await world.engine.migrate(run.run_id, Move(rename={"asks": "paying"}), by="olga")
    rests = await run.go_on()

    assert rests.state is RunState.PENDING_APPROVAL, "the second visit asks somebody"
    assert (await the_review(run)).question == "pay?"
    assert ended(await run.respond("no")) == (RunState.COMPLETED, Outcome.APPROVED)
    assert (await run.values())["log"][2] == "no"
    reviews = await world.store.reviews(run_ids=[run.run_id])
    assert [review.consumed_by for review in reviews] == ["graph", "graph"], "no later deploy stumbles over the old one"


async def asks_only(state: Any) -> dict[str, Any]:
    return {"log": [interrupt("pay?")]}


def outer(version: str, **inner: Any) -> Workflow:
    return workflow(chain(first=first, agent=chain(**inner).compile(), last=last), version=version)


async def test_a_changed_graph_inside_a_node_begins_anew_and_gets_the_answers_again(world: World) -> None:
    run = await world.start(outer("1", asks=asks_only))
    world.deploy(outer("2", extra=extra, signs=asks_only))
    run = world.take(run.run_id)
    assert ended(await run.respond("yes")) == STOPPED
    await world.engine.migrate(run.run_id, Move(to_version="2"), by="olga")

    assert ended(await run.go_on()) == (RunState.COMPLETED, Outcome.APPROVED)
    assert len(await world.store.reviews(run_ids=[run.run_id])) == 1
    assert "yes" in (await run.values())["log"]
    assert sorted(text for _, text in world.provider.done) == ["5 ann", "extra", "welcome"]


async def test_a_changed_graph_inside_a_node_does_not_begin_anew_where_it_has_written(world: World) -> None:
    run = await world.start(outer("1", asks=asks))
    world.deploy(outer("1", asks=asks), outer("2", signs=asks))
    with pytest.raises(BadMigration, match="what it has written there would be written again"):
        await world.engine.migrate(run.run_id, Move(to_version="2"), by="olga")


async def test_a_node_with_a_graph_inside_may_get_another_name(world: World) -> None:
    run = await world.start(outer("1", asks=asks))
    inside = chain(asks=asks).compile()
    world.deploy(workflow(chain(first=first, helper=inside, last=last)))
    run = world.take(run.run_id)
    assert ended(await run.respond("yes")) == STOPPED
    await world.engine.migrate(run.run_id, Move(rename={"agent": "helper"}), by="olga")

    assert ended(await run.go_on()) == (RunState.COMPLETED, Outcome.APPROVED)
    assert sorted(text for _, text in world.provider.done) == ["5 ann", "notice", "welcome"]


async def test_the_state_is_mapped(world: World) -> None:
    before = stated({"log": LOG, "total": str})
    run = await world.start(before, {"log": [], "total": "5"})
    after = stated({"log": LOG, "amount": Decimal, "currency": str})
    world.deploy(after)
    run = world.take(run.run_id)
    assert ended(await run.respond("yes")) == STOPPED
    mapping = StateMapping(rename={"total": "amount"}, set={"currency": "EUR"})
    told = await world.engine.migrate(run.run_id, Move(state=mapping), by="olga")
    done = await run.go_on()

    assert ended(done) == (RunState.COMPLETED, Outcome.APPROVED)
    values = await run.values()
    assert (values["amount"], values["currency"], "total" in values) == (Decimal("5"), "EUR", False)
    assert told.as_json()["state"] == {
        "amount": {"after": "5"},
        "currency": {"after": "EUR"},
        "total": {"before": "5"},
    }


async def test_what_was_untrusted_is_untrusted_under_its_new_name(world: World) -> None:
    run = await world.start(untrusted({"log": LOG, "total": str}), {"log": [], "total": "5"})
    assert (await the_review(run)).kind is ReviewKind.APPROVAL, "untrusted data chose what is written"
    world.deploy(untrusted({"log": LOG, "amount": Decimal, "currency": str}))
    mapping = StateMapping(rename={"total": "amount"}, set={"currency": "EUR"})
    await world.engine.migrate(run.run_id, Move(state=mapping), by="olga")
    saved = await world.engine.runner.saver.aget_tuple({"configurable": {"thread_id": run.run_id}})

    assert saved is not None
    labels = dict(saved.metadata)["labels"]
    assert labels["amount"] == ["the event"]
    assert not {"currency", "total"} & labels.keys()


async def test_a_function_may_map_the_whole_state(world: World) -> None:
    def halves(state: dict[str, Any]) -> dict[str, Any]:
        return {"log": state["log"], "cents": int(Decimal(state["total"]) * 100)}

    run = await world.start(stated({"log": LOG, "total": str}), {"log": [], "total": "5"})
    world.deploy(stated({"log": LOG, "cents": int}))
    run = world.take(run.run_id)
    await run.respond("yes")
    await world.engine.migrate(run.run_id, Move(state=StateMapping(through=halves)), by="olga")
    await run.go_on()

    assert (await run.values())["cents"] == 500


@pytest.mark.parametrize(
    ("move", "words"),
    [
        (Move(), "field 'total' is gone; say what becomes of it: --state MAPPING"),
        (Move(state=StateMapping(rename={"totl": "amount"})), "the state has no field 'totl'"),
        (Move(state=StateMapping(rename={"total": "amout"})), "has no field 'amout'; its fields are: amount"),
        (Move(state=StateMapping(drop=["total"], set={"amount": "much"})), "field 'amount' takes no such value"),
        (Move(state=StateMapping(through=lambda state: 1 / 0)), "the mapping failed: ZeroDivisionError"),  # type: ignore[arg-type, return-value]
        (Move(state=StateMapping(through=lambda state: None)), "the mapping returned NoneType"),  # type: ignore[arg-type, return-value]
        (Move(rename={"asks": "nowhere"}, state=StateMapping(drop=["total"])), "the nodes are: asks, first, last"),
        (Move(rename={"aks": "asks"}, state=StateMapping(drop=["total"])), "it has been in no node 'aks'"),
    ],
)
async def test_a_move_that_does_not_fit_is_refused_with_the_reason_and_changes_nothing(
    world: World, move: Move, words: str
) -> None:
    run = await world.start(stated({"log": LOG, "total": str}), {"log": [], "total": "5"})
    world.deploy(stated({"log": LOG, "amount": Decimal}))
    run = world.take(run.run_id)
    await run.respond("yes")
    stood, record = await run.run(), await run.journal()
    with pytest.raises(BadMigration) as refused:
        await world.engine.migrate(run.run_id, move, by="olga")

    assert words in str(refused.value)
    assert (await run.run(), await run.journal()) == (stood, record)


async def test_a_dry_run_tells_everything_and_changes_nothing(world: World) -> None:
    run = await answered(world, usual(), letters(first=first, paying=asks, last=last))
    stood, record = await run.run(), await run.journal()
    move = Move(rename={"asks": "paying"})
    told = await world.engine.migrate(run.run_id, move, by="olga", dry_run=True)

    assert (await run.run(), await run.journal()) == (stood, record)
    assert (told.stands_at, told.rename, told.changes) == (["paying"], {"asks": "paying"}, [])
    assert told == await world.engine.migrate(run.run_id, move, by="olga")


async def test_everything_about_a_move_stands_in_the_journal(world: World) -> None:
    run = await world.start(usual(version="1"))
    new = workflow(chain(first=first, asks=asks, extra=extra, last=last), version="2")
    world.deploy(new)
    await world.engine.migrate(run.run_id, Move(to_version="2"), by="olga")
    (note,) = [entry for entry in await run.journal() if entry.data.get("text") == "moved to another graph"]

    assert (note.kind, note.actor) == (JournalKind.NOTE, "olga")
    assert (note.data["version_before"], note.data["version"]) == ("1", "2")
    assert note.data["fingerprint"] == new.fingerprint
    assert "node 'extra' is new" in note.data["changes"]


async def test_a_run_that_has_ended_or_is_at_work_is_not_moved(world: World) -> None:
    from eventwright.runs.errors import IllegalMove

    run = await world.start(letters(first=first))
    with pytest.raises(IllegalMove):
        await world.engine.migrate(run.run_id, Move(), by="olga")


async def test_a_tool_that_a_node_has_begun_with_must_be_in_the_new_policy(world: World) -> None:
    run = await world.start(usual(version="1"))
    without = job(
        chain(first=first, asks=asks, last=last),
        {"first": Policy(tools=[post]), "last": Policy(tools=[pay])},
        version="2",
    )
    world.deploy(without)
    with pytest.raises(BadMigration, match=r"'asks' has begun with outside\.post"):
        await world.engine.migrate(run.run_id, Move(to_version="2"), by="olga")


async def test_a_persons_word_about_what_a_model_was_not_sure_of_goes_along(world: World) -> None:
    async def judges(state: Any) -> dict[str, Any]:
        team = await classify("zzz", ("billing", "shipping"))
        return {"log": [team.value, await post("done")]}

    def judging(version: str) -> Workflow:
        sure = Policy(tools=[post], min_confidence=1.0, approve_when=always)
        return job(chain(judge=judges), {"judge": sure}, version=version)

    run = await world.start(judging("1"))
    await run.respond("billing")
    asked = await the_review(run)
    assert asked.kind is ReviewKind.APPROVAL, "the word was taken, and the call is asked about"
    world.deploy(judging("2"))
    run = world.take(run.run_id)
    await world.engine.migrate(run.run_id, Move(to_version="2"), by="olga")

    assert (await run.go_on()).state is RunState.PENDING_APPROVAL
    assert (await the_review(run)).id == asked.id
    assert ended(await run.approve()) == (RunState.COMPLETED, Outcome.EDITED)
    assert (await run.values())["log"][0] == "billing"


async def test_a_join_to_which_somebody_has_come_must_be_there(world: World) -> None:
    def fork(*waited_for: str, version: str) -> Workflow:
        graph: Graph = chain(first=first)
        for name, node in {"extra": extra, "slow": asks_nothing, "asks": asks, "last": last}.items():
            graph.add_node(name, node)
        for name in ("extra", "slow"):
            graph.add_edge("first", name)
        graph.add_edge("slow", "asks")
        graph.add_edge(list(waited_for), "last")
        return workflow(graph, version=version)

    run = await world.start(fork("extra", "asks", version="1"))
    world.deploy(fork("slow", "asks", version="2"))
    with pytest.raises(BadMigration, match="'last' waits for extra and asks, some of which have come"):
        await world.engine.migrate(run.run_id, Move(to_version="2"), by="olga")
