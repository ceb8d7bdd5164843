"""Runs in the inbox: where each one is and why, and the two verbs for those that went wrong."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from dataclasses import replace
from typing import Any

import httpx
import pytest
from tests.app.inbox_pages import REVIEWS, RUNS, page, press, words

from eventwright.app.composition import App
from eventwright.app.web.access import local_user
from eventwright.runs.event import new_id
from eventwright.runs.records import ReviewState
from eventwright.runs.states import RunState

Paused = Callable[..., Awaitable[tuple[str, str]]]
WISH = {"account": "ann", "amount": "20"}


@pytest.fixture
async def dead(app: App, client: httpx.AsyncClient, sent: Any, bank: Any) -> str:
    """A dead letter; the bank is open again."""
    bank.closed = True
    run_id: str = await sent(client, "dead", WISH, "refund.urgent")
    await app.engine.advance(run_id)
    bank.closed = False
    return run_id


async def confirmed(client: httpx.AsyncClient, run_id: str, verb: str, **more: str) -> httpx.Response:
    """Go to the page that asks back, and press its button."""
    asked = page(await client.get(f"{RUNS}/{run_id}/{verb}"))
    form = next(form for form in asked.forms if form.action.endswith(verb))
    return await client.post(form.action, data={"form_token": form.fields["form_token"]} | more)


async def test_what_cannot_be_done_any_more_is_said_and_not_done(
    app: App, client: httpx.AsyncClient, paused: Paused, dead: str
) -> None:
    run_id, review_id = await paused(client)
    await press(client, review_id, "approve")
    await app.engine.advance(run_id)
    for verb in ("cancel", "replay"):
        answer = await confirmed(client, run_id, verb)
        assert answer.status_code == 409
        assert "Nothing was done" in words(answer)
    assert (await app.store.run(run_id)).state is RunState.COMPLETED


async def test_a_dead_letter_is_replayed_and_its_record_says_by_whom(
    app: App, client: httpx.AsyncClient, dead: str, bank: Any
) -> None:
    shown = await client.get(f"{RUNS}/{dead}")
    assert "the bank is closed" in words(shown)
    assert page(shown).xpath(f"//a[@href='{RUNS}/{dead}/replay']")

    answer = await confirmed(client, dead, "replay", from_start="true")

    assert (answer.status_code, answer.headers["location"]) == (303, f"{RUNS}/{dead}")
    await app.engine.advance(dead)
    assert len(bank.paid) == 1
    after = await client.get(f"{RUNS}/{dead}")
    assert f"{local_user()} replays it" in words(after)
    assert not page(after).xpath("//a[contains(@href, 'replay') or contains(@href, 'cancel')]")


async def test_a_run_is_cancelled_after_one_was_asked_back(app: App, client: httpx.AsyncClient, paused: Paused) -> None:
    run_id, review_id = await paused(client)
    asked = await client.get(f"{RUNS}/{run_id}/cancel")
    assert "Cancel this run?" in words(asked)
    assert (await app.store.run(run_id)).state is RunState.PENDING_APPROVAL

    assert (await confirmed(client, run_id, "cancel")).status_code == 303
    assert (await app.store.run(run_id)).state is RunState.CANCELLED
    assert "its run was ended by an operator" in words(await client.get(f"{REVIEWS}/{review_id}"))


async def test_runs_are_found_by_state_and_workflow_and_counted(
    client: httpx.AsyncClient, paused: Paused, dead: str
) -> None:
    run_id, _ = await paused(client)
    assert "pending approval 1" in words(await client.get(RUNS))
    for query, expected in (
        ("", [run_id, dead]),
        ("?state=failed", [dead]),
        ("?workflow=refunds", [run_id]),
        ("?workflow=", [run_id, dead]),
        ("?state=failed&workflow=refunds", []),
    ):
        assert page(await client.get(f"{RUNS}{query}")).xpath("//@data-row") == expected
    assert (await client.get(f"{RUNS}?state=lost")).status_code == 404


async def test_a_long_list_of_runs_has_pages_that_keep_the_filter(
    client: httpx.AsyncClient, sent: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("eventwright.app.inbox.routes_runs.PAGE", 2)
    wanted = [await sent(client, str(number), WISH) for number in range(5)]
    found: list[str] = []
    path = f"{RUNS}?state=received&workflow=refunds"
    for _ in range(3):
        shown = page(await client.get(path))
        found += shown.xpath("//*[@data-row]/@data-row")
        path = next(iter(shown.xpath("//a[@rel='next']/@href")), "")
        assert not path or "state=received&workflow=refunds&before=" in path
    assert (found, path) == (wanted[::-1], "")


async def test_the_page_of_a_run_tells_what_happened_what_it_did_and_what_comes_next(
    app: App, client: httpx.AsyncClient, paused: Paused
) -> None:
    run_id, review_id = await paused(client)
    waiting = words(await client.get(f"{RUNS}/{run_id}"))
    assert "Once somebody has decided, it goes on" in waiting
    await press(client, review_id, "approve", comment="he called")
    await app.engine.advance(run_id)
    shown = await client.get(f"{RUNS}/{run_id}")
    said = words(shown)

    for part in ("completed · approved", "he called", "bank.pay", "Nothing more happens.", "event refund.wanted 1"):
        assert part in said
    assert page(shown).xpath(f"//a[@href='{REVIEWS}/{review_id}']")
    picture = next(address for address in page(shown).xpath("//img/@src") if "timeline" in address)
    assert (await client.get(picture)).text.startswith("<svg")


async def test_a_run_whose_workflow_is_gone_is_still_shown(
    opened: Any, client_of: Any, sent: Any, paying_workflow: Any
) -> None:
    async with opened(paying_workflow("gone", "gone.wanted")) as app, client_of(app) as client:
        run_id = await sent(client, "1", WISH, "gone.wanted")
    async with opened() as app, client_of(app) as client:
        shown = await client.get(f"{RUNS}/{run_id}")
        assert "gone" in words(shown)
        assert not page(shown).xpath("//img[contains(@src, 'graph')]")
        assert (await client.get(f"{RUNS}/{run_id}/graph.svg")).status_code == 404


async def test_a_record_without_end_is_shown_from_its_end_and_whole_on_a_page_of_its_own(
    app: App, client: httpx.AsyncClient, paused: Paused, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("eventwright.app.inbox.routes_runs.MOMENTS", 2)
    monkeypatch.setattr("eventwright.app.inbox.routes_runs.DRAWN", 2)
    run_id, _ = await paused(client)
    shown = page(await client.get(f"{RUNS}/{run_id}"))
    whole = page(await client.get(f"{RUNS}/{run_id}/journal"))

    assert len(shown.xpath("//*[@class='timeline']/li")) == 2
    assert len(whole.xpath("//*[@class='timeline']/li")) == 4
    assert not shown.xpath("//img[contains(@src, 'timeline')]")


async def test_what_a_run_asks_now_is_found_whatever_it_asked_before(
    app: App, client: httpx.AsyncClient, paused: Paused, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("eventwright.app.inbox.routes_runs.PARTS", 1)
    run_id, review_id = await paused(client)
    await press(client, review_id, "approve")
    later = replace(await app.store.review(review_id), id=new_id("rev"), question="And now?", decision=None)
    async with app.store.write() as tx:
        tx.open_review(replace(later, state=ReviewState.OPEN))

    shown = await client.get(f"{RUNS}/{run_id}")

    assert page(shown).xpath(f"//section[h2='Who is asked']//a[@href='{REVIEWS}/{later.id}']")


async def test_a_long_ledger_shows_its_end_and_says_how_long_it_is(
    app: App, client: httpx.AsyncClient, paused: Paused, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("eventwright.app.inbox.routes_runs.PARTS", 2)
    run_id, review_id = await paused(client)
    await press(client, review_id, "approve")
    await app.engine.advance(run_id)
    [effect] = await app.store.effects(run_id)
    async with app.store.write() as tx:
        for number in range(2, 6):
            tx.put_effect(replace(effect, key=f"key {number}", visit=number, tool=f"bank.pay{number}"))

    said = words(await client.get(f"{RUNS}/{run_id}"))

    assert "The ledger: 5 calls of tools and models, of which these are the last 2" in said
    assert ("bank.pay4" in said, "bank.pay5" in said, "bank.pay2" in said) == (True, True, False)


async def test_data_that_was_deleted_is_said_to_be_and_not_shown_as_nothing(
    app: App, client: httpx.AsyncClient, paused: Paused
) -> None:
    run_id, review_id = await paused(client)
    await press(client, review_id, "approve")
    await app.engine.advance(run_id)
    run = await app.store.run(run_id)
    async with app.store.write() as tx:
        tx.expire_runs([run_id])
    async with app.store.write() as tx:
        tx.expire_events([run.event.uid], before=await app.store.now())

    for place in (f"{RUNS}/{run_id}", f"{REVIEWS}/{review_id}"):
        shown = await client.get(place)
        assert "It was kept long enough, and is deleted." in words(shown)
        assert "null" not in words(shown)
