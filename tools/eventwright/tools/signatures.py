"""The signature system: a letter goes to one person who signs it, declines it, or lets it lie.

Over HTTP it is an account at a provider that speaks the eSignature REST API (envelopes with recipients, text fields
of our own and a `transactionId`). Without an address for one, `embedded_signatures` is the system.

What an envelope holds is what counts, not what an event says of it: read it back.
"""

from __future__ import annotations

import base64
from abc import ABC, abstractmethod
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from decimal import Decimal
from typing import Annotated, Any, Literal, Self
from urllib.parse import quote

import httpx
from pydantic import AwareDatetime, BaseModel, ConfigDict, Field

from eventwright.tools.contract import Call, Permanent, Role, ToolError, Undo, tool
from eventwright.tools.faults import clip
from eventwright.tools.http_json import Away, ask, json_client
from eventwright.tools.providers import Providers

#: Seconds that each step of a request may take.
SECONDS = 20.0
#: What the provider counts its requests by, in seconds.
AN_HOUR = 3600.0
#: Asks for an envelope with all that we read of it.
_WHOLE = {"include": "custom_fields,recipients"}
#: Names of the fields in which an envelope carries what is signed.
REFERENCE, AMOUNT, CURRENCY = "reference", "amount", "currency"

Status = Literal["sent", "completed", "declined", "voided"]
#: What the provider's words for the state of an envelope mean: it is under way until it is at an end.
STATUSES: Mapping[str, Status] = {
    "created": "sent",
    "sent": "sent",
    "delivered": "sent",
    "signed": "sent",
    "completed": "completed",
    "declined": "declined",
    "voided": "voided",
}
#: Errors of the provider, with status 400, that pass.
_LIMITS = frozenset({"HOURLY_APIINVOCATION_LIMIT_EXCEEDED", "BURST_APIINVOCATION_LIMIT_EXCEEDED"})

Amount = Annotated[Decimal, Field(ge=0, max_digits=14, decimal_places=2)]
Currency = Annotated[str, Field(pattern=r"^[A-Z]{3}$")]
Line = Annotated[str, Field(min_length=1, max_length=200)]


class Letter(BaseModel):
    """What somebody shall sign. `document` is plain text."""

    model_config = ConfigDict(frozen=True)

    email: Annotated[str, Field(min_length=3, max_length=254)]
    name: Line
    #: Our own name for what is signed.
    reference: Line
    amount: Amount
    currency: Currency
    subject: Line
    document: str


class Envelope(BaseModel):
    """A letter under way, as the signature system has it. `reason` is why it was declined or voided."""

    model_config = ConfigDict(frozen=True)

    id: str
    status: Status
    email: str
    name: str
    reference: str
    amount: Amount
    currency: Currency
    sent_at: AwareDatetime
    ended_at: AwareDatetime | None = None
    reason: str = ""


class EnvelopeEnded(Permanent):
    """An envelope cannot be voided, because it is at its end."""


class Signatures(ABC):
    """A signature system."""

    #: Under which name it counts as away when it does not answer.
    host: str = "signatures"

    @abstractmethod
    async def send(self, letter: Letter, *, key: str) -> Envelope:
        """Send a letter. Who is cut off looks with `by_key` whether it went.

        Raises:
            Permanent: it does not take this letter.
            NotDone: it did not take it now.
            ToolError: whether it took it is unknown.
        """

    @abstractmethod
    async def by_key(self, key: str) -> Envelope | None:
        """The envelope that was sent with this key. Raises ToolError."""

    @abstractmethod
    async def read(self, envelope_id: str) -> Envelope | None:
        """The envelope as it stands. Raises ToolError."""

    @abstractmethod
    async def void(self, envelope_id: str, reason: str) -> Envelope:
        """Take the letter back before it is signed. One that is voided already stays so.

        Raises:
            EnvelopeEnded: it was completed or declined.
            ToolError: the system did not say that it did so.
        """


