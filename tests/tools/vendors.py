"""Vendors on the loopback, each as its API's documentation describes it: HubSpot, Slack, an enrichment provider.

Any of them can be told how to fail: the next requests meet a `Trouble` each.
"""

from __future__ import annotations

import asyncio
import json
import re
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import parse_qsl, unquote, urlsplit

from tests.loopback import on_loopback


@dataclass
class Request:
    method: str
    path: str
    query: dict[str, str]
    headers: dict[str, str]
    body: dict[str, Any]


@dataclass
class Response:
    status: int
    body: Any
    headers: dict[str, str] = field(default_factory=dict)


@dataclass
class Trouble:
    """What befalls one request: an answer instead of the right one, or (status 0) silence; before or after it was
    carried out."""

    status: int = 0
    body: Any = "upstream connect error"
    headers: dict[str, str] = field(default_factory=dict)
    happens: bool = False


class Vendor:
    """Keeps what it was asked, and meets trouble as it is told."""

    def __init__(self) -> None:
        self.requests: list[Request] = []
        self.troubles: list[Trouble | None] = []

    async def answer(self, request: Request) -> Response | None:
        self.requests.append(request)
        trouble = self.troubles.pop(0) if self.troubles else None
        if trouble is None:
            return self.serve(request)
        if trouble.happens:
            self.serve(request)
        if trouble.status == 0:
            return None
        return Response(trouble.status, trouble.body, trouble.headers)

    def serve(self, request: Request) -> Response:
        raise NotImplementedError


