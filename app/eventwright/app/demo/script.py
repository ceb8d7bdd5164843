"""What three colleagues answer in the demo, each through the HTTP API, when nobody is at the terminal to do it."""

from __future__ import annotations

import asyncio
import http.client
import json
from collections.abc import Callable, Mapping
from typing import Any
from urllib.parse import urlsplit

from eventwright.app.commands.telling import line, short
from eventwright.app.demo.messages import Case, Message
from eventwright.app.demo.table import Scene
from eventwright.runs.errors import EventwrightError
from eventwright.runs.records import Review
from eventwright.runs.states import RunState

#: Seconds for one request.
PATIENCE = 20.0

Say = Callable[[str], None]


class StoryBroken(EventwrightError, RuntimeError):
    """Something did not end as the demo's story goes; the message says what."""


class Door:
    """The HTTP door of the demo's service, used like any client's.

    Args:
        address: `http://host:port`.
    """

    def __init__(self, address: str) -> None:
        self.address = address
        self._place = urlsplit(address).netloc

    async def post(self, path: str, body: bytes, headers: Mapping[str, str], *, expect: int) -> dict[str, Any]:
        """The JSON of the answer. Raises StoryBroken if its status is not the expected one."""
        status, document = await asyncio.to_thread(self._post, path, body, headers)
        if status != expect:
            raise StoryBroken(f"POST {path} was answered with {status} instead of {expect}: {json.dumps(document)}")
        return document

    async def act(self, who: str, path: str, body: Mapping[str, Any], *, expect: int) -> dict[str, Any]:
        """What a person does. Raises StoryBroken."""
        headers = {"content-type": "application/json", "eventwright-actor": who}
        return await self.post(path, json.dumps(body).encode(), headers, expect=expect)

    def _post(self, path: str, body: bytes, headers: Mapping[str, str]) -> tuple[int, dict[str, Any]]:
        connection = http.client.HTTPConnection(self._place, timeout=PATIENCE)
        try:
            connection.request("POST", path, body, dict(headers))
            answer = connection.getresponse()
            return answer.status, json.loads(answer.read())
        finally:
            connection.close()


async def answer_everything(door: Door, scene: Scene, say: Say) -> None:
    """Decide every open review as its case deserves, and replay the dead letters. Raises StoryBroken."""
    for number, review in scene.asked.items():
        message = next(message for message in scene.messages if message.number == number)
        who, decision = _answer(message, review)
        path = f"/v1/reviews/{review.id}/decision"
        await door.act(who, path, decision | {"digest": review.digest}, expect=200)
        say(f"{who} answers {number}, {message.case.meaning}: {_told(decision)}")
        if message.case is Case.REFUND_TO_APPROVE:
            await _come_second(door, path, number, say)
    for message, run in scene.in_state(RunState.FAILED):
        await door.act("ravi", f"/v1/runs/{run.id}/replay", {}, expect=202)
        say(f"ravi has mended the mail server, and replays {message.number} ({short(run.id)})")


async def _come_second(door: Door, path: str, number: int, say: Say) -> None:
    """A second person decides the same review otherwise, and is told who was first."""
    problem = await door.act("piet", path, {"type": "reject"}, expect=409)
    winner = problem.get("decision") or {}
    if (winner.get("by"), winner.get("type")) != ("noor", "approve"):
        raise StoryBroken(f"the second answer to {number} was not told who had won: {json.dumps(problem)}")
    say(f"piet would reject {number}, and is told (409) that {winner['by']} was first: {winner['type']}")


def _answer(message: Message, review: Review) -> tuple[str, dict[str, Any]]:
    """Who answers this review, and what."""
    match message.case:
        case Case.UNCLEAR:
            return "dana", {"type": "respond", "response": "other"}
        case Case.NO_SENDER:
            return "dana", {"type": "respond", "response": {"sender": message.account.email}}
        case Case.STRANGER:
            return "dana", {"type": "approve"}
        case Case.REFUND_TO_APPROVE:
            return "noor", {"type": "approve"}
        case Case.REFUND_TO_REJECT:
            return "noor", {"type": "reject", "comment": "the shop gives this back itself"}
        case Case.REFUND_TO_EDIT:
            return "noor", {"type": "edit", "arguments": {**(review.arguments or {}), "amount": "60.00"}}
        case Case.LOST_ANSWER:
            return "ravi", {"type": "respond", "response": {"happened": True}}
        case _:
            raise StoryBroken(f"nobody was to be asked about {message.number} ({message.subject}): {review.question}")


def _told(decision: Mapping[str, Any]) -> str:
    given = decision.get("response", decision.get("comment"))
    if decision["type"] == "edit":
        given = {"amount": decision["arguments"]["amount"]}
    shown = "" if given is None else f" {given if isinstance(given, str) else json.dumps(given)}"
    return line(f"{decision['type']}{shown}")
