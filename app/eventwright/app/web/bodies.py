"""Bodies from strangers: bounded in bytes, time, depth and shape before anything looks at them."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any, TypeVar

from fastapi import Request
from pydantic import ValidationError
from starlette.datastructures import Headers, MutableHeaders
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from eventwright.app.web.models import Body
from eventwright.app.wire.problems import Problem, ProblemType, Refused
from eventwright.app.wire.strict_json import LIMIT, TooLarge, parse
from eventwright.runs.errors import MOST_FAULTS, Overloaded, in_one_line

Model = TypeVar("Model", bound=Body)
Value = TypeVar("Value")

#: Seconds that a body may take to arrive.
PATIENCE = 20.0
#: Bytes above which a body is parsed in a thread, so that others are not kept waiting.
HEAVY = 64 * 1024
#: What is read of a body that nobody wants, in bytes and seconds, so that its sender gets to hear the answer.
LEFTOVERS = 16 * LIMIT
LEFTOVER_SECONDS = 2.0
#: Bytes of bodies that may be in hand in all requests together. What is read from JSON takes several times as much.
MOST_IN_HAND = 32 * LIMIT


async def read_body(request: Request) -> bytes:
    """The body, read no further than the limit.

    Raises:
        TooLarge: it is announced as longer than 1 MiB, or is.
        Refused: it did not arrive in time.
    """
    announced = request.headers.get("content-length", "")
    if announced.isdecimal() and int(announced) > LIMIT:
        raise TooLarge(int(announced), LIMIT)
    patience: float = request.app.state.patience
    body = bytearray()
    try:
        async with asyncio.timeout(patience):
            async for chunk in request.stream():
                body += chunk
                if len(body) > LIMIT:
                    raise TooLarge(len(body), LIMIT)
    except TimeoutError as error:
        detail = f"{len(body)} bytes arrived within {patience:g} s; send the whole body at once"
        raise Refused(Problem(type=ProblemType.TOO_SLOW, detail=detail)) from error
    return bytes(body)


async def read(body: bytes, reader: Callable[[bytes], Value]) -> Value:
    """What `reader` makes of the body; a heavy one is read in a thread."""
    return await asyncio.to_thread(reader, body) if len(body) > HEAVY else reader(body)


def body_of(
    model: type[Model], otherwise: ProblemType = ProblemType.BAD_REQUEST, *, required: bool = True
) -> Callable[[Request], Awaitable[Model]]:
    """A dependency that reads the body as this model; one that is not required may be empty.

    The dependency raises TooLarge, BadJSON, or Refused with `otherwise` and what does not fit.
    """

    async def dependency(request: Request) -> Model:
        raw = await read_body(request)
        value: Any = await read(raw, parse) if raw or required else {}
        try:
            return model.model_validate(value)
        except ValidationError as error:
            faults = error.errors(include_url=False, include_input=False, include_context=False)
            errors = [{"at": ".".join(map(str, fault["loc"])) or "body", "problem": fault["msg"]} for fault in faults]
            detail = in_one_line([f"{fault['at']}: {fault['problem']}" for fault in errors])
            problem = Problem(type=otherwise, detail=detail, extensions={"errors": errors[:MOST_FAULTS]})
            raise Refused(problem) from error

    return dependency


class Bodies:
    """ASGI middleware that bounds the bodies of all requests together, and sees to the rest of one that nobody read.

    Where the bodies in hand come to too much, the request whose body goes on is refused, until others are answered.

    Of the rest of a body that was answered before it was read, a little is read and thrown away, because a sender in
    the middle of its body may never look at an answer that comes with a closed connection. What is still missing then
    is not waited for: the connection is closed.
    """

    def __init__(self, inner: ASGIApp) -> None:
        self._inner = inner
        self._in_hand = 0

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._inner(scope, receive, send)
            return
        headers = Headers(scope=scope)
        whole = headers.get("content-length", "0") == "0" and "transfer-encoding" not in headers
        held = 0

        async def receiving() -> Message:
            nonlocal whole
            message = await receive()
            whole = whole or not message.get("more_body", False)
            return message

        async def holding() -> Message:
            nonlocal held
            message = await receiving()
            held += len(message.get("body", b""))
            self._in_hand += len(message.get("body", b""))
            if self._in_hand > MOST_IN_HAND:
                raise Overloaded(f"{self._in_hand} bytes of bodies are being read already")
            return message

        async def sending(message: Message) -> None:
            if message["type"] == "http.response.start" and not whole:
                # Who waits for a 100 Continue has not sent anything yet.
                if "expect" not in headers:
                    await _discard(receiving)
                if not whole:
                    MutableHeaders(scope=message)["connection"] = "close"
            await send(message)

        try:
            await self._inner(scope, holding, sending)
        finally:
            self._in_hand -= held


async def _discard(receive: Receive) -> None:
    """Read what is left of a body, within bounds."""
    discarded = 0
    try:
        async with asyncio.timeout(LEFTOVER_SECONDS):
            while discarded <= LEFTOVERS:
                message = await receive()
                discarded += len(message.get("body", b""))
                if not message.get("more_body", False):
                    return
    except TimeoutError:
        return
