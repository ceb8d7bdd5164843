"""A word in private to somebody who clicked in Slack, at the address that Slack gave with the click."""

from __future__ import annotations

import html
import logging
from urllib.parse import urlsplit

import httpx

log = logging.getLogger(__name__)

#: Where the addresses that Slack gives are. A click is signed, and still nothing is posted anywhere else.
ORIGIN = "https://hooks.slack.com"
#: Seconds that Slack has.
SECONDS = 5.0


class SlackAnswers:
    """Tells people what became of their click; nobody else in the channel sees it.

    Args:
        origin: scheme and host that an address must have.
    """

    def __init__(self, *, origin: str = ORIGIN) -> None:
        self._origin = urlsplit(origin)[:2]

    async def tell(self, address: str, text: str) -> bool:
        """Say it, once; whether Slack took it. What happened has happened, so a failure is logged and not raised."""
        try:
            if urlsplit(address)[:2] != self._origin:
                log.warning("nobody is told of a click: %s is no address of Slack", ascii(address[:200]))
                return False
            async with httpx.AsyncClient(timeout=SECONDS, trust_env=False) as client:
                # Slack's own escapes: what people wrote shall call nobody.
                escaped = html.escape(text, quote=False)
                said = {"response_type": "ephemeral", "replace_original": False, "text": escaped}
                reply = await client.post(address, json=said)
        except (httpx.HTTPError, httpx.InvalidURL, ValueError) as error:
            log.warning("Slack did not hear what became of a click: %r", error)
            return False
        if reply.is_success:
            return True
        log.warning("Slack did not take what became of a click: %s", reply.status_code)
        return False
