"""The real server: what a socket can do to it, and how it starts and stops inside somebody else's loop."""

from __future__ import annotations

import asyncio
import json
import signal
import socket
import sqlite3
from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from dataclasses import replace
from typing import Any
from urllib.parse import urlsplit

import httpx
import pytest
from pydantic import BaseModel, model_validator

from eventwright.app.composition import App
from eventwright.app.web.api import serve_api
from eventwright.app.web.listening import CannotListen, listen
from eventwright.graphs.workflow import On
from eventwright.runs.event import Event

Opened = Callable[..., AbstractAsyncContextManager[App]]


@asynccontextmanager
async def connected(url: str) -> AsyncIterator[tuple[asyncio.StreamReader, asyncio.StreamWriter]]:
    address = urlsplit(url)
    reader, writer = await asyncio.open_connection(address.hostname, address.port)
    try:
        yield reader, writer
    finally:
        writer.close()
        await writer.wait_closed()


async def answer_to(url: str, sent: bytes) -> bytes:
    """Everything that comes back until the server hangs up, to somebody who sends this and then nothing more."""
    async with connected(url) as (reader, writer):
        writer.write(sent)
        await writer.drain()
        return await reader.read()


def head(path: str = "/v1/events", **headers: str) -> bytes:
    named = {"Host": "localhost", "Content-Type": "application/cloudevents+json"} | headers
    lines = "".join(f"{name.replace('_', '-')}: {value}\r\n" for name, value in named.items())
    return f"POST {path} HTTP/1.1\r\n{lines}\r\n".encode()


def problem(answer: bytes) -> dict[str, Any]:
    """The problem document in a raw answer that closes its connection."""
    headers, _, body = answer.partition(b"\r\n\r\n")
    assert b"application/problem+json" in headers
    assert b"connection: close" in headers.lower()
    document: dict[str, Any] = json.loads(body)
    return document


async def test_an_answer_is_not_held_back_until_its_head_is_acknowledged():
    with listen("127.0.0.1", 0) as listening, socket.create_connection(listening.getsockname()):
        connection, _ = listening.accept()
        with connection:
            assert connection.getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY)


async def test_a_body_that_never_ends_is_answered_and_hung_up_on(app: App, serving: Any):
    async with serving(app, patience=0.2) as url:
        answer = await answer_to(url, head(Content_Length="100") + b'{"specversion": ')
        assert problem(answer)["status"] == 408
        answer = await answer_to(url, head(Transfer_Encoding="chunked") + b"2\r\n{}\r\n")
        assert problem(answer)["status"] == 408


@pytest.mark.parametrize("sent", [b"", b"POST /v1/ev", b"POST /v1/events HTTP/1.1\r\nHost: localh"])
async def test_a_head_that_never_ends_is_hung_up_on(app: App, serving: Any, sent: bytes):
    async with serving(app, patience=0.2) as url:
        assert await answer_to(url, sent) == b""


async def test_a_second_head_that_never_ends_is_hung_up_on_too(app: App, serving: Any):
    async with serving(app, patience=0.2) as url:
        whole = b"GET /healthz HTTP/1.1\r\nHost: localhost\r\n\r\n"
        answer = await answer_to(url, whole + b"GET /healthz HT")
        assert answer.endswith(b'{"status":"ok"}')


async def test_a_huge_body_is_refused_before_it_is_read(app: App, serving: Any):
    async with serving(app) as url:
        answer = await answer_to(url, head(Content_Length="107374182400", Expect="100-continue"))
        assert problem(answer)["status"] == 413
        assert b"100 Continue" not in answer


@pytest.mark.parametrize("size", [2, 12])
async def test_who_sends_too_much_still_gets_to_read_the_answer(app: App, serving: Any, size: int):
    async with serving(app) as url, httpx.AsyncClient(base_url=url) as client:
        for path in ("/v1/events", "/v1/webhooks/shop", "/v1/reviews/rev_1/decision"):
            response = await client.post(path, content=b" " * (size * 1024 * 1024))
            assert response.status_code == 413, path


async def test_a_body_that_nobody_asked_for_does_not_stay_on_the_line(app: App, serving: Any):
    async with serving(app, patience=0.2) as url:
        answer = await answer_to(url, head("/v1/nowhere", Content_Length="10") + b"abc")
        assert problem(answer)["status"] == 404


