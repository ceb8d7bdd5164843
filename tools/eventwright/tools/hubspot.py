"""The book of leads in HubSpot: contacts, through its REST API (CRM v3).

A contact that we make bears our key in the unique property `eventwright_key`, so that a repeat finds it. HubSpot itself
lets no two contacts have one e-mail address: of two who add the same person at the same moment one is told so. Its
search lags behind by seconds; a contact is therefore also read by its address, which does not.

The account needs these contact properties beside HubSpot's own: `eventwright_key` (text, unique values),
`eventwright_grade`, `eventwright_points`, `eventwright_reasons`, `eventwright_company` (text), `eventwright_consent`
(true or false), `eventwright_street_number`, `eventwright_address_2` (text); and the token of a private app with the
scopes crm.objects.contacts.read, crm.objects.contacts.write and crm.objects.owners.read.
"""

from __future__ import annotations

import json
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from datetime import UTC, datetime, timedelta
from typing import Any, Self
from urllib.parse import quote

import httpx

from eventwright.tools.contract import Permanent, ToolError
from eventwright.tools.http_json import SECONDS, Away, Reply, ask, json_client
from eventwright.tools.leads_book import LOAD_DAYS, MOST_CANDIDATES, Contact, Details, Lead, LeadsBook, Qualification
from eventwright.tools.mail import ADDRESS

CONTACTS = "/crm/v3/objects/contacts"
OWNERS = "/crm/v3/owners"
#: Our names for HubSpot's properties.
PROPERTIES = {
    "given_name": "firstname",
    "surname": "lastname",
    "email": "email",
    "phone": "phone",
    "company": "company",
    "street_number": "eventwright_street_number",
    "address_1": "address",
    "address_2": "eventwright_address_2",
    "suburb": "city",
    "postcode": "zip",
    "state": "state",
    "date_of_birth": "date_of_birth",
}
KEY, GRADE, OWNER = "eventwright_key", "eventwright_grade", "hubspot_owner_id"
READ = ",".join((*PROPERTIES.values(), GRADE, OWNER))
#: The ways in which look-alikes are searched for; HubSpot takes five at once.
SEARCHES = (("email",), ("phone",), ("given_name", "surname"), ("surname", "postcode"), ("given_name", "postcode"))
NOT_FOUND, CONFLICT = httpx.codes.NOT_FOUND, httpx.codes.CONFLICT


