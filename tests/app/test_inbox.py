"""The inbox decides as the API does, and tells people in words why it did not."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from contextlib import AbstractAsyncContextManager
from datetime import timedelta
from decimal import Decimal
from typing import Any

import httpx
import pytest
from langgraph.types import interrupt
from tests.app.inbox_pages import REVIEWS, RUNS, alert, fields, page, press, words
from tests.outside import chain

from eventwright.app.composition import App
from eventwright.app.web.access import local_user
from eventwright.graphs.workflow import On, Workflow
from eventwright.guardrails.policy import review
from eventwright.guardrails.rules import always
from eventwright.runs.records import ReviewState

Paused = Callable[..., Awaitable[tuple[str, str]]]
Opened = Callable[..., AbstractAsyncContextManager[App]]
WISH = {"account": "ann", "amount": "120.00"}


@pytest.fixture
def asking_workflow() -> Callable[..., Workflow]:
    """Makes a workflow that asks a question, with the schema of its answer if there is one."""

    def asking(schema: dict[str, Any] | None = None) -> Workflow:
        async def ask(state: dict[str, Any]) -> dict[str, Any]:
            return {"said": interrupt({"question": "What now?"}, response_schema=schema)}

        return Workflow("asking", version="1", graph=chain(ask=ask), triggers=[On("asked")])

    return asking


async def state(app: App, review_id: str) -> ReviewState:
    return (await app.store.review(review_id)).state


# -- what goes wrong ---------------------------------------------------------------------------------------------------


async def test_who_comes_second_is_told_who_won(client: httpx.AsyncClient, paused: Paused) -> None:
    _, review_id = await paused(client)
    seen = fields(await client.get(f"{REVIEWS}/{review_id}"), "approve")
    rejected = {"json": {"type": "reject"}, "headers": {"eventwright-actor": "mona"}}
    await client.post(f"/v1/reviews/{review_id}/decision", **rejected)

    answer = await client.post(f"{REVIEWS}/{review_id}/decision", data=seen)

    assert answer.status_code == 409
    assert "Somebody was faster" in alert(answer)
    assert "mona rejected" in alert(answer)
    assert not page(answer).xpath("//button[@name='type']")


async def test_an_answer_to_something_that_has_changed_is_not_taken_and_the_page_shows_it_anew(
    app: App, client: httpx.AsyncClient, paused: Paused
) -> None:
    _, review_id = await paused(client)
    answer = await press(client, review_id, "approve", digest="0" * 64, comment="as agreed")

    assert answer.status_code == 409
    assert "changed since you opened this page" in alert(answer)
    again = fields(answer, "approve")
    assert (again["comment"], await state(app, review_id)) == ("as agreed", ReviewState.OPEN)
    assert (await client.post(f"{REVIEWS}/{review_id}/decision", data=again)).status_code == 303


@pytest.mark.parametrize("digest", ["", "1"])
async def test_nothing_is_decided_without_the_digest_of_what_was_shown(
    app: App, client: httpx.AsyncClient, paused: Paused, digest: str
) -> None:
    _, review_id = await paused(client)
    assert (await press(client, review_id, "approve", digest=digest)).status_code == 409
    assert await state(app, review_id) is ReviewState.OPEN


async def test_a_question_whose_deadline_passed_says_so(
    opened: Opened, client_of: Any, sent: Any, paying_workflow: Any
) -> None:
    asking = review("Pay?", deadline=timedelta(0))
    hasty = paying_workflow("hasty", "refund.hasty", approve_when=always, approval=asking)
    async with opened(hasty) as app, client_of(app) as client:
        await app.engine.advance(await sent(client, "1", WISH, "refund.hasty"))
        [asked] = await app.store.reviews()
        assert "overdue" in words(await client.get("/inbox"))
        seen = fields(await client.get(f"{REVIEWS}/{asked.id}"), "approve")
        await app.engine.tick()

        answer = await client.post(f"{REVIEWS}/{asked.id}/decision", data=seen)

        assert answer.status_code == 410
        assert "The deadline decided: reject." in alert(answer)
        assert "The deadline decided: reject." in words(await client.get(f"{REVIEWS}/{asked.id}"))


async def test_what_does_not_fit_is_said_beside_its_field_and_nothing_that_was_written_is_lost(
    app: App, client: httpx.AsyncClient, paused: Paused
) -> None:
    _, review_id = await paused(client)
    written = {"edit:account": "bob\n& sons", "edit:amount": "much", "comment": "half of it"}
    answer = await press(client, review_id, "edit", written)

    assert answer.status_code == 422
    [field] = page(answer).xpath("//*[@name='edit:amount']")
    assert field.get("aria-invalid") == "true"
    [said] = page(answer).xpath(f"//*[@id='{field.get('aria-describedby')}']")
    assert "number" in said.text_content()
    assert page(answer).xpath(f"//*[@role='alert']//a[@href='#{field.get('id')}']")
    assert fields(answer, "edit").items() >= written.items()
    assert page(answer).xpath("//details[@open]//*[@name='edit:amount']")
    assert await state(app, review_id) is ReviewState.OPEN


async def test_an_answer_that_is_none_asks_for_one(app: App, client: httpx.AsyncClient, paused: Paused) -> None:
    _, review_id = await paused(client)
    for answer in ("", "maybe", "respond"):
        assert (await press(client, review_id, "approve", type=answer)).status_code == 422
    assert await state(app, review_id) is ReviewState.OPEN


async def test_while_the_database_is_full_nothing_is_decided_and_what_was_written_stays(
    app: App, client: httpx.AsyncClient, paused: Paused
) -> None:
    _, review_id = await paused(client)
    written = {"edit:account": "a" * 20_000, "comment": "why " * 2000}
    seen = fields(await client.get(f"{REVIEWS}/{review_id}"), "edit") | written
    await let_grow(app, 1)

    answer = await client.post(f"{REVIEWS}/{review_id}/decision", data=seen)

    assert answer.status_code == 503
    assert "no room left where the database is" in alert(answer)
    again = fields(answer, "edit")
    assert again["edit:account"] == written["edit:account"]
    assert await state(app, review_id) is ReviewState.OPEN
    await let_grow(app, 1_000_000)
    assert (await client.post(f"{REVIEWS}/{review_id}/decision", data=again)).status_code == 303


async def let_grow(app: App, pages: int) -> None:
    """So many pages may the database have, not one more."""
    await app.store._database.write(lambda connection: connection.exec_driver_sql(f"PRAGMA max_page_count={pages}"))


async def test_two_answers_at_once_are_none(app: App, client: httpx.AsyncClient, paused: Paused) -> None:
    _, review_id = await paused(client)
    seen: dict[str, Any] = fields(await client.get(f"{REVIEWS}/{review_id}"), "reject")
    answer = await client.post(f"{REVIEWS}/{review_id}/decision", data=seen | {"type": ["reject", "approve"]})
    assert (answer.status_code, "more than once" in alert(answer)) == (422, True)
    assert await state(app, review_id) is ReviewState.OPEN


async def test_who_lacks_the_role_sees_who_has_it_and_cannot_decide(
    opened: Opened, client_of: Any, sent: Any, paying_workflow: Any
) -> None:
    asking = review("May this be paid?", roles=["manager"])
    shared = paying_workflow("shared", "shared.wanted", approve_when=always, approval=asking)
    async with opened(shared, roles="manager=mona") as app, client_of(app) as client:
        await app.engine.advance(await sent(client, "1", WISH, "shared.wanted"))
        [asked] = await app.store.reviews()
        shown = await client.get(f"{REVIEWS}/{asked.id}")
        assert "those who may: mona" in words(await client.get("/inbox"))
        assert "those who may: mona" in words(shown)
        assert not page(shown).xpath("//button[@name='type']")

        mona = {"eventwright-actor": "mona"}
        seen = fields(await client.get(f"{REVIEWS}/{asked.id}", headers=mona), "approve")
        [mark] = page(await client.get(f"{RUNS}/{asked.run_id}/cancel")).xpath("//*[@name='form_token']/@value")
        answer = await client.post(f"{REVIEWS}/{asked.id}/decision", data=seen | {"form_token": mark})

        assert answer.status_code == 403
        assert "those who may: mona" in alert(answer)
        assert await state(app, asked.id) is ReviewState.OPEN
        assert (await client.post(f"{REVIEWS}/{asked.id}/decision", data=seen, headers=mona)).status_code == 303


async def test_of_two_people_the_first_is_not_asked_again_and_sees_that_the_other_is_missing(
    opened: Opened, client_of: Any, sent: Any, paying_workflow: Any
) -> None:
    double = paying_workflow("double", "double.wanted", approve_when=always, approval=review("Both?", people=2))
    async with opened(double) as app, client_of(app, headers={"eventwright-actor": "ann"}) as client:
        async with client_of(app) as customer:
            await app.engine.advance(await sent(customer, "1", WISH, "double.wanted"))
        first, second = await app.store.reviews()
        done = await client.get((await press(client, first.id, "approve")).headers["location"])

        assert "1 of 2 people have agreed" in words(done)
        assert "you have agreed already" in words(done)
        other = await client.get(f"{REVIEWS}/{second.id}")
        assert "You are ann" in words(other)
        assert not page(other).xpath("//button[@name='type']")


async def test_a_page_that_is_not_there_is_said_to_be_missing(client: httpx.AsyncClient) -> None:
    for path in ("/inbox/reviews/rev_0", "/inbox/runs/run_0", "/inbox/reviews/%00", "/inbox/nothing", "/inbox?after=/"):
        answer = await client.get(path)
        assert (answer.status_code, bool(words(answer))) == (404, True), path


async def test_the_inbox_is_found_from_the_index_and_as_a_folder_too(client: httpx.AsyncClient) -> None:
    assert (await client.get("/")).json()["links"]["inbox"] == "/inbox"
    answer = await client.get("/inbox/")
    assert (answer.status_code, answer.headers["location"]) == (308, "/inbox")


async def test_a_plain_yes_beside_a_written_answer_is_asked_back(
    opened: Opened, client_of: Any, sent: Any, asking_workflow: Any
) -> None:
    async with opened(asking_workflow()) as app, client_of(app) as client:
        await app.engine.advance(await sent(client, "1", {}, "asked"))
        [asked] = await app.store.reviews()
        answer = await press(client, asked.id, "approve", {"respond:value": "No, wait"})

        assert answer.status_code == 422
        assert "You wrote an answer" in alert(answer)
        assert fields(answer, "approve")["respond:value"] == "No, wait"


# -- what goes right ---------------------------------------------------------------------------------------------------


async def test_what_waits_stands_in_the_inbox_with_the_earliest_deadline_first(
    opened: Opened, client_of: Any, sent: Any, paying_workflow: Any
) -> None:
    later, sooner = (
        paying_workflow(name, f"{name}.wanted", approve_when=always, approval=review(f"{name}?", deadline=deadline))
        for name, deadline in (("later", timedelta(hours=5)), ("sooner", timedelta(minutes=5)))
    )
    async with opened(later, sooner) as app, client_of(app) as client:
        for name in ("refund", "later", "sooner"):
            await app.engine.advance(await sent(client, name, WISH, f"{name}.wanted"))
        shown = await client.get("/inbox")
        questions = page(shown).xpath("//*[@class='what']")

        assert [question.text_content() for question in questions[:2]] == ["sooner?", "later?"]
        assert len(questions) == 3
        assert "due in 5 min" in words(shown)
        assert len(page(await client.get("/inbox?workflow=later")).xpath("//*[@data-row]")) == 1


async def test_a_long_inbox_has_pages(
    app: App, client: httpx.AsyncClient, paused: Paused, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("eventwright.app.inbox.routes_reviews.PAGE", 2)
    wanted = [(await paused(client, str(number)))[1] for number in range(5)]
    found: list[str] = []
    path = "/inbox"
    for _ in range(3):
        shown = page(await client.get(path))
        found += shown.xpath("//*[@data-row]/@data-row")
        path = next(iter(shown.xpath("//a[@rel='next']/@href")), "")

    assert (found, path) == (wanted, "")


async def test_an_empty_inbox_says_how_to_fill_it(client: httpx.AsyncClient) -> None:
    assert "Nothing waits for you or anybody else." in words(await client.get("/inbox"))
    assert "eventwright demo" in words(await client.get("/inbox"))


async def test_the_page_of_a_question_shows_what_is_decided_about_and_why(
    app: App, client: httpx.AsyncClient, paused: Paused
) -> None:
    run_id, review_id = await paused(client)
    asked = await app.store.review(review_id)
    shown = await client.get(f"{REVIEWS}/{review_id}")
    said = words(shown)

    rows = {row.find("th").text_content(): row.find("td").text_content() for row in page(shown).xpath("//tr")}
    assert {name: value.strip() for name, value in rows.items()} == WISH
    for part in ("bank.pay", "amount 120.00 is above 50", "version 1", "refund.wanted", "/shop", asked.digest[:12]):
        assert part in said
    assert page(shown).xpath(f"//a[@href='/inbox/runs/{run_id}']")
    assert fields(shown, "approve")["digest"] == asked.digest


async def test_an_approval_goes_on_and_leads_back_to_the_inbox_with_what_happened(
    app: App, client: httpx.AsyncClient, paused: Paused, bank: Any
) -> None:
    run_id, review_id = await paused(client)
    _, other = await paused(client, "2")
    answer = await press(client, review_id, "approve", comment="he called")
    back = await client.get(answer.headers["location"])

    assert (answer.status_code, answer.headers["location"]) == (303, f"/inbox?done={review_id}")
    assert page(back).xpath("//*[@role='status']")[0].text_content().startswith("You approved")
    assert page(back).xpath("//title")[0].text.startswith("You approved")  # the focus goes on, past what stands there
    assert page(back).xpath(f"//*[@role='status']/a[@href='/inbox/runs/{run_id}']")
    assert page(back).xpath("//*[@autofocus]/@data-row") == [other]
    decision = (await app.store.review(review_id)).decision
    assert decision is not None
    assert (decision.by, decision.verified, decision.comment) == (local_user(), False, "he called")
    await app.engine.advance(run_id)
    assert list(bank.paid.values()) == [("ann", Decimal("120.00"))]


async def test_an_address_cannot_say_that_somebody_decided_what_they_did_not(
    client: httpx.AsyncClient, paused: Paused
) -> None:
    _, review_id = await paused(client)
    for done in (review_id, "rev_0"):
        assert "You" not in words(await client.get(f"/inbox?done={done}")).replace("You are", "")


async def test_an_edit_is_what_happens_and_what_was_not_touched_stays_as_it_is(
    app: App, client: httpx.AsyncClient, paused: Paused, bank: Any
) -> None:
    run_id, review_id = await paused(client)
    seen = fields(await client.get(f"{REVIEWS}/{review_id}"), "edit") | {"edit:amount": "60.50"}
    parts = {name: (None, text) for name, text in seen.items()}
    assert (await client.post(f"{REVIEWS}/{review_id}/decision", files=parts)).status_code == 303

    await app.engine.advance(run_id)
    assert list(bank.paid.values()) == [("ann", Decimal("60.50"))]


async def test_a_rejection_brings_its_comment_along(app: App, client: httpx.AsyncClient, paused: Paused) -> None:
    _, review_id = await paused(client)
    assert (await press(client, review_id, "reject", comment="not\r\nours")).status_code == 303
    shown = await client.get(f"{REVIEWS}/{review_id}")
    assert "rejected." in words(shown)
    assert "not ours" in words(shown)


async def test_the_same_answer_sent_twice_is_one(client: httpx.AsyncClient, paused: Paused) -> None:
    _, review_id = await paused(client)
    seen = fields(await client.get(f"{REVIEWS}/{review_id}"), "approve")
    for _ in range(2):
        assert (await client.post(f"{REVIEWS}/{review_id}/decision", data=seen)).status_code == 303


async def test_a_question_with_a_form_of_its_own_is_answered_by_that_form(
    opened: Opened, client_of: Any, sent: Any, asking_workflow: Any
) -> None:
    schema = {
        "type": "object",
        "required": ["kind", "sure", "seats"],
        "properties": {
            "kind": {"enum": ["refund", "card <b>"], "description": "What is it about?"},
            "sure": {"type": "boolean"},
            "seats": {"type": "integer", "minimum": 1},
            "note": {"type": "string"},
            "lines": {"type": "array", "items": {"type": "string"}},
        },
        "additionalProperties": False,
    }
    async with opened(asking_workflow(schema)) as app, client_of(app) as client:
        run_id = await sent(client, "1", {}, "asked")
        await app.engine.advance(run_id)
        [asked] = await app.store.reviews()
        wrong = {"respond:sure": "true", "respond:seats": "0", "respond:lines": "[1"}
        answer = await press(client, asked.id, "respond", wrong)
        assert answer.status_code == 422
        assert "Please choose one of the options." in alert(answer)
        assert "lines: This is not JSON" in alert(answer)
        right = wrong | {"respond:kind": '"card <b>"', "respond:lines": '["a"]'}
        assert (
            "seats: 0 is less than the minimum of 1" in alert(await press(client, asked.id, "respond", right)).lower()
        )

        assert (await press(client, asked.id, "respond", right | {"respond:seats": "3"})).status_code == 303
        decision = (await app.store.review(asked.id)).decision
        assert decision is not None
        assert decision.response == {"kind": "card <b>", "sure": True, "seats": 3, "lines": ["a"]}
