"""A provider of signatures on the loopback: one account of the eSignature REST API, which may fail at every request."""

from __future__ import annotations

import asyncio
import base64
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any
from urllib.parse import parse_qs, urlsplit

from tests.loopback import on_loopback
from tests.tools.model_provider import Reply, http

ACCOUNT = "/restapi/v2.1/accounts/acc-1"
TOKEN = "made-up"


def _now() -> str:
    """The time as the provider writes it: with seven places behind the seconds."""
    return f"{datetime.now(UTC):%Y-%m-%dT%H:%M:%S.%f}0Z"


@dataclass
class SignatureProvider:
    """Envelopes by id, in the provider's words. A trouble answers in the provider's place, before or after it acted."""

    port: int = 0
    envelopes: dict[str, dict[str, Any]] = field(default_factory=dict)
    troubles: list[tuple[Reply, bool] | None] = field(default_factory=list)
    requests: list[tuple[str, str]] = field(default_factory=list)

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}{ACCOUNT}"

    def fails(self, reply: Reply, *, happens: bool = False, after: int = 0) -> None:
        """A later request gets this answer; `happens` says whether the provider did what it asked for all the same."""
        self.troubles += [*([None] * after), (reply, happens)]

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        head = (await reader.readuntil(b"\r\n\r\n")).decode().split("\r\n")
        headers = {name.lower(): value for name, _, value in (line.partition(": ") for line in head[1:] if line)}
        method, target, _ = head[0].split()
        body = await reader.readexactly(int(headers.get("content-length", 0)))
        self.requests.append((method, target.removeprefix(ACCOUNT)))
        trouble = self.troubles.pop(0) if self.troubles else None
        if trouble is not None and not trouble[1]:
            await trouble[0](writer)
            return
        authorized = headers.get("authorization") == f"Bearer {TOKEN}"
        reply = (
            self._act(method, target, json.loads(body or "{}")) if authorized else _error(401, "AUTHORIZATION_INVALID")
        )
        await (reply if trouble is None else trouble[0])(writer)

    def _act(self, method: str, target: str, body: dict[str, Any]) -> Reply:
        path, query = urlsplit(target).path.removeprefix(ACCOUNT), parse_qs(urlsplit(target).query)
        match method, path.split("/")[1:]:
            case "POST", ["envelopes"]:
                return self._create(body)
            case "GET", ["envelopes"]:
                return self._list(query)
            case "GET", ["envelopes", envelope_id]:
                return self._shown(envelope_id, query)
            case "PUT", ["envelopes", envelope_id]:
                return self._void(envelope_id, body)
        return _error(404, "INVALID_REQUEST_URL")

    def _create(self, body: dict[str, Any]) -> Reply:
        [signer] = body["recipients"]["signers"]
        if "@" not in signer["email"]:
            return _error(400, "INVALID_EMAIL_ADDRESS_FOR_RECIPIENT")
        [document] = body["documents"]
        envelope_id, sent = f"env-{len(self.envelopes) + 1}", _now()
        self.envelopes[envelope_id] = body | {
            "envelopeId": envelope_id,
            "sentDateTime": sent,
            "text": base64.b64decode(document["documentBase64"]).decode(),
        }
        return http({"envelopeId": envelope_id, "status": "sent", "statusDateTime": sent}, 201)

    def _list(self, query: dict[str, list[str]]) -> Reply:
        if not {"transaction_ids", "from_date", "envelope_ids"} & query.keys():
            return _error(400, "INVALID_REQUEST_PARAMETER")
        found = [one for one in self.envelopes.values() if one["transactionId"] in query["transaction_ids"]]
        listed = [{"envelopeId": one["envelopeId"], "transactionId": one["transactionId"]} for one in found]
        return http({"resultSetSize": str(len(listed)), "envelopeTransactionStatuses": listed})

    def _shown(self, envelope_id: str, query: dict[str, list[str]]) -> Reply:
        envelope = self.envelopes.get(envelope_id)
        if envelope is None:
            return _error(404, "ENVELOPE_DOES_NOT_EXIST")
        hidden = {"documents", "text", "transactionId"}
        hidden |= {"customFields", "recipients"} if "include" not in query else set()
        return http({name: value for name, value in envelope.items() if name not in hidden})

    def _void(self, envelope_id: str, body: dict[str, Any]) -> Reply:
        envelope = self.envelopes.get(envelope_id)
        if envelope is None:
            return _error(404, "ENVELOPE_DOES_NOT_EXIST")
        if envelope["status"] not in ("sent", "delivered"):
            return _error(400, "ENVELOPE_CANNOT_VOID_INVALID_STATE")
        envelope |= body | {"voidedDateTime": _now()}
        return http({})

    # -- what the customer does --------------------------------------------------------------------------------------

    async def sign(self, envelope_id: str) -> None:
        self.envelopes[envelope_id] |= {"status": "completed", "completedDateTime": _now()}

    async def decline(self, envelope_id: str, reason: str) -> None:
        self.envelopes[envelope_id] |= {"status": "declined", "declinedDateTime": _now()}
        self.envelopes[envelope_id]["recipients"]["signers"][0]["declinedReason"] = reason


def _error(status: int, code: str) -> Reply:
    return http({"errorCode": code, "message": f"the provider says {code}"}, status)


@asynccontextmanager
async def signature_provider() -> AsyncIterator[SignatureProvider]:
    provider = SignatureProvider()
    async with on_loopback(provider.serve) as provider.port:
        yield provider