@asynccontextmanager
async def on_http(answer: Callable[[Request], Awaitable[Response | None]]) -> AsyncIterator[int]:
    """An HTTP server on the loopback. Yields its port; None from `answer` is silence until the client has gone."""

    async def converse(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while True:
            head = (await reader.readuntil(b"\r\n\r\n")).decode().split("\r\n")
            headers = {name.lower(): value for name, _, value in (line.partition(": ") for line in head[1:] if line)}
            raw = await reader.readexactly(int(headers.get("content-length", 0)))
            method, target, _ = head[0].split(" ", 2)
            parts = urlsplit(target)
            if "json" in headers.get("content-type", ""):
                body = json.loads(raw or b"{}")
            else:
                body = dict(parse_qsl(raw.decode()))
            response = await answer(Request(method, unquote(parts.path), dict(parse_qsl(parts.query)), headers, body))
            if response is None:
                await reader.read()
                return
            plain = isinstance(response.body, str)
            text = (response.body if plain else json.dumps(response.body)).encode()
            sent = {"content-type": "text/html" if plain else "application/json", "content-length": str(len(text))}
            lines = "".join(f"{name}: {value}\r\n" for name, value in (sent | response.headers).items())
            writer.write(f"HTTP/1.1 {response.status} X\r\n{lines}\r\n".encode() + text)
            await writer.drain()

    async with on_loopback(converse) as port:
        yield port


class Enricher(Vendor):
    """`GET /v1/companies?domain=`"""

    def __init__(self) -> None:
        super().__init__()
        self.companies = {
            "initech.example.com": {
                "name": "Initech",
                "domain": "initech.example.com",
                "industry": "software",
                "employees": 250,
                "country": "AU",
                "tags": ["not", "asked", "for"],
            }
        }

    def serve(self, request: Request) -> Response:
        if request.headers.get("authorization") != "Bearer enrich-me":
            return Response(401, {"error": "unauthorized"})
        company = self.companies.get(request.query["domain"])
        return Response(200, company) if company else Response(404, "no such company")


class SlackWorkspace(Vendor):
    """`chat.postMessage`, `conversations.list`, `.history` and `.replies`, `users.info`. Slack says 200 to nearly
    everything."""

    def __init__(self) -> None:
        super().__init__()
        self.channels = {"leads": "C0LEADS0001", "random": "C0RANDOM001", "support": "C0SUPPORT01"}
        self.messages: list[dict[str, Any]] = []
        self.users: dict[str, dict[str, Any]] = {}
        self.page = 200

    def serve(self, request: Request) -> Response:
        if request.headers.get("authorization") != "Bearer xoxb-test":
            return Response(200, {"ok": False, "error": "invalid_auth"})
        match request.path.rpartition("/")[2]:
            case "chat.postMessage":
                channel = self._id(request.body["channel"])
                if channel is None:
                    return Response(200, {"ok": False, "error": "channel_not_found"})
                if len(request.body["text"]) > 40_000:
                    return Response(200, {"ok": False, "error": "msg_too_long"})
                ts = f"{1_700_000_000 + len(self.messages)}.000100"
                self.messages.append(
                    {"type": "message", "ts": ts, "channel": channel, "text": request.body["text"],
                     "metadata": request.body.get("metadata")}
                    | ({"thread_ts": request.body["thread_ts"]} if "thread_ts" in request.body else {})
                )  # fmt: skip
                return Response(200, {"ok": True, "channel": channel, "ts": ts, "message": self.messages[-1]})
            case "conversations.list":
                found = [{"id": id, "name": name} for name, id in self.channels.items()]
                return Response(200, self._paged(request, "channels", found))
            case "users.info":
                user = self.users.get((request.query | request.body)["user"])
                return Response(200, {"ok": True, "user": user} if user else {"ok": False, "error": "user_not_found"})
            case "conversations.history" | "conversations.replies" as method:
                asked = request.query | request.body
                found = [one for one in reversed(self.messages) if one["channel"] == asked["channel"]]
                thread = asked["ts"] if method.endswith("replies") else None
                found = [one for one in found if one.get("thread_ts") == thread]
                if asked.get("inclusive") in ("1", "true"):
                    found = [one for one in found if asked["oldest"] <= one["ts"] <= asked["latest"]]
                if asked.get("include_all_metadata") not in ("1", "true"):
                    found = [one | {"metadata": None} for one in found]
                return Response(200, self._paged(request, "messages", found))
        return Response(200, {"ok": False, "error": "unknown_method"})

    def _id(self, channel: str) -> str | None:
        return self.channels.get(channel.removeprefix("#")) or (channel if channel in self.channels.values() else None)

    def _paged(self, request: Request, name: str, items: list[dict[str, Any]]) -> dict[str, Any]:
        asked = request.query | request.body
        start = int(asked.get("cursor") or 0)
        end = start + min(self.page, int(asked.get("limit", 100)))
        return {
            "ok": True,
            name: items[start:end],
            "response_metadata": {"next_cursor": str(end) if end < len(items) else ""},
        }


INVALID_EMAIL = Response(400, {"status": "error", "category": "VALIDATION_ERROR", "message": "INVALID_EMAIL"})


def _invalid(properties: dict[str, str]) -> bool:
    return "email" in properties and re.fullmatch(r"[^@\s]+@[^@\s]+\.[^@\s]+", properties["email"]) is None


class HubSpotAccount(Vendor):
    """CRM v3: contacts with unique e-mail addresses and a unique property of ours, their search, the owners."""

    CONTACTS = "/crm/v3/objects/contacts"

    def __init__(self, *owners: str) -> None:
        super().__init__()
        self.contacts: dict[str, dict[str, str]] = {}
        self.owners = {str(number): address for number, address in enumerate(owners, start=501)}
        #: Contacts that the search does not show yet.
        self.unindexed: set[str] = set()

    def serve(self, request: Request) -> Response:
        if request.headers.get("authorization") != "Bearer pat-test-0001":
            return Response(401, {"status": "error", "category": "INVALID_AUTHENTICATION"})
        path = request.path
        if path == "/crm/v3/owners":
            found = [{"id": id, "email": mail} for id, mail in self.owners.items() if mail == request.query["email"]]
            return Response(200, {"results": found})
        if path.startswith("/crm/v3/owners/"):
            owner = path.rpartition("/")[2]
            return Response(200, {"id": owner, "email": self.owners[owner]})
        if path == f"{self.CONTACTS}/search":
            return self._search(request.body)
        if path == self.CONTACTS:
            return self._create(request.body["properties"])
        return self._one(request, path.removeprefix(f"{self.CONTACTS}/"))

    def _one(self, request: Request, value: str) -> Response:
        name = request.query.get("idProperty")
        matching = [id for id, known in self.contacts.items() if known.get(name or "hs_object_id") == value]
        if not matching:
            return Response(404, {"status": "error", "category": "OBJECT_NOT_FOUND"})
        if request.method == "PATCH":
            if _invalid(request.body["properties"]):
                return INVALID_EMAIL
            self.contacts[matching[0]].update(request.body["properties"])
        return Response(200, self._shown(matching[0]))

    def _create(self, properties: dict[str, str]) -> Response:
        if _invalid(properties):
            return INVALID_EMAIL
        for unique in ("email", "eventwright_key"):
            for id, known in self.contacts.items():
                if properties.get(unique) and known.get(unique, "").lower() == properties[unique].lower():
                    said = f"Contact already exists. Existing ID: {id}"
                    return Response(409, {"status": "error", "message": said, "category": "CONFLICT"})
        id = str(9001 + len(self.contacts))
        self.contacts[id] = {"hs_object_id": id, "createdate": "4102444800000"} | properties
        return Response(201, self._shown(id))

    def _search(self, asked: dict[str, Any]) -> Response:
        if len(asked["filterGroups"]) > 5:
            return Response(400, {"status": "error", "category": "VALIDATION_ERROR"})
        found = [
            id
            for id, known in self.contacts.items()
            if id not in self.unindexed
            and any(all(_fits(known, one) for one in group["filters"]) for group in asked["filterGroups"])
        ]
        results = [self._shown(id) for id in found[: asked.get("limit", 10)]]
        return Response(200, {"total": len(found), "results": results})

    def _shown(self, id: str) -> dict[str, Any]:
        return {"id": id, "properties": {"email": None} | self.contacts[id], "archived": False}


def _fits(known: dict[str, str], one: dict[str, str]) -> bool:
    value = known.get(one["propertyName"], "")
    if one["operator"] == "GTE":
        return value.isdigit() and int(value) >= int(one["value"])
    return value.casefold() == one["value"].casefold()
