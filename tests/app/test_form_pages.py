"""The page of a form: everybody can use it, and it asks what the payload's model asks."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import httpx
import pytest
from pydantic import BaseModel
from tests.app.quotes import FORM, GOOD, PATH, Wanted, browser, page, quotes

from eventwright.app.composition import App, open_app
from eventwright.app.settings import Settings
from eventwright.graphs.forms import Form
from eventwright.graphs.workflow import BadWorkflow, On


@pytest.fixture(params=[None, "a-key-of-ours"])
async def app(request: pytest.FixtureRequest, tmp_path: Path, sqlite_url: str) -> AsyncIterator[App]:
    """With a key and without one: a form is open to everybody because it is declared."""
    settings = Settings(home=tmp_path, database_url=sqlite_url, redis_url="none", api_key=request.param)
    async with open_app(settings, workflows=[quotes()]) as app:
        yield app


@pytest.fixture
async def client(app: App) -> AsyncIterator[httpx.AsyncClient]:
    async with browser(app) as client:
        yield client


async def test_the_page_asks_for_each_field_as_its_model_says(client: httpx.AsyncClient) -> None:
    answer = await client.get(PATH)
    fields = {field.get("name"): field for field in page(answer).xpath("//form//*[@name]")}

    for name in Wanted.model_fields:
        assert page(answer).xpath(f"//label[@for='{fields[name].get('id')}']"), f"{name} has no label"
    assert dict(fields["name"].attrib).items() >= {
        "type": "text", "required": "", "minlength": "2", "maxlength": "80", "autocomplete": "name",
    }.items()  # fmt: skip
    assert (fields["email"].get("type"), fields["email"].get("autocomplete")) == ("email", "email")
    assert [option.get("value") for option in fields["size"]] == ["", "small", "very_big"]
    assert "required" in fields["size"].attrib
    assert [fields["seats"].get(name) for name in ("type", "min", "max", "step", "value")] == [
        "number",
        "1",
        "999",
        "1",
        "5",
    ]
    assert (fields["budget"].get("step"), "required" in fields["budget"].attrib) == ("any", False)
    assert page(answer).get_element_by_id(fields["budget"].get("aria-describedby")).text == "In euros, for a year."
    assert fields["start"].get("type") == "date"
    assert fields["newsletter"].get("type") == "checkbox"
    assert fields["message"].tag == "textarea"
    assert page(answer).xpath("//h1/text()") == ["Ask for a <quote>"]
    assert page(answer).xpath("/html/@lang") == ["en"]


async def test_the_page_loads_nothing_from_elsewhere_and_runs_no_script(client: httpx.AsyncClient) -> None:
    answer = await client.get(PATH)
    policy = answer.headers["content-security-policy"]

    assert policy.startswith("default-src 'none'; style-src 'self'; form-action 'self'; frame-ancestors 'none'")
    assert answer.headers["cache-control"] == "no-store"
    assert not page(answer).xpath("//script | //@style | //img | //@*[starts-with(name(), 'on')]")
    assert page(answer).xpath("//@href | //@action") == ["/forms/style.css", PATH]
    style = await client.get("/forms/style.css")
    assert style.headers["content-type"].startswith("text/css")
    assert "prefers-color-scheme: dark" in style.text
    assert "url(" not in style.text


@pytest.mark.parametrize("path", ["/forms/quotes/quote.counted", "/forms/quotes/nothing", "/forms/nobody/quote.wanted"])
async def test_only_what_declares_a_form_has_one(client: httpx.AsyncClient, path: str) -> None:
    for answer in (await client.get(path), await client.post(path), await client.get(f"{path}/thanks")):
        assert answer.status_code == 404
        assert "no such form" in page(answer).text_content()
    plain = await client.post(f"/v1{path}", json=GOOD, headers={"accept": "application/json"})
    assert (plain.status_code, plain.json()["type"]) == (404, "urn:eventwright:problem:not-found")


async def test_a_key_still_guards_all_that_is_no_form(client: httpx.AsyncClient, app: App) -> None:
    expected = 401 if app.settings.api_key else 200
    for path in ("/v1/runs", "/v1/workflows", "/"):
        assert (await client.get(path)).status_code == expected


async def test_without_a_key_forms_are_for_this_machine_alone(client: httpx.AsyncClient, app: App) -> None:
    rebound = {"host": "evil.example.org", "accept": "text/html"}
    expected = 200 if app.settings.api_key else 403

    assert (await client.get(PATH, headers=rebound)).status_code == expected


class Nested(BaseModel):
    inner: Wanted


class Several(BaseModel):
    items: list[str]


@pytest.mark.parametrize(
    ("payload", "form", "match"),
    [
        ({}, FORM, "needs a payload model"),
        ({"1": Wanted}, Form(title="x", version="7"), "'7' is not among: 1"),
        ({"1": Wanted}, Form(title="x", fields={"nmae": "Name"}), "no field 'nmae'"),
        ({"1": Wanted}, Form(title="x", leave_out=("nmae",)), "no field 'nmae'"),
        ({"1": Wanted}, Form(title="x", leave_out=("seats", "name")), "needs 'name'"),
        ({"1": Nested}, Form(title="x"), "'inner', which is object"),
        ({"1": Several}, Form(title="x"), "'items', which is array"),
    ],
)
def test_a_form_that_cannot_be_made_is_refused_when_it_is_declared(payload: Any, form: Form, match: str) -> None:
    with pytest.raises(BadWorkflow, match=match):
        On("quote.wanted", payload=payload, form=form)
