"""Who may come into the inbox: whoever has the key, whoever sits at this machine, and no page of anybody else."""

from __future__ import annotations

import base64
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AbstractAsyncContextManager
from typing import Any

import httpx
import pytest
from itsdangerous import URLSafeTimedSerializer
from tests.app.inbox_pages import REVIEWS, RUNS, alert, fields, page, press, words

from eventwright.app.composition import App
from eventwright.app.inbox.sessions import LASTS, Sessions
from eventwright.app.web.access import Principal
from eventwright.runs.records import ReviewState

Paused = Callable[..., Awaitable[tuple[str, str]]]
Opened = Callable[..., AbstractAsyncContextManager[App]]
KEY = "correct horse battery staple"
SIGN_IN = "/inbox/sign-in"
ANN = Principal("ann", verified=False)


@pytest.fixture
async def keyed(opened: Opened) -> AsyncIterator[App]:
    """The same database, served with a key."""
    async with opened(api_key=KEY) as app:
        yield app


@pytest.fixture
async def visitor(keyed: App, client_of: Any) -> AsyncIterator[httpx.AsyncClient]:
    async with client_of(keyed, base_url="https://tickets.example") as client:
        yield client


async def sign_in(client: httpx.AsyncClient, key: str = KEY, name: str = "ann", **more: Any) -> httpx.Response:
    return await client.post(SIGN_IN, data={"key": key, "name": name, "next": RUNS}, **more)


# -- with a key --------------------------------------------------------------------------------------------------------


async def test_who_has_not_signed_in_sees_no_page_and_decides_nothing(
    app: App, client: httpx.AsyncClient, paused: Paused, visitor: httpx.AsyncClient
) -> None:
    run_id, review_id = await paused(client)
    seen = fields(await client.get(f"{REVIEWS}/{review_id}"), "approve")
    for place in ("/inbox", "/inbox/", RUNS, f"{RUNS}/{run_id}", f"{REVIEWS}/{review_id}", "/inbox/nothing"):
        answer = await visitor.get(place)
        assert (answer.status_code, answer.text) == (303, "")
        assert answer.headers["location"].startswith(f"{SIGN_IN}?next=%2Finbox")
    for post in (f"{REVIEWS}/{review_id}/decision", f"{RUNS}/{run_id}/cancel", f"{RUNS}/{run_id}/replay"):
        answer = await visitor.post(post, data=seen)
        assert answer.status_code == 401
        assert "what you wrote is not lost" in words(answer)
    assert (await app.store.review(review_id)).state is ReviewState.OPEN


@pytest.mark.parametrize("key", ["", "wrong", f"{KEY}x", KEY[:-1], "schlüssel"])
async def test_a_wrong_key_lets_nobody_in_and_is_not_repeated(visitor: httpx.AsyncClient, key: str) -> None:
    answer = await sign_in(visitor, key)
    assert (answer.status_code, "set-cookie" in answer.headers) == (401, False)
    assert "This is not the key." in words(answer)
    form = page(answer).forms[0]
    assert (form.fields["name"], form.fields["next"], form.fields["key"]) == ("ann", RUNS, None)


async def test_who_tries_too_often_has_to_wait(visitor: httpx.AsyncClient) -> None:
    answers = [await sign_in(visitor, "wrong") for _ in range(25)]
    assert {answer.status_code for answer in answers} == {401, 429}
    assert answers[-1].headers["retry-after"].isdecimal()
    assert (await sign_in(visitor)).status_code == 429


@pytest.mark.parametrize("name", ["deadline", "API-Keys\u202e", "x" * 201, "gate"])
async def test_a_name_that_cannot_stand_in_a_record_is_asked_for_again(visitor: httpx.AsyncClient, name: str) -> None:
    answer = await sign_in(visitor, name=name)
    assert (answer.status_code, "set-cookie" in answer.headers) == (422, False)


