"""The ledger: what becomes of a call that was cut off, failed or answered nonsense; exceptions first.

Killing is real as far as the run can tell: its task is cancelled in the middle of the call, its lease runs out, and
another process with nothing in memory takes it over.
"""

from __future__ import annotations

from collections.abc import AsyncIterator
from decimal import Decimal
from typing import Any

import pytest
from tests.outside import (
    ModelServer,
    Trouble,
    World,
    a_model,
    a_world,
    answer,
    book,
    chain,
    ended,
    job,
    kinds,
    look,
    pay,
    post,
    says,
    the_effect,
    the_review,
)

from eventwright.graphs.judgement import choose, draft
from eventwright.guardrails.policy import Backoff, Policy
from eventwright.guardrails.rules import always
from eventwright.queue.desk import UnfitDecision
from eventwright.runs.records import EffectState, JournalKind, ReviewKind, ReviewState
from eventwright.runs.states import Outcome, Reason, RunState
from eventwright.tools.contract import NotDone, Permanent, ToolError, tool

NAMES = {look: "outside.look", pay: "outside.pay", book: "outside.book", post: "outside.post"}


@pytest.fixture
async def world(database_url: str) -> AsyncIterator[World]:
    async with a_world(database_url) as world:
        yield world


def calling(tool: Any, *arguments: Any, retries: int = 0, **policy: Any) -> Any:
    async def node(state: Any) -> dict[str, Any]:
        return {"log": [await tool(*arguments)]}

    return job(chain(node=node), {"node": Policy(tools=[tool], retries=retries, **policy)})


class TestAWorkerThatIsKilledInACall:
    @pytest.mark.parametrize("happens", [True, False], ids=["after it took effect", "before it took effect"])
    async def test_repeats_a_keyed_write_with_the_same_key_and_it_takes_effect_once(
        self, world: World, happens: bool
    ) -> None:
        world.provider.troubles = [Trouble(happens=happens)]
        run = await world.crash(await world.send(calling(pay, Decimal(5))))
        done = await run.go_on()

        assert ended(done) == (RunState.COMPLETED, Outcome.AUTO)
        assert world.provider.done == [("pay", "5 ann")]
        (_, _, key, first), (_, _, again, second) = world.provider.calls
        assert key == again
        assert (first, second) == (1, 2)

    @pytest.mark.parametrize("happens", [True, False], ids=["after it took effect", "before it took effect"])
    async def test_reads_a_verifiable_write_back_before_it_repeats_it(self, world: World, happens: bool) -> None:
        world.provider.troubles = [Trouble(happens=happens)]
        run = await world.crash(await world.send(calling(book, "seat 1")))
        done = await run.go_on()

        assert done.state is RunState.COMPLETED
        assert world.provider.done == [("book", "seat 1")]
        assert (await run.values())["log"] == ["book seat 1"]

    async def test_just_repeats_a_read(self, world: World) -> None:
        world.provider.troubles = [Trouble()]
        run = await world.crash(await world.send(calling(look, "x")))
        assert (await run.go_on()).state is RunState.COMPLETED

    @pytest.mark.parametrize("happens", [True, False], ids=["it happened", "it did not happen"])
    async def test_asks_a_person_about_a_plain_write_and_believes_the_answer(self, world: World, happens: bool) -> None:
        world.provider.troubles = [Trouble(happens=happens)]
        run = await world.crash(await world.send(calling(post, "hello")))
        assert (await run.go_on()).state is RunState.PENDING_APPROVAL
        doubt = await the_review(run)
        assert (doubt.kind, doubt.arguments) == (ReviewKind.IN_DOUBT, {"text": "hello"})
        assert the_effect(await run.effects(), "outside.post").state is EffectState.IN_DOUBT
        with pytest.raises(UnfitDecision):
            await run.approve()
        with pytest.raises(UnfitDecision):
            await run.respond({"happened": "yes"})

        done = await run.respond({"happened": happens})

        assert ended(done) == (RunState.COMPLETED, Outcome.AUTO)
        assert world.provider.done == [("post", "hello")]
        assert (await run.values())["log"] == [None if happens else "post hello"]
        assert JournalKind.EFFECT_IN_DOUBT in kinds(await run.journal())

    async def test_asks_again_when_the_repeat_is_cut_off_too(self, world: World) -> None:
        world.provider.troubles = [Trouble(), Trouble(happens=True)]
        run = await world.crash(await world.send(calling(post, "hello")))
        await run.go_on()
        first = await the_review(run)
        await world.engine.decide(first.id, says("respond", response={"happened": False}))
        run = await world.crash(run)
        assert (await run.go_on()).state is RunState.PENDING_APPROVAL
        assert (await the_review(run)).id != first.id
        assert (await run.respond({"happened": True})).state is RunState.COMPLETED
        assert world.provider.done == [("post", "hello")]

    async def test_needs_no_second_approval_for_the_repeat_of_an_approved_call(self, world: World) -> None:
        run = await world.start(calling(pay, Decimal(5), approve_when=always))
        world.provider.troubles = [Trouble(happens=True)]
        await world.engine.decide((await the_review(run)).id, says("edit", arguments={"amount": "4", "to": "bob"}))
        run = await world.crash(run)
        assert ended(await run.go_on()) == (RunState.COMPLETED, Outcome.EDITED)
        assert world.provider.done == [("pay", "4 bob")]

    async def test_between_decision_and_effect_the_decision_holds(self, world: World) -> None:
        """Three workers die with the approved call in their hands; the fourth makes it, and nobody is asked again."""
        run = await world.start(calling(pay, Decimal(5), approve_when=always))
        await world.engine.decide((await the_review(run)).id, says("approve"))
        for _ in range(3):
            world.provider.troubles = [Trouble(happens=True)]
            run = await world.crash(run)
            await world.due(run)
        assert ended(await run.go_on()) == (RunState.COMPLETED, Outcome.APPROVED)
        assert world.provider.done == [("pay", "5 ann")]
        assert len({key for *_, key, _ in world.provider.calls}) == 1


