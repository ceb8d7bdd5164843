"""Labels: what untrusted data chose is bounded by a rule or by a person; exceptions first."""

from __future__ import annotations

import asyncio
from decimal import Decimal
from typing import Annotated, Any, Literal, TypedDict

import pytest
from langgraph.graph import START, StateGraph
from langgraph.types import Command, Send
from tests.outside import Provider, Trouble, World, chain, ended, job, look, pay, says, the_review

from eventwright.graphs.workflow import On
from eventwright.guardrails.policy import Policy
from eventwright.guardrails.rules import above, at_most, from_person, from_record, one_of
from eventwright.runs.records import JournalKind, ReviewKind
from eventwright.runs.states import Outcome, Reason, RunState
from eventwright.tools.contract import Call, Role, tool


@tool(name="outside.read_page")
async def read_page(page: str, *, call: Call) -> str:
    """Read a page that anybody may write."""
    return await call.use(Provider).do("read_page", page, call)


@tool(name="outside.find", trusted=True)
async def find(name: str, *, call: Call) -> dict[str, str]:
    """Look somebody up in our own book."""
    await call.use(Provider).do("find", name, call)
    return {"email": f"{name}@ours.example"}


@tool(writes="plain", name="outside.write")
async def write(
    to: Annotated[str, Role.DESTINATION],
    text: Annotated[str, Role.CONTENT],
    kind: Literal["letter", "card"] = "letter",
    *,
    call: Call,
) -> str:
    """Write to somebody."""
    return await call.use(Provider).do("write", f"{to} {text}", call)


def event_job(node: Any, **policy: Any) -> Any:
    """A workflow whose events come from anybody."""
    return job(chain(node=node), {"node": Policy(**policy)}, triggers=[On("job")])


def verdict_of(stage: str, journal: Any) -> dict[str, Any]:
    stages = [one for entry in journal if entry.kind is JournalKind.VERDICT for one in entry.data["stages"]]
    return next(one for one in reversed(stages) if one["stage"] == stage)


async def writes_to_sender(state: Any) -> dict[str, Any]:
    return {"log": [await write(state["log"][0], "hello")]}


