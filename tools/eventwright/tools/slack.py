"""Slack: a message to a channel, through Slack's own client.

Slack honours no idempotency key. Each message bears one in its metadata, so that it can be read back: `post` is a
verifiable write. The app needs the scopes chat:write, channels:read and channels:history (groups:read and
groups:history for private channels); `author` also users:read and users:read.email.
"""

from __future__ import annotations

from collections.abc import AsyncIterator
from datetime import UTC, datetime, timedelta
from typing import Annotated, Any

import aiohttp
from pydantic import BaseModel, ConfigDict, Field
from slack_sdk.errors import SlackApiError
from slack_sdk.web.async_client import AsyncWebClient

from eventwright.tools.contract import Call, NotDone, Permanent, ResourceMissing, Role, ToolError, tool
from eventwright.tools.faults import retry_after
from eventwright.tools.providers import Providers

#: What our messages are called in their metadata.
EVENT_TYPE = "eventwright_message"
#: A call that broke off is read back so far: who looks later asks a person.
LOOKS_BACK = timedelta(days=3)
#: Pages of history, or of channels, that are looked through: 200 entries each.
MOST_PAGES = 25
#: Answers of Slack after which the same call may succeed later; it did nothing.
PASSING = frozenset(
    {"ratelimited", "rate_limited", "message_limit_exceeded", "service_unavailable", "team_added_to_org"}
)
#: Answers after which nobody knows.
UNSURE = frozenset({"internal_error", "fatal_error", "request_timeout"})

#: A channel's name with its sign, or its id: `#sales`, `C0123456789`.
Channel = Annotated[str, Field(pattern=r"^(#[a-z0-9_\-]{1,80}|[CGD][A-Z0-9]{8,})$")]
#: A message's name within its channel.
Ts = Annotated[str, Field(pattern=r"^\d{1,12}\.\d{1,6}$")]


class SlackAway(NotDone):
    """Slack cannot be reached, or has no time; nothing was posted."""


class Posted(BaseModel):
    """A message that stands in a channel."""

    model_config = ConfigDict(frozen=True)

    #: The channel's id.
    channel: str
    #: The message's name within the channel.
    ts: str


class Author(BaseModel):
    """Who wrote a message."""

    model_config = ConfigDict(frozen=True)

    #: The person's id.
    user: str
    #: None if Slack does not say it.
    email: str | None


class Slack:
    """One workspace, through the token of a bot. Holds no connection between calls."""

    def __init__(self, token: str, *, base_url: str = "https://slack.com/api/", timeout: int = 15) -> None:
        """Make a client; nothing is connected yet.

        Args:
            token: the bot's, `xoxb-…`.
            base_url: of the API.
            timeout: seconds that one request may take.
        """
        # The client's own retries would hide a fault from the run, which has its own.
        self._client = AsyncWebClient(token=token, base_url=base_url, timeout=timeout, retry_handlers=[])
        # It looks for a proxy in the environment, which belongs to the settings.
        self._client.proxy = None

    async def post(self, channel: str, text: str, *, idempotency_key: str, thread: str | None = None) -> Posted:
        """Post one plain message; with `thread`, the `ts` of another one, below that.

        Raises:
            SlackAway: nothing was posted; it may be tried again.
            Permanent: Slack refuses: no such channel, a bad token, a text that is too long.
            ToolError: whether it was posted is unknown.
        """
        metadata = {"event_type": EVENT_TYPE, "event_payload": {"key": idempotency_key}}
        message = {"channel": channel, "text": escaped(text), "metadata": metadata, "unfurl_links": False}
        answer = await self._ask("chat.postMessage", json=message | ({"thread_ts": thread} if thread else {}))
        return Posted(channel=str(answer["channel"]), ts=str(answer["ts"]))

    async def posted(self, channel: str, *, idempotency_key: str, thread: str | None = None) -> Posted | None:
        """The message with this key, if it stands in the channel; with `thread`, below that message.

        Raises:
            SlackAway: Slack does not answer.
            Permanent: Slack refuses to show the channel.
            ToolError: the channel is so busy that it was not found in what was looked through.
        """
        wanted = await self._channel_id(channel)
        oldest = (datetime.now(UTC) - LOOKS_BACK).timestamp()
        asked = {"channel": wanted, "oldest": f"{oldest:.6f}", "include_all_metadata": True, "limit": 200}
        method = "conversations.replies" if thread else "conversations.history"
        async for message in self._pages(method, asked | ({"ts": thread} if thread else {}), "messages"):
            metadata = message.get("metadata") or {}
            if metadata.get("event_payload", {}).get("key") == idempotency_key:
                return Posted(channel=wanted, ts=str(message["ts"]))
        return None

    async def author(self, channel: str, ts: str) -> Author | None:
        """Who wrote this message; None if it does not stand in the channel, no person wrote it, or there is no such
        channel.

        Raises:
            SlackAway: Slack does not answer.
            Permanent: Slack refuses to show what stands in the channel, or the person.
        """
        channel_id = await self._find_channel(channel)
        if channel_id is None:
            return None
        wanted = {"channel": channel_id, "oldest": ts, "latest": ts, "inclusive": True, "limit": 1}
        answer = await self._ask("conversations.history", params=wanted)
        user = next((one.get("user") for one in answer.get("messages") or () if one.get("ts") == ts), None)
        if not user:
            return None
        person = (await self._ask("users.info", params={"user": user})).get("user") or {}
        return None if person.get("is_bot") else Author(user=user, email=person.get("profile", {}).get("email"))

    async def _channel_id(self, name: str) -> str:
        found = await self._find_channel(name)
        if found is None:
            raise Permanent(f"Slack shows no channel {name!r}; invite the app into it")
        return found

    async def _find_channel(self, name: str) -> str | None:
        if not name.startswith("#"):
            return name
        asked = {"types": "public_channel,private_channel", "exclude_archived": True, "limit": 200}
        async for channel in self._pages("conversations.list", asked, "channels"):
            if channel.get("name") == name.removeprefix("#"):
                return str(channel["id"])
        return None

    async def _pages(self, method: str, asked: dict[str, Any], items: str) -> AsyncIterator[dict[str, Any]]:
        cursor = ""
        for _ in range(MOST_PAGES):
            answer = await self._ask(method, params=asked | ({"cursor": cursor} if cursor else {}))
            for item in answer.get(items) or ():
                yield item
            cursor = (answer.get("response_metadata") or {}).get("next_cursor") or ""
            if not cursor:
                return
        raise ToolError(
            f"Slack's {method} has more than {MOST_PAGES} pages; what was looked for may stand further back"
        )

    async def _ask(self, method: str, **arguments: Any) -> dict[str, Any]:
        """One call; what is asked with `params` reads, what is sent as `json` writes."""
        reads = "params" in arguments
        try:
            response = await self._client.api_call(method, **arguments)
        except SlackApiError as error:
            raise _refusal(error, method, reads) from error
        except aiohttp.ClientConnectorError as error:
            raise SlackAway(f"Slack's {method}: no connection: {error}") from error
        except (aiohttp.ClientError, TimeoutError, OSError, ValueError) as error:
            raise _unsure(
                reads, f"Slack's {method}: the answer did not come: {error or type(error).__name__}"
            ) from error
        return dict(response.data) if isinstance(response.data, dict) else {}


