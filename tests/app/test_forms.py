"""Forms: posts of which none is lost and none counts twice, whoever sends them."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import AsyncIterator
from pathlib import Path

import httpx
import pytest
from pydantic import BaseModel, field_validator
from tests.app.quotes import GOOD, PATH, browser, events, look, page, quotes, summary, value
from tests.outside import chain

from eventwright.app.composition import App, open_app
from eventwright.app.settings import Settings
from eventwright.app.web import form_posts
from eventwright.app.web.bodies import HEAVY
from eventwright.app.web.form_posts import TOKEN, TRAP, Turnstile
from eventwright.graphs.forms import Form
from eventwright.graphs.workflow import On, Workflow
from eventwright.runs.errors import StoreUnavailable
from eventwright.runs.failpoints import Failpoint, on_failpoint


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


# -- what is written is kept, and what is wrong stands beside it -------------------------------------------------------


async def test_a_post_with_mistakes_comes_back_with_each_beside_its_field_and_all_that_was_written(
    client: httpx.AsyncClient, app: App
) -> None:
    wrong = {
        "name": "Z",
        "email": "nobody",
        "seats": "5000",
        "budget": "-1",
        "message": "a\r\n<b>",
        "newsletter": "true",
    }

    answer = await client.post(PATH, data=wrong)

    assert answer.status_code == 422
    assert page(answer).xpath("//title/text()") == ["Error: Ask for a <quote>"]
    assert summary(answer) == [
        "Name: Please write at least 2 characters.",
        "Email: Please write an e-mail address, as in ann@example.org.",
        "Size: Please fill this in.",
        "How many seats? This must be less than 1000.",
        "Budget: This must be more than 0.",
    ]
    for name in ("name", "email", "size", "seats", "budget"):
        [field] = page(answer).xpath(f"//*[@name='{name}']")
        described = field.get("aria-describedby").split()
        assert field.get("aria-invalid") == "true"
        assert any("Error:" in page(answer).get_element_by_id(each).text_content() for each in described)
        assert page(answer).xpath(f"//*[@role='alert']//a[@href='#{field.get('id')}']")
    for name, written in wrong.items():
        # The first line end in an area is the page's own.
        assert (value(answer, name) or "").removeprefix("\n") == written.replace("\r\n", "\n")
    assert await events(app) == []


async def test_a_mistake_of_the_whole_form_stands_above_it(client: httpx.AsyncClient, app: App) -> None:
    answer = await client.post(PATH, data=GOOD | {"size": "very_big"})

    assert (answer.status_code, summary(answer)) == (422, ["very big ones begin with 50 seats"])
    assert value(answer, "size") == "very_big"


@pytest.mark.parametrize(
    ("content", "type", "status"),
    [
        (b"", "application/x-www-form-urlencoded", 422),
        (b"%%%&&==\xff\x00", "application/x-www-form-urlencoded", 422),
        (b"name=a&name=b", "application/x-www-form-urlencoded", 422),
        (b"&".join(b"f%d=1" % number for number in range(500)), "application/x-www-form-urlencoded", 400),
        (b"name=" + b"x" * (1024 * 1024), "application/x-www-form-urlencoded", 413),
        (b"--x\r\nnot a part", "multipart/form-data; boundary=x", 400),
        (b"hello", "multipart/form-data", 400),
        (b"hello", "text/plain", 415),
        (b"hello", "", 415),
        (b"[1]", "application/json", 400),
        (b"{", "application/json", 400),
        (b'{"name": {"a": [1]}, "seats": [5]}', "application/json", 422),
    ],
)
async def test_whatever_is_sent_is_answered_with_the_page_and_a_reason(
    client: httpx.AsyncClient, app: App, content: bytes, type: str, status: int
) -> None:
    answer = await client.post(PATH, content=content, headers={"content-type": type})

    assert answer.status_code == status
    assert summary(answer)
    assert value(answer, "name") is not None
    assert await events(app) == []


async def test_a_field_that_the_form_does_not_have_is_named(client: httpx.AsyncClient) -> None:
    answer = await client.post(PATH, data=GOOD | {"utm_source": "news"})

    assert summary(answer) == ["utm_source: This field is not part of the form."]


async def test_a_file_is_refused_with_words(client: httpx.AsyncClient, app: App) -> None:
    answer = await client.post(PATH, data=GOOD, files={"file": ("a.txt", b"hello")})

    assert answer.status_code == 400
    assert "cannot be read" in summary(answer)[0]
    assert await events(app) == []


async def test_a_database_that_is_away_loses_nothing_that_was_written(client: httpx.AsyncClient, app: App) -> None:
    def away(where: Failpoint) -> None:
        if where is Failpoint.INTAKE_STORING:
            raise StoreUnavailable("it is away")

    on_failpoint(away)
    try:
        token = value(await client.get(PATH), TOKEN)
        answer = await client.post(PATH, data=GOOD | {TOKEN: token})
    finally:
        on_failpoint(None)

    assert answer.status_code == 503
    assert "send it again" in summary(answer)[0]
    assert value(answer, "name") == GOOD["name"]
    assert value(answer, TOKEN) == token
    assert (await client.post(PATH, data=GOOD | {TOKEN: token})).status_code == 303


# -- programs and crowds -----------------------------------------------------------------------------------------------


async def test_what_a_program_fills_in_is_not_taken_and_a_person_whose_browser_did_it_can_mend_it(
    client: httpx.AsyncClient, app: App
) -> None:
    [trap] = page(await client.get(PATH)).xpath(f"//*[@name='{TRAP}']")
    assert (trap.get("tabindex"), trap.get("autocomplete")) == ("-1", "off")
    assert trap.xpath("ancestor::div[@aria-hidden='true']")

    answer = await client.post(PATH, data=GOOD | {TRAP: "+49 1"})

    assert answer.status_code == 422
    assert summary(answer) == ["Please leave this field empty, and send the form again."]
    assert not page(answer).xpath(f"//*[@name='{TRAP}']/ancestor::div[@aria-hidden]")
    assert value(answer, "name") == GOOD["name"]
    assert await events(app) == []


async def test_one_address_may_send_so_many_forms_and_no_more(tmp_path: Path, sqlite_url: str) -> None:
    settings = Settings(home=tmp_path, database_url=sqlite_url, redis_url="none", forms_per_minute=2)
    async with open_app(settings, workflows=[quotes()]) as app, browser(app) as client:
        answers = [await client.post(PATH, data=GOOD | {"seats": f"{seats}"}) for seats in range(1, 5)]
        plain = await client.post(f"/v1{PATH}", json=GOOD, headers={"accept": "application/json"})

        assert [answer.status_code for answer in answers] == [303, 303, 429, 429]
        assert value(answers[-1], "seats") == "4"
        assert 0 < int(answers[-1].headers["retry-after"]) <= 60
        assert (plain.status_code, plain.json()["type"]) == (429, "urn:eventwright:problem:too-busy")
        assert len(await events(app)) == 2


def test_a_client_waits_until_its_minute_is_over_and_a_crowd_of_them_takes_no_memory(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(form_posts, "MOST_CLIENTS", 10)
    now = 0.0
    turnstile = Turnstile(2, lambda: now)

    assert [turnstile.wait_of("ann") for _ in range(3)] == [0, 0, 30]
    assert turnstile.wait_of("bob") == 0
    now = 30.0
    assert [turnstile.wait_of("ann") for _ in range(2)] == [0, 30]
    for number in range(1000):
        turnstile.wait_of(f"{number}")
    assert len(turnstile._paid_at) == 10


async def test_a_page_of_another_site_may_not_post_for_its_visitors(client: httpx.AsyncClient, app: App) -> None:
    answer = await client.post(PATH, data=GOOD, headers={"sec-fetch-site": "cross-site"})

    assert answer.status_code == 403
    assert await events(app) == []


async def test_what_a_browser_posts_from_our_own_page_is_not_taken_for_another_sites(client: httpx.AsyncClient) -> None:
    shown = await client.get(PATH)
    # What Fetch says of the Origin of a post to one's own site, by the policy of the page that it comes from.
    origin = "null" if shown.headers["referrer-policy"] == "no-referrer" else "http://127.0.0.1"

    answer = await client.post(PATH, data=GOOD, headers={"origin": origin, "sec-fetch-site": "same-origin"})

    assert (answer.status_code, answer.headers["location"]) == (303, f"{PATH}/thanks")


# -- what is taken -----------------------------------------------------------------------------------------------------


async def test_a_form_sent_twice_is_one_event_and_one_that_was_changed_in_between_another(
    client: httpx.AsyncClient, app: App
) -> None:
    token = value(await client.get(PATH), TOKEN)
    good = GOOD | {TOKEN: token}

    answers = await asyncio.gather(*(client.post(PATH, data=good) for _ in range(5)))
    await client.post(PATH, data=good | {"seats": "8"})
    await client.post(PATH, data=GOOD | {TOKEN: value(await client.get(PATH), TOKEN)})

    assert {(answer.status_code, answer.headers["location"]) for answer in answers} == {(303, f"{PATH}/thanks")}
    assert [event.data["seats"] for event in await events(app)] == [7, 8, 7]
    [first, *_] = await events(app)
    assert (first.type, first.source) == ("quote.wanted", PATH)
    assert first.data == {
        "name": "Zoë Maß",
        "email": "zoe@example.org",
        "size": "small",
        "seats": 7,
        "budget": "12.50",
        "newsletter": True,
    }
    thanks = await client.get(f"{PATH}/thanks")
    assert "we will write to you" in page(thanks).text_content()


@pytest.mark.parametrize("encoding", ["utf-8", "cp1252"])
async def test_a_text_in_an_old_encoding_is_read_all_the_same(
    client: httpx.AsyncClient, app: App, encoding: str
) -> None:
    body = "&".join(f"{name}={text}" for name, text in GOOD.items()).encode(encoding)

    answer = await client.post(PATH, content=body, headers={"content-type": "application/x-www-form-urlencoded"})

    assert answer.status_code == 303
    assert [event.data["name"] for event in await events(app)] == ["Zoë Maß"]


@pytest.mark.parametrize("way", ["data", "json", "files"])
async def test_a_form_of_ones_own_may_be_sent_in_three_ways_and_is_answered_with_json(
    client: httpx.AsyncClient, app: App, way: str
) -> None:
    sent = {"files": {name: (None, text) for name, text in GOOD.items()}}.get(way, GOOD | {TOKEN: "t" * 20})
    if way == "files":
        sent = {**sent, TOKEN: (None, "t" * 20)}  # type: ignore[dict-item]
    accepts = {"accept": "*/*"}

    answers = [await client.post(f"/v1{PATH}", **{way: sent}, headers=accepts) for _ in range(2)]  # type: ignore[arg-type]

    assert [(answer.status_code, answer.json()["duplicate"]) for answer in answers] == [(202, False), (202, True)]
    [event] = await events(app)
    assert answers[0].json()["id"] == event.id
    assert event.data["budget"] == "12.50"


async def test_a_heavy_post_is_looked_at_beside_the_others_and_a_broken_validator_refuses_it(
    tmp_path: Path, sqlite_url: str
) -> None:
    threads: list[threading.Thread] = []

    class Wish(BaseModel):
        text: str

        @field_validator("text")
        @classmethod
        def second_word(cls, text: str) -> str:
            threads.append(threading.current_thread())
            return text.split()[1]

    form = On("wish.made", payload={"1": Wish}, form=Form(title="Your wish"))
    workflow = Workflow("wishes", version="1", graph=chain(look=look), triggers=[form])
    settings = Settings(home=tmp_path, database_url=sqlite_url, redis_url="none")
    path, accepts = "/forms/wishes/wish.made", {"accept": "*/*"}
    async with open_app(settings, workflows=[workflow]) as app, browser(app) as client:
        for sent in ({"json": {"text": "x" * 2 * HEAVY}}, {"data": {"text": "x" * 2 * HEAVY}}):
            answer = await client.post(f"/v1{path}", **sent, headers=accepts)  # type: ignore[arg-type]
            assert (answer.status_code, answer.json()["type"]) == (422, "urn:eventwright:problem:invalid-payload")
            assert "IndexError" in answer.text
            assert (await client.post(path, **sent)).status_code == 422  # type: ignore[arg-type]
        assert await events(app) == []
    assert len(threads) == 4
    assert threading.main_thread() not in threads


async def test_a_wrong_post_of_ones_own_form_is_a_problem_that_names_each_field(
    client: httpx.AsyncClient, app: App
) -> None:
    answer = await client.post(f"/v1{PATH}", json=GOOD | {"seats": 0}, headers={"accept": "application/json"})

    assert answer.status_code == 422
    assert answer.json()["errors"] == [{"at": "seats", "problem": "This must be at least 1."}]
    browsers = await client.post(f"/v1{PATH}", data=GOOD | {"seats": "0"})
    assert (browsers.status_code, summary(browsers)) == (422, ["How many seats? This must be at least 1."])