async def test_a_caller_that_hangs_up_in_the_middle_leaves_the_service_well(app: App, serving: Any):
    async with serving(app) as url:
        async with connected(url) as (_, writer):
            writer.write(head(Content_Length="100") + b"{")
            await writer.drain()
        async with httpx.AsyncClient(base_url=url) as client:
            assert (await client.get("/readyz")).status_code == 200
            assert (await client.get("/v1/events")).json()["items"] == []


async def test_garbage_instead_of_http_is_hung_up_on(app: App, serving: Any):
    async with serving(app) as url:
        assert (await answer_to(url, b"\x16\x03\x01\x00\xff\r\n\r\n")).startswith(b"HTTP/1.1 400")


async def test_an_address_that_is_taken_is_named_with_what_to_do(opened: Opened, serving: Any):
    async with opened() as app, serving(app) as url, opened(port=urlsplit(url).port) as second:
        with pytest.raises(CannotListen, match="EVENTWRIGHT_PORT"):
            await serve_api(second, asyncio.Event())


class BrokenModel(BaseModel):
    """A payload model whose own code fails."""

    @model_validator(mode="after")
    def look(self) -> BrokenModel:
        raise RuntimeError("password=hunter2")


class BrokenTrigger(On):
    """A trigger that fails at every event."""

    def matches(self, event: Event) -> bool:
        raise RuntimeError("password=hunter2")


@pytest.mark.parametrize(
    ("trigger", "status"),
    [(On("broken", payload={"1": BrokenModel}), 422), (BrokenTrigger("broken"), 500)],
    ids=["a payload model", "ours"],
)
async def test_a_fault_inside_tells_nothing(
    opened: Opened, client_of: Any, paying_workflow: Any, trigger: On, status: int
):
    workflow = replace(paying_workflow("broken", "broken"), triggers=[trigger])
    async with opened(workflow) as app, client_of(app) as client:
        data = {"account": "ann", "amount": "1"}
        body = {"specversion": "1.0", "id": "1", "source": "/shop", "type": "broken", "data": data}
        headers = {"content-type": "application/cloudevents+json"}
        response = await client.post("/v1/events", json=body, headers=headers)
    assert (response.status_code, response.headers["content-type"]) == (status, "application/problem+json")
    assert "hunter2" not in response.text
    assert "Traceback" not in response.text


@pytest.mark.parametrize("host", ["127.0.0.1", "localhost", "::1"])
async def test_a_server_is_ready_where_it_says(opened: Opened, serving: Any, host: str):
    async with opened(host=host) as app, serving(app) as url, httpx.AsyncClient(base_url=url) as client:
        assert (await client.get("/healthz")).json() == {"status": "ok"}
        assert (await client.get("/v1/runs")).status_code == 200


async def test_signals_stay_with_whoever_owns_the_loop(app: App, serving: Any):
    before = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}
    async with serving(app) as url, httpx.AsyncClient(base_url=url) as client:
        await client.get("/healthz")
        assert {number: signal.getsignal(number) for number in before} == before


async def test_who_is_cut_off_when_the_service_ends_is_told_to_ask_again(opened: Opened, sqlite_url: str):
    async with opened() as app:
        ready: asyncio.Future[str] = asyncio.get_running_loop().create_future()
        stopping = asyncio.Event()
        served = asyncio.create_task(serve_api(app, stopping, on_ready=ready.set_result))
        stranger = sqlite3.connect(sqlite_url.partition(":///")[2], isolation_level=None)
        stranger.execute("BEGIN IMMEDIATE")
        wanted = {"type": "refund.urgent", "data": {"account": "ann", "amount": 5}}
        body = json.dumps({"specversion": "1.0", "id": "1", "source": "/test"} | wanted)
        sent = head(Content_Length=str(len(body))) + body.encode()
        asked = asyncio.create_task(answer_to(await ready, sent))
        await asyncio.sleep(0.3)
        stopping.set()
        answer = await asked
        stranger.close()
        await served
    assert answer.startswith(b"HTTP/1.1 503 ")
    assert b"retry-after: 2" in answer.lower()
    assert json.loads(answer.partition(b"\r\n\r\n")[2])["type"].endswith("cut-off")


async def test_a_server_that_is_cancelled_lets_its_address_go(opened: Opened):
    async with opened() as app:
        ready: asyncio.Future[str] = asyncio.get_running_loop().create_future()
        served = asyncio.create_task(serve_api(app, asyncio.Event(), on_ready=ready.set_result))
        address = urlsplit(await ready)
        served.cancel()
        with pytest.raises(asyncio.CancelledError):
            await served
        with pytest.raises(ConnectionRefusedError):
            await asyncio.open_connection(address.hostname, address.port)
