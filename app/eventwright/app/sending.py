"""`send`: an event comes in from Python, in this process or on another machine.

await send("ticket.created", {"sender": "ann@example.org", "text": "..."})
"""

from __future__ import annotations

import logging
import random
from asyncio import get_running_loop, sleep
from collections.abc import Awaitable, Callable
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from eventwright.app.settings import Settings
from eventwright.app.web.access import local_user
from eventwright.app.web.models import Accepted, AcceptedEvent
from eventwright.app.wire.envelopes import to_structured
from eventwright.app.wire.problems import ProblemType, problem_of
from eventwright.runs.errors import EventwrightError
from eventwright.runs.event import Event, new_id
from eventwright.tools.event_api import post_event

if TYPE_CHECKING:
    from eventwright.app.composition import App

log = logging.getLogger(__name__)

#: Seconds for which an event is sent again and again to a service that asks to come back later.
PATIENCE = 60.0
#: Seconds between two attempts at the least, whatever the service says.
SHORTEST = 0.5
#: Where events come from that do not say.
SOURCE = "/python"
_EVERYWHERE = {"0.0.0.0": "127.0.0.1", "::": "::1", "": "127.0.0.1"}  # noqa: S104 - this is where not to connect to


class NotAccepted(EventwrightError, ValueError):
    """The event was not accepted; `problem` is the problem document that says why."""

    def __init__(self, event: Event, problem: dict[str, Any]) -> None:
        self.event, self.problem = event, problem
        words = problem.get("detail") or problem.get("title") or "no reason was given"
        super().__init__(f"event {event.id!r} was not accepted ({problem.get('status')}): {words}")


async def send(
    event: Event | str,
    data: Any = None,
    *,
    id: str | None = None,
    source: str = SOURCE,
    to: str | App | None = None,
    key: str | None = None,
    by: str | None = None,
    patience: float = PATIENCE,
) -> dict[str, Any]:
    """Send an event; when this returns, the event and its runs are committed.

    A service that is too busy, or whose database is away, says when to come again, and then the same event is sent
    again, which is logged as a warning.

    Args:
        event: an Event, or the type of one.
        data: its payload, JSON; goes with a type.
        id: unique for its source; sent again with the same id, the event counts once. Default a new one.
        source: who says so, a URI reference; goes with a type.
        to: another machine's `http://host:port`, or an open App; default the service that the settings name.
        key: that service's EVENTWRIGHT_API_KEY; default the settings' own, for the service that they name.
        by: in whose name; where several people must approve what comes of it, this one is none of them. By default
            whom the machine, or the key, says you are.
        patience: seconds for which a busy service is tried; 0 tries once.

    Returns:
        `{"id", "source", "duplicate", "runs": [{"id", "workflow", "state"}]}`.

    Raises:
        NotAccepted: it was refused, or the service is busy for longer; with the problem document.
        Unreachable: nobody answers there.
        ValueError: the data is not JSON, or an attribute is not what CloudEvents allows.
    """
    if isinstance(event, str):
        event = Event(id=id or new_id("sent"), source=source, type=event, data=data)
    # Both ways take what can be sent, and nothing else.
    headers, body = to_structured(event)
    if to is not None and not isinstance(to, str):
        app, named = to, replace(event, principal=by or event.principal or local_user())
        return await _patiently(lambda: _receive(app, named), patience)
    if to is None:
        settings = Settings()
        to = address_of(settings)
        key = key or (settings.api_key.get_secret_value() if settings.api_key else None)
    address = to

    async def post() -> dict[str, Any]:
        reply = await post_event(address, headers, body, key=key, by=by)
        if not reply.accepted:
            raise NotAccepted(event, reply.document)
        (accepted,) = Accepted.model_validate(reply.document).events
        return accepted.model_dump(mode="json")

    return await _patiently(post, patience)


async def _patiently(attempt: Callable[[], Awaitable[dict[str, Any]]], patience: float) -> dict[str, Any]:
    """What the attempt brings, the first or a later one. Raises NotAccepted, Unreachable."""
    clock = get_running_loop().time
    deadline = clock() + patience
    while True:
        try:
            return await attempt()
        except NotAccepted as refused:
            asked = refused.problem.get("retry_after")
            if not isinstance(asked, int | float):
                raise
            # Never sooner than asked, and not all senders in the same moment.
            seconds = max(asked, SHORTEST) * random.uniform(1.0, 1.25)
            if clock() + seconds > deadline:
                raise
            log.warning("%s; it is sent again in %.0f s", refused, seconds)
            await sleep(seconds)


def address_of(settings: Settings) -> str:
    """The URL of the service that these settings describe, for a client on the same machine."""
    host = _EVERYWHERE.get(settings.host, settings.host)
    return f"http://[{host}]:{settings.port}" if ":" in host else f"http://{host}:{settings.port}"


async def _receive(app: App, event: Event) -> dict[str, Any]:
    try:
        receipt = await app.engine.receive(event)
    except EventwrightError as error:
        problem = problem_of(error)
        if problem.type is ProblemType.INTERNAL:
            raise
        raise NotAccepted(event, problem.document()) from error
    return AcceptedEvent.of(receipt).model_dump(mode="json")