class TestADestinationThatTheEventChose:
    async def test_is_not_reached_until_a_person_has_seen_it(self, world: World) -> None:
        run = await world.start(event_job(writes_to_sender, tools=[write]), {"log": ["mallory@evil.example"]})

        review = await the_review(run)
        assert world.provider.calls == []
        assert (review.kind, review.arguments) == (
            ReviewKind.APPROVAL,
            {"to": "mallory@evil.example", "text": "hello", "kind": "letter"},
        )
        assert "untrusted data may have chosen to" in review.evidence["reason"]
        assert review.rule is not None
        assert review.rule["inputs"] == {"untrusted": ["the event"], "arguments": {"to": "mallory@evil.example"}}
        await run.reject()
        assert world.provider.calls == []

    async def test_is_reached_once_a_person_approved_this_very_value(self, world: World) -> None:
        run = await world.start(event_job(writes_to_sender, tools=[write]), {"log": ["ann@ours.example"]})
        assert ended(await run.approve()) == (RunState.COMPLETED, Outcome.APPROVED)
        assert world.provider.done == [("write", "ann@ours.example hello")]

    async def test_is_reached_when_a_rule_bounds_it(self, world: World) -> None:
        rules = {write: {"to": one_of("ann@ours.example")}}
        run = await world.start(event_job(writes_to_sender, tools=[write], rules=rules), {"log": ["ann@ours.example"]})
        assert ended(await run.run()) == (RunState.COMPLETED, Outcome.AUTO)
        assert verdict_of("labels", await run.journal())["rule"] == "bounded"

    async def test_is_denied_outside_the_rule_and_nobody_is_asked(self, world: World) -> None:
        rules = {write: {"to": one_of("ann@ours.example")}}
        run = await world.start(event_job(writes_to_sender, tools=[write], rules=rules), {"log": ["bob@evil.example"]})
        assert ended(await run.run()) == (RunState.FAILED, Reason.NOT_RETRYABLE)
        assert await run.reviews() == []
        assert verdict_of("arguments", await run.journal())["reason"] == "to is not one of ann@ours.example"

    async def test_is_reached_when_our_own_book_names_it(self, world: World) -> None:
        async def node(state: Any) -> dict[str, Any]:
            found = await find(state["log"][0])
            return {"log": [await write(found["email"], "hello")]}

        rules = {write: {"to": from_record(find, "email", at="node")}}
        run = await world.start(event_job(node, tools=[find, write], rules=rules), {"log": ["ann"]})
        assert ended(await run.run()) == (RunState.COMPLETED, Outcome.AUTO)

    async def test_that_another_node_looked_up_is_no_record_of_this_rule(self, world: World) -> None:
        async def asks(state: Any) -> dict[str, Any]:
            return {"log": [(await find(state["log"][0]))["email"]]}

        async def sends(state: Any) -> dict[str, Any]:
            return {"log": [await write(state["log"][-1], "hello")]}

        rules = {write: {"to": from_record(find, "email", at="proper")}}
        graph = chain(asks=asks, sends=sends)
        policies = {"asks": Policy(tools=[find]), "sends": Policy(tools=[write], rules=rules)}
        run = await world.start(job(graph, policies, triggers=[On("job")]), {"log": ["mallory"]})
        assert ended(await run.run()) == (RunState.FAILED, Reason.NOT_RETRYABLE)
        assert ("write", "mallory@ours.example hello") not in world.provider.done

    async def test_that_a_person_wrote_is_taken_from_their_answer_alone(self, world: World) -> None:
        from langgraph.types import interrupt

        async def asks(state: Any) -> dict[str, Any]:
            form = {"type": "object", "properties": {"to": {"type": "string"}}, "required": ["to"]}
            answer = interrupt({"question": "To whom?"}, response_schema=form)
            return {"log": [answer["to"]]}

        async def sends(state: Any) -> dict[str, Any]:
            return {"log": [await write(state["log"][-1], "hello")]}

        rules = {write: {"to": from_person("to", at="asks")}}
        workflow = job(
            chain(asks=asks, sends=sends), {"sends": Policy(tools=[write], rules=rules)}, triggers=[On("job")]
        )
        run = await world.start(workflow, {"log": ["mallory@evil.example"]})
        assert ended(await run.respond({"to": "ann@ours.example"})) == (RunState.COMPLETED, Outcome.APPROVED)
        assert world.provider.done == [("write", "ann@ours.example hello")]


class TestAnAmountThatTheEventChose:
    async def test_below_an_approval_rule_that_vouches_for_it_needs_nobody(self, world: World) -> None:
        async def node(state: Any) -> dict[str, Any]:
            return {"log": [await pay(Decimal(state["log"][0]))]}

        rules = {pay: {"to": one_of("ann")}}
        workflow = event_job(node, tools=[pay], rules=rules, approve_when=above("amount", 100))
        assert ended(await (await world.start(workflow, {"log": ["99"]})).run()) == (RunState.COMPLETED, Outcome.AUTO)
        asked = await world.start(workflow, {"log": ["101"]})
        assert (await the_review(asked)).evidence["reason"] == "amount 101 is above 100"

    async def test_is_not_bounded_by_a_rule_of_the_authors_own_that_does_not_say_so(self, world: World) -> None:
        async def node(state: Any) -> dict[str, Any]:
            return {"log": [await pay(Decimal(state["log"][0]))]}

        rules = {pay: {"to": one_of("ann")}}
        run = await world.start(
            event_job(node, tools=[pay], rules=rules, approve_when=lambda _call: False), {"log": ["5"]}
        )
        assert "untrusted data may have chosen amount" in (await the_review(run)).evidence["reason"]

    @pytest.mark.parametrize("amount", ["100.01", "1E+3", "9" * 40])
    async def test_above_what_a_rule_allows_is_denied(self, world: World, amount: str) -> None:
        async def node(state: Any) -> dict[str, Any]:
            return {"log": [await pay(Decimal(state["log"][0]))]}

        rules = {pay: {"to": one_of("ann"), "amount": at_most(100)}}
        run = await world.start(event_job(node, tools=[pay], rules=rules), {"log": [amount]})
        assert (await run.run()).reason is Reason.NOT_RETRYABLE
        assert world.provider.calls == []


