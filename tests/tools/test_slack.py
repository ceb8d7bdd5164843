"""Slack: one message for one key, and what each of its refusals means."""

from __future__ import annotations

from collections.abc import AsyncIterator

import pytest
from pydantic import ValidationError
from tests.tools.vendors import SlackWorkspace, Trouble, on_http

from eventwright.tools import slack
from eventwright.tools.contract import Call, NotDone, Permanent, Resources, ToolClass, ToolError
from eventwright.tools.slack import Author, NoSlack, Posted, Slack, SlackAway


@pytest.fixture
def workspace() -> SlackWorkspace:
    return SlackWorkspace()


@pytest.fixture
async def client(workspace: SlackWorkspace) -> AsyncIterator[Slack]:
    async with on_http(workspace.answer) as port:
        yield Slack("xoxb-test", base_url=f"http://127.0.0.1:{port}/api/", timeout=1)


def call(*clients: object, key: str = "key-1") -> Call:
    return Call(run_id="run_1", node="tell", idempotency_key=key, attempt=1, resources=Resources(clients))


async def post(*clients: object, channel: str = "#leads", text: str = "A lead.", key: str = "key-1") -> Posted:
    posted: Posted = await slack.post.perform(slack.post.arguments(channel=channel, text=text), call(*clients, key=key))
    return posted


async def read_back(client: Slack, channel: str = "#leads", key: str = "key-1") -> Posted | None:
    found: Posted | None = await slack.post.verify(
        slack.post.arguments(channel=channel, text="A lead."), call(client, key=key)
    )
    return found


@pytest.mark.parametrize("channel", ["", "leads", "#", "#Leads!", "@ana", "C1", "https://hooks.example.com/x"])
async def test_what_is_no_channel_is_refused_before_slack_is_asked(channel: str) -> None:
    with pytest.raises(ValidationError, match="channel"):
        slack.post.arguments(channel=channel, text="A lead.")


async def test_without_a_workspace_the_refusal_says_so() -> None:
    assert await slack.is_set_up.perform(slack.is_set_up.arguments(), call()) is False
    with pytest.raises(NoSlack, match="no Slack workspace is set up"):
        await post()


async def test_nobody_there_has_posted_nothing(workspace: SlackWorkspace) -> None:
    async with on_http(workspace.answer) as port:
        pass
    with pytest.raises(SlackAway, match="no connection"):
        await post(Slack("xoxb-test", base_url=f"http://127.0.0.1:{port}/api/"))


async def test_too_many_messages_wait_as_long_as_slack_says(workspace: SlackWorkspace, client: Slack) -> None:
    workspace.troubles = [Trouble(429, {"ok": False, "error": "ratelimited"}, {"Retry-After": "30"})]
    with pytest.raises(SlackAway) as refused:
        await post(client)
    assert refused.value.retry_after == 30.0
    assert workspace.messages == []


async def test_a_channel_that_is_not_there_and_a_bad_token_are_refused_for_good(
    workspace: SlackWorkspace, client: Slack
) -> None:
    with pytest.raises(Permanent, match="channel_not_found"):
        await post(client, channel="#nowhere")
    async with on_http(workspace.answer) as port:
        with pytest.raises(Permanent, match="invalid_auth"):
            await post(Slack("xoxb-old", base_url=f"http://127.0.0.1:{port}/api/"))


async def test_a_missing_scope_is_named(workspace: SlackWorkspace, client: Slack) -> None:
    workspace.troubles = [Trouble(200, {"ok": False, "error": "missing_scope", "needed": "chat:write"})]
    with pytest.raises(Permanent, match="needs the scope chat:write"):
        await post(client)


@pytest.mark.parametrize(
    "trouble",
    [
        Trouble(0, happens=True),
        Trouble(500, happens=True),
        Trouble(200, "<html>", happens=True),
        Trouble(200, {"ok": False, "error": "internal_error"}, happens=True),
        Trouble(200, {"ok": False, "error": "fatal_error"}),
    ],
    ids=["silence", "500", "a page", "internal_error", "fatal_error"],
)
async def test_a_message_whose_answer_is_lost_can_be_read_back(
    workspace: SlackWorkspace, client: Slack, trouble: Trouble
) -> None:
    workspace.troubles = [trouble]
    with pytest.raises(ToolError) as lost:
        await post(client)
    assert not isinstance(lost.value, NotDone)

    found = await read_back(client)

    assert (found is not None) is trouble.happens
    assert len(workspace.messages) == trouble.happens