class TestATool:
    async def test_that_says_it_did_nothing_is_tried_again_and_no_approval_is_asked_twice(self, world: World) -> None:
        run = await world.start(calling(post, "hello", retries=2, approve_when=always))
        world.provider.troubles = [Trouble(NotDone("busy")), Trouble(NotDone("busy"))]
        done = await run.approve()

        assert ended(done) == (RunState.COMPLETED, Outcome.APPROVED)
        assert done.attempts == 3
        assert world.provider.done == [("post", "hello")]
        assert [attempt for *_, attempt in world.provider.calls] == [1, 2, 3]

    async def test_that_names_a_time_is_not_tried_before_it(self, world: World) -> None:
        world.provider.troubles = [Trouble(NotDone("busy", retry_after=600))]
        run = await world.send(calling(post, "hello", retries=1, backoff=Backoff(first=0.01)))
        await world.engine.advance(run.run_id)
        rests = await run.run()
        assert rests.state is RunState.RETRYING
        assert rests.due_at is not None
        assert (rests.due_at - world.clock()).total_seconds() > 590

    async def test_that_fails_with_words_that_no_database_takes_has_failed_all_the_same(self, world: World) -> None:
        world.provider.troubles = [Trouble(NotDone("nul \x00 half \ud800"))]
        run = await world.start(calling(post, "hello", retries=1))
        assert (await run.run()).state is RunState.COMPLETED
        (failed,) = [entry for entry in await run.journal() if entry.kind is JournalKind.EFFECT_FAILED]
        assert failed.data["error"] == "NotDone: nul \ufffd half ?"

    async def test_that_fails_for_good_ends_the_run_at_once(self, world: World) -> None:
        world.provider.troubles = [Trouble(Permanent("no such account"))]
        run = await world.start(calling(pay, Decimal(5), retries=5))
        assert ended(await run.run()) == (RunState.FAILED, Reason.NOT_RETRYABLE)
        assert len(world.provider.calls) == 1
        assert the_effect(await run.effects(), "outside.pay").state is EffectState.FAILED

    @pytest.mark.parametrize("happens", [True, False], ids=["it happened", "it did not happen"])
    async def test_that_is_plain_and_cannot_say_is_in_doubt_at_once_and_not_retried(
        self, world: World, happens: bool
    ) -> None:
        world.provider.troubles = [Trouble(ToolError("connection lost"), happens=happens)]
        run = await world.start(calling(post, "hello", retries=5))
        assert (await run.run()).state is RunState.PENDING_APPROVAL
        assert (await the_review(run)).kind is ReviewKind.IN_DOUBT
        assert (await run.respond({"happened": happens})).state is RunState.COMPLETED
        assert world.provider.done == [("post", "hello")]

    @pytest.mark.parametrize("happens", [True, False], ids=["it happened", "it did not happen"])
    @pytest.mark.parametrize("kind", [pay, book], ids=["keyed", "verifiable"])
    async def test_that_cannot_say_is_tried_again_without_a_second_effect(
        self, world: World, kind: Any, happens: bool
    ) -> None:
        world.provider.troubles = [Trouble(OSError("connection lost"), happens=happens)]
        run = await world.start(calling(kind, "5", retries=1))
        assert ended(await run.run()) == (RunState.COMPLETED, Outcome.AUTO)
        assert len(world.provider.done) == 1

    async def test_that_could_not_say_is_not_called_undone_because_its_repeat_was_not_done(self, world: World) -> None:
        async def node(state: Any) -> dict[str, Any]:
            return {"log": [await pay(Decimal(1))]}

        world.provider.troubles = [Trouble(OSError("connection lost"), happens=True), Trouble(NotDone("busy"))]
        run = await world.start(job(chain(node=node), {"node": Policy(tools=[pay], retries=1)}))
        assert (await run.run()).state is RunState.FAILED
        [effect] = await run.effects()
        assert effect.state is EffectState.INTENDED, "it was paid, and nobody can say that it was not"

    async def test_that_cannot_say_is_not_tried_again_with_other_arguments(self, world: World) -> None:
        amounts = iter(["5", "6"])

        async def node(state: Any) -> dict[str, Any]:
            return {"log": [await pay(next(amounts))]}

        world.provider.troubles = [Trouble(OSError("connection lost"), happens=True)]
        run = await world.start(job(chain(node=node), {"node": Policy(tools=[pay], retries=3)}))
        assert ended(await run.run()) == (RunState.FAILED, Reason.NONDETERMINISTIC)
        assert world.provider.done == [("pay", "5 ann")]

    async def test_that_wrote_and_answers_nonsense_has_been_called_and_is_never_called_again(
        self, world: World
    ) -> None:
        done = []

        @tool(writes="plain", name="outside.nonsense")
        async def nonsense() -> int:
            """Write, and answer something else than an integer."""
            done.append(1)
            return "many"  # type: ignore[return-value]

        run = await world.start(calling(nonsense, retries=3))
        assert ended(await run.run()) == (RunState.FAILED, Reason.NOT_RETRYABLE)
        assert the_effect(await run.effects(), "outside.nonsense").state is EffectState.DONE
        await world.engine.replay(run.run_id, by="olga")
        assert (await run.go_on()).state is RunState.COMPLETED
        assert done == [1]

    async def test_that_reads_and_answers_nonsense_is_asked_again_by_a_replay(self, world: World) -> None:
        answers = iter(["many", 3])

        @tool(name="outside.count")
        async def count() -> int:
            """Count."""
            return next(answers)  # type: ignore[return-value]

        run = await world.start(calling(count))
        assert ended(await run.run()) == (RunState.FAILED, Reason.NOT_RETRYABLE)
        await world.engine.replay(run.run_id, by="olga")
        assert (await run.go_on()).state is RunState.COMPLETED
        assert (await run.values())["log"] == [3]

    async def test_a_write_that_was_given_up_makes_the_run_partial(self, world: World) -> None:
        async def node(state: Any) -> dict[str, Any]:
            try:
                await pay(Decimal(5))
            except NotDone:
                return {"log": ["without"]}
            raise AssertionError

        world.provider.troubles = [Trouble(NotDone("closed"))]
        run = await world.start(job(chain(node=node), {"node": Policy(tools=[pay])}))
        assert ended(await run.run()) == (RunState.COMPLETED, Outcome.PARTIAL)