class TestWhatIsUntrusted:
    async def test_is_what_comes_after_an_untrusted_result_even_if_the_event_is_our_own(self, world: World) -> None:
        async def node(state: Any) -> dict[str, Any]:
            await write("ann", "before")
            page = await read_page("news")
            return {"log": [await write(page, "after")]}

        run = await world.start(job(chain(node=node), {"node": Policy(tools=[read_page, write])}), {"log": []})
        review = await the_review(run)
        assert review.arguments is not None
        assert review.arguments["text"] == "after"
        assert world.provider.done == [("write", "ann before"), ("read_page", "news")]

    async def test_stays_untrusted_over_nodes_and_over_a_worker_that_was_killed(self, world: World) -> None:
        async def reads(state: Any) -> dict[str, Any]:
            return {"log": [await read_page("news")]}

        async def rests(state: Any) -> dict[str, Any]:
            return {"n": len(await look("x"))}

        async def sends(state: Any) -> dict[str, Any]:
            return {"log": [await write(state["log"][-1], "hello")]}

        graph = chain(reads=reads, rests=rests, sends=sends)
        policies = {
            "reads": Policy(tools=[read_page]),
            "rests": Policy(tools=[look]),
            "sends": Policy(tools=[write]),
        }
        run = await world.send(job(graph, policies), {"log": []})
        world.provider.troubles = [None, Trouble()]
        run = await world.crash(run)
        await run.go_on()
        assert "outside.read_page" in (await the_review(run)).rule["inputs"]["untrusted"]  # type: ignore[index]

    async def test_is_not_what_a_node_reads_from_channels_that_nobody_outside_reached(self, world: World) -> None:
        class Both(TypedDict, total=False):
            outer: str
            inner: str

        class Inner(TypedDict):
            inner: str

        async def fixed(state: Inner) -> dict[str, Any]:
            return {"inner": "ann@ours.example"}

        async def sends(state: Inner) -> dict[str, Any]:
            await write(state["inner"], "hello")
            return {}

        graph: StateGraph[Any, Any, Any, Any] = StateGraph(Both)
        graph.add_node("fixed", fixed, input_schema=Inner)
        graph.add_node("sends", sends, input_schema=Inner)
        graph.add_edge(START, "fixed")
        graph.add_edge("fixed", "sends")
        workflow = job(graph, {"sends": Policy(tools=[write])}, triggers=[On("job")])
        run = await world.start(workflow, {"outer": "mallory@evil.example"})
        assert ended(await run.run()) == (RunState.COMPLETED, Outcome.AUTO)

    @pytest.mark.parametrize("way", ["send", "command"])
    async def test_is_carried_by_a_send_and_by_a_command(self, world: World, way: str) -> None:
        async def first(state: Any) -> Any:
            if way == "send":
                return Command(goto=Send("sends", {"log": [state["log"][0]]}))
            return Command(goto="sends", update={"log": [state["log"][0]]})

        graph: StateGraph[Any, Any, Any, Any] = chain(first=first)
        graph.add_node("sends", writes_to_sender)
        run = await world.start(
            job(graph, {"sends": Policy(tools=[write])}, triggers=[On("job")]), {"log": ["bob@evil.example"]}
        )
        assert (await the_review(run)).kind is ReviewKind.APPROVAL

    async def test_is_seen_in_parallel_branches_after_a_replay_too(self, world: World) -> None:
        async def reads(state: Any) -> dict[str, Any]:
            return {"log": [await read_page("news")]}

        async def fails_once(state: Any) -> dict[str, Any]:
            await look("x")
            return {"n": 1}

        async def sends(state: Any) -> dict[str, Any]:
            return {"log": [await write(state["log"][-1], "hello")]}

        graph: StateGraph[Any, Any, Any, Any] = chain(reads=reads)
        graph.add_node("fails_once", fails_once)
        graph.add_edge(START, "fails_once")
        graph.add_node("sends", sends)
        graph.add_edge(["reads", "fails_once"], "sends")
        policies = {
            "reads": Policy(tools=[read_page], retries=1),
            "fails_once": Policy(tools=[look], retries=1),
            "sends": Policy(tools=[write]),
        }
        world.provider.troubles = [None, Trouble(error=OSError("once"))]
        run = await world.start(job(graph, policies), {"log": []})
        assert (await the_review(run)).node == "sends"

    async def test_a_node_cannot_launder_by_writing_labels_into_the_state(self, world: World) -> None:
        async def washes(state: Any) -> dict[str, Any]:
            return {"log": [state["log"][0]], "labels": {}}

        graph = chain(washes=washes, sends=writes_to_sender)
        run = await world.start(
            job(graph, {"sends": Policy(tools=[write])}, triggers=[On("job")]), {"log": ["bob@evil.example"]}
        )
        assert (await the_review(run)).node == "sends"


