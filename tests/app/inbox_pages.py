"""What the tests of the inbox share: pages as a person finds them, and forms as a browser sends them."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import httpx
from lxml import html

REVIEWS, RUNS = "/inbox/reviews", "/inbox/runs"


def page(answer: httpx.Response) -> Any:
    assert answer.headers["content-type"].startswith("text/html"), answer.text
    return html.fromstring(answer.content.decode())


def words(answer: httpx.Response) -> str:
    """What can be read on the page, with single spaces."""
    return " ".join(page(answer).find("body/main").text_content().split())


def alert(answer: httpx.Response) -> str:
    """What stands above the page because something went wrong."""
    [found] = page(answer).xpath("//*[@role='alert']")
    return " ".join(found.text_content().split())


def fields(answer: httpx.Response, button: str) -> dict[str, str]:
    """What a browser would send if this button were pressed."""
    form = next(each for each in page(answer).forms if each.xpath(f".//button[@value='{button}']"))
    for area in form.xpath(".//textarea"):
        area.text = (area.text or "").removeprefix("\n")  # as HTML has it
    return {name: value or "" for name, value in form.form_values()} | {"type": button}


async def press(
    client: httpx.AsyncClient, review_id: str, button: str, changes: Mapping[str, str] | None = None, **more: str
) -> httpx.Response:
    """Open a question, write this into its form, press the button."""
    sent = fields(await client.get(f"{REVIEWS}/{review_id}"), button) | dict(changes or {}) | more
    return await client.post(f"{REVIEWS}/{review_id}/decision", data=sent)