@pytest.fixture
async def model_world(sqlite_url: str) -> AsyncIterator[tuple[World, ModelServer]]:
    server = ModelServer()
    async with a_model(server) as model, a_world(sqlite_url, model) as world:
        yield world, server


Judged = tuple[World, ModelServer]


async def chooses(state: Any) -> dict[str, Any]:
    judged = await choose("which?", ["red", "blue"])
    return {"log": [judged.value, judged.model]}


class TestAModel:
    async def test_whose_draft_was_approved_is_not_asked_again_what_was_shown_is_what_is_sent(
        self, model_world: Judged
    ) -> None:
        world, server = model_world
        server.script = [answer("Dear Ann"), answer("Dear Bob")]

        async def node(state: Any) -> dict[str, Any]:
            return {"log": [await post((await draft("a letter")).value)]}

        run = await world.start(job(chain(node=node), {"node": Policy(tools=[post], approve_when=always)}))
        assert (await the_review(run)).arguments == {"text": "Dear Ann"}
        world.deploy(*world.engine.workflows)
        assert (await world.take(run.run_id).approve()).state is RunState.COMPLETED
        assert world.provider.done == [("post", "Dear Ann")]
        assert server.asked == 1

    async def test_that_answers_outside_of_the_form_is_asked_again_by_the_next_attempt(
        self, model_world: Judged
    ) -> None:
        world, server = model_world
        server.script = [answer("green"), answer("red")]
        run = await world.start(job(chain(node=chooses), {"node": Policy(retries=1)}))
        assert (await run.values())["log"] == ["red", "scripted"]
        assert server.asked == 2
        assert JournalKind.EFFECT_FAILED in kinds(await run.journal())

    async def test_that_stays_away_is_replaced_by_the_fallback_and_that_stays_the_answer(
        self, model_world: Judged
    ) -> None:
        world, server = model_world
        server.script = [503, 503, answer("red")]

        async def node(state: Any) -> dict[str, Any]:
            judged = await choose("which?", ["red", "blue"])
            return {"log": [judged.value, judged.model, await post("decided")]}

        policy = Policy(tools=[post], retries=1, fallback="blue", approve_when=always)
        run = await world.start(job(chain(node=node), {"node": policy}))
        assert (await run.run()).attempts == 2
        assert ended(await run.approve()) == (RunState.COMPLETED, Outcome.FALLBACK)
        assert (await run.values())["log"][:2] == ["blue", "fallback"]
        assert server.asked == 2

    async def test_that_stays_away_without_a_fallback_makes_a_dead_letter(self, model_world: Judged) -> None:
        world, server = model_world
        server.script = [503, 503]
        run = await world.start(job(chain(node=chooses), {"node": Policy(retries=1)}))
        assert ended(await run.run()) == (RunState.FAILED, Reason.ATTEMPTS)

    @pytest.mark.parametrize(
        ("decision", "value", "outcome"),
        [
            (says("approve"), "red", Outcome.APPROVED),
            (says("respond", response="blue"), "blue", Outcome.EDITED),
            (says("reject"), None, Outcome.REJECTED),
        ],
        ids=["yes", "another", "no"],
    )
    async def test_that_is_unsure_is_answered_for_by_a_person(
        self, model_world: Judged, decision: Any, value: str | None, outcome: Outcome
    ) -> None:
        world, server = model_world
        server.script = [answer("red", 0.3)]
        run = await world.start(job(chain(node=chooses), {"node": Policy(min_confidence=0.8)}))
        asked = await the_review(run)
        assert (asked.kind, asked.arguments) == (ReviewKind.LOW_CONFIDENCE, {"value": "red"})
        with pytest.raises(UnfitDecision):
            await run.respond("green")
        assert ended(await run.answer(decision)) == (RunState.COMPLETED, outcome)
        if value is not None:
            assert (await run.values())["log"] == [value, "person"]
        assert server.asked == 1

    async def test_that_is_unsure_twice_in_a_loop_is_asked_about_twice(self, model_world: Judged) -> None:
        world, server = model_world
        server.script = [answer("red", 0.3), answer("red", 0.3)]
        graph = chain(node=chooses)
        graph.add_conditional_edges("node", lambda state: "node" if len(state["log"]) < 4 else "__end__")
        run = await world.start(job(graph, {"node": Policy(min_confidence=0.8)}))
        await run.respond("blue")
        assert (await run.run()).state is RunState.PENDING_APPROVAL
        await run.approve()
        assert (await run.values())["log"] == ["blue", "person", "red", "person"]
        assert await world.store.reviews(run_ids=[run.run_id], state=ReviewState.OPEN) == []
