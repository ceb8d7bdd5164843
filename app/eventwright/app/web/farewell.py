"""The answer to requests that a process which ends could not wait for."""

from __future__ import annotations

import asyncio

from starlette.types import ASGIApp, Message, Receive, Scope, Send

from eventwright.app.web.refusals import problem_response
from eventwright.app.wire.problems import RETRY_AFTER, Problem, ProblemType


class Farewell:
    """ASGI middleware that tells whoever is cut off at the end of the service to ask again.

    The server cancels what takes too long then, and would answer 500 for it.

    Args:
        ending: set when the service ends; whoever cancels a request before that wants no answer.
    """

    def __init__(self, inner: ASGIApp, ending: asyncio.Event) -> None:
        self._inner = inner
        self._ending = ending

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        begun = False

        async def sending(message: Message) -> None:
            nonlocal begun
            begun = True
            await send(message)

        try:
            await self._inner(scope, receive, sending)
        except asyncio.CancelledError:
            if self._ending.is_set() and scope["type"] == "http" and not begun:
                problem = Problem(
                    type=ProblemType.CUT_OFF,
                    detail="the service is ending; send the same again in a moment",
                    extensions={"retry_after": RETRY_AFTER},
                )
                await problem_response(problem, scope["path"])(scope, receive, send)
            raise
