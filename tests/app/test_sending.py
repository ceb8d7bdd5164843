"""`send`: an event from Python, into this process or over HTTP, and clear words when it does not work."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Callable
from contextlib import AbstractAsyncContextManager
from typing import Any
from urllib.parse import urlsplit

import pytest
from tests.loopback import on_loopback

from eventwright.app.composition import App
from eventwright.app.sending import NotAccepted, send
from eventwright.runs.event import Event
from eventwright.tools.event_api import Unreachable

Opened = Callable[..., AbstractAsyncContextManager[App]]
WISH = {"account": "ann", "amount": "10.00"}
EVERYWHERE = "0.0.0.0"  # noqa: S104 - with a key, and on a free port


@pytest.fixture
def nobody() -> str:
    """An address at which nobody listens."""
    with socket.create_server(("127.0.0.1", 0)) as unused:
        port = unused.getsockname()[1]
    return f"http://127.0.0.1:{port}"


async def test_an_address_without_a_service_is_named_with_what_to_do(nobody: str):
    with pytest.raises(Unreachable, match=r"eventwright up") as caught:
        await send("refund.wanted", WISH, to=nobody)
    assert isinstance(caught.value, ConnectionError)
    assert caught.value.url == f"{nobody}/v1/events"


@pytest.mark.parametrize("to", ["not a url", "ftp://127.0.0.1", "http://[", "http://"])
async def test_an_address_that_is_none_is_unreachable(to: str):
    with pytest.raises(Unreachable):
        await send("refund.wanted", WISH, to=to)


async def test_a_server_that_is_no_eventwright_is_unreachable():
    async def greet(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\nConnection: close\r\n\r\nhello")
        await writer.drain()

    async with on_loopback(greet) as port:
        with pytest.raises(Unreachable, match="200"):
            await send("refund.wanted", WISH, to=f"http://127.0.0.1:{port}")


@pytest.mark.parametrize("data", [float("nan"), {"a": 2**60}, {"a": "\x00"}, {"a": object()}])
async def test_data_that_cannot_be_kept_is_not_sent(app: App, nobody: str, data: Any):
    for to in (app, nobody):
        with pytest.raises(ValueError, match=r"(?s).+"):
            await send("refund.wanted", data, to=to)


@pytest.mark.parametrize("over_http", [False, True])
async def test_a_refused_event_raises_its_problem(app: App, serving: Any, over_http: bool):
    async with serving(app) as url:
        to = url if over_http else app
        with pytest.raises(NotAccepted, match="account") as refused:
            await send("refund.wanted", {"amount": "1"}, to=to)
        assert refused.value.problem["type"] == "urn:eventwright:problem:invalid-payload"
        await send("refund.wanted", WISH, id="1", to=to)
        with pytest.raises(NotAccepted) as conflict:
            await send("refund.wanted", WISH | {"amount": "2"}, id="1", to=to)
        assert conflict.value.problem["status"] == 409


async def test_without_the_key_nothing_is_accepted_and_with_it_all(opened: Opened, serving: Any):
    async with opened(api_key="the key") as app, serving(app) as url:
        with pytest.raises(NotAccepted, match="EVENTWRIGHT_API_KEY") as refused:
            await send("refund.wanted", WISH, to=url, key="another")
        assert refused.value.problem["status"] == 401
        assert (await send("refund.wanted", WISH, to=url, key="the key"))["duplicate"] is False


async def test_both_ways_give_the_same_answer(app: App, serving: Any):
    async with serving(app) as url:
        first = await send("refund.wanted", WISH, id="1", source="/shop", to=app)
        again = await send("refund.wanted", WISH, id="1", source="/shop", to=f"{url}/")
    assert again == first | {"duplicate": True}
    assert (first["id"], first["source"]) == ("1", "/shop")
    assert [(run["workflow"], run["state"]) for run in first["runs"]] == [("refunds", "received")]


async def test_an_event_without_an_id_is_a_new_one_each_time(app: App):
    first, second = [await send("refund.wanted", WISH, to=app) for _ in range(2)]
    assert first["id"] != second["id"]
    assert not second["duplicate"]


async def test_a_whole_event_keeps_all_its_attributes(app: App, serving: Any):
    event = Event(id="1", source="/crm", type="note", data=[1], subject="s", version="3", extensions={"tenant": "t"})
    async with serving(app) as url:
        await send(event, to=url)
    stored = await app.store.accepted_event("/crm", "1")
    assert stored is not None
    assert stored.event.digest == event.digest
    assert stored.event.extensions == {"tenant": "t"}


async def test_without_an_address_the_event_goes_where_the_settings_say(
    opened: Opened, serving: Any, monkeypatch: pytest.MonkeyPatch
):
    async with opened(api_key="the key", host=EVERYWHERE) as app, serving(app) as url:
        monkeypatch.setenv("EVENTWRIGHT_HOST", EVERYWHERE)
        monkeypatch.setenv("EVENTWRIGHT_PORT", str(urlsplit(url).port))
        monkeypatch.setenv("EVENTWRIGHT_API_KEY", "the key")
        assert len((await send("refund.wanted", WISH))["runs"]) == 1
