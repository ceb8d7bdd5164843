"""One HTTP request for JSON, and what each way of failing means to the caller: what tools with an HTTP API share."""

from __future__ import annotations

from collections.abc import Collection
from typing import Any, NamedTuple

import httpx

from eventwright.tools.contract import NotDone, Permanent, ToolError
from eventwright.tools.faults import PASSING_STATUSES, clip, retry_after

#: Seconds that each step of a request may take: to connect, to send, to hear something.
SECONDS = 10.0


class Away(NotDone):
    """The system outside does not answer, or says that it cannot now; nothing was changed."""


class Reply(NamedTuple):
    """What came back: the HTTP status, and the JSON object."""

    status: int
    document: dict[str, Any]


def json_client(base_url: str, *, token: str = "", seconds: float = SECONDS) -> httpx.AsyncClient:
    """A client for one API. Close it.

    Args:
        base_url: what every path is added to.
        token: sent as a bearer token, if there is one.
        seconds: see `SECONDS`.
    """
    headers = {"Authorization": f"Bearer {token}"} if token else {}
    # trust_env: the environment belongs to the settings, and a .netrc would put another key in.
    return httpx.AsyncClient(base_url=base_url, headers=headers, timeout=seconds, trust_env=False)


async def ask(
    client: httpx.AsyncClient,
    method: str,
    path: str,
    *,
    reads: bool,
    expected: Collection[int] = (),
    **options: Any,
) -> Reply:
    """Make the request.

    Args:
        reads: it changes nothing, so whatever goes wrong has changed nothing.
        expected: statuses beside 2xx that the caller understands; their body may be anything.
        options: for httpx: `params`, `json`.

    Raises:
        Away: nothing was changed, and it may be tried again.
        Permanent: refused, and it would be again.
        ToolError: a write may have happened, or not.
    """
    where = f"{method} {client.base_url.host}{path}"
    try:
        response = await client.request(method, path, **options)
    except (httpx.ConnectError, httpx.ConnectTimeout, httpx.PoolTimeout) as error:
        raise Away(f"{where}: no connection: {_words(error)}") from error
    except (httpx.TransportError, httpx.DecodingError, httpx.TooManyRedirects) as error:
        raise _unsure(reads, f"{where}: the answer did not come: {_words(error)}") from error
    if response.status_code in expected:
        return Reply(response.status_code, _object(response) or {})
    if not response.is_success:
        raise _refusal(response, reads, where)
    document = _object(response)
    if document is None:
        raise _unsure(reads, f"{where}: status {response.status_code} with something else than a JSON object")
    return Reply(response.status_code, document)


def _refusal(response: httpx.Response, reads: bool, where: str) -> ToolError:
    status = response.status_code
    words = f"{where}: status {status}: {clip(' '.join(response.text.split()))}"
    if status in PASSING_STATUSES or status == httpx.codes.SERVICE_UNAVAILABLE:
        # It says itself that it has not taken the request on.
        return Away(words, retry_after=retry_after(response.headers))
    if status >= 500:
        return _unsure(reads, words)
    if status in (httpx.codes.UNAUTHORIZED, httpx.codes.FORBIDDEN):
        return Permanent(f"{words}; check the token and what it may do")
    return Permanent(words)


def _unsure(reads: bool, words: str) -> ToolError:
    return Away(words) if reads else ToolError(f"{words}; whether it happened is unknown")


def _object(response: httpx.Response) -> dict[str, Any] | None:
    try:
        document = response.json()
    except ValueError:
        return None
    return document if isinstance(document, dict) else None


def _words(error: Exception) -> str:
    return str(error) or type(error).__name__
