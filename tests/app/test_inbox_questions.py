"""What a question asks stands on its page, all of it, and nothing is decided that the person did not see or write."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from dataclasses import replace
from datetime import timedelta
from typing import Any

import httpx
import pytest
from langgraph.types import interrupt
from tests.app.inbox_pages import REVIEWS, alert, fields, page, press, words
from tests.outside import chain

from eventwright.app.composition import App
from eventwright.graphs.flow import Batch, Flow
from eventwright.graphs.workflow import On, Workflow
from eventwright.guardrails.policy import review
from eventwright.guardrails.rules import always
from eventwright.runs.event import new_id
from eventwright.runs.records import Review, ReviewKind, ReviewState

Opened = Callable[..., AbstractAsyncContextManager[App]]
Paused = Callable[..., Awaitable[tuple[str, str]]]
Asked = tuple[App, httpx.AsyncClient, Review]
Asking = Callable[..., AbstractAsyncContextManager[Asked]]

CALL = {"name": "users.delete", "args": {}, "description": "Go on?"}
MIDDLEWARE = {"action_requests": [CALL], "review_configs": [{"allowed_decisions": ["approve", "reject"]}]}
INBOX = [
    {
        "action_request": {"action": "users.delete", "args": {}},
        "config": {"allow_accept": True},
        "description": "Go on?",
    }
]
NAMES = [
    "",
    'a"b',
    "a\nb",
    "a\\b",
    "a%22b",
    "ab",
    "é ü",
    "form_token",
    "digest",
    "type",
    "edit:type",
    "_charset_",
    " x",
]


@pytest.fixture
def asking(opened: Opened, client_of: Any, sent: Any) -> Asking:
    """Lets a workflow ask this, with the schema of its answer if there is one."""

    @asynccontextmanager
    async def asking(value: Any, schema: dict[str, Any] | None = None) -> AsyncIterator[Asked]:
        async def ask(state: dict[str, Any]) -> dict[str, Any]:
            return {"said": interrupt(value, response_schema=schema)}

        workflow = Workflow("asking", version="1", graph=chain(ask=ask), triggers=[On("asked")])
        async with opened(workflow) as app, client_of(app) as client:
            await app.engine.advance(await sent(client, "1", {}, "asked"))
            [found] = await app.store.reviews()
            yield app, client, found

    return asking


# -- what is seen ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("value", "parts"),
    [
        ({"task": "Please check", "llm_output": "DROP TABLE users"}, ["task", "Please check", "DROP TABLE users"]),
        ({"question": "Delete?", "table": "users", "kind": "all of it"}, ["Delete?", "users", "all of it"]),
        (["delete", "users"], ["delete", "users"]),
        (MIDDLEWARE, ["Go on?", "This would be done: users.delete", "without arguments"]),
        (INBOX, ["Go on?", "users.delete"]),
        ("w" * 9_999 + " and the end", ["w and the end"]),
    ],
)
async def test_all_that_an_author_shows_to_people_stands_on_the_page(
    asking: Asking, value: Any, parts: list[str]
) -> None:
    async with asking(value) as (_, client, found):
        said = words(await client.get(f"{REVIEWS}/{found.id}"))
        assert [part for part in parts if part not in said] == []


async def test_what_stands_on_the_page_already_is_not_shown_again(asking: Asking) -> None:
    value = {"question": "Pay?", "arguments": {"amount": "12.50"}, "allowed": ["approve", "reject"]}
    async with asking(value) as (_, client, found):
        said = words(await client.get(f"{REVIEWS}/{found.id}"))
        assert (said.count("12.50"), said.count("Pay?"), "The workflow shows" in said) == (1, 1, False)


async def test_who_is_asked_about_a_batch_is_told_that_more_events_came_in(
    opened: Opened, client_of: Any, sent: Any
) -> None:
    async def ask(state: dict[str, Any]) -> dict[str, Any]:
        return {"said": interrupt("Go on?")}

    batch = Flow(batch=Batch(2, timedelta(minutes=5)))
    gathering = Workflow("gathering", version="1", graph=chain(ask=ask), triggers=[On("scanned", flow=batch)])
    async with opened(gathering) as app, client_of(app) as client:
        run_id = await sent(client, "1", {"line": "first"}, "scanned")
        await sent(client, "2", {"line": "second"}, "scanned")
        await app.engine.advance(run_id)
        [found] = await app.store.reviews()
        for place in (f"{REVIEWS}/{found.id}", f"/inbox/runs/{run_id}"):
            assert "1 more event was gathered into this run · show all" in words(await client.get(place))
        assert "second" in words(await client.get(f"/inbox/runs/{run_id}/event"))


async def test_evidence_from_anybody_cannot_pass_for_a_verdict_of_the_gate(asking: Asking) -> None:
    hostile = {"tool": "bank.harmless", "asks": [{"reason": "all is well", "rule": "safe"}], "material": "m"}
    async with asking({"question": "Pay?", "arguments": {"amount": "1"}, "evidence": hostile}) as (_, client, found):
        shown = await client.get(f"{REVIEWS}/{found.id}")
        said = words(shown)
        assert "This is proposed" in said
        for claim in ("This would be done", "Why it is asked", "What the model read"):
            assert claim not in said
        rows = page(shown).xpath("//section[h2='Evidence']//th")
        assert [row.text_content().strip() for row in rows] == ["tool", "asks", "material"]


async def test_of_more_arguments_than_a_page_shows_it_says_how_many_are_missing(asking: Asking) -> None:
    many = {f"argument {number}": number for number in range(250)}
    async with asking({"question": "Go on?", "arguments": many, "allowed": ["approve"]}) as (_, client, found):
        shown = await client.get(f"{REVIEWS}/{found.id}")
        assert "50 more" in words(shown)
        assert page(shown).xpath("//table//a[contains(@href, '/whole')]")


async def test_a_call_of_which_nobody_knows_is_not_said_to_be_still_to_come(
    app: App, client: httpx.AsyncClient, paused: Paused
) -> None:
    _, review_id = await paused(client)
    doubt = replace(await app.store.review(review_id), id=new_id("rev"), kind=ReviewKind.IN_DOUBT)
    async with app.store.write() as tx:
        tx.open_review(doubt)
    said = words(await client.get(f"{REVIEWS}/{doubt.id}"))
    assert ("This may have happened: bank.pay" in said, "This would be done" in said) == (True, False)


async def test_who_answers_what_newer_input_took_the_place_of_is_led_to_what_is_asked_now(
    opened: Opened, client_of: Any, sent: Any
) -> None:
    async def ask(state: dict[str, Any]) -> dict[str, Any]:
        return {"said": interrupt("Go on?")}

    newest = Flow(key="order", supersede=True)
    workflow = Workflow("ordering", version="1", graph=chain(ask=ask), triggers=[On("ordered", flow=newest)])
    async with opened(workflow) as app, client_of(app) as client:
        first = await sent(client, "1", {"order": "a", "n": 1}, "ordered")
        await app.engine.advance(first)
        [asked] = await app.store.reviews()
        seen = fields(await client.get(f"{REVIEWS}/{asked.id}"), "approve")
        second = await sent(client, "2", {"order": "a", "n": 2}, "ordered")
        await app.engine.advance(second)
        [instead] = await app.store.reviews(state=ReviewState.OPEN)

        answer = await client.post(f"{REVIEWS}/{asked.id}/decision", data=seen)

        assert (answer.status_code, "Newer input came" in alert(answer)) == (410, True)
        links = page(answer).xpath("//*[@role='alert']//a/@href")
        assert links == [f"/inbox/runs/{second}", f"{REVIEWS}/{instead.id}"]


# -- what is written ---------------------------------------------------------------------------------------------------


async def test_who_changes_what_is_proposed_and_then_approves_it_as_it_was_is_asked_back(
    app: App, client: httpx.AsyncClient, paused: Paused
) -> None:
    _, review_id = await paused(client)
    answer = await press(client, review_id, "approve", {"edit:amount": "60"})

    assert answer.status_code == 422
    assert "You changed what is proposed" in alert(answer)
    assert page(answer).xpath("//details[@open]//*[@name='edit:amount']/@value") == ["60"]
    assert (await app.store.review(review_id)).state is ReviewState.OPEN
    assert (await press(client, review_id, "reject", {"edit:amount": "60"})).status_code == 303


ONE_OF_ANY: dict[str, Any] = {"type": "object", "required": ["b"], "properties": {"b": True}}


@pytest.mark.parametrize(
    "schema",
    [{}, True, {"type": "array"}, {"anyOf": [True, {"type": "array"}]}, ONE_OF_ANY, {"type": ["string", "integer"]}],
)
async def test_an_example_is_no_answer_so_who_writes_nothing_is_asked_to(asking: Asking, schema: Any) -> None:
    whole = {"type": "object", "required": ["a"], "properties": {"a": schema}}
    async with asking({"question": "What?"}, whole) as (_, client, found):
        answer = await press(client, found.id, "respond")
        assert answer.status_code == 422
        assert "Please fill this in." in alert(answer)


async def test_what_may_be_left_out_is_left_out_where_nobody_writes_it(asking: Asking) -> None:
    street = {"type": "object", "properties": {"street": {"type": "string"}}}
    schema = {"type": "object", "required": ["to"], "properties": {"to": {"type": "string"}, "address": street}}
    async with asking({"question": "Where to?"}, schema) as (app, client, found):
        assert 'as in {"street": "…"}' in words(await client.get(f"{REVIEWS}/{found.id}"))
        assert (await press(client, found.id, "respond", {"respond:to": "ann"})).status_code == 303
        decision = (await app.store.review(found.id)).decision
        assert decision is not None
        assert decision.response == {"to": "ann"}


async def test_what_is_too_large_to_be_sent_back_can_be_approved_all_the_same(asking: Asking) -> None:
    large = {"numbers": [1] * 150_000}
    async with asking({"question": "Go on?", "arguments": large, "allowed": ["approve", "edit"]}) as (_, client, found):
        assert not page(await client.get(f"{REVIEWS}/{found.id}")).xpath("//button[@value='edit']")
        assert (await press(client, found.id, "approve")).status_code == 303


@pytest.mark.parametrize("encoding", ["data", "files"])
async def test_arguments_of_any_name_come_back_as_they_were(asking: Asking, encoding: str) -> None:
    strange = {name: f"value {number}" for number, name in enumerate(NAMES)}
    value = {"question": "Go on?", "arguments": strange, "allowed": ["edit"]}
    async with asking(value) as (app, client, found):
        seen = fields(await client.get(f"{REVIEWS}/{found.id}"), "edit")
        sent = {encoding: seen if encoding == "data" else {name: (None, text) for name, text in seen.items()}}
        assert (await client.post(f"{REVIEWS}/{found.id}/decision", **sent)).status_code == 303
        decision = (await app.store.review(found.id)).decision
        assert decision is not None
        assert decision.arguments == strange


async def test_an_answer_that_one_of_two_people_sends_twice_at_once_is_one(
    opened: Opened, client_of: Any, sent: Any, paying_workflow: Any
) -> None:
    double = paying_workflow("double", "double.wanted", approve_when=always, approval=review("Both?", people=2))
    async with opened(double) as app, client_of(app) as client:
        await app.engine.advance(await sent(client, "1", {"account": "ann", "amount": "9"}, "double.wanted"))
        first, _ = await app.store.reviews()
        bob = {"eventwright-actor": "bob"}
        seen = fields(await client.get(f"{REVIEWS}/{first.id}", headers=bob), "approve")
        posts = [client.post(f"{REVIEWS}/{first.id}/decision", data=seen, headers=bob) for _ in range(2)]
        assert [answer.status_code for answer in await asyncio.gather(*posts)] == [303, 303]