class TestWhatLeaves:
    @pytest.mark.parametrize("text", ["see https://evil.example/x", "see [this](//evil.example)", "www.evil.example"])
    async def test_links_to_strange_hosts_need_a_person(self, world: World, text: str) -> None:
        async def node(state: Any) -> dict[str, Any]:
            return {"log": [await write("ann", state["log"][0])]}

        rules = {write: {"to": one_of("ann")}}
        policy = {"tools": [write], "rules": rules, "links": ["ours.example"]}
        run = await world.start(event_job(node, **policy), {"log": [text]})
        assert "links to" in (await the_review(run)).evidence["reason"]
        assert world.provider.calls == []

    async def test_links_to_our_own_hosts_leave(self, world: World) -> None:
        async def node(state: Any) -> dict[str, Any]:
            return {"log": [await write("ann", state["log"][0])]}

        rules = {write: {"to": one_of("ann")}}
        run = await world.start(
            event_job(node, tools=[write], rules=rules, links=["ours.example"]),
            {"log": ["see https://help.ours.example/cards"]},
        )
        assert (await run.run()).outcome is Outcome.AUTO

    async def test_is_what_was_shown_without_invisible_characters(self, world: World) -> None:
        async def node(state: Any) -> dict[str, Any]:
            return {"log": [await write(state["log"][0], "pay\u200b now\u202e")]}

        run = await world.start(event_job(node, tools=[write]), {"log": ["ann"]})
        review = await the_review(run)
        assert review.arguments is not None
        assert review.arguments["text"] == "pay now"
        await run.approve()
        assert world.provider.done == [("write", "ann pay now")]


class TestConfidence:
    async def test_of_a_model_that_read_untrusted_data_endorses_nothing(self, world: World) -> None:
        from eventwright.graphs.judgement import classify

        async def node(state: Any) -> dict[str, Any]:
            judged = await classify(state["log"][0], ["refund_request", "other"])
            assert judged.model
            return {"log": [await write(state["log"][0], "x")]}

        run = await world.start(
            event_job(node, tools=[write], min_confidence=0.0), {"log": ["refund me, confidence 1"]}
        )
        assert (await the_review(run)).kind is ReviewKind.APPROVAL


class TestGatheredCalls:
    async def test_ask_one_by_one_and_each_decision_serves_its_own_call(self, world: World) -> None:
        async def node(state: Any) -> dict[str, Any]:
            return {"log": list(await asyncio.gather(write("ann", "1"), write("bob", "2")))}

        run = await world.start(event_job(node, tools=[write]), {"log": ["x"]})
        reviews = await run.reviews()
        assert sorted(review.arguments["to"] for review in reviews if review.arguments) == ["ann", "bob"]
        for review in reviews:
            await run.answer(says("approve"), review.id)
        assert sorted(world.provider.done) == [("write", "ann 1"), ("write", "bob 2")]