class HubSpot(LeadsBook):
    """One account. `async with HubSpot.open(token) as book`."""

    def __init__(self, client: httpx.AsyncClient) -> None:
        self._client = client
        self.host = client.base_url.host
        self._addresses: dict[str, str] = {}

    @classmethod
    @asynccontextmanager
    async def open(
        cls, token: str, *, url: str = "https://api.hubapi.com", seconds: float = SECONDS
    ) -> AsyncIterator[Self]:
        """A client, closed at the end; nothing is connected yet."""
        async with json_client(url, token=token, seconds=seconds) as client:
            yield cls(client)

    async def contact(self, id: str) -> Contact | None:
        return await self._by(id)

    async def candidates(self, details: Details) -> list[Contact]:
        groups = []
        for names in SEARCHES:
            values = {PROPERTIES[name]: getattr(details, name) for name in names}
            if all(values.values()):
                filters = [{"propertyName": name, "operator": "EQ", "value": value} for name, value in values.items()]
                groups.append({"filters": filters})
        found: dict[str, Contact] = {}
        if details.email and (same := await self._by(details.email, "email")) is not None:
            found[same.id] = same
        if groups:
            reply = await self._search({"filterGroups": groups, "properties": READ.split(","), "limit": 100})
            found |= {contact.id: contact for contact in [await self._read(item) for item in reply["results"]]}
        return list(found.values())

    async def add(self, lead: Lead, *, knowing: Sequence[str], idempotency_key: str) -> Contact | None:
        ours = await self._by(idempotency_key, KEY)
        if ours is not None:
            return ours
        crowd = len(knowing) >= MOST_CANDIDATES
        if not crowd and {one.id for one in await self.candidates(lead)} - set(knowing):
            return None
        properties = _written(lead) | {KEY: idempotency_key}
        reply = await ask(
            self._client, "POST", CONTACTS, reads=False, expected=[CONFLICT], json={"properties": properties}
        )
        if reply.status != CONFLICT:
            return await self._read(reply.document)
        # Ours, from a call whose answer was lost; or somebody's with this address, who came just now.
        return await self._by(idempotency_key, KEY)

    async def amend(self, id: str, lead: Lead, *, idempotency_key: str) -> Contact:
        known = await self._known(id)
        written = _written(lead)
        kept = {PROPERTIES[name] for name in PROPERTIES if getattr(known, name)}
        return await self._patch(id, {name: value for name, value in written.items() if name not in kept})

    async def qualify(self, id: str, qualification: Qualification) -> Contact:
        return await self._patch(
            id,
            {
                GRADE: qualification.grade,
                "eventwright_points": str(qualification.points),
                "eventwright_reasons": "; ".join(qualification.reasons),
                "eventwright_company": json.dumps(qualification.company) if qualification.company else "",
            },
        )

    async def assign(self, id: str, among: Sequence[str]) -> Contact:
        known = await self._known(id)
        if known.owner:
            return known
        owners = [await self._owner_id(address) for address in among]
        loads = [await self._load(owner) for owner in owners]
        return await self._patch(id, {OWNER: owners[loads.index(min(loads))]})

    # -- what HubSpot is asked -----------------------------------------------------------------------------------------

    async def _known(self, id: str) -> Contact:
        found = await self._by(id)
        if found is None:
            raise Permanent(f"HubSpot has no contact {id!r}; leads_book.find_matches says whom it has")
        return found

    async def _by(self, value: str, name: str | None = None) -> Contact | None:
        """The contact with this id, or with this value of a unique property."""
        asked = {"properties": READ} | ({"idProperty": name} if name else {})
        reply = await ask(
            self._client, "GET", f"{CONTACTS}/{quote(value, safe='')}", reads=True, expected=[NOT_FOUND], params=asked
        )
        return None if reply.status == NOT_FOUND else await self._read(reply.document)

    async def _patch(self, id: str, properties: dict[str, str]) -> Contact:
        path = f"{CONTACTS}/{quote(id, safe='')}"
        reply = await ask(
            self._client, "PATCH", path, reads=False, expected=[NOT_FOUND], json={"properties": properties}
        )
        if reply.status == NOT_FOUND:
            raise Permanent(f"HubSpot has no contact {id!r}; leads_book.find_matches says whom it has")
        return await self._known(id)

    async def _search(self, asked: dict[str, Any]) -> dict[str, Any]:
        reply = await ask(self._client, "POST", f"{CONTACTS}/search", reads=True, json=asked)
        if not isinstance(reply.document.get("results"), list) or not isinstance(reply.document.get("total"), int):
            raise Away(f"{self.host} answers a search with something else than results")
        return reply.document

    async def _load(self, owner: str) -> int:
        since = datetime.now(UTC) - timedelta(days=LOAD_DAYS)
        filters = [
            {"propertyName": OWNER, "operator": "EQ", "value": owner},
            {"propertyName": "createdate", "operator": "GTE", "value": str(int(since.timestamp() * 1000))},
        ]
        return int((await self._search({"filterGroups": [{"filters": filters}], "limit": 1}))["total"])

    async def _owner_id(self, address: str) -> str:
        reply = await ask(self._client, "GET", OWNERS, reads=True, params={"email": address, "limit": 1})
        owners = reply.document.get("results") or []
        if not owners:
            raise Permanent(f"HubSpot has no user with the address {address!r} to own a contact")
        return str(owners[0]["id"])

    async def _address(self, owner: str) -> str:
        if owner not in self._addresses:
            reply: Reply = await ask(self._client, "GET", f"{OWNERS}/{quote(owner, safe='')}", reads=True)
            self._addresses[owner] = str(reply.document.get("email") or owner)
        return self._addresses[owner]

    async def _read(self, document: dict[str, Any]) -> Contact:
        properties = document.get("properties")
        if not isinstance(properties, dict) or not document.get("id"):
            raise ToolError(f"{self.host} answers with something else than a contact")
        told: dict[str, Any] = {ours: str(properties.get(theirs) or "") for ours, theirs in PROPERTIES.items()}
        owner = properties.get(OWNER)
        # What people type into HubSpot may be longer than what we would take.
        return Contact.model_construct(
            **told,
            id=str(document["id"]),
            owner=await self._address(str(owner)) if owner else "",
            grade=str(properties.get(GRADE) or ""),
        )


def _written(lead: Lead) -> dict[str, str]:
    """The properties of a form, without those that it leaves empty."""
    values = {theirs: getattr(lead, ours) for ours, theirs in PROPERTIES.items()}
    values |= {"message": lead.message, "eventwright_consent": "true" if lead.consent else ""}
    if lead.email and not ADDRESS.fullmatch(lead.email):
        # HubSpot refuses the whole contact for an address that is none; what was written is kept all the same.
        as_written = f"E-mail address, as written: {lead.email}"
        values |= {"email": "", "message": f"{lead.message}\n\n{as_written}".strip()}
    return {name: value for name, value in values.items() if value}
