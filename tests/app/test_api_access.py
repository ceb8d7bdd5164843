"""Who may ask: without a key only this machine, and no web page in its browser; with a key only who brings it."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from contextlib import AbstractAsyncContextManager
from typing import Any

import httpx
import pytest

from eventwright.app.composition import App
from eventwright.app.web.access import OpenToStrangers, local_user

Opened = Callable[..., AbstractAsyncContextManager[App]]
Paused = Callable[..., Awaitable[tuple[str, str]]]
KEY = "correct horse battery staple"
EVERYWHERE = "0.0.0.0"  # noqa: S104 - the very thing that is refused
ADDRESSES = ["/", "/openapi.json", "/readyz", "/metrics", "/v1/runs", "/v1/reviews", "/v1/events", "/v1/nowhere"]


def status(response: httpx.Response) -> int:
    if response.status_code >= 400:
        assert response.headers["content-type"] == "application/problem+json", response.text
        assert response.json()["status"] == response.status_code
    return response.status_code


# -- without a key -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("host", [EVERYWHERE, "::", "192.0.2.1", "example.org", ""])
async def test_a_service_without_a_key_does_not_start_where_others_can_reach_it(
    opened: Opened, serving: Any, host: str
):
    async with opened(host=host) as app:
        with pytest.raises(OpenToStrangers, match="EVENTWRIGHT_API_KEY"):
            async with serving(app):
                pass


@pytest.mark.parametrize("key", ["", None])
async def test_an_empty_key_is_no_key(opened: Opened, serving: Any, key: str | None):
    async with opened(host=EVERYWHERE, api_key=key) as app:
        with pytest.raises(OpenToStrangers):
            async with serving(app):
                pass


@pytest.mark.parametrize(
    "host",
    ["evil.example", "evil.example:8585", "localhost.evil.example", "127.0.0.1.evil.example", "[", "", "10.0.0.1"],
)
@pytest.mark.parametrize("path", ["/", "/v1/runs", "/v1/nowhere"])
async def test_a_name_that_was_rebound_to_this_machine_is_refused(client: httpx.AsyncClient, host: str, path: str):
    assert status(await client.get(path, headers={"host": host})) == 403


@pytest.mark.parametrize(
    "host", ["localhost", "localhost:8585", "app.localhost", "127.0.0.1:1", "127.1.2.3", "[::1]:80"]
)
async def test_the_names_of_this_machine_are_answered(client: httpx.AsyncClient, host: str):
    assert status(await client.get("/v1/runs", headers={"host": host})) == 200


@pytest.mark.parametrize(
    "headers",
    [
        {"origin": "https://evil.example"},
        {"origin": "null"},
        {"origin": "http://["},
        {"origin": "http://localhost:3000"},
        {"origin": "http://127.0.0.1"},
        {"sec-fetch-site": "cross-site"},
        {"sec-fetch-site": "same-site"},
    ],
)
async def test_a_page_of_another_site_cannot_act(client: httpx.AsyncClient, headers: dict[str, str], paused: Paused):
    run_id, review_id = await paused(client)
    decision = f"/v1/reviews/{review_id}/decision"
    assert status(await client.post(decision, json={"type": "approve"}, headers=headers)) == 403
    assert status(await client.post(f"/v1/runs/{run_id}/cancel", headers=headers)) == 403
    assert (await client.get(f"/v1/reviews/{review_id}")).json()["state"] == "open"


async def test_a_page_of_our_own_can_act(client: httpx.AsyncClient, paused: Paused):
    run_id, _ = await paused(client)
    headers = {"origin": "http://localhost", "sec-fetch-site": "same-origin"}
    assert status(await client.post(f"/v1/runs/{run_id}/cancel", headers=headers)) == 202


async def test_a_webhook_may_come_through_a_tunnel_of_another_name(client: httpx.AsyncClient):
    # 401, for it is not signed; the name it came by does not matter.
    assert status(await client.post("/v1/webhooks/shop", headers={"host": "tunnel.example"})) == 401
    assert status(await client.get("/healthz", headers={"host": "10.0.0.1"})) == 200


@pytest.mark.parametrize(
    "name", [b"", b" ", b"a\tb", b"x" * 201, b"\xff", "half\u2028line".encode(), b"deadline", b"API-Key", b"gate"]
)
async def test_a_name_that_cannot_stand_in_a_journal_is_refused(client: httpx.AsyncClient, paused: Paused, name: bytes):
    _, review_id = await paused(client)
    response = await client.post(
        f"/v1/reviews/{review_id}/decision", json={"type": "approve"}, headers={"eventwright-actor": name}
    )
    assert status(response) == 400
    assert (await client.get(f"/v1/reviews/{review_id}")).json()["state"] == "open"


async def test_two_names_name_nobody(client: httpx.AsyncClient, paused: Paused):
    run_id, _ = await paused(client)
    headers = [("eventwright-actor", "ann"), ("eventwright-actor", "bob")]
    assert status(await client.post(f"/v1/runs/{run_id}/cancel", headers=headers)) == 400


async def test_who_says_no_name_is_the_user_of_this_machine_and_unverified(client: httpx.AsyncClient, paused: Paused):
    run_id, review_id = await paused(client)
    decided = (await client.post(f"/v1/reviews/{review_id}/decision", json={"type": "approve"})).json()["decision"]
    assert (decided["by"], decided["verified"]) == (local_user(), False)
    assert decided["by"].startswith("local:")
    entries = (await client.get(f"/v1/runs/{run_id}/journal")).json()["items"]
    (entry,) = [entry for entry in entries if entry["kind"] == "decision"]
    assert (entry["actor"], entry["data"]["verified"]) == (decided["by"], False)


# -- with a key --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "headers",
    [
        {},
        {"authorization": "Bearer "},
        {"authorization": "Bearer wrong"},
        {"authorization": f"Bearer {KEY}x"},
        {"authorization": f"Basic {KEY}"},
        {"authorization": KEY},
        {"authorization": "Bearer \xff".encode("latin-1")},
        {"x-api-key": KEY},
    ],
)
async def test_who_does_not_bring_the_key_gets_nothing(opened: Opened, client_of: Any, headers: Any):
    async with opened(api_key=KEY) as app, client_of(app) as client:
        for path in ADDRESSES:
            response = await client.get(path, headers=headers)
            assert status(response) == 401
            assert response.headers["www-authenticate"] == "Bearer"
            assert KEY not in response.text
        assert status(await client.post("/v1/events", content=b"{}", headers=headers)) == 401
        assert status(await client.get("/healthz", headers=headers)) == 200


async def test_two_keys_are_none(opened: Opened, client_of: Any):
    async with opened(api_key=KEY) as app, client_of(app) as client:
        headers = [("authorization", f"Bearer {KEY}"), ("authorization", "Bearer wrong")]
        assert status(await client.get("/v1/runs", headers=headers)) == 401


@pytest.mark.parametrize("scheme", ["Bearer", "bearer"])
async def test_who_brings_the_key_may_ask_by_any_name_of_the_service(opened: Opened, client_of: Any, scheme: str):
    async with opened(api_key=KEY) as app, client_of(app, base_url="https://tickets.example") as client:
        response = await client.get("/v1/runs", headers={"authorization": f"{scheme} {KEY}"})
        assert status(response) == 200


async def test_the_key_proves_its_holder_and_not_the_person_who_is_named(
    app: App, client: httpx.AsyncClient, opened: Opened, client_of: Any, paused: Paused
):
    reviews = [(await paused(client, str(number)))[1] for number in range(2)]
    async with opened(api_key=KEY) as keyed, client_of(keyed, headers={"authorization": f"Bearer {KEY}"}) as holder:
        decided = []
        for review_id, named in zip(reviews, ({}, {"eventwright-actor": "ann"}), strict=True):
            address = f"/v1/reviews/{review_id}/decision"
            decided.append((await holder.post(address, json={"type": "reject"}, headers=named)).json()["decision"])
    assert [(decision["by"], decision["verified"]) for decision in decided] == [("api-key", True), ("ann", False)]
