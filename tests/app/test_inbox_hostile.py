"""What strangers write is shown inertly, marked where it hides, and bounded."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Any

import httpx
import pytest
from tests.app.inbox_pages import REVIEWS, RUNS, fields, page, press, words

from eventwright.app.composition import App
from eventwright.graphs.workflow import Workflow
from eventwright.guardrails.rules import always

SCRIPT = "<script>alert(1)</script><img src=x onerror=alert(2)>\" onclick='alert(3)' {{ 7 * 7 }}"
TURNED = "pay\u202eeve\u200b"
PAGES = ["/inbox", "/inbox?workflow=refunds", RUNS, f"{RUNS}?state=pending_approval"]


@pytest.fixture
async def places(app: App, client: httpx.AsyncClient, sent: Callable[..., Awaitable[str]]) -> list[str]:
    """Every page there is about a run that hostile data started."""
    wish = {"account": f"{SCRIPT} javascript:alert(4) {TURNED} \u05e9\u05dc\u05d5\u05dd", "amount": "99"}
    run_id = await sent(client, "1", wish)
    await app.engine.advance(run_id)
    [asked] = await app.store.reviews()
    review, run = f"{REVIEWS}/{asked.id}", f"{RUNS}/{run_id}"
    return [*PAGES, review, f"{review}/whole", run, f"{run}/journal", f"{run}/event", f"{run}/cancel", f"{run}/replay"]


async def test_no_page_runs_what_a_stranger_wrote(client: httpx.AsyncClient, places: list[str]) -> None:
    for place in places:
        answer = await client.get(place)
        assert answer.status_code == 200, place
        tree = page(answer)
        assert len(tree.xpath("//script")) == 1, place
        assert not tree.xpath("//@style | //style | //@*[starts-with(name(), 'on')] | //iframe | //object"), place
        assert all(address.startswith(("/inbox", "#", "data:,")) for address in tree.xpath("//@href | //@src")), place
        assert all(place.startswith(RUNS) for _ in tree.xpath("//img")), place
        assert "\u202e" not in answer.text
        assert "\u200b" not in answer.text


async def test_what_hides_is_marked_and_warned_of(client: httpx.AsyncClient, places: list[str]) -> None:
    review = next(place for place in places if place.startswith(REVIEWS))
    said = words(await client.get(review))

    assert "Look twice" in said
    assert "pay⟦U+202E⟧eve⟦U+200B⟧" in said
    assert SCRIPT in said


async def test_pictures_hold_text_and_nothing_that_acts(client: httpx.AsyncClient, places: list[str]) -> None:
    run = next(place for place in places if place.startswith(f"{RUNS}/"))
    for picture in ("timeline.svg", "graph.svg"):
        answer = await client.get(f"{run}/{picture}")
        assert (answer.status_code, answer.headers["content-type"]) == (200, "image/svg+xml")
        assert "<script" not in answer.text
        assert "default-src 'none'" in answer.headers["content-security-policy"]


async def test_a_huge_event_is_cut_and_its_whole_stands_on_a_page_of_its_own(
    app: App, client: httpx.AsyncClient, sent: Callable[..., Awaitable[str]]
) -> None:
    deep: Any = "bottom"
    for _ in range(40):
        deep = [deep]
    wish = {
        "account": "ann",
        "amount": "99",
        "long": "x" * 700_000,
        "deep": deep,
        "many": {str(n): n for n in range(3000)},
    }
    run_id = await sent(client, "1", wish)
    await app.engine.advance(run_id)
    [asked] = await app.store.reviews()

    for place in ("/inbox", RUNS, f"{RUNS}/{run_id}", f"{REVIEWS}/{asked.id}"):
        answer = await client.get(place)
        assert len(answer.content) < 60_000, place
    assert "697000 more characters" in words(await client.get(f"{REVIEWS}/{asked.id}"))
    assert "x" * 700_000 in (await client.get(f"{RUNS}/{run_id}/event")).text
    assert "bottom" in (await client.get(f"{REVIEWS}/{asked.id}/whole")).text


@pytest.fixture
def writing(paying_workflow: Callable[..., Workflow]) -> Workflow:
    return paying_workflow("writing", "letter.wanted", approve_when=always)


async def test_arguments_as_long_as_a_tool_takes_are_shown_whole_and_edited_whole(
    opened: Any, client_of: Any, sent: Callable[..., Awaitable[str]], writing: Workflow
) -> None:
    text = "\n".join(f"line {number} é" for number in range(1500))
    async with opened(writing) as app, client_of(app) as client:
        await app.engine.advance(await sent(client, "1", {"account": text, "amount": "1"}, "letter.wanted"))
        [asked] = await app.store.reviews()
        shown = await client.get(f"{REVIEWS}/{asked.id}")
        [draft] = page(shown).xpath("(//table)[1]//*[@class='text']")
        assert draft.text_content() == text
        assert fields(shown, "edit")["edit:account"] == text

        sent_by_a_browser = text.replace("\n", "\r\n")
        answer = await press(client, asked.id, "edit", {"edit:account": sent_by_a_browser, "edit:amount": "2"})
        assert answer.status_code == 303
        decision = (await app.store.review(asked.id)).decision
        assert decision is not None
        assert decision.arguments == {"account": text, "amount": "2"}


async def test_no_page_changes_anything(app: App, client: httpx.AsyncClient, places: list[str]) -> None:
    async def everything() -> list[Any]:
        runs = await app.store.runs()
        return [*runs, *await app.store.reviews(), *[await app.store.journal(run.id) for run in runs]]

    before = await everything()
    for place in places:
        await client.get(place)
    assert await everything() == before