def escaped(text: str) -> str:
    """The text as Slack shows it word for word: nobody outside calls `<!channel>`, or writes a link's words."""
    return text.replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")


def _refusal(error: SlackApiError, method: str, reads: bool) -> ToolError:
    response = error.response
    data = response.data if isinstance(response.data, dict) else {}
    name, status = str(data.get("error") or f"status {response.status_code}"), response.status_code
    words = f"Slack's {method} answers {name!r}"
    if status == 429 or name in PASSING:
        return SlackAway(
            words, retry_after=retry_after({key.lower(): value for key, value in response.headers.items()})
        )
    if status >= 500 or name in UNSURE or "error" not in data:
        return _unsure(reads, words)
    needed = f", which needs the scope {data['needed']}" if data.get("needed") else ""
    return Permanent(f"{words}{needed}; check the token, its scopes and the channel")


def _unsure(reads: bool, words: str) -> ToolError:
    return SlackAway(words) if reads else ToolError(f"{words}; whether it was posted is unknown")


class NoSlack(Permanent):
    """No Slack workspace is set up."""


@tool(trusted=True)
async def is_set_up(*, call: Call) -> bool:
    """Say whether there is a Slack workspace to post to."""
    return any(isinstance(item, Slack) for item in call.resources.items)


async def _read_back(channel: str, text: str, *, call: Call) -> Posted | None:
    async with Providers.of(call.resources).asked("slack.com"):
        return await _slack(call).posted(channel, idempotency_key=call.idempotency_key)


@tool(writes="verifiable", verify=_read_back)
async def post(
    channel: Annotated[Channel, Role.DESTINATION],
    text: Annotated[str, Field(min_length=1, max_length=4000), Role.CONTENT],
    *,
    call: Call,
) -> Posted:
    """Post a plain message to a channel."""
    slack = _slack(call)
    async with Providers.of(call.resources).asked("slack.com"):
        return await slack.post(channel, text, idempotency_key=call.idempotency_key)


async def _read_back_below(channel: str, thread: str, text: str, *, call: Call) -> Posted | None:
    async with Providers.of(call.resources).asked("slack.com"):
        return await _slack(call).posted(channel, idempotency_key=call.idempotency_key, thread=thread)


@tool(writes="verifiable", verify=_read_back_below)
async def reply(
    channel: Annotated[Channel, Role.DESTINATION],
    thread: Annotated[Ts, Role.CONTENT],
    text: Annotated[str, Field(min_length=1, max_length=4000), Role.CONTENT],
    *,
    call: Call,
) -> Posted:
    """Post a plain message below another one of the channel."""
    slack = _slack(call)
    async with Providers.of(call.resources).asked("slack.com"):
        return await slack.post(channel, text, idempotency_key=call.idempotency_key, thread=thread)


@tool(trusted=True, sensitive=True)
async def author(channel: Channel, ts: Ts, *, call: Call) -> Author | None:
    """Say who wrote a message, if it stands in the channel and a person did."""
    slack = _slack(call)
    async with Providers.of(call.resources).asked("slack.com"):
        return await slack.author(channel, ts)


def _slack(call: Call) -> Slack:
    try:
        return call.use(Slack)
    except ResourceMissing as missing:
        raise NoSlack("no Slack workspace is set up; EVENTWRIGHT_SECRET_SLACK_TOKEN opens one") from missing
