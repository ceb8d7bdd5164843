"""Eventwright on another machine, as a system outside: one request with an event, one answer."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import httpx

from eventwright.runs.errors import EventwrightError

#: Seconds that the other machine has to answer.
SECONDS = 30.0


class Unreachable(EventwrightError, ConnectionError):
    """No Eventwright answers at this address. Whether the event arrived is unknown; sent again it is a duplicate."""

    def __init__(self, url: str, why: str) -> None:
        self.url = url
        super().__init__(
            f"no Eventwright answers at {url}: {why}; start one with `eventwright up`, or name another address. "
            "The same event can be sent again, it counts once"
        )


@dataclass(frozen=True)
class Reply:
    """What came back: the HTTP status and the JSON, an answer or a problem document."""

    status: int
    document: dict[str, Any]

    @property
    def accepted(self) -> bool:
        return 200 <= self.status < 300


async def post_event(
    address: str,
    headers: Mapping[str, str],
    body: bytes,
    *,
    key: str | None = None,
    by: str | None = None,
    seconds: float = SECONDS,
) -> Reply:
    """Post an event in structured mode to the API at `address`.

    Args:
        address: `http://host:port`.
        headers: of the event.
        body: of the event.
        key: the other service's EVENTWRIGHT_API_KEY.
        by: in whose name, if not in that which the service knows the caller by.
        seconds: how long to wait for the answer.

    Raises:
        Unreachable: nobody answers there, or not in Eventwright's words.
    """
    url = f"{address.rstrip('/')}/v1/events"
    named = httpx.Headers(dict(headers))
    if key is not None:
        named["Authorization"] = f"Bearer {key}"
    if by is not None:
        named["Eventwright-Actor"] = by
    try:
        # trust_env: the environment belongs to the settings, and a .netrc would put another key in.
        async with httpx.AsyncClient(timeout=seconds, trust_env=False) as client:
            response = await client.post(url, content=body, headers=named)
        document = response.json()
    except (httpx.HTTPError, httpx.InvalidURL, OSError) as error:
        raise Unreachable(url, str(error) or type(error).__name__) from error
    except ValueError as error:
        raise Unreachable(url, f"status {response.status_code} without JSON") from error
    if not isinstance(document, dict):
        raise Unreachable(url, f"status {response.status_code} with another kind of answer")
    return Reply(response.status_code, document)
