"""The inbox in a real browser: by keyboard alone, without scripts, on a phone, in the dark."""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable
from datetime import timedelta
from decimal import Decimal
from pathlib import Path
from typing import Any

import httpx
import pytest
from tests.app.inbox_browser import Page, a_browser, browser_here

from eventwright.app.composition import App
from eventwright.guardrails.policy import review
from eventwright.guardrails.rules import always
from eventwright.runs.records import ReviewState

BROWSER = browser_here()
# pip brings no browser: where a machine has none, what stands in the pages is told by the other tests of the inbox.
pytestmark = pytest.mark.skipif(BROWSER is None, reason="no Chromium on this machine")
FOCUSED = "document.activeElement"


@pytest.fixture
async def url(app: App, serving: Any) -> AsyncIterator[str]:
    async with serving(app) as url:
        yield url


@pytest.fixture
async def browser(tmp_path: Path) -> AsyncIterator[Page]:
    async with a_browser(str(BROWSER), tmp_path / "browser") as page:
        yield page


@pytest.fixture
async def questions(
    app: App, client: httpx.AsyncClient, paused: Callable[..., Awaitable[tuple[str, str]]]
) -> list[str]:
    """Three open questions."""
    return [(await paused(client, str(number)))[1] for number in range(3)]


async def test_everything_can_be_decided_by_keyboard_and_no_single_key_decides(
    app: App, browser: Page, url: str, questions: list[str], bank: Any
) -> None:
    first, second, third = questions
    await browser.open(f"{url}/inbox")
    await browser.press("j", "j", "k")
    assert await browser.run(f"{FOCUSED}.dataset.row") == first
    await browser.press("Enter")
    await browser.until(f"location.pathname === '/inbox/reviews/{first}'")
    await browser.until("document.readyState === 'complete'")
    await browser.press("a")
    assert await browser.run(f"{FOCUSED}.value") == "approve"
    assert (await app.store.review(first)).state is ReviewState.OPEN
    await browser.press("Enter")
    await browser.until("location.search.startsWith('?done=') && document.readyState === 'complete'")

    # The next one has the focus already.
    await browser.until(f"{FOCUSED}.dataset.row === '{second}'")
    await browser.press("Enter")
    await browser.until(f"location.pathname === '/inbox/reviews/{second}' && document.readyState === 'complete'")
    await browser.press("e")
    assert await browser.run(f"{FOCUSED}.name") == "edit:account"
    await browser.press("Enter")  # which sends nothing out of a field
    await browser.press("a", "r", "?")  # letters, while one writes
    assert await browser.run(f"{FOCUSED}.value") == "ar?ann"
    await browser.run(f"{FOCUSED}.select()")
    await browser.write("bob")
    await browser.run("document.querySelector('button[value=edit]').focus()")
    assert (await app.store.review(second)).state is ReviewState.OPEN
    await browser.press("Enter")
    await browser.until(f"location.search === '?done={second}' && document.readyState === 'complete'")

    for review_id in (first, second):
        await app.engine.advance((await app.store.review(review_id)).run_id)
    assert sorted(bank.paid.values()) == [("ann", Decimal("120.00")), ("bob", Decimal("120.00"))]
    assert (await app.store.review(third)).state is ReviewState.OPEN


async def test_what_is_new_comes_by_itself_and_takes_nobodys_place_away(
    app: App, browser: Page, url: str, questions: list[str], client: httpx.AsyncClient, paused: Any
) -> None:
    await browser.open(f"{url}/inbox")
    await browser.press("j", "j")
    await paused(client, "another")
    await browser.run("refresh()")
    assert await browser.run("document.querySelectorAll('[data-row]').length") == 4
    assert await browser.run(f"{FOCUSED}.dataset.row") == questions[1]
    assert await browser.run("document.querySelector('[data-said]').textContent") == "One more question"


