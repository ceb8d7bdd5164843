"""The leads workflow begins with its own page, on both stores: what a browser posts there becomes one lead, once."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path

import httpx
import pytest
from tests.app.quotes import browser, events, page, summary, value
from tests.journeys.leads_world import Market, a_market, form
from tests.journeys.test_leads_at_once import all_ended

from eventwright.app.composition import App, open_app
from eventwright.app.settings import SHIPPED_WORKFLOWS, Settings
from eventwright.app.web.form_posts import TRAP
from eventwright.graphs.leads import PAGE, leads
from eventwright.runs.records import Run
from eventwright.runs.states import Outcome

PATH = "/forms/leads/lead.submitted"
#: What Lena writes, in the fields of the page.
LENA = {name: "true" if written is True else written for name, written in form().items()}


@pytest.fixture
async def market(tmp_path: Path) -> AsyncIterator[Market]:
    async with a_market(tmp_path) as market:
        yield market


@pytest.fixture
async def app(tmp_path: Path, database_url: str, market: Market) -> AsyncIterator[App]:
    settings = Settings(home=tmp_path, database_url=database_url, redis_url="none")
    async with open_app(settings, workflows=[leads], resources=market.clients, works=True, rings=False) as app:
        yield app


@pytest.fixture
async def client(app: App) -> AsyncIterator[httpx.AsyncClient]:
    async with browser(app) as client:
        yield client


async def sent(client: httpx.AsyncClient, shown: httpx.Response, **written: str) -> httpx.Response:
    """Fill in the page that is shown, and press its button."""
    [asked] = page(shown).forms
    for area in asked.xpath(".//textarea"):
        area.value = (area.value or "").removeprefix("\n")  # the first line end is the page's own, as browsers know
    for name, text in written.items():
        [field] = asked.xpath(f".//*[@name='{name}']")
        if field.get("type") == "checkbox":
            field.checked = text == "true"
        else:
            field.value = text
    return await client.post(asked.action, data=dict(asked.form_values()), headers={"sec-fetch-site": "same-origin"})


async def worked_off(app: App) -> list[Run]:
    """Every run, once it has ended."""
    return await all_ended([app.engine], [run.id for run in await app.store.runs()])


# -- what is no lead ---------------------------------------------------------------------------------------------------


async def test_a_form_that_says_nobody_comes_back_with_a_sentence_and_what_was_written(
    client: httpx.AsyncClient, app: App
) -> None:
    answer = await sent(client, await client.get(PATH), company="Initech", message="Call me!")

    assert (answer.status_code, page(answer).xpath("//title/text()")) == (422, ["Error: Talk to us"])
    assert summary(answer) == ["Please write down a name, an e-mail address or a telephone number."]
    assert (value(answer, "company"), value(answer, "message")) == ("Initech", "\nCall me!")
    assert await events(app) == []

    assert (await sent(client, answer, phone="+61 2 5550 1234")).status_code == 303
    assert [event.data["message"] for event in await events(app)] == ["Call me!"]


async def test_what_is_too_long_is_said_beside_its_field(client: httpx.AsyncClient, app: App) -> None:
    answer = await sent(client, await client.get(PATH), **LENA | {"given_name": "Lena" * 100})

    assert (answer.status_code, summary(answer)) == (422, ["First name: Please write at most 200 characters."])
    assert await events(app) == []


async def test_a_program_that_fills_in_every_field_makes_no_lead(client: httpx.AsyncClient, app: App) -> None:
    answer = await sent(client, await client.get(PATH), **LENA, **{TRAP: "5550 1234"})

    assert (answer.status_code, summary(answer)) == (422, ["Please leave this field empty, and send the form again."])
    assert await events(app) == []


# -- what is one lead --------------------------------------------------------------------------------------------------


async def test_a_form_that_is_filled_in_becomes_a_lead_that_its_owner_is_told_of(
    client: httpx.AsyncClient, app: App, market: Market
) -> None:
    answer = await sent(client, await client.get(PATH), **LENA)

    assert (answer.status_code, answer.headers["location"]) == (303, f"{PATH}/thanks")
    assert PAGE.thanks in page(await client.get(answer.headers["location"])).text_content()
    [run] = await worked_off(app)
    assert run.outcome is Outcome.AUTO
    [event] = await events(app)
    assert (event.source, event.data) == (PATH, form())
    [message] = market.smtp.messages
    assert message.subject == "New lead (A): Lena Harrington"
    assert await market.contacts() == 1


async def test_two_posts_of_one_person_at_the_same_moment_make_one_lead(
    client: httpx.AsyncClient, app: App, market: Market
) -> None:
    pages = [await client.get(PATH) for _ in range(2)]
    wishes = ("A quote for 50 licences, please.", "A demo, please.")
    answers = await asyncio.gather(
        *(sent(client, shown, **LENA | {"message": wish}) for shown, wish in zip(pages, wishes, strict=True))
    )

    assert [answer.status_code for answer in answers] == [303, 303]
    assert [run.outcome for run in await worked_off(app)] == [Outcome.AUTO] * 2
    assert await market.contacts() == 1
    [row] = await market.book.execute("SELECT id FROM contacts")
    assert {lead.message for lead in await market.book.leads_of(row["id"])} == set(wishes)


async def test_a_button_that_is_pressed_twice_is_one_lead(client: httpx.AsyncClient, app: App, market: Market) -> None:
    shown = await client.get(PATH)
    await asyncio.gather(*(sent(client, shown, **LENA) for _ in range(3)))

    [run] = await worked_off(app)
    [row] = await market.book.execute("SELECT id FROM contacts")
    assert (run.outcome, len(await market.book.leads_of(row["id"]))) == (Outcome.AUTO, 1)


# -- the page ----------------------------------------------------------------------------------------------------------


async def test_the_page_asks_for_little_and_browsers_know_their_owner(client: httpx.AsyncClient) -> None:
    fields = page(await client.get(PATH)).xpath("//form//div[@class='field' or @class='field tick']//*[@name]")

    assert {field.get("name"): field.get("autocomplete") for field in fields} == {
        "given_name": "given-name",
        "surname": "family-name",
        "email": "email",
        "phone": "tel",
        "company": "organization",
        "postcode": "postal-code",
        "state": "address-level1",
        "message": "off",
        "consent": None,
    }


def test_the_service_has_the_page_as_it_comes() -> None:
    assert leads.triggers[0].form is PAGE
    assert "eventwright.graphs.leads" in SHIPPED_WORKFLOWS.split(",")
    assert PATH in (Path(__file__).parent.parent.parent / "docs" / "leads.md").read_text()