@pytest.mark.parametrize(
    "wanted",
    [
        "https://evil.example",
        "//evil.example",
        "/\\evil.example",
        "/inbox/../v1/events",
        "/inboxes",
        "/inbox//evil.example",
        "/inbox/sign-in?next=x",
        "javascript:alert(1)",
        "/inbox?a=\r\nset-cookie: x",
        "/inbox" + "/x" * 1000,
    ],
)
async def test_nobody_is_led_anywhere_else_after_signing_in(visitor: httpx.AsyncClient, wanted: str) -> None:
    answer = await visitor.post(SIGN_IN, data={"key": KEY, "next": wanted})
    assert (answer.status_code, answer.headers["location"]) == (303, "/inbox")
    asked = page(await visitor.get(SIGN_IN, params={"next": wanted}))
    assert asked.forms[0].fields["next"] == "/inbox"


def genuine(key: str | None = KEY) -> str:
    return Sessions(key).token(ANN)


FORGERIES: dict[str, Callable[[], str]] = {
    "none": lambda: "",
    "a dot": lambda: ".",
    "two dots": lambda: "..",
    "a letter": lambda: "x",
    "another name": lambda: URLSafeTimedSerializer("guessed").dumps("boss").partition(".")[0] + genuine()[6:],
    "of a guessed key": lambda: str(URLSafeTimedSerializer("guessed").dumps("ann")),
    "cut": lambda: genuine()[:-1],
    "longer": lambda: genuine() + "0",
    "other letters": lambda: genuine().swapcase(),
    "another key": lambda: genuine("another key"),
    "no key": lambda: genuine(None),
    "huge": lambda: "a" * 100_000,
}


@pytest.mark.parametrize("forgery", FORGERIES)
async def test_a_cookie_that_is_forged_or_of_another_key_is_none(visitor: httpx.AsyncClient, forgery: str) -> None:
    cookie = f"eventwright_inbox={FORGERIES[forgery]()}"
    assert (await visitor.get("/inbox", headers={"cookie": cookie})).status_code == 303
    assert (await visitor.get("/inbox", headers={"cookie": f"eventwright_inbox={genuine()}"})).status_code == 200


async def test_another_key_ends_every_session(opened: Opened, client_of: Any, visitor: httpx.AsyncClient) -> None:
    await sign_in(visitor)
    cookie = {"cookie": f"eventwright_inbox={visitor.cookies['eventwright_inbox']}"}
    for key, expected in ((KEY, 200), ("another key", 303)):
        async with opened(api_key=key) as app, client_of(app) as client:
            assert (await client.get("/inbox", headers=cookie)).status_code == expected


def test_a_session_lasts_half_a_day(monkeypatch: pytest.MonkeyPatch) -> None:
    signed_in = int(time.time())
    token = genuine()
    # The clock of the machine that is asked may be a little behind that of the one where somebody signed in.
    for later, expected in ((LASTS - 60, ANN), (LASTS + 60, None), (-10, ANN), (-60, None)):
        monkeypatch.setattr("time.time", lambda now=signed_in + later: now)
        assert Sessions(KEY).read(token) == expected


@pytest.mark.parametrize(
    ("headers", "secure"), [({"origin": "https://tickets.example"}, True), ({}, True), ({"origin": "null"}, None)]
)
async def test_the_cookie_holds_no_key_and_stays_with_the_inbox(
    visitor: httpx.AsyncClient, headers: dict[str, str], secure: bool | None
) -> None:
    answer = await sign_in(visitor, headers=headers)
    if secure is None:
        assert answer.status_code == 403
        return
    cookie = answer.headers["set-cookie"]
    assert KEY not in cookie
    content = cookie.partition("=")[2].partition(".")[0]
    assert base64.urlsafe_b64decode(content + "=" * (-len(content) % 4)) == b'"ann"'
    parts = {part.strip().lower() for part in cookie.split(";")}
    assert {"httponly", "samesite=strict", "path=/inbox", f"max-age={LASTS}", "secure"} <= parts