async def test_a_list_goes_on_with_the_time_and_ends_with_the_session(
    browser: Page, opened: Any, serving: Any, sent: Any, client_of: Any, paying_workflow: Any
) -> None:
    asking = review("Pay?", deadline=timedelta(minutes=80))
    timed = paying_workflow("timed", "timed.wanted", approve_when=always, approval=asking)
    async with opened(timed) as app, client_of(app) as client, serving(app) as url:
        await app.engine.advance(await sent(client, "1", {"account": "ann", "amount": "9"}, "timed.wanted"))
        await browser.open(f"{url}/inbox")
        due = "document.querySelector('.due').textContent"
        await browser.run(f"{due} = 'due in 99 h'")
        await browser.run("refresh()")
        assert (await browser.run(due)).endswith(" min")
    async with opened(timed, api_key="a-key-of-ours") as app, serving(app) as url:
        await browser.open(f"{url}/inbox/sign-in")
        await browser.run("document.querySelector('#key').value = 'a-key-of-ours'")
        await browser.run("document.forms[0].submit()")
        await browser.until("document.querySelector('[data-live]') !== null")
        await browser.call("Network.clearBrowserCookies")
        await browser.run("void refresh()")
        await browser.until("location.pathname === '/inbox/sign-in'")


async def test_without_scripts_the_same_is_done_by_links_and_buttons(
    app: App, browser: Page, url: str, questions: list[str]
) -> None:
    await browser.look(1200, scripts=False)
    await browser.open(f"{url}/inbox/reviews/{questions[0]}")
    await browser.run("document.querySelector('textarea').focus()")
    await browser.write("not ours")
    await browser.press("Tab", "Tab", "Enter")
    await browser.until(f"location.search === '?done={questions[0]}' && document.readyState === 'complete'")
    decision = (await app.store.review(questions[0])).decision
    assert decision is not None
    assert (decision.type, decision.comment) == ("reject", "not ours")
    await browser.until(f"{FOCUSED}.dataset.row === '{questions[1]}'")


async def test_a_key_is_asked_for_once_and_the_session_comes_along(
    app: App, browser: Page, opened: Any, serving: Any, questions: list[str]
) -> None:
    async with opened(api_key="a-key-of-ours") as keyed, serving(keyed) as url:
        await browser.open(f"{url}/inbox/reviews/{questions[0]}")
        assert await browser.run("location.pathname") == "/inbox/sign-in"
        await browser.run("document.querySelector('#name').focus()")
        await browser.write("ann")
        await browser.press("Tab")
        await browser.write("a-key-of-ours")
        await browser.press("Enter")
        await browser.until(f"location.pathname === '/inbox/reviews/{questions[0]}'")
        await browser.until("document.readyState === 'complete'")
        assert await browser.run("document.cookie") == ""
        await browser.press("r", "Enter")
        await browser.until(f"location.search === '?done={questions[0]}'")
    decision = (await app.store.review(questions[0])).decision
    assert decision is not None
    assert (decision.type, decision.by) == ("reject", "ann")


@pytest.mark.parametrize("dark", [False, True])
async def test_no_page_is_wider_than_a_phone_and_all_can_be_read(
    app: App, browser: Page, url: str, client: httpx.AsyncClient, sent: Any, dark: bool
) -> None:
    run_id = await sent(client, "1", {"account": "x" * 300 + " " + "long " * 300, "amount": "99", "note": "y" * 500})
    await app.engine.advance(run_id)
    [asked] = await app.store.reviews()
    await browser.look(390, dark=dark)
    review, run = f"/inbox/reviews/{asked.id}", f"/inbox/runs/{run_id}"
    for place in ("/inbox", review, f"{review}/whole", "/inbox/runs", run, f"{run}/journal", f"{run}/cancel"):
        await browser.open(f"{url}{place}")
        assert await browser.run("document.documentElement.scrollWidth") == 390, place
        for faint in (".soft", ".sub", ".kind", ".state", "button.main", "a"):
            assert await browser.run(CONTRAST % faint) >= 4.5, (place, faint)


#: The least contrast of what can be seen of a kind, by WCAG's formula.
CONTRAST = """(() => {
  const light = (colour) => {
    const parts = colour.match(/[\\d.]+/g).slice(0, 3).map((part) => part / 255)
      .map((part) => part <= 0.03928 ? part / 12.92 : ((part + 0.055) / 1.055) ** 2.4);
    return 0.2126 * parts[0] + 0.7152 * parts[1] + 0.0722 * parts[2];
  };
  const behind = (element) => {
    for (let at = element; at !== null; at = at.parentElement) {
      const colour = getComputedStyle(at).backgroundColor;
      if (!/, 0\\)$/.test(colour)) return light(colour);
    }
    return 1;
  };
  const all = [...document.querySelectorAll("%s")].filter((one) => one.getClientRects().length && one.textContent);
  return Math.min(21, ...all.map((one) => {
    const [low, high] = [light(getComputedStyle(one).color), behind(one)].sort((a, b) => a - b);
    return (high + 0.05) / (low + 0.05);
  }));
})()"""
