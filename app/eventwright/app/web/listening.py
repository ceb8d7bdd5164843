"""Uvicorn inside a loop that is not its own: no signal handlers, a socket of ours, a time limit for request heads."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from typing import Any

import uvicorn
from starlette.types import ASGIApp
from uvicorn.protocols.http.h11_impl import H11Protocol

from eventwright.runs.errors import EventwrightError

#: Seconds that a shutdown waits for requests under way.
FAREWELL = 5
#: Connections that wait to be accepted.
BACKLOG = 2048


class CannotListen(EventwrightError, OSError):
    """The address is taken, or is none of this machine."""

    def __init__(self, host: str, port: int, error: OSError) -> None:
        self.host, self.port = host, port
        super().__init__(
            f"cannot listen on {host}:{port}: {error.strerror or error}; "
            "set EVENTWRIGHT_HOST and EVENTWRIGHT_PORT, 0 takes any free port"
        )


class PromptHeads(H11Protocol):
    """HTTP/1.1 that hangs up on a connection which takes too long over the head of a request.

    Uvicorn has no limit for that; the time for a body is the business of whoever reads it.
    """

    def __init__(self, *args: Any, patience: float, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self._patience = patience
        self._awaited_head: asyncio.TimerHandle | None = None

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]  # as uvicorn has it
        super().connection_made(transport)
        self._await_head()

    def data_received(self, data: bytes) -> None:
        super().data_received(data)
        under_way = self.cycle is not None and not self.cycle.response_complete
        if under_way:
            self._forget()
        else:
            self._await_head()

    def connection_lost(self, exc: Exception | None) -> None:
        self._forget()
        super().connection_lost(exc)

    def _await_head(self) -> None:
        """Start the clock, unless it is running for this very head."""
        if self._awaited_head is None:
            self._awaited_head = self.loop.call_later(self._patience, self.timeout_keep_alive_handler)

    def _forget(self) -> None:
        if self._awaited_head is not None:
            self._awaited_head.cancel()
            self._awaited_head = None


class Server(uvicorn.Server):
    """Uvicorn that leaves the signals to whoever owns the loop. Set `should_exit` to end it."""

    @contextmanager
    def capture_signals(self) -> Iterator[None]:
        yield


def server_for(api: ASGIApp, *, patience: float) -> Server:
    """A server for this API.

    Args:
        api: what to serve.
        patience: seconds that the head of a request may take.
    """
    config = uvicorn.Config(
        api,
        http=partial(PromptHeads, patience=patience),  # type: ignore[arg-type]  # it only ever calls it
        ws="none",
        lifespan="off",
        log_config=None,
        access_log=False,
        server_header=False,
        proxy_headers=False,
        timeout_graceful_shutdown=FAREWELL,
    )
    return Server(config)


def listen(host: str, port: int) -> socket.socket:
    """A listening socket; port 0 takes any free one. Raises CannotListen."""
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    try:
        listening = socket.create_server((host, port), family=family, backlog=BACKLOG)
    except OSError as error:
        raise CannotListen(host, port, error) from error
    # Connections inherit it. asyncio sets it on sockets that it made itself alone; without it the body of an answer
    # waits for the caller to acknowledge the head, which takes 40 ms.
    listening.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    return listening


async def serve_on(
    listening: socket.socket,
    api: ASGIApp,
    stopping: asyncio.Event,
    *,
    patience: float,
    on_end: Callable[[], None] = lambda: None,
) -> None:
    """Serve there until `stopping` is set; then requests that are under way get a few seconds to end.

    Args:
        patience: seconds that the head of a request may take.
        on_end: called before the server waits for what is under way.
    """
    server = server_for(api, patience=patience)
    serving = asyncio.create_task(server.serve(sockets=[listening]), name="server")
    waiting = asyncio.create_task(stopping.wait(), name="server stopping")
    try:
        await asyncio.wait({serving, waiting}, return_when=asyncio.FIRST_COMPLETED)
    finally:
        waiting.cancel()
        on_end()
        server.should_exit = True
        await serving


def url_of(listening: socket.socket) -> str:
    """The address of a listening socket, as a URL."""
    host, port = listening.getsockname()[:2]
    return f"http://[{host}]:{port}" if ":" in host else f"http://{host}:{port}"