async def test_without_tls_the_cookie_comes_all_the_same(keyed: App, client_of: Any) -> None:
    async with client_of(keyed, base_url="http://tickets.example") as client:
        answer = await sign_in(client, headers={"origin": "http://tickets.example"})
        assert "secure" not in answer.headers["set-cookie"].lower()


async def test_who_signed_in_decides_in_the_name_they_gave(
    app: App, client: httpx.AsyncClient, paused: Paused, visitor: httpx.AsyncClient
) -> None:
    for number, (name, by, verified) in enumerate([("ann", "ann", False), ("", "api-key", True)]):
        _, review_id = await paused(client, str(number))
        assert (await sign_in(visitor, name=name)).headers["location"] == RUNS
        assert (await press(visitor, review_id, "approve")).status_code == 303
        decision = (await app.store.review(review_id)).decision
        assert decision is not None
        assert (decision.by, decision.verified) == (by, verified)


async def test_the_key_in_a_header_opens_the_api_and_a_session_opens_the_inbox_alone(
    visitor: httpx.AsyncClient,
) -> None:
    assert (await visitor.get("/inbox", headers={"authorization": f"Bearer {KEY}"})).status_code == 303
    await sign_in(visitor)
    assert (await visitor.get("/inbox")).status_code == 200
    assert (await visitor.get("/v1/reviews")).status_code == 401


async def test_who_signs_out_is_out(visitor: httpx.AsyncClient) -> None:
    await sign_in(visitor)
    [mark] = page(await visitor.get("/inbox")).xpath("//form[@action='/inbox/sign-out']/input/@value")
    assert (await visitor.post("/inbox/sign-out", data={"form_token": "0" * 64})).status_code == 403
    assert (await visitor.post("/inbox/sign-out", data={"form_token": mark})).status_code == 303
    assert (await visitor.get("/inbox")).status_code == 303


async def test_who_comes_from_a_link_in_a_mail_is_taken_on_with_their_session(visitor: httpx.AsyncClient) -> None:
    answer = await visitor.get(f"{REVIEWS}/rev_1?workflow=a", headers={"sec-fetch-site": "cross-site"})
    assert answer.status_code == 200
    assert page(answer).xpath("//meta[@http-equiv]/@content") == [f"0;url={REVIEWS}/rev_1?workflow=a"]


async def test_what_was_written_before_a_session_ended_is_there_after_the_next_one_began(
    app: App, client: httpx.AsyncClient, paused: Paused, visitor: httpx.AsyncClient
) -> None:
    _, review_id = await paused(client)
    await sign_in(visitor)
    seen = fields(await visitor.get(f"{REVIEWS}/{review_id}"), "reject") | {"comment": "a long thought"}
    await sign_in(visitor, name="bob")

    answer = await visitor.post(f"{REVIEWS}/{review_id}/decision", data=seen)

    assert answer.status_code == 403
    assert "send it once more" in alert(answer)
    again = fields(answer, "reject")
    assert again["comment"] == "a long thought"
    assert (await app.store.review(review_id)).state is ReviewState.OPEN
    assert (await visitor.post(f"{REVIEWS}/{review_id}/decision", data=again)).status_code == 303


# -- whoever it is -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "headers",
    [
        {"origin": "https://evil.example"},
        {"origin": "null"},
        {"origin": "https://evil.example", "sec-fetch-site": "cross-site"},
        {"sec-fetch-site": "cross-site"},
        {"sec-fetch-site": "same-site"},
    ],
)
@pytest.mark.parametrize("with_key", [False, True])
async def test_a_page_of_another_site_cannot_decide(
    app: App,
    client: httpx.AsyncClient,
    paused: Paused,
    visitor: httpx.AsyncClient,
    headers: dict[str, str],
    with_key: bool,
) -> None:
    run_id, review_id = await paused(client)
    browser = visitor if with_key else client
    if with_key:
        await sign_in(visitor)
    seen = fields(await browser.get(f"{REVIEWS}/{review_id}"), "approve")
    for post in (f"{REVIEWS}/{review_id}/decision", f"{RUNS}/{run_id}/cancel", f"{RUNS}/{run_id}/replay", SIGN_IN):
        assert (await browser.post(post, data=seen, headers=headers)).status_code == 403
    assert (await app.store.review(review_id)).state is ReviewState.OPEN


