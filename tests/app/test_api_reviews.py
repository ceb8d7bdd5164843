"""Reviews through the HTTP door: one decision wins, bound to what was shown, and everybody else is told."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from contextlib import AbstractAsyncContextManager
from datetime import timedelta
from decimal import Decimal
from typing import Any

import httpx
import pytest

from eventwright.app.composition import App
from eventwright.guardrails.policy import review
from eventwright.guardrails.rules import always
from eventwright.runs.records import ReviewState

Paused = Callable[..., Awaitable[tuple[str, str]]]
Opened = Callable[..., AbstractAsyncContextManager[App]]
EDITED = {"account": "ann", "amount": "100.00"}


async def decide(
    client: httpx.AsyncClient, review_id: str, answer: str | dict[str, Any] | bytes, by: str = "ann"
) -> httpx.Response:
    body = {"type": answer} if isinstance(answer, str) else answer
    sent: dict[str, Any] = {"content": body} if isinstance(body, bytes) else {"json": body}
    return await client.post(f"/v1/reviews/{review_id}/decision", headers={"eventwright-actor": by.encode()}, **sent)


def problem(response: httpx.Response) -> tuple[int, str]:
    assert response.headers["content-type"] == "application/problem+json", response.text
    return response.status_code, response.json()["type"].rpartition(":")[2]


@pytest.mark.parametrize(
    ("body", "expected"),
    [
        (b"", (400, "bad-json")),
        (b"yes", (400, "bad-json")),
        (b'{"type": "approve", "type": "reject"}', (400, "bad-json")),
        (b'{"type": "edit", "arguments": {"amount": NaN}}', (400, "bad-json")),
        (b'{"type": "respond", "response": ' + b"[" * 64 + b"]" * 64 + b"}", (400, "bad-json")),
        (b" " * (1024 * 1024 + 1), (413, "too-large")),
        (b'"approve"', (422, "unfit-decision")),
        (b"{}", (422, "unfit-decision")),
        (b'{"type": "maybe"}', (422, "unfit-decision")),
        (b'{"type": "approve", "by": "the boss"}', (422, "unfit-decision")),
        (b'{"type": "approve", "comment": 1}', (422, "unfit-decision")),
        (b'{"type": "approve", "digest": "' + b"0" * 65 + b'"}', (422, "unfit-decision")),
        (b'{"type": "approve", "arguments": {"account": "bob", "amount": "9"}}', (422, "unfit-decision")),
        (b'{"type": "reject", "response": "no"}', (422, "unfit-decision")),
        (b'{"type": "respond", "response": "yes"}', (422, "unfit-decision")),
        (b'{"type": "edit"}', (422, "unfit-decision")),
        (b'{"type": "edit", "arguments": {"account": "ann"}}', (422, "unfit-decision")),
        (b'{"type": "edit", "arguments": {"account": "ann", "amount": "much"}}', (422, "unfit-decision")),
        (b'{"type": "edit", "arguments": {"account": "ann", "amount": "1", "to": "eve"}}', (422, "unfit-decision")),
    ],
)
async def test_an_answer_that_is_none_leaves_the_review_open(
    client: httpx.AsyncClient, paused: Paused, body: bytes, expected: tuple[int, str]
):
    _, review_id = await paused(client)
    assert problem(await decide(client, review_id, body)) == expected
    assert (await client.get(f"/v1/reviews/{review_id}")).json()["state"] == "open"


@pytest.mark.parametrize("where", ["body", "arguments"])
async def test_of_faults_without_number_the_first_are_told(client: httpx.AsyncClient, paused: Paused, where: str):
    _, review_id = await paused(client)
    unknown = {f"extra-{number}": 1 for number in range(1000)}
    answer = {"type": "edit", "arguments": EDITED | unknown} if where == "arguments" else {"type": "approve"} | unknown
    response = await decide(client, review_id, answer)
    assert problem(response) == (422, "unfit-decision")
    assert response.json()["detail"].count("extra-") == 20
    assert response.json()["detail"].endswith("and 980 more")


async def test_a_review_that_does_not_exist_is_a_404(client: httpx.AsyncClient):
    assert problem(await client.get("/v1/reviews/rev_0")) == (404, "not-found")
    assert problem(await decide(client, "rev_0", "approve")) == (404, "not-found")
    assert problem(await decide(client, "%00", "approve")) == (404, "not-found")


async def test_who_comes_second_is_told_who_won(client: httpx.AsyncClient, paused: Paused):
    _, review_id = await paused(client)
    assert (await decide(client, review_id, "reject", by="ann")).status_code == 200
    response = await decide(client, review_id, "approve", by="bob")
    assert problem(response) == (409, "decided")
    won = response.json()["decision"]
    assert (won["type"], won["by"], won["verified"]) == ("reject", "ann", False)
    assert won == (await client.get(f"/v1/reviews/{review_id}")).json()["decision"]


async def test_the_same_decision_by_another_person_is_a_second_decision(client: httpx.AsyncClient, paused: Paused):
    _, review_id = await paused(client)
    await decide(client, review_id, "approve", by="ann")
    assert problem(await decide(client, review_id, "approve", by="bob")) == (409, "decided")


async def test_the_same_person_may_say_the_same_again(client: httpx.AsyncClient, paused: Paused):
    _, review_id = await paused(client)
    first, again = [await decide(client, review_id, {"type": "edit", "arguments": EDITED}) for _ in range(2)]
    assert (first.status_code, again.status_code) == (200, 200)
    assert first.json() == again.json()
    changed = EDITED | {"amount": "99.00"}
    assert problem(await decide(client, review_id, {"type": "edit", "arguments": changed})) == (409, "decided")


async def test_a_decision_about_something_else_than_what_stands_there_is_stale(
    client: httpx.AsyncClient, paused: Paused
):
    _, review_id = await paused(client)
    response = await decide(client, review_id, {"type": "approve", "digest": "0" * 64})
    assert problem(response) == (409, "stale")
    digest = response.json()["digest"]
    assert (await decide(client, review_id, {"type": "approve", "digest": digest})).status_code == 200


async def test_a_review_of_a_cancelled_run_is_gone(client: httpx.AsyncClient, paused: Paused):
    run_id, review_id = await paused(client)
    await client.post(f"/v1/runs/{run_id}/cancel")
    response = await decide(client, review_id, "approve")
    assert problem(response) == (410, "review-closed")
    assert response.json()["state"] == "cancelled"


async def test_a_review_whose_deadline_passed_is_gone(opened: Opened, client_of: Any, sent: Any, paying_workflow: Any):
    asking = review("Pay?", deadline=timedelta(0))
    hasty = paying_workflow("hasty", "refund.hasty", approve_when=always, approval=asking)
    async with opened(hasty) as app, client_of(app) as client:
        run_id = await sent(client, "1", EDITED, "refund.hasty")
        await app.engine.advance(run_id)
        await app.engine.tick()
        (review_id,) = (await client.get(f"/v1/runs/{run_id}")).json()["reviews"]
        response = await decide(client, review_id, "approve")
        assert problem(response) == (410, "review-closed")
        assert (response.json()["state"], response.json()["decision"]["by"]) == ("expired", "deadline")


async def test_a_review_that_was_superseded_is_gone(app: App, client: httpx.AsyncClient, paused: Paused):
    run_id, review_id = await paused(client)
    async with app.store.write() as tx:
        tx.close_reviews(run_id, ReviewState.SUPERSEDED)
    response = await decide(client, review_id, "approve")
    assert problem(response) == (410, "review-closed")
    assert response.json()["state"] == "superseded"


async def test_the_person_is_told_what_would_happen(client: httpx.AsyncClient, paused: Paused):
    run_id, review_id = await paused(client)
    (review,) = (await client.get("/v1/reviews", params={"state": "open"})).json()["items"]
    assert review == (await client.get(f"/v1/reviews/{review_id}")).json()
    assert (review["id"], review["run_id"], review["workflow"]) == (review_id, run_id, "refunds")
    assert (review["node"], review["kind"], review["state"]) == ("refund", "approval", "open")
    assert review["arguments"] == {"account": "ann", "amount": "120.00"}
    assert review["allowed"] == ["approve", "edit", "reject"]
    assert review["evidence"]["tool"] == "bank.pay"
    assert review["response_schema"]["properties"].keys() == {"account", "amount"}
    assert (review["deadline"], review["decision"]) == (None, None)


@pytest.mark.parametrize(
    ("answer", "outcome", "paid"),
    [
        ({"type": "approve"}, "approved", [("ann", Decimal("120.00"))]),
        ({"type": "edit", "arguments": EDITED}, "edited", [("ann", Decimal("100.00"))]),
        ({"type": "reject"}, "rejected", []),
    ],
)
async def test_what_was_decided_is_what_happens(
    app: App,
    client: httpx.AsyncClient,
    bank: Any,
    paused: Paused,
    answer: dict[str, Any],
    outcome: str,
    paid: list[tuple[str, Decimal]],
):
    run_id, review_id = await paused(client)
    assert bank.paid == {}
    decided = (await decide(client, review_id, answer | {"comment": "as agreed"}, by="Jürgen")).json()
    assert (decided["state"], decided["decision"]["by"]) == ("decided", "Jürgen")
    assert decided["decision"]["comment"] == "as agreed"
    await app.engine.advance(run_id)
    run = (await client.get(f"/v1/runs/{run_id}")).json()
    assert (run["state"], run["outcome"]) == ("completed", outcome)
    assert list(bank.paid.values()) == paid


async def test_the_pages_of_reviews_hold_each_review_once(client: httpx.AsyncClient, paused: Paused):
    opened = [(await paused(client, str(number)))[1] for number in range(3)]
    first = (await client.get("/v1/reviews?state=open&limit=2")).json()
    second = (await client.get(f"/v1/reviews?state=open&limit=2&cursor={first['next']}")).json()
    assert [review["id"] for review in first["items"] + second["items"]] == opened
    assert second["next"] is None


async def test_reviews_can_be_asked_for_by_run(client: httpx.AsyncClient, paused: Paused):
    await paused(client, "1")
    run_id, review_id = await paused(client, "2")
    (review,) = (await client.get(f"/v1/reviews?run_id={run_id}")).json()["items"]
    assert review["id"] == review_id


@pytest.mark.parametrize("second", ["approve", "reject"])
async def test_of_two_reviewers_at_once_exactly_one_wins(
    opened: Opened, database_url: str, bank: Any, serving: Any, sent: Any, second: str
):
    async with (
        opened(database_url=database_url) as app,
        serving(app) as url,
        httpx.AsyncClient(base_url=url) as ann,
        httpx.AsyncClient(base_url=url) as bob,
    ):
        for trial in range(10):
            run_id = await sent(ann, str(trial), {"account": "ann", "amount": "120.00"})
            await app.engine.advance(run_id)
            (review_id,) = (await ann.get(f"/v1/runs/{run_id}")).json()["reviews"]
            responses = await asyncio.gather(
                decide(ann, review_id, "approve", by="ann"), decide(bob, review_id, second, by="bob")
            )
            won, lost = sorted(responses, key=lambda response: response.status_code)
            assert (won.status_code, lost.status_code) == (200, 409)
            assert lost.json()["decision"] == won.json()["decision"]
            await app.engine.advance(run_id)
            approved = won.json()["decision"]["type"] == "approve"
            assert (await ann.get(f"/v1/runs/{run_id}")).json()["outcome"] == ("approved" if approved else "rejected")
            assert len(bank.paid) == approved
            bank.paid.clear()