class HttpSignatures(Signatures):
    """An account at a provider. `async with HttpSignatures.open(url, token=...) as signatures`."""

    def __init__(self, client: httpx.AsyncClient) -> None:
        self._client = client
        self.host = client.base_url.host

    @classmethod
    @asynccontextmanager
    async def open(cls, url: str, *, token: str, seconds: float = SECONDS) -> AsyncIterator[Self]:
        """A client, closed at the end; nothing is connected yet.

        Args:
            url: of the account: `https://host/restapi/v2.1/accounts/<account>`.
            token: sent as a bearer token.
            seconds: that each step of a request may take.
        """
        async with json_client(url, token=token, seconds=seconds) as client:
            yield cls(client)

    async def send(self, letter: Letter, *, key: str) -> Envelope:
        created = await self._ask("POST", "/envelopes", json=_as_envelope(letter, key))
        try:
            told = {"id": created["envelopeId"], "status": "sent", "sent_at": created["statusDateTime"]}
            return Envelope.model_validate(letter.model_dump() | told)
        except (LookupError, ValueError) as error:
            # It may well have been taken: it is read back before it is sent again.
            raise ToolError(f"{self.host} does not say which envelope it took: {clip(created)}") from error

    async def by_key(self, key: str) -> Envelope | None:
        found = await self._ask("GET", "/envelopes", params={"transaction_ids": key})
        known = [*(found.get("envelopeTransactionStatuses") or ()), *(found.get("envelopes") or ())]
        ids = [one["envelopeId"] for one in known if one.get("envelopeId")]
        return await self.read(ids[0]) if ids else None

    async def read(self, envelope_id: str) -> Envelope | None:
        try:
            told = await self._ask("GET", f"/envelopes/{quote(envelope_id, safe='')}", params=_WHOLE)
        except _Unknown:
            return None
        try:
            return _envelope_of(told)
        except (ValueError, LookupError, TypeError) as error:
            raise ToolError(f"{self.host} tells of an envelope in words that are not known: {clip(error)}") from error

    async def void(self, envelope_id: str, reason: str) -> Envelope:
        wanted, refusal = {"status": "voided", "voidedReason": reason}, None
        try:
            await self._ask("PUT", f"/envelopes/{quote(envelope_id, safe='')}", json=wanted)
        except Permanent as error:
            refusal = error
        envelope = await self.read(envelope_id)
        if envelope is None or envelope.status == "sent":
            raise refusal or ToolError(f"{self.host} has voided envelope {envelope_id}, and does not show it so")
        if envelope.status != "voided":
            raise EnvelopeEnded(f"envelope {envelope_id} was {envelope.status} before it could be voided") from refusal
        return envelope

    async def _ask(self, method: str, path: str, **more: Any) -> dict[str, Any]:
        refusals = (httpx.codes.BAD_REQUEST, httpx.codes.NOT_FOUND)
        reply = await ask(self._client, method, path, reads=method == "GET", expected=refusals, **more)
        if reply.status not in refusals:
            return reply.document
        code, words = reply.document.get("errorCode"), f"{self.host}: {reply.status}: {clip(reply.document)}"
        if code in _LIMITS:
            raise Away(f"{words}; it takes no more requests for now", retry_after=AN_HOUR)
        if reply.status == httpx.codes.NOT_FOUND or code == "ENVELOPE_DOES_NOT_EXIST":
            raise _Unknown(words)
        raise Permanent(words)


class _Unknown(Permanent):
    """The provider has nothing by this id."""


def _as_envelope(letter: Letter, key: str) -> dict[str, Any]:
    """A letter in the provider's words."""
    fields = {REFERENCE: letter.reference, AMOUNT: f"{letter.amount:f}", CURRENCY: letter.currency}
    return {
        "status": "sent",
        "transactionId": key,
        "emailSubject": letter.subject,
        "documents": [
            {
                "documentId": "1",
                "name": letter.subject,
                "fileExtension": "txt",
                "documentBase64": base64.b64encode(letter.document.encode()).decode(),
            }
        ],
        "recipients": {"signers": [{"recipientId": "1", "email": letter.email, "name": letter.name}]},
        "customFields": {"textCustomFields": [{"name": name, "value": value} for name, value in fields.items()]},
    }


def _envelope_of(told: Mapping[str, Any]) -> Envelope:
    """An envelope from the provider's words. Raises LookupError, TypeError, ValueError."""
    fields = {field["name"]: field["value"] for field in told["customFields"]["textCustomFields"]}
    [signer] = told["recipients"]["signers"]
    status = STATUSES[told["status"].lower()]
    return Envelope(
        id=told["envelopeId"],
        status=status,
        email=signer["email"],
        name=signer["name"],
        reference=fields[REFERENCE],
        amount=fields[AMOUNT],
        currency=fields[CURRENCY],
        sent_at=told["sentDateTime"],
        ended_at=told.get(f"{status}DateTime") if status != "sent" else None,
        reason=told.get("voidedReason") or signer.get("declinedReason") or "",
    )


# -- the tools -------------------------------------------------------------------------------------------------------


def _system(call: Call) -> Signatures:
    return call.use(Signatures)  # type: ignore[type-abstract] # whichever this process was given


@tool
async def read(envelope_id: str, *, call: Call) -> Envelope | None:
    """Read an envelope as the signature system has it now."""
    system = _system(call)
    async with Providers.of(call.resources).asked(system.host):
        return await system.read(envelope_id)


async def _taken_back(envelope_id: str, reason: str, *, call: Call) -> Envelope | None:
    envelope = await _system(call).read(envelope_id)
    return envelope if envelope is not None and envelope.status == "voided" else None


@tool(writes="verifiable", verify=_taken_back)
async def void(
    envelope_id: Annotated[Line, Role.DESTINATION], reason: Annotated[Line, Role.CONTENT], *, call: Call
) -> Envelope:
    """Take a letter back before it is signed."""
    system = _system(call)
    async with Providers.of(call.resources).asked(system.host):
        return await system.void(envelope_id, reason)


async def _gone(
    email: str, name: str, reference: str, amount: Decimal, currency: str, subject: str, document: str, *, call: Call
) -> Envelope | None:
    return await _system(call).by_key(call.idempotency_key)


def _to_void(_asked: Any, sent: Envelope) -> dict[str, Any]:
    return {"envelope_id": sent.id, "reason": "taken back"}


@tool(writes="verifiable", verify=_gone, trusted=True, undo=Undo(void, _to_void))
async def send(
    email: Annotated[Line, Role.DESTINATION],
    name: Annotated[Line, Role.CONTENT],
    reference: Annotated[Line, Role.CONTENT],
    amount: Annotated[Amount, Role.AMOUNT],
    currency: Annotated[Currency, Role.AMOUNT],
    subject: Annotated[Line, Role.CONTENT],
    document: Annotated[str, Role.CONTENT],
    *,
    call: Call,
) -> Envelope:
    """Send a person a letter to sign."""
    letter = Letter(
        email=email,
        name=name,
        reference=reference,
        amount=amount,
        currency=currency,
        subject=subject,
        document=document,
    )
    system = _system(call)
    async with Providers.of(call.resources).asked(system.host):
        return await system.send(letter, key=call.idempotency_key)