@pytest.mark.parametrize("mark", ["", "0" * 64, "x"])
async def test_a_form_without_the_mark_of_the_session_decides_nothing(
    app: App, client: httpx.AsyncClient, paused: Paused, mark: str
) -> None:
    run_id, review_id = await paused(client)
    assert (await press(client, review_id, "approve", form_token=mark)).status_code == 403
    assert (await client.post(f"{RUNS}/{run_id}/cancel", data={"form_token": mark})).status_code == 403
    assert (await app.store.review(review_id)).state is ReviewState.OPEN


@pytest.mark.parametrize("host", ["evil.example", "127.0.0.1.evil.example:8585"])
async def test_a_name_that_was_rebound_to_this_machine_sees_nothing(client: httpx.AsyncClient, host: str) -> None:
    assert (await client.get("/inbox", headers={"host": host})).status_code == 403


async def test_without_a_key_nobody_has_to_sign_in(client: httpx.AsyncClient) -> None:
    answer = await client.get(SIGN_IN, params={"next": RUNS})
    assert (answer.status_code, answer.headers["location"]) == (303, RUNS)
    assert "Sign out" not in (await client.get("/inbox")).text


async def test_every_page_keeps_to_itself(client: httpx.AsyncClient, paused: Paused) -> None:
    run_id, review_id = await paused(client)
    for place in ("/inbox", f"{REVIEWS}/{review_id}", RUNS, f"{RUNS}/{run_id}", f"{RUNS}/{run_id}/cancel", "/inbox/x"):
        headers = (await client.get(place)).headers
        policy = headers["content-security-policy"]
        assert policy.startswith("default-src 'none'; style-src 'self'; script-src 'self'")
        assert "unsafe" not in policy
        assert all(part in policy for part in ("form-action 'self'", "frame-ancestors 'none'", "base-uri 'none'"))
        assert (headers["cache-control"], headers["x-content-type-options"]) == ("no-store", "nosniff")
        assert headers["referrer-policy"] == "same-origin"


async def test_the_style_and_the_script_need_no_session_and_load_nothing(visitor: httpx.AsyncClient) -> None:
    asked = page(await visitor.get(SIGN_IN))
    addresses = asked.xpath("//link[@rel='stylesheet']/@href | //script/@src")
    assert len(addresses) == 2
    for address in addresses:
        answer = await visitor.get(address)
        assert answer.headers["content-type"].startswith(("text/css", "text/javascript"))
        assert "url(" not in answer.text
        assert "http" not in answer.text
    assert (await visitor.get("/inbox/files/frame.html")).status_code == 404


async def test_a_process_of_another_version_leaves_no_wrong_style_behind(visitor: httpx.AsyncClient) -> None:
    [address] = page(await visitor.get(SIGN_IN)).xpath("//link[@rel='stylesheet']/@href")
    assert "immutable" in (await visitor.get(address)).headers["cache-control"]
    for other in (address.partition("?")[0], f"{address}0"):
        assert (await visitor.get(other)).headers["cache-control"] == "no-store"


async def test_the_inbox_can_be_left_out(opened: Opened, client_of: Any) -> None:
    async with opened(inbox=False) as app, client_of(app) as client:
        assert (await client.get("/inbox")).status_code == 404
        assert "inbox" not in (await client.get("/")).json()["links"]