async def test_a_message_is_found_on_a_later_page_and_only_by_its_own_key(
    workspace: SlackWorkspace, client: Slack
) -> None:
    posted = await post(client)
    for number in range(4):
        await post(client, key=f"other-{number}")
    workspace.page = 2
    assert await read_back(client) == posted
    assert await read_back(client, channel="C0LEADS0001") == posted
    assert await read_back(client, key="never-posted") is None
    with pytest.raises(Permanent, match="no channel '#nowhere'"):
        await read_back(client, channel="#nowhere")


async def test_a_channel_too_busy_to_be_looked_through_leaves_it_open(
    workspace: SlackWorkspace, client: Slack, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(slack, "MOST_PAGES", 1)
    for number in range(3):
        await post(client, key=f"other-{number}")
    workspace.page = 2
    with pytest.raises(ToolError, match="more than 1 pages"):
        await read_back(client)


async def test_a_read_that_fails_says_nothing_about_the_message(workspace: SlackWorkspace, client: Slack) -> None:
    workspace.troubles = [Trouble(500)]
    with pytest.raises(SlackAway):
        await read_back(client, channel="C0LEADS0001")


async def test_words_from_outside_call_nobody(workspace: SlackWorkspace, client: Slack) -> None:
    await post(client, text="<!channel> read <https://evil.example|this> & go")
    assert workspace.messages[0]["text"] == "&lt;!channel&gt; read &lt;https://evil.example|this&gt; &amp; go"


def test_a_message_can_be_read_back_so_it_is_a_verifiable_write() -> None:
    assert (slack.post.name, slack.post.tool_class) == ("slack.post", ToolClass.VERIFIABLE)


async def test_a_reply_stands_below_its_message_and_is_read_back_there(
    workspace: SlackWorkspace, client: Slack
) -> None:
    first = await post(client)
    arguments = slack.reply.arguments(channel="#leads", thread=first.ts, text="Called.")
    workspace.troubles = [Trouble(0, happens=True)]
    with pytest.raises(ToolError):
        await slack.reply.perform(arguments, call(client, key="key-2"))

    found = await slack.reply.verify(arguments, call(client, key="key-2"))

    assert workspace.messages[1]["thread_ts"] == first.ts
    assert found == Posted(channel="C0LEADS0001", ts=workspace.messages[1]["ts"])
    assert await slack.reply.verify(arguments, call(client, key="never-posted")) is None


async def test_who_wrote_a_message_is_said_only_of_people_and_only_in_that_channel(
    workspace: SlackWorkspace, client: Slack
) -> None:
    async def author(ts: str, channel: str = "#support") -> Author | None:
        found: Author | None = await slack.author.perform(slack.author.arguments(channel=channel, ts=ts), call(client))
        return found

    people = {"U1": {"profile": {"email": "ann@example.org"}}, "U2": {"profile": {}}, "U3": {"is_bot": True}}
    workspace.users |= people
    for number, user in enumerate(people, start=1):
        workspace.messages.append({"channel": "C0SUPPORT01", "ts": f"{number}.000100", "user": user})
    workspace.messages.append({"channel": "C0SUPPORT01", "ts": "4.000100", "bot_id": "B1"})

    assert await author("1.000100") == Author(user="U1", email="ann@example.org")
    assert await author("2.000100") == Author(user="U2", email=None)
    for nobody in ("3.000100", "4.000100", "5.000100"):
        assert await author(nobody) is None
    for elsewhere in ("#random", "#nowhere"):
        assert await author("1.000100", channel=elsewhere) is None
    workspace.users.clear()
    with pytest.raises(Permanent, match="user_not_found"):
        await author("1.000100")
